//! The changes of `/api/v1`. They are sent to `life`, which handles signals in the same way; `guard` decides which
//! requests are allowed.

use std::net::IpAddr;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::caller::Caller;
use super::shared::Shared;
use super::{Ask, answers};
use crate::border::nearest;
use crate::border::plane::SessionFilter;
use crate::data::pool::hand::{HandState, NotSet, StateWish, Wish};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/drain", post(drain))
        .route("/api/v1/pools/{pool}/backends/{backend}", patch(set_by_hand))
        .route("/api/v1/sessions", delete(kill_matching))
        .route("/api/v1/sessions/{id}", delete(kill_one))
}

/// As SIGHUP, except for the answer.
async fn reload(Extract(shared): Extract<Shared>) -> Response {
    match asked(&shared, Ask::Reload).await {
        Some(Ok(changes)) => Json(json!({ "changes": changes })).into_response(),
        Some(Err(report)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, report),
        None => ending(),
    }
}

/// As SIGTERM.
async fn drain(Extract(shared): Extract<Shared>) -> Response {
    if shared.state.asks.send(Ask::Drain).await.is_err() {
        return ending();
    }
    (StatusCode::ACCEPTED, Json(json!({ "draining": true }))).into_response()
}

/// The body of a change to a backend.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    state: Option<Word>,
    /// Null is a value here.
    #[serde(default, deserialize_with = "given")]
    weight: Option<Option<u32>>,
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Up,
    Drain,
    Maintenance,
}

fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<u32>>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

const FORM: &str = "write for example {\"state\": \"drain\"}, {\"state\": \"maintenance\", \"until\": \"2027-01-31T06:00:00Z\"}, \
                    {\"weight\": 10}, {\"weight\": null} or {\"state\": \"up\"}";

impl Change {
    fn wish(self, now: SystemTime) -> Result<Wish, String> {
        const MOST: u32 = 256;
        if self.state.is_none() && self.weight.is_none() {
            return Err(format!("neither state nor weight is given: {FORM}"));
        }
        if let Some(Some(weight)) = self.weight.filter(|weight| weight.is_some_and(|it| it > MOST))
        {
            return Err(format!("weight {weight} is not in 0…{MOST}"));
        }
        let state = self.state.map(|word| match word {
            Word::Up => StateWish::Up,
            Word::Drain => StateWish::Set(HandState::Drain),
            Word::Maintenance => StateWish::Set(HandState::Maintenance),
        });
        let until = self.until.as_deref().map(|text| until(text, now)).transpose()?;
        let sets = matches!(state, Some(StateWish::Set(_))) || matches!(self.weight, Some(Some(_)));
        if until.is_some() && !sets {
            return Err("until, but nothing is set that could end then".to_owned());
        }
        Ok(Wish { state, weight: self.weight, until })
    }
}

fn until(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    let Ok(time) = text.parse::<jiff::Timestamp>() else {
        return Err(format!("until is not an RFC 3339 time like {:.0}", jiff::Timestamp::now()));
    };
    let time = SystemTime::from(time);
    if time <= now { Err(format!("until is in the past: {text}")) } else { Ok(time) }
}

async fn set_by_hand(
    Extract(shared): Extract<Shared>,
    Extension(caller): Extension<Caller>,
    Path((pool, backend)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    // Only a map: a list would be read in the order of the keys.
    let keys: Result<Map<String, Value>, _> = serde_json::from_slice(&body);
    let change = keys.and_then(|keys| serde_json::from_value::<Change>(Value::Object(keys)));
    let change = match change {
        Ok(change) => change,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, format!("{error}: {FORM}")),
    };
    let wish = match change.wish(SystemTime::now()) {
        Ok(wish) => wish,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    let place = (pool.clone(), backend.clone());
    let who = caller.name();
    match asked(&shared, |answer| Ask::SetByHand { place, wish, who, answer }).await {
        Some(Ok(Some(found))) => {
            let mut answer = answers::backend_json(&found);
            let pools = &shared.state.sources.plane.snapshot.load().pools;
            let is_deserted = pools.get(&*pool).is_some_and(|pool| pool.is_deserted());
            if is_deserted && !found.status().hand.takes_sessions() {
                let warning = format!("no backend of pool {pool} takes new sessions now");
                answer["warning"] = warning.into();
            }
            Json(answer).into_response()
        }
        Some(Ok(None)) => Json(json!({ "name": backend, "state": null })).into_response(),
        Some(Err(why)) => not_set(&shared, &pool, &backend, &why),
        None => ending(),
    }
}

fn not_set(shared: &Shared, pool: &str, backend: &str, why: &NotSet) -> Response {
    let snapshot = shared.state.sources.plane.snapshot.load();
    let status = match why {
        NotSet::NoPool | NotSet::NoBackend => StatusCode::NOT_FOUND,
        NotSet::Full => StatusCode::INSUFFICIENT_STORAGE,
        NotSet::Refused(_) => StatusCode::CONFLICT,
    };
    let (name, names): (_, Vec<&str>) = match why {
        NotSet::NoPool => (pool, snapshot.pools.keys().map(|name| &**name).collect()),
        NotSet::NoBackend => {
            let backends = snapshot.pools.get(pool).map(|pool| pool.backends.as_slice());
            (backend, backends.unwrap_or_default().iter().map(|it| &*it.name).collect())
        }
        NotSet::Full | NotSet::Refused(_) => ("", Vec::new()),
    };
    // Another address is another server.
    let is_address = name.contains([':', '/']) || name.parse::<IpAddr>().is_ok();
    let names = if is_address { Vec::new() } else { names };
    let hint = nearest::nearest(name, names)
        .map_or_else(String::new, |it| format!("; did you mean `{it}`?"));
    let slash = if backend.is_empty() { "" } else { "/" };
    refuse(status, format!("{why}: {pool}{slash}{backend}{hint}"))
}

/// Which sessions and flows; at least one filter must be given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    pool: Option<String>,
    backend: Option<String>,
    client: Option<IpAddr>,
}

async fn kill_matching(
    Extract(shared): Extract<Shared>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Which { pool, backend, client } = match query {
        Ok(Query(which)) => which,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, error.body_text()),
    };
    if pool.is_none() && backend.is_none() && client.is_none() {
        let why = "give at least one of ?pool=, backend= and client=, or one session: /api/v1/sessions/ID";
        return refuse(StatusCode::BAD_REQUEST, why.to_owned());
    }
    if let Some(name) = unknown_pool(&shared, pool.as_deref()) {
        return not_set(&shared, name, "", &NotSet::NoPool);
    }
    let client = client.map(|client| client.to_canonical());
    kill(&shared, caller, SessionFilter { pool, backend, client, ..SessionFilter::default() }).await
}

/// A removed backend may still have sessions.
fn unknown_pool<'a>(shared: &Shared, pool: Option<&'a str>) -> Option<&'a str> {
    let plane = &shared.state.sources.plane;
    pool.filter(|name| {
        let departed = plane.departed.load();
        !plane.snapshot.load().pools.contains_key(*name)
            && departed.pools.iter().all(|pool| *pool.name != **name)
    })
}

async fn kill_one(
    Extract(shared): Extract<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Response {
    match id.parse() {
        Ok(id) => {
            kill(&shared, caller, SessionFilter { id: Some(id), ..SessionFilter::default() }).await
        }
        Err(_) => refuse(StatusCode::BAD_REQUEST, "the id of a session is a number".to_owned()),
    }
}

async fn kill(shared: &Shared, caller: Caller, filter: SessionFilter) -> Response {
    let who = caller.name();
    let is_one = filter.id.is_some();
    match asked(shared, |answer| Ask::Kill { filter, who, answer }).await {
        Some(0) if is_one => {
            refuse(StatusCode::NOT_FOUND, "no session or flow with this id is open".to_owned())
        }
        Some(count) => Json(json!({ "killed": count })).into_response(),
        None => ending(),
    }
}

/// Sends a request to `life`; `None`: the process is ending.
async fn asked<T>(shared: &Shared, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (answer, outcome) = oneshot::channel();
    shared.state.asks.send(ask(answer)).await.ok()?;
    outcome.await.ok()
}

fn refuse(status: StatusCode, why: String) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

/// No requests are handled any more.
fn ending() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "this process is draining".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(body: &str) -> Result<Wish, String> {
        let change: Change = serde_json::from_str(body).map_err(|error| error.to_string())?;
        change.wish(SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_change_says_what_it_sets_and_nothing_else() {
        let maintenance =
            wish(r#"{"state": "maintenance", "until": "1970-01-02T00:00:00Z"}"#).unwrap();
        assert_eq!(maintenance.state, Some(StateWish::Set(HandState::Maintenance)));
        assert!(maintenance.until.is_some() && maintenance.weight.is_none());
        assert_eq!(wish(r#"{"weight": null}"#).unwrap().weight, Some(None));
        assert_eq!(wish(r#"{"weight": 0}"#).unwrap().weight, Some(Some(0)));
        for (body, says) in [
            ("{}", "neither state nor weight"),
            (r#"{"weight": 257}"#, "0…256"),
            (r#"{"weight": -1}"#, "invalid value"),
            (r#"{"state": "down"}"#, "unknown variant"),
            (r#"{"state": "up", "until": "1970-01-02T00:00:00Z"}"#, "nothing is set"),
            (r#"{"state": "drain", "until": "tomorrow"}"#, "RFC 3339"),
            (r#"{"state": "drain", "until": "1960-01-02T00:00:00Z"}"#, "in the past"),
            (r#"{"state": "drain", "unitl": "1970-01-02T00:00:00Z"}"#, "unknown field"),
        ] {
            let why = wish(body).unwrap_err();
            assert!(why.contains(says), "{body}: {why}");
        }
    }
}
