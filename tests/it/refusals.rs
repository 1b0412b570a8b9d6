//! What a client is told that reaches no backend, where it speaks a protocol in which that can be said.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use maitred::border::record::{CloseReason, Stage};
use maitred::config::{Config, NamePattern, OnRefuse, Route};
use maitred::data::wire::postgres;

use crate::balancer::{self, Balancer};
use crate::hello::hello;
use crate::tls::{DIAL, Dial, Files};

/// A listener that ends TLS, and no backend.
fn config(files: &Files, alpn: &[&str]) -> Config {
    let mut config = balancer::config(&[]);
    balancer::listener(&mut config).tls = files.server(false, alpn);
    config
}

fn said(mut client: impl Read) -> Vec<u8> {
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    said
}

const STARTUP: &[u8] = b"\0\0\0\x10\0\x03\0\0user\0me\0\0";

#[test]
fn psql_in_clear_is_told_to_use_tls_whether_it_asks_first_or_not() {
    let files = Files::new();
    for (alpn, bytes) in
        [(&["postgresql"][..], STARTUP), (&[], STARTUP), (&[], &postgres::TLS_REQUEST)]
    {
        let balancer = Balancer::start(config(&files, alpn));
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(bytes).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let told = said(&client);
        assert!(told.starts_with(b"E") && told.windows(15).any(|it| it == b"sslmode=require"));
        let record = &balancer.endings(1)[0];
        assert_eq!((record.stage, record.reason), (Stage::Preread, CloseReason::TlsFailed));
        assert_eq!(record.bytes.client_received, bytes.len() as u64);
    }
}

#[test]
fn psql_in_tls_is_told_why_by_an_error_of_its_own() {
    let files = Files::new();
    for asks in [true, false] {
        let balancer = Balancer::start(config(&files, &["postgresql"]));
        let dial = Dial { alpn: &["postgresql"], ..DIAL };
        let client = match asks {
            false => files.dial(balancer.address(), dial),
            true => {
                let mut client = TcpStream::connect(balancer.address()).unwrap();
                client.write_all(&postgres::TLS_REQUEST).unwrap();
                client.read_exact(&mut [0]).unwrap();
                files.encrypt(client, Dial { alpn: &[], ..dial })
            }
        };
        let told = said(client);
        assert!(told.starts_with(b"E") && told.windows(6).any(|it| it == b"C57P03"), "{told:?}");
        assert_eq!(balancer.ending(), (Stage::Route, CloseReason::NoBackend));
    }
}

#[test]
fn others_in_tls_are_told_nothing_they_would_not_understand() {
    let files = Files::new();
    let balancer = Balancer::start(config(&files, &[]));
    assert_eq!(said(files.dial(balancer.address(), DIAL)), b"", "and the end is a clean one");
    let mut config = config(&files, &[]);
    balancer::listener(&mut config).on_refuse = OnRefuse::Reset;
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = client.read(&mut [0; 100]);
}

#[test]
fn a_name_that_no_route_has_is_answered_in_tls_and_logged_with_its_bytes() {
    let mut config = balancer::config(&[]);
    let listener = balancer::listener(&mut config);
    let pattern = NamePattern::Exact("db1".into());
    listener.routes =
        vec![Route { server_name: vec![pattern], pool: Some("main".into()), ..Route::default() }];
    listener.pool = None;
    let balancer = Balancer::start(config);
    let bytes = hello(Some("db2"), &[], 16_384);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(&bytes).unwrap();
    assert_eq!(said(&client), [21, 3, 3, 0, 2, 2, 112]);
    drop(client);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.stage, record.reason), (Stage::Route, CloseReason::NoRoute));
    assert_eq!(record.bytes.client_received, bytes.len() as u64);
}
