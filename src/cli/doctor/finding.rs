//! What `doctor` found about one thing, and how bad it is.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something breaks once a limit of the configuration is reached, or at the start.
    WillBreak,
    WillHurt,
    /// It could not be looked at.
    Unknown,
    Well,
}

impl Severity {
    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::WillBreak => "will_break",
            Severity::WillHurt => "will_hurt",
            Severity::Unknown => "unknown",
            Severity::Well => "well",
        }
    }
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub id: &'static str,
    pub severity: Severity,
    /// What there is, with what is counted.
    pub figure: String,
    /// What there should be. Empty, like the rest, if it is well.
    pub needed: String,
    pub why: String,
    /// The command, or what else is to be done.
    pub mend: String,
}

/// A finding whose id is in the table.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The configuration has nothing to do with it.
    NotAsked,
    Well(String),
    Ill {
        severity: Severity,
        figure: String,
        needed: String,
        why: String,
        mend: String,
    },
}
