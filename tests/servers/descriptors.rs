//! Out of descriptors: maitred stays calm, says that it lives, and serves again as soon as it can.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Maitred, SHELL, free_port, pause, plain, processor_time, try_get, wait_for};
use crate::local::{Conduct, backend, connect, exchange, session};

#[test]
fn without_descriptors_it_waits_and_then_serves_on() {
    let port = free_port();
    let shell = format!("ulimit -n 128; {SHELL}");
    let config = plain(port, backend(Conduct::Echo));
    let maitred = Maitred::start_as(&shell, "process: {max_sessions: 1000}", &config);
    session(port).unwrap();
    let mut clients: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
    for client in &clients {
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    }
    wait_for("a lack of descriptors", || {
        let accept = maitred.metric("maitred_accept_errors_total", &[("reason", "no_descriptors")]);
        let closed = [("reason", "no_descriptors")];
        accept + maitred.metric("maitred_session_closed_total", &closed) > 0.5
    });
    let id = maitred.process.id();
    let before = processor_time(id);
    pause(2000);
    let used = processor_time(id) - before;
    let (status, _) = try_get(maitred.admin, "/livez").expect("/livez answers");
    assert_eq!(status, 200);
    let active = maitred.metric("maitred_listener_sessions_active", &[]);
    println!("out of descriptors: {active} sessions active, {used:?} of processor time in 2 s");
    assert!(used < Duration::from_millis(400));
    // How many get both descriptors in the rush, and how many are refused, is chance.
    assert!(active > 0.5, "nobody is served");
    let served = clients.iter_mut().filter_map(|client| exchange(client).ok()).count();
    assert!(served > 0, "sessions are active, and none of them answers");
    drop(clients);
    let begun = Instant::now();
    session(port).unwrap();
    let waited = begun.elapsed();
    println!("a new client was served after {waited:?}");
    assert!(waited < Duration::from_secs(1));
    maitred.wait_for_no_session();
}
