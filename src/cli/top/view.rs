//! How `top` looks. It decides nothing.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as Cells, Table, TableState};

use super::columns::{COLUMNS, Column, fitting};
use super::model::{Mode, Model, Row, Sort, list, number, text};

/// Lines at the bottom, if there is room: the whole reason of the selected row, and the last events.
const BELOW: u16 = 7;

pub fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let area = frame.area();
    let lines = if area.height > 20 { BELOW } else { 0 };
    let parts = [
        Constraint::Length(2),
        Constraint::Min(3),
        Constraint::Length(lines),
        Constraint::Length(1),
    ];
    let [head, body, below, foot] = Layout::vertical(parts).areas(area);
    frame.render_widget(Paragraph::new(header(model)), head);
    table(frame, model, body);
    if lines > 0 {
        frame.render_widget(Paragraph::new(bottom(model, lines)), below);
    }
    frame.render_widget(Paragraph::new(footer(model)), foot);
    if model.mode == Mode::Help {
        help(frame, area);
    }
}

fn header(model: &Model) -> Vec<Line<'static>> {
    let Some(sample) = &model.sample else {
        return vec![Line::from("waiting for the first answer …")];
    };
    let info = &sample.info;
    let state = match &model.lost {
        Some(why) => format!("  lost: {}", why.lines().next().unwrap_or_default()).red().bold(),
        None if info["draining"].as_bool() == Some(true) => "  draining".yellow().bold(),
        None => Span::raw(""),
    };
    let down = model.rows.iter().filter(|row| !row.backend.is_empty());
    let all = down.clone().count();
    let down = down.filter(|row| !matches!(&*row.state, "up" | "starting" | "standby")).count();
    let nobody = model.rows.iter().find(|row| row.backend.is_empty() && row.state == "down");
    let health = match (down, nobody) {
        (_, Some(pool)) => format!("no backend serves pool {}", pool.pool).red().bold(),
        (0, None) => format!("all {all} backends serve").green(),
        (1, None) => format!("1 of {all} backends does not serve").red().bold(),
        (_, None) => format!("{down} of {all} backends do not serve").red().bold(),
    };
    let reload = match info["reload_refused"].is_string() {
        true => "  last reload refused".yellow().bold(),
        false => Span::raw(""),
    };
    vec![
        Line::from(vec![
            format!("maitred {}", text(info, "version")).bold(),
            format!("  up {}  ", age(number(info, "uptime_seconds"))).into(),
            health,
            reload,
            state,
        ]),
        Line::from(format!(
            "sessions {} of {}   flows {} of {}   new {}/s   refused {}/s   workers {}",
            number(info, "sessions_active"),
            number(info, "sessions_limit"),
            number(info, "flows_active"),
            number(info, "flows_limit"),
            rate(model.total.sessions),
            rate(model.total.refused),
            number(info, "workers"),
        )),
    ]
}

fn table(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let columns = fitting(area.width);
    let titles = columns.iter().map(|(index, _)| {
        let Column { title, sort, .. } = &COLUMNS[*index];
        let is_sorted = *sort == model.sort && (*sort != Sort::Name || *index == 0);
        let arrow = if model.is_reversed { "↑" } else { "↓" };
        let title = if is_sorted { format!("{title}{arrow}") } else { (*title).to_owned() };
        Cell::from(Line::from(title).alignment(side(*index)))
    });
    let head = Cells::new(titles).style(Style::new().reversed());
    let shown = model.shown();
    let rows = shown.iter().map(|row| {
        let mut cells = cells(row).map(Some);
        Cells::new(columns.iter().filter_map(|(index, _)| cells[*index].take()))
    });
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let table =
        Table::new(rows, widths).header(head).row_highlight_style(Style::new().bold().underlined());
    let mut state = TableState::default().with_selected(model.position());
    frame.render_stateful_widget(table, area, &mut state);
    if shown.is_empty() && model.sample.is_some() {
        let inner = Rect { y: area.y + 1, height: 1, ..area };
        let why = if model.filter.is_empty() {
            "there are no backends"
        } else {
            "nothing matches the filter"
        };
        frame.render_widget(Paragraph::new(why), inner);
    }
}

/// Numbers to the right.
fn side(column: usize) -> Alignment {
    if COLUMNS[column].is_number { Alignment::Right } else { Alignment::Left }
}

/// In the order of `COLUMNS`.
fn cells(row: &Row) -> [Cell<'static>; COLUMNS.len()] {
    let mark = if row.by_hand { "*" } else { "" };
    let milliseconds =
        |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |it| format!("{it}"));
    let number = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let backend = if row.backend.is_empty() { "(all)".to_owned() } else { row.backend.clone() };
    [
        Cell::from(row.pool.clone()),
        Cell::from(backend),
        Cell::from(format!("{} {}{mark}", symbol(&row.state), row.state)).style(color(&row.state)),
        number(row.weight.to_string()),
        number(row.open.to_string()),
        number(rate(row.sessions)),
        number(bytes(row.received)),
        number(bytes(row.sent)),
        number(milliseconds(row.p50)),
        number(milliseconds(row.p99)),
        Cell::from(row.why.clone()),
    ]
}

/// Not by colour alone.
fn symbol(state: &str) -> &'static str {
    match state {
        "up" => "●",
        "starting" | "standby" => "○",
        "down" => "✖",
        "ejected" => "▲",
        _ => "■",
    }
}

fn color(state: &str) -> Style {
    let color = match state {
        "up" | "starting" | "standby" => Color::Green,
        "down" => Color::Red,
        _ => Color::Yellow,
    };
    // The terminal's own colours, unless no colours are wanted.
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return Style::new();
    }
    Style::new().fg(color)
}

fn bottom(model: &Model, lines: u16) -> Vec<Line<'static>> {
    let selected = model.selected_row().map_or_else(String::new, |row| {
        let slash = if row.backend.is_empty() { "" } else { "/" };
        format!("{}{slash}{} is {}: {}", row.pool, row.backend, row.state, row.why)
    });
    let title = Line::from("LAST EVENTS").style(Style::new().add_modifier(Modifier::DIM));
    let Some(sample) = &model.sample else { return vec![] };
    let events: Vec<_> = list(&sample.events, "events").collect();
    let newest = events.iter().rev().take(usize::from(lines).saturating_sub(2)).map(|event| {
        let time = text(event, "time");
        let time = time.get(11..19).unwrap_or_default().to_owned();
        Line::from(format!("{time}  {}", text(event, "message")))
    });
    [Line::from(selected), title].into_iter().chain(newest).collect()
}

fn footer(model: &Model) -> Line<'static> {
    match &model.mode {
        Mode::Confirm(act) => {
            Line::from(format!("{} y: yes, any other key: no", act.question())).yellow().bold()
        }
        Mode::Filter => Line::from(format!("filter: {}▏", model.filter)),
        Mode::List | Mode::Help => {
            let filter = if model.filter.is_empty() {
                String::new()
            } else {
                format!("  [filter: {}]", model.filter)
            };
            let keys = "? help  q quit  ↑↓ choose  d drain  m maintenance  u up  x kill  p pools  s sort  r reverse  / filter";
            // An answer must be visible on any terminal: it replaces the key help until the next key.
            match model.said.lines().next() {
                Some(said) => Line::from(said.to_owned()).bold(),
                None => Line::from(vec![keys.dim(), filter.into()]),
            }
        }
    }
}

const HELP: [&str; 13] = [
    "↑ ↓ PgUp PgDn Home End   choose a row",
    "d   drain: no new sessions, open sessions go on",
    "m   maintenance: as d, no probes, open sessions follow on_down",
    "u   up: lift what was set by hand (*)",
    "x   reset all sessions on the backend",
    "p   show pools, or backends",
    "s   sort by the next column,  r   reverse the order",
    "/   filter by pool, backend, state or why,  Esc   show all",
    "q   quit",
    "",
    "NEW/S new sessions, IN/S bytes from the backend, OUT/S to it,",
    "P50 P99 connect time in ms, since the start, upper bounds",
    "WHY reason for the state; changes are confirmed first",
];

fn help(frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (70.min(area.width), 15.min(area.height));
    let x = area.x + (area.width - width) / 2;
    let y = area.y + (area.height - height) / 2;
    let popup = Rect { x, y, width, height };
    frame.render_widget(Clear, popup);
    let lines: Vec<Line<'_>> = HELP.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" keys ")), popup);
}

/// Below ten with one digit after the point.
fn rate(value: f64) -> String {
    if value > 0.0 && value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = value;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests;
