//! A backend to try a balancer with: tells each client its name, then says back whatever it hears.
//!
//! `cargo run --example backend -- 127.0.0.1:7001 one`

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Clients at once; more wait until one leaves.
const CLIENTS: usize = 64;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7001".to_owned());
    // In a container, the host is the container.
    let host = || std::env::var("HOSTNAME").unwrap_or_else(|_| address.clone());
    let name = arguments.next().unwrap_or_else(host);
    let listener = TcpListener::bind(&address)?;
    println!("{name} listens on {address}");
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while let Ok((client, _)) = listener.accept() {
                    // A client that breaks off is no matter here.
                    let _ = serve(client, &name);
                }
            });
        }
    });
    Ok(())
}

fn serve(mut client: TcpStream, name: &str) -> io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(300)))?;
    writeln!(client, "{name}")?;
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            count => client.write_all(&buffer[..count])?,
        }
    }
}
