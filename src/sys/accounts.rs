//! Users and groups of this machine, looked up in the texts of `/etc/passwd` and `/etc/group`. Of those files alone: a
//! static program cannot load what a system may know users by besides.

use std::fmt;

use super::privileges::User;

/// As somebody writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    Id(u32),
    Name(String),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Id(id) => id.fmt(f),
            Account::Name(name) => name.fmt(f),
        }
    }
}

/// The number after it means `nobody said`, to the kernel.
pub const MAX_ID: u32 = u32::MAX - 1;

/// `None`: no account can be called so.
pub fn account(text: &str) -> Option<Account> {
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

impl Accounts {
    pub fn read() -> Accounts {
        let read = |path| std::fs::read_to_string(path).map_err(|error| error.to_string());
        Accounts { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }
}

/// What is not found.
#[derive(Debug, PartialEq, Eq)]
pub enum Unknown {
    Group,
    /// Of a number, and no group is named.
    GroupOf(u32),
    User,
}

/// Which `user` and `group` are meant on this machine.
pub fn look_up(
    user: &Account,
    group: Option<&Account>,
    accounts: &Accounts,
) -> Result<User, Unknown> {
    let entry = accounts.passwd.as_deref().ok().and_then(|text| passwd(text, user));
    let (uid, name) = match (user, &entry) {
        (Account::Id(id), _) => (*id, None),
        (Account::Name(name), Some(entry)) => (entry.uid, Some(name)),
        (Account::Name(_), None) => {
            return Err(Unknown::User);
        }
    };
    let gid = match (group, &entry) {
        (Some(Account::Id(id)), _) => *id,
        (Some(Account::Name(name)), _) => {
            let found = accounts.group.as_deref().ok().and_then(|text| group_id(text, name));
            found.ok_or(Unknown::Group)?
        }
        (None, Some(entry)) => entry.gid,
        (None, None) => return Err(Unknown::GroupOf(uid)),
    };
    // A number is taken as it is: whose name it has, and which groups list that name, is left to chance.
    let groups = name.zip(accounts.group.as_deref().ok());
    let groups = groups.map_or_else(Vec::new, |(name, text)| groups_of(text, name));
    let groups = groups.into_iter().filter(|it| *it != gid).collect();
    let written = name.cloned().unwrap_or_else(|| uid.to_string());
    Ok(User { name: written, uid, gid, groups })
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

    fn found(user: &str, group: Option<&str>, accounts: &Accounts) -> Result<User, Unknown> {
        let group = group.map(|text| account(text).unwrap());
        look_up(&account(user).unwrap(), group.as_ref(), accounts)
    }

    fn user(name: &str, uid: u32, gid: u32, groups: &[u32]) -> Result<User, Unknown> {
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
    fn who_is_not_in_the_files_is_not_found() {
        let accounts = accounts();
        for name in ["nobody-here", "broken", "short", "huge", "L", "+"] {
            assert_eq!(found(name, None, &accounts), Err(Unknown::User), "{name}");
        }
        assert_eq!(found("lb", Some("broken"), &accounts), Err(Unknown::Group));
        assert_eq!(found("65532", None, &accounts), Err(Unknown::GroupOf(65532)));
        let bare = Accounts { passwd: Err("it is gone".to_owned()), ..accounts };
        assert_eq!(found("lb", None, &bare), Err(Unknown::User));
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
