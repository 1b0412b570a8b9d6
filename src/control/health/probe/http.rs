//! The `http` probe: one GET. Only the status line of the answer is read, strictly and within a bound.

use std::borrow::Cow;

use socket2::SockAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fault::Fault;
use super::heard::Heard;
use crate::config::StatusRange;
use crate::data::stream::Stream;

/// A longer line is not a status line.
const STATUS_LINE: usize = 1024;

/// `HTTP/1.1 200`.
const STATUS_END: usize = 12;

pub(super) struct Http {
    path: String,
    host: Option<String>,
    status: Vec<StatusRange>,
    standby: Vec<StatusRange>,
}

/// The bytes read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Garbage,
    Incomplete,
    Status(u16),
}

impl Http {
    pub(super) fn new(
        path: &str,
        host: Option<&str>,
        status: &[StatusRange],
        standby: &[StatusRange],
    ) -> Http {
        Http {
            path: path.into(),
            host: host.map(Into::into),
            status: status.to_vec(),
            standby: standby.to_vec(),
        }
    }

    pub(super) fn sent(&self) -> &[u8] {
        self.path.as_bytes()
    }

    pub(super) async fn run(
        &self,
        stream: &mut Stream,
        address: &SockAddr,
        heard: &Heard,
    ) -> Result<(), Fault> {
        let request = self.request(address);
        stream.write_all(request.as_bytes()).await.map_err(|error| Fault::talking(&error))?;
        stream.flush().await.map_err(|error| Fault::talking(&error))?;
        let mut line = Vec::with_capacity(STATUS_LINE);
        loop {
            let seen = line.len();
            let room = (STATUS_LINE - seen) as u64;
            let count = (&mut *stream).take(room).read_buf(&mut line).await;
            heard.note(&line[seen..]);
            match count {
                Ok(0) => return Err(Fault::unexpected("it closed before a whole status line")),
                Ok(_) => {}
                Err(error) => return Err(Fault::talking(&error)),
            }
            match parse(&line) {
                Answer::Garbage => return Err(Fault::unexpected("not an HTTP answer")),
                Answer::Incomplete => {}
                Answer::Status(status) if is_in(&self.status, status) => return Ok(()),
                Answer::Status(status) if is_in(&self.standby, status) => {
                    return Err(Fault::wrong_role(format!("status {status}")));
                }
                Answer::Status(status) => return Err(Fault::mismatch(format!("status {status}"))),
            }
        }
    }

    fn request(&self, address: &SockAddr) -> String {
        let host: Cow<str> = match (&self.host, address.as_socket()) {
            (Some(host), _) => host.into(),
            (None, Some(address)) => address.to_string().into(),
            (None, None) => "localhost".into(),
        };
        format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: maitred\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.path
        )
    }
}

fn is_in(ranges: &[StatusRange], status: u16) -> bool {
    ranges.iter().any(|range| (range.first..=range.last).contains(&status))
}

/// `HTTP/1.<digit> <three digits>`, then the end of the line or a space and any reason. Decides as soon as it can be
/// nothing else.
fn parse(line: &[u8]) -> Answer {
    const FORM: [&[u8]; STATUS_END] =
        [b"H", b"T", b"T", b"P", b"/", b"1", b".", b"01", b" ", b"12345", DIGIT, DIGIT];
    const DIGIT: &[u8] = b"0123456789";
    let fits = line.iter().zip(FORM).all(|(byte, allowed)| allowed.contains(byte));
    let end = line.iter().position(|byte| *byte == b'\n');
    let rest_fits = match line.get(STATUS_END) {
        Some(b' ' | b'\n') | None => true,
        Some(b'\r') => line.get(STATUS_END + 1).is_none_or(|byte| *byte == b'\n'),
        Some(_) => false,
    };
    if !fits || !rest_fits {
        return Answer::Garbage;
    }
    match end {
        Some(_) => Answer::Status(
            line[STATUS_END - 3..STATUS_END]
                .iter()
                .fold(0, |status, digit| status * 10 + u16::from(digit - b'0')),
        ),
        None => Answer::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_line_is_read_strictly() {
        for (line, answer) in [
            ("HTTP/1.1 200 OK\r\n", Answer::Status(200)),
            ("HTTP/1.0 503 Service Unavailable\r\nX: y", Answer::Status(503)),
            ("HTTP/1.1 204\r\n", Answer::Status(204)),
            ("HTTP/1.1 204\n", Answer::Status(204)),
            ("HTTP/1.1 200 OK", Answer::Incomplete),
            ("HTTP/1.1 200\r", Answer::Incomplete),
            ("", Answer::Incomplete),
            ("HTTP/2", Answer::Garbage),
            ("HTTP/1.1 2000 OK\r\n", Answer::Garbage),
            ("HTTP/1.1 099 OK\r\n", Answer::Garbage),
            ("HTTP/1.1  200", Answer::Garbage),
            ("http/1.1 200 OK\r\n", Answer::Garbage),
            ("HTTP/1.1 20\n", Answer::Garbage),
            ("SSH-2.0-OpenSSH\r\n", Answer::Garbage),
            ("\n", Answer::Garbage),
            ("HTTP/1.1 200\rOK\n", Answer::Garbage),
        ] {
            assert_eq!(parse(line.as_bytes()), answer, "{line:?}");
        }
    }

    #[test]
    fn the_request_names_the_host() {
        let mut http = Http::new("/ready", None, &[], &[]);
        let address = SockAddr::from("[2001:db8::1]:80".parse::<std::net::SocketAddr>().unwrap());
        let request = http.request(&address);
        assert!(request.starts_with("GET /ready HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n"));
        assert!(request.ends_with("Connection: close\r\n\r\n"));
        http.host = Some("db.example.com".into());
        assert!(http.request(&address).contains("\r\nHost: db.example.com\r\n"));
    }

    proptest! {
        /// No bytes make it panic, and every prefix of an answer counts as incomplete.
        #[test]
        fn pieces_only_ever_become_the_whole(status in 100..600_u16, reason in "[ -~]{0,20}") {
            let line = format!("HTTP/1.1 {status} {reason}\r\n");
            for end in 0..line.len() {
                prop_assert_eq!(parse(&line.as_bytes()[..end]), Answer::Incomplete);
            }
            prop_assert_eq!(parse(line.as_bytes()), Answer::Status(status));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            parse(&bytes);
        }
    }
}
