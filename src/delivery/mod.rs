//! How frames reach one client, across its connections.
//!
//! - `queue`: the send queue of a client, into which rooms and administrators push frames.
//! - `queue_state`: what the queue holds, and what its two ends share.
//! - `reader`: the end of the queue that the client's connection reads.
//! - `replay`: the frames that a client may not have received, kept until it acknowledges them or resumes.
//! - `deferred`: those of them that came while the client had no connection.
//! - `disconnect`: the signal by which others end a client's connection, and its reasons.

mod deferred;
mod disconnect;
mod queue;
mod queue_state;
mod reader;
mod replay;

pub use disconnect::{DisconnectReason, DisconnectSignal};
pub use queue::{AWAITING_MIGRATION, ClientQueue, channel};
pub use queue_state::{QUEUE_MAX_BYTES, QUEUE_MAX_FRAMES};
pub use reader::ClientQueueReader;
pub use replay::{REPLAY_MAX_BYTES, REPLAY_MAX_FRAMES, ReplayBuffer, ReplayGap, ResumeError};

#[cfg(test)]
mod tests;
