//! What Prometheus itself says about the metrics.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use crate::harness::{Maitred, balanced, free_port, program};

#[test]
fn promtool_finds_nothing_to_say() {
    let backend = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, backend_port) = (free_port(), backend.local_addr().unwrap().port());
    let maitred = Maitred::start(&balanced(port, &[backend_port], "none"));
    // So that the histograms have something in them.
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (mut server, _) = backend.accept().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let metrics = maitred.metrics().0;
    assert!(metrics.contains("maitred_build_info") && metrics.contains("process_open_fds"));
    let page = maitred.dir.path().join("page");
    fs::write(&page, &metrics).unwrap();
    let mut promtool = Command::new(program("promtool", "prometheus"));
    let promtool = promtool.args(["check", "metrics"]).stdin(File::open(page).unwrap());
    let output = promtool.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert_eq!(String::from_utf8_lossy(&said), "", "promtool: {}", output.status);
    assert!(output.status.success());
}
