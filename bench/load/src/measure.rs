//! One product in one round of one case: server, product, client; counts what the client got done and what it cost.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cases::{Case, Length, Load, Tcp, Udp};
use crate::place::Place;
use crate::processor::{self, Machine};
use crate::product::{Product, Tools};
use crate::running::Running;
use crate::setup::Setup;
use crate::tcp::client::{Counts, Latencies};
use crate::tcp::server::Mode;
use crate::tcp::work::{self, Work};
use crate::udp;

/// How long a product may take until the first answer passes through it.
const START: Duration = Duration::from_secs(20);
/// Longer than any run: clients stop when they are told to.
const LONGEST_RUN: u64 = 300;
/// For units counted rather than time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Addresses of the one server where a product is to have very many backends.
const MANY: u16 = 5000;

#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    pub seconds: f64,
    /// Units of the case.
    pub done: f64,
    /// Connections that failed.
    pub failed: u64,
    /// Datagrams.
    pub sent: u64,
    pub lost: u64,
    pub wrong: u64,
    pub late_or_twice: u64,
    /// Of the product; 0 without one.
    pub product_seconds: f64,
    /// Of the processor it is pinned to, whoever ran there.
    pub processor_seconds: f64,
    /// Of the whole machine.
    pub machine_seconds: f64,
    pub stolen_seconds: f64,
    pub latency: Option<Latency>,
    /// Memory that a product took for each session.
    pub bytes_per_session: Option<f64>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

pub struct Bench<'a> {
    pub place: &'a Place,
    pub tools: &'a Tools,
    pub length: Duration,
}

impl Bench<'_> {
    pub fn measure(&self, product: Product, case: &Case) -> Result<Run, String> {
        let listen = self.place.product()?;
        // Without a product the server itself stands on the far side.
        let backend = if product == Product::Direct { listen } else { self.place.backend()? };
        let count = if let Load::Tcp(Tcp { backends, .. }) = case.load { backends } else { 1 };
        let setup = Setup {
            is_udp: matches!(case.load, Load::Udp(_)),
            listen,
            backends: match count {
                1 => vec![backend],
                count => self.place.many(count, backend.port()),
            },
            many: self.place.many(MANY, backend.port()),
            workers: case.workers,
        };
        let range = case.port_range.map(|range| self.place.set_port_range(range)).transpose()?;
        let run = match &case.load {
            Load::Tcp(load) => self.tcp(product, case, load, &setup, backend),
            Load::Udp(load) => self.udp(product, case, load, &setup),
        };
        if let Some(range) = range {
            self.place.set_port_range(range)?;
        }
        self.place.forget_time_wait()?;
        run
    }

    fn tcp(
        &self,
        product: Product,
        case: &Case,
        load: &Tcp,
        setup: &Setup,
        backend: SocketAddr,
    ) -> Result<Run, String> {
        let (mode, size) = match load.server {
            Mode::Close(size) => ("close", size),
            Mode::Echo => ("echo", 1),
            Mode::Mixed => ("mixed", 1),
            Mode::Sink => ("sink", 1),
            Mode::Source => ("source", 1),
        };
        let any = SocketAddr::from(([0, 0, 0, 0], backend.port()));
        let mut command = self.server(product, "tcp-server", any)?;
        command.args(["--mode", mode, "--size", &size.to_string()]);
        let mut server = Running::start(&mut command)?;
        wait_for_tcp(backend, Some(&mut server))?;
        let mut running = product.start(self.place, setup, self.tools)?;
        wait_for_tcp(setup.listen, running.as_mut())?;
        let id = running.as_ref().map(Running::id);
        let memory = || id.map_or(0, processor::memory_of_family);
        // The connection that looked whether anybody is there may still be ending.
        std::thread::sleep(Duration::from_millis(50));
        let empty = memory();

        let beside = load.beside.map(|work| TcpClient::start(setup.listen, work));
        if let (Some(Work::Idle { sessions }), Some(client)) = (load.beside, &beside) {
            client.wait_until(sessions as u64)?;
        }
        let sessions = most_sessions();
        let work = match load.work {
            Work::Idle { sessions: 0 } => Work::Idle { sessions },
            work => work,
        };
        let client = TcpClient::start(setup.listen, work);
        let run = self.look(case, &client, id, sessions as u64)?;
        let taken = memory().saturating_sub(empty) as f64 / sessions as f64;
        let latencies = client.stop()?;
        if let Some(beside) = beside {
            beside.stop()?;
        }
        if running.as_mut().is_some_and(Running::has_ended) {
            return Err("it ended by itself".to_owned());
        }
        if run.failed > 0 && !load.may_fail {
            return Err(format!("{} connections failed", run.failed));
        }
        let bytes_per_session = matches!(case.length, Length::Filled).then_some(taken);
        Ok(Run { latency: latency(&latencies), bytes_per_session, ..run })
    }

    /// What was done and what it cost, over the part of a run that counts.
    fn look(
        &self,
        case: &Case,
        client: &TcpClient,
        id: Option<u32>,
        sessions: u64,
    ) -> Result<Run, String> {
        let counts = &client.counts;
        let look = || {
            let counted = [counts.done.load(Relaxed), counts.failed.load(Relaxed), 0, 0];
            Look::now(self.place, id, counted)
        };
        match case.length {
            // What is measured is this time of load, after that which is not.
            Length::Asked { warm } | Length::Long { warm, .. } => std::thread::sleep(warm),
            Length::Units { warm, .. } => client.wait_until(warm)?,
            Length::Filled => {}
        }
        counts.is_recording.store(true, Relaxed);
        let before = look()?;
        match case.length {
            // The measuring itself.
            Length::Asked { .. } => std::thread::sleep(self.length),
            Length::Long { counted, .. } => std::thread::sleep(counted.max(self.length)),
            Length::Units { warm, counted } => client.wait_until(warm + counted)?,
            Length::Filled => client.wait_until(sessions)?,
        }
        let after = look()?;
        counts.is_recording.store(false, Relaxed);
        Ok(before.until(&after, case))
    }

    fn udp(&self, product: Product, case: &Case, load: &Udp, setup: &Setup) -> Result<Run, String> {
        let mut command = self.server(product, "server", setup.backends[0])?;
        if load.segments == 1 {
            command.arg("--plain");
        }
        let _server = Running::start(&mut command)?;
        let mut running = product.start(self.place, setup, self.tools)?;
        wait_for_an_answer(setup.listen, running.as_mut())?;
        let id = running.as_ref().map(Running::id);
        let client = UdpClient::start(udp::client::Load {
            address: setup.listen,
            flows: load.flows,
            size: load.size,
            segments: load.segments,
            pace: load.pace(),
        });
        let look = || {
            let counts = &client.counts;
            let counted = [&counts.received, &counts.sent, &counts.lost, &counts.late_or_twice];
            Look::now(self.place, id, counted.map(|count| count.load(Relaxed)))
        };
        if let Length::Asked { warm } = case.length {
            // As for TCP.
            std::thread::sleep(warm);
        }
        let before = look()?;
        // The measuring itself.
        std::thread::sleep(self.length);
        let after = look()?;
        let counts = client.stop()?;
        if running.as_mut().is_some_and(Running::has_ended) {
            return Err("it ended by itself".to_owned());
        }
        // Wrong answers count whenever they came.
        Ok(Run { wrong: counts.wrong.load(Relaxed), ..before.until(&after, case) })
    }

    /// The server. Beside the client, but on the far side if no product stands between them.
    fn server(&self, product: Product, kind: &str, address: SocketAddr) -> Result<Command, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let own = own.display().to_string();
        let mut command = match product {
            Product::Direct => self.place.far_command(&own),
            _ => Command::new(&own),
        };
        command.args([kind, "--listen", &address.to_string(), "--seconds", "600"]);
        command.stdout(Stdio::null());
        Ok(command)
    }
}

/// As many as a product may have with this descriptor limit: two descriptors each, and a sixteenth kept back.
fn most_sessions() -> usize {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20) as usize;
    ((limit - limit / 16) / 2 - 100).min(50_000)
}

fn latency(latencies: &Latencies) -> Option<Latency> {
    let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    (!latencies.is_empty()).then(|| Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
}

/// A TCP client, in a thread of its own.
struct TcpClient {
    counts: Arc<Counts>,
    thread: JoinHandle<std::io::Result<Latencies>>,
}

impl TcpClient {
    fn start(address: SocketAddr, work: Work) -> TcpClient {
        let counts = Arc::new(Counts::default());
        let its = Arc::clone(&counts);
        let thread = std::thread::spawn(move || work::run(address, work, LONGEST_RUN, &its));
        TcpClient { counts, thread }
    }

    fn wait_until(&self, done: u64) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        while self.counts.done.load(Relaxed) < done {
            if Instant::now() > end || self.thread.is_finished() {
                return Err(format!("{} of {done} done", self.counts.done.load(Relaxed)));
            }
            // Between two looks.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn stop(self) -> Result<Latencies, String> {
        self.counts.stop.store(true, Relaxed);
        let ended = self.thread.join().map_err(|_| "the client panicked".to_owned())?;
        ended.map_err(|error| format!("client: {error}"))
    }
}

/// A UDP client, in a thread of its own.
struct UdpClient {
    counts: Arc<udp::client::Counts>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl UdpClient {
    fn start(load: udp::client::Load) -> UdpClient {
        let (counts, stop) = <(Arc<udp::client::Counts>, Arc<AtomicBool>)>::default();
        let (its_counts, its_stop) = (Arc::clone(&counts), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            udp::client::run(&load, LONGEST_RUN, &its_counts, &its_stop)
        });
        UdpClient { counts, stop, thread }
    }

    fn stop(self) -> Result<Arc<udp::client::Counts>, String> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.join().map_err(|_| "the client panicked".to_owned())?;
        ended.map_err(|error| format!("client: {error}"))?;
        Ok(self.counts)
    }
}

fn wait_for_tcp(address: SocketAddr, mut process: Option<&mut Running>) -> Result<(), String> {
    let end = Instant::now() + START;
    while Instant::now() < end {
        if process.as_deref_mut().is_some_and(Running::has_ended) {
            return Err("it ended at once".to_owned());
        }
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        // Between two tries.
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("nobody at {address} within {START:?}"))
}

fn wait_for_an_answer(
    address: SocketAddr,
    mut product: Option<&mut Running>,
) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    socket.connect(address).map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_millis(20))).map_err(failed)?;
    let end = Instant::now() + START;
    let mut answer = [0; 16];
    while Instant::now() < end {
        if product.as_deref_mut().is_some_and(Running::has_ended) {
            return Err("it ended at once".to_owned());
        }
        // Refused while nobody is there: it will be.
        let _ = socket.send(b"ready?");
        match socket.recv(&mut answer) {
            Ok(6) if &answer[..6] == b"ready?" => return Ok(()),
            Ok(_) => return Err("the first answer is a wrong one".to_owned()),
            // Between two tries.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    Err(format!("no answer from {address} within {START:?}"))
}

/// Everything counted, at one moment.
struct Look {
    at: Instant,
    counted: [u64; 4],
    product: f64,
    machine: Machine,
}

impl Look {
    fn now(place: &Place, product: Option<u32>, counted: [u64; 4]) -> Result<Look, String> {
        Ok(Look {
            at: Instant::now(),
            counted,
            product: product.map_or(0.0, processor::of_family),
            machine: Machine::now(place.product_processor())?,
        })
    }

    fn until(&self, after: &Look, case: &Case) -> Run {
        let seconds = |before: u64, after: u64| processor::seconds(after.saturating_sub(before));
        let counted = |index: usize| after.counted[index].saturating_sub(self.counted[index]);
        let is_udp = matches!(case.load, Load::Udp(_));
        Run {
            seconds: (after.at - self.at).as_secs_f64(),
            done: case.unit.of(counted(0)),
            failed: if is_udp { 0 } else { counted(1) },
            sent: if is_udp { counted(1) } else { 0 },
            lost: counted(2),
            late_or_twice: counted(3),
            product_seconds: after.product - self.product,
            processor_seconds: seconds(self.machine.one, after.machine.one),
            machine_seconds: seconds(self.machine.all, after.machine.all),
            stolen_seconds: seconds(self.machine.stolen, after.machine.stolen),
            ..Run::default()
        }
    }
}
