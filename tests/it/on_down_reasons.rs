//! `on_down_reasons`: what happens to sessions by the reason for which their backend is lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Config, OnDown, OnDownReasons, Probe, StatusRange};
use maitred::data::pool::backend::BackendState;

use crate::balancer::{self, Balancer, wait_for};
use crate::by_hand::Program;
use crate::server::{Conduct, Server, first_byte};

const WELL: Conduct = Conduct::Answer("HTTP/1.1 200 OK\r\n\r\n");
const REPLICA: Conduct = Conduct::Answer("HTTP/1.1 503 Service Unavailable\r\n\r\n");

/// A session on a backend whose health is on a port of its own.
struct Scene {
    // Dropped before the balancer, which waits for its sessions to end.
    client: TcpStream,
    server: TcpStream,
    balancer: Balancer,
    config: Config,
    health: Option<Server>,
}

impl Scene {
    fn new(on_down: OnDown, on_down_reasons: OnDownReasons) -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let health = Server::start(WELL);
        let mut config = balancer::config(&[listener.local_addr().unwrap()]);
        let pool = balancer::pool(&mut config);
        (pool.on_down, pool.on_down_reasons) = (on_down, on_down_reasons);
        let status = |first, last| vec![StatusRange { first, last }];
        pool.health = config::Health {
            probe: Probe::Http(config::Http {
                path: "/".into(),
                host: None,
                status: status(200, 200),
                standby: status(503, 503),
            }),
            port: Some(health.address.port()),
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(500),
            ..config::Pool::default().health
        };
        let balancer = Balancer::start(config.clone());
        let client = TcpStream::connect(balancer.address()).unwrap();
        let server = listener.accept().unwrap().0;
        let mut scene = Scene { balancer, config, client, server, health: Some(health) };
        scene.goes_on();
        scene.wait_until(BackendState::Up);
        scene
    }

    fn wait_until(&self, state: BackendState) {
        wait_for(&format!("{state:?}"), || {
            let snapshot = self.balancer.supervisor().plane.snapshot.load();
            let found = snapshot.pools["main"].backends[0].status().state;
            found == state
        });
    }

    fn goes_on(&mut self) {
        self.client.write_all(b"x").unwrap();
        assert_eq!(first_byte(&mut self.server), Some('x'));
    }

    fn is_cut(&mut self, reason: CloseReason) {
        for side in [&mut self.client, &mut self.server] {
            side.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(side.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(self.balancer.ending(), (Stage::Relay, reason));
    }

    fn remove_backend(&mut self) {
        let mut config = self.config.clone();
        balancer::pool(&mut config).backends =
            vec![balancer::backend("127.0.0.1:9".parse().unwrap())];
        self.balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    }
}

#[test]
fn a_backend_that_is_dead_and_one_of_another_role_are_two_things() {
    let dead = OnDownReasons { dead: Some(OnDown::Keep), ..Default::default() };
    let mut scene = Scene::new(OnDown::Reset, dead);
    let refusal = scene.health.take().unwrap().kill();
    scene.wait_until(BackendState::Down);
    scene.goes_on();
    let _health = refusal.revive(REPLICA);
    scene.wait_until(BackendState::Standby);
    scene.is_cut(CloseReason::BackendDown);

    let wrong_role = OnDownReasons { wrong_role: Some(OnDown::Reset), ..Default::default() };
    let mut scene = Scene::new(OnDown::Keep, wrong_role);
    let refusal = scene.health.take().unwrap().kill();
    scene.wait_until(BackendState::Down);
    scene.goes_on();
    let _health = refusal.revive(REPLICA);
    scene.is_cut(CloseReason::BackendDown);
}

#[test]
fn those_on_a_removed_backend_stay_unless_it_is_said_otherwise() {
    let mut scene = Scene::new(OnDown::Reset, OnDownReasons::default());
    scene.remove_backend();
    scene.goes_on();
    for removed in [OnDown::Reset, OnDown::Drain(Duration::from_millis(300))] {
        let removed = OnDownReasons { removed: Some(removed), ..Default::default() };
        let mut scene = Scene::new(OnDown::Keep, removed);
        scene.remove_backend();
        scene.is_cut(CloseReason::BackendRemoved);
    }
}

#[test]
fn who_comes_back_while_its_sessions_are_drained_keeps_them() {
    let drain = OnDown::Drain(Duration::from_millis(500));
    let removed = OnDownReasons { removed: Some(drain), ..Default::default() };
    let mut scene = Scene::new(OnDown::Keep, removed);
    scene.remove_backend();
    let again = scene.config.clone();
    scene.balancer.supervisor.as_mut().unwrap().reload(again).unwrap();
    // Nothing to wait for: it is about what does not happen, for longer than the drain and a tick.
    std::thread::sleep(Duration::from_millis(800));
    scene.goes_on();
}

#[test]
fn a_removed_pool_is_removed_with_all_its_backends() {
    let reset = OnDownReasons { removed: Some(OnDown::Reset), ..Default::default() };
    let mut scene = Scene::new(OnDown::Keep, reset);
    let mut config = scene.config.clone();
    balancer::pool(&mut config).name = "other".into();
    balancer::listener(&mut config).pool = Some("other".into());
    scene.balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    scene.is_cut(CloseReason::BackendRemoved);
}

#[test]
fn a_maintenance_has_a_rule_of_its_own() {
    let (a, b) = (Server::start(Conduct::Say(&["a"])), Server::start(Conduct::Say(&["b"])));
    let program = Program::start(&format!(
        "backends: [{{address: \"{}\", name: a}}, {{address: \"{}\", name: b}}], on_down: keep, \
         on_down_reasons: {{by_hand: reset}}",
        a.address, b.address
    ));
    let mut open: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(program.address()).unwrap()).collect();
    assert!(open.iter_mut().all(|stream| first_byte(stream).is_some()));
    program.does(&["backend", "maintenance", "main", "a"]);
    wait_for("its session to be gone", || program.backend("a")["sessions_active"] == 0);
    assert_eq!(program.backend("b")["sessions_active"], 1);
}

/// Only the lists are shared by versions of a pool; its settings are those in force.
#[test]
fn the_settings_in_force_count() {
    let mut scene = Scene::new(OnDown::Keep, OnDownReasons::default());
    let mut config = scene.config.clone();
    let reset = OnDownReasons { removed: Some(OnDown::Reset), ..Default::default() };
    Arc::make_mut(&mut config.pools[0]).on_down_reasons = reset;
    scene.balancer.supervisor.as_mut().unwrap().reload(config.clone()).unwrap();
    scene.config = config;
    scene.goes_on();
    scene.remove_backend();
    scene.is_cut(CloseReason::BackendRemoved);
}
