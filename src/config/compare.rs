//! What differs between two configurations, in words: for the log, `reload` and `diff`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::describe::{self, describe, hide_secrets};
use super::keys::Pool;
use super::whole::Config;

/// Longer values are cut: a list of networks may have thousands.
const LONGEST: usize = 60;

/// Keys named of one thing; the rest is counted.
const MOST_KEYS: usize = 20;

/// One line for each thing that differs; empty = nothing does.
pub fn changes(before: &Config, after: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let sections = [
        ("process", before.process != after.process),
        ("admin", before.admin != after.admin),
        ("log", before.log != after.log),
    ];
    for (key, _) in sections.into_iter().filter(|(_, differs)| *differs) {
        let of = |config: &Config| head(config)[key].clone();
        changes.push(changed(key, &of(before), &of(after), "token"));
    }
    let listener = |old: &Arc<_>, new: &Arc<_>, what: &str| {
        let (old, new) = (describe::listener(old), describe::listener(new));
        vec![changed(what, &old, &new, "what its files hold")]
    };
    named("listener", &before.listeners, &after.listeners, |it| &it.name, &mut changes, listener);
    named("pool", &before.pools, &after.pools, |it| &it.name, &mut changes, pool);
    changes
}

/// Everything but listeners and pools, which may be many.
fn head(config: &Config) -> Value {
    describe(&Config { listeners: Vec::new(), pools: Vec::new(), ..config.clone() })
}

fn pool(old: &Arc<Pool>, new: &Arc<Pool>, what: &str) -> Vec<String> {
    let mut changes = Vec::new();
    // Listed and found ones are compared by name; what a file of them holds is among them.
    let own = |pool: &Pool| {
        let mut own = Pool { backends: Vec::new(), ..pool.clone() };
        if let Some(discovery) = own.discovery.as_mut().map(Arc::make_mut) {
            discovery.listed.clear();
            discovery.finders.iter_mut().for_each(|it| (it.after, it.read) = (0, None));
        }
        own
    };
    let (old_own, new_own) = (own(old), own(new));
    if old_own != new_own {
        let (old, new) = (describe::pool(&old_own), describe::pool(&new_own));
        changes.push(changed(what, &old, &new, "what its files hold"));
    }
    let backend = |old: &_, new: &_, what: &str| {
        vec![changed(what, &describe::backend(old), &describe::backend(new), "")]
    };
    let (before, after) = (&old.backends, &new.backends);
    named(&format!("{what} backend"), before, after, |it| &it.name, &mut changes, backend);
    if changes.is_empty() {
        changes.push(format!("{what} changed: the order of its backends"));
    }
    changes
}

/// What was added, changed and removed, by name.
fn named<T: PartialEq>(
    what: &str,
    before: &[T],
    after: &[T],
    name: impl Fn(&T) -> &Arc<str>,
    changes: &mut Vec<String>,
    differ: impl Fn(&T, &T, &str) -> Vec<String>,
) {
    // Through a map: a pool may have tens of thousands of backends.
    let old: HashMap<&str, &T> = before.iter().map(|it| (&**name(it), it)).collect();
    let new: HashMap<&str, &T> = after.iter().map(|it| (&**name(it), it)).collect();
    for value in after {
        let what = format!("{what} {}", name(value));
        match old.get(&**name(value)) {
            None => changes.push(format!("{what} added")),
            Some(old) if *old != value => changes.extend(differ(old, value, &what)),
            Some(_) => {}
        }
    }
    let gone = before.iter().map(name).filter(|name| !new.contains_key(&***name));
    changes.extend(gone.map(|name| format!("{what} {name} removed")));
}

/// `pool db changed: balance least_connections → round_robin`; `unseen` is what differs if no key does.
fn changed(what: &str, old: &Value, new: &Value, unseen: &str) -> String {
    let mut keys = Vec::new();
    differences("", old, new, &mut keys);
    let more = keys.len().saturating_sub(MOST_KEYS);
    keys.truncate(MOST_KEYS);
    if more > 0 {
        keys.push(format!("and {more} more"));
    }
    if keys.is_empty() {
        keys.push(unseen.to_owned());
    }
    format!("{what} changed: {}", keys.join(", "))
}

fn differences(path: &str, old: &Value, new: &Value, keys: &mut Vec<String>) {
    let (Value::Object(was), Value::Object(is)) = (old, new) else {
        if old != new && path.ends_with(".send") {
            keys.push(format!("{path} (not shown)"));
        } else if old != new {
            keys.push(format!("{path} {} → {}", short(old), short(new)));
        }
        return;
    };
    // A choice with another word is another choice.
    if was.len() == 1 && is.len() == 1 && was.keys().ne(is.keys()) {
        keys.push(format!("{path} {} → {}", short(old), short(new)));
        return;
    }
    for key in was.keys().chain(is.keys().filter(|key| !was.contains_key(*key))) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
        differences(&path, &of(was), &of(is), keys);
    }
}

fn short(value: &Value) -> String {
    let mut value = value.clone();
    hide_secrets(&mut value);
    let text = match &value {
        Value::Null => "absent".to_owned(),
        Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Backend, Balance, Exchange, Health, Hold, Listener, Probe, WhenFull, WhenNoneUp,
    };
    use std::time::Duration;

    fn config(pool: Pool) -> Config {
        Config { pools: vec![Arc::new(pool)], ..Config::default() }
    }

    fn backend(name: &str) -> Backend {
        Backend { name: name.into(), ..Backend::default() }
    }

    #[test]
    fn backends_are_named_one_by_one() {
        let of = |names: &[&str]| {
            let backends = names.iter().map(|it| backend(it)).collect();
            config(Pool { backends, ..Pool::default() })
        };
        assert_eq!(
            changes(&of(&["a", "b"]), &of(&["b", "c"])),
            ["pool main backend c added", "pool main backend a removed"]
        );
        assert_eq!(
            changes(&of(&["a", "b"]), &of(&["b", "a"])),
            ["pool main changed: the order of its backends"]
        );
        assert!(changes(&of(&["a"]), &of(&["a"])).is_empty());
        let mut heavier = of(&["a"]);
        Arc::make_mut(&mut heavier.pools[0]).backends[0].weight = 7;
        assert_eq!(changes(&of(&["a"]), &heavier), ["pool main backend a changed: weight 1 → 7"]);
    }

    #[test]
    fn keys_are_named_with_what_they_were_and_are() {
        let hold = WhenNoneUp::Hold(Hold { time: Duration::from_millis(90_500), max: 5 });
        let after = Pool { balance: Balance::RoundRobin, when_none_up: hold, ..Pool::default() };
        assert_eq!(
            changes(&config(Pool::default()), &config(after)),
            ["pool main changed: balance least_connections → round_robin, \
              when_none_up refuse → {\"hold\":{\"for\":\"1m30s500ms\",\"max\":5}}"]
        );
        let full = |max| {
            let hold = Hold { time: Duration::from_secs(1), max };
            config(Pool { when_full: WhenFull::Hold(hold), ..Pool::default() })
        };
        assert_eq!(changes(&full(1), &full(2)), ["pool main changed: when_full.hold.max 1 → 2"]);
    }

    #[test]
    fn what_a_probe_sends_is_not_told() {
        let with = |send: &str| {
            let send = Some(send.into());
            let probe = Probe::Exchange(Exchange { send, expect: None, standby: None });
            config(Pool { health: Health { probe, ..Pool::default().health }, ..Pool::default() })
        };
        assert_eq!(
            changes(&with("AUTH one"), &with("AUTH two")),
            ["pool main changed: health.probe.exchange.send (not shown)"]
        );
        let [other] = &changes(&config(Pool::default()), &with("AUTH one"))[..] else { panic!() };
        assert!(other.contains("(not shown)") && !other.contains("AUTH"), "{other}");
    }

    #[test]
    fn listeners_come_and_go() {
        let listener = |name: &str| Arc::new(Listener { name: name.into(), ..Listener::default() });
        let of = |names: &[&str]| Config {
            listeners: names.iter().map(|it| listener(it)).collect(),
            ..Config::default()
        };
        assert_eq!(changes(&of(&["x"]), &of(&["y"])), ["listener y added", "listener x removed"]);
    }
}
