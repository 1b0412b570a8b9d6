//! From what the files say to what the program believes: the files are united, `defaults` merged, and
//! everything checked that takes more than one key to see.

mod process;
mod bound;
mod circles;
mod reference;
mod listener;
mod login;
mod access;
pub(super) mod backends;
mod pool;
mod order;
mod discovery;
mod health;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::decode::{Field, Given, Key, Named, Placed};
use super::error::Source;
use super::fault::{Code, Fault, Faults, quote};
use super::files::NetFiles;
use super::keys::{Admin, Defaults, File, Listener, Log, Pool, Process};
use super::tree::Span;
use super::whole::Config;
use crate::config::protocol::Protocol;
use crate::sys::accounts::Accounts;

/// All files as one.
#[derive(Default)]
struct United {
    process: Field<Given<Process>>,
    admin: Field<Given<Admin>>,
    log: Field<Given<Log>>,
    defaults: Field<Given<Defaults>>,
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
        let message = "there is no listener: nothing will be served";
        let hint = "write `listeners: {main: {bind: \":5432\", pool: main}}`";
        faults.warning(Code::NothingToDo, first, message, hint);
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
        let Some(own) = own else { continue };
        let users = uses.get(name.value.as_str()).copied().unwrap_or_default();
        pools.push(Arc::new(pool::build(&name.value, own, users, nets, faults)));
    }
    Some(Config {
        process: section(&united.process, |own| process::process(own, accounts, faults)),
        admin: section(&united.admin, |own| process::admin(own, nets, faults)),
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
    let mut united = United::default();
    for file in files {
        once("process", &mut united.process, file.process, faults);
        once("admin", &mut united.admin, file.admin, faults);
        once("log", &mut united.log, file.log, faults);
        once("defaults", &mut united.defaults, file.defaults, faults);
        united.listeners.extend(entries(file.listeners));
        united.pools.extend(entries(file.pools));
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
            let hint = "only listeners and pools are united over files; keep this in one of them";
            let fault = Fault::error(Code::GivenTwice, second, message, hint);
            faults.push(fault.also(first, "given here before"));
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
    if let Field::Given(placed) = field { placed.value } else { Vec::new() }
}

/// Within one file YAML itself refuses a name given twice; over several files it is for us to see.
fn name_once<T>(what: &str, named: &[(Placed<String>, T)], faults: &mut Faults) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for (name, _) in named {
        if let Some(first) = seen.get(name.value.as_str()) {
            let message = format!("the {what} {} is given twice", quote(&name.value));
            let fault = Fault::error(Code::NameTwice, name.span, message, "rename one of the two");
            faults.push(fault.also(*first, "given here before"));
        } else {
            seen.insert(&name.value, name.span);
        }
    }
}

fn merge_defaults(united: &mut United, faults: &mut Faults) {
    let defaults = united.defaults.value().and_then(|it| it.listener.value());
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
        listener::of_protocol(&mut own, protocol, faults);
        let defaults = if protocol == Protocol::Tcp { &tcp } else { &udp };
        *listener = Some(match defaults {
            Some(defaults) => Listener::merge(own, defaults),
            None => own,
        });
    }
    if let Some(defaults) = united.defaults.value().and_then(|it| it.pool.value()) {
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
