//! The `postgres` probe: logs in, asks which role the server has and how far behind it is, then the user's question, and
//! says goodbye, so that the server logs nothing.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use super::facts::{Facts, Lag, Server};
use super::fault::Fault;
use super::heard::Heard;
use super::password::Password;
use super::talk::Talk;
use crate::config::{self, Role, Secret};
use crate::data::pool::fitness::ProbeResult;
use crate::data::stream::Stream;
use crate::data::tls::end_point;
use crate::data::wire::Progress;
use crate::data::wire::postgres_client::{self as wire, Message, Wanted};
use crate::data::wire::scram::{Binding, Keys, Scram};
use crate::sys::blocking;

/// What it is asked, apart from what a pool makes of the answer.
#[derive(PartialEq)]
pub(super) struct Ask {
    user: String,
    password: Option<Secret>,
    password_file: Option<std::path::PathBuf>,
    database: String,
    query: Option<String>,
    /// Whether its role matters, and its lag.
    needs: Needs,
}

#[derive(Clone, Copy, PartialEq)]
enum Needs {
    Nothing,
    Role,
    Lag,
}

impl Ask {
    pub fn of(own: &config::Postgres) -> Ask {
        let needs = match (own.role, own.max_lag) {
            (_, Some(_)) => Needs::Lag,
            (Role::Any, None) => Needs::Nothing,
            _ => Needs::Role,
        };
        Ask {
            user: own.user.clone(),
            password: own.password.clone(),
            password_file: own.password_file.clone(),
            database: own.database.clone(),
            query: own.query.clone(),
            needs,
        }
    }
}

pub(super) struct Postgres {
    ask: Ask,
    password: Password,
    keys: Arc<Known>,
    /// `statement_timeout` of the user's question.
    timeout: Duration,
}

/// Salt and iterations.
type Salted = (Vec<u8>, NonZeroU32);

/// A cluster has one for each user.
const MOST_KEYS: usize = 1024;

/// Deriving keys takes longer than a probe thread may be kept from the others.
const MANY_ITERATIONS: u32 = 20_000;

const ROLE: &str = "select case when pg_is_in_recovery() then 't' else 'f' end";

/// Which role; whether it receives; the bytes that it has, or knows of, and has not replayed; the age of what it replayed
/// last. Without `pg_read_all_stats` `latest_end_lsn` is NULL, and what it has received is what counts.
const LAG: &str = "select case when pg_is_in_recovery() then 't' else 'f' end, \
     (select count(*) from pg_stat_wal_receiver), \
     pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), (select max(latest_end_lsn) from pg_stat_wal_receiver)), \
         pg_last_wal_replay_lsn()), \
     (extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint";

impl Postgres {
    pub fn new(own: &config::Postgres, timeout: Duration) -> Postgres {
        let password = Password::new(own.password.as_ref(), own.password_file.as_ref());
        Postgres { ask: Ask::of(own), password, keys: Arc::default(), timeout }
    }

    pub fn password(&self) -> &Password {
        &self.password
    }

    pub fn asks(&self) -> &Ask {
        &self.ask
    }

    pub async fn log_in(&self, stream: &mut Stream, heard: &Heard) -> Result<(), Fault> {
        let password = self.password.now().await?;
        let certificate = stream.tls().and_then(|tls| tls.certificate().map(end_point));
        let mut talk = Talk::new(stream, heard);
        talk.send(&wire::startup(&self.ask.user, &self.ask.database)).await?;
        let login = Login { own: self, password: password.as_ref(), certificate };
        login.run(&mut talk).await
    }

    /// `must_answer`: also if there is nothing to ask.
    pub async fn ask(
        &self,
        stream: &mut Stream,
        must_answer: bool,
        heard: &Heard,
    ) -> Result<Facts, Fault> {
        let about = match self.ask.needs {
            Needs::Nothing if must_answer && self.ask.query.is_none() => Some(""),
            Needs::Nothing => None,
            Needs::Role => Some(ROLE),
            Needs::Lag => Some(LAG),
        };
        // A question that outlives its probe must not pile up at the server.
        let limit = format!("set statement_timeout = {}", self.timeout.as_millis().max(1));
        let own = self.ask.query.as_deref().map(|query| [&*limit, query]);
        let questions = || about.into_iter().chain(own.into_iter().flatten());
        let mut talk = Talk::asking(stream, heard);
        let sent: Vec<u8> = questions().flat_map(wire::query).collect();
        if !sent.is_empty() {
            talk.send(&sent).await?;
        }
        let mut facts = Facts::default();
        if about.is_some() {
            let row = first_row(&mut talk).await?;
            let not_understood =
                || Fault::query_failed("what it says about its role is not understood");
            if self.ask.needs != Needs::Nothing {
                let row = row.unwrap_or_default();
                facts.server = Some(server(&row).ok_or_else(not_understood)?);
            }
        }
        if own.is_some() {
            first_row(&mut talk).await?;
            let row = first_row(&mut talk).await?;
            facts.answer = row.and_then(|row| row.into_iter().next().flatten());
        }
        Ok(facts)
    }

    fn keys(&self, password: &Secret, salt: &[u8], iterations: NonZeroU32) -> Result<Keys, Fault> {
        let salted = (salt.to_vec(), iterations);
        if let Some(keys) = self.keys.find(&salted, password) {
            return Ok(keys);
        }
        if iterations.get() <= MANY_ITERATIONS {
            let keys = Keys::new(password.reveal(), salt, iterations);
            self.keys.keep(salted, password.clone(), keys.clone());
            return Ok(keys);
        }
        // This thread probes all backends. The next probe finds them.
        if !DERIVES.swap(true, Relaxed) {
            let (known, password) = (Arc::clone(&self.keys), password.clone());
            let begun = blocking::run("scram", move || {
                let keys = Keys::new(password.reveal(), &salted.0, iterations);
                known.keep(salted, password, keys);
                DERIVES.store(false, Relaxed);
            });
            if begun.is_err() {
                DERIVES.store(false, Relaxed);
            }
        }
        let detail = format!("the {iterations} iterations of SCRAM that it wants take a while");
        Err(Fault { detail: Some(detail.into()), ..Fault::of(ProbeResult::LocalError) })
    }
}

/// One at a time: each may take a second of a core.
static DERIVES: AtomicBool = AtomicBool::new(false);

/// Keys that were derived, by salt and iterations: servers of one cluster have the same.
#[derive(Default)]
struct Known(Mutex<HashMap<Salted, (Secret, Keys)>>);

impl Known {
    fn find(&self, salted: &Salted, password: &Secret) -> Option<Keys> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(salted).filter(|(of, _)| of == password).map(|(_, keys)| keys.clone())
    }

    fn keep(&self, salted: Salted, password: Secret, keys: Keys) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KEYS {
            known.clear();
        }
        known.insert(salted, (password, keys));
    }
}

struct Login<'a> {
    own: &'a Postgres,
    password: Option<&'a Secret>,
    /// In TLS: the digest of the server's certificate, if it can be bound to.
    certificate: Option<Option<digest::Digest>>,
}

impl Login<'_> {
    /// Until the server waits for questions.
    async fn run(&self, talk: &mut Talk<'_>) -> Result<(), Fault> {
        loop {
            let (kind, body) = next(talk).await?;
            match kind {
                b'R' => match wire::wanted(&body).ok_or_else(not_understood)? {
                    Wanted::Nothing => {}
                    Wanted::Cleartext if self.certificate.is_some() => {
                        talk.send(&wire::password(self.needed()?.reveal().as_bytes())).await?;
                    }
                    Wanted::Cleartext => {
                        let why = "it wants the password in clear, which is sent in TLS only";
                        return Err(Fault::login_failed(why));
                    }
                    Wanted::Md5(salt) => {
                        let password = self.needed()?.reveal().as_bytes();
                        let proof = wire::md5(&self.own.ask.user, password, salt);
                        talk.send(&wire::password(proof.as_bytes())).await?;
                    }
                    Wanted::Sasl(mechanisms) => self.scram(&mechanisms, talk).await?,
                    Wanted::SaslContinue(_) | Wanted::SaslFinal(_) => return Err(not_understood()),
                    Wanted::Other(number) => {
                        let what = match number {
                            7 | 8 => "GSSAPI".to_owned(),
                            9 => "SSPI".to_owned(),
                            _ => format!("number {number}"),
                        };
                        let why = format!("it wants an authentication that probes lack: {what}");
                        return Err(Fault::login_failed(why));
                    }
                },
                b'E' => return Err(refused(&body)),
                b'Z' => return Ok(()),
                // Parameters, keys of cancel requests, notices, a protocol that it would rather speak.
                b'S' | b'K' | b'N' | b'v' => {}
                _ => return Err(not_understood()),
            }
        }
    }

    fn needed(&self) -> Result<&Secret, Fault> {
        let none = || Fault::login_failed("it wants a password, and the probe has none");
        self.password.ok_or_else(none)
    }

    async fn scram(&self, mechanisms: &[&str], talk: &mut Talk<'_>) -> Result<(), Fault> {
        const PLAIN: &str = "SCRAM-SHA-256";
        const PLUS: &str = "SCRAM-SHA-256-PLUS";
        let password = self.needed()?;
        let offers = |name| mechanisms.contains(&name);
        let (mechanism, binding) = match &self.certificate {
            Some(Some(digest)) if offers(PLUS) => (PLUS, Binding::To(digest.as_ref())),
            Some(Some(_)) => (PLAIN, Binding::NotOffered),
            Some(None) | None => (PLAIN, Binding::Unavailable),
        };
        if !offers(mechanism) {
            let offered = mechanisms.join(", ");
            let offered = super::heard::readable(offered.as_bytes());
            let why = format!("it offers no {PLAIN}, but {offered}");
            return Err(Fault::login_failed(why));
        }
        let scram = Scram::new(binding, nonce()?);
        talk.send(&wire::sasl_first(mechanism, &scram.first())).await?;
        let bad = |bad: crate::data::wire::scram::Bad| {
            Fault::login_failed(format!("its SCRAM message is wrong: {}", bad.0))
        };
        let body = authentication(talk).await?;
        let Some(Wanted::SaslContinue(message)) = wire::wanted(&body) else {
            return Err(not_understood());
        };
        let first = scram.read_first(message).map_err(bad)?;
        let keys = self.own.keys(password, &first.salt, first.iterations)?;
        let (last, proof) = scram.last(&first, &keys);
        talk.send(&wire::sasl_next(&last)).await?;
        let body = authentication(talk).await?;
        match wire::wanted(&body) {
            Some(Wanted::SaslFinal(message)) if proof.is_met_by(message) => Ok(()),
            Some(Wanted::SaslFinal(_)) => {
                Err(Fault::login_failed("it does not prove that it knows the password"))
            }
            _ => Err(not_understood()),
        }
    }
}

fn nonce() -> Result<String, Fault> {
    let mut bytes = [0; 18];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Fault::login_failed("this machine gives no random numbers"))?;
    Ok(STANDARD.encode(bytes))
}

async fn next(talk: &mut Talk<'_>) -> Result<(u8, Vec<u8>), Fault> {
    let parse = |bytes: &[u8]| match wire::read(bytes) {
        Ok(Progress::Whole((Message { kind, body }, taken))) => {
            Ok(Progress::Whole(((kind, body.to_vec()), taken)))
        }
        Ok(Progress::Partial) => Ok(Progress::Partial),
        Err(wire::Bad) => Err(()),
    };
    talk.next(parse).await
}

async fn authentication(talk: &mut Talk<'_>) -> Result<Vec<u8>, Fault> {
    loop {
        match next(talk).await? {
            (b'R', body) => return Ok(body),
            (b'E', body) => return Err(refused(&body)),
            (b'N', _) => {}
            _ => return Err(not_understood()),
        }
    }
}

fn not_understood() -> Fault {
    Fault::mismatch("a message of PostgreSQL that has no place here")
}

/// An error during the login. A server that starts, stops or recovers turns everybody away, whoever asks.
fn refused(body: &[u8]) -> Fault {
    let told = wire::told(body);
    let text = words(&told);
    match told.code {
        code if code.starts_with(b"57P0") => Fault::mismatch(text),
        _ => Fault::login_failed(text),
    }
}

fn words(told: &wire::Told<'_>) -> String {
    let [severity, code, message] =
        [told.severity, told.code, told.message].map(super::heard::readable);
    format!("{severity} {code}: {message}")
}

type Row = Vec<Option<Vec<u8>>>;

/// The first row that a question found; then the server waits for the next one.
async fn first_row(talk: &mut Talk<'_>) -> Result<Option<Row>, Fault> {
    let (mut row, mut refused) = (None, None);
    loop {
        let (kind, body) = next(talk).await?;
        match kind {
            b'D' if row.is_none() => {
                let columns = wire::columns(&body).ok_or_else(not_understood)?;
                row = Some(columns.into_iter().map(|column| column.map(<[u8]>::to_vec)).collect());
            }
            b'E' => {
                let told = wire::told(&body);
                let text = words(&told);
                if told.code.starts_with(b"57P0") {
                    return Err(Fault::mismatch(text));
                }
                refused = Some(text);
            }
            b'Z' => return refused.map_or(Ok(row), |text| Err(Fault::query_failed(text))),
            b'G' | b'H' | b'W' => return Err(Fault::query_failed("the question begins a COPY")),
            _ => {}
        }
    }
}

fn server(row: &[Option<Vec<u8>>]) -> Option<Server> {
    let column = |at: usize| row.get(at).and_then(|it| it.as_deref());
    let number = |at: usize| str::from_utf8(column(at)?).ok()?.parse::<i128>().ok();
    let is_replica = match column(0)? {
        b"t" => true,
        b"f" => false,
        _ => return None,
    };
    let mut server = Server { is_replica, ..Server::default() };
    if !is_replica || row.len() < 4 {
        return Some(server);
    }
    server.lag = match (number(1), number(2), number(3)) {
        (Some(0) | None, _, _) => Lag { unknown: "it has no WAL receiver", ..Lag::default() },
        (_, None, _) => Lag { unknown: "it has received nothing yet", ..Lag::default() },
        // Nothing is left to replay: it is not behind, however long the primary has been idle.
        (_, Some(..=0), _) => Lag { bytes: Some(0), time: Some(Duration::ZERO), unknown: "" },
        (_, Some(bytes), age) => Lag {
            bytes: u64::try_from(bytes).ok(),
            time: age.map(|age| Duration::from_millis(u64::try_from(age).unwrap_or(0))),
            unknown: "it has replayed no transaction yet",
        },
    };
    Some(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_about_a_server() {
        let row = |row: &[Option<&str>]| -> Row {
            row.iter().map(|it| it.map(|it| it.as_bytes().to_vec())).collect()
        };
        let of = |it: &[Option<&str>]| {
            let server = server(&row(it)).unwrap();
            (server.is_replica, server.lag.bytes, server.lag.time.map(|it| it.as_millis()))
        };
        assert_eq!(of(&[Some("f")]), (false, None, None));
        assert_eq!(of(&[Some("f"), Some("0"), None, None]), (false, None, None));
        let idle = [Some("t"), Some("1"), Some("0"), Some("86400000")];
        assert_eq!(of(&idle), (true, Some(0), Some(0)));
        let behind = [Some("t"), Some("1"), Some("4096"), Some("1500")];
        assert_eq!(of(&behind), (true, Some(4096), Some(1500)));
        assert_eq!(of(&[Some("t"), Some("0"), Some("0"), Some("5")]), (true, None, None));
        assert_eq!(of(&[Some("t"), Some("1"), None, None]), (true, None, None));
        assert_eq!(of(&[Some("t"), Some("1"), Some("7"), None]), (true, Some(7), None));
        assert!(server(&row(&[None])).is_none() && server(&[]).is_none());
    }

    #[test]
    fn who_turns_everybody_away_has_not_refused_the_login() {
        use crate::data::pool::fitness::ProbeResult;
        let result = |code: &str| refused(format!("SFATAL\0C{code}\0Mno\0\0").as_bytes()).result;
        assert_eq!(result("57P03"), ProbeResult::Mismatch);
        assert_eq!(result("28P01"), ProbeResult::LoginFailed);
        assert_eq!(result("53300"), ProbeResult::LoginFailed);
    }
}
