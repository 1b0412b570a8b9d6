//! What the API says, as JSON, which the status page is made of too. Keys are the contract's.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::State;
use crate::border::counters::PerWorker;
use crate::border::datagrams::Dropped;
use crate::border::plane::SessionRow;
use crate::border::record::CloseReason;
use crate::border::snapshot::Listener;
use crate::config::describe::{describe, hide_secrets, route_in_words};
use crate::config::{DownReason, Single};
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, BackendCounters, CONNECT_BOUNDS, Live};
use crate::data::pool::hand::{Hand, Set};
use crate::data::pool::part::Waits;
use crate::telemetry::history::{Point, STEP};

pub(super) fn info(state: &State) -> Value {
    let plane = &state.sources.plane;
    let uptime = state.started.elapsed().unwrap_or_default();
    let reloads = &state.sources.reloads;
    let stale = reloads.stale_files();
    let stale = stale.iter().map(|(path, why)| (path.display().to_string(), why.as_str().into()));
    json!({
        "version": state.version,
        "pid": std::process::id(),
        "started": time(state.started),
        "uptime_seconds": uptime.as_secs(),
        "workers": plane.workers.len(),
        "sessions_active": plane.open_sessions().saturating_sub(plane.open_flows()),
        "sessions_limit": plane.gate.limit(),
        "flows_active": plane.open_flows(),
        "flows_limit": plane.flows.limit(),
        "draining": plane.draining.load(Relaxed),
        "changes": changes(state),
        "config_sha256": plane.snapshot.load().config.sha256,
        "config_read": time(reloads.read()),
        "reload_refused": reloads.refusal().clone(),
        "stale_files": stale.collect::<Map<_, _>>(),
    })
}

/// How this maitred accepts changes, seen from an address on which it listens.
fn changes(state: &State) -> Option<&'static str> {
    if state.token.load().is_some() {
        return Some("token");
    }
    state.has_socket.load(Relaxed).then_some("socket")
}

pub(super) fn listeners(state: &State) -> Value {
    let plane = &state.sources.plane;
    let snapshot = plane.snapshot.load();
    let served = plane.served.load();
    // A listener may have thousands of addresses, and there may be thousands of listeners.
    let mut addresses: HashMap<&str, Vec<String>> = HashMap::new();
    for ((_, address), served) in served.iter() {
        let address = match served.local {
            crate::border::addr::LocalAddr::Inet(local) => local.to_string(),
            crate::border::addr::LocalAddr::Unix => address.to_string(),
        };
        addresses.entry(&*served.listener).or_default().push(address);
    }
    let rows = snapshot.config.listeners.iter().filter_map(|config| {
        let addresses = addresses.remove(&*config.name).unwrap_or_default();
        Some(listener_json(snapshot.listeners.get(&config.name)?, addresses))
    });
    json!({ "listeners": rows.collect::<Vec<_>>() })
}

fn listener_json(listener: &Listener, addresses: Vec<String>) -> Value {
    let (config, counters) = (&listener.config, &listener.live.counters);
    let refused = CloseReason::ALL.map(|it| (it.as_str(), listener.refused(it).unwrap_or(0)));
    let failed = CloseReason::ALL.map(|it| (it.as_str(), listener.failed(it)));
    let datagrams = &listener.live.datagrams;
    let dropped =
        Dropped::ALL.map(|it| (it.as_str(), datagrams.sum(|cell| cell.dropped(it).value())));
    json!({
        "name": &*config.name,
        "protocol": config.protocol.as_str(),
        "addresses": addresses,
        "pool": config.pool.as_deref(),
        "routes": config.routes.iter().map(route_in_words).collect::<Vec<_>>(),
        "sessions_active": listener.live.active.load(Relaxed),
        "sessions_limit": config.session_limit(),
        "sessions_total": counters.sum(|cell| cell.sessions.value()),
        "received_bytes": counters.sum(|cell| cell.received_bytes.value()),
        "sent_bytes": counters.sum(|cell| cell.sent_bytes.value()),
        "refused": by_reason(&refused),
        "failed": by_reason(&failed),
        "datagrams_dropped": by_reason(&dropped),
    })
}

/// Only those that occurred.
fn by_reason(counts: &[(&str, u64)]) -> Map<String, Value> {
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    counts.map(|(reason, count)| ((*reason).to_owned(), Value::from(*count))).collect()
}

pub(super) fn pools(state: &State) -> Value {
    let snapshot = state.sources.plane.snapshot.load();
    let pools = snapshot.config.pools.iter().filter_map(|pool| snapshot.pools.get(&pool.name));
    json!({ "pools": pools.map(|pool| pool_json(pool)).collect::<Vec<_>>() })
}

pub(super) fn pool_json(pool: &Pool) -> Value {
    json!({
        "name": &*pool.name,
        "balance": pool.config.balance.as_str(),
        "conflict": (pool.config.single != Single::None)
            .then(|| pool.shared.is_in_conflict.load(Relaxed)),
        "probe_blind": pool.shared.is_blind.load(Relaxed),
        "serving_tier": pool.serving_tier(),
        "sessions_held": pool.shared.queue.held(),
        "discovery": discovery_json(pool),
        "backends": pool.backends.iter().map(|backend| backend_json(backend)).collect::<Vec<_>>(),
        "removed": pool.departed().filter_map(|(name, live)| removed_json(name, &live)).collect::<Vec<_>>(),
    })
}

/// A backend that is no longer in the pool, while it has sessions.
pub(super) fn removed_json(name: &str, live: &Live) -> Option<Value> {
    let open = live.slot.hot().in_flight();
    let closing = closing_json(live);
    (open > 0).then(|| json!({ "name": name, "sessions_active": open, "closing": closing }))
}

/// Null: it does not wait.
fn waits_json(waits: Option<Waits>) -> Option<Value> {
    waits.map(|waits| match waits {
        Waits::ForAHand => json!({ "until": null }),
        Waits::Until(until) => json!({ "until": time(until) }),
    })
}

/// Null: none of its sessions is to be closed.
fn closing_json(live: &Live) -> Option<Value> {
    let closing = live.status().closing.upgrade()?;
    let left = live.slot.hot().in_flight();
    (left > 0).then(
        || json!({ "policy": closing.policy, "left": left, "until": closing.until.map(time) }),
    )
}

/// The last outcome of discovery for this pool; null: it has none.
fn discovery_json(pool: &Pool) -> Value {
    let Some(last) = pool.shared.finding.last() else { return Value::Null };
    let (failed, why) = last.failure.unzip();
    json!({ "last_success": last.success.map(time), "last_failure": failed.map(time), "why": why })
}

pub(super) fn backend_json(backend: &Backend) -> Value {
    let (status, now) = (backend.status().clone(), Instant::now());
    let counters = &backend.live.counters;
    let connect = |share| connect_quantile(counters, share);
    json!({
        "name": &*backend.name,
        "address": backend.address.to_string(),
        "state": status.state.as_str(),
        "reason": status.lost.map(DownReason::as_str),
        "why": status.told(now),
        "since": time(status.since),
        "weight": backend.weight,
        "tier": backend.tier,
        "sessions_active": backend.live.slot.hot().in_flight(),
        "sessions_peak": backend.live.slot.peak(),
        "sessions_limit": backend.max_sessions,
        "sessions_total": counters.sum(|cell| cell.sessions.value()),
        "received_bytes": counters.sum(|cell| cell.received_bytes.value()),
        "sent_bytes": counters.sum(|cell| cell.sent_bytes.value()),
        "connect_ms": { "p50": connect(0.50), "p99": connect(0.99) },
        "connect_failures": by_reason(&backend.live.connect_failures.by_reason()),
        "retries": counters.sum(|cell| cell.retries.value()),
        "down_seconds": status.down(now).as_secs(),
        "waits_for_failback": waits_json(status.part.waits),
        "closing": closing_json(&backend.live),
        "set_by_hand": by_hand(&status.hand),
    })
}

/// Null if nothing is set.
fn by_hand(hand: &Hand) -> Option<Value> {
    fn set<T>(set: &Option<Set<T>>, value: impl Fn(&T) -> Value) -> Value {
        set.as_ref().map_or(Value::Null, |set| {
            json!({
                "value": value(&set.value),
                "who": set.who,
                "since": time(set.since),
                "until": set.until.map(time),
            })
        })
    }
    let state = set(&hand.state, |state| state.as_str().into());
    let weight = set(&hand.weight, |weight| (*weight).into());
    (!hand.is_nothing()).then(|| json!({ "state": state, "weight": weight }))
}

/// The upper bound, in milliseconds, of the bucket that has this share of the connects; null without any connect, and
/// beyond the last bucket.
fn connect_quantile(cells: &PerWorker<BackendCounters>, share: f64) -> Option<f64> {
    let total = cells.sum(|cell| cell.connect_duration.count());
    let mut below = 0;
    for (index, bound) in CONNECT_BOUNDS.iter().enumerate() {
        below += cells.sum(|cell| cell.connect_duration.bucket(index));
        if total > 0 && below as f64 >= share * total as f64 {
            return Some(bound * 1000.0);
        }
    }
    None
}

pub(super) fn session_json(row: &SessionRow) -> Value {
    json!({
        "id": row.id,
        "listener": &*row.listener,
        "pool": row.pool.as_deref(),
        "backend": row.backend.as_deref(),
        "client": row.client,
        "age_seconds": row.age.as_secs_f64(),
        "idle_seconds": row.idle.as_secs_f64(),
        "received_bytes": row.received_bytes,
        "sent_bytes": row.sent_bytes,
        "stage": row.stage.as_str(),
        "worker": row.worker,
    })
}

/// The configuration in force, in the grammar of the file, with every default.
pub(super) fn config(state: &State) -> Value {
    let snapshot = state.sources.plane.snapshot.load();
    let mut keys = describe(&snapshot.config);
    hide_secrets(&mut keys);
    keys["sha256"] = snapshot.config.sha256.as_str().into();
    keys
}

pub(super) fn events(state: &State) -> Value {
    let events = state.events.all().into_iter().map(|event| {
        json!({
            "time": time(event.time),
            "kind": event.kind.as_str(),
            "pool": event.pool,
            "backend": event.backend,
            "message": event.message,
        })
    });
    json!({ "events": events.collect::<Vec<_>>() })
}

/// For everything or for one pool, oldest first.
pub(super) fn history_json(state: &State, pool: Option<&str>) -> Option<Value> {
    let kept = state.history.kept();
    let series = match pool {
        None => &kept.all,
        Some(wanted) => &kept.pools.iter().find(|(name, _)| **name == *wanted)?.1,
    };
    // Rounded to tenths: a count over ten seconds is not more precise.
    let tenths = |of: fn(&Point) -> f32| -> Vec<f64> {
        series.iter().map(|point| (f64::from(of(point)) * 10.0).round() / 10.0).collect()
    };
    Some(json!({
        "pool": pool,
        "pools": kept.pools.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        "step_seconds": STEP.as_secs(),
        "end": time(kept.end),
        "sessions_active": tenths(|point| point.sessions_active),
        "sessions_per_second": tenths(|point| point.rates.sessions),
        "received_bytes_per_second": tenths(|point| point.rates.received_bytes),
        "sent_bytes_per_second": tenths(|point| point.rates.sent_bytes),
        "failures_per_second": tenths(|point| point.rates.failures),
    }))
}

/// RFC 3339, to the millisecond.
pub(super) fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}
