//! More sessions than there are source ports, one after the other, in a network of the test's own.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use crate::harness::{Maitred, free_port, plain};
use crate::local::{Conduct, ROLE, backend, complete};
use crate::namespace::Namespace;

const TEST: &str = "source_ports::ports_do_not_run_out";
const INSIDE: &str = "in a network of its own";
const THREADS: u8 = 4;
const SESSIONS: usize = 10_000;

#[test]
fn ports_do_not_run_out() {
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        return inside();
    }
    let namespace = Namespace::new();
    namespace.shell("echo 40000 41999 > /proc/sys/net/ipv4/ip_local_port_range");
    let out = namespace.run_again(TEST, INSIDE, 90);
    let figures = out.lines().find(|line| line.contains("sessions in")).unwrap();
    println!("{figures}");
}

/// A connection from this address and port, used once. The port is outside of the range that maitred has: clients
/// that are elsewhere take none of its ports either.
fn connect_from(source: SocketAddr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    Ok(socket)
}

fn inside() {
    let port = free_port();
    let maitred = Maitred::start(&plain(port, backend(Conduct::Echo)));
    let begun = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut errors = Vec::new();
                for number in 0..SESSIONS / usize::from(THREADS) {
                    let address = [127, 1, thread + 1, (number % 100) as u8 + 1];
                    let source = SocketAddr::from((address, 50_000 + (number / 100) as u16));
                    let outcome = connect_from(source, port);
                    if let Err(error) = outcome.and_then(|socket| complete(socket.into())) {
                        errors.push(error.to_string());
                    }
                }
                errors
            })
        })
        .collect();
    let errors: Vec<String> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let took = begun.elapsed();
    let exhausted = maitred.metric("maitred_source_ports_exhausted_total", &[]);
    println!(
        "{SESSIONS} sessions in {took:?} over 2000 ports: {} errors, exhausted {exhausted} times",
        errors.len()
    );
    assert!(errors.is_empty(), "{} errors, the first: {:?}", errors.len(), errors.first());
    assert!(exhausted < 0.5);
}
