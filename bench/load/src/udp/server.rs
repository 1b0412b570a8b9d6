//! The server: sends every datagram back in the shape it came in, or only counts. Started by `compare` and by hand;
//! ends by itself.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sys::{self, Batch};

/// Enough to empty the queue in few calls, few enough to stay in the cache.
const BATCH: usize = 32;
const QUEUE: usize = 8 << 20;

pub struct Settings {
    pub listen: SocketAddr,
    pub seconds: u64,
    /// As a server that knows nothing of segments.
    pub is_plain: bool,
    /// Counts and says nothing.
    pub is_silent: bool,
}

#[derive(Default)]
struct Counts {
    datagrams: u64,
    bytes: u64,
    reads: u64,
    unanswered: u64,
    cut: u64,
}

pub fn run(settings: &Settings) -> io::Result<()> {
    let socket = UdpSocket::bind(settings.listen)?;
    sys::make_room(socket.as_fd(), QUEUE)?;
    if !settings.is_plain {
        sys::put_together(socket.as_fd())?;
    }
    let mut batch = Batch::new(BATCH);
    let mut counts = Counts::default();
    let end = Instant::now() + Duration::from_secs(settings.seconds);
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let timeout = Timespec { tv_sec: left.as_secs() as i64 + 1, tv_nsec: 0 };
        let mut ready = [PollFd::new(&socket, PollFlags::IN)];
        poll(&mut ready, Some(&timeout))?;
        // What came in first is answered before the clock is asked again; bounded, so that the end is seen.
        for _ in 0..BATCH {
            let received = batch.receive(socket.as_fd(), BATCH).unwrap_or(0);
            if received == 0 {
                break;
            }
            counts.add(&batch, received);
            if !settings.is_silent {
                counts.unanswered += batch.answer(socket.as_fd(), received) as u64;
            }
        }
    }
    println!(
        "{{\"datagrams\": {}, \"bytes\": {}, \"reads\": {}, \"unanswered\": {}, \"cut\": {}}}",
        counts.datagrams, counts.bytes, counts.reads, counts.unanswered, counts.cut
    );
    Ok(())
}

impl Counts {
    fn add(&mut self, batch: &Batch, received: usize) {
        for index in 0..received {
            let it = batch.received(index);
            self.datagrams += it.bytes.len().div_ceil(it.segment.max(1)).max(1) as u64;
            self.bytes += it.bytes.len() as u64;
            self.reads += 1;
            self.cut += u64::from(it.is_cut);
        }
    }
}
