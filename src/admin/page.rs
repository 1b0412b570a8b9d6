//! The status page: one self-contained document, no script, no outside assets; a table of what is balanced
//! where. Everything that comes from a configuration is escaped.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::State;
use super::api::time;
use crate::pool::Pool;
use crate::telemetry::datagrams::Dropped;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--bad:#cf222e;--odd:#9a6700}\
@media(prefers-color-scheme:dark){:root{--good:#3fb950;--bad:#f85149;--odd:#d29922}}\
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:72rem;padding:0 1rem}\
h1{font-size:1.3rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}\
p{margin:.3rem 0}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.why{white-space:normal}\
.up,.starting{color:var(--good)}.down{color:var(--bad)}.ejected,.drain,.maintenance{color:var(--odd)}";

pub fn render(state: &State) -> String {
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut page, state);
    page
}

fn write(page: &mut String, state: &State) -> std::fmt::Result {
    let plane = &state.sources.plane;
    let snapshot = plane.snapshot.load();
    write!(
        page,
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>maitred</title>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=refresh content=5><style>{STYLE}</style></head><body>"
    )?;
    let draining = if plane.draining.load(Relaxed) { ", <b>draining</b>" } else { "" };
    write!(
        page,
        "<h1>maitred {}</h1><p>{} sessions open of {} allowed, {} flows of {}, {} workers, started {}{draining}</p>",
        escape(state.version),
        plane.open_sessions().saturating_sub(plane.open_flows()),
        plane.gate.limit(),
        plane.open_flows(),
        plane.flows.limit(),
        plane.workers.len(),
        time(state.started),
    )?;
    listeners(page, state)?;
    dropped(page, state)?;
    for pool in &snapshot.config.pools {
        if let Some(pool) = snapshot.pools.get(&pool.name) {
            table(page, pool)?;
        }
    }
    events(page, state)?;
    page.push_str("</body></html>");
    Ok(())
}

fn listeners(page: &mut String, state: &State) -> std::fmt::Result {
    let plane = &state.sources.plane;
    let snapshot = plane.snapshot.load();
    page.push_str(
        "<h2>Listeners</h2><div class=wide><table><tr><th>listener<th>protocol<th>address<th>pool\
         <th class=n>open<th class=n>accepted<th class=n>received<th class=n>sent</tr>",
    );
    for ((protocol, address), served) in plane.served.load().iter() {
        let Some(listener) = snapshot.listeners.get(&served.listener) else { continue };
        let address = match served.local {
            crate::addr::LocalAddr::Inet(local) => local.to_string(),
            crate::addr::LocalAddr::Unix => address.to_string(),
        };
        let counters = &listener.live.counters;
        write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
            escape(&served.listener),
            protocol.as_str(),
            escape(&address),
            escape(listener.config.pool.as_deref().unwrap_or("–")),
            listener.live.active.load(Relaxed),
            counters.sum(|cell| cell.sessions.value()),
            bytes(counters.sum(|cell| cell.received_bytes.value())),
            bytes(counters.sum(|cell| cell.sent_bytes.value())),
        )?;
    }
    page.push_str("</table></div>");
    Ok(())
}

/// Why datagrams went nowhere, where any did.
fn dropped(page: &mut String, state: &State) -> std::fmt::Result {
    let snapshot = state.sources.plane.snapshot.load();
    for config in &snapshot.config.listeners {
        let Some(listener) = snapshot.listeners.get(&config.name) else { continue };
        let count = |reason| listener.live.datagrams.sum(|cell| cell.dropped(reason).value());
        let counts = Dropped::ALL.map(|reason| (reason.as_str(), count(reason)));
        let counts = counts.iter().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
        if !counts.is_empty() {
            let name = escape(&config.name);
            write!(page, "<p>{name}: datagrams dropped: {}</p>", counts.join(", "))?;
        }
    }
    Ok(())
}

fn table(page: &mut String, pool: &Pool) -> std::fmt::Result {
    let held = pool.shared.held.load(Relaxed);
    let held = if held > 0 { format!(", {held} sessions held") } else { String::new() };
    write!(
        page,
        "<h2>Pool {}</h2><p>{}{held}</p><div class=wide><table><tr><th>backend<th>address<th>state\
         <th class=n>weight<th class=n>tier<th class=n>open<th class=n>sessions<th class=n>received\
         <th class=n>sent<th>since<th>why</tr>",
        escape(&pool.name),
        pool.config.balance.as_str(),
    )?;
    for backend in &pool.backends {
        let status = backend.status().clone();
        let state = status.state.as_str();
        let counters = &backend.live.counters;
        write!(
            page,
            "<tr><td>{}<td>{}<td class={state}>{state}<td class=n>{}<td class=n>{}<td class=n>{}\
             <td class=n>{}<td class=n>{}<td class=n>{}<td>{}<td class=why>{}</tr>",
            escape(&backend.name),
            escape(&backend.address.to_string()),
            backend.weight,
            backend.tier,
            backend.live.slot.hot().in_flight(),
            counters.sum(|cell| cell.sessions.value()),
            bytes(counters.sum(|cell| cell.received_bytes.value())),
            bytes(counters.sum(|cell| cell.sent_bytes.value())),
            time(status.since),
            escape(&status.why),
        )?;
    }
    page.push_str("</table></div>");
    Ok(())
}

fn events(page: &mut String, state: &State) -> std::fmt::Result {
    /// Newest first; the API has the rest.
    const SHOWN: usize = 20;
    page.push_str("<h2>Last events</h2><div class=wide><table><tr><th>time<th>what</tr>");
    for event in state.events.all().iter().rev().take(SHOWN) {
        write!(page, "<tr><td>{}<td class=why>{}</tr>", time(event.time), escape(&event.message))?;
    }
    page.push_str("</table></div>");
    Ok(())
}

fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_says_cannot_become_markup() {
        assert_eq!(escape("<b>\"x\" & 'y'"), "&lt;b&gt;&quot;x&quot; &amp; &#39;y&#39;");
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }
}
