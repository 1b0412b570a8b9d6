//! The ports from which this host's kernel chooses, by the sysctls, and which of them maitred may choose instead.

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;

/// `net.ipv4.ip_local_port_range` and `ip_local_reserved_ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub range: RangeInclusive<u16>,
    pub reserved: BTreeSet<u16>,
}

impl PortRange {
    /// Reads the sysctls; without /proc, the kernel's own defaults.
    pub fn of_this_host() -> PortRange {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let reserved = read("ip_local_reserved_ports").unwrap_or_default();
        read("ip_local_port_range")
            .ok()
            .and_then(|range| PortRange::parse(&range, &reserved))
            .unwrap_or_else(|| PortRange {
                range: 32_768..=60_999,
                reserved: parse_ports(&reserved),
            })
    }

    /// From the texts of both sysctls.
    pub fn parse(range: &str, reserved: &str) -> Option<PortRange> {
        let mut words = range.split_whitespace().map(str::parse);
        let range = words.next()?.ok()?..=words.next()?.ok()?;
        Some(PortRange { range, reserved: parse_ports(reserved) })
    }

    pub fn len(&self) -> usize {
        self.range.len()
    }

    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The ports that the kernel may choose: the range without the reserved ones.
    pub fn choosable(&self) -> impl Iterator<Item = u16> {
        self.range.clone().filter(|port| !self.reserved.contains(port))
    }

    /// The ports that maitred may choose, beginning at a place of the destination's own so that few sockets share one
    /// port.
    pub fn own(&self, start: u64) -> VecDeque<u16> {
        let first = *self.range.start();
        let mut ports: VecDeque<u16> =
            self.choosable().filter(|port| (port - first) % 2 == 1).collect();
        if let Some(offset) = start.checked_rem(ports.len() as u64) {
            ports.rotate_left(usize::try_from(offset).unwrap_or(0));
        }
        ports
    }
}

/// `8080,9148-9150`.
fn parse_ports(text: &str) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            ports.extend(first..=last);
        }
    }
    ports
}

/// The same, from ports: the value for the sysctl.
pub fn write_ports(ports: &BTreeSet<u16>) -> String {
    let mut runs: Vec<RangeInclusive<u16>> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some(run) if *run.end() + 1 == *port => *run = *run.start()..=*port,
            _ => runs.push(*port..=*port),
        }
    }
    let run = |run: &RangeInclusive<u16>| match (run.start(), run.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_the_odd_offsets_without_reserved_ones() {
        let range = PortRange::parse("1000\t1009\n", "1003,1006-1008\n").unwrap();
        assert_eq!(range.own(0), [1001, 1005, 1009]);
        assert_eq!(range.own(4), [1005, 1009, 1001]);
        assert_eq!(range.choosable().count(), 6);
        assert_eq!(write_ports(&range.reserved), "1003,1006-1008");
    }

    #[test]
    fn an_empty_range_has_no_ports() {
        assert!(PortRange::parse("1000 1000", "").unwrap().own(7).is_empty());
    }

    #[test]
    fn every_port_can_be_written() {
        assert_eq!(write_ports(&(0..=u16::MAX).collect()), "0-65535");
        assert_eq!(write_ports(&BTreeSet::new()), "");
    }
}
