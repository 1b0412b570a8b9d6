//! What a login may be bound to: the digest of the server's certificate (RFC 5929, section 4.1).

use ring::digest::{Algorithm, Digest, SHA256, SHA384, SHA512, digest};
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer, X509Certificate};

/// `None`: not a certificate, or signed in a way whose digest is not named, as with Ed25519.
pub fn end_point(certificate: &[u8]) -> Option<Digest> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let signed = &parsed.signature_algorithm.algorithm;
    let known: [(_, &'static Algorithm); 8] = [
        // MD5 and SHA-1 are too weak for it.
        (&oid::OID_PKCS1_MD5WITHRSAENC, &SHA256),
        (&oid::OID_PKCS1_SHA1WITHRSA, &SHA256),
        (&oid::OID_PKCS1_SHA256WITHRSA, &SHA256),
        (&oid::OID_SIG_ECDSA_WITH_SHA256, &SHA256),
        (&oid::OID_PKCS1_SHA384WITHRSA, &SHA384),
        (&oid::OID_SIG_ECDSA_WITH_SHA384, &SHA384),
        (&oid::OID_PKCS1_SHA512WITHRSA, &SHA512),
        (&oid::OID_SIG_ECDSA_WITH_SHA512, &SHA512),
    ];
    let (_, algorithm) = known.into_iter().find(|(it, _)| *it == signed)?;
    Some(digest(algorithm, certificate))
}
