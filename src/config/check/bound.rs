//! No address is bound twice. The kernel would refuse it at start, or worse, with SO_REUSEPORT share it.

use std::collections::{HashMap, HashSet};

use crate::addr::ListenAddr;
use crate::config::decode::Placed;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::raw;
use crate::config::tree::Span;

/// One address and the item of `bind` that it comes from.
#[derive(Clone, Copy)]
struct Bound<'a> {
    address: &'a ListenAddr,
    listener: &'a str,
    span: Span,
}

pub fn check(listeners: &[(Placed<String>, Option<raw::Listener>)], faults: &mut Faults) {
    // Only addresses of one port, or one path, can collide.
    let mut by_port: HashMap<u16, Vec<Bound>> = HashMap::new();
    let mut by_path = HashMap::new();
    // A range that overlaps another does so at many ports; it is one fault all the same.
    let mut reported: HashSet<(u32, u32)> = HashSet::new();
    for (name, listener) in listeners {
        let Some(listener) = listener else { continue };
        listener.bind.require(
            "bind",
            listener.span,
            "write the address to listen on: `bind: \":5432\"`",
            faults,
        );
        for item in listener.bind.value().into_iter().flat_map(|bind| &bind.0) {
            for address in &item.value.0 {
                let bound = Bound { address, listener: &name.value, span: item.span };
                let first = match address {
                    ListenAddr::Unix(path) => match by_path.insert(path, bound) {
                        Some(first) => Some(first),
                        None => continue,
                    },
                    ListenAddr::DualStack(port) => collide(&mut by_port, *port, bound),
                    ListenAddr::Inet(inet) => collide(&mut by_port, inet.port(), bound),
                };
                if let Some(first) = first
                    && reported.insert((first.span.id, bound.span.id))
                {
                    faults.push(bound_twice(bound, first));
                }
            }
        }
        if listener.bind.value().is_some_and(|bind| bind.0.is_empty()) {
            let span = listener.bind.span().unwrap_or(listener.span);
            let fault = Fault::error(Code::MissingKey, span, "this list of addresses is empty");
            faults.push(fault.hint("write the address to listen on: `bind: \":5432\"`"));
        }
    }
}

/// Port 0 is another port each time.
fn collide<'a>(
    by_port: &mut HashMap<u16, Vec<Bound<'a>>>,
    port: u16,
    bound: Bound<'a>,
) -> Option<Bound<'a>> {
    if port == 0 {
        return None;
    }
    let others = by_port.entry(port).or_default();
    let first = others.iter().find(|other| overlap(other.address, bound.address)).copied();
    others.push(bound);
    first
}

/// Whether two addresses of one port claim a common one. Every address contains the specific ones of its
/// family: the kernel refuses to listen on both unless each socket asked for it, and then it is unclear to
/// a reader who gets the connection.
fn overlap(a: &ListenAddr, b: &ListenAddr) -> bool {
    match (a, b) {
        (ListenAddr::Inet(a), ListenAddr::Inet(b)) => {
            a.is_ipv4() == b.is_ipv4()
                && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
        }
        (ListenAddr::Unix(_), _) | (_, ListenAddr::Unix(_)) => a == b,
        (ListenAddr::DualStack(_), _) | (_, ListenAddr::DualStack(_)) => true,
    }
}

fn bound_twice(bound: Bound, first: Bound) -> Fault {
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
    Fault::error(Code::BoundTwice, bound.span, message)
        .also(first.span, format!("bound here {by}"))
        .hint("give one of the two another port or address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address::listen;

    fn overlapping(a: &str, b: &str) -> bool {
        overlap(&listen(a).unwrap()[0], &listen(b).unwrap()[0])
    }

    #[test]
    fn a_wildcard_overlaps_what_it_contains() {
        assert!(overlapping(":1", "0.0.0.0:1"));
        assert!(overlapping("[::]:1", ":1"));
        assert!(overlapping(":1", "10.0.0.1:1"));
        assert!(overlapping("0.0.0.0:1", "10.0.0.1:1"));
        assert!(overlapping("[::1]:1", "[::]:1"));
        assert!(!overlapping("[::]:1", "0.0.0.0:1"));
        assert!(!overlapping("10.0.0.2:1", "10.0.0.1:1"));
        assert!(!overlapping("[::]:1", "10.0.0.1:1"));
    }
}
