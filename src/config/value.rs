//! Single values with a shape of their own: addresses, names, payloads of probes, status codes, the
//! version. Each is checked as far as it can be without looking at another key.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;

use super::choice::{is_off, off_for_none};
use super::decode::{NAME_PATTERN, bad_name};
use super::fault::{Code, Fault, quote};
use super::scalar::Count;
use super::tree::Span;
use crate::border::addr::ZonedIp;
use crate::border::dns_name;
use crate::border::quantities as grammar;
use crate::border::written::{self as address, BackendAddress, BadAddress, HostPort, ListenRange};
use crate::sys::accounts::{Account, MAX_ID, account};

/// The version of the PROXY header a backend is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// What a header of version 2 carries besides addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyTlvs {
    /// The server name the client asked for, where it is known.
    pub authority: bool,
    /// The protocol agreed on in TLS, where it is known.
    pub alpn: bool,
    pub crc32c: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

const MAX_TABLE_SIZE: u32 = 5_000_011;
type Slots = Count<2, { MAX_TABLE_SIZE as u64 }, u32>;

/// A single value whose text is read by one function and written by another.
macro_rules! text_value {
    ($(#[doc = $about:literal])+ struct $type:ident($own:ty), $($rest:tt)+) => {
        $(#[doc = $about])+
        pub struct $type;

        text_value!($type($own), $($rest)+);
    };
    ($type:ident($own:ty), $expected:literal $(in $values:expr)?, $forms:expr, $read:expr, $write:expr $(,)?) => {
        impl $crate::config::decode::Key for $type {
            type Given = $own;
            type Settled = $own;

            fn decode(
                node: &$crate::config::tree::Node,
                faults: &mut $crate::config::fault::Faults,
            ) -> Option<$own> {
                let text = $crate::config::scalar::text_of(node, $expected, faults)?;
                let read: fn(&str, $crate::config::tree::Span) -> Result<$own, $crate::config::fault::Fault> = $read;
                read(text, node.span).map_err(|fault| faults.push(fault)).ok()
            }

            fn settle(given: &$own) -> $own {
                Clone::clone(given)
            }

            fn describe(settled: &$own, _: Option<$crate::config::protocol::Protocol>) -> serde_json::Value {
                let write: fn(&$own) -> serde_json::Value = $write;
                write(settled)
            }

            fn expected() -> String {
                $expected.to_owned()
            }

            $(fn values() -> String {
                $values
            })?

            fn schema(_: &mut serde_json::Map<String, serde_json::Value>) -> serde_json::Value {
                $crate::config::properties::substitutable($forms)
            }
        }
    };
}

pub(super) use text_value;

text_value!(
    /// On or off.
    struct Switch(bool),
    "`true` or `false`",
    [json!({ "enum": [true, false, "true", "false"] })],
    |text, at| {
        let (code, hint) = match text {
            "true" => return Ok(true),
            "false" => return Ok(false),
            "yes" | "on" | "Yes" | "On" | "True" | "TRUE" | "1" => {
                (Code::UnknownWord, "did you mean `true`?")
            }
            "no" | "off" | "No" | "Off" | "False" | "FALSE" | "0" | "none" => {
                (Code::UnknownWord, "did you mean `false`?")
            }
            _ => (Code::Malformed, "write `true` or `false`"),
        };
        let message = format!("{} is neither `true` nor `false`", quote(text));
        Err(Fault::error(code, at, message, hint))
    },
    |it| (*it).into(),
);
text_value!(
    /// One item of `bind`; a range of ports is several addresses.
    struct Bind(ListenRange),
    "an address such as `:5432`",
    [json!({ "type": "string", "pattern": "^(unix:/.+|.*:[0-9]+(-[0-9]+)?)$" })],
    |text, at| address::listen(text).map_err(|bad| address_fault(bad, at)),
    |it| it.addresses().map(|address| address.to_string()).collect(),
);
text_value!(
    BackendAddress(BackendAddress),
    "an address such as `10.0.0.11:5432`",
    [json!({ "type": "string", "pattern": "^(unix:/.+|[0-9a-zA-Z._:\\[\\]-]+)$" })],
    |text, at| address::backend_or_name(text).map_err(|bad| address_fault(bad, at)),
    |it| match it {
        BackendAddress::At(address) => address.to_string().into(),
        BackendAddress::Named(HostPort { host, port: Some(port) }) =>
            format!("{host}:{port}").into(),
        BackendAddress::Named(HostPort { host, port: None }) => host.as_str().into(),
    },
);
text_value!(
    /// Where the admin server listens.
    struct AdminAddress(SocketAddr),
    "an address such as `127.0.0.1:9900`",
    [json!({ "type": "string", "pattern": "^.*:[0-9]+$" })],
    |text, at| address::admin(text).map_err(|bad| address_fault(bad, at)),
    |it| it.to_string().into(),
);
text_value!(
    /// An address without a port.
    struct SourceAddress(ZonedIp),
    "an address such as `10.0.0.5`",
    [json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(%.+)?$" })],
    |text, at| address::ip(text).map_err(|bad| address_fault(bad, at)),
    |it| it.to_string().into(),
);
text_value!(
    /// What something is called.
    struct Name(Arc<str>),
    "a name",
    [json!({ "type": "string", "pattern": NAME_PATTERN, "not": { "enum": ["none", "auto"] } })],
    |text, at| bad_name(text, at).map_or_else(|| Ok(text.into()), Err),
    |it| (&**it).into(),
);
text_value!(
    /// What an HTTP probe asks for.
    struct RequestPath(String),
    "a path such as `/healthz`",
    [json!({ "type": "string", "pattern": "^/[!-~]*$" })],
    |text, at| {
        if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(text.to_owned());
        }
        let message = format!("{} is not the path of a request", quote(text));
        let hint = "begin with `/`; write spaces and other letters as `%20` and the like";
        Err(Fault::error(Code::Malformed, at, message, hint))
    },
    |it| it.as_str().into(),
);
text_value!(
    /// Of a `Host` header, or a certificate.
    struct HostText(String),
    "a host such as `db.example.com`",
    [json!({ "type": "string", "pattern": "^[!-~]+$" })],
    |text, at| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(text.to_owned());
        }
        let message = format!("{} cannot be a Host header", quote(text));
        let hint = "write a host such as `db.example.com`, or `none` for the backend's address";
        Err(Fault::error(Code::Malformed, at, message, hint))
    },
    |it| it.as_str().into(),
);
text_value!(
    /// Codes of HTTP.
    struct Statuses(StatusRange),
    "a status or a range such as `200-399`",
    [json!({ "type": ["string", "integer"], "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" })],
    |text, at| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text| u16::try_from(grammar::count(text).ok()?).ok();
        let status = |text| number(text).filter(|n| (100..600).contains(n));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(StatusRange { first, last }),
            _ => {
                let message = format!("{} is not an HTTP status", quote(text));
                let hint = "write a status from 100 to 599, or a range such as `200-399`";
                Err(Fault::error(Code::Malformed, at, message, hint))
            }
        }
    },
    |it| format!("{}-{}", it.first, it.last).into(),
);
text_value!(
    /// Of the format.
    struct Version(()),
    "`1`",
    [json!({ "enum": [1, "1"] })],
    |text, at| {
        if text == "1" {
            return Ok(());
        }
        let message = format!("version {} is not known", quote(text));
        Err(Fault::error(Code::UnknownVersion, at, message, "this program reads `version: 1`"))
    },
    |()| 1.into(),
);
text_value!(
    /// The pool of a listener; `none`: its sessions are closed.
    struct PoolName(Option<Arc<str>>),
    "the name of a pool, or `none`",
    [json!({ "type": "string", "pattern": NAME_PATTERN })],
    |text, at| match text {
        "none" => Ok(None),
        // Whether such a pool exists is not known here; a name is what it says.
        _ => bad_name(text, at).map_or_else(|| Ok(Some(text.into())), Err),
    },
    |it| it.as_deref().unwrap_or("none").into(),
);

text_value!(
    /// Labels of 1 to 63 letters, digits, `-` and `_`, at most 253 letters in all (RFC 1035, section 2.3.4, less the
    /// lengths of the first label and of the root); a dot at the end changes nothing, and `.` alone is the root.
    struct DnsName(String),
    "a name such as `example.com`",
    [json!({ "type": "string", "pattern": "^(\\.|([A-Za-z0-9_-]{1,63}\\.)*[A-Za-z0-9_-]{1,63}\\.?)$" })],
    |text, at| match dns_name::wrong_with(text) {
        None => Ok(text.to_owned()),
        Some((what, hint)) => {
            Err(Fault::error(Code::Malformed, at, format!("{} {what}", quote(text)), hint))
        }
    },
    |it| it.as_str().into(),
);

text_value!(
    /// A user or a group as it is written; `none`: nobody else than who started the program.
    struct AccountName(Option<Account>),
    "a name or a number, or `none`",
    [json!({ "type": ["string", "integer"], "pattern": "^[^\\s:]+$", "minimum": 0, "maximum": MAX_ID })],
    |text, at| match text {
        "none" => Ok(None),
        // An account may have almost any name, but hardly one of these.
        _ if is_off(text) => Err(off_for_none(text, at)),
        _ => account(text).map(Some).ok_or_else(|| {
            let message = format!("{} can be no user or group", quote(text));
            let hint = format!("write its name, or its number, at most `{MAX_ID}`");
            Fault::error(Code::Malformed, at, message, hint)
        }),
    },
    |it| match it {
        None => "none".into(),
        Some(account) => account.to_string().into(),
    },
);

pub fn address_fault(bad: BadAddress, at: Span) -> Fault {
    let code = if bad.is_name { Code::HostName } else { Code::BadAddress };
    Fault::error(code, at, bad.message, bad.hint)
}

text_value!(
    /// Of the lookup table of consistent hashing; prime, so that every backend's walk visits every slot.
    struct TableSize(u32),
    "a prime number" in format!("a prime number, {}", Slots::values()),
    Slots::forms(),
    |text, at| {
        let size = Slots::read(text, at)?;
        let is_prime = |number: &u32| is_prime(*number);
        if is_prime(&size) {
            return Ok(size);
        }
        let below = (2..size).rev().find(is_prime).unwrap_or(2);
        let above = (size..=MAX_TABLE_SIZE).find(is_prime).unwrap_or(MAX_TABLE_SIZE);
        let hint = format!("the nearest primes are `{below}` and `{above}`");
        Err(Fault::error(Code::NotPrime, at, format!("{size} is not a prime number"), hint))
    },
    |it| (*it).into(),
);

/// By trial: the largest number asked about has a root of 2237.
fn is_prime(number: u32) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}
