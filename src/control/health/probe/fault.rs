//! Why a probe did not pass.

use std::borrow::Cow;
use std::io;

use crate::data::pool::fitness::ProbeResult;

#[derive(Debug)]
pub(super) struct Fault {
    pub(super) result: ProbeResult,
    pub(super) detail: Option<Cow<'static, str>>,
    /// The backend's reply must be shown.
    pub(super) shows_reply: bool,
}

impl Fault {
    pub(super) fn mismatch(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { detail: Some(detail.into()), ..Fault::of(ProbeResult::Mismatch) }
    }

    /// An answer, but not the expected one.
    pub(super) fn unexpected(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { shows_reply: true, ..Fault::mismatch(detail) }
    }

    /// The backend says itself that it does not serve this pool now.
    pub(super) fn wrong_role(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { detail: Some(detail.into()), ..Fault::of(ProbeResult::WrongRole) }
    }

    /// The login was turned away.
    pub(super) fn login_failed(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { detail: Some(detail.into()), ..Fault::of(ProbeResult::LoginFailed) }
    }

    /// The question was refused.
    pub(super) fn query_failed(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { detail: Some(detail.into()), ..Fault::of(ProbeResult::QueryFailed) }
    }

    /// Reached, but not in TLS.
    pub(super) fn tls_failed(detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { detail: Some(detail.into()), ..Fault::of(ProbeResult::TlsFailed) }
    }

    pub(super) fn of(result: ProbeResult) -> Fault {
        Fault { result, detail: None, shows_reply: false }
    }

    /// An error of a connection that is not made yet.
    pub(super) fn connecting(error: &io::Error) -> Fault {
        // Without an error number: `source`, with its address.
        let is_absent = error.kind() == io::ErrorKind::AddrNotAvailable;
        let result = match error.raw_os_error() {
            _ if is_absent => ProbeResult::LocalError,
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EADDRINUSE
                | libc::ENETDOWN,
            ) => ProbeResult::LocalError,
            Some(libc::ETIMEDOUT) => ProbeResult::Timeout,
            Some(
                libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EACCES
                | libc::EPERM
                | libc::EINVAL,
            ) => ProbeResult::Unreachable,
            // ECONNREFUSED, a reset during the handshake; for unix sockets: no such file.
            _ => ProbeResult::Refused,
        };
        let detail = (result == ProbeResult::LocalError).then(|| error.to_string().into());
        Fault { detail, ..Fault::of(result) }
    }

    /// A connection that broke: it was made, so what is missing is the answer.
    pub(super) fn talking(error: &io::Error) -> Fault {
        Fault::unexpected(format!("the connection broke: {}", error.kind()))
    }
}
