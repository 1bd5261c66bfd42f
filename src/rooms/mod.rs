//! Rooms: `room` is one of them, `registry` all of this server; `membership` is a client's presence in one.

mod membership;
mod registry;
mod room;

pub use membership::Membership;
pub use registry::{ClaimError, RoomRegistry};
pub use room::{JoinError, MemberSnapshot, Peer, Resumed, RouteError, is_room_id};
