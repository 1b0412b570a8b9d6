//! One flow of the client: which datagrams are out, which came back, which are given up. Pure: the socket is the
//! client's, and time comes in as a number.

/// How long an answer may take until all that is out is given up.
pub const PATIENCE_MS: u64 = 200;

pub struct Flow {
    next: u64,
    outstanding: u32,
    /// A bit per number, modulo its length: is this one out?
    out: Box<[u64]>,
    /// When it last sent into silence, or was answered.
    moved_ms: u64,
    /// Waits in the client's queue for its turn to send, as each does at first.
    pub is_queued: bool,
}

/// What an answer was.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The first to a datagram that was out.
    Expected,
    /// To one that was given up, or answered before.
    LateOrTwice,
    /// To one that was never sent.
    Wrong,
}

impl Flow {
    /// `remembered` is the greatest distance of two numbers that are out at once; a power of two, 64 at least.
    pub fn new(remembered: usize) -> Flow {
        let out = vec![0; remembered.div_ceil(64)].into_boxed_slice();
        Flow { next: 0, outstanding: 0, out, moved_ms: 0, is_queued: true }
    }

    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    /// The next `count` numbers went out; how many older ones are given up, since their place is needed.
    pub fn sent(&mut self, count: u64, now_ms: u64) -> u64 {
        if self.outstanding == 0 {
            self.moved_ms = now_ms;
        }
        let mut lost = 0;
        for number in self.next..self.next + count {
            let (word, bit) = self.place(number);
            if self.out[word] & bit != 0 {
                lost += 1;
            }
            self.out[word] |= bit;
        }
        self.next += count;
        self.outstanding += (count - lost) as u32;
        lost
    }

    pub fn answered(&mut self, number: u64, now_ms: u64) -> Answer {
        if number >= self.next {
            return Answer::Wrong;
        }
        let remembered = self.out.len() as u64 * 64;
        let (word, bit) = self.place(number);
        if number + remembered < self.next || self.out[word] & bit == 0 {
            return Answer::LateOrTwice;
        }
        self.out[word] &= !bit;
        self.outstanding -= 1;
        self.moved_ms = now_ms;
        Answer::Expected
    }

    /// Gives up what is out if nothing was heard for too long; how many those were.
    pub fn give_up(&mut self, now_ms: u64) -> u64 {
        if self.outstanding == 0 || now_ms < self.moved_ms + PATIENCE_MS {
            return 0;
        }
        let lost = self.outstanding;
        self.out.fill(0);
        self.outstanding = 0;
        u64::from(lost)
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let place = number % (self.out.len() as u64 * 64);
        ((place / 64) as usize, 1 << (place % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_counts_once() {
        let mut flow = Flow::new(64);
        assert_eq!(flow.sent(3, 0), 0);
        assert_eq!(flow.answered(1, 1), Answer::Expected);
        assert_eq!(flow.answered(1, 1), Answer::LateOrTwice);
        assert_eq!(flow.answered(3, 1), Answer::Wrong);
        assert_eq!(flow.outstanding(), 2);
    }

    #[test]
    fn silence_is_loss_and_what_comes_after_is_late() {
        let mut flow = Flow::new(64);
        flow.sent(3, 1000);
        assert_eq!(flow.give_up(1000 + PATIENCE_MS - 1), 0);
        assert_eq!(flow.give_up(1000 + PATIENCE_MS), 3);
        assert_eq!(flow.outstanding(), 0);
        assert_eq!(flow.answered(2, 1300), Answer::LateOrTwice);
    }

    #[test]
    fn an_old_one_is_given_up_when_its_place_is_needed() {
        let mut flow = Flow::new(64);
        flow.sent(64, 0);
        for number in 1..64 {
            assert_eq!(flow.answered(number, 0), Answer::Expected);
        }
        assert_eq!(flow.sent(1, 0), 1, "number 0 never came");
        assert_eq!(flow.outstanding(), 1);
        assert_eq!(flow.answered(0, 0), Answer::LateOrTwice);
        assert_eq!(flow.answered(64, 0), Answer::Expected);
    }
}
