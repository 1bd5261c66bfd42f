//! Rooms: membership, and who receives what. A room is pure: no clock, no socket, no lock; `now` is an argument.
//!
//! - `room`: one room and its members; `local` members on this node join, detach, resume and leave; `remote` members are
//!   on other nodes; `recent_members` left a short time ago; `handover` memberships change node; `routing` signals to peers; `snapshot` what a room shows of itself.
//! - `events`: what happens in a room, and its subscribers: timeline, webhooks, peers.
//! - `registry`: all rooms of this node, each with a lock of its own; `replication` applies to them what the cluster reports;
//!   `queries` is what REST, metrics and the admin page ask of them.
//! - `membership`: a client's membership as a value, and one that comes from another node; `own_membership` ends a dead one for
//!   a new one of its user.
//! - `backend`: what rooms and the rest of the server need of other nodes; `single_node` is the one that has none.

mod backend;
mod events;
mod handover;
mod local;
mod membership;
mod own_membership;
mod queries;
mod recent_members;
mod registry;
mod remote;
mod replication;
mod room;
mod routing;
mod single_node;
mod snapshot;
#[cfg(test)]
mod tests;

pub use self::{
    backend::{
        Backend, BackendFuture, ClaimError, ClaimRequest, ClusterCounts, ClusterStatus,
        ClusterUnavailable, NodeUnreachable, Reach, RelayedFrame, RelayedSignal, RoomCounts,
    },
    membership::{Membership, MigratedMember},
    own_membership::PONG_WAIT,
    registry::RoomRegistry,
    replication::AcceptedMember,
    room::{JoinError, Resumed, is_room_id},
    routing::RouteError,
    single_node::SingleNode,
    snapshot::MemberSnapshot,
};
pub use crate::peer::Peer;
