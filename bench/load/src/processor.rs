//! Processor time: of a process with all its descendants, of one processor, and of the machine. Read from /proc; in
//! ticks of 10 ms.

use std::fs;

/// USER_HZ is 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Busy ticks of the whole machine, and of one processor: all but idle, waiting and stolen.
#[derive(Clone, Copy)]
pub struct Machine {
    pub all: u64,
    pub one: u64,
    pub stolen: u64,
}

impl Machine {
    pub fn now(processor: usize) -> Result<Machine, String> {
        let stat = fs::read_to_string("/proc/stat").map_err(|error| error.to_string())?;
        let (all, stolen) = busy(&stat, "cpu")?;
        let (one, _) = busy(&stat, &format!("cpu{processor}"))?;
        Ok(Machine { all, one, stolen })
    }
}

/// user nice system idle iowait irq softirq steal …
fn busy(stat: &str, name: &str) -> Result<(u64, u64), String> {
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.ok_or_else(|| format!("/proc/stat has no {name}"))?;
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    if ticks.len() < 8 {
        return Err(format!("/proc/stat: `{line}`"));
    }
    Ok((ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6], ticks[7]))
}

/// Ticks of a process, its threads and its descendants, user and system.
pub fn of_process(id: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let processes: Vec<(u32, u32, u64)> = processes
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let (parent, ticks) = stat(id)?;
            Some((id, parent, ticks))
        })
        .collect();
    let mut family = vec![id];
    let mut ticks = 0;
    let mut next = 0;
    while next < family.len() {
        let it = family[next];
        ticks += processes.iter().filter(|(id, ..)| *id == it).map(|(.., own)| own).sum::<u64>();
        family.extend(processes.iter().filter(|(_, parent, _)| *parent == it).map(|(id, ..)| *id));
        next += 1;
    }
    ticks
}

/// Parent and ticks. The name before them may hold blanks.
fn stat(id: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
    Some((fields[1].parse().ok()?, ticks))
}

pub fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}
