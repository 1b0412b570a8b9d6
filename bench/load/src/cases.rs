//! The cases that products are compared by. Names are in results and must not change their meaning.

use std::time::Duration;

use crate::product::Product::{self, *};
use crate::tcp::churn::{Churn, Ending};
use crate::tcp::client::Towards;
use crate::tcp::server::Mode;
use crate::tcp::work::Work;
use crate::udp::client::Pace;

pub struct Case {
    pub name: &'static str,
    pub unit: Unit,
    pub load: Load,
    pub products: &'static [Product],
    pub workers: usize,
    pub length: Length,
    /// What the kernel may give out on the product's side; the machine's own range if none is given.
    pub port_range: Option<(u16, u16)>,
    /// In `--quick`, too.
    pub is_quick: bool,
    /// Not more rounds than these, where one takes long or differs little from another.
    pub rounds: Option<u32>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Connections,
    Datagrams,
    GiB,
    RoundTrips,
    Sessions,
}

pub enum Load {
    Tcp(Tcp),
    Udp(Udp),
}

pub struct Tcp {
    pub work: Work,
    pub server: Mode,
    /// A second client, whose work is only there.
    pub beside: Option<Work>,
    /// Connections may fail: that they do is what is measured.
    pub may_fail: bool,
    /// Addresses of the one server, each a backend.
    pub backends: u16,
}

pub struct Udp {
    pub flows: u32,
    pub size: usize,
    pub segments: u32,
    /// Datagrams out at once, of each flow.
    of_each: u32,
    /// Of all: no more than a receive queue of the system's default size holds (208 KiB, in which a small datagram
    /// costs 768 bytes), so that no product loses what another one's greater queue would have kept.
    of_all: u32,
}

/// What of a run counts.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// All that is done between warming up and the end of the time asked for.
    Asked { warm: Duration },
    /// So long, however short the other cases are.
    Long { warm: Duration, counted: Duration },
    /// So many units after so many others.
    Units { warm: u64, counted: u64 },
    /// Memory with all sessions open, less that without any.
    Filled,
}

const USUAL: Length = Length::Asked { warm: Duration::from_millis(500) };
/// Every port is in TIME_WAIT long before what counts.
const PORTS_FULL: Length =
    Length::Long { warm: Duration::from_secs(8), counted: Duration::from_secs(12) };
/// Fewer connections than there are ports of the kernel's first choice (every other one of 28 232): nobody meets a
/// TIME_WAIT of the same run.
const FEW: Length = Length::Units { warm: 2_000, counted: 10_000 };

const ASKING: &[Product] = &[RelayCopy, HAProxy, Nginx, Nginx64K, Envoy, Maitred];
const ASKED_MOST: &[Product] = &[Direct, RelayCopy, HAProxy, Nginx, Nginx64K, Envoy, Maitred];
const SENDING: &[Product] =
    &[RelayCopy, RelaySplice, HAProxy, HAProxySplice, Nginx, Nginx64K, Envoy, Maitred];
const SENDING_BEST: &[Product] = &[RelaySplice, HAProxySplice, Nginx64K, Maitred];
const CONNECTING: &[Product] = &[RelayCopy, HAProxy, Nginx, Maitred];
const CONNECTING_MOST: &[Product] = &[Direct, RelayCopy, HAProxy, Nginx, Envoy, Maitred];
const KEEPING: &[Product] = &[HAProxy, Nginx, Envoy, Maitred];
const SCALED: &[Product] = &[HAProxy, Nginx, Maitred];
const DATAGRAMS: &[Product] = &[Nginx, Maitred];
const LONE: &[Product] = &[Direct, RelayCopy, HAProxy, Nginx, Envoy, Maitred, MaitredBusy];
const GROWN: &[Product] =
    &[Maitred, MaitredPorts, MaitredPools, MaitredBackends, MaitredLeast, MaitredLeastMany];

const fn tcp(name: &'static str, unit: Unit, work: Work, server: Mode) -> Case {
    Case {
        name,
        unit,
        load: Load::Tcp(Tcp { work, server, beside: None, may_fail: false, backends: 1 }),
        products: ASKING,
        workers: 1,
        length: USUAL,
        port_range: None,
        is_quick: false,
        rounds: None,
    }
}

const fn round_trips(name: &'static str, streams: usize, size: usize) -> Case {
    let work = Work::RoundTrips { streams, size, per_second: None };
    tcp(name, Unit::RoundTrips, work, Mode::Echo)
}

const fn churn(name: &'static str, ending: Ending) -> Case {
    let server = if matches!(ending, Ending::BackendFirst) { Mode::Close(64) } else { Mode::Echo };
    let work = Work::Churn(Churn { at_once: 64, size: 64, ending });
    Case { products: CONNECTING, ..tcp(name, Unit::Connections, work, server) }
}

const fn bulk(name: &'static str, streams: usize, towards: Towards) -> Case {
    let server = if matches!(towards, Towards::Backend) { Mode::Sink } else { Mode::Source };
    let case = tcp(name, Unit::GiB, Work::Bulk { streams, towards }, server);
    Case { products: SENDING_BEST, ..case }
}

/// A hundred clients, each asking ten times a second, beside another load.
const fn fair(name: &'static str, beside: Option<Work>) -> Case {
    let work = Work::RoundTrips { streams: 100, size: 64, per_second: Some(1000) };
    let load = Tcp { work, server: Mode::Mixed, beside, may_fail: false, backends: 1 };
    Case {
        load: Load::Tcp(load),
        products: CONNECTING,
        ..tcp(name, Unit::RoundTrips, work, Mode::Mixed)
    }
}

const fn udp(
    name: &'static str,
    flows: u32,
    size: usize,
    [segments, of_each, of_all]: [u32; 3],
) -> Case {
    Case {
        name,
        unit: Unit::Datagrams,
        load: Load::Udp(Udp { flows, size, segments, of_each, of_all }),
        products: DATAGRAMS,
        workers: 1,
        length: Length::Asked { warm: Duration::from_secs(1) },
        port_range: None,
        is_quick: false,
        rounds: None,
    }
}

const fn quick(case: Case) -> Case {
    Case { is_quick: true, ..case }
}

const fn two_workers(case: Case) -> Case {
    Case { workers: 2, products: SCALED, ..case }
}

const fn full_ports(name: &'static str, port_range: Option<(u16, u16)>) -> Case {
    let work = Work::Churn(Churn { at_once: 64, size: 64, ending: Ending::ClientFirst });
    let load = Tcp { work, server: Mode::Echo, beside: None, may_fail: true, backends: 1 };
    Case {
        load: Load::Tcp(load),
        products: CONNECTING,
        length: PORTS_FULL,
        rounds: Some(1),
        port_range,
        ..tcp(name, Unit::Connections, work, Mode::Echo)
    }
}

const fn idle() -> Case {
    // How many is for the descriptor limit to say.
    let work = Work::Idle { sessions: 0 };
    let load = Tcp { work, server: Mode::Echo, beside: None, may_fail: false, backends: 4 };
    Case {
        load: Load::Tcp(load),
        products: KEEPING,
        length: Length::Filled,
        rounds: Some(3),
        ..tcp("idle", Unit::Sessions, work, Mode::Echo)
    }
}

const fn gbit(per_second: u64) -> Work {
    Work::Paced { bytes_per_second: Some(per_second * 125_000_000) }
}

pub const CASES: [Case; 36] = [
    quick(Case { products: ASKED_MOST, ..round_trips("rtt-64", 64, 64) }),
    quick(round_trips("rtt-16k", 64, 16 * 1024)),
    Case { products: CONNECTING, ..round_trips("rtt-64k", 64, 64 * 1024) },
    Case { products: LONE, ..round_trips("lone", 1, 64) },
    Case {
        products: CONNECTING,
        ..tcp(
            "open-64",
            Unit::RoundTrips,
            Work::RoundTrips { streams: 64, size: 64, per_second: Some(20_000) },
            Mode::Echo,
        )
    },
    Case { length: FEW, ..churn("churn-client", Ending::ClientFirst) },
    quick(Case { products: CONNECTING_MOST, ..churn("churn-backend", Ending::BackendFirst) }),
    // Not everyone resets the backend too: nginx and the relays end that side with a FIN, and it waits in TIME_WAIT.
    Case { length: FEW, ..churn("churn-reset", Ending::Reset) },
    quick(Case { products: SENDING, ..bulk("bulk-1", 1, Towards::Client) }),
    quick(Case { products: SENDING, ..bulk("bulk-16", 16, Towards::Client) }),
    bulk("bulk-64", 64, Towards::Client),
    bulk("bulk-up-1", 1, Towards::Backend),
    bulk("bulk-up-16", 16, Towards::Backend),
    idle(),
    full_ports("timewait", None),
    full_ports("timewait-2000", Some((40_000, 41_999))),
    Case { products: CONNECTING_MOST, ..fair("fair-alone", None) },
    fair("fair-1g", Some(gbit(1))),
    // As much as each of them still carries: without a limit, who carries more has the load's processor wait for it.
    fair("fair-5g", Some(gbit(5))),
    fair("fair-full", Some(Work::Paced { bytes_per_second: None })),
    two_workers(round_trips("rtt-64-2w", 64, 64)),
    two_workers(round_trips("rtt-16k-2w", 64, 16 * 1024)),
    two_workers(churn("churn-backend-2w", Ending::BackendFirst)),
    two_workers(bulk("bulk-16-2w", 16, Towards::Client)),
    Case { products: GROWN, workers: 2, ..churn("grown", Ending::BackendFirst) },
    beside_idle("beside-idle-0", 0),
    beside_idle("beside-idle-9000", 9000),
    udp("small-1", 1, 64, [1, 64, 64]),
    quick(udp("small-64", 64, 64, [1, 4, 192])),
    udp("small-4096", 4096, 64, [1, 1, 192]),
    udp("plain-1", 1, 1200, [1, 32, 32]),
    udp("plain-64", 64, 1200, [1, 2, 64]),
    udp("plain-4096", 4096, 1200, [1, 1, 64]),
    udp("gso-1", 1, 1200, [40, 80, 80]),
    quick(udp("gso-64", 64, 1200, [40, 40, 80])),
    udp("gso-4096", 4096, 1200, [40, 40, 80]),
];

/// Connections made while so many sessions are open.
const fn beside_idle(name: &'static str, sessions: usize) -> Case {
    let work = Work::Churn(Churn { at_once: 64, size: 64, ending: Ending::Reset });
    let beside = if sessions == 0 { None } else { Some(Work::Idle { sessions }) };
    let load = Tcp { work, server: Mode::Echo, beside, may_fail: false, backends: 1 };
    Case {
        load: Load::Tcp(load),
        products: &[Maitred],
        ..tcp(name, Unit::Connections, work, Mode::Echo)
    }
}

/// What tells whether the benchmark itself works: many flows and segments, round trips, endings, bulk.
pub const SMOKE: [&str; 5] = ["rtt-64", "churn-client", "bulk-1", "small-64", "gso-1"];

pub fn named(name: &str) -> Result<&'static Case, String> {
    let names = || CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    CASES
        .iter()
        .find(|case| case.name == name)
        .ok_or_else(|| format!("`{name}` is none of {}", names()))
}

impl Udp {
    pub fn pace(&self) -> Pace {
        Pace::Window { of_each: self.of_each, of_all: self.of_all }
    }
}

impl Unit {
    /// What a client counts is so many of these.
    pub fn of(self, done: u64) -> f64 {
        match self {
            Unit::GiB => done as f64 / f64::from(1 << 30),
            _ => done as f64,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Unit::Connections => "connection",
            Unit::Datagrams => "datagram",
            Unit::GiB => "GiB",
            Unit::RoundTrips => "round trip",
            Unit::Sessions => "session",
        }
    }
}
