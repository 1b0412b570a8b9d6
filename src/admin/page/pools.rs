//! Pools and their backends on the page: those with a problem first, and a limited number of rows.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::cells::{cell, heads, reasons, since_then, spare_cell};
use super::figures::{UNKNOWN, age, byte_rate, count, escape, rate, several};
use crate::admin::answers;
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, BackendState};
use crate::telemetry::history::{Kept, Rates};

/// Rows of backends, and heads of pools, on one page: a browser that fetches them every two seconds stays fast.
const ROWS: usize = 500;

/// A pool and those of its backends that are shown, in the order in which they are shown.
struct Shown<'a> {
    pool: &'a Pool,
    rows: Vec<&'a Arc<Backend>>,
    states: [usize; BackendState::ALL.len()],
}

pub fn write(page: &mut String, pools: &[&Pool], kept: &Kept, now: SystemTime) -> std::fmt::Result {
    let (shown, left_out) = choose(pools, ROWS);
    page.push_str("<section><h2>Pools</h2>");
    for pool in &shown {
        section(page, pool, kept, now)?;
    }
    if pools.is_empty() {
        page.push_str("<p class=soft>No pools are configured.</p>");
    }
    if left_out > 0 {
        let backends = several(left_out, "backend is", "backends are");
        write!(
            page,
            "<p class=soft>{backends} not shown here, of those in least trouble: <code>maitred show pools</code> and \
             <code>/api/v1/pools</code> have all.</p>"
        )?;
    }
    page.push_str("</section>");
    Ok(())
}

/// The worse, the sooner it is shown.
pub(super) fn rank(state: BackendState) -> u8 {
    match state {
        BackendState::Down => 0,
        BackendState::Ejected => 1,
        BackendState::Maintenance => 2,
        BackendState::Drain => 3,
        BackendState::Starting => 4,
        BackendState::Up => 5,
        BackendState::Standby => 6,
    }
}

/// What is shown, pools with a problem first, and how many backends are not. A pool's head takes a row as well.
fn choose<'a>(pools: &[&'a Pool], rows: usize) -> (Vec<Shown<'a>>, usize) {
    let mut all: Vec<(u8, usize, &'a Pool, &'a Arc<Backend>)> = Vec::new();
    let mut states = vec![[0; BackendState::ALL.len()]; pools.len()];
    for (index, pool) in pools.iter().enumerate() {
        for backend in &pool.backends {
            let state = backend.status().state;
            states[index][state as usize] += 1;
            // In a pool that no backend serves, a standby is a problem, too.
            let is_missed = state == BackendState::Standby && pool.is_deserted();
            let worst = rank(BackendState::Down);
            all.push((if is_missed { worst } else { rank(state) }, index, pool, backend));
        }
    }
    let total = all.len();
    // Stable: in the order of the file if the problem is the same.
    all.sort_by_key(|(rank, ..)| *rank);
    let mut shown: Vec<Option<Shown>> = pools.iter().map(|_| None).collect();
    let mut order = Vec::new();
    let (mut room, mut taken) = (rows, 0);
    let empty = pools.iter().enumerate().filter(|(_, pool)| pool.backends.is_empty());
    let empty = empty.map(|(index, pool)| (index, *pool, None));
    let rows = all.into_iter().map(|(_, index, pool, backend)| (index, pool, Some(backend)));
    // Pools without backends come last: a thousand of them must not hide a problem.
    for (index, pool, backend) in rows.chain(empty) {
        let cost = usize::from(shown[index].is_none()) + usize::from(backend.is_some());
        if room < cost {
            continue;
        }
        room -= cost;
        let entry = shown[index].get_or_insert_with(|| {
            order.push(index);
            Shown { pool, rows: Vec::new(), states: states[index] }
        });
        taken += usize::from(backend.is_some());
        entry.rows.extend(backend);
    }
    let shown = order.into_iter().filter_map(|index| shown[index].take());
    (shown.collect(), total - taken)
}

fn section(page: &mut String, shown: &Shown, kept: &Kept, now: SystemTime) -> std::fmt::Result {
    let Shown { pool, rows, states } = shown;
    let name = escape(&pool.name);
    let all = pool.backends.len();
    let mut words = vec![pool.config.balance.as_str().replace('_', " ")];
    for state in BackendState::ALL.into_iter().filter(|state| states[*state as usize] > 0) {
        words.push(format!("{} of {all} {}", states[state as usize], state.as_str()));
    }
    let held = pool.shared.queue.held();
    if held > 0 {
        words.push(format!(
            "{} waiting for a backend",
            several(held as usize, "session", "sessions")
        ));
    }
    let none_up = pool.shared.no_backend.value();
    if none_up > 0 {
        words.push(format!("no backend up {} times", count(none_up)));
    }
    write!(
        page,
        "<section class=card data-key=\"{name}\"><div class=head><h3>{name}</h3><small>{}</small></div>",
        words.join(" · ")
    )?;
    if all == 0 {
        page.push_str("<p class=none>This pool has no backends.</p></section>");
        return Ok(());
    }
    write!(
        page,
        "<div class=wide><table class=\"rows backends\" role=table><caption>Backends of pool {name}</caption><thead role=rowgroup>\
         <tr role=row>{}</tr></thead><tbody role=rowgroup>",
        heads(&[
            ("backend", ""),
            ("state", ""),
            ("why", ""),
            ("weight", "n"),
            ("open", "n"),
            ("new/s", "n"),
            ("bytes", "n"),
            ("connect p50", "n"),
            ("failed", ""),
            ("change", "act"),
        ])
    )?;
    for backend in rows {
        row(page, &pool.name, &answers::backend_json(backend), kept.backend(&backend.live), now)?;
    }
    page.push_str("</tbody></table></div>");
    for (name, live) in pool.departed() {
        let Some(gone) = answers::removed_json(name, &live) else { continue };
        let open = sessions(&gone["sessions_active"]);
        let closing = closing(&gone["closing"]).map(|it| format!(" ({it})")).unwrap_or_default();
        write!(page, "<p class=none>{} was removed; {open} open{closing}.</p>", escape(name))?;
    }
    let hidden = all - rows.len();
    if hidden > 0 {
        write!(
            page,
            "<p class=none>{} of this pool not shown.</p>",
            several(hidden, "backend", "backends")
        )?;
    }
    page.push_str("</section>");
    Ok(())
}

/// One backend as the API describes it.
fn row(
    page: &mut String,
    pool: &str,
    backend: &Value,
    rates: Option<Rates>,
    now: SystemTime,
) -> std::fmt::Result {
    let text = |key: &str| escape(backend[key].as_str().unwrap_or_default());
    let (name, address, state) = (text("name"), text("address"), text("state"));
    let small = |text: &str| format!("<small>{text}</small>");
    write!(
        page,
        "<tr role=row class={state} data-key=\"{name}\"><th role=rowheader scope=row>{name}"
    )?;
    if address != name {
        page.push_str(&small(&address));
    }
    page.push_str("</th>");
    let known = |write: fn(f32) -> String, of: fn(Rates) -> f32| {
        rates.map_or_else(|| UNKNOWN.to_owned(), |rates| write(of(rates)))
    };
    let since =
        backend["since"].as_str().map(|since| small(&format!("for {}", since_then(since, now))));
    let as_word = format!("<span class=\"as {state}\">{} {state}</span>", symbol(&state));
    let down = backend["down_seconds"].as_u64().filter(|seconds| *seconds > 0);
    let down =
        down.map(|seconds| small(&format!("down {} in all", age(Duration::from_secs(seconds)))));
    let state_cell = as_word + &since.unwrap_or_default() + &down.unwrap_or_default();
    cell(page, "state", "state-of", &state_cell)?;
    let by_hand = by_hand(&backend["set_by_hand"], now).map(|it| small(&it)).unwrap_or_default();
    let closing = closing(&backend["closing"]).map(|it| small(&it)).unwrap_or_default();
    cell(page, "why", "why", &(text("why") + &by_hand + &closing))?;
    let tier = backend["tier"].as_u64().filter(|tier| *tier > 0);
    let tier = tier.map(|tier| small(&format!("tier {tier}"))).unwrap_or_default();
    let figure = |key: &str| count(backend[key].as_u64().unwrap_or(0));
    cell(page, "weight", "n", &(figure("weight") + &tier))?;
    let limit = backend["sessions_limit"].as_u64();
    let limit = limit.map(|limit| small(&format!("of {}", count(limit)))).unwrap_or_default();
    let most = small(&format!("most {}", figure("sessions_peak")));
    cell(page, "open", "n", &(figure("sessions_active") + &limit + &most))?;
    cell(page, "new/s", "n", &known(rate, |rates| rates.sessions))?;
    let bytes = rates.filter(|rates| rates.received_bytes + rates.sent_bytes > 0.0).map(|rates| {
        let (from, to) = (byte_rate(rates.received_bytes), byte_rate(rates.sent_bytes));
        small(&format!("from {from}")) + &small(&format!("to {to}"))
    });
    let none = || if rates.is_some() { "0".to_owned() } else { UNKNOWN.to_owned() };
    spare_cell(page, "bytes", "n", &bytes.unwrap_or_else(none))?;
    spare_cell(page, "connect p50", "n", &quantiles(&backend["connect_ms"]))?;
    let retries = backend["retries"].as_u64().filter(|retries| *retries > 0);
    let retries = retries.map(|retries| small(&format!("retried {}", count(retries))));
    let failed = reasons(&backend["connect_failures"]) + &retries.unwrap_or_default();
    spare_cell(page, "failed", "any", &failed)?;
    change(page, pool, backend)?;
    page.push_str("</tr>");
    Ok(())
}

/// The button; the dialog has the choice, and begins with the likeliest one.
fn change(page: &mut String, pool: &str, backend: &Value) -> std::fmt::Result {
    let (pool, name) = (escape(pool), escape(backend["name"].as_str().unwrap_or_default()));
    let act = if backend["set_by_hand"].is_object() { "up" } else { "drain" };
    let weight = backend["weight"].as_u64().unwrap_or(1);
    let button = format!(
        "<button type=button class=act data-act={act} data-pool=\"{pool}\" data-backend=\"{name}\" data-weight={weight} \
         aria-label=\"change {name} of pool {pool}\">change…</button>",
    );
    cell(page, "change", "act", &button)
}

/// In addition to word and colour.
fn symbol(state: &str) -> &'static str {
    match state {
        "up" => "●",
        "starting" | "standby" => "○",
        "ejected" => "▲",
        "drain" => "◐",
        "maintenance" => "■",
        _ => "✕",
    }
}

fn by_hand(set: &Value, now: SystemTime) -> Option<String> {
    let each = ["state", "weight"].into_iter().filter_map(|key| {
        let set = set[key].as_object()?;
        let text = |key: &str| set.get(key).and_then(Value::as_str).map(escape);
        let value = match set.get("value")? {
            Value::String(value) => escape(value),
            value => format!("{key} {value}"),
        };
        let mut words = format!("set by hand: {value}");
        if let Some(who) = text("who") {
            words += &format!(", by {who}");
        }
        if let Some(since) = set.get("since").and_then(Value::as_str) {
            words += &format!(", {} ago", since_then(since, now));
        }
        words += &text("until")
            .map_or_else(|| ", until lifted".to_owned(), |it| format!(", until {it}"));
        Some(words)
    });
    let words: Vec<String> = each.collect();
    (!words.is_empty()).then(|| words.join("; "))
}

fn sessions(number: &Value) -> String {
    let number = number.as_u64().unwrap_or(0);
    several(usize::try_from(number).unwrap_or(usize::MAX), "session", "sessions")
}

/// How many sessions of a lost backend are still to be closed.
fn closing(closing: &Value) -> Option<String> {
    let policy = escape(closing["policy"].as_str()?);
    let left = sessions(&closing["left"]);
    Some(match closing["until"].as_str() {
        Some(until) => format!("{policy}: {left} left, until {}", escape(until)),
        None => format!("{policy}: {left} left, being closed"),
    })
}

/// Upper bounds of measured times.
fn quantiles(connect: &Value) -> String {
    let bound = |key: &str| connect[key].as_f64();
    match (bound("p50"), bound("p99")) {
        (None, None) => UNKNOWN.to_owned(),
        (median, most) => {
            let text =
                |it: Option<f64>| it.map_or_else(|| "&gt;\u{a0}10\u{a0}s".to_owned(), milliseconds);
            format!("{}<small>p99 {}</small>", text(median), text(most))
        }
    }
}

fn milliseconds(bound: f64) -> String {
    let text = if bound < 1000.0 {
        format!("{bound}\u{a0}ms")
    } else {
        format!("{}\u{a0}s", bound / 1000.0)
    };
    format!("≤\u{a0}{text}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row_of(more: Value) -> String {
        let mut backend = json!({
            "name": "db1", "address": "10.0.0.1:5432", "state": "up", "why": "2 probes passed",
            "since": "2026-01-01T00:00:00.000Z", "weight": 1, "tier": 0, "sessions_active": 0,
            "connect_ms": { "p50": null, "p99": null }, "connect_failures": {}, "set_by_hand": null,
        });
        let more = more.as_object().cloned().unwrap_or_default();
        backend.as_object_mut().unwrap().extend(more);
        let mut page = String::new();
        let now = "2026-01-01T00:03:10Z".parse::<jiff::Timestamp>().unwrap().into();
        row(&mut page, "db", &backend, None, now).unwrap();
        page
    }

    #[test]
    fn what_is_not_known_is_no_zero() {
        let page = row_of(json!({}));
        assert!(page.contains("● up</span><small>for <time"), "{page}");
        assert!(page.contains(">3\u{a0}min</time>"), "{page}");
        // New sessions, bytes, and the time to connect.
        assert_eq!(page.matches(">–</td>").count(), 3);
        assert!(page.contains("class=\"n\">0<small>most 0</small></td>"), "{page}");
        assert!(page.contains("data-l=\"failed\" class=\"any nil\">0</td>"), "{page}");
        assert!(page.contains("data-act=drain data-pool=\"db\" data-backend=\"db1\""), "{page}");
    }

    #[test]
    fn who_set_something_by_hand_is_named_and_it_can_be_taken_back() {
        let set = json!({
            "state": { "value": "drain", "who": "<root>", "since": "2026-01-01T00:01:00Z", "until": null },
            "weight": null,
        });
        let page = row_of(json!({ "state": "drain", "why": "by hand", "set_by_hand": set }));
        let said = "set by hand: drain, by &lt;root&gt;, <time datetime=\"2026-01-01T00:01:00Z\"";
        assert!(
            page.contains(said) && page.contains(">2\u{a0}min</time> ago, until lifted"),
            "{page}"
        );
        assert!(page.contains("data-act=up "), "{page}");
        let set = json!({ "weight": { "value": 5, "until": "2026-01-01T01:00:00Z" } });
        let page = row_of(json!({ "set_by_hand": set }));
        assert!(page.contains("set by hand: weight 5, until 2026-01-01T01:00:00Z"), "{page}");
    }

    #[test]
    fn limits_peaks_retries_and_times_down_are_said() {
        let page = row_of(json!({
            "sessions_active": 12, "sessions_limit": 400, "sessions_peak": 41, "down_seconds": 720, "retries": 3,
            "connect_failures": { "refused": 2 },
        }));
        assert!(page.contains(">12<small>of 400</small><small>most 41</small></td>"), "{page}");
        assert!(page.contains("<small>down 12\u{a0}min in all</small>"), "{page}");
        assert!(page.contains(">refused 2<small>retried 3</small></td>"), "{page}");
    }

    #[test]
    fn what_is_left_to_close_is_said() {
        let closing =
            json!({ "policy": "idle_first", "left": 812, "until": "2026-01-01T00:04:00.000Z" });
        let page = row_of(json!({ "state": "down", "closing": closing }));
        assert!(
            page.contains("idle_first: 812 sessions left, until 2026-01-01T00:04:00.000Z<"),
            "{page}"
        );
        let closing = json!({ "policy": "reset", "left": 1, "until": null });
        let page = row_of(json!({ "state": "down", "closing": closing }));
        assert!(page.contains("<small>reset: 1 session left, being closed</small>"), "{page}");
    }

    #[test]
    fn times_to_connect_are_upper_bounds() {
        let page = row_of(json!({ "connect_ms": { "p50": 0.5, "p99": 2500.0 } }));
        assert!(page.contains("≤\u{a0}0.5\u{a0}ms<small>p99 ≤\u{a0}2.5\u{a0}s</small>"), "{page}");
        let page = row_of(json!({ "connect_ms": { "p50": 1.0, "p99": null } }));
        assert!(page.contains("p99 &gt;\u{a0}10\u{a0}s"), "{page}");
        let page = row_of(json!({ "connect_failures": { "refused": 2, "timeout": 1200 } }));
        assert!(
            page.contains(">timeout 1\u{202f}200, refused 2<"),
            "the most frequent first: {page}"
        );
    }
}
