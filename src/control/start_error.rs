//! Why the process could not start, in words and with a hint.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::control::supervisor::BindError;
use crate::sys::limits;
use crate::sys::privileges::Refused;

/// Why the process could not start.
#[derive(Debug)]
pub enum StartError {
    Admin(SocketAddr, io::Error),
    AdminSocket(PathBuf, io::Error),
    Bind(BindError),
    User(Refused),
    Io(&'static str, io::Error),
}

pub fn admin_error(wanted: Option<SocketAddr>, error: io::Error) -> StartError {
    StartError::Admin(wanted.unwrap_or(SocketAddr::from(([0; 4], 0))), error)
}

impl StartError {
    /// The code for `maitred explain`.
    pub fn code(&self) -> &'static str {
        match self {
            StartError::Admin(..) => "E0101",
            StartError::AdminSocket(..) => "E0102",
            StartError::Bind(_) => "E0103",
            StartError::User(_) => "E0104",
            StartError::Io(..) => "E0105",
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Admin(address, error) => {
                write!(
                    f,
                    "cannot bind the admin address {address}: {error}\n  hint: another maitred may use it; \
                     choose another with `--admin ADDRESS` or `admin: {{listen: …}}`, or `none`"
                )
            }
            StartError::AdminSocket(path, error) => {
                write!(
                    f,
                    "cannot bind the admin socket {}: {error}\n  hint: its folder must exist and be writable, and no other \
                     maitred may use it; choose another with `admin: {{socket: …}}`, or `none`",
                    path.display()
                )
            }
            StartError::Bind(error) => error.fmt(f),
            StartError::User(refused) => refused.fmt(f),
            StartError::Io(what, error) => {
                write!(f, "cannot set up {what}: {error}{}", limits::hint(error))
            }
        }
    }
}

impl std::error::Error for StartError {}
