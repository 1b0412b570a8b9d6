//! Every metric, by name, and how a scrape fills it. Names are API: dashboards are written against them. Labels come
//! from the configuration and discovery, never from a client.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use prometheus::core::Collector;
use prometheus::proto::{
    Bucket, Counter as CounterValue, Gauge, Histogram as HistogramValue, LabelPair, Metric,
    MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

use crate::border::counters::{Histogram, PerWorker};
use crate::border::datagrams::{Direction, Dropped};
use crate::border::plane::Plane;
use crate::border::record::{CloseReason, Stage, can_occur};
use crate::border::snapshot::Terms;
use crate::config::{DownReason, Protocol, Single};
use crate::data::pool::backend::{Backend, BackendState, CONNECT_BOUNDS, Live};
use crate::data::pool::finding::Reason;
use crate::data::pool::fitness::ProbeResult;
use crate::data::pool::slots::{WEIGHT_UNIT, Weights};
use crate::data::pool::{Pool, PoolCounters, SESSION_BOUNDS};
use crate::telemetry::reloads::Reloads;

use super::metric_table::Kind::{Counter, Distribution, Value};
pub use super::metric_table::METRICS;

/// What a scrape reads besides the plane.
pub struct Sources {
    pub plane: Arc<Plane>,
    pub reloads: Arc<Reloads>,
    /// Dropped lines of the program's own log; those of the session log are in the plane.
    pub log_dropped: Arc<crate::border::counters::SharedCounter>,
}

/// The whole exposition, in the text format 0.0.4.
pub fn exposition(sources: &Sources) -> String {
    let mut page = Page::default();
    page.process(sources);
    let snapshot = sources.plane.snapshot.load_full();
    let departed = sources.plane.departed.load_full();
    for listener in snapshot.listeners.values() {
        page.listener(listener, &sources.reloads);
        page.access_files(listener, &sources.reloads);
    }
    for listener in departed.listeners.iter().filter(|listener| listener.is_in_use()) {
        page.listener(listener, &sources.reloads);
    }
    for pool in snapshot.pools.values() {
        page.pool(pool);
    }
    for pool in departed.pools.iter().filter(|pool| pool.is_in_use()) {
        page.pool(pool);
    }
    let mut families = page.finish();
    families.extend(prometheus::process_collector::ProcessCollector::for_self().collect());
    let mut text = Vec::new();
    match TextEncoder::new().encode(&families, &mut text) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        // Only a family without metrics fails to encode, and `finish` leaves those out.
        Err(error) => format!("# {error}\n"),
    }
}

/// Families that are being filled.
#[derive(Default)]
struct Page {
    families: BTreeMap<&'static str, Vec<Metric>>,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    fn counter(&mut self, name: &'static str, labels: Labels, value: f64) {
        let mut counter = CounterValue::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        self.families.entry(name).or_default().push(metric);
    }

    fn value(&mut self, name: &'static str, labels: Labels, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_gauge(gauge);
        self.families.entry(name).or_default().push(metric);
    }

    fn distribution<const N: usize>(
        &mut self,
        name: &'static str,
        pool: &str,
        bounds: &[f64; N],
        parts: &[&Histogram<N>],
    ) {
        let mut below = 0;
        let buckets = bounds.iter().enumerate().map(|(index, bound)| {
            below += parts.iter().map(|part| part.bucket(index)).sum::<u64>();
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(below);
            bucket.set_upper_bound(*bound);
            bucket
        });
        let mut histogram = HistogramValue::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(parts.iter().map(|part| part.count()).sum());
        histogram.set_sample_sum(parts.iter().map(|part| part.sum_seconds()).sum());
        let mut metric = Metric::from_label(pairs(&[("pool", pool)]));
        metric.set_histogram(histogram);
        self.families.entry(name).or_default().push(metric);
    }

    fn finish(mut self) -> Vec<MetricFamily> {
        let families = METRICS.iter().filter_map(|(name, kind, help)| {
            let metrics = self.families.remove(name)?;
            let mut family = MetricFamily::default();
            family.set_name((*name).to_owned());
            family.set_help((*help).to_owned());
            family.set_field_type(match kind {
                Counter => MetricType::COUNTER,
                Distribution => MetricType::HISTOGRAM,
                Value => MetricType::GAUGE,
            });
            family.set_metric(metrics);
            Some(family)
        });
        let families = families.collect();
        debug_assert!(self.families.is_empty(), "every metric stands in METRICS");
        families
    }

    fn process(&mut self, sources: &Sources) {
        let plane = &sources.plane;
        let errors = &plane.accept_errors;
        for (reason, count) in [
            ("aborted", &errors.aborted),
            ("no_descriptors", &errors.no_descriptors),
            ("no_memory", &errors.no_memory),
            ("other", &errors.other),
        ] {
            self.counter(
                "maitred_accept_errors_total",
                &[("reason", reason)],
                float(count.value()),
            );
        }
        self.value("maitred_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let sha256 = plane.snapshot.load().config.sha256.clone();
        self.value("maitred_config_info", &[("sha256", &sha256)], 1.0);
        let reloads = &sources.reloads;
        let successful = reloads.last_succeeded.load(Relaxed);
        self.value("maitred_config_last_reload_successful", &[], flag(successful));
        let time = float(reloads.last_success.load(Relaxed));
        self.value("maitred_config_last_reload_timestamp_seconds", &[], time);
        for (result, count) in [
            ("applied", &reloads.applied),
            ("refused", &reloads.refused),
            ("unchanged", &reloads.unchanged),
        ] {
            self.counter("maitred_reloads_total", &[("result", result)], float(count.value()));
        }
        self.value("maitred_draining", &[], flag(plane.draining.load(Relaxed)));
        let dropped = sources.log_dropped.value() + plane.session_log.dropped.value();
        self.counter("maitred_log_dropped_total", &[], float(dropped));
        self.value("maitred_sessions_limit", &[], float(plane.gate.limit()));
        let ports = &plane.source_ports;
        self.value("maitred_source_ports_in_use", &[], float(ports.in_use.load(Relaxed) as u64));
        let exhausted = float(ports.exhausted.value());
        self.counter("maitred_source_ports_exhausted_total", &[], exhausted);
        let sum = |read: fn(&crate::border::plane::WorkerLoad) -> u64| {
            float(plane.workers.iter().map(|worker| read(worker)).sum())
        };
        let copied = sum(|worker| worker.copied_bytes.value() + worker.udp_bytes.value());
        self.counter("maitred_session_bytes_total", &[("path", "copy")], copied);
        let spliced = sum(|worker| worker.spliced_bytes.value());
        self.counter("maitred_session_bytes_total", &[("path", "splice")], spliced);
        for (id, worker) in plane.workers.iter().enumerate() {
            let busy = worker.busy().as_secs_f64();
            self.counter("maitred_worker_busy_seconds_total", &[("worker", &id.to_string())], busy);
        }
    }

    fn listener(&mut self, listener: &Terms, reloads: &Reloads) {
        let name: &str = &listener.config.name;
        let protocol = listener.config.protocol.as_str();
        let labels: Labels = &[("listener", name), ("protocol", protocol)];
        let counters = &listener.live.counters;
        let sum =
            |read: fn(&crate::border::snapshot::ListenerCounters) -> u64| float(counters.sum(read));
        let accepted = sum(|cell| cell.sessions.value());
        self.counter("maitred_listener_sessions_total", labels, accepted);
        let active = float(listener.live.active.load(Relaxed));
        self.value("maitred_listener_sessions_active", labels, active);
        let limit = listener.config.session_limit().map_or(f64::INFINITY, float);
        self.value("maitred_listener_sessions_limit", labels, limit);
        if let Some(tls) = &listener.config.tls {
            let name = "maitred_tls_certificate_expiry_timestamp_seconds";
            self.value(name, &labels[..1], tls.expires as f64);
            let stale = reloads.stale_files();
            let is_read = !tls.files().any(|file| stale.contains_key(file));
            self.value("maitred_tls_files_last_read_successful", &labels[..1], flag(is_read));
        }
        let received = sum(|cell| cell.received_bytes.value());
        self.counter("maitred_listener_received_bytes_total", labels, received);
        self.counter(
            "maitred_listener_sent_bytes_total",
            labels,
            sum(|cell| cell.sent_bytes.value()),
        );
        for reason in CloseReason::ALL {
            for stage in Stage::ALL
                .into_iter()
                .filter(|stage| can_occur(listener.config.protocol, *stage, reason))
            {
                let count = counters.sum(|cell| cell.closed(stage, reason).value());
                let labels: Labels =
                    &[("listener", name), ("stage", stage.as_str()), ("reason", reason.as_str())];
                self.counter("maitred_session_closed_total", labels, float(count));
            }
            if let Some(refused) = listener.refused(reason) {
                let labels: Labels =
                    &[("listener", name), ("protocol", protocol), ("reason", reason.as_str())];
                self.counter("maitred_listener_refused_total", labels, float(refused));
            }
        }
        if listener.config.protocol == Protocol::Udp {
            self.datagrams(listener, name);
        }
    }

    fn access_files(&mut self, listener: &Terms, reloads: &Reloads) {
        for (list, file) in listener.config.net_files() {
            let labels: Labels = &[("listener", &listener.config.name), ("list", list)];
            let is_read = !reloads.stale_files().contains_key(&file.path);
            self.value("maitred_access_file_last_read_successful", labels, flag(is_read));
        }
    }

    fn datagrams(&mut self, listener: &Terms, name: &str) {
        let counters = &listener.live.datagrams;
        let labels: Labels = &[("listener", name)];
        let active = float(listener.live.active.load(Relaxed));
        self.value("maitred_udp_flows_active", labels, active);
        let begun = float(counters.sum(|cell| cell.flows.value()));
        self.counter("maitred_udp_flows_total", labels, begun);
        for direction in Direction::ALL {
            let labels: Labels = &[("listener", name), ("direction", direction.as_str())];
            let count = counters.sum(|cell| cell.passed(direction).value());
            self.counter("maitred_udp_datagrams_total", labels, float(count));
        }
        for reason in Dropped::ALL {
            let labels: Labels = &[("listener", name), ("reason", reason.as_str())];
            let count = counters.sum(|cell| cell.dropped(reason).value());
            self.counter("maitred_udp_dropped_total", labels, float(count));
        }
    }

    fn pool(&mut self, pool: &Pool) {
        let name: &str = &pool.name;
        let labels: Labels = &[("pool", name)];
        self.counter(
            "maitred_pool_no_backend_total",
            labels,
            float(pool.shared.no_backend.value()),
        );
        let held = float(u64::from(pool.shared.queue.held()));
        self.value("maitred_pool_held_sessions", labels, held);
        if pool.config.single != Single::None {
            let conflict = flag(pool.shared.is_in_conflict.load(Relaxed));
            self.value("maitred_pool_conflict", labels, conflict);
        }
        let blind = float(u64::from(pool.shared.is_blind.load(Relaxed)));
        self.value("maitred_pool_probe_blind", labels, blind);
        let mut states = [0u64; BackendState::ALL.len()];
        let mut lost = [0u64; DownReason::ALL.len()];
        for backend in &pool.backends {
            let (state, reason) = {
                let status = backend.status();
                (status.state, status.lost)
            };
            states[state as usize] += 1;
            if let Some(reason) = reason {
                lost[reason as usize] += 1;
            }
            self.backend(backend, state);
        }
        for reason in DownReason::ALL {
            let labels: Labels = &[("pool", name), ("reason", reason.as_str())];
            self.value("maitred_pool_lost_backends", labels, float(lost[reason as usize]));
        }
        for state in BackendState::ALL {
            let labels: Labels = &[("pool", name), ("state", state.as_str())];
            self.value("maitred_pool_backends", labels, float(states[state as usize]));
        }
        for (backend, live) in pool.departed() {
            self.live(name, backend, &live);
        }
        self.discovery(pool, labels);
        let cells = &pool.shared.counters;
        let connect = parts(cells, |cell| &cell.connect_duration);
        self.distribution(
            "maitred_backend_connect_duration_seconds",
            name,
            &CONNECT_BOUNDS,
            &connect,
        );
        let first = parts(cells, |cell| &cell.first_byte_duration);
        self.distribution(
            "maitred_backend_first_byte_duration_seconds",
            name,
            &CONNECT_BOUNDS,
            &first,
        );
        let probe = [&pool.shared.probe_duration];
        self.distribution("maitred_probe_duration_seconds", name, &CONNECT_BOUNDS, &probe);
        let session = parts(cells, |cell| &cell.session_duration);
        self.distribution("maitred_session_duration_seconds", name, &SESSION_BOUNDS, &session);
    }

    /// For a pool that does not list all its backends.
    fn discovery(&mut self, pool: &Pool, labels: Labels) {
        let finding = &pool.shared.finding;
        let Some(last) = finding.last() else { return };
        let success = last.success.and_then(|it| it.duration_since(SystemTime::UNIX_EPOCH).ok());
        let seconds = success.map_or(0.0, |since| since.as_secs_f64());
        self.value("maitred_discovery_last_success_timestamp_seconds", labels, seconds);
        for reason in Reason::ALL {
            let labels: Labels = &[("pool", &pool.name), ("reason", reason.as_str())];
            let count = float(finding.failures(reason));
            self.counter("maitred_discovery_failures_total", labels, count);
        }
    }

    /// Metrics that only a configured backend has.
    fn backend(&mut self, backend: &Backend, now: BackendState) {
        let (pool, name): (&str, &str) = (&backend.pool, &backend.name);
        let labels: Labels = &[("pool", pool), ("backend", name)];
        let limit = backend.max_sessions.map_or(f64::INFINITY, f64::from);
        self.value("maitred_backend_sessions_limit", labels, limit);
        let weight = backend.live.slot.hot().weight(Weights::Effective);
        self.value("maitred_backend_weight", labels, f64::from(weight) / f64::from(WEIGHT_UNIT));
        for state in BackendState::ALL {
            let labels: Labels = &[("pool", pool), ("backend", name), ("state", state.as_str())];
            self.value("maitred_backend_state", labels, flag(state == now));
        }
        self.live(pool, name, &backend.live);
    }

    /// Metrics that go on until the last session on a backend has ended.
    fn live(&mut self, pool: &str, name: &str, live: &Live) {
        let labels: Labels = &[("pool", pool), ("backend", name)];
        let sum = |read: fn(&crate::data::pool::backend::BackendCounters) -> u64| {
            float(live.counters.sum(read))
        };
        self.counter("maitred_backend_sessions_total", labels, sum(|cell| cell.sessions.value()));
        let active = f64::from(live.slot.hot().in_flight());
        self.value("maitred_backend_sessions_active", labels, active);
        let received = sum(|cell| cell.received_bytes.value());
        self.counter("maitred_backend_received_bytes_total", labels, received);
        self.counter(
            "maitred_backend_sent_bytes_total",
            labels,
            sum(|cell| cell.sent_bytes.value()),
        );
        self.counter("maitred_backend_retries_total", labels, sum(|cell| cell.retries.value()));
        for (reason, count) in live.connect_failures.by_reason() {
            let labels: Labels = &[("pool", pool), ("backend", name), ("reason", reason)];
            self.counter("maitred_backend_connect_failures_total", labels, float(count));
        }
        for result in ProbeResult::ALL {
            let labels: Labels = &[("pool", pool), ("backend", name), ("result", result.as_str())];
            let count = live.probes.of(result).value();
            self.counter("maitred_probes_total", labels, float(count));
        }
        let status = live.status();
        for to in BackendState::ALL {
            let labels: Labels = &[("pool", pool), ("backend", name), ("to", to.as_str())];
            self.counter(
                "maitred_backend_transitions_total",
                labels,
                float(status.transitions(to)),
            );
        }
    }
}

fn parts<const N: usize>(
    cells: &PerWorker<PoolCounters>,
    of: impl Fn(&PoolCounters) -> &Histogram<N>,
) -> Vec<&Histogram<N>> {
    cells.cells().map(of).collect()
}

fn pairs(labels: Labels) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

/// Prometheus has only floats: exact up to 2^53, which no count here reaches in a lifetime.
fn float(count: u64) -> f64 {
    count as f64
}

fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}
