//! The part of the page below the pools: listeners, errors by reason, the last events. Each is bounded.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::Value;

use super::cells::{cell, heads, reasons, since_then, spare_cell};
use super::figures::{UNKNOWN, byte_rate, count, escape, rate, several};
use crate::admin::{State, answers};
use crate::border::datagrams::Dropped;
use crate::border::record::CloseReason;
use crate::border::snapshot::Snapshot;
use crate::telemetry::history::{Kept, Rates};

/// Listeners shown, and addresses of each: the API has the rest.
const LISTENERS: usize = 100;
const ADDRESSES: usize = 3;
const ROUTES: usize = 5;

/// Events shown, newest first.
const EVENTS: usize = 20;

pub fn listeners(page: &mut String, state: &State, kept: &Kept) -> std::fmt::Result {
    let snapshot = state.sources.plane.snapshot.load_full();
    let answer = answers::listeners(state);
    let rows = answer["listeners"].as_array().map_or(&[][..], Vec::as_slice);
    page.push_str("<section><h2>Listeners</h2>");
    if rows.is_empty() {
        page.push_str("<p class=soft>No listeners are configured.</p></section>");
        return Ok(());
    }
    write!(
        page,
        "<div class=\"card wide\"><table class=rows role=table><caption>Listeners</caption><thead role=rowgroup>\
         <tr role=row>{}</tr></thead><tbody role=rowgroup>",
        heads(&[
            ("listener", ""),
            ("address", ""),
            ("pool, routes", ""),
            ("open, limit", "n"),
            ("new/s", "n"),
            ("from clients", "n"),
            ("to clients", "n"),
            ("refused", ""),
        ])
    )?;
    for row in rows.iter().take(LISTENERS) {
        let live = row["name"].as_str().and_then(|name| snapshot.listeners.get(name));
        listener(page, row, live.and_then(|listener| kept.listener(&listener.live)))?;
    }
    page.push_str("</tbody></table></div>");
    let left_out = rows.len().saturating_sub(LISTENERS);
    if left_out > 0 {
        let listeners = several(left_out, "listener is", "listeners are");
        write!(
            page,
            "<p class=soft>{listeners} not shown here: <code>maitred show listeners</code> has all.</p>"
        )?;
    }
    page.push_str("</section>");
    Ok(())
}

fn listener(page: &mut String, row: &Value, rates: Option<Rates>) -> std::fmt::Result {
    let text = |key: &str| row[key].as_str().map_or_else(|| UNKNOWN.to_owned(), escape);
    let known = |write: fn(f32) -> String, of: fn(Rates) -> f32| {
        rates.map_or_else(|| UNKNOWN.to_owned(), |rates| write(of(rates)))
    };
    let name = text("name");
    let addresses = row["addresses"].as_array().map_or(&[][..], Vec::as_slice);
    let mut shown: Vec<String> =
        addresses.iter().take(ADDRESSES).filter_map(Value::as_str).map(escape).collect();
    if addresses.len() > ADDRESSES {
        shown.push(format!("and {} more", addresses.len() - ADDRESSES));
    }
    write!(
        page,
        "<tr role=row data-key=\"{name}\"><th role=rowheader scope=row>{name}<small>{}</small></th>",
        text("protocol")
    )?;
    let limit = row["sessions_limit"].as_u64().map_or_else(|| "no limit".to_owned(), count);
    cell(page, "address", "any", &shown.join(", "))?;
    cell(page, "pool", "any", &(text("pool") + &routes(row)))?;
    let open = count(row["sessions_active"].as_u64().unwrap_or(0));
    cell(page, "open, limit", "n", &format!("{open}<small>{limit}</small>"))?;
    cell(page, "new/s", "n", &known(rate, |rates| rates.sessions))?;
    spare_cell(page, "from clients", "n", &known(byte_rate, |rates| rates.received_bytes))?;
    spare_cell(page, "to clients", "n", &known(byte_rate, |rates| rates.sent_bytes))?;
    spare_cell(page, "refused", "why", &reasons(&row["refused"]))?;
    page.push_str("</tr>");
    Ok(())
}

/// The first of them, each on a line.
fn routes(row: &Value) -> String {
    let routes = row["routes"].as_array().map_or(&[][..], Vec::as_slice);
    let small = |text: &str| format!("<small>{text}</small>");
    let shown = routes.iter().take(ROUTES).filter_map(Value::as_str);
    let mut text: String = shown.map(|route| small(&escape(route))).collect();
    if routes.len() > ROUTES {
        text += &small(&format!("and {} more routes", routes.len() - ROUTES));
    }
    text
}

/// Failed sessions and flows, and dropped datagrams, by reason; only reasons that occurred.
pub fn errors(page: &mut String, snapshot: &Snapshot, kept: &Kept) -> std::fmt::Result {
    let listeners = || snapshot.listeners.values();
    let failed = CloseReason::ALL.into_iter().map(|reason| {
        let total: u64 = listeners().map(|listener| listener.failed(reason)).sum();
        let now = kept.failing(reason).map_or_else(|| UNKNOWN.to_owned(), rate);
        ("session", reason.as_str(), total, now)
    });
    let dropped = Dropped::ALL.into_iter().map(|reason| {
        let of = |cells: &crate::border::snapshot::ListenerLive| {
            cells.datagrams.sum(|cell| cell.dropped(reason).value())
        };
        let total: u64 = listeners().map(|listener| of(&listener.live)).sum();
        ("datagram", reason.as_str(), total, UNKNOWN.to_owned())
    });
    let mut rows: Vec<_> = failed.chain(dropped).filter(|(_, _, total, _)| *total > 0).collect();
    rows.sort_by_key(|(_, _, total, _)| std::cmp::Reverse(*total));
    page.push_str("<section><h2>Errors by reason</h2>");
    if rows.is_empty() {
        page.push_str("<p class=soft>0: no session has failed since the start.</p></section>");
        return Ok(());
    }
    write!(
        page,
        "<div class=\"card wide\"><table><caption>Failed sessions and dropped datagrams, by reason</caption>\
         <thead><tr>{}</tr></thead><tbody>",
        heads(&[("reason", ""), ("since the start", "n"), ("a second now", "n")])
    )?;
    for (what, reason, total, now) in rows {
        write!(
            page,
            "<tr data-key=\"{what} {reason}\"><th scope=row>{reason}<small>{what}</small></th><td class=n>{}</td>\
             <td class=n>{now}</td></tr>",
            count(total)
        )?;
    }
    page.push_str("</tbody></table></div></section>");
    Ok(())
}

pub fn events(page: &mut String, state: &State, now: SystemTime) -> std::fmt::Result {
    page.push_str("<section><h2>Last events</h2>");
    let events = state.events.all();
    if events.is_empty() {
        page.push_str("<p class=soft>Nothing has happened yet.</p></section>");
        return Ok(());
    }
    write!(
        page,
        "<div class=\"card wide\"><table class=events><caption>Last events, newest first</caption><thead><tr>{}</tr></thead><tbody>",
        heads(&[("ago", ""), ("what", "")])
    )?;
    for event in events.iter().rev().take(EVENTS) {
        let ago = since_then(&answers::time(event.time), now);
        let whose = event.pool.as_ref().zip(event.backend.as_ref());
        let whose = whose.filter(|(_, backend)| !event.message.contains(&**backend));
        let whose = whose.map_or_else(String::new, |(pool, backend)| {
            format!("<small>{} of {}</small>", escape(backend), escape(pool))
        });
        let message = escape(&event.message);
        write!(page, "<tr><td class=n>{ago}</td><td class=why>{message}{whose}</td></tr>")?;
    }
    page.push_str("</tbody></table></div></section>");
    Ok(())
}
