//! Who may come in: `allow` and `deny` of a listener, united with those of their files.

use std::path::PathBuf;

use crate::config::decode::{Field, Given, Key};
use crate::config::fault::{Code, Faults};
use crate::config::files::NetFiles;
use crate::config::keys::Listener;
use crate::config::net::{Net, NetFile, OPENS_THE_DOOR};

pub fn build(
    given: &Given<Listener>,
    listener: &mut Listener,
    files: &mut NetFiles,
    faults: &mut Faults,
) {
    // `None`: there is no file, or it is reported as unreadable.
    let allow_file = given.allow_file.on().and_then(|it| files.nets(it.value, it.span, faults));
    let deny_file = given.deny_file.on().and_then(|it| files.nets(it.value, it.span, faults));
    let written = |field: &Field<_>| field.value().map_or_else(Vec::new, Vec::<Net>::settle);
    let (allow, deny) = (written(&given.allow), written(&given.deny));
    if let (Some(nets), Some(file)) = (&allow_file, given.allow_file.given())
        && nets.is_empty()
        && allow.is_empty()
    {
        let hint = "to allow all clients leave `allow_file` out; to allow none deny `0.0.0.0/0` and `::/0`";
        faults.error(Code::EmptyValue, file.span, OPENS_THE_DOOR, hint);
    }
    listener.allow_file = named(&given.allow_file, files, allow.len());
    listener.deny_file = named(&given.deny_file, files, deny.len());
    listener.allow = allow.into_iter().chain(allow_file.unwrap_or_default()).collect();
    listener.deny = deny.into_iter().chain(deny_file.unwrap_or_default()).collect();
}

fn named(field: &Field<Option<PathBuf>>, files: &NetFiles, written: usize) -> Option<NetFile> {
    let file = field.on()?;
    Some(NetFile { path: files.resolve(file.value, file.span), written })
}
