//! TURN: the credentials that clients get, STUN and TURN URLs, what browsers make of them, and probes of the
//! servers behind them.

mod browsers;
mod credentials;
pub mod probe;
mod url;

pub use browsers::{BLOCKED_PORTS, BrowserLimit};
pub use credentials::{LAST_EXPIRY, TurnCredentials, mint};
pub use url::{IceServerUrl, StunTransport};
