//! One request to the admin server of a running maitred, over its socket or TCP, by HTTP, within limits.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::body::{self, Body};
use axum::http::{Request, header};
use clap::Args;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::admin::listen::usual_sockets;
use crate::border::text::visible;
use crate::config::Token;

/// To connect.
const PATIENCE: Duration = Duration::from_secs(5);

/// For a whole answer; a change may wait for a reload before it, which has 30 s.
const WHOLE: Duration = Duration::from_secs(40);

/// The longest answer: every session of a full machine.
const ANSWER: usize = 256 << 20;

/// The address to ask; shared by the subcommands that talk to a running maitred.
#[derive(Args, Clone, Debug, Default)]
pub struct Where {
    /// Admin address of the running maitred: `127.0.0.1:9900`, `:9900` (on loopback) or `unix:/path`; default: the socket
    /// in /run/maitred or $XDG_RUNTIME_DIR/maitred, or else 127.0.0.1:9900
    #[arg(long, value_name = "ADDRESS", env = "MAITRED_ADMIN")]
    admin: Option<String>,
    /// The file of `admin.token_file`, for changes over TCP; the socket needs no token
    #[arg(long, value_name = "FILE", env = "MAITRED_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// One place where a maitred may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Socket(PathBuf),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The given text is not an address.
    NoAddress(String),
    NoToken(PathBuf, String),
    /// Each place that was tried, and why it did not answer.
    Unreachable(Vec<(Place, io::Error)>),
    /// It answers, but not like maitred.
    Foreign(Place, String),
    /// The reason that it gives.
    Refused(u16, String),
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Place {
    /// A wildcard address is asked on loopback.
    pub fn read(text: &str) -> Option<Place> {
        if let Some(path) = text.strip_prefix("unix:") {
            return (!path.is_empty()).then(|| Place::Socket(path.into()));
        }
        let text =
            text.strip_prefix(':').map_or_else(|| text.to_owned(), |it| format!("127.0.0.1:{it}"));
        let mut address: SocketAddr = text.parse().ok()?;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Some(Place::Tcp(address))
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let connecting = async {
            Ok(match self {
                Place::Tcp(address) => {
                    Box::new(TcpStream::connect(address).await?) as Box<dyn Stream>
                }
                Place::Socket(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        timeout(PATIENCE, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The Host that it expects.
    fn host(&self) -> String {
        match self {
            Place::Tcp(address) => address.to_string(),
            Place::Socket(_) => "localhost".to_owned(),
        }
    }
}

/// The default places, as far as they exist.
fn usual() -> Vec<Place> {
    let sockets = usual_sockets().filter(|path| path.exists()).map(Place::Socket);
    sockets.chain([Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 9900)))]).collect()
}

impl Where {
    /// In the order in which they must be tried.
    fn places(&self) -> Result<Vec<Place>, Unanswered> {
        match &self.admin {
            None => Ok(usual()),
            Some(text) => {
                let place = Place::read(text);
                place.map(|it| vec![it]).ok_or_else(|| Unanswered::NoAddress(text.clone()))
            }
        }
    }

    /// The JSON of an answer that is not a refusal.
    pub fn json(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Unanswered> {
        let Answer { status, body } = self.ask(method, path, body)?;
        let value: Option<Value> = serde_json::from_slice(&body).ok();
        if !(200..300).contains(&status) {
            let error = value.as_ref().and_then(|value| value["error"].as_str());
            let text = || String::from_utf8_lossy(&body).trim_end().to_owned();
            let why = error.map_or_else(text, str::to_owned);
            // The faults of a reload have several lines, but nothing else that would control a terminal.
            let lines: Vec<String> = why.lines().map(visible).collect();
            return Err(Unanswered::Refused(status, lines.join("\n")));
        }
        value.ok_or_else(|| Unanswered::Refused(status, "the answer is not JSON".to_owned()))
    }

    pub fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, Unanswered> {
        let token = self.token_file.as_deref().map(token).transpose()?;
        let question = Question { method, path, body, token };
        let places = self.places()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Unanswered::Foreign(places[0].clone(), error.to_string()))?;
        runtime.block_on(async {
            let mut failed = Vec::new();
            for place in places {
                match place.connect().await {
                    Ok(stream) => return question.send(stream, &place).await,
                    Err(error) => failed.push((place, error)),
                }
            }
            Err(Unanswered::Unreachable(failed))
        })
    }
}

fn token(path: &Path) -> Result<String, Unanswered> {
    let no_token = |why: String| Unanswered::NoToken(path.to_owned(), why);
    let text = std::fs::read_to_string(path).map_err(|error| no_token(error.to_string()))?;
    Token::read(&text).map_err(|why| no_token(why.to_owned()))?;
    Ok(text.trim().to_owned())
}

struct Question<'a> {
    method: &'a str,
    path: &'a str,
    body: Option<&'a Value>,
    token: Option<String>,
}

impl Question<'_> {
    async fn send(&self, stream: Box<dyn Stream>, place: &Place) -> Result<Answer, Unanswered> {
        match timeout(WHOLE, self.exchange(stream, place)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Unanswered::Foreign(place.clone(), error.to_string())),
            Err(_) => {
                Err(Unanswered::Foreign(place.clone(), format!("no whole answer within {WHOLE:?}")))
            }
        }
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        place: &Place,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its end is seen in the answer.
        tokio::spawn(connection);
        let mut request = Request::builder().method(self.method).uri(self.path);
        request = request.header(header::HOST, place.host()).header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = self.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let (head, body) = sender.send_request(request.body(body)?).await?.into_parts();
        let body = body::to_bytes(Body::new(body), ANSWER).await?;
        Ok(Answer { status: head.status.as_u16(), body: body.into() })
    }
}

impl Unanswered {
    pub fn code(&self) -> &'static str {
        match self {
            Unanswered::NoAddress(_) => "E0120",
            Unanswered::NoToken(..) => "E0121",
            Unanswered::Unreachable(_) => "E0122",
            Unanswered::Foreign(..) => "E0123",
            Unanswered::Refused(401 | 403, _) => "E0124",
            Unanswered::Refused(404, _) => "E0125",
            Unanswered::Refused(409 | 422 | 507, _) => "E0126",
            Unanswered::Refused(503, _) => "E0127",
            Unanswered::Refused(..) => "E0128",
        }
    }

    /// Prints it, and returns the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            // The faults of a configuration have codes of their own.
            Unanswered::Refused(_, why) if why.starts_with("error[") => {
                eprintln!("{why}\n\nmore about it: maitred explain {}", &why[6..why.len().min(11)]);
            }
            _ => eprintln!("error[{}]: {self}", self.code()),
        }
        match self {
            Unanswered::NoAddress(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unanswered::NoAddress(text) => {
                write!(
                    f,
                    "`{text}` is not an address: write one like 127.0.0.1:9900 or unix:/run/maitred/admin.sock"
                )
            }
            Unanswered::NoToken(path, why) => write!(f, "{}: {why}", path.display()),
            Unanswered::Unreachable(tried) => {
                f.write_str("no maitred answers here")?;
                for (place, error) in tried {
                    write!(f, "\n  {place}: {error}")?;
                }
                f.write_str(
                    "\n  hint: is it running? Give its address with `--admin ADDRESS` or MAITRED_ADMIN",
                )
            }
            Unanswered::Foreign(place, why) => {
                write!(f, "{place} does not answer as maitred does: {why}")
            }
            Unanswered::Refused(403, why) => {
                write!(
                    f,
                    "refused: {why}\n  hint: `--admin unix:/run/maitred/admin.sock` or `--token-file FILE`"
                )
            }
            Unanswered::Refused(401, _) => f.write_str(
                "a change over TCP needs the token that the configuration has as admin.token_file\n  hint: \
                 `--token-file FILE` or MAITRED_TOKEN_FILE; if you gave one, it has another token",
            ),
            Unanswered::Refused(_, why) => f.write_str(why),
        }
    }
}

/// A name in the form for a path or query of a request.
pub fn percent(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_asked_on_loopback() {
        let tcp = |address: &str| Some(Place::Tcp(address.parse().unwrap()));
        assert_eq!(Place::read(":9900"), tcp("127.0.0.1:9900"));
        assert_eq!(Place::read("0.0.0.0:1"), tcp("127.0.0.1:1"));
        assert_eq!(Place::read("[::]:1"), tcp("[::1]:1"));
        assert_eq!(Place::read("unix:/a/b"), Some(Place::Socket("/a/b".into())));
        assert_eq!(Place::read("nowhere"), None);
        assert_eq!(Place::read("unix:"), None);
    }

    #[test]
    fn what_is_refused_has_a_code_by_its_kind() {
        let codes = [401, 403, 404, 409, 422, 507, 503, 400, 500]
            .map(|status| Unanswered::Refused(status, String::new()).code());
        assert_eq!(codes[..2], ["E0124"; 2]);
        assert_eq!(codes[2..], ["E0125", "E0126", "E0126", "E0126", "E0127", "E0128", "E0128"]);
    }

    #[test]
    fn names_of_backends_may_hold_anything() {
        assert_eq!(percent("[::1]:80"), "%5B%3A%3A1%5D%3A80");
        assert_eq!(percent("unix:/run/ä"), "unix%3A%2Frun%2F%C3%A4");
    }
}
