//! Where the parties run: two network namespaces made by scripts/bench, or everything on the loopback interface. Says
//! how a command is started on the product's side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;

use crate::flags::Flags;
use crate::processor;

/// Routed to the client's side by scripts/bench, where all of 10.78/16 is local.
const MANY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const MANY_ON_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

pub struct Place {
    /// The product's namespace.
    namespace: Option<String>,
    client_side: IpAddr,
    product_side: IpAddr,
    product_processor: usize,
}

impl Place {
    pub fn new(flags: &Flags) -> Result<Place, String> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Ok(Place {
            namespace: flags.text("namespace").map(str::to_owned),
            client_side: flags.value("client-side")?.unwrap_or(loopback),
            product_side: flags.value("product-side")?.unwrap_or(loopback),
            product_processor: flags.number("product-cpu", 0, 0..=1023)?,
        })
    }

    pub fn name(&self) -> &'static str {
        if self.namespace.is_some() { "veth" } else { "loopback" }
    }

    pub fn has_namespaces(&self) -> bool {
        self.namespace.is_some()
    }

    pub fn product_processor(&self) -> usize {
        self.product_processor
    }

    /// For the backend of a product, beside the client.
    pub fn backend(&self) -> Result<SocketAddr, String> {
        free(self.client_side, self.client_side)
    }

    /// For a product. In a namespace of its own every port is free; one is found here.
    pub fn product(&self) -> Result<SocketAddr, String> {
        free(self.product_side, self.client_side)
    }

    /// On the product's side and processor. It ends when this process does.
    pub fn product_command(&self, program: &str, workers: usize) -> Command {
        let mut command = self.across();
        // With several workers, all processors: client and backend share them.
        let processors = if workers == 1 {
            self.product_processor.to_string()
        } else {
            format!("0-{}", processor::count() - 1)
        };
        command.args(["taskset", "-c", &processors, program]);
        command
    }

    /// Addresses under which the backend's side is reached, too: each an own backend.
    pub fn many(&self, count: u16, port: u16) -> Vec<SocketAddr> {
        let first = if self.namespace.is_some() { MANY } else { MANY_ON_LOOPBACK };
        (0..count).map(|number| address_after((first, port).into(), number)).collect()
    }

    /// Lets the product's side give out these ports by itself; says what it gave out before.
    pub fn set_port_range(&self, range: (u16, u16)) -> Result<(u16, u16), String> {
        const NAME: &str = "net.ipv4.ip_local_port_range";
        if self.namespace.is_none() {
            return Err("needs network namespaces: run as root, without --loopback".to_owned());
        }
        let run = |words: &[&str]| {
            let output = self.across().args(words).output().map_err(|error| error.to_string())?;
            Ok::<_, String>(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let before = run(&["sysctl", "-n", NAME])?;
        let numbers: Vec<u16> =
            before.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        let [first, last] = numbers[..] else { return Err(format!("{NAME}: `{before}`")) };
        run(&["sysctl", "-q", "-w", &format!("{NAME}={} {}", range.0, range.1)])?;
        Ok((first, last))
    }

    /// No product finds the TIME_WAIT of the one before it. Nothing is to be done on a machine's own loopback
    /// interface, where every run has another backend port.
    pub fn forget_time_wait(&self) -> Result<(), String> {
        if self.namespace.is_none() {
            return Ok(());
        }
        let here = || Command::new("env");
        for make in [&here as &dyn Fn() -> Command, &|| self.across()] {
            let mut left = String::new();
            for _ in 0..10 {
                // What it prints is what it killed; what counts is what is left.
                let kill = make().args(["ss", "-K", "-H", "state", "time-wait"]).output();
                kill.map_err(|error| error.to_string())?;
                let look = make().args(["ss", "-tanH", "state", "time-wait"]).output();
                left = String::from_utf8_lossy(&look.map_err(|error| error.to_string())?.stdout)
                    .into_owned();
                if left.is_empty() {
                    break;
                }
            }
            if !left.is_empty() {
                return Err(format!("{} sockets stay in TIME_WAIT", left.lines().count()));
            }
        }
        Ok(())
    }

    /// On the product's side, on the processor of client and backend.
    pub fn far_command(&self, program: &str) -> Command {
        let mut command = self.across();
        command.arg(program);
        command
    }

    fn across(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if let Some(namespace) = &self.namespace {
            command.args(["ip", "netns", "exec", namespace]);
        }
        command
    }
}

/// A port nobody has where this process can look.
fn free(address: IpAddr, here: IpAddr) -> Result<SocketAddr, String> {
    let failed = |error: std::io::Error| format!("{here}: {error}");
    for _ in 0..100 {
        // Below what the kernel gives out by itself, and with room above for a listener of many ports.
        let port = 4000 + (random() % 5000) as u16;
        if UdpSocket::bind((here, port)).is_ok() && TcpListener::bind((here, port)).is_ok() {
            return Ok((address, port).into());
        }
    }
    Err(failed(std::io::ErrorKind::AddrInUse.into()))
}

/// Any number will do; the standard hasher has random keys.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// The address that is the `number`th after this one.
pub fn address_after(first: SocketAddr, number: u16) -> SocketAddr {
    match first {
        SocketAddr::V4(it) => {
            (std::net::Ipv4Addr::from(u32::from(*it.ip()) + u32::from(number)), it.port()).into()
        }
        SocketAddr::V6(_) => first,
    }
}
