//! Reads facts about this machine: a file's text, or why it cannot be read.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// A figure, or why it is unknown.
pub type Reading<T> = Result<T, Unread>;

/// A file that should have a value and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    pub file: String,
    pub why: String,
}

impl Unread {
    pub fn new(file: &str, why: impl fmt::Display) -> Unread {
        Unread { file: file.to_owned(), why: why.to_string() }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be read: {}", self.file, self.why)
    }
}

/// The text of a file, named by its path from the root of the machine.
pub fn text(root: &Path, file: &str) -> Reading<String> {
    optional(root, file)?.ok_or_else(|| Unread::new(file, "it does not exist"))
}

/// `None`: the file does not exist.
pub fn optional(root: &Path, file: &str) -> Reading<Option<String>> {
    match fs::read_to_string(root.join(file.trim_start_matches('/'))) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Unread::new(file, error)),
    }
}
