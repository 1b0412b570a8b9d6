//! `maitred backend`: sets or lifts by hand what a running maitred does with one backend, at once.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::ask::{Where, percent};
use crate::border::text::visible;

/// Drain a backend, put it into maintenance, or set its weight; holds, also over reloads, until it is lifted
#[derive(Args, Debug)]
pub struct Backend {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lift the state and the weight that were set by hand; probes then decide. Ends a hold down (`flap`), and lets its
    /// tier serve again (`failback`)
    Up {
        #[command(flatten)]
        which: Which,
    },
    /// No new sessions; open sessions go on
    Drain {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        end: End,
    },
    /// No new sessions and no probes; open sessions follow the pool's `on_down`
    Maintenance {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        end: End,
    },
    /// Set another weight than the configured one
    Weight {
        /// The weight, 0…256; with 0 the backend gets no new sessions. May also be given last
        #[arg(value_name = "N")]
        weight: String,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        end: End,
    },
}

#[derive(Args, Debug)]
struct Which {
    /// Name of the pool
    pool: String,
    /// Name of the backend, as `maitred show pools` shows it
    backend: String,
    #[command(flatten)]
    at: Where,
}

#[derive(Args, Debug)]
struct End {
    /// When it is lifted automatically: a time like 2027-01-31T06:00:00Z, or a duration from now like 30m
    #[arg(long, value_name = "TIME", value_parser = until)]
    until: Option<String>,
}

/// RFC 3339.
fn until(text: &str) -> Result<String, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.to_string());
    }
    let length: Duration = crate::border::quantities::time(text)
        .map_err(|_| "write a time like 2027-01-31T06:00:00Z, or a duration like 30m".to_owned())?;
    let end = jiff::Timestamp::now().checked_add(length);
    end.map(|time| time.to_string()).map_err(|_| "that is too far in the future".to_owned())
}

impl Backend {
    pub fn run(&self) -> ExitCode {
        let (which, place, change) = match &self.what {
            What::Up { which } => (which, which.place(), json!({ "state": "up" })),
            What::Drain { which, end } => (which, which.place(), end.with("state", "drain".into())),
            What::Maintenance { which, end } => {
                (which, which.place(), end.with("state", "maintenance".into()))
            }
            What::Weight { weight, which, end } => {
                match weighed([weight, &which.pool, &which.backend]) {
                    Ok((weight, place)) => (which, place, end.with("weight", weight.into())),
                    Err(why) => {
                        eprintln!("error: {why}\n\nUsage: maitred backend weight N POOL BACKEND");
                        return ExitCode::from(2);
                    }
                }
            }
        };
        let (pool, backend) = place;
        match which.at.set(pool, backend, &change) {
            Ok(backend) => {
                super::output::print(&summary(pool, &backend));
                if let Some(warning) = backend["warning"].as_str() {
                    eprintln!("warning: {}", visible(warning));
                }
                ExitCode::SUCCESS
            }
            Err(error) => error.report(),
        }
    }
}

impl Which {
    fn place(&self) -> (&str, &str) {
        (&self.pool, &self.backend)
    }
}

/// The weight, which may come before or after the names, and the names.
fn weighed(words: [&str; 3]) -> Result<(u32, (&str, &str)), String> {
    const MOST: u32 = 256;
    let [first, second, third] = words;
    // A pool may be called `10`.
    let (number, place) = match (first.parse::<u32>(), third.parse::<u32>()) {
        (Ok(number), _) => (number, (second, third)),
        (_, Ok(number)) => (number, (first, second)),
        _ => return Err(format!("neither `{first}` nor `{third}` is a weight")),
    };
    match number {
        0..=MOST => Ok((number, place)),
        _ => Err(format!("weight {number} is not in 0..={MOST}")),
    }
}

impl End {
    fn with(&self, key: &str, value: Value) -> Value {
        let mut change = Map::from_iter([(key.to_owned(), value)]);
        if let Some(until) = &self.until {
            change.insert("until".to_owned(), until.as_str().into());
        }
        Value::Object(change)
    }
}

impl Where {
    /// Changes a backend by hand; returns its new state.
    pub fn set(
        &self,
        pool: &str,
        backend: &str,
        change: &Value,
    ) -> Result<Value, super::ask::Unanswered> {
        let path = format!("/api/v1/pools/{}/backends/{}", percent(pool), percent(backend));
        self.json("PATCH", &path, Some(change))
    }
}

fn summary(pool: &str, backend: &Value) -> String {
    let text = |key: &str| visible(backend[key].as_str().unwrap_or("?"));
    if backend["state"].is_null() {
        return format!(
            "{pool}/{} does not exist now; what was set by hand is lifted\n",
            text("name")
        );
    }
    let number = |key: &str| backend[key].as_u64().unwrap_or(0);
    let open = number("sessions_active");
    format!(
        "{pool}/{} is {} ({}), weight {}, {open} sessions open\n",
        text("name"),
        text("state"),
        text("why"),
        number("weight"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_stands_before_or_behind_the_names() {
        for (words, expected) in [
            (["10", "db", "db1"], Some((10, "db", "db1"))),
            (["db", "db1", "0"], Some((0, "db", "db1"))),
            (["10", "10", "10"], Some((10, "10", "10"))),
            (["7", "db", "256"], Some((7, "db", "256"))),
            (["db", "db1", "heavy"], None),
            (["257", "db", "db1"], None),
            (["-1", "db", "db1"], None),
        ] {
            let found =
                weighed(words).ok().map(|(weight, (pool, backend))| (weight, pool, backend));
            assert_eq!(found, expected, "{words:?}");
        }
    }
}
