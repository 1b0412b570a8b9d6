//! Products side by side: each case, round after round, the products taking turns; counts what the client got back and
//! the processor time it cost. Called by scripts/bench, on the processor that client and backend share.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cases::{CASES, Case, SMOKE};
use crate::client::{self, Counts, Load};
use crate::flags::Flags;
use crate::place::Place;
use crate::processor::{self, Machine};
use crate::product::{Product, Running, Tools};
use crate::report::{self, Facts, Row};

/// How long a product may take until the first answer passes through it.
const START: Duration = Duration::from_secs(10);
/// Longer than any run: the client stops when it is told to.
const LONGEST_RUN: u64 = 300;

struct Settings {
    products: Vec<Product>,
    cases: Vec<&'static Case>,
    rounds: u32,
    warm_up: Duration,
    length: Duration,
    is_smoke: bool,
}

/// One product in one round of one case.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub seconds: f64,
    pub sent: u64,
    pub received: u64,
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
}

pub fn run(flags: &Flags) -> Result<(), String> {
    flags.only(&[
        "products",
        "cases",
        "rounds",
        "seconds",
        "smoke",
        "maitred",
        "dir",
        "results",
        "commit",
        "date",
        "namespace",
        "client-side",
        "product-side",
        "product-cpu",
    ])?;
    let settings = Settings::new(flags)?;
    let place = Place::new(flags)?;
    let tools = Tools {
        maitred: PathBuf::from(flags.text("maitred").unwrap_or("maitred")),
        dir: PathBuf::from(flags.needed::<String>("dir")?),
    };
    let mut rows: Vec<Row> = Vec::new();
    for case in &settings.cases {
        let first = rows.len();
        let row = |product: &Product| Row { case: case.name, product: *product, runs: Vec::new() };
        rows.extend(settings.products.iter().map(row));
        for round in 0..settings.rounds as usize {
            for turn in 0..settings.products.len() {
                // Who comes first changes from round to round.
                let row = &mut rows[first + (turn + round) % settings.products.len()];
                let outcome = measure(&settings, &place, &tools, row.product, case);
                let run = outcome.map_err(|error| {
                    let said = row.product.said(&tools);
                    format!("{} in {}: {error}\n{said}", row.product.name(), case.name)
                })?;
                eprintln!("{}", report::line(case.name, row.product, &run));
                row.runs.push(run);
            }
        }
    }
    judge(&rows)?;
    if let Some(results) = flags.text("results") {
        let facts = Facts {
            commit: flags.text("commit").unwrap_or("unknown"),
            date: flags.text("date").unwrap_or("unknown"),
            place: place.name(),
            rounds: settings.rounds,
            seconds: settings.length.as_secs_f64(),
            versions: settings
                .products
                .iter()
                .map(|it| Ok((it.name(), it.version(&tools.maitred)?)))
                .collect::<Result<_, String>>()?,
        };
        report::write(&PathBuf::from(results), &facts, &rows)?;
    }
    print!("{}", report::table(&rows));
    Ok(())
}

impl Settings {
    fn new(flags: &Flags) -> Result<Settings, String> {
        let is_smoke = flags.has("smoke");
        let default = if is_smoke { "maitred" } else { "direct,nginx,maitred" };
        let products = flags.text("products").unwrap_or(default).split(',');
        let names: Vec<&str> = match flags.text("cases") {
            Some(names) => names.split(',').collect(),
            None if is_smoke => SMOKE.to_vec(),
            None => CASES.iter().map(|case| case.name).collect(),
        };
        let case = |name: &&str| {
            let case = CASES.iter().find(|case| case.name == *name);
            case.ok_or_else(|| {
                format!("`{name}` is none of {}", CASES.map(|case| case.name).join(", "))
            })
        };
        let seconds = flags.number("seconds", if is_smoke { 1 } else { 3 }, 1..=60)?;
        Ok(Settings {
            products: products.map(Product::named).collect::<Result<_, _>>()?,
            cases: names.iter().map(case).collect::<Result<_, _>>()?,
            rounds: flags.number("rounds", if is_smoke { 1 } else { 5 }, 1..=100)?,
            warm_up: Duration::from_millis(if is_smoke { 300 } else { 1000 }),
            length: Duration::from_secs(seconds),
            is_smoke,
        })
    }
}

/// Nothing that was measured counts if answers were wrong, or if there were none.
fn judge(rows: &[Row]) -> Result<(), String> {
    for row in rows {
        let wrong: u64 = row.runs.iter().map(|run| run.wrong).sum();
        if wrong > 0 {
            return Err(format!("{} in {}: {wrong} wrong answers", row.product.name(), row.case));
        }
        if row.runs.iter().any(|run| run.received == 0) {
            return Err(format!("{} in {}: no answers", row.product.name(), row.case));
        }
    }
    Ok(())
}

/// The client, in a thread of its own.
struct Client {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Client {
    fn start(load: Load) -> Client {
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let (its_counts, its_stop) = (Arc::clone(&counts), Arc::clone(&stop));
        let thread =
            std::thread::spawn(move || client::run(&load, LONGEST_RUN, &its_counts, &its_stop));
        Client { counts, stop, thread }
    }

    fn stop(self) -> Result<Arc<Counts>, String> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.join().map_err(|_| "the client panicked".to_owned())?;
        ended.map_err(|error| format!("client: {error}"))?;
        Ok(self.counts)
    }
}

fn measure(
    settings: &Settings,
    place: &Place,
    tools: &Tools,
    product: Product,
    case: &Case,
) -> Result<Run, String> {
    let listen = place.product()?;
    // Without a product the server itself stands on the far side.
    let backend = if product == Product::Direct { listen } else { place.backend()? };
    let _server = server(place, product, backend, case)?;
    let mut running = product.start(place, listen, backend, tools)?;
    wait_for_an_answer(listen, running.as_mut())?;
    let id = running.as_ref().map(Running::id);
    let client = Client::start(Load {
        address: listen,
        flows: case.flows,
        size: case.size,
        segments: case.segments,
        pace: case.pace(),
    });
    // What is measured is this time of load, after that which is not.
    std::thread::sleep(settings.warm_up);
    let before = Look::now(place, id, &client.counts)?;
    std::thread::sleep(settings.length);
    let after = Look::now(place, id, &client.counts)?;
    let counts = client.stop()?;
    if running.as_mut().is_some_and(Running::has_ended) {
        return Err("it ended by itself".to_owned());
    }
    if settings.is_smoke {
        eprintln!("{}: {}", case.name, counts.json());
    }
    // Wrong answers count whenever they came.
    Ok(Run { wrong: counts.wrong.load(Relaxed), ..before.until(&after) })
}

/// The echo server. Beside the client, but on the far side if no product stands between them.
fn server(
    place: &Place,
    product: Product,
    address: SocketAddr,
    case: &Case,
) -> Result<Running, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let own = own.display().to_string();
    let mut command = match product {
        Product::Direct => place.far_command(&own),
        _ => std::process::Command::new(&own),
    };
    command.args(["server", "--listen", &address.to_string(), "--seconds", "600"]);
    if case.segments == 1 {
        command.arg("--plain");
    }
    command.stdout(std::process::Stdio::null());
    Running::start(&mut command)
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
    sent: u64,
    received: u64,
    lost: u64,
    late_or_twice: u64,
    product: u64,
    machine: Machine,
}

impl Look {
    fn now(place: &Place, product: Option<u32>, counts: &Counts) -> Result<Look, String> {
        Ok(Look {
            at: Instant::now(),
            sent: counts.sent.load(Relaxed),
            received: counts.received.load(Relaxed),
            lost: counts.lost.load(Relaxed),
            late_or_twice: counts.late_or_twice.load(Relaxed),
            product: product.map_or(0, processor::of_process),
            machine: Machine::now(place.product_processor())?,
        })
    }

    fn until(&self, after: &Look) -> Run {
        let seconds = |before: u64, after: u64| processor::seconds(after.saturating_sub(before));
        Run {
            seconds: (after.at - self.at).as_secs_f64(),
            sent: after.sent - self.sent,
            received: after.received - self.received,
            lost: after.lost - self.lost,
            wrong: 0,
            late_or_twice: after.late_or_twice - self.late_or_twice,
            product_seconds: seconds(self.product, after.product),
            processor_seconds: seconds(self.machine.one, after.machine.one),
            machine_seconds: seconds(self.machine.all, after.machine.all),
            stolen_seconds: seconds(self.machine.stolen, after.machine.stolen),
        }
    }
}
