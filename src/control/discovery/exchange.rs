//! One query to one DNS server, and its answer: over UDP, repeated when no answer comes, and over TCP when the answer
//! does not fit. Datagrams that do not belong to the query are ignored, because anybody may send them. Each query has
//! a socket of its own, with a port that the kernel chooses, and a random id.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::data::pool::finding::{Failure, Reason};

/// The number of UDP attempts, and the time of each; the same total for TCP.
const SENDINGS: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(800);

/// Sizes of a datagram: what passes every network in one piece (DNS flag day 2020), and what is accepted all the
/// same.
const OFFERED: u16 = 1232;
const MOST_TAKEN: usize = 4096;

/// The server's answer: records, no records, or no such name. Everything else is a failure.
pub async fn exchange(
    server: SocketAddr,
    name: &Name,
    record: RecordType,
) -> Result<Message, Failure> {
    let mut question = Message::query();
    question.add_query(Query::query(name.clone(), record));
    question.metadata.recursion_desired = true;
    let mut edns = Edns::new();
    edns.set_max_payload(OFFERED);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(|error| malformed(&error))?;
    let mut answer = by_udp(server, &question, &bytes).await?;
    if answer.metadata.truncation {
        let by_tcp = timeout(PATIENCE * SENDINGS, by_tcp(server, &question, &bytes)).await;
        answer = by_tcp.unwrap_or_else(|_| Err(too_late("by TCP")))?;
        if answer.metadata.truncation {
            return Err(malformed(&"the answer does not fit in it"));
        }
    }
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(Failure { reason: Reason::Servfail, why: format!("{server} says: {code}") }),
    }
}

async fn by_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, Failure> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let unreachable = |error| unreachable(server, &error);
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await.map_err(unreachable)?;
    socket.connect(server).await.map_err(unreachable)?;
    let mut buffer = vec![0; MOST_TAKEN];
    let mut odd = None;
    for _ in 0..SENDINGS {
        socket.send(bytes).await.map_err(unreachable)?;
        let answer = async {
            loop {
                let length = socket.recv(&mut buffer).await.map_err(unreachable)?;
                match read(&buffer[..length], question) {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => odd = Some(failure),
                }
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(outcome) => return outcome,
            Err(_) => continue,
        }
    }
    // What arrived was not the answer.
    Err(odd.unwrap_or_else(|| too_late(&format!("from {server}"))))
}

async fn by_tcp(server: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, Failure> {
    let exchanged = async {
        let mut stream = TcpStream::connect(server).await?;
        // A query is a name and some dozens of bytes.
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    };
    let answer = exchanged.await.map_err(|error| unreachable(server, &error))?;
    read(&answer, question)
}

/// A message with our id and our question in it.
fn read(bytes: &[u8], question: &Message) -> Result<Message, Failure> {
    let answer = Message::from_vec(bytes).map_err(|error| malformed(&error))?;
    let is_answer = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && answer.queries == question.queries;
    if is_answer { Ok(answer) } else { Err(malformed(&"it answers another question")) }
}

fn malformed(what: &dyn std::fmt::Display) -> Failure {
    Failure { reason: Reason::Malformed, why: format!("not an answer to the question: {what}") }
}

fn unreachable(server: SocketAddr, error: &std::io::Error) -> Failure {
    Failure { reason: Reason::Unreachable, why: format!("{server} cannot be reached: {error}") }
}

fn too_late(whence: &str) -> Failure {
    Failure { reason: Reason::Timeout, why: format!("no answer {whence} in time") }
}
