//! Who may come in: `allow` and `deny` of a listener, united with those of their files.

use ipnet::IpNet;

use crate::config::Access;
use crate::config::decode::{Field, Placed};
use crate::config::fault::{Code, Fault, Faults};
use crate::config::load::NetFiles;
use crate::config::net::{FilePath, Net};
use crate::config::raw;
use crate::config::scalar::OrNone;

pub fn build(raw: &raw::Listener, files: &mut NetFiles, faults: &mut Faults) -> Access {
    let allow_file = of_file(&raw.allow_file, files, faults);
    let deny_file = of_file(&raw.deny_file, files, faults);
    let allow = written(&raw.allow);
    if let (Some(nets), Some(file)) = (&allow_file, raw.allow_file.given())
        && nets.is_empty()
        && allow.is_empty()
    {
        // An emptied file must not open the door.
        let message = "there is no network in this file, and without any everyone is allowed";
        let fault = Fault::error(Code::EmptyValue, file.span, message);
        faults.push(
            fault.hint(
                "for everyone leave `allow_file` out; for nobody deny `0.0.0.0/0` and `::/0`",
            ),
        );
    }
    Access {
        allow: allow.into_iter().chain(allow_file.unwrap_or_default()).collect(),
        deny: written(&raw.deny).into_iter().chain(deny_file.unwrap_or_default()).collect(),
    }
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
