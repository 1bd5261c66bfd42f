//! Probes STUN and TURN servers as a client would use them.

pub mod attempt;
mod connection;
pub mod health;
mod messages;
