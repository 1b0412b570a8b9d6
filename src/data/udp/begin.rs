//! How a flow begins: checks of the client, then a backend, then a socket connected to it; and how it moves to
//! another backend when its own is gone or refuses its first datagram.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use super::flow::Rules;
use super::flow_table::FlowId;
use super::flows::{Flows, widen};
use super::link::{Header, Key, Link, Places, Trains, WorkerPlace, is_trouble};
use super::source_ports::{Lease, is_out_of_ports};
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::border::datagrams::Dropped;
use crate::border::plane::SessionFilter;
use crate::border::record::{self, CloseReason, Stage};
use crate::border::snapshot::{Listener, Terms};
use crate::config::{Flow, OnDown, WhenFlowsFull};
use crate::data::admit::{self, ListenerPermit};
use crate::data::limits::ClientNet;
use crate::data::pool::{BackendPermit, PickError, PickKey, Pool, Tried};
use crate::sys::clock::Moment;
use crate::sys::datagram;

/// Why a flow does not begin: the stage, the reason, and why its datagrams are dropped.
type Refusal = (Stage, CloseReason, Dropped);

/// The limit that has no place left.
enum Full {
    /// The client's own limit: no other client can make room.
    Client,
    /// The listener's or the process's limit.
    Common,
}

/// How long a flow waits for replies under way after its successor began.
const UNDER_WAY_MS: u64 = 1_000;

/// A backend that could be connected to.
struct Reached {
    slot: BackendPermit,
    socket: OwnedFd,
    port: Option<Lease>,
}

impl Flows {
    /// The flow for this client's next datagrams; if necessary, a flow begins or moves to another backend. `None`:
    /// the `count` datagrams are dropped and counted.
    pub fn flow_of(&mut self, key: &Key, count: u64) -> Option<FlowId> {
        if let Some(id) = self.table.find(key).filter(|id| self.may_stay(*id)) {
            return Some(match self.leaves(id) {
                Some(reason) => self.move_on(id, reason),
                None => id,
            });
        }
        match self.begin(key) {
            Ok(id) => Some(id),
            Err((stage, reason, dropped)) => {
                self.refuse(key.door, key, stage, reason, (dropped, count));
                None
            }
        }
    }

    /// Ends a flow whose client is denied now by its listener.
    pub fn may_stay(&mut self, id: FlowId) -> bool {
        let Some(link) = self.table.get_mut(id) else { return false };
        let Some(door) = self.doors.get(widen(link.key.door)) else { return false };
        let now = &door.listener;
        let judged = std::mem::replace(&mut link.places.judged_by, now.version) == now.version;
        if judged || admit::may_stay(now, Some(link.client.ip()), None, false) {
            return true;
        }
        self.end(id, Stage::Relay, CloseReason::Denied);
        false
    }

    fn begin(&mut self, key: &Key) -> Result<FlowId, Refusal> {
        const NOWHERE: Refusal = (Stage::Route, CloseReason::NoRoute, Dropped::NoRoute);
        let door = self.doors.get(widen(key.door)).ok_or(NOWHERE)?;
        let listener = Arc::clone(&door.listener);
        let (client, dialled) = door.addresses(key);
        let places = self.admit(&listener, client, dialled)?;
        let name = listener.config.pool.as_ref().ok_or(NOWHERE)?;
        let pool = self.plane.snapshot.load().pools.get(name).map(Arc::clone).ok_or(NOWHERE)?;
        let mut tried = Tried::default();
        let reached = self.reach(&pool, client, dialled, &mut tried);
        let reached = reached.inspect_err(|(_, reason, _)| {
            if *reason == CloseReason::NoBackend {
                pool.shared.no_backend.add(1);
            }
        })?;
        Ok(self.enter(*key, (client, dialled), &pool, places, (reached, tried)))
    }

    /// The checks of a new client, cheap ones first.
    fn admit(
        &mut self,
        listener: &Arc<Listener>,
        client: SocketAddr,
        dialled: SocketAddr,
    ) -> Result<Places, Refusal> {
        const FULL: Refusal = (Stage::Admit, CloseReason::OverLimit, Dropped::OverLimit);
        if self.is_draining {
            return Err((Stage::Admit, CloseReason::Drained, Dropped::Draining));
        }
        if self.answerers.contain(client, dialled) {
            return Err((Stage::Admit, CloseReason::Denied, Dropped::Loop));
        }
        if let Err(reason) = admit::look_at(listener, Some(client.ip()), self.now_ns) {
            let is_denied = reason == CloseReason::Denied;
            let dropped = if is_denied { Dropped::Denied } else { Dropped::RateLimited };
            return Err((Stage::Admit, reason, dropped));
        }
        let places = match self.places(listener, client.ip()) {
            // The flow that was idle longest makes room, if the listener says so.
            Err(Full::Common) if self.evict(listener) => self.places(listener, client.ip()),
            other => other,
        };
        places.map_err(|_| FULL)
    }

    fn places(&self, listener: &Arc<Listener>, ip: IpAddr) -> Result<Places, Full> {
        let client = admit::client_place(listener, Some(ip)).map_err(|_| Full::Client)?;
        let most = listener.config.session_limit();
        Ok(Places {
            listener: ListenerPermit::enter(listener, most).ok_or(Full::Common)?,
            judged_by: listener.version,
            client,
            process: self.plane.flows.try_enter().ok_or(Full::Common)?,
            worker: WorkerPlace::enter(&self.plane, self.worker),
        })
    }

    fn evict(&mut self, listener: &Arc<Listener>) -> bool {
        if listener.config.flow.when_full != WhenFlowsFull::EvictIdle {
            return false;
        }
        let Some(idle) = self.table.longest_idle(group(listener)) else { return false };
        self.end(idle, Stage::Relay, CloseReason::FlowEvicted);
        true
    }

    /// Picks and connects; a backend to which no socket can be connected is skipped.
    fn reach(
        &self,
        pool: &Pool,
        client: SocketAddr,
        dialled: SocketAddr,
        tried: &mut Tried,
    ) -> Result<Reached, Refusal> {
        let key = PickKey::new(ClientAddr::Inet(client));
        let mut failure = None;
        for _ in 0..pool.config.connect.attempts {
            let picked = match pool.pick(&key, tried, Instant::now()) {
                Ok(picked) => picked,
                Err(error) => return Err(failure.unwrap_or_else(|| nobody(error))),
            };
            tried.push(picked.index);
            let address = picked.backend().address.resolve(LocalAddr::Inet(dialled));
            let connected = address.map_or_else(
                || Err(io::Error::from_raw_os_error(libc::EHOSTUNREACH)),
                |address| self.source_ports.connect(&pool.config, address),
            );
            match connected {
                Ok((socket, port)) => return Ok(Reached { slot: picked.permit, socket, port }),
                Err(error) => {
                    let refusal = unconnected(&error);
                    let failures = &picked.backend().live.connect_failures;
                    match refusal.2 {
                        Dropped::NoDescriptors => failures.no_descriptors.add(1),
                        Dropped::NoSourcePort => {
                            failures.no_source_port.add(1);
                            self.plane.source_ports.exhausted.add(1);
                            pool.warn_of_absent_sources();
                        }
                        _ => {
                            failures.unreachable.add(1);
                            if !pool.shared.is_port_of_clients(&picked.backend().address) {
                                pool.failed(picked.backend(), Instant::now());
                            }
                        }
                    }
                    if refusal.2 == Dropped::NoDescriptors {
                        return Err(refusal);
                    }
                    failure = Some(refusal);
                }
            }
        }
        Err(failure.unwrap_or((Stage::Route, CloseReason::NoBackend, Dropped::NoBackend)))
    }

    /// Puts a flow into the table; it is watched from the end of this batch on.
    fn enter(
        &mut self,
        key: Key,
        (client, dialled): (SocketAddr, SocketAddr),
        pool: &Pool,
        places: Places,
        (reached, tried): (Reached, Tried),
    ) -> FlowId {
        let listener = &places.listener;
        listener.live.counters.of(self.thread).sessions.add(1);
        self.counters(listener).flows.add(1);
        reached.slot.backend.live.counters.of(self.thread).sessions.add(1);
        let Flow { timeout, requests, responses, .. } = listener.config.flow;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let rules = Rules { timeout_ms, requests, responses };
        let group = group(listener);
        let rate = match listener.config.limits.datagram_rate_per_client {
            Some(_) => {
                let rates = &listener.live.quotas.datagram_rates;
                rates.bucket(ClientNet::of(client.ip()), self.now_ns)
            }
            None => None,
        };
        let link = Link {
            id: self.plane.next_session_id(),
            key,
            client,
            dialled,
            socket: reached.socket,
            port: reached.port,
            slot: reached.slot,
            places,
            started: Moment::now(),
            bytes: record::Bytes::default(),
            first_reply: None,
            tried,
            sent: 0,
            moved_since_ms: None,
            retired: None,
            again: None,
            header: Header::new(pool, client, dialled),
            comebacks: 0,
            trains: Trains { to_backend: true, to_client: true },
            rate,
            overflow: 0,
        };
        let id = self.table.begin(key, group, rules, self.now_ms, link);
        self.fresh.push(id);
        id
    }

    /// Whether the flow's backend is gone, and it is time to move.
    fn leaves(&mut self, id: FlowId) -> Option<CloseReason> {
        let link = self.table.get_mut(id)?;
        let now = &self.doors.get(widen(link.key.door))?.listener;
        let backend = &link.slot.backend;
        let is_moved = !std::ptr::eq(&*link.places.listener, &*now.terms)
            && now.config.pool.as_deref() != Some(&*backend.pool);
        if !is_moved {
            link.moved_since_ms = None;
        }
        let moved = is_moved.then(|| *link.moved_since_ms.get_or_insert(self.now_ms));
        let (since, reason) = match (moved.or(backend.live.removed.ms()), backend.live.down.ms()) {
            (Some(since), _) => (since, CloseReason::BackendRemoved),
            (None, Some(since)) => (since, CloseReason::BackendDown),
            (None, None) => return None,
        };
        let snapshot = self.plane.snapshot.load();
        let pool = snapshot.pools.get(&backend.pool);
        let policy = |pool: &Arc<Pool>| match reason {
            CloseReason::BackendRemoved => {
                pool.config.on_down_reasons.removed.unwrap_or(pool.config.on_down)
            }
            _ => pool.config.on_down_for(backend.live.down_reason()),
        };
        let is_time = match pool.map_or(OnDown::Auto, policy) {
            OnDown::Keep => false,
            OnDown::Auto | OnDown::Reset => true,
            OnDown::Drain(time) | OnDown::IdleFirst(time) => {
                u128::from(self.now_ms.saturating_sub(since)) >= time.as_millis()
            }
        };
        is_time.then_some(reason)
    }

    /// Begins the successor, on another backend, of a flow whose backend is gone. While there is no other backend,
    /// the flow stays where it is.
    fn move_on(&mut self, id: FlowId, reason: CloseReason) -> FlowId {
        let Some((_, link)) = self.table.get(id) else { return id };
        let (client, dialled) = (link.client, link.dialled);
        let Some(door) = self.doors.get(widen(link.key.door)) else { return id };
        let Some(name) = &door.listener.config.pool else { return id };
        let Some(pool) = self.plane.snapshot.load().pools.get(name).map(Arc::clone) else {
            return id;
        };
        if pool.backends.iter().all(|it| it.live.down.ms().is_some()) {
            // `try_all` would find no better one.
            return id;
        }
        let mut tried = Tried::default();
        let Ok(reached) = self.reach(&pool, client, dialled, &mut tried) else { return id };
        let Some((key, places)) = self.make_way(id, reason) else { return id };
        self.enter(key, (client, dialled), &pool, places, (reached, tried))
    }

    /// The places for a flow's successor: its client is not checked again. The flow waits a moment for replies under
    /// way; if there is no room for both, it ends at once and hands over its own places.
    fn make_way(&mut self, id: FlowId, reason: CloseReason) -> Option<(Key, Places)> {
        let (_, link) = self.table.get(id)?;
        let listener = Arc::clone(&self.doors.get(widen(link.key.door))?.listener);
        let (key, ip) = (link.key, link.client.ip());
        if let Ok(places) = self.places(&listener, ip) {
            self.table.retire(id, UNDER_WAY_MS, self.now_ms);
            self.table.get_mut(id)?.retired = Some(reason);
            return Some((key, places));
        }
        let ended = self.table.end(id)?;
        self.record(&ended, Stage::Relay, reason);
        Some((key, ended.item.places))
    }

    /// The kernel reports that the backend refused a datagram or cannot be reached. If it was the flow's first and
    /// only datagram, another backend gets it: this one never had it.
    pub fn trouble(&mut self, id: FlowId, error: &io::Error) {
        let Some(link) = self.table.get_mut(id) else { return };
        datagram::forget_icmp(&link.socket);
        // No process was there: when one is, it has not been sent the header.
        link.header.set_said(false);
        let Some((_, link)) = self.table.get(id) else { return };
        if !is_trouble(error) {
            tracing::debug!(%error, backend = &*link.slot.backend.name, "a flow's socket failed");
            return;
        }
        self.count_failure(link, error);
        let backend = Arc::clone(&link.slot.backend);
        let may_go_elsewhere = link.again.is_some();
        let pool = self.plane.snapshot.load().pools.get(&backend.pool).map(Arc::clone);
        if let Some(pool) = &pool
            && !pool.shared.is_port_of_clients(&backend.address)
        {
            pool.failed(&backend, Instant::now());
        }
        if may_go_elsewhere {
            self.try_elsewhere(id, pool.as_deref(), error);
        }
    }

    /// These backends are down. A flow that counts its `responses` and waits for the first one asks another backend,
    /// as its client would do in a while: what a dead server had received is lost. If the old backend was only slow,
    /// its late answer is dropped; the client gets one answer.
    pub fn ask_others(&mut self, filter: &SessionFilter) {
        let waits = |id: &FlowId| {
            let flow = self.table.get(*id);
            flow.is_some_and(|(flow, link)| flow.rules.responses.is_some() && link.again.is_some())
        };
        let waiting: Vec<FlowId> = self.matching(filter).filter(waits).collect();
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let snapshot = self.plane.snapshot.load_full();
        for id in waiting {
            let Some((_, link)) = self.table.get(id) else { continue };
            let Some(pool) = snapshot.pools.get(&link.slot.backend.pool) else { continue };
            let is_anybody_up = pool.backends.iter().any(|it| it.live.down.ms().is_none());
            if is_anybody_up && link.may_try_another(pool) {
                self.try_elsewhere(id, Some(pool), &refused);
            }
        }
    }

    /// The first datagram, which has no answer, is sent to another backend, or is dropped here.
    fn try_elsewhere(&mut self, id: FlowId, pool: Option<&Pool>, error: &io::Error) {
        let Some(link) = self.table.get_mut(id) else { return };
        let Some(datagram) = link.again.clone() else { return };
        let (mut tried, client, dialled) = (link.tried, link.client, link.dialled);
        // None is left if its pool was removed.
        let left = pool.filter(|pool| link.may_try_another(pool));
        let reached =
            left.and_then(|pool| Some((pool, self.reach(pool, client, dialled, &mut tried).ok()?)));
        let Some(link) = self.table.get_mut(id) else { return };
        let Some((pool, reached)) = reached else {
            if let Some(door) = self.doors.get(widen(link.key.door)) {
                self.counters(&door.listener).dropped(Dropped::BackendError).add(1);
            }
            let reason = match error.raw_os_error() {
                Some(libc::ECONNREFUSED) => CloseReason::ConnectRefused,
                _ => CloseReason::ConnectUnreachable,
            };
            return self.end(id, Stage::Connect, reason);
        };
        link.slot.backend.live.counters.of(self.thread).retries.add(1);
        reached.slot.backend.live.counters.of(self.thread).sessions.add(1);
        link.tried = tried;
        link.slot = reached.slot;
        link.socket = reached.socket;
        link.port = reached.port;
        link.sent = 0;
        link.overflow = 0;
        link.header = Header::new(pool, client, dialled);
        self.fresh.push(id);
        self.send_on(id, &mut [(&datagram, datagram.len())]);
    }
}

/// Flows of a listener, including those of its earlier settings, make room for each other.
fn group(listener: &Terms) -> u64 {
    Arc::as_ptr(&listener.live).addr() as u64
}

fn nobody(error: PickError) -> Refusal {
    match error {
        PickError::AllFull => (Stage::Route, CloseReason::BackendFull, Dropped::BackendFull),
        PickError::AllTried | PickError::NoneUp => {
            (Stage::Route, CloseReason::NoBackend, Dropped::NoBackend)
        }
    }
}

fn unconnected(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            (Stage::Connect, CloseReason::NoDescriptors, Dropped::NoDescriptors)
        }
        _ if is_out_of_ports(error) => {
            (Stage::Connect, CloseReason::NoSourcePort, Dropped::NoSourcePort)
        }
        _ => (Stage::Connect, CloseReason::ConnectUnreachable, Dropped::BackendError),
    }
}
