//! What we ship for Grafana and Prometheus, held to a real Prometheus that scrapes a real run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Maitred, Process, free_port, output, program, succeed, wait_for};

/// Of what only a configuration with such files or names has.
const NOT_EVERYWHERE: [&str; 6] = [
    "maitred_access_file_last_read_successful",
    "maitred_discovery_failures_total",
    "maitred_discovery_last_success_timestamp_seconds",
    "maitred_pool_conflict",
    "maitred_tls_certificate_expiry_timestamp_seconds",
    "maitred_tls_files_last_read_successful",
];

#[test]
fn the_alerts_are_rules_and_fire_when_they_should_and_not_else() {
    let promtool = program("promtool", "prometheus");
    let conf = Path::new("conf/prometheus");
    let said =
        succeed(Command::new(&promtool).arg("check").arg("rules").arg(conf.join("alerts.yaml")));
    assert!(said.contains("24 rules found"), "{said}");
    succeed(Command::new(&promtool).arg("test").arg("rules").arg(conf.join("alerts_test.yaml")));
}

#[test]
fn every_query_of_dashboards_and_alerts_is_answered_by_a_prometheus_that_scrapes_us() {
    let (_clients, maitred) = busy();
    let dir = tempfile::tempdir().unwrap();
    let rules = fs::canonicalize("conf/prometheus/alerts.yaml").unwrap();
    let config = format!(
        "global: {{scrape_interval: 200ms, evaluation_interval: 500ms}}\nrule_files: [{}]\nscrape_configs: [{{job_name: \
         maitred, static_configs: [{{targets: [\"{}\"]}}]}}]\n",
        rules.display(),
        maitred.admin
    );
    let file = dir.path().join("prometheus.yml");
    fs::write(&file, config).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = Command::new(program("prometheus", "prometheus"));
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--web.listen-address={address}"));
    command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
    let log = File::create(dir.path().join("log")).unwrap();
    let _prometheus = Process::start(command.stdout(log.try_clone().unwrap()).stderr(log));
    let ask = |path: &str, query: &str| -> Option<Value> {
        let mut curl = Command::new(program("curl", "curl"));
        curl.args(["-sG", "--max-time", "10", "--data-urlencode", &format!("query={query}")]);
        let answer = output(curl.arg(format!("http://{address}/api/v1/{path}")));
        // Not listening yet.
        let answer: Value = serde_json::from_slice(&answer.stdout).ok()?;
        assert!(answer["status"] == "success", "{query}: {answer}");
        Some(answer["data"].clone())
    };
    let count = |query: &str| ask("query", query)?["result"].as_array().map(Vec::len);
    // A rate takes two.
    wait_for("a few scrapes", || {
        count("count_over_time(up{job=\"maitred\"}[1m]) > 4").is_some_and(|count| count > 0)
    });

    let mut queries = 0;
    for query in ["overview", "pool"].iter().flat_map(|name| queries_of(name)) {
        let count = count(&query).unwrap();
        // What shows only what is more than nothing has nothing to show here; nor have quantiles of nothing.
        let may_be_empty =
            query.contains("> 0") || query.contains("first_byte") || query.contains("result!=");
        assert!(count > 0 || may_be_empty, "no answer to {query}");
        queries += 1;
    }
    assert!(queries > 40, "{queries}");

    wait_for("the rules to be evaluated", || {
        let answer = ask("rules", "").unwrap();
        let rules = answer["groups"][0]["rules"].as_array().unwrap().clone();
        assert!(rules.iter().all(|rule| rule["health"] != "err"), "{answer}");
        rules.len() == 24 && rules.iter().all(|rule| rule["health"] == "ok")
    });
    every_metric_named_is_ours(&maitred.metrics().0);
}

/// One of each kind of listener, and something that went through them.
fn busy() -> (TcpStream, Maitred) {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let answering = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp, udp) = (free_port(), free_port());
    let maitred = Maitred::start(&format!(
        "listeners:
  pg: {{bind: \"127.0.0.1:{tcp}\", pool: main}}
  dns: {{bind: \"127.0.0.1:{udp}\", protocol: udp, pool: udp}}
pools:
  main: {{backends: [\"{}\"]}}
  udp: {{backends: [\"{}\"]}}
",
        backend.local_addr().unwrap(),
        answering.local_addr().unwrap()
    ));
    let mut client = TcpStream::connect(("127.0.0.1", tcp)).unwrap();
    // Probes come, too.
    std::thread::spawn(move || {
        for stream in backend.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    });
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.send_to(b"x", ("127.0.0.1", udp)).unwrap();
    answering.recv_from(&mut [0; 8]).unwrap();
    (client, maitred)
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let _ = stream.write_all(&buffer[..count]);
    }
}

/// Of a dashboard, those of its variables too, with something for each variable.
fn queries_of(name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("conf/grafana/{name}.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for query in panel["targets"].as_array().into_iter().flatten() {
            queries.push(query["expr"].as_str().unwrap().to_owned());
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        let Some(query) = variable["query"]["query"].as_str() else { continue };
        let inner = query.strip_prefix("label_values(").unwrap().rsplit_once(", ").unwrap().0;
        queries.push(inner.to_owned());
    }
    let filled = queries.into_iter().map(|query| {
        let query = query.replace("$__rate_interval", "1m").replace("$instance", ".*");
        query.replace("$pool", "main").replace("$backend", ".*")
    });
    filled.collect()
}

fn every_metric_named_is_ours(scrape: &str) {
    let files =
        ["conf/grafana/overview.json", "conf/grafana/pool.json", "conf/prometheus/alerts.yaml"];
    let documented = fs::read_to_string("docs/metrics.md").unwrap();
    let mut named = BTreeSet::new();
    for text in files.iter().map(|file| fs::read_to_string(file).unwrap()) {
        let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let words =
            text.split(|letter| !is_of_word(letter)).filter(|it| it.starts_with("maitred_"));
        named.extend(words.map(str::to_owned));
    }
    assert!(named.len() > 25, "{named:?}");
    for name in named {
        let family = name.strip_suffix("_bucket").unwrap_or(&name);
        // A test holds that table to the program.
        assert!(documented.contains(&format!("| `{family}")), "{name} is no metric of ours");
        let is_there = scrape.lines().any(|line| line.starts_with(&*name));
        assert!(is_there || NOT_EVERYWHERE.contains(&&*name), "{name} is not in a scrape");
    }
}
