//! `process`: the account it changes to takes two keys and the accounts of this machine. `admin`: the token is in a file of
//! its own.

use crate::border::token::Token;
use crate::config::decode::{Field, Given, Key, Placed};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::files::NetFiles;
use crate::config::keys::{Admin, Process};
use crate::sys::accounts::{Account, Accounts, Unknown, look_up};
use crate::sys::privileges::User;

/// `accounts` is only asked if a user is named.
pub fn process(given: &Given<Process>, accounts: fn() -> Accounts, faults: &mut Faults) -> Process {
    let user = user(given, accounts, faults);
    let group = user.as_ref().map(|user| user.gid);
    Process { user, group, ..Process::settle(given) }
}

fn user(given: &Given<Process>, accounts: fn() -> Accounts, faults: &mut Faults) -> Option<User> {
    let group = given.group.on();
    let Some(user) = given.user.on() else {
        if let Some(group) = group
            && !matches!(given.user, Field::Faulty)
        {
            let message = "a group without a user: nothing would be given up";
            faults.error(Code::MissingKey, group.span, message, "add `user`, or remove `group`");
        }
        return None;
    };
    if matches!(given.group, Field::Faulty) {
        return None;
    }
    let accounts = accounts();
    let fault = match look_up(user.value, group.map(|it| it.value), &accounts) {
        Ok(user) => return Some(user),
        Err(Unknown::User) => unknown("user", user, "/etc/passwd", &accounts.passwd),
        Err(Unknown::Group) => unknown("group", group?, "/etc/group", &accounts.group),
        Err(Unknown::GroupOf(id)) => {
            let why = format!("user {id} is not in /etc/passwd, so its group is unknown");
            let hint = format!("add its group: `group: {id}`, or what it is");
            Fault::error(Code::MissingKey, user.span, why, hint)
        }
    };
    faults.refuse(fault)
}

fn unknown(
    kind: &str,
    account: Placed<&Account>,
    file: &str,
    read: &Result<String, String>,
) -> Fault {
    let name = quote(&account.value.to_string());
    let message = match read {
        Ok(_) => format!("there is no {kind} {name} in {file}"),
        Err(error) => format!("the {kind} {name} is unknown: {file} cannot be read: {error}"),
    };
    let hint = "write another name, or a number, which need not be in any file";
    Fault::error(Code::UnknownAccount, account.span, message, hint)
}

pub fn admin(given: &Given<Admin>, files: &mut NetFiles, faults: &mut Faults) -> Admin {
    Admin { token: token(given, files, faults), ..Admin::settle(given) }
}

fn token(given: &Given<Admin>, files: &mut NetFiles, faults: &mut Faults) -> Option<Token> {
    let file = given.token.on()?;
    let text = files.token(file.value, file.span, faults)?;
    let hint = "16 to 512 letters without blanks, such as `openssl rand -hex 32` makes";
    let read = Token::read(&text);
    read.map_err(|why| faults.error(Code::Malformed, file.span, why, hint)).ok()
}
