//! What the program believes: the configuration after every default, merge and check. Nothing here knows
//! YAML. Built only by `load`, by the command line's one-line start, and by tests through `Default`.
//!
//! The modules stand in the order a file passes through them; those after `schema` are what they share. Every key is
//! declared in `keys`, and nowhere else.

mod load;
mod parse;
mod substitute;
mod keys;
mod whole;
mod check;
pub mod schema;

pub mod tree;
mod protocol;
mod question;
mod decode;
mod properties;
mod mapping;
mod choice;
mod scalar;
mod value;
mod payload;
mod net;
mod backend_list;
mod admin;
mod files;
mod elsewhere;
pub mod describe;
pub mod compare;
pub mod fault;
pub mod error;
mod secret;
mod discovery;

pub use crate::border::dns_name::NamePattern;
pub use crate::border::token::Token;
pub use crate::sys::privileges::User;
pub use admin::AdminSocket;
pub use discovery::{Answer, Answers, Discovery, Finder, Origin, Question, Service};
pub use error::{Report, Source};
pub use keys::*;
pub use load::{
    BadList, Loaded, finish_load, load, read_backends, read_nets, read_sources, read_text_file,
};
pub use net::{NetFile, OPENS_THE_DOOR, Trusted};
pub use payload::Expect;
pub use protocol::Protocol;
pub use question::{MaxLag, Secret};
pub use value::{ProxyTlvs, ProxyVersion, StatusRange};
pub use whole::{Config, DownReason};
