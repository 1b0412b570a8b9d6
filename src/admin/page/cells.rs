//! Cells and heads of the tables, and texts that stand in several of them.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::Value;

use super::figures::{UNKNOWN, age, count, escape};

pub(super) fn heads(columns: &[(&str, &str)]) -> String {
    let head = |(name, class): &(&str, &str)| {
        format!("<th role=columnheader scope=col class=\"{class}\">{name}</th>")
    };
    columns.iter().map(head).collect()
}

/// A cell with its name, for the narrow page, where a row is a card.
pub(super) fn cell(page: &mut String, name: &str, class: &str, text: &str) -> std::fmt::Result {
    write!(page, "<td role=cell data-l=\"{name}\" class=\"{class}\">{text}</td>")
}

/// The same, but a narrow page leaves it out if it says nothing.
pub(super) fn spare_cell(
    page: &mut String,
    name: &str,
    class: &str,
    text: &str,
) -> std::fmt::Result {
    let says_nothing = text == "0" || text == UNKNOWN;
    cell(page, name, &if says_nothing { format!("{class} nil") } else { class.to_owned() }, text)
}

/// How long ago that was, with the time itself as a tooltip.
pub(super) fn since_then(then: &str, now: SystemTime) -> String {
    let ago = then.parse::<jiff::Timestamp>().ok().map(SystemTime::from);
    let ago = ago.map(|then| age(now.duration_since(then).unwrap_or_default()));
    let (ago, then) = (ago.unwrap_or_else(|| UNKNOWN.to_owned()), escape(then));
    format!("<time datetime=\"{then}\" title=\"{then}\">{ago}</time>")
}

/// The most frequent first.
pub(super) fn reasons(counts: &Value) -> String {
    let counts = counts.as_object().into_iter().flatten();
    let mut counts: Vec<(&String, u64)> =
        counts.filter_map(|(reason, it)| Some((reason, it.as_u64()?))).collect();
    counts.sort_by_key(|(_, it)| std::cmp::Reverse(*it));
    if counts.is_empty() {
        return "0".to_owned();
    }
    let each = counts.iter().map(|(reason, it)| format!("{} {}", escape(reason), count(*it)));
    each.collect::<Vec<_>>().join(", ")
}
