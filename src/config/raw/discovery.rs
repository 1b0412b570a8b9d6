//! What a file says of where a pool's backends are found, besides those it lists.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::config::Asked;
use crate::config::address;
use crate::config::choice::{choice, substitutable, words};
use crate::config::decode::{Decode, Placed, mapping};
use crate::config::dns_name::DnsName;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::net::FilePath;
use crate::config::scalar::{Count, DAY, OrAuto, SECOND, Time, text_of};
use crate::config::tree::{Node, Span};
use crate::config::value::text_value;

choice! {
    /// Where further backends are found; none: they are those listed.
    Discovery, later [],
    words { "none" => None },
    mappings { "dns" => Dns(DnsDiscovery), "file" => File(FileDiscovery) }
}

mapping! {
    /// Backends are what a name stands for.
    DnsDiscovery, required ["name"], later [], {
        /// What is asked for: `db.internal`, or `_postgresql._tcp.example.com`. Required.
        name: DnsName,
        /// Their port, with type address; else the port the client dialled.
        port: Count<1, 65_535>,
        /// address: A and AAAA; srv: hosts with port, weight and tier.
        r#type: Asked,
        /// From one question to the next; auto: what the answer says, 1s to 5m.
        refresh: OrAuto<Time<SECOND, DAY>>,
        /// Who is asked: `10.0.0.53`, or `10.0.0.53:5353`; empty: whom /etc/resolv.conf names.
        servers: Vec<Placed<DnsServer>>,
    }
}

mapping! {
    /// Backends are listed in a file, which is read anew when it changes.
    FileDiscovery, required ["path"], later [], {
        /// A list as `backends` has it, of addresses, in YAML or JSON. Required.
        path: FilePath,
    }
}

words!(Asked, "Asked", later [], { "address" => Asked::Address, "srv" => Asked::Srv });

/// Without a port it is that of DNS.
#[derive(Clone, Copy, Debug)]
pub struct DnsServer(pub SocketAddr);

text_value!(
    DnsServer,
    "an address such as `10.0.0.53`",
    json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F.:\\[\\]]+(%.+)?$" }),
    |text, at| {
        match address::server(text, 53) {
            Some(server) => Ok(DnsServer(server)),
            None => {
                let message = format!("{} is not the address of a DNS server", quote(text));
                let hint = "write `10.0.0.53`, `10.0.0.53:5353` or `[2001:db8::53]:53`";
                Err(Fault::error(Code::BadAddress, at, message).hint(hint))
            }
        }
    }
);
