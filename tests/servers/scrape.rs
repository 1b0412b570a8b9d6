//! A scrape of many backends does not disturb the sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::harness::{Maitred, free_port, pause};
use crate::local::{Conduct, backend, connect, exchange};

const BACKENDS: u16 = 1000;

/// The longest exchange of a session until it is told to stop.
fn ping_pong(port: u16, stop: &AtomicBool) -> (u64, Duration) {
    let mut stream = connect(port);
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Relaxed) {
        let start = Instant::now();
        exchange(&mut stream).unwrap();
        slowest = slowest.max(start.elapsed());
        count += 1;
    }
    (count, slowest)
}

#[test]
fn a_scrape_of_a_thousand_backends_disturbs_nobody() {
    let port = free_port();
    let many: Vec<String> = (0..BACKENDS)
        .map(|number| format!("\"127.0.{}.{}:9\"", 2 + number / 250, 1 + number % 250))
        .collect();
    let maitred = Maitred::start(&format!(
        "listeners:
  main: {{bind: \"127.0.0.1:{port}\", pool: main}}
pools:
  main: {{backends: [\"127.0.0.1:{}\"], health: {{probe: none}}}}
  many: {{backends: [{}], health: {{probe: none}}}}
",
        backend(Conduct::Echo),
        many.join(", ")
    ));
    let gaps = |load: &dyn Fn()| {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let session = std::thread::spawn(move || ping_pong(port, &stopped));
        load();
        stop.store(true, Relaxed);
        session.join().unwrap()
    };
    let (_, quiet) = gaps(&|| pause(1000));
    let mut times = Vec::new();
    let scrapes = std::cell::RefCell::new(&mut times);
    let (count, slowest) = gaps(&|| {
        for _ in 0..20 {
            let start = Instant::now();
            let metrics = maitred.metrics();
            scrapes.borrow_mut().push((start.elapsed(), metrics.0.len()));
            pause(30);
        }
    });
    times.sort();
    let (median, bytes) = times[times.len() / 2];
    println!(
        "{BACKENDS} backends: a scrape takes {median:?} ({:?} at most) for {bytes} bytes; the slowest of {count} \
         exchanges meanwhile {slowest:?}, without scrapes {quiet:?}",
        times[times.len() - 1].0
    );
    assert!(bytes > 1_000_000, "{bytes} bytes for {BACKENDS} backends");
    assert!(median < Duration::from_secs(1));
    assert!(slowest < Duration::from_millis(250));
}
