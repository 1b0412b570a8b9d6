//! The UDP data plane: a packet loop per worker. In reading order: the pure core (`flow`, `flow_table`, `train`),
//! then the shell around it.

pub mod flow;
pub mod flow_table;
pub mod train;

pub mod worker;
mod door;
pub mod listener;
pub mod begin;
pub mod source_ports;
pub mod relay;
pub mod link;
pub mod flows;
mod ending;
mod refusals;
pub mod loops;
