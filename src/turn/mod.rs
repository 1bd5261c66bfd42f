//! TURN: the credentials that clients get, STUN and TURN URLs, and probes of the servers behind them.

pub mod credentials;
pub mod probe;
pub mod url;

pub use credentials::{TurnCredentials, mint};
