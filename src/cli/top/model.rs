//! What `top` shows: rows with rates from two samples, sorted, filtered, one of them selected. Pure.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::Value;

use super::act::Act;

/// What was read at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    pub info: Value,
    pub pools: Value,
    pub listeners: Value,
    pub events: Value,
}

/// A backend, or a whole pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub pool: String,
    /// Empty for a pool.
    pub backend: String,
    pub state: String,
    pub why: String,
    pub weight: u64,
    pub open: u64,
    /// Per second, since the sample before.
    pub sessions: f64,
    pub received: f64,
    pub sent: f64,
    /// Milliseconds.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub by_hand: bool,
    counted: Counted,
}

/// Counters, from which rates are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counted {
    sessions: u64,
    received: u64,
    sent: u64,
}

/// Figures of the whole process.
#[derive(Clone, Debug, Default)]
pub struct Total {
    pub sessions: f64,
    pub refused: f64,
    counted: (u64, u64),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Name,
    State,
    Open,
    Sessions,
    Received,
    Sent,
    Latency,
}

impl Sort {
    pub const ALL: [Sort; 7] = [
        Sort::Name,
        Sort::State,
        Sort::Open,
        Sort::Sessions,
        Sort::Received,
        Sort::Sent,
        Sort::Latency,
    ];

    pub fn next(self) -> Sort {
        let position = Sort::ALL.iter().position(|it| *it == self).unwrap_or(0);
        Sort::ALL[(position + 1) % Sort::ALL.len()]
    }
}

/// What the keyboard does at the moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Mode {
    #[default]
    List,
    /// The text of the filter is being typed.
    Filter,
    /// Whether to do this action.
    Confirm(Act),
    Help,
}

#[derive(Default)]
pub struct Model {
    pub sample: Option<Sample>,
    pub rows: Vec<Row>,
    pub total: Total,
    /// One row for each pool instead of each backend.
    pub by_pool: bool,
    pub sort: Sort,
    pub is_reversed: bool,
    pub filter: String,
    pub mode: Mode,
    /// Pool and backend: it stays selected wherever it moves.
    pub selected: Option<(String, String)>,
    /// The outcome of the last action.
    pub said: String,
    /// Why there is no newer sample.
    pub lost: Option<String>,
}

impl Model {
    pub fn take(&mut self, sample: Sample) {
        let elapsed = self.sample.as_ref().map(|before| (sample.at - before.at).as_secs_f64());
        let before: HashMap<_, _> =
            self.rows.drain(..).map(|row| ((row.pool, row.backend), row.counted)).collect();
        let mut rows = Vec::new();
        for pool in list(&sample.pools, "pools") {
            let name = text(pool, "name");
            let backends: Vec<Row> =
                list(pool, "backends").map(|backend| Row::of(&name, backend)).collect();
            rows.push(Row::sum(&name, &backends));
            rows.extend(backends);
        }
        for row in &mut rows {
            let known = before.get(&(row.pool.clone(), row.backend.clone()));
            if let (Some(known), Some(elapsed)) = (known, elapsed) {
                row.rate(*known, elapsed);
            }
        }
        self.rows = rows;
        self.total = self.total.after(&sample.listeners, elapsed);
        self.sample = Some(sample);
        self.lost = None;
    }

    /// In the order in which they are shown.
    pub fn shown(&self) -> Vec<&Row> {
        let wanted = |row: &&Row| {
            let words = [&row.pool, &row.backend, &row.state, &row.why];
            row.backend.is_empty() == self.by_pool
                && (self.filter.is_empty() || words.iter().any(|it| it.contains(&*self.filter)))
        };
        let mut rows: Vec<&Row> = self.rows.iter().filter(wanted).collect();
        // Stable: equal ones stay in the order of the configuration.
        match self.sort {
            Sort::Name => {}
            Sort::State => rows.sort_by_key(|row| worth(&row.state)),
            Sort::Open => rows.sort_by_key(|row| std::cmp::Reverse(row.open)),
            Sort::Sessions => rows.sort_by(|a, b| b.sessions.total_cmp(&a.sessions)),
            Sort::Received => rows.sort_by(|a, b| b.received.total_cmp(&a.received)),
            Sort::Sent => rows.sort_by(|a, b| b.sent.total_cmp(&a.sent)),
            Sort::Latency => rows.sort_by(|a, b| slow(b).total_cmp(&slow(a))),
        }
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    /// The index of the selected row among those shown; the first if it is not among them.
    pub fn position(&self) -> Option<usize> {
        let rows = self.shown();
        let found = rows.iter().position(|row| {
            self.selected
                .as_ref()
                .is_some_and(|(pool, backend)| row.pool == *pool && row.backend == *backend)
        });
        found.or((!rows.is_empty()).then_some(0))
    }

    pub fn selected_row(&self) -> Option<&Row> {
        self.shown().get(self.position()?).copied()
    }

    /// Selects the row this many places further down.
    pub fn step(&mut self, by: isize) {
        let rows = self.shown();
        let Some(position) = self.position() else { return };
        let row = rows[position.saturating_add_signed(by).min(rows.len() - 1)];
        self.selected = Some((row.pool.clone(), row.backend.clone()));
    }
}

/// Rows with a problem first.
fn worth(state: &str) -> usize {
    let order = ["down", "ejected", "maintenance", "drain", "starting", "up", "standby"];
    order.iter().position(|it| state.starts_with(it)).unwrap_or(order.len())
}

fn slow(row: &Row) -> f64 {
    row.p99.unwrap_or(-1.0)
}

impl Row {
    fn of(pool: &str, backend: &Value) -> Row {
        let milliseconds = |key: &str| backend["connect_ms"][key].as_f64();
        let counted = Counted {
            sessions: number(backend, "sessions_total"),
            received: number(backend, "received_bytes"),
            sent: number(backend, "sent_bytes"),
        };
        Row {
            pool: pool.to_owned(),
            backend: text(backend, "name"),
            state: text(backend, "state"),
            why: closing(&backend["closing"]) + &text(backend, "why"),
            weight: number(backend, "weight"),
            open: number(backend, "sessions_active"),
            p50: milliseconds("p50"),
            p99: milliseconds("p99"),
            by_hand: backend["set_by_hand"].is_object(),
            counted,
            ..Row::default()
        }
    }

    /// A pool: the sums of its backends, and the worst of their latencies.
    fn sum(pool: &str, backends: &[Row]) -> Row {
        let count =
            |states: &[&str]| backends.iter().filter(|it| states.contains(&&*it.state)).count();
        let (up, standby) = (count(&["up", "starting"]), count(&["standby"]));
        let spare = if standby > 0 { format!(", {standby} standby") } else { String::new() };
        let total = |count: fn(&Row) -> u64| backends.iter().map(count).sum();
        let worst = |of: fn(&Row) -> Option<f64>| backends.iter().filter_map(of).reduce(f64::max);
        let state = if up > 0 { "up" } else { "down" };
        Row {
            pool: pool.to_owned(),
            state: state.to_owned(),
            why: format!("{up} of {} up{spare}", backends.len()),
            weight: total(|it| it.weight),
            open: total(|it| it.open),
            p50: worst(|it| it.p50),
            p99: worst(|it| it.p99),
            by_hand: backends.iter().any(|it| it.by_hand),
            counted: Counted {
                sessions: total(|it| it.counted.sessions),
                received: total(|it| it.counted.received),
                sent: total(|it| it.counted.sent),
            },
            ..Row::default()
        }
    }

    fn rate(&mut self, before: Counted, seconds: f64) {
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds.max(0.001);
        self.sessions = rate(self.counted.sessions, before.sessions);
        self.received = rate(self.counted.received, before.received);
        self.sent = rate(self.counted.sent, before.sent);
    }
}

impl Total {
    fn after(&self, listeners: &Value, elapsed: Option<f64>) -> Total {
        let mut counted = (0, 0);
        for listener in list(listeners, "listeners") {
            counted.0 += number(listener, "sessions_total");
            let refused = listener["refused"].as_object().into_iter().flat_map(|it| it.values());
            counted.1 += refused.filter_map(Value::as_u64).sum::<u64>();
        }
        let rate = |now: u64, before: u64| {
            elapsed.map_or(0.0, |it| now.saturating_sub(before) as f64 / it.max(0.001))
        };
        Total {
            sessions: rate(counted.0, self.counted.0),
            refused: rate(counted.1, self.counted.1),
            counted,
        }
    }
}

pub fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

pub fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// What is left to close, before why it is lost.
fn closing(closing: &Value) -> String {
    match (closing["policy"].as_str(), closing["left"].as_u64()) {
        (Some(policy), Some(left)) => format!("{policy}: {left} left; "),
        _ => String::new(),
    }
}
