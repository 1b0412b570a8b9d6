//! `process.user`: root binds, then every thread is somebody else for good, and a reload still binds low ports.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Maitred, PATIENCE, Process, SHELL, run_as, user, wait_for};

/// A user that every Debian has, with nothing of its own.
const USER: &str = "daemon";
const NOBODY: (u32, u32) = (65_534, 65_534);
/// CAP_NET_BIND_SERVICE alone.
const BIND: &str = "0000000000000400";
const NONE: &str = "0000000000000000";

/// What /proc says of each thread of a process, and its name.
fn threads(id: u32) -> Vec<(String, BTreeMap<String, String>)> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        let fields: BTreeMap<String, String> =
            fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        threads.push((fields["Name"].clone(), fields));
    }
    threads
}

/// Every thread has these ids, no further groups, these capabilities, and can gain none.
fn all_are(id: u32, (uid, gid): (u32, u32), permitted: &str) {
    let threads = threads(id);
    assert!(threads.len() >= 5, "{threads:?}");
    for (name, fields) in threads {
        let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()];
        for (field, expected) in [
            ("Uid", four(uid).join("\t")),
            ("Gid", four(gid).join("\t")),
            ("Groups", String::new()),
            ("CapInh", NONE.to_owned()),
            ("CapPrm", permitted.to_owned()),
            ("CapEff", permitted.to_owned()),
            ("CapAmb", NONE.to_owned()),
            ("NoNewPrivs", "1".to_owned()),
        ] {
            assert_eq!(fields[field], expected, "{field} of {name}");
        }
    }
}

fn bounded_by(id: u32, bounds: &str) {
    for (name, fields) in threads(id) {
        assert_eq!(fields["CapBnd"], bounds, "{name}");
    }
}

/// Ports below 1024 that nobody has, for both protocols.
fn low_ports<const N: usize>() -> [u16; N] {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let is_free = |port: &u16| {
        TcpListener::bind(address(*port)).is_ok() && UdpSocket::bind(address(*port)).is_ok()
    };
    let mut free = (600..1024).filter(is_free);
    [(); N].map(|()| free.next().expect("a free port below 1024"))
}

/// Answers each connection with what it sends.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut back = stream.try_clone().unwrap();
                // Ends with its client.
                let _ = std::io::copy(&mut &stream, &mut back);
            });
        }
    });
    port
}

fn passes(port: u16) {
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"bytes").unwrap();
    let mut back = [0; 5];
    client.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"bytes");
}

/// A folder that everybody may look into.
fn open_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// One TCP listener for each port, and further ones, before this backend.
fn config(ports: &[u16], more: &str, backend: u16) -> String {
    let listener = |port| format!("  tcp{port}: {{bind: \"127.0.0.1:{port}\", pool: main}}\n");
    let listeners: String = ports.iter().map(listener).collect();
    let pool = format!("{{backends: [\"127.0.0.1:{backend}\"], health: {{probe: none}}}}");
    format!("listeners:\n{listeners}{more}\npools: {{main: {pool}}}\n")
}

fn start(dir: TempDir, user: &str, rest: &str) -> Maitred {
    let out = File::create(dir.path().join("out")).unwrap();
    let process = format!("process: {{workers: 2, user: {user}}}");
    let shell = format!("umask 022; {SHELL}");
    Maitred::start_to(out.into(), dir, &shell, &process, rest)
}

fn reload(maitred: &Maitred, result: &str) {
    let count = || maitred.metric("maitred_reloads_total", &[("result", result)]);
    let before = count();
    maitred.process.signal(Signal::HUP);
    wait_for("the reload's end", || count() > before);
}

#[test]
fn every_thread_becomes_the_user_and_a_reload_still_binds_low_ports() {
    let ids = user(USER, "base-passwd");
    let (backend, [port, second, udp]) = (echo(), low_ports());
    let dir = open_folder();
    let socket = dir.path().join("socket");
    let more = format!(
        "  udp: {{bind: \"127.0.0.1:{udp}\", protocol: udp, pool: main}}\n  unix: {{bind: \"unix:{}\", pool: main}}",
        socket.display()
    );
    let maitred = start(dir, USER, &config(&[port], &more, backend));
    let id = maitred.process.id();
    all_are(id, ids, BIND);
    bounded_by(id, BIND);
    passes(port);
    let metadata = fs::metadata(&socket).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), ids, "as one made by a reload");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let metadata = fs::metadata(maitred.dir.path().join("admin.sock")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), ids);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    // What a process may not know of itself once it has changed users, it would not say.
    assert!(maitred.metric("process_open_fds", &[]) > 5.0);
    assert!(maitred.metric("process_resident_memory_bytes", &[]) > 0.0);
    assert!(!maitred.log().contains("cannot read"), "{}", maitred.log());

    maitred.write_config(&config(&[port, second], &more, backend));
    reload(&maitred, "applied");
    passes(port);
    passes(second);
    all_are(id, ids, BIND);

    // Sockets that root made and the user's share a port while the address before it changes.
    let wide = config(&[port, second], &more, backend);
    maitred.write_config(&wide.replace("bind: \"127.0.0.1:", "bind: \"0.0.0.0:"));
    reload(&maitred, "applied");
    passes(port);
    passes(second);
}

#[test]
fn a_reload_does_not_change_users() {
    let (backend, [port]) = (echo(), low_ports());
    let maitred = start(open_folder(), USER, &config(&[port], "", backend));
    let file = maitred.dir.path().join("maitred.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&format!("user: {USER}"), "user: root")).unwrap();
    reload(&maitred, "refused");
    let expected = "process.user, process.group cannot change while running; restart to change it";
    assert!(maitred.log().contains(expected), "{}", maitred.log());
    all_are(maitred.process.id(), user(USER, "base-passwd"), BIND);
    passes(port);
}

#[test]
fn what_the_user_cannot_read_is_said_at_the_start() {
    let (backend, [port]) = (echo(), low_ports());
    let dir = open_folder();
    let (nets, open) = (dir.path().join("deny.txt"), dir.path().join("open.txt"));
    for (file, mode) in [(&nets, 0o600), (&open, 0o644)] {
        fs::write(file, "192.0.2.0/24\n").unwrap();
        fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
    }
    let more = format!(
        "  other: {{bind: \"127.0.0.1:0\", pool: main, deny_file: {}, allow_file: {}}}",
        nets.display(),
        open.display()
    );
    let maitred = start(dir, USER, &config(&[port], &more, backend));
    let log = maitred.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("cannot read")).collect();
    let [warning] = warnings.as_slice() else { panic!("{log}") };
    assert!(warning.contains("\"level\":\"WARN\""), "{warning}");
    for part in [
        format!("user {USER} cannot read {}", nets.display()),
        "Permission denied".to_owned(),
        "chgrp".to_owned(),
    ] {
        assert!(warning.contains(&part), "{part} is not in {warning}");
    }
    // The warning is true.
    reload(&maitred, "refused");
    passes(port);
}

/// The program where anybody may start it.
fn program(dir: &TempDir) -> PathBuf {
    let program = dir.path().join("maitred");
    fs::copy(crate::harness::binary(), &program).unwrap();
    program
}

fn start_as_nobody(program: &Path, config: &str) -> Process {
    let file = program.with_file_name("maitred.yaml");
    fs::write(&file, config).unwrap();
    let mut command = run_as(NOBODY, program);
    command.args(["run", "--config"]).arg(file).env_remove("MAITRED_CONFIG");
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))
}

#[test]
fn who_is_not_root_stays_who_it_is() {
    let dir = open_folder();
    let program = program(&dir);
    let config = |user| {
        let process = format!(
            "version: 1\nadmin: {{listen: none, socket: none}}\nprocess: {{user: {user}}}\n"
        );
        process + &config(&[0], "", 9)
    };
    let (status, _, error) = start_as_nobody(&program, &config(USER)).outcome();
    assert_eq!(status.code(), Some(1));
    for part in ["cannot become user daemon", "started as uid 65534", "{user: 65534, group: 65534}"]
    {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    let maitred = start_as_nobody(&program, &config("nobody"));
    wait_for("its threads", || threads(maitred.id()).len() >= 5);
    all_are(maitred.id(), NOBODY, NONE);
}

#[test]
fn root_that_stays_root_gives_up_its_capabilities_and_without_the_key_gains_none() {
    let (backend, [port]) = (echo(), low_ports());
    let maitred = start(open_folder(), "root", &config(&[port], "", backend));
    all_are(maitred.process.id(), (0, 0), BIND);
    passes(port);
    let as_it_was = Maitred::start(&config(&[0], "", backend));
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for (name, fields) in threads(as_it_was.process.id()) {
        assert_eq!(fields["NoNewPrivs"], "1", "{name}");
        assert!(own.contains(&fields["CapEff"]), "{name}");
    }
    // `doctor` judges for the user.
    let mut doctor = Command::new(crate::harness::binary());
    doctor.args(["doctor", "--config"]).arg(maitred.dir.path().join("maitred.yaml"));
    let output = doctor.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("as user 0;"));
}
