//! Words of other balancers' configurations for what we have, too: nothing like ours in their letters, so that `nearest`
//! does not find it.

/// What one writes elsewhere, in small letters with `_`, and what of ours it may be. What a place knows decides.
const WORDS: &[(&str, &[&str])] = &[
    ("accept_proxy", &["proxy_protocol"]),
    ("acl", &["routes", "allow"]),
    ("addr", &["address", "bind"]),
    ("algorithm", &["balance"]),
    ("backend", &["pool", "backends", "pools"]),
    ("backends", &["pools", "pool"]),
    ("backup", &["tier"]),
    ("blacklist", &["deny"]),
    ("check", &["health", "probe"]),
    ("client", &["idle"]),
    ("client_fin", &["half_closed"]),
    ("clusters", &["pools"]),
    ("connect_timeout", &["connect", "timeout"]),
    ("default_backend", &["pool"]),
    ("default_server", &["health"]),
    ("down", &["weight"]),
    ("endpoints", &["backends"]),
    ("entrypoints", &["listeners"]),
    ("ewma", &["least_latency"]),
    ("fail_timeout", &["passive"]),
    ("failure_threshold", &["fall"]),
    ("fall", &["health"]),
    ("first", &["first_available"]),
    ("frontend", &["listeners"]),
    ("frontends", &["listeners"]),
    ("global", &["process"]),
    ("hash", &["consistent_hash"]),
    ("health_check", &["health", "probe"]),
    ("healthcheck", &["health", "probe"]),
    ("healthy_threshold", &["rise"]),
    ("host", &["address"]),
    ("httpchk", &["http"]),
    ("idle_timeout", &["timeouts"]),
    ("inter", &["interval", "health"]),
    ("ip", &["address"]),
    ("keepalive_timeout", &["idle"]),
    ("ketama", &["consistent_hash"]),
    ("lb_policy", &["balance"]),
    ("least_conn", &["least_connections"]),
    ("least_request", &["least_connections"]),
    ("least_time", &["least_latency"]),
    ("leastconn", &["least_connections"]),
    ("limit_conn", &["limits"]),
    ("listen", &["bind", "listeners"]),
    ("maglev", &["consistent_hash"]),
    ("max_connections", &["max_sessions", "sessions"]),
    ("max_conns", &["max_sessions", "sessions"]),
    ("max_fails", &["passive", "failures"]),
    ("max_sessions", &["limits"]),
    ("maxconn", &["max_sessions", "sessions", "limits"]),
    ("members", &["backends"]),
    ("method", &["balance"]),
    ("mode", &["protocol"]),
    ("nbthread", &["workers", "process"]),
    ("nodes", &["backends"]),
    ("on_marked_down", &["on_down"]),
    ("outlier_detection", &["passive"]),
    ("p2c", &["two_choices"]),
    ("peak_ewma", &["least_latency"]),
    ("policy", &["balance"]),
    ("port", &["address", "bind"]),
    ("power_of_two", &["two_choices"]),
    ("preread_timeout", &["timeouts"]),
    ("priority", &["tier"]),
    ("proxy_bind", &["source"]),
    ("proxy_connect_timeout", &["connect"]),
    ("proxy_pass", &["pool"]),
    ("proxy_timeout", &["timeouts"]),
    ("random_two", &["two_choices"]),
    ("resolver", &["servers"]),
    ("resolvers", &["servers", "discovery"]),
    ("retries", &["attempts", "connect"]),
    ("ring_hash", &["consistent_hash"]),
    ("rise", &["health"]),
    ("roundrobin", &["round_robin"]),
    ("rr", &["round_robin"]),
    ("send_proxy", &["send_proxy_protocol"]),
    ("send_proxy_v2", &["send_proxy_protocol"]),
    ("server", &["backends", "address", "pools"]),
    ("servers", &["backends"]),
    ("sessions", &["limits"]),
    ("slowstart", &["slow_start"]),
    ("source", &["ip_hash"]),
    ("ssl", &["tls"]),
    ("ssl_preread", &["routes"]),
    ("static_rr", &["round_robin"]),
    ("stats", &["admin"]),
    ("strategy", &["balance"]),
    ("stream", &["listeners"]),
    ("success_threshold", &["rise"]),
    ("targets", &["backends"]),
    ("tcp_check", &["exchange"]),
    ("threads", &["workers"]),
    ("tunnel", &["idle"]),
    ("unhealthy_threshold", &["fall"]),
    ("upstream", &["pool", "backends", "pools"]),
    ("upstreams", &["pools"]),
    ("use_backend", &["pool", "routes"]),
    ("weighted_round_robin", &["round_robin"]),
    ("whitelist", &["allow"]),
    ("worker_connections", &["max_sessions"]),
    ("worker_processes", &["workers", "process"]),
    ("wrr", &["round_robin"]),
];

/// What is called so elsewhere and is known here.
pub fn elsewhere(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let (_, ours) = WORDS.iter().find(|(theirs, _)| *theirs == word)?;
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
        assert!(WORDS.is_sorted_by(|a, b| a.0 < b.0), "each once, where one looks for it");
    }

    /// Each names something that there is.
    #[test]
    fn whatever_is_suggested_is_a_word_of_ours() {
        let schema = crate::config::schema::schema().to_string();
        for ours in WORDS.iter().flat_map(|(_, ours)| *ours) {
            assert!(schema.contains(&format!("\"{ours}\"")), "{ours}");
        }
    }
}
