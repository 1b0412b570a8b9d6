//! A network of a test's own: a namespace in which the test runs once more. Used where traffic must reach nobody, and
//! where settings of the network are changed.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::harness::{Process, program, succeed};
use crate::local::{ROLE, again};

/// Gone when dropped.
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new() -> Namespace {
        // Of several tests at once each has one.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("maitred-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        succeed(ip().args(["netns", "add", &name]));
        let namespace = Namespace { name };
        succeed(ip().args(["-n", &namespace.name, "link", "set", "lo", "up"]));
        namespace
    }

    /// A line of shell, inside.
    pub fn shell(&self, line: &str) {
        succeed(self.inside("sh").args(["-c", line]));
    }

    /// This test again, inside, with this role; it must succeed. What it printed.
    pub fn run_again(&self, test: &str, role: &str, seconds: u64) -> String {
        let inner = again(test, role);
        let mut command = self.inside(&inner.get_program().to_string_lossy());
        command.args(inner.get_args()).env(ROLE, role);
        let process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (status, out, err) = process.outcome_within(seconds);
        assert!(status.success(), "{out}\n{err}");
        out
    }

    /// A cable between the two: here is 192.0.2.1, there 192.0.2.2.
    pub fn connect(&self, other: &Namespace) {
        let (here, there) = (&self.name, &other.name);
        succeed(
            ip().args(["-n", here, "link", "add", "cable", "type", "veth"])
                .args(["peer", "name", "cable", "netns", there]),
        );
        for (name, address) in [(here, "192.0.2.1/24"), (there, "192.0.2.2/24")] {
            succeed(ip().args(["-n", name, "address", "add", address, "dev", "cable"]));
            succeed(ip().args(["-n", name, "link", "set", "cable", "up"]));
        }
    }

    /// A process of this very program, inside, with this role of `local`.
    pub fn start(&self, role: &str) -> Process {
        let inner = again("local::role", role);
        let mut command = self.inside(&inner.get_program().to_string_lossy());
        Process::start(command.args(inner.get_args()).env(ROLE, role).stdout(Stdio::null()))
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = ip();
        command.args(["netns", "exec", &self.name, program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that cannot be deleted is empty: its processes are gone.
        let _ = ip().args(["netns", "delete", &self.name]).status();
    }
}

/// The test of this name, in a network of its own: more connections than the firewall of this machine may remember.
pub fn alone(test: &str, work: impl FnOnce()) {
    match std::env::var(ROLE) {
        Ok(_) => work(),
        // What only `scripts/check --long` asks for takes long.
        Err(_) => print!("{}", Namespace::new().run_again(test, "alone", 3_600)),
    }
}

fn ip() -> Command {
    Command::new(program("ip", "iproute2"))
}
