//! HTTP for the admin server: the socket, the limits on whoever talks to it, and the routes.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{State, api, page};
use crate::telemetry::metrics;

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// From the first byte of a request to the end of its headers, and between requests.
const HEADERS: Duration = Duration::from_secs(10);

/// A whole connection, so that none is held for ever.
const CONNECTION: Duration = Duration::from_secs(300);

/// Scrapes and lists being made at once, each on a thread of its own.
const PAGES: usize = 4;

/// How long accepting rests when there are no descriptors.
const REST: Duration = Duration::from_millis(100);

/// Descriptors kept for looking inside when there are no others left.
const RESERVE: usize = 8;

/// A bound admin address, not serving yet.
pub struct Bound {
    listener: std::net::TcpListener,
    pub address: SocketAddr,
}

/// A serving admin address; stops accepting on drop.
pub struct Serving {
    task: JoinHandle<()>,
    pub address: SocketAddr,
}

/// What the routes share.
#[derive(Clone)]
pub(super) struct Shared {
    pub state: Arc<State>,
    pages: Arc<Semaphore>,
    /// Whether only this host can reach us; then a foreign Host means a browser was led here.
    is_loopback: bool,
}

pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if address.ip().is_unspecified() && address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    let listener: std::net::TcpListener = socket.into();
    let address = listener.local_addr()?;
    Ok(Bound { listener, address })
}

/// Serves on the runtime of the caller.
pub fn serve(bound: Bound, state: Arc<State>) -> io::Result<Serving> {
    let address = bound.address;
    let listener = TcpListener::from_std(bound.listener)?;
    let shared = Shared {
        state,
        pages: Arc::new(Semaphore::new(PAGES)),
        is_loopback: address.ip().is_loopback(),
    };
    let router = Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(exposition))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .merge(api::routes())
        .fallback(async || (StatusCode::NOT_FOUND, "no such page\n"))
        .layer(middleware::from_fn_with_state(shared.clone(), guard))
        .with_state(shared);
    let task = tokio::spawn(accept(listener, router));
    Ok(Serving { task, address })
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut reserve = Reserve::default();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Some(stream) = accept_one(&listener, &mut reserve).await else { continue };
        let connection = connection(stream, router.clone());
        tokio::spawn(async move {
            // Whatever ends it, a scraper or browser connects again.
            let _ = tokio::time::timeout(CONNECTION, connection).await;
            drop(place);
        });
    }
}

/// Descriptors spent for a moment when there are no others left, so that somebody can still look inside.
/// Several: in a rush a worker may be quicker and take the one just freed for a session.
#[derive(Default)]
struct Reserve(Vec<std::fs::File>);

impl Reserve {
    /// Gets back what was spent, as far as there are descriptors; says whether it is complete.
    fn renew(&mut self) -> bool {
        while self.0.len() < RESERVE {
            let Ok(file) = std::fs::File::open("/dev/null") else { return false };
            self.0.push(file);
        }
        true
    }
}

/// One connection; None if the caller is to try again.
async fn accept_one(listener: &TcpListener, reserve: &mut Reserve) -> Option<TcpStream> {
    let accepted = if reserve.renew() {
        listener.accept().await
    } else {
        tokio::time::timeout(REST, listener.accept()).await.ok()?
    };
    let mut error = match accepted {
        Ok((stream, _)) => return Some(stream),
        Err(error) => error,
    };
    while is_out_of_descriptors(&error) {
        let Some(spent) = reserve.0.pop() else {
            tokio::time::sleep(REST).await;
            return None;
        };
        drop(spent);
        error = match tokio::time::timeout(REST, listener.accept()).await.ok()? {
            Ok((stream, _)) => return Some(stream),
            Err(error) => error,
        };
    }
    None
}

fn connection(
    stream: TcpStream,
    router: Router,
) -> impl Future<Output = Result<(), hyper::Error>> + Send {
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Refuses what a browser on a foreign page may have been led to ask, and everything that is not a read.
async fn guard(Extract(shared): Extract<Shared>, request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, "this address only answers GET\n").into_response();
    }
    if shared.is_loopback && !is_own_host(request.headers()) {
        return (StatusCode::FORBIDDEN, "Host must be localhost or an IP address\n")
            .into_response();
    }
    if is_foreign_origin(request.headers()) {
        return (StatusCode::FORBIDDEN, "requests from other origins are refused\n")
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    headers.insert(
        HeaderName::from_static("content-security-policy"),
        HeaderValue::from_static(policy),
    );
    response
}

/// The Host header without its port.
fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    if let Some(bracketed) = host.strip_prefix('[') {
        return bracketed.split(']').next();
    }
    host.split(':').next()
}

fn is_own_host(headers: &HeaderMap) -> bool {
    // HTTP/1.0 clients may have none, and a browser always has one.
    host(headers).is_none_or(|host| {
        host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok()
    })
}

fn is_foreign_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (origin.to_str().ok().and_then(|origin| origin.split_once("://")), own) {
        (Some((_, origin)), Some(own)) => origin != own,
        _ => true,
    }
}

async fn readiness(Extract(shared): Extract<Shared>) -> Response {
    if shared.state.sources.plane.draining.load(Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ok\n".into_response()
}

async fn exposition(Extract(shared): Extract<Shared>) -> Response {
    let text = shared.aside(|state| metrics::exposition(&state.sources)).await;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    match text {
        Some(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status_page(Extract(shared): Extract<Shared>) -> Response {
    match shared.aside(page::render).await {
        Some(page) => Html(page).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Shared {
    /// Makes a page aside, so that neither probes nor other answers wait for a large one.
    pub async fn aside<T: Send + 'static>(
        &self,
        make: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Option<T> {
        let _place = self.pages.acquire().await.ok()?;
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || make(&state)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_name_that_is_not_ours_is_no_own_host() {
        for (value, own) in [
            ("localhost:9900", true),
            ("127.0.0.1:9900", true),
            ("[::1]:9900", true),
            ("evil.example:9900", false),
            ("localhost.evil.example", false),
        ] {
            assert_eq!(is_own_host(&headers(&[(header::HOST, value)])), own, "{value}");
        }
    }

    #[test]
    fn an_origin_must_be_the_page_itself() {
        let own = (header::HOST, "localhost:9900");
        assert!(!is_foreign_origin(&headers(std::slice::from_ref(&own))));
        assert!(!is_foreign_origin(&headers(&[
            own.clone(),
            (header::ORIGIN, "http://localhost:9900")
        ])));
        assert!(is_foreign_origin(&headers(&[
            own.clone(),
            (header::ORIGIN, "http://evil.example")
        ])));
        assert!(is_foreign_origin(&headers(&[own, (header::ORIGIN, "null")])));
    }
}
