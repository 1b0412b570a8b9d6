//! TLS of a listener: its certificates, chosen by the name that a client asks for.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};

use super::protocols;
use super::{Bad, File, Pair, PairNames, Read, digest, has_postgres, pem, provider};
use crate::border::text::quote;

/// The settings of one listener.
pub struct Server {
    pub config: Arc<ServerConfig>,
    /// When the first of its certificates expires, in seconds since 1970.
    pub expires: i64,
    pairs: Vec<PairNames>,
    /// When the certificate of each pair expires.
    expiries: Vec<i64>,
    client_ca: Option<String>,
    alpn: Vec<Vec<u8>>,
    digest: [u8; 32],
}

/// Certificates by their names. Of several for one name, the first that fits what the client can verify: one with an
/// RSA key and one with an ECDSA key may be used side by side.
#[derive(Debug, Default)]
struct ByName {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// In file order, for all other names.
    all: Vec<Arc<CertifiedKey>>,
}

impl Server {
    /// `client_ca`: clients must show a certificate of one of these authorities.
    pub fn new(pairs: &[Pair], client_ca: Option<&File>, alpn: &[Vec<u8>]) -> Result<Server, Bad> {
        let mut by_name = ByName::default();
        let mut expiries = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let chain = pem::certificates(&pair.certificate)?;
            let facts = pem::facts(&chain[0], &pair.certificate)?;
            expiries.push(facts.expires);
            let key = pem::key(&pair.key)?;
            let certified = CertifiedKey::from_der(chain, key, &provider())
                .map_err(|error| unfit(pair, &error))?;
            by_name.add(&facts.names, &Arc::new(certified));
        }
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Bad::new(error.to_string(), ""))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let roots = Arc::new(pem::authorities(file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = verifier.build().map_err(|error| {
                    Bad::new(
                        format!("{} is of no use: {error}", quote(&file.name)),
                        "write the path of a PEM file with certificates of authorities",
                    )
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(by_name));
        config.alpn_protocols = alpn.to_vec();
        if client_ca.is_some() {
            // A resumed session shows no certificate: a client that was admitted once would be admitted for ever,
            // expired or not.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Server {
            config: Arc::new(config),
            expires: expiries.iter().copied().min().unwrap_or(i64::MAX),
            expiries,
            pairs: pairs.iter().map(Pair::names).collect(),
            client_ca: client_ca.map(|file| file.name.clone()),
            alpn: alpn.to_vec(),
            digest: digest_of(pairs, client_ca, alpn),
        })
    }

    /// The same settings from the present content of their files.
    pub fn again(&self, read: Read<'_>) -> Result<Server, String> {
        let pairs: Result<Vec<_>, _> =
            self.pairs.iter().map(|names| Pair::again(names, read)).collect();
        let ca = self.client_ca.as_ref().map(|name| File::again(name, read)).transpose()?;
        Server::new(&pairs?, ca.as_ref(), &self.alpn).map_err(|bad| bad.message)
    }

    /// Whether clients may first ask for TLS in PostgreSQL's way.
    pub fn is_for_postgres(&self) -> bool {
        has_postgres(&self.alpn)
    }

    /// Warnings about certificates that expired before `now`, in seconds since 1970.
    pub fn expired(&self, now: i64) -> impl Iterator<Item = String> {
        let each = self.pairs.iter().zip(&self.expiries).filter(move |(_, at)| **at < now);
        each.map(|((certificate, _), at)| {
            let when = jiff::Timestamp::from_second(*at).map(|when| when.to_string());
            format!("{} expired on {}", quote(certificate), when.unwrap_or_default())
        })
    }

    /// In the grammar of the configuration.
    pub fn describe(&self) -> Value {
        let pairs = self.pairs.iter();
        let pairs =
            pairs.map(|(certificate, key)| json!({ "certificate": certificate, "key": key }));
        json!({
            "certificates": pairs.collect::<Vec<_>>(),
            "client_ca": self.client_ca.as_deref().unwrap_or("none"),
            "alpn": protocols(&self.alpn),
        })
    }

    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs.iter().flat_map(|(certificate, key)| [certificate, key]);
        pairs.chain(&self.client_ca).map(Path::new)
    }
}

fn digest_of(pairs: &[Pair], client_ca: Option<&File>, alpn: &[Vec<u8>]) -> [u8; 32] {
    let texts = pairs.iter().flat_map(|pair| [&pair.certificate.text, &pair.key.text]);
    let texts = texts.map(|text| text.as_bytes());
    let ca = client_ca.map_or(&b"none"[..], |file| file.text.as_bytes());
    digest(texts.chain([ca]).chain(alpn.iter().map(Vec::as_slice)))
}

/// Which of the two does not fit, as far as rustls says.
pub(super) fn unfit(pair: &Pair, error: &rustls::Error) -> Bad {
    let (certificate, key) = (quote(&pair.certificate.name), quote(&pair.key.name));
    match error {
        rustls::Error::InconsistentKeys(_) => Bad::new(
            format!("the key in {key} is not that of the certificate in {certificate}"),
            "name the key the certificate was issued for; the certificate itself stands first in its file",
        ),
        _ => Bad::new(
            format!("{key} or {certificate} is of no use: {error}"),
            "RSA keys of 2048 to 8192 bits, ECDSA keys on P-256 or P-384 and Ed25519 keys work",
        ),
    }
}

impl ByName {
    fn add(&mut self, names: &[String], certified: &Arc<CertifiedKey>) {
        for name in names {
            let list = match name.strip_prefix("*.") {
                Some(parent) => self.wildcard.entry(parent.to_owned()),
                None => self.exact.entry(name.clone()),
            };
            list.or_default().push(Arc::clone(certified));
        }
        self.all.push(Arc::clone(certified));
    }

    /// The certificates for `name`; a wildcard stands for one label (RFC 9525, section 6.3).
    fn of(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(wildcard)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let list = hello.server_name().and_then(|name| self.of(name)).unwrap_or(&self.all);
        let fits =
            |it: &&Arc<CertifiedKey>| it.key.choose_scheme(hello.signature_schemes()).is_some();
        list.iter().find(fits).or_else(|| list.first()).map(Arc::clone)
    }
}

impl PartialEq for Server {
    fn eq(&self, other: &Server) -> bool {
        self.digest == other.digest
    }
}

/// Keys stay out of logs.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("expires", &self.expires).finish_non_exhaustive()
    }
}
