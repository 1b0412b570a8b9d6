//! The status page: one self-contained document. Rust writes all of it, so that it works without JavaScript; the
//! script fetches it again, updates what differs, draws the charts and requests changes. Everything from a
//! configuration is escaped.

mod cells;
mod figures;
pub mod policy;
mod pools;
mod tables;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use serde_json::Value;

use super::{State, answers};
use crate::border::plane::Plane;
use crate::border::snapshot::Snapshot;
use crate::data::pool::Pool;
use crate::data::pool::backend::BackendState;
use crate::telemetry::history::Kept;
use figures::{UNKNOWN, age, byte_rate, count, escape, rate};
use verdict::{Found, Verdict, judge};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// The dialog for a change; the script opens it.
const DIALOG: &str = include_str!("dialog.html");

pub fn render(state: &State) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut page, state, SystemTime::now());
    page
}

fn write(page: &mut String, state: &State, now: SystemTime) -> std::fmt::Result {
    let snapshot = state.sources.plane.snapshot.load_full();
    let pools = snapshot.config.pools.iter().filter_map(|pool| snapshot.pools.get(&pool.name));
    let pools: Vec<&Pool> = pools.map(|pool| &**pool).collect();
    let verdict = judge(&find(state, &snapshot, &pools));
    let info = answers::info(state);
    let kept = state.history.kept();
    write!(
        page,
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>{}</title>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <noscript><meta http-equiv=refresh content=5></noscript><style>{STYLE}</style></head><body>\
         <main id=page data-version=\"{}\" data-changes={}>",
        escape(&verdict.title),
        escape(state.version),
        info["changes"].as_str().unwrap_or("none"),
    )?;
    header(page, state, &info, &verdict)?;
    facts(page, state, &info, &kept, now)?;
    pools::write(page, &pools, &kept, now)?;
    tables::listeners(page, state, &kept)?;
    page.push_str("<div class=two>");
    tables::errors(page, &snapshot, &kept)?;
    tables::events(page, state, now)?;
    page.push_str("</div>");
    charts(page);
    write!(page, "</main>{DIALOG}<script>{SCRIPT}</script></body></html>")
}

fn find(state: &State, snapshot: &Snapshot, pools: &[&Pool]) -> Found {
    let reloads = &state.sources.reloads;
    let mut found = Found {
        draining: state.sources.plane.draining.load(Relaxed),
        reload_refused: reloads.refusal().clone(),
        ..Found::default()
    };
    for (path, why) in &*reloads.stale_files() {
        found.stale.push((path.display().to_string(), why.clone()));
    }
    // A server may be in several pools.
    let mut servers: BTreeMap<String, (BackendState, usize)> = BTreeMap::new();
    for pool in pools {
        for backend in &pool.backends {
            let state = backend.status().state;
            let (worst, pools) = servers.entry(backend.address.to_string()).or_insert((state, 0));
            *worst = std::cmp::min_by_key(*worst, state, |state| pools::rank(*state));
            *pools += 1;
        }
        if pool.shared.is_in_conflict.load(Relaxed) {
            found.conflicts.push(pool.name.to_string());
        }
        if pool.shared.is_blind.load(Relaxed) {
            found.blind.push(pool.name.to_string());
        }
        if pool.is_deserted() {
            found.deserted.push(pool.name.to_string());
        }
    }
    for (address, (state, pools)) in servers {
        found.states[state as usize] += 1;
        if state == BackendState::Standby && pools > 1 {
            found.unused.push(address);
        }
    }
    for listener in &snapshot.config.listeners {
        let active = snapshot.listeners.get(&listener.name).map(|it| it.live.active.load(Relaxed));
        if active.zip(listener.session_limit()).is_some_and(|(active, limit)| active >= limit) {
            found.full.push(listener.name.to_string());
        }
    }
    found
}

fn header(page: &mut String, state: &State, info: &Value, verdict: &Verdict) -> std::fmt::Result {
    write!(
        page,
        "<header><h1>maitred {}</h1>\
         <p id=state class=\"state {}\" aria-live=polite><span aria-hidden=true>{}</span> {}</p>\
         <p id=link data-mine hidden></p>",
        escape(state.version),
        verdict.level.class(),
        verdict.level.symbol(),
        escape(&verdict.sentence),
    )?;
    let mut notes = verdict.notes.clone();
    if info["draining"] == true {
        notes.push("Open sessions have until process.shutdown.timeout to end.".to_owned());
    }
    if !notes.is_empty() {
        page.push_str("<ul class=notes>");
        for note in notes {
            write!(page, "<li>{}</li>", escape(&note))?;
        }
        page.push_str("</ul>");
    }
    page.push_str("</header>");
    Ok(())
}

fn facts(
    page: &mut String,
    state: &State,
    info: &Value,
    kept: &Kept,
    now: SystemTime,
) -> std::fmt::Result {
    let of = |active: &str, limit: &str| {
        let figure = |key: &str| count(info[key].as_u64().unwrap_or(0));
        format!("{}<small> of {}</small>", figure(active), figure(limit))
    };
    let newest = kept.all.back();
    let known =
        |text: fn(f32) -> String, rate: Option<f32>| rate.map_or_else(|| UNKNOWN.to_owned(), text);
    let rates = newest.map(|point| point.rates);
    let since = |then: SystemTime| age(now.duration_since(then).unwrap_or_default());
    // Without a UDP listener there are no flows, and never will be.
    let has_flows =
        info["flows_limit"].as_u64().unwrap_or(0) + info["flows_active"].as_u64().unwrap_or(0) > 0;
    let flows = if has_flows { of("flows_active", "flows_limit") } else { String::new() };
    page.push_str("<dl class=facts>");
    for (name, text) in [
        ("sessions open", of("sessions_active", "sessions_limit")),
        ("flows open", flows),
        ("new/s", known(rate, rates.map(|it| it.sessions))),
        ("failed/s", known(rate, rates.map(|it| it.failures))),
        ("from clients", known(byte_rate, rates.map(|it| it.received_bytes))),
        ("to clients", known(byte_rate, rates.map(|it| it.sent_bytes))),
        ("config read", format!("{} <small>ago</small>", since(state.sources.reloads.read()))),
        ("started", format!("{} <small>ago</small>", since(state.started))),
    ] {
        if !text.is_empty() {
            write!(page, "<div><dt>{name}</dt><dd>{text}</dd></div>")?;
        }
    }
    let workers = plural_workers(&state.sources.plane);
    write!(
        page,
        "</dl><p class=soft>{workers}. Rates are the mean of the last ten seconds; {UNKNOWN} means that nothing is known \
         yet.</p>"
    )
}

fn plural_workers(plane: &Plane) -> String {
    figures::several(plane.workers.len(), "worker", "workers")
}

/// The script fills it.
fn charts(page: &mut String) {
    page.push_str(
        "<section><h2 id=hour>The last hour</h2>\
         <p class=\"soft plain\">Charts need JavaScript; <code>/api/v1/history</code> has their figures.</p>\
         <div data-mine><p class=act><label>of <select id=of></select></label></p><div id=charts></div></div></section>",
    );
}
