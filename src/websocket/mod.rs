//! WebSockets (RFC 6455).

mod codec;
mod connection;

pub use codec::*;
pub use connection::WebSocket;
