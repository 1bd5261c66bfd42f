//! Membership as a value.

use std::sync::Arc;

use tokio::time::Instant;

use super::{JoinError, Peer, Rooms, RouteError, registry::SharedRoom};
use crate::{
    outbox::Outbox,
    wire::{Signal, Signature},
};

/// One client's membership of one room: hold it and you are in, drop it and you have left.
pub struct Seat {
    rooms: Rooms,
    room: Arc<SharedRoom>,
    peer: Peer,
    signature: Signature,
    number: u64,
}

impl Seat {
    /// Enters `room` as `peer`; what the room says from now on goes to `outbox`.
    ///
    /// At once the outbox gets `users_in_room` and the others hear `user_joined`: no message of the
    /// room comes before the one, nor is missed after it. A seat that the same user holds under the
    /// same client id is taken over: its connection is dismissed, and the others hear it leave first,
    /// since a reloaded page is a new WebRTC endpoint.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; then nothing has changed.
    pub fn take(
        rooms: &Rooms,
        room: &Arc<str>,
        peer: Peer,
        outbox: Outbox,
    ) -> Result<Self, JoinError> {
        let (room, number) = rooms.join(room, peer.clone(), outbox)?;
        let signature = Signature::new(&peer.client_id, &peer.username);
        Ok(Self { rooms: rooms.clone(), room, peer, signature, number })
    }

    /// Passes a signal that arrived at `heard_at` on to the peer that it names, or to everyone else in
    /// the room. Says whether somebody has been sent it at once.
    ///
    /// # Errors
    ///
    /// [`RouteError`]; then nobody has heard anything.
    pub fn send(&self, signal: &Signal<'_>, heard_at: Instant) -> Result<bool, RouteError> {
        self.room.lock().route(&self.peer, self.number, &self.signature, signal, heard_at)
    }

    /// Who sits here.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.rooms.leave(&self.room, &self.peer.client_id, self.number);
    }
}
