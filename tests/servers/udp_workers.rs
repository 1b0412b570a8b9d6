//! Two workers: each flow lives on one of them, and both have some.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Maitred, free_port, wait_for};
use crate::local::echo_datagrams;

const CLIENTS: u32 = 64;
const DATAGRAMS: u32 = 200;

fn busy(maitred: &Maitred) -> [f64; 2] {
    ["0", "1"].map(|it| maitred.metric("maitred_worker_busy_seconds_total", &[("worker", it)]))
}

#[test]
fn a_flow_stays_on_its_worker_and_both_have_some() {
    let (server, heard) = echo_datagrams();
    let port = free_port();
    let more = "process: {workers: 2}\nlog: {sessions: none}";
    let maitred = Maitred::start_as(
        crate::harness::SHELL,
        more,
        &format!(
            "listeners: {{main: {{bind: \"127.0.0.1:{port}\", protocol: udp, pool: main}}}}
pools: {{main: {{backends: [\"127.0.0.1:{server}\"], health: {{probe: none}}}}}}
"
        ),
    );
    let before = busy(&maitred);
    let clients: Vec<UdpSocket> = (0..CLIENTS).map(|_| client(port)).collect();
    let mut answer = [0; 16];
    for number in 0..DATAGRAMS {
        for (id, client) in (0..CLIENTS).zip(&clients) {
            let question = [id.to_le_bytes(), number.to_le_bytes()].concat();
            client.send(&question).unwrap();
            let length = client.recv(&mut answer).unwrap();
            assert_eq!(answer[..length], question, "client {id}, datagram {number}");
        }
    }
    // A flow that two workers had would have had two sockets to the backend.
    let mut sources: BTreeMap<u32, BTreeSet<SocketAddr>> = BTreeMap::new();
    for (source, question) in heard.lock().unwrap().iter() {
        let id = u32::from_le_bytes(question[..4].try_into().unwrap());
        sources.entry(id).or_default().insert(*source);
    }
    assert_eq!(sources.len(), CLIENTS as usize);
    assert!(sources.values().all(|sources| sources.len() == 1), "{sources:?}");
    let distinct: BTreeSet<&SocketAddr> = sources.values().flatten().collect();
    assert_eq!(distinct.len(), CLIENTS as usize, "no two clients share one");
    assert!((maitred.metric("maitred_udp_flows_total", &[]) - f64::from(CLIENTS)).abs() < 0.5);
    let rows: Value = serde_json::from_str(&maitred.get("/api/v1/flows")).unwrap();
    let rows = rows["flows"].as_array().unwrap();
    let clients: BTreeSet<&str> = rows.iter().map(|row| row["client"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), clients.len()), (CLIENTS as usize, CLIENTS as usize));
    // With 64 sources the kernel leaves one of the two without any once in 2^63 times.
    let workers: BTreeSet<u64> = rows.iter().map(|row| row["worker"].as_u64().unwrap()).collect();
    assert_eq!(workers, BTreeSet::from([0, 1]));
    let least = 0.005;
    wait_for("both workers to have been busy", || {
        let busy = busy(&maitred);
        busy.iter().zip(before).all(|(now, before)| now - before > least)
    });
    let busy = busy(&maitred);
    println!("udp: {CLIENTS} flows; workers busy for {:.3} s and {:.3} s", busy[0], busy[1]);
}

fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}
