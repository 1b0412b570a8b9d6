//! Where the parties run: two network namespaces made by scripts/bench, or everything on the loopback interface. Says
//! how a command is started on the product's side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

use crate::flags::Flags;

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
    pub fn product_command(&self, program: &str) -> Command {
        let mut command = self.across();
        command.args(["taskset", "-c", &self.product_processor.to_string(), program]);
        command
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
    let socket = UdpSocket::bind((here, 0)).map_err(|error| format!("{here}: {error}"))?;
    let port = socket.local_addr().map_err(|error| error.to_string())?.port();
    Ok((address, port).into())
}
