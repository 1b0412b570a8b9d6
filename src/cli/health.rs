//! `maitred health`: asks a running maitred whether it lives; for a container's HEALTHCHECK, where there is no
//! shell and no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

/// The whole question, connection and answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a running maitred whether it lives (exit 0) or not (exit 1)
#[derive(Args, Debug)]
pub struct Health {
    /// Admin address of the one to ask; `:9900` is asked on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900")]
    admin: String,
}

impl Health {
    pub fn run(&self) -> ExitCode {
        let Some(address) = address(&self.admin) else {
            eprintln!("error: `{}` is not an address; write one like 127.0.0.1:9900", self.admin);
            return ExitCode::from(2);
        };
        match ask(address) {
            Ok(status) if status.starts_with("HTTP/1.1 200") => ExitCode::SUCCESS,
            Ok(status) => {
                eprintln!("error: {address} answered {status:?}");
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("error: {address} does not answer: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Where to ask: what listens on every address is asked on loopback.
fn address(text: &str) -> Option<SocketAddr> {
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

/// The status line of /livez.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
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
