//! Bytes and values, one from the other: no I/O, no clock, no allocation, and no bytes that make it panic.

pub mod proxy_protocol;
