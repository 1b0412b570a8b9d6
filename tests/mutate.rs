//! Parsers at the door under bytes that nobody would send: the corpus as it is, and mutations of it. What is asked is
//! more than that nothing panics: a header or hello is judged the same whether it comes whole or piece by piece.
//!
//! `MAITRED_MUTATIONS` says how many mutations each parser gets; `scripts/check --long` asks for 10^8,
//! optimized.

// A test that meets what it does not expect is to fail on the spot.
#![allow(clippy::unwrap_used)]

mod corpus;

use std::fmt::Debug;

use corpus::{corpus, mutate};
use maitred::data::wire::client_hello::{self, BadHello};
use maitred::data::wire::proxy_protocol::{self, BadHeader};
use maitred::data::wire::scram::{Binding, Scram};
use maitred::data::wire::{Progress, mysql, postgres, postgres_client, redis};

const MOST: usize = 16 << 10;
const SEED: u64 = 0x6d61_6974_7265_6421;

fn mutations() -> u64 {
    let asked = std::env::var("MAITRED_MUTATIONS");
    asked.map_or(200_000, |text| text.parse().expect("MAITRED_MUTATIONS is a number"))
}

/// `look` judges each file, each of its beginnings, and very many mutations; `cut` where a mutation is cut in two.
fn run(name: &str, look: impl Fn(&[u8], usize)) {
    let corpus = corpus(name);
    for file in &corpus {
        for cut in 0..=file.len() {
            look(file, cut);
        }
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    for _ in 0..mutations() {
        let mut bytes = random.choice(&corpus).unwrap().clone();
        mutate(&mut bytes, &corpus, MOST / 2, &mut random);
        look(&bytes, random.usize(0..=bytes.len()));
    }
}

/// What was judged of a beginning stands, whatever follows.
fn is_kept<T: Debug + PartialEq, E: Debug + PartialEq>(
    begun: Result<Progress<T>, E>,
    whole: Result<Progress<T>, E>,
    bytes: &[u8],
) {
    if begun != Ok(Progress::Partial) {
        assert_eq!(begun, whole, "{bytes:?}");
    }
}

#[test]
fn proxy_headers() {
    run("proxy_protocol", |bytes, cut| {
        let whole = proxy_protocol::read(bytes, MOST);
        is_kept(proxy_protocol::read(&bytes[..cut], MOST), whole, bytes);
        if let Ok(Progress::Whole(header)) = whole {
            assert!((15..=bytes.len()).contains(&header.length));
            let ends = header.ends.into_iter().flat_map(|it| [it.client, it.local]);
            assert!(ends.into_iter().all(|end| end.ip() == end.ip().to_canonical()));
            let without_last = proxy_protocol::read(&bytes[..header.length - 1], MOST);
            assert_eq!(without_last, Ok(Progress::Partial), "{bytes:?}");
        }
        if whole == Err(BadHeader::TooLong) {
            assert!(bytes.len() >= 107 || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "{bytes:?}");
        }
    });
}

#[test]
fn client_hellos() {
    run("client_hello", |bytes, cut| {
        let whole = client_hello::read(bytes, MOST);
        is_kept(client_hello::read(&bytes[..cut], MOST), whole.clone(), bytes);
        if let Ok(Progress::Whole(hello)) = &whole {
            let name = hello.server_name.as_deref().unwrap_or("a");
            let is_plain = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
            };
            assert!(
                !name.is_empty() && name.len() <= 253 && name.bytes().all(is_plain),
                "{name:?}"
            );
        }
        let is_tls =
            bytes.is_empty() || bytes[0] == 22 && bytes.get(1).is_none_or(|byte| *byte == 3);
        assert_eq!(whole != Err(BadHello::NotTls), is_tls, "{bytes:?}");
        let asked = postgres::read(bytes);
        assert!(
            postgres::read(&bytes[..cut]) == Progress::Partial
                || postgres::read(&bytes[..cut]) == asked
        );
    });
}

/// What a server says to a probe that logs in.
#[test]
fn servers_of_databases() {
    let scram = Scram::new(Binding::Unavailable, "abc".to_owned());
    run("databases", |bytes, cut| {
        let whole = postgres_client::read(bytes);
        is_kept(postgres_client::read(&bytes[..cut]), whole, bytes);
        if let Ok(Progress::Whole((message, taken))) = whole {
            assert_eq!(taken, 5 + message.body.len());
        }
        let whole = mysql::read(bytes);
        is_kept(mysql::read(&bytes[..cut]), whole, bytes);
        if let Ok(Progress::Whole((packet, taken))) = whole {
            assert_eq!(taken, 4 + packet.body.len());
        }
        let whole = redis::read(bytes);
        is_kept(redis::read(&bytes[..cut]), redis::read(bytes), bytes);
        if let Ok(Progress::Whole((_, taken))) = whole {
            assert!(taken <= bytes.len());
        }
        // The bodies of messages, which come whole: no more is made of them than they hold.
        let of = |columns: Option<Vec<Option<&[u8]>>>| {
            let texts = columns.unwrap_or_default();
            texts.into_iter().flatten().map(<[u8]>::len).sum::<usize>()
        };
        assert!(of(postgres_client::columns(bytes)) <= bytes.len());
        assert!(of(mysql::columns(bytes)) <= bytes.len());
        let told = postgres_client::told(bytes);
        assert!(told.code.len() + told.message.len() <= bytes.len());
        let _ = (postgres_client::wanted(bytes), mysql::column_name(bytes));
        let _ = (mysql::reply(bytes), mysql::answer(bytes), mysql::row_reply(bytes));
        let _ = (redis::info(bytes, "role"), mysql::sealed("x", b"nonce", bytes));
        if let Some(greeting) = mysql::greeting(bytes) {
            assert!((20..=260).contains(&greeting.nonce.len()), "{bytes:?}");
        }
        if let Ok(first) = scram.read_first(bytes) {
            assert!(first.salt.len() <= 1024 && first.iterations.get() <= 1_000_000);
        }
    });
}
