//! MariaDB behind maitred: its client and its load generator, over two servers.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{
    Maitred, Process, balanced, free_port, output, program, run_as, succeed, user, wait_for,
};

const PACKAGE: &str = "mariadb-server";

fn client(name: &str, port: u16) -> Command {
    let mut command = Command::new(program(name, "mariadb-client"));
    command.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port.to_string(), "-u", "root"]);
    command
}

/// What a question finds, as root.
pub fn ask(port: u16, sql: &str) -> String {
    succeed(client("mariadb", port).args(["-N", "-B", "-e", sql])).trim().to_owned()
}

/// A folder for data that the server may write to.
pub fn folder() -> tempfile::TempDir {
    let (uid, gid) = user("mysql", PACKAGE);
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(uid), Some(gid)).unwrap();
    dir
}

fn start(data: &Path, port: u16) -> Process {
    start_with(data, port, &[])
}

pub fn start_with(data: &Path, port: u16, more: &[&str]) -> Process {
    let (uid, gid) = user("mysql", PACKAGE);
    std::fs::create_dir(data).unwrap();
    chown(data, Some(uid), Some(gid)).unwrap();
    let mut install = run_as((uid, gid), &program("mariadb-install-db", PACKAGE));
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    succeed(install.arg(format!("--datadir={}", data.display())));
    let mut command = run_as((uid, gid), &program("mariadbd", PACKAGE));
    command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
    command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
    command.arg(format!("--socket={}/socket", data.display()));
    command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]);
    command.args(more);
    let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for("MariaDB", || {
        output(client("mariadb", port).args(["-e", "select 1"])).status.success()
    });
    process
}

#[test]
fn clients_of_mariadb_are_served() {
    let dir = folder();
    let ports = [free_port(), free_port()];
    let _servers = [0, 1].map(|index| start(&dir.path().join(format!("s{index}")), ports[index]));
    let port = free_port();
    // The server speaks first, and says its name.
    let maitred = Maitred::start(&balanced(port, &ports, "{exchange: {expect: \"MariaDB\"}}"));
    for name in ["s0", "s1"] {
        maitred.wait_for_state(name, "up");
    }
    for number in 0..200 {
        let query = format!("select {number} + 1");
        let said = succeed(client("mariadb", port).args(["-N", "-B", "-e", &query]));
        assert_eq!(said.trim(), (number + 1).to_string());
    }
    let mut load = client("mariadb-slap", port);
    load.args(["--concurrency=8", "--iterations=5", "--number-of-queries=800"]);
    let said = succeed(load.args(["--query=select 1", "--create-schema=mysql", "--no-drop"]));
    println!("mariadb-slap: {}", said.split_whitespace().collect::<Vec<_>>().join(" "));
    maitred.wait_for_no_session();
    for name in ["s0", "s1"] {
        let sessions = maitred.sessions_total(name);
        println!("{name}: {sessions} sessions");
        assert!(sessions >= 20.0);
    }
    let failures = maitred.metric("maitred_backend_connect_failures_total", &[]);
    assert!(failures < 0.5, "{failures} connects failed");
}
