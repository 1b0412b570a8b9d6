//! Judges the resources of a process: descriptors, memory, CPUs, pipes. Each rule is pure.

use super::facts::{Capability, Facts};
use super::finding::Severity::{WillBreak, WillHurt};
use super::finding::Verdict;
use super::needs::{Flows, Needs};
use super::reading::Unread;
use crate::sys::{limits, pipe};

/// Fewer descriptors than this are used up by a few thousand sessions.
const FEW_DESCRIPTORS: u64 = 65_536;

/// The kernel's highest descriptor limit, unless configured otherwise (`fs.nr_open`).
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// Bytes of an idle session, of which 9 KiB are in the kernel for its two sockets; and of a flow, of which 3 KiB are.
const SESSION: u64 = 10 << 10;
const FLOW: u64 = 4 << 10;

/// Pipes at once that are worth having; a pipe holds up to 256 KiB of memory while its receiver is slow.
const MANY_PIPES: u64 = 1024;

pub fn descriptors(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let descriptors = facts.descriptors.clone()?;
    let load = needs.load(descriptors);
    let given = needs.flows.given;
    let for_sessions = if load.is_configured { load.sessions.saturating_mul(2) } else { 0 };
    let for_both = match (needs.has_udp, needs.flows.is_whole) {
        (false, _) => for_sessions,
        (true, true) => for_sessions.saturating_add(given),
        // Flows without a limit get half.
        (true, false) => for_sessions.saturating_mul(2),
    };
    // Beside TCP, flows never get more than half, whatever is configured.
    let for_flows = if needs.has_tcp { given.saturating_mul(2) } else { given };
    let wanted = limits::limit_for(for_both.max(for_flows));
    let figure = format!("{descriptors} descriptors (hard limit)");
    if wanted > descriptors {
        return Ok(Verdict::Ill {
            severity: WillBreak,
            figure,
            needed: format!(
                "{wanted} descriptors: 2 for each of {} sessions, {}, {} kept back",
                for_sessions / 2,
                for_flows_text(needs),
                limits::kept_back(wanted)
            ),
            why: format!(
                "before the configured limits are reached, {} fail because descriptors run out (no_descriptors)",
                match (needs.has_tcp, needs.has_udp) {
                    (_, false) => "connections and probes",
                    (true, true) => "connections, probes and new flows",
                    (false, true) => "probes and new flows",
                }
            ),
            mend: mend_descriptors(wanted),
        });
    }
    let more = needs.listener_sessions.filter(|_| !load.is_configured && needs.has_tcp);
    let is_auto =
        (needs.has_tcp && !load.is_configured) || (needs.has_udp && !needs.flows.is_whole);
    if more.is_none() && (descriptors >= FEW_DESCRIPTORS || !is_auto) {
        return Ok(Verdict::Well(figure));
    }
    let wanted = more.map_or(FEW_DESCRIPTORS, |sessions| {
        let for_sessions = sessions.saturating_mul(2);
        limits::limit_for(if needs.has_udp { for_sessions.saturating_mul(2) } else { for_sessions })
    });
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure,
        needed: format!("{wanted} descriptors"),
        why: format!(
            "a session takes 2, a UDP flow 1: `auto` allows {} sessions and {} flows at once; beyond that clients wait or \
             are dropped",
            load.sessions, load.flows
        ),
        mend: mend_descriptors(wanted.max(MOST_DESCRIPTORS)),
    })
}

fn for_flows_text(needs: &Needs) -> String {
    match (needs.has_udp, needs.flows) {
        (false, _) => "none for flows".to_owned(),
        (true, Flows { given, is_whole: true }) => format!("1 for each of {given} flows"),
        (true, _) => "the same for flows (max_flows: auto)".to_owned(),
    }
}

fn mend_descriptors(wanted: u64) -> String {
    let system = if wanted > MOST_DESCRIPTORS {
        format!("`sysctl -w fs.nr_open={wanted}`, then ")
    } else {
        String::new()
    };
    format!(
        "{system}`ulimit -Hn {wanted}` before the start, `LimitNOFILE={wanted}` in a systemd unit, `--ulimit \
         nofile={wanted}` for a container"
    )
}

pub fn memory(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let Some(limit) = facts.cgroup.clone()?.memory else {
        return Ok(Verdict::Well("no memory limit of a control group".to_owned()));
    };
    let load = needs.load(facts.descriptors.clone()?);
    let sessions = load.sessions.saturating_mul(SESSION);
    let wanted = sessions.saturating_add(load.flows.saturating_mul(FLOW));
    let figure = format!("{} (memory limit of the control group)", mib(limit));
    if wanted <= limit {
        return Ok(Verdict::Well(figure));
    }
    // Sizes of groups are commonly whole MiB.
    let whole = wanted.div_ceil(1 << 20);
    Ok(Verdict::Ill {
        severity: if load.is_configured { WillBreak } else { WillHurt },
        figure,
        needed: format!(
            "{}: {} sessions at about 10 KiB, {} flows at about 4 KiB, all idle",
            mib(wanted),
            load.sessions,
            load.flows
        ),
        why: "the kernel counts socket memory too; at the limit it kills the process, and all sessions are lost"
            .to_owned(),
        mend: format!(
            "`MemoryMax={whole}M` in a systemd unit, `--memory {whole}m` for a container, or {}",
            match (needs.has_tcp, needs.has_udp) {
                (true, false) => format!("`process: {{max_sessions: {}}}`", (limit / SESSION).max(1)),
                (false, _) => "a lower `flow: {max_flows: …}`".to_owned(),
                (true, true) =>
                    "a lower `process: {max_sessions: …}` or `flow: {max_flows: …}`".to_owned(),
            }
        ),
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The value of `workers: auto`: the CPUs of the affinity mask, at most the whole CPUs of the quota.
fn workers(facts: &Facts, needs: &Needs) -> Result<u64, Unread> {
    if let Some(workers) = needs.workers {
        return Ok(workers);
    }
    let quota = facts.cgroup.clone()?.cpu_millis.map_or(u64::MAX, |millis| millis / 1000);
    Ok(facts.process.clone()?.cpus.min(quota).max(1))
}

pub fn cpu_quota(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let Some(millis) = facts.cgroup.clone()?.cpu_millis else {
        return Ok(Verdict::Well("no CPU quota of a control group".to_owned()));
    };
    let workers = workers(facts, needs)?;
    let whole = millis / 1000;
    let figure = format!("{whole}.{:03} CPUs (quota of the control group)", millis % 1000);
    if workers.saturating_mul(1000) <= millis {
        return Ok(Verdict::Well(figure));
    }
    let lower = if needs.workers.is_some() { ", or `process: {workers: auto}`" } else { "" };
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure,
        needed: format!("{workers} CPUs: one for each worker"),
        why: "when the quota is used up, every session stalls for the rest of the period, usually up to 100 ms"
            .to_owned(),
        mend: format!(
            "`CPUQuota={}%` in a systemd unit, `--cpus {workers}` for a container{lower}",
            workers.saturating_mul(100)
        ),
    })
}

pub fn cpus(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    let cpus = facts.process.clone()?.cpus;
    let figure = format!("{cpus} CPUs (affinity mask)");
    match needs.workers {
        Some(workers) if workers > cpus => Ok(Verdict::Ill {
            severity: WillHurt,
            figure,
            needed: format!("{workers} CPUs: one for each worker"),
            why: "workers get equal shares of connections; workers that share a CPU serve theirs slower".to_owned(),
            mend: "`process: {workers: auto}`, or give it the CPUs: `taskset`, `CPUAffinity=` in a systemd unit, \
                   `--cpuset-cpus` for a container"
                .to_owned(),
        }),
        _ => Ok(Verdict::Well(figure)),
    }
}

pub fn pipe_user_pages(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    if !needs.splices {
        return Ok(Verdict::NotAsked);
    }
    let process = facts.process.clone()?;
    let pages = facts.pipe_user_pages.clone()?;
    let of_pipe = (pipe::WANTED as u64).div_ceil(facts.page_size);
    let descriptors = facts.descriptors.clone()?;
    let load = needs.load(descriptors);
    let directions = if load.is_configured { load.sessions.saturating_mul(2) } else { u64::MAX };
    let pipes = limits::pipes(descriptors).min(directions).min(MANY_PIPES);
    let wanted = pipes * of_pipe;
    let is_exempt = process.has(Capability::SysResource) || process.has(Capability::SysAdmin);
    if is_exempt || pages == 0 || pages >= wanted {
        let for_us =
            if is_exempt { "this process is exempt by its capabilities" } else { "a user" };
        return Ok(Verdict::Well(format!("{pages} pages of pipes ({for_us})")));
    }
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure: format!("{pages} pages of pipes for all processes of user {}", process.user),
        needed: format!("{wanted} pages: {pipes} pipes of {} KiB", pipe::WANTED >> 10),
        why: format!(
            "splice needs a pipe for each direction whose receiver is slower than its sender; beyond {} pipes they are \
             too small and bytes are copied, which costs CPU time",
            pages / of_pipe
        ),
        mend: format!("`sysctl -w fs.pipe-user-pages-soft={wanted}`"),
    })
}

pub fn pipe_max_size(facts: &Facts, needs: &Needs) -> Result<Verdict, Unread> {
    if !needs.splices {
        return Ok(Verdict::NotAsked);
    }
    let bytes = facts.pipe_max_size.clone()?;
    let wanted = pipe::WANTED as u64;
    let figure = format!("{bytes} bytes for the largest pipe");
    if bytes >= wanted || facts.process.clone()?.has(Capability::SysResource) {
        return Ok(Verdict::Well(figure));
    }
    Ok(Verdict::Ill {
        severity: WillHurt,
        figure,
        needed: format!("{wanted} bytes"),
        why: "with smaller pipes splice needs more system calls, or bytes are copied".to_owned(),
        mend: format!("`sysctl -w fs.pipe-max-size={wanted}`"),
    })
}
