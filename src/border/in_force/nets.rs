//! Files of networks: what becomes of a configuration when one of them changes. `control::file_watch` looks at them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::{Config, NetFile, OPENS_THE_DOOR};

impl Config {
    /// Every file of networks, once.
    pub fn net_files(&self) -> BTreeSet<&Path> {
        let files = self.listeners.iter().flat_map(|listener| listener.net_files());
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
            let (allow, deny) = (of(&listener.allow_file), of(&listener.deny_file));
            if allow == Some(0) && nets.is_empty() {
                return Err(OPENS_THE_DOOR);
            }
            let is_other = |list: &[IpNet], written: Option<usize>| {
                written.is_some_and(|written| list.get(written..) != Some(nets))
            };
            if !is_other(&listener.allow, allow) && !is_other(&listener.deny, deny) {
                continue;
            }
            differs = true;
            let own = Arc::make_mut(listener);
            for (list, written) in [(&mut own.allow, allow), (&mut own.deny, deny)] {
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
            allow: nets(&["10.0.0.0/8", "192.0.2.0/24"]),
            allow_file: file("a", 1),
            deny: nets(&["192.0.2.7/32"]),
            deny_file: file("b", 0),
            ..Listener::default()
        };
        let second = Listener {
            name: "second".into(),
            allow: nets(&["192.0.2.0/24"]),
            allow_file: file("a", 0),
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
        assert_eq!(first.allow, nets(&["10.0.0.0/8", "::/0"]));
        assert_eq!(first.deny, nets(&["192.0.2.7/32"]));
        assert_eq!(second.allow, nets(&["::/0"]));
        assert!(Arc::ptr_eq(third, &before.listeners[2]), "what did not change is the same object");
        let after = before.with_nets(Path::new("b"), &[]).unwrap().unwrap();
        assert!(after.listeners[0].deny.is_empty());
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
