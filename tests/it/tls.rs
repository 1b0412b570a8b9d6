//! TLS over real sockets: ended at the door, spoken to backends, both at once; every byte arrives, endings stay endings,
//! and who does not belong is told apart.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use maitred::border::record::{CloseReason, Stage};
use maitred::config::{
    self, Config, NamePattern, OnRefuse, Probe, ProxyTlvs, ProxyVersion, Route, Source, load,
};
use maitred::control::file_watch::Watch;
use maitred::data::tls::client::{Client, Trust, Wish};
use maitred::data::tls::server;
use maitred::data::tls::{File, Pair};
use maitred::telemetry::metrics::{Sources, exposition};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, StreamOwned};

use crate::balancer::{self, Balancer, loopback, wait_for};
use crate::server::{Conduct, Server};

pub const NAME: &str = "db1.example.com";

/// An authority and what it signed, as PEM files: `ca.pem`, `server.pem`, `other.pem`, `client.pem` and their `.key`.
#[derive(Clone)]
pub struct Files(Arc<tempfile::TempDir>);

impl Files {
    pub fn new() -> Files {
        let files = Files(Arc::new(tempfile::tempdir().unwrap()));
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        files.write("db", "a password\n");
        files.write("db.password", "a password\n");
        files.write("ca.pem", &params.self_signed(&key).unwrap().pem());
        let authority = Issuer::new(params, key);
        files.sign(&authority, "server", &[NAME, "*.pg.example.com", "127.0.0.1"]);
        files.sign(&authority, "other", &["other.example.com"]);
        files.sign(&authority, "client", &["client.example.com"]);
        files
    }

    fn sign(&self, authority: &Issuer<'_, KeyPair>, name: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|it| (*it).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, authority).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0.path().display())
    }

    fn file(&self, name: &str) -> File {
        let text = std::fs::read_to_string(self.path(name)).unwrap();
        File { name: name.to_owned(), text }
    }

    fn pair(&self, name: &str) -> Pair {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        Pair { certificate: self.file(&certificate), key: self.file(&key) }
    }

    fn chain(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let pair = self.pair(name);
        let chain = CertificateDer::pem_slice_iter(pair.certificate.text.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(pair.key.text.as_bytes()).unwrap();
        (chain.map(Result::unwrap).collect(), key)
    }

    /// What a listener is to have.
    pub fn server(&self, client_ca: bool, alpn: &[&str]) -> Option<Arc<server::Server>> {
        let pairs = [self.pair("server"), self.pair("other")];
        let ca = client_ca.then(|| self.file("ca.pem"));
        Some(Arc::new(server::Server::new(&pairs, ca.as_ref(), &bytes(alpn)).unwrap()))
    }

    /// What a pool is to have.
    pub fn client(&self, server_name: Option<&'static str>) -> Option<Arc<Client>> {
        let ca = self.file("ca.pem");
        let own = self.pair("client");
        let wish = Wish {
            server_name: server_name.map(|name| ServerName::try_from(name).unwrap()),
            trust: Trust::File(&ca),
            own: Some(&own),
            alpn: &[],
        };
        Some(Arc::new(Client::new(wish).unwrap()))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let ca = self.file("ca.pem");
        roots.add(CertificateDer::from_pem_slice(ca.text.as_bytes()).unwrap()).unwrap();
        roots
    }

    /// A client of ours.
    pub fn dial(&self, to: SocketAddr, dial: Dial) -> StreamOwned<ClientConnection, TcpStream> {
        connect(to, &self.config(dial), dial.name)
    }

    /// The same on a connection that is there.
    pub fn encrypt(
        &self,
        stream: TcpStream,
        dial: Dial,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        encrypt(stream, &self.config(dial), dial.name)
    }

    fn config(&self, dial: Dial) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[dial.version])
            .unwrap()
            .with_root_certificates(self.roots());
        let mut config = match dial.shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = self.chain(name);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = bytes(dial.alpn);
        Arc::new(config)
    }

    /// What a backend is before a connection.
    fn accept_state(&self, name: &str) -> ServerConnection {
        let (chain, key) = self.chain(name);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        ServerConnection::new(Arc::new(config)).unwrap()
    }

    /// A backend's end of a connection it accepted, in TLS.
    pub fn accept(
        &self,
        listener: &TcpListener,
        name: &str,
    ) -> StreamOwned<ServerConnection, TcpStream> {
        self.serve(listener.accept().unwrap().0, name)
    }

    pub fn serve(&self, stream: TcpStream, name: &str) -> StreamOwned<ServerConnection, TcpStream> {
        StreamOwned::new(self.accept_state(name), stream)
    }
}

#[derive(Clone, Copy)]
pub struct Dial {
    pub name: &'static str,
    pub version: &'static rustls::SupportedProtocolVersion,
    pub alpn: &'static [&'static str],
    pub shows: Option<&'static str>,
}

pub const DIAL: Dial =
    Dial { name: NAME, version: &rustls::version::TLS13, alpn: &[], shows: None };

fn bytes(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|it| it.as_bytes().to_vec()).collect()
}

/// A mebibyte and a bit that no other stream has.
fn text(seed: u8) -> Vec<u8> {
    (0..(1 << 20) + 77_u32).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn door(files: &Files) -> (Config, TcpListener) {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    balancer::listener(&mut config).tls = files.server(false, &[]);
    (config, backend)
}

/// The client says its part and that it is over, then the backend says its own.
fn exchange(
    client: &mut (impl Read + Write + Goodbye),
    mut backend: impl Read + Write + Goodbye + Send,
) {
    std::thread::scope(|scope| {
        let served = scope.spawn(move || {
            let mut got = Vec::new();
            backend.read_to_end(&mut got).unwrap();
            assert!(got == text(1), "{} bytes came to the backend", got.len());
            backend.write_all(&text(2)).unwrap();
            backend.goodbye();
            // Until the balancer has it all.
            let _ = backend.read(&mut [0]);
        });
        client.write_all(&text(1)).unwrap();
        client.goodbye();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == text(2), "{} bytes came to the client", got.len());
        served.join().unwrap();
    });
}

fn connect(
    to: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> StreamOwned<ClientConnection, TcpStream> {
    encrypt(TcpStream::connect(to).unwrap(), config, name)
}

fn encrypt(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from(name).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream)
}

/// What a backend does with a connection.
type End = fn(&Files, TcpStream);

/// Ends what is written, as the protocol does it.
pub trait Goodbye {
    fn goodbye(&mut self);
}

impl Goodbye for TcpStream {
    fn goodbye(&mut self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Goodbye for StreamOwned<ClientConnection, TcpStream> {
    fn goodbye(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
    }
}

impl Goodbye for StreamOwned<ServerConnection, TcpStream> {
    fn goodbye(&mut self) {
        self.conn.send_close_notify();
        self.flush().unwrap();
    }
}

#[test]
fn it_ends_at_the_door() {
    let files = Files::new();
    let (config, backend) = door(&files);
    let balancer = Balancer::start(config);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for name in [NAME, "a.pg.example.com", "other.example.com"] {
            let mut client = files.dial(balancer.address(), Dial { name, version, ..DIAL });
            // The handshake is not the backend's business: it is reached afterwards.
            client.flush().unwrap();
            let backend = backend.accept().unwrap().0;
            exchange(&mut client, backend);
        }
    }
    for record in balancer.endings(6) {
        assert_eq!(record.reason, CloseReason::ClientClosed);
        assert_eq!(record.bytes.client_received, text(1).len() as u64, "payload, not TLS");
        assert_eq!(record.bytes.client_sent, text(2).len() as u64);
        assert!(record.server_name.is_some());
    }
}

#[test]
fn backends_are_spoken_to_in_it() {
    let files = Files::new();
    let (listener, address) = loopback();
    for (at_door, server_name) in [(false, None), (false, Some(NAME)), (true, Some(NAME))] {
        let mut config = balancer::config(&[address]);
        balancer::pool(&mut config).tls = files.client(server_name);
        if at_door {
            balancer::listener(&mut config).tls = files.server(false, &[]);
        }
        let balancer = Balancer::start(config);
        std::thread::scope(|scope| {
            let accepted = scope.spawn(|| {
                let mut backend = files.accept(&listener, "server");
                backend.conn.complete_io(&mut backend.sock).unwrap();
                backend
            });
            if at_door {
                let mut client = files.dial(balancer.address(), DIAL);
                client.flush().unwrap();
                exchange(&mut client, accepted.join().unwrap());
            } else {
                let mut client = TcpStream::connect(balancer.address()).unwrap();
                exchange(&mut client, accepted.join().unwrap());
            }
        });
        assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientClosed));
    }
}

#[test]
fn a_backend_that_is_another_is_not_believed_and_the_next_is_asked() {
    let files = Files::new();
    let (wrong, wrong_address) = loopback();
    let (right, right_address) = loopback();
    let mut config = balancer::config(&[wrong_address, right_address]);
    let pool = balancer::pool(&mut config);
    pool.tls = files.client(Some(NAME));
    pool.balance = config::Balance::FirstAvailable;
    let balancer = Balancer::start(config);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut backend = files.accept(&wrong, "other");
            assert!(backend.conn.complete_io(&mut backend.sock).is_err());
        });
        let accepted = scope.spawn(|| {
            let mut backend = files.accept(&right, "server");
            backend.conn.complete_io(&mut backend.sock).unwrap();
            backend
        });
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        exchange(&mut client, accepted.join().unwrap());
    });
    let record = &balancer.endings(1)[0];
    assert_eq!((record.tried, record.cause.as_deref()), (1, None));
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let failures = &snapshot.pools["main"].backends[0].live.connect_failures;
    assert_eq!(failures.tls_failed.value(), 1);
}

#[test]
fn without_another_backend_the_cause_is_told() {
    let files = Files::new();
    let (listener, address) = loopback();
    let mut config = balancer::config(&[address]);
    balancer::pool(&mut config).tls = files.client(Some(NAME));
    balancer::pool(&mut config).connect.attempts = 1;
    let balancer = Balancer::start(config);
    let ends: [(&str, End); 3] = [
        ("not valid for name", |files, stream| {
            let mut backend = StreamOwned::new(files.accept_state("other"), stream);
            assert!(backend.conn.complete_io(&mut backend.sock).is_err());
        }),
        ("it closed during the handshake", |_, mut stream| {
            let mut seen = [0; 512];
            assert!(stream.read(&mut seen).unwrap() > 0);
            stream.shutdown(Shutdown::Write).unwrap();
            while stream.read(&mut seen).is_ok_and(|count| count > 0) {}
        }),
        ("what it sent is not valid TLS", |_, mut stream| {
            stream.write_all(b"SSH-2.0-OpenSSH_10\r\n").unwrap();
            while stream.read(&mut [0; 512]).is_ok_and(|count| count > 0) {}
        }),
    ];
    for (expected, end) in ends {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        end(&files, listener.accept().unwrap().0);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        wait_for("the record", || {
            balancer
                .records
                .lock()
                .unwrap()
                .iter()
                .any(|record| record.cause.as_ref().is_some_and(|cause| cause.contains(expected)))
        });
    }
    for record in balancer.endings(ends.len()) {
        assert_eq!((record.stage, record.reason), (Stage::Connect, CloseReason::TlsFailed));
    }
}

#[test]
fn who_does_not_fit_is_turned_away_and_the_log_says_why() {
    let files = Files::new();
    let (mut config, _backend) = door(&files);
    let listener = balancer::listener(&mut config);
    listener.tls = files.server(true, &["postgresql"]);
    listener.timeouts.preread = Duration::from_secs(1);
    let balancer = Balancer::start(config);
    let address = balancer.address();
    let known = Dial { shows: Some("client"), alpn: &["postgresql"], ..DIAL };
    let handshake = |dial: Dial| {
        let mut client = files.dial(address, dial);
        // In TLS 1.3 the refusal of a client's certificate comes with what is read next.
        client.write_all(b"x").and_then(|()| client.read(&mut [0]).map(|_| ()))
    };
    let refused = handshake(Dial { shows: None, ..known }).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidData, "an alert came: {refused}");
    let refused = handshake(Dial { alpn: &["h2"], ..known }).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidData, "an alert came: {refused}");
    let mut plain = TcpStream::connect(address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    plain.read_to_end(&mut seen).unwrap();
    let mut silent = TcpStream::connect(address).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    drop(TcpStream::connect(address).unwrap());
    let endings = balancer.endings(5);
    let mut told: Vec<_> = endings.iter().map(|it| (it.reason, it.cause.as_deref())).collect();
    told.sort_by_key(|(reason, cause)| (reason.as_str(), *cause));
    use CloseReason::{ClientClosed, PrereadTimeout, TlsFailed};
    let reasons: Vec<_> = told.iter().map(|(reason, _)| *reason).collect();
    assert_eq!(reasons, [ClientClosed, PrereadTimeout, TlsFailed, TlsFailed, TlsFailed]);
    let causes: Vec<&str> = told.iter().filter_map(|(_, cause)| *cause).collect();
    for expected in ["no certificates", "known protocol", "what it sent is not valid TLS"] {
        assert!(causes.iter().any(|cause| cause.contains(expected)), "{expected}: {causes:?}");
    }
    assert!(endings.iter().all(|record| record.stage == Stage::Preread));
    // Who fits is served.
    let mut client = files.dial(address, known);
    client.flush().unwrap();
    exchange(&mut client, _backend.accept().unwrap().0);
    assert_eq!(client.conn.alpn_protocol(), Some(b"postgresql".as_slice()));
}

#[test]
fn garbage_amid_a_session_ends_it_by_reset() {
    let files = Files::new();
    let (config, backend) = door(&files);
    let balancer = Balancer::start(config);
    let mut client = files.dial(balancer.address(), DIAL);
    client.write_all(b"begun").unwrap();
    let mut backend = backend.accept().unwrap().0;
    backend.read_exact(&mut [0; 5]).unwrap();
    client.sock.write_all(b"this is not a record of TLS").unwrap();
    assert_eq!(backend.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.stage, record.reason), (Stage::Relay, CloseReason::TlsFailed));
    assert!(record.cause.as_ref().unwrap().starts_with("client: "), "{:?}", record.cause);
}

/// A FIN without TLS' own goodbye may be somebody's who cut the connection: towards TLS it must not become one with.
#[test]
fn a_truncated_stream_stays_one() {
    let files = Files::new();
    let (listener, address) = loopback();
    let mut config = balancer::config(&[address]);
    balancer::listener(&mut config).tls = files.server(false, &[]);
    balancer::pool(&mut config).tls = files.client(Some(NAME));
    let balancer = Balancer::start(config);
    std::thread::scope(|scope| {
        let backend = scope.spawn(|| {
            let mut backend = files.accept(&listener, "server");
            let mut got = Vec::new();
            let ended = backend.read_to_end(&mut got).map_err(|error| error.kind());
            assert_eq!(
                (got.as_slice(), ended),
                (b"half".as_slice(), Err(ErrorKind::UnexpectedEof))
            );
            // As some do, it complains; whose end it was is known.
            let _ = backend.sock.write_all(b"this is no record of TLS");
        });
        let mut client = files.dial(balancer.address(), DIAL);
        client.write_all(b"half").unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
        backend.join().unwrap();
    });
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientClosed));
}

#[test]
fn the_name_of_the_handshake_routes_and_backends_are_told_of_both() {
    let files = Files::new();
    let (mut config, _own) = door(&files);
    let (other, other_address) = loopback();
    let pool = config::Pool {
        name: "other".into(),
        backends: vec![balancer::backend(other_address)],
        send_proxy_protocol: Some(ProxyVersion::V2),
        send_proxy_tlvs: ProxyTlvs { authority: true, alpn: true, crc32c: false },
        ..config::Pool::clone(&config.pools[0])
    };
    config.pools.push(Arc::new(pool));
    let listener = balancer::listener(&mut config);
    listener.tls = files.server(false, &["postgresql"]);
    let named = NamePattern::Below("pg.example.com".to_owned());
    listener.routes =
        vec![Route { server_name: vec![named], pool: Some("other".into()), ..Route::default() }];
    let balancer = Balancer::start(config);
    let dial = Dial { name: "a.pg.example.com", alpn: &["postgresql"], ..DIAL };
    let mut client = files.dial(balancer.address(), dial);
    client.write_all(b"hello").unwrap();
    client.goodbye();
    let mut got = Vec::new();
    other.accept().unwrap().0.read_to_end(&mut got).unwrap();
    assert!(got.starts_with(b"\r\n\r\n\0\r\nQUIT\n") && got.ends_with(b"hello"));
    let holds = |what: &[u8]| got.windows(what.len()).any(|it| it == what);
    assert!(holds(b"\x02\0\x10a.pg.example.com") && holds(b"\x01\0\x0apostgresql"));
}

#[test]
fn probes_speak_it_too() {
    let files = Files::new();
    let (wrong, wrong_address) = loopback();
    let (right, right_address) = loopback();
    let mut config = balancer::config(&[wrong_address, right_address]);
    let pool = balancer::pool(&mut config);
    pool.tls = files.client(Some(NAME));
    pool.health.interval = Duration::from_millis(50);
    pool.health.probe = Probe::Exchange(config::Exchange {
        send: Some(b"PING\n".to_vec()),
        expect: Some(config::Expect::Bytes(b"PONG".to_vec())),
        standby: None,
    });
    std::thread::scope(|scope| {
        let balancer = Balancer::start(config);
        for (listener, name) in [(&wrong, "other"), (&right, "server")] {
            let files = &files;
            scope.spawn(move || {
                for _ in 0..3 {
                    let mut backend = files.accept(listener, name);
                    let mut asked = [0; 5];
                    if backend.read_exact(&mut asked).is_ok() {
                        backend.write_all(b"PONG\n").unwrap();
                    }
                }
            });
        }
        let counted = || {
            let snapshot = balancer.supervisor().plane.snapshot.load_full();
            let backends = &snapshot.pools["main"].backends;
            let probes = |index: usize| &backends[index].live.probes;
            (probes(0).tls_failed.value(), probes(1).passed.value())
        };
        wait_for("three probes of each", || {
            let (failed, passed) = counted();
            failed >= 3 && passed >= 3
        });
    });
}

#[test]
fn a_refused_client_may_be_reset() {
    let files = Files::new();
    let (mut config, _backend) = door(&files);
    balancer::listener(&mut config).on_refuse = OnRefuse::Reset;
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"no TLS at all").unwrap();
    let mut seen = Vec::new();
    assert_eq!(client.read_to_end(&mut seen).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(balancer.ending(), (Stage::Preread, CloseReason::TlsFailed));
}

/// As a renewal does it: one file, then the other; who is connected notices nothing.
#[test]
fn certificates_are_read_anew_when_they_change() {
    let files = Files::new();
    let (backend, address) = loopback();
    let text = format!(
        "version: 1
process: {{workers: 2}}
listeners:
  main:
    bind: \"127.0.0.1:0\"
    pool: main
    tls: {{certificates: [{{certificate: server.pem, key: server.key}}]}}
pools: {{main: {{backends: [\"{address}\"], health: {{probe: none}}}}}}
"
    );
    let config = load(&[Source { name: files.path("maitred.yaml"), text }], &|_| None);
    let mut balancer = Balancer::start(config.unwrap().config);
    let at = balancer.address();
    let mut watch = Watch::default();
    let mut look = |balancer: &mut Balancer| {
        let supervisor = balancer.supervisor.as_mut().unwrap();
        let config = Arc::clone(&supervisor.plane.snapshot.load().config);
        supervisor.renew_files(watch.look(&config));
    };
    let shown = |name: &'static str| {
        let mut client = files.dial(at, Dial { name, ..DIAL });
        let outcome = client.conn.complete_io(&mut client.sock);
        outcome.map(|_| client.conn.peer_certificates().unwrap()[0].clone())
    };
    let metric = |balancer: &Balancer, name: &str| {
        let supervisor = balancer.supervisor();
        let text = exposition(&Sources {
            plane: Arc::clone(&supervisor.plane),
            reloads: Arc::clone(&supervisor.reloads),
            log_dropped: Arc::default(),
        });
        let series = format!("maitred_tls_{name}{{listener=\"main\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        line.parse::<f64>().unwrap()
    };
    look(&mut balancer);
    look(&mut balancer);
    let mut early = files.dial(at, DIAL);
    early.write_all(b"a").unwrap();
    let mut early_backend = backend.accept().unwrap().0;
    assert_eq!(shown(NAME).unwrap(), files.chain("server").0[0]);
    assert!(metric(&balancer, "certificate_expiry_timestamp_seconds") > 1.7e9);
    let before = files.file("server.pem").text;
    let (other, other_key) = (files.file("other.pem").text, files.file("other.key").text);
    files.write("server.pem", &other);
    look(&mut balancer);
    look(&mut balancer);
    assert!(metric(&balancer, "files_last_read_successful") == 0.0, "the key is the old one");
    assert_eq!(shown(NAME).unwrap().as_ref(), pem(&before).as_ref());
    files.write("server.key", &other_key);
    for _ in 0..4 {
        look(&mut balancer);
    }
    assert!(metric(&balancer, "files_last_read_successful") == 1.0);
    assert_eq!(shown("other.example.com").unwrap().as_ref(), pem(&other).as_ref());
    early.write_all(b"b").unwrap();
    let mut seen = [0; 2];
    early_backend.read_exact(&mut seen).unwrap();
    early_backend.write_all(b"c").unwrap();
    early.read_exact(&mut seen[..1]).unwrap();
    assert_eq!(&seen, b"cb", "it is the same session");
    // Those that only shook hands wait there.
    drop(backend);
}

fn pem(text: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
}

#[test]
fn check_says_what_clients_would_find_out() {
    let files = Files::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    files.write("old.pem", &params.self_signed(&key).unwrap().pem());
    files.write("old.key", &key.serialize_pem());
    let locked = files.file("server.key").text.replace("PRIVATE", "ENCRYPTED PRIVATE");
    files.write("locked.key", &locked);
    let check = |certificate: &str, key: &str| {
        let text = format!(
            "version: 1
listeners:
  main: {{bind: \"127.0.0.1:0\", pool: none, tls: {{certificates: [{{certificate: {certificate}, key: {key}}}]}}}}
"
        );
        load(&[Source { name: files.path("maitred.yaml"), text }], &|_| None)
    };
    let warnings = check("old.pem", "old.key").unwrap().warnings;
    assert!(warnings[0].message.ends_with("old.pem` expired on 2021-01-01T00:00:00Z"));
    for (certificate, key, why) in [
        ("server.pem", "other.key", "is not that of the certificate in"),
        ("server.pem", "locked.key", "is encrypted"),
        ("server.key", "server.key", "there is no certificate in"),
        ("server.pem", "server.pem", "there is no private key in"),
    ] {
        let report = check(certificate, key).unwrap_err().render(false);
        assert!(report.contains(why), "{report}");
    }
}

/// Where clients must show a certificate they show it each time: it may have expired since.
#[test]
fn who_must_show_a_certificate_is_not_let_in_by_an_earlier_session() {
    use rustls::HandshakeKind::{Full, Resumed};
    let files = Files::new();
    let server = Server::start(Conduct::Echo);
    for (client_ca, expected) in [(false, Resumed), (true, Full)] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mut config = balancer::config(&[server.address]);
            balancer::listener(&mut config).tls = files.server(client_ca, &[]);
            let balancer = Balancer::start(config);
            let config = files.config(Dial { version, shows: Some("client"), ..DIAL });
            let kinds = [(); 2].map(|()| {
                let mut client = connect(balancer.address(), &config, NAME);
                client.write_all(b"a").unwrap();
                // What would let it in again came before this.
                client.read_exact(&mut [0]).unwrap();
                client.conn.handshake_kind().unwrap()
            });
            assert_eq!(kinds, [Full, expected], "{version:?}");
        }
    }
}

/// The backend's bytes are on their way when the client sends what nobody will read any more.
#[test]
fn what_comes_behind_the_end_takes_no_bytes_back() {
    let files = Files::new();
    let (config, backend) = door(&files);
    let balancer = Balancer::start(config);
    let mut client = files.dial(balancer.address(), DIAL);
    client.flush().unwrap();
    client.goodbye();
    client.sock.write_all(&[&[23, 3, 3, 0, 32][..], &[0; 32]].concat()).unwrap();
    let mut backend = backend.accept().unwrap().0;
    assert_eq!(backend.read(&mut [0]).unwrap(), 0);
    backend.write_all(&text(2)).unwrap();
    drop(backend);
    balancer.endings(1);
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == text(2), "{} bytes came", got.len());
}
