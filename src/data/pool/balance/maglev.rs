//! The lookup table of consistent hashing (Maglev), and the hash that assigns clients.
//!
//! Every node of every version must assign a client alike, so all of this is fixed, and pinned by tests:
//! - the hash is SipHash-1-3 with the 128-bit keys below (sixteen ASCII letters, the first eight being the lower word,
//!   each word little-endian), 64 bits out;
//! - members are sorted by name, bytewise; members of weight 0 are left out;
//! - a member's preferences are offset, offset + skip, offset + 2 × skip, … modulo the table's size (a prime), with
//!   offset = hash(`OFFSET_KEY`, name) mod size and skip = hash(`SKIP_KEY`, name) mod (size - 1) + 1;
//! - members take turns by weight (`turns.rs`); at each turn a member claims its next preference that is still free,
//!   until the table is full.
//!
//! So a table depends on names, weights and size alone. A member that comes or goes moves few clients of the others.
//! Four bytes per entry: 256 KiB for 65 537.

use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::super::pick::{narrow, widen};
use super::turns::Turns;

/// Assigns a client: the hash of its key's bytes.
pub const CLIENT_KEY: [u8; 16] = *b"maitred client 1";
const OFFSET_KEY: [u8; 16] = *b"maitred offset 1";
const SKIP_KEY: [u8; 16] = *b"maitred skipby 1";

/// Immutable; shared by the versions of a pool as long as its members are the same.
pub struct Table {
    /// Sorted by name; weights above 0. An entry is an index into these: a rank.
    members: Vec<(Arc<str>, u32)>,
    entries: Vec<u32>,
}

/// An entry that no member has claimed yet.
const FREE: u32 = u32::MAX;

impl Table {
    /// `size` must be prime. Without members the table is empty.
    pub fn build(mut members: Vec<(Arc<str>, u32)>, size: u32) -> Table {
        sort(&mut members);
        debug_assert!(size > 1, "a prime");
        let size_wide = u64::from(size);
        let mut preferences: Vec<Preference> =
            members.iter().map(|(name, _)| Preference::of(name, size_wide)).collect();
        let weights: Vec<u32> = members.iter().map(|(_, weight)| *weight).collect();
        let mut entries = vec![FREE; if members.is_empty() { 0 } else { widen(size) }];
        for rank in Turns::new(&weights).take(entries.len()) {
            let preference = &mut preferences[widen(rank)];
            // Ends: the size is prime, so a member's preferences visit every entry, and one is still free.
            while entries[widen(preference.next)] != FREE {
                preference.advance(size);
            }
            entries[widen(preference.next)] = rank;
            preference.advance(size);
        }
        Table { members, entries }
    }

    /// Whether `build` would make the same table.
    pub fn is_of(&self, members: &[(Arc<str>, u32)], size: u32) -> bool {
        let mut members = members.to_vec();
        sort(&mut members);
        self.members == members && (members.is_empty() || self.entries.len() == widen(size))
    }

    /// The rank on which a hash falls; none in an empty table.
    pub fn rank(&self, hash: u64) -> Option<u32> {
        let size = u64::from(narrow(self.entries.len()));
        let entry = hash.checked_rem(size)?;
        Some(self.entries[usize::try_from(entry).ok()?])
    }

    /// By rank.
    pub fn members(&self) -> &[(Arc<str>, u32)] {
        &self.members
    }

    pub fn entries(&self) -> &[u32] {
        &self.entries
    }
}

/// Drops members without weight.
fn sort(members: &mut Vec<(Arc<str>, u32)>) {
    members.retain(|(_, weight)| *weight > 0);
    members.sort_unstable();
}

struct Preference {
    next: u32,
    skip: u32,
}

impl Preference {
    fn of(name: &str, size: u64) -> Preference {
        let fit = |value: u64| u32::try_from(value).expect("a remainder of a 32-bit size");
        Preference {
            next: fit(hash(OFFSET_KEY, name.as_bytes()) % size),
            skip: fit(hash(SKIP_KEY, name.as_bytes()) % (size - 1) + 1),
        }
    }

    /// Modulo the size, without exceeding 32 bits.
    fn advance(&mut self, size: u32) {
        let left = size - self.skip;
        self.next = if self.next >= left { self.next - left } else { self.next + self.skip };
    }
}

pub fn hash(key: [u8; 16], bytes: &[u8]) -> u64 {
    SipHasher13::new_with_key(&key).hash(bytes)
}

/// The `step`-th further hash of a client whose first choice does not serve: the finalizer of SplitMix64 over hash +
/// step × 2^64/φ. Fixed like the rest.
pub fn rehash(hash: u64, step: u64) -> u64 {
    let mut word = hash.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(weights: &[u32]) -> Vec<(Arc<str>, u32)> {
        weights.iter().enumerate().map(|(i, w)| (format!("backend-{i}").into(), *w)).collect()
    }

    /// By name, because ranks differ between tables.
    fn owners(table: &Table) -> Vec<&str> {
        table.entries.iter().map(|rank| &*table.members[widen(*rank)].0).collect()
    }

    fn digest(table: &Table) -> u64 {
        let bytes: Vec<u8> =
            owners(table).iter().flat_map(|name| [name.as_bytes(), b"\n"].concat()).collect();
        hash(CLIENT_KEY, &bytes)
    }

    /// Changing these moves clients of every installation between backends: never without a new major version.
    #[test]
    fn tables_are_the_same_on_every_node_and_version() {
        let digests = [
            digest(&Table::build(named(&[1; 10]), 65_537)),
            digest(&Table::build(named(&[1, 2, 3, 0, 256]), 65_537)),
            digest(&Table::build(named(&[7; 3]), 251)),
        ];
        assert_eq!(
            digests,
            [11_861_169_060_592_053_009, 11_404_910_783_773_344_227, 15_987_071_779_420_260_465]
        );
    }

    #[test]
    fn a_table_of_nobody_is_empty() {
        assert_eq!(Table::build(named(&[0, 0]), 251).rank(7), None);
        assert_eq!(Table::build(Vec::new(), 251).rank(7), None);
    }

    #[test]
    fn equal_members_have_equal_shares_but_for_one_entry() {
        let table = Table::build(named(&[1; 100]), 65_537);
        let mut counts = vec![0; 100];
        table.entries.iter().for_each(|rank| counts[widen(*rank)] += 1);
        assert!(counts.iter().all(|count| [655, 656].contains(count)), "{counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn listing_order_does_not_matter(
            (listed, shuffled) in prop::collection::vec(0..=256_u32, 1..40)
                .prop_map(|weights| named(&weights))
                .prop_flat_map(|listed| (Just(listed.clone()), Just(listed).prop_shuffle()))
        ) {
            let table = Table::build(listed, 4_093);
            prop_assert!(table.is_of(&shuffled, 4_093));
            let other = Table::build(shuffled, 4_093);
            prop_assert_eq!(owners(&table), owners(&other));
        }

        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1..=256_u32, 1..20)) {
            let table = Table::build(named(&weights), 65_537);
            let total: u32 = weights.iter().sum();
            for (name, weight) in &table.members {
                let share = owners(&table).iter().filter(|owner| **owner == &**name).count() as f64;
                let due = 65_537.0 * f64::from(*weight) / f64::from(total);
                // The last round is dealt only in part.
                prop_assert!((share - due).abs() <= 0.01 * due + 12.0, "{share} of {due}: {weights:?}");
            }
        }

        #[test]
        fn one_that_leaves_moves_little_of_the_others(
            weights in prop::collection::vec(1..=4_u32, 3..30), index in any::<prop::sample::Index>()
        ) {
            let all = named(&weights);
            let gone = index.index(all.len());
            let mut left = all.clone();
            let (name, _) = left.remove(gone);
            let (before, after) = (Table::build(all, 65_537), Table::build(left, 65_537));
            let moved = owners(&before).iter().zip(owners(&after))
                .filter(|(before, after)| **before != &*name && *before != after).count();
            let own = owners(&before).iter().filter(|owner| **owner == &*name).count();
            prop_assert!(moved <= own.max(65_537 / 10), "{moved} moved, {own} were its own");
        }
    }
}
