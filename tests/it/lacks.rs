//! When the system gives no more of something: descriptors, threads. The program starts whole or says what it lacks, and what
//! it lacks later takes nothing away that it has.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::balancer::wait_for;

/// The program, with an echoing backend, started by a line of shell that is to `exec "$0" "$@"`.
struct Program {
    child: Child,
    dir: tempfile::TempDir,
    admin: SocketAddr,
    main: SocketAddr,
}

/// Nobody has it now.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Program {
    fn start(shell: &str, backends: &str) -> Program {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let (admin, main) = (free(), free());
        let config = format!(
            "version: 1\nprocess: {{workers: 2}}\nadmin: {{listen: \"{admin}\", socket: none}}\n\
             listeners: {{main: {{bind: \"{main}\", pool: main}}}}\n\
             pools: {{main: {{backends: [{backends}], health: {{probe: none}}}}}}\n"
        );
        let path = dir.path().join("maitred.yaml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_maitred"), "run", "--config"]).arg(&path);
        let out = || File::create(dir.path().join("out")).unwrap();
        let error = File::create(dir.path().join("error")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(out()).stderr(error).spawn().unwrap();
        Program { child, dir, admin, main }
    }

    fn said(&self, what: &str) -> String {
        fs::read_to_string(self.dir.path().join(what)).unwrap()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }

    /// Ready, or ended: true if it is ready.
    fn begins(&mut self) -> bool {
        let mut has_ended = false;
        wait_for("the start, or its refusal", || {
            has_ended = self.child.try_wait().unwrap().is_some();
            has_ended || self.get("/readyz").is_some()
        });
        !has_ended
    }

    /// Its threads of this name.
    fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let name_of = |task: std::io::Result<fs::DirEntry>| {
            fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks.filter_map(name_of).filter(|it| it.trim() == name).count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended is as good as killed.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// Sends back the first byte of each connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut byte = [0];
            // A client that left is no fault.
            let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
        }
    });
    address
}

#[test]
fn with_few_descriptors_it_serves_or_says_what_it_lacks() {
    let backend = echo();
    let mut outcomes = [0, 0];
    for descriptors in (8..20).chain((20..64).step_by(4)) {
        let shell = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        let mut program = Program::start(&shell, &format!("\"{backend}\""));
        let is_ready = program.begins();
        outcomes[usize::from(is_ready)] += 1;
        if is_ready {
            let mut client = TcpStream::connect(program.main).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x", "{descriptors}");
        } else {
            let error = program.said("error");
            assert!(error.contains("error[E010"), "{descriptors}: {error}");
            let hint = format!("hint: the limit of {descriptors} descriptors is too low");
            assert!(error.contains(&hint), "{descriptors}: {error}");
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn scrapes_whose_readers_left_do_not_pile_up() {
    let backends = (0..3000).map(|it| format!("\"10.0.{}.{}:80\"", it / 250, 1 + it % 250));
    let backends = backends.collect::<Vec<_>>().join(", ");
    let mut program = Program::start("exec \"$0\" \"$@\"", &backends);
    assert!(program.begins());
    let mut most = 0;
    for _ in 0..40 {
        let mut stream = TcpStream::connect(program.admin).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        // It reads the request, and then the reader is gone.
        std::thread::sleep(Duration::from_millis(5));
        most = most.max(program.threads("page"));
    }
    assert!((1..=4).contains(&most), "{most} at once");
    assert!(program.get("/metrics").is_some(), "and then it is made for who waits");
}

#[test]
fn a_reload_for_which_there_is_no_thread_is_refused_and_sessions_go_on() {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        eprintln!("not root: nobody else's threads can be limited");
        return;
    }
    let backend = format!("\"{}\"", echo());
    // A user with nothing else running, so that all its threads are the program's.
    let user = 1_000_000 + std::process::id();
    let as_user = |user: u32, more: &str| {
        format!(
            "chmod -R a+rX $(dirname $3); cd /; exec setpriv --reuid {user} --regid {user} --clear-groups {more} \"$0\" \"$@\""
        )
    };
    let mut program = Program::start(&as_user(user, ""), &backend);
    assert!(program.begins(), "{}", program.said("error"));
    let threads = fs::read_dir(format!("/proc/{}/task", program.child.id())).unwrap().count();
    drop(program);

    let mut program =
        Program::start(&as_user(user + 1, &format!("prlimit --nproc={threads}")), &backend);
    assert!(program.begins(), "{}", program.said("error"));
    let mut client = TcpStream::connect(program.main).unwrap();
    let pid = rustix::process::Pid::from_raw(program.child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let refusal = || {
        let out = File::open(program.dir.path().join("out")).unwrap();
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        lines.find(|line| line.contains("reload refused"))
    };
    wait_for("the refusal", || refusal().is_some());
    assert!(refusal().unwrap().contains("no thread to read the configuration with"));
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"y").unwrap();
    client.read_exact(&mut [0]).unwrap();
}
