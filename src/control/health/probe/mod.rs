//! One active probe: from a socket to a result, within one timeout. `verdict` decides what the results mean. Called
//! by the backends' watches.

mod tcp;
mod exchange;
mod http;
mod udp;
mod dns;
mod pattern;
mod fault;
mod heard;
pub mod parting;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockAddr;

use self::fault::Fault;
use self::heard::Heard;
use self::parting::{Leave, Parting};
use crate::border::addr::ZonedIp;
use crate::config::{self, ProxyVersion};
use crate::data::pool::fitness::{Outcome, ProbeResult};
use crate::data::stream::Stream;
use crate::data::tls::client::Client;
use crate::data::wire::proxy_protocol::v2;

/// The header that a probe begins with; a probe of another port than the sessions' sends none.
fn proxy(pool: &config::Pool) -> Option<ProxyVersion> {
    pool.send_proxy_protocol.filter(|_| pool.health.port.is_none())
}

/// How the backends of one pool are probed; made once and used for all of them.
pub struct Prober {
    method: Method,
    health: config::Health,
    source: Vec<ZonedIp>,
    proxy: Option<ProxyVersion>,
    tls: Option<Arc<Client>>,
    takes_leave: bool,
}

enum Method {
    Dns(dns::Dns),
    Exchange(exchange::Exchange),
    Http(http::Http),
    Tcp,
    Udp(udp::Udp),
}

impl Prober {
    /// `None` if the pool is not probed.
    pub fn new(pool: &config::Pool) -> Option<Prober> {
        let health = &pool.health;
        let method = match &health.probe {
            config::Probe::Exchange(own) => Method::Exchange(exchange::Exchange::new(
                own.send.as_deref(),
                own.expect.as_ref(),
                own.standby.as_ref(),
            )),
            config::Probe::Http(own) => Method::Http(http::Http::new(
                &own.path,
                own.host.as_deref(),
                &own.status,
                &own.standby,
            )),
            config::Probe::Dns(own) => Method::Dns(dns::Dns::new(&own.name, own.record)),
            config::Probe::None => return None,
            config::Probe::Auto | config::Probe::Tcp => Method::Tcp,
            config::Probe::Udp(own) => {
                Method::Udp(udp::Udp::new(own.send.as_deref(), own.expect.as_ref()))
            }
        };
        let source = pool.source.clone();
        let (health, tls) = (health.clone(), pool.tls.clone());
        let takes_leave = parting::is_affordable(pool);
        Some(Prober { method, health, source, proxy: proxy(pool), tls, takes_leave })
    }

    /// Whether a new prober for `pool` would probe in the same way.
    pub fn is_of(&self, pool: &config::Pool) -> bool {
        self.health == pool.health
            && self.source == pool.source
            && self.proxy == proxy(pool)
            && self.tls == pool.tls
            && self.takes_leave == parting::is_affordable(pool)
    }

    /// Probes once; the timeout is for the whole probe.
    pub async fn probe(&self, address: &SockAddr) -> (Outcome, Parting) {
        let begun = Instant::now();
        let (heard, used) = (Heard::default(), RefCell::default());
        let attempt = self.attempt(address, &heard, &used);
        let ended = tokio::time::timeout(self.health.timeout, attempt).await;
        let took = begun.elapsed();
        let ended = ended.unwrap_or_else(|_| self.out_of_time(&heard));
        let closes_by_itself = matches!(self.method, Method::Http(_));
        let stream = used.into_inner().filter(|_| self.takes_leave);
        let patience = parting::patience(&self.health);
        let leave = stream.map(|stream| Leave { stream, closes_by_itself, patience });
        (self.outcome(ended, &heard, took), Parting(leave))
    }

    fn outcome(&self, ended: Result<(), Fault>, heard: &Heard, took: Duration) -> Outcome {
        match ended {
            Ok(()) => Outcome { result: ProbeResult::Passed, detail: None, took },
            Err(Fault { result, detail: Some(detail), shows_reply: true })
                if !heard.is_nothing() =>
            {
                let said = heard.shown(self.sent());
                Outcome { result, detail: Some(format!("{detail}; it said {said}").into()), took }
            }
            Err(Fault { result, detail, .. }) => Outcome { result, detail, took },
        }
    }

    /// Only silence is a timeout: any bytes may be an error message, and must be shown.
    fn out_of_time(&self, heard: &Heard) -> Result<(), Fault> {
        match &self.method {
            Method::Udp(udp) if udp.passes_in_silence() => Ok(()),
            _ if heard.is_nothing() => Err(Fault::of(ProbeResult::Timeout)),
            Method::Dns(_) => Err(Fault::mismatch("not the expected reply")),
            _ => Err(Fault::unexpected("not the expected reply")),
        }
    }

    /// Text that may come back in a reply, and must be hidden.
    fn sent(&self) -> &[u8] {
        match &self.method {
            Method::Dns(_) | Method::Tcp => &[],
            Method::Exchange(exchange) => exchange.sent(),
            Method::Http(http) => http.sent(),
            Method::Udp(udp) => udp.sent(),
        }
    }

    /// A connection that was made and is no longer needed is left in `used`.
    async fn attempt(
        &self,
        address: &SockAddr,
        heard: &Heard,
        used: &RefCell<Option<Stream>>,
    ) -> Result<(), Fault> {
        let stream = || tcp::connect(address, &self.source, self.proxy, self.tls.as_deref());
        let datagrams = || udp::open(address, &self.source);
        // The header says that the connection is maitred's own. Version 1 does not exist for datagrams.
        let is_told = self.proxy == Some(ProxyVersion::V2);
        let header = if is_told { v2::write_local() } else { Vec::new() };
        let mut stream = match &self.method {
            Method::Dns(dns) => return dns.run(datagrams()?, &header, heard).await,
            Method::Udp(udp) => return udp.run(datagrams()?, &header, heard).await,
            Method::Exchange(_) | Method::Http(_) | Method::Tcp => stream().await?,
        };
        let ended = match &self.method {
            Method::Exchange(exchange) => exchange.run(&mut stream, heard).await,
            Method::Http(http) => http.run(&mut stream, address, heard).await,
            _ => Ok(()),
        };
        *used.borrow_mut() = Some(stream);
        ended
    }
}
