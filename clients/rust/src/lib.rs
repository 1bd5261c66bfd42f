//! A client of signaling-server. It keeps its membership of a room across lost networks, suspended machines and
//! server restarts. `docs/build/protocol.md` describes the frames; `docs/build/clients.md` describes the behaviour
//! that the clients of all languages share. It contains no WebRTC: combine it with a WebRTC library.
//!
//! ```no_run
//! use signaling_client::{Event, Options, connect};
//!
//! # async fn example() -> Result<(), signaling_client::Error> {
//! let options = Options::new("https://signaling.example.com", "standup").login("alice", "secret");
//! let (session, mut events) = connect(options).await?;
//! session.send("hello", None)?;
//! while let Some(event) = events.next().await {
//!     if let Event::Message { from, data, .. } = event {
//!         session.send(data, Some(&from))?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Read in this order: [`Event`] (what a session reports), [`Options`], [`Session`] (what a program can send), then
//! `membership` (every decision, without a socket or a clock), `driver` (which carries the decisions out) and
//! `endpoint` (how the server is reached).

mod driver;
mod endpoint;
mod events;
mod membership;
mod options;
mod session;
mod shared;
mod tokens;

pub use events::{
    Change, Error, Event, IceServer, IceTransportPolicy, Member, PeerState, SignalKind, State,
};
pub use options::Options;
pub use session::{Events, Session, connect, start};
