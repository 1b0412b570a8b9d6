//! The border to the kernel and the only place for unsafe code: what neither std, rustix nor socket2 offers, behind
//! safe functions that state what they guarantee.
#![allow(unsafe_code)]

pub mod accounts;
pub mod ancillary;
pub mod blocking;
pub mod clock;
pub mod connection;
pub mod datagram;
pub mod interface;
pub mod keyed;
pub mod limits;
pub mod pipe;
pub mod port_range;
pub mod privileges;
pub mod socket;
pub mod text_file;
