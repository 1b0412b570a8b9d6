//! Source ports of flows. The kernel gives a UDP port to one socket only, whatever the socket is connected to, so all
//! flows of a host would share one range. Here each pair of source and backend has the whole range: sockets that
//! allow each other (`SO_REUSEADDR`) are bound to a port that no other flow has towards the same backend. Ports are
//! drawn at random, because a forger of answers must not be able to guess them.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use dashmap::DashMap;

use crate::border::addr::ZonedIp;
use crate::border::plane::PortStats;
use crate::config::{Pool, SourcePorts as Mode};
use crate::sys::datagram;
use crate::sys::keyed::Keyed;
use crate::sys::port_range::PortRange;

/// Ports tried for one flow before the kernel chooses: other programs may use them.
const TRIES: usize = 8;

/// Random draws before the next free port is searched for.
const DRAWS: usize = 32;

/// One port in this many is left to the kernel: probes, DNS queries and other programs need some, too.
const LEFT: u16 = 16;

/// For all workers. A lock is held for a look-up, once per flow.
pub struct SourcePorts {
    range: PortRange,
    /// How many ports of it are in use.
    own: usize,
    stats: Arc<PortStats>,
    taken: DashMap<Path, HashSet<u16>, Keyed>,
}

/// Source (`None`: chosen by the kernel) and backend.
type Path = (Option<ZonedIp>, SocketAddr);

/// One flow's port; given back on drop, which must come after the socket's.
pub struct Lease {
    ports: Arc<SourcePorts>,
    path: Path,
    port: u16,
}

impl SourcePorts {
    pub fn new(range: PortRange, stats: Arc<PortStats>) -> SourcePorts {
        let own = range.choosable().filter(|port| is_own(&range, *port)).count();
        SourcePorts { range, own, stats, taken: DashMap::default() }
    }

    /// A socket connected to `backend`, from one of the pool's addresses, beginning anywhere among them.
    pub fn connect(
        self: &Arc<Self>,
        pool: &Pool,
        backend: SocketAddr,
    ) -> io::Result<(OwnedFd, Option<Lease>)> {
        let mut sources: Vec<Option<ZonedIp>> = pool
            .source
            .iter()
            .filter(|source| source.is_ipv4() == backend.is_ipv4())
            .map(|source| Some(*source))
            .collect();
        if sources.is_empty() {
            sources.push(None);
        }
        let first = fastrand::usize(..sources.len());
        sources.rotate_left(first);
        let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for source in sources {
            match self.connect_from((source, backend), pool.source_ports) {
                Err(error) if is_out_of_ports(&error) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    fn connect_from(
        self: &Arc<Self>,
        path: Path,
        mode: Mode,
    ) -> io::Result<(OwnedFd, Option<Lease>)> {
        let (source, backend) = path;
        let mut refused = Vec::new();
        while mode != Mode::Kernel && refused.len() < TRIES {
            let Some(lease) = self.lease(path, &refused) else {
                if refused.is_empty() {
                    return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
                }
                break;
            };
            match datagram::connect(backend, source, Some(lease.port)) {
                // Another program's port, which it does not share.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused.push(lease.port),
                outcome => return Ok((outcome?, Some(lease))),
            }
        }
        Ok((datagram::connect(backend, source, None)?, None))
    }

    fn lease(self: &Arc<Self>, path: Path, refused: &[u16]) -> Option<Lease> {
        let (first, last) = (*self.range.range.start(), *self.range.range.end());
        let mut taken = self.taken.entry(path).or_default();
        if taken.len() >= self.own {
            // The next flow must not have to look at all of them.
            return None;
        }
        // From the same port, a socket to a backend on this machine would be connected to itself.
        let is_free = |port: &u16| {
            is_own(&self.range, *port)
                && *port != path.1.port()
                && !taken.contains(port)
                && !refused.contains(port)
                && !self.range.reserved.contains(port)
        };
        let drawn = (0..DRAWS).map(|_| fastrand::u16(first..=last)).find(is_free);
        let port = drawn.or_else(|| {
            let middle = fastrand::u16(first..=last);
            (middle..=last).chain(first..middle).find(is_free)
        })?;
        taken.insert(port);
        self.stats.in_use.fetch_add(1, Relaxed);
        Some(Lease { ports: Arc::clone(self), path, port })
    }
}

fn is_own(range: &PortRange, port: u16) -> bool {
    (port - range.range.start()) % LEFT != LEFT - 1
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ports.stats.in_use.fetch_sub(1, Relaxed);
        if let Some(mut taken) = self.ports.taken.get_mut(&self.path) {
            taken.remove(&self.port);
        }
        self.ports.taken.remove_if(&self.path, |_, taken| taken.is_empty());
    }
}

/// EAGAIN: the kernel found no free port itself.
pub fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EADDRNOTAVAIL | libc::EADDRINUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::net::UdpSocket;

    fn ports(count: u16) -> Arc<SourcePorts> {
        let range = PortRange { range: 61_200..=61_199 + count, reserved: [61_201].into() };
        Arc::new(SourcePorts::new(range, Arc::default()))
    }

    #[test]
    fn each_backend_has_the_range_to_itself() {
        let ports = ports(32);
        let servers = ["127.0.0.1:0", "127.0.0.2:0"].map(|it| UdpSocket::bind(it).unwrap());
        let mut seen: HashMap<SocketAddr, HashSet<u16>> = HashMap::new();
        let mut open = Vec::new();
        for backend in servers.iter().map(|it| it.local_addr().unwrap()) {
            loop {
                match ports.connect(&Pool::default(), backend) {
                    Ok((socket, lease)) => {
                        let socket = UdpSocket::from(socket);
                        let port = socket.local_addr().unwrap().port();
                        assert!(seen.entry(backend).or_default().insert(port), "twice the same");
                        socket.send(&port.to_be_bytes()).unwrap();
                        open.push((socket, lease));
                    }
                    Err(error) => break assert!(is_out_of_ports(&error), "{error}"),
                }
            }
        }
        assert!(seen.values().all(|of_one| of_one.len() == 29), "all but reserved and left ones");
        // Each receives only from its own backend.
        for server in &servers {
            for _ in 0..29 {
                let mut port = [0; 2];
                let (_, from) = server.recv_from(&mut port).unwrap();
                assert_eq!(from.port(), u16::from_be_bytes(port));
                server.send_to(&port, from).unwrap();
            }
        }
        for (socket, _) in &open {
            let mut port = [0; 2];
            socket.recv(&mut port).unwrap();
            assert_eq!(u16::from_be_bytes(port), socket.local_addr().unwrap().port());
        }
        drop(open);
        assert!(ports.taken.is_empty() && ports.stats.in_use.load(Relaxed) == 0);
    }

    #[test]
    fn a_port_that_somebody_else_has_is_passed_over() {
        let ports = ports(2);
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let _other = UdpSocket::bind("127.0.0.1:61200");
        let (_, lease) = ports
            .connect(&Pool::default(), server.local_addr().unwrap())
            .unwrap_or_else(|error| panic!("the kernel's own choice is left: {error}"));
        assert!(lease.is_none());
    }
}
