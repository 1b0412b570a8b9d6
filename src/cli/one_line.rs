//! The start without a file: `maitred run --listen :5432 --backend 10.0.0.11:5432`. The flags become the
//! same tree a file would, standing on a text of one flag a line, so that the same checks point at them.

use crate::config::fault::Faults;
use crate::config::tree::{Key, Node, Span, Value, to_u32};
use crate::config::{Config, Loaded, Report, Source, finish_load};

/// The flags of the one-line start.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneLine<'a> {
    pub listen: &'a [String],
    pub backends: &'a [String],
    pub protocol: Option<&'a str>,
    pub balance: Option<&'a str>,
    pub admin: Option<&'a str>,
}

/// Listener `main`, pool `main`.
pub fn one_line(flags: OneLine) -> Result<Loaded, Report> {
    let mut page = Page::new();
    let listen = flags.listen.iter().map(|value| page.flag("--listen", value)).collect();
    let backends = flags.backends.iter().map(|value| page.flag("--backend", value)).collect();
    let mut listener = vec![
        ("bind", page.node(Value::Sequence(listen))),
        ("pool", page.node(Value::Scalar("main".to_owned()))),
    ];
    listener.extend(flags.protocol.map(|value| ("protocol", page.flag("--protocol", value))));
    let mut pool = vec![("backends", page.node(Value::Sequence(backends)))];
    pool.extend(flags.balance.map(|value| ("balance", page.flag("--balance", value))));
    let listener = page.mapping(listener);
    let pool = page.mapping(pool);
    let mut file = vec![
        ("version", page.node(Value::Scalar("1".to_owned()))),
        ("listeners", page.mapping(vec![("main", listener)])),
        ("pools", page.mapping(vec![("main", pool)])),
    ];
    if let Some(value) = flags.admin {
        let listen = page.flag("--admin", value);
        file.push(("admin", page.mapping(vec![("listen", listen)])));
    }
    let tree = page.mapping(file);
    finish_load(&[page.source], vec![tree], Faults::default())
}

/// `--admin` beside a file: it wins.
pub fn override_admin(config: &mut Config, admin: &str) -> Result<(), Report> {
    let mut page = Page::new();
    let listen = page.flag("--admin", admin);
    let section = page.mapping(vec![("listen", listen)]);
    let version = page.node(Value::Scalar("1".to_owned()));
    let tree = page.mapping(vec![("version", version), ("admin", section)]);
    let given = finish_load(&[page.source], vec![tree], Faults::default())?;
    config.admin.listen = given.config.admin.listen;
    Ok(())
}

/// The text that the flags are shown on, and the nodes that stand on it.
struct Page {
    source: Source,
    line: u32,
    ids: u32,
}

impl Page {
    fn new() -> Self {
        Page {
            source: Source { name: "command line".to_owned(), text: String::new() },
            line: 0,
            ids: 0,
        }
    }

    /// Writes a flag on a line of its own; the node is its value.
    fn flag(&mut self, name: &str, value: &str) -> Node {
        self.line += 1;
        self.source.text.push_str(name);
        self.source.text.push(' ');
        let start = self.source.text.len();
        self.source.text.push_str(value);
        let end = self.source.text.len();
        self.source.text.push('\n');
        let (start, end, column) = (to_u32(start), to_u32(end), to_u32(name.len() + 2));
        let mut node = self.node(Value::Scalar(value.to_owned()));
        node.span = Span { start, end, line: self.line, column, ..node.span };
        node.anchor = node.span;
        node
    }

    /// A node that no flag stands for.
    fn node(&mut self, value: Value) -> Node {
        self.ids += 1;
        let span = Span { source: 0, id: self.ids, start: 0, end: 0, line: 1, column: 1 };
        Node { span, anchor: span, value }
    }

    fn mapping(&mut self, entries: Vec<(&str, Node)>) -> Node {
        let keyed = entries.into_iter().map(|(key, node)| {
            self.ids += 1;
            (Key { text: key.to_owned(), span: Span { id: self.ids, ..node.anchor } }, node)
        });
        let value = Value::Mapping(keyed.collect());
        self.node(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn flags_make_the_listener_and_the_pool_main() {
        let (listen, backends) = (words(&[":5432"]), words(&["10.0.0.11:5432", "10.0.0.12:5432"]));
        let flags = OneLine {
            listen: &listen,
            backends: &backends,
            admin: Some("none"),
            ..Default::default()
        };
        let config = one_line(flags).unwrap().config;
        assert_eq!(&*config.listeners[0].name, "main");
        assert_eq!(config.listeners[0].pool.as_deref(), Some("main"));
        assert_eq!(config.pools[0].backends.len(), 2);
        assert_eq!(config.admin.listen, None);
    }

    #[test]
    fn a_bad_flag_is_pointed_at() {
        let (listen, backends) = (words(&[":5432"]), words(&["db:no"]));
        let flags = OneLine {
            listen: &listen,
            backends: &backends,
            balance: Some("fair"),
            ..Default::default()
        };
        let report = one_line(flags).unwrap_err();
        assert_eq!(report.faults.len(), 2, "{}", report.render(false));
        let text = report.render(false);
        assert!(text.contains("--backend db:no") && text.contains("--balance fair"), "{text}");
    }

    #[test]
    fn flags_that_are_missing_are_told() {
        let report = one_line(OneLine::default()).unwrap_err();
        assert!(
            report.render(false).contains("this list of addresses is empty"),
            "{}",
            report.render(false)
        );
    }

    #[test]
    fn admin_beside_a_file_wins() {
        let mut config = Config::default();
        override_admin(&mut config, "127.0.0.1:9901").unwrap();
        assert_eq!(config.admin.listen, Some("127.0.0.1:9901".parse().unwrap()));
        assert!(override_admin(&mut config, "x").is_err());
    }
}
