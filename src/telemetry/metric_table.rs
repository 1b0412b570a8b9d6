//! Every metric, by name, with the help text that a scrape shows.

use Kind::{Counter, Distribution, Value};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Distribution,
    Value,
}

/// Name, kind and help text of every metric except the standard `process_*`.
pub const METRICS: &[(&str, Kind, &str)] = &[
    (
        "maitred_access_file_last_read_successful",
        Value,
        "1 if allow_file or deny_file could be read when it last changed; if 0, its last good content is in force.",
    ),
    ("maitred_accept_errors_total", Counter, "Connections that could not be accepted, by reason."),
    ("maitred_backend_connect_duration_seconds", Distribution, "Time to connect to a backend."),
    (
        "maitred_backend_connect_failures_total",
        Counter,
        "Failed connection attempts to a backend, by reason.",
    ),
    (
        "maitred_backend_first_byte_duration_seconds",
        Distribution,
        "Time from connecting to a backend, or from the client's last bytes before it answered, to the backend's first byte.",
    ),
    ("maitred_backend_received_bytes_total", Counter, "Payload bytes received from a backend."),
    (
        "maitred_backend_retries_total",
        Counter,
        "Retries on another backend, caused by a failure of this one.",
    ),
    ("maitred_backend_sent_bytes_total", Counter, "Payload bytes sent to a backend."),
    (
        "maitred_backend_sessions_active",
        Value,
        "Sessions that connect to a backend or are relayed to it.",
    ),
    ("maitred_backend_sessions_limit", Value, "max_sessions of a backend; +Inf if not limited."),
    ("maitred_backend_sessions_total", Counter, "Sessions that connected to a backend."),
    ("maitred_backend_state", Value, "1 for the state a backend is in, 0 for the others."),
    (
        "maitred_backend_transitions_total",
        Counter,
        "Changes of a backend's state, by the new state.",
    ),
    (
        "maitred_backend_weight",
        Value,
        "Weight of a backend now: 0 if it gets no new sessions, less than configured during slow start.",
    ),
    ("maitred_build_info", Value, "Always 1; the version is in the label."),
    (
        "maitred_config_info",
        Value,
        "Always 1; the SHA-256 of the configuration's text is in the label.",
    ),
    (
        "maitred_config_last_reload_successful",
        Value,
        "1 if the last reload (or the start) succeeded.",
    ),
    (
        "maitred_config_last_reload_timestamp_seconds",
        Value,
        "When the configuration in force was last read.",
    ),
    (
        "maitred_discovery_failures_total",
        Counter,
        "Failed discoveries of a pool's backends, by reason; the last good answer stays.",
    ),
    (
        "maitred_discovery_last_success_timestamp_seconds",
        Value,
        "When discovery of a pool last succeeded: the oldest success among its names and files; 0: not all have succeeded yet.",
    ),
    ("maitred_draining", Value, "1 while the process drains."),
    ("maitred_listener_received_bytes_total", Counter, "Payload bytes received from clients."),
    (
        "maitred_listener_refused_total",
        Counter,
        "Sessions that ended before any backend was tried, by reason.",
    ),
    ("maitred_listener_sent_bytes_total", Counter, "Payload bytes sent to clients."),
    ("maitred_listener_sessions_active", Value, "Open sessions of a listener."),
    (
        "maitred_listener_sessions_limit",
        Value,
        "The most sessions or flows of a listener at once; +Inf if not limited.",
    ),
    (
        "maitred_listener_sessions_total",
        Counter,
        "Accepted connections, including those refused later.",
    ),
    (
        "maitred_log_dropped_total",
        Counter,
        "Log lines dropped because they were not read in time or could not be written.",
    ),
    ("maitred_pool_backends", Value, "Backends of a pool, by state."),
    (
        "maitred_pool_probe_blind",
        Value,
        "Whether no backend that answers lets the probes of a pool log in.",
    ),
    (
        "maitred_pool_lost_backends",
        Value,
        "Backends lost to the sessions that they have, by reason.",
    ),
    (
        "maitred_pool_conflict",
        Value,
        "1 while several backends of a pool with `single` say that they are the one that serves.",
    ),
    ("maitred_pool_held_sessions", Value, "Sessions that wait for a backend."),
    ("maitred_pool_no_backend_total", Counter, "Times that a session found no backend up."),
    ("maitred_probe_duration_seconds", Distribution, "Duration of health probes."),
    ("maitred_probes_total", Counter, "Health probes, by result."),
    ("maitred_reloads_total", Counter, "Reloads, by result."),
    ("maitred_session_bytes_total", Counter, "Payload bytes passed on, by path."),
    (
        "maitred_session_closed_total",
        Counter,
        "Ended sessions, flows and refusals, by stage and reason.",
    ),
    (
        "maitred_session_duration_seconds",
        Distribution,
        "Time from accept to close of sessions that were relayed.",
    ),
    ("maitred_sessions_limit", Value, "max_sessions of the process."),
    (
        "maitred_source_ports_exhausted_total",
        Counter,
        "Connection attempts that found no free source port.",
    ),
    (
        "maitred_source_ports_in_use",
        Value,
        "Source ports in use that maitred chose rather than the kernel.",
    ),
    (
        "maitred_tls_certificate_expiry_timestamp_seconds",
        Value,
        "When a listener's certificate expires; with several, the earliest.",
    ),
    (
        "maitred_tls_files_last_read_successful",
        Value,
        "1 if a listener's certificates, keys and authorities could be read when they last changed.",
    ),
    (
        "maitred_udp_datagrams_total",
        Counter,
        "Datagrams received from and sent to clients and backends, by direction.",
    ),
    ("maitred_udp_dropped_total", Counter, "Dropped datagrams, by reason."),
    ("maitred_udp_flows_active", Value, "Open flows of a listener."),
    ("maitred_udp_flows_total", Counter, "Flows that got a backend."),
    (
        "maitred_worker_busy_seconds_total",
        Counter,
        "Time that a worker spent working rather than waiting.",
    ),
];
