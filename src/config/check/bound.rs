//! No address is bound twice. The kernel would refuse it at start, or worse, with SO_REUSEPORT share it.

use std::collections::{HashMap, HashSet};

use super::reference::{NamedListener, protocol};
use crate::border::addr::ListenAddr;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::protocol::Protocol;
use crate::config::tree::Span;

/// One address and the item of `bind` that it comes from.
#[derive(Clone)]
struct Bound<'a> {
    address: ListenAddr,
    listener: &'a str,
    span: Span,
}

/// What is bound on one port, so that a new address finds what it collides with without a look at all.
#[derive(Default)]
struct Port<'a> {
    exact: HashMap<ListenAddr, Bound<'a>>,
    wildcards: Vec<Bound<'a>>,
    all: Vec<Bound<'a>>,
}

/// More sockets than any machine binds in reasonable time; a file of ranges could name billions.
const MAX_ADDRESSES: usize = 200_000;

/// `None`: there are too many addresses to go on.
pub fn check(listeners: &[NamedListener], faults: &mut Faults) -> Option<()> {
    // A TCP and a UDP socket of the same port have nothing to do with each other: DNS has both.
    let mut ports: HashMap<(Protocol, u16), Port> = HashMap::new();
    let mut paths: HashMap<ListenAddr, Bound> = HashMap::new();
    // A range that overlaps another does so at many ports; it is one fault all the same.
    let mut reported: HashSet<(u32, u32)> = HashSet::new();
    let mut count = 0;
    for (name, listener) in listeners {
        let Some(listener) = listener else { continue };
        if let Some(bind) = listener.bind.given()
            && bind.value.is_empty()
        {
            let what = "this list of addresses is empty";
            let hint = "write the address to listen on: `bind: \":5432\"`";
            faults.error(Code::MissingKey, bind.span, what, hint);
        }
        let protocol = protocol(listener);
        for item in listener.bind.items() {
            count += item.value.count();
            if count > MAX_ADDRESSES {
                let message =
                    format!("up to here the listeners bind more than {MAX_ADDRESSES} addresses");
                faults.error(Code::OutOfRange, item.span, message, "bind fewer ports");
                return None;
            }
            for address in item.value.addresses() {
                let bound = Bound { address, listener: &name.value, span: item.span };
                let first = match bound.address {
                    ListenAddr::Unix(_) => paths.insert(bound.address.clone(), bound.clone()),
                    ListenAddr::DualStack(port) => collide(&mut ports, (protocol, port), &bound),
                    ListenAddr::Inet(inet) => collide(&mut ports, (protocol, inet.port()), &bound),
                };
                if let Some(first) = first
                    && reported.insert((first.span.id, bound.span.id))
                {
                    faults.push(bound_twice(&bound, &first));
                }
            }
        }
    }
    Some(())
}

/// Notes the address and says what it collides with. Port 0 is another port each time.
fn collide<'a>(
    ports: &mut HashMap<(Protocol, u16), Port<'a>>,
    port: (Protocol, u16),
    bound: &Bound<'a>,
) -> Option<Bound<'a>> {
    if port.1 == 0 {
        return None;
    }
    let port = ports.entry(port).or_default();
    if let Some(first) = port.exact.get(&bound.address) {
        return Some(first.clone());
    }
    let wildcard = match &bound.address {
        ListenAddr::Inet(inet) => inet.ip().is_unspecified(),
        ListenAddr::DualStack(_) | ListenAddr::Unix(_) => true,
    };
    // Who overlaps leaves it unclear to a reader who gets a connection. A port has three wildcards at most, so only they
    // look at all.
    let others = if wildcard { &port.all } else { &port.wildcards };
    let first = others.iter().find(|other| other.address.overlaps(&bound.address)).cloned();
    port.exact.insert(bound.address.clone(), bound.clone());
    port.all.push(bound.clone());
    if wildcard {
        port.wildcards.push(bound.clone());
    }
    first
}

fn bound_twice(bound: &Bound, first: &Bound) -> Fault {
    let shown = bound.address.to_string();
    let message = if bound.address == first.address {
        format!("the address {} is bound twice", quote(&shown))
    } else {
        format!(
            "the address {} overlaps {}, which is bound too",
            quote(&shown),
            quote(&first.address.to_string())
        )
    };
    let by = if bound.listener == first.listener {
        "by the same listener".to_owned()
    } else {
        format!("by the listener {}", quote(first.listener))
    };
    let hint = "give one of the two another port or address";
    Fault::error(Code::BoundTwice, bound.span, message, hint)
        .also(first.span, format!("bound here {by}"))
}
