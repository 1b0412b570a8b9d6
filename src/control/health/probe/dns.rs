//! The `dns` probe: one query over UDP. Any answer passes that shows that the server can resolve; the name need not
//! exist.

use tokio::net::UdpSocket;

use super::fault::Fault;
use super::heard::Heard;
use super::udp::{receive, send};
use crate::config::DnsRecord;
use crate::data::wire::dns::{Answer, answer, query};

/// Only the header and the question are read, and they are shorter than this.
const REPLY: usize = 512;

pub(super) struct Dns {
    name: String,
    record: DnsRecord,
}

impl Dns {
    pub(super) fn new(name: &str, record: DnsRecord) -> Dns {
        Dns { name: name.into(), record }
    }

    /// `heard` is set once anything came back. Answers to other queries are ignored.
    pub(super) async fn run(
        &self,
        socket: UdpSocket,
        header: &[u8],
        heard: &Heard,
    ) -> Result<(), Fault> {
        let query = query(fastrand::u16(..), &self.name, self.record as u16);
        send(&socket, header, &query).await?;
        let mut reply = [0; REPLY];
        loop {
            let length = receive(&socket, &mut reply, heard).await?;
            match answer(&query, &reply[..length]) {
                Answer::Answered => return Ok(()),
                Answer::Failed(name) => return Err(Fault::mismatch(name)),
                Answer::Unrelated => {}
            }
        }
    }
}
