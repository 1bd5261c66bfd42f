//! The life of a client's connection, in sequence: handshake, membership, close.
//!
//! - `run`: the sequence itself.
//! - `context`: what a session is given, and the services that it calls.
//! - `handshake`: from the first frame to a membership.
//! - `resume`: from a resume token to the membership that it stands for.
//! - `member`: the loop of a member; `welcome` is its first frames.
//! - `dispatch`: acts on each frame of a member.
//! - `liveness`: silence, pings and the deadlines of writes.
//! - `close`: the last frames of a connection.
//! - `detached`: a membership without a connection, until its client resumes, also over a restart.

mod close;
mod context;
mod detached;
mod dispatch;
mod handshake;
mod liveness;
mod member;
mod moderation;
mod resume;
mod run;
mod welcome;

pub use close::preregister_metrics;
pub use context::{
    AuthError, Authorized, Credentials, IceServerSet, SessionContext, SessionLimits,
    SessionServices, handshake_span,
};
pub use detached::{DetachedMember, SavedMember, ShutdownSnapshot};
pub use run::{reject, run};

#[cfg(test)]
mod tests;
