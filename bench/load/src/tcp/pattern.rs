//! What every byte of a stream must be: a sequence that repeats after a prime number of bytes, so that no buffer's
//! length hides a piece lost, doubled or moved.

/// After so many bytes it begins anew.
const PERIOD: usize = 65_521;

/// A piece asked for or checked at once is never longer.
pub const LONGEST: usize = 128 * 1024;

/// Never in the pattern: the first byte of a stream that a `mixed` server is only to take in.
pub const BULK: u8 = 0xFF;

pub struct Pattern(Box<[u8]>);

impl Pattern {
    pub fn new() -> Pattern {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut period = Vec::with_capacity(PERIOD);
        for _ in 0..PERIOD {
            // A linear congruential generator (Knuth's MMIX constants): any sequence without short repeats will do.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            period.push(((state >> 33) % u64::from(BULK)) as u8);
        }
        Pattern(period.iter().copied().cycle().take(PERIOD + LONGEST).collect())
    }

    /// `length` bytes from `offset` of the stream on; at most `LONGEST`.
    pub fn at(&self, offset: u64, length: usize) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        &self.0[start..start + length]
    }

    pub fn is_at(&self, offset: u64, bytes: &[u8]) -> bool {
        self.at(offset, bytes.len()) == bytes
    }
}

/// Where in the pattern a message begins: another place for each stream and each message.
pub fn message(stream: usize, number: u64) -> u64 {
    (stream as u64).wrapping_mul(7919).wrapping_add(number.wrapping_mul(104_729)) % (1 << 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_lost_doubled_or_moved_is_seen() {
        let pattern = Pattern::new();
        let piece = pattern.at(70_000, 1000).to_vec();
        assert!(pattern.is_at(70_000, &piece));
        assert!(!pattern.is_at(70_001, &piece));
        assert!(!pattern.is_at(70_000 + 65_536, &piece));
        assert!(pattern.is_at(70_000 + PERIOD as u64, &piece));
        assert!(!piece.contains(&BULK));
    }
}
