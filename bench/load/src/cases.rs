//! The cases that products are compared by. Names are in results and must not change their meaning.

use crate::client::Pace;

pub struct Case {
    pub name: &'static str,
    pub flows: u32,
    pub size: usize,
    pub segments: u32,
    /// Datagrams out at once, of each flow.
    of_each: u32,
    /// Of all: no more than a receive queue of the system's default size holds (208 KiB, in which a small datagram
    /// costs 768 bytes), so that no product loses what another one's greater queue would have kept.
    of_all: u32,
}

const fn case(
    name: &'static str,
    flows: u32,
    size: usize,
    [segments, of_each, of_all]: [u32; 3],
) -> Case {
    Case { name, flows, size, segments, of_each, of_all }
}

pub const CASES: [Case; 9] = [
    case("small-1", 1, 64, [1, 64, 64]),
    case("small-64", 64, 64, [1, 4, 192]),
    case("small-4096", 4096, 64, [1, 1, 192]),
    case("plain-1", 1, 1200, [1, 32, 32]),
    case("plain-64", 64, 1200, [1, 2, 64]),
    case("plain-4096", 4096, 1200, [1, 1, 64]),
    case("gso-1", 1, 1200, [40, 80, 80]),
    case("gso-64", 64, 1200, [40, 40, 80]),
    case("gso-4096", 4096, 1200, [40, 40, 80]),
];

/// What tells whether the benchmark itself works: many flows, and segments.
pub const SMOKE: [&str; 2] = ["small-64", "gso-1"];

impl Case {
    pub fn pace(&self) -> Pace {
        Pace::Window { of_each: self.of_each, of_all: self.of_all }
    }
}
