//! `top` on a terminal in memory: its screen is compared with a picture, which the documentation shows.

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::super::act::Act;
use super::super::keys::Step;
use super::super::model::{Model, Sample};
use super::*;

fn backend(name: &str, state: &str, why: &str, open: u64, total: u64) -> Value {
    let by_hand =
        (state == "drain").then(|| json!({ "state": { "value": "drain" }, "weight": null }));
    let p99 = (state == "up").then_some(5.0);
    json!({
        "name": name, "state": state, "why": why, "weight": 1, "sessions_active": open, "sessions_total": total,
        "received_bytes": total * 81_920, "sent_bytes": total * 700, "connect_ms": { "p50": p99.map(|_| 0.5), "p99": p99 },
        "set_by_hand": by_hand,
    })
}

fn sample(at: Instant, total: u64) -> Sample {
    let db = [
        backend("db1", "up", "2 probes passed, last: passed in 0.4 ms", 41, total),
        backend("db2", "down", "3 probes failed, last: refused in 0.1 ms", 0, 120),
        backend("db3", "drain", "by hand (root)", 12, 340),
    ];
    let cache = [
        backend("10.0.0.21:6379", "up", "no probes are configured", 3, total * 3),
        backend("10.0.0.22:6379", "ejected", "5 failures in a row", 0, 7),
    ];
    let pools = json!([{ "name": "db", "backends": db }, { "name": "cache", "backends": cache }]);
    let event = |time: &str, message: &str| json!({ "time": time, "message": message });
    let events = [
        event("2026-11-27T02:13:55.120Z", "db/db3 set by hand: drain (root)"),
        event("2026-11-27T02:14:07.481Z", "db/db2 down: 3 probes failed, last: refused in 0.1 ms"),
    ];
    let listener = json!({ "sessions_total": total * 4, "refused": { "denied": total / 10 } });
    Sample {
        at,
        info: json!({
            "version": "0.1.0", "uptime_seconds": 93_784, "sessions_active": 56, "sessions_limit": 9_600,
            "flows_active": 0, "flows_limit": 0, "workers": 4, "draining": false,
        }),
        pools: json!({ "pools": pools }),
        listeners: json!({ "listeners": [listener] }),
        events: json!({ "events": events }),
    }
}

/// Two samples, a second apart.
fn model() -> Model {
    let mut model = Model::default();
    let start = Instant::now();
    model.take(sample(start, 1_000));
    model.take(sample(start + Duration::from_secs(1), 1_050));
    model
}

fn press(model: &mut Model, code: KeyCode) -> Step {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn screen(model: &mut Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let rows = buffer.content().chunks(usize::from(buffer.area.width));
    let line = |cells: &[Cell]| cells.iter().map(Cell::symbol).collect::<String>();
    rows.map(|cells| line(cells).trim_end().to_owned()).collect()
}

#[test]
fn the_picture_in_the_documentation_is_what_it_shows() {
    let mut model = model();
    press(&mut model, KeyCode::Down);
    let picture = svg(&screen(&mut model, 150, 22));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/images/top.svg");
    if std::env::var_os("MAITRED_BLESS").is_some() {
        std::fs::write(path, &picture).unwrap();
    }
    let held = std::fs::read_to_string(path).unwrap_or_default();
    assert!(held == picture, "MAITRED_BLESS=1 writes it anew; look at it");
}

#[test]
fn rates_are_of_the_time_between_two_samples() {
    let model = model();
    let row = model.rows.iter().find(|row| row.backend == "db1").unwrap();
    assert_eq!((row.sessions, row.received, row.sent), (50.0, 4_096_000.0, 35_000.0));
    let pool = model.rows.iter().find(|row| row.pool == "cache" && row.backend.is_empty()).unwrap();
    assert_eq!((pool.sessions, &*pool.why, &*pool.state), (150.0, "1 of 2 up", "up"));
    assert_eq!((model.total.sessions, model.total.refused), (200.0, 5.0));
}

#[test]
fn nothing_is_done_before_yes() {
    let mut model = model();
    assert_eq!(press(&mut model, KeyCode::Down), Step::Stay);
    assert_eq!(press(&mut model, KeyCode::Char('d')), Step::Stay);
    let text = lines(&screen(&mut model, 132, 24)).join("\n");
    assert!(text.contains("Set db/db2 to drain? y: yes, any other key: no"), "{text}");
    assert_eq!(press(&mut model, KeyCode::Enter), Step::Stay);
    assert_eq!(model.said, "nothing changed");
    press(&mut model, KeyCode::Char('x'));
    assert_eq!(model.said, "", "an answer stays until the next key");
    let kill = Act::Kill { pool: "db".into(), backend: "db2".into() };
    assert_eq!(press(&mut model, KeyCode::Char('y')), Step::Act(kill));
    // A whole pool is not one of its backends.
    press(&mut model, KeyCode::Char('p'));
    press(&mut model, KeyCode::Char('d'));
    assert!(model.said.starts_with("choose a backend"), "{}", model.said);
}

#[test]
fn who_is_in_trouble_comes_first_and_what_is_selected_stays_so() {
    let mut model = model();
    press(&mut model, KeyCode::End);
    press(&mut model, KeyCode::Char('s'));
    let order: Vec<String> = model.shown().iter().map(|row| row.backend.clone()).collect();
    assert_eq!(order, ["db2", "10.0.0.22:6379", "db3", "db1", "10.0.0.21:6379"]);
    assert_eq!(model.selected_row().unwrap().backend, "10.0.0.22:6379");
    press(&mut model, KeyCode::Char('/'));
    for letter in "cache".chars() {
        press(&mut model, KeyCode::Char(letter));
    }
    press(&mut model, KeyCode::Enter);
    assert_eq!(model.shown().len(), 2);
    press(&mut model, KeyCode::Esc);
    assert_eq!(model.shown().len(), 5);
}

/// Figures of many digits, on the width that most terminals begin with.
#[test]
fn at_eighty_columns_every_figure_is_whole() {
    let mut model = model();
    for row in &mut model.rows {
        (row.open, row.sessions) = (1_234_567, 7_654_321.0);
        (row.received, row.sent) = (999.0 * 1024.0 * 1024.0, 888.0 * 1024.0 * 1024.0);
    }
    let text = lines(&screen(&mut model, 80, 24)).join("\n");
    let row = text.lines().find(|line| line.contains("db1")).unwrap();
    assert!(row.ends_with("1234567 7654321  999.0 MiB  888.0 MiB      5"), "{text}");
    assert!(row.starts_with("db "), "{text}");
}

#[test]
fn no_size_of_terminal_and_no_answer_is_too_small() {
    for (width, height) in [(1, 1), (20, 5), (40, 60), (300, 4)] {
        screen(&mut model(), width, height);
        screen(&mut Model::default(), width, height);
        let mut helped = model();
        press(&mut helped, KeyCode::Char('?'));
        screen(&mut helped, width, height);
    }
    let mut odd = Model::default();
    let nothing = || Value::Null;
    let sample = Sample {
        at: Instant::now(),
        info: nothing(),
        pools: json!({ "pools": [{}, 3] }),
        listeners: nothing(),
        events: json!({ "events": [{ "time": "ä" }] }),
    };
    odd.take(sample);
    assert!(lines(&screen(&mut odd, 100, 30)).join("").contains("there are no backends"));
}

/// The screen as a picture.
fn svg(buffer: &Buffer) -> String {
    const WIDTH: f64 = 8.4;
    const HEIGHT: f64 = 18.0;
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0}\" height=\"{:.0}\" font-family=\"monospace\" font-size=\"14\">\n\
         <title>maitred top</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#1b1f24\"/>\n",
        f64::from(columns) * WIDTH,
        f64::from(rows) * HEIGHT + 6.0,
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let cell = &buffer[(column, row)];
            let start = column;
            let mut run = String::new();
            while column < columns && style(&buffer[(column, row)]) == style(cell) {
                run += buffer[(column, row)].symbol();
                column += 1;
            }
            let is_reversed = cell.modifier.contains(Modifier::REVERSED);
            if run.trim().is_empty() && !is_reversed {
                continue;
            }
            let (x, y) = (f64::from(start) * WIDTH, f64::from(row) * HEIGHT);
            let width = f64::from(column - start) * WIDTH;
            if is_reversed {
                text += &format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"18\" fill=\"#c9d1d9\"/>\n"
                );
            }
            let run = run.replace('&', "&amp;").replace('<', "&lt;");
            text += &format!(
                "<text x=\"{x:.1}\" y=\"{:.0}\" textLength=\"{width:.1}\" xml:space=\"preserve\"{}>{run}</text>\n",
                y + 14.0,
                style(cell),
            );
        }
    }
    text + "</svg>\n"
}

fn style(cell: &Cell) -> String {
    let has = |modifier| cell.modifier.contains(modifier);
    let fill = match cell.fg {
        _ if has(Modifier::REVERSED) => "#1b1f24",
        Color::Green => "#3fb950",
        Color::Red => "#ff7b72",
        Color::Yellow => "#e3b341",
        _ if has(Modifier::DIM) => "#8b949e",
        _ => "#e6edf3",
    };
    let weight = if has(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let line = if has(Modifier::UNDERLINED) { " text-decoration=\"underline\"" } else { "" };
    format!(" fill=\"{fill}\"{weight}{line}")
}
