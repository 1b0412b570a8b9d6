//! `admin`: the token is in a file of its own.

use crate::config::admin::Token;
use crate::config::decode::{Given, Key};
use crate::config::fault::{Code, Fault, Faults};
use crate::config::files::NetFiles;
use crate::config::keys::Admin;

pub fn build(given: &Given<Admin>, files: &mut NetFiles, faults: &mut Faults) -> Admin {
    Admin { token: token(given, files, faults), ..Admin::settle(given) }
}

fn token(given: &Given<Admin>, files: &mut NetFiles, faults: &mut Faults) -> Option<Token> {
    let file = given.token.given()?;
    let text = files.token(file.value.as_ref()?, file.span, faults)?;
    match Token::read(&text) {
        Ok(token) => Some(token),
        Err(why) => {
            let hint = "16 to 512 letters without blanks, such as `openssl rand -hex 32` makes";
            faults.push(Fault::error(Code::Malformed, file.span, why).hint(hint));
            None
        }
    }
}
