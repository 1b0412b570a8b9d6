//! One question to the admin server of a running maitred, by HTTP, within bounds.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Each of connecting, asking, and any pause in the answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The longest answer: every session of a full machine.
const ANSWER: u64 = 256 << 20;

/// Where to ask: what listens on every address is asked on loopback.
pub fn address(text: &str) -> Option<SocketAddr> {
    let text =
        text.strip_prefix(':').map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    let mut address: SocketAddr = text.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Some(address)
}

/// The status line and the body.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer)?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = end.map_or_else(Vec::new, |end| answer.split_off(end + 4));
    Ok((line, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_asked_on_loopback() {
        assert_eq!(address(":9900"), Some("127.0.0.1:9900".parse().unwrap()));
        assert_eq!(address("0.0.0.0:1"), Some("127.0.0.1:1".parse().unwrap()));
        assert_eq!(address("[::]:1"), Some("[::1]:1".parse().unwrap()));
        assert_eq!(address("nowhere"), None);
    }
}
