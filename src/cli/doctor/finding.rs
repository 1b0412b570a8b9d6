//! The result of `doctor` for one check, and how bad it is.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something fails once a limit of the configuration is reached, or at the start.
    WillBreak,
    WillHurt,
    /// It could not be checked.
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

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub id: &'static str,
    pub severity: Severity,
    /// The figure of this machine, with its unit.
    pub figure: String,
    /// The figure that is needed. Empty, like the rest, if all is well.
    pub needed: String,
    pub why: String,
    /// The command, or what else to do.
    pub mend: String,
}

/// A finding whose id is in the table.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The check does not matter for this configuration.
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
