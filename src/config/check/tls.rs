//! TLS of listeners and pools: files read, keys held against certificates, and what cannot work said before it is tried.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::reference::{Users, addresses};
use crate::border::addr::BackendAddr;
use crate::config::decode::{Field, Given};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::files::NetFiles;
use crate::config::keys::{Listener, Pool, PoolTls, ProbeTls, RelayMode};
use crate::config::net::Alpn;
use crate::config::tree::Span;
use crate::data::tls::client::{Client, Trust, Wish};
use crate::data::tls::server::Server;
use crate::data::tls::{Bad, File, Pair};

pub fn server(
    listener: &Given<Listener>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Arc<Server>> {
    let own = listener.tls.value()?.as_ref()?;
    if let Some(relay) = listener.relay.given().filter(|given| given.value == RelayMode::Splice) {
        let message = "what has to be encrypted cannot be spliced: with `tls` bytes are copied";
        faults.warning(Code::WithoutEffect, relay.span, message, "leave `relay` out");
    }
    let given = own.certificates.given()?;
    if given.value.is_empty() {
        let message = "there is no certificate";
        let hint = "name at least one: `certificates: [{certificate: FILE, key: FILE}]`";
        return faults.refuse(Fault::error(Code::EmptyValue, given.span, message, hint));
    }
    let mut pairs = Vec::with_capacity(given.value.len());
    for pair in given.value.iter().map(|it| &it.value) {
        let read = read(&pair.certificate, files, faults).zip(read(&pair.key, files, faults));
        let Some((certificate, key)) = read else { continue };
        let pair_read = Pair { certificate, key };
        // Each by itself, so that the fault points to it.
        match Server::new(std::slice::from_ref(&pair_read), None, &[]) {
            Ok(server) => {
                for expired in server.expired(NetFiles::now()) {
                    let hint = "renew it: clients will refuse it";
                    faults.warning(Code::Expired, pair.span, expired, hint);
                }
                pairs.push(pair_read);
            }
            Err(bad) => report(bad, pair.span, faults),
        }
    }
    let client_ca = own.client_ca.on();
    let ca = client_ca.and_then(|given| files.pem(given.value, given.span, faults));
    if pairs.len() < given.value.len() || ca.is_none() && client_ca.is_some() {
        return None;
    }
    let at = client_ca.map_or(own.span, |given| given.span);
    let server = Server::new(&pairs, ca.as_ref(), &protocols(&own.alpn));
    server.map_err(|bad| report(bad, at, faults)).ok().map(Arc::new)
}

pub fn client(
    pool: &Given<Pool>,
    users: Users,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Arc<Client>> {
    let given = pool.tls.given()?;
    let own = given.value.as_ref()?;
    if let Some(udp) = users.udp {
        let message = "`tls` is for TCP, and a UDP listener uses this pool";
        let hint = "give each listener a pool of its own";
        let fault = Fault::error(Code::OtherProtocol, given.span, message, hint);
        faults.push(fault.also(udp, "this one"));
    }
    built(pool, own, files, faults).map(Arc::new)
}

/// `health.tls`.
pub fn of_probes(pool: &Given<Pool>, files: &mut NetFiles, faults: &mut Faults) -> ProbeTls {
    let given = pool.health.value().and_then(|health| health.tls.value());
    match given {
        None | Some(None) => ProbeTls::Same,
        Some(Some(None)) => ProbeTls::None,
        Some(Some(Some(own))) => built(pool, own, files, faults)
            .map_or(ProbeTls::Same, |client| ProbeTls::Own(Arc::new(client))),
    }
}

fn built(
    pool: &Given<Pool>,
    own: &Given<PoolTls>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Client> {
    let before = faults.count();
    let verify = own.verify.value().is_none_or(|verify| *verify);
    let server_name = server_name(own, faults);
    if server_name.is_none() {
        check_unix(pool, own.span, faults);
    }
    let pair = own_pair(own, files, faults);
    let ca = own.ca.on().and_then(|given| files.pem(given.value, given.span, faults));
    if !verify {
        let at = own.verify.span().unwrap_or(own.span);
        let message = "without `verify` any host on the way may pose as the backend";
        let hint = match &ca {
            Some(_) => "remove `verify: false`: `ca` says which authorities are trusted",
            None => "name the authority that signed their certificates: `ca: FILE`",
        };
        faults.warning(Code::Unverified, at, message, hint);
    }
    if faults.has_errors() && faults.count() > before {
        return None;
    }
    let trust = match &ca {
        _ if !verify => Trust::Nobody,
        Some(file) => Trust::File(file),
        None => Trust::System,
    };
    let alpn = protocols(&own.alpn);
    let client = Client::new(Wish { server_name, trust, own: pair.as_ref(), alpn: &alpn });
    client.map_err(|bad| report(bad, own.span, faults)).ok()
}

fn server_name(own: &Given<PoolTls>, faults: &mut Faults) -> Option<ServerName<'static>> {
    let given = own.server_name.on()?;
    ServerName::try_from(given.value.clone()).ok().or_else(|| {
        let message = format!("{} is no name a certificate could be for", quote(given.value));
        let hint = "write a host such as `db.example.com`, or an IP address";
        faults.refuse(Fault::error(Code::Malformed, given.span, message, hint))
    })
}

/// A unix socket has no address that a certificate could be for.
fn check_unix(pool: &Given<Pool>, at: Span, faults: &mut Faults) {
    let unix =
        addresses(pool).find(|address| matches!(address.value.at(), Some(BackendAddr::Unix(_))));
    if let Some(unix) = unix {
        let message = "a backend on a unix socket has no address that a certificate could be for";
        let fault =
            Fault::error(Code::MissingKey, at, message, "write `server_name: db.example.com`");
        faults.push(fault.also(unix.span, "this backend"));
    }
}

fn own_pair(own: &Given<PoolTls>, files: &mut NetFiles, faults: &mut Faults) -> Option<Pair> {
    match (own.certificate.on(), own.key.on()) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let certificate = files.pem(certificate.value, certificate.span, faults);
            let key = files.pem(key.value, key.span, faults);
            certificate.zip(key).map(|(certificate, key)| Pair { certificate, key })
        }
        (Some(given), None) | (None, Some(given)) => {
            let message = "a certificate and its key belong together";
            let hint = "write both `certificate: FILE` and `key: FILE`";
            faults.refuse(Fault::error(Code::MissingKey, given.span, message, hint))
        }
    }
}

fn read(field: &Field<PathBuf>, files: &mut NetFiles, faults: &mut Faults) -> Option<File> {
    let given = field.given()?;
    files.pem(&given.value, given.span, faults)
}

fn protocols(field: &Field<Given<Vec<Alpn>>>) -> Vec<Vec<u8>> {
    field.items().iter().map(|it| it.value.clone()).collect()
}

fn report(bad: Bad, at: Span, faults: &mut Faults) {
    faults.error(Code::BadCertificate, at, bad.message, bad.hint);
}
