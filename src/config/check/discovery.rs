//! Where a pool's backends are found: what takes more than one key to see.

use std::sync::Arc;

use crate::config::decode::{Given, Key, Placed};
use crate::config::discovery::{Discovery, Finder, Origin, Question};
use crate::config::fault::{Code, Faults};
use crate::config::files::NetFiles;
use crate::config::keys::{Asked, Backend, DnsDiscovery, Found, Pool};

/// Host names among the backends, and the key. `None`: all backends are listed.
pub fn build(
    pool: &Given<Pool>,
    listed: &[Backend],
    mut finders: Vec<Finder>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Arc<Discovery>> {
    let key = pool.discovery.given().and_then(|given| key(given, files, faults));
    finders.extend(key.map(|finder| Finder { after: listed.len(), ..finder }));
    let listed = listed.to_vec();
    (!finders.is_empty()).then(|| Arc::new(Discovery { listed, finders }))
}

fn key(given: &Placed<Given<Found>>, files: &mut NetFiles, faults: &mut Faults) -> Option<Finder> {
    type Kind = Given<Found>;
    match &given.value {
        Kind::Listed => None,
        Kind::Dns(own) => dns(own, faults),
        Kind::File(own) => {
            let path = own.path.given()?;
            let read = files.backends(&path.value, path.span, faults);
            let origin = Origin::File(files.resolve(&path.value, path.span));
            Some(Finder { origin, read: read.map(Arc::new), ..Finder::default() })
        }
    }
}

fn dns(given: &Given<DnsDiscovery>, faults: &mut Faults) -> Option<Finder> {
    let DnsDiscovery { record, port, refresh, servers, .. } = DnsDiscovery::settle(given);
    if let (Asked::Srv, Some(at)) = (record, given.port.span()) {
        let message =
            "`port` matters only with `type: address`: SRV records have ports of their own";
        faults.warning(Code::WithoutEffect, at, message, "leave the key out");
    }
    let name = given.name.given()?;
    if name.value == "." {
        let message = "the root of DNS has no addresses";
        faults.error(Code::Malformed, name.span, message, "write a name such as `db.internal`");
    }
    let question = Question { name: name.value.to_ascii_lowercase(), record, servers };
    Some(Finder { origin: Origin::Dns(question), port, refresh, ..Finder::default() })
}
