//! The tables of docs/configuration.md and conf/reference.yaml are written from the declarations of the keys;
//! `MAITRED_BLESS=1` writes them. What they say is held to the reader by other tests.

use maitred::config::Protocol;
use maitred::config::schema::{Presence, Row, plain, rows};

use super::{read, root};

/// Fails unless the file holds exactly this, or writes it.
fn hold(name: &str, text: &str) {
    if std::env::var_os("MAITRED_BLESS").is_some() {
        std::fs::write(root().join(name), text).unwrap();
    }
    let hint = "the keys say something else: MAITRED_BLESS=1 cargo test --test it generated";
    assert!(read(name) == text, "{name}: {hint}");
}

#[test]
fn the_tables_of_the_document_are_those_of_the_keys() {
    let document = read("docs/configuration.md");
    let (begin, end) = ("<!-- keys of ", "<!-- end -->");
    let mut parts = document.split(begin);
    let mut text = parts.next().unwrap().to_owned();
    let sections: Vec<(&str, &str)> = parts
        .map(|part| {
            let (name, rest) = part.split_once(" -->").unwrap();
            (name, rest.split_once(end).unwrap().1)
        })
        .collect();
    let prefixes: Vec<&str> = sections.iter().map(|(name, _)| prefix(name)).collect();
    let rows = rows();
    let mut count = 0;
    for (name, rest) in &sections {
        text += &format!(
            "{begin}{name} -->\n\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
        );
        for row in rows.iter().filter(|row| home(&row.path, &prefixes) == Some(prefix(name))) {
            text += &table_row(row, prefix(name));
            count += 1;
        }
        text += &format!("\n{end}{rest}");
    }
    let of_defaults = rows
        .iter()
        .filter(|row| row.path.starts_with("defaults.") && home(&row.path, &prefixes).is_none());
    assert_eq!(count + of_defaults.count(), rows.len(), "every key stands in one table");
    hold("docs/configuration.md", &text);
}

fn prefix(section: &str) -> &str {
    if section == "the file" { "" } else { section }
}

/// The section whose table has that key: the narrowest it is in.
fn home<'a>(path: &str, prefixes: &[&'a str]) -> Option<&'a str> {
    if path.starts_with("defaults.listener.") || path.starts_with("defaults.pool.") {
        return None;
    }
    let holds = |prefix: &&&str| {
        prefix.is_empty() && !path.contains(['.', '*'])
            || path.strip_prefix(**prefix).is_some_and(|rest| rest.starts_with('.'))
    };
    prefixes.iter().filter(holds).max_by_key(|prefix| prefix.len()).copied()
}

fn table_row(row: &Row, prefix: &str) -> String {
    let key = row.path.strip_prefix(prefix).unwrap().trim_start_matches('.');
    let default = match row.presence {
        Presence::Default("{}") | Presence::Option(_) => "–".to_owned(),
        Presence::Default(text) => format!("`{text}`"),
        Presence::Absent(words, _) => words.to_owned(),
        Presence::Expected(_) | Presence::Required(_) => "required".to_owned(),
    };
    let protocol = match row.protocol {
        Some(Protocol::Tcp) => "*TCP* ",
        Some(Protocol::Udp) => "*UDP* ",
        None => "",
    };
    let restart = if row.needs_restart { " *restart*" } else { "" };
    format!("| `{key}` | {} | {default} | {protocol}{}{restart} |\n", row.values, row.sentence)
}

#[test]
fn the_reference_is_that_of_the_keys() {
    let mut page = Page(HEAD.to_owned());
    let rows = rows();
    let file = children(&rows, "");
    for row in file {
        match row.path.as_str() {
            "defaults" => {
                page.line(0, "", "defaults:", &comment(row));
                for below in children(&rows, "defaults") {
                    page.line(1, "", &format!("{}: {{}}", name(below)), &comment(below));
                }
            }
            "listeners" => {
                page.line(0, "", "listeners:", &comment(row));
                page.line(1, "", "postgres:", "A name of your choice.");
                let of_tcp: Vec<Row> = only(&rows, Protocol::Tcp);
                page.mapping(&of_tcp, "listeners.*", 2, "", None);
                page.0 += "\n";
                page.line(
                    1,
                    "",
                    "dns:",
                    "A UDP listener has these keys besides those of both protocols.",
                );
                page.line(2, "", "bind: \":53\"", "");
                page.line(2, "", "protocol: udp", "");
                page.line(2, "", "pool: resolvers", "");
                page.mapping(&only_of_udp(&rows), "listeners.*", 2, "", None);
            }
            "pools" => {
                page.line(0, "", "pools:", &comment(row));
                page.line(1, "", "db:", "A name of your choice.");
                page.mapping(&rows, "pools.*", 2, "", None);
                page.0 += "\n";
                page.line(1, "", "resolvers:", "");
                page.line(2, "", "backends: [\"10.0.0.53:53\"]", "");
            }
            _ => page.key(&rows, row, 0, "", None),
        }
        page.0 += "\n";
    }
    hold("conf/reference.yaml", &format!("{}\n", page.0.trim_end()));
}

const HEAD: &str = "\
# Every key, each with its default (but `bind`, `pool` and `backends`, which have none).
#
#   times    sums of a whole number and ms, s, m, h or d: 250ms, 5s, 1h30m
#   sizes    a whole number and B, KiB, MiB, GiB, kB, MB or GB
#   counts   bare whole numbers
#   shares   10%
#   none     switches a limit or a time off
#   ${VAR}, ${VAR:-default}, ${VAR:?message} are replaced from the environment; $$ is a plain $
#
# Names of listeners, pools and backends: 1 to 63 letters, digits, `_`, `.` and `-`; neither none nor auto.
# Several files (`--config` given several times): listeners and pools are united; any other section stands in one.
";

/// Keys of a mapping, in order.
fn children<'a>(rows: &'a [Row], path: &str) -> Vec<&'a Row> {
    let is_child = |row: &&Row| match path {
        "" => !row.path.contains('.'),
        _ => row
            .path
            .strip_prefix(path)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|rest| !rest.contains('.') && !rest.contains("[]")),
    };
    rows.iter().filter(is_child).collect()
}

fn only(rows: &[Row], protocol: Protocol) -> Vec<Row> {
    let other = |row: &Row| row.protocol.is_some_and(|own| own != protocol);
    let out: Vec<&Row> = rows.iter().filter(|row| other(row)).collect();
    let is_out = |row: &Row| {
        row.path.starts_with("listeners.")
            && out
                .iter()
                .any(|it| row.path == it.path || row.path.starts_with(&format!("{}.", it.path)))
    };
    rows.iter().filter(|row| !is_out(row)).cloned().collect()
}

/// Those that TCP listeners do not have, and the mappings they are in.
fn only_of_udp(rows: &[Row]) -> Vec<Row> {
    let udp: Vec<&Row> = rows.iter().filter(|row| row.protocol == Some(Protocol::Udp)).collect();
    let is_in = |row: &&Row| {
        udp.iter().any(|it| {
            row.path == it.path
                || row.path.starts_with(&format!("{}.", it.path))
                || it.path.starts_with(&format!("{}.", row.path))
        })
    };
    rows.iter().filter(is_in).cloned().collect()
}

fn name(row: &Row) -> &str {
    row.path.rsplit('.').next().unwrap()
}

fn comment(row: &Row) -> String {
    let protocol = match row.protocol {
        Some(Protocol::Tcp) => "TCP: ",
        Some(Protocol::Udp) => "UDP: ",
        None => "",
    };
    let restart = if row.needs_restart { " Not changed by a reload." } else { "" };
    let words = row.values.starts_with('`') && row.values.contains("`, `");
    let words =
        if words { format!("{}. ", row.values.replace("`, `", " | ")) } else { String::new() };
    format!("{protocol}{words}{}{restart}", plain(row.sentence)).replace('`', "")
}

/// As YAML needs it.
fn quoted(text: &str) -> String {
    if text.starts_with(':') { format!("\"{text}\"") } else { text.to_owned() }
}

struct Page(String);

impl Page {
    /// What is commented out has `#` at its own depth.
    fn line(&mut self, depth: usize, mark: &str, text: &str, comment: &str) {
        const COLUMN: usize = 34;
        const WIDTH: usize = 120;
        let line = format!("{}{mark}{text}", "  ".repeat(depth));
        let mut rest: Vec<&str> = comment.split_whitespace().collect();
        let mut line = if rest.is_empty() { line } else { format!("{line:COLUMN$} #") };
        let inside =
            if mark.is_empty() { String::new() } else { format!("{}#", "  ".repeat(depth)) };
        while !rest.is_empty() {
            if line.chars().count() + 1 + rest[0].chars().count() > WIDTH && !line.ends_with('#') {
                self.0 += &format!("{line}\n");
                line = format!("{inside:COLUMN$} #");
            }
            line = format!("{line} {}", rest.remove(0));
        }
        self.0 += &format!("{}\n", line.trim_end());
    }

    fn mapping(&mut self, rows: &[Row], path: &str, depth: usize, mark: &str, form: Option<usize>) {
        for row in children(rows, path) {
            self.key(rows, row, depth, mark, form);
        }
    }

    /// `mark` is what commented lines begin with; `form`: keys that have several forms have that one, and nothing is
    /// explained again.
    fn key(&mut self, rows: &[Row], row: &Row, depth: usize, mark: &str, form: Option<usize>) {
        let below = children(rows, &row.path);
        let items = children(rows, &format!("{}[]", row.path));
        let explained = if form.is_none() { comment(row) } else { String::new() };
        if let (Some(form), Some(option)) = (form, options(&below).last()) {
            let option = options(&below).get(form).copied().unwrap_or(option);
            let Presence::Option(example) = option.presence else { panic!() };
            let text = format!("{}: {{{}: {example}}}", name(row), name(option));
            return self.line(depth, mark, &text, "");
        }
        let text = match row.presence {
            Presence::Default(text)
            | Presence::Option(text)
            | Presence::Absent(_, text)
            | Presence::Expected(text)
            | Presence::Required(text) => text,
        };
        let is_open =
            text == "{}" && below.iter().any(|it| !matches!(it.presence, Presence::Absent(..)));
        if is_open || name(row) == "backends" {
            self.line(depth, mark, &format!("{}:", name(row)), &explained);
        } else if text == "[]" && !items.is_empty() && row.presence == Presence::Required("[]") {
            self.line(depth, mark, &format!("{}:", name(row)), &explained);
            return self.item(&items, depth, mark);
        } else {
            self.line(depth, mark, &format!("{}: {}", name(row), quoted(text)), &explained);
        }
        if is_open {
            let deeper = if mark.is_empty() {
                (depth + 1, String::new())
            } else {
                (depth, format!("{mark}  "))
            };
            return self.mapping(rows, &row.path, deeper.0, &deeper.1, form);
        }
        if name(row) == "backends" {
            self.line(depth + 1, "", "- \"10.0.0.11:5432\"", "The short form.");
            return self.item(&items, depth, mark);
        }
        if mark.is_empty() {
            self.alternatives(rows, row, &below, &items, depth);
        }
    }

    /// What may stand in the place of the key's default, commented out.
    fn alternatives(
        &mut self,
        rows: &[Row],
        row: &Row,
        below: &[&Row],
        items: &[&Row],
        depth: usize,
    ) {
        let open = format!("{}:", name(row));
        if !items.is_empty() {
            self.line(depth, "# ", &open, "");
            self.item(items, depth, "# ");
        }
        let options = options(below);
        for option in &options {
            let forms =
                children(rows, &option.path).into_iter().map(|it| children(rows, &it.path).len());
            for form in std::iter::once(None).chain((0..forms.max().unwrap_or(0)).map(Some)) {
                self.line(depth, "# ", &open, "");
                self.option(rows, option, depth, form);
            }
        }
        if !below.is_empty() && options.is_empty() {
            let forms = below
                .iter()
                .map(|it| self::options(&children(rows, &it.path)).len())
                .max()
                .unwrap_or(0);
            for form in std::iter::once(None).chain((0..forms).map(Some)) {
                self.line(depth, "# ", &open, "");
                self.mapping(rows, &row.path, depth, "#   ", form);
            }
        }
    }

    fn option(&mut self, rows: &[Row], option: &Row, depth: usize, form: Option<usize>) {
        let explained = if form.is_none() { comment(option) } else { String::new() };
        match option.presence {
            Presence::Option("{}") => {
                self.line(depth, "#   ", &format!("{}:", name(option)), &explained);
                self.mapping(rows, &option.path, depth, "#     ", form);
            }
            Presence::Option(example) => {
                self.line(depth, "#   ", &format!("{}: {example}", name(option)), &explained);
            }
            _ => panic!("{} is no option", option.path),
        }
    }

    /// One item of a list of mappings.
    fn item(&mut self, keys: &[&Row], depth: usize, mark: &str) {
        let mut dash = "- ";
        for row in keys {
            let text = match row.presence {
                Presence::Required(_) if row.path == "pools.*.backends[].address" => {
                    "10.0.0.12:5432"
                }
                Presence::Default(text) | Presence::Absent(_, text) => text,
                Presence::Expected(text) | Presence::Required(text) | Presence::Option(text) => {
                    text
                }
            };
            let text = format!("{dash}{}: {}", name(row), quoted(text));
            let (depth, mark) = if mark.is_empty() {
                (depth + 1, String::new())
            } else {
                (depth, format!("{mark}  "))
            };
            self.line(depth, &mark, &text, &comment(row));
            dash = "  ";
        }
    }
}

fn options<'a>(below: &[&'a Row]) -> Vec<&'a Row> {
    below.iter().copied().filter(|row| matches!(row.presence, Presence::Option(_))).collect()
}
