//! The relay, one ending at a time.

use std::io::{Read, Write};
use std::net::TcpStream;

use maitred::telemetry::record::{CloseReason, Stage};

use crate::balancer::{self, Balancer, loopback};

#[test]
fn a_byte_goes_through_and_comes_back() {
    let (backend, address) = loopback();
    let balancer = Balancer::start(balancer::config(&[address]));
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"ping").unwrap();
    let (mut server, _) = backend.accept().unwrap();
    let mut bytes = [0; 4];
    server.read_exact(&mut bytes).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"pong");
    drop(client);
    drop(server);
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientClosed));
}
