//! The PROXY protocol with real peers: HAProxy and nginx announce a client to maitred, which announces it to nginx and
//! HAProxy, and a MiB comes through unchanged.

use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{Maitred, Process, free_port, program, succeed, wait_for};

/// Everybody in this test comes from an address of its own, so that nobody's is taken for another's.
const CLIENT: &str = "127.0.0.2";
const SIZE: usize = 1 << 20;

struct Site {
    dir: TempDir,
    processes: Vec<Process>,
}

impl Site {
    /// With a file of a MiB that no piece of is like another.
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let big: Vec<u8> =
            (0..SIZE / 8).flat_map(|count| format!("{count:07}\n").into_bytes()).collect();
        fs::write(dir.path().join("big"), big).unwrap();
        Site { dir, processes: Vec::new() }
    }

    fn nginx(&mut self, name: &str, port: u16, config: &str) {
        let place = self.dir.path().display();
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let config = format!(
            "load_module {module}; daemon off; user root; worker_processes 1;
             pid {place}/{name}.pid; error_log {place}/{name}.log; events {{}} {config}"
        );
        let file = self.dir.path().join(name);
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program("nginx", "nginx"));
        command.arg("-p").arg(self.dir.path()).arg("-c").arg(file);
        self.run(port, command);
    }

    fn haproxy(&mut self, name: &str, port: u16, config: &str) {
        let file = self.dir.path().join(name);
        let times = "timeout connect 5s\n timeout client 30s\n timeout server 30s\n";
        fs::write(&file, format!("defaults\n {times}\n{config}\n")).unwrap();
        let mut command = Command::new(program("haproxy", "haproxy"));
        command.arg("-db").arg("-f").arg(file);
        self.run(port, command);
    }

    fn run(&mut self, port: u16, mut command: Command) {
        self.processes.push(Process::start(command.stdout(Stdio::null()).stderr(Stdio::null())));
        wait_for("a port to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// What the last in the chain says of the client, asked through the first, and that the MiB is right.
    fn ask(&self, port: u16) -> String {
        let curl = |path: &str| {
            let mut command = Command::new(program("curl", "curl"));
            command.args(["-sS", "--fail", "--interface", CLIENT, "--max-time", "20"]);
            succeed(command.arg(format!("http://127.0.0.1:{port}/{path}")))
        };
        assert!(curl("big") == fs::read_to_string(self.dir.path().join("big")).unwrap());
        curl("who")
    }

    fn nginx_that_reads(&mut self, port: u16) {
        let root = self.dir.path().display();
        let config = format!(
            "http {{ access_log off; server {{ listen 127.0.0.1:{port} proxy_protocol; root {root};
             location /who {{ return 200 $proxy_protocol_addr; }} }} }}"
        );
        self.nginx(&format!("nginx-{port}"), port, &config);
    }

    /// HAProxy takes the header and nginx behind it has the file.
    fn haproxy_that_reads(&mut self, port: u16) {
        let files = free_port();
        let root = self.dir.path().display();
        let config = format!(
            "http {{ access_log off; server {{ listen 127.0.0.1:{files}; root {root}; }} }}"
        );
        self.nginx(&format!("files-{port}"), files, &config);
        let config = format!(
            "listen reads\n mode http\n bind 127.0.0.1:{port} accept-proxy\n \
             http-request return status 200 content-type text/plain lf-string %[src] if {{ path /who }}\n \
             server files 127.0.0.1:{files}"
        );
        self.haproxy(&format!("haproxy-{port}"), port, &config);
    }
}

fn maitred(port: u16, backend: u16, version: &str) -> Maitred {
    Maitred::start(&format!(
        "listeners:
  main:
    bind: \"127.0.0.1:{port}\"
    pool: main
    proxy_protocol: {{trusted: [\"127.0.0.1\"]}}
    allow: [\"{CLIENT}\"]
pools:
  main: {{backends: [\"127.0.0.1:{backend}\"], send_proxy_protocol: {version}, health: {{probe: none}}}}
"
    ))
}

#[test]
fn haproxy_and_nginx_announce_a_client_and_are_told_of_it() {
    let mut site = Site::new();
    let (to_nginx, to_haproxy) = (free_port(), free_port());
    site.nginx_that_reads(to_nginx);
    site.haproxy_that_reads(to_haproxy);
    for (backend, version) in
        [(to_nginx, "v1"), (to_nginx, "v2"), (to_haproxy, "v1"), (to_haproxy, "v2")]
    {
        let port = free_port();
        let maitred = maitred(port, backend, version);
        let before: Vec<u16> = (0..3).map(|_| free_port()).collect();
        for (from, send) in
            before.iter().zip(["send-proxy", "send-proxy-v2 proxy-v2-options crc32c"])
        {
            let config = format!(
                "listen sends\n mode tcp\n bind 127.0.0.1:{from}\n server s 127.0.0.1:{port} {send}"
            );
            site.haproxy(&format!("haproxy-{from}"), *from, &config);
        }
        let from = before[2];
        let config = format!(
            "stream {{ server {{ listen 127.0.0.1:{from}; proxy_pass 127.0.0.1:{port}; proxy_protocol on; }} }}"
        );
        site.nginx(&format!("nginx-{from}"), from, &config);
        for from in before {
            assert_eq!(site.ask(from), CLIENT, "{version}");
        }
        maitred.wait_for_no_session();
        let records = maitred.records();
        let of_client = |record: &&serde_json::Value| {
            record["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.2:"))
        };
        assert!(records.iter().filter(of_client).count() >= 6, "{records:?}");
        assert!(records.iter().filter(of_client).all(|it| it["sender"].as_str().is_some()));
    }
}
