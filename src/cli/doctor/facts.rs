//! Facts about this machine. Plain data, read below a root directory, so that a test can pass a tree of its own;
//! nothing is judged here.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::str::FromStr;

use super::cgroup::{self, Cgroup};
use super::reading::{Reading, Unread, optional, text};
use crate::border::addr::ZonedIp;
use crate::sys::port_range::PortRange;

#[derive(Clone, Debug)]
pub struct Facts {
    /// The hard limit, to which `run` raises the soft one.
    pub descriptors: Reading<u64>,
    pub process: Reading<Process>,
    pub cgroup: Reading<Cgroup>,
    /// Bytes.
    pub page_size: u64,
    /// Pages of pipes that one user may have; 0 = no limit.
    pub pipe_user_pages: Reading<u64>,
    /// Bytes.
    pub pipe_max_size: Reading<u64>,
    /// `None`: this network namespace has no connection tracking.
    pub conntrack: Option<Reading<Conntrack>>,
    pub ports: Reading<PortRange>,
    pub unprivileged_port_start: Reading<u64>,
    pub somaxconn: Reading<u64>,
    pub tw_reuse: Reading<u64>,
    pub timestamps: Reading<u64>,
    /// The receive and the send buffer, in bytes, that a UDP socket got when it asked for those of a listener. The
    /// kernel is asked, because the result depends on more than the sysctls: also on our privileges.
    pub udp_buffers: Reading<(usize, usize)>,
    /// Addresses of the pools' `source` that this machine does not have. The kernel is asked for this, too.
    pub absent_sources: Vec<ZonedIp>,
}

/// The process's user and capabilities, from `/proc/self/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub user: u64,
    /// The effective set, a bit each.
    pub capabilities: u64,
    /// Number of CPUs in the affinity mask.
    pub cpus: u64,
}

/// Entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    pub count: u64,
    pub max: u64,
}

/// Numbers of capabilities (capabilities(7)).
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub enum Capability {
    NetBindService = 10,
    SysAdmin = 21,
    SysResource = 24,
}

impl Facts {
    /// `buffers` is what the kernel granted.
    pub fn read(root: &Path, buffers: io::Result<(usize, usize)>) -> Facts {
        let number = |name: &str| parsed(root, &format!("/proc/sys/{name}"));
        Facts {
            descriptors: descriptors(root),
            process: process(root),
            cgroup: cgroup::read(root),
            page_size: rustix::param::page_size() as u64,
            pipe_user_pages: number("fs/pipe-user-pages-soft"),
            pipe_max_size: number("fs/pipe-max-size"),
            conntrack: conntrack(root),
            ports: ports(root),
            unprivileged_port_start: number("net/ipv4/ip_unprivileged_port_start"),
            somaxconn: number("net/core/somaxconn"),
            tw_reuse: number("net/ipv4/tcp_tw_reuse"),
            timestamps: number("net/ipv4/tcp_timestamps"),
            udp_buffers: buffers.map_err(|error| Unread::new("a UDP socket's buffers", error)),
            absent_sources: Vec::new(),
        }
    }
}

impl Process {
    /// `process.user` is in force: the capabilities that it gives up are gone.
    pub fn after_becoming(self, user: u32) -> Process {
        let kept = self.capabilities & 1 << Capability::NetBindService as u8;
        Process { user: user.into(), capabilities: kept, ..self }
    }

    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities >> capability as u8 & 1 == 1
    }
}

fn parsed<T: FromStr>(root: &Path, file: &str) -> Reading<T> {
    let text = text(root, file)?;
    text.trim().parse().map_err(|_| Unread::new(file, format!("`{}` is not a number", text.trim())))
}

fn descriptors(root: &Path) -> Reading<u64> {
    const FILE: &str = "/proc/self/limits";
    let text = text(root, FILE)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    // Soft, hard, unit.
    match line.and_then(|line| line.split_whitespace().nth(1)) {
        Some("unlimited") => Some(u64::MAX),
        hard => hard.and_then(|hard| hard.parse().ok()),
    }
    .ok_or_else(|| Unread::new(FILE, "it has no hard limit of open files"))
}

fn process(root: &Path) -> Reading<Process> {
    const FILE: &str = "/proc/self/status";
    let text = text(root, FILE)?;
    let fields: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).collect();
    let field = |name: &str| {
        let value = fields.get(name).map(|value| value.trim());
        value.ok_or_else(|| Unread::new(FILE, format!("it has no `{name}`")))
    };
    let malformed = |name: &str| Unread::new(FILE, format!("its `{name}` is malformed"));
    // Real, effective, saved, of the file system.
    let user = field("Uid")?.split_whitespace().nth(1).and_then(|user| user.parse().ok());
    let capabilities = u64::from_str_radix(field("CapEff")?, 16);
    let allowed = count(field("Cpus_allowed_list")?);
    // The mask may include CPUs that the machine does not have.
    let online = self::text(root, "/sys/devices/system/cpu/online").ok();
    let online = online.and_then(|online| count(online.trim()));
    let cpus = allowed.map(|allowed| allowed.min(online.unwrap_or(allowed)));
    Ok(Process {
        user: user.ok_or_else(|| malformed("Uid"))?,
        capabilities: capabilities.map_err(|_| malformed("CapEff"))?,
        cpus: cpus.ok_or_else(|| malformed("Cpus_allowed_list"))?,
    })
}

/// How many are in `0-3,8`.
fn count(list: &str) -> Option<u64> {
    let mut count = 0_u64;
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        count = last.checked_sub(first)?.checked_add(1)?.checked_add(count)?;
    }
    Some(count)
}

fn conntrack(root: &Path) -> Option<Reading<Conntrack>> {
    const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    if let Ok(None) = optional(root, MAX) {
        return None;
    }
    let read = || {
        let count = parsed(root, "/proc/sys/net/netfilter/nf_conntrack_count")?;
        Ok(Conntrack { count, max: parsed(root, MAX)? })
    };
    Some(read())
}

fn ports(root: &Path) -> Reading<PortRange> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let range = text(root, RANGE)?;
    let reserved = text(root, "/proc/sys/net/ipv4/ip_local_reserved_ports")?;
    PortRange::parse(&range, &reserved)
        .ok_or_else(|| Unread::new(RANGE, "it does not have two ports"))
}
