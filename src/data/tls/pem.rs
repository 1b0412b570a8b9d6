//! The content of PEM texts: certificates, keys, authorities; and what a certificate says about itself.

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::{Bad, File};
use crate::border::text::quote;

/// What a certificate says about itself.
pub struct Facts {
    /// In lower case; `*.example.com` for all names one label longer than `example.com`.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub expires: i64,
}

/// The certificates of a text, in its order; at least one.
pub fn certificates(file: &File) -> Result<Vec<CertificateDer<'static>>, Bad> {
    const HINT: &str = "write the path of a PEM file with `-----BEGIN CERTIFICATE-----`";
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.text.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(Bad::new(format!("there is no certificate in {}", quote(&file.name)), HINT))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(malformed(file, &error)),
    }
}

pub fn key(file: &File) -> Result<PrivateKeyDer<'static>, Bad> {
    const HINT: &str =
        "write the path of a PEM file with `-----BEGIN PRIVATE KEY-----`, unencrypted";
    if file.text.contains("ENCRYPTED") {
        let message = format!("the private key in {} is encrypted", quote(&file.name));
        return Err(Bad::new(message, "decrypt it: `openssl pkey -in FILE -out FILE`"));
    }
    match PrivateKeyDer::from_pem_slice(file.text.as_bytes()) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            Err(Bad::new(format!("there is no private key in {}", quote(&file.name)), HINT))
        }
        Err(error) => Err(malformed(file, &error)),
    }
}

pub fn authorities(file: &File) -> Result<RootCertStore, Bad> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|error| {
            Bad::new(
                format!("a certificate in {} is of no use: {error}", quote(&file.name)),
                "write the path of a PEM file with certificates of authorities",
            )
        })?;
    }
    Ok(store)
}

pub fn facts(certificate: &CertificateDer<'_>, file: &File) -> Result<Facts, Bad> {
    let unreadable = || {
        Bad::new(
            format!("the first certificate in {} cannot be read", quote(&file.name)),
            "have it issued anew: it is no certificate of X.509 version 3",
        )
    };
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
    if certificate.version() != X509Version::V3 {
        return Err(Bad::new(
            format!(
                "{} holds a certificate of X.509 version 1, which names no host",
                quote(&file.name)
            ),
            "have it issued with extensions, as `openssl x509 -req -extfile FILE` with `subjectAltName=DNS:db.example.com`",
        ));
    }
    let alternatives = certificate.subject_alternative_name().map_err(|_| unreadable())?;
    let alternatives = alternatives.map_or(&[][..], |names| &names.value.general_names);
    let names = alternatives.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    });
    Ok(Facts { names: names.collect(), expires: certificate.validity().not_after.timestamp() })
}

/// Whether it is valid already and has not expired, in seconds since 1970.
pub fn is_valid_at(certificate: &CertificateDer<'_>, now: u64) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let validity = certificate.validity();
    i64::try_from(now).is_ok_and(|now| {
        (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
    })
}

fn malformed(file: &File, error: &pem::Error) -> Bad {
    let message = format!("{} is no PEM file: {error}", quote(&file.name));
    Bad::new(message, "convert it, as `openssl x509 -inform der -in FILE` does")
}
