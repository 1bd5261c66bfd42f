//! The life of a client's connection, from the handshake to the close.

mod detached;
mod run;

pub use crate::protocol::CloseReason;
pub use detached::{DetachedMember, SavedMember, ShutdownSnapshot};
pub use run::*;
