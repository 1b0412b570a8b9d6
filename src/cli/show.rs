//! `maitred show`: what a running maitred is doing, for people (table), scripts (JSON, as the API has it) and
//! spreadsheets (CSV).

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::ask::Where;
use crate::border::text::{commands, visible};

/// Show what a running maitred is doing
#[derive(Args, Debug)]
pub struct Show {
    /// What to show; `listeners` also shows how many clients were refused, and why
    what: What,
    /// Format of the output
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    #[command(flatten)]
    at: Where,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Info,
    Listeners,
    Pools,
    Sessions,
    Flows,
    /// Every key with the value in force, as a configuration file would have it
    Config,
    /// The last events
    Events,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Csv,
}

/// Of sessions and flows.
const SESSION: &[&str] = &[
    "id",
    "listener",
    "client",
    "pool",
    "backend",
    "stage",
    "age_seconds",
    "idle_seconds",
    "received_bytes",
    "sent_bytes",
    "worker",
];

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Info => "info",
            What::Listeners => "listeners",
            What::Pools => "pools",
            What::Sessions => "sessions",
            What::Flows => "flows",
            What::Config => "config",
            What::Events => "events",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        match self {
            What::Info | What::Config => &["key", "value"],
            What::Listeners => &[
                "name",
                "protocol",
                "addresses",
                "pool",
                "sessions_active",
                "sessions_limit",
                "sessions_total",
                "refused",
                "received_bytes",
                "sent_bytes",
            ],
            What::Pools => &[
                "pool",
                "backend",
                "address",
                "state",
                "reason",
                "since",
                "why",
                "closing",
                "by_hand",
                "weight",
                "tier",
                "sessions_active",
                "sessions_total",
                "received_bytes",
                "sent_bytes",
            ],
            What::Events => &["time", "kind", "pool", "backend", "message"],
            What::Sessions | What::Flows => SESSION,
        }
    }

    /// A row for each line of a table.
    fn rows(self, answer: &Value) -> Vec<Map<String, Value>> {
        let list = |value: &Value, key: &str| -> Vec<Map<String, Value>> {
            let items = value.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(Value::as_object).cloned().collect()
        };
        match self {
            What::Info | What::Config => {
                let mut rows = Vec::new();
                flatten("", answer, &mut rows);
                rows
            }
            What::Pools => {
                let mut rows = Vec::new();
                for pool in list(answer, "pools") {
                    let backends = list(&Value::Object(pool.clone()), "backends");
                    if backends.is_empty() {
                        rows.push(nobody(&pool));
                    }
                    for mut backend in backends {
                        let name = backend.remove("name").unwrap_or_default();
                        backend.insert("backend".to_owned(), name);
                        backend.insert("pool".to_owned(), name_of(&pool));
                        backend.insert("by_hand".to_owned(), by_hand(&backend));
                        backend.insert("closing".to_owned(), closing(&backend));
                        rows.push(backend);
                    }
                }
                rows
            }
            _ => list(answer, self.name()),
        }
    }
}

impl Show {
    pub fn run(&self) -> ExitCode {
        let answer = match self.at.json("GET", &format!("/api/v1/{}", self.what.name()), None) {
            Ok(answer) => answer,
            Err(error) => return error.report(),
        };
        super::output::print(&self.text(&answer));
        ExitCode::SUCCESS
    }

    fn text(&self, answer: &Value) -> String {
        if self.output == Output::Json {
            return visible_json(answer);
        }
        let columns = self.what.columns();
        let rows = self.what.rows(answer);
        let cells = rows.iter().map(|row| {
            columns.iter().map(|key| cell(row.get(*key).unwrap_or(&Value::Null))).collect()
        });
        let head = columns.iter().map(|key| (*key).to_owned()).collect();
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
        match self.output {
            Output::Csv => lines.iter().map(|line| csv(line)).collect(),
            Output::Table | Output::Json => table(&lines),
        }
    }
}

/// What was set, by whom and until when.
fn by_hand(backend: &Map<String, Value>) -> Value {
    let Some(set) = backend.get("set_by_hand").and_then(Value::as_object) else {
        return Value::Null;
    };
    let each = ["state", "weight"].into_iter().filter_map(|key| {
        let set = set.get(key)?.as_object()?;
        let text = |key: &str| set.get(key).map(cell).unwrap_or_default();
        let until = match set.get("until")?.as_str() {
            Some(until) => format!(" until {until}"),
            None => String::new(),
        };
        Some(format!("{key} {} ({}){until}", text("value"), text("who")))
    });
    each.collect::<Vec<_>>().join(", ").into()
}

/// How many of its sessions are still to be closed, and until when they may stay.
fn closing(backend: &Map<String, Value>) -> Value {
    let Some(closing) = backend.get("closing").and_then(Value::as_object) else {
        return Value::Null;
    };
    let text = |key: &str| closing.get(key).map(cell).unwrap_or_default();
    let until = match closing.get("until").and_then(Value::as_str) {
        Some(until) => format!(" until {until}"),
        None => String::new(),
    };
    format!("{} {} left{until}", text("policy"), text("left")).into()
}

/// The server that answers may not be maitred.
fn name_of(pool: &Map<String, Value>) -> Value {
    pool.get("name").cloned().unwrap_or_default()
}

/// A pool without backends must be visible, too.
fn nobody(pool: &Map<String, Value>) -> Map<String, Value> {
    let why = pool.get("discovery").and_then(|it| it["why"].as_str());
    let why = why.unwrap_or("this pool has no backends");
    let pairs = [("pool", name_of(pool)), ("state", "none".into()), ("why", why.into())];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A row for each key, by its path.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Map<String, Value>>) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, rows);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (number, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{number}]"), item, rows);
            }
        }
        value => {
            let pair = [("key", Value::from(path)), ("value", value.clone())];
            rows.push(pair.map(|(key, value)| (key.to_owned(), value)).into_iter().collect());
        }
    }
}

/// `-` for nothing; pairs as `denied=3 over_limit=1`.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => visible(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(pairs) if pairs.is_empty() => "-".to_owned(),
        Value::Object(pairs) => {
            let each = pairs.iter().map(|(key, value)| format!("{}={}", visible(key), cell(value)));
            each.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// The same for JSON, which has its own way to write such letters.
fn visible_json(value: &Value) -> String {
    let shown = |letter: char| match commands(letter) && letter != '\n' {
        true => format!("\\u{:04x}", u32::from(letter)),
        false => letter.to_string(),
    };
    format!("{value:#}\n").chars().map(shown).collect()
}

/// RFC 4180, except for the line's end.
fn csv(line: &[String]) -> String {
    let quoted = line.iter().map(|cell| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.clone(),
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}

fn table(lines: &[Vec<String>]) -> String {
    let mut widths = vec![0; lines.first().map_or(0, Vec::len)];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn show(what: What, output: Output) -> Show {
        Show { what, output, at: Where::default() }
    }

    #[test]
    fn listeners_tell_who_was_refused() {
        let row = json!({
            "name": "main", "protocol": "tcp", "addresses": ["127.0.0.1:1", "[::1]:1"], "pool": null,
            "sessions_active": 1, "sessions_limit": 20, "sessions_total": 9, "received_bytes": 0,
            "sent_bytes": 0, "refused": { "denied": 3, "over_limit": 1 },
        });
        let answer = json!({ "listeners": [row] });
        let text = show(What::Listeners, Output::Table).text(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        let at = lines[0].find("refused").unwrap();
        assert!(lines[1][at..].starts_with("denied=3 over_limit=1"), "{text}");
        let csv = show(What::Listeners, Output::Csv).text(&answer);
        assert!(
            csv.ends_with("\nmain,tcp,127.0.0.1:1 [::1]:1,-,1,20,9,denied=3 over_limit=1,0,0\n")
        );
        assert_eq!(show(What::Listeners, Output::Json).text(&answer), format!("{answer:#}\n"));
    }

    #[test]
    fn nobody_writes_on_the_terminal() {
        let backend = json!({ "name": "\u{1b}[2Jone", "why": "a\nb", "weight": 1 });
        let answer = json!({ "pools": [{ "name": "db", "backends": [backend] }] });
        let text = show(What::Pools, Output::Table).text(&answer);
        assert!(text.contains("\\u{1b}[2Jone") && text.contains("a\\nb"), "{text}");
        assert_eq!(text.lines().count(), 2);
        let odd = json!({ "pools": [{}, { "backends": [{}] }] });
        assert_eq!(show(What::Pools, Output::Table).text(&odd).lines().count(), 3);
        let json = show(What::Pools, Output::Json).text(&json!({ "x": "\u{9b}\u{202e}" }));
        assert!(json.contains("\\u009b\\u202e"), "{json}");
    }

    #[test]
    fn a_pool_is_a_row_for_each_backend_and_commas_are_quoted() {
        let backend = |name: &str| json!({ "name": name, "why": "last: a, \"b\"", "weight": 2 });
        let answer =
            json!({ "pools": [{ "name": "db", "backends": [backend("one"), backend("two")] }] });
        let csv = show(What::Pools, Output::Csv).text(&answer);
        assert!(
            csv.contains("\ndb,one,-,-,-,-,\"last: a, \"\"b\"\"\",-,-,2,-,-,-,-,-\ndb,two,"),
            "{csv}"
        );
        let empty = json!({ "pools": [{ "name": "db", "backends": [], "discovery": { "why": "no such name" } }] });
        let text = show(What::Pools, Output::Table).text(&empty);
        assert!(
            text.contains("db    -        -        none   -       -      no such name"),
            "{text}"
        );
    }
}
