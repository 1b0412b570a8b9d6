//! Judges the network's sysctls: ports, queues, connection tracking, buffers. Each rule is pure.

use std::collections::BTreeSet;

use super::facts::{Capability, Conntrack, Facts};
use super::finding::Severity::{WillBreak, WillHurt};
use super::finding::Verdict;
use super::needs::{LimitedBackend, Needs, Reach};
use super::reading::Unread;
use crate::border::addr::ZonedIp;
use crate::sys::datagram::{FLOW_BUFFER, LISTENER_BUFFER};
use crate::sys::port_range::write_ports;

/// Fewer source ports than this count as few; the kernel's default range has 28 232.
const FEW_PORTS: u64 = 16_384;

/// Seconds for which a port cannot be reused after we closed its connection; the kernel's TIME_WAIT.
const REST: u64 = 60;

/// Below this the kernel lets only privileged processes bind, unless configured otherwise.
const FIRST_UNPRIVILEGED: u64 = 1024;

pub fn privileged_ports(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let start = match (&facts.unprivileged_port_start, needs.ports.first()) {
        (_, None) => return Ok(Verdict::NotAsked),
        // Every kernel without the sysctl has this limit.
        (Err(_), Some(least)) if u64::from(*least) >= FIRST_UNPRIVILEGED => FIRST_UNPRIVILEGED,
        (start, _) => start.clone()?,
    };
    if start == 0 {
        // As container runtimes set it.
        return Ok(Verdict::Well("every user may bind every port".to_owned()));
    }
    let low: BTreeSet<u16> =
        needs.ports.iter().copied().filter(|port| u64::from(*port) < start).collect();
    let Some(lowest) = low.first() else {
        return Ok(Verdict::Well(format!("no listener below port {start}")));
    };
    let ports = write_ports(&low);
    if facts.process.clone()?.has(Capability::NetBindService) {
        return Ok(Verdict::Well(format!("CAP_NET_BIND_SERVICE, for port {ports}")));
    }
    Ok(Verdict::Ill {
        severity: WillBreak,
        figure: format!("no CAP_NET_BIND_SERVICE, and ports below {start} are privileged"),
        needed: format!("the privilege to bind port {ports}"),
        why: "binding is refused (permission denied), and maitred does not start".to_owned(),
        mend: format!(
            "`AmbientCapabilities=CAP_NET_BIND_SERVICE` in a systemd unit, `--cap-add NET_BIND_SERVICE` for a container \
             of root, `setcap cap_net_bind_service=+ep` on the program, or `sysctl -w \
             net.ipv4.ip_unprivileged_port_start={lowest}`"
        ),
    })
}

pub fn listener_ports(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let ports = facts.ports.clone()?;
    let is_open = |port: &u16| ports.range.contains(port) && !ports.reserved.contains(port);
    let open: BTreeSet<u16> = needs.ports.iter().copied().filter(is_open).collect();
    if open.is_empty() {
        return Ok(Verdict::Well(
            "no listener's port is in the kernel's range of source ports".to_owned(),
        ));
    }
    let reserved: BTreeSet<u16> = ports.reserved.union(&open).copied().collect();
    let open = write_ports(&open);
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure: format!(
            "{}-{} are source ports, and port {open} among them is not reserved",
            ports.range.start(),
            ports.range.end()
        ),
        needed: format!("port {open} in net.ipv4.ip_local_reserved_ports"),
        why: "when maitred starts or reloads, a connection of any program may use the port; then binding fails (address \
              in use)"
            .to_owned(),
        mend: format!("`sysctl -w net.ipv4.ip_local_reserved_ports={}`", write_ports(&reserved)),
    })
}

pub fn somaxconn(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    if !needs.has_tcp {
        return Ok(Verdict::NotAsked);
    }
    let most = facts.somaxconn.clone()?;
    let backlog = needs.backlog;
    let figure = format!("{most} connections in an accept queue");
    if most >= backlog {
        return Ok(Verdict::Well(figure));
    }
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure,
        needed: format!("{backlog} connections: the `backlog` of a listener"),
        why: "each worker has an accept queue for each address; in a rush, clients that do not fit wait a second or \
              longer for their next try"
            .to_owned(),
        mend: format!("`sysctl -w net.core.somaxconn={backlog}`, or a lower `backlog`"),
    })
}

pub fn source_ports(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    if !needs.has_tcp {
        return Ok(Verdict::NotAsked);
    }
    let range = facts.ports.clone()?;
    let (ports, own) = (range.choosable().count() as u64, range.own(0).len());
    let figure = format!(
        "{ports} source ports ({}-{} without reserved ones), {own} of them at an odd offset, for `source_ports`",
        range.range.start(),
        range.range.end()
    );
    let ill = |severity, needed| {
        Verdict::Ill {
        severity,
        figure: figure.clone(),
        needed,
        why: format!(
            "only so many sessions at once can go to one backend from one source address, further ones fail \
             (no_source_port); if the kernel chooses ports and maitred closes first, {} connections a second",
            ports / REST
        ),
        mend: "`sysctl -w net.ipv4.ip_local_port_range=\"10240 60999\"`, or several addresses in the pool's `source`"
            .to_owned(),
    }
    };
    let short = |it: &&LimitedBackend| it.pairs.saturating_mul(ports) < it.max_sessions;
    if let Some(backend) = needs.limited_backends.iter().find(short) {
        let needed = format!(
            "{} source ports: {} sessions (max_sessions) of backend {} over {}",
            backend.max_sessions.div_ceil(backend.pairs.max(1)),
            backend.max_sessions,
            backend.name,
            pairs_of(backend.pairs)
        );
        return Ok(ill(WillBreak, needed));
    }
    if let Some(pairs) = needs.pairs {
        let load = needs.load(facts.descriptors.clone()?);
        if load.is_configured && pairs.saturating_mul(ports) < load.sessions {
            let needed = format!(
                "{} source ports: {} sessions over {}",
                load.sessions.div_ceil(pairs),
                load.sessions,
                pairs_of(pairs)
            );
            return Ok(ill(WillBreak, needed));
        }
    }
    if ports < FEW_PORTS {
        return Ok(ill(WillHurt, format!("{FEW_PORTS} source ports")));
    }
    Ok(Verdict::Well(figure))
}

pub fn source_addresses(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let list = |sources: Vec<String>| sources.join(", ");
    if needs.sources.is_empty() {
        return Ok(Verdict::Well("no pool has a `source`".to_owned()));
    }
    if facts.absent_sources.is_empty() {
        let sources = list(needs.sources.iter().map(ZonedIp::to_string).collect());
        return Ok(Verdict::Well(format!("{sources}: addresses of this machine")));
    }
    let absent = list(facts.absent_sources.iter().map(ZonedIp::to_string).collect());
    Ok(Verdict::Ill {
        severity: WillBreak,
        figure: format!("{absent}: not an address of this machine"),
        needed: "every address of a pool's `source` on an interface of this machine".to_owned(),
        why: "sessions (no_source_port) and probes (local_error) cannot connect from it".to_owned(),
        mend: format!("`ip address add {}/32 dev …`, or another `source`", facts.absent_sources[0]),
    })
}

fn pairs_of(count: u64) -> String {
    match count {
        1 => "one pair of source address and backend address".to_owned(),
        _ => format!("{count} pairs of source address and backend address"),
    }
}

pub fn tw_reuse(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    if !needs.has_tcp {
        return Ok(Verdict::NotAsked);
    }
    let reuse = facts.tw_reuse.clone()?;
    let meaning = match reuse {
        0 => "never",
        1 => "for every connection",
        _ => "on loopback only",
    };
    let figure = format!("{reuse} (ports in TIME_WAIT are reused {meaning})");
    let is_enough = match needs.kernel_ports {
        None => {
            return Ok(Verdict::Well(format!("{figure}; `source_ports: auto` does not need it")));
        }
        Some(Reach::Loopback) => reuse != 0,
        Some(Reach::Network) => reuse == 1,
    };
    if is_enough {
        return Ok(Verdict::Well(figure));
    }
    let ports = facts.ports.clone()?.choosable().count() as u64;
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure,
        needed: "1, because a pool has `source_ports: kernel`".to_owned(),
        why: format!(
            "if maitred closes first, more than {} connections a second to one backend use up the {ports} source ports; \
             then each connection costs milliseconds of CPU time or fails (no_source_port)",
            ports / REST
        ),
        mend: "`sysctl -w net.ipv4.tcp_tw_reuse=1`, or `source_ports: auto` in the pool".to_owned(),
    })
}

pub fn timestamps(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    if !needs.has_tcp {
        return Ok(Verdict::NotAsked);
    }
    let timestamps = facts.timestamps.clone()?;
    if timestamps != 0 {
        return Ok(Verdict::Well(format!("{timestamps} (TCP timestamps are on)")));
    }
    let ports = facts.ports.clone()?.choosable().count() as u64;
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure: "0 (TCP timestamps are off)".to_owned(),
        needed: "1".to_owned(),
        why: format!(
            "without them a source port cannot be reused for {REST} s after maitred closed first: at most {} connections \
             a second to one backend in the long run",
            ports / REST
        ),
        mend: "`sysctl -w net.ipv4.tcp_timestamps=1`; backends need them as well".to_owned(),
    })
}

pub fn conntrack(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let Some(conntrack) = facts.conntrack.clone() else {
        return Ok(Verdict::Well("no connection tracking".to_owned()));
    };
    let Conntrack { count, max } = conntrack?;
    if max == 0 {
        return Ok(Verdict::Well(format!("{count} entries in use, no limit")));
    }
    let load = needs.load(facts.descriptors.clone()?);
    let wanted = load.sessions.saturating_add(load.flows).saturating_mul(2);
    let figure = format!("{count} of {max} entries in use");
    let is_nearly_full = count.saturating_mul(10) >= max.saturating_mul(9);
    let severity = match (max < wanted, load.is_configured, count > 0) {
        (true, true, true) => WillBreak,
        (true, true, false) | (true, false, true) => WillHurt,
        _ if is_nearly_full && count > 0 => WillHurt,
        // With no entry at all, no rule of this network namespace tracks anything.
        _ => return Ok(Verdict::Well(figure)),
    };
    let wanted = wanted.max(max.saturating_mul(2).min(count.saturating_mul(2)));
    Ok(Verdict::Ill {
        severity,
        figure,
        needed: format!(
            "{wanted} entries: 2 for each of {} sessions and {} flows, and room for other connections",
            load.sessions, load.flows
        ),
        why: "when the table is full, the kernel drops packets of new connections: clients and probes see timeouts"
            .to_owned(),
        mend: format!(
            "`sysctl -w net.netfilter.nf_conntrack_max={wanted}` (in the initial network namespace), or rules with \
             `notrack` for maitred's ports"
        ),
    })
}

pub fn udp_buffers(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    if !needs.has_udp {
        return Ok(Verdict::NotAsked);
    }
    let (receive, send) = facts.udp_buffers.clone()?;
    let figure = format!("{receive} bytes to receive, {send} bytes to send, for a UDP socket");
    if receive.min(send) >= LISTENER_BUFFER {
        return Ok(Verdict::Well(figure));
    }
    let or = match needs.user {
        None => ", or give maitred CAP_NET_ADMIN",
        // The capability would be given up.
        Some(_) => "",
    };
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure,
        needed: format!("{LISTENER_BUFFER} bytes for a listener, {FLOW_BUFFER} for each flow"),
        why: "bursts that do not fit are lost, counted as maitred_udp_dropped_total{reason=\"receive_buffer\"}".to_owned(),
        mend: format!(
            "`sysctl -w net.core.rmem_max={LISTENER_BUFFER} net.core.wmem_max={LISTENER_BUFFER}`{or}"
        ),
    })
}
