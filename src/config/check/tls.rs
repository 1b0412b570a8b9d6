//! TLS of listeners and pools: files read, keys held against certificates, and what cannot work said before it is tried.

use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::reference::Users;
use crate::border::addr::BackendAddr;
use crate::config::RelayMode;
use crate::config::decode::{Field, Placed};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::load::NetFiles;
use crate::config::net::FilePath;
use crate::config::raw;
use crate::config::route::Alpn;
use crate::config::scalar::{OrNone, OrSystem};
use crate::config::tree::Span;
use crate::data::tls::client::{Client, Trust, Wish};
use crate::data::tls::server::Server;
use crate::data::tls::{Bad, File, Pair};

pub fn server(
    raw: &raw::Listener,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Arc<Server>> {
    let own = raw.tls.value()?.0.as_ref()?;
    if let Some(relay) = raw.relay.given().filter(|given| given.value == RelayMode::Splice) {
        let message = "what has to be encrypted cannot be spliced: with `tls` bytes are copied";
        let fault = Fault::warning(Code::WithoutEffect, relay.span, message);
        faults.push(fault.hint("leave `relay` out"));
    }
    let hint = "name at least one: `certificates: [{certificate: FILE, key: FILE}]`";
    own.certificates.require("certificates", own.span, hint, faults);
    let given = own.certificates.given()?;
    if given.value.is_empty() {
        let fault = Fault::error(Code::EmptyValue, given.span, "there is no certificate");
        faults.push(fault.hint(hint));
        return None;
    }
    let mut pairs = Vec::with_capacity(given.value.len());
    for pair in &given.value {
        let hint = "a certificate and its key belong together: `{certificate: FILE, key: FILE}`";
        pair.certificate.require("certificate", pair.span, hint, faults);
        pair.key.require("key", pair.span, hint, faults);
        let read = read(&pair.certificate, files, faults).zip(read(&pair.key, files, faults));
        let Some((certificate, key)) = read else { continue };
        let pair_read = Pair { certificate, key };
        // Each by itself, so that the fault points to it.
        match Server::new(std::slice::from_ref(&pair_read), None, &[]) {
            Ok(server) => {
                for expired in server.expired(NetFiles::now()) {
                    let fault = Fault::warning(Code::Expired, pair.span, expired);
                    faults.push(fault.hint("renew it: clients will refuse it"));
                }
                pairs.push(pair_read);
            }
            Err(bad) => report(bad, pair.span, faults),
        }
    }
    let client_ca = own.client_ca.given().filter(|given| given.value.0.is_some());
    let ca = client_ca.and_then(|given| read_optional(&given.value, given.span, files, faults));
    if pairs.len() < given.value.len() || ca.is_none() && client_ca.is_some() {
        return None;
    }
    match Server::new(&pairs, ca.as_ref(), &protocols(&own.alpn)) {
        Ok(server) => Some(Arc::new(server)),
        Err(bad) => {
            report(bad, client_ca.map_or(own.span, |given| given.span), faults);
            None
        }
    }
}

pub fn client(
    raw: &raw::Pool,
    users: Users,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Arc<Client>> {
    let given = raw.tls.given()?;
    let own = given.value.0.as_ref()?;
    if let Some(udp) = users.udp {
        let message = "`tls` is for TCP, and a UDP listener uses this pool";
        let fault = Fault::error(Code::OtherProtocol, given.span, message);
        faults.push(fault.also(udp, "this one").hint("give each listener a pool of its own"));
    }
    let before = faults.count();
    let verify = own.verify.copied().is_none_or(|switch| switch.0);
    let server_name = server_name(own, faults);
    if server_name.is_none() {
        check_unix(raw, own.span, faults);
    }
    let pair = own_pair(own, files, faults);
    let ca = own.ca.given().and_then(|given| {
        let OrSystem(path) = &given.value;
        files.pem(&path.as_ref()?.0, given.span, faults)
    });
    if !verify {
        let at = own.verify.span().unwrap_or(own.span);
        let message = "without `verify` anybody on the way may pose as the backend";
        let fault = Fault::warning(Code::Unverified, at, message);
        faults.push(fault.hint(match &ca {
            Some(_) => "remove `verify: false`: `ca` says whom to believe",
            None => "name who signed their certificates: `ca: FILE`",
        }));
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
    match Client::new(Wish { server_name, trust, own: pair.as_ref(), alpn: &alpn }) {
        Ok(client) => Some(Arc::new(client)),
        Err(bad) => {
            report(bad, own.span, faults);
            None
        }
    }
}

fn server_name(own: &raw::PoolTls, faults: &mut Faults) -> Option<ServerName<'static>> {
    let given = own.server_name.given()?;
    let text = &given.value.0.as_ref()?.0;
    match ServerName::try_from(text.clone()) {
        Ok(name) => Some(name),
        Err(_) => {
            let message = format!("{} is no name a certificate could be for", quote(text));
            let fault = Fault::error(Code::Malformed, given.span, message);
            faults.push(fault.hint("write a host such as `db.example.com`, or an IP address"));
            None
        }
    }
}

/// A unix socket has no address that a certificate could be for.
fn check_unix(raw: &raw::Pool, at: Span, faults: &mut Faults) {
    let backends = raw.backends.value().into_iter().flatten();
    let mut addresses = backends.filter_map(|backend| backend.mapping.address.given());
    let unix = addresses.find(|address| matches!(address.value.at(), Some(BackendAddr::Unix(_))));
    if let Some(unix) = unix {
        let message = "a backend on a unix socket has no address that a certificate could be for";
        let fault = Fault::error(Code::MissingKey, at, message);
        faults.push(
            fault.also(unix.span, "this backend").hint("write `server_name: db.example.com`"),
        );
    }
}

fn own_pair(own: &raw::PoolTls, files: &mut NetFiles, faults: &mut Faults) -> Option<Pair> {
    let certificate = own.certificate.given().filter(|given| given.value.0.is_some());
    let key = own.key.given().filter(|given| given.value.0.is_some());
    match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let certificate = read_optional(&certificate.value, certificate.span, files, faults);
            let key = read_optional(&key.value, key.span, files, faults);
            certificate.zip(key).map(|(certificate, key)| Pair { certificate, key })
        }
        (Some(given), None) | (None, Some(given)) => {
            let message = "a certificate and its key belong together";
            let fault = Fault::error(Code::MissingKey, given.span, message);
            faults.push(fault.hint("write both `certificate: FILE` and `key: FILE`"));
            None
        }
    }
}

fn read(field: &Field<FilePath>, files: &mut NetFiles, faults: &mut Faults) -> Option<File> {
    let given = field.given()?;
    files.pem(&given.value.0, given.span, faults)
}

fn read_optional(
    path: &OrNone<FilePath>,
    at: Span,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<File> {
    files.pem(&path.0.as_ref()?.0, at, faults)
}

fn protocols(field: &Field<Vec<Placed<Alpn>>>) -> Vec<Vec<u8>> {
    field.value().into_iter().flatten().map(|it| it.value.0.clone().into_bytes()).collect()
}

fn report(bad: Bad, at: Span, faults: &mut Faults) {
    faults.push(Fault::error(Code::BadCertificate, at, bad.message).hint(bad.hint));
}
