//! Sockets: listening, accepting, and the connections themselves, up to the service that answers their requests.
//!
//! Knows no HTTP route: [`serve`] is given the service.

mod accept;
mod answer;
mod connection;
mod limits;
mod proxy_header;
mod sniff;
mod socket;
mod systemd;
mod turns;
mod unix_socket;
pub mod workers;

pub use accept::{listen, serve};
pub use connection::{
    ConnectionInfo, ConnectionSlot, CountedStream, HttpService, MAX_HEAD_BYTES, Upgraded, stream_of,
};
pub use limits::{ConnectionLimits, connection_capacity, raise_descriptor_limit};
pub use proxy_header::{ProxyHeader, ProxyHeaderError, read_proxy_header};
pub use socket::{Listener, PeerAddress};
pub use systemd::{InheritedListener, adopt_listener, inherited_listener};
pub use turns::RequestTurns;
pub use unix_socket::{UnixSocketFile, UnixSocketGuard, check_replaceable, listen_on_unix_socket};
