//! The end of a client that never reached a backend: as `on_refuse` says, with a message if the client's protocol has
//! one. A PostgreSQL client whose TLS is terminated here gets an error of its own protocol; a client whose
//! ClientHello asks for a server name that no route has gets TLS' alert for that.

use std::task::{Context, Waker};

use super::session::Session;
use crate::border::record::CloseReason;
use crate::config::OnRefuse;
use crate::data::stream::Stream;
use crate::data::stream::tls::Tls;
use crate::data::wire::postgres;
use crate::sys::socket;

/// A fatal alert, `unrecognized_name`. Source: RFC 8446, sections 5.1 and 6.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

pub fn refuse(session: &Session, client: &mut Stream, reason: CloseReason) -> CloseReason {
    if session.listener.config.on_refuse == OnRefuse::Reset {
        client.reset_on_close();
        return reason;
    }
    // What does not fit at once is not sent.
    let mut cx = Context::from_waker(Waker::noop());
    if client.tls().is_some() {
        if speaks_postgres(session, client)
            && let Some((code, message)) = in_sql(reason)
        {
            let _ = client.poll_write(&mut cx, &postgres::error(code, message));
        }
        client.end();
        let _ = client.poll_flush(&mut cx);
    } else if reason == CloseReason::NoRoute
        && session.told(|told| told.server_name().is_some()) == Some(true)
    {
        let _ = client.poll_write(&mut cx, &UNRECOGNIZED_NAME);
    }
    socket::end_politely(&*client, &mut session.worker.scratch.borrow_mut());
    reason
}

fn speaks_postgres(session: &Session, client: &Stream) -> bool {
    session.told(|told| told.speaks_postgres) == Some(true)
        || client.tls().and_then(Tls::alpn) == Some(b"postgresql")
}

/// The SQLSTATE by which clients know whether another host or another try may help, and a sentence for people.
fn in_sql(reason: CloseReason) -> Option<(&'static str, &'static str)> {
    Some(match reason {
        CloseReason::NoRoute => ("08004", "no database is served under this server name"),
        CloseReason::Denied => ("28000", "this address may not connect"),
        CloseReason::OverLimit | CloseReason::RateLimited | CloseReason::BackendFull => {
            ("53300", "too many connections")
        }
        CloseReason::NoBackend | CloseReason::HoldTimeout | CloseReason::BackendDown => {
            ("57P03", "no database server is available now")
        }
        CloseReason::ConnectRefused
        | CloseReason::ConnectTimeout
        | CloseReason::ConnectUnreachable
        | CloseReason::TlsFailed => ("57P03", "the database server could not be reached"),
        _ => return None,
    })
}
