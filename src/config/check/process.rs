//! `process`: who it becomes takes two keys and the accounts of this machine.

use crate::config::account::{self, Account, AccountName, Accounts};
use crate::config::decode::{Field, Placed};
use crate::config::fault::{Code, Fault, Faults};
use crate::config::raw;
use crate::config::{Process, Shutdown, User};

/// `accounts` is only asked if a user is named.
pub fn build(
    raw: Option<&raw::Process>,
    accounts: fn() -> Accounts,
    faults: &mut Faults,
) -> Process {
    let default = Process::default();
    let Some(raw) = raw else { return default };
    Process {
        workers: raw.workers.copied().map_or(default.workers, |auto| {
            auto.0.map(|count| usize::try_from(count.0).unwrap_or(usize::MAX))
        }),
        max_sessions: raw
            .max_sessions
            .copied()
            .map_or(default.max_sessions, |auto| auto.0.map(|count| count.0)),
        busy_poll: raw
            .busy_poll
            .copied()
            .map_or(default.busy_poll, |given| given.0.map(|time| time.0)),
        shutdown: raw.shutdown.value().map_or(default.shutdown, |shutdown| Shutdown {
            delay: shutdown.delay.copied().map_or(default.shutdown.delay, |time| time.0),
            timeout: shutdown.timeout.copied().map_or(default.shutdown.timeout, |time| time.0),
        }),
        watch: raw.watch.copied().map_or(default.watch, |switch| switch.0),
        user: user(raw, accounts, faults),
    }
}

fn user(raw: &raw::Process, accounts: fn() -> Accounts, faults: &mut Faults) -> Option<User> {
    let group = named(&raw.group);
    let Some(user) = named(&raw.user) else {
        if let Some(group) = group
            && !matches!(raw.user, Field::Faulty)
        {
            let message = "a group without a user: nothing would be given up";
            let fault = Fault::error(Code::MissingKey, group.span, message);
            faults.push(fault.hint("add `user`, or remove `group`"));
        }
        return None;
    };
    if matches!(raw.group, Field::Faulty) {
        return None;
    }
    account::look_up(&user, group.as_ref(), &accounts(), faults)
}

fn named(field: &Field<AccountName>) -> Option<Placed<Account>> {
    let given = field.given()?;
    Some(Placed { value: given.value.0.clone()?, span: given.span })
}
