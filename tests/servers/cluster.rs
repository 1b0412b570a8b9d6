//! PostgreSQL in several servers: a primary and its streaming replicas.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::failover::{ADDRESSES, Database, Stay, Visit};
use crate::harness::{Process, free_port, output, program, run_as, succeed, user, wait_for};

const PACKAGE: &str = "postgresql-15";

/// Of `postgres`, as everywhere in these tests.
pub const PASSWORD: &str = "correct horse";

pub struct Server {
    pub process: Process,
    pub port: u16,
    data: PathBuf,
    address: &'static str,
}

/// The first is the primary, until one is promoted.
pub struct Cluster {
    pub servers: Vec<Server>,
    pub dir: TempDir,
}

fn database_user() -> (u32, u32) {
    user("postgres", PACKAGE)
}

pub fn client(name: &str, port: u16) -> Command {
    let mut command = Command::new(program(name, PACKAGE));
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10");
    command
}

/// What a question finds, unaligned.
pub fn ask(port: u16, sql: &str) -> Option<String> {
    let output = output(client("psql", port).args(["-XAtq", "-c", sql, "postgres"]));
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}

impl Server {
    /// `-c` settings follow `more`.
    fn start(data: &Path, address: &'static str, port: u16, more: &[&str]) -> Server {
        let mut command = run_as(database_user(), &program("postgres", PACKAGE));
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        let socket = format!("unix_socket_directories={}", data.display());
        let address_key = format!("listen_addresses={address}");
        for setting in ["fsync=off", "wal_level=replica", "max_wal_senders=8", &*socket]
            .into_iter()
            .chain([&*address_key])
            .chain(more.iter().copied())
        {
            command.args(["-c", setting]);
        }
        let log = fs::File::options().create(true).append(true).open(data.join("log")).unwrap();
        let process = Process::start(command.stdout(Stdio::null()).stderr(log));
        let server = Server { process, port, data: data.to_owned(), address };
        wait_for("PostgreSQL", || server.ask("select 1").is_some());
        server
    }

    /// Over its own socket, so that whatever a test does to its network does not matter.
    pub fn ask(&self, sql: &str) -> Option<String> {
        let mut command = client("psql", self.port);
        command.arg("-h").arg(&self.data).args(["-XAtq", "-c", sql, "postgres"]);
        let output = output(&mut command);
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(said)
    }

    pub fn must(&self, sql: &str) -> String {
        self.ask(sql).unwrap_or_else(|| panic!("{}: {sql}\n{}", self.port, self.log()))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.data.join("log")).unwrap()
    }

    pub fn promote(&self) {
        self.must("select pg_promote(true, 20)");
    }

    /// Its children too: a frozen host, not a crashed one.
    pub fn freeze(&self, signal: Signal) {
        self.process.signal_all(signal);
    }

    /// Starts it once more on its data; as a replica, if `standby.signal` is there.
    pub fn restart(&mut self, more: &[&str]) {
        self.process.kill();
        let _ = fs::remove_file(self.data.join("postmaster.pid"));
        *self = Server::start(&self.data, self.address, self.port, more);
    }

    /// From now on, when started, a replica of that one.
    pub fn follow_at(&self, address: &str, port: u16) {
        let conninfo = format!(
            "primary_conninfo = 'host={address} port={port} user=postgres password=''{PASSWORD}'''\n"
        );
        let conf = self.data.join("postgresql.auto.conf");
        let before = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, before + &conninfo).unwrap();
        fs::write(self.data.join("standby.signal"), "").unwrap();
    }
}

impl Cluster {
    /// `hba` are the lines of pg_hba.conf for TCP.
    pub fn start(replicas: usize, hba: &str, more: &[&str]) -> Cluster {
        Cluster::start_at(&vec!["127.0.0.1"; replicas + 1], hba, more)
    }

    pub fn start_at(addresses: &[&'static str], hba: &str, more: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let (uid, gid) = database_user();
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
        let data = dir.path().join("s0");
        let secret = dir.path().join("secret");
        fs::write(&secret, PASSWORD).unwrap();
        let mut initdb = run_as(database_user(), &program("initdb", PACKAGE));
        initdb.args(["--no-sync", "-A", "scram-sha-256", "-U", "postgres", "-D"]).arg(&data);
        succeed(initdb.arg("--pwfile").arg(&secret));
        let hba = format!("local all all trust\n{hba}\nhost replication all all scram-sha-256\n");
        fs::write(data.join("pg_hba.conf"), hba).unwrap();
        let mut servers = vec![Server::start(&data, addresses[0], free_port(), more)];
        for (number, address) in addresses.iter().enumerate().skip(1) {
            let data = dir.path().join(format!("s{number}"));
            let mut backup = run_as(database_user(), &program("pg_basebackup", PACKAGE));
            backup.args(["-h", addresses[0], "-U", "postgres", "-R", "-c", "fast", "-N", "-D"]);
            backup.arg(&data).args(["-p", &servers[0].port.to_string()]);
            succeed(backup.env("PGPASSWORD", PASSWORD));
            let _ = fs::remove_file(data.join("log"));
            servers.push(Server::start(&data, address, free_port(), more));
        }
        let count = (servers.len() - 1).to_string();
        let cluster = Cluster { servers, dir };
        wait_for("the replicas", || {
            cluster.servers[0].must("select count(*) from pg_stat_replication") == count
        });
        cluster
    }

    pub fn ports(&self) -> Vec<u16> {
        self.servers.iter().map(|server| server.port).collect()
    }
}

/// A client that connects, writes a row and leaves.
pub fn visit(port: u16) -> Visit {
    Box::new(move || {
        let mut psql = client("psql", port);
        psql.args(["-XAtq", "-c", "insert into writes values (1)", "postgres"]);
        let output = output(psql.env("PGCONNECT_TIMEOUT", "30"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(error) }
    })
}

/// A primary and two replicas, for `failover`.
pub struct Postgresql(Cluster);

impl Postgresql {
    pub fn start() -> Postgresql {
        let cluster = Cluster::start_at(&ADDRESSES, "host all all all scram-sha-256", &[]);
        cluster.servers[0].must("create table writes (kind int)");
        fs::write(cluster.dir.path().join("insert.sql"), "insert into writes values (2);\n")
            .unwrap();
        Postgresql(cluster)
    }
}

impl Database for Postgresql {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    fn ports(&self) -> Vec<u16> {
        self.0.ports()
    }

    fn probe(&self, role: &str) -> String {
        format!("{{postgres: {{user: postgres, password: \"{PASSWORD}\", role: {role}}}}}")
    }

    fn visit(&self, port: u16) -> Visit {
        visit(port)
    }

    fn stay(&self, port: u16) -> Stay {
        let script = self.0.dir.path().join("insert.sql");
        Box::new(move || {
            let mut bench = client("pgbench", port);
            bench.args(["-n", "-c", "1", "-T", "60", "-f"]).arg(&script).arg("postgres");
            let said = String::from_utf8_lossy(&output(&mut bench).stderr).into_owned();
            if said.contains("aborted in command") { said } else { String::new() }
        })
    }

    fn is_refusal(&self, error: &str) -> bool {
        error.contains("read-only transaction")
    }

    fn kill(&mut self) {
        self.0.servers[0].process.kill();
    }

    fn freeze(&mut self, is_frozen: bool) {
        self.0.servers[0].freeze(if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    /// As every tool does it: the old one is stopped first, and cleanly.
    fn demote(&mut self) {
        self.0.servers[0].process.signal(Signal::INT);
        self.0.servers[0].process.end();
    }

    fn promote(&mut self) {
        self.0.servers[1].promote();
    }

    fn follow(&mut self) {
        let port = self.0.servers[1].port;
        self.0.servers[0].follow_at(ADDRESSES[1], port);
        self.0.servers[0].restart(&[]);
    }
}
