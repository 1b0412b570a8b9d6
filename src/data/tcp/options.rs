//! From the keys of a listener to the options of its sockets.

use socket2::TcpKeepalive;

use crate::config;
use crate::data::pool::Pool;
use crate::sys::socket::{Listening, Outgoing};

/// Of the sockets that listen.
pub fn listening(config: &config::Listener) -> Listening {
    Listening {
        keepalive: config.keepalive.map(keepalive),
        buffer: config.socket_buffers.map(|buffers| buffers.client),
        user_timeout: config.timeouts.client_user_timeout,
        backlog: config.backlog,
    }
}

fn keepalive(keepalive: config::Keepalive) -> TcpKeepalive {
    let times = TcpKeepalive::new().with_time(keepalive.idle).with_interval(keepalive.interval);
    times.with_retries(keepalive.count)
}

/// Of a connection to a backend. `sends_first`: there is something for it already.
pub fn outgoing(config: &config::Listener, pool: &Pool, sends_first: bool) -> Outgoing {
    Outgoing {
        keepalive: config.keepalive.map(keepalive),
        buffer: config.socket_buffers.map(|buffers| buffers.backend),
        user_timeout: pool.config.timeouts.backend_user_timeout,
        sends_first,
    }
}
