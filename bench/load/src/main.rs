//! Load for UDP: `load server`, `load client`, and `load compare`, which runs products side by side. What is measured
//! and how stands in bench/README.md; scripts/bench calls it.

// Counts and sizes are small and checked where they come in.
#![allow(clippy::cast_possible_truncation)]

mod flags;
mod server;
mod client;
mod flow;
mod payload;
mod compare;
mod cases;
mod product;
mod place;
mod processor;
mod report;
mod sys;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use client::{Counts, Load, Pace};
use flags::Flags;

const USAGE: &str = "load server  --listen ADDRESS [--seconds 60] [--plain] [--silent]
load client  --to ADDRESS [--flows 1] [--size 64] [--segments 1] [--seconds 5]
             [--window 1] [--in-flight N] | --rate DATAGRAMS_PER_SECOND
load compare (see scripts/bench)";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let outcome = Flags::parse(words).and_then(|flags| {
        raise_descriptors();
        match command.as_str() {
            "server" => server(&flags),
            "client" => client(&flags),
            "compare" => compare::run(&flags),
            _ => Err(USAGE.to_owned()),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn server(flags: &Flags) -> Result<(), String> {
    flags.only(&["listen", "seconds", "plain", "silent"])?;
    let settings = server::Settings {
        listen: flags.needed("listen")?,
        seconds: flags.number("seconds", 60, 1..=3600)?,
        is_plain: flags.has("plain"),
        is_silent: flags.has("silent"),
    };
    // Whoever started it may be killed before it could end this.
    let signal = Some(rustix::process::Signal::TERM);
    rustix::process::set_parent_process_death_signal(signal).map_err(|error| error.to_string())?;
    server::run(&settings).map_err(|error| format!("server at {}: {error}", settings.listen))
}

fn client(flags: &Flags) -> Result<(), String> {
    flags.only(&["to", "flows", "size", "segments", "seconds", "window", "in-flight", "rate"])?;
    let address: SocketAddr = flags.needed("to")?;
    let flows: u32 = flags.number("flows", 1, 1..=18_000)?;
    let size = flags.number("size", 64, payload::SHORTEST..=payload::LONGEST)?;
    let segments: u32 = flags.number("segments", 1, 1..=64)?;
    if segments as usize * size > 65_507 {
        return Err(format!("{segments} segments of {size} bytes are more than a datagram holds"));
    }
    let pace = match flags.value("rate")? {
        Some(rate @ 1..=5_000_000) => Pace::PerSecond(rate),
        Some(rate) => return Err(format!("--rate: {rate} is not within 1 … 5000000")),
        None => {
            let of_each = flags.number("window", segments, segments..=8192)?;
            let most = flows.saturating_mul(of_each);
            Pace::Window { of_each, of_all: flags.number("in-flight", most, segments..=most)? }
        }
    };
    let seconds = flags.number("seconds", 5, 1..=600)?;
    let load = Load { address, flows, size, segments, pace };
    let counts = Counts::default();
    client::run(&load, seconds, &counts, &AtomicBool::new(false))
        .map_err(|error| format!("client of {address}: {error}"))?;
    println!("{}", counts.json());
    let wrong = counts.wrong.load(Relaxed);
    if wrong > 0 { Err(format!("{wrong} wrong answers")) } else { Ok(()) }
}

/// A socket for each flow: as many as this process may ever have.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it the sockets fail, and say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
