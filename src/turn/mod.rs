//! TURN: the credentials that clients get, STUN and TURN URLs, and probes of the servers behind them.

mod credentials;
pub mod probe;
mod url;

pub use credentials::{TurnCredentials, mint};
pub use url::{IceServerUrl, StunTransport};
