//! `/api/v1`: the state as JSON, read only. Keys are the contract's.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Shared;
use super::{Lister, State};
use crate::plane::{SessionFilter, SessionRow};
use crate::pool::Pool;
use crate::pool::backend::{Backend, BackendCounters, CONNECT_BOUNDS};
use crate::snapshot::Listener;
use crate::telemetry::counters::PerWorker;
use crate::telemetry::record::CloseReason;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route(
            "/api/v1/info",
            get(async |Extract(shared): Extract<Shared>| Json(info(&shared.state))),
        )
        .route(
            "/api/v1/listeners",
            get(async |Extract(shared): Extract<Shared>| made(&shared, listeners).await),
        )
        .route(
            "/api/v1/pools",
            get(async |Extract(shared): Extract<Shared>| made(&shared, pools).await),
        )
        .route("/api/v1/pools/{pool}", get(pool))
        .route(
            "/api/v1/sessions",
            get(async |Extract(shared): Extract<Shared>, query: Filter| {
                rows("sessions", &shared.state.sessions, query).await
            }),
        )
        .route(
            "/api/v1/flows",
            get(async |Extract(shared): Extract<Shared>, query: Filter| {
                rows("flows", &shared.state.flows, query).await
            }),
        )
        .route(
            "/api/v1/config",
            get(async |Extract(shared): Extract<Shared>| made(&shared, config).await),
        )
        .route(
            "/api/v1/events",
            get(async |Extract(shared): Extract<Shared>| Json(events(&shared.state))),
        )
}

async fn made(shared: &Shared, make: fn(&State) -> Value) -> Response {
    match shared.aside(make).await {
        Some(value) => Json(value).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn info(state: &State) -> Value {
    let plane = &state.sources.plane;
    let uptime = state.started.elapsed().unwrap_or_default();
    json!({
        "version": state.version,
        "started": time(state.started),
        "uptime_seconds": uptime.as_secs(),
        "workers": plane.workers.len(),
        "sessions_active": plane.open_sessions().saturating_sub(plane.open_flows()),
        "sessions_limit": plane.gate.limit(),
        "flows_active": plane.open_flows(),
        "flows_limit": plane.flows.limit(),
        "draining": plane.draining.load(Relaxed),
        "config_sha256": plane.snapshot.load().config.sha256,
    })
}

fn listeners(state: &State) -> Value {
    let plane = &state.sources.plane;
    let snapshot = plane.snapshot.load();
    let served = plane.served.load();
    let rows = snapshot.config.listeners.iter().filter_map(|config| {
        let listener = snapshot.listeners.get(&config.name)?;
        let addresses: Vec<String> = served
            .iter()
            .filter(|(_, served)| served.listener == config.name)
            .map(|(address, served)| match served.local {
                crate::addr::LocalAddr::Inet(local) => local.to_string(),
                crate::addr::LocalAddr::Unix => address.1.to_string(),
            })
            .collect();
        let counters = &listener.live.counters;
        Some(json!({
            "name": &*config.name,
            "protocol": config.protocol.as_str(),
            "addresses": addresses,
            "pool": config.pool.as_deref(),
            "sessions_active": listener.live.active.load(Relaxed),
            "sessions_limit": config.session_limit(),
            "sessions_total": counters.sum(|cell| cell.sessions.value()),
            "received_bytes": counters.sum(|cell| cell.received_bytes.value()),
            "sent_bytes": counters.sum(|cell| cell.sent_bytes.value()),
            "refused": refused(listener),
        }))
    });
    json!({ "listeners": rows.collect::<Vec<_>>() })
}

/// By reason, only those there are.
fn refused(listener: &Listener) -> Value {
    let counts = CloseReason::ALL.into_iter().filter_map(|reason| {
        let count = listener.refused(reason).filter(|count| *count > 0)?;
        Some((reason.as_str().to_owned(), Value::from(count)))
    });
    Value::Object(counts.collect())
}

fn pools(state: &State) -> Value {
    let snapshot = state.sources.plane.snapshot.load();
    let pools = snapshot.config.pools.iter().filter_map(|pool| snapshot.pools.get(&pool.name));
    json!({ "pools": pools.map(|pool| pool_json(pool)).collect::<Vec<_>>() })
}

async fn pool(Extract(shared): Extract<Shared>, Path(name): Path<String>) -> Response {
    let pool = shared.state.sources.plane.snapshot.load().pools.get(&*name).map(Arc::clone);
    let Some(pool) = pool else {
        let message = json!({ "error": format!("there is no pool `{name}`") });
        return (StatusCode::NOT_FOUND, Json(message)).into_response();
    };
    match shared.aside(move |_| pool_json(&pool)).await {
        Some(value) => Json(value).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn pool_json(pool: &Pool) -> Value {
    json!({
        "name": &*pool.name,
        "balance": pool.config.balance.as_str(),
        "sessions_held": pool.shared.held.load(Relaxed),
        "discovery": discovery_json(pool),
        "backends": pool.backends.iter().map(|backend| backend_json(backend)).collect::<Vec<_>>(),
    })
}

/// What discovery last did for this pool; null: it has none.
fn discovery_json(pool: &Pool) -> Value {
    let Some(last) = pool.shared.finding.last() else { return Value::Null };
    let (failed, why) = last.failure.unzip();
    json!({ "last_success": last.success.map(time), "last_failure": failed.map(time), "why": why })
}

fn backend_json(backend: &Backend) -> Value {
    let status = backend.status().clone();
    let counters = &backend.live.counters;
    let connect = |share| connect_quantile(counters, share);
    json!({
        "name": &*backend.name,
        "address": backend.address.to_string(),
        "state": status.state.as_str(),
        "why": status.why,
        "since": time(status.since),
        "weight": backend.weight,
        "tier": backend.tier,
        "sessions_active": backend.live.slot.hot().in_flight(),
        "sessions_total": counters.sum(|cell| cell.sessions.value()),
        "received_bytes": counters.sum(|cell| cell.received_bytes.value()),
        "sent_bytes": counters.sum(|cell| cell.sent_bytes.value()),
        "connect_ms": { "p50": connect(0.50), "p99": connect(0.99) },
        "set_by_hand": null,
    })
}

/// The upper bound, in milliseconds, of the bucket that holds this share of the connects; null without any, and
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

/// `?pool=&backend=&client=`.
#[derive(Deserialize)]
struct SessionQuery {
    pool: Option<String>,
    backend: Option<String>,
    client: Option<IpAddr>,
}

type Filter = Result<Query<SessionQuery>, axum::extract::rejection::QueryRejection>;

async fn rows(key: &str, list: &Lister, query: Filter) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => {
            let message = json!({ "error": error.body_text() });
            return (StatusCode::BAD_REQUEST, Json(message)).into_response();
        }
    };
    let filter =
        SessionFilter { id: None, pool: query.pool, backend: query.backend, client: query.client };
    let rows = list(filter).await;
    Json(json!({ key: rows.iter().map(session_json).collect::<Vec<_>>() })).into_response()
}

fn session_json(row: &SessionRow) -> Value {
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

/// What is in force, in short: the file itself is the operator's.
fn config(state: &State) -> Value {
    let snapshot = state.sources.plane.snapshot.load();
    let config = &snapshot.config;
    let listeners = config.listeners.iter().map(|listener| {
        let bind: Vec<String> = listener.bind.iter().map(ToString::to_string).collect();
        json!({ "name": &*listener.name, "bind": bind, "pool": listener.pool.as_deref() })
    });
    let pools = config.pools.iter().map(|pool| {
        let backends = pool.backends.iter().map(|backend| {
            json!({
                "name": &*backend.name,
                "address": backend.address.to_string(),
                "weight": backend.weight,
                "tier": backend.tier,
                "max_sessions": backend.max_sessions,
            })
        });
        json!({
            "name": &*pool.name,
            "balance": pool.balance.as_str(),
            "backends": backends.collect::<Vec<_>>(),
        })
    });
    json!({
        "sha256": config.sha256,
        "listeners": listeners.collect::<Vec<_>>(),
        "pools": pools.collect::<Vec<_>>(),
    })
}

fn events(state: &State) -> Value {
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

/// RFC 3339, to the millisecond.
pub(super) fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}
