//! Results as people and programs read them: a line per run, tables of medians with ratios, a file of each, a chart.
//! No measuring.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::cases::Case;
use crate::measure::{Latency, Run};
use crate::processor;
use crate::product::Product;
use crate::row::Row;
use crate::{chart, targets};

/// What a result is worth nothing without.
pub struct Facts<'a> {
    pub commit: &'a str,
    pub date: &'a str,
    pub command: &'a str,
    pub place: &'a str,
    pub rounds: u32,
    pub seconds: f64,
    pub versions: Vec<(&'static str, String)>,
}

/// One run, while one waits for the others.
pub fn line(case: &Case, product: Product, run: &Run, is_counted: bool) -> String {
    let mut line = format!(
        "{:<16} {:<14} {:>12} /s  {:>10} each  product {:.2} s  its processor {:.2} s  machine {:.2} s",
        case.name,
        product.name(),
        number(run.rate()),
        time(run.cost()),
        run.product_seconds,
        run.processor_seconds,
        run.machine_seconds,
    );
    if let Some(Latency { p50, p99, p999 }) = run.latency {
        let _ = write!(line, "  p50 {p50:.0} p99 {p99:.0} p99.9 {p999:.0} µs");
    }
    if run.lost + run.failed > 0 {
        let _ = write!(line, "  lost {}", percent(run.lost()));
    }
    if let Some(bytes) = run.bytes_per_session {
        let _ = write!(line, "  {bytes:.0} B a session");
    }
    if !is_counted {
        line.push_str("  (does not count)");
    }
    line
}

/// Everything in words and tables.
pub fn text(facts: &Facts<'_>, rows: &[Row]) -> String {
    let mut text = format!(
        "# Side by side, {} at {}\n\n`{}` · {} · {} rounds of {} s after one that does not count · medians",
        facts.date, facts.commit, facts.command, facts.place, facts.rounds, facts.seconds
    );
    for (product, version) in &facts.versions {
        let _ = write!(text, " · {product}: {version}");
    }
    let _ = write!(text, " · Linux {} · {} CPUs ({})", kernel(), processor::count(), model());
    format!("{text}\n\n{}\n{}", targets::table(rows), table(rows))
}

pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| case | product | units /s | lost | CPU of the product, each | spread | ÷ floor | ÷ HAProxy | ÷ nginx | CPU of the machine, each | p50 µs | p99 µs | p99.9 µs |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
",
    );
    for row in rows {
        let ratio = |others: &[Product]| {
            let least = targets::least(rows, row.case.name, others, Run::cost);
            let ratio = row.median(Run::cost).zip(least);
            ratio.map_or("–".to_owned(), |(own, other)| format!("{:.2}", own / other))
        };
        let spread = row.values(Run::cost);
        let spread = match (spread.first(), spread.last()) {
            (Some(least), Some(most)) => format!("{} … {}", time(Some(*least)), time(Some(*most))),
            _ => "–".to_owned(),
        };
        let cost = match row.median(|run| run.bytes_per_session) {
            Some(bytes) => format!("{bytes:.0} B"),
            None => time(row.median(Run::cost)),
        };
        let quantile = |figure: fn(Latency) -> f64| {
            let median = row.median(|run| run.latency.map(figure));
            median.map_or("–".to_owned(), |value| format!("{value:.0}"))
        };
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {cost} | {spread} | {} | {} | {} | {} | {} | {} | {} |",
            row.case.name,
            row.product.name(),
            number(row.median(Run::rate)),
            percent(row.median(Run::lost)),
            ratio(targets::FLOOR),
            ratio(targets::HAPROXY),
            ratio(targets::NGINX),
            time(row.median(Run::machine_cost)),
            quantile(|it| it.p50),
            quantile(|it| it.p99),
            quantile(|it| it.p999),
        );
    }
    table
}

/// `results` with `.json`, `.md` and `.svg` after it.
pub fn write(results: &Path, facts: &Facts<'_>, rows: &[Row]) -> Result<(), String> {
    for (end, content) in
        [("md", text(facts, rows)), ("json", json(facts, rows)), ("svg", chart::draw(rows))]
    {
        let path = results.with_extension(end);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}

fn kernel() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    kernel.trim().to_owned()
}

fn model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, model)| model).to_owned()
}

fn json(facts: &Facts<'_>, rows: &[Row]) -> String {
    let versions = facts.versions.iter();
    let versions = versions.map(|(name, version)| format!("{name:?}: {}", quoted(version)));
    let mut json = format!(
        "{{\n  \"commit\": {}, \"date\": {}, \"command\": {}, \"kernel\": {}, \"processor\": {}, \"processors\": {}, \"place\": {:?}, \"rounds\": {}, \"seconds\": {},\n  \"versions\": {{{}}},\n  \"rows\": [",
        quoted(facts.commit),
        quoted(facts.date),
        quoted(facts.command),
        quoted(&kernel()),
        quoted(&model()),
        processor::count(),
        facts.place,
        facts.rounds,
        facts.seconds,
        versions.collect::<Vec<_>>().join(", "),
    );
    for (index, row) in rows.iter().enumerate() {
        let runs: Vec<String> = row.runs.iter().map(run_json).collect();
        let _ = write!(
            json,
            "{}\n    {{\"case\": {:?}, \"unit\": {:?}, \"product\": {:?}, \"runs\": [\n      {}\n    ]}}",
            if index == 0 { "" } else { "," },
            row.case.name,
            row.case.unit.name(),
            row.product.name(),
            runs.join(",\n      "),
        );
    }
    json + "\n  ]\n}\n"
}

fn run_json(run: &Run) -> String {
    let mut json = format!(
        "{{\"seconds\": {:.3}, \"done\": {:.3}, \"failed\": {}, \"sent\": {}, \"lost\": {}, \"wrong\": {}, \"late_or_twice\": {}, \"product_seconds\": {:.4}, \"processor_seconds\": {:.2}, \"machine_seconds\": {:.2}, \"stolen_seconds\": {:.2}",
        run.seconds,
        run.done,
        run.failed,
        run.sent,
        run.lost,
        run.wrong,
        run.late_or_twice,
        run.product_seconds,
        run.processor_seconds,
        run.machine_seconds,
        run.stolen_seconds,
    );
    if let Some(Latency { p50, p99, p999 }) = run.latency {
        let _ =
            write!(json, ", \"p50_us\": {p50:.1}, \"p99_us\": {p99:.1}, \"p999_us\": {p999:.1}");
    }
    if let Some(bytes) = run.bytes_per_session {
        let _ = write!(json, ", \"bytes_per_session\": {bytes:.0}");
    }
    json + "}"
}

/// Versions, dates, commands: of a text they need no more than this.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Seconds, in the unit that fits.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "–".to_owned(),
        Some(seconds) if seconds >= 0.05 => format!("{seconds:.3} s"),
        Some(seconds) if seconds >= 0.001 => format!("{:.2} ms", seconds * 1e3),
        Some(seconds) => format!("{:.2} µs", seconds * 1e6),
    }
}

/// `1 234 567`, with narrow blanks; small ones with two digits after the point.
fn number(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

fn percent(share: Option<f64>) -> String {
    share.map_or("–".to_owned(), |share| format!("{:.3} %", share * 100.0))
}

/// For the tests of whoever reads rows.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Unit;
    use crate::row::row;

    #[test]
    fn ratios_are_of_medians() {
        let rows = [
            row("rtt-64", Product::Nginx, &[4e-6, 1e-6, 2e-6]),
            row("rtt-64", Product::Nginx64K, &[8e-6]),
            row("rtt-64", Product::Maitred, &[1e-6, 9e-6, 3e-6]),
        ];
        let table = table(&rows);
        let line = table.lines().last().expect("three rows");
        assert!(line.contains("| 3.00 µs | 1.00 µs … 9.00 µs | – | – | 1.50 |"), "{line}");
    }

    #[test]
    fn nothing_done_is_no_figure() {
        assert_eq!(Run { product_seconds: 1.0, ..Run::default() }.cost(), None);
        assert_eq!(Run { done: 5.0, ..Run::default() }.cost(), None);
    }

    #[test]
    fn bytes_become_gibibytes() {
        assert!((Unit::GiB.of(3 << 30) - 3.0).abs() < 1e-9);
    }
}
