//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's side, with and without the binding to a TLS channel (RFC 5929,
//! `tls-server-end-point`). Neither side ever sends the password, and each proves to the other that it knows it.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// What the exchange is bound to.
#[derive(Clone, Copy, Debug)]
pub enum Binding<'a> {
    /// No TLS.
    Unavailable,
    /// TLS, and the server offers no binding: it learns that we would, and so notices who stripped its offer.
    NotOffered,
    /// The digest of the server's certificate.
    To(&'a [u8]),
}

/// The exchange, begun.
pub struct Scram {
    /// Tells the server about the binding.
    header: &'static str,
    bound_to: Vec<u8>,
    nonce: String,
}

/// The server's first message.
#[derive(Debug, PartialEq, Eq)]
pub struct First {
    text: String,
    nonce: String,
    pub salt: Vec<u8>,
    pub iterations: NonZeroU32,
}

/// What follows from password, salt and iterations, and costs that much to find.
#[derive(Clone)]
pub struct Keys {
    client: hmac::Tag,
    stored: digest::Digest,
    server: hmac::Tag,
}

/// What the server's last message must prove.
pub struct Proof(hmac::Key, Vec<u8>);

/// More are refused: the work is ours, and the server chooses it.
pub const MOST_ITERATIONS: u32 = 1_000_000;

/// Servers have 16 bytes.
const MOST_SALT: usize = 1024;

/// A message that is none of SCRAM's, or not the answer to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad(pub &'static str);

impl Scram {
    /// `nonce`: printable, without a comma, and never used before.
    pub fn new(binding: Binding<'_>, nonce: String) -> Scram {
        let (header, bound_to) = match binding {
            Binding::Unavailable => ("n,,", Vec::new()),
            Binding::NotOffered => ("y,,", Vec::new()),
            Binding::To(digest) => ("p=tls-server-end-point,,", digest.to_vec()),
        };
        Scram { header, bound_to, nonce }
    }

    /// PostgreSQL takes the name of the user from elsewhere.
    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    pub fn first(&self) -> Vec<u8> {
        [self.header, &self.bare()].concat().into_bytes()
    }

    pub fn read_first(&self, message: &[u8]) -> Result<First, Bad> {
        let text = str::from_utf8(message).map_err(|_| Bad("not text"))?;
        let mut parts = text.split(',');
        let mut part = |key: &str| parts.next().and_then(|part| part.strip_prefix(key));
        let (nonce, salt, count) = (part("r="), part("s="), part("i="));
        let nonce = nonce.filter(|it| it.len() > self.nonce.len() && it.starts_with(&self.nonce));
        let nonce = nonce.ok_or(Bad("its nonce is not a continuation of ours"))?.to_owned();
        let salt = salt.and_then(|salt| STANDARD.decode(salt).ok()).ok_or(Bad("it has no salt"))?;
        if salt.len() > MOST_SALT {
            return Err(Bad("its salt is longer than 1024 bytes"));
        }
        let iterations = count.and_then(|count| count.parse().ok());
        let iterations = iterations.ok_or(Bad("it has no count of iterations"))?;
        if iterations > const { NonZeroU32::new(MOST_ITERATIONS).unwrap() } {
            return Err(Bad("it asks for more than 1 000 000 iterations"));
        }
        Ok(First { text: text.to_owned(), nonce, salt, iterations })
    }

    pub fn last(&self, first: &First, keys: &Keys) -> (Vec<u8>, Proof) {
        let header = STANDARD.encode([self.header.as_bytes(), &self.bound_to].concat());
        let without_proof = format!("c={header},r={}", first.nonce);
        let exchange = format!("{},{},{without_proof}", self.bare(), first.text);
        let stored = hmac::Key::new(hmac::HMAC_SHA256, keys.stored.as_ref());
        let signature = hmac::sign(&stored, exchange.as_bytes());
        let proof: Vec<u8> =
            keys.client.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let message = format!("{without_proof},p={}", STANDARD.encode(proof));
        let server = hmac::Key::new(hmac::HMAC_SHA256, keys.server.as_ref());
        (message.into_bytes(), Proof(server, exchange.into_bytes()))
    }
}

impl Keys {
    /// Takes milliseconds for the 4 096 iterations that are usual.
    pub fn new(password: &str, salt: &[u8], iterations: NonZeroU32) -> Keys {
        // What is not allowed in a password there is used as it is, as PostgreSQL does.
        let prepared = stringprep::saslprep(password);
        let password = prepared.as_ref().map_or(password, |it| it);
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client = hmac::sign(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA256, client.as_ref());
        Keys { client, stored, server: hmac::sign(&salted, b"Server Key") }
    }
}

impl Proof {
    /// Whether the server's last message proves that it knows the password, too.
    pub fn is_met_by(&self, message: &[u8]) -> bool {
        let signature = message.strip_prefix(b"v=").and_then(|it| STANDARD.decode(it).ok());
        signature.is_some_and(|it| hmac::verify(&self.0, &self.1, &it).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3, but for the name of the user, which PostgreSQL leaves empty: so its proofs are
    /// others.
    #[test]
    fn an_exchange_as_a_server_sees_it() {
        let scram = Scram::new(Binding::Unavailable, "rOprNGfwEbeRWgbNEkqO".to_owned());
        assert_eq!(scram.first(), b"n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        let first = scram
            .read_first(
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            )
            .unwrap();
        assert_eq!((first.salt.len(), first.iterations.get()), (16, 4096));
        let keys = Keys::new("pencil", &first.salt, first.iterations);
        // StoredKey and ServerKey of the example, as PostgreSQL keeps them for this password and salt.
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        assert_eq!(encode(keys.stored.as_ref()), "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=");
        assert_eq!(encode(keys.server.as_ref()), "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
        let (last, proof) = scram.last(&first, &keys);
        let last = String::from_utf8(last).unwrap();
        assert!(last.starts_with("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="));
        // As the server does: the proof and its own signature give a key whose digest it has.
        let (without, given) = last.rsplit_once(",p=").unwrap();
        let exchange = format!("n=,r=rOprNGfwEbeRWgbNEkqO,{},{without}", first.text);
        let stored = hmac::Key::new(hmac::HMAC_SHA256, keys.stored.as_ref());
        let signature = hmac::sign(&stored, exchange.as_bytes());
        let given = STANDARD.decode(given).unwrap();
        let key: Vec<u8> = given.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest::digest(&digest::SHA256, &key).as_ref(), keys.stored.as_ref());
        let server = hmac::Key::new(hmac::HMAC_SHA256, keys.server.as_ref());
        let answer = format!("v={}", encode(hmac::sign(&server, exchange.as_bytes()).as_ref()));
        assert!(proof.is_met_by(answer.as_bytes()));
        assert!(!proof.is_met_by(b"v=AAAA") && !proof.is_met_by(b"e=other-error"));
    }

    #[test]
    fn a_binding_is_in_the_last_message_only() {
        let scram = Scram::new(Binding::To(b",digest,p"), "n".to_owned());
        assert_eq!(scram.first(), b"p=tls-server-end-point,,n=,r=n");
        let first = scram.read_first(b"r=nx,s=AAAA,i=1").unwrap();
        let keys = Keys::new("x", &first.salt, first.iterations);
        let (last, _) = scram.last(&first, &keys);
        let header = STANDARD.encode(b"p=tls-server-end-point,,,digest,p");
        assert!(last.starts_with(format!("c={header},r=nx,p=").as_bytes()));
        let scram = Scram::new(Binding::NotOffered, "n".to_owned());
        assert_eq!(scram.first(), b"y,,n=,r=n");
    }

    #[test]
    fn what_is_not_an_answer_to_ours() {
        let scram = Scram::new(Binding::Unavailable, "abc".to_owned());
        for bad in [
            &b""[..],
            b"\xff",
            b"r=abc,s=AAAA,i=1",
            b"r=xyz1,s=AAAA,i=1",
            b"r=abcd,s=*,i=1",
            b"r=abcd,s=AAAA,i=0",
            b"r=abcd,s=AAAA",
            b"r=abcd,s=AAAA,i=1000001",
            b"r=abcd,s=AAAA,i=99999999999",
        ] {
            assert!(scram.read_first(bad).is_err(), "{bad:?}");
        }
    }
}
