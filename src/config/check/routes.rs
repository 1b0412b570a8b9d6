//! Routes of a listener: one that an earlier one hides is worth a word. That their pools exist is checked
//! with the listener's own.

use ipnet::IpNet;

use crate::config::NamePattern;
use crate::config::decode::Given;
use crate::config::fault::{Code, Fault, Faults};
use crate::config::keys::{Listener, Route};

/// Pairs of routes compared at most: a file may have very many routes.
const MAX_COMPARED: usize = 1_000;

pub fn check(listener: &Given<Listener>, routes: &[Route], faults: &mut Faults) {
    let given = listener.routes.items();
    for (index, own) in routes.iter().enumerate().take(MAX_COMPARED) {
        let Some(earlier) = routes[..index].iter().position(|earlier| covers(earlier, own)) else {
            continue;
        };
        let message = "no session comes to this route: an earlier one takes them all";
        let fault = Fault::warning(Code::WithoutEffect, given[index].span, message);
        faults.push(
            fault
                .also(given[earlier].span, "this one, and the first that holds wins")
                .hint("put the narrower route first, or remove this one"),
        );
    }
}

/// Whether `earlier` holds wherever `later` does.
fn covers(earlier: &Route, later: &Route) -> bool {
    all_covered(&earlier.server_name, &later.server_name, NamePattern::covers)
        && all_covered(&earlier.alpn, &later.alpn, Vec::eq)
        && all_covered(&earlier.client, &later.client, |wide: &IpNet, narrow| wide.contains(narrow))
        && (earlier.port.is_none() || earlier.port == later.port)
}

/// Of an empty list nothing is asked.
fn all_covered<T>(earlier: &[T], later: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    earlier.is_empty()
        || !later.is_empty()
            && later.iter().all(|later| earlier.iter().any(|earlier| covers(earlier, later)))
}
