//! `/api/v1`: the routes that only read. What they answer is in `answers`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{
    config, events, history_json, info, listeners, pool_json, pools, session_json,
};
use super::shared::Shared;
use super::{Lister, State};
use crate::border::plane::SessionFilter;

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
                rows(&shared, "sessions", &shared.state.sessions, query).await
            }),
        )
        .route(
            "/api/v1/flows",
            get(async |Extract(shared): Extract<Shared>, query: Filter| {
                rows(&shared, "flows", &shared.state.flows, query).await
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
        .route("/api/v1/history", get(history))
}

/// Its text is also made on another thread: that takes longer than the rest.
async fn made(shared: &Shared, make: impl FnOnce(&State) -> Value + Send + 'static) -> Response {
    let kind = "application/json";
    let answer = |text: String| ([(header::CONTENT_TYPE, kind)], text).into_response();
    shared.aside(|state| make(state).to_string(), answer).await
}

async fn pool(Extract(shared): Extract<Shared>, Path(name): Path<String>) -> Response {
    let pool = shared.state.sources.plane.snapshot.load().pools.get(&*name).map(Arc::clone);
    let Some(pool) = pool else {
        let message = json!({ "error": format!("there is no pool `{name}`") });
        return (StatusCode::NOT_FOUND, Json(message)).into_response();
    };
    made(&shared, move |_| pool_json(&pool)).await
}

/// `?pool=&backend=&client=`.
#[derive(Deserialize)]
struct SessionQuery {
    pool: Option<String>,
    backend: Option<String>,
    client: Option<IpAddr>,
}

type Filter = Result<Query<SessionQuery>, QueryRejection>;

fn unreadable(query: &QueryRejection) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": query.body_text() }))).into_response()
}

async fn rows(shared: &Shared, key: &'static str, list: &Lister, query: Filter) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return unreadable(&error),
    };
    let filter = SessionFilter {
        pool: query.pool,
        backend: query.backend,
        client: query.client,
        ..Default::default()
    };
    let list = shared.listed(list, filter).await;
    let rows =
        move |_: &State| json!({ key: list.rows.iter().map(session_json).collect::<Vec<_>>() });
    made(shared, rows).await
}

/// `?pool=`.
#[derive(Deserialize)]
struct HistoryQuery {
    pool: Option<String>,
}

async fn history(
    Extract(shared): Extract<Shared>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Response {
    let pool = match query {
        Ok(Query(query)) => query.pool,
        Err(error) => return unreadable(&error),
    };
    let made = move |state: &State| history_json(state, pool.as_deref());
    let answer = |made| match made {
        Some(value) => Json::<Value>(value).into_response(),
        None => {
            let message = json!({ "error": "there is no such pool, or it has no history" });
            (StatusCode::NOT_FOUND, Json(message)).into_response()
        }
    };
    shared.aside(made, answer).await
}
