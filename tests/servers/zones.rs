//! IPv6 addresses of one link, in a network of the test's own: as listener, backend and source, TCP and UDP, with the
//! zone by name and by number.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::Duration;

use crate::harness::{Maitred, free_port};
use crate::local::{Conduct, ROLE, backend_at};
use crate::namespace::Namespace;

const INSIDE: &str = "in a network of its own";

#[test]
fn a_link_local_address_is_bound_dialled_and_dialled_from() {
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        return inside();
    }
    let namespace = Namespace::new();
    namespace.shell("for n in 1 2 3; do ip address add fe80::$n/64 dev lo nodad; done");
    namespace.run_again(
        "zones::a_link_local_address_is_bound_dialled_and_dialled_from",
        INSIDE,
        60,
    );
}

fn inside() {
    // Loopback is the first interface of every network.
    let at = |last: u16, port| {
        SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last), port, 0, 1)
    };
    let (front, back) = (free_port(), free_port());
    backend_at(at(2, back).into(), Conduct::Echo);
    let echo = UdpSocket::bind(at(2, back)).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 100];
        while let Ok((length, from)) = echo.recv_from(&mut datagram) {
            assert_eq!(from.ip(), at(3, 0).ip().to_owned());
            echo.send_to(&datagram[..length], from).unwrap();
        }
    });
    for zone in ["lo", "1"] {
        let maitred = Maitred::start(&format!(
            "listeners:
  tcp: {{bind: \"[fe80::1%{zone}]:{front}\", pool: main}}
  udp: {{bind: \"[fe80::1%{zone}]:{front}\", protocol: udp, pool: main}}
pools: {{main: {{backends: [\"[fe80::2%{zone}]:{back}\"], source: [\"fe80::3%{zone}\"], health: {{interval: 100ms}}}}}}
"
        ));
        maitred.wait_for_state(&format!("[fe80::2%1]:{back}"), "up");
        let mut client = TcpStream::connect(at(1, front)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(b"stream").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        let client = UdpSocket::bind(at(3, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.send_to(b"datagram", at(1, front)).unwrap();
        let (length, from) = client.recv_from(&mut [0; 100]).unwrap();
        assert_eq!((length, from), (8, at(1, front).into()));
        let flows = maitred.get("/api/v1/flows");
        assert!(flows.contains("[fe80::3%1]:"), "{flows}");
    }
}
