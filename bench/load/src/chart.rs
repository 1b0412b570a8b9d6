//! The chart: processor time of each product for one unit of work, maitred's being 1.

use std::fmt::Write;

use crate::measure::Run;
use crate::product::Product::{self, *};
use crate::report::Row;

const CASES: [(&str, &str); 8] = [
    ("rtt-64", "64 B round trips"),
    ("rtt-16k", "16 KiB round trips"),
    ("churn-client", "connect–exchange–close, client first"),
    ("churn-backend", "connect–exchange–close, backend first"),
    ("bulk-1", "bulk, 1 stream"),
    ("bulk-16", "bulk, 16 streams"),
    ("small-64", "UDP, 64 B"),
    ("gso-64", "UDP in trains"),
];

const PRODUCTS: [(Product, &str); 7] = [
    (Maitred, "#0b6e4f"),
    (HAProxy, "#7aa5d2"),
    (HAProxySplice, "#3a6ea5"),
    (Nginx, "#c9b458"),
    (Nginx64K, "#9a8420"),
    (Envoy, "#b565a7"),
    (RelayCopy, "#999999"),
];

const LEFT: f64 = 290.0;
const SCALE: f64 = 130.0;
/// A bar that is longer is cut, and says so by its figure.
const MOST: f64 = 4.0;
const BAR: f64 = 13.0;

pub fn draw(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = 44.0;
    for (case, title) in CASES {
        let cost = |product| {
            rows.iter()
                .find(|row| row.case.name == case && row.product == product)
                .and_then(|row| row.median(Run::cost))
        };
        let Some(own) = cost(Maitred) else { continue };
        let _ = writeln!(
            body,
            "<text x=\"8\" y=\"{:.0}\" font-weight=\"bold\">{title}</text>",
            y + 10.0
        );
        for (product, color) in PRODUCTS {
            let Some(value) = cost(product).map(|cost| cost / own) else { continue };
            let _ = writeln!(
                body,
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text><rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{:.0}\">{value:.2}</text>",
                LEFT - 6.0,
                y + 10.0,
                product.name(),
                value.min(MOST) * SCALE,
                BAR - 2.0,
                LEFT + value.min(MOST) * SCALE + 5.0,
                y + 10.0,
            );
            y += BAR;
        }
        y += 10.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"880\" height=\"{y:.0}\" font-family=\"sans-serif\" font-size=\"11\">
<rect width=\"100%\" height=\"100%\" fill=\"white\"/>
<text x=\"8\" y=\"20\" font-size=\"14\">Processor time of the balancer for one unit of work; maitred = 1, shorter is better</text>
{body}</svg>
"
    )
}
