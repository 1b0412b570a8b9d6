//! The status page as it is served: what it may do, what it says without a script, and how large it gets.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use maitred::admin::State;
use maitred::admin::page::{policy, render};
use maitred::config::{self, Config, NamePattern};
use maitred::data::pool::backend::BackendState;
use maitred::telemetry::events::EventKind;
use maitred::telemetry::history::{History, POINTS, POOLS, STEP};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::admin::state;
use crate::balancer::{self, Balancer, loopback};

/// A state of this configuration, with nobody to ask for changes.
fn serve(config: Config) -> (Balancer, State) {
    let balancer = Balancer::start(config);
    let state = state(&balancer, None, mpsc::channel(1).0);
    (balancer, state)
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin} in {text}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {begin}")).0
}

/// Pools `pool-0`, `pool-1`, … of so many backends each, named `backend-0`, … of addresses nobody has.
fn many(pools: usize, backends: usize) -> Config {
    let mut config = balancer::config(&[]);
    let address = |number: usize| {
        let [.., a, b, c] = number.to_be_bytes();
        std::net::SocketAddr::from(([127, a + 1, b, c], 9))
    };
    let pool = |pool: usize| {
        let backend = |number: usize| config::Backend {
            name: format!("backend-{number}").into(),
            ..balancer::backend(address(number))
        };
        let name = format!("pool-{pool}").into();
        let backends = (0..backends).map(backend).collect();
        Arc::new(config::Pool { name, backends, ..(*balancer::config(&[]).pools[0]).clone() })
    };
    config.pools = (0..pools).map(pool).collect();
    balancer::listener(&mut config).pool = Some("pool-0".into());
    config
}

fn set(state: &State, pool: &str, backend: &str, to: BackendState, why: &str) {
    let snapshot = state.sources.plane.snapshot.load();
    let backend = snapshot.pools[pool].backends.iter().find(|it| &*it.name == backend).unwrap();
    assert!(backend.set_state(to, why, Instant::now(), SystemTime::now()));
}

#[test]
fn a_browser_may_run_the_script_and_use_the_style_that_are_in_the_page_and_nothing_else() {
    let (_balancer, state) = serve(many(1, 1));
    let page = render(&state);
    let header = policy::header();
    let header = header.to_str().unwrap();
    for (element, begin) in [("style", "<style>"), ("script", "<script>")] {
        assert_eq!(page.matches(begin).count(), 1);
        let text = between(&page, begin, &format!("</{element}>"));
        let allowed = between(header, &format!("{element}-src 'sha256-"), "'");
        let digest: String = Sha256::digest(text).iter().map(|it| format!("{it:02x}")).collect();
        assert_eq!(sha256_of(allowed), digest, "{element}");
    }
    let rest = header.replace(|letter: char| !letter.is_ascii_lowercase() && letter != '-', " ");
    assert!(header.starts_with("default-src 'none'; ") && !rest.contains("unsafe"), "{header}");
    for policy in
        ["connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    {
        assert!(header.contains(policy), "{policy}");
    }
    // What the policy would refuse is not there.
    for refused in
        [" style=", " onclick=", " src=", "<link", "<img", "url(", "@import", "innerHTML"]
    {
        assert!(!page.contains(refused), "{refused}");
    }
}

/// As hexadecimal, from base64.
fn sha256_of(base64: &str) -> String {
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sixes = base64.trim_end_matches('=').chars().map(|letter| letters.find(letter).unwrap());
    let bits: String = sixes.map(|six| format!("{six:06b}")).collect();
    let nibbles = (0..64).map(|at| u8::from_str_radix(&bits[4 * at..4 * at + 4], 2).unwrap());
    nibbles.map(|nibble| format!("{nibble:x}")).collect()
}

#[test]
fn without_a_script_it_is_a_table_that_is_fetched_again() {
    let (_listener, address) = loopback();
    let (_balancer, state) = serve(balancer::config(&[address]));
    set(&state, "main", &address.to_string(), BackendState::Down, "refused");
    let page = render(&state);
    assert!(page.contains("<noscript><meta http-equiv=refresh content=5></noscript>"));
    assert!(page.starts_with("<!doctype html><html lang=en>"));
    assert_eq!(between(&page, "<title>", "<"), "maitred: no backend up in main");
    let visible = between(&page, "<main", "</main>");
    assert!(visible.contains("No backend up in pool main; 1 of 1 backend down"), "{visible}");
    assert!(visible.contains(&address.to_string()) && visible.contains("✕ down"));
    // Nothing was looked at yet: that is no 0.
    let row = between(visible, "<tbody role=rowgroup>", "</tr>");
    assert!(row.contains(">–</td>") && row.contains(">0</td>"), "{row}");
    assert!(visible.contains("0: no session has failed since the start."));
    let headings = visible.split("<h").skip(1).filter_map(|it| it.chars().next()?.to_digit(10));
    let headings: Vec<u32> = headings.collect();
    assert_eq!(headings[..2], [1, 2]);
    assert!(headings.windows(2).all(|two| two[1] <= two[0] + 1), "{headings:?}");
    assert_eq!(visible.matches("<table").count(), visible.matches("<caption>").count());
}

#[test]
fn what_comes_from_outside_cannot_become_markup() {
    let mut config = many(1, 1);
    let evil = "</script><script>alert(1)</script>&\"'";
    let pool = balancer::pool(&mut config);
    pool.backends[0].name = evil.into();
    let (_balancer, state) = serve(config);
    set(&state, "pool-0", evil, BackendState::Down, evil);
    state.events.note(EventKind::Reload, evil.to_owned());
    state.sources.reloads.was_refused(evil);
    let page = render(&state);
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains(evil) && !page.contains("&\"'"));
    let escaped = "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;";
    // Its row's name, key, button and reason, the event, and the note on the reload.
    assert!(page.matches(escaped).count() >= 6, "{}", page.matches(escaped).count());
}

#[test]
fn routes_are_said_and_flows_only_where_there_may_be_any() {
    let mut config = many(1, 1);
    let names = |names: &[&str]| names.iter().map(|it| NamePattern::Exact((*it).into())).collect();
    balancer::listener(&mut config).routes = vec![config::Route {
        server_name: names(&["a.test", "<b>"]),
        alpn: vec![b"h2".to_vec()],
        client: Vec::new(),
        port: None,
        pool: None,
    }];
    let (_balancer, state) = serve(config);
    let page = render(&state);
    assert!(page.contains("<small>a.test, &lt;b&gt; and ALPN h2 → closed</small>"), "{page}");
    assert!(!page.contains("flows open</dt>"));
    let mut config = many(1, 1);
    balancer::listener(&mut config).protocol = config::Protocol::Udp;
    let (_balancer, state) = serve(config);
    assert!(render(&state).contains("<dt>flows open</dt>"));
}

#[test]
fn thousands_of_backends_make_a_page_of_some_hundred_rows_with_those_in_trouble_first() {
    let (_balancer, state) = serve(many(10, 500));
    set(&state, "pool-9", "backend-499", BackendState::Down, "refused");
    set(&state, "pool-8", "backend-77", BackendState::Drain, "by hand");
    let page = render(&state);
    let rows = page.matches("data-act=").count();
    assert!((450..=500).contains(&rows), "{rows} rows");
    assert!(page.len() < 600_000, "{} bytes", page.len());
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not shown"));
    let first_up = place("● up");
    assert!(place("✕ down") < place("◐ drain") && place("◐ drain") < first_up);
    let hidden = format!("{} backends are not shown here", 5000 - rows);
    assert!(page.contains(&hidden) && page.contains("maitred show pools"), "{hidden}");
    // The pools have the same servers, and each counts once.
    assert!(page.contains("1 of 500 backends down, 1 drained by hand"));
}

#[test]
fn a_thousand_pools_make_a_bounded_page_and_a_bounded_history() {
    let (_balancer, state) = serve(many(1000, 1));
    state.history.look(&state.sources.plane, Instant::now() + STEP, SystemTime::now());
    let page = render(&state);
    assert!(page.len() < 600_000, "{} bytes", page.len());
    assert_eq!(page.matches("<h3>").count(), 250, "a head and a row for each");
    assert!(page.contains("750 backends are not shown here"));
    assert_eq!(state.history.kept().pools.len(), POOLS);
}

#[test]
fn an_empty_pool_and_a_drain_are_said() {
    let (_balancer, state) = serve(many(2, 0));
    let page = render(&state);
    assert_eq!(page.matches("This pool has no backends.").count(), 2);
    state.sources.plane.draining.store(true, Relaxed);
    assert!(render(&state).contains("Draining: no new sessions"));
}

/// WCAG 2: relative luminance.
fn luminance(color: &str) -> f64 {
    let part = |at: usize| f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
    let linear =
        |it: f64| if it <= 0.04045 { it / 12.92 } else { ((it + 0.055) / 1.055).powf(2.4) };
    0.2126 * linear(part(0)) + 0.7152 * linear(part(2)) + 0.0722 * linear(part(4))
}

#[test]
fn every_text_stands_out_from_what_it_is_on_light_and_dark() {
    let (_balancer, state) = serve(many(1, 1));
    let page = render(&state);
    let style = between(&page, "<style>", "</style>");
    for scheme in [
        between(style, "color-scheme:light dark;", "}"),
        between(style, "@media(prefers-color-scheme:dark){:root{", "}"),
    ] {
        let color = |name: &str| {
            let (_, value) = scheme.split_once(&format!("--{name}:#")).unwrap();
            luminance(&value[..6])
        };
        for ground in ["ground", "card", "bad-tint", "odd-tint", "good-tint"] {
            for ink in ["ink", "soft", "good", "bad", "odd", "link", "one", "two"] {
                let (one, other) = (color(ground), color(ink));
                let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(contrast >= 4.5, "{ink} on {ground}: {contrast:.2}");
            }
        }
    }
}

#[test]
fn the_history_of_an_hour_is_kept_and_goes_with_its_pool() {
    let (listener, address) = loopback();
    let (mut balancer, state) = serve(balancer::config(&[address]));
    let plane = &state.sources.plane;
    let (begun, wall) = (Instant::now(), SystemTime::now());
    let history = History::new(begun, wall);
    let mut passed = Duration::ZERO;
    let mut look = |history: &History, steps: u32| {
        passed += STEP * steps;
        history.look(plane, begun + passed, wall + passed);
    };
    let client = std::net::TcpStream::connect(balancer.address()).unwrap();
    let (server, _) = listener.accept().unwrap();
    balancer::wait_for("the session to be counted", || plane.open_sessions() == 1);
    let live = Arc::clone(&plane.snapshot.load().pools["main"].backends[0].live);
    balancer::wait_for("the backend's", || live.counters.sum(|it| it.sessions.value()) == 1);
    look(&history, 1);
    {
        let kept = history.kept();
        assert_eq!(kept.all[0].sessions_active.to_bits(), 1f32.to_bits());
        assert!((kept.all[0].rates.sessions - 0.1).abs() < 1e-6, "one in ten seconds");
        assert!((kept.backend(&live).unwrap().sessions - 0.1).abs() < 1e-6);
        assert_eq!(&*kept.pools[0].0, "main");
        assert!((kept.pools[0].1[0].rates.sessions - 0.1).abs() < 1e-6);
    }
    drop((client, server));
    balancer.endings(1);
    look(&history, 3);
    {
        let kept = history.kept();
        assert_eq!(kept.all.len(), 4, "a late look stands for the time it took");
        assert_eq!(kept.all[3], Default::default());
    }
    for _ in 0..POINTS {
        look(&history, 1);
    }
    assert_eq!(history.kept().all.len(), POINTS);
    assert_eq!(history.kept().pools[0].1.len(), POINTS);
    assert_eq!(history.kept().end, wall + STEP * 364);
    let mut other = balancer::config(&[address]);
    balancer::pool(&mut other).name = "other".into();
    balancer::listener(&mut other).pool = Some("other".into());
    balancer.supervisor.as_mut().unwrap().reload(other).unwrap();
    look(&history, 1);
    let kept = history.kept();
    let names: Vec<_> = kept.pools.iter().map(|(name, series)| (&**name, series.len())).collect();
    assert_eq!(names, [("other", 1)]);
    assert!(kept.backend(&live).is_none(), "its counters are no longer looked at");
}

#[test]
fn the_history_begins_with_nothing() {
    let history = History::new(Instant::now(), SystemTime::now());
    assert!(history.kept().all.is_empty());
    assert!(Duration::from_secs(3600) == STEP * POINTS as u32);
}
