//! The `mysql` probe: logs in to MySQL or MariaDB, which every probe finishes, as a server counts who leaves before that;
//! asks which role it has, how far behind it is, what it is in a Galera cluster, and the user's question.

use std::path::PathBuf;
use std::time::Duration;

use socket2::SockAddr;

use super::facts::{Facts, Lag, Node, Server};
use super::fault::Fault;
use super::heard::{Heard, readable};
use super::password::Password;
use super::talk::Talk;
use super::tcp;
use crate::config::{self, Galera, Role, Secret};
use crate::data::stream::Stream;
use crate::data::tls::client::Client;
use crate::data::wire::Progress;
use crate::data::wire::mysql::{self as wire, Greeting, Packet, Reply, Told, can};

/// What it is asked, apart from what a pool makes of the answer.
#[derive(PartialEq)]
pub(super) struct Ask {
    user: String,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
    query: Option<String>,
    needs_role: bool,
    needs_lag: bool,
    needs_node: bool,
}

impl Ask {
    pub fn of(own: &config::Mysql) -> Ask {
        Ask {
            user: own.user.clone(),
            password: own.password.clone(),
            password_file: own.password_file.clone(),
            query: own.query.clone(),
            needs_role: own.role != Role::Any || own.max_lag.is_some(),
            needs_lag: own.max_lag.is_some(),
            needs_node: own.galera != Galera::None,
        }
    }
}

pub(super) struct Mysql {
    ask: Ask,
    password: Password,
}

/// A row with the names of its columns.
type Rows = (Vec<Vec<u8>>, Vec<Vec<Option<Vec<u8>>>>);

/// More rows are read, not kept.
const MOST_ROWS: usize = 256;

/// More columns are none of a question that a probe asks.
const MOST_COLUMNS: u64 = 4096;

/// Errors by number.
const SYNTAX: u16 = 1064;
const SHUTS_DOWN: u16 = 1053;
const NOT_IN_CLUSTER: u16 = 1047;

impl Mysql {
    pub fn new(own: &config::Mysql) -> Mysql {
        let password = Password::new(own.password.as_ref(), own.password_file.as_ref());
        Mysql { ask: Ask::of(own), password }
    }

    pub fn password(&self) -> &Password {
        &self.password
    }

    pub fn asks(&self) -> &Ask {
        &self.ask
    }

    pub async fn log_in(
        &self,
        stream: &mut Stream,
        address: &SockAddr,
        tls: Option<&Client>,
        heard: &Heard,
    ) -> Result<(), Fault> {
        let password = self.password.now().await?;
        let password = password.as_ref().map_or("", |it| it.reveal());
        let mut talk = Talk::new(stream, heard);
        let (number, body) = next(&mut talk).await?;
        let Some(greeting) = wire::greeting(&body) else {
            return Err(match wire::reply(&body) {
                Reply::Failed(told) => refused(&told),
                _ => Fault::mismatch(format!("its first words are {}", readable(&body))),
            });
        };
        let mut can = can::ALL & greeting.can;
        if can & can::PROTOCOL_41 == 0 {
            return Err(Fault::mismatch("it speaks the protocol of MySQL 4.0 or older"));
        }
        let mut number = number.wrapping_add(1);
        if let Some(tls) = tls {
            if greeting.can & can::TLS == 0 {
                return Err(Fault::tls_failed("it does not accept TLS"));
            }
            can |= can::TLS;
            talk.send(&wire::packet(number, &wire::tls_request(can))).await?;
            number = number.wrapping_add(1);
            tcp::encrypt(talk.stream, address, tls).await?;
        }
        let is_private = tls.is_some() || address.as_socket().is_none();
        self.prove(&mut talk, &greeting, can, number, (password, is_private)).await
    }

    /// Proves the password in the way that the server wants, until it is satisfied.
    async fn prove(
        &self,
        talk: &mut Talk<'_>,
        greeting: &Greeting,
        can: u32,
        number: u8,
        (password, is_private): (&str, bool),
    ) -> Result<(), Fault> {
        let Greeting { nonce, plugin, .. } = greeting;
        let (mut nonce, mut plugin) = (nonce.clone(), plugin.clone());
        // Without a proof of a plugin that is unknown here: the server then names the one of this user.
        let proof = wire::proof(&plugin, password, &nonce).unwrap_or_default();
        talk.send(&wire::packet(number, &wire::login(can, &self.ask.user, &proof, &plugin)))
            .await?;
        // A server has a handful of things to say.
        for _ in 0..8 {
            let (number, body) = next(talk).await?;
            let answer = match wire::reply(&body) {
                Reply::Done => return Ok(()),
                Reply::Failed(told) => return Err(refused(&told)),
                Reply::Switch { plugin: wanted, nonce: with } => {
                    (plugin, nonce) = (String::from_utf8_lossy(wanted).into_owned(), with.to_vec());
                    wire::proof(&plugin, password, &nonce).ok_or_else(|| unknown(&plugin))?
                }
                // It knows the password already, and says so once more.
                Reply::More([3]) if plugin == wire::SHA2 => continue,
                Reply::More([4]) if plugin == wire::SHA2 && is_private => {
                    [password.as_bytes(), b"\0"].concat()
                }
                // It wants the whole password; first its public key.
                Reply::More([4]) if plugin == wire::SHA2 => vec![2],
                Reply::More(key) if plugin == wire::SHA2 => wire::sealed(password, &nonce, key)
                    .ok_or_else(|| {
                        Fault::login_failed("its public key cannot be used for this password")
                    })?,
                _ => return Err(not_understood()),
            };
            talk.send(&wire::packet(number.wrapping_add(1), &answer)).await?;
        }
        Err(not_understood())
    }

    /// `must_answer`: also if there is nothing to ask.
    pub async fn ask(
        &self,
        stream: &mut Stream,
        must_answer: bool,
        heard: &Heard,
    ) -> Result<Facts, Fault> {
        let mut talk = Talk::asking(stream, heard);
        let mut facts = Facts::default();
        let asks_nothing = !self.ask.needs_role && !self.ask.needs_node && self.ask.query.is_none();
        if asks_nothing && must_answer {
            talk.send(&wire::ping()).await?;
            let (_, body) = next(&mut talk).await?;
            return match wire::answer(&body) {
                Reply::Done => Ok(facts),
                _ => Err(not_understood()),
            };
        }
        if self.ask.needs_role || self.ask.needs_node {
            facts.server = Some(self.about(&mut talk).await?);
        }
        if let Some(query) = &self.ask.query {
            let (_, rows) = rows(&mut talk, query).await?.map_err(|told| query_failed(&told))?;
            facts.answer = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        }
        Ok(facts)
    }

    async fn about(&self, talk: &mut Talk<'_>) -> Result<Server, Fault> {
        let mut server = Server::default();
        if self.ask.needs_node {
            server.node = Some(node(talk).await?);
        }
        if self.ask.needs_role {
            let question = "select @@global.read_only";
            let (_, rows) = match rows(talk, question).await? {
                Ok(rows) => rows,
                // A node without its cluster answers no question; what it is has been found already.
                Err(Failed { number: NOT_IN_CLUSTER, .. }) if server.node.is_some() => {
                    return Ok(server);
                }
                Err(told) => return Err(query_failed(&told)),
            };
            let value = rows.first().and_then(|row| row.first()?.as_deref());
            server.is_replica = match value {
                Some(b"0" | b"OFF") => false,
                Some(_) => true,
                None => return Err(Fault::query_failed("it does not say whether it is read_only")),
            };
        }
        if self.ask.needs_lag && server.is_replica {
            server.lag = lag(talk).await?;
        }
        Ok(server)
    }
}

/// An error in answer to a question.
struct Failed {
    number: u16,
    text: String,
}

async fn next(talk: &mut Talk<'_>) -> Result<(u8, Vec<u8>), Fault> {
    let parse = |bytes: &[u8]| match wire::read(bytes) {
        Ok(Progress::Whole((Packet { number, body }, taken))) => {
            Ok(Progress::Whole(((number, body.to_vec()), taken)))
        }
        Ok(Progress::Partial) => Ok(Progress::Partial),
        Err(wire::Bad) => Err(()),
    };
    talk.next(parse).await
}

async fn rows(talk: &mut Talk<'_>, question: &str) -> Result<Result<Rows, Failed>, Fault> {
    let failed = |told: &Told<'_>| Failed { number: told.number, text: words(told) };
    talk.send(&wire::query(question)).await?;
    let (_, body) = next(talk).await?;
    let count = match wire::answer(&body) {
        Reply::Done => return Ok(Ok(Rows::default())),
        Reply::Failed(told) => return Ok(Err(failed(&told))),
        Reply::Rows(count) if count <= MOST_COLUMNS => count,
        _ => return Err(not_understood()),
    };
    let mut names = Vec::new();
    for _ in 0..count {
        let (_, body) = next(talk).await?;
        names.push(wire::column_name(&body).ok_or_else(not_understood)?.to_vec());
    }
    let (_, body) = next(talk).await?;
    if wire::row_reply(&body) != Some(Reply::End) {
        return Err(not_understood());
    }
    let mut rows = Vec::new();
    // Bounded by the bytes of one probe.
    loop {
        let (_, body) = next(talk).await?;
        match wire::row_reply(&body) {
            Some(Reply::End) => return Ok(Ok((names, rows))),
            Some(Reply::Failed(told)) => return Ok(Err(failed(&told))),
            Some(_) => return Err(not_understood()),
            None if rows.len() < MOST_ROWS => {
                let columns = wire::columns(&body).ok_or_else(not_understood)?;
                rows.push(columns.into_iter().map(|it| it.map(<[u8]>::to_vec)).collect());
            }
            None => {}
        }
    }
}

async fn node(talk: &mut Talk<'_>) -> Result<Node, Fault> {
    let question = "show global status where variable_name in \
                    ('wsrep_local_state', 'wsrep_ready', 'wsrep_cluster_status')";
    let (_, rows) = rows(talk, question).await?.map_err(|told| query_failed(&told))?;
    let value = |name: &str| {
        let is_it = |row: &&Vec<Option<Vec<u8>>>| {
            let own = row.first().and_then(|it| it.as_deref()).unwrap_or_default();
            own.eq_ignore_ascii_case(name.as_bytes())
        };
        rows.iter().find(is_it)?.get(1)?.as_deref()
    };
    let state = value("wsrep_local_state").and_then(|it| str::from_utf8(it).ok()?.parse().ok());
    let Some(state) = state else {
        return Err(Fault::query_failed("it is no node of a Galera cluster"));
    };
    let is_ready = value("wsrep_ready").is_some_and(|it| it.eq_ignore_ascii_case(b"ON"))
        && value("wsrep_cluster_status").is_some_and(|it| it.eq_ignore_ascii_case(b"Primary"));
    Ok(Node { is_ready, state })
}

/// The worst of all its sources.
async fn lag(talk: &mut Talk<'_>) -> Result<Lag, Fault> {
    let (names, rows) = match rows(talk, "show replica status").await? {
        Ok(rows) => rows,
        // Before MySQL 8.0.22 and MariaDB 10.5.1.
        Err(Failed { number: SYNTAX, .. }) => {
            let older = rows(talk, "show slave status").await?;
            older.map_err(|told| query_failed(&told))?
        }
        Err(told) => return Err(query_failed(&told)),
    };
    Ok(worst(&names, &rows))
}

fn worst(names: &[Vec<u8>], rows: &[Vec<Option<Vec<u8>>>]) -> Lag {
    let unknown = |unknown| Lag { unknown, ..Lag::default() };
    let known: [&[u8]; 2] = [b"Seconds_Behind_Source", b"Seconds_Behind_Master"];
    let Some(at) = names.iter().position(|name| known.contains(&&**name)) else {
        return unknown("it is no replica of another server");
    };
    let mut worst = None;
    for row in rows {
        let seconds = row.get(at).and_then(|it| it.as_deref());
        let seconds = seconds.and_then(|it| str::from_utf8(it).ok()?.parse::<u64>().ok());
        let Some(seconds) = seconds else { return unknown("its replication does not run") };
        worst = worst.max(Some(seconds));
    }
    match worst {
        Some(seconds) => Lag { time: Some(Duration::from_secs(seconds)), ..unknown("") },
        None => unknown("it is no replica of another server"),
    }
}

/// An error before or during the login.
fn refused(told: &Told<'_>) -> Fault {
    match told.number {
        SHUTS_DOWN => Fault::mismatch(words(told)),
        _ => Fault::login_failed(words(told)),
    }
}

fn query_failed(failed: &Failed) -> Fault {
    match failed.number {
        SHUTS_DOWN => Fault::mismatch(failed.text.clone()),
        _ => Fault::query_failed(failed.text.clone()),
    }
}

fn unknown(plugin: &str) -> Fault {
    let plugin = readable(plugin.as_bytes());
    Fault::login_failed(format!("it wants an authentication that probes lack: {plugin}"))
}

fn words(told: &Told<'_>) -> String {
    format!("error {}: {}", told.number, readable(told.message))
}

fn not_understood() -> Fault {
    Fault::mismatch("a packet of MySQL that has no place here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_source_counts_and_one_that_does_not_run_is_unknown() {
        let names = |name: &str| vec![b"Slave_IO_State".to_vec(), name.as_bytes().to_vec()];
        let row = |seconds: Option<&str>| vec![None, seconds.map(|it| it.as_bytes().to_vec())];
        let of = |name: &str, rows: &[Vec<Option<Vec<u8>>>]| {
            let lag = worst(&names(name), rows);
            lag.time.map(|it| it.as_secs()).ok_or(lag.unknown)
        };
        let master = "Seconds_Behind_Master";
        assert_eq!(of("Seconds_Behind_Source", &[row(Some("3")), row(Some("7"))]), Ok(7));
        assert_eq!(of(master, &[row(Some("0"))]), Ok(0));
        let stopped = [row(Some("3")), row(None)];
        assert_eq!(of(master, &stopped), Err("its replication does not run"));
        assert_eq!(of(master, &[]), Err("it is no replica of another server"));
        assert_eq!(of("Other", &[row(Some("1"))]), Err("it is no replica of another server"));
    }
}
