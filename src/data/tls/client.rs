//! TLS to backends: the certificates that a pool trusts, and the certificate that it shows.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use serde_json::{Value, json};

use super::protocols;
use super::{Bad, File, Pair, PairNames, Read, digest, has_postgres, pem, provider};
use crate::border::text::quote;

/// What a pool configures.
#[derive(Default)]
pub struct Wish<'a> {
    /// The name that must be in a backend's certificate; `None`: its address.
    pub server_name: Option<ServerName<'static>>,
    pub trust: Trust<'a>,
    /// Shown to backends that ask for one.
    pub own: Option<&'a Pair>,
    pub alpn: &'a [Vec<u8>],
}

/// The certificates that are trusted.
#[derive(Clone, Copy, Default)]
pub enum Trust<'a> {
    /// Those of these authorities.
    File(&'a File),
    /// Any certificate.
    Nobody,
    /// Those of the authorities that this machine trusts.
    #[default]
    System,
}

/// The settings of one pool.
pub struct Client {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    trust: Whom,
    own: Option<PairNames>,
    alpn: Vec<Vec<u8>>,
    digest: [u8; 32],
}

/// `Trust` with the name of its file.
enum Whom {
    File(String),
    Nobody,
    System,
}

impl Client {
    pub fn new(wish: Wish<'_>) -> Result<Client, Bad> {
        let provider = provider();
        let mut parts: Vec<Vec<u8>> = vec![format!("{:?}", wish.server_name).into_bytes()];
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Bad::new(error.to_string(), ""))?;
        let builder = match wish.trust {
            Trust::Nobody => {
                parts.push(b"nobody".to_vec());
                let verifier = Verifier { provider, known: None };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Trust::File(file) => {
                parts.push(file.text.clone().into_bytes());
                let known = Some(Known::new(file, &provider)?);
                let verifier = Verifier { provider, known };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Trust::System => builder.with_root_certificates(system(&mut parts)?),
        };
        let mut config = match wish.own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                parts.extend([&pair.certificate, &pair.key].map(|it| it.text.clone().into_bytes()));
                let chain = pem::certificates(&pair.certificate)?;
                let key = pem::key(&pair.key)?;
                let built = builder.with_client_auth_cert(chain, key);
                built.map_err(|error| super::server::unfit(pair, &error))?
            }
        };
        config.alpn_protocols = wish.alpn.to_vec();
        // A resumed session shows no certificate, and an expired one would not be noticed.
        config.resumption = Resumption::disabled();
        parts.extend(wish.alpn.iter().cloned());
        Ok(Client {
            config: Arc::new(config),
            server_name: wish.server_name,
            trust: match wish.trust {
                Trust::File(file) => Whom::File(file.name.clone()),
                Trust::Nobody => Whom::Nobody,
                Trust::System => Whom::System,
            },
            own: wish.own.map(Pair::names),
            alpn: wish.alpn.to_vec(),
            digest: digest(parts.iter().map(Vec::as_slice)),
        })
    }

    /// The same settings from the present content of their files.
    pub fn again(&self, read: Read<'_>) -> Result<Client, String> {
        let ca = match &self.trust {
            Whom::File(name) => Some(File::again(name, read)?),
            Whom::Nobody | Whom::System => None,
        };
        let trust = match (&self.trust, &ca) {
            (Whom::Nobody, _) => Trust::Nobody,
            (_, Some(file)) => Trust::File(file),
            (_, None) => Trust::System,
        };
        let own = self.own.as_ref().map(|names| Pair::again(names, read)).transpose()?;
        let server_name = self.server_name.clone();
        Client::new(Wish { server_name, trust, own: own.as_ref(), alpn: &self.alpn })
            .map_err(|bad| bad.message)
    }

    /// Whether backends are first asked for TLS in PostgreSQL's way.
    pub fn is_for_postgres(&self) -> bool {
        has_postgres(&self.alpn)
    }

    /// In the grammar of the configuration.
    pub fn describe(&self) -> Value {
        let name = self.server_name.as_ref().map(|name| name.to_str());
        let (certificate, key) = self.own.as_ref().map_or(("none", "none"), |(it, key)| (it, key));
        json!({
            "server_name": name.as_deref().unwrap_or("none"),
            "ca": match &self.trust {
                Whom::File(file) => file,
                Whom::Nobody | Whom::System => "system",
            },
            "certificate": certificate,
            "key": key,
            "alpn": protocols(&self.alpn),
            "verify": !matches!(self.trust, Whom::Nobody),
        })
    }

    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let ca = match &self.trust {
            Whom::File(name) => Some(name),
            Whom::Nobody | Whom::System => None,
        };
        let own = self.own.iter().flat_map(|(certificate, key)| [certificate, key]);
        own.chain(ca).map(Path::new)
    }

    /// A connection to the backend at `ip`; `None` is a unix socket, for which a `server_name` is given.
    pub fn connection(&self, ip: Option<IpAddr>) -> Result<ClientConnection, rustls::Error> {
        let name = self.server_name.clone().or_else(|| ip.map(ServerName::from));
        let name = name.ok_or_else(|| rustls::Error::General("no server_name".to_owned()))?;
        ClientConnection::new(Arc::clone(&self.config), name)
    }
}

fn system(parts: &mut Vec<Vec<u8>>) -> Result<RootCertStore, Bad> {
    let found = rustls_native_certs::load_native_certs();
    parts.extend(found.certs.iter().map(|it| it.to_vec()));
    let mut store = RootCertStore::empty();
    // A machine's store may have some that cannot be parsed.
    let (taken, _) = store.add_parsable_certificates(found.certs);
    if taken == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(Bad::new(
            format!("this machine trusts no authority{why}"),
            "install its certificates (Debian: `ca-certificates`), or name a PEM file with `ca: FILE`",
        ));
    }
    Ok(store)
}

impl PartialEq for Client {
    fn eq(&self, other: &Client) -> bool {
        self.digest == other.digest
    }
}

/// Keys stay out of logs.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Which certificates to trust. Signatures are always verified.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None`, by `verify: false`: any certificate.
    known: Option<Known>,
}

/// The authorities of a file; and a certificate that is itself in the file, such as a self-signed one.
#[derive(Debug)]
struct Known {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Known {
    fn new(file: &File, provider: &Arc<CryptoProvider>) -> Result<Known, Bad> {
        let roots = Arc::new(pem::authorities(file)?);
        let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
        let authorities = builder.build().map_err(|error| {
            Bad::new(
                format!("{} is of no use: {error}", quote(&file.name)),
                "write the path of a PEM file with certificates of authorities",
            )
        })?;
        Ok(Known { authorities, certificates: pem::certificates(file)? })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(known) = &self.known else { return Ok(ServerCertVerified::assertion()) };
        let (chain, name) = (intermediates, server_name);
        let by_authority =
            known.authorities.verify_server_cert(end_entity, chain, name, ocsp_response, now);
        if by_authority.is_ok() || !known.certificates.contains(end_entity) {
            return by_authority;
        }
        // An authority's certificate is not accepted as a server's, but this one is known itself.
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        if pem::is_valid_at(end_entity, now.as_secs()) {
            return Ok(ServerCertVerified::assertion());
        }
        by_authority
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
