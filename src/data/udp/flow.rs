//! One flow: one UDP client on one backend, from its first datagram to its expiry. Pure: time is passed in.

/// How long a flow lives, as its listener was configured when the flow began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// No datagram either way for this long ends it.
    pub timeout_ms: u64,
    /// How many datagrams of the client it takes; the next one begins another flow.
    pub requests: Option<u64>,
    /// The replies to each datagram of the client after which the flow is complete.
    pub responses: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub rules: Rules,
    pub begun_ms: u64,
    /// When a datagram last went either way.
    pub last_ms: u64,
    pub requests: u64,
    pub replies: u64,
    /// It only waits for replies under way; they no longer delay its end.
    pub is_retired: bool,
}

impl Flow {
    pub fn new(rules: Rules, now_ms: u64) -> Flow {
        Flow {
            rules,
            begun_ms: now_ms,
            last_ms: now_ms,
            requests: 0,
            replies: 0,
            is_retired: false,
        }
    }

    /// When it expires if nothing happens until then.
    pub fn deadline_ms(&self) -> u64 {
        self.last_ms.saturating_add(self.rules.timeout_ms)
    }

    /// Takes as many of `count` datagrams of the client as it may; the rest is for the next flow.
    pub fn request(&mut self, count: u64, now_ms: u64) -> u64 {
        let room = self.rules.requests.map_or(u64::MAX, |most| most.saturating_sub(self.requests));
        let taken = count.min(room);
        self.requests += taken;
        self.last_ms = now_ms;
        taken
    }

    /// Whether the client's next datagram begins another flow.
    pub fn is_full(&self) -> bool {
        self.rules.requests.is_some_and(|most| self.requests >= most)
    }

    /// The backend sent `count` datagrams; returns whether these were all that it is expected to send. Replies are
    /// always passed on, also those beyond the expected number.
    pub fn reply(&mut self, count: u64, now_ms: u64) -> bool {
        self.replies = self.replies.saturating_add(count);
        if !self.is_retired {
            self.last_ms = now_ms;
        }
        let expected = |each: u64| each.saturating_mul(self.requests);
        self.rules.responses.is_some_and(|each| self.replies >= expected(each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { timeout_ms: 100, requests: None, responses: None };

    #[test]
    fn any_datagram_puts_the_expiry_off() {
        let mut flow = Flow::new(RULES, 1000);
        assert_eq!(flow.deadline_ms(), 1100);
        flow.request(1, 1050);
        flow.reply(1, 1060);
        assert_eq!(flow.deadline_ms(), 1160);
    }

    #[test]
    fn a_pipelined_client_gets_every_reply() {
        let mut flow = Flow::new(Rules { responses: Some(1), ..RULES }, 0);
        flow.request(2, 0);
        assert!(!flow.reply(1, 0));
        flow.request(1, 0);
        assert!(!flow.reply(1, 0));
        assert!(flow.reply(1, 0));
    }

    #[test]
    fn what_is_over_requests_is_left_for_the_next_flow() {
        let mut flow = Flow::new(Rules { requests: Some(3), ..RULES }, 0);
        assert_eq!(flow.request(2, 0), 2);
        assert!(!flow.is_full());
        assert_eq!(flow.request(5, 0), 1);
        assert!(flow.is_full());
        assert_eq!(flow.request(1, 0), 0);
    }
}
