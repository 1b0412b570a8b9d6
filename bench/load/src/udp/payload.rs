//! What a datagram carries: whose it is, which one, and bytes by which a foreign or damaged one is known. No I/O.
//!
//! ```text
//!  0        4        8                16                      length - 8    length
//!  | flow   | length | number         | filling, always the same   | check   |
//! ```

pub const SHORTEST: usize = 24;

const FILLING: u8 = 0xa5;
const HEAD: usize = 16;
const TAIL: usize = 8;

/// For `memcmp`: a datagram's filling is a part of this.
static FILLED: [u8; 2048] = [FILLING; 2048];

/// The longest datagram: what one Ethernet frame carries, and some.
pub const LONGEST: usize = FILLED.len();

pub fn write(bytes: &mut [u8], flow: u32, number: u64) {
    let length = bytes.len();
    bytes[..4].copy_from_slice(&flow.to_le_bytes());
    bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    bytes[8..HEAD].copy_from_slice(&number.to_le_bytes());
    bytes[HEAD..length - TAIL].fill(FILLING);
    bytes[length - TAIL..].copy_from_slice(&check(flow, number).to_le_bytes());
}

/// Its number, if it is whole, of this length and of this flow.
pub fn read(bytes: &[u8], flow: u32, length: usize) -> Option<u64> {
    if bytes.len() != length {
        return None;
    }
    let number = u64::from_le_bytes(bytes[8..HEAD].try_into().ok()?);
    let is_whole = bytes[..4] == flow.to_le_bytes()
        && bytes[4..8] == (length as u32).to_le_bytes()
        && bytes[HEAD..length - TAIL] == FILLED[HEAD..length - TAIL]
        && bytes[length - TAIL..] == check(flow, number).to_le_bytes();
    is_whole.then_some(number)
}

/// Differs in many bits for neighbours: what is put together from two datagrams is found out.
fn check(flow: u32, number: u64) -> u64 {
    let mixed = (number ^ (u64::from(flow) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for length in [SHORTEST, 64, 1200, LONGEST] {
            let mut bytes = vec![0; length];
            write(&mut bytes, 7, 123_456);
            assert_eq!(read(&bytes, 7, length), Some(123_456));
        }
    }

    #[test]
    fn every_changed_byte_is_found() {
        let mut bytes = vec![0; 100];
        write(&mut bytes, 7, 1);
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            assert_eq!(read(&bytes, 7, 100), None, "byte {index}");
            bytes[index] ^= 1;
        }
        assert_eq!(read(&bytes, 8, 100), None, "another flow's");
        assert_eq!(read(&bytes[..99], 7, 100), None, "cut");
    }
}
