//! Words of other balancers' configurations for what we have, too: nothing like ours in their letters, so that `nearest`
//! does not find it.

/// What of ours it may be, and what one writes elsewhere, in small letters with `_`. What a place knows decides.
const WORDS: &[(&[&str], &[&str])] = &[
    (&["address"], &["host", "ip"]),
    (&["address", "bind"], &["addr", "port"]),
    (&["admin"], &["stats"]),
    (&["allow"], &["whitelist"]),
    (&["attempts", "connect"], &["retries"]),
    (&["backends"], &["endpoints", "members", "nodes", "servers", "targets"]),
    (&["backends", "address", "pools"], &["server"]),
    (&["balance"], &["algorithm", "lb_policy", "method", "policy", "strategy"]),
    (&["bind", "listeners"], &["listen"]),
    (&["connect"], &["proxy_connect_timeout"]),
    (&["connect", "timeout"], &["connect_timeout"]),
    (&["consistent_hash"], &["hash", "ketama", "maglev", "ring_hash"]),
    (&["deny"], &["blacklist"]),
    (&["exchange"], &["tcp_check"]),
    (&["fall"], &["failure_threshold", "unhealthy_threshold"]),
    (&["first_available"], &["first"]),
    (&["half_closed"], &["client_fin"]),
    (&["health"], &["default_server", "fall", "rise"]),
    (&["health", "probe"], &["check", "health_check", "healthcheck"]),
    (&["http"], &["httpchk"]),
    (&["idle"], &["client", "keepalive_timeout", "tunnel"]),
    (&["interval", "health"], &["inter"]),
    (&["ip_hash"], &["source"]),
    (&["least_connections"], &["least_conn", "least_request", "leastconn"]),
    (&["least_latency"], &["ewma", "least_time", "peak_ewma"]),
    (&["limits"], &["limit_conn", "max_sessions", "sessions"]),
    (&["listeners"], &["entrypoints", "frontend", "frontends", "stream"]),
    (&["max_sessions"], &["worker_connections"]),
    (&["max_sessions", "sessions"], &["max_connections", "max_conns"]),
    (&["max_sessions", "sessions", "limits"], &["maxconn"]),
    (&["on_down"], &["on_marked_down"]),
    (&["passive"], &["fail_timeout", "outlier_detection"]),
    (&["passive", "failures"], &["max_fails"]),
    (&["pool"], &["default_backend", "proxy_pass"]),
    (&["pool", "backends", "pools"], &["backend", "upstream"]),
    (&["pool", "routes"], &["use_backend"]),
    (&["pools"], &["clusters", "upstreams"]),
    (&["pools", "pool"], &["backends"]),
    (&["process"], &["global"]),
    (&["protocol"], &["mode"]),
    (&["proxy_protocol"], &["accept_proxy"]),
    (&["rise"], &["healthy_threshold", "success_threshold"]),
    (&["round_robin"], &["roundrobin", "rr", "static_rr", "weighted_round_robin", "wrr"]),
    (&["routes"], &["ssl_preread"]),
    (&["routes", "allow"], &["acl"]),
    (&["send_proxy_protocol"], &["send_proxy", "send_proxy_v2"]),
    (&["servers"], &["resolver"]),
    (&["servers", "discovery"], &["resolvers"]),
    (&["slow_start"], &["slowstart"]),
    (&["source"], &["proxy_bind"]),
    (&["tier"], &["backup", "priority"]),
    (&["timeouts"], &["idle_timeout", "preread_timeout", "proxy_timeout"]),
    (&["tls"], &["ssl"]),
    (&["two_choices"], &["p2c", "power_of_two", "random_two"]),
    (&["weight"], &["down"]),
    (&["workers"], &["threads"]),
    (&["workers", "process"], &["nbthread", "worker_processes"]),
];

/// What is called so elsewhere and is known here.
pub fn elsewhere(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let (ours, _) = WORDS.iter().find(|(_, theirs)| theirs.contains(&word.as_str()))?;
    ours.iter().find(|ours| known.contains(ours)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_words_of_others_are_understood_where_they_belong() {
        let balance = ["round_robin", "least_connections", "ip_hash"];
        assert_eq!(elsewhere("leastconn", &balance), Some("least_connections"));
        assert_eq!(elsewhere("Static-RR", &balance), Some("round_robin"));
        assert_eq!(elsewhere("inter", &["interval", "rise"]), Some("interval"));
        assert_eq!(elsewhere("inter", &balance), None);
        assert_eq!(elsewhere("backend", &["process", "pools"]), Some("pools"));
        assert_eq!(elsewhere("max_sessions", &["limits", "deny_sessions"]), Some("limits"));
        assert_eq!(elsewhere("something", &balance), None);
        let mut theirs: Vec<&str> = WORDS.iter().flat_map(|(_, theirs)| *theirs).copied().collect();
        theirs.sort_unstable();
        assert!(theirs.is_sorted_by(|a, b| a < b), "each once");
        assert!(WORDS.is_sorted_by(|a, b| a.0 < b.0), "where one looks for it");
    }

    /// Each names something that there is.
    #[test]
    fn whatever_is_suggested_is_a_word_of_ours() {
        let schema = crate::config::schema::schema().to_string();
        for ours in WORDS.iter().flat_map(|(ours, _)| *ours) {
            assert!(schema.contains(&format!("\"{ours}\"")), "{ours}");
        }
    }
}
