//! Who may come in at the door of a TCP listener, at what rate, and how many of each client.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use maitred::border::addr::{ListenAddr, LocalAddr};
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{DenySessions, OnRefuse, Rate};
use socket2::{Domain, Socket, Type};

use crate::balancer::{self, Balancer, wait_for};
use crate::server::{Conduct, Server, first_byte};

/// So slow that a test sees the burst alone.
fn slow(burst: u64) -> Option<Rate> {
    Some(Rate { per_second: 1, burst })
}

pub fn connect_from(ip: &str, address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

fn is_served(balancer: &Balancer, ip: &str) -> bool {
    first_byte(&mut connect_from(ip, balancer.address())) == Some('a')
}

/// Of `count` endings the refusals at the door, by name: two workers may write in any order.
fn refusals(balancer: &Balancer, count: usize) -> Vec<CloseReason> {
    let records = balancer.endings(count).into_iter();
    let mut reasons: Vec<CloseReason> =
        records.filter(|it| it.stage == Stage::Admit).map(|it| it.reason).collect();
    reasons.sort_by_key(|reason| reason.as_str());
    reasons
}

#[test]
fn who_is_denied_is_refused_with_a_record() {
    let server = Server::start(Conduct::Say(&["a"]));
    let mut config = balancer::config(&[server.address]);
    let listener = balancer::listener(&mut config);
    listener.deny = vec!["127.0.0.0/30".parse().unwrap()];
    listener.allow = vec!["127.0.0.0/8".parse().unwrap(), "127.0.0.2/32".parse().unwrap()];
    listener.on_refuse = OnRefuse::Reset;
    let balancer = Balancer::start(config);
    assert!(is_served(&balancer, "127.0.0.2"));
    assert!(is_served(&balancer, "127.0.0.9"));
    let mut denied = connect_from("127.0.0.1", balancer.address());
    assert_eq!(denied.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(refusals(&balancer, 3), [CloseReason::Denied]);
}

#[test]
fn the_record_of_who_is_refused_has_the_address_that_was_dialled() {
    let mut config = balancer::config(&[]);
    let listener = balancer::listener(&mut config);
    listener.deny = vec!["0.0.0.0/0".parse().unwrap()];
    listener.bind = vec![ListenAddr::Inet("0.0.0.0:0".parse().unwrap())];
    let balancer = Balancer::start(config);
    let dialled = SocketAddr::from(([127, 0, 0, 7], balancer.address().port()));
    drop(connect_from("127.0.0.1", dialled));
    let record = &balancer.endings(1)[0];
    assert_eq!((record.reason, record.local), (CloseReason::Denied, LocalAddr::Inet(dialled)));
}

#[test]
fn a_reload_changes_who_may_come_in_and_what_the_rates_gave_out_stays() {
    let server = Server::start(Conduct::Say(&["a"]));
    let mut config = balancer::config(&[server.address]);
    balancer::listener(&mut config).limits.rate = slow(2);
    let mut balancer = Balancer::start(config.clone());
    assert!(is_served(&balancer, "127.0.0.1"));
    balancer::listener(&mut config).deny = vec!["127.0.0.1/32".parse().unwrap()];
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    assert!(!is_served(&balancer, "127.0.0.1"));
    assert!(is_served(&balancer, "127.0.0.2"));
    assert!(!is_served(&balancer, "127.0.0.2"), "two in all");
    assert_eq!(refusals(&balancer, 4), [CloseReason::Denied, CloseReason::RateLimited]);
}

#[test]
fn new_sessions_are_held_to_the_clients_rate_and_to_the_listeners() {
    let server = Server::start(Conduct::Say(&["a"]));
    let mut config = balancer::config(&[server.address]);
    balancer::listener(&mut config).limits.rate = slow(3);
    balancer::listener(&mut config).limits.rate_per_client = slow(2);
    let balancer = Balancer::start(config);
    let served: Vec<bool> = ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.3"]
        .iter()
        .map(|ip| is_served(&balancer, ip))
        .collect();
    // The third is over its client's rate, and has used up nothing of the listener's.
    assert_eq!(served, [true, true, false, true, false]);
    assert_eq!(refusals(&balancer, 5), [CloseReason::RateLimited; 2]);
}

#[test]
fn a_client_has_so_many_sessions_at_once_and_gets_its_places_back() {
    let server = Server::start(Conduct::Say(&["a"]));
    let mut config = balancer::config(&[server.address]);
    balancer::listener(&mut config).limits.sessions_per_client = Some(2);
    let balancer = Balancer::start(config);
    let open = || {
        let mut client = connect_from("127.0.0.1", balancer.address());
        (first_byte(&mut client) == Some('a')).then_some(client)
    };
    let kept = [open().unwrap(), open().unwrap()];
    assert!(open().is_none());
    assert!(is_served(&balancer, "127.0.0.2"));
    drop(kept);
    let idle = || balancer.supervisor().plane.open_sessions() == 0;
    wait_for("the sessions to end", idle);
    let kept = [open().unwrap(), open().unwrap()];
    assert!(open().is_none());
    drop(kept);
    assert_eq!(refusals(&balancer, 7), [CloseReason::OverLimit; 2]);
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let clients = || snapshot.listeners["main"].live.quotas.clients.count();
    wait_for("the places to be given back", || clients() == 0);
}

/// It has no address: its file says who may use it.
#[test]
fn a_client_of_a_unix_socket_is_asked_for_no_address() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("front");
    let server = Server::start(Conduct::Say(&["a"]));
    let mut config = balancer::config(&[server.address]);
    let listener = balancer::listener(&mut config);
    listener.bind = vec![ListenAddr::Unix(path.clone())];
    listener.allow = vec!["192.0.2.0/24".parse().unwrap()];
    listener.limits.sessions_per_client = Some(1);
    listener.limits.rate = slow(2);
    let balancer = Balancer::start(config);
    let connect = || {
        let mut client = UnixStream::connect(&path).unwrap();
        let mut byte = [0];
        (client.read(&mut byte).unwrap_or(0) == 1).then_some(client)
    };
    let kept = [connect().unwrap(), connect().unwrap()];
    assert!(connect().is_none(), "the rate is of everyone");
    drop(kept);
    assert_eq!(refusals(&balancer, 3), [CloseReason::RateLimited]);
}

#[test]
fn sessions_of_clients_who_are_denied_go_on_or_end_as_the_listener_says() {
    for deny_sessions in [DenySessions::Keep, DenySessions::End] {
        let server = Server::start(Conduct::Say(&["a"]));
        let mut config = balancer::config(&[server.address]);
        balancer::listener(&mut config).deny_sessions = deny_sessions;
        let mut balancer = Balancer::start(config.clone());
        let mut clients = ["127.0.0.1", "127.0.0.2"].map(|ip| {
            let mut client = connect_from(ip, balancer.address());
            assert_eq!(first_byte(&mut client), Some('a'));
            client
        });
        balancer::listener(&mut config).deny = vec!["127.0.0.1/32".parse().unwrap()];
        balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
        if deny_sessions == DenySessions::End {
            let cut = clients[0].read(&mut [0]).unwrap_err();
            assert_eq!(cut.kind(), ErrorKind::ConnectionReset, "a cut is no clean end");
            assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::Denied));
        }
        let open = if deny_sessions == DenySessions::End { 1 } else { 2 };
        // The record is written first.
        wait_for("who is left", || balancer.supervisor().plane.open_sessions() == open);
    }
}
