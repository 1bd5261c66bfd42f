//! Membership as a value.

use std::sync::{Arc, PoisonError, RwLock};

use super::{JoinError, Peer, RoomRegistry, RouteError};
use crate::{outbox::Outbox, wire::Signal};

/// The registry as everyone shares it. No lock is held over an `await`.
#[derive(Clone)]
pub struct SharedRooms(Arc<RwLock<RoomRegistry>>);

impl SharedRooms {
    /// Shares `registry`.
    pub fn new(registry: RoomRegistry) -> Self {
        Self(Arc::new(RwLock::new(registry)))
    }

    /// Asks the registry something.
    pub fn read<T>(&self, ask: impl FnOnce(&RoomRegistry) -> T) -> T {
        // A panic under the lock ends its own session; every change is whole before it can panic.
        ask(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut RoomRegistry) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One client's membership of one room: hold it and you are in, drop it and you have left.
pub struct Seat {
    rooms: SharedRooms,
    room: Arc<str>,
    peer: Peer,
    number: u64,
}

impl Seat {
    /// Enters `room` as `peer`; what the room says from now on goes to `outbox`.
    ///
    /// # Errors
    ///
    /// See [`RoomRegistry::join`].
    pub fn take(
        rooms: &SharedRooms,
        room: &Arc<str>,
        peer: Peer,
        outbox: Outbox,
    ) -> Result<Self, JoinError> {
        let number = rooms.write(|rooms| rooms.join(room, peer.clone(), outbox))?;
        Ok(Self { rooms: rooms.clone(), room: room.clone(), peer, number })
    }

    /// Passes a signal on to whom it is for.
    ///
    /// # Errors
    ///
    /// See [`RoomRegistry::route`].
    pub fn send(&self, signal: &Signal<'_>) -> Result<(), RouteError> {
        self.rooms.read(|rooms| rooms.route(&self.room, &self.peer, self.number, signal))
    }

    /// Who sits here.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rooms.write(|rooms| rooms.leave(&self.room, &self.peer.client_id, self.number));
    }
}
