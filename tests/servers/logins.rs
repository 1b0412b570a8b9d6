//! Probes that log in, at real servers: every authentication that these ask for by default, what is said when they turn
//! a probe away, and that a goodbye leaves no line in their logs.

use std::fs;
use std::process::Command;

use crate::cluster::{Cluster, PASSWORD};
use crate::harness::{Maitred, backends, free_port, succeed, wait_for};

/// A pool of these servers, with `health` beside its times.
fn pool(name: &str, ports: &[u16], health: &str) -> String {
    format!(
        "  {name}:\n    backends: [{}]\n    health: {{interval: 100ms, timeout: 2s, rise: 1, fall: 2, start: down, {health}}}\n",
        backends(ports)
    )
}

/// One listener for each pool.
fn config(pools: &[(&str, &[u16], String)]) -> String {
    let mut text = "listeners:\n".to_owned();
    for (name, _, _) in pools {
        let port = free_port();
        text.push_str(&format!("  {name}: {{bind: \"127.0.0.1:{port}\", pool: {name}}}\n"));
    }
    text.push_str("pools:\n");
    for (name, ports, health) in pools {
        text.push_str(&pool(name, ports, health));
    }
    text
}

/// A certificate for 127.0.0.1 that signs itself, and one of a client that it has signed; readable for the server.
fn certificates(dir: &std::path::Path, common_name: &str) {
    let openssl = |line: &str| {
        let mut command = Command::new("openssl");
        succeed(command.args(line.split(' ')).current_dir(dir));
    };
    openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca \
         -addext basicConstraints=critical,CA:TRUE",
    );
    fs::write(dir.join("server.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    fs::write(dir.join("client.ext"), "subjectAltName=DNS:client\n").unwrap();
    for (name, subject) in [("server", "server"), ("client", common_name)] {
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={subject}"
        ));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 \
             -extfile {name}.ext"
        ));
    }
    let (uid, gid) = crate::harness::user("postgres", "postgresql-15");
    for name in ["server.key", "server.pem", "ca.pem"] {
        std::os::unix::fs::chown(dir.join(name), Some(uid), Some(gid)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(dir.join(name), mode).unwrap();
    }
}

const HBA: &str = "hostssl all bycert all cert
host all bymd5 all md5
host all anyone all trust
host all incleartext all password
host all all all scram-sha-256";

/// Pools that log in, each in a way of its own.
fn ways_into_postgres<'a>(
    files: &std::path::Path,
    ports: &'a [u16],
) -> Vec<(&'static str, &'a [u16], String)> {
    let at = |name: &str| files.join(name).display().to_string();
    let secret = at("secret");
    fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let tls = format!("tls: {{ca: {}}}", at("ca.pem"));
    let with_certificate = format!(
        "tls: {{ca: {}, certificate: {}, key: {}}}",
        at("ca.pem"),
        at("client.pem"),
        at("client.key")
    );
    let probe = |user: &str, more: &str| format!("probe: {{postgres: {{user: {user}, {more}}}}}");
    [
        ("scram", probe("scrambled", &format!("password: \"{PASSWORD}\""))),
        ("file", probe("scrambled", &format!("password_file: {secret}, role: primary"))),
        ("plus", probe("scrambled", &format!("password_file: {secret}")) + ", " + &tls),
        ("strange", probe("strange", "password: \"pässwörd ½\"")),
        ("md5", probe("bymd5", "password: \"md5 secret\"")),
        ("cert", probe("bycert", "database: postgres") + ", " + &with_certificate),
        ("trust", probe("anyone", "query: \"select 'a' || 'b'\", expect: {regex: \"^ab$\"}")),
        ("cleartext", probe("incleartext", &format!("password_file: {secret}")) + ", " + &tls),
        ("kept", probe("anyone", "role: primary") + ", connection: kept"),
        (
            "keptplus",
            probe("scrambled", &format!("password_file: {secret}")) + ", connection: kept, " + &tls,
        ),
    ]
    .into_iter()
    .map(|(name, health)| (name, ports, health))
    .collect()
}

#[test]
fn postgres_is_logged_in_to_in_every_way_and_told_goodbye() {
    let files = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(files.path(), mode).unwrap();
    certificates(files.path(), "bycert");
    let at = |name: &str| files.path().join(name).display().to_string();
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", at("server.pem")),
        format!("ssl_key_file={}", at("server.key")),
        format!("ssl_ca_file={}", at("ca.pem")),
        "log_connections=off".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let cluster = Cluster::start(0, HBA, &settings);
    let server = &cluster.servers[0];
    server.must("set password_encryption = md5; create user bymd5 password 'md5 secret'");
    server.must("create user bycert; create user anyone");
    server.must(&format!("create user scrambled password '{PASSWORD}'"));
    server.must("create user strange password 'pässwörd ½'");
    server.must(&format!("create user incleartext password '{PASSWORD}'"));
    let ports = cluster.ports();
    let pools = ways_into_postgres(files.path(), &ports);
    let names: Vec<&str> = pools.iter().map(|(name, ..)| *name).collect();
    let before = server.log();
    let maitred = Maitred::start(&config(&pools));
    for name in &names {
        maitred.wait_for_said(name, "s0", "state", "up");
    }
    let kept = "select count(*) from pg_stat_activity where application_name = 'maitred' and usename = 'anyone' \
                and state = 'idle'";
    wait_for("the kept connection", || server.must(kept).parse::<u32>().unwrap() >= 1);
    for name in &names {
        let passed = [("pool", *name), ("result", "passed")];
        wait_for("probes", || maitred.metric("maitred_probes_total", &passed) > 9.5);
        let all = maitred.metric("maitred_probes_total", &[("pool", *name)]);
        let passed = maitred.metric("maitred_probes_total", &passed);
        assert!(all - passed < 0.5, "{name}: {all} probes, {passed} passed");
    }
    // The two pools that log in by password and in clear ask the same in different ways; so do the others.
    maitred.process.signal(rustix::process::Signal::TERM);
    let mut maitred = maitred;
    maitred.process.end();
    assert_eq!(server.log(), before, "each probe said goodbye");
    assert!(!maitred.log().contains(PASSWORD));
}

#[test]
fn postgres_says_why_it_turned_a_probe_away_and_no_one_says_the_secret() {
    let cluster = Cluster::start(0, HBA, &[]);
    let ports = cluster.ports();
    cluster.servers[0].must(&format!("create user incleartext password '{PASSWORD}'"));
    let probe = |text: &str| format!("probe: {{postgres: {{{text}}}}}");
    let cases = [
        ("wrong", "user: postgres, password: hunter2hunter2", "password authentication failed"),
        ("lacking", "user: postgres", "it wants a password, and the probe has none"),
        ("nobody", "user: nobody, password: hunter2hunter2", "password authentication failed"),
        ("clear", "user: incleartext, password: hunter2hunter2", "which is sent in TLS only"),
    ];
    let correct = format!("user: postgres, password: \"{PASSWORD}\"");
    let questions = [
        (
            "absent",
            "query: \"select * from absent\"",
            "query_failed",
            "relation \"absent\" does not exist",
        ),
        // The server waits, not this test.
        ("slow", "query: \"select pg_sleep(60)\"", "", "timeout"),
        ("other", "query: \"select 'is this'\", expect: that", "dead", "the answer is \"is this\""),
        ("copy", "query: \"copy (select 1) to stdout\"", "query_failed", "begins a COPY"),
        ("database", "database: absent", "", "database \"absent\" does not exist"),
    ];
    let mut pools: Vec<(&str, &[u16], String)> =
        cases.iter().map(|(name, text, _)| (*name, &*ports, probe(text))).collect();
    for (name, more, ..) in &questions {
        pools.push((name, &ports, probe(&format!("{correct}, {more}"))));
    }
    let maitred = Maitred::start(&config(&pools));
    for (name, _, why) in cases {
        wait_for(name, || maitred.said(name, "s0", "why").contains(why));
        // A lone server that turns probes away is not known to be at fault.
        assert_eq!(maitred.said(name, "s0", "state"), "starting");
        let blind = maitred.metric("maitred_pool_probe_blind", &[("pool", name)]);
        assert!(blind > 0.5, "{name}");
    }
    for (name, _, reason, why) in questions {
        wait_for(name, || maitred.said(name, "s0", "why").contains(why));
        if !reason.is_empty() {
            maitred.wait_for_said(name, "s0", "reason", reason);
        }
    }
    let all = maitred.log() + &maitred.get("/api/v1/config") + &maitred.get("/api/v1/pools");
    assert!(!all.contains("hunter2") && !all.contains(PASSWORD), "a secret is told");
    let all = maitred.get("/api/v1/events") + &maitred.get("/") + &maitred.show("config");
    assert!(!all.contains("hunter2") && !all.contains(PASSWORD), "a secret is told");
}

#[test]
fn a_changed_password_takes_nobody_down_and_the_new_one_is_read_from_its_file() {
    let cluster = Cluster::start(1, HBA, &[]);
    let ports = cluster.ports();
    let primary = &cluster.servers[0];
    primary.must("create user probe password 'first'");
    let secret = cluster.dir.path().join("probe");
    fs::write(&secret, "first").unwrap();
    let probe = |role: &str| {
        format!(
            "probe: {{postgres: {{user: probe, password_file: {}, role: {role}}}}}",
            secret.display()
        )
    };
    let pools = [("writers", &*ports, probe("primary")), ("readers", &*ports, probe("replica"))];
    let maitred = Maitred::start(&config(&pools));
    maitred.wait_for_said("writers", "s0", "state", "up");
    maitred.wait_for_said("writers", "s1", "state", "standby");
    maitred.wait_for_said("readers", "s0", "state", "standby");
    maitred.wait_for_said("readers", "s1", "state", "up");
    let changes = || maitred.metric("maitred_backend_transitions_total", &[]);
    let before = changes();
    primary.must("alter user probe password 'second'");
    let blind = |pool| maitred.metric("maitred_pool_probe_blind", &[("pool", pool)]) > 0.5;
    wait_for("blindness", || blind("writers") && blind("readers"));
    let failed = [("pool", "writers"), ("backend", "s0"), ("result", "login_failed")];
    wait_for("many failures", || maitred.metric("maitred_probes_total", &failed) > 9.5);
    assert_eq!(maitred.said("writers", "s0", "state"), "up");
    assert!((changes() - before).abs() < 0.5, "a state changed");
    let event = "no backend that answers lets the probes log in";
    assert!(maitred.get("/api/v1/events").contains(event));
    fs::write(&secret, "second\n").unwrap();
    wait_for("sight", || !blind("writers") && !blind("readers"));
    assert!((changes() - before).abs() < 0.5, "a state changed");
    // Two pools that ask the same share their probes: as many of one as of the other, and at the server once.
    let probes =
        |pool| maitred.metric("maitred_probes_total", &[("pool", pool), ("backend", "s0")]);
    let before = (probes("writers"), probes("readers"));
    wait_for("ten probes", || probes("writers") > before.0 + 9.5);
    let (writers, readers) = (probes("writers") - before.0, probes("readers") - before.1);
    assert!((writers - readers).abs() < 1.5, "{writers} and {readers}");
    // One server alone turns them away: it is at fault, and is known to be.
    let hba = cluster.dir.path().join("s0/pg_hba.conf");
    let text = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("host all probe all reject\n{text}")).unwrap();
    primary.must("select pg_reload_conf()");
    maitred.wait_for_said("writers", "s0", "reason", "login_failed");
    let why = maitred.said("writers", "s0", "why");
    assert!(why.contains("could not log in") && why.contains("pg_hba.conf rejects"), "{why}");
}

fn mariadb(dir: &std::path::Path, more: &[&str]) -> (crate::harness::Process, u16) {
    let port = free_port();
    (crate::mariadb::start_with(&dir.join(format!("m{port}")), port, more), port)
}

fn ways_into_mariadb<'a>(ca: &str, ports: &'a [u16]) -> Vec<(&'static str, &'a [u16], String)> {
    let probe = |text: &str| format!("probe: {{mysql: {{{text}}}}}");
    let secret = "user: probe, password: \"a secret\"";
    let with_tls = format!(", tls: {{ca: {}}}", ca);
    [
        ("native", probe(secret)),
        ("empty", probe("user: empty, role: primary")),
        ("private", probe("user: private, password: \"a secret\"") + &with_tls),
        ("kept", probe(&format!("{secret}, role: primary")) + ", connection: kept"),
        ("asks", probe(&format!("{secret}, query: \"select concat('o', 'k')\", expect: ok"))),
        ("replica", probe(&format!("{secret}, role: replica"))),
        ("wrong", probe("user: probe, password: hunter2hunter2")),
        ("clear", probe("user: private, password: \"a secret\"")),
        ("curve", probe("user: curve, password: hunter2hunter2")),
        ("refused", probe(&format!("{secret}, query: \"select * from absent.table\""))),
        ("galera", probe(&format!("{secret}, galera: synced"))),
    ]
    .into_iter()
    .map(|(name, health)| (name, ports, health))
    .collect()
}

#[test]
fn mariadb_is_logged_in_to_and_never_counts_us_among_those_who_fail() {
    let dir = crate::mariadb::folder();
    certificates(dir.path(), "client");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (uid, gid) = crate::harness::user("mysql", "mariadb-server");
    for name in ["server.key", "server.pem", "ca.pem"] {
        std::os::unix::fs::chown(dir.path().join(name), Some(uid), Some(gid)).unwrap();
    }
    let tls = [("cert", "server.pem"), ("key", "server.key"), ("ca", "ca.pem")]
        .map(|(key, name)| format!("--ssl-{key}={}", at(name)));
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let (_server, port) = mariadb(dir.path(), &tls);
    let ask = |sql: &str| crate::mariadb::ask(port, sql);
    ask("create user probe identified by 'a secret'; create user empty;
         create user private identified by 'a secret' require ssl;
         install soname 'auth_ed25519'; create user curve identified via ed25519 using password('x')");
    let ports = [port];
    let pools = ways_into_mariadb(&at("ca.pem"), &ports);
    let maitred = Maitred::start(&config(&pools));
    for name in ["native", "empty", "private", "kept", "asks"] {
        maitred.wait_for_said(name, "s0", "state", "up");
    }
    maitred.wait_for_said("replica", "s0", "state", "standby");
    for (name, why) in [
        ("wrong", "login_failed (error 1045: Access denied"),
        ("clear", "login_failed (error 1045: Access denied"),
        ("curve", "it wants an authentication that probes lack: client_ed25519"),
        ("refused", "query_failed (error 1142: SELECT command denied"),
        ("galera", "query_failed (it is no node of a Galera cluster)"),
    ] {
        let said = || maitred.said(name, "s0", "why");
        assert!(
            crate::harness::within(crate::harness::PATIENCE, || said().contains(why)),
            "{name}: {}",
            said()
        );
    }
    ask("set global read_only = 1");
    maitred.wait_for_said("kept", "s0", "reason", "wrong_role");
    maitred.wait_for_said("replica", "s0", "state", "up");
    wait_for("many failures", || {
        maitred.metric("maitred_probes_total", &[("result", "login_failed")]) > 30.0
    });
    // Not one of hundreds of probes left before its login had ended: that is what a server blocks an address for.
    let before_login = || {
        let row = ask("show global status like 'aborted_connects_preauth'");
        row.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(before_login(), 0);
    drop(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    wait_for("one that leaves to be counted", || before_login() == 1);
    let all = maitred.log() + &maitred.get("/api/v1/config") + &maitred.get("/api/v1/pools");
    assert!(!all.contains("hunter2") && !all.contains("a secret"), "a secret is told");
}

#[test]
fn redis_is_logged_in_to_by_password_and_by_acl_and_a_replica_that_is_cut_off_lags() {
    let start = |port: u16, more: &[&str]| crate::redis::start_with(port, more);
    let ports = [free_port(), free_port()];
    let primary = ports[0].to_string();
    let acl = ["--user", "probe", "on", ">acl secret", "+ping", "+info"];
    let mut primary_process = start(ports[0], &[&["--requirepass", "a secret"][..], &acl].concat());
    let of = [
        "--requirepass",
        "a secret",
        "--masterauth",
        "a secret",
        "--replicaof",
        "127.0.0.1",
        &primary,
    ];
    let _replica = start(ports[1], &[&of[..], &acl].concat());
    let probe = |text: &str| format!("probe: {{redis: {{{text}}}}}");
    let pools: Vec<(&str, &[u16], String)> = [
        ("writers", probe("password: \"a secret\", role: primary")),
        ("readers", probe("user: probe, password: \"acl secret\", role: replica, max_lag: 5s")),
        ("kept", probe("password: \"a secret\"") + ", connection: kept"),
        ("wrong", probe("password: hunter2hunter2")),
        ("lacking", probe("role: any")),
    ]
    .into_iter()
    .map(|(name, health)| (name, &ports[..], health))
    .collect();
    let maitred = Maitred::start(&config(&pools));
    maitred.wait_for_said("writers", "s0", "state", "up");
    maitred.wait_for_said("writers", "s1", "state", "standby");
    maitred.wait_for_said("readers", "s0", "state", "standby");
    maitred.wait_for_said("readers", "s1", "state", "up");
    maitred.wait_for_said("kept", "s0", "state", "up");
    wait_for("why", || maitred.said("wrong", "s0", "why").contains("login_failed (WRONGPASS"));
    wait_for("why", || maitred.said("lacking", "s0", "why").contains("login_failed (NOAUTH"));
    primary_process.kill();
    maitred.wait_for_said("writers", "s0", "reason", "dead");
    maitred.wait_for_said("readers", "s1", "reason", "lagging");
    let why = maitred.said("readers", "s1", "why");
    assert!(why.contains("its link to the primary is down"), "{why}");
    let all = maitred.log() + &maitred.get("/api/v1/config") + &maitred.get("/api/v1/pools");
    assert!(!all.contains("hunter2") && !all.contains(" secret"), "a secret is told");
}
