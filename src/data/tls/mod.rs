//! TLS settings, ready for use: built by the checks of the configuration from the texts of its files, shared by all
//! sessions, replaced whole when a file changes. rustls does the encryption.

pub mod client;
mod pem;
mod end_point;
pub mod server;

pub use end_point::end_point;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::crypto::{CryptoProvider, ring};
use sha2::{Digest, Sha256};

/// Of ALPN; all registered ones are text.
pub fn protocols(protocols: &[Vec<u8>]) -> Vec<String> {
    protocols.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect()
}

/// A file of the configuration.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path, as faults name it.
    pub name: String,
    pub text: String,
}

impl File {
    /// Reads a file by the name that it had.
    fn again(name: &str, read: Read<'_>) -> Result<File, String> {
        Ok(File { name: name.to_owned(), text: read(Path::new(name))? })
    }
}

/// Reads the text of a file; `Err` names it.
pub type Read<'a> = &'a dyn Fn(&Path) -> Result<String, String>;

/// The names of a pair's files.
type PairNames = (String, String);

impl Pair {
    fn names(&self) -> PairNames {
        (self.certificate.name.clone(), self.key.name.clone())
    }

    fn again((certificate, key): &PairNames, read: Read<'_>) -> Result<Pair, String> {
        Ok(Pair { certificate: File::again(certificate, read)?, key: File::again(key, read)? })
    }
}

/// A certificate with the intermediate ones of its chain, and its private key.
#[derive(Clone, Debug)]
pub struct Pair {
    pub certificate: File,
    pub key: File,
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub message: String,
    pub hint: String,
}

impl Bad {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Bad {
        Bad { message: message.into(), hint: hint.into() }
    }
}

/// PostgreSQL's own protocol of ALPN. A list that has it also serves those who ask for TLS in PostgreSQL's older way.
fn has_postgres(alpn: &[Vec<u8>]) -> bool {
    alpn.iter().any(|protocol| protocol == b"postgresql")
}

/// Why a handshake or a stream broke, as text for the log.
pub fn explain(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(bad)) => {
            format!("what it sent is not valid TLS: {bad:?}")
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            "its certificate is self-signed, and is not one of those in `ca`".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if other.to_string().contains("UnsupportedCertVersion") =>
        {
            "its certificate is of X.509 version 1, which has no host names".to_owned()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed during the handshake".to_owned()
        }
        _ => error.to_string(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Distinguishes settings of one reading from those of another.
fn digest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        // With their lengths, so that no two lists of parts look alike.
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
