//! What a file says of UDP listeners and their pools is what the program believes.

use std::time::Duration;

use maitred::config::{
    DnsRecord, Expect, Flow, Limits, Listener, OnDown, Probe, Protocol, ProxyDatagrams,
    ProxyVersion, Rate, WhenFlowsFull, load,
};

use super::{accepted, environment, source};

fn with_listener(listener: &str) -> String {
    format!(
        "version: 1\nlisteners:\n  dns: {{bind: \":53\", protocol: udp, pool: app, {listener}}}\n\
         pools:\n  app:\n    backends: [\"10.0.0.1:53\"]\n"
    )
}

fn with_pool(pool: &str) -> String {
    with_listener("flow: {}").replace("backends:", &format!("{pool}\n    backends:"))
}

/// `allow` and `deny` as they are written here.
fn lists(listener: &Listener) -> (Vec<String>, Vec<String>) {
    let texts = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect();
    (texts(&listener.allow), texts(&listener.deny))
}

fn access(allow: &[&str], deny: &[&str]) -> (Vec<String>, Vec<String>) {
    let texts = |nets: &[&str]| nets.iter().map(|net| (*net).to_owned()).collect();
    (texts(allow), texts(deny))
}

#[test]
fn every_key_of_a_udp_listener_arrives() {
    let text = "allow: [10.0.0.0/8, \"2001:db8::/32\"], deny: [10.0.0.7], socket_buffers: {client: 1MiB, backend: 1MiB}, \
                limits: {sessions: 5, sessions_per_client: 2, rate: {per_second: 10, burst: 20}, \
                rate_per_client: {per_second: 3}, datagram_rate: {per_second: 1000000000, burst: 1}, \
                datagram_rate_per_client: none}, \
                flow: {timeout: 5s, max_flows: 100, requests: 1, responses: 2, when_full: evict_idle}";
    let listener = &accepted(&with_listener(text)).listeners[0];
    assert_eq!(listener.protocol, Protocol::Udp);
    assert_eq!(lists(listener), access(&["10.0.0.0/8", "2001:db8::/32"], &["10.0.0.7/32"]));
    assert_eq!(listener.limits.sessions, Some(5));
    assert_eq!(listener.socket_buffers.unwrap().client, 1 << 20);
    let rate = |per_second, burst| Some(Rate { per_second, burst });
    let limits = Limits {
        sessions: Some(5),
        sessions_per_client: Some(2),
        rate: rate(10, 20),
        // Without a burst, a second's worth.
        rate_per_client: rate(3, 3),
        prereads: None,
        bandwidth: None,
        datagram_rate: rate(1_000_000_000, 1),
        datagram_rate_per_client: None,
    };
    assert_eq!(listener.limits, limits);
    let flow = Flow {
        timeout: Duration::from_secs(5),
        max_flows: Some(100),
        requests: Some(1),
        responses: Some(2),
        when_full: WhenFlowsFull::EvictIdle,
    };
    assert_eq!(listener.flow, flow);
}

#[test]
fn every_key_of_a_pool_for_udp_arrives() {
    let text =
        "send_proxy_protocol: v2\n    send_proxy_datagrams: every\n    on_down: {drain: 30s}";
    let pool = &accepted(&with_pool(text)).pools[0];
    assert_eq!(pool.send_proxy_protocol, Some(ProxyVersion::V2));
    assert_eq!(pool.send_proxy_datagrams, ProxyDatagrams::Every);
    assert_eq!(pool.on_down, OnDown::Drain(Duration::from_secs(30)));
}

#[test]
fn the_probes_of_udp_arrive() {
    let probe = |text: &str| {
        accepted(&with_pool(&format!("health: {{probe: {text}}}"))).pools[0].health.probe.clone()
    };
    assert_eq!(
        probe("{udp: {send: {hex: \"ff 00\"}, expect: pong}}"),
        Probe::Udp(maitred::config::UdpProbe {
            send: Some(vec![255, 0]),
            expect: Some(Expect::Bytes(b"pong".to_vec()))
        })
    );
    assert_eq!(
        probe("{udp: {send: ping}}"),
        Probe::Udp(maitred::config::UdpProbe { send: Some(b"ping".to_vec()), expect: None })
    );
    assert_eq!(
        probe("{dns: {name: .}}"),
        Probe::Dns(maitred::config::DnsProbe { name: ".".into(), record: DnsRecord::A })
    );
    assert_eq!(
        probe("{dns: {name: _dns._udp.example.com, type: SRV}}"),
        Probe::Dns(maitred::config::DnsProbe {
            name: "_dns._udp.example.com".into(),
            record: DnsRecord::Srv
        })
    );
}

/// `defaults` are for listeners of both protocols.
#[test]
fn defaults_of_the_other_protocol_are_passed_over() {
    let text = "version: 1\ndefaults:\n  listener: {relay: copy, backlog: 7, timeouts: {idle: 5m}, keepalive: none, \
                on_refuse: reset, flow: {timeout: 5s}, limits: {sessions: 9, datagram_rate: {per_second: 1}}}\n\
                listeners:\n  a: {bind: \":53\", pool: none, protocol: udp}\n  b: {bind: \":53\", pool: none}\n";
    let config = accepted(text);
    let (udp, tcp) = (&config.listeners[0], &config.listeners[1]);
    let default = maitred::config::Listener::default();
    assert_eq!(udp.flow.timeout, Duration::from_secs(5));
    assert_eq!(udp.limits.datagram_rate, Some(Rate { per_second: 1, burst: 1 }));
    assert_eq!((udp.relay, udp.backlog, udp.on_refuse), (default.relay, 4096, default.on_refuse));
    assert_eq!((udp.timeouts, udp.keepalive), (default.timeouts, default.keepalive));
    assert_eq!(
        (tcp.flow, tcp.limits),
        (Flow::default(), Limits { sessions: Some(9), ..Limits::default() })
    );
    assert_eq!((tcp.backlog, tcp.timeouts.idle), (7, Some(Duration::from_secs(300))));
    assert_eq!((udp.limits.sessions, tcp.limits.sessions), (Some(9), Some(9)));
}

#[test]
fn defaults_may_say_the_protocol() {
    let text = "version: 1\ndefaults: {listener: {protocol: udp}}\n\
                listeners:\n  a: {bind: \":53\", pool: none, flow: {responses: 1}}\n";
    assert_eq!(accepted(text).listeners[0].flow.responses, Some(1));
}

/// Beside the file that names it, read anew by each load, and part of what the configuration is.
#[test]
fn networks_come_from_files_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("blocked.nets");
    let text = with_listener("deny: [192.0.2.1], deny_file: blocked.nets");
    let name = folder.path().join("maitred.yaml").display().to_string();
    let load = || load(&[source(&name, &text)], &environment).map(|loaded| loaded.config);

    assert!(load().unwrap_err().render(false).contains("blocked.nets"));
    std::fs::write(&list, "# ours\n192.0.2.7 # one\n\n2001:db8::/32\n").unwrap();
    let first = load().unwrap();
    let denied = access(&[], &["192.0.2.1/32", "192.0.2.7/32", "2001:db8::/32"]);
    assert_eq!(lists(&first.listeners[0]), denied);
    std::fs::write(&list, "").unwrap();
    let second = load().unwrap();
    assert_eq!(lists(&second.listeners[0]), access(&[], &["192.0.2.1/32"]));
    assert_ne!(first.sha256, second.sha256);
}
