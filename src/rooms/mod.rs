//! Rooms: `registry` decides who is where and who hears what; `seat` holds a membership.

mod registry;
mod seat;

pub use registry::{JoinError, Peer, RoomRegistry, RouteError, is_room_id};
pub use seat::{Seat, SharedRooms};
