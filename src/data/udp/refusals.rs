//! How many lines about refused datagrams one worker may write.

/// Log lines about refused datagrams that one worker writes in a second; anybody can send any number of them.
const REFUSALS: u32 = 100;

/// How many lines about refused datagrams were written in which second.
#[derive(Default)]
pub struct Refusals {
    second: u64,
    count: u32,
}

impl Refusals {
    pub fn may_write(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        if second != self.second {
            *self = Refusals { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= REFUSALS
    }
}
