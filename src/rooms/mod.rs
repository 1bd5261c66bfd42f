//! Rooms: `room` decides who hears what in one of them, `registry` which there are; `seat` holds a
//! membership; `far` is what other servers have to do with them; `timeline` what has happened in a room.

pub mod far;
mod registry;
mod room;
mod seat;
mod timeline;

pub use registry::{NotFetched, Rooms};
pub use room::{JoinError, Peer, Resumed, RouteError, Sitting, is_room_id};
pub use seat::Seat;
pub use timeline::{Event, Story};
