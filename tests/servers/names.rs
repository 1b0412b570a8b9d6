//! Routes by server name with real TLS: curl to two nginx, and psql to two PostgreSQL, each behind one address. TLS ends
//! at the backends; that it works at all shows that not a byte was changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{
    Maitred, Process, free_port, output, program, run_as, succeed, user, wait_for,
};

/// A certificate of its own for `name`, and its key.
pub fn certify(dir: &Path, name: &str) {
    let mut command = Command::new(program("openssl", "openssl"));
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]);
    command.args([
        "-days",
        "2",
        "-subj",
        &format!("/CN={name}"),
        "-addext",
        &format!("subjectAltName=DNS:{name}"),
    ]);
    command.arg("-keyout").arg(dir.join(format!("{name}.key")));
    command.arg("-out").arg(dir.join(format!("{name}.crt")));
    succeed(&mut command);
}

fn config(port: u16, [first, second]: [u16; 2]) -> String {
    format!(
        "listeners:
  main:
    bind: \"127.0.0.1:{port}\"
    pool: none
    routes:
      - {{server_name: [\"first.test\"], pool: first}}
      - {{server_name: [\"*.second.test\"], pool: second}}
pools:
  first: {{backends: [\"127.0.0.1:{first}\"]}}
  second: {{backends: [\"127.0.0.1:{second}\"]}}
"
    )
}

#[test]
fn curl_reaches_the_server_it_names_and_no_other() {
    const SIZE: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display();
    let names = ["first.test", "a.second.test"];
    let ports = [free_port(), free_port()];
    let mut servers = String::new();
    for (name, port) in names.iter().zip(ports) {
        certify(dir.path(), name);
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("big"), name.repeat(SIZE / name.len())).unwrap();
        servers += &format!(
            "server {{ listen 127.0.0.1:{port} ssl; root {place}/{name};
             ssl_certificate {place}/{name}.crt; ssl_certificate_key {place}/{name}.key; }}"
        );
    }
    let config_of_nginx = format!(
        "daemon off; user root; pid {place}/pid; error_log {place}/error.log; events {{}}
         http {{ access_log off; ssl_protocols TLSv1.2 TLSv1.3; {servers} }}"
    );
    fs::write(dir.path().join("nginx.conf"), config_of_nginx).unwrap();
    let mut command = Command::new(program("nginx", "nginx"));
    command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
    let _nginx = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let port = free_port();
    let maitred = Maitred::start(&config(port, ports));
    let curl = |name: &str, more: &[&str]| {
        let mut command = Command::new(program("curl", "curl"));
        command.args(["-sS", "--fail", "--max-time", "20", "--resolve"]);
        command.arg(format!("{name}:{port}:127.0.0.1")).args(more);
        command
            .arg("--cacert")
            .arg(dir.path().join(format!("{}.crt", name.replace("other", "first"))));
        output(command.arg(format!("https://{name}:{port}/big")))
    };
    for name in names {
        wait_for("nginx", || curl(name, &[]).status.success());
        for version in [&["--tlsv1.3"], &["--tls-max", "1.2"][..]] {
            let got = curl(name, version).stdout;
            assert!(got == name.repeat(SIZE / name.len()).into_bytes(), "{name} {version:?}");
        }
    }
    assert!(!curl("other.test", &[]).status.success(), "nobody of that name");
    maitred.wait_for_no_session();
    assert!(maitred.closed("no_route") >= 1.0);
    let shown = maitred.show("listeners");
    assert!(shown.contains(" no_route=1"), "{shown}");
    assert!(maitred.show("pools").contains("127.0.0.1:"));
    assert!(maitred.show("info").contains("sessions_active"));
    assert!(maitred.show("sessions").starts_with("id "));
    let records = maitred.records();
    assert!(records.iter().any(|record| record["server_name"] == "a.second.test"));
}

pub const PACKAGE: &str = "postgresql-15";

/// A database with TLS, that says `name` when asked for its cluster's name.
pub fn database(dir: &Path, name: &str, port: u16) -> Process {
    let (uid, gid) = user("postgres", PACKAGE);
    let data = dir.join(format!("data-{name}"));
    let mut initdb = run_as((uid, gid), &program("initdb", PACKAGE));
    succeed(initdb.args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"]).arg(&data));
    let key = dir.join(format!("{name}.key"));
    chown(&key, Some(uid), Some(gid)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = run_as((uid, gid), &program("postgres", PACKAGE));
    command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "fsync=off", "-c", "ssl=on"]);
    for setting in [
        format!("cluster_name={name}"),
        format!("ssl_cert_file={}", dir.join(format!("{name}.crt")).display()),
        format!("ssl_key_file={}", key.display()),
        format!("unix_socket_directories={}", dir.display()),
        "listen_addresses=127.0.0.1".to_owned(),
    ] {
        command.args(["-c", &setting]);
    }
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

#[test]
fn psql_reaches_the_database_it_names_by_its_own_way_into_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (uid, gid) = user("postgres", PACKAGE);
    chown(dir.path(), Some(uid), Some(gid)).unwrap();
    let names = ["first.test", "a.second.test"];
    let ports = [free_port(), free_port()];
    let mut databases = Vec::new();
    for (name, port) in names.iter().zip(ports) {
        certify(dir.path(), name);
        databases.push(database(dir.path(), name, port));
    }
    let port = free_port();
    let maitred = Maitred::start(&config(port, ports));
    let psql = |name: &str, more: &str, query: &str| {
        let mut command = Command::new(program("psql", PACKAGE));
        command.arg(format!(
            "host={name} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres \
             sslmode=verify-full sslrootcert={} {more}",
            dir.path().join(format!("{name}.crt")).display()
        ));
        output(command.args(["-At", "-c", query]))
    };
    for name in names {
        wait_for("PostgreSQL", || psql(name, "", "select 1").status.success());
        for more in ["", "gssencmode=disable", "ssl_max_protocol_version=TLSv1.2"] {
            let said = psql(
                name,
                more,
                "select current_setting('cluster_name'), ssl from pg_stat_ssl where pid = pg_backend_pid()",
            );
            assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), format!("{name}|t"), "{more}");
        }
        let big = psql(
            name,
            "",
            "select string_agg(lpad(n::text, 8, '0'), '') from generate_series(1, 131072) n",
        )
        .stdout;
        let expected: String = (1..=131_072).map(|n| format!("{n:08}")).collect();
        assert!(big.trim_ascii_end() == expected.as_bytes(), "a MiB");
    }
    maitred.wait_for_no_session();
}
