//! Bytes at the door that the tests begin with, and how they are changed into bytes that nobody would send.

use std::path::Path;

/// The files of one kind, `client_hello` or `proxy_protocol`.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let files =
        std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let mut files: Vec<Vec<u8>> = files.collect();
    // The same run everywhere.
    files.sort();
    assert!(files.len() >= 5, "a corpus");
    files
}

/// Changes `bytes` in one to eight places: single bits and bytes, lengths, pieces cut out, doubled or taken from another.
/// What comes out has at most `most` bytes.
pub fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], most: usize, random: &mut fastrand::Rng) {
    for _ in 0..random.usize(1..=8) {
        let at = random.usize(0..=bytes.len());
        let end = (at + random.usize(0..=16)).min(bytes.len());
        match random.u8(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            1 if at < bytes.len() => {
                bytes[at] = *random.choice([0, 1, 0x7f, 0x80, 0xff].iter()).unwrap()
            }
            2 => bytes.insert(at, random.u8(..)),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let doubled = bytes[at..end].to_vec();
                bytes.splice(at..at, doubled);
            }
            5 => bytes.truncate(at),
            6 => {
                let other = random.choice(others).unwrap();
                let from = random.usize(0..=other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => {}
        }
    }
    bytes.truncate(most);
}
