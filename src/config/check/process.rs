//! `process`: the account it changes to takes two keys and the accounts of this machine.

use crate::config::decode::{Field, Given, Key, Placed};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::keys::Process;
use crate::sys::accounts::{Account, Accounts, Unknown, look_up};
use crate::sys::privileges::User;

/// `accounts` is only asked if a user is named.
pub fn build(given: &Given<Process>, accounts: fn() -> Accounts, faults: &mut Faults) -> Process {
    let user = user(given, accounts, faults);
    let group = user.as_ref().map(|user| user.gid);
    Process { user, group, ..Process::settle(given) }
}

fn user(given: &Given<Process>, accounts: fn() -> Accounts, faults: &mut Faults) -> Option<User> {
    let group = named(&given.group);
    let Some(user) = named(&given.user) else {
        if let Some(group) = group
            && !matches!(given.user, Field::Faulty)
        {
            let message = "a group without a user: nothing would be given up";
            let fault = Fault::error(Code::MissingKey, group.span, message);
            faults.push(fault.hint("add `user`, or remove `group`"));
        }
        return None;
    };
    if matches!(given.group, Field::Faulty) {
        return None;
    }
    let of_group = group.as_ref().map(|group| &group.value);
    let accounts = accounts();
    let fault = match look_up(&user.value, of_group, &accounts) {
        Ok(user) => return Some(user),
        Err(Unknown::User) => unknown("user", &user, "/etc/passwd", &accounts.passwd),
        Err(Unknown::Group) => unknown("group", group.as_ref()?, "/etc/group", &accounts.group),
        Err(Unknown::GroupOf(id)) => {
            let why = format!("user {id} is not in /etc/passwd, so its group is unknown");
            let hint = format!("add its group: `group: {id}`, or what it is");
            Fault::error(Code::MissingKey, user.span, why).hint(hint)
        }
    };
    faults.push(fault);
    None
}

fn unknown(
    kind: &str,
    account: &Placed<Account>,
    file: &str,
    read: &Result<String, String>,
) -> Fault {
    let name = quote(&account.value.to_string());
    let message = match read {
        Ok(_) => format!("there is no {kind} {name} in {file}"),
        Err(error) => format!("the {kind} {name} is unknown: {file} cannot be read: {error}"),
    };
    Fault::error(Code::UnknownAccount, account.span, message)
        .hint("write another name, or a number, which need not be in any file")
}

fn named(field: &Field<Option<Account>>) -> Option<Placed<Account>> {
    let given = field.given()?;
    Some(Placed { value: given.value.clone()?, span: given.span })
}
