//! Which requests the admin server allows. Pure: from a request's head and the door by which it came to an answer.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, StatusCode, header};

use crate::config::Token;

/// The most bytes of a body; a change to a backend has a short one.
pub(super) const BODY: usize = 16 << 10;

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// The unix socket: any process that its file permissions allow.
    Socket,
    /// TCP that only this host can reach.
    Loopback,
    /// Any other TCP.
    Network,
}

pub(super) type Refusal = (StatusCode, &'static str);

/// Why this request is refused, if it is.
///
/// Any page can lead a browser on this host to a loopback address under the page's own name: there a Host that is
/// neither `localhost` nor an address is refused. On other addresses Host may be any name that a scraper uses (a
/// container, a service); there only changes must be guarded, and they need the token.
pub(super) fn refusal(
    door: Door,
    token: Option<&Token>,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Refusal> {
    if door == Door::Loopback && !is_own_host(headers) {
        return Some((StatusCode::FORBIDDEN, "Host must be localhost or an IP address\n"));
    }
    if is_foreign_origin(headers) {
        return Some((StatusCode::FORBIDDEN, "requests from other origins are refused\n"));
    }
    if body_length(headers) > BODY as u64 {
        return Some((StatusCode::PAYLOAD_TOO_LARGE, "the body is too large\n"));
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if is_read || door == Door::Socket {
        return None;
    }
    match token {
        None => Some((
            StatusCode::FORBIDDEN,
            "this address only answers GET: changes need the unix socket (admin.socket) or a token \
             (admin.token_file)\n",
        )),
        Some(token) if bearer(headers).is_some_and(|guess| token.is(guess)) => None,
        Some(_) => Some((
            StatusCode::UNAUTHORIZED,
            "a change needs the token of admin.token_file: `Authorization: Bearer TOKEN`\n",
        )),
    }
}

/// The length that the head announces; anything beyond is not read.
fn body_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A Host header without its port.
fn without_port(host: &str) -> &str {
    let part = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next(),
        None => host.split(':').next(),
    };
    part.unwrap_or_default()
}

fn is_own_host(headers: &HeaderMap) -> bool {
    // HTTP/1.0 clients may have none, and a browser always has one.
    headers.get_all(header::HOST).iter().all(|host| {
        let host = host.to_str().map(without_port).unwrap_or_default();
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
    })
}

fn is_foreign_origin(headers: &HeaderMap) -> bool {
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        match (origin.to_str().ok().and_then(|origin| origin.split_once("://")), own) {
            (Some((_, origin)), Some(own)) => origin != own,
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    /// The status of the refusal of a request with these headers; 200 if it is answered.
    fn status(door: Door, method: Method, pairs: &[(HeaderName, &'static str)]) -> u16 {
        let token = Token::read(SECRET).unwrap();
        refusal(door, Some(&token), &method, &headers(pairs)).map_or(200, |(it, _)| it.as_u16())
    }

    #[test]
    fn a_name_that_is_not_ours_is_refused_on_loopback_alone() {
        for (value, is_own) in [
            ("localhost:9900", true),
            ("LOCALHOST", true),
            ("127.0.0.1:9900", true),
            ("[::1]:9900", true),
            ("evil.example:9900", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let host = [(header::HOST, value)];
            let expected = if is_own { 200 } else { 403 };
            assert_eq!(status(Door::Loopback, Method::GET, &host), expected, "{value}");
            assert_eq!(status(Door::Network, Method::GET, &host), 200, "{value}");
            assert_eq!(status(Door::Socket, Method::GET, &host), 200, "{value}");
        }
        assert_eq!(status(Door::Loopback, Method::GET, &[]), 200, "HTTP/1.0");
        let mut two = headers(&[(header::HOST, "localhost")]);
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(refusal(Door::Loopback, None, &Method::GET, &two).is_some());
    }

    #[test]
    fn an_origin_must_be_the_page_itself() {
        let host = (header::HOST, "localhost:9900");
        for (origin, expected) in [
            ("http://localhost:9900", 200),
            ("http://localhost:9901", 403),
            ("http://evil.example", 403),
            ("null", 403),
        ] {
            let pairs = [host.clone(), (header::ORIGIN, origin)];
            for door in [Door::Socket, Door::Loopback, Door::Network] {
                assert_eq!(status(door, Method::GET, &pairs), expected, "{origin}");
            }
        }
    }

    #[test]
    fn changes_take_the_socket_or_the_token() {
        let methods = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "SETOPTIONS"];
        for method in methods.map(|it| Method::from_bytes(it.as_bytes()).unwrap()) {
            assert_eq!(status(Door::Socket, method.clone(), &[]), 200);
            for door in [Door::Loopback, Door::Network] {
                assert_eq!(status(door, method.clone(), &[]), 401);
                for (value, expected) in [
                    ("Bearer 0123456789abcdef", 200),
                    ("bearer  0123456789abcdef", 200),
                    ("Bearer 0123456789abcdeX", 401),
                    ("Bearer ", 401),
                    ("Basic 0123456789abcdef", 401),
                    ("0123456789abcdef", 401),
                ] {
                    let pairs = [(header::AUTHORIZATION, value)];
                    assert_eq!(status(door, method.clone(), &pairs), expected, "{value}");
                }
                let without = refusal(door, None, &method, &HeaderMap::new());
                assert_eq!(without.unwrap().0, StatusCode::FORBIDDEN);
            }
        }
        // The token does not replace the other checks.
        let pairs =
            [(header::AUTHORIZATION, "Bearer 0123456789abcdef"), (header::HOST, "evil.example")];
        assert_eq!(status(Door::Loopback, Method::POST, &pairs), 403);
    }

    #[test]
    fn a_large_body_is_not_waited_for() {
        let length = |text| [(header::CONTENT_LENGTH, text)];
        assert_eq!(status(Door::Socket, Method::POST, &length("16384")), 200);
        assert_eq!(status(Door::Socket, Method::POST, &length("16385")), 413);
        assert_eq!(status(Door::Network, Method::GET, &length("99999999999")), 413);
    }
}
