//! Networks of `allow` and `deny`, as a configuration writes them and as a file of them does.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::address::BadAddress;
use super::choice::substitutable;
use super::decode::Decode;
use super::error::Source;
use super::fault::{Code, Fault, Faults, quote};
use super::scalar::text_of;
use super::tree::{Node, Span, to_u32};
use super::value::text_value;

/// `10.0.0.0/8`, `2001:db8::/32`; a bare address is the network of it alone.
#[derive(Clone, Copy, Debug)]
pub struct Net(pub IpNet);

/// Who may send a PROXY header: those of a network, or whoever uses a unix socket.
#[derive(Clone, Copy, Debug)]
pub enum Sender {
    Net(IpNet),
    Unix,
}

/// Of a file with networks, one a line.
#[derive(Clone, Debug)]
pub struct FilePath(pub PathBuf);

text_value!(
    Net,
    "a network such as `10.0.0.0/8`",
    json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$" }),
    |text, at| net(text)
        .map(Net)
        .map_err(|bad| Fault::error(bad.code, at, bad.message).hint(bad.hint))
);
text_value!(
    Sender,
    "a network such as `10.0.0.0/8`, or `unix`",
    json_schema!({ "type": "string", "pattern": "^(unix|[0-9a-fA-F.:]+(/[0-9]{1,3})?)$" }),
    |text, at| {
        if text == "unix" {
            return Ok(Sender::Unix);
        }
        net(text)
            .map(Sender::Net)
            .map_err(|bad| Fault::error(bad.code, at, bad.message).hint(bad.hint))
    }
);
text_value!(
    FilePath,
    "the path of a file",
    json_schema!({ "type": "string", "minLength": 1 }),
    |text, at| {
        if text.is_empty() || text.contains('\0') {
            return Err(Fault::error(Code::Malformed, at, "this is not the path of a file")
                .hint("write a path such as `blocked.txt`, or `none`"));
        }
        Ok(FilePath(PathBuf::from(text)))
    }
);

/// One network.
pub fn net(text: &str) -> Result<IpNet, BadAddress> {
    const FORMS: &str = "write a network such as `10.0.0.0/8` or `2001:db8::/32`, or an address";
    let bad = |what: &str, hint: String| BadAddress {
        code: Code::BadAddress,
        message: format!("{} {what}", quote(text)),
        hint,
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(ip) = address.parse::<IpAddr>() else {
        return Err(bad("is not a network", FORMS.to_owned()));
    };
    let Some(length) = length else { return Ok(IpNet::from(ip)) };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let net = length.parse().ok().filter(|_| is_number).and_then(|it| IpNet::new(ip, it).ok());
    let Some(net) = net else {
        return Err(bad("has no length that fits", format!("after `/` write 0 to {most}")));
    };
    if net.trunc() != net {
        let hint = format!(
            "for the network write {}, for the one address {}",
            quote(&net.trunc().to_string()),
            quote(address)
        );
        return Err(bad("is an address within a network", hint));
    }
    Ok(net)
}

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
                faults.push(Fault::error(bad.code, span, bad.message).hint(bad.hint));
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
    fn a_bare_address_is_itself_alone() {
        assert_eq!(net("192.0.2.7").unwrap(), "192.0.2.7/32".parse().unwrap());
        assert_eq!(net("2001:db8::7").unwrap(), "2001:db8::7/128".parse().unwrap());
        assert_eq!(net("0.0.0.0/0").unwrap(), "0.0.0.0/0".parse().unwrap());
    }

    #[test]
    fn what_is_no_network_is_told_what_to_write() {
        for (text, hint) in [
            ("10.1.2.3/8", "for the network write `10.0.0.0/8`, for the one address `10.1.2.3`"),
            (
                "2001:db8::1/32",
                "for the network write `2001:db8::/32`, for the one address `2001:db8::1`",
            ),
            ("10.0.0.0/33", "after `/` write 0 to 32"),
            ("10.0.0.0/255.0.0.0", "after `/` write 0 to 32"),
            ("10.0.0.0/+8", "after `/` write 0 to 32"),
            ("10.0.0.0/", "after `/` write 0 to 32"),
            ("::/129", "after `/` write 0 to 128"),
        ] {
            assert_eq!(net(text).unwrap_err().hint, hint, "{text}");
        }
        for text in
            ["", "/8", "example.com", "10.0.0", "010.0.0.0/8", "10.0.0.1:80", "fe80::1%eth0"]
        {
            assert!(net(text).unwrap_err().message.ends_with("is not a network"), "{text}");
        }
    }

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
        let from = |name: &str| {
            let source = Source { name: name.into(), text: String::new() };
            resolve(Path::new("nets.txt"), &source)
        };
        assert_eq!(from("/etc/maitred/maitred.yaml"), Path::new("/etc/maitred/nets.txt"));
        assert_eq!(from("standard input"), Path::new("nets.txt"));
        let source = Source { name: "/etc/maitred/maitred.yaml".into(), text: String::new() };
        assert_eq!(resolve(Path::new("/srv/nets.txt"), &source), Path::new("/srv/nets.txt"));
    }
}
