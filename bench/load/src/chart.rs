//! The chart: processor time of each product for one unit of work, maitred's being 1; and of a connection through a
//! maitred that has much to look after, that of one with little being 1.

use std::fmt::Write;

use crate::measure::Run;
use crate::product::Product::{self, *};
use crate::row::Row;

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

/// What maitred has in the case `grown`; the first is the measure of the others.
const GROWN: [(Product, &str); 6] = [
    (Maitred, "1 port, 1 pool, 1 backend"),
    (MaitredPorts, "4 000 ports"),
    (MaitredPools, "1 000 pools"),
    (MaitredBackends, "5 000 backends, round robin"),
    (MaitredLeast, "1 backend, least connections"),
    (MaitredLeastMany, "5 000 backends, least connections"),
];
const OPEN: [(&str, &str); 2] =
    [("beside-idle-0", "no sessions open"), ("beside-idle-9000", "9 000 sessions open")];

const LEFT: f64 = 290.0;
const SCALE: f64 = 130.0;
/// A bar that is longer is cut, and says so by its figure.
const MOST: f64 = 4.0;
const BAR: f64 = 13.0;

pub fn draw(rows: &[Row]) -> String {
    let cost = |case: &str, product: Product| {
        let row = rows.iter().find(|row| row.case.name == case && row.product == product)?;
        row.median(Run::cost)
    };
    let mut page = Page { body: String::new(), y: 44.0 };
    for (case, title) in CASES {
        let Some(own) = cost(case, Maitred) else { continue };
        page.title(title);
        for (product, color) in PRODUCTS {
            page.bar(product.name(), color, cost(case, product).map(|cost| cost / own));
        }
    }
    if let Some(plain) = cost("grown", Maitred) {
        page.title("a connection, when maitred has");
        for (product, what) in GROWN {
            page.bar(what, PRODUCTS[0].1, cost("grown", product).map(|cost| cost / plain));
        }
    }
    if let Some(alone) = cost(OPEN[0].0, Maitred) {
        page.title("a connection, with");
        for (case, what) in OPEN {
            page.bar(what, PRODUCTS[0].1, cost(case, Maitred).map(|cost| cost / alone));
        }
    }
    let Page { body, y } = page;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"880\" height=\"{:.0}\" font-family=\"sans-serif\" font-size=\"11\">
<rect width=\"100%\" height=\"100%\" fill=\"white\"/>
<text x=\"8\" y=\"20\" font-size=\"14\">Processor time of the balancer for one unit of work; shorter is better</text>
{body}</svg>
",
        y + 10.0
    )
}

struct Page {
    body: String,
    y: f64,
}

impl Page {
    fn title(&mut self, title: &str) {
        self.y += 20.0;
        let y = self.y - 4.0;
        let _ =
            writeln!(self.body, "<text x=\"8\" y=\"{y:.0}\" font-weight=\"bold\">{title}</text>");
    }

    /// What was not measured has no bar.
    fn bar(&mut self, name: &str, color: &str, value: Option<f64>) {
        let Some(value) = value else { return };
        let (y, line, width) = (self.y, self.y + 10.0, value.min(MOST) * SCALE);
        let _ = writeln!(
            self.body,
            "<text x=\"{:.0}\" y=\"{line:.0}\" text-anchor=\"end\">{name}</text><rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{line:.0}\">{value:.2}</text>",
            LEFT - 6.0,
            BAR - 2.0,
            LEFT + width + 5.0,
        );
        self.y += BAR;
    }
}
