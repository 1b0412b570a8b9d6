//! Whether a relayed session is in a quiet moment (`on_down: {idle_first: …}`): no byte moved for a moment, and none is on
//! its way, not in our buffers and pipes, not in TLS, not in the kernel on either side.

use super::relay::Relay;
use crate::data::stream::Stream;
use crate::sys::connection;
use crate::sys::socket::{self, Peeked};

impl Relay {
    /// To be asked when everything that could be moved has been. The cheap questions come first.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.session.is_silent()
            && !self.to_backend.has_pending()
            && !self.to_client.has_pending()
            && [&mut self.client, &mut self.backend].into_iter().all(is_empty)
    }
}

/// Nothing that we sent is unacknowledged, and nothing that it sent is unread: with `limits.bandwidth` bytes wait for
/// their time.
fn is_empty(stream: &mut Stream) -> bool {
    !stream.holds_bytes()
        && !connection::delivery(&*stream).is_pending
        && !matches!(socket::peek(&*stream), Peeked::Bytes { .. })
}
