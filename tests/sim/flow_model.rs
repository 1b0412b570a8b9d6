//! The flow table beside a model of it that is too simple to be wrong: a list, searched from end to end. Whatever a
//! worker may do is done to both, and every answer compared.

use maitred::data::udp::flow::Rules;
use maitred::data::udp::flow_table::{FlowId, FlowTable};

/// Where the steps come from: a seeded generator, or a fuzzer's bytes.
pub trait Choices {
    /// Below `bound`; `None` ends the run.
    fn below(&mut self, bound: u64) -> Option<u64>;
}

const CLIENTS: u64 = 24;
const GROUPS: u64 = 2;
const MOST_FLOWS: usize = 12;

/// A flow of the model. The item that the table keeps for it is its number.
#[derive(Clone, Debug)]
struct Modelled {
    number: u64,
    id: FlowId,
    key: u64,
    group: u64,
    rules: Rules,
    last_ms: u64,
    is_retired: bool,
    requests: u64,
    replies: u64,
    is_current: bool,
}

#[derive(Default)]
pub struct Run {
    table: FlowTable<u64, u64>,
    flows: Vec<Modelled>,
    ended: Vec<FlowId>,
    now_ms: u64,
    begun: u64,
    /// What happened, so that a run that never reaches the interesting parts does not pass for a good one.
    pub seen: Seen,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub begun: u64,
    pub shed: u64,
    pub evicted: u64,
    pub expired: u64,
    pub completed: u64,
    pub detached: u64,
    pub retired: u64,
}

impl Run {
    /// One step; `None` when there are no more choices.
    pub fn step(&mut self, choices: &mut impl Choices) -> Option<()> {
        match choices.below(16)? {
            0..=6 => self.arrive(choices)?,
            7..=10 => self.reply(choices)?,
            11..=13 => {
                self.now_ms += choices.below(60)?;
                self.expire();
            }
            14 if choices.below(2)? == 0 => self.cut(choices)?,
            14 => self.retire(choices)?,
            _ => self.clock_goes_back(choices)?,
        }
        self.compare();
        Some(())
    }

    /// Some datagrams of a client, as the packet loop takes them.
    fn arrive(&mut self, choices: &mut impl Choices) -> Option<()> {
        let (key, mut count) = (choices.below(CLIENTS)?, choices.below(4)? + 1);
        let group = key % GROUPS;
        while count > 0 {
            let known = self.flows.iter().position(|it| it.key == key && it.is_current);
            assert_eq!(self.table.find(&key), known.map(|at| self.flows[at].id));
            let at = match known {
                Some(at) => at,
                None => match self.begin(key, group, choices)? {
                    Some(at) => at,
                    None => return Some(()),
                },
            };
            let taken = self.table.request(self.flows[at].id, count, self.now_ms);
            let flow = &mut self.flows[at];
            let room = flow.rules.requests.map_or(u64::MAX, |most| most - flow.requests);
            assert_eq!(taken, count.min(room));
            flow.requests += taken;
            flow.last_ms = self.now_ms;
            if flow.rules.requests == Some(flow.requests) {
                flow.is_current = false;
                self.seen.detached += 1;
            }
            count -= taken;
        }
        Some(())
    }

    fn begin(&mut self, key: u64, group: u64, choices: &mut impl Choices) -> Option<Option<usize>> {
        let in_group = self.flows.iter().filter(|it| it.group == group).count();
        if in_group >= MOST_FLOWS {
            if choices.below(2)? == 0 {
                self.seen.shed += 1;
                return Some(None);
            }
            self.evict(group);
        }
        let timeout_ms = [50, 200, 1000][usize::try_from(choices.below(3)?).unwrap()];
        let requests = [None, None, Some(1), Some(3)][usize::try_from(choices.below(4)?).unwrap()];
        let responses = [None, None, Some(1), Some(2)][usize::try_from(choices.below(4)?).unwrap()];
        let rules = Rules { timeout_ms, requests, responses };
        let number = self.begun;
        self.begun += 1;
        self.seen.begun += 1;
        let id = self.table.begin(key, group, rules, self.now_ms, number);
        self.flows.push(Modelled {
            number,
            id,
            key,
            group,
            rules,
            last_ms: self.now_ms,
            is_retired: false,
            requests: 0,
            replies: 0,
            is_current: true,
        });
        Some(Some(self.flows.len() - 1))
    }

    fn evict(&mut self, group: u64) {
        let id = self.table.longest_idle(group).expect("a full group has a flow");
        let of_group = self.flows.iter().filter(|it| it.group == group);
        let longest = of_group.map(|it| it.last_ms).min().unwrap();
        let chosen = self.flows.iter().find(|it| it.id == id).unwrap();
        assert_eq!((chosen.group, chosen.last_ms), (group, longest));
        self.end(id);
        self.seen.evicted += 1;
    }

    fn reply(&mut self, choices: &mut impl Choices) -> Option<()> {
        let (which, count) = (choices.below(64)?, choices.below(3)? + 1);
        let which = usize::try_from(which).unwrap();
        let Some(flow) = self.flows.get_mut(which) else {
            if let Some(id) = self.ended.get(which % self.ended.len().max(1)) {
                assert!(!self.table.reply(*id, count, self.now_ms), "a flow that ended is over");
            }
            return Some(());
        };
        let is_complete = self.table.reply(flow.id, count, self.now_ms);
        flow.replies += count;
        if !flow.is_retired {
            flow.last_ms = self.now_ms;
        }
        let expected = flow.rules.responses.map(|each| each * flow.requests);
        assert_eq!(is_complete, expected.is_some_and(|expected| flow.replies >= expected));
        if is_complete {
            let id = flow.id;
            self.end(id);
            self.seen.completed += 1;
        }
        Some(())
    }

    fn expire(&mut self) {
        while let Some(id) = self.table.expired(self.now_ms) {
            let flow = self.flows.iter().find(|it| it.id == id).expect("it was open");
            assert!(flow.last_ms + flow.rules.timeout_ms <= self.now_ms, "too early: {flow:?}");
            self.end(id);
            self.seen.expired += 1;
        }
        let late = self.flows.iter().find(|it| it.last_ms + it.rules.timeout_ms <= self.now_ms);
        assert!(late.is_none(), "too late: {late:?}");
    }

    fn cut(&mut self, choices: &mut impl Choices) -> Option<()> {
        let which = usize::try_from(choices.below(64)?).unwrap();
        if let Some(id) = self.flows.get(which).map(|it| it.id) {
            self.end(id);
        }
        Some(())
    }

    /// Its backend is gone, and its client goes on elsewhere.
    fn retire(&mut self, choices: &mut impl Choices) -> Option<()> {
        let which = usize::try_from(choices.below(MOST_FLOWS as u64)?).unwrap();
        let Some(flow) = self.flows.get_mut(which) else { return Some(()) };
        self.table.retire(flow.id, 100, self.now_ms);
        (flow.is_current, flow.is_retired) = (false, true);
        flow.rules.timeout_ms = flow.rules.timeout_ms.min(100);
        flow.last_ms = self.now_ms;
        self.seen.retired += 1;
        Some(())
    }

    /// The coarse clock of another core may lag; the table goes on from the latest time it saw.
    fn clock_goes_back(&mut self, choices: &mut impl Choices) -> Option<()> {
        let Some(flow) = self.flows.first_mut() else { return Some(()) };
        let before = self.now_ms.saturating_sub(choices.below(20)?);
        // Nothing is asked of the table that it has not seen a later time for.
        if self.table.reply(flow.id, 0, before) {
            let id = flow.id;
            self.end(id);
            return Some(());
        }
        // It counts as heard at the latest time the table knows of, which is never after ours.
        flow.last_ms = self.table.get(flow.id).unwrap().0.last_ms;
        assert!(flow.last_ms <= self.now_ms);
        Some(())
    }

    fn end(&mut self, id: FlowId) {
        let at = self.flows.iter().position(|it| it.id == id).expect("it was open");
        let flow = self.flows.remove(at);
        let ended = self.table.end(id).expect("the table has it");
        assert_eq!((ended.item, ended.key), (flow.number, flow.key));
        assert_eq!((ended.flow.requests, ended.flow.replies), (flow.requests, flow.replies));
        assert!(self.table.end(id).is_none(), "it ends once");
        self.ended.push(id);
        if self.ended.len() > 64 {
            self.ended.remove(0);
        }
    }

    fn compare(&self) {
        assert_eq!(self.table.len(), self.flows.len());
        let deadlines = self.flows.iter().map(|it| it.last_ms + it.rules.timeout_ms);
        assert_eq!(self.table.next_deadline_ms(), deadlines.min());
        for flow in &self.flows {
            let (state, number) = self.table.get(flow.id).expect("it is open");
            assert_eq!((*number, state.last_ms), (flow.number, flow.last_ms));
        }
        assert!(self.ended.iter().all(|id| self.table.get(*id).is_none()));
    }
}
