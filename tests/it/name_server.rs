//! A server of names that says what the test wants, also what no server should.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// What is said to a question.
#[derive(Clone, Debug)]
pub enum Say {
    /// These, answers and additional ones.
    Records(Vec<Record>, Vec<Record>),
    /// The same, but by UDP only that they do not fit.
    TooLong(Vec<Record>),
    Code(ResponseCode),
    /// There is such a name, without such records.
    Empty,
    Silence,
    /// Bytes with the right number in front and nonsense behind.
    Garbage,
    WrongNumber(Vec<Record>),
    WrongQuestion(Vec<Record>),
    /// First what somebody else could have sent, then the answer.
    Forged(Vec<Record>),
}

#[derive(Default)]
struct Zone {
    says: HashMap<(Name, RecordType), Say>,
    asked: HashMap<Name, usize>,
}

/// Both transports on one port of loopback, until dropped.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

pub fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// Addresses of one family under this name, good for so many seconds.
pub fn records(owner: &str, ttl: u32, ips: &[IpAddr]) -> Vec<Record> {
    let data = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => RData::A((*ip).into()),
        IpAddr::V6(ip) => RData::AAAA((*ip).into()),
    };
    ips.iter().map(|ip| Record::from_rdata(name(owner), ttl, data(ip))).collect()
}

pub fn srv(owner: &str, (priority, weight, port): (u16, u16, u16), host: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::SRV(SRV::new(priority, weight, port, name(host))))
}

pub fn alias(owner: &str, of: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(of))))
}

impl NameServer {
    pub fn start() -> NameServer {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        // Nobody else in this test has the port of a TCP socket of ours for UDP.
        let udp = UdpSocket::bind(address).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (zone, stop) = (Arc::<Mutex<Zone>>::default(), Arc::<AtomicBool>::default());
        let (of_udp, udp_stop) = (Arc::clone(&zone), Arc::clone(&stop));
        let (of_tcp, tcp_stop) = (Arc::clone(&zone), Arc::clone(&stop));
        let threads = vec![
            std::thread::spawn(move || by_udp(&udp, &of_udp, &udp_stop)),
            std::thread::spawn(move || by_tcp(&tcp, &of_tcp, &tcp_stop)),
        ];
        NameServer { address, zone, stop, threads }
    }

    pub fn says(&self, owner: &str, record: RecordType, say: Say) {
        self.zone.lock().unwrap().says.insert((name(owner), record), say);
    }

    /// For both types of address.
    pub fn says_of(&self, owner: &str, say: &Say) {
        for record in [RecordType::A, RecordType::AAAA] {
            self.says(owner, record, say.clone());
        }
    }

    /// These addresses, of one family, and none of the other.
    pub fn has(&self, owner: &str, ttl: u32, ips: &[IpAddr]) {
        self.says_of(owner, &Say::Empty);
        let record = if ips[0].is_ipv4() { RecordType::A } else { RecordType::AAAA };
        self.says(owner, record, Say::Records(records(owner, ttl, ips), Vec::new()));
    }

    /// How often it was asked about a name, by UDP, for all types.
    pub fn asked(&self, owner: &str) -> usize {
        self.zone.lock().unwrap().asked.get(&name(owner)).copied().unwrap_or(0)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn by_udp(socket: &UdpSocket, zone: &Mutex<Zone>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while !stop.load(Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let question = Message::from_vec(&buffer[..length]).unwrap();
        {
            let mut zone = zone.lock().unwrap();
            *zone.asked.entry(question.queries[0].name().clone()).or_default() += 1;
        }
        for datagram in answers(&question, zone, true) {
            // Who asked may have gone.
            let _ = socket.send_to(&datagram, client);
        }
    }
}

fn by_tcp(listener: &TcpListener, zone: &Mutex<Zone>, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        match listener.accept() {
            // Who asked may have gone.
            Ok((stream, _)) => drop(serve(stream, zone)),
            // A listener that can be told to stop cannot block in accept.
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn serve(mut stream: TcpStream, zone: &Mutex<Zone>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question)?;
    let question = Message::from_vec(&question).unwrap();
    for answer in answers(&question, zone, false) {
        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length[..], &answer].concat())?;
    }
    Ok(())
}

fn answers(question: &Message, zone: &Mutex<Zone>, by_udp: bool) -> Vec<Vec<u8>> {
    let query = question.queries[0].clone();
    let key = (query.name().clone(), query.query_type());
    let say = zone.lock().unwrap().says.get(&key).cloned();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_query(query);
    match say.unwrap_or(Say::Code(ResponseCode::NXDomain)) {
        Say::Records(records, more) => {
            answer.answers = shuffled(records);
            answer.additionals = more;
        }
        Say::TooLong(_) if by_udp => answer.metadata.truncation = true,
        Say::TooLong(records) => answer.answers = shuffled(records),
        Say::Code(code) => answer.metadata.response_code = code,
        Say::Empty => {}
        Say::Silence => return Vec::new(),
        Say::Garbage => {
            let mut bytes = question.metadata.id.to_be_bytes().to_vec();
            bytes.extend([0xff; 40]);
            return vec![bytes];
        }
        Say::WrongNumber(records) => {
            answer.metadata.id ^= 1;
            answer.answers = records;
        }
        Say::WrongQuestion(records) => {
            answer.queries[0].set_name(name("other.test"));
            answer.answers = records;
        }
        Say::Forged(records) => {
            let mut forged = answer.clone();
            forged.metadata.id ^= 1;
            forged.answers =
                crate::name_server::records("db.test", 60, &["192.0.2.66".parse().unwrap()]);
            answer.answers = records;
            return vec![vec![0; 3], forged.to_vec().unwrap(), answer.to_vec().unwrap()];
        }
    }
    vec![answer.to_vec().unwrap()]
}

/// Servers turn their answers so that everybody is the first for somebody.
fn shuffled(mut records: Vec<Record>) -> Vec<Record> {
    fastrand::shuffle(&mut records);
    records
}
