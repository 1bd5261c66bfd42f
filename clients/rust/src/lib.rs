//! A member of a room on signaling-server, which stays one through broken networks, sleeping laptops
//! and restarts. What goes over the wire is in `docs/build/protocol.md`; that a client of another language
//! behaves the same is in `docs/build/clients.md`. There is no WebRTC in here: bring your own.
//!
//! ```no_run
//! use signaling_client::{Event, Options, connect};
//!
//! # async fn story() -> Result<(), signaling_client::Error> {
//! let options = Options::new("https://signaling.example.com", "standup").login("alice", "secret");
//! let (session, mut events) = connect(options).await?;
//! session.send("hello", None);
//! while let Some(event) = events.next().await {
//!     if let Event::Message { from, data, .. } = event {
//!         session.send(data, Some(&from));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Read in this order: [`Event`] (what is heard), [`Options`], [`Session`] (what can be said), then
//! `membership` (every decision, without a socket or a clock), `driver` (what carries them out) and
//! `dial` (how a server is reached).

mod dial;
mod driver;
mod events;
mod membership;
mod options;
mod session;
mod tokens;

pub use events::{Change, Error, Event, IceServer, Member, PeerState, SignalKind, State};
pub use options::Options;
pub use session::{Events, Session, connect, start};
