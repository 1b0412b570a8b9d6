//! How one session, flow or refusal ended: stage × close reason × bytes × times. Written exactly once. The words here
//! are fixed; metric labels and log lines use `as_str`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::border::addr::{ClientAddr, LocalAddr};
use crate::config::{Listener, Protocol};

/// The stage that a session reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Stage {
    Admit,
    Preread,
    Route,
    Connect,
    Relay,
}

impl Stage {
    pub const ALL: [Stage; 5] =
        [Stage::Admit, Stage::Preread, Stage::Route, Stage::Connect, Stage::Relay];

    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Admit => "admit",
            Stage::Preread => "preread",
            Stage::Route => "route",
            Stage::Connect => "connect",
            Stage::Relay => "relay",
        }
    }

    pub fn from_u8(value: u8) -> Stage {
        Stage::ALL[usize::from(value).min(Stage::ALL.len() - 1)]
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CloseReason {
    ClientClosed,
    ClientReset,
    ClientVanished,
    BackendClosed,
    BackendReset,
    BackendVanished,
    Idle,
    HalfClosedTimeout,
    Lifetime,
    ConnectRefused,
    ConnectTimeout,
    ConnectUnreachable,
    NoBackend,
    BackendFull,
    HoldTimeout,
    NoRoute,
    Denied,
    OverLimit,
    RateLimited,
    PrereadTimeout,
    BadProxyHeader,
    BadClientHello,
    TlsFailed,
    BackendDown,
    BackendRemoved,
    Drained,
    Killed,
    NoDescriptors,
    NoSourcePort,
    FlowExpired,
    FlowComplete,
    FlowEvicted,
    Internal,
}

impl CloseReason {
    pub const ALL: [CloseReason; 33] = [
        CloseReason::ClientClosed,
        CloseReason::ClientReset,
        CloseReason::ClientVanished,
        CloseReason::BackendClosed,
        CloseReason::BackendReset,
        CloseReason::BackendVanished,
        CloseReason::Idle,
        CloseReason::HalfClosedTimeout,
        CloseReason::Lifetime,
        CloseReason::ConnectRefused,
        CloseReason::ConnectTimeout,
        CloseReason::ConnectUnreachable,
        CloseReason::NoBackend,
        CloseReason::BackendFull,
        CloseReason::HoldTimeout,
        CloseReason::NoRoute,
        CloseReason::Denied,
        CloseReason::OverLimit,
        CloseReason::RateLimited,
        CloseReason::PrereadTimeout,
        CloseReason::BadProxyHeader,
        CloseReason::BadClientHello,
        CloseReason::TlsFailed,
        CloseReason::BackendDown,
        CloseReason::BackendRemoved,
        CloseReason::Drained,
        CloseReason::Killed,
        CloseReason::NoDescriptors,
        CloseReason::NoSourcePort,
        CloseReason::FlowExpired,
        CloseReason::FlowComplete,
        CloseReason::FlowEvicted,
        CloseReason::Internal,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::ClientClosed => "client_closed",
            CloseReason::ClientReset => "client_reset",
            CloseReason::ClientVanished => "client_vanished",
            CloseReason::BackendClosed => "backend_closed",
            CloseReason::BackendReset => "backend_reset",
            CloseReason::BackendVanished => "backend_vanished",
            CloseReason::Idle => "idle",
            CloseReason::HalfClosedTimeout => "half_closed_timeout",
            CloseReason::Lifetime => "lifetime",
            CloseReason::ConnectRefused => "connect_refused",
            CloseReason::ConnectTimeout => "connect_timeout",
            CloseReason::ConnectUnreachable => "connect_unreachable",
            CloseReason::NoBackend => "no_backend",
            CloseReason::BackendFull => "backend_full",
            CloseReason::HoldTimeout => "hold_timeout",
            CloseReason::NoRoute => "no_route",
            CloseReason::Denied => "denied",
            CloseReason::OverLimit => "over_limit",
            CloseReason::RateLimited => "rate_limited",
            CloseReason::PrereadTimeout => "preread_timeout",
            CloseReason::BadProxyHeader => "bad_proxy_header",
            CloseReason::BadClientHello => "bad_client_hello",
            CloseReason::TlsFailed => "tls_failed",
            CloseReason::BackendDown => "backend_down",
            CloseReason::BackendRemoved => "backend_removed",
            CloseReason::Drained => "drained",
            CloseReason::Killed => "killed",
            CloseReason::NoDescriptors => "no_descriptors",
            CloseReason::NoSourcePort => "no_source_port",
            CloseReason::FlowExpired => "flow_expired",
            CloseReason::FlowComplete => "flow_complete",
            CloseReason::FlowEvicted => "flow_evicted",
            CloseReason::Internal => "internal",
        }
    }

    /// A cut because of the backend: in stage `connect` it ends the attempt, and other backends may still be tried.
    pub fn is_of_backend(self) -> bool {
        matches!(self, CloseReason::BackendDown | CloseReason::BackendRemoved)
    }

    /// Whether `log.sessions: failures` logs it.
    pub fn is_failure(self) -> bool {
        !matches!(
            self,
            CloseReason::ClientClosed
                | CloseReason::BackendClosed
                | CloseReason::Idle
                | CloseReason::Drained
                | CloseReason::FlowExpired
                | CloseReason::FlowComplete
                | CloseReason::FlowEvicted
        )
    }
}

/// Whether a session or flow can end with this reason in this stage: only such pairs are exported.
pub fn can_occur(protocol: Protocol, stage: Stage, reason: CloseReason) -> bool {
    match protocol {
        Protocol::Tcp => session_can_end(stage, reason),
        Protocol::Udp => flow_can_end(stage, reason),
    }
}

fn flow_can_end(stage: Stage, reason: CloseReason) -> bool {
    use CloseReason::*;
    match stage {
        Stage::Admit => matches!(reason, Denied | OverLimit | RateLimited | Drained | Internal),
        Stage::Preread => false,
        Stage::Route => matches!(reason, NoRoute | NoBackend | BackendFull | Internal),
        Stage::Connect => matches!(
            reason,
            ConnectRefused | ConnectUnreachable | NoDescriptors | NoSourcePort | Internal
        ),
        Stage::Relay => matches!(
            reason,
            FlowExpired
                | FlowComplete
                | FlowEvicted
                | Denied
                | BackendDown
                | BackendRemoved
                | Drained
                | Killed
                | Internal
        ),
    }
}

fn session_can_end(stage: Stage, reason: CloseReason) -> bool {
    use CloseReason::*;
    if stage != Stage::Admit && matches!(reason, Denied | Drained | Killed | Internal) {
        return true;
    }
    match stage {
        Stage::Admit => {
            matches!(reason, Denied | OverLimit | RateLimited | NoDescriptors | Internal)
        }
        Stage::Preread => matches!(
            reason,
            OverLimit
                | RateLimited
                | PrereadTimeout
                | BadProxyHeader
                | BadClientHello
                | TlsFailed
                | ClientClosed
                | ClientReset
        ),
        Stage::Route => matches!(
            reason,
            NoRoute
                | NoBackend
                | BackendFull
                | HoldTimeout
                | ClientClosed
                | ClientReset
                | NoDescriptors
        ),
        Stage::Connect => matches!(
            reason,
            ConnectRefused
                | ConnectTimeout
                | ConnectUnreachable
                | NoBackend
                | BackendFull
                | TlsFailed
                | ClientClosed
                | ClientReset
                | BackendDown
                | BackendRemoved
                | NoDescriptors
                | NoSourcePort
        ),
        Stage::Relay => matches!(
            reason,
            ClientClosed
                | ClientReset
                | ClientVanished
                | BackendClosed
                | BackendReset
                | BackendVanished
                | Idle
                | HalfClosedTimeout
                | Lifetime
                | BackendDown
                | BackendRemoved
                | TlsFailed
        ),
    }
}

/// Payload bytes of one session, both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    pub client_received: u64,
    pub client_sent: u64,
    pub backend_received: u64,
    pub backend_sent: u64,
}

/// One ending.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: u64,
    pub listener: Arc<str>,
    pub protocol: Protocol,
    pub client: ClientAddr,
    /// The sender of the PROXY header.
    pub sender: Option<ClientAddr>,
    pub local: LocalAddr,
    /// The server name that a TLS client asked for.
    pub server_name: Option<String>,
    /// Details, for some reasons.
    pub cause: Option<Cow<'static, str>>,
    pub pool: Option<Arc<str>>,
    /// The backend of the last attempt.
    pub backend: Option<Arc<str>>,
    /// Connection attempts that failed before.
    pub tried: u32,
    pub stage: Stage,
    pub reason: CloseReason,
    pub bytes: Bytes,
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub duration: Duration,
}

impl Record {
    /// For a client that was refused before anything else was known.
    pub fn refusal(
        id: u64,
        listener: &Listener,
        (client, local): (ClientAddr, LocalAddr),
        stage: Stage,
        reason: CloseReason,
    ) -> Record {
        Record {
            id,
            listener: Arc::clone(&listener.name),
            protocol: listener.protocol,
            client,
            sender: None,
            local,
            server_name: None,
            cause: None,
            pool: None,
            backend: None,
            tried: 0,
            stage,
            reason,
            bytes: Bytes::default(),
            connect: None,
            first_byte: None,
            duration: Duration::ZERO,
        }
    }
}
