//! Memberships that change node. No frame that was sent to one is lost, doubled or reordered, and its peers get no event.
//!
//! The node that has the membership releases it and keeps its frames, Redis moves the record, every other node of the room
//! confirms that it has read that (a barrier), and then the frames follow. The [`Epoch`] in which a frame was sent tells
//! which of the two nodes delivers it. Pure: `now` is an argument; nothing here knows a room, a lock or Redis.
//!
//! `record` is what a membership is called in the whole cluster, `state` what moves, `outgoing` the moves that have begun
//! here, `timings` how long everything may take.

mod outgoing;
mod record;
mod state;
mod timings;

pub use self::{
    outgoing::{HandOver, OutgoingMigration, OutgoingMigrations},
    record::{ConnectionId, Epoch, MemberRecord, ParseRecordError, random_key},
    state::{Migration, MigrationGuard, MigrationState, MigrationTracker, roster_changes},
    timings::ClusterTimings,
};
