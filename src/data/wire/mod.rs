//! Bytes and values, one from the other: no I/O, no clock, and no bytes that make it panic.

pub mod proxy_protocol;
pub mod client_hello;
pub mod postgres;
pub mod dns;

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// Nothing is wrong yet, and more is needed.
    Partial,
    Whole(T),
}
