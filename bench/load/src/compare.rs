//! Products side by side: each case, round after round, the products taking turns. Called by scripts/bench, on the
//! processor that client and backend share.

use std::path::PathBuf;
use std::time::Duration;

use crate::cases::{self, CASES, Case, SMOKE};
use crate::flags::Flags;
use crate::measure::{Bench, Run};
use crate::place::Place;
use crate::product::{Product, Tools};
use crate::report::{self, Facts};
use crate::row::Row;

struct Settings {
    /// All that a case names, if none are asked for.
    products: Option<Vec<Product>>,
    cases: Vec<&'static Case>,
    /// Rounds that count; one more goes before them.
    rounds: u32,
    length: Duration,
    is_smoke: bool,
}

pub fn run(flags: &Flags) -> Result<(), String> {
    flags.only(&[
        "products",
        "cases",
        "rounds",
        "seconds",
        "quick",
        "smoke",
        "maitred",
        "before",
        "haproxy",
        "nginx",
        "envoy",
        "dir",
        "results",
        "commit",
        "date",
        "command",
        "namespace",
        "client-side",
        "product-side",
        "product-cpu",
    ])?;
    let settings = Settings::new(flags)?;
    let place = Place::new(flags)?;
    let tools = Tools::new(flags)?;
    let bench = Bench { place: &place, tools: &tools, length: settings.length };
    let mut rows: Vec<Row> = Vec::new();
    let mut versions: Vec<(&'static str, String)> = Vec::new();
    for case in &settings.cases {
        if case.port_range.is_some() && !place.has_namespaces() {
            eprintln!("LEFT OUT: {}: its ports are those of a network namespace", case.name);
            continue;
        }
        let products = settings.products_of(case, &tools);
        let products = present(products, &tools, &mut versions)?;
        rows.extend(compare(&bench, &settings, case, &products)?);
    }
    let facts = Facts {
        commit: flags.text("commit").unwrap_or("unknown"),
        date: flags.text("date").unwrap_or("unknown"),
        command: flags.text("command").unwrap_or("unknown"),
        place: place.name(),
        rounds: settings.rounds,
        seconds: settings.length.as_secs_f64(),
        versions,
    };
    if let Some(results) = flags.text("results") {
        report::write(&PathBuf::from(results), &facts, &rows)?;
    }
    print!("{}", report::text(&facts, &rows));
    Ok(())
}

/// Those that are there; notes their versions. Where packages are installed for it (`CI`), all but Envoy must be.
fn present(
    products: Vec<Product>,
    tools: &Tools,
    versions: &mut Vec<(&'static str, String)>,
) -> Result<Vec<Product>, String> {
    let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    let mut present = Vec::new();
    for product in products {
        if versions.iter().any(|(name, _)| *name == product.name()) {
            present.push(product);
            continue;
        }
        match product.version(tools) {
            Ok(version) => {
                versions.push((product.name(), version));
                present.push(product);
            }
            Err(error) if product.is_maitred() || (is_ci && product != Product::Envoy) => {
                return Err(error);
            }
            Err(error) => eprintln!("LEFT OUT: {}: {error}", product.name()),
        }
    }
    Ok(present)
}

/// All rounds of one case.
fn compare(
    bench: &Bench<'_>,
    settings: &Settings,
    case: &'static Case,
    products: &[Product],
) -> Result<Vec<Row>, String> {
    let row = |product: &Product| Row { case, product: *product, runs: Vec::new() };
    let mut rows: Vec<Row> = products.iter().map(row).collect();
    // The first round warms up what stays: caches, memory of the kernel, the machine's own clock.
    let dropped = if settings.is_smoke || case.rounds == Some(1) { 0 } else { 1 };
    let rounds = case.rounds.map_or(settings.rounds, |most| most.min(settings.rounds));
    for round in 0..(rounds + dropped) as usize {
        for turn in 0..products.len() {
            // Who comes first changes from round to round.
            let row = &mut rows[(turn + round) % products.len()];
            let outcome = bench.measure(row.product, case).and_then(|run| judge(run, case));
            let run = outcome.map_err(|error| {
                let said = row.product.said(bench.tools);
                format!("{} in {}: {error}\n{said}", row.product.name(), case.name)
            })?;
            let is_counted = round >= dropped as usize;
            eprintln!("{}", report::line(case, row.product, &run, is_counted));
            if is_counted {
                row.runs.push(run);
            }
        }
    }
    Ok(rows)
}

impl Settings {
    fn new(flags: &Flags) -> Result<Settings, String> {
        let is_smoke = flags.has("smoke");
        let products =
            flags.text("products").map(|names| names.split(',').map(Product::named).collect());
        let cases = match flags.text("cases") {
            Some(names) => names.split(',').map(cases::named).collect::<Result<_, _>>()?,
            None if is_smoke => {
                SMOKE.iter().map(|name| cases::named(name)).collect::<Result<_, _>>()?
            }
            None => CASES.iter().filter(|case| case.is_quick || !flags.has("quick")).collect(),
        };
        let rounds = if is_smoke || flags.has("quick") { 1 } else { 5 };
        Ok(Settings {
            products: products.transpose()?,
            cases,
            rounds: flags.number("rounds", rounds, 1..=100)?,
            length: Duration::from_secs(flags.number(
                "seconds",
                if is_smoke { 1 } else { 2 },
                1..=60,
            )?),
            is_smoke,
        })
    }

    fn products_of(&self, case: &Case, tools: &Tools) -> Vec<Product> {
        let is_asked_for =
            |product: &Product| self.products.as_ref().is_none_or(|asked| asked.contains(product));
        let mut products: Vec<Product> =
            case.products.iter().copied().filter(is_asked_for).collect();
        if tools.before.is_some() && products.contains(&Product::Maitred) {
            products.push(Product::MaitredBefore);
        }
        products
    }
}

/// Nothing that was measured counts if answers were wrong, or if there were none.
fn judge(run: Run, case: &Case) -> Result<Run, String> {
    if run.wrong > 0 {
        return Err(format!("{} wrong answers", run.wrong));
    }
    let may_fail = matches!(&case.load, cases::Load::Tcp(load) if load.may_fail);
    if run.done <= 0.0 && !may_fail {
        return Err("nothing was done".to_owned());
    }
    Ok(run)
}
