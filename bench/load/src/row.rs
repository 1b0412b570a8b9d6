//! All rounds of one product in one case, and what follows from them.

use crate::cases::Case;
use crate::measure::Run;
use crate::product::Product;

pub struct Row {
    pub case: &'static Case,
    pub product: Product,
    pub runs: Vec<Run>,
}

impl Run {
    /// Processor time for each unit; none if nothing was done or no product stood between.
    pub fn per_unit(&self, processor_seconds: f64) -> Option<f64> {
        (processor_seconds > 0.0 && self.done > 0.0).then(|| processor_seconds / self.done)
    }

    /// Seconds of the product's processor time for each unit.
    pub fn cost(&self) -> Option<f64> {
        self.per_unit(self.product_seconds)
    }

    pub fn machine_cost(&self) -> Option<f64> {
        self.per_unit(self.machine_seconds)
    }

    pub fn rate(&self) -> Option<f64> {
        (self.seconds > 0.0).then(|| self.done / self.seconds)
    }

    /// Lost datagrams, or failed connections, of all.
    pub fn lost(&self) -> Option<f64> {
        let all = if self.sent > 0 { self.sent as f64 } else { self.done + self.failed as f64 };
        (all > 0.0).then(|| (self.lost + self.failed) as f64 / all)
    }
}

impl Row {
    pub fn values(&self, figure: impl Fn(&Run) -> Option<f64>) -> Vec<f64> {
        sorted(self.runs.iter().filter_map(figure))
    }

    pub fn median(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        median(&self.values(figure))
    }

    pub fn is(&self, case: &str, product: Product) -> bool {
        self.case.name == case && self.product == product
    }
}

pub fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Of values in order.
pub fn median(values: &[f64]) -> Option<f64> {
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
pub fn row(case: &str, product: Product, costs: &[f64]) -> Row {
    let case = crate::cases::named(case).expect("a case of that name");
    let run = |cost: &f64| Run {
        seconds: 1.0,
        done: 100.0,
        product_seconds: 100.0 * cost,
        machine_seconds: 2.0,
        ..Run::default()
    };
    Row { case, product, runs: costs.iter().map(run).collect() }
}
