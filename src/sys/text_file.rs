//! The text of a file: of bounded length, and never one that somebody could be waited for to write.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why a file has no text for us.
#[derive(Debug)]
pub enum Unread {
    Failed(std::io::Error),
    /// The first line that holds other bytes than UTF-8.
    NotText(usize),
    TooLarge,
}

pub fn read_text(file: impl Read) -> Result<String, Unread> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Unread::Failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Unread::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Unread::NotText(before.iter().filter(|byte| **byte == b'\n').count() + 1)
    })
}

/// A shell's `<(…)` is a pipe that somebody writes to; any other could be waited for for ever.
pub fn read_named(path: &Path) -> Result<String, Unread> {
    let is_given = ["/dev/fd", "/dev/stdin", "/proc/self/fd"].iter().any(|it| path.starts_with(it));
    if is_given {
        return read_text(std::fs::File::open(path).map_err(Unread::Failed)?);
    }
    read_plain(path)
}

/// Only a plain file, and none that is a pipe by the time it is opened.
pub fn read_plain(path: &Path) -> Result<String, Unread> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(Unread::Failed)?;
    let metadata = file.metadata().map_err(Unread::Failed)?;
    if metadata.is_dir() {
        return Err(Unread::Failed(std::io::Error::from_raw_os_error(libc::EISDIR)));
    }
    if !metadata.is_file() {
        return Err(Unread::Failed(std::io::Error::other("it is not a plain file")));
    }
    read_text(file)
}
