//! Each finding on both sides of its threshold, and how a tree of files is read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::facts::{Conntrack, Process};
use super::judge::RULES;
use super::needs::{Flows, LimitedBackend, Reach};
use super::reading::Unread;
use super::*;
use crate::config::{self, Config};
use crate::sys::datagram::LISTENER_BUFFER;
use crate::sys::limits;
use crate::sys::port_range::PortRange;

const NET_BIND_SERVICE: u64 = 1 << 10;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_RESOURCE: u64 = 1 << 24;

/// A machine without any problem, as a user without capabilities.
fn facts() -> Facts {
    Facts {
        descriptors: Ok(1 << 20),
        process: Ok(Process { user: 65_532, capabilities: 0, cpus: 4 }),
        cgroup: Ok(cgroup::Cgroup::default()),
        page_size: 4096,
        pipe_user_pages: Ok(65_536),
        pipe_max_size: Ok(1 << 20),
        conntrack: None,
        ports: Ok(PortRange::parse("32768 60999", "").unwrap()),
        unprivileged_port_start: Ok(1024),
        somaxconn: Ok(4096),
        tw_reuse: Ok(2),
        timestamps: Ok(1),
        udp_buffers: Ok((LISTENER_BUFFER, LISTENER_BUFFER)),
        absent_sources: Vec::new(),
    }
}

fn needs() -> Needs {
    Needs {
        sources: [std::net::IpAddr::from([192, 0, 2, 9]).into()].into(),
        ..Needs::of_defaults()
    }
}

/// A TCP listener alone, with a limit for the process.
fn sessions(max_sessions: u64) -> Needs {
    Needs { has_udp: false, max_sessions: Some(max_sessions), ..needs() }
}

/// A UDP listener alone.
fn flows(given: u64) -> Needs {
    let flows = Flows { given, is_whole: true };
    Needs { has_tcp: false, splices: false, flows, ..needs() }
}

fn found(facts: &Facts, needs: &Needs, id: &str) -> Finding {
    let findings = judge(facts, needs);
    findings.into_iter().find(|finding| finding.id == id).expect("something is said of it")
}

#[track_caller]
fn is(severity: Severity, facts: &Facts, needs: &Needs, id: &str) {
    let finding = found(facts, needs, id);
    assert_eq!(finding.severity, severity, "{finding:?}");
    let is_ill = severity < Severity::Unknown;
    let texts = [&finding.needed, &finding.why, &finding.mend];
    assert!(texts.iter().all(|text| text.is_empty() != is_ill), "{finding:?}");
}

use Severity::{Unknown, Well, WillBreak, WillHurt};

#[test]
fn a_machine_with_room_is_well() {
    let findings = judge(&facts(), &needs());
    assert!(findings.iter().all(|finding| finding.severity == Well), "{findings:#?}");
    assert_eq!(findings.len(), RULES.len());
}

#[test]
fn descriptors_must_hold_the_configured_sessions() {
    let facts = Facts { descriptors: Ok(20_000), ..facts() };
    let fit = limits::free(20_000) / 2;
    is(Well, &facts, &sessions(fit), "descriptors");
    is(WillBreak, &facts, &sessions(fit + 1), "descriptors");
    let finding = found(&facts, &sessions(100_000), "descriptors");
    assert!(finding.needed.starts_with("213333 descriptors: 2 for each of 100000"), "{finding:?}");
    assert!(finding.mend.contains("`ulimit -Hn 213333`"), "{finding:?}");
    let finding = found(&facts, &sessions(1_000_000), "descriptors");
    assert!(finding.mend.starts_with("`sysctl -w fs.nr_open=2133333`"), "{finding:?}");
    // `limits.sessions` of every listener lets no more in.
    is(Well, &facts, &Needs { listener_sessions: Some(9), ..sessions(100_000) }, "descriptors");
}

#[test]
fn descriptors_must_hold_the_configured_flows() {
    let facts = Facts { descriptors: Ok(20_000), ..facts() };
    let free = limits::free(20_000);
    is(Well, &facts, &flows(free), "descriptors");
    is(WillBreak, &facts, &flows(free + 1), "descriptors");
    // Beside TCP they get half, and sessions with a limit of their own what is left.
    let both = |flows, max_sessions| Needs {
        max_sessions,
        flows: Flows { given: flows, is_whole: true },
        listener_sessions: max_sessions,
        ..needs()
    };
    is(Well, &facts, &both(free / 2, Some(free / 4)), "descriptors");
    is(WillBreak, &facts, &both(free / 2 + 1, Some(1)), "descriptors");
    is(WillBreak, &facts, &both(free / 2, Some(free / 4 + 1)), "descriptors");
    // Flows without a limit take their half.
    let auto = |max_sessions| Needs { max_sessions: Some(max_sessions), ..needs() };
    is(WillBreak, &facts, &auto(free / 4 + 1), "descriptors");
    is(WillHurt, &facts, &auto(free / 4), "descriptors");
}

#[test]
fn few_descriptors_hurt_only_limits_that_are_left_to_them() {
    let machine = |descriptors| Facts { descriptors: Ok(descriptors), ..facts() };
    is(Well, &machine(65_536), &needs(), "descriptors");
    is(WillHurt, &machine(65_535), &needs(), "descriptors");
    let auto = limits::auto_max_sessions(20_000, 0);
    let listeners =
        |sessions| Needs { has_udp: false, listener_sessions: Some(sessions), ..needs() };
    is(Well, &machine(20_000), &listeners(auto), "descriptors");
    is(WillHurt, &machine(20_000), &listeners(auto + 1), "descriptors");
}

#[test]
fn memory_must_hold_the_sessions() {
    let machine = |memory| Facts {
        cgroup: Ok(cgroup::Cgroup { memory: Some(memory), cpu_millis: None }),
        ..facts()
    };
    is(Well, &machine(1000 * 10_240), &sessions(1000), "memory");
    is(WillBreak, &machine(1000 * 10_240 - 1), &sessions(1000), "memory");
    is(Well, &machine(1000 * 4096), &flows(1000), "memory");
    // The configuration did not ask for so many.
    let auto = Needs { has_udp: false, ..needs() };
    let all = limits::auto_max_sessions(1 << 20, 0) * 10_240;
    is(Well, &machine(all), &auto, "memory");
    is(WillHurt, &machine(all - 1), &auto, "memory");
}

#[test]
fn each_worker_wants_a_cpu() {
    let machine = |cpu_millis| Facts {
        cgroup: Ok(cgroup::Cgroup { memory: None, cpu_millis: Some(cpu_millis) }),
        ..facts()
    };
    let workers = |workers| Needs { workers: Some(workers), ..needs() };
    is(Well, &machine(2000), &workers(2), "cpu_quota");
    is(WillHurt, &machine(1999), &workers(2), "cpu_quota");
    assert!(found(&machine(1999), &workers(2), "cpu_quota").figure.starts_with("1.999 CPUs"));
    // `auto` keeps within it, but for a quota of less than one.
    is(Well, &machine(1999), &needs(), "cpu_quota");
    is(WillHurt, &machine(999), &needs(), "cpu_quota");
    is(Well, &facts(), &workers(4), "cpus");
    is(WillHurt, &facts(), &workers(5), "cpus");
}

#[test]
fn pipes_have_a_budget_unless_we_may_exceed_it() {
    let machine = |pages, capabilities| Facts {
        pipe_user_pages: Ok(pages),
        process: Ok(Process { user: 1, capabilities, cpus: 1 }),
        ..facts()
    };
    // 2 pipes of 64 pages for each.
    is(Well, &machine(1280, 0), &sessions(10), "pipe_user_pages");
    is(WillHurt, &machine(1279, 0), &sessions(10), "pipe_user_pages");
    is(Well, &machine(0, 0), &needs(), "pipe_user_pages");
    is(Well, &machine(1, SYS_ADMIN), &needs(), "pipe_user_pages");
    is(Well, &machine(1, SYS_RESOURCE), &needs(), "pipe_user_pages");
    is(WillHurt, &machine(16_384, NET_BIND_SERVICE), &needs(), "pipe_user_pages");
    let size = |bytes, capabilities| Facts {
        pipe_max_size: Ok(bytes),
        process: Ok(Process { user: 1, capabilities, cpus: 1 }),
        ..facts()
    };
    is(Well, &size(262_144, 0), &needs(), "pipe_max_size");
    is(WillHurt, &size(262_143, SYS_ADMIN), &needs(), "pipe_max_size");
    is(Well, &size(262_143, SYS_RESOURCE), &needs(), "pipe_max_size");
}

#[test]
fn low_ports_need_a_capability() {
    let ports = |port| Needs { ports: BTreeSet::from([9900, port]), ..needs() };
    is(Well, &facts(), &ports(1024), "privileged_ports");
    is(WillBreak, &facts(), &ports(1023), "privileged_ports");
    let lowered = Facts { unprivileged_port_start: Ok(53), ..facts() };
    is(Well, &lowered, &ports(53), "privileged_ports");
    let process = Process { user: 1, capabilities: NET_BIND_SERVICE, cpus: 1 };
    let able = Facts { process: Ok(process), ..facts() };
    is(Well, &able, &ports(1), "privileged_ports");
}

#[test]
fn what_the_user_gives_up_does_not_count() {
    let root = Process { user: 0, capabilities: u64::MAX, cpus: 4 };
    let became = root.after_becoming(7);
    assert_eq!(became, Process { user: 7, capabilities: NET_BIND_SERVICE, cpus: 4 });
    let nobody = Process { user: 1, capabilities: SYS_ADMIN, cpus: 4 };
    assert_eq!(nobody.after_becoming(7).capabilities, 0);
    let config = Config {
        process: config::Process {
            user: Some(config::User { uid: 7, ..config::User::default() }),
            ..config::Process::default()
        },
        ..Config::default()
    };
    assert_eq!(Needs::of(&config).user, Some(7));
    let small = Facts { udp_buffers: Ok((1, 1)), ..facts() };
    let mend = |user| found(&small, &Needs { user, ..needs() }, "udp_buffers").mend;
    assert!(mend(None).ends_with("or give maitred CAP_NET_ADMIN"));
    assert!(!mend(Some(7)).contains("CAP_NET_ADMIN"));
}

#[test]
fn a_listeners_port_is_to_be_reserved() {
    let ports = |port| Needs { ports: BTreeSet::from([port]), ..needs() };
    is(Well, &facts(), &ports(32_767), "listener_ports");
    is(WillHurt, &facts(), &ports(32_768), "listener_ports");
    is(Well, &facts(), &ports(61_000), "listener_ports");
    let reserved = PortRange::parse("32768 60999", "40000,40002").unwrap();
    let facts = Facts { ports: Ok(reserved), ..facts() };
    is(Well, &facts, &ports(40_000), "listener_ports");
    let finding = found(&facts, &ports(40_001), "listener_ports");
    assert!(finding.mend.contains("ip_local_reserved_ports=40000-40002`"), "{finding:?}");
}

#[test]
fn a_queue_holds_the_backlog() {
    let needs = |backlog| Needs { backlog, ..needs() };
    is(Well, &facts(), &needs(4096), "somaxconn");
    is(WillHurt, &facts(), &needs(4097), "somaxconn");
}

#[test]
fn source_ports_must_hold_the_configured_sessions() {
    let machine = |last: u16| Facts {
        ports: Ok(PortRange::parse(&format!("20001 {last}"), "20001").unwrap()),
        ..facts()
    };
    is(Well, &machine(20_001 + 16_384), &needs(), "source_ports");
    is(WillHurt, &machine(20_001 + 16_383), &needs(), "source_ports");
    let limited = |max_sessions| {
        let limited = LimitedBackend { name: "db/a".to_owned(), max_sessions, pairs: 2 };
        Needs { limited_backends: vec![limited], ..needs() }
    };
    is(Well, &machine(40_001), &limited(40_000), "source_ports");
    is(WillBreak, &machine(40_001), &limited(40_001), "source_ports");
    let all = |max_sessions| Needs { pairs: Some(3), ..sessions(max_sessions) };
    is(Well, &machine(40_001), &all(60_000), "source_ports");
    is(WillBreak, &machine(40_001), &all(60_001), "source_ports");
}

#[test]
fn reuse_matters_where_the_kernel_chooses() {
    let machine = |tw_reuse| Facts { tw_reuse: Ok(tw_reuse), ..facts() };
    let kernel = |reach| Needs { kernel_ports: Some(reach), ..needs() };
    is(Well, &machine(0), &needs(), "tcp_tw_reuse");
    is(WillHurt, &machine(0), &kernel(Reach::Loopback), "tcp_tw_reuse");
    is(Well, &machine(2), &kernel(Reach::Loopback), "tcp_tw_reuse");
    is(WillHurt, &machine(2), &kernel(Reach::Network), "tcp_tw_reuse");
    is(Well, &machine(1), &kernel(Reach::Network), "tcp_tw_reuse");
}

#[test]
fn without_timestamps_ports_rest() {
    let facts = Facts { timestamps: Ok(0), ..facts() };
    is(WillHurt, &facts, &needs(), "tcp_timestamps");
    assert!(found(&facts, &needs(), "tcp_timestamps").why.contains("at most 470 connections"));
}

#[test]
fn connection_tracking_holds_two_entries_for_each() {
    let machine = |count, max| Facts { conntrack: Some(Ok(Conntrack { count, max })), ..facts() };
    is(Well, &machine(1, 20_000), &sessions(10_000), "conntrack");
    is(WillBreak, &machine(1, 19_999), &sessions(10_000), "conntrack");
    is(WillBreak, &machine(1, 19_999), &flows_and(5000, 5000), "conntrack");
    // Nothing is tracked here, as far as this process can see.
    is(WillHurt, &machine(0, 19_999), &sessions(10_000), "conntrack");
    is(WillHurt, &machine(1, 19_999), &needs(), "conntrack");
    is(Well, &machine(0, 19_999), &needs(), "conntrack");
    // No limit at all.
    is(Well, &machine(1, 0), &sessions(10_000), "conntrack");
    // Nearly full already.
    is(Well, &machine(899, 1000), &sessions(10), "conntrack");
    is(WillHurt, &machine(900, 1000), &sessions(10), "conntrack");
}

fn flows_and(flows: u64, max_sessions: u64) -> Needs {
    let flows = Flows { given: flows, is_whole: true };
    Needs { max_sessions: Some(max_sessions), flows, ..needs() }
}

#[test]
fn datagrams_need_buffers() {
    let machine = |receive, send| Facts { udp_buffers: Ok((receive, send)), ..facts() };
    is(WillHurt, &machine(LISTENER_BUFFER - 1, LISTENER_BUFFER), &needs(), "udp_buffers");
    is(WillHurt, &machine(LISTENER_BUFFER, LISTENER_BUFFER - 1), &needs(), "udp_buffers");
    let tcp_alone = sessions(1);
    let findings = judge(&machine(1, 1), &tcp_alone);
    assert!(findings.iter().all(|finding| finding.id != "udp_buffers"));
}

/// Every rule, with nothing to read.
#[test]
fn what_cannot_be_read_is_said() {
    let root = tempfile::tempdir().unwrap();
    let facts = Facts::read(root.path(), Err(std::io::ErrorKind::PermissionDenied.into()));
    let needs = Needs { ports: BTreeSet::from([53]), ..needs() };
    let findings = judge(&facts, &needs);
    for finding in &findings {
        // A kernel without connection tracking has no files of it; addresses are asked for, not read.
        let expected = match finding.id {
            "conntrack" | "source_addresses" => Well,
            _ => Unknown,
        };
        assert_eq!(finding.severity, expected, "{finding:?}");
    }
    assert_eq!(findings.len(), RULES.len());
    let judged = Judged { configuration: None, needs, facts };
    let text = text(&judged, &findings);
    let line =
        "unknown: somaxconn: /proc/sys/net/core/somaxconn cannot be read: it does not exist\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(to_json(&judged, &findings)["unknown"].as_array().unwrap().len(), RULES.len() - 2);
}

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// What every machine has.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (file, text) in [
        (
            "proc/self/limits",
            "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n",
        ),
        (
            "proc/self/status",
            "Name:\tmaitred\nUid:\t0\t7\t0\t0\nCapEff:\t0000000001000400\nCpus_allowed_list:\t0-2,5\n",
        ),
        ("proc/self/cgroup", "0::/\n"),
        ("proc/sys/fs/pipe-user-pages-soft", "16384\n"),
        ("proc/sys/fs/pipe-max-size", "1048576\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("proc/sys/net/ipv4/ip_local_reserved_ports", "40000\n"),
        ("proc/sys/net/ipv4/ip_unprivileged_port_start", "1024\n"),
        ("proc/sys/net/ipv4/tcp_tw_reuse", "2\n"),
        ("proc/sys/net/ipv4/tcp_timestamps", "1\n"),
        ("proc/sys/net/core/somaxconn", "128\n"),
        ("sys/fs/cgroup/cgroup.procs", ""),
    ] {
        write(root.path(), file, text);
    }
    root
}

fn read(root: &tempfile::TempDir) -> Facts {
    Facts::read(root.path(), Ok((1, 2)))
}

#[test]
fn a_tree_is_read_as_it_is() {
    let root = tree();
    let facts = read(&root);
    assert_eq!(facts.descriptors, Ok(4096));
    let process = Process { user: 7, capabilities: SYS_RESOURCE | NET_BIND_SERVICE, cpus: 4 };
    assert_eq!(facts.process, Ok(process));
    assert_eq!(facts.somaxconn, Ok(128));
    assert_eq!(facts.ports.as_ref().unwrap().choosable().count(), 28_231);
    assert_eq!(facts.cgroup, Ok(cgroup::Cgroup::default()));
    assert_eq!(facts.conntrack, None);
    assert!(judge(&facts, &needs()).iter().all(|finding| finding.severity != Unknown));
    write(root.path(), "proc/sys/net/netfilter/nf_conntrack_max", "262144\n");
    let unread = Unread::new("/proc/sys/net/netfilter/nf_conntrack_count", "it does not exist");
    assert_eq!(read(&root).conntrack, Some(Err(unread)));
    write(root.path(), "proc/sys/net/netfilter/nf_conntrack_count", "5\n");
    assert_eq!(read(&root).conntrack, Some(Ok(Conntrack { count: 5, max: 262_144 })));
    write(root.path(), "proc/self/limits", "Max open files  1024  unlimited  files\n");
    assert_eq!(read(&root).descriptors, Ok(u64::MAX));
}

#[test]
fn nonsense_in_a_file_is_said() {
    let root = tree();
    for (file, id) in [
        ("proc/self/limits", "descriptors"),
        ("proc/self/status", "cpus"),
        ("proc/sys/fs/pipe-max-size", "pipe_max_size"),
        ("proc/sys/net/ipv4/ip_local_port_range", "source_ports"),
    ] {
        write(root.path(), file, "Uid: nonsense\nCapEff: x\nCpus_allowed_list: 5-2\n");
        is(Unknown, &read(&root), &needs(), id);
    }
}

#[test]
fn the_least_of_all_groups_above_counts() {
    // Version 2.
    let root = tree();
    write(root.path(), "proc/self/cgroup", "0::/system.slice/maitred.service\n");
    write(root.path(), "sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
    write(root.path(), "sys/fs/cgroup/system.slice/memory.max", "max\n");
    write(root.path(), "sys/fs/cgroup/system.slice/maitred.service/cpu.max", "max 100000\n");
    write(root.path(), "sys/fs/cgroup/system.slice/maitred.service/memory.max", "1048576\n");
    let expected = cgroup::Cgroup { cpu_millis: Some(1500), memory: Some(1 << 20) };
    assert_eq!(read(&root).cgroup, Ok(expected));
    // Version 1, in a container: the path is the host's, the mount is its own group.
    let root = tree();
    let groups = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n";
    write(root.path(), "proc/self/cgroup", groups);
    write(root.path(), "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
    write(root.path(), "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    write(root.path(), "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    let expected = cgroup::Cgroup { cpu_millis: Some(500), memory: None };
    assert_eq!(read(&root).cgroup, Ok(expected));
    write(root.path(), "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    assert_eq!(read(&root).cgroup, Ok(cgroup::Cgroup::default()));
}

fn load(text: &str) -> Config {
    let source = config::Source { name: "test".to_owned(), text: text.to_owned() };
    config::load(&[source], &|_| None).expect("it is valid").config
}

#[test]
fn a_configuration_says_what_it_needs() {
    let needs = Needs::of(&load(
        "version: 1
process: {workers: 3, max_sessions: 500}
admin: {listen: 127.0.0.1:9901}
listeners:
  a: {bind: [\":443\", \"0.0.0.0:8000-8001\"], pool: p, limits: {sessions: 10}, backlog: 9000, relay: copy}
  b: {bind: \"unix:/run/b\", pool: q, limits: {sessions: 20}, relay: copy}
  c: {bind: \":53\", protocol: udp, pool: r, flow: {max_flows: 100}, limits: {sessions: 70}}
  d: {bind: \":0\", protocol: udp, pool: r}
pools:
  p:
    backends: [{address: \"10.0.0.1\", max_sessions: 7}, {address: \"127.0.0.1:80\", max_sessions: 8}, \"[::1]:80\"]
    source: [10.0.0.8, 10.0.0.9]
    source_ports: kernel
  q: {backends: [\"127.0.0.1:80\"], source: [10.0.0.9]}
  r: {backends: [\"10.0.0.7:53\"], source_ports: kernel}
",
    ));
    assert_eq!((needs.workers, needs.max_sessions), (Some(3), Some(500)));
    assert_eq!((needs.has_tcp, needs.has_udp, needs.splices), (true, true, false));
    assert_eq!(needs.ports, BTreeSet::from([53, 443, 8000, 8001, 9901]));
    assert_eq!(needs.listener_sessions, Some(30));
    assert_eq!(needs.flows, Flows { given: 70, is_whole: false });
    assert_eq!(needs.backlog, 9000);
    assert_eq!(needs.kernel_ports, Some(Reach::Network));
    let limited = |name: &str, max_sessions, pairs| LimitedBackend {
        name: name.to_owned(),
        max_sessions,
        pairs,
    };
    // The first has a port for each that clients dial: 3 × 2 sources.
    let expected = [limited("p/10.0.0.1", 7, 6), limited("p/127.0.0.1:80", 8, 2)];
    assert_eq!(needs.limited_backends, expected);
    // 6 + 2 + 1 for the IPv6 one; the pool q adds none to those.
    assert_eq!(needs.pairs, Some(9));
}

#[test]
fn findings_are_shown_worst_first() {
    let facts = Facts { somaxconn: Ok(1), descriptors: Ok(1000), ..facts() };
    let needs = sessions(1000);
    let findings = judge(&facts, &needs);
    assert_eq!((findings[0].id, findings[1].id), ("descriptors", "somaxconn"));
    let judged = Judged { configuration: Some(vec!["a.yaml".to_owned()]), needs, facts };
    let text = text(&judged, &findings);
    let start = "judged: a.yaml; as user 65532; 1000 sessions and 0 flows at once\nwill break: \
                 descriptors: 1000 descriptors (hard limit)\n  needed: 2133 descriptors: 2 for each";
    assert!(text.starts_with(start), "{text}");
    let json = to_json(&judged, &findings);
    assert_eq!(json["findings"][0]["severity"], "will_break");
    assert_eq!(json["findings"][1]["severity"], "will_hurt");
    assert_eq!(json["well"].as_array().unwrap().len(), findings.len() - 2);
    assert_eq!(json["judged"]["sessions"], 1000);
}

/// Ids are for programs: each can be looked up there.
#[test]
fn every_finding_is_documented() {
    let document = include_str!("../../../docs/doctor.md");
    for (id, _) in RULES {
        assert!(document.contains(&format!("\n| `{id}` |")), "{id} is not in docs/doctor.md");
    }
    let (_, table) = document.split_once("\n| id |").expect("there is a table of them");
    let documented = table.matches("\n| `").count();
    assert_eq!(documented, RULES.len(), "docs/doctor.md has findings that do not exist");
}
