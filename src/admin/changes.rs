//! The changes of `/api/v1`. They are asked of the life of the process, which answers signals in the same way; who may
//! ask is decided in `guard`.

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::oneshot;

use super::Ask;
use super::http::Shared;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/api/v1/reload", post(reload)).route("/api/v1/drain", post(drain))
}

/// As SIGHUP, but for the answer.
async fn reload(Extract(shared): Extract<Shared>) -> Response {
    let (answer, outcome) = oneshot::channel();
    if shared.state.asks.send(Ask::Reload(answer)).await.is_err() {
        return ending();
    }
    match outcome.await {
        Ok(Ok(changes)) => Json(json!({ "changes": changes })).into_response(),
        Ok(Err(report)) => {
            (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": report }))).into_response()
        }
        Err(_) => ending(),
    }
}

/// As SIGTERM.
async fn drain(Extract(shared): Extract<Shared>) -> Response {
    if shared.state.asks.send(Ask::Drain).await.is_err() {
        return ending();
    }
    (StatusCode::ACCEPTED, Json(json!({ "draining": true }))).into_response()
}

/// Nobody listens to asks any more.
fn ending() -> Response {
    let message = json!({ "error": "this process is draining" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(message)).into_response()
}
