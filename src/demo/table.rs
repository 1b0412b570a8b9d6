//! The live table of the demonstration: redrawn in place on a terminal, one line a second elsewhere.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::clients::Seen;
use crate::control::supervisor::Supervisor;

pub struct Table {
    is_terminal: bool,
    balancer: SocketAddr,
    admin: Option<SocketAddr>,
    /// Lines drawn last time, which are overwritten.
    drawn: usize,
    sessions: Vec<u64>,
}

impl Table {
    pub fn new(is_terminal: bool, balancer: SocketAddr, admin: Option<SocketAddr>) -> Table {
        Table { is_terminal, balancer, admin, drawn: 0, sessions: Vec::new() }
    }

    pub fn draw(&mut self, supervisor: &Supervisor, seen: &Seen, age: Duration) -> io::Result<()> {
        let rows = self.rows(supervisor);
        let mut out = io::stdout().lock();
        if !self.is_terminal {
            if self.drawn == 0 {
                writeln!(out, "{}", self.head())?;
            }
            self.drawn = 1;
            let states: Vec<String> = rows
                .iter()
                .map(|row| format!("{} {} {}/s", row.name, row.state, row.rate))
                .collect();
            writeln!(out, "{:>4} s  {}  {}", age.as_secs(), states.join(", "), tally(seen))?;
            return out.flush();
        }
        if self.drawn > 0 {
            // Up to the first line, and clear from there.
            write!(out, "\x1b[{}A\x1b[J", self.drawn)?;
        }
        writeln!(out, "{}", self.head())?;
        writeln!(
            out,
            "{:<10} {:<10} {:>7} {:>10} {:>7} {:>12} {:>12}",
            "backend", "state", "open", "sessions", "per s", "received", "sent"
        )?;
        for row in &rows {
            writeln!(
                out,
                "{:<10} {:<10} {:>7} {:>10} {:>7} {:>12} {:>12}",
                row.name, row.state, row.open, row.sessions, row.rate, row.received, row.sent
            )?;
        }
        writeln!(out, "{:>4} s  {}", age.as_secs(), tally(seen))?;
        self.drawn = rows.len() + 3;
        out.flush()
    }

    fn head(&self) -> String {
        match self.admin {
            Some(admin) => format!("balancing on {}, see http://{admin}/", self.balancer),
            None => format!("balancing on {}", self.balancer),
        }
    }

    fn rows(&mut self, supervisor: &Supervisor) -> Vec<Row> {
        let snapshot = supervisor.plane.snapshot.load();
        let pools = snapshot.config.pools.iter();
        let pools = pools.filter_map(|pool| snapshot.pools.get(&pool.name));
        let backends = pools.flat_map(|pool| &pool.backends);
        let rows: Vec<Row> = backends
            .enumerate()
            .map(|(index, backend)| {
                let counters = &backend.live.counters;
                let sessions = counters.sum(|cell| cell.sessions.value());
                let before = self.sessions.get(index).copied().unwrap_or(0);
                Row {
                    name: backend.name.to_string(),
                    state: backend.status().state.as_str(),
                    open: backend.live.slot.hot().in_flight(),
                    sessions,
                    rate: sessions - before,
                    received: counters.sum(|cell| cell.received_bytes.value()),
                    sent: counters.sum(|cell| cell.sent_bytes.value()),
                }
            })
            .collect();
        self.sessions = rows.iter().map(|row| row.sessions).collect();
        rows
    }
}

struct Row {
    name: String,
    state: &'static str,
    open: u32,
    sessions: u64,
    rate: u64,
    received: u64,
    sent: u64,
}

fn tally(seen: &Seen) -> String {
    format!(
        "{} exchanges, {} datagrams, {} bytes checked, {} wrong; {} sessions ended early",
        seen.exchanges(),
        seen.datagrams(),
        seen.bytes(),
        seen.wrong_bytes(),
        seen.ended_early()
    )
}
