//! `process.user` and `process.group`: a name or a number, looked up in the texts of `/etc/passwd` and `/etc/group`.
//! Of those files alone: a static program cannot load what a system may know users by besides. Reads nothing itself.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::User;
use super::choice::{is_off, off_for_none, substitutable};
use super::decode::{Decode, Placed};
use super::fault::{Code, Fault, Faults, quote};
use super::scalar::text_of;
use super::tree::{Node, Span};
use super::value::text_value;

/// A user or a group as it is written; `none`: nobody else than who started the program.
#[derive(Clone, Debug)]
pub struct AccountName(pub Option<Account>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    Id(u32),
    Name(String),
}

text_value!(
    AccountName,
    "a name or a number, or `none`",
    json_schema!({ "type": ["string", "integer"], "pattern": "^[^\\s:]+$", "minimum": 0, "maximum": MAX_ID }),
    |text, at| match text {
        "none" => Ok(AccountName(None)),
        // An account may have almost any name, but hardly one of these.
        _ if is_off(text) => Err(off_for_none(text, at)),
        _ => account(text).map(|account| AccountName(Some(account))).ok_or_else(|| {
            Fault::error(Code::Malformed, at, format!("{} can be no user or group", quote(text)))
                .hint(format!("write its name, or its number, at most `{MAX_ID}`"))
        }),
    }
);

/// The number after it means `nobody said`, to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

fn account(text: &str) -> Option<Account> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|id| *id <= MAX_ID).map(Account::Id);
    }
    let is_fit = |letter: char| letter != ':' && !letter.is_whitespace() && !letter.is_control();
    text.chars().all(is_fit).then(|| Account::Name(text.to_owned()))
}

/// The texts of `/etc/passwd` and `/etc/group`, or why there are none.
pub struct Accounts {
    pub passwd: Result<String, String>,
    pub group: Result<String, String>,
}

/// Who `user` and `group` are on this machine; `None`: one of them is reported as unknown.
pub fn look_up(
    user: &Placed<Account>,
    group: Option<&Placed<Account>>,
    accounts: &Accounts,
    faults: &mut Faults,
) -> Option<User> {
    let entry = accounts.passwd.as_deref().ok().and_then(|text| passwd(text, &user.value));
    let (uid, name) = match (&user.value, &entry) {
        (Account::Id(id), _) => (*id, None),
        (Account::Name(name), Some(entry)) => (entry.uid, Some(name)),
        (Account::Name(name), None) => {
            faults.push(unknown("user", name, user.span, "/etc/passwd", &accounts.passwd));
            return None;
        }
    };
    let gid = match group.map(|group| (&group.value, group.span)) {
        Some((Account::Id(id), _)) => *id,
        Some((Account::Name(name), at)) => {
            let found = accounts.group.as_deref().ok().and_then(|text| group_id(text, name));
            let Some(gid) = found else {
                faults.push(unknown("group", name, at, "/etc/group", &accounts.group));
                return None;
            };
            gid
        }
        None => match &entry {
            Some(entry) => entry.gid,
            None => {
                let message = format!("user {uid} is not in /etc/passwd, so its group is unknown");
                let fault = Fault::error(Code::MissingKey, user.span, message);
                faults.push(fault.hint(format!("add its group: `group: {uid}`, or what it is")));
                return None;
            }
        },
    };
    // A number is taken as it is: whose name it has, and which groups list that name, is left to chance.
    let groups = name.zip(accounts.group.as_deref().ok());
    let groups = groups.map_or_else(Vec::new, |(name, text)| groups_of(text, name));
    let groups = groups.into_iter().filter(|it| *it != gid).collect();
    let written = name.cloned().unwrap_or_else(|| uid.to_string());
    Some(User { name: written, uid, gid, groups })
}

fn unknown(kind: &str, name: &str, at: Span, file: &str, read: &Result<String, String>) -> Fault {
    let name = quote(name);
    let message = match read {
        Ok(_) => format!("there is no {kind} {name} in {file}"),
        Err(error) => format!("the {kind} {name} is unknown: {file} cannot be read: {error}"),
    };
    Fault::error(Code::UnknownAccount, at, message)
        .hint("write another name, or a number, which need not be in any file")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    uid: u32,
    gid: u32,
}

/// The first entry of `name:password:uid:gid:…`. Lines that are something else (`+`, comments) are passed over.
fn passwd(text: &str, wanted: &Account) -> Option<Entry> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let is_wanted = match wanted {
            Account::Id(id) => uid == *id,
            Account::Name(wanted) => name == wanted,
        };
        (is_wanted && uid <= MAX_ID && gid <= MAX_ID).then_some(Entry { uid, gid })
    })
}

/// Name, number and members of each line `name:password:gid:member,member`.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok().filter(|gid| *gid <= MAX_ID)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_id(text: &str, wanted: &str) -> Option<u32> {
    groups(text).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid)
}

/// Those that list this user, each once, in ascending order.
fn groups_of(text: &str, user: &str) -> Vec<u32> {
    let lists = |members: &str| members.split(',').any(|member| member == user);
    let mut gids: Vec<u32> =
        groups(text).filter(|(.., members)| lists(members)).map(|(_, gid, _)| gid).collect();
    gids.sort_unstable();
    gids.dedup();
    gids
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "# comment\nroot:x:0:0:root:/root:/bin/bash\n+::::::\nbroken:x:one:1::/:\n\
        lb:x:990:991:a balancer:/nonexistent:/usr/sbin/nologin\nlb:x:1:1::/:\nshort:x:7\n\
        last:x:992:993:::\nhuge:x:4294967295:1:::\n";
    const GROUP: &str = "root:x:0:\nlb:x:991:lb\nssl-cert:x:115:postgres,lb\nadm:x:4:lb,syslog\n\
        lbs:x:77:lbx\nadm2:x:4:lb\nbroken\nbare:x:55\n";

    fn accounts() -> Accounts {
        Accounts { passwd: Ok(PASSWD.to_owned()), group: Ok(GROUP.to_owned()) }
    }

    fn placed(text: &str) -> Placed<Account> {
        Placed { value: account(text).unwrap(), span: Span::default() }
    }

    fn found(user: &str, group: Option<&str>, accounts: &Accounts) -> Result<User, String> {
        let mut faults = Faults::default();
        let group = group.map(placed);
        let user = look_up(&placed(user), group.as_ref(), accounts, &mut faults);
        user.ok_or_else(|| faults.into_sorted().0.remove(0).message)
    }

    fn user(name: &str, uid: u32, gid: u32, groups: &[u32]) -> Result<User, String> {
        Ok(User { name: name.to_owned(), uid, gid, groups: groups.to_vec() })
    }

    #[test]
    fn a_name_has_its_group_and_the_groups_that_list_it() {
        assert_eq!(found("lb", None, &accounts()), user("lb", 990, 991, &[4, 115]));
        assert_eq!(found("root", None, &accounts()), user("root", 0, 0, &[]));
        assert_eq!(found("last", None, &accounts()), user("last", 992, 993, &[]));
        // Its own group stays, but only as one of those that list it.
        assert_eq!(found("lb", Some("bare"), &accounts()), user("lb", 990, 55, &[4, 115, 991]));
        assert_eq!(found("lb", Some("12"), &accounts()), user("lb", 990, 12, &[4, 115, 991]));
    }

    #[test]
    fn a_number_is_taken_as_it_is() {
        assert_eq!(found("990", None, &accounts()), user("990", 990, 991, &[]));
        assert_eq!(found("65532", Some("65532"), &accounts()), user("65532", 65532, 65532, &[]));
        assert_eq!(found("0", None, &accounts()), user("0", 0, 0, &[]));
        let nothing = || Err("No such file or directory (os error 2)".to_owned());
        let bare = Accounts { passwd: nothing(), group: nothing() };
        assert_eq!(found("7", Some("8"), &bare), user("7", 7, 8, &[]));
    }

    #[test]
    fn who_is_not_in_the_files_is_named() {
        let accounts = accounts();
        for name in ["nobody-here", "broken", "short", "huge", "L", "+"] {
            let message = format!("there is no user `{name}` in /etc/passwd");
            assert_eq!(found(name, None, &accounts), Err(message));
        }
        assert_eq!(
            found("lb", Some("broken"), &accounts),
            Err("there is no group `broken` in /etc/group".to_owned())
        );
        assert_eq!(
            found("65532", None, &accounts),
            Err("user 65532 is not in /etc/passwd, so its group is unknown".to_owned())
        );
        let bare = Accounts { passwd: Err("it is gone".to_owned()), ..accounts };
        let message = "the user `lb` is unknown: /etc/passwd cannot be read: it is gone";
        assert_eq!(found("lb", None, &bare), Err(message.to_owned()));
    }

    #[test]
    fn what_no_account_can_be() {
        for text in ["4294967295", "99999999999999999999", "a:b", "a b", "a\nb"] {
            assert_eq!(account(text), None, "{text:?}");
        }
        assert_eq!(account("0"), Some(Account::Id(0)));
        assert_eq!(account("4294967294"), Some(Account::Id(4_294_967_294)));
        assert_eq!(account("web$"), Some(Account::Name("web$".to_owned())));
    }
}
