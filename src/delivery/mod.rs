//! How frames reach one client, across its connections.

mod queue;
mod replay;

pub use queue::*;
pub use replay::{REPLAY_MAX_BYTES, REPLAY_MAX_FRAMES, ReplayBuffer, ReplayGap};
