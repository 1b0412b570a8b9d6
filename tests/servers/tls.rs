//! TLS with those who speak it: OpenSSL's client and server, curl, nginx, psql and PostgreSQL; a mebibyte over each.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::harness::{Maitred, Process, free_port, output, program, user, wait_for};
use crate::names::{PACKAGE, certify, database};

const SIZE: usize = 1 << 20;
const NAMES: [&str; 2] = ["first.test", "a.second.test"];

fn text() -> Vec<u8> {
    (0..SIZE as u32).flat_map(|at| [b'a' + (at % 23) as u8]).collect()
}

/// An authority, `ca.crt`, and what it signed for each of `NAMES`.
fn certificates(dir: &Path) -> String {
    let place = dir.display();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the authority");
    fs::write(dir.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);
    let each = NAMES.map(|name| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        // One with its authority's name would be taken for its own.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        format!("{{certificate: {place}/{name}.crt, key: {place}/{name}.key}}")
    });
    format!("certificates: [{}]", each.join(", "))
}

fn nginx(dir: &Path, servers: &str) -> Process {
    let place = dir.display();
    let config = format!(
        "daemon off; user root; pid {place}/pid; error_log {place}/error.log; events {{}}
         http {{ access_log off; root {place}; {servers} }}"
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let mut command = Command::new(program("nginx", "nginx"));
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

fn curl(dir: &Path, scheme: &str, name: &str, port: u16, more: &[&str]) -> Vec<u8> {
    let mut command = Command::new(program("curl", "curl"));
    command.args(["-sS", "--fail", "--max-time", "20", "--resolve"]);
    command.arg(format!("{name}:{port}:127.0.0.1")).args(more);
    if scheme == "https" {
        command.arg("--cacert").arg(dir.join("ca.crt"));
    }
    output(command.arg(format!("{scheme}://{name}:{port}/big"))).stdout
}

#[test]
fn curl_and_nginx_with_it_at_either_end_and_at_both() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    fs::write(dir.path().join("big"), text()).unwrap();
    let certificates = certificates(dir.path());
    let [plain, encrypted] = [free_port(), free_port()];
    let first = NAMES[0];
    let _nginx = nginx(
        dir.path(),
        &format!(
            "server {{ listen 127.0.0.1:{plain}; }}
             server {{ listen 127.0.0.1:{encrypted} ssl; ssl_protocols TLSv1.2 TLSv1.3;
               ssl_certificate {place}/{first}.crt; ssl_certificate_key {place}/{first}.key;
               ssl_client_certificate {place}/ca.crt; ssl_verify_client on; }}"
        ),
    );
    let ports = [free_port(), free_port(), free_port()];
    let [ended, begun, both] = ports;
    let maitred = Maitred::start(&format!(
        "listeners:
  ended: {{bind: \"127.0.0.1:{ended}\", pool: plain, tls: {{{certificates}}}}}
  begun: {{bind: \"127.0.0.1:{begun}\", pool: main}}
  both: {{bind: \"127.0.0.1:{both}\", pool: main, tls: {{{certificates}, client_ca: {place}/ca.crt}}}}
pools:
  plain: {{backends: [\"127.0.0.1:{plain}\"]}}
  main:
    backends: [\"127.0.0.1:{encrypted}\"]
    health: {{probe: {{http: {{path: /big}}}}}}
    tls: {{server_name: {first}, ca: {place}/ca.crt, certificate: {place}/{first}.crt, key: {place}/{first}.key}}
"
    ));
    wait_for("nginx", || curl(dir.path(), "http", first, begun, &[]).len() == SIZE);
    for version in [&["--tlsv1.3"], &["--tls-max", "1.2"][..]] {
        for name in NAMES {
            assert!(
                curl(dir.path(), "https", name, ended, version) == text(),
                "{name} {version:?}"
            );
        }
        let [crt, key] = ["crt", "key"].map(|end| format!("{place}/{first}.{end}"));
        let shown = [version, &["--cert", &crt, "--key", &key]].concat();
        assert!(curl(dir.path(), "https", first, both, &shown) == text(), "{version:?}");
        assert!(curl(dir.path(), "https", first, both, version).is_empty(), "it shows nothing");
    }
    assert!(curl(dir.path(), "http", first, begun, &[]) == text());
    maitred.wait_for_no_session();
    let address = format!("127.0.0.1:{encrypted}");
    maitred.wait_for_state(&address, "up");
    let probes = [("pool", "main"), ("result", "passed")];
    wait_for("a probe", || maitred.metric("maitred_probes_total", &probes) > 0.0);
    let records = maitred.records();
    let refused: Vec<_> = records.iter().filter(|it| it["reason"] == "tls_failed").collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(|it| it["cause"].is_string() && it["server_name"] == first));
}

#[test]
fn openssl_s_client_at_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = certificates(dir.path());
    fs::write(dir.path().join("big"), text()).unwrap();
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    backend.set_nonblocking(true).unwrap();
    let address = backend.local_addr().unwrap();
    let port = free_port();
    let maitred = Maitred::start(&format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main, tls: {{{certificates}, alpn: [echo]}}}}}}
pools: {{main: {{backends: [\"{address}\"], health: {{probe: none}}}}}}
"
    ));
    for version in ["-tls1_2", "-tls1_3"] {
        for name in NAMES {
            std::thread::scope(|scope| {
                let served = scope.spawn(|| {
                    let mut accepted = None;
                    wait_for("the client", || {
                        accepted = backend.accept().ok();
                        accepted.is_some()
                    });
                    let (mut stream, _) = accepted.unwrap();
                    stream.set_nonblocking(false).unwrap();
                    let mut got = vec![0; SIZE];
                    stream.read_exact(&mut got).unwrap();
                    stream.write_all(&got).unwrap();
                    got
                });
                let mut command = Command::new(program("openssl", "openssl"));
                command.args(["s_client", "-quiet", "-verify_return_error", version]);
                command.args(["-alpn", "echo", "-servername", name, "-verify_hostname", name]);
                command.arg("-connect").arg(format!("127.0.0.1:{port}"));
                command.arg("-CAfile").arg(dir.path().join("ca.crt"));
                command.stdin(File::open(dir.path().join("big")).unwrap());
                let said = command.output().unwrap();
                assert!(said.stdout == text(), "{}", String::from_utf8_lossy(&said.stderr));
                assert!(served.join().unwrap() == text());
            });
        }
    }
    maitred.wait_for_no_session();
}

/// Which signed its certificate itself, and is believed because that is in the file.
#[test]
fn openssl_s_server_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let name = NAMES[0];
    certify(dir.path(), name);
    fs::write(dir.path().join("big"), text()).unwrap();
    let place = dir.path().display();
    let ports = [free_port(), free_port()];
    let servers = ports.iter().zip(["-tls1_2", "-tls1_3"]).map(|(port, version)| {
        let mut command = Command::new(program("openssl", "openssl"));
        command.args(["s_server", "-WWW", "-quiet", version, "-port", &port.to_string()]);
        command.args(["-cert", &format!("{name}.crt"), "-key", &format!("{name}.key")]);
        command.current_dir(dir.path());
        Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    });
    let _servers: Vec<_> = servers.collect();
    let doors = [free_port(), free_port()];
    let routed = free_port();
    let maitred = Maitred::start(&format!(
        "listeners:
  old: {{bind: \"127.0.0.1:{}\", pool: old}}
  new: {{bind: \"127.0.0.1:{}\", pool: new}}
  routed: {{bind: \"127.0.0.1:{routed}\", pool: none, routes: [{{server_name: [{name}], pool: routed}}]}}
defaults: {{pool: {{health: {{probe: none}}, tls: {{server_name: {name}, ca: {place}/{name}.crt}}}}}}
pools:
  old: {{backends: [\"127.0.0.1:{}\"]}}
  new: {{backends: [\"127.0.0.1:{}\"]}}
  routed: {{backends: [\"127.0.0.1:{}\"], tls: none}}
",
        doors[0], doors[1], ports[0], ports[1], ports[1]
    ));
    for port in doors {
        wait_for("s_server", || curl(dir.path(), "http", name, port, &[]).len() == SIZE);
        assert!(curl(dir.path(), "http", name, port, &[]) == text());
    }
    // From end to end in TLS, routed by the name: its client and its server.
    let request = dir.path().join("request");
    fs::write(&request, "GET /big HTTP/1.0\r\n\r\n").unwrap();
    let mut command = Command::new(program("openssl", "openssl"));
    command.args(["s_client", "-quiet", "-verify_return_error", "-servername", name]);
    command.arg("-connect").arg(format!("127.0.0.1:{routed}"));
    command.arg("-CAfile").arg(dir.path().join(format!("{name}.crt")));
    command.stdin(File::open(&request).unwrap());
    let said = command.output().unwrap();
    assert!(said.stdout.ends_with(&text()), "{}", String::from_utf8_lossy(&said.stderr));
    maitred.wait_for_no_session();
}

#[test]
fn psql_and_postgresql_in_their_own_way_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let (uid, gid) = user("postgres", PACKAGE);
    chown(dir.path(), Some(uid), Some(gid)).unwrap();
    let certificates = certificates(dir.path());
    let name = NAMES[0];
    let place = dir.path().display();
    let database_port = free_port();
    let _database = database(dir.path(), name, database_port);
    let [plain, both, through] = [free_port(), free_port(), free_port()];
    let maitred = Maitred::start(&format!(
        "defaults: {{listener: {{tls: {{{certificates}, alpn: [postgresql]}}}}}}
listeners:
  plain: {{bind: \"127.0.0.1:{plain}\", pool: plain}}
  both: {{bind: \"127.0.0.1:{both}\", pool: main}}
  through: {{bind: \"127.0.0.1:{through}\", pool: plain, tls: none}}
pools:
  plain: {{backends: [\"127.0.0.1:{database_port}\"]}}
  main:
    backends: [{{address: \"127.0.0.1:{database_port}\", name: encrypted}}]
    tls: {{server_name: {name}, ca: {place}/ca.crt, alpn: [postgresql]}}
"
    ));
    let psql = |port: u16, more: &str, query: &str| {
        let mut command = Command::new(program("psql", PACKAGE));
        command.arg(format!(
            "host={name} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres \
             sslrootcert={place}/ca.crt {more}"
        ));
        let said = output(command.args(["-At", "-c", query]));
        let said = if said.status.success() { said.stdout } else { said.stderr };
        String::from_utf8_lossy(&said).trim().to_owned()
    };
    wait_for("PostgreSQL", || psql(plain, "sslmode=verify-full", "select 1") == "1");
    let version = psql(plain, "sslmode=require", "show server_version_num");
    let has_direct = version.parse::<u32>().unwrap() >= 170_000;
    let direct: &[&str] =
        if has_direct { &["sslmode=verify-full sslnegotiation=direct"] } else { &[] };
    if !has_direct {
        eprintln!("PostgreSQL {version} knows no sslnegotiation=direct");
    }
    let ways = ["sslmode=require", "sslmode=verify-full", "sslmode=verify-full gssencmode=disable"];
    for (port, is_encrypted) in [(plain, "f"), (both, "t")] {
        for way in ways.iter().chain(direct) {
            let asked = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
            assert_eq!(psql(port, way, asked), is_encrypted, "{way}");
            let big =
                "select string_agg(lpad(n::text, 8, '0'), '') from generate_series(1, 131072) n";
            let expected: String = (1..=131_072).map(|n| format!("{n:08}")).collect();
            assert!(psql(port, way, big) == expected, "{way}");
        }
        let told = psql(port, "sslmode=disable", "select 1");
        assert!(told.contains("this address needs TLS: connect with sslmode=require"), "{told}");
    }
    no_failure_by(&maitred, || {
        for port in [plain, both, through] {
            assert_eq!(psql(port, "sslmode=require", "select 1"), "1");
        }
    });
    maitred.wait_for_state("encrypted", "up");
    maitred.wait_for_no_session();
}

/// Every client and its server end as they do: none of that is a failure.
fn no_failure_by(maitred: &Maitred, sessions: impl Fn()) {
    for _ in 0..50 {
        sessions();
    }
    maitred.wait_for_no_session();
    let failed: Vec<String> = maitred
        .get("/metrics")
        .lines()
        .filter(|line| line.contains("session_closed_total{") && !line.ends_with(" 0"))
        .filter(|line| !line.contains("_closed\"") && !line.contains("stage=\"preread\""))
        .map(str::to_owned)
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}
