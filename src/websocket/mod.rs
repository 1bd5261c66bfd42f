//! The server's end of a WebSocket (RFC 6455) over any byte stream. The folder knows nothing of rooms, sessions or
//! metrics and can be used by itself.
//!
//! - `handshake`: checks the request for an upgrade and answers it.
//! - `codec`: frames as bytes; no socket.
//! - `connection`: a WebSocket on a byte stream, for the task that owns it.
//! - `direct_writer`: its stream, to which also the tasks of peers write.
//! - `scratch`: the buffer of a thread for reads and writes.
//!
//! The server has a WebSocket of its own because of these measurements, made with prototypes (one core, a 1 KiB offer
//! relayed in 64 rooms of 2; CPU per message as a ratio to a bare epoll relay without JSON or authentication). The
//! figures of the server itself are in docs/inside/performance.md.
//!
//! | implementation | CPU per relayed message | CPU per delivery of a broadcast to 10 | memory per idle connection |
//! | --- | ---: | ---: | ---: |
//! | a small codec of its own, without idle buffers | 1.19 | 1.07 to 1.15 | 3.5 KiB |
//! | fastwebsockets and yawc, buffers of 4 KiB | 1.30 and 1.43 | – | – |
//! | axum with tungstenite 0.29, buffers of 4 KiB | 1.38 | 1.33 | 9.8 KiB |
//! | axum with tungstenite 0.29, default buffers of 128 KiB | 1.9 | – | 135 KiB |
//!
//! - tungstenite zero-fills its read buffer at every read poll, also when no bytes have arrived.
//! - A connection here owns no buffer while no frame is partly read or written.
//! - A peer's task may write into the socket where nothing is queued before it. That took the relay from 1.26–1.35
//!   to 1.19–1.31 and the broadcast from 1.17–1.18 to 1.11–1.13 (the server itself, old and new in turns).
//!
//! Its conformance is held by the fuzz target `websocket` and by tests against tokio-tungstenite and browsers.

mod codec;
mod connection;
mod direct_writer;
mod handshake;
mod scratch;

pub use codec::{Decoded, Message, MessageDecoder, ProtocolError, SHORT_FRAGMENT_BYTES};
pub use connection::{ConnectionLost, Socket, SocketEvent, WebSocket};
pub use direct_writer::{DirectWriter, FrameCounter, WriteOutcome};
pub use handshake::sec_websocket_accept;
