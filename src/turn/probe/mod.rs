//! Probes STUN and TURN servers as a client would use them.

mod attempt;
mod batch;
mod connection;
mod health;
mod messages;
mod outcome;

pub use batch::{Prober, probe_all};
pub use health::{ProbeResult, TurnHealth};
pub use outcome::{ProbeOutcome, ProbeReport};
