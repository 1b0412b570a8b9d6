//! Who may come in, and the files of networks that have a part in it: what becomes of a configuration when one of them
//! changes. Who looks at them is not known here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::Config;

/// Who may come in: the most specific prefix decides, at equal length deny wins. No `allow` = everyone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

/// `allow_file` and `deny_file`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessFiles {
    pub allow: Option<NetFile>,
    pub deny: Option<NetFile>,
}

/// A file whose networks stand at the end of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct NetFile {
    pub path: PathBuf,
    /// Networks of the list that the configuration itself has, in front of the file's.
    pub written: usize,
}

/// An emptied file must not open the door.
pub const OPENS_THE_DOOR: &str =
    "there is no network in this file, and without any everyone is allowed";

impl AccessFiles {
    /// With the word that a metric has for each.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &NetFile)> {
        let named = [("allow", &self.allow), ("deny", &self.deny)];
        named.into_iter().filter_map(|(word, file)| Some((word, file.as_ref()?)))
    }
}

impl Config {
    /// Every file of networks, once.
    pub fn net_files(&self) -> BTreeSet<&Path> {
        let files = self.listeners.iter().flat_map(|listener| listener.access_files.each());
        files.map(|(_, file)| file.path.as_path()).collect()
    }

    /// The configuration with what the file at `path` holds now. `None`: it is the same.
    pub fn with_nets(&self, path: &Path, nets: &[IpNet]) -> Result<Option<Config>, &'static str> {
        let mut config = self.clone();
        let mut differs = false;
        for listener in &mut config.listeners {
            let of = |file: &Option<NetFile>| {
                file.as_ref().filter(|file| file.path == path).map(|file| file.written)
            };
            let files = &listener.access_files;
            let (allow, deny) = (of(&files.allow), of(&files.deny));
            if allow == Some(0) && nets.is_empty() {
                return Err(OPENS_THE_DOOR);
            }
            let is_other = |list: &[IpNet], written: Option<usize>| {
                written.is_some_and(|written| list.get(written..) != Some(nets))
            };
            let access = &listener.access;
            if !is_other(&access.allow, allow) && !is_other(&access.deny, deny) {
                continue;
            }
            differs = true;
            let access = &mut Arc::make_mut(listener).access;
            for (list, written) in [(&mut access.allow, allow), (&mut access.deny, deny)] {
                if let Some(written) = written {
                    list.truncate(written);
                    list.extend(nets);
                }
            }
        }
        Ok(differs.then_some(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listener;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn file(path: &str, written: usize) -> Option<NetFile> {
        Some(NetFile { path: path.into(), written })
    }

    fn config() -> Config {
        let first = Listener {
            access: Access {
                allow: nets(&["10.0.0.0/8", "192.0.2.0/24"]),
                deny: nets(&["192.0.2.7/32"]),
            },
            access_files: AccessFiles { allow: file("a", 1), deny: file("b", 0) },
            ..Listener::default()
        };
        let second = Listener {
            name: "second".into(),
            access: Access { allow: nets(&["192.0.2.0/24"]), deny: Vec::new() },
            access_files: AccessFiles { allow: file("a", 0), deny: None },
            ..Listener::default()
        };
        let third = Listener { name: "third".into(), ..Listener::default() };
        let listeners = [first, second, third].map(Arc::new).to_vec();
        Config { listeners, ..Config::default() }
    }

    #[test]
    fn a_file_takes_the_place_of_what_it_held_in_every_listener_that_names_it() {
        let before = config();
        assert_eq!(before.net_files(), ["a", "b"].map(Path::new).into());
        let after = before.with_nets(Path::new("a"), &nets(&["::/0"])).unwrap().unwrap();
        let [first, second, third] = &after.listeners[..] else { panic!("three") };
        assert_eq!(first.access.allow, nets(&["10.0.0.0/8", "::/0"]));
        assert_eq!(first.access.deny, nets(&["192.0.2.7/32"]));
        assert_eq!(second.access.allow, nets(&["::/0"]));
        assert!(Arc::ptr_eq(third, &before.listeners[2]), "what did not change is the same object");
        let after = before.with_nets(Path::new("b"), &[]).unwrap().unwrap();
        assert!(after.listeners[0].access.deny.is_empty());
    }

    #[test]
    fn the_same_networks_and_a_file_that_nobody_names_change_nothing() {
        let before = config();
        assert_eq!(before.with_nets(Path::new("a"), &nets(&["192.0.2.0/24"])), Ok(None));
        assert_eq!(before.with_nets(Path::new("c"), &nets(&["::/0"])), Ok(None));
    }

    #[test]
    fn an_emptied_file_opens_no_door() {
        assert_eq!(config().with_nets(Path::new("a"), &[]), Err(OPENS_THE_DOOR));
    }
}
