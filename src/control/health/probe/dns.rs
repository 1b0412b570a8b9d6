//! The `dns` probe: one query by UDP. Any answer passes that says the server can resolve; there need not be such a
//! name.

use tokio::net::UdpSocket;

use super::fault::Fault;
use super::heard::Heard;
use super::udp::{receive, send};
use crate::config::DnsRecord;
use crate::data::wire::dns::{Answer, answer, query};

/// Header and question are all that is looked at, and they are shorter than this.
const REPLY: usize = 512;

pub(super) struct Dns {
    name: String,
    record: DnsRecord,
}

impl Dns {
    pub(super) fn new(name: &str, record: DnsRecord) -> Dns {
        Dns { name: name.into(), record }
    }

    /// `heard` is set once anything came back. What answers another query is passed over.
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
