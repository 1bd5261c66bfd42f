//! Sockets: listening, accepting, and the connections themselves, up to the service that answers their requests.
//!
//! Knows no HTTP route: [`serve`] is given the service.

mod accept;
mod connection;
mod limits;
mod sniff;
mod systemd;
pub mod workers;

pub use accept::{listen, serve};
pub use connection::{
    ConnectionInfo, ConnectionSlot, CountedStream, HttpService, MAX_HEAD_BYTES, Upgraded, stream_of,
};
pub use limits::{ConnectionLimits, connection_capacity, raise_descriptor_limit};
pub use systemd::{adopt_listener, inherited_listener};
