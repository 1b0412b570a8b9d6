//! The integration tests: one binary, one module per feature.

// A test that meets what it does not expect is to fail on the spot; its numbers are small.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod access_files;
mod admin;
mod api_document;
mod backend_files;
mod balancer;
mod bandwidth;
mod binary;
mod blame;
mod busy_poll;
mod cancel;
mod by_hand;
mod check_command;
mod config;
mod connect;
mod discovery;
mod doctor;
mod documents;
mod door;
mod ends;
mod health;
#[path = "../corpus/hello.rs"]
mod hello;
mod hold;
mod idle_first;
mod lacks;
mod listener;
mod lists;
mod name_server;
mod on_down_reasons;
mod oracle;
mod passive;
mod readme;
mod probe_parting;
mod proxy_protocol;
mod relay;
mod refusals;
mod reload;
mod routes;
mod restart;
mod retry;
mod server;
mod slow_reader;
mod status_page;
mod tls;
mod top;
mod udp;
mod udp_breaks;
mod udp_door;
mod udp_flows;
mod udp_oracle;
mod udp_probe;
mod urgent;
mod who_serves;
