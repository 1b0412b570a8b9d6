//! Values that say which clients are meant: networks, as a configuration writes them and as a file of them does, server names,
//! protocols.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::json;

use super::error::Source;
use super::fault::{Code, Fault, Faults};
use super::tree::{Span, to_u32};
use super::value::{address_fault, text_value};
use crate::border::dns_name::NamePattern;
use crate::border::written::net;

/// Senders whose PROXY header is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    pub nets: Vec<IpNet>,
    /// Whatever comes by a unix socket.
    pub unix: bool,
}

/// A file whose networks stand at the end of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct NetFile {
    pub path: PathBuf,
    /// Networks of the list that the configuration itself has, in front of the file's.
    pub written: usize,
}

/// An emptied file must not open the door.
pub const OPENS_THE_DOOR: &str =
    "there is no network in this file, and without any everyone is allowed";

/// Who may send a PROXY header: those of a network, or whoever uses a unix socket.
#[derive(Clone, Copy, Debug)]
pub enum Sender {
    Net(IpNet),
    Unix,
}

text_value!(
    /// `10.0.0.0/8`, `2001:db8::/32`; a bare address is the network of it alone.
    struct Net(IpNet),
    "a network such as `10.0.0.0/8`",
    [json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$" })],
    |text, at| net(text).map_err(|bad| address_fault(bad, at)),
    |it| it.to_string().into(),
);
text_value!(
    Sender(Sender),
    "a network such as `10.0.0.0/8`, or `unix`",
    [json!({ "type": "string", "pattern": "^(unix|[0-9a-fA-F.:]+(/[0-9]{1,3})?)$" })],
    |text, at| {
        if text == "unix" {
            return Ok(Sender::Unix);
        }
        net(text).map(Sender::Net).map_err(|bad| address_fault(bad, at))
    },
    |it| match it {
        Sender::Net(net) => net.to_string().into(),
        Sender::Unix => "unix".into(),
    },
);
text_value!(
    /// Relative ones begin where the file is that names them.
    struct FilePath(PathBuf),
    "the path of a file",
    [json!({ "type": "string", "minLength": 1 })],
    |text, at| {
        if text.is_empty() || text.contains('\0') {
            let hint = "write a path such as `blocked.txt`, or `none`";
            return Err(Fault::error(Code::Malformed, at, "this is not the path of a file", hint));
        }
        Ok(PathBuf::from(text))
    },
    |it| it.display().to_string().into(),
);

text_value!(
    NamePattern(NamePattern),
    "a server name such as `db1.example.com` or `*.example.com`",
    [
        json!({ "type": "string", "pattern": "^(\\*|(\\*\\.)?([A-Za-z0-9_-]{1,63}\\.)*[A-Za-z0-9_-]{1,63}\\.?)$" })
    ],
    |text, at| NamePattern::read(text).map_err(|(message, hint)| Fault::error(
        Code::Malformed,
        at,
        message,
        hint
    )),
    |it| it.to_string().into(),
);
text_value!(
    /// A protocol as ALPN names it.
    struct Alpn(Vec<u8>),
    "a protocol such as `postgresql` or `h2`",
    [json!({ "type": "string", "minLength": 1, "maxLength": 255 })],
    |text, at| {
        if text.is_empty() || text.len() > 255 {
            let hint = "write 1 to 255 letters, such as `postgresql` or `h2`";
            return Err(Fault::error(Code::Malformed, at, "this is not a protocol of ALPN", hint));
        }
        Ok(text.as_bytes().to_vec())
    },
    // Every one of the registry's is text.
    |it| String::from_utf8_lossy(it).into(),
);

/// The networks of a file: one a line, blank lines and all from `#` on left out. Faults point into `source`, which is
/// number `index` of the load.
pub fn list(source: &Source, index: usize, faults: &mut Faults) -> Vec<IpNet> {
    let mut nets = Vec::new();
    let mut start = 0;
    for (number, line) in (1_u32..).zip(source.text.split_inclusive('\n')) {
        let written = line.split('#').next().unwrap_or_default();
        let entry = written.trim();
        let from = start + (written.len() - written.trim_start().len());
        start += line.len();
        if entry.is_empty() {
            continue;
        }
        match net(entry) {
            Ok(net) => nets.push(net),
            Err(bad) => {
                let column = from - (start - line.len()) + 1;
                let span = Span {
                    source: to_u32(index),
                    // No node of the configuration, so no key path.
                    id: u32::MAX,
                    start: to_u32(from),
                    end: to_u32(from + entry.len()),
                    line: number,
                    column: to_u32(column),
                };
                faults.push(address_fault(bad, span));
            }
        }
    }
    nets
}

/// Where a path of a configuration leads: a relative one from the folder of the file that names it, or from the
/// working directory if that file came by standard input.
pub fn resolve(path: &Path, named_in: &Source) -> PathBuf {
    Path::new(&named_in.name).parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_a_line_and_faults_know_theirs() {
        let text = "# ours\n10.0.0.0/8\r\n\n  192.0.2.7  # the gate\n  nonsense # x\n2001:db8::/32";
        let source = Source { name: "nets.txt".into(), text: text.into() };
        let mut faults = Faults::default();
        let nets = list(&source, 3, &mut faults);
        let shown: Vec<String> = nets.iter().map(IpNet::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
        let (faults, _) = faults.into_sorted();
        let span = faults[0].at.unwrap();
        assert_eq!((span.source, span.line, span.column), (3, 5, 3));
        assert_eq!(&text[span.bytes()], "nonsense");
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn a_relative_path_is_beside_the_file_that_names_it() {
        let from = |name: &str, path: &str| {
            resolve(Path::new(path), &Source { name: name.into(), text: String::new() })
        };
        let file = "/etc/maitred/maitred.yaml";
        assert_eq!(from(file, "nets.txt"), Path::new("/etc/maitred/nets.txt"));
        assert_eq!(from("standard input", "nets.txt"), Path::new("nets.txt"));
        assert_eq!(from(file, "/srv/nets.txt"), Path::new("/srv/nets.txt"));
    }
}
