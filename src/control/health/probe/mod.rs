//! One active probe: from a socket to a result, within one timeout. `verdict` decides what the results mean. Called
//! by the backends' watches.

mod tcp;
mod exchange;
mod http;
mod udp;
mod dns;
mod postgres;
mod mysql;
mod redis;
mod talk;
mod password;
pub mod facts;
mod pattern;
mod fault;
mod heard;
pub mod parting;

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use self::facts::{Facts, Failed, Found};
use self::fault::Fault;
use self::heard::{Heard, hide};
use self::parting::{Leave, Parting};
use self::password::Password;
use self::tcp::Tls;
use crate::border::addr::ZonedIp;
use crate::config::{self, Probe, ProbeConnection, ProbeTls, ProxyVersion};
use crate::data::pool::fitness::ProbeResult;
use crate::data::stream::Stream;
use crate::data::tls::client::Client;
use crate::data::wire::proxy_protocol::v2;
use crate::data::wire::{mysql as mysql_wire, postgres_client, redis as redis_wire};

/// The header that a probe begins with; a probe of another port than the sessions' sends none.
fn proxy(pool: &config::Pool) -> Option<ProxyVersion> {
    pool.send_proxy_protocol.filter(|_| pool.health.port.is_none())
}

fn tls(pool: &config::Pool) -> Option<&Arc<Client>> {
    match &pool.health.tls {
        ProbeTls::Same => pool.tls.as_ref(),
        ProbeTls::None => None,
        ProbeTls::Own(client) => Some(client),
    }
}

/// What backends are asked, and how; pools that ask the same share it, and what each makes of the answer is `Judge`.
pub struct Prober {
    method: Method,
    probe: Probe,
    pub interval: Duration,
    pub jitter: u32,
    timeout: Duration,
    source: Vec<ZonedIp>,
    proxy: Option<ProxyVersion>,
    tls: Option<Arc<Client>>,
    keeps: bool,
    takes_leave: bool,
}

enum Method {
    Dns(dns::Dns),
    Exchange(exchange::Exchange),
    Http(http::Http),
    Mysql(mysql::Mysql),
    Postgres(postgres::Postgres),
    Redis(redis::Redis),
    Tcp,
    Udp(udp::Udp),
}

/// A connection that is kept between two probes.
pub type Kept = RefCell<Option<Stream>>;

impl Prober {
    /// `None` if the pool is not probed.
    pub fn new(pool: &config::Pool) -> Option<Prober> {
        let health = &pool.health;
        let method = match &health.probe {
            Probe::Exchange(own) => Method::Exchange(exchange::Exchange::new(
                own.send.as_deref(),
                own.expect.as_ref(),
                own.standby.as_ref(),
            )),
            Probe::Http(own) => Method::Http(http::Http::new(
                &own.path,
                own.host.as_deref(),
                &own.status,
                &own.standby,
            )),
            Probe::Dns(own) => Method::Dns(dns::Dns::new(&own.name, own.record)),
            Probe::Mysql(own) => Method::Mysql(mysql::Mysql::new(own)),
            Probe::None => return None,
            Probe::Postgres(own) => Method::Postgres(postgres::Postgres::new(own, health.timeout)),
            Probe::Redis(own) => Method::Redis(redis::Redis::new(own)),
            Probe::Auto | Probe::Tcp => Method::Tcp,
            Probe::Udp(own) => Method::Udp(udp::Udp::new(own.send.as_deref(), own.expect.as_ref())),
        };
        Some(Prober {
            method,
            probe: health.probe.clone(),
            interval: health.interval,
            jitter: health.jitter,
            timeout: health.timeout,
            source: pool.source.clone(),
            proxy: proxy(pool),
            tls: tls(pool).cloned(),
            keeps: health.connection == ProbeConnection::Kept,
            takes_leave: parting::is_affordable(pool),
        })
    }

    /// Whether a new prober for `pool` would ask the same in the same way.
    pub fn is_of(&self, pool: &config::Pool) -> bool {
        let health = &pool.health;
        self.asks(&health.probe)
            && (self.interval, self.jitter) == (health.interval, health.jitter)
            && self.timeout == health.timeout
            && self.source == pool.source
            && self.proxy == proxy(pool)
            && self.tls.as_ref() == tls(pool)
            && self.keeps == (health.connection == ProbeConnection::Kept)
            && self.takes_leave == parting::is_affordable(pool)
    }

    fn asks(&self, probe: &Probe) -> bool {
        match (&self.method, probe) {
            (Method::Mysql(own), Probe::Mysql(probe)) => *own.asks() == mysql::Ask::of(probe),
            (Method::Postgres(own), Probe::Postgres(probe)) => {
                *own.asks() == postgres::Ask::of(probe)
            }
            (Method::Redis(own), Probe::Redis(probe)) => *own.asks() == redis::Ask::of(probe),
            _ => self.probe == *probe,
        }
    }

    pub fn logs_in(&self) -> bool {
        self.password().is_some()
    }

    /// Whether a TLS handshake that fails counts at the server against the address that it came from.
    pub fn is_counted(&self) -> bool {
        matches!(self.method, Method::Mysql(_))
    }

    /// Probes once; the timeout is for the whole probe.
    pub async fn probe(&self, address: &SockAddr, kept: &Kept) -> (Found, Parting) {
        let begun = Instant::now();
        let (heard, used) = (Heard::default(), RefCell::default());
        let attempt = self.attempt(address, kept, &heard, &used);
        let ended = tokio::time::timeout(self.timeout, attempt).await;
        let took = begun.elapsed();
        let ended = ended.unwrap_or_else(|_| self.out_of_time(&heard));
        let mut stream = used.into_inner();
        if self.keeps && ended.is_ok() && self.password().is_some() {
            *kept.borrow_mut() = stream.take();
        }
        let stream = stream.filter(|_| self.takes_leave);
        let is_in = ended.is_ok();
        let leave = stream.map(|stream| self.leave(stream, is_in));
        let ended = ended.map_err(|fault| self.explain(fault, &heard));
        (Found { ended, took }, Parting(leave))
    }

    /// How to part from a connection; `is_in`: the probe got through.
    pub fn leave(&self, stream: Stream, is_in: bool) -> Leave {
        let goodbye: Cow<'static, [u8]> = match &self.method {
            Method::Mysql(_) if is_in => mysql_wire::quit().into(),
            Method::Postgres(_) if is_in => postgres_client::TERMINATE[..].into(),
            Method::Redis(_) if is_in => redis_wire::command(&["QUIT"]).into(),
            _ => Cow::default(),
        };
        let closes_by_itself = matches!(self.method, Method::Http(_)) || self.password().is_some();
        Leave { stream, goodbye, closes_by_itself, patience: parting::patience(self.interval) }
    }

    fn explain(&self, fault: Fault, heard: &Heard) -> Failed {
        let Fault { result, detail, shows_reply } = fault;
        let detail = match detail {
            Some(detail) if shows_reply && !heard.is_nothing() => {
                Some(format!("{detail}; it said {}", heard.shown(self.sent())).into())
            }
            detail => detail,
        };
        // A server may repeat what it was told.
        let secret = self.password().and_then(Password::hidden);
        let detail = match (detail, secret) {
            (Some(detail), Some(secret)) => Some(hide(&detail, secret.reveal()).into()),
            (detail, _) => detail,
        };
        Failed { result, detail }
    }

    /// Of a probe that logs in.
    fn password(&self) -> Option<&Password> {
        match &self.method {
            Method::Mysql(own) => Some(own.password()),
            Method::Postgres(own) => Some(own.password()),
            Method::Redis(own) => Some(own.password()),
            _ => None,
        }
    }

    /// Only silence is a timeout: any bytes may be an error message, and must be shown.
    fn out_of_time(&self, heard: &Heard) -> Result<Facts, Fault> {
        match &self.method {
            Method::Udp(udp) if udp.passes_in_silence() => Ok(Facts::default()),
            _ if heard.is_nothing() => Err(Fault::of(ProbeResult::Timeout)),
            Method::Dns(_) => Err(Fault::mismatch("not the expected reply")),
            _ => Err(Fault::unexpected("not the expected reply")),
        }
    }

    /// Text that may come back in a reply, and must be hidden.
    fn sent(&self) -> &[u8] {
        match &self.method {
            Method::Exchange(exchange) => exchange.sent(),
            Method::Http(http) => http.sent(),
            Method::Udp(udp) => udp.sent(),
            _ => &[],
        }
    }

    /// A connection that was made and is no longer needed is left in `used`.
    async fn attempt(
        &self,
        address: &SockAddr,
        kept: &Kept,
        heard: &Heard,
        used: &RefCell<Option<Stream>>,
    ) -> Result<Facts, Fault> {
        let datagrams = || udp::open(address, &self.source);
        // The header says that the connection is maitred's own. Version 1 does not exist for datagrams.
        let is_told = self.proxy == Some(ProxyVersion::V2);
        let header = if is_told { v2::write_local() } else { Vec::new() };
        match &self.method {
            Method::Dns(dns) => {
                return dns.run(datagrams()?, &header, heard).await.map(|()| Facts::default());
            }
            Method::Udp(udp) => {
                return udp.run(datagrams()?, &header, heard).await.map(|()| Facts::default());
            }
            _ => {}
        }
        let before = kept.borrow_mut().take();
        if let Some(mut stream) = before {
            // Whatever is wrong with it, a server that closes idle connections among others, a fresh one decides.
            if let Ok(facts) = self.ask(&mut stream, address, true, heard).await {
                *used.borrow_mut() = Some(stream);
                return Ok(facts);
            }
            heard.forget();
        }
        let asks = matches!(self.method, Method::Postgres(_));
        let at_once = self.tls.as_deref().filter(|_| !matches!(self.method, Method::Mysql(_)));
        let tls = at_once.map(|client| Tls { client, asks: asks || client.is_for_postgres() });
        let mut stream = tcp::connect(address, &self.source, self.proxy, tls).await?;
        let entered = self.enter(&mut stream, address, heard).await;
        let ended = match entered {
            Ok(()) => self.ask(&mut stream, address, false, heard).await,
            Err(fault) => Err(fault),
        };
        *used.borrow_mut() = Some(stream);
        ended
    }

    /// Logs in, where there is a login.
    async fn enter(
        &self,
        stream: &mut Stream,
        address: &SockAddr,
        heard: &Heard,
    ) -> Result<(), Fault> {
        match &self.method {
            Method::Mysql(own) => own.log_in(stream, address, self.tls.as_deref(), heard).await,
            Method::Postgres(own) => own.log_in(stream, heard).await,
            Method::Redis(own) => own.log_in(stream, heard).await,
            _ => Ok(()),
        }
    }

    async fn ask(
        &self,
        stream: &mut Stream,
        address: &SockAddr,
        is_kept: bool,
        heard: &Heard,
    ) -> Result<Facts, Fault> {
        match &self.method {
            Method::Exchange(own) => own.run(stream, heard).await?,
            Method::Http(own) => own.run(stream, address, heard).await?,
            Method::Mysql(own) => return own.ask(stream, is_kept, heard).await,
            Method::Postgres(own) => return own.ask(stream, is_kept, heard).await,
            Method::Redis(own) => return own.ask(stream, heard).await,
            Method::Dns(_) | Method::Tcp | Method::Udp(_) => {}
        }
        Ok(Facts::default())
    }
}
