//! Rooms: `room` decides who hears what in one of them, `registry` which there are; `seat` holds a
//! membership; `far` is what other servers have to do with them; `timeline` what has happened in a room.

pub mod far;
mod registry;
mod room;
mod seat;
mod timeline;

pub use registry::{ClaimError, RoomRegistry};
pub use room::{JoinError, MemberSnapshot, Peer, Resumed, RouteError, is_room_id};
pub use seat::Membership;
pub use timeline::{TimelineEvent, TimelineView};
