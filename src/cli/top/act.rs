//! The actions of an operator in `top`, and the question before each.

/// What maitred must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Set { pool: String, backend: String, state: &'static str },
    Kill { pool: String, backend: String },
}

impl Act {
    /// The question before it.
    pub fn question(&self) -> String {
        match self {
            Act::Set { pool, backend, state: "up" } => {
                format!("Lift what was set by hand on {pool}/{backend}?")
            }
            Act::Set { pool, backend, state } => format!("Set {pool}/{backend} to {state}?"),
            Act::Kill { pool, backend } => format!("Reset all sessions on {pool}/{backend}?"),
        }
    }
}
