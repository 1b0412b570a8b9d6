//! The `redis` probe: logs in to Redis or Valkey, if it must, and asks whether it serves and in which role.

use std::path::PathBuf;
use std::time::Duration;

use super::facts::{Facts, Lag, Server};
use super::fault::Fault;
use super::heard::{Heard, readable};
use super::password::Password;
use super::talk::Talk;
use crate::config::{self, Secret};
use crate::data::stream::Stream;
use crate::data::wire::Progress;
use crate::data::wire::redis::{self as wire, Reply};

/// What it is asked, apart from what a pool makes of the answer.
#[derive(PartialEq)]
pub(super) struct Ask {
    user: Option<String>,
    password: Option<Secret>,
    password_file: Option<PathBuf>,
}

impl Ask {
    pub fn of(own: &config::Redis) -> Ask {
        Ask {
            user: own.user.clone(),
            password: own.password.clone(),
            password_file: own.password_file.clone(),
        }
    }
}

pub(super) struct Redis {
    ask: Ask,
    password: Password,
}

impl Redis {
    pub fn new(own: &config::Redis) -> Redis {
        let password = Password::new(own.password.as_ref(), own.password_file.as_ref());
        Redis { ask: Ask::of(own), password }
    }

    pub fn password(&self) -> &Password {
        &self.password
    }

    pub fn asks(&self) -> &Ask {
        &self.ask
    }

    pub async fn log_in(&self, stream: &mut Stream, heard: &Heard) -> Result<(), Fault> {
        let Some(password) = self.password.now().await? else { return Ok(()) };
        let mut words = vec!["AUTH"];
        words.extend(self.ask.user.as_deref());
        words.push(password.reveal());
        let mut talk = Talk::new(stream, heard);
        talk.send(&wire::command(&words)).await?;
        match next(&mut talk).await? {
            Ok(_) => Ok(()),
            Err(text) => Err(Fault::login_failed(text)),
        }
    }

    pub async fn ask(&self, stream: &mut Stream, heard: &Heard) -> Result<Facts, Fault> {
        let mut talk = Talk::asking(stream, heard);
        let both = [wire::command(&["PING"]), wire::command(&["INFO", "replication"])].concat();
        talk.send(&both).await?;
        match next(&mut talk).await? {
            // It may close after it.
            Err(text) if !is_of_a_replica(&text) => return Err(refused(text)),
            _ => {}
        }
        let info = next(&mut talk).await?.map_err(refused)?.unwrap_or_default();
        let server = server(&info)
            .ok_or_else(|| Fault::query_failed("INFO replication does not tell its role"))?;
        Ok(Facts { server: Some(server), answer: None })
    }
}

/// A reply; `Err` has the error of the server.
async fn next(talk: &mut Talk<'_>) -> Result<Result<Option<Vec<u8>>, String>, Fault> {
    let parse = |bytes: &[u8]| match wire::read(bytes) {
        Ok(Progress::Whole((reply, taken))) => {
            let reply = match reply {
                Reply::Plain(_) | Reply::Text(None) => Ok(None),
                Reply::Failed(text) => Err(readable(text)),
                Reply::Text(Some(text)) => Ok(Some(text.to_vec())),
            };
            Ok(Progress::Whole((reply, taken)))
        }
        Ok(Progress::Partial) => Ok(Progress::Partial),
        Err(wire::Bad) => Err(()),
    };
    talk.next(parse).await
}

/// It has lost its primary and serves nothing meanwhile (`replica-serve-stale-data no`); INFO says the same.
fn is_of_a_replica(text: &str) -> bool {
    text.starts_with("MASTERDOWN")
}

fn refused(text: String) -> Fault {
    let is = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
    match () {
        () if is(&["NOAUTH", "WRONGPASS", "ERR max number of clients", "DENIED"]) => {
            Fault::login_failed(text)
        }
        // It reads its data, and turns everybody away.
        () if is(&["LOADING"]) => Fault::mismatch(text),
        () => Fault::query_failed(text),
    }
}

fn server(info: &[u8]) -> Option<Server> {
    let value = |key| wire::info(info, key);
    let is_replica = match value("role")? {
        b"master" => false,
        b"slave" => true,
        _ => return None,
    };
    let mut server = Server { is_replica, ..Server::default() };
    if is_replica {
        server.is_cut_off = value("master_link_status") != Some(b"up");
        let seconds = value("master_last_io_seconds_ago");
        let seconds = seconds.and_then(|it| str::from_utf8(it).ok()?.parse().ok());
        server.lag = Lag {
            time: seconds.map(Duration::from_secs),
            unknown: "it has not heard from its primary",
            bytes: None,
        };
    }
    Some(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::pool::fitness::ProbeResult;

    #[test]
    fn what_info_says() {
        let of = |text: &str| {
            let server = server(text.as_bytes())?;
            Some((server.is_replica, server.is_cut_off, server.lag.time.map(|it| it.as_secs())))
        };
        assert_eq!(of("role:master\r\nconnected_slaves:0\r\n"), Some((false, false, None)));
        let up = "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\n";
        assert_eq!(of(up), Some((true, false, Some(3))));
        let down = "role:slave\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\n";
        assert_eq!(of(down), Some((true, true, None)));
        assert_eq!(of("# Server\r\n"), None);
    }

    #[test]
    fn why_it_refused() {
        let result = |text: &str| refused(text.to_owned()).result;
        assert_eq!(result("NOAUTH Authentication required."), ProbeResult::LoginFailed);
        assert_eq!(result("NOPERM this user has no permissions"), ProbeResult::QueryFailed);
        assert_eq!(result("LOADING Redis is loading"), ProbeResult::Mismatch);
    }
}
