//! Routes of a listener: built, and one that an earlier one hides is worth a word. That their pools exist is checked
//! with the listener's own.

use std::sync::Arc;

use ipnet::IpNet;

use crate::config::fault::{Code, Fault, Faults};
use crate::config::raw;
use crate::config::{NamePattern, Route};

/// Pairs of routes compared at most: a file may have very many routes.
const MAX_COMPARED: usize = 1_000;

pub fn build(raw: &raw::Listener, faults: &mut Faults) -> Vec<Route> {
    let given = raw.routes.value().map_or(&[][..], Vec::as_slice);
    for route in given {
        let hint = "name the pool of these sessions; `pool: none` closes them";
        route.pool.require("pool", route.span, hint, faults);
    }
    let routes: Vec<Route> = given.iter().map(route).collect();
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
    routes
}

fn route(raw: &raw::Route) -> Route {
    Route {
        server_name: raw
            .server_name
            .value()
            .into_iter()
            .flatten()
            .map(|it| it.value.clone())
            .collect(),
        alpn: raw
            .alpn
            .value()
            .into_iter()
            .flatten()
            .map(|it| it.value.0.clone().into_bytes())
            .collect(),
        client: raw.client.value().into_iter().flatten().map(|it| it.value.0).collect(),
        port: raw.port.copied().and_then(|none| none.0).and_then(|port| u16::try_from(port.0).ok()),
        pool: raw.pool.value().and_then(|pool| pool.0.as_deref().map(Arc::from)),
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
