//! What only a restart may change. What a reload does change is found by `config::compare`.

use crate::config::Config;

/// Keys that differ but take effect only at a start.
pub fn fixed_keys_changed(before: &Config, after: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if before.process.workers != after.process.workers {
        keys.push("process.workers");
    }
    if before.admin.socket != after.admin.socket {
        keys.push("admin.socket");
    }
    // The user itself, not how it is written; and the groups of a name come from the machine.
    let ids = |config: &Config| config.process.user.as_ref().map(|user| (user.uid, user.gid));
    match (ids(before), ids(after)) {
        (Some((before_uid, before_gid)), Some((uid, gid))) => {
            keys.extend((before_uid != uid).then_some("process.user"));
            keys.extend((before_gid != gid).then_some("process.group"));
        }
        (before, after) => keys.extend((before != after).then_some("process.user")),
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminSocket, User};

    #[test]
    fn the_number_of_workers_is_fixed() {
        let mut after = Config::default();
        after.process.workers = Some(3);
        assert_eq!(fixed_keys_changed(&Config::default(), &after), ["process.workers"]);
        after.admin.socket = AdminSocket::None;
        let keys = fixed_keys_changed(&Config::default(), &after);
        assert_eq!(keys, ["process.workers", "admin.socket"]);
    }

    #[test]
    fn who_the_process_is_is_fixed_but_not_how_that_is_written() {
        let with = |user: Option<(&str, u32, u32)>| {
            let mut config = Config::default();
            config.process.user = user.map(|(name, uid, gid)| User {
                name: name.to_owned(),
                uid,
                gid,
                groups: vec![uid],
            });
            config
        };
        let before = with(Some(("lb", 7, 8)));
        for (after, keys) in [
            (Some(("lb", 7, 8)), &[][..]),
            (Some(("7", 7, 8)), &[]),
            (Some(("other", 9, 8)), &["process.user"]),
            (Some(("lb", 7, 9)), &["process.group"]),
            (Some(("other", 9, 9)), &["process.user", "process.group"]),
            (None, &["process.user"]),
        ] {
            assert_eq!(fixed_keys_changed(&before, &with(after)), keys, "{after:?}");
        }
        assert_eq!(fixed_keys_changed(&with(None), &before), ["process.user"]);
    }
}
