//! Where a pool's backends are found: what takes more than one key to see.

use std::collections::HashMap;
use std::sync::Arc;

use super::pool::backend_twice;
use crate::config::address::HostPort;
use crate::config::decode::Placed;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::load::NetFiles;
use crate::config::raw;
use crate::config::tree::Span;
use crate::config::{Asked, Backend, Discovery, Finder, Origin, Question};

/// Host names among the backends, and the key. `None`: all backends are listed.
pub fn build(
    raw: &raw::Pool,
    listed: &[Backend],
    mut finders: Vec<Finder>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Arc<Discovery>> {
    let key = raw.discovery.given().and_then(|given| key(given, files, faults));
    finders.extend(key.map(|finder| Finder { after: listed.len(), ..finder }));
    let listed = listed.to_vec();
    (!finders.is_empty()).then(|| Arc::new(Discovery { listed, finders }))
}

fn key(
    given: &Placed<raw::Discovery>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Finder> {
    match &given.value {
        raw::Discovery::None => None,
        raw::Discovery::Dns(own) => dns(own, faults),
        raw::Discovery::File(own) => {
            let hint = "name the file, as in `{file: {path: backends.yaml}}`";
            own.path.require("path", own.span, hint, faults);
            let path = own.path.given()?;
            let read = files.backends(&path.value.0, path.span, faults);
            let origin = Origin::File(files.resolve(&path.value.0, path.span));
            Some(Finder { origin, read: read.map(Arc::new), ..Finder::default() })
        }
    }
}

fn dns(own: &raw::DnsDiscovery, faults: &mut Faults) -> Option<Finder> {
    let hint = "write what is asked for, as in `{dns: {name: db.internal, port: 5432}}`";
    own.name.require("name", own.span, hint, faults);
    let record = own.r#type.copied().unwrap_or_default();
    let port = own.port.given().filter(|_| record == Asked::Srv);
    if let Some(port) = port {
        let message =
            "`port` matters only with `type: address`: SRV records have ports of their own";
        let fault = Fault::warning(Code::WithoutEffect, port.span, message);
        faults.push(fault.hint("leave the key out"));
    }
    let name = own.name.given()?;
    if name.value.0 == "." {
        let fault = Fault::error(Code::Malformed, name.span, "the root of DNS has no addresses");
        faults.push(fault.hint("write a name such as `db.internal`"));
    }
    let servers = own.servers.value().into_iter().flatten().map(|server| server.value.0);
    let name = name.value.0.to_ascii_lowercase();
    Some(Finder {
        origin: Origin::Dns(Question { name, record, servers: servers.collect() }),
        port: own.port.copied().and_then(|port| u16::try_from(port.0).ok()),
        refresh: own.refresh.copied().and_then(|auto| auto.0.map(|time| time.0)),
        ..Finder::default()
    })
}

/// Host names among the backends of a pool.
#[derive(Default)]
pub struct Names {
    pub finders: Vec<Finder>,
    seen: HashMap<HostPort, Span>,
}

impl Names {
    /// `like` has what is said of the backend besides; `after`: listed ones in front of it.
    pub fn add(
        &mut self,
        host: &HostPort,
        at: Span,
        like: &raw::BackendMapping,
        after: usize,
        faults: &mut Faults,
    ) {
        if let Some(span) = like.name.span() {
            let message =
                "what a host name stands for may be many, and each is called by its address";
            let fault = Fault::warning(Code::WithoutEffect, span, message);
            faults.push(fault.hint("leave `name` out"));
        }
        if let Some(first) = self.seen.insert(host.clone(), at) {
            let shown = quote(&host.host);
            faults.push(backend_twice(
                format!("the host {shown} is twice in this pool"),
                at,
                first,
            ));
            return;
        }
        let Backend { weight, tier, max_sessions, .. } = super::pool::terms(like);
        let question =
            Question { name: host.host.clone(), record: Asked::Address, servers: Vec::new() };
        let origin = Origin::Dns(question);
        let port = host.port;
        self.finders.push(Finder {
            origin,
            after,
            port,
            weight,
            tier,
            max_sessions,
            ..Finder::default()
        });
    }
}
