//! Converts between bytes and values: no I/O, no clock, and no bytes make it panic.

pub mod proxy_protocol;
pub mod client_hello;
pub mod postgres;
pub mod dns;
pub mod postgres_client;
pub mod scram;
pub mod mysql;
pub mod redis;

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// Nothing is wrong yet, and more bytes are needed.
    Partial,
    Whole(T),
}
