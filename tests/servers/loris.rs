//! Slow clients at the door: three thousand of whom a PROXY header or a ClientHello is awaited, and who say a byte now
//! and then or nothing at all. Meanwhile others are served; then all of them are cut off.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::harness::{Maitred, PATIENCE, SHELL, Stop, free_port, pause, within};
use crate::hello::hello;
use crate::local::{Conduct, backend, connect, exchange};

/// Slow clients of each of the two listeners, where one more may be awaited.
const SLOW: usize = 1_500;
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 40000 5432\r\n";

/// A client that is not slow, from its first bytes to its clean end.
fn session(port: u16, first: &[u8], is_echoed: bool) {
    let mut stream = connect(port);
    stream.write_all(first).unwrap();
    if is_echoed {
        let mut echoed = vec![0; first.len()];
        stream.read_exact(&mut echoed).unwrap();
        assert_eq!(echoed, first);
    }
    exchange(&mut stream).unwrap();
}

/// Every other one says its next byte now and then, until the balancer has cut it off.
fn drip(slow: &[TcpStream], bytes: &[u8], is_over: &AtomicBool) {
    // Never the last one, which would make it whole.
    for byte in &bytes[..bytes.len() - 1] {
        for mut stream in slow.iter().step_by(2) {
            // An error means that it is cut off.
            let _ = stream.write_all(&[*byte]);
        }
        if is_over.load(Relaxed) {
            return;
        }
        pause(300);
    }
}

fn active(maitred: &Maitred, listener: &str) -> usize {
    let labels = [("listener", listener)];
    maitred.metric("maitred_listener_sessions_active", &labels).round() as usize
}

#[test]
fn slow_clients_at_the_door_delay_nobody_and_are_cut_off() {
    let (named, proxied) = (free_port(), free_port());
    let server = backend(Conduct::Echo);
    let most = SLOW + 1;
    let maitred = Maitred::start_as(
        SHELL,
        "log: {sessions: none}\nprocess: {workers: 2}",
        &format!(
            "defaults: {{listener: {{limits: {{prereads: {most}}}, timeouts: {{preread: 10s}}}}}}
listeners:
  named: {{bind: \"127.0.0.1:{named}\", pool: none, routes: [{{server_name: [a.test], pool: main}}]}}
  proxied: {{bind: \"127.0.0.1:{proxied}\", pool: main, proxy_protocol: {{trusted: [\"127.0.0.1\"]}}}}
pools: {{main: {{backends: [\"127.0.0.1:{server}\"], health: {{probe: none}}}}}}
"
        ),
    );
    let hello = hello(Some("a.test"), &[], 16_384);
    let doors = [("named", named, hello.as_slice()), ("proxied", proxied, HEADER)];
    let slow = doors.map(|(_, port, _)| (0..SLOW).map(|_| connect(port)).collect::<Vec<_>>());
    let are_held = || doors.iter().all(|(name, ..)| active(&maitred, name) == SLOW);
    assert!(within(PATIENCE, are_held), "the slow ones are there");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for ((_, _, bytes), slow) in doors.iter().zip(&slow) {
            let is_over = &is_over;
            scope.spawn(move || drip(slow, bytes, is_over));
        }
        let _stop = Stop(&is_over);
        for _ in 0..50 {
            session(named, &hello, true);
            session(proxied, HEADER, false);
        }
        // The places in the limit are given back when they are routed, so that the next one finds one.
        for (name, port, _) in doors {
            assert!(within(PATIENCE, || active(&maitred, name) == SLOW));
            let last = connect(port);
            assert!(within(PATIENCE, || active(&maitred, name) == most));
            let refused = connect(port).read(&mut [0]);
            assert!(matches!(refused, Ok(0)), "one too many: {refused:?}");
            drop(last);
        }
        // All of that while every one of them was held.
        let closed = |reason| maitred.closed(reason).round() as usize;
        assert_eq!((closed("preread_timeout"), closed("over_limit")), (0, 2));
        let cut = slow.iter().flatten().map(|mut stream| {
            // Their time begins at accept, and no byte of theirs extends it.
            stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
            stream.read(&mut [0])
        });
        let cut = cut.filter(|end| match end {
            Ok(count) => *count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        });
        assert_eq!(cut.count(), 2 * SLOW);
    });
    maitred.wait_for_no_session();
    let closed = |reason| maitred.closed(reason).round() as usize;
    assert_eq!((closed("preread_timeout"), closed("over_limit")), (2 * SLOW, 2));
    // Of the sessions in between, and of the two that took the last places.
    assert_eq!(closed("client_closed"), 102);
}
