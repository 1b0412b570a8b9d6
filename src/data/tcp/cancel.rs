//! `postgres_cancel: all`: a CancelRequest names a process and its key, and no server. So every backend of the pool that
//! is up is told, all at once; those whose key it is not ignore it. Each is told on a connection of its own, made as those
//! of sessions are, and closed as libpq does it: when the server has closed. The client is closed after all were told.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use socket2::SockAddr;
use tokio::time::{sleep, timeout};

use super::connect::{self, Opened, QUEUE};
use super::greeting::Greeting;
use super::port_book::End as PortEnd;
use super::session::Session;
use crate::border::record::{CloseReason, Stage};
use crate::data::pool::Pool;
use crate::data::pool::backend::Backend;
use crate::data::stream::Stream;
use crate::sys::socket;

/// Backends that are told at most: each costs a connection, and anybody may ask.
const MOST: usize = 64;

/// What a server says before it closes is not read any further.
const ANSWER: usize = 64 * 1024;

type Telling = Pin<Box<dyn Future<Output = ()>>>;

/// Tells all of them, and ends the session.
pub async fn tell_all(
    session: &Rc<Session>,
    client: &mut Stream,
    pool: Arc<Pool>,
    request: Bytes,
) -> CloseReason {
    session.stage.set(Stage::Relay);
    session.taken(true, request.len());
    let mut tellings = tellings(session, client, &pool, &request, None);
    let cut = poll_fn(|cx| {
        if let Some(reason) = session.poll_cut(cx) {
            return Poll::Ready(Some(reason));
        }
        tellings.retain_mut(|telling| telling.as_mut().poll(cx).is_pending());
        if tellings.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    })
    .await;
    client.end();
    // What does not fit at once is not sent.
    let _ = poll_fn(|cx| Poll::Ready(client.poll_flush(cx))).await;
    socket::end_politely(&*client, &mut session.worker.scratch.borrow_mut());
    cut.unwrap_or(CloseReason::ClientClosed)
}

/// The same for a client that asked for TLS first and was refused it by its backend, as libpq does since version 17: that
/// backend hears the request from the client itself, and the others are told meanwhile.
pub fn tell_others(session: &Rc<Session>, client: &Stream, request: &Bytes) {
    let Some(pool) = session.pool() else { return };
    let own = session.with_backend(Arc::clone);
    for telling in tellings(session, client, &pool, request, own) {
        tokio::task::spawn_local(telling);
    }
}

fn tellings(
    session: &Rc<Session>,
    client: &Stream,
    pool: &Arc<Pool>,
    request: &Bytes,
    but: Option<Arc<Backend>>,
) -> Vec<Telling> {
    let is_up = |backend: &&Arc<Backend>| backend.live.down.ms().is_none();
    let is_other = |backend: &&Arc<Backend>| {
        but.as_ref().is_none_or(|but| !Arc::ptr_eq(&but.live, &backend.live))
    };
    let backends = pool.backends.iter().filter(is_up).filter(is_other);
    let room = MOST - usize::from(but.is_some());
    let tellings = backends.take(room).filter_map(|backend| -> Option<Telling> {
        let told = Told {
            session: Rc::clone(session),
            pool: Arc::clone(pool),
            backend: Arc::clone(backend),
        };
        let address = socket::backend_sockaddr(&backend.address, session.local()).ok()??;
        let greeting = Greeting::new(session, client, pool, backend, &address).ok()?;
        let request = request.clone();
        Some(Box::pin(async move {
            let limit = told.pool.config.connect.timeout;
            // Whoever cannot be told has no query that could be cancelled.
            let _ = timeout(limit, told.tell(&address, greeting, request)).await;
        }))
    });
    tellings.collect()
}

/// One that is told.
struct Told {
    session: Rc<Session>,
    pool: Arc<Pool>,
    backend: Arc<Backend>,
}

impl Told {
    async fn tell(
        &self,
        address: &SockAddr,
        mut greeting: Greeting,
        mut request: Bytes,
    ) -> io::Result<()> {
        let Opened { mut stream, mut lease } = loop {
            match connect::open(&self.session, &self.pool, address, true) {
                Err(error) if connect::is_queue_full(&error) => sleep(QUEUE).await,
                opened => break opened?,
            }
        };
        let greeted = poll_fn(|cx| greeting.poll(&mut stream, cx)).await;
        greeted.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        if let Some(lease) = &mut lease {
            lease.connected(&stream);
        }
        let length = request.len();
        poll_fn(|cx| poll_send(&mut stream, &mut request, cx)).await?;
        self.session.told_a_backend(&self.backend, length);
        poll_fn(|cx| poll_end(&mut stream, cx)).await?;
        if let Some(lease) = &mut lease {
            // The server closed first.
            lease.ended(PortEnd::Free);
        }
        Ok(())
    }
}

fn poll_send(
    stream: &mut Stream,
    request: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !request.is_empty() {
        let sent = ready!(stream.poll_write(cx, request))?;
        request.advance(sent);
    }
    stream.poll_flush(cx)
}

fn poll_end(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let (mut buffer, mut read) = ([0; 256], 0);
    while read < ANSWER {
        match ready!(stream.poll_read(cx, &mut buffer))? {
            0 => return Poll::Ready(Ok(())),
            count => read += count,
        }
    }
    Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
}
