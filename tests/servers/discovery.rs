//! Backends by name with real servers of names: Knot, whose zone changes, and unbound, found as in a container by
//! resolv.conf, search domains and hosts; and a configuration that is read anew when it changes.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::dns::{Kind, knot, run, unbound_at};
use crate::harness::{Maitred, Process, SHELL, backends, free_port, succeed, try_get, wait_for};
use crate::local::{Conduct, backend, backend_at, connect, exchange};
use crate::namespace::alone;

fn pool(maitred: &Maitred) -> Value {
    serde_json::from_str(&maitred.get("/api/v1/pools/main")).unwrap()
}

/// Name, tier and weight of each.
fn found(maitred: &Maitred) -> Vec<(String, u64, u64)> {
    let pool = pool(maitred);
    let figure = |value: &Value| value.as_u64().unwrap();
    let each = pool["backends"].as_array().unwrap().iter();
    each.map(|it| {
        (it["name"].as_str().unwrap().to_owned(), figure(&it["tier"]), figure(&it["weight"]))
    })
    .collect()
}

fn names(maitred: &Maitred) -> Vec<String> {
    found(maitred).into_iter().map(|(name, ..)| name).collect()
}

/// An echo at each of these addresses, on one port.
fn echoes(ips: &[&str]) -> u16 {
    let port = free_port();
    for ip in ips {
        backend_at(SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port), Conduct::Echo);
    }
    port
}

fn write_zone(dir: &Path, serial: u32, records: &str) {
    let head = format!("@ 60 SOA ns hostmaster {serial} 3600 600 86400 1\n@ 60 NS ns\n");
    fs::write(dir.join("zone"), format!("{head}ns 60 A 192.0.2.53\n{records}\n")).unwrap();
}

#[test]
fn a_zone_that_changes_moves_backends_and_no_session() {
    let (port, of_names) = (free_port(), free_port());
    let service = echoes(&["127.0.3.1", "127.0.3.2", "::1"]);
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    fs::write(dir.path().join("config"), knot(of_names, &place)).unwrap();
    let hosts = "a 1 A 127.0.3.1\nb 1 A 127.0.3.2\nc 1 AAAA ::1\n";
    let srv = |priority: u16, weight: u16, host: &str| {
        format!("_db._tcp 1 SRV {priority} {weight} {service} {host}\n")
    };
    write_zone(
        dir.path(),
        1,
        &[hosts, &srv(10, 20, "a"), &srv(10, 10, "b"), &srv(20, 0, "c")].concat(),
    );
    let mut server = run(Kind::Knot, dir.path());
    let maitred = Maitred::start(&format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main}}}}
pools:
  main:
    balance: round_robin
    discovery: {{dns: {{name: _db._tcp.example.test, type: srv, servers: [\"127.0.0.1:{of_names}\"]}}}}
    health: {{interval: 100ms, fall: 2}}
"
    ));
    let [a, b, c] = [
        format!("127.0.3.1:{service}"),
        format!("127.0.3.2:{service}"),
        format!("[::1]:{service}"),
    ];
    wait_for("three backends", || names(&maitred).len() == 3);
    assert_eq!(found(&maitred), [(a.clone(), 0, 20), (b.clone(), 0, 10), (c.clone(), 1, 1)]);
    [&a, &b, &c].iter().for_each(|name| maitred.wait_for_state(name, "up"));
    let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(port)).collect();
    clients.iter_mut().for_each(|client| exchange(client).unwrap());
    let active =
        |name: &str| maitred.metric("maitred_backend_sessions_active", &[("backend", name)]);
    assert_eq!([&a, &b].map(|name| active(name)), [4.0, 2.0]);
    write_zone(dir.path(), 2, &[hosts, &srv(5, 20, "a"), &srv(5, 20, "c")].concat());
    server.signal(Signal::HUP);
    wait_for("the zone to be followed", || names(&maitred) == [a.as_str(), c.as_str()]);
    assert_eq!(found(&maitred), [(a.clone(), 0, 20), (c.clone(), 0, 20)]);
    assert_eq!(maitred.state(&a), "up", "what stays keeps its health");
    clients.iter_mut().for_each(|client| exchange(client).unwrap());
    assert_eq!([&a, &b].map(|name| active(name)), [4.0, 2.0], "those of one that is gone go on");
    assert!(pool(&maitred)["discovery"]["last_success"].is_string());
    server.kill();
    let failures = || maitred.metric("maitred_discovery_failures_total", &[]);
    wait_for("nobody to answer", || failures() > 0.5);
    assert_eq!(names(&maitred), [a.as_str(), c.as_str()], "the last answer stays");
    assert!(pool(&maitred)["discovery"]["why"].as_str().unwrap().contains("127.0.0.1"));
    drop(clients);
    maitred.wait_for_no_session();
    wait_for("the series of the one that is gone to go", || !maitred.get("/metrics").contains(&b));
    assert!(
        maitred.log().contains(&format!("main: 1 backend gone ({b}), 1 backend changed")),
        "{}",
        maitred.log()
    );
    println!("discovery: {} failures counted without a server", failures());
}

/// Says what the system says of names, as a container's engine does; what is there is hidden from this test alone.
fn pretend(dir: &Path, resolv_conf: &str, hosts: &str) {
    fs::write(dir.join("resolv.conf"), resolv_conf).unwrap();
    fs::write(dir.join("hosts"), hosts).unwrap();
    for file in ["resolv.conf", "hosts"] {
        let mut mount = std::process::Command::new("mount");
        succeed(mount.arg("--bind").arg(dir.join(file)).arg(Path::new("/etc").join(file)));
    }
}

fn unbound(dir: &Path) -> Process {
    let data = [
        "db.prod.test. 1 IN A 127.0.3.1",
        "db.prod.test. 1 IN A 127.0.3.2",
        "db.stage.test. 1 IN A 127.0.3.3",
    ];
    let config = unbound_at("127.0.0.53", dir.to_str().unwrap(), "test.", &data);
    fs::write(dir.join("config"), config).unwrap();
    let server = run(Kind::Unbound, dir);
    wait_for("unbound", || TcpStream::connect(("127.0.0.53", 53)).is_ok());
    server
}

#[test]
fn names_are_found_as_in_a_container() {
    alone("discovery::names_are_found_as_in_a_container", || {
        let dir = tempfile::tempdir().unwrap();
        let resolv_conf =
            |domain: &str| format!("search {domain}\nnameserver 127.0.0.53\noptions ndots:5\n");
        pretend(dir.path(), &resolv_conf("prod.test"), "127.0.3.9 listed.lan listed\n");
        let _server = unbound(dir.path());
        let service = echoes(&["127.0.3.1", "127.0.3.2", "127.0.3.3", "127.0.3.9"]);
        let port = free_port();
        let maitred = Maitred::start(&format!(
            "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main}}}}
pools:
  main:
    backends: [\"db:{service}\", {{address: \"listed:{service}\", tier: 1, weight: 7}}]
    health: {{interval: 100ms}}
"
        ));
        let at = |last: u8| format!("127.0.3.{last}:{service}");
        // It was not ready before.
        let listed = (at(9), 1, 7);
        assert_eq!(found(&maitred), [(at(1), 0, 1), (at(2), 0, 1), listed.clone()]);
        exchange(&mut connect(port)).unwrap();
        fs::write(dir.path().join("resolv.conf"), resolv_conf("stage.test")).unwrap();
        wait_for("another domain", || found(&maitred) == [(at(3), 0, 1), listed.clone()]);
        exchange(&mut connect(port)).unwrap();
        fs::write(dir.path().join("hosts"), "127.0.3.1 db listed\n").unwrap();
        wait_for("the file of hosts", || found(&maitred) == [(at(1), 0, 1)]);
    });
}

#[test]
fn nobody_is_sent_here_before_names_were_asked_for_but_not_for_ever() {
    let (port, silent) = (free_port(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let admin = free_port();
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "version: 1
admin: {{listen: \"127.0.0.1:{admin}\", socket: none}}
listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main}}}}
pools: {{main: {{discovery: {{dns: {{name: db.test, port: 1, servers: [\"{}\"]}}}}}}}}
",
        silent.local_addr().unwrap()
    );
    fs::write(dir.path().join("config"), config).unwrap();
    let mut command = std::process::Command::new(crate::harness::binary());
    let command = command.args(["run", "--config"]).arg(dir.path().join("config"));
    let _maitred = Process::start(command.stdout(std::process::Stdio::null()));
    let ready = || try_get(([127, 0, 0, 1], admin).into(), "/readyz");
    wait_for("an answer", || ready().is_some());
    let (status, body) = ready().unwrap();
    assert_eq!((status, body.as_str()), (503, "discovery has not answered yet\n"));
    wait_for("readiness", || ready().unwrap().0 == 200);
}

#[test]
fn a_watched_configuration_is_read_anew_and_one_that_is_refused_changes_nothing() {
    let port = free_port();
    let servers = [backend(Conduct::Echo), backend(Conduct::Echo)];
    let rest = |count: usize| {
        format!(
            "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main}}}}
pools: {{main: {{backends: [{}], health: {{probe: none}}}}}}
",
            backends(&servers[..count])
        )
    };
    let maitred = Maitred::start_as(SHELL, "process: {watch: true}", &rest(1));
    let mut client = connect(port);
    exchange(&mut client).unwrap();
    let reloads = |result: &str| maitred.metric("maitred_reloads_total", &[("result", result)]);
    maitred.write_config(&rest(2));
    wait_for("the second backend", || names(&maitred) == ["s0", "s1"]);
    assert_eq!([reloads("applied"), reloads("unchanged"), reloads("refused")], [1.0, 0.0, 0.0]);
    maitred.write_config("listeners: {main: {bind: nonsense}}\n");
    wait_for("a refusal", || reloads("refused") > 0.5);
    exchange(&mut client).unwrap();
    assert_eq!(names(&maitred), ["s0", "s1"]);
    maitred.write_config(&rest(1));
    wait_for("one backend again", || names(&maitred) == ["s0"]);
    exchange(&mut client).unwrap();
    assert_eq!([reloads("applied"), reloads("unchanged"), reloads("refused")], [2.0, 0.0, 1.0]);
    assert_eq!(maitred.log().matches("why the reload was refused").count(), 1);
}
