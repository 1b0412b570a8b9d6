//! Backends and clients inside the tests, and the same in processes of their own where descriptors are counted.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Process, free_port};

/// What this process is to be, if it was started by a test.
pub const ROLE: &str = "MAITRED_TEST_ROLE";

#[derive(Clone, Copy)]
pub enum Conduct {
    /// Sends back what it gets.
    Echo,
    /// Sends for ever, and never reads.
    Flood,
    /// Says in a line who asked, and closes when the client has.
    Tell,
    /// The same, and closes at once.
    TellAndClose,
}

/// A backend on a free port of loopback; it lives as long as the test's process.
pub fn backend(conduct: Conduct) -> u16 {
    let port = free_port();
    backend_at(SocketAddr::from(([127, 0, 0, 1], port)), conduct);
    port
}

/// The same at an address of this network.
pub fn backend_at(address: SocketAddr, conduct: Conduct) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || serve(listener, conduct));
}

fn serve(listener: TcpListener, conduct: Conduct) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(async move {
                // An error means that the client has gone.
                let _ = converse(stream, conduct).await;
            });
        }
    });
}

async fn converse(mut stream: tokio::net::TcpStream, conduct: Conduct) -> io::Result<()> {
    let mut buffer = [b'x'; 1024];
    match conduct {
        Conduct::Echo => loop {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..count]).await?;
        },
        Conduct::Flood => loop {
            stream.write_all(&buffer).await?;
        },
        Conduct::Tell | Conduct::TellAndClose => {
            let client = format!("{}\n", stream.peer_addr()?);
            stream.read_exact(&mut buffer[..1]).await?;
            stream.write_all(client.as_bytes()).await?;
            if matches!(conduct, Conduct::Tell) {
                while stream.read(&mut buffer).await? > 0 {}
            }
            Ok(())
        }
    }
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Sends a few bytes and gets them back.
pub fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"ping")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

/// The rest of a session, from the first byte to its clean end; the client closes first.
pub fn complete(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    exchange(&mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0; 8])? {
        0 => Ok(()),
        count => Err(io::Error::other(format!("{count} bytes after the end"))),
    }
}

/// What a server heard, and from whom.
pub type Heard = Arc<Mutex<Vec<(SocketAddr, Vec<u8>)>>>;

/// A server on a free port of loopback that sends each datagram back, and remembers it; it lives as long as the test's
/// process.
pub fn echo_datagrams() -> (u16, Heard) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let heard = Heard::default();
    let its = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        loop {
            // An error means that a client has gone.
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            its.lock().unwrap().push((client, buffer[..length].to_vec()));
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
    (port, heard)
}

/// A whole session.
pub fn session(port: u16) -> io::Result<()> {
    complete(TcpStream::connect(("127.0.0.1", port))?)
}

/// This very program again, as a process that runs one test with a role.
pub fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// A backend with descriptors of its own.
pub fn backend_apart(port: u16) -> Process {
    Process::start(again("local::role", &format!("backend {port}")).stdout(Stdio::null()))
}

/// So many clients, with descriptors of their own: each exchanges a few bytes and then says nothing more.
pub fn idle_clients(port: u16, count: usize) -> Process {
    Process::start(again("local::role", &format!("clients {port} {count}")).stdout(Stdio::null()))
}

/// Does nothing by itself: it is what `again` starts for the other tests.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["backend", port] => {
            let port: u16 = port.parse().unwrap();
            serve(TcpListener::bind(("127.0.0.1", port)).unwrap(), Conduct::Echo);
        }
        ["tell", address, other] => {
            backend_at(address.parse().unwrap(), Conduct::Tell);
            let listener = TcpListener::bind(other.parse::<SocketAddr>().unwrap()).unwrap();
            serve(listener, Conduct::TellAndClose);
        }
        ["clients", port, count] => {
            let mut streams = Vec::new();
            for _ in 0..count.parse().unwrap() {
                let mut stream = connect(port.parse().unwrap());
                exchange(&mut stream).unwrap();
                streams.push(stream);
            }
            loop {
                // Until it is killed.
                std::thread::park();
            }
        }
        _ => panic!("no such role: {role}"),
    }
}
