//! Results as people and programs read them: a line per run, a table of medians with ratios to nginx, and a file of
//! each. No measuring.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::compare::Run;
use crate::product::Product;

/// All rounds of one product in one case.
pub struct Row {
    pub case: &'static str,
    pub product: Product,
    pub runs: Vec<Run>,
}

/// What a result is worth nothing without.
pub struct Facts<'a> {
    pub commit: &'a str,
    pub date: &'a str,
    pub place: &'a str,
    pub rounds: u32,
    pub seconds: f64,
    pub versions: Vec<(&'static str, String)>,
}

impl Run {
    /// Datagrams that came back, per second of this much processor time; none if there was none.
    fn per(&self, processor_seconds: f64) -> Option<f64> {
        (processor_seconds > 0.0).then(|| self.received as f64 / processor_seconds)
    }

    pub fn per_product(&self) -> Option<f64> {
        self.per(self.product_seconds)
    }

    fn per_processor(&self) -> Option<f64> {
        self.per(self.processor_seconds)
    }

    fn per_machine(&self) -> Option<f64> {
        self.per(self.machine_seconds)
    }

    fn rate(&self) -> Option<f64> {
        self.per(self.seconds)
    }

    fn loss(&self) -> Option<f64> {
        (self.sent > 0).then(|| self.lost as f64 / self.sent as f64)
    }
}

impl Row {
    fn values(&self, figure: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        let mut values: Vec<f64> = self.runs.iter().filter_map(figure).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let values = self.values(figure);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            length if length % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }
}

/// One run, while one waits for the others.
pub fn line(case: &str, product: Product, run: &Run) -> String {
    format!(
        "{case:<11} {:<8} {:>10} /s  lost {:>7}  wrong {}  late {}  product {:.2} s  its processor {:.2} s  machine {:.2} s",
        product.name(),
        thousands(run.rate()),
        percent(run.loss()),
        run.wrong,
        run.late_or_twice,
        run.product_seconds,
        run.processor_seconds,
        run.machine_seconds,
    )
}

pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| case | product | delivered /s | lost | per CPU-second of the product | spread | × nginx | per CPU-second of its processor | × nginx | per CPU-second of the machine | × nginx |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
",
    );
    for row in rows {
        let nginx = rows.iter().find(|it| it.case == row.case && it.product == Product::Nginx);
        let ratio = |figure: fn(&Run) -> Option<f64>| {
            let ratio = row.median(figure).zip(nginx.and_then(|it| it.median(figure)));
            ratio.map_or("–".to_owned(), |(own, nginx)| format!("{:.2}", own / nginx))
        };
        let spread = row.values(Run::per_product);
        let spread = match (spread.first(), spread.last()) {
            (Some(least), Some(most)) => {
                format!("{} … {}", thousands(Some(*least)), thousands(Some(*most)))
            }
            _ => "–".to_owned(),
        };
        // Without a product its processor is not used for it.
        let has = |figure: String| {
            if row.product == Product::Direct { "–".to_owned() } else { figure }
        };
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {spread} | {} | {} | {} | {} | {} |",
            row.case,
            row.product.name(),
            thousands(row.median(Run::rate)),
            percent(row.median(Run::loss)),
            thousands(row.median(Run::per_product)),
            has(ratio(Run::per_product)),
            has(thousands(row.median(Run::per_processor))),
            has(ratio(Run::per_processor)),
            thousands(row.median(Run::per_machine)),
            ratio(Run::per_machine),
        );
    }
    table
}

/// `results` with `.json` and `.md` after it.
pub fn write(results: &Path, facts: &Facts<'_>, rows: &[Row]) -> Result<(), String> {
    let mut head = format!(
        "# UDP, {} at {}\n\n{} · {} rounds of {} s · medians",
        facts.date, facts.commit, facts.place, facts.rounds, facts.seconds
    );
    for (product, version) in &facts.versions {
        let _ = write!(head, " · {product}: {version}");
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let _ = write!(head, " · Linux {} · this side has {processors} CPU", kernel.trim());
    let files =
        [("md", format!("{head}\n\n{}", table(rows))), ("json", json(facts, kernel.trim(), rows))];
    for (end, content) in files {
        let path = results.with_extension(end);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        eprintln!("written: {}", path.display());
    }
    Ok(())
}

fn json(facts: &Facts<'_>, kernel: &str, rows: &[Row]) -> String {
    let versions = facts.versions.iter();
    let versions = versions.map(|(name, version)| format!("{name:?}: {}", quoted(version)));
    let mut json = format!(
        "{{\n  \"commit\": {}, \"date\": {}, \"kernel\": {}, \"place\": {:?}, \"rounds\": {}, \"seconds\": {},\n  \"versions\": {{{}}},\n  \"rows\": [",
        quoted(facts.commit),
        quoted(facts.date),
        quoted(kernel),
        facts.place,
        facts.rounds,
        facts.seconds,
        versions.collect::<Vec<_>>().join(", "),
    );
    for (index, row) in rows.iter().enumerate() {
        let runs: Vec<String> = row.runs.iter().map(run_json).collect();
        let _ = write!(
            json,
            "{}\n    {{\"case\": {:?}, \"product\": {:?}, \"runs\": [\n      {}\n    ]}}",
            if index == 0 { "" } else { "," },
            row.case,
            row.product.name(),
            runs.join(",\n      "),
        );
    }
    json + "\n  ]\n}\n"
}

fn run_json(run: &Run) -> String {
    format!(
        "{{\"seconds\": {:.3}, \"sent\": {}, \"received\": {}, \"lost\": {}, \"wrong\": {}, \"late_or_twice\": {}, \"product_seconds\": {:.2}, \"processor_seconds\": {:.2}, \"machine_seconds\": {:.2}, \"stolen_seconds\": {:.2}}}",
        run.seconds,
        run.sent,
        run.received,
        run.lost,
        run.wrong,
        run.late_or_twice,
        run.product_seconds,
        run.processor_seconds,
        run.machine_seconds,
        run.stolen_seconds,
    )
}

/// Versions and dates: of a text they need no more than this.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `1 234 567`, with narrow blanks.
fn thousands(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".to_owned() };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(received: u64, product_seconds: f64) -> Run {
        Run {
            seconds: 1.0,
            sent: received,
            received,
            lost: 0,
            wrong: 0,
            late_or_twice: 0,
            product_seconds,
            processor_seconds: 1.0,
            machine_seconds: 2.0,
            stolen_seconds: 0.0,
        }
    }

    #[test]
    fn ratios_are_of_medians() {
        let row = |product, received: [u64; 3]| Row {
            case: "small-1",
            product,
            runs: received.map(|received| run(received, 0.5)).to_vec(),
        };
        let rows = [row(Product::Nginx, [100, 900, 200]), row(Product::Maitred, [1000, 600, 1])];
        let table = table(&rows);
        let line = table.lines().last().expect("two rows");
        assert!(line.contains("| 1\u{202f}200 | 2 … 2\u{202f}000 | 3.00 |"), "{line}");
    }

    #[test]
    fn no_processor_time_is_no_figure() {
        assert_eq!(run(5, 0.0).per_product(), None);
    }
}
