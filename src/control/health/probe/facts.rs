//! What a probe found out about a server, before a pool judges it: pools that ask the same share one probe, and each
//! wants something else of the answer.

use std::borrow::Cow;
use std::time::Duration;

use super::heard::Heard;
use super::pattern::Pattern;
use crate::border::quantities::{show_size, show_time};
use crate::config::{Galera, Health, MaxLag, Probe, Role};
use crate::data::pool::fitness::{Outcome, ProbeResult};

/// One probe.
#[derive(Clone, Debug)]
pub struct Found {
    pub ended: Result<Facts, Failed>,
    pub took: Duration,
}

#[derive(Clone, Debug)]
pub struct Failed {
    pub result: ProbeResult,
    pub detail: Option<Cow<'static, str>>,
}

#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// It was asked, and told.
    pub server: Option<Server>,
    /// The first column of the first row that the user's question found.
    pub answer: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Default)]
pub struct Server {
    pub is_replica: bool,
    pub lag: Lag,
    /// Its connection to the primary is down, where that alone makes it lag.
    pub is_cut_off: bool,
    pub node: Option<Node>,
}

/// How far behind it is, as far as it can tell.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    pub bytes: Option<u64>,
    pub time: Option<Duration>,
    /// Why it cannot tell.
    pub unknown: &'static str,
}

/// A node of Galera, by what it says of itself.
#[derive(Clone, Debug)]
pub struct Node {
    /// It is part of the majority, and takes questions.
    pub is_ready: bool,
    /// `wsrep_local_state`: 2 is a donor, 4 is synced.
    pub state: u32,
}

/// What one pool wants of the facts.
pub struct Judge {
    role: Role,
    max_lag: Option<MaxLag>,
    galera: Galera,
    expect: Option<Pattern>,
}

impl Judge {
    pub fn new(health: &Health) -> Judge {
        let mut judge =
            Judge { role: Role::Any, max_lag: None, galera: Galera::None, expect: None };
        match &health.probe {
            Probe::Postgres(own) => {
                (judge.role, judge.max_lag) = (own.role, own.max_lag);
                judge.expect = own.expect.as_ref().map(Pattern::new);
            }
            Probe::Mysql(own) => {
                (judge.role, judge.max_lag) = (own.role, own.max_lag.map(MaxLag::Time));
                judge.galera = own.galera;
                judge.expect = own.expect.as_ref().map(Pattern::new);
            }
            Probe::Redis(own) => {
                (judge.role, judge.max_lag) = (own.role, own.max_lag.map(MaxLag::Time));
            }
            _ => {}
        }
        judge
    }

    pub fn outcome(&self, found: &Found) -> Outcome {
        let (result, detail) = match &found.ended {
            Err(failed) => (failed.result, failed.detail.clone()),
            Ok(facts) => self.judge(facts),
        };
        Outcome { result, detail, took: found.took }
    }

    fn judge(&self, facts: &Facts) -> (ProbeResult, Option<Cow<'static, str>>) {
        if let Some(server) = &facts.server {
            match (self.role, server.is_replica) {
                (Role::Primary, true) => {
                    return (ProbeResult::WrongRole, Some("it is a replica".into()));
                }
                (Role::Replica, false) => {
                    return (ProbeResult::WrongRole, Some("it is the primary".into()));
                }
                _ => {}
            }
            if let Some(refused) = self.judge_node(server.node.as_ref()) {
                return refused;
            }
            if let Some(detail) = self.lags(server) {
                return (ProbeResult::Lagging, Some(detail.into()));
            }
        }
        let answer = facts.answer.as_deref().unwrap_or_default();
        if let Some(pattern) = &self.expect
            && !pattern.is_in(answer, 0)
        {
            let heard = Heard::default();
            heard.note_only(answer);
            let detail = format!("the answer is {}", heard.shown(&[]));
            return (ProbeResult::Mismatch, Some(detail.into()));
        }
        (ProbeResult::Passed, None)
    }

    fn judge_node(&self, node: Option<&Node>) -> Option<(ProbeResult, Option<Cow<'static, str>>)> {
        let (Galera::Synced | Galera::SyncedOrDonor, Some(node)) = (self.galera, node) else {
            return None;
        };
        let why = match node.state {
            _ if !node.is_ready => {
                let why = "it is in no majority of its cluster, or takes no questions";
                return Some((ProbeResult::WrongRole, Some(why.into())));
            }
            4 => return None,
            2 if self.galera == Galera::SyncedOrDonor => return None,
            2 => "it is a donor, or desynchronized",
            1 => "it joins its cluster",
            3 => "it catches up with its cluster",
            _ => "it is not synced with its cluster",
        };
        Some((ProbeResult::Lagging, Some(why.into())))
    }

    /// How far it is behind, if that is too far.
    fn lags(&self, server: &Server) -> Option<String> {
        if !server.is_replica {
            return None;
        }
        if server.is_cut_off {
            return Some("its link to the primary is down".to_owned());
        }
        let lag = &server.lag;
        match (self.max_lag?, lag.bytes, lag.time) {
            (MaxLag::Bytes(most), Some(bytes), _) => (bytes > most).then(|| {
                format!("it is {} behind, more than {}", rounded_size(bytes), show_size(most))
            }),
            (MaxLag::Time(most), _, Some(time)) => (time > most).then(|| {
                format!("it is {:.1} s behind, more than {}", time.as_secs_f64(), show_time(most))
            }),
            _ => Some(format!("it cannot tell how far it is behind: {}", lag.unknown)),
        }
    }
}

/// To be read, not to be written in a configuration.
fn rounded_size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..0x10_0000 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Expect, Mysql, Postgres};

    fn of(judge: &Judge, facts: &Facts) -> (ProbeResult, String) {
        let (result, detail) = judge.judge(facts);
        (result, detail.unwrap_or_default().into_owned())
    }

    fn postgres(role: Role, max_lag: Option<MaxLag>) -> Judge {
        let own = Postgres { role, max_lag, ..Postgres::default() };
        Judge::new(&Health { probe: Probe::Postgres(own), ..Health::default() })
    }

    fn replica(bytes: Option<u64>, time: Option<u64>) -> Facts {
        let time = time.map(Duration::from_millis);
        let lag = Lag { bytes, time, unknown: "it has no WAL receiver" };
        let server = Server { is_replica: true, lag, ..Server::default() };
        Facts { server: Some(server), answer: None }
    }

    #[test]
    fn each_pool_wants_its_role() {
        let primary = Facts { server: Some(Server::default()), answer: None };
        let replica = replica(Some(0), Some(0));
        let result = |role, facts| of(&postgres(role, None), facts).0;
        assert_eq!(result(Role::Primary, &primary), ProbeResult::Passed);
        assert_eq!(result(Role::Primary, &replica), ProbeResult::WrongRole);
        assert_eq!(result(Role::Replica, &primary), ProbeResult::WrongRole);
        assert_eq!(result(Role::Replica, &replica), ProbeResult::Passed);
        assert_eq!(result(Role::Any, &replica), ProbeResult::Passed);
    }

    #[test]
    fn a_replica_may_be_so_far_behind_and_must_be_able_to_tell() {
        let bytes = postgres(Role::Any, Some(MaxLag::Bytes(16 << 20)));
        let time = postgres(Role::Any, Some(MaxLag::Time(Duration::from_secs(10))));
        assert_eq!(of(&bytes, &replica(Some(16 << 20), None)).0, ProbeResult::Passed);
        let behind = of(&bytes, &replica(Some(40 << 20), None));
        assert_eq!(behind, (ProbeResult::Lagging, "it is 40.0 MiB behind, more than 16MiB".into()));
        assert_eq!(of(&time, &replica(None, Some(10_000))).0, ProbeResult::Passed);
        let behind = of(&time, &replica(None, Some(12_340)));
        assert_eq!(behind, (ProbeResult::Lagging, "it is 12.3 s behind, more than 10s".into()));
        let unknown = "it cannot tell how far it is behind: it has no WAL receiver";
        assert_eq!(of(&time, &replica(Some(0), None)), (ProbeResult::Lagging, unknown.into()));
        let primary = Facts { server: Some(Server::default()), answer: None };
        assert_eq!(of(&time, &primary).0, ProbeResult::Passed, "a primary is not behind");
    }

    #[test]
    fn a_replica_that_is_cut_off_lags_always() {
        let server = Server { is_replica: true, is_cut_off: true, ..Server::default() };
        let facts = Facts { server: Some(server), answer: None };
        let lagging = (ProbeResult::Lagging, "its link to the primary is down".to_owned());
        assert_eq!(of(&postgres(Role::Any, None), &facts), lagging);
    }

    #[test]
    fn nodes_of_galera() {
        let result = |galera, is_ready, state| {
            let own = Mysql { galera, ..Mysql::default() };
            let judge = Judge::new(&Health { probe: Probe::Mysql(own), ..Health::default() });
            let node = Some(Node { is_ready, state });
            let facts = Facts { server: Some(Server { node, ..Server::default() }), answer: None };
            of(&judge, &facts).0
        };
        assert_eq!(result(Galera::Synced, true, 4), ProbeResult::Passed);
        assert_eq!(result(Galera::Synced, true, 2), ProbeResult::Lagging);
        assert_eq!(result(Galera::SyncedOrDonor, true, 2), ProbeResult::Passed);
        assert_eq!(result(Galera::SyncedOrDonor, true, 3), ProbeResult::Lagging);
        assert_eq!(result(Galera::SyncedOrDonor, false, 4), ProbeResult::WrongRole);
        assert_eq!(result(Galera::None, false, 1), ProbeResult::Passed);
    }

    #[test]
    fn what_a_question_found_is_compared_as_text_and_no_row_is_an_empty_text() {
        let expect = Some(Expect::Regex("^ok$".into()));
        let own = Postgres { query: Some("select x".into()), expect, ..Postgres::default() };
        let judge = Judge::new(&Health { probe: Probe::Postgres(own), ..Health::default() });
        let facts = |answer: Option<&[u8]>| Facts { server: None, answer: answer.map(Into::into) };
        assert_eq!(of(&judge, &facts(Some(b"ok"))).0, ProbeResult::Passed);
        let other = of(&judge, &facts(Some(b"not\x1b")));
        assert_eq!(other, (ProbeResult::Mismatch, "the answer is \"not\\x1b\"".into()));
        assert_eq!(of(&judge, &facts(None)).1, "the answer is \"\"");
    }
}
