//! Which backends are fit to serve: probes, the verdict that follows from them, and ejection by what sessions saw.
//! Runs on a thread of its own. Reports of sessions go to `pool::failures`; decisions made here go to the backends'
//! rows.
//!
//! ```text
//!            probe passed / failed                       connect made / failed (workers)
//!                     │                                              │
//!             verdict (rise, fall; pure)                    outlier (run, cap)
//!                     │                                              │
//!   starting ──▶ up ◀──▶ down          up, starting ──▶ ejected ──▶ up   after eject_for, or a passed probe
//!                     │                                 ejected ──▶ down  by probes
//!                     └───────────────▶ transition ◀────────────────┘
//!                                 Backend::change: state, weight, held sessions woken
//! ```
//!
//! `drain` and `maintenance`, set by hand, overrule both; the verdict goes on below them in `Status::verdict`.

pub mod monitor;
mod line;
mod watch;
mod blind;
pub mod probe;
pub mod verdict;
pub mod transition;
mod herald;

pub use herald::Means;
