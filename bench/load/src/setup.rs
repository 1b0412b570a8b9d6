//! How each product is configured: alike in what they do (workers, no log, no probes, times that no run reaches), and
//! otherwise as its own documentation says for this work.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::product::Product::{self, *};
use crate::product::Tools;

pub struct Setup {
    pub is_udp: bool,
    pub listen: SocketAddr,
    pub backends: Vec<SocketAddr>,
    /// For maitred with many of them: the same server under so many addresses.
    pub many: Vec<SocketAddr>,
    pub workers: usize,
}

pub fn config(product: Product, setup: &Setup, tools: &Tools) -> Option<String> {
    match product {
        Direct | RelayCopy | RelaySplice => None,
        Envoy => Some(envoy(setup)),
        HAProxy | HAProxySplice => Some(haproxy(setup, product == HAProxySplice)),
        Nginx | Nginx64K => Some(nginx(setup, product == Nginx64K, tools)),
        _ => Some(maitred(setup, product)),
    }
}

fn haproxy(setup: &Setup, is_splicing: bool) -> String {
    let Setup { listen, backends, workers, .. } = setup;
    let pipes = if is_splicing { "    tune.pipesize 262144\n" } else { "" };
    let splice =
        if is_splicing { "    option splice-request\n    option splice-response\n" } else { "" };
    let mut text = format!(
        "global
    nbthread {workers}
{pipes}defaults
    mode tcp
    timeout connect 10s
    timeout client 10m
    timeout server 10m
{splice}frontend door
    bind {listen} backlog 4096
    default_backend bench
backend bench
    balance leastconn
"
    );
    for (number, backend) in backends.iter().enumerate() {
        let _ = writeln!(text, "    server s{number} {backend}");
    }
    text
}

/// A queue for UDP as large as the system lets it have; the rest is its default.
fn nginx(setup: &Setup, has_large_buffers: bool, tools: &Tools) -> String {
    let Setup { is_udp, listen, backends, workers, .. } = setup;
    let dir = tools.dir.display();
    let options = if *is_udp { "udp reuseport rcvbuf=8m" } else { "reuseport backlog=4096" };
    let buffers = if has_large_buffers { "proxy_buffer_size 64k;" } else { "" };
    let servers: String = backends.iter().map(|backend| format!("server {backend};")).collect();
    // Debian's has it as a module, one built whole does not.
    let load = match tools.nginx_has_stream {
        true => "",
        false => "load_module /usr/lib/nginx/modules/ngx_stream_module.so;",
    };
    format!(
        "{load}
daemon off;
user root;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 19000; }}
stream {{
    access_log off;
    upstream bench {{ least_conn; {servers} }}
    server {{
        listen {listen} {options};
        proxy_pass bench;
        proxy_timeout 10m;
        proxy_connect_timeout 10s;
        {buffers}
    }}
}}
"
    )
}

fn envoy(setup: &Setup) -> String {
    let Setup { listen, backends, .. } = setup;
    let endpoints: String = backends.iter().fold(String::new(), |mut text, backend| {
        let _ = write!(
            text,
            "
        - endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}",
            backend.ip(),
            backend.port()
        );
        text
    });
    format!(
        "static_resources:
  listeners:
  - name: bench
    address: {{socket_address: {{address: {}, port_value: {}}}}}
    enable_reuse_port: true
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: bench
  clusters:
  - name: bench
    type: STATIC
    connect_timeout: 10s
    lb_policy: LEAST_REQUEST
    circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000}}]}}
    load_assignment:
      cluster_name: bench
      endpoints:
      - lb_endpoints:{endpoints}
",
        listen.ip(),
        listen.port()
    )
}

/// Ports of a listener that has many; the first is the one that is dialled.
const PORTS: u16 = 4000;
const POOLS: u16 = 1000;

fn maitred(setup: &Setup, product: Product) -> String {
    let Setup { is_udp, listen, backends, many, workers } = setup;
    let (ip, port) = (listen.ip(), listen.port());
    // TCP and UDP ports are apart: the admin address of a UDP case can have the same number.
    let admin = if *is_udp { format!("\"{listen}\"") } else { "none".to_owned() };
    let busy = if product == MaitredBusy { ", busy_poll: 1ms" } else { "" };
    let bind = match product {
        MaitredPorts => format!("{ip}:{port}-{}", port + PORTS - 1),
        _ => listen.to_string(),
    };
    let protocol = if *is_udp { "protocol: udp, flow: {timeout: 10m}" } else { "keepalive: none" };
    let balance = match product {
        MaitredLeast | MaitredLeastMany => "least_connections",
        _ => "round_robin",
    };
    let backends = match product {
        MaitredBackends | MaitredLeastMany => many,
        _ => backends,
    };
    let backends: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    let backends = backends.join(", ");
    let mut listeners = format!("  bench: {{bind: \"{bind}\", pool: bench, {protocol}}}\n");
    let mut pools = String::new();
    let pool = format!("{{balance: {balance}, backends: [{backends}], health: {{probe: none}}}}");
    let _ = writeln!(pools, "  bench: {pool}");
    if product == MaitredPools {
        for number in 1..POOLS {
            let port = port + number;
            let _ = writeln!(listeners, "  l{number}: {{bind: \"{ip}:{port}\", pool: p{number}}}");
            let _ = writeln!(pools, "  p{number}: {pool}");
        }
    }
    format!(
        "version: 1
process: {{workers: {workers}, shutdown: {{timeout: 100ms}}{busy}}}
admin: {{listen: {admin}, socket: none}}
log: {{sessions: none}}
listeners:
{listeners}pools:
{pools}"
    )
}
