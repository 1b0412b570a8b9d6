//! `caching_sha2_password`, which MySQL 8 asks for by default. No package of this system has a MySQL, so the server is
//! one of ours that does this much of the protocol; the client of MariaDB, which knows the plugin, shows that it does it
//! right, and OpenSSL opens what was sealed.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use sha2::{Digest, Sha256};

use crate::harness::{Maitred, balanced, free_port, output, program, succeed, wait_for};

const PASSWORD: &str = "a secret that is sealed";

struct Server {
    dir: PathBuf,
    /// Whether it knows the digest of the password already.
    is_cached: AtomicBool,
    fast: AtomicU32,
    whole: AtomicU32,
    /// Who said goodbye.
    quits: AtomicU32,
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().to_vec()
}

fn send(stream: &mut TcpStream, number: u8, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    stream.write_all(&[&length[..3], &[number], body].concat())
}

fn receive(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    stream.read_exact(&mut body)?;
    Ok((head[3], body))
}

const OK: &[u8] = b"\0\0\0\x02\0\0\0";
const END: &[u8] = b"\xfe\0\0\x02\0";

impl Server {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let nonce = *b"abcdefgh0123456789ab";
        let mut hello = b"\x0a8.4.0\0\x01\0\0\0".to_vec();
        hello.extend([&nonce[..8], b"\0\xff\xf7\x2d\x02\x00\x0f\x00\x15", &[0; 10]].concat());
        hello.extend([&nonce[8..], b"\0caching_sha2_password\0"].concat());
        send(&mut stream, 0, &hello)?;
        let (_, login) = receive(&mut stream)?;
        let user = login[32..].iter().position(|byte| *byte == 0).unwrap() + 32;
        let proof = &login[user + 2..user + 2 + usize::from(login[user + 1])];
        let mut number = 2;
        let once = sha256(&[PASSWORD.as_bytes()]);
        let wanted = sha256(&[&sha256(&[&once]), &nonce]);
        let wanted: Vec<u8> = once.iter().zip(&wanted).map(|(one, other)| one ^ other).collect();
        if self.is_cached.load(Relaxed) && proof == wanted {
            self.fast.fetch_add(1, Relaxed);
            send(&mut stream, number, b"\x01\x03")?;
            number += 1;
        } else {
            send(&mut stream, number, b"\x01\x04")?;
            let (_, request) = receive(&mut stream)?;
            assert_eq!(request, b"\x02", "without TLS it asks for the key");
            let key = std::fs::read(self.dir.join("public.pem"))?;
            send(&mut stream, number + 2, &[b"\x01", &key[..]].concat())?;
            let (_, sealed) = receive(&mut stream)?;
            number += 4;
            let opened = open(&self.dir, &sealed);
            let password: Vec<u8> =
                opened.iter().zip(nonce.iter().cycle()).map(|(one, other)| one ^ other).collect();
            if password != [PASSWORD.as_bytes(), b"\0"].concat() {
                return send(&mut stream, number, b"\xff\x15\x04#28000Access denied");
            }
            self.whole.fetch_add(1, Relaxed);
            self.is_cached.store(true, Relaxed);
        }
        send(&mut stream, number, OK)?;
        loop {
            let (_, command) = receive(&mut stream)?;
            if command == b"\x01" {
                self.quits.fetch_add(1, Relaxed);
                return Ok(());
            }
            // One column, one row: `0`, for whatever is asked.
            let column = b"\x03def\0\0\0\x01x\0\x0c\x3f\0\x01\0\0\0\x08\0\0\0\0\0";
            for (number, body) in (1..).zip([&b"\x01"[..], column, END, b"\x010", END]) {
                send(&mut stream, number, body)?;
            }
        }
    }
}

/// By another implementation than ours.
fn open(dir: &Path, sealed: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-decrypt", "-inkey"]).arg(dir.join("private.pem"));
    command.args(["-pkeyopt", "rsa_padding_mode:oaep"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(sealed).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn start(dir: &Path) -> (u16, Arc<Server>) {
    for line in [
        "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out private.pem",
        "pkey -in private.pem -pubout -out public.pem",
    ] {
        succeed(Command::new("openssl").args(line.split(' ')).current_dir(dir));
    }
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let server = Arc::new(Server {
        dir: dir.to_owned(),
        is_cached: AtomicBool::default(),
        fast: AtomicU32::default(),
        whole: AtomicU32::default(),
        quits: AtomicU32::default(),
    });
    let its = Arc::clone(&server);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let server = Arc::clone(&its);
            // An error means that a client has gone.
            std::thread::spawn(move || server.serve(stream.unwrap()).is_ok());
        }
    });
    (port, server)
}

#[test]
fn a_password_is_sealed_for_a_server_that_does_not_know_it_and_proved_to_one_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let (port, server) = start(dir.path());
    let client = |password: &str| {
        let mut command = Command::new(program("mariadb", "mariadb-client"));
        command.args(["--no-defaults", "-h", "127.0.0.1", "-u", "probe", "--skip-ssl", "-N", "-B"]);
        command.args(["-P", &port.to_string(), &format!("-p{password}"), "-e", "select 0"]);
        output(&mut command)
    };
    // The server does what the client of MariaDB expects of one.
    assert!(!client("wrong").status.success());
    let said = client(PASSWORD);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(server.whole.load(Relaxed), 1);
    assert!(client(PASSWORD).status.success());
    assert_eq!((server.whole.load(Relaxed), server.fast.load(Relaxed)), (1, 1));
    server.is_cached.store(false, Relaxed);
    let probe = format!("{{mysql: {{user: probe, password: \"{PASSWORD}\", role: primary}}}}");
    let quits = server.quits.load(Relaxed);
    let maitred = Maitred::start(&balanced(free_port(), &[port], &probe));
    maitred.wait_for_state("s0", "up");
    wait_for("probes", || server.fast.load(Relaxed) > 5);
    assert_eq!(server.whole.load(Relaxed), 2, "sealed once");
    wait_for("goodbyes", || server.quits.load(Relaxed) > quits + 5);
    let passed = maitred.metric("maitred_probes_total", &[("result", "passed")]);
    assert!((maitred.metric("maitred_probes_total", &[]) - passed).abs() < 0.5);
    // A password that is not the server's is sealed as well, and refused.
    let wrong = "{mysql: {user: probe, password: wrong}}";
    let maitred = Maitred::start(&balanced(free_port(), &[port], wrong));
    let why = || maitred.said("main", "s0", "why");
    wait_for("the refusal", || why().contains("login_failed (error 1045: Access denied)"));
}
