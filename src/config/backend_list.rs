//! A file that lists the backends of a pool, in YAML or JSON: the same forms as `backends`, but addresses only.

use super::check::backends;
use super::decode::{Key, decode_node};
use super::discovery::Answer;
use super::error::Source;
use super::fault::{Code, Faults};
use super::keys::Backend;
use super::parse::{Ids, parse};
use super::tree::Value;
use crate::border::written::BackendAddress;

/// Reads `source`, number `index` of its load. `None`: something is wrong with it.
pub fn read(source: &Source, index: usize, faults: &mut Faults) -> Option<Answer> {
    let mut own = Faults::default();
    let backends = list(source, index, &mut own);
    let failed = own.has_errors();
    let (list, omitted) = own.into_sorted();
    for mut fault in list {
        if let Some(at) = &mut fault.at {
            // No node of the configuration, so no key path.
            at.id = u32::MAX;
        }
        faults.push(fault);
    }
    faults.omit(omitted);
    backends.filter(|_| !failed).map(Answer::Backends)
}

fn list(source: &Source, index: usize, faults: &mut Faults) -> Option<Vec<Backend>> {
    let tree = match parse(source, index, &mut Ids::default()) {
        Ok(tree) => tree,
        Err(fault) => {
            faults.push(*fault);
            return None;
        }
    };
    if matches!(tree.value, Value::Null) {
        let message = "there is nothing in this file";
        let hint = "for a pool without backends write `[]`";
        faults.error(Code::EmptyValue, tree.span, message, hint);
        return None;
    }
    let given = decode_node::<Vec<Backend>>(&tree, faults)?;
    Vec::<Backend>::require(&given, faults);
    for backend in &given {
        if let Some(given) = backend.value.address.given()
            && let BackendAddress::Named(_) = given.value
        {
            let message = "a file of backends holds addresses, and this is a host name";
            let hint = "write it among the `backends` of the configuration";
            faults.error(Code::HostName, given.span, message, hint);
        }
    }
    Some(backends::listed(&given, faults).0)
}
