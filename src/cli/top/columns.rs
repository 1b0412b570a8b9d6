//! Which columns `top` shows on a terminal of some width, and how wide. A figure is shown whole or not at all,
//! because without its first digits it is another figure; words may lose their ends. Pure.

use super::model::Sort;

pub struct Column {
    pub title: &'static str,
    pub sort: Sort,
    /// For figures, the width of the largest; for words, the width if there is room.
    width: u16,
    /// Words may be cut to this.
    least: u16,
    pub is_number: bool,
}

const fn words(title: &'static str, sort: Sort, width: u16, least: u16) -> Column {
    Column { title, sort, width, least, is_number: false }
}

const fn number(title: &'static str, sort: Sort, width: u16) -> Column {
    Column { title, sort, width, least: width, is_number: true }
}

pub const COLUMNS: [Column; 11] = [
    words("POOL", Sort::Name, 14, 7),
    words("BACKEND", Sort::Name, 22, 11),
    words("STATE", Sort::State, 14, 14),
    number("WEIGHT", Sort::Name, 6),
    number("OPEN", Sort::Open, 7),
    number("NEW/S", Sort::Sessions, 7),
    number("IN/S", Sort::Received, 10),
    number("OUT/S", Sort::Sent, 10),
    number("P50", Sort::Name, 6),
    number("P99", Sort::Latency, 6),
    words("WHY", Sort::Name, 10, 10),
];

/// The columns that are left out, in this order. The whole reason of the selected row is shown below the table.
const LEFT_OUT: [&str; 8] = ["WHY", "P50", "WEIGHT", "P99", "OUT/S", "IN/S", "NEW/S", "OPEN"];

/// Indices in `COLUMNS`, and widths. The last column of words gets the remaining width.
pub fn fitting(width: u16) -> Vec<(usize, u16)> {
    let mut left_out = LEFT_OUT.iter();
    let mut shown: Vec<usize> = (0..COLUMNS.len()).collect();
    // Between columns there is a blank.
    let needed = |shown: &[usize]| {
        shown.iter().map(|index| COLUMNS[*index].least + 1).sum::<u16>().saturating_sub(1)
    };
    while needed(&shown) > width {
        let Some(title) = left_out.next() else { break };
        shown.retain(|index| COLUMNS[*index].title != *title);
    }
    let mut spare = width.saturating_sub(needed(&shown));
    let mut columns: Vec<(usize, u16)> =
        shown.iter().map(|index| (*index, COLUMNS[*index].least)).collect();
    for (index, given) in &mut columns {
        let more = (COLUMNS[*index].width - *given).min(spare);
        *given += more;
        spare -= more;
    }
    if let Some((_, last)) = columns.last_mut().filter(|(index, _)| !COLUMNS[*index].is_number) {
        *last += spare;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_whole_or_absent_and_all_fits() {
        for width in 0..300 {
            let columns = fitting(width);
            let taken: u16 = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(taken <= width + 1 || columns.len() == 3, "{width}: {columns:?}");
            for (index, given) in columns {
                assert!(given >= COLUMNS[index].least);
            }
        }
        let titles = |width| -> Vec<_> {
            fitting(width).into_iter().map(|(index, _)| COLUMNS[index].title).collect()
        };
        assert_eq!(titles(130).len(), COLUMNS.len());
        let most = ["POOL", "BACKEND", "STATE", "OPEN", "NEW/S", "IN/S", "OUT/S", "P99"];
        assert_eq!(titles(80), most);
    }
}
