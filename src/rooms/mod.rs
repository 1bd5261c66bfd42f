//! Rooms: `room` decides who hears what in one of them, `registry` which there are; `seat` holds a
//! membership; `far` is what other servers have to do with them.

pub mod far;
mod registry;
mod room;
mod seat;

pub use registry::{NotFetched, Rooms};
pub use room::{JoinError, Peer, Resumed, RouteError, is_room_id};
pub use seat::Seat;
