//! What a listener of one name keeps over reloads for its admission limits. The limits themselves are in the
//! configuration and are passed in with each call.

use super::client::{ClientRates, Clients};
use super::rate::Bucket;

#[derive(Debug, Default)]
pub struct Quotas {
    /// `limits.rate`.
    pub rate: Bucket,
    /// `limits.rate_per_client`.
    pub rates: ClientRates,
    /// `limits.datagram_rate`.
    pub datagrams: Bucket,
    /// `limits.datagram_rate_per_client`.
    pub datagram_rates: ClientRates,
    /// `limits.sessions_per_client`.
    pub clients: Clients,
}
