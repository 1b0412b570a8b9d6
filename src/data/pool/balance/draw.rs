//! Weighted draws in constant time (Walker's alias method, in whole numbers so that the shares are exact).
//!
//! There are as many columns as members, each as wide as the average member. A column has a part of its own member up
//! to `split`, and of one other, `alias`, above it. A draw picks a column and a point in it.

use super::super::pick::{narrow, widen};

pub struct Draw {
    columns: Vec<Column>,
    /// The width of a column, in parts: the sum of all weights.
    width: u64,
}

#[derive(Clone, Copy)]
struct Column {
    split: u32,
    alias: u32,
}

impl Draw {
    pub fn new(weights: &[u32]) -> Draw {
        let width: u64 = weights.iter().copied().map(u64::from).sum();
        if width == 0 {
            return Draw { columns: Vec::new(), width };
        }
        let count = u64::from(narrow(weights.len()));
        // A member has weight × count parts; a column has `width` parts.
        let mut parts: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * count).collect();
        let mut columns: Vec<Column> = (0..weights.len())
            .map(|column| Column { split: u32::MAX, alias: narrow(column) })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..parts.len()).partition(|column| parts[*column] < width);
        while let (Some(poor), Some(rich)) = (small.pop(), large.last().copied()) {
            let split = u32::try_from(parts[poor]).unwrap_or(u32::MAX);
            columns[poor] = Column { split, alias: narrow(rich) };
            parts[rich] -= width - parts[poor];
            if parts[rich] < width {
                large.pop();
                small.push(rich);
            }
        }
        Draw { columns, width }
    }

    /// A member by its weight, from 64 random bits; none if no member has weight.
    pub fn draw(&self, word: u64) -> Option<usize> {
        let (high, low) = (word >> 32, word & u64::from(u32::MAX));
        let column = widen(scale(high, u64::from(narrow(self.columns.len()))));
        let Column { split, alias } = *self.columns.get(column)?;
        Some(if scale(low, self.width) < split { column } else { widen(alias) })
    }
}

/// 32 random bits to a number below `end`, which is at most 2^32.
fn scale(bits: u64, end: u64) -> u32 {
    u32::try_from((bits * end) >> 32).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The exact number of parts that each member has, over all columns.
    fn parts(draw: &Draw) -> Vec<u64> {
        let mut parts = vec![0; draw.columns.len()];
        for (column, Column { split, alias }) in draw.columns.iter().enumerate() {
            let own = u64::from(*split).min(draw.width);
            parts[column] += own;
            parts[widen(*alias)] += draw.width - own;
        }
        parts
    }

    proptest! {
        #[test]
        fn shares_are_exactly_the_weights(weights in prop::collection::vec(0..=256_u32, 1..200)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let count = weights.len() as u64;
            let expected: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) * count).collect();
            prop_assert_eq!(parts(&Draw::new(&weights)), expected);
        }

        #[test]
        fn nobody_without_weight_is_drawn(word in any::<u64>()) {
            prop_assert_eq!(Draw::new(&[0, 3, 0]).draw(word), Some(1));
            prop_assert_eq!(Draw::new(&[0, 0]).draw(word), None);
            prop_assert_eq!(Draw::new(&[]).draw(word), None);
        }
    }
}
