//! Who may come in: `allow` and `deny` of a listener, united with those of their files.

use ipnet::IpNet;

use crate::config::decode::{Field, Given, Key};
use crate::config::fault::{Code, Fault, Faults};
use crate::config::files::NetFiles;
use crate::config::keys::Listener;
use crate::config::net::{FilePath, Net, NetFile, OPENS_THE_DOOR};
use crate::config::scalar::OrNone;

pub fn build(
    given: &Given<Listener>,
    listener: &mut Listener,
    files: &mut NetFiles,
    faults: &mut Faults,
) {
    let allow_file = of_file(&given.allow_file, files, faults);
    let deny_file = of_file(&given.deny_file, files, faults);
    let written = |field: &Field<_>| field.value().map_or_else(Vec::new, Vec::<Net>::settle);
    let (allow, deny) = (written(&given.allow), written(&given.deny));
    if let (Some(nets), Some(file)) = (&allow_file, given.allow_file.given())
        && nets.is_empty()
        && allow.is_empty()
    {
        let fault = Fault::error(Code::EmptyValue, file.span, OPENS_THE_DOOR);
        faults.push(
            fault.hint(
                "for everyone leave `allow_file` out; for nobody deny `0.0.0.0/0` and `::/0`",
            ),
        );
    }
    listener.allow_file = named(&given.allow_file, files, allow.len());
    listener.deny_file = named(&given.deny_file, files, deny.len());
    listener.allow = allow.into_iter().chain(allow_file.unwrap_or_default()).collect();
    listener.deny = deny.into_iter().chain(deny_file.unwrap_or_default()).collect();
}

type Named = Field<Given<OrNone<FilePath>>>;

fn named(field: &Named, files: &NetFiles, written: usize) -> Option<NetFile> {
    let file = field.given()?;
    Some(NetFile { path: files.resolve(file.value.as_ref()?, file.span), written })
}

/// `None`: there is no file, or it is reported as unreadable.
fn of_file(field: &Named, files: &mut NetFiles, faults: &mut Faults) -> Option<Vec<IpNet>> {
    let file = field.given()?;
    files.nets(file.value.as_ref()?, file.span, faults)
}
