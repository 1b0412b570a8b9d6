//! How a probe closes its connection once it has its verdict: like a client, with a FIN after reading everything, so
//! that no server logs a broken connection. The kernel then keeps the socket's port in TIME_WAIT for a minute, unless
//! the server closed first. If there are too many probes for that, or the server does not close, the probe resets.

use std::borrow::Cow;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config;
use crate::data::stream::Stream;

/// Time for the server to close as well; its answer has been read already.
const PATIENCE: Duration = Duration::from_millis(250);

/// The most that is read of what it still sends.
const LAST_WORDS: usize = 256 << 10;

/// How long the kernel keeps the port of a connection that we closed first.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// The most such ports towards one backend, of some 28 000, and such sockets for all backends of a pool.
const OF_A_BACKEND: f64 = 1_000.0;
const OF_A_POOL: f64 = 20_000.0;

/// Whether probes of this pool can close in this way.
pub(super) fn is_affordable(pool: &config::Pool) -> bool {
    let lingering = TIME_WAIT.as_secs_f64() / pool.health.interval.as_secs_f64();
    lingering <= OF_A_BACKEND && lingering * pool.backends.len() as f64 <= OF_A_POOL
}

/// A connection that is no longer needed.
pub struct Parting(pub Option<Leave>);

pub struct Leave {
    pub stream: Stream,
    /// The words of its protocol, if it has any.
    pub goodbye: Cow<'static, [u8]>,
    /// It was asked to close by itself.
    pub closes_by_itself: bool,
    /// The next probe must not wait for it.
    pub patience: Duration,
}

pub(super) fn patience(interval: Duration) -> Duration {
    PATIENCE.min(interval / 4)
}

impl Parting {
    /// Closes in an orderly way; if dropped before, it resets.
    pub async fn over(self) {
        let Some(Leave { mut stream, goodbye, closes_by_itself, patience }) = self.0 else {
            return;
        };
        // Fails only if this is not a socket.
        let _ = SockRef::from(&stream).set_linger(None);
        let parting = async {
            // A failure here only makes the close less orderly.
            let _ = stream.write_all(&goodbye).await;
            let _ = stream.flush().await;
            // The side that closes first keeps the port.
            if closes_by_itself
                && let Ok(true) = tokio::time::timeout(patience / 2, read_out(&mut stream)).await
            {
                return;
            }
            stream.end();
            let _ = stream.flush().await;
            let _ = stream.shutdown().await;
            read_out(&mut stream).await;
        };
        let _ = tokio::time::timeout(patience, parting).await;
    }
}

/// Reads what still arrives, until the server has closed: the kernel would answer unread bytes with a reset. Returns
/// whether it has.
async fn read_out(stream: &mut Stream) -> bool {
    let mut scrap = [0; 1024];
    for _ in 0..LAST_WORDS / scrap.len() {
        match stream.read(&mut scrap).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leave_is_taken_where_ports_and_sockets_are_few() {
        let pool = |backends: usize, interval| config::Pool {
            backends: vec![config::Backend::default(); backends],
            health: config::Health {
                interval: Duration::from_millis(interval),
                ..config::Pool::default().health
            },
            ..config::Pool::default()
        };
        assert!(is_affordable(&pool(3, 2_000)) && is_affordable(&pool(600, 2_000)));
        assert!(!is_affordable(&pool(1, 50)), "1200 ports towards it");
        assert!(!is_affordable(&pool(5_000, 2_000)), "150 000 sockets");
        assert!(is_affordable(&pool(5_000, 20_000)));
    }
}
