//! Who may come in: `allow` and `deny` of a listener, united with those of their files.

use ipnet::IpNet;

use crate::config::access::{Access, AccessFiles, NetFile, OPENS_THE_DOOR};
use crate::config::decode::{Field, Placed};
use crate::config::fault::{Code, Fault, Faults};
use crate::config::load::NetFiles;
use crate::config::net::{FilePath, Net};
use crate::config::raw;
use crate::config::scalar::OrNone;

pub fn build(
    raw: &raw::Listener,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> (Access, AccessFiles) {
    let allow_file = of_file(&raw.allow_file, files, faults);
    let deny_file = of_file(&raw.deny_file, files, faults);
    let (allow, deny) = (written(&raw.allow), written(&raw.deny));
    if let (Some(nets), Some(file)) = (&allow_file, raw.allow_file.given())
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
    let named = AccessFiles {
        allow: named(&raw.allow_file, files, allow.len()),
        deny: named(&raw.deny_file, files, deny.len()),
    };
    let access = Access {
        allow: allow.into_iter().chain(allow_file.unwrap_or_default()).collect(),
        deny: deny.into_iter().chain(deny_file.unwrap_or_default()).collect(),
    };
    (access, named)
}

fn named(field: &Field<OrNone<FilePath>>, files: &NetFiles, written: usize) -> Option<NetFile> {
    let file = field.given()?;
    let path = files.resolve(&file.value.0.as_ref()?.0, file.span);
    Some(NetFile { path, written })
}

fn written(field: &Field<Vec<Placed<Net>>>) -> Vec<IpNet> {
    field.value().into_iter().flatten().map(|net| net.value.0).collect()
}

/// `None`: there is no file, or it is reported as unreadable.
fn of_file(
    field: &Field<OrNone<FilePath>>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Vec<IpNet>> {
    let file = field.given()?;
    let path = file.value.0.as_ref()?;
    files.nets(&path.0, file.span, faults)
}
