//! Backends for the tests: what they say, and how they die and come back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// What a server does with each connection.
#[derive(Clone, Copy, Debug)]
pub enum Conduct {
    /// Sends back what it gets.
    Echo,
    /// Says this in pieces, then waits for the end.
    Say(&'static [&'static str]),
    /// Says this in pieces, then closes.
    SayAndClose(&'static [&'static str]),
    /// Waits for some bytes, then says this and closes.
    Answer(&'static str),
}

/// A server that lives until it is killed or dropped. Connections it accepted outlive it.
pub struct Server {
    pub address: SocketAddr,
    /// Of every connection so far.
    pub clients: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(conduct: Conduct) -> Server {
        Server::at("127.0.0.1:0".parse().unwrap(), conduct)
    }

    /// On this address, which a server that was killed may have had.
    pub fn at(address: SocketAddr, conduct: Conduct) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let clients = Arc::new(Mutex::new(Vec::new()));
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&clients));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                match listener.accept() {
                    Ok((stream, client)) => {
                        seen.lock().unwrap().push(client);
                        std::thread::spawn(move || serve(stream, conduct));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        // A listener that can be told to stop cannot block in accept.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    // A client that left already.
                    Err(_) => {}
                }
            }
        });
        Server { address, clients, stop, thread: Some(thread) }
    }

    /// From now on connects are refused; the port stays taken, so that nobody else answers on it.
    pub fn kill(self) -> Refusal {
        let address = self.address;
        drop(self);
        Refusal::at(address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Errors mean that the client has gone, as probes do.
fn serve(mut stream: TcpStream, conduct: Conduct) {
    stream.set_nonblocking(false).unwrap();
    let mut buffer = [0; 1024];
    match conduct {
        Conduct::Echo => {
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let _ = stream.write_all(&buffer[..count]);
            }
        }
        Conduct::Say(pieces) => {
            say(&mut stream, pieces);
            while let Ok(1..) = stream.read(&mut buffer) {}
        }
        Conduct::SayAndClose(pieces) => {
            say(&mut stream, pieces);
            // Closing with something unread would be a reset, which takes back what is still under way.
            let _ = stream.set_nonblocking(true);
            let _ = stream.read(&mut buffer);
        }
        Conduct::Answer(answer) => {
            let _ = stream.read(&mut buffer);
            say(&mut stream, &[answer]);
        }
    }
}

fn say(stream: &mut TcpStream, pieces: &[&str]) {
    // Else a piece waits until the one before is acknowledged.
    let _ = stream.set_nodelay(true);
    for (number, piece) in pieces.iter().enumerate() {
        if number > 0 {
            // So that the pieces arrive apart: nobody tells when the one before was read.
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = stream.write_all(piece.as_bytes());
    }
}

/// An address on which nobody listens, and nobody else can.
pub struct Refusal {
    pub address: SocketAddr,
    _socket: Socket,
}

impl Refusal {
    pub fn new() -> Refusal {
        Refusal::at("127.0.0.1:0".parse().unwrap())
    }

    fn at(address: SocketAddr) -> Refusal {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        // A connection of another test may have been given this port for a moment.
        let end = std::time::Instant::now() + Duration::from_secs(10);
        while let Err(error) = socket.bind(&address.into()) {
            let may_pass = error.kind() == ErrorKind::AddrInUse && std::time::Instant::now() < end;
            assert!(may_pass, "{address}: {error}");
            // Nobody tells when it is free.
            std::thread::sleep(Duration::from_millis(5));
        }
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Refusal { address, _socket: socket }
    }

    pub fn revive(self, conduct: Conduct) -> Server {
        let address = self.address;
        drop(self);
        Server::at(address, conduct)
    }
}

/// The first byte that a session through the balancer gets; `None` if it ends before one.
pub fn served_by(balancer: SocketAddr) -> Option<char> {
    first_byte(&mut TcpStream::connect(balancer).unwrap())
}

pub fn first_byte(client: &mut TcpStream) -> Option<char> {
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut byte = [0];
    match client.read(&mut byte) {
        Ok(1) => Some(byte[0].into()),
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("no byte and no end: {error}"),
    }
}
