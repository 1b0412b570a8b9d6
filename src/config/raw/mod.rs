//! What a file says: every key, before defaults and before any check that looks at two keys at once. The
//! reader, the merge of `defaults` and the JSON Schema all come from the lists of keys here, in `listener`, `pool`
//! and `discovery`.

mod listener;
mod pool;
mod discovery;

pub use discovery::*;
pub use listener::*;
pub use pool::*;

use super::account::AccountName;
use super::admin::AdminSocket;
use super::choice::words;
use super::decode::{Named, decode_node, mapping};
use super::fault::{Code, Fault, Faults};
use super::net::FilePath;
use super::scalar::{Count, DAY, HOUR, OrAuto, OrNone, SECOND, Switch, Time};
use super::tree::{Node, Value};
use super::value::{AdminAddress, Version};
use super::{LogFormat, LogLevel, SessionLog};

mapping! {
    /// A configuration of maitred.
    File, required ["version"], later [], {
        /// The version of this format: 1. Required.
        version: Version,
        /// The process as a whole.
        process: Process,
        /// Metrics, health, status page and API.
        admin: Admin,
        /// What is logged, and how.
        log: Log,
        /// What listeners and pools say unless they say otherwise.
        defaults: Defaults,
        /// The bound addresses and the rules at their doors, by name.
        listeners: Named<Listener>,
        /// The groups of backends, by name.
        pools: Named<Pool>,
    }
}

mapping! {
    /// The process as a whole.
    Process, later [], {
        /// Threads that serve sessions; auto: the CPUs this process may use.
        workers: OrAuto<Count<1, 1_024>>,
        /// Sessions in all; at this number accepting pauses. auto: what the descriptor limit allows.
        max_sessions: OrAuto<Count<1, 100_000_000>>,
        /// How long a worker looks for more to do before it sleeps: spends a processor on latency.
        busy_poll: OrNone<Time<1, SECOND>>,
        /// Who the process becomes once everything is bound, by name or number; none: it stays who it is.
        user: AccountName,
        /// Its group; none: the user's own.
        group: AccountName,
        /// What happens after SIGTERM.
        shutdown: Shutdown,
        /// true: the configuration is read anew when its files change.
        watch: Switch,
    }
}

mapping! {
    /// After SIGTERM: say not ready but go on accepting for `delay`, then wait at most `timeout` for sessions to end.
    Shutdown, later [], {
        /// How long to go on accepting.
        delay: Time<0, HOUR>,
        /// How long to wait for sessions to end before they are cut.
        timeout: Time<0, DAY>,
    }
}

mapping! {
    /// Metrics, health, status page and API.
    Admin, later [], {
        /// Address and port; none: off. Answers reads, and changes with the token.
        listen: OrNone<AdminAddress>,
        /// A unix socket for its owner alone: the same, and changes. auto: in /run/maitred, else in $XDG_RUNTIME_DIR/maitred.
        socket: AdminSocket,
        /// A file with the token that changes over `listen` take; none: there are none over it.
        token_file: OrNone<FilePath>,
    }
}

mapping! {
    /// What is logged, and how.
    Log, later [], {
        /// The least important messages that are still logged.
        level: LogLevel,
        /// auto: text on a terminal, JSON elsewhere.
        format: LogFormat,
        /// Which sessions get a line when they end.
        sessions: SessionLog,
    }
}

mapping! {
    /// Merged key by key into every listener and every pool; lists and choices replace.
    Defaults, later [], {
        /// Keys of a listener.
        listener: Listener,
        /// Keys of a pool.
        pool: Pool,
    }
}

words!(LogLevel, "LogLevel", later [], {
    "error" => LogLevel::Error, "warn" => LogLevel::Warn, "info" => LogLevel::Info,
    "debug" => LogLevel::Debug, "trace" => LogLevel::Trace,
});
words!(LogFormat, "LogFormat", later [], {
    "auto" => LogFormat::Auto, "text" => LogFormat::Text, "json" => LogFormat::Json,
});
words!(SessionLog, "SessionLog", later [], {
    "none" => SessionLog::None, "failures" => SessionLog::Failures, "all" => SessionLog::All,
});

impl File {
    /// `None`: nothing in it can be read.
    pub fn read(tree: &Node, faults: &mut Faults) -> Option<File> {
        if matches!(tree.value, Value::Null) {
            let fault = Fault::error(Code::EmptyValue, tree.span, "there is nothing in this file");
            faults.push(fault.hint("a configuration begins with `version: 1`"));
            return None;
        }
        decode_node(tree, faults)
    }
}
