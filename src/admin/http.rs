//! HTTP for the admin server: the limits on its clients, and the routes. `listen` has the sockets, `guard` decides
//! which requests are allowed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::body;
use axum::extract::{Extension, Request, State as Extract};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::caller::Caller;
use super::guard::{self, Door};
use super::listen::{Bound, BoundSocket, SocketFile};
use super::patient::Patient;
use super::places::{Place, Places, Pulse};
use super::shared::{Shared, busy};
use super::visitor::{Socket, VISITOR, Visitor};
use super::{State, api, changes, page};
use crate::sys::limits;
use crate::telemetry::metrics;

/// What clients of the admin server may use.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once by each door; one more closes the one that has been silent for longest.
    pub connections: usize,
    /// From the first byte of a request to the end of its headers, and between requests.
    pub headers: Duration,
    /// For a body, and for an answer to be read by the client.
    pub stall: Duration,
    /// For a whole connection, so that none is held for ever: then it takes no further request.
    pub connection: Duration,
    /// After that, for the answer under way.
    pub last_answer: Duration,
}

/// At most an eighth of the descriptors that sessions leave: clients of the admin port must not use up those of
/// sessions.
fn connections() -> usize {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let eighth = limits::kept_back(allowed.unwrap_or(u64::MAX)) / 8;
    usize::try_from(eighth).unwrap_or(usize::MAX).clamp(8, 64)
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: connections(),
            headers: Duration::from_secs(10),
            stall: Duration::from_secs(10),
            connection: Duration::from_secs(60),
            last_answer: Duration::from_secs(60),
        }
    }
}

/// The most bytes of a request's head, and headers in it; more are answered with 431.
const HEAD: usize = 64 << 10;
const HEADERS: usize = 64;

/// How long accepting pauses when there are no descriptors.
const REST: Duration = Duration::from_millis(100);

/// Descriptors that each door keeps for requests when no others are left.
pub const RESERVE: usize = 8;

/// A serving admin address; stops accepting on drop.
pub struct Serving {
    task: JoinHandle<()>,
    pub address: SocketAddr,
}

/// A serving socket; its file is removed with it.
pub struct ServingSocket {
    task: JoinHandle<()>,
    file: SocketFile,
}

/// Serves on the runtime of the caller.
pub fn serve(bound: Bound, state: Arc<State>, bounds: Bounds) -> io::Result<Serving> {
    let address = bound.address;
    let listener = Listener::Tcp(TcpListener::from_std(bound.listener)?);
    let door = if address.ip().is_loopback() { Door::Loopback } else { Door::Network };
    let task = tokio::spawn(accept(listener, router(state, door, bounds.stall), bounds));
    Ok(Serving { task, address })
}

/// The same, with changes.
pub fn serve_socket(
    bound: BoundSocket,
    state: Arc<State>,
    bounds: Bounds,
) -> io::Result<ServingSocket> {
    let listener = Listener::Unix(UnixListener::from_std(bound.listener)?);
    let task = tokio::spawn(accept(listener, router(state, Door::Socket, bounds.stall), bounds));
    Ok(ServingSocket { task, file: bound.file })
}

fn router(state: Arc<State>, door: Door, stall: Duration) -> Router {
    let shared = Shared::new(state, door, stall);
    Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(exposition))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .merge(api::routes())
        .merge(changes::routes())
        .fallback(async || (StatusCode::NOT_FOUND, "no such page\n"))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ServingSocket {
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl Drop for ServingSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Visitor, Caller)> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                (Visitor::new(Socket::Tcp(stream)), Caller::Address(address))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().map(|credentials| Caller::User(credentials.uid()));
                (Visitor::new(Socket::Unix(stream)), user.unwrap_or(Caller::Unknown))
            }
        })
    }
}

async fn accept(listener: Listener, router: Router, bounds: Bounds) {
    let mut places = Places::new(bounds.connections);
    let mut reserve = Reserve::default();
    loop {
        let Some((visitor, caller)) = accept_one(&listener, &mut reserve).await else { continue };
        let (place, pulse) = (places.find().await, Pulse::new());
        let router = router.clone().layer(Extension(caller)).layer(Extension(place));
        let router = router.layer(Extension(Arc::clone(&pulse)));
        let stream = Patient::new(visitor.clone(), bounds.stall, Arc::clone(&pulse));
        let connection = connection(stream, router, bounds);
        let task = tokio::spawn(VISITOR.scope(visitor, connection));
        places.take(place, pulse, task.abort_handle());
        // What the client sent already is read before another one may take its place.
        tokio::task::yield_now().await;
    }
}

/// Descriptors used for a moment when no others are left, so that an operator can still look inside. Several: in a
/// rush a worker may be quicker and take a freed one for a session.
#[derive(Default)]
struct Reserve(Vec<std::fs::File>);

impl Reserve {
    /// Gets back the descriptors that were used, as far as there are any; returns whether it is complete.
    fn renew(&mut self) -> bool {
        while self.0.len() < RESERVE {
            let Ok(file) = std::fs::File::open("/dev/null") else { return false };
            self.0.push(file);
        }
        true
    }
}

/// One connection; None if the caller should try again.
async fn accept_one(listener: &Listener, reserve: &mut Reserve) -> Option<(Visitor, Caller)> {
    let accepted = if reserve.renew() {
        listener.accept().await
    } else {
        tokio::time::timeout(REST, listener.accept()).await.ok()?
    };
    let mut error = match accepted {
        Ok(stream) => return Some(stream),
        Err(error) => error,
    };
    while is_out_of_descriptors(&error) {
        let Some(spent) = reserve.0.pop() else {
            tokio::time::sleep(REST).await;
            return None;
        };
        drop(spent);
        error = match tokio::time::timeout(REST, listener.accept()).await.ok()? {
            Ok(stream) => return Some(stream),
            Err(error) => error,
        };
    }
    None
}

/// Whatever ends it, a scraper or browser connects again.
async fn connection(stream: Patient<Visitor>, router: Router, bounds: Bounds) {
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.headers)
        .max_buf_size(HEAD)
        .max_headers(HEADERS);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    if tokio::time::timeout(bounds.connection, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(bounds.last_answer, connection).await;
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

async fn guard(
    Extract(shared): Extract<Shared>,
    Extension(place): Extension<Place>,
    Extension(pulse): Extension<Arc<Pulse>>,
    request: Request,
    next: Next,
) -> Response {
    if place == Place::Health && !matches!(request.uri().path(), "/livez" | "/readyz") {
        return busy("all places are taken by requests that wait for an answer; try again\n");
    }
    let token = shared.state.token.load();
    let (method, headers) = (request.method(), request.headers());
    if let Some((status, why)) = guard::refusal(shared.door, token.as_deref(), method, headers) {
        let mut response = (status, why).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        return response;
    }
    let request = match whole(request, shared.stall).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    pulse.set_waits(true);
    let mut response = next.run(request).await;
    pulse.set_waits(false);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = page::policy::header();
    headers.insert(HeaderName::from_static("content-security-policy"), policy);
    response
}

/// A change needs its whole body, which must arrive soon.
async fn whole(request: Request, stall: Duration) -> Result<Request, Response> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    let body = body::to_bytes(body, guard::BODY);
    match tokio::time::timeout(stall, body).await {
        Ok(Ok(body)) => Ok(Request::from_parts(head, body.into())),
        Ok(Err(_)) => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is too long\n").into_response())
        }
        Err(_) => {
            Err((StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time\n").into_response())
        }
    }
}

async fn readiness(Extract(shared): Extract<Shared>) -> Response {
    if shared.state.sources.plane.draining.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if shared.state.sources.plane.is_settling() {
        let message = "discovery has not answered yet\n";
        return (StatusCode::SERVICE_UNAVAILABLE, message).into_response();
    }
    "ok\n".into_response()
}

async fn exposition(Extract(shared): Extract<Shared>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let make = |state: &State| metrics::exposition(&state.sources);
    shared.aside(make, |text| ([(header::CONTENT_TYPE, kind)], text).into_response()).await
}

async fn status_page(Extract(shared): Extract<Shared>) -> Response {
    shared.aside(page::render, |page| Html(page).into_response()).await
}
