//! DNS answers in our terms: addresses that can be connected to, and services with tier and weight. Sorted, and each
//! once, because servers shuffle their answers. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::config::Service;

/// One SRV record whose host was resolved.
#[derive(Clone, Debug)]
pub struct Record {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub ips: Vec<IpAddr>,
}

/// The highest tier that a backend may have.
const MAX_WEIGHT: u32 = 256;
const MAX_TIER: u32 = 255;

/// Those addresses that belong to one machine.
pub fn addresses(ips: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let ips = ips.into_iter().map(|ip| ip.to_canonical());
    let reachable: BTreeSet<IpAddr> =
        ips.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).collect();
    reachable.into_iter().collect()
}

/// The lowest priority is tier 0, the next one tier 1, and so on; weights are scaled to our range within each
/// priority. An address that occurs twice has what its lowest tier says.
pub fn services(records: &[Record]) -> Vec<Service> {
    let priorities: BTreeSet<u16> = records.iter().map(|record| record.priority).collect();
    let mut taken: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut services = Vec::new();
    for (tier, priority) in (0_u32..).zip(priorities) {
        let of_tier = || records.iter().filter(|record| record.priority == priority);
        let scale = Scale::of(of_tier().map(|record| record.weight));
        let mut found: Vec<Service> = Vec::new();
        for record in of_tier().filter(|record| record.port != 0) {
            let weight = scale.weight(record.weight);
            let tier = tier.min(MAX_TIER);
            let addresses = addresses(record.ips.iter().copied());
            found.extend(addresses.into_iter().map(|ip| {
                let address = SocketAddr::new(ip, record.port);
                Service { tier, address, weight }
            }));
        }
        found.sort();
        services.extend(found.into_iter().filter(|service| taken.insert(service.address)));
    }
    services
}

/// How the weights of one priority become ours.
///
/// RFC 2782 has shares from 0 to 65535. A 0 beside larger ones gets "a very small chance"; if all are 0, there is
/// nothing to choose by. In maitred a weight of 0 would get no sessions at all.
enum Scale {
    /// All are 0.
    Alike,
    AsIs,
    /// Multiplied by 256 / this, at least 1.
    Down(u32),
}

impl Scale {
    fn of(weights: impl Iterator<Item = u16> + Clone) -> Scale {
        let highest = weights.clone().max().unwrap_or(0);
        let has_zero = weights.into_iter().any(|weight| weight == 0);
        match u32::from(highest) {
            0 => Scale::Alike,
            highest if highest <= MAX_WEIGHT && !has_zero => Scale::AsIs,
            highest => Scale::Down(highest),
        }
    }

    fn weight(&self, weight: u16) -> u32 {
        let weight = u32::from(weight);
        match self {
            Scale::Alike => 1,
            Scale::AsIs => weight,
            // Rounded to the nearest; at most 65535 × 256 and a bit.
            Scale::Down(highest) => ((weight * MAX_WEIGHT + highest / 2) / highest).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// One record for each, at addresses of their own.
    fn weights(weights: &[u16]) -> Vec<u32> {
        let records: Vec<Record> = (1..)
            .zip(weights)
            .map(|(last, weight)| Record {
                priority: 7,
                weight: *weight,
                port: 1,
                ips: vec![ip(last)],
            })
            .collect();
        services(&records).iter().map(|service| service.weight).collect()
    }

    #[test]
    fn weights_keep_their_shares() {
        assert_eq!(weights(&[10, 20, 256]), [10, 20, 256], "what fits is as it is");
        assert_eq!(weights(&[0, 0, 0]), [1, 1, 1], "nothing to choose by");
        assert_eq!(weights(&[65535, 32768, 1]), [256, 128, 1]);
        assert_eq!(weights(&[100, 0]), [256, 1], "a very small chance");
        assert_eq!(weights(&[0]), [1]);
    }

    #[test]
    fn priorities_are_tiers_without_gaps_and_who_is_in_two_is_in_the_lower() {
        let record =
            |priority, last: u8| Record { priority, weight: 5, port: 80, ips: vec![ip(last)] };
        let found = services(&[record(50, 1), record(10, 2), record(65535, 3), record(50, 2)]);
        let found: Vec<(u32, String)> =
            found.iter().map(|service| (service.tier, service.address.to_string())).collect();
        let expected = [(0, "192.0.2.2:80"), (1, "192.0.2.1:80"), (2, "192.0.2.3:80")];
        assert_eq!(found, expected.map(|(tier, address)| (tier, address.to_owned())));
    }

    #[test]
    fn what_nobody_can_connect_to_is_left_out() {
        let ips = ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:192.0.2.1", "192.0.2.1"];
        let found = addresses(ips.map(|ip| ip.parse().unwrap()));
        assert_eq!(found, [ip(1)]);
        let record = Record { priority: 0, weight: 0, port: 0, ips: vec![ip(1)] };
        assert!(services(&[record]).is_empty());
    }

    proptest! {
        #[test]
        fn the_order_of_an_answer_never_matters(
            mut records in prop::collection::vec((0_u16..4, any::<u16>(), 1_u16..4, 0_u8..9), 0..20),
            turn in 0_usize..20,
        ) {
            let made = |records: &[(u16, u16, u16, u8)]| {
                let record = |&(priority, weight, port, last)| Record { priority, weight, port, ips: vec![ip(last)] };
                services(&records.iter().map(record).collect::<Vec<_>>())
            };
            // Two records of one service in one priority would contradict each other.
            let mut seen = BTreeSet::new();
            records.retain(|&(priority, _, port, last)| seen.insert((priority, port, last)));
            let before = made(&records);
            let turn = turn.min(records.len());
            records.rotate_left(turn);
            records.reverse();
            prop_assert_eq!(&before, &made(&records));
            for service in before {
                prop_assert!((1..=MAX_WEIGHT).contains(&service.weight) && service.tier < 4);
            }
        }
    }
}
