//! Addresses and networks as people write them: what a listener binds, where a backend is, where the admin server
//! listens, which clients may come in. Names are never looked up here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::addr::{BackendAddr, BadZone, ListenAddr, ZonedIp};
use super::dns_name;
use super::text::quote;
use crate::sys::interface;

/// What is wrong with an address, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadAddress {
    /// A host name, where an address must stand.
    pub is_name: bool,
    pub message: String,
    pub hint: String,
}

/// The kernel's limit for the path of a unix socket, its final zero excluded.
const MAX_UNIX_PATH: usize = 107;

/// A host name in the place of a backend's address. Without a port it is the one that the client dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub host: String,
    pub port: Option<u16>,
}

/// Where a backend is, or what to ask for where.
#[derive(Clone, Debug)]
pub enum BackendAddress {
    At(BackendAddr),
    Named(HostPort),
}

impl BackendAddress {
    /// `None`: of a host name.
    pub fn at(&self) -> Option<&BackendAddr> {
        match self {
            BackendAddress::At(address) => Some(address),
            BackendAddress::Named(_) => None,
        }
    }

    /// The host, if the port is to be the one that the client dialled.
    pub fn without_port(&self) -> Option<String> {
        match self {
            BackendAddress::At(BackendAddr::InetClientPort(ip)) => Some(ip.to_string()),
            BackendAddress::Named(HostPort { host, port: None }) => Some(host.clone()),
            BackendAddress::At(_) | BackendAddress::Named(_) => None,
        }
    }
}

/// The part before the port.
enum Host {
    /// Nothing: every address of this machine.
    Any,
    Ip(ZonedIp),
}

/// What one item of `bind` stands for, not yet spelled out: a file of ranges would be a thousand times its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenRange {
    first: ListenAddr,
    /// Of the ports after the first.
    more: u16,
}

impl ListenRange {
    pub fn count(&self) -> usize {
        usize::from(self.more) + 1
    }

    pub fn addresses(&self) -> impl Iterator<Item = ListenAddr> {
        (0..=self.more).map(|offset| match &self.first {
            ListenAddr::DualStack(port) => ListenAddr::DualStack(port + offset),
            ListenAddr::Inet(address) => {
                let mut address = *address;
                address.set_port(address.port() + offset);
                ListenAddr::Inet(address)
            }
            ListenAddr::Unix(path) => ListenAddr::Unix(path.clone()),
        })
    }

    /// Whether a connection to this backend comes back to us for certain. Which addresses this host has is not known here.
    pub fn covers(&self, backend: &BackendAddr) -> bool {
        let (ip, port) = match backend {
            BackendAddr::Inet(address) => (address.ip(), Some(address.port())),
            // The port that was dialled, so one of these.
            BackendAddr::InetClientPort(ip) => (ip.ip(), None),
            BackendAddr::Unix(path) => return self.first == ListenAddr::Unix(path.clone()),
        };
        let is_here = ip.is_loopback() || ip.is_unspecified();
        let (covers_ip, first) = match &self.first {
            ListenAddr::DualStack(first) => (is_here, *first),
            ListenAddr::Inet(bound) if bound.ip().is_unspecified() => {
                (is_here && bound.is_ipv4() == ip.is_ipv4(), bound.port())
            }
            ListenAddr::Inet(bound) => (bound.ip() == ip, bound.port()),
            ListenAddr::Unix(_) => return false,
        };
        let last = first.saturating_add(self.more);
        covers_ip && port.is_none_or(|port| port != 0 && (first..=last).contains(&port))
    }

    /// Of one address.
    pub fn of(address: ListenAddr) -> ListenRange {
        ListenRange { first: address, more: 0 }
    }

    pub fn is_unix(&self) -> bool {
        matches!(self.first, ListenAddr::Unix(_))
    }
}

/// `:5432`, `[::]:5432`, `0.0.0.0:7000-7010`, `unix:/path`.
pub fn listen(text: &str) -> Result<ListenRange, BadAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(ListenRange { first: ListenAddr::Unix(unix_path(path)?), more: 0 });
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return Err(bad(text, "has no `:`", format!("write {}", quote(&format!(":{text}")))));
    }
    let Some((host, ports)) = split_port(text, LISTEN_FORMS)? else {
        return Err(bad(text, "has no port", format!("write {}", quote(&format!("{text}:5432")))));
    };
    let (first, last) = port_range(text, ports)?;
    let first_address = match host {
        Host::Any => ListenAddr::DualStack(first),
        Host::Ip(ip) => ListenAddr::Inet(ip.at(first)),
    };
    Ok(ListenRange { first: first_address, more: last - first })
}

/// `10.0.0.11:5432`, `10.0.0.11`, `[2001:db8::1]:5432`, `unix:/path`.
pub fn backend(text: &str) -> Result<BackendAddr, BadAddress> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(BackendAddr::Unix(unix_path(path)?));
    }
    if let Some((address, more)) = text.trim().split_once(char::is_whitespace)
        && address.contains([':', '.'])
    {
        let hint = format!("write {}", quote(&as_mapping(address, more)));
        return Err(bad(text, "holds more than the address", hint));
    }
    if let Some((host, last)) = text.rsplit_once(':')
        && host.parse::<Ipv6Addr>().is_ok()
        && last.bytes().all(|byte| byte.is_ascii_digit())
    {
        let hint = format!(
            "write {}, or {} if that is the address",
            quote(&format!("[{host}]:{last}")),
            quote(&format!("[{text}]"))
        );
        return Err(bad(text, "may or may not end in a port", hint));
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Some(ip) = zoned(text, bare)? {
        return Ok(BackendAddr::InetClientPort(reachable(text, ip)?));
    }
    match split_port(text, BACKEND_FORMS)? {
        None => Err(bad(text, "is not an address", BACKEND_FORMS.to_owned())),
        Some((Host::Any, port)) => {
            let hint =
                format!("write the address too, as in {}", quote(&format!("10.0.0.11:{port}")));
            Err(bad(text, "is only a port", hint))
        }
        Some((Host::Ip(ip), port)) => {
            let port = port_number(text, port)?;
            if port == 0 {
                return Err(bad_port_0(text));
            }
            Ok(BackendAddr::Inet(reachable(text, ip)?.at(port)))
        }
    }
}

/// `10.0.0.1:5432 weight=2` in our form; what it says besides that is left to who wrote it.
fn as_mapping(address: &str, more: &str) -> String {
    let key = |word: &str| word.split_once('=').map(|(key, value)| format!(", {key}: {value}"));
    let keys: Option<String> = more.split_whitespace().map(key).collect();
    format!("{{address: \"{address}\"{}}}", keys.unwrap_or_else(|| ", …".to_owned()))
}

/// The same, or `db.internal:5432`.
pub fn backend_or_name(text: &str) -> Result<BackendAddress, BadAddress> {
    let bad = match backend(text) {
        Ok(address) => return Ok(BackendAddress::At(address)),
        Err(bad) => bad,
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_local = host.eq_ignore_ascii_case("localhost");
    if !bad.is_name || is_local {
        return Err(bad);
    }
    if is_mistyped_ipv4(host) {
        return Err(self::bad(text, "is not an address", BACKEND_FORMS.to_owned()));
    }
    if let Some((wrong, hint)) = dns_name::wrong_with(host) {
        let message = format!("{} {wrong}", quote(host));
        return Err(BadAddress { is_name: true, message, hint: hint.to_owned() });
    }
    let port = port.map(|port| port_number(text, port)).transpose()?;
    if port == Some(0) {
        return Err(bad_port_0(text));
    }
    // A dot at the end, which keeps search domains away, is part of the name.
    Ok(BackendAddress::Named(HostPort { host: host.to_ascii_lowercase(), port }))
}

/// Four labels that begin as an address does: `10.0.0.1l`.
fn is_mistyped_ipv4(host: &str) -> bool {
    let labels: Vec<&str> = host.split('.').collect();
    let is_number = |label: &&str| label.bytes().all(|byte| byte.is_ascii_digit());
    labels.len() == 4 && labels[..3].iter().all(is_number)
}

/// `127.0.0.1:9900`, `:9900`.
pub fn admin(text: &str) -> Result<SocketAddr, BadAddress> {
    let range = listen(text)?;
    if range.more > 0 {
        return Err(bad(
            text,
            "is a range of ports",
            "write one port: `127.0.0.1:9900`".to_owned(),
        ));
    }
    match range.first {
        ListenAddr::Inet(address) => Ok(address),
        ListenAddr::DualStack(port) => Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        ListenAddr::Unix(_) => {
            let hint = "the admin server listens on TCP: write `127.0.0.1:9900`";
            Err(bad(text, "is a unix socket", hint.to_owned()))
        }
    }
}

/// `10.0.0.5`: an address without a port.
pub fn ip(text: &str) -> Result<ZonedIp, BadAddress> {
    if let Some(ip) = zoned(text, text)? {
        return Ok(ip);
    }
    let hint = match text.parse::<SocketAddr>() {
        Ok(address) => format!(
            "the port is chosen for each connection: write {}",
            quote(&address.ip().to_string())
        ),
        Err(_) => "write an IP address without a port, such as `10.0.0.5`".to_owned(),
    };
    Err(bad(text, "is not an IP address", hint))
}

/// `10.0.0.53`, `10.0.0.53:5353`, `[fe80::53%eth0]:53`. `None`: this is none.
pub fn server(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Some(ip) = zoned(text, bare).ok()? {
        return Some(ip.at(port));
    }
    match backend(text) {
        Ok(BackendAddr::Inet(address)) => Some(address),
        _ => None,
    }
}

/// An address without a port. `None`: it is none; `text` is all that was written.
fn zoned(text: &str, ip: &str) -> Result<Option<ZonedIp>, BadAddress> {
    match ZonedIp::read(ip, interface::number) {
        None => Ok(None),
        Some(Ok(ip)) if ip.is_complete() => Ok(Some(ip)),
        Some(Ok(_)) => {
            let hint = format!(
                "write which one, as in {}",
                quote(&text.replace(ip, &format!("{ip}%eth0")))
            );
            Err(bad(text, "is good on one link only", hint))
        }
        Some(Err(BadZone::NoInterface)) => {
            let hint = "after `%` write an interface of this machine by its name or number; `ip link` lists them";
            Err(bad(text, "names an interface that is not there", hint.to_owned()))
        }
        Some(Err(BadZone::NotHere)) => {
            let hint =
                "leave out `%` and what follows: only addresses of one link (`fe80::…`) have it";
            Err(bad(text, "is good on every link", hint.to_owned()))
        }
    }
}

const LISTEN_FORMS: &str =
    "write `:5432`, `127.0.0.1:5432`, `[::1]:5432`, `0.0.0.0:7000-7010` or `unix:/path`";
const BACKEND_FORMS: &str =
    "write `10.0.0.11:5432`, `[2001:db8::1]:5432`, `10.0.0.11`, `db.internal:5432` or `unix:/path`";

fn bad_port_0(text: &str) -> BadAddress {
    let hint = "ports go from 1 to 65535; without a port it is the one the client dialled";
    bad(text, "has port 0", hint.to_owned())
}

fn bad(text: &str, wrong: &str, hint: String) -> BadAddress {
    let noun = if wrong.starts_with("is not an") { "" } else { "the address " };
    let message = format!("{noun}{} {wrong}", quote(text));
    BadAddress { is_name: false, message, hint }
}

/// `None`: no colon at all. The port is returned as written.
fn split_port<'a>(text: &'a str, forms: &str) -> Result<Option<(Host, &'a str)>, BadAddress> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((inside, after)) = rest.split_once(']') else {
            return Err(bad(text, "has no closing `]`", forms.to_owned()));
        };
        let ip = zoned(text, inside)?.filter(|_| inside.contains(':'));
        let Some(ip) = ip else {
            return Err(bad(text, "holds no IPv6 address in its brackets", forms.to_owned()));
        };
        return match after.strip_prefix(':') {
            Some(port) => Ok(Some((Host::Ip(ip), port))),
            None => Err(bad(text, "needs `:` and a port after the `]`", forms.to_owned())),
        };
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return if text.parse::<IpAddr>().is_ok() {
            Ok(None)
        } else {
            Err(no_ip(text, text, "", forms))
        };
    };
    if text.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() {
        let hint = if host.parse::<Ipv6Addr>().is_ok() {
            format!("[{host}]:{port}")
        } else {
            format!("[{text}]:5432")
        };
        return Err(bad(text, "is IPv6 without brackets", format!("write {}", quote(&hint))));
    }
    match host {
        "" => Ok(Some((Host::Any, port))),
        "*" => Err(bad(
            text,
            "is not an address",
            format!("for every address write {}", quote(&format!(":{port}"))),
        )),
        _ => match host.parse::<IpAddr>() {
            Ok(ip) => Ok(Some((Host::Ip(ip.into()), port))),
            Err(_) => Err(no_ip(text, host, port, forms)),
        },
    }
}

/// A host name, or something that is nothing at all.
fn no_ip(text: &str, host: &str, port: &str, forms: &str) -> BadAddress {
    let name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !name || !host.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return bad(text, "is not an address", forms.to_owned());
    }
    let hint = match (host, forms == BACKEND_FORMS) {
        ("localhost", _) if port.is_empty() => "write `127.0.0.1`".to_owned(),
        ("localhost", _) => format!("write {}", quote(&format!("127.0.0.1:{port}"))),
        (_, true) => BACKEND_FORMS.to_owned(),
        (_, false) => "write an IP address of this machine, or `:port` for all of them".to_owned(),
    };
    BadAddress { is_name: true, message: format!("{} is a host name", quote(host)), hint }
}

fn port_range(text: &str, ports: &str) -> Result<(u16, u16), BadAddress> {
    let Some((first, last)) = ports.split_once('-') else {
        let port = port_number(text, ports)?;
        return Ok((port, port));
    };
    let (first, last) = (port_number(text, first)?, port_number(text, last)?);
    if first == 0 {
        return Err(bad(text, "begins its range at port 0", "ports go from 1 to 65535".to_owned()));
    }
    if first > last {
        return Err(bad(
            text,
            "has a range that runs backwards",
            format!("write the range as `{last}-{first}`"),
        ));
    }
    Ok((first, last))
}

fn port_number(text: &str, port: &str) -> Result<u16, BadAddress> {
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits => Ok(number),
        _ if digits => {
            Err(bad(text, "has a port above 65535", "ports go from 1 to 65535".to_owned()))
        }
        _ if port.starts_with(|first: char| first.is_ascii_digit()) => Err(bad(
            text,
            "has something behind its port",
            "write the address and the port alone; whatever else there is to say has keys of its own".to_owned(),
        )),
        _ => Err(bad(
            text,
            "has no port after its `:`",
            "a port is a number from 1 to 65535".to_owned(),
        )),
    }
}

/// Refuses what no connection can be made to.
fn reachable(text: &str, address: ZonedIp) -> Result<ZonedIp, BadAddress> {
    let ip = address.ip();
    if ip.is_unspecified() {
        return Err(bad(
            text,
            "is no one machine",
            "for this machine write `127.0.0.1` or `[::1]`".to_owned(),
        ));
    }
    if ip.is_multicast() {
        return Err(bad(
            text,
            "is a multicast group",
            "write the address of one machine".to_owned(),
        ));
    }
    Ok(address)
}

fn unix_path(path: &str) -> Result<PathBuf, BadAddress> {
    let text = format!("unix:{path}");
    if !path.starts_with('/') || path.ends_with('/') {
        let hint = "write the whole path from the root, as in `unix:/run/maitred/db.sock`";
        return Err(bad(&text, "is not a full path to a socket", hint.to_owned()));
    }
    if path.contains('\0') {
        return Err(bad(&text, "holds a zero byte", "write a plain path".to_owned()));
    }
    if path.len() > MAX_UNIX_PATH {
        let hint = format!("the kernel takes at most {MAX_UNIX_PATH} bytes: choose a shorter path");
        return Err(bad(&text, "is too long", hint));
    }
    Ok(PathBuf::from(path))
}

/// One network.
pub fn net(text: &str) -> Result<IpNet, BadAddress> {
    const FORMS: &str = "write a network such as `10.0.0.0/8` or `2001:db8::/32`, or an address";
    let bad = |what: &str, hint: String| BadAddress {
        is_name: false,
        message: format!("{} {what}", quote(text)),
        hint,
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(ip) = address.parse::<IpAddr>() else {
        return Err(bad("is not a network", FORMS.to_owned()));
    };
    let Some(length) = length else { return Ok(IpNet::from(ip)) };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let net = length.parse().ok().filter(|_| is_number).and_then(|it| IpNet::new(ip, it).ok());
    let Some(net) = net else {
        return Err(bad("has no length that fits", format!("after `/` write 0 to {most}")));
    };
    if net.trunc() != net {
        let hint = format!(
            "for the network write {}, for the one address {}",
            quote(&net.trunc().to_string()),
            quote(address)
        );
        return Err(bad("is an address within a network", hint));
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listeners_bind_what_is_written() {
        let shown = |text: &str| -> Vec<String> {
            listen(text).unwrap().addresses().map(|address| address.to_string()).collect()
        };
        assert_eq!(shown(":5432"), [":5432"]);
        assert_eq!(shown(":0"), [":0"]);
        assert_eq!(shown(":7000-7002"), [":7000", ":7001", ":7002"]);
        assert_eq!(shown("0.0.0.0:7000-7001"), ["0.0.0.0:7000", "0.0.0.0:7001"]);
        assert_eq!(shown("[::]:5432"), ["[::]:5432"]);
        assert_eq!(shown("[::1]:65534-65535"), ["[::1]:65534", "[::1]:65535"]);
        assert_eq!(shown("unix:/run/x.sock"), ["unix:/run/x.sock"]);
        assert_eq!(shown("[::ffff:10.0.0.1]:80"), ["10.0.0.1:80"]);
    }

    /// The same below `fe80::/10`.
    fn link_local(mut six: [u16; 8]) -> IpAddr {
        six[0] = 0xfe80 | (six[0] & 0x3f);
        IpAddr::from(six)
    }

    #[test]
    fn addresses_of_one_link_are_kept_with_it() {
        let lo = interface::number("lo").unwrap();
        let shown = |text: &str| backend(text).map(|it| it.to_string()).map_err(|it| it.message);
        assert_eq!(shown("[fe80::1%7]:80"), Ok("[fe80::1%7]:80".into()));
        assert_eq!(shown("[fe80::1%lo]:80"), Ok(format!("[fe80::1%{lo}]:80")));
        assert_eq!(shown("fe80::1%7"), Ok("fe80::1%7".into()));
        assert_eq!(shown("[fe80::1%7]"), Ok("fe80::1%7".into()));
        let range = listen("[fe80::1%lo]:80-81").unwrap();
        let range: Vec<String> = range.addresses().map(|it| it.to_string()).collect();
        assert_eq!(range, [80, 81].map(|port| format!("[fe80::1%{lo}]:{port}")));
        assert_eq!(ip("fe80::1%lo").unwrap().to_string(), format!("fe80::1%{lo}"));
        assert_eq!(server("fe80::53%7", 53), Some("[fe80::53%7]:53".parse().unwrap()));
        assert_eq!(server("[fe80::53%7]:5353", 53), Some("[fe80::53%7]:5353".parse().unwrap()));
        for text in ["[fe80::1]:80", "[fe80::1%no-such-one]:80", "[2001:db8::1%lo]:80"] {
            assert!(listen(text).is_err() && backend(text).is_err(), "{text}");
        }
        let hint = backend("[fe80::1]:80").unwrap_err().hint;
        assert_eq!(hint, "write which one, as in `[fe80::1%eth0]:80`");
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        for text in [
            "",
            "5432",
            ":",
            ":x",
            ":65536",
            ":9-8",
            ":0-3",
            "*:1",
            "::1:80",
            "10.0.0.1",
            "[::1",
            "[::1]",
            "localhost:80",
            "unix:",
            "unix:x",
            "10.0.0.256:1",
            "1.2.3.4:+80",
            ":1-",
            ":-1",
            "[x]:1",
            "[::1]80",
        ] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn backends_are_where_they_say() {
        let shown = |text: &str| backend(text).map(|address| address.to_string());
        assert_eq!(shown("10.0.0.11:5432"), Ok("10.0.0.11:5432".into()));
        assert_eq!(shown("10.0.0.11"), Ok("10.0.0.11".into()));
        assert_eq!(shown("2001:db8::1"), Ok("2001:db8::1".into()));
        assert_eq!(shown("[2001:db8::1]"), Ok("2001:db8::1".into()));
        assert_eq!(shown("[2001:DB8::1]:1"), Ok("[2001:db8::1]:1".into()));
        assert_eq!(shown("unix:/x"), Ok("unix:/x".into()));
        assert!(backend("db.example.com:5432").unwrap_err().is_name);
        assert!(backend("db").unwrap_err().is_name);
        for text in
            ["", ":1", "10.0.0.1:0", "0.0.0.0:1", "224.0.0.1:1", "10.0.0.1:", "a b", "1.2.3.4:1-2"]
        {
            assert!(backend(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_name_takes_the_place_of_an_address() {
        let named = |text: &str| match backend_or_name(text) {
            Ok(BackendAddress::Named(HostPort { host, port })) => Some((host, port)),
            _ => None,
        };
        assert_eq!(named("DB.internal:5432"), Some(("db.internal".into(), Some(5432))));
        assert_eq!(named("db"), Some(("db".into(), None)));
        assert_eq!(named("db.internal.:1"), Some(("db.internal.".into(), Some(1))));
        let mistyped = [
            "10.0.0.1l:5432",
            "10.0.0.256",
            "db:x",
            "db:0",
            "a..b:1",
            "localhost:1",
            "-",
            "db:1-2",
        ];
        for text in mistyped.into_iter().chain(["10.0.0.1:1", "::1", "unix:/x"]) {
            assert_eq!(named(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_reads_back(ip in any::<[u8; 4]>(), six in any::<[u16; 8]>(), port in 1_u16..) {
            let all = [(IpAddr::from(ip), 0), (IpAddr::from(six), 0), (link_local(six), 7)];
            for (ip, zone) in all.into_iter().map(|(ip, zone)| (ZonedIp::new(ip, zone), zone)) {
                if !ip.is_complete() && zone == 0 {
                    continue;
                }
                let written = ip.at(port).to_string();
                let bound = listen(&written).unwrap();
                prop_assert_eq!(listen(&bound.first.to_string()), Ok(bound));
                if let Ok(address) = backend(&written) {
                    prop_assert_eq!(backend(&address.to_string()), Ok(address));
                }
            }
        }

        #[test]
        fn no_text_makes_an_address_panic(text in "[\\[\\]:0-9a-f.*/unix-]{0,24}|.{0,30}") {
            let _ = (listen(&text), backend(&text), admin(&text), ip(&text));
        }
    }

    #[test]
    fn a_bare_address_is_itself_alone() {
        assert_eq!(net("192.0.2.7").unwrap(), "192.0.2.7/32".parse().unwrap());
        assert_eq!(net("2001:db8::7").unwrap(), "2001:db8::7/128".parse().unwrap());
        assert_eq!(net("0.0.0.0/0").unwrap(), "0.0.0.0/0".parse().unwrap());
    }

    #[test]
    fn what_is_no_network_is_told_what_to_write() {
        for (text, hint) in [
            ("10.1.2.3/8", "for the network write `10.0.0.0/8`, for the one address `10.1.2.3`"),
            (
                "2001:db8::1/32",
                "for the network write `2001:db8::/32`, for the one address `2001:db8::1`",
            ),
            ("10.0.0.0/33", "after `/` write 0 to 32"),
            ("10.0.0.0/255.0.0.0", "after `/` write 0 to 32"),
            ("10.0.0.0/+8", "after `/` write 0 to 32"),
            ("10.0.0.0/", "after `/` write 0 to 32"),
            ("::/129", "after `/` write 0 to 128"),
        ] {
            assert_eq!(net(text).unwrap_err().hint, hint, "{text}");
        }
        for text in
            ["", "/8", "example.com", "10.0.0", "010.0.0.0/8", "10.0.0.1:80", "fe80::1%eth0"]
        {
            assert!(net(text).unwrap_err().message.ends_with("is not a network"), "{text}");
        }
    }
}
