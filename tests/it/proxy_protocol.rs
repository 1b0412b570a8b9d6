//! The PROXY protocol over real sockets: who must send it, what is believed of it, and what backends are told.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use maitred::border::addr::{ClientAddr, ListenAddr, LocalAddr};
use maitred::border::record::{CloseReason, Record, Stage};
use maitred::config::{Config, ProxyProtocol, ProxyTlvs, ProxyVersion, Trusted};
use maitred::data::wire::proxy_protocol::{Ends, v1, v2};

use crate::balancer::{self, Balancer, loopback, wait_for};

const CLIENT: &str = "203.0.113.9:40000";
const LOCAL: &str = "198.51.100.1:5432";

fn ends() -> Ends {
    Ends { client: CLIENT.parse().unwrap(), local: LOCAL.parse().unwrap() }
}

pub fn trusted(net: &str) -> Option<ProxyProtocol> {
    Some(ProxyProtocol { trusted: Trusted { nets: vec![net.parse().unwrap()], unix: false } })
}

fn trusting(backend: SocketAddr) -> Config {
    let mut config = balancer::config(&[backend]);
    balancer::listener(&mut config).proxy_protocol = trusted("127.0.0.0/8");
    config
}

/// Sends `pieces` one by one, then a FIN; says what the backend got, if it was reached, and how it was recorded.
fn relayed(mut config: Config, pieces: &[&[u8]]) -> (Option<Vec<u8>>, Record) {
    let (backend, address) = loopback();
    let own = &mut balancer::pool(&mut config).backends;
    *own = vec![balancer::backend(address)];
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.set_nodelay(true).unwrap();
    for piece in pieces {
        // A client that is refused may be gone before the last piece.
        if client.write_all(piece).is_err() {
            break;
        }
        if pieces.len() > 1 {
            // So that they are segments of their own.
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let _ = client.shutdown(Shutdown::Write);
    let got = reached(&backend, &balancer);
    drop(client);
    let record = balancer.endings(1).remove(0);
    (got, record)
}

/// What reaches the backend, until the client's end; `None`: the session ended without it.
fn reached(backend: &TcpListener, balancer: &Balancer) -> Option<Vec<u8>> {
    backend.set_nonblocking(true).unwrap();
    let mut accepted = None;
    wait_for("the backend or an end", || {
        accepted = backend.accept().ok();
        accepted.is_some() || !balancer.records.lock().unwrap().is_empty()
    });
    let (mut stream, _) = accepted?;
    stream.set_nonblocking(false).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    Some(got)
}

fn any() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

#[test]
fn whom_a_trusted_sender_announces_is_the_client_however_the_header_is_cut() {
    let headers = [
        v1::write(Some(ends())),
        v2::write(Some(ends()), v2::Extras { checksum: true, ..v2::Extras::default() }),
    ];
    for header in headers {
        for each in [1, 3, header.len() - 1, header.len() + 3, 500] {
            let sent = [header.as_slice(), b"payload"].concat();
            let pieces: Vec<&[u8]> = sent.chunks(each).collect();
            let (got, record) = relayed(trusting(any()), &pieces);
            assert_eq!(got.as_deref(), Some(b"payload".as_slice()), "{each}");
            assert_eq!(record.client, ClientAddr::new(CLIENT.parse().unwrap()));
            assert_eq!(record.local, LocalAddr::new(LOCAL.parse().unwrap()));
            assert!(record.sender.unwrap().to_string().starts_with("127.0.0.1:"));
            assert_eq!(record.bytes.client_received, 7, "payload alone is counted");
            assert_eq!(record.reason, CloseReason::ClientClosed);
        }
    }
}

#[test]
fn a_header_without_ends_leaves_the_connections_own() {
    for header in [v1::write(None), v2::write_local(), v2::write(None, v2::Extras::default())] {
        let (got, record) = relayed(trusting(any()), &[&header, b"payload"]);
        assert_eq!(got.as_deref(), Some(b"payload".as_slice()));
        assert!(record.client.to_string().starts_with("127.0.0.1:") && record.sender.is_none());
    }
}

#[test]
fn of_others_it_is_payload_and_nobody_is_believed() {
    let sent = [v1::write(Some(ends())).as_slice(), b"payload"].concat();
    let mut config = balancer::config(&[any()]);
    balancer::listener(&mut config).proxy_protocol = trusted("192.0.2.0/24");
    let (got, record) = relayed(config, &[&sent]);
    assert_eq!(got, Some(sent));
    assert!(record.client.to_string().starts_with("127.0.0.1:") && record.sender.is_none());
}

#[test]
fn what_is_no_header_reaches_nobody() {
    let mut broken =
        v2::write(Some(ends()), v2::Extras { checksum: true, ..v2::Extras::default() });
    broken[17] ^= 1;
    for bytes in
        [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"PROXY TCP4 1.2.3.4\r\n", b"\r\n\r\nQUIT", &broken]
    {
        let (got, record) = relayed(trusting(any()), &[bytes]);
        assert_eq!(got, None, "{bytes:?}");
        assert_eq!((record.stage, record.reason), (Stage::Preread, CloseReason::BadProxyHeader));
        assert!(record.cause.is_some());
    }
    let (got, record) = relayed(trusting(any()), &[&v1::write(Some(ends()))[..9]]);
    assert_eq!((got, record.reason), (None, CloseReason::ClientClosed), "it left in the middle");
}

#[test]
fn a_sender_that_says_nothing_or_too_little_is_cut_off() {
    for begun in [b"".as_slice(), b"PROXY TCP4"] {
        let mut config = trusting(any());
        balancer::listener(&mut config).timeouts.preread = Duration::from_millis(100);
        let balancer = Balancer::start(config);
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(begun).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!(balancer.ending(), (Stage::Preread, CloseReason::PrereadTimeout));
    }
}

#[test]
fn the_announced_client_is_held_against_the_lists_and_its_own_limits() {
    let header = v1::write(Some(ends()));
    let mut config = trusting(any());
    balancer::listener(&mut config).deny = vec!["203.0.113.0/24".parse().unwrap()];
    let (got, record) = relayed(config, &[&header]);
    assert_eq!((got, record.stage, record.reason), (None, Stage::Preread, CloseReason::Denied));
    let mut config = trusting(any());
    balancer::listener(&mut config).allow = vec!["203.0.113.0/24".parse().unwrap()];
    let (got, _) = relayed(config.clone(), &[&header, b"x"]);
    assert_eq!(got.as_deref(), Some(b"x".as_slice()), "the sender need not be allowed");
    balancer::listener(&mut config).deny = vec!["127.0.0.1/32".parse().unwrap()];
    let (got, record) = relayed(config, &[&header]);
    assert_eq!((got, record.stage, record.reason), (None, Stage::Admit, CloseReason::Denied));
}

#[test]
fn the_announced_clients_places_are_its_own_and_come_back() {
    let server = crate::server::Server::start(crate::server::Conduct::Say(&["a"]));
    let mut config = trusting(server.address);
    balancer::listener(&mut config).limits.sessions_per_client = Some(1);
    let balancer = Balancer::start(config);
    let connect = |client: &str| {
        let client = SocketAddr::new(client.parse().unwrap(), 1);
        let mut stream = TcpStream::connect(balancer.address()).unwrap();
        stream.write_all(&v1::write(Some(Ends { client, ..ends() }))).unwrap();
        let served = crate::server::first_byte(&mut stream);
        (served == Some('a')).then_some(stream)
    };
    let first = connect("203.0.113.1");
    assert!(
        first.is_some() && connect("203.0.113.1").is_none() && connect("203.0.113.2").is_some()
    );
    drop(first);
    wait_for("the places to come back", || balancer.supervisor().plane.open_sessions() == 0);
    assert!(connect("203.0.113.1").is_some());
}

#[test]
fn no_more_wait_for_a_header_at_once_than_may() {
    let mut config = trusting(any());
    balancer::listener(&mut config).limits.prereads = Some(2);
    let balancer = Balancer::start(config);
    let waiting: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    wait_for("both to wait", || balancer.supervisor().plane.open_sessions() == 2);
    let mut third = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(third.read(&mut [0]).unwrap(), 0);
    assert_eq!(balancer.ending(), (Stage::Preread, CloseReason::OverLimit));
    drop(waiting);
}

#[test]
fn backends_are_told_who_the_client_is_before_its_first_byte() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let (backend, address) = loopback();
        let mut config = balancer::config(&[address]);
        let pool = balancer::pool(&mut config);
        pool.send_proxy_protocol = Some(version);
        pool.send_proxy_tlvs = ProxyTlvs { crc32c: true, ..ProxyTlvs::default() };
        let balancer = Balancer::start(config);
        let client = TcpStream::connect(balancer.address()).unwrap();
        let own = Ends { client: client.local_addr().unwrap(), local: balancer.address() };
        let expected = match version {
            ProxyVersion::V1 => v1::write(Some(own)),
            ProxyVersion::V2 => {
                v2::write(Some(own), v2::Extras { checksum: true, ..v2::Extras::default() })
            }
        };
        let (mut stream, _) = backend.accept().unwrap();
        // The client said nothing: a server that speaks first gets the header all the same, and in one piece.
        let mut got = vec![0; 512];
        let count = stream.read(&mut got).unwrap();
        assert_eq!(&got[..count], expected);
        (&client).write_all(b"payload").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"payload");
    }
}

#[test]
fn each_attempt_sends_it_anew_and_a_chain_of_us_keeps_the_client() {
    let (backend, address) = loopback();
    let refused = crate::server::Server::start(crate::server::Conduct::Echo).kill();
    let mut last = trusting(address);
    let pool = balancer::pool(&mut last);
    pool.backends.insert(0, balancer::backend(refused.address));
    pool.balance = maitred::config::Balance::FirstAvailable;
    pool.send_proxy_protocol = Some(ProxyVersion::V1);
    let last = Balancer::start(last);
    let mut first = balancer::config(&[last.address()]);
    balancer::pool(&mut first).send_proxy_protocol = Some(ProxyVersion::V2);
    let first = Balancer::start(first);
    let mut client = TcpStream::connect(first.address()).unwrap();
    client.write_all(b"payload").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut stream, _) = backend.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    let own = Ends { client: client.local_addr().unwrap(), local: first.address() };
    assert_eq!(got, [v1::write(Some(own)).as_slice(), b"payload"].concat());
    drop((stream, client));
    assert_eq!(last.endings(1)[0].tried, 1);
}

/// A proxy in front may hand over by a unix socket: its clients have no address but the one it announces.
#[test]
fn who_comes_by_a_unix_socket_is_trusted_where_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for is_trusted in [true, false] {
        let path = folder.path().join(format!("door-{is_trusted}"));
        let (backend, address) = loopback();
        let mut config = balancer::config(&[address]);
        let listener = balancer::listener(&mut config);
        listener.bind = vec![ListenAddr::Unix(path.clone())];
        let nets = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        listener.proxy_protocol =
            Some(ProxyProtocol { trusted: Trusted { nets, unix: is_trusted } });
        let balancer = Balancer::start(config);
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let header = v1::write(Some(ends()));
        client.write_all(&[&header, b"payload".as_slice()].concat()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let got = reached(&backend, &balancer).unwrap();
        let (payload, sender) = match is_trusted {
            true => (b"payload".to_vec(), Some(ClientAddr::Unix)),
            false => ([&header, b"payload".as_slice()].concat(), None),
        };
        assert_eq!(got, payload);
        drop(client);
        let record = &balancer.endings(1)[0];
        assert_eq!(record.sender, sender);
        let client = if is_trusted { ClientAddr::new(ends().client) } else { ClientAddr::Unix };
        assert_eq!(record.client, client);
    }
}
