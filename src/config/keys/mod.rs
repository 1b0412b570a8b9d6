//! Every key of a configuration, said once: what it is called, what may be written, what holds where it is not given,
//! which protocol has it, whether a reload may change it, and what it means. From here come the reader, the defaults,
//! what the program believes, `show config`, `diff`, the JSON Schema, conf/reference.yaml and the tables of
//! docs/configuration.md (`MAITRED_BLESS=1 cargo test --test it generated` writes these two).
//!
//! `mapping` says how a declaration reads. What takes more than one key to see is in `check`.

pub(super) mod backend;
mod listener;
mod pool;
mod probe;

pub use backend::*;
pub use listener::*;
pub use pool::*;
pub use probe::*;

use super::admin::AdminSocket;
use super::choice::words;
use super::decode::{Given, Named, decode_node};
use super::fault::{Code, Fault, Faults};
use super::mapping::mapping;
use super::net::FilePath;
use super::scalar::{Count, DAY, HOUR, OrAuto, OrNone, SECOND, Time};
use super::tree::{Node, Value};
use super::value::{AccountName, AdminAddress, Switch, Version};
use crate::border::token::Token;
use crate::sys::privileges::User;

mapping! {
    /// A configuration of maitred.
    File {
        /// The version of this format.
        version: Version [required "1", "begin the file with `version: 1`"];
        /// The process as a whole.
        process: Process = "{}";
        /// Metrics, health, status page and API.
        admin: Admin = "{}";
        /// What is logged, and how.
        log: Log = "{}";
        /// What every listener and every pool says unless it says otherwise itself.
        defaults: Defaults = "{}";
        /// Bound addresses and the rules at their doors.
        listeners: Named<Listener> = "{}";
        /// Groups of backends.
        pools: Named<Pool> = "{}";
    }
}

mapping! {
    /// The process as a whole.
    Process {
        /// Threads that serve sessions, and as many again for UDP if there is a UDP listener. `auto`: the CPUs this
        /// process may use (affinity, CPU quota).
        workers: OrAuto<Count<1, 1_024, usize>> = "auto" [restart];
        /// TCP sessions in all. At this number accepting pauses, and clients wait in the kernel's queue. `auto`: what the
        /// hard limit of descriptors allows, two each, at most 1 000 000.
        max_sessions: OrAuto<Count<1, 100_000_000>> = "auto";
        /// How long a worker looks for more to do before it sleeps: a lone client is answered sooner, at the price of a
        /// processor that is never idle while clients talk ([tuning](tuning.md#latency-of-a-lone-client)).
        busy_poll: OrNone<Time<1, SECOND>> = "none";
        /// The account the process changes to once everything is bound; of its rights it keeps `CAP_NET_BIND_SERVICE` alone,
        /// so that a reload can bind ports below 1024. A name also has the groups that `/etc/group` lists for it. Only
        /// `/etc/passwd` and `/etc/group` are read; a number need not be in them. `none`: it stays the account that started it.
        user: AccountName = "none" [hand Option<User>] [restart];
        /// The group it changes to, with `user`. `none`: the user's own.
        group: AccountName = "none" [hand Option<u32>] [restart];
        /// `true`: the configuration is read again, as by a reload, a second or two after the text of one of its files
        /// changed. A text that is refused is reported once, and the configuration in force stays.
        watch: Switch = "false";
        /// What happens after SIGTERM.
        shutdown: Shutdown = "{}";
    }
}

mapping! {
    /// What happens after SIGTERM.
    #[derive(Copy)]
    Shutdown {
        /// How long to say not ready (`/readyz` answers 503) and go on accepting.
        delay: Time<0, HOUR> = "0s";
        /// How long to wait then for sessions and flows to end before they are reset (`drained`).
        timeout: Time<0, DAY> = "25s";
    }
}

mapping! {
    /// Metrics, health, status page and API.
    Admin {
        /// Metrics, health, status page, and the API for reading. `none`: off.
        listen: OrNone<AdminAddress> = "127.0.0.1:9900";
        /// A unix socket of mode 0600 that serves the same and takes changes. `auto`: `/run/maitred/admin.sock`, or
        /// `$XDG_RUNTIME_DIR/maitred/admin.sock`, or none and a warning.
        socket: AdminSocket = "auto" [restart];
        /// A file with a token of 16 to 512 letters. A request that carries it (`Authorization: Bearer TOKEN`) may change
        /// things over `listen`, too ([status page](status-page.md#to-change-a-backend-from-it)). `none`: changes only come
        /// by the socket.
        token("token_file"): OrNone<FilePath> = "none" [hand Option<Token>];
    }
}

mapping! {
    /// What is logged, and how.
    #[derive(Copy, Eq)]
    Log {
        /// The least important lines that are written.
        level: LogLevel = "info";
        /// `auto`: text on a terminal, JSON elsewhere.
        format: LogFormat = "auto";
        /// Which sessions, flows and refusals get a line when they end. `failures`: what the
        /// [close reasons](close-reasons.md) call one.
        sessions: SessionLog = "none";
    }
}

mapping! {
    /// Merged key by key into every listener and every pool; lists and choices replace.
    Defaults {
        /// Any key of a listener.
        listener: Listener = "{}";
        /// Any key of a pool.
        pool: Pool = "{}";
    }
}

words! {
    /// How important a line is.
    LogLevel {
        "error" => Error, "warn" => Warn, "info" => Info, "debug" => Debug, "trace" => Trace,
    }
}

words! {
    /// What a line looks like.
    LogFormat { "auto" => Auto, "text" => Text, "json" => Json }
}

words! {
    /// Which sessions get a line.
    SessionLog { "none" => None, "failures" => Failures, "all" => All }
}

impl File {
    /// `None`: nothing in it can be read.
    pub fn read(tree: &Node, faults: &mut Faults) -> Option<Given<File>> {
        if matches!(tree.value, Value::Null) {
            let message = "there is nothing in this file";
            let hint = "a configuration begins with `version: 1`";
            return faults.refuse(Fault::error(Code::EmptyValue, tree.span, message, hint));
        }
        decode_node::<File>(tree, faults)
    }
}
