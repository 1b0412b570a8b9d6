//! Listeners whose pools lead back to them, over the backends that the configuration lists: a client, or a probe alone,
//! would go round until nothing is left.

use std::collections::HashMap;

use super::reference::{NamedListener, NamedPool, addresses, protocol};
use crate::border::addr::BackendAddr;
use crate::config::decode::Given;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::keys::{Listener, Pool};
use crate::config::tree::Span;

/// From one listener to another, by the backend whose address is there.
struct Step<'a> {
    to: usize,
    address: &'a BackendAddr,
    at: Span,
}

/// Reports each backend that closes a circle.
pub fn check(listeners: &[NamedListener], pools: &[NamedPool], faults: &mut Faults) {
    let pools: HashMap<&str, &Given<Pool>> = pools
        .iter()
        .filter_map(|(name, pool)| Some((name.value.as_str(), pool.as_ref()?)))
        .collect();
    let steps: Vec<Vec<Step>> =
        listeners.iter().map(|(_, listener)| steps(listener.as_ref(), listeners, &pools)).collect();
    let mut seen = vec![Seen::Not; listeners.len()];
    for start in 0..listeners.len() {
        walk(start, listeners, &steps, &mut seen, faults);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Seen {
    Not,
    OnTheWay,
    Done,
}

/// Depth first, without recursion: there may be as many listeners as a file holds.
fn walk(
    start: usize,
    listeners: &[NamedListener],
    steps: &[Vec<Step>],
    seen: &mut [Seen],
    faults: &mut Faults,
) {
    if seen[start] != Seen::Not {
        return;
    }
    seen[start] = Seen::OnTheWay;
    let mut way = vec![(start, 0)];
    while let Some((here, next)) = way.last_mut() {
        let Some(step) = steps[*here].get(*next) else {
            seen[*here] = Seen::Done;
            way.pop();
            continue;
        };
        *next += 1;
        match seen[step.to] {
            Seen::Not => {
                seen[step.to] = Seen::OnTheWay;
                way.push((step.to, 0));
            }
            Seen::OnTheWay => {
                let name = quote(&listeners[step.to].0.value);
                let address = quote(&step.address.to_string());
                let message = match step.to == *here {
                    true => format!("the backend {address} is the listener {name} itself"),
                    false => format!(
                        "the backend {address} is the listener {name}, which leads here again"
                    ),
                };
                let bind = listeners[step.to].1.as_ref().and_then(|it| it.bind.span());
                let hint = match step.address {
                    BackendAddr::InetClientPort(_) => {
                        "give it its port: without one it is reached on the port the client dialled"
                    }
                    _ => "write the address of another program",
                };
                let fault = Fault::error(Code::Circular, step.at, message, hint);
                faults.push(fault.also(bind, "the listener binds it here"));
            }
            Seen::Done => {}
        }
    }
}

fn steps<'a>(
    listener: Option<&'a Given<Listener>>,
    listeners: &[NamedListener],
    pools: &HashMap<&str, &'a Given<Pool>>,
) -> Vec<Step<'a>> {
    let Some(listener) = listener else { return Vec::new() };
    let of_routes = listener.routes.items().iter().map(|route| &route.value.pool);
    let names =
        std::iter::once(&listener.pool).chain(of_routes).filter_map(|it| it.value()?.as_deref());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    names.dedup();
    let pools = names.iter().filter_map(|name| pools.get(name));
    let mut steps = Vec::new();
    for given in pools.flat_map(|pool| addresses(pool)) {
        let Some(address) = given.value.at() else { continue };
        let leads_to = |other: &Given<Listener>| {
            // A port that the client dialled is a port of this listener.
            let is_own = std::ptr::eq(other, listener);
            let may_be = is_own || !matches!(address, BackendAddr::InetClientPort(_));
            may_be
                && protocol(other) == protocol(listener)
                && other.bind.items().iter().any(|bind| bind.value.covers(address))
        };
        let others = listeners.iter().enumerate();
        let to = others.filter(|(_, (_, it))| it.as_ref().is_some_and(leads_to));
        steps.extend(to.map(|(to, _)| Step { to, address, at: given.span }));
    }
    steps
}
