//! Giving up privileges. The kernel keeps them for each thread: this is all done on the first one, before there is
//! any other, because each later thread inherits those of its creator.

use std::fmt;
use std::io;

use rustix::process::{getgid, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use rustix::{fs, io::Errno};
use rustix::{process::Gid, process::Uid};

/// What a reload needs and another user does not have: ports below 1024. Larger UDP buffers than `net.core.rmem_max`
/// would need CAP_NET_ADMIN, which allows everything with the network: raising a sysctl is better.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// The user that the process becomes once it has bound what only root may bind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// As the configuration writes it.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Why the process cannot become the user it should.
#[derive(Debug)]
pub enum Refused {
    /// The user that it is, and the capabilities that it lacks.
    NotAllowed { user: User, own: (u32, u32), lacks: &'static str },
    /// The kernel gave no reason.
    Failed { user: User, step: &'static str, error: io::Error },
}

/// From now on no program that this one might start can gain a privilege, set-user-id or not.
pub fn never_gain() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}

/// Whether `become_user` can succeed; to be asked first, for the clearest message.
pub fn may_become(user: &User) -> Result<(), Refused> {
    let own = (getuid().as_raw(), getgid().as_raw());
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let lacks = if user.uid != own.0 && !held.contains(CapabilitySet::SETUID) {
        "CAP_SETUID"
    } else if user.gid != own.1 && !held.contains(CapabilitySet::SETGID) {
        "CAP_SETGID"
    } else {
        return Ok(());
    };
    Err(Refused::NotAllowed { user: user.clone(), own, lacks })
}

/// Becomes this user, for good: real, effective and saved ids, groups, and no capability except those of `KEPT` that
/// were held. Also if it is that user already, including root.
pub fn become_user(user: &User) -> Result<(), Refused> {
    may_become(user)?;
    let step = |step| {
        move |error: Errno| Refused::Failed { user: user.clone(), step, error: error.into() }
    };
    let held = capabilities(None).map_err(step("read its capabilities"))?;
    let kept = held.permitted & KEPT;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        shrink_bounding_set(kept).map_err(step("shrink the bounding set"))?;
    }
    set_keep_capabilities(true).map_err(step("keep CAP_NET_BIND_SERVICE"))?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    // A process that may not change its groups is the user already, and keeps the groups with which it was started.
    if held.effective.contains(CapabilitySet::SETGID) {
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        set_thread_groups(&groups).map_err(step("set its groups"))?;
    }
    set_thread_res_gid(gid, gid, gid).map_err(step("set its group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(step("set its user"))?;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(step("give up capabilities"))?;
    set_keep_capabilities(false).map_err(step("give up capabilities"))?;
    match clear_ambient_capability_set() {
        // Linux before 4.3 has no such set.
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(error) => Err(step("clear the ambient set")(error)),
    }
}

/// No program that this one might start gets back a capability that is not `kept`.
fn shrink_bounding_set(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) if !kept.contains(capability) => {
                remove_capability_from_bounding_set(capability)?;
            }
            Ok(_) => {}
            // Beyond the last capability that this kernel has.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Why this process cannot read a file, if it cannot.
pub fn unreadable(path: &std::path::Path) -> Option<io::Error> {
    // Opening could wait for ever, if the file is a pipe.
    fs::access(path, fs::Access::READ_OK).err().map(io::Error::from)
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Refused::NotAllowed { user, .. } | Refused::Failed { user, .. }) = self;
        write!(f, "cannot become user {} (uid {}, gid {}): ", user.name, user.uid, user.gid)?;
        match self {
            Refused::NotAllowed { own: (uid, gid), lacks, .. } => write!(
                f,
                "started as uid {uid}, gid {gid}, without {lacks}\n  hint: start it as root, or write \
                 `process: {{user: {uid}, group: {gid}}}` or neither key: then the user does not change"
            ),
            Refused::Failed { step, error, .. } => write!(f, "cannot {step}: {error}"),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads of their own, because none of this can be undone.
    fn aside<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(run).join().unwrap()
    }

    fn own() -> User {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        User { name: "own".to_owned(), uid, gid, groups: Vec::new() }
    }

    #[test]
    fn becoming_oneself_gives_up_every_other_capability() {
        let sets = aside(|| {
            become_user(&own()).unwrap();
            capabilities(None).unwrap()
        });
        assert!(KEPT.contains(sets.permitted), "{sets:?}");
        assert_eq!(sets.effective, sets.permitted);
        assert!(sets.inheritable.is_empty());
    }

    #[test]
    fn without_the_capability_to_become_another_user_the_message_says_what_to_write() {
        let message = aside(|| {
            become_user(&own()).unwrap();
            let other = User { name: "other".to_owned(), uid: own().uid + 1, ..own() };
            become_user(&other).unwrap_err().to_string()
        });
        let User { uid, gid, .. } = own();
        let expected = format!(
            "cannot become user other (uid {}, gid {gid}): started as uid {uid}, gid {gid}, without CAP_SETUID\n  hint: \
             start it as root, or write `process: {{user: {uid}, group: {gid}}}` or neither key: then the user does not change",
            uid + 1
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn another_group_takes_a_capability_too() {
        let refused = aside(|| {
            become_user(&own()).unwrap();
            may_become(&User { gid: own().gid + 1, ..own() })
        });
        assert!(matches!(refused, Err(Refused::NotAllowed { lacks: "CAP_SETGID", .. })));
    }

    #[test]
    fn nothing_can_be_gained_any_more() {
        let is_set = aside(|| {
            never_gain().unwrap();
            rustix::thread::no_new_privs().unwrap()
        });
        assert!(is_set);
    }

    #[test]
    fn a_file_that_is_not_there_is_unreadable() {
        assert!(unreadable("/proc/self/no-such-file".as_ref()).is_some());
        assert!(unreadable("/proc/self/status".as_ref()).is_none());
    }
}
