//! Files of `allow_file` and `deny_file`, which are read anew when they change, without a reload; and that long ones are
//! read right.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use maitred::config::{Source, load};
use maitred::control::file_watch::Watch;
use maitred::data::limits::Acl;
use maitred::telemetry::events::Event;
use maitred::telemetry::metrics::{Sources, exposition};
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::door::connect_from;
use crate::server::{Conduct, Server, first_byte};

/// A balancer whose listener has both files, the one who looks at them, and one backend.
struct Site {
    balancer: Balancer,
    watch: Watch,
    dir: TempDir,
    _server: Server,
}

impl Site {
    fn new(allow: &str, deny: &str) -> Site {
        let server = Server::start(Conduct::Echo);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("allow.nets"), allow).unwrap();
        fs::write(dir.path().join("deny.nets"), deny).unwrap();
        let text = format!(
            "version: 1
process: {{workers: 2}}
log: {{sessions: all}}
listeners:
  main: {{bind: \"127.0.0.1:0\", pool: main, allow_file: allow.nets, deny: [127.0.0.66], deny_file: deny.nets}}
pools: {{main: {{backends: [\"{}\"], health: {{probe: none}}}}}}
",
            server.address
        );
        let name = dir.path().join("maitred.yaml").display().to_string();
        let config = load(&[Source { name, text }], &|_| None).unwrap().config;
        let balancer = Balancer::start(config);
        let mut site = Site { balancer, watch: Watch::default(), dir, _server: server };
        site.look();
        site.look();
        assert!(site.events().is_empty(), "nothing has changed yet");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As is done each second.
    fn look(&mut self) {
        let supervisor = self.balancer.supervisor.as_mut().unwrap();
        let config = Arc::clone(&supervisor.plane.snapshot.load().config);
        supervisor.renew_files(self.watch.look(&config));
    }

    /// What happened, newest last.
    fn events(&self) -> Vec<Event> {
        self.balancer.supervisor().events.all()
    }

    fn is_served(&self, ip: &str) -> bool {
        use std::io::Write;
        let mut client = connect_from(ip, self.balancer.address());
        // Who is refused may be gone by now.
        let _ = client.write_all(b"a");
        first_byte(&mut client) == Some('a')
    }

    /// Of the metric that says whether a list is what its file says.
    fn is_current(&self, list: &str) -> bool {
        let supervisor = self.balancer.supervisor();
        let text = exposition(&Sources {
            plane: Arc::clone(&supervisor.plane),
            reloads: Arc::clone(&supervisor.reloads),
            log_dropped: Arc::default(),
        });
        let name = "maitred_access_file_last_read_successful";
        let series = format!("{name}{{listener=\"main\",list=\"{list}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap_or_else(|| panic!("no {series}")) == "1"
    }
}

#[test]
fn a_file_that_is_written_anew_or_replaced_is_in_force_without_a_reload() {
    let mut site = Site::new("127.0.0.0/8\n", "127.0.0.5\n");
    let mut early = connect_from("127.0.0.6", site.balancer.address());
    let mut echo = |byte: u8| {
        use std::io::Write;
        early.write_all(&[byte]).unwrap();
        assert_eq!(first_byte(&mut early), Some(byte.into()), "a session goes on as it is");
    };
    echo(b'1');
    assert!(!site.is_served("127.0.0.5") && site.is_served("127.0.0.6"));
    fs::write(site.path("deny.nets"), "127.0.0.6\n").unwrap();
    site.look();
    site.look();
    assert!(site.is_served("127.0.0.5") && !site.is_served("127.0.0.6"));
    assert!(!site.is_served("127.0.0.66"), "what the configuration itself denies");
    echo(b'2');
    // As editors do it, and whoever wants it to be whole at any moment.
    fs::write(site.path("new"), "127.0.0.7 # only\n").unwrap();
    fs::rename(site.path("new"), site.path("allow.nets")).unwrap();
    site.look();
    site.look();
    assert!(site.is_served("127.0.0.7") && !site.is_served("127.0.0.5"));
    echo(b'3');
    let messages: Vec<String> = site.events().into_iter().map(|event| event.message).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[1].ends_with("allow.nets has changed: listener main changed: what its files hold"),
        "{messages:?}"
    );
    assert!(site.is_current("allow") && site.is_current("deny"));
}

#[test]
fn a_file_that_is_being_written_is_not_read_yet() {
    let mut site = Site::new("127.0.0.0/8\n", "127.0.0.5\n127.0.0.6\n");
    fs::write(site.path("deny.nets"), "").unwrap();
    site.look();
    assert!(!site.is_served("127.0.0.5"));
    fs::write(site.path("deny.nets"), "127.0.0.5\n").unwrap();
    site.look();
    assert!(!site.is_served("127.0.0.6"), "it has changed again");
    site.look();
    assert!(!site.is_served("127.0.0.5") && site.is_served("127.0.0.6"));
}

#[test]
fn a_file_that_cannot_be_used_leaves_its_list_as_it_was_and_says_so_once() {
    let mut site = Site::new("127.0.0.5\n", "");
    let path = site.path("allow.nets").display().to_string();
    let mut said = 0;
    for (text, why) in [
        (
            Some("127.0.0.9\n\n127.0.0.300\nnonsense\n"),
            ":3: `127.0.0.300` is not a network, and 1 more",
        ),
        (Some("# all gone\n"), ": there is no network in this file, and without any everyone"),
        (None, "cannot be read: No such file"),
    ] {
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        for _ in 0..4 {
            site.look();
        }
        assert!(site.is_served("127.0.0.5") && !site.is_served("127.0.0.9"), "{why}");
        assert!(!site.is_current("allow") && site.is_current("deny"));
        said += 1;
        let events = site.events();
        assert_eq!(events.len(), said, "{events:?}");
        let message = &events[said - 1].message;
        assert!(message.contains(&path) && message.contains(why), "{message}");
    }
    fs::write(&path, "127.0.0.9\n").unwrap();
    site.look();
    site.look();
    assert!(
        site.is_served("127.0.0.9") && !site.is_served("127.0.0.5") && site.is_current("allow")
    );
}

#[test]
fn what_a_reload_has_read_is_not_undone_by_what_was_read_before_it() {
    let mut site = Site::new("127.0.0.0/8\n", "127.0.0.5\n");
    let before = Arc::clone(&site.balancer.supervisor().plane.snapshot.load().config);
    fs::write(site.path("deny.nets"), "127.0.0.6\n").unwrap();
    site.watch.look(&before);
    let found = site.watch.look(&before);
    assert_eq!(found.changes.len(), 1);
    // Meanwhile somebody changed it again and reloaded.
    let mut config = (*before).clone();
    let listener = Arc::make_mut(&mut config.listeners[0]);
    listener.deny = vec!["127.0.0.7/32".parse().unwrap()];
    listener.deny_file.as_mut().unwrap().written = 0;
    let supervisor = site.balancer.supervisor.as_mut().unwrap();
    supervisor.reload(config).unwrap();
    supervisor.renew_files(found);
    assert!(!site.is_served("127.0.0.7") && site.is_served("127.0.0.6"));
    // But what the file really says is found out.
    site.look();
    assert!(site.is_served("127.0.0.7") && !site.is_served("127.0.0.6"));
}

/// The longest prefix that holds the address, by a look at every one.
fn longest(nets: &[IpNet], ip: IpAddr) -> Option<u8> {
    nets.iter().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max()
}

#[test]
fn a_hundred_thousand_networks_of_both_families_are_read_and_looked_up_right() {
    const NETS: usize = 100_000;
    let mut random = fastrand::Rng::with_seed(7);
    let mut net = |index: usize| -> IpNet {
        // From 2000::/3, and not too long, so that some contain others and some clients.
        match index % 2 {
            0 => Ipv4Net::new(random.u32(..).into(), random.u8(8..=32)).unwrap().trunc().into(),
            _ => {
                let bits = random.u128(..) >> 3 | 1 << 125;
                Ipv6Net::new(bits.into(), random.u8(12..=64)).unwrap().trunc().into()
            }
        }
    };
    let nets: Vec<IpNet> = (0..NETS).map(&mut net).collect();
    let lines: String = nets.iter().map(|net| format!("{net}\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    let (allow, deny) =
        lines.split_at(lines.len() / 2 + lines[lines.len() / 2..].find('\n').unwrap() + 1);
    fs::write(dir.path().join("allow.nets"), allow).unwrap();
    fs::write(dir.path().join("deny.nets"), deny).unwrap();
    let text = "version: 1
listeners: {main: {bind: \":1\", pool: main, allow_file: allow.nets, deny_file: deny.nets}}
pools: {main: {backends: [\"10.0.0.1:1\"]}}
";
    let name = dir.path().join("maitred.yaml").display().to_string();
    let config = load(&[Source { name, text: text.into() }], &|_| None).unwrap().config;
    let listener = &config.listeners[0];
    assert_eq!([listener.allow.as_slice(), &listener.deny].concat(), nets);
    let acl = Acl::new(&listener.allow, &listener.deny);
    let mut rulings = [0; 2];
    for index in 0..400 {
        // Anywhere, and within one of them.
        let ip = match (index % 4, nets[random.usize(..NETS)]) {
            (0, _) => Ipv4Addr::from_bits(random.u32(..)).into(),
            (1, _) => Ipv6Addr::from_bits(random.u128(..)).into(),
            (_, IpNet::V4(net)) => IpAddr::from(Ipv4Addr::from_bits(
                net.network().to_bits() | random.u32(..) & net.hostmask().to_bits(),
            )),
            (_, IpNet::V6(net)) => IpAddr::from(Ipv6Addr::from_bits(
                net.network().to_bits() | random.u128(..) & net.hostmask().to_bits(),
            )),
        };
        let is_allowed = longest(&listener.allow, ip) > longest(&listener.deny, ip);
        assert_eq!(acl.allows(ip), is_allowed, "{ip}");
        rulings[usize::from(is_allowed)] += 1;
    }
    assert!(rulings.iter().all(|count| *count > 50), "{rulings:?}");
}
