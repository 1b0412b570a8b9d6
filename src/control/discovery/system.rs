//! The name resolution of a machine or a container: /etc/resolv.conf and /etc/hosts, as resolv.conf(5) and hosts(5)
//! describe them. Works on texts, which `servers` reads. Pure, except for the numbers of interfaces.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::border::addr::ZonedIp;
use crate::sys::interface;

/// As resolv.conf(5): further ones are not asked.
const MOST_SERVERS: usize = 3;
const DNS_PORT: u16 = 53;

/// Where a name is looked up, and as which whole names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    pub servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with this many dots is first tried as a whole name.
    ndots: usize,
    /// By name in lower case, without a dot at the end.
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl System {
    /// Only servers: names are whole, and there is no hosts file.
    pub fn named(servers: &[SocketAddr]) -> System {
        let servers = servers.to_vec();
        System { servers, search: Vec::new(), ndots: 1, hosts: HashMap::new() }
    }

    pub fn read(resolv_conf: &str, hosts: &str) -> System {
        let mut system = System { hosts: read_hosts(hosts), ..System::named(&[]) };
        for line in resolv_conf.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => system.servers.extend(words.next().and_then(server)),
                // The last of these lines counts.
                Some("search" | "domain") => system.search = words.map(whole).collect(),
                Some("options") => {
                    let mut ndots =
                        words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    system.ndots = ndots.next_back().unwrap_or(system.ndots).min(15);
                }
                _ => {}
            }
        }
        system.search.retain(|domain| !domain.is_empty());
        system.servers.truncate(MOST_SERVERS);
        if system.servers.is_empty() {
            system.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
        }
        system
    }

    /// The whole names that `name` may stand for, in order.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') || self.search.is_empty() {
            return vec![whole(name)];
        }
        let mut candidates: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        let place = if dots >= self.ndots { 0 } else { candidates.len() };
        candidates.insert(place, name.to_owned());
        candidates
    }

    /// The content of the hosts file; empty: there are no entries.
    pub fn in_hosts(&self, name: &str) -> &[IpAddr] {
        self.hosts.get(&whole(name)).map_or(&[], Vec::as_slice)
    }
}

/// In lower case, without the dot that marks a whole name.
fn whole(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn server(text: &str) -> Option<SocketAddr> {
    Some(ZonedIp::read(text, interface::number)?.ok()?.at(DNS_PORT))
}

fn read_hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            hosts.entry(whole(name)).or_default().push(ip);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pod_of_kubernetes_searches_its_own_namespace_first() {
        let text = "search db.svc.cluster.local svc.cluster.local. cluster.local\n\
                    nameserver 10.96.0.10\noptions edns0 ndots:5\n";
        let system = System::read(text, "");
        assert_eq!(system.servers, ["10.96.0.10:53".parse().unwrap()]);
        let candidates = system.candidates("postgres");
        assert_eq!(candidates[0], "postgres.db.svc.cluster.local");
        assert_eq!(candidates[3], "postgres", "the name itself at last");
        assert_eq!(
            system.candidates("a.b.c.d.e.f")[0],
            "a.b.c.d.e.f",
            "five dots: whole to begin with"
        );
        assert_eq!(system.candidates("postgres."), ["postgres"], "a dot at the end: nothing else");
    }

    #[test]
    fn without_anything_it_is_the_server_on_this_machine() {
        let system = System::read("", "");
        assert_eq!(system.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(system.candidates("db"), ["db"]);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let text = "; old\nnameserver fe80::1%no-such-one\nnameserver fe80::2%7 # here\nnameserver x\nsearch a\n\
                    domain b\noptions ndots:x rotate\nsortlist 1.2.3.4\nnameserver";
        let system = System::read(text, "x y\n127.0.0.1\n192.0.2.1 Db db.lan # dba\n::2 db");
        assert_eq!(system.servers, ["[fe80::2%7]:53".parse().unwrap()]);
        assert_eq!(system.candidates("db"), ["db.b", "db"]);
        let ips = ["192.0.2.1", "::2"].map(|ip| ip.parse::<IpAddr>().unwrap());
        assert_eq!(system.in_hosts("DB."), ips);
        assert!(system.in_hosts("dba").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_is_too_wild(resolv_conf in ".*", hosts in ".*", name in "[a-z.]{0,40}") {
            let system = System::read(&resolv_conf, &hosts);
            prop_assert!((1..=MOST_SERVERS).contains(&system.servers.len()));
            prop_assert!(!system.candidates(&name).is_empty());
        }
    }
}
