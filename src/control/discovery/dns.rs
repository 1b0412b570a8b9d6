//! One question to DNS from beginning to end: the names that it may stand for, both families of addresses, services
//! and their hosts. This module does not know when it is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::rr::{Name, RData, Record as DnsRecord, RecordType};

use super::answer::{self, Record};
use super::schedule::LONGEST;
use super::servers::{Lookup, Servers};
use crate::config::{Answer, Asked, Question};
use crate::data::pool::finding::{Failure, Reason};

/// A good answer.
#[derive(Debug)]
pub struct Found {
    pub answer: Answer,
    pub ttl: Duration,
    /// What failed although the rest was good.
    pub flaw: Option<Failure>,
}

/// Addresses of both families.
struct Both {
    ips: Vec<IpAddr>,
    ttl: Duration,
    /// One family failed; `is_ipv4` or not.
    flaw: Option<(Failure, bool)>,
}

/// The most backends in an answer: each is probed, and has metrics of its own.
const MOST_BACKENDS: usize = 10_000;
/// Hosts of services that are resolved at once.
const AT_ONCE: usize = 4;

/// `before` is the last answer: what it says about a family that fails now stays valid.
pub async fn ask(
    servers: Rc<Servers>,
    question: &Question,
    before: Option<&Answer>,
) -> Result<Found, Failure> {
    if question.record == Asked::Address
        && let Some(both) = in_hosts(&servers, &question.name)
    {
        return found(both);
    }
    let mut last = None;
    for name in servers.system.candidates(&question.name) {
        let Some(name) = whole(&name) else { continue };
        let outcome = match question.record {
            Asked::Address => addresses(&servers, &name, before).await,
            Asked::Srv => services(&servers, &name, before).await,
        };
        match outcome {
            // The next name might be somebody else's: it is asked for only if this name does not exist.
            Err(failure) if is_negative(&failure) => last = Some(failure),
            Ok(found) if count(&found.answer) > MOST_BACKENDS => {
                let why = format!("more than {MOST_BACKENDS} backends");
                return Err(Failure { reason: Reason::Malformed, why });
            }
            outcome => return outcome,
        }
    }
    let nothing = || {
        let why = "this is not a DNS name".to_owned();
        Failure { reason: Reason::Malformed, why }
    };
    Err(last.unwrap_or_else(nothing))
}

/// `None`: it is too long, because of a search domain.
fn whole(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn is_negative(failure: &Failure) -> bool {
    matches!(failure.reason, Reason::Empty | Reason::Nxdomain)
}

fn count(answer: &Answer) -> usize {
    match answer {
        Answer::Addresses(ips) => ips.len(),
        Answer::Backends(backends) => backends.len(),
        Answer::Services(services) => services.len(),
    }
}

async fn addresses(
    servers: &Servers,
    name: &Name,
    before: Option<&Answer>,
) -> Result<Found, Failure> {
    let known = match before {
        Some(Answer::Addresses(ips)) => ips.as_slice(),
        _ => &[],
    };
    found(both(servers, name, known).await?)
}

fn found(Both { ips, ttl, flaw }: Both) -> Result<Found, Failure> {
    let ips = answer::addresses(ips);
    if ips.is_empty() {
        let why = "none of its addresses is that of one machine".to_owned();
        return Err(Failure { reason: Reason::Empty, why });
    }
    let flaw = flaw.map(|(failure, _)| failure);
    Ok(Found { answer: Answer::Addresses(ips), ttl, flaw })
}

/// The name as given, before any search domain is added.
fn in_hosts(servers: &Servers, name: &str) -> Option<Both> {
    let ips = servers.system.in_hosts(name);
    (!ips.is_empty()).then(|| Both { ips: ips.to_vec(), ttl: HOSTS_TTL, flaw: None })
}

async fn both(servers: &Servers, name: &Name, known: &[IpAddr]) -> Result<Both, Failure> {
    let (v4, v6) =
        tokio::join!(servers.look_up(name, RecordType::A), servers.look_up(name, RecordType::AAAA));
    let mut both = Both { ips: Vec::new(), ttl: LONGEST, flaw: None };
    let mut failures = Vec::new();
    for (outcome, is_ipv4) in [(v4, true), (v6, false)] {
        match outcome {
            Ok(Lookup { records, ttl, .. }) => {
                both.ips.extend(records.iter().filter_map(ip));
                both.ttl = both.ttl.min(ttl);
            }
            Err(failure) if is_negative(&failure) => failures.push(failure),
            Err(failure) => {
                both.ips.extend(known.iter().filter(|ip| ip.is_ipv4() == is_ipv4));
                both.flaw = Some((failure.clone(), is_ipv4));
                failures.push(failure);
            }
        }
    }
    if failures.len() < 2 {
        return Ok(both);
    }
    // A failure says more than a missing name, and a missing name says more than an empty one.
    failures.sort_by_key(|failure| match failure.reason {
        Reason::Empty => 2,
        Reason::Nxdomain => 1,
        _ => 0,
    });
    Err(failures.swap_remove(0))
}

/// From one read of the hosts file to the next.
const HOSTS_TTL: Duration = Duration::from_secs(5);

fn ip(record: &DnsRecord) -> Option<IpAddr> {
    match &record.data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    }
}

async fn services(
    servers: &Rc<Servers>,
    name: &Name,
    before: Option<&Answer>,
) -> Result<Found, Failure> {
    let Lookup { records, additionals, mut ttl } = servers.look_up(name, RecordType::SRV).await?;
    let announced = records.iter().filter_map(announced);
    // The host is the root: the service is not available there.
    let mut announced: Vec<(Name, Record)> =
        announced.filter(|(host, _)| !host.is_root()).collect();
    let mut hosts: BTreeMap<Name, Vec<IpAddr>> = BTreeMap::new();
    for record in &additionals {
        let Some(ip) = ip(record) else { continue };
        hosts.entry(record.name.clone()).or_default().push(ip);
        ttl = ttl.min(Duration::from_secs(record.ttl.into()));
    }
    // The server may add the addresses of only one family.
    let is_whole =
        |ips: &Vec<IpAddr>| [true, false].map(|is| ips.iter().any(|ip| ip.is_ipv4() == is));
    let missing: BTreeSet<&Name> = announced.iter().map(|(host, _)| host).collect();
    let missing: Vec<(Name, Vec<IpAddr>)> = missing
        .into_iter()
        .map(|host| (host.clone(), hosts.get(host).cloned().unwrap_or_default()))
        .filter(|(_, known)| is_whole(known) != [true, true])
        .collect();
    let mut flawed = None;
    for some in missing.chunks(AT_ONCE) {
        for (host, Both { ips, ttl: own, flaw }) in look_up(servers, some).await? {
            match flaw {
                Some((failure, is_ipv4)) if has_family(before, is_ipv4) => return Err(failure),
                // There was no address of that family to lose.
                flaw => flawed = flawed.or(flaw.map(|(failure, _)| failure)),
            }
            ttl = ttl.min(own);
            hosts.insert(host, ips);
        }
    }
    for (host, record) in &mut announced {
        record.ips = hosts.get(host).cloned().unwrap_or_default();
    }
    let records: Vec<Record> = announced.into_iter().map(|(_, record)| record).collect();
    let services = answer::services(&records);
    if services.is_empty() {
        let why = "the service is not available there".to_owned();
        return Err(Failure { reason: Reason::Empty, why });
    }
    Ok(Found { answer: Answer::Services(services), ttl, flaw: flawed })
}

fn has_family(answer: Option<&Answer>, is_ipv4: bool) -> bool {
    let Some(Answer::Services(services)) = answer else { return false };
    services.iter().any(|service| service.address.is_ipv4() == is_ipv4)
}

/// The host of a service, and everything except its addresses.
fn announced(record: &DnsRecord) -> Option<(Name, Record)> {
    let RData::SRV(srv) = &record.data else { return None };
    let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
    Some((srv.target.clone(), Record { priority, weight, port, ips: Vec::new() }))
}

/// Resolves both families of a host of which the addresses of one family are known.
async fn other_family(servers: &Servers, name: &Name, known: Vec<IpAddr>) -> Both {
    let is_ipv4 = !known.iter().any(IpAddr::is_ipv4);
    let record = if is_ipv4 { RecordType::A } else { RecordType::AAAA };
    let mut both = Both { ips: known, ttl: LONGEST, flaw: None };
    match servers.look_up(name, record).await {
        Ok(Lookup { records, ttl, .. }) => {
            both.ips.extend(records.iter().filter_map(ip));
            both.ttl = ttl;
        }
        Err(failure) if is_negative(&failure) => {}
        Err(failure) => both.flaw = Some((failure, is_ipv4)),
    }
    both
}

/// A host that does not exist is left out. A host that cannot be resolved fails the whole answer, so that its
/// backends are not lost. Returns each host with its known addresses.
async fn look_up(
    servers: &Rc<Servers>,
    hosts: &[(Name, Vec<IpAddr>)],
) -> Result<Vec<(Name, Both)>, Failure> {
    let mut tasks = tokio::task::JoinSet::new();
    for (name, known) in hosts {
        let (servers, name, known) = (Rc::clone(servers), name.clone(), known.clone());
        tasks.spawn_local(async move {
            let both = match in_hosts(&servers, &name.to_ascii()) {
                _ if !known.is_empty() => Ok(other_family(&servers, &name, known).await),
                Some(both) => Ok(both),
                None => both(&servers, &name, &[]).await,
            };
            (name, both)
        });
    }
    let mut found = Vec::new();
    while let Some(task) = tasks.join_next().await {
        // None is cancelled as long as the set exists.
        let Ok((name, both)) = task else { continue };
        match both {
            Err(failure) if is_negative(&failure) => {}
            Err(failure) => return Err(failure),
            Ok(both) => found.push((name, both)),
        }
    }
    Ok(found)
}
