//! `admin`: the token is in a file of its own.

use crate::config::Admin;
use crate::config::admin::Token;
use crate::config::decode::Placed;
use crate::config::fault::{Code, Fault, Faults};
use crate::config::load::NetFiles;
use crate::config::net::FilePath;
use crate::config::raw;
use crate::config::scalar::OrNone;

pub fn build(raw: Option<&raw::Admin>, files: &mut NetFiles, faults: &mut Faults) -> Admin {
    let default = Admin::default();
    let Some(raw) = raw else { return default };
    let listen = raw.listen.copied();
    Admin {
        listen: listen.map_or(default.listen, |none| none.0.map(|address| address.0)),
        socket: raw.socket.value().cloned().unwrap_or_default(),
        token: raw.token_file.given().and_then(|file| token(file, files, faults)),
    }
}

fn token(
    file: &Placed<OrNone<FilePath>>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<Token> {
    let path = file.value.0.as_ref()?;
    let text = files.token(&path.0, file.span, faults)?;
    match Token::read(&text) {
        Ok(token) => Some(token),
        Err(why) => {
            let hint = "16 to 512 letters without blanks, such as `openssl rand -hex 32` makes";
            faults.push(Fault::error(Code::Malformed, file.span, why).hint(hint));
            None
        }
    }
}
