//! Processor time and memory of a process with all its descendants; processor time of one processor and of the machine,
//! in ticks of 10 ms.

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

/// Of the whole machine: this process is held to one of them.
pub fn count() -> usize {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
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

/// Seconds of processor time of a process, its threads and its descendants.
pub fn of_family(id: u32) -> f64 {
    family(id).into_iter().map(of_process).sum::<u64>() as f64 / 1e9
}

/// Bytes of memory of its own (not of files) that a process and its descendants hold.
pub fn memory_of_family(id: u32) -> u64 {
    let anonymous = |id: u32| {
        let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0)
    };
    family(id).into_iter().map(|id| anonymous(id) * 1024).sum()
}

/// Nanoseconds that all its threads ran, as the scheduler counts: finer than the ticks of `stat`.
fn of_process(id: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let ran = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    ran.sum()
}

/// A process and its descendants.
fn family(id: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| {
            let id = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((id, parent(id)?))
        })
        .collect();
    let mut family = vec![id];
    let mut next = 0;
    while next < family.len() {
        let it = family[next];
        family.extend(parents.iter().filter(|(_, parent)| *parent == it).map(|(id, _)| *id));
        next += 1;
    }
    family
}

/// The name before it may hold blanks.
fn parent(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

pub fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}
