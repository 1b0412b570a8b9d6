//! MariaDB behind maitred: its client and its load generator, over two servers.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::failover::{ADDRESSES, Database, Stay, Visit};
use crate::harness::{
    Maitred, PATIENCE, Process, balanced, free_port, output, program, run_as, succeed, user,
    wait_for, within,
};

const PACKAGE: &str = "mariadb-server";

fn client(name: &str, port: u16) -> Command {
    let mut command = Command::new(program(name, "mariadb-client"));
    command.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port.to_string(), "-u", "root"]);
    command
}

/// By the server's own socket, as root.
fn local(socket: &str) -> Command {
    let mut command = Command::new(program("mariadb", "mariadb-client"));
    command.args(["--no-defaults", "--protocol=socket", "-S", socket, "-u", "root"]);
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
    install(data);
    run(data, port, more)
}

pub fn install(data: &Path) {
    let (uid, gid) = user("mysql", PACKAGE);
    std::fs::create_dir(data).unwrap();
    chown(data, Some(uid), Some(gid)).unwrap();
    let mut install = run_as((uid, gid), &program("mariadb-install-db", PACKAGE));
    install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    succeed(install.arg(format!("--datadir={}", data.display())));
}

/// On data that is there.
pub fn run(data: &Path, port: u16, more: &[&str]) -> Process {
    let mut command = run_as(user("mysql", PACKAGE), &program("mariadbd", PACKAGE));
    command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
    command.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
    command.arg(format!("--socket={}/socket", data.display()));
    command.args(["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]);
    let log = std::fs::File::create(data.join("log")).unwrap();
    let process = Process::start(command.args(more).stdout(Stdio::null()).stderr(log));
    let socket = format!("{}/socket", data.display());
    let answers = || output(local(&socket).args(["-e", "select 1"])).status.success();
    let log = || std::fs::read_to_string(data.join("log")).unwrap();
    assert!(within(PATIENCE, answers), "MariaDB does not start: {}", log());
    process
}

/// What the server on this data says, as root.
pub fn on(data: &Path, sql: &str) -> String {
    let socket = data.join("socket").display().to_string();
    succeed(local(&socket).args(["-N", "-B", "-e", sql])).trim().to_owned()
}

/// A primary and two replicas, for `failover`.
pub struct Pair {
    servers: Vec<Process>,
    ports: Vec<u16>,
    dir: tempfile::TempDir,
}

impl Pair {
    pub fn start() -> Pair {
        let dir = folder();
        let first = dir.path().join("s0");
        install(&first);
        for number in 1..ADDRESSES.len() {
            let copy = dir.path().join(format!("s{number}"));
            succeed(Command::new("cp").arg("-a").arg(&first).arg(copy));
        }
        let ports: Vec<u16> = ADDRESSES.iter().map(|_| free_port()).collect();
        let mut pair = Pair { servers: Vec::new(), ports, dir };
        for number in 0..ADDRESSES.len() {
            pair.run(number, if number == 0 { "--read-only=0" } else { "--read-only=1" });
        }
        // The grants of probes and clients are in the log of the primary, and so reach its replicas.
        pair.on(0, "create user client identified by 'a secret'; create user probe identified by 'a secret';
                    create user replica identified by 'a secret'; grant replication slave on *.* to replica;
                    create database tests; create table tests.writes (kind int) engine=innodb;
                    grant insert, select on tests.* to client; grant replica monitor on *.* to probe");
        for number in 1..ADDRESSES.len() {
            pair.replicate(number, 0);
        }
        for number in 1..ADDRESSES.len() {
            let rows = || pair.on(number, "select count(*) from mysql.user where user = 'probe'");
            wait_for("replication", || rows() == "1");
        }
        pair
    }

    fn run(&mut self, number: usize, read_only: &str) {
        let address = format!("--bind-address={}", ADDRESSES[number]);
        let id = format!("--server-id={}", number + 1);
        let settings = [&*address, &id, read_only, "--log-bin=log", "--gtid-strict-mode=0"];
        let data = self.dir.path().join(format!("s{number}"));
        self.servers.push(run(&data, self.ports[number], &settings));
    }

    /// By its own socket, as root.
    fn on(&self, number: usize, sql: &str) -> String {
        on(&self.dir.path().join(format!("s{number}")), sql)
    }

    fn replicate(&self, number: usize, from: usize) {
        let (address, port) = (ADDRESSES[from], self.ports[from]);
        self.on(number, &format!(
            "change master to master_host = '{address}', master_port = {port}, master_user = 'replica', \
             master_password = 'a secret', master_use_gtid = slave_pos, master_connect_retry = 1; start slave"
        ));
    }
}

impl Database for Pair {
    fn name(&self) -> &'static str {
        "MariaDB"
    }

    fn ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    fn probe(&self, role: &str) -> String {
        format!("{{mysql: {{user: probe, password: \"a secret\", role: {role}}}}}")
    }

    fn visit(&self, port: u16) -> Visit {
        visit(port)
    }

    fn stay(&self, port: u16) -> Stay {
        Box::new(move || {
            let client = visitor(port);
            let mut shell = Command::new("sh");
            shell.args(["-c", "yes 'insert into writes values (2);' | \"$0\" \"$@\""]);
            shell.arg(client.get_program()).args(client.get_args());
            String::from_utf8_lossy(&output(&mut shell).stderr).into_owned()
        })
    }

    fn is_refusal(&self, error: &str) -> bool {
        error.contains("--read-only")
    }

    fn kill(&mut self) {
        self.servers[0].kill();
    }

    fn freeze(&mut self, is_frozen: bool) {
        self.servers[0].signal_all(if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Its sessions stay, and are told so at their next write: what maitred ends by its verdict.
    fn demote(&mut self) {
        self.on(0, "set global read_only = 1");
    }

    fn promote(&mut self) {
        self.on(1, "stop slave; set global read_only = 0");
    }

    fn follow(&mut self) {
        self.replicate(0, 1);
    }
}

/// A client that connects, writes a row and leaves.
pub fn visit(port: u16) -> Visit {
    Box::new(move || {
        let mut client = visitor(port);
        let output = output(client.args(["-e", "insert into writes (kind) values (1)"]));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(error) }
    })
}

pub fn visitor(port: u16) -> Command {
    let mut command = Command::new(program("mariadb", "mariadb-client"));
    command.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port.to_string(), "-u", "client"]);
    command.args(["-pa secret", "--connect-timeout=30", "--skip-reconnect", "tests"]);
    command
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
