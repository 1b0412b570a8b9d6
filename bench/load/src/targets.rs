//! What is asked of maitred (the targets of its design), and what this run says to it. A target whose case or product
//! was not run has no figure.

use std::fmt::Write;

use crate::measure::Run;
use crate::product::Product::{self, *};
use crate::row::{self, Row};

pub const FLOOR: &[Product] = &[RelayCopy, RelaySplice];
pub const HAPROXY: &[Product] = &[HAProxy, HAProxySplice];
pub const NGINX: &[Product] = &[Nginx, Nginx64K];
const SPLICING: &[Product] = &[HAProxySplice];
const OTHERS: &[Product] = &[HAProxy, HAProxySplice, Nginx, Nginx64K, Envoy];
const OWN: &[Product] = &[Maitred];

struct Target {
    what: &'static str,
    case: &'static str,
    product: Product,
    figure: Figure,
    /// The best of these, in that case; nothing: the figure itself is judged.
    against: (&'static str, &'static [Product]),
    name: &'static str,
    bound: Bound,
    stretch: Option<Bound>,
}

#[derive(Clone, Copy)]
enum Figure {
    /// Processor time for each unit.
    Cost,
    /// Units for each second of processor time.
    Yield,
    Rate,
    P50,
    P99,
    Bytes,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Only the stretch is asked.
    Open,
}

use Bound::{AtLeast, AtMost, Open};

const fn cost(
    what: &'static str,
    case: &'static str,
    (name, against): (&'static str, &'static [Product]),
    bound: f64,
    stretch: Option<f64>,
) -> Target {
    Target {
        what,
        case,
        product: Maitred,
        figure: Figure::Cost,
        against: (case, against),
        name,
        bound: AtMost(bound),
        stretch: match stretch {
            Some(most) => Some(AtMost(most)),
            None => None,
        },
    }
}

const fn yields(case: &'static str, what: &'static str, least: f64, stretch: f64) -> Target {
    let target = cost(what, case, ("nginx", NGINX), 0.0, None);
    let (bound, stretch) = (AtLeast(least), Some(AtLeast(stretch)));
    Target { figure: Figure::Yield, bound, stretch, ..target }
}

const L: (&str, &[Product]) = ("floor", FLOOR);
const H: (&str, &[Product]) = ("HAProxy", HAPROXY);
const HS: (&str, &[Product]) = ("HAProxy with splice", SPLICING);
const N: (&str, &[Product]) = ("nginx", NGINX);

const TARGETS: [Target; 37] = [
    cost("small round trips, CPU", "rtt-64", L, 1.05, None),
    cost("small round trips, CPU", "rtt-64", H, 0.90, Some(0.82)),
    cost("small round trips, CPU", "rtt-64", N, 1.00, Some(0.92)),
    cost("16 KiB round trips, CPU", "rtt-16k", L, 1.05, None),
    cost("16 KiB round trips, CPU", "rtt-16k", N, 0.90, None),
    Target { bound: Open, ..cost("16 KiB round trips, CPU", "rtt-16k", H, 1.0, Some(1.0)) },
    cost("connect–exchange–close, client first", "churn-client", L, 1.05, None),
    cost("connect–exchange–close, client first", "churn-client", H, 0.95, Some(0.85)),
    cost("connect–exchange–close, client first", "churn-client", N, 1.02, Some(0.90)),
    cost("connect–exchange–close, backend first", "churn-backend", L, 1.05, None),
    cost("connect–exchange–close, backend first", "churn-backend", H, 0.95, Some(0.85)),
    cost("connect–exchange–close, backend first", "churn-backend", N, 1.02, Some(0.90)),
    cost("connect–exchange–reset", "churn-reset", L, 1.05, None),
    cost("connect–exchange–reset", "churn-reset", H, 0.95, Some(0.85)),
    cost("connect–exchange–reset", "churn-reset", N, 1.02, Some(0.90)),
    rate("timewait", ("timewait", OTHERS), "best other", AtLeast(50.0), None),
    rate("timewait", ("churn-client", OWN), "own without TIME_WAIT", Open, Some(0.90)),
    rate("timewait-2000", ("timewait-2000", OTHERS), "best other", AtLeast(50.0), None),
    rate("timewait-2000", ("churn-client", OWN), "own without TIME_WAIT", Open, Some(0.90)),
    cost("bulk, 1 stream, CPU", "bulk-1", HS, 1.03, Some(1.0)),
    cost("bulk, 16 streams, CPU", "bulk-16", HS, 1.10, Some(1.0)),
    cost("bulk, 16 streams, CPU", "bulk-16", N, 0.5, None),
    cost("bulk towards the backend, 1 stream, CPU", "bulk-up-1", HS, 1.03, Some(1.0)),
    cost("bulk towards the backend, 16 streams, CPU", "bulk-up-16", HS, 1.10, Some(1.0)),
    Target {
        figure: Figure::Bytes,
        bound: AtMost(1024.0),
        stretch: Some(AtMost(512.0)),
        ..cost("idle session, bytes of memory", "idle", ("", &[]), 0.0, None)
    },
    yields("small-1", "UDP 64 B, 1 flow, per CPU-second", 1.3, 1.6),
    yields("small-64", "UDP 64 B, 64 flows, per CPU-second", 1.3, 1.6),
    yields("small-4096", "UDP 64 B, 4 096 flows, per CPU-second", 1.3, 1.6),
    yields("gso-1", "UDP in trains, 1 flow, per CPU-second", 3.0, 8.0),
    yields("gso-64", "UDP in trains, 64 flows, per CPU-second", 3.0, 8.0),
    yields("gso-4096", "UDP in trains, 4 096 flows, per CPU-second", 3.0, 8.0),
    p50(Maitred, AtMost(1.05), None),
    p50(MaitredBusy, Open, Some(AtMost(0.3))),
    p99("fair-1g", ("fair-alone", OWN), "without the stream", 2.0),
    p99("fair-5g", ("fair-5g", OTHERS), "best other", 1.0),
    p99("fair-full", ("fair-full", OTHERS), "best other", 1.0),
    cost("round trips with two workers, CPU", "rtt-64-2w", ("HAProxy", HAPROXY), 0.90, None),
];

const fn rate(
    case: &'static str,
    against: (&'static str, &'static [Product]),
    name: &'static str,
    bound: Bound,
    stretch: Option<f64>,
) -> Target {
    Target {
        what: "ports full of TIME_WAIT, connections a second",
        case,
        product: Maitred,
        figure: Figure::Rate,
        against,
        name,
        bound,
        stretch: match stretch {
            Some(least) => Some(AtLeast(least)),
            None => None,
        },
    }
}

const fn p50(product: Product, bound: Bound, stretch: Option<Bound>) -> Target {
    Target {
        what: if matches!(product, Maitred) {
            "lone client, p50"
        } else {
            "lone client, p50, busy_poll"
        },
        case: "lone",
        product,
        figure: Figure::P50,
        against: ("lone", OTHERS),
        name: "best other",
        bound,
        stretch,
    }
}

const fn p99(
    case: &'static str,
    against: (&'static str, &'static [Product]),
    name: &'static str,
    most: f64,
) -> Target {
    Target {
        what: "100 clients beside a bulk stream, p99",
        case,
        product: Maitred,
        figure: Figure::P99,
        against,
        name,
        bound: AtMost(most),
        stretch: None,
    }
}

impl Figure {
    fn of(self, run: &Run) -> Option<f64> {
        match self {
            Figure::Cost => run.cost(),
            Figure::Yield => run.cost().map(f64::recip),
            Figure::Rate => run.rate(),
            Figure::P50 => run.latency.map(|latency| latency.p50),
            Figure::P99 => run.latency.map(|latency| latency.p99),
            Figure::Bytes => run.bytes_per_session,
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Figure::Yield | Figure::Rate)
    }
}

impl Bound {
    fn is_met(self, value: f64) -> bool {
        match self {
            AtLeast(least) => value >= least,
            AtMost(most) => value <= most,
            Open => true,
        }
    }

    fn text(self) -> String {
        match self {
            Open => "–".to_owned(),
            AtLeast(least) => format!("≥ {least}"),
            AtMost(most) => format!("≤ {most}"),
        }
    }
}

/// The least median of these products in a case.
pub fn least(
    rows: &[Row],
    case: &str,
    products: &[Product],
    figure: impl Fn(&Run) -> Option<f64>,
) -> Option<f64> {
    let them = rows.iter().filter(|row| row.case.name == case && products.contains(&row.product));
    them.filter_map(|row| row.median(&figure)).min_by(f64::total_cmp)
}

/// A ratio (or, against nobody, a figure), and the least and the most of the rounds that made it.
struct Measured {
    value: f64,
    rounds: Option<(f64, f64)>,
}

impl Target {
    /// Of several others, against the one that leaves us worst.
    fn measured(&self, rows: &[Row]) -> Option<Measured> {
        let (case, others) = self.against;
        let own = rows.iter().find(|row| row.is(self.case, self.product))?;
        if others.is_empty() {
            let value = own.median(|run| self.figure.of(run))?;
            return Some(Measured { value, rounds: None });
        }
        let others = rows.iter().filter(|row| others.iter().any(|it| row.is(case, *it)));
        let measured = others.filter_map(|other| self.ratio(own, other));
        let by_value = |one: &Measured, other: &Measured| one.value.total_cmp(&other.value);
        match self.figure.more_is_better() {
            true => measured.min_by(by_value),
            false => measured.max_by(by_value),
        }
    }

    /// In one case: the median of the ratios of each round, whose runs were seconds apart, so that a machine that is
    /// slow for a minute is slow for both. Against another case, run minutes before: the ratio of the medians.
    fn ratio(&self, own: &Row, other: &Row) -> Option<Measured> {
        let figure = |run: &Run| self.figure.of(run);
        if own.case.name != other.case.name {
            return Some(Measured {
                value: own.median(figure)? / other.median(figure)?,
                rounds: None,
            });
        }
        let pairs = own.runs.iter().zip(&other.runs);
        let ratios = pairs.filter_map(|(own, other)| Some(figure(own)? / figure(other)?));
        let ratios = row::sorted(ratios);
        let rounds = (*ratios.first()?, *ratios.last()?);
        Some(Measured { value: row::median(&ratios)?, rounds: Some(rounds) })
    }
}

pub fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| asked | case | against | measured | rounds | first | met | stretch | met |
| --- | --- | --- | ---: | ---: | ---: | --- | ---: | --- |
",
    );
    for target in &TARGETS {
        let Some(Measured { value, rounds }) = target.measured(rows) else { continue };
        let met = |bound: Bound| match bound {
            Open => "–",
            bound if bound.is_met(value) => "yes",
            _ => "**no**",
        };
        let stretch = target.stretch.map_or("–".to_owned(), Bound::text);
        let spread = |(least, most)| format!("{} … {}", short(least), short(most));
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} | {} | {} | {stretch} | {} |",
            target.what,
            target.case,
            target.name,
            short(value),
            rounds.map_or("–".to_owned(), spread),
            target.bound.text(),
            met(target.bound),
            target.stretch.map_or("–", met),
        );
    }
    table
}

fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::row;

    #[test]
    fn a_target_is_judged_against_the_best_of_the_others() {
        let rows = [
            row("rtt-64", HAProxy, &[10e-6]),
            row("rtt-64", HAProxySplice, &[8e-6]),
            row("rtt-64", Maitred, &[7e-6]),
            row("small-64", Nginx, &[2e-6]),
            row("small-64", Maitred, &[1e-6]),
        ];
        let table = table(&rows);
        assert!(
            table.contains("| HAProxy | 0.88 | 0.88 … 0.88 | ≤ 0.9 | yes | ≤ 0.82 | **no** |"),
            "{table}"
        );
        assert!(
            table.contains("| nginx | 2.00 | 2.00 … 2.00 | ≥ 1.3 | yes | ≥ 1.6 | yes |"),
            "{table}"
        );
        assert!(!table.contains("churn"), "what was not run has no row: {table}");
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_so_that_a_slow_minute_counts_for_both() {
        // The machine was twice as slow in other rounds for the one than for the other: the medians say 1.80.
        let rows = [
            row("rtt-16k", Nginx, &[1.0, 2.0, 1.0, 2.0, 1.0]),
            row("rtt-16k", Maitred, &[0.9, 1.8, 1.8, 1.8, 0.9]),
        ];
        let table = table(&rows);
        assert!(table.contains("| nginx | 0.90 | 0.90 … 1.80 | ≤ 0.9 | yes |"), "{table}");
    }

    #[test]
    fn against_another_case_the_medians_are_compared() {
        let rows =
            [row("churn-client", Maitred, &[1e-6, 1e-6, 1e-6]), row("timewait", Maitred, &[1e-6])];
        let table = table(&rows);
        assert!(
            table.contains("| own without TIME_WAIT | 1.00 | – | – | – | ≥ 0.9 | yes |"),
            "{table}"
        );
    }
}
