//! What a TCP client is to do, and doing it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::churn::{self, Churn};
use super::client::{Client, Counts, Latencies, Towards};
use super::pattern::Pattern;

#[derive(Clone, Copy, Debug)]
pub enum Work {
    Bulk {
        streams: usize,
        towards: Towards,
    },
    Churn(Churn),
    /// Sessions that made one round trip each and then say nothing.
    Idle {
        sessions: usize,
    },
    /// One stream to a `mixed` server: so many bytes a second, or all that go.
    Paced {
        bytes_per_second: Option<u64>,
    },
    /// Closed loop, or so many a second over all streams.
    RoundTrips {
        streams: usize,
        size: usize,
        per_second: Option<u64>,
    },
}

pub fn run(
    address: SocketAddr,
    work: Work,
    seconds: u64,
    counts: &Counts,
) -> io::Result<Latencies> {
    let mut client = Client {
        address,
        counts,
        pattern: Pattern::new(),
        // Up to a minute, to three digits.
        latencies: Histogram::new_with_max(60_000_000_000, 3).map_err(io::Error::other)?,
        end: Instant::now() + Duration::from_secs(seconds),
    };
    // Else the kernel may wake 50 µs late, to save wake-ups.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    match work {
        Work::Bulk { streams, towards } => client.bulk(streams, towards)?,
        Work::Churn(churn) => churn::run(&mut client, churn)?,
        Work::Idle { sessions } => client.idle(sessions)?,
        Work::Paced { bytes_per_second } => client.paced(bytes_per_second)?,
        Work::RoundTrips { streams, size, per_second } => {
            client.round_trips(streams, size, per_second)?;
        }
    }
    Ok(client.latencies)
}
