//! Which DNS servers to ask, and in which order: the servers that a configuration names, or those of the system,
//! whose files are read again when they change. `dns` interprets the answers.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::exchange::exchange;
use super::schedule::LONGEST;
use super::system::System;
use crate::control::file_watch::{Stamp, stamp};
use crate::data::pool::finding::{Failure, Reason};

/// The most aliases that are followed.
const MOST_ALIASES: usize = 8;

/// One way to resolve names.
pub struct Servers {
    pub system: System,
    /// The server that answered last is asked first.
    first: Cell<usize>,
}

/// All ways in use.
#[derive(Default)]
pub struct Book {
    system: Option<([Option<Stamp>; 2], Rc<Servers>)>,
    named: HashMap<Vec<SocketAddr>, Rc<Servers>>,
}

/// Records of one type, and what came with them.
#[derive(Debug)]
pub struct Lookup {
    pub records: Vec<Record>,
    pub additionals: Vec<Record>,
    /// The shortest TTL of the records.
    pub ttl: Duration,
}

/// Where the system's files are.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

impl Book {
    /// If `named` is empty, the system's servers. Checks the system's files, which takes too little time for a
    /// thread.
    pub fn servers(&mut self, named: &[SocketAddr]) -> Rc<Servers> {
        if !named.is_empty() {
            let made = || Rc::new(Servers::new(System::named(named)));
            return Rc::clone(self.named.entry(named.to_vec()).or_insert_with(made));
        }
        let stamps = [RESOLV_CONF, HOSTS].map(|path| stamp(Path::new(path)));
        if let Some((known, servers)) = &self.system
            && *known == stamps
        {
            return Rc::clone(servers);
        }
        let system = System::read(&read(RESOLV_CONF), &read(HOSTS));
        let servers = Rc::new(Servers::new(system));
        self.system = Some((stamps, Rc::clone(&servers)));
        servers
    }

    /// Forgets servers that no configuration names any more.
    pub fn retain(&mut self, is_named: impl Fn(&[SocketAddr]) -> bool) {
        self.named.retain(|servers, _| is_named(servers));
    }
}

/// A file that does not exist or cannot be read counts as empty.
fn read(path: &str) -> String {
    /// Far more than any such file has.
    const MOST: u64 = 4 << 20;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before the error is better than nothing.
        let _ = file.take(MOST).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Servers {
    fn new(system: System) -> Servers {
        Servers { system, first: Cell::new(0) }
    }

    /// Follows aliases, also those that the server itself does not follow.
    pub async fn look_up(&self, name: &Name, record: RecordType) -> Result<Lookup, Failure> {
        let mut name = name.clone();
        let mut ttl = LONGEST;
        for _ in 0..MOST_ALIASES {
            let message = self.ask(&name, record).await?;
            let code = message.metadata.response_code;
            match follow(message, name, record, &mut ttl) {
                Followed::There(lookup) => return Ok(lookup),
                Followed::NotThere => return Err(nothing(code)),
                Followed::Alias(other) => name = other,
            }
        }
        Err(Failure { reason: Reason::Malformed, why: "too many aliases".to_owned() })
    }

    /// Asks one server after the other, until one answers.
    async fn ask(&self, name: &Name, record: RecordType) -> Result<Message, Failure> {
        let servers = &self.system.servers;
        let first = self.first.get();
        let mut failed = None;
        for turn in 0..servers.len() {
            let index = (first + turn) % servers.len();
            match exchange(servers[index], name, record).await {
                Ok(message) => {
                    self.first.set(index);
                    return Ok(message);
                }
                Err(failure) => failed = Some(failure),
            }
        }
        let none =
            || Failure { reason: Reason::Unreachable, why: "there is no DNS server".to_owned() };
        Err(failed.unwrap_or_else(none))
    }
}

enum Followed {
    /// The name whose records are not in the answer.
    Alias(Name),
    NotThere,
    There(Lookup),
}

/// From `name` along the aliases in an answer to records of this type.
fn follow(message: Message, mut name: Name, record: RecordType, ttl: &mut Duration) -> Followed {
    let Message { answers, additionals, .. } = message;
    let begun = name.clone();
    for _ in 0..MOST_ALIASES {
        let (records, others): (Vec<&Record>, Vec<&Record>) =
            answers.iter().filter(|it| it.name == name).partition(|it| it.record_type() == record);
        let is_there = !records.is_empty();
        let used = if is_there { &records } else { &others };
        for record in used {
            *ttl = (*ttl).min(Duration::from_secs(record.ttl.into()));
        }
        if is_there {
            let records = records.into_iter().cloned().collect();
            return Followed::There(Lookup { records, additionals, ttl: *ttl });
        }
        let alias = others.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) => Some(alias.0.clone()),
            _ => None,
        });
        match alias {
            Some(alias) => name = alias,
            None if name == begun => return Followed::NotThere,
            None => return Followed::Alias(name),
        }
    }
    Followed::NotThere
}

fn nothing(code: ResponseCode) -> Failure {
    let (reason, why) = match code {
        ResponseCode::NXDomain => (Reason::Nxdomain, "there is no such name"),
        _ => (Reason::Empty, "the name has no such records"),
    };
    Failure { reason, why: why.to_owned() }
}
