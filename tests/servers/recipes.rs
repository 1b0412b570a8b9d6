//! The recipes for databases, as they are but for addresses and passwords, in front of real clusters.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::cluster::{self, Cluster, PASSWORD};
use crate::failover::{ADDRESSES, Database, Writers, times};
use crate::harness::{
    Maitred, Process, free_port, output, program, run_as, succeed, user, wait_for, within,
};
use crate::mariadb;
use crate::namespace::alone;
use crate::redis::{SECRET, Trio};

/// Where its listeners are to be, and its backends; `secret` is what the probes log in with.
struct Recipe {
    text: String,
    dir: tempfile::TempDir,
}

impl Recipe {
    fn new(name: &str, secret: &str) -> Recipe {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/recipes").join(name);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("db"), secret).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let secrets = format!("{}/", dir.path().display());
        let text = text.replace("/etc/maitred/secrets/", &secrets).replace("version: 1\n", "");
        Recipe { text, dir }
    }

    fn put(mut self, from: &str, to: &str) -> Recipe {
        assert!(self.text.contains(from), "no {from} in\n{}", self.text);
        self.text = self.text.replace(from, to);
        self
    }

    /// Backends of the recipe, in its order, at `ADDRESSES`.
    fn backends(mut self, theirs: &[&str], ports: &[u16]) -> Recipe {
        for (from, (address, port)) in theirs.iter().zip(ADDRESSES.iter().zip(ports)) {
            self = self.put(from, &format!("{address}:{port}"));
        }
        self
    }

    /// The port that a listener of the recipe has from now on.
    fn listener(self, bind: &str) -> (Recipe, u16) {
        let port = free_port();
        let recipe = self.put(&format!("bind: \"{bind}\""), &format!("bind: \"127.0.0.1:{port}\""));
        (recipe, port)
    }

    fn start(&self) -> Maitred {
        Maitred::start(&self.text)
    }
}

/// Whether a pool has this backend in this state.
fn is(maitred: &Maitred, pool: &str, backend: &str, state: &str) {
    maitred.wait_for_said(pool, backend, "state", state);
}

const THEIRS: [&str; 3] = ["10.0.0.11:5432", "10.0.0.12:5432", "10.0.0.13:5432"];

fn role(port: u16) -> Option<String> {
    cluster::ask(port, "select case when pg_is_in_recovery() then 'replica' else 'primary' end")
}

#[test]
fn postgresql() {
    alone("recipes::postgresql", || {
        let mut cluster = Cluster::start_at(&ADDRESSES, "host all all all scram-sha-256", &[]);
        cluster.servers[0].must(&format!("create user maitred password '{PASSWORD}'"));
        let recipe = Recipe::new("postgresql.yaml", PASSWORD).backends(&THEIRS, &cluster.ports());
        let (recipe, write) = recipe.listener(":5432");
        let (recipe, read) = recipe.listener(":5433");
        let maitred = recipe.start();
        is(&maitred, "writers", "db1", "up");
        is(&maitred, "writers", "db2", "standby");
        is(&maitred, "readers", "db1", "standby");
        for name in ["db2", "db3"] {
            is(&maitred, "readers", name, "up");
        }
        assert_eq!(
            (role(write).as_deref(), role(read).as_deref()),
            (Some("primary"), Some("replica"))
        );
        let page = maitred.get("/");
        assert!(page.contains("All is well"), "a healthy primary and two replicas");
        cluster.servers[0].process.kill();
        is(&maitred, "writers", "db1", "down");
        cluster.servers[1].promote();
        assert_eq!(role(write).as_deref(), Some("primary"), "held until there is one");
        is(&maitred, "writers", "db2", "up");
        // The old primary comes back, and nobody has told it that it is none any more.
        cluster.servers[0].restart(&[]);
        is(&maitred, "writers", "db1", "standby");
        let conflict = || maitred.metric("maitred_pool_conflict", &[("pool", "writers")]);
        wait_for("the conflict", || conflict() > 0.5);
        let db2 = cluster.servers[1].port.to_string();
        for _ in 0..5 {
            assert_eq!(cluster::ask(write, "select inet_server_port()"), Some(db2.clone()));
        }
        // Now it is told.
        cluster.servers[0].process.signal(Signal::INT);
        cluster.servers[0].process.end();
        cluster.servers[0].follow_at(ADDRESSES[1], cluster.servers[1].port);
        cluster.servers[0].restart(&[]);
        is(&maitred, "readers", "db1", "up");
        wait_for("peace", || conflict() < 0.5);
    });
}

/// A node of Patroni; its settings are in `path`.
fn patroni(dir: &Path, number: usize, etcd: u16, port: u16) -> (Process, PathBuf) {
    let (address, name) = (ADDRESSES[number], format!("db{}", number + 1));
    let data = dir.join(&name);
    let settings = format!(
        "scope: demo
name: {name}
restapi: {{listen: '{address}:8008', connect_address: '{address}:8008'}}
etcd3: {{host: '127.0.0.1:{etcd}'}}
bootstrap:
  dcs: {{ttl: 20, loop_wait: 1, retry_timeout: 3, maximum_lag_on_failover: 1048576}}
  initdb: [{{encoding: UTF8}}, no-sync]
postgresql:
  listen: '{address}:{port}'
  connect_address: '{address}:{port}'
  data_dir: '{}'
  bin_dir: '{}'
  pg_hba: ['local all all trust', 'host all all all scram-sha-256', 'host replication all all scram-sha-256']
  authentication:
    superuser: {{username: postgres, password: '{PASSWORD}'}}
    replication: {{username: replicator, password: '{PASSWORD}'}}
  parameters: {{unix_socket_directories: '{}', fsync: 'off'}}
",
        data.display(),
        program("initdb", "postgresql-15").canonicalize().unwrap().parent().unwrap().display(),
        dir.display(),
    );
    let path = dir.join(format!("{name}.yaml"));
    fs::write(&path, settings).unwrap();
    let log = fs::File::create(dir.join(format!("{name}.log"))).unwrap();
    let mut command = run_as(user("postgres", "postgresql-15"), &program("patroni", "patroni"));
    command.arg(&path).env("HOME", dir).current_dir(dir);
    let command = command.stdout(log.try_clone().unwrap()).stderr(log);
    (Process::start(command), path)
}

#[test]
fn patroni_with_etcd() {
    alone("recipes::patroni_with_etcd", || {
        let dir = tempfile::tempdir().unwrap();
        let (uid, gid) = user("postgres", "postgresql-15");
        std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
        let (etcd, peer) = (free_port(), free_port());
        let (at, its) = (format!("http://127.0.0.1:{etcd}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new(program("etcd", "etcd-server"));
        command.arg("--data-dir").arg(dir.path().join("etcd"));
        command.args(["--listen-client-urls", &at, "--advertise-client-urls", &at]);
        command.args(["--listen-peer-urls", &its, "--initial-advertise-peer-urls", &its]);
        command.args(["--initial-cluster", &format!("default={its}")]);
        let _etcd = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let ports = ADDRESSES.map(|_| free_port());
        let (first, settings) = patroni(dir.path(), 0, etcd, ports[0]);
        let recipe = Recipe::new("patroni.yaml", "").backends(&THEIRS, &ports);
        let (recipe, write) = recipe.listener(":5432");
        let (recipe, read) = recipe.listener(":5433");
        let maitred = recipe.start();
        // A cluster takes its time to be born.
        let minute = std::time::Duration::from_secs(60);
        let up = |pool: &str, name: &str| maitred.said(pool, name, "state") == "up";
        let log = || fs::read_to_string(dir.path().join("db1.log")).unwrap();
        assert!(within(minute, || up("primary", "db1")), "{}", log());
        let mut nodes = vec![first];
        for number in 1..ADDRESSES.len() {
            nodes.push(patroni(dir.path(), number, etcd, ports[number]).0);
        }
        assert!(within(minute, || up("replicas", "db2") && up("replicas", "db3")), "{}", log());
        is(&maitred, "primary", "db2", "standby");
        assert_eq!(
            (role(write).as_deref(), role(read).as_deref()),
            (Some("primary"), Some("replica"))
        );
        cluster::ask(write, "create table writes (kind int)").unwrap();
        let writers = Writers::start(cluster::visit(write));
        let begun = std::time::Instant::now();
        writers.must_go_on(&maitred, begun);
        let mut switch = run_as((uid, gid), &program("patronictl", "patroni"));
        switch.arg("-c").arg(&settings).args(["switchover", "demo", "--master", "db1"]);
        switch.args(["--candidate", "db2", "--force"]).env("HOME", dir.path());
        succeed(&mut switch);
        is(&maitred, "primary", "db2", "up");
        is(&maitred, "primary", "db1", "standby");
        let switched = std::time::Instant::now();
        writers.must_go_on(&maitred, switched);
        writers.tell("Patroni, a switchover");
        if times() > 1 {
            let writers = Writers::start(cluster::visit(write));
            nodes[1].kill();
            assert!(within(minute, || up("primary", "db1") || up("primary", "db3")), "{}", log());
            let lost = std::time::Instant::now();
            writers.must_go_on(&maitred, lost);
            writers.tell("Patroni, its primary killed (ttl 20 s)");
        }
    });
}

/// A node of Galera.
fn galera(dir: &Path, number: usize, port: u16, is_first: bool) -> Process {
    let address = ADDRESSES[number];
    let all: Vec<String> = ADDRESSES.iter().map(|it| format!("{it}:4567")).collect();
    let settings = [
        format!("--bind-address={address}"),
        "--wsrep-on=1".to_owned(),
        "--wsrep-provider=/usr/lib/galera/libgalera_smm.so".to_owned(),
        format!(
            "--wsrep-cluster-address=gcomm://{}",
            if is_first { String::new() } else { all.join(",") }
        ),
        format!("--wsrep-node-address={address}"),
        format!("--wsrep-node-name=galera{}", number + 1),
        "--wsrep-sst-method=rsync".to_owned(),
        "--binlog-format=ROW".to_owned(),
        "--innodb-autoinc-lock-mode=2".to_owned(),
        // Somewhat sooner than the usual 5 s and 15 s.
        format!(
            "--wsrep-provider-options=gmcast.listen_addr=tcp://{address}:4567;gcache.size=16M;\
             evs.suspect_timeout=PT4S;evs.inactive_timeout=PT8S"
        ),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    mariadb::run(&dir.join(format!("s{number}")), port, &settings)
}

#[test]
fn galera_of_three() {
    alone("recipes::galera_of_three", || {
        let dir = mariadb::folder();
        let ports = ADDRESSES.map(|_| free_port());
        let on =
            |number: usize, sql: &str| mariadb::on(&dir.path().join(format!("s{number}")), sql);
        mariadb::install(&dir.path().join("s0"));
        let mut first = galera(dir.path(), 0, ports[0], true);
        on(
            0,
            "create user maitred identified by 'a secret'; create user client identified by 'a secret';
             create database tests; create table tests.writes (id int auto_increment primary key, kind int);
             grant insert, select on tests.* to client",
        );
        first.signal(Signal::TERM);
        first.end();
        // Who begins with the same data needs no copy of it.
        for number in 1..ADDRESSES.len() {
            let copy = dir.path().join(format!("s{number}"));
            succeed(Command::new("cp").arg("-a").arg(dir.path().join("s0")).arg(copy));
        }
        let start = |number| galera(dir.path(), number, ports[number], number == 0);
        let mut nodes: Vec<Process> = (0..ADDRESSES.len()).map(start).collect();
        let theirs = ["10.0.0.31:3306", "10.0.0.32:3306", "10.0.0.33:3306"];
        let recipe = Recipe::new("mariadb.yaml", "a secret").backends(&theirs, &ports);
        let (recipe, port) = recipe.listener(":3306");
        let maitred = recipe.start();
        for name in ["galera1", "galera2", "galera3"] {
            is(&maitred, "mariadb", name, "up");
        }
        let served_by = || {
            let found =
                output(mariadb::visitor(port).args(["-N", "-B", "-e", "select @@wsrep_node_name"]));
            String::from_utf8_lossy(&found.stdout).trim().to_owned()
        };
        assert_eq!(served_by(), "galera1");
        let writers = Writers::start(mariadb::visit(port));
        let begun = std::time::Instant::now();
        writers.must_go_on(&maitred, begun);
        nodes[0].kill();
        is(&maitred, "mariadb", "galera1", "down");
        let lost = std::time::Instant::now();
        writers.must_go_on(&maitred, lost);
        writers.tell("Galera, a node killed");
        assert_eq!(served_by(), "galera2");
        // It comes back, and nobody moves: `failback`.
        nodes[0] = galera(dir.path(), 0, ports[0], false);
        is(&maitred, "mariadb", "galera1", "up");
        assert_eq!(served_by(), "galera2");
        // The one that serves loses the others: it is well, and must not be asked any more.
        for (chain, side) in [("INPUT", "-s"), ("OUTPUT", "-d")] {
            for other in [ADDRESSES[0], ADDRESSES[2]] {
                let own = if side == "-s" { "-d" } else { "-s" };
                let rule = ["-w", "-I", chain, side, other, own, ADDRESSES[1], "-j", "DROP"];
                succeed(Command::new("iptables").args(rule));
            }
        }
        maitred.wait_for_said("mariadb", "galera2", "reason", "wrong_role");
        let why = maitred.said("mariadb", "galera2", "why");
        assert!(why.contains("in no majority of its cluster"), "{why}");
        wait_for("another node", || served_by() == "galera1");
        succeed(Command::new("iptables").args(["-w", "-F"]));
        is(&maitred, "mariadb", "galera2", "up");
    });
}

#[test]
fn redis_with_sentinel() {
    alone("recipes::redis_with_sentinel", || {
        let mut trio = Trio::start();
        let dir = tempfile::tempdir().unwrap();
        let primary = trio.ports()[0];
        let sentinel = |number: usize| {
            let path = dir.path().join(format!("sentinel{number}.conf"));
            let port = free_port();
            let settings = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor demo {} {primary} 2\nsentinel auth-pass demo {SECRET}\n\
                 sentinel down-after-milliseconds demo 1000\nsentinel failover-timeout demo 5000\n",
                ADDRESSES[0]
            );
            fs::write(&path, settings).unwrap();
            let mut command = Command::new(program("redis-server", "redis-server"));
            command.arg(path).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
            (Process::start(&mut command), port)
        };
        let sentinels: Vec<(Process, u16)> = (0..3).map(sentinel).collect();
        let asks = |port: u16| {
            let mut client = Command::new(program("redis-cli", "redis-tools"));
            client.args(["-p", &port.to_string(), "sentinel", "master", "demo"]);
            String::from_utf8_lossy(&output(&mut client).stdout).into_owned()
        };
        wait_for("sentinels that know each other", || {
            let knows = |said: String| {
                let words: Vec<&str> = said.lines().collect();
                words.windows(2).any(|two| two == ["num-other-sentinels", "2"])
                    && words.windows(2).any(|two| two == ["num-slaves", "2"])
            };
            sentinels.iter().all(|(_, port)| knows(asks(*port)))
        });
        let theirs = ["10.0.0.21:6379", "10.0.0.22:6379", "10.0.0.23:6379"];
        let recipe = Recipe::new("redis.yaml", SECRET).backends(&theirs, &trio.ports());
        let (recipe, write) = recipe.listener(":6379");
        let (recipe, _read) = recipe.listener(":6380");
        let maitred = recipe.start();
        let name = |number: usize| format!("{}:{}", ADDRESSES[number], trio.ports()[number]);
        let names = [name(0), name(1), name(2)];
        is(&maitred, "redis", &names[0], "up");
        is(&maitred, "replicas", &names[1], "up");
        let writers = Writers::start(trio.visit(write));
        let begun = std::time::Instant::now();
        writers.must_go_on(&maitred, begun);
        trio.kill();
        is(&maitred, "redis", &names[0], "down");
        let lost = std::time::Instant::now();
        writers.must_go_on(&maitred, lost);
        writers.tell("Redis with Sentinel, its primary killed");
        // It comes back as it was: a primary, until Sentinel has found it.
        trio.restart();
        is(&maitred, "replicas", &names[0], "up");
        is(&maitred, "redis", &names[0], "standby");
        drop(recipe.dir);
    });
}
