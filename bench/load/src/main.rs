//! Load for the benchmarks, TCP and UDP: servers, clients, minimal relays, and `load compare`, which runs products side
//! by side. What is measured and how stands in bench/README.md; scripts/bench calls it.

// Counts and sizes are small and checked where they come in.
#![allow(clippy::cast_possible_truncation)]

mod flags;
mod tcp;
mod udp;
mod compare;
mod measure;
mod cases;
mod product;
mod setup;
mod place;
mod processor;
mod report;
mod row;
mod running;
mod targets;
mod chart;
mod sys;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use flags::Flags;
use udp::client::{Counts, Load, Pace};
use udp::payload;

const USAGE: &str = "load server     --listen ADDRESS [--seconds 60] [--plain] [--silent]
load client     --to ADDRESS [--flows 1] [--size 64] [--segments 1] [--seconds 5]
                [--window 1] [--in-flight N] | --rate DATAGRAMS_PER_SECOND
load tcp-server --listen ADDRESS --mode echo|close|mixed|sink|source [--size 64] [--seconds 60]
load tcp-client --to ADDRESS --case NAME [--seconds 5]
load relay      --listen ADDRESS --to ADDRESS [--splice] [--seconds 60]
load compare    (see scripts/bench)";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let outcome = Flags::parse(words).and_then(|flags| {
        raise_descriptors();
        match command.as_str() {
            "server" => server(&flags),
            "client" => client(&flags),
            "tcp-server" => tcp_server(&flags),
            "tcp-client" => tcp_client(&flags),
            "relay" => relay(&flags),
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

/// Whoever started this may be killed before it could end it.
fn end_with_the_parent() -> Result<(), String> {
    let signal = Some(rustix::process::Signal::TERM);
    rustix::process::set_parent_process_death_signal(signal).map_err(|error| error.to_string())
}

fn server(flags: &Flags) -> Result<(), String> {
    flags.only(&["listen", "seconds", "plain", "silent"])?;
    let settings = udp::server::Settings {
        listen: flags.needed("listen")?,
        seconds: flags.number("seconds", 60, 1..=3600)?,
        is_plain: flags.has("plain"),
        is_silent: flags.has("silent"),
    };
    end_with_the_parent()?;
    udp::server::run(&settings).map_err(|error| format!("server at {}: {error}", settings.listen))
}

fn tcp_server(flags: &Flags) -> Result<(), String> {
    use tcp::server::Mode;
    flags.only(&["listen", "mode", "size", "seconds"])?;
    let settings = tcp::server::Settings {
        listen: flags.needed("listen")?,
        mode: match flags.needed::<String>("mode")?.as_str() {
            "echo" => Mode::Echo,
            "close" => Mode::Close(flags.number("size", 64, 1..=1 << 20)?),
            "mixed" => Mode::Mixed,
            "sink" => Mode::Sink,
            "source" => Mode::Source,
            mode => {
                return Err(format!(
                    "--mode: `{mode}` is none of echo, close, mixed, sink, source"
                ));
            }
        },
        seconds: flags.number("seconds", 60, 1..=3600)?,
    };
    end_with_the_parent()?;
    tcp::server::run(&settings).map_err(|error| format!("server at {}: {error}", settings.listen))
}

fn tcp_client(flags: &Flags) -> Result<(), String> {
    flags.only(&["to", "case", "seconds"])?;
    let address: SocketAddr = flags.needed("to")?;
    let name: String = flags.needed("case")?;
    let cases::Load::Tcp(load) = &cases::named(&name)?.load else {
        return Err(format!("{name} is not TCP"));
    };
    let counts = tcp::client::Counts::default();
    counts.is_recording.store(true, Relaxed);
    let seconds = flags.number("seconds", 5, 1..=600)?;
    let latencies = tcp::work::run(address, load.work, seconds, &counts)
        .map_err(|error| format!("client of {address}: {error}"))?;
    println!(
        "{{\"done\": {}, \"failed\": {}, \"p50_us\": {:.1}, \"p99_us\": {:.1}}}",
        counts.done.load(Relaxed),
        counts.failed.load(Relaxed),
        latencies.value_at_quantile(0.5) as f64 / 1000.0,
        latencies.value_at_quantile(0.99) as f64 / 1000.0,
    );
    Ok(())
}

fn relay(flags: &Flags) -> Result<(), String> {
    flags.only(&["listen", "to", "splice", "seconds"])?;
    let settings = tcp::relay::Settings {
        listen: flags.needed("listen")?,
        to: flags.needed("to")?,
        is_splicing: flags.has("splice"),
        seconds: flags.number("seconds", 60, 1..=3600)?,
    };
    end_with_the_parent()?;
    tcp::relay::run(&settings).map_err(|error| format!("relay at {}: {error}", settings.listen))
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
    udp::client::run(&load, seconds, &counts, &AtomicBool::new(false))
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
