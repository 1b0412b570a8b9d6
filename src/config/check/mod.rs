//! From what the files say to what the program believes: the files are united, `defaults` merged, and
//! everything checked that takes more than one key to see.

mod process;
mod admin;
mod protocol;
mod bound;
mod circles;
mod reference;
mod listener;
mod access;
mod routes;
pub(super) mod backends;
mod pool;
mod discovery;
mod health;
mod send_proxy;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::decode::{Field, Given, Key, Named, Placed};
use super::error::Source;
use super::fault::{Code, Fault, Faults, quote};
use super::files::NetFiles;
use super::keys::File;
use super::keys::{Admin, Listener, Log, Pool, Process};
use super::protocol::Protocol;
use super::tree::Span;
use super::whole::Config;
use crate::sys::accounts::Accounts;

/// All files as one.
struct United {
    process: Field<Given<Process>>,
    admin: Field<Given<Admin>>,
    log: Field<Given<Log>>,
    listener_defaults: Option<Given<Listener>>,
    pool_defaults: Option<Given<Pool>>,
    listeners: Given<Named<Listener>>,
    pools: Given<Named<Pool>>,
}

/// The configuration, which is of use only if no fault was found.
pub fn check(
    files: Vec<Given<File>>,
    nets: &mut NetFiles,
    accounts: fn() -> Accounts,
    faults: &mut Faults,
) -> Option<Config> {
    let first = files.first()?.span;
    require_version(&files, faults);
    let mut united = unite(files, faults);
    merge_defaults(&mut united, faults);
    if united.listeners.is_empty() {
        let warning = Fault::warning(
            Code::NothingToDo,
            first,
            "there is no listener: nothing will be served",
        );
        faults.push(warning.hint("write `listeners: {main: {bind: \":5432\", pool: main}}`"));
    }
    let bound = bound::check(&united.listeners, faults);
    let uses = reference::check(&united.listeners, &united.pools, faults);
    circles::check(&united.listeners, &united.pools, faults);
    bound?;
    let listeners = united.listeners.iter().filter_map(|(name, own)| {
        own.as_ref().map(|own| Arc::new(listener::build(&name.value, own, nets, faults)))
    });
    let listeners = listeners.collect();
    let mut pools = Vec::with_capacity(united.pools.len());
    for (name, own) in &united.pools {
        if let Some(own) = own {
            let users = uses.get(name.value.as_str()).copied().unwrap_or_default();
            pools.push(Arc::new(pool::build(&name.value, own, users, nets, faults)));
        }
    }
    Some(Config {
        process: section(&united.process, |own| process::build(own, accounts, faults)),
        admin: section(&united.admin, |own| admin::build(own, nets, faults)),
        log: section(&united.log, Log::settle),
        listeners,
        pools,
        sha256: digest(nets.sources()),
        own_sha256: digest(nets.given().iter()),
    })
}

/// The version says how a file is read, so every file may repeat it, and one must give it.
fn require_version(files: &[Given<File>], faults: &mut Faults) {
    if let [first, ..] = files
        && files.iter().all(|file| file.version.is_absent())
    {
        first.version.require("version", first.span, "begin the file with `version: 1`", faults);
    }
}

fn unite(files: Vec<Given<File>>, faults: &mut Faults) -> United {
    let mut united = United {
        process: Field::Absent,
        admin: Field::Absent,
        log: Field::Absent,
        listener_defaults: None,
        pool_defaults: None,
        listeners: Vec::new(),
        pools: Vec::new(),
    };
    let mut defaults = Field::Absent;
    for file in files {
        once("process", &mut united.process, file.process, faults);
        once("admin", &mut united.admin, file.admin, faults);
        once("log", &mut united.log, file.log, faults);
        once("defaults", &mut defaults, file.defaults, faults);
        united.listeners.extend(entries(file.listeners));
        united.pools.extend(entries(file.pools));
    }
    if let Field::Given(Placed { value, .. }) = defaults {
        united.listener_defaults = value.listener.value().cloned();
        united.pool_defaults = value.pool.value().cloned();
    }
    name_once("listener", &united.listeners, faults);
    name_once("pool", &united.pools, faults);
    united
}

/// Takes a section from the file that gives it, and refuses it from a second one.
fn once<T>(key: &str, have: &mut Field<T>, given: Field<T>, faults: &mut Faults) {
    match (have.span(), given.span()) {
        (Some(first), Some(second)) => {
            let message = format!("{} is given in two files", quote(key));
            faults.push(
                Fault::error(Code::GivenTwice, second, message)
                    .also(first, "given here before")
                    .hint(
                        "only listeners and pools are united over files; keep this in one of them",
                    ),
            );
        }
        _ if have.is_absent() => *have = given,
        _ => {}
    }
}

fn section<K: Key<Settled = K> + Default>(
    given: &Field<K::Given>,
    build: impl FnOnce(&K::Given) -> K,
) -> K {
    given.value().map_or_else(K::default, build)
}

fn entries<T>(field: Field<Vec<T>>) -> Vec<T> {
    match field {
        Field::Given(placed) => placed.value,
        Field::Absent | Field::Faulty => Vec::new(),
    }
}

/// Within one file YAML itself refuses a name given twice; over several files it is for us to see.
fn name_once<T>(what: &str, named: &[(Placed<String>, T)], faults: &mut Faults) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for (name, _) in named {
        if let Some(first) = seen.get(name.value.as_str()) {
            let message = format!("the {what} {} is given twice", quote(&name.value));
            faults.push(
                Fault::error(Code::NameTwice, name.span, message)
                    .also(*first, "given here before")
                    .hint("rename one of the two"),
            );
        } else {
            seen.insert(&name.value, name.span);
        }
    }
}

fn merge_defaults(united: &mut United, faults: &mut Faults) {
    let defaults = united.listener_defaults.as_ref();
    let default = defaults.and_then(|defaults| defaults.protocol.value().copied());
    // What only the other protocol has is passed over there.
    let of_protocol = |protocol| {
        let mut own = defaults.cloned();
        own.iter_mut().for_each(|own| Listener::only(own, protocol, &mut |_, _| {}));
        own
    };
    let (tcp, udp) = (of_protocol(Protocol::Tcp), of_protocol(Protocol::Udp));
    for (_, listener) in &mut united.listeners {
        let Some(mut own) = listener.take() else { continue };
        let protocol = own.protocol.value().copied().or(default);
        let protocol = protocol.unwrap_or(Protocol::Tcp);
        protocol::check(&mut own, protocol, faults);
        let defaults = if protocol == Protocol::Tcp { &tcp } else { &udp };
        *listener = Some(match defaults {
            Some(defaults) => Listener::merge(own, defaults),
            None => own,
        });
    }
    if let Some(defaults) = &united.pool_defaults {
        for (_, pool) in &mut united.pools {
            *pool = pool.take().map(|own| Pool::merge(own, defaults));
        }
    }
}

fn digest<'a>(sources: impl Iterator<Item = &'a Source>) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        hash.update(source.text.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
