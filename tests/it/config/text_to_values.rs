//! What is written is what the program believes.

use std::time::Duration;

use maitred::border::addr::{BackendAddr, ListenAddr};
use maitred::config::{
    AdminSocket, Balance, Bandwidth, DenySessions, Expect, Failback, Flap, HashKey, Hold, OnDown,
    OnRefuse, Probe, Rate, RelayMode, Single, SourcePorts, Start, StatusRange, User, WhenFull,
    WhenNoneUp,
};

use super::{accepted, load_text};

const POOL: &str = "pools:\n  app:\n    backends: [\"10.0.0.1:80\"]\n";

fn with_listener(listener: &str) -> String {
    format!("version: 1\nlisteners:\n  web: {{bind: \":80\", pool: app, {listener}}}\n{POOL}")
}

fn with_pool(pool: &str) -> String {
    let listener = "listeners:\n  web: {bind: \":80\", pool: app}\n";
    format!("version: 1\n{listener}pools:\n  app: {{backends: [\"10.0.0.1:80\"], {pool}}}\n")
}

#[test]
fn every_key_of_the_process_arrives() {
    let text = "process: {workers: 4, max_sessions: 5000, shutdown: {delay: 5s, timeout: 1m}, \
                user: root, group: 12}\n\
                admin: {listen: none, socket: /run/a.sock}\nlog: {level: debug, format: json, sessions: failures}\n";
    let config = accepted(&format!("{}{text}", with_listener("relay: auto")));
    assert_eq!(config.process.workers, Some(4));
    assert_eq!(config.process.max_sessions, Some(5_000));
    assert_eq!(config.process.shutdown.delay, Duration::from_secs(5));
    assert_eq!(config.process.shutdown.timeout, Duration::from_secs(60));
    let user = User { name: "root".to_owned(), uid: 0, gid: 12, groups: Vec::new() };
    assert_eq!(config.process.user.map(|it| User { groups: Vec::new(), ..it }), Some(user));
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.admin.socket, AdminSocket::Path("/run/a.sock".into()));
    assert_eq!(
        format!("{:?}", config.log),
        "Log { level: Debug, format: Json, sessions: Failures }"
    );
}

#[test]
fn every_key_of_a_listener_arrives() {
    let text = "protocol: tcp, deny_sessions: end, on_refuse: reset, relay: splice, \
                allow: [10.0.0.0/8], deny: [10.0.0.7], \
                limits: {sessions: 100, sessions_per_client: 5, rate: {per_second: 7}, \
                bandwidth: {to_client: 10MiB}}, \
                timeouts: {idle: 1h30m, half_closed: none, max_lifetime: 1d}, keepalive: {idle: 30s}, \
                socket_buffers: {client: 64KiB, backend: 1MB}, backlog: 128";
    let config = accepted(&with_listener(text));
    let listener = &config.listeners[0];
    assert_eq!(listener.deny_sessions, DenySessions::End);
    assert_eq!(listener.on_refuse, OnRefuse::Reset);
    assert_eq!(listener.relay, RelayMode::Splice);
    assert_eq!(listener.limits.sessions, Some(100));
    assert_eq!(listener.limits.sessions_per_client, Some(5));
    assert_eq!(listener.limits.rate, Some(Rate { per_second: 7, burst: 7 }));
    let bandwidth = Bandwidth { to_client: Some(10 << 20), to_backend: None };
    assert_eq!(listener.limits.bandwidth, Some(bandwidth));
    assert_eq!(listener.allow, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(listener.deny, ["10.0.0.7/32".parse().unwrap()]);
    assert_eq!(listener.timeouts.idle, Some(Duration::from_secs(5_400)));
    assert_eq!(listener.timeouts.half_closed, None);
    assert_eq!(listener.timeouts.max_lifetime, Some(Duration::from_secs(86_400)));
    let keepalive = listener.keepalive.unwrap();
    assert_eq!(
        (keepalive.idle.as_secs(), keepalive.interval.as_secs(), keepalive.count),
        (30, 10, 6)
    );
    let buffers = listener.socket_buffers.unwrap();
    assert_eq!((buffers.client, buffers.backend), (65_536, 1_000_000));
    assert_eq!(listener.backlog, 128);
}

#[test]
fn every_key_of_a_pool_arrives() {
    let text = "balance: consistent_hash, hash: {key: client_address, table_size: 251, bounded_load: 125%}, \
                spill: true, connect: {timeout: 250ms, attempts: 1}, source: [\"10.0.0.9\", \"::1\"], \
                source_ports: own, passive: {failures: 2}, slow_start: 30s, on_down: reset, \
                when_none_up: {hold: {for: 10s, max: 5}}, when_full: {hold: {for: 1s, max: 6}}, \
                timeouts: {backend_user_timeout: 20s}, failback: {after: 5m}, \
                flap: {changes: 7, within: 2m, hold_down: 3s}, single: keep";
    let config = accepted(&with_pool(text));
    let pool = &config.pools[0];
    assert_eq!(pool.balance, Balance::ConsistentHash);
    assert_eq!((pool.hash.key, pool.hash.table_size), (HashKey::ClientAddress, 251));
    assert_eq!(pool.hash.bounded_load, Some(125));
    assert!(pool.spill);
    assert_eq!((pool.connect.timeout.as_millis(), pool.connect.attempts), (250, 1));
    assert_eq!(pool.source.len(), 2);
    assert_eq!(pool.source_ports, SourcePorts::Own);
    assert_eq!(
        pool.passive.as_ref().map(|passive| (passive.failures, passive.max_ejected)),
        Some((2, 50))
    );
    assert_eq!(pool.slow_start, Some(Duration::from_secs(30)));
    assert_eq!(pool.on_down, OnDown::Reset);
    let hold = |seconds, max| Hold { time: Duration::from_secs(seconds), max };
    assert_eq!(pool.when_none_up, WhenNoneUp::Hold(hold(10, 5)));
    assert_eq!(pool.when_full, WhenFull::Hold(hold(1, 6)));
    assert_eq!(pool.timeouts.backend_user_timeout, Some(Duration::from_secs(20)));
    assert_eq!(pool.failback, Failback::After(Duration::from_secs(300)));
    let (within, hold_down) = (Duration::from_secs(120), Duration::from_secs(3));
    assert_eq!(pool.flap, Some(Flap { changes: 7, within, hold_down }));
    assert_eq!(pool.single, Single::Keep);
}

#[test]
fn every_key_of_health_arrives() {
    let text = "health: {port: 8080, interval: 1s, timeout: 100ms, rise: 1, fall: 9, start: down, jitter: 0%, \
                probe: {http: {path: /up, host: app.example, status: [\"200\", 301-302, 404], standby: [503]}}}";
    let health = accepted(&with_pool(text)).pools[0].health.clone();
    assert_eq!((health.port, health.rise, health.fall, health.jitter), (Some(8080), 1, 9, 0));
    assert_eq!(health.start, Start::Down);
    let status = vec![
        StatusRange { first: 200, last: 200 },
        StatusRange { first: 301, last: 302 },
        StatusRange { first: 404, last: 404 },
    ];
    assert_eq!(
        health.probe,
        Probe::Http(maitred::config::Http {
            path: "/up".into(),
            host: Some("app.example".into()),
            status,
            standby: vec![StatusRange { first: 503, last: 503 }]
        })
    );
}

#[test]
fn payloads_of_probes_are_bytes() {
    let probe = |send: &str, expect: &str| {
        let text = format!("health: {{probe: {{exchange: {{send: {send}, expect: {expect}}}}}}}");
        accepted(&with_pool(&text)).pools[0].health.probe.clone()
    };
    assert_eq!(
        probe("\"PING\\r\\n\"", "{regex: \"^\\\\+PONG$\"}"),
        Probe::Exchange(maitred::config::Exchange {
            send: Some(b"PING\r\n".to_vec()),
            expect: Some(Expect::Regex("^\\+PONG$".into())),
            standby: None
        })
    );
    assert_eq!(
        probe("{hex: \"00 0a FF\"}", "OK"),
        Probe::Exchange(maitred::config::Exchange {
            send: Some(vec![0, 10, 255]),
            expect: Some(Expect::Bytes(b"OK".to_vec())),
            standby: None
        })
    );
    assert_eq!(
        probe("none", "master, standby: slave"),
        Probe::Exchange(maitred::config::Exchange {
            send: None,
            expect: Some(Expect::Bytes(b"master".to_vec())),
            standby: Some(Expect::Bytes(b"slave".to_vec()))
        })
    );
    assert_eq!(
        probe("none", "{hex: 1234}"),
        Probe::Exchange(maitred::config::Exchange {
            send: None,
            expect: Some(Expect::Bytes(vec![0x12, 0x34])),
            standby: None
        })
    );
}

#[test]
fn probe_auto_is_tcp_only_for_a_pool_in_use() {
    let config = accepted(&format!(
        "{}  spare: {{backends: [\"10.0.0.2:80\"]}}\n",
        with_listener("relay: auto")
    ));
    assert_eq!(config.pools[0].health.probe, Probe::Tcp);
    assert_eq!(config.pools[1].health.probe, Probe::None);
}

#[test]
fn probe_auto_is_none_for_a_pool_that_only_udp_uses() {
    let listener = |name, port, protocol| {
        format!("  {name}: {{bind: \":{port}\", pool: app, protocol: {protocol}}}\n")
    };
    let probe = |listeners: &str| {
        accepted(&format!("version: 1\nlisteners:\n{listeners}{POOL}")).pools[0]
            .health
            .probe
            .clone()
    };
    let (udp, tcp) = (listener("a", 53, "udp"), listener("b", 53, "tcp"));
    assert_eq!(probe(&udp), Probe::None);
    assert_eq!(probe(&format!("{udp}{tcp}")), Probe::Tcp);
}

#[test]
fn backends_in_both_forms_stand_in_file_order() {
    let text = "version: 1\nlisteners:\n  web: {bind: [\":80\", \"127.0.0.1:7000-7001\"], pool: app}\npools:\n  app:\n    \
                health: {port: 80}\n    backends:\n      - \"10.0.0.1\"\n      - {address: \"[2001:db8::1]:80\", \
                weight: 0, tier: 2, max_sessions: 7}\n      - {address: \"unix:/x\", name: local}\n";
    let config = accepted(text);
    let backends = &config.pools[0].backends;
    assert_eq!(
        backends[0].address,
        BackendAddr::InetClientPort(std::net::IpAddr::from([10, 0, 0, 1]).into())
    );
    assert_eq!(&*backends[1].name, "[2001:db8::1]:80");
    assert_eq!((backends[1].weight, backends[1].tier, backends[1].max_sessions), (0, 2, Some(7)));
    assert_eq!(&*backends[2].name, "local");
    assert_eq!(config.listeners[0].bind[0], ListenAddr::DualStack(80));
    assert_eq!(config.listeners[0].bind.len(), 3);
}

#[test]
fn defaults_merge_key_by_key_and_lists_and_choices_replace() {
    let text = "version: 1\ndefaults:\n  listener: {timeouts: {idle: 5m, max_lifetime: 1h}, keepalive: {count: 3}}\n  \
                pool: {source: [\"10.0.0.8\"], health: {interval: 5s, probe: {http: {path: /a, host: h}}}}\n\
                listeners:\n  web: {bind: \":80\", pool: app, timeouts: {idle: none}, keepalive: {idle: 30s}}\n  \
                api: {bind: \":81\", pool: app, keepalive: none}\n\
                pools:\n  app:\n    backends: [\"10.0.0.1:80\"]\n    source: [\"10.0.0.9\"]\n    \
                health: {timeout: 2s, probe: {http: {path: /b}}}\n";
    let config = accepted(text);
    let (web, api) = (&config.listeners[0], &config.listeners[1]);
    assert_eq!(web.timeouts.idle, None);
    assert_eq!(web.timeouts.max_lifetime, Some(Duration::from_secs(3_600)));
    assert_eq!(api.timeouts.idle, Some(Duration::from_secs(300)));
    assert_eq!(web.keepalive.map(|k| (k.idle.as_secs(), k.count)), Some((30, 3)));
    assert_eq!(api.keepalive, None);
    let health = &config.pools[0].health;
    assert_eq!((health.interval.as_secs(), health.timeout.as_secs()), (5, 2));
    assert_eq!(config.pools[0].source, [std::net::IpAddr::from([10, 0, 0, 9]).into()]);
    assert!(
        matches!(&health.probe, Probe::Http(maitred::config::Http { path, host: None, .. }) if path == "/b")
    );
}

#[test]
fn variables_are_put_in_before_the_type_is_read() {
    let text =
        with_listener("backlog: \"${BACKLOG:-12}\"").replace(":80\", pool", ":${PORT}\", pool");
    let config = accepted(&text);
    assert_eq!(config.listeners[0].backlog, 12);
    assert_eq!(config.listeners[0].bind[0], ListenAddr::DualStack(5432));
}

#[test]
fn aliases_and_merge_keys_are_understood() {
    let text = "version: 1\nlisteners:\n  a: &a {bind: \":80\", pool: none, backlog: 7}\n  \
                b: {<<: *a, bind: \":81\"}\n";
    let config = accepted(text);
    assert_eq!((config.listeners[0].backlog, config.listeners[1].backlog), (7, 7));
    assert_eq!(config.listeners[1].bind[0], ListenAddr::DualStack(81));
}

#[test]
fn port_zero_may_be_bound_many_times() {
    let text = "version: 1\nlisteners:\n  a: {bind: [\":0\", \":0\"], pool: none}\n  b: {bind: \":0\", pool: none}\n";
    assert_eq!(accepted(text).listeners.len(), 2);
}

#[test]
fn a_file_wrong_on_every_line_is_reported_in_bounds() {
    let bad: String =
        (0..5_000).map(|i| format!("  l{i}: {{bind: \":x\", pool: none}}\n")).collect();
    let report = load_text(&format!("version: 1\nlisteners:\n{bad}")).unwrap_err();
    let text = report.render(false);
    assert_eq!(text.matches("error[").count(), 100);
    assert!(text.ends_with("\nand 4900 more\n"), "{}", &text[text.len() - 40..]);
}

#[test]
fn thirty_five_thousand_backends_load() {
    let mut text = with_pool("spill: true").replace("backends: [\"10.0.0.1:80\"], ", "");
    text.truncate(text.find("  app: {spill").unwrap());
    text.push_str("  app:\n    backends:\n");
    for i in 0..35_000 {
        let (a, b) = (i / 250, i % 250);
        text.push_str(&format!(
            "      - {{address: \"10.1.{a}.{b}:80\", name: b{i}, weight: 2, max_sessions: 10}}\n"
        ));
    }
    let start = std::time::Instant::now();
    assert_eq!(accepted(&text).pools[0].backends.len(), 35_000);
    println!("35 000 backends in {:?}", start.elapsed());
}
