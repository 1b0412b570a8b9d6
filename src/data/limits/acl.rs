//! Which clients are admitted, by address: `allow` and `deny` as one look-up in a trie. Built when a configuration is
//! applied, used for every session and every new flow; knows neither listeners nor limits.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};

/// The most specific prefix decides; at equal length deny wins. Without any `allow`, a client that matches nothing is
/// admitted; with one, it is denied.
///
/// An IPv4-mapped address (`::ffff:192.0.2.7`) is the IPv4 address, and so is a prefix of such addresses from `/96`
/// on. A shorter IPv6 prefix applies to IPv6 clients only: `deny: ["::/0"]` denies no IPv4 client.
pub struct Acl {
    v4: PrefixMap<Ipv4Net, Ruling>,
    v6: PrefixMap<Ipv6Net, Ruling>,
    otherwise: Ruling,
    /// There are no rules at all, as in most listeners.
    is_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ruling {
    Allow,
    Deny,
}

impl Acl {
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Acl {
        let otherwise = if allow.is_empty() { Ruling::Allow } else { Ruling::Deny };
        let is_open = allow.is_empty() && deny.is_empty();
        let mut acl = Acl { v4: PrefixMap::new(), v6: PrefixMap::new(), otherwise, is_open };
        // In this order deny replaces an allow of the same prefix.
        allow.iter().for_each(|net| acl.rule(*net, Ruling::Allow));
        deny.iter().for_each(|net| acl.rule(*net, Ruling::Deny));
        acl
    }

    /// Walks at most 32 or 128 bits, and allocates nothing.
    pub fn allows(&self, ip: IpAddr) -> bool {
        self.is_open || self.find(ip).unwrap_or(self.otherwise) == Ruling::Allow
    }

    /// Whether a `deny` matches; a client that is merely not allowed is not denied.
    pub fn denies(&self, ip: IpAddr) -> bool {
        !self.is_open && self.find(ip) == Some(Ruling::Deny)
    }

    fn find(&self, ip: IpAddr) -> Option<Ruling> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => ruling(&self.v4, Ipv4Net::from(ip)),
            IpAddr::V6(ip) => ruling(&self.v6, Ipv6Net::from(ip)),
        }
    }

    fn rule(&mut self, net: IpNet, ruling: Ruling) {
        match canonical(net).trunc() {
            IpNet::V4(net) => self.v4.insert(net, ruling),
            IpNet::V6(net) => self.v6.insert(net, ruling),
        };
    }
}

fn ruling<P: Prefix>(rulings: &PrefixMap<P, Ruling>, client: P) -> Option<Ruling> {
    rulings.get_lpm(&client).map(|(_, ruling)| *ruling)
}

/// The first bits of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    let v4 = mapped.and_then(|(ip, length)| Ipv4Net::new(ip, length).ok());
    v4.map_or(net, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn acl(allow: &[&str], deny: &[&str]) -> Acl {
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        Acl::new(&nets(allow), &nets(deny))
    }

    fn allows(acl: &Acl, ip: &str) -> bool {
        acl.allows(ip.parse().unwrap())
    }

    #[test]
    fn without_a_word_everyone_comes_in() {
        let acl = acl(&[], &[]);
        assert!(allows(&acl, "192.0.2.7") && allows(&acl, "2001:db8::7"));
    }

    #[test]
    fn who_matches_nothing_stays_out_once_anybody_is_allowed() {
        let acl = acl(&["10.0.0.0/8"], &[]);
        assert!(allows(&acl, "10.1.2.3"));
        assert!(!allows(&acl, "192.0.2.7") && !allows(&acl, "2001:db8::7"));
    }

    #[test]
    fn the_most_specific_decides_and_deny_wins_a_tie() {
        let acl =
            acl(&["10.0.0.0/8", "10.1.2.3/32", "10.9.0.0/16"], &["10.1.0.0/16", "10.9.0.0/16"]);
        assert!(allows(&acl, "10.2.0.1"));
        assert!(!allows(&acl, "10.1.0.1"));
        assert!(allows(&acl, "10.1.2.3"));
        assert!(!allows(&acl, "10.9.0.1"));
    }

    #[test]
    fn a_mapped_address_and_a_mapped_prefix_are_ipv4() {
        let of_v4 = acl(&[], &["192.0.2.0/24"]);
        assert!(!allows(&of_v4, "::ffff:192.0.2.7"));
        let of_mapped = acl(&[], &["::ffff:192.0.2.0/120"]);
        assert!(!allows(&of_mapped, "192.0.2.7") && allows(&of_mapped, "192.0.3.7"));
        assert!(!allows(&acl(&[], &["::ffff:0:0/96"]), "192.0.2.7"));
        let of_v6 = acl(&[], &["::/0"]);
        assert!(!allows(&of_v6, "2001:db8::7") && allows(&of_v6, "192.0.2.7"));
    }

    /// Few bits differ, so that prefixes contain each other and clients match some.
    fn any_ip() -> impl Strategy<Value = IpAddr> {
        let v4 = (0_u32..4, 0_u32..4).prop_map(|(high, low)| Ipv4Addr::from(high << 30 | low));
        let v6 = (0_u128..4, 0_u128..4).prop_map(|(high, low)| Ipv6Addr::from(high << 126 | low));
        let mapped = v4.clone().prop_map(|ip| ip.to_ipv6_mapped());
        prop_oneof![v4.prop_map(IpAddr::V4), v6.prop_map(IpAddr::V6), mapped.prop_map(IpAddr::V6)]
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        (any_ip(), prop_oneof![0_u8..4, 28_u8..33, 94_u8..129]).prop_map(|(ip, length)| {
            IpNet::new(ip, length.min(if ip.is_ipv4() { 32 } else { 128 })).unwrap()
        })
    }

    /// Every prefix is looked at, and the longest match is remembered.
    fn naive(allow: &[IpNet], deny: &[IpNet], ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let longest = |nets: &[IpNet]| {
            let nets = nets.iter().filter_map(|net| match net {
                IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
                    let IpAddr::V4(own) = ip else { return None };
                    v6.contains(&own.to_ipv6_mapped()).then_some(v6.prefix_len() - 96)
                }
                net => net.contains(&ip).then_some(net.prefix_len()),
            });
            nets.max()
        };
        match (longest(allow), longest(deny)) {
            (None, None) => allow.is_empty(),
            (allow, deny) => allow > deny,
        }
    }

    proptest! {
        #[test]
        fn it_says_what_a_look_at_every_prefix_says(
            allow in prop::collection::vec(any_net(), 0..6),
            deny in prop::collection::vec(any_net(), 0..6),
            clients in prop::collection::vec(any_ip(), 1..20),
        ) {
            let acl = Acl::new(&allow, &deny);
            for ip in clients {
                prop_assert_eq!(acl.allows(ip), naive(&allow, &deny, ip), "{}", ip);
            }
        }
    }
}
