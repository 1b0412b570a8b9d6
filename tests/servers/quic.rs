//! QUIC through maitred, by quinn on both ends: 100 MiB each way, byte for byte, sent and read in segments that the
//! kernel takes apart and puts together.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, EndpointConfig, Runtime, TokioRuntime, UdpPoller};
use sha2::{Digest, Sha256};

use crate::harness::{Maitred, free_port};

const BYTES: usize = 100 << 20;
const CHUNK: usize = 64 << 10;
const NAME: &str = "quic.example.test";

/// quinn's own socket, and how often it was handed, or handed out, several datagrams at once.
#[derive(Debug)]
struct Counting {
    socket: Arc<dyn AsyncUdpSocket>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sends: AtomicU64,
    sends_of_several: AtomicU64,
    reads: AtomicU64,
    reads_of_several: AtomicU64,
    /// What the socket can send at once; it becomes one for good if the kernel refuses.
    segments: AtomicU64,
}

impl AsyncUdpSocket for Counting {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)?;
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        self.counts.sends.fetch_add(1, Relaxed);
        let is_several = transmit.contents.len() > segment;
        self.counts.sends_of_several.fetch_add(u64::from(is_several), Relaxed);
        self.counts.segments.store(self.socket.max_transmit_segments() as u64, Relaxed);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket.poll_recv(context, buffers, meta))?;
        let several = meta[..count].iter().filter(|it| it.len > it.stride).count();
        self.counts.reads.fetch_add(count as u64, Relaxed);
        self.counts.reads_of_several.fetch_add(several as u64, Relaxed);
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// One end, on a port of loopback. Client if it has no certificate.
fn end(server: Option<quinn::ServerConfig>) -> (quinn::Endpoint, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = TokioRuntime.wrap_udp_socket(socket).unwrap();
    assert!(socket.max_transmit_segments() > 1, "this kernel sends no segments");
    let socket = Arc::new(Counting { socket, counts: Arc::clone(&counts) });
    let runtime = Arc::new(TokioRuntime);
    let config = EndpointConfig::default();
    (quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime).unwrap(), counts)
}

/// Bytes that repeat nowhere: one that is lost, doubled or moved changes the hash.
struct Stream {
    random: fastrand::Rng,
    hash: Sha256,
    left: usize,
}

impl Stream {
    fn new(seed: u64) -> Stream {
        Stream { random: fastrand::Rng::with_seed(seed), hash: Sha256::new(), left: BYTES }
    }

    fn next(&mut self, chunk: &mut [u8]) -> usize {
        let length = chunk.len().min(self.left);
        self.random.fill(&mut chunk[..length]);
        self.hash.update(&chunk[..length]);
        self.left -= length;
        length
    }
}

/// The hash of what was sent.
async fn send(mut stream: quinn::SendStream, seed: u64) -> Vec<u8> {
    let mut bytes = Stream::new(seed);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = bytes.next(&mut chunk);
        if length == 0 {
            break;
        }
        stream.write_all(&chunk[..length]).await.unwrap();
    }
    stream.finish().unwrap();
    // Until the other end has all of it.
    stream.stopped().await.unwrap();
    bytes.hash.finalize().to_vec()
}

/// The hash of what arrived, and its length.
async fn receive(mut stream: quinn::RecvStream) -> (Vec<u8>, usize) {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut chunk = vec![0; CHUNK];
    while let Some(count) = stream.read(&mut chunk).await.unwrap() {
        hash.update(&chunk[..count]);
        length += count;
    }
    (hash.finalize().to_vec(), length)
}

/// A certificate of this run's own, and a client that trusts it.
fn secrets() -> (quinn::ServerConfig, quinn::ClientConfig) {
    let own = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let certificate = CertificateDer::from(own.cert);
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivateKeyDer::from(key);
    let server = quinn::ServerConfig::with_single_cert(vec![certificate], key).unwrap();
    (server, quinn::ClientConfig::with_root_certificates(Arc::new(roots)).unwrap())
}

/// Runs one end in a thread of its own; two ends in one would be each other's pace.
fn apart<T: Send + 'static>(
    run: impl Future<Output = T> + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limited = async { tokio::time::timeout(Duration::from_secs(120), run).await };
        runtime.block_on(limited).expect("100 MiB within two minutes")
    })
}

#[test]
fn a_hundred_mebibytes_each_way_are_whole() {
    let (server_config, client_config) = secrets();
    let (tell, told) = std::sync::mpsc::channel();
    let server = apart(async move {
        let (end, counts) = end(Some(server_config));
        tell.send(end.local_addr().unwrap().port()).unwrap();
        let connection = end.accept().await.unwrap().await.unwrap();
        let (to_client, from_client) = connection.accept_bi().await.unwrap();
        let received = receive(from_client).await;
        let sent = send(to_client, 2).await;
        connection.closed().await;
        (sent, received, counts)
    });
    let port = free_port();
    let backend = told.recv_timeout(Duration::from_secs(10)).unwrap();
    let maitred = Maitred::start(&format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", protocol: udp, pool: main, flow: {{timeout: 2s}}}}}}
pools: {{main: {{backends: [\"127.0.0.1:{backend}\"], health: {{probe: none}}}}}}
"
    ));
    let begun = Instant::now();
    let client = apart(async move {
        let (end, counts) = end(None);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let connection = end.connect_with(client_config, address, NAME).unwrap().await.unwrap();
        let (to_server, from_server) = connection.open_bi().await.unwrap();
        let sent = send(to_server, 1).await;
        let received = receive(from_server).await;
        connection.close(0_u32.into(), b"");
        end.wait_idle().await;
        (sent, received, counts, connection.stats())
    });
    let (client_sent, client_received, client_counts, stats) = client.join().unwrap();
    let (server_sent, server_received, server_counts) = server.join().unwrap();
    let took = begun.elapsed();
    assert_eq!(server_received, (client_sent, BYTES), "what the server got");
    assert_eq!(client_received, (server_sent, BYTES), "what the client got");
    maitred.wait_for_no_flow();
    let (to, from) = (maitred.datagrams("from_client"), maitred.datagrams("from_backend"));
    let (dropped, handed_on) = (maitred.dropped(), maitred.datagrams("to_client"));
    println!(
        "quic: 2 × 100 MiB in {took:.1?}; the client sent {} datagrams, {to} arrived; the server's \
         were {from}, {handed_on} were handed on, the client read {}; {dropped} dropped on the way",
        stats.udp_tx.datagrams, stats.udp_rx.datagrams
    );
    // What maitred misses it counts; what is missing at the client did not fit into the client's own queue.
    let unseen = stats.udp_tx.datagrams as f64 - to - dropped;
    assert!(unseen.abs() < 0.001 * to, "{unseen} datagrams vanished without being counted");
    // No datagram of quinn's is longer than 1452 bytes.
    let least = BYTES as f64 / 1452.0;
    assert!(to > least && from > least, "{to} and {from} datagrams, {least} at least");
    for (name, counts) in [("client", client_counts), ("server", server_counts)] {
        println!("quic: {name}: {counts:?}");
        assert!(counts.segments.load(Relaxed) > 1, "{name}: the kernel refused segments");
        assert!(counts.sends_of_several.load(Relaxed) > 1000, "{name} sent no segments");
        // They went through maitred as they were, or there would be nothing that belongs together.
        assert!(counts.reads_of_several.load(Relaxed) > 1000, "{name} got single datagrams only");
    }
    let share = dropped / (to + from);
    assert!(share < 0.01, "{share} of all datagrams were dropped");
    assert!((maitred.metric("maitred_udp_flows_total", &[]) - 1.0).abs() < 0.5, "one flow");
}
