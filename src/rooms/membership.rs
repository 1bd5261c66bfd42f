//! Membership as a value.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    ClaimError, JoinError, Peer, Resumed, RoomRegistry, RouteError, registry::RoomHandle,
    room::JoinOutcome,
};
use crate::{
    outbox::{ClientQueue, ResumeError},
    wire::{CallReport, SenderSuffix, Signal},
};

/// One client's membership of one room: hold it and you are in, drop it and you have left.
pub struct Membership {
    rooms: RoomRegistry,
    room: Arc<RoomHandle>,
    peer: Peer,
    suffix: SenderSuffix,
    generation: u64,
    join_order: u64,
    /// Why it will be left, for the timeline.
    leave_reason: &'static str,
}

impl Membership {
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
    pub fn join_local(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        peer: Peer,
        outbox: ClientQueue,
    ) -> Result<Self, JoinError> {
        let (room, joined) = rooms.join(room, peer.clone(), outbox)?;
        Ok(Self::new(rooms, room, peer, &joined))
    }

    /// The same where several servers share rooms: whether there is a seat is then not ours to say.
    ///
    /// # Errors
    ///
    /// [`JoinError`], also [`JoinError::Unavailable`]; then nothing has changed.
    pub async fn join(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        peer: Peer,
        outbox: ClientQueue,
    ) -> Result<Self, JoinError> {
        let seat = match rooms.gateway() {
            None => Self::join_local(rooms, room, peer.clone(), outbox),
            Some(far) => rooms.request_join(far, room, peer.clone(), outbox).await,
        };
        seat.inspect_err(|why| rooms.record_refusal(room, &peer, why.code()))
    }

    /// Goes on as `peer` of `room`, on a new connection that reads from `outbox`: what the client has not
    /// got after `last_seq` waits there already, and the others hear nothing of it, but for
    /// `peer_state`. An older connection that is still open is dismissed. `key` is the membership's.
    ///
    /// # Errors
    ///
    /// [`NotResumed`]; then nothing has changed.
    pub fn resume(
        rooms: &RoomRegistry,
        room: &str,
        peer: Peer,
        key: u128,
        outbox: ClientQueue,
        last_seq: u64,
    ) -> Result<(Self, Resumed), ResumeError> {
        let resumed = rooms.resume(room, &peer.client_id, key, outbox, last_seq);
        resumed.map(|(room, joined, resumed)| (Self::new(rooms, room, peer, &joined), resumed))
    }

    /// Brings the seat of `client_id` here from another node: once this returns it may be
    /// [resumed](Self::resume), and until then it is [somebody's](crate::cluster::gateway::MigratedMember) who has `luggage`.
    /// `membership` is its key.
    ///
    /// # Errors
    ///
    /// [`NotFetched`], always where this server is alone.
    pub async fn claim(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        client_id: &Arc<str>,
        membership: u128,
        luggage: ByteString,
    ) -> Result<(), ClaimError> {
        let far = rooms.gateway().ok_or(ClaimError::Ended)?;
        rooms.claim(far, room, client_id, membership, luggage).await
    }

    /// Sends it to another node, where its client may go on; whether it has one that may. Nobody hears of it.
    pub fn migrate_to(&self, node: Arc<str>, luggage: ByteString) -> bool {
        self.rooms.migrate_to_node(&self.room, &self.peer.client_id, self.generation, node, luggage)
    }

    /// Sits down again as `peer` of `room`, where it sat before this process began, with the
    /// [arrival](Self::arrival) that it had then; nobody hears of it.
    ///
    /// # Errors
    ///
    /// [`JoinError::ClientIdTaken`].
    pub fn restore(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        peer: Peer,
        outbox: ClientQueue,
        arrival: u64,
    ) -> Result<Self, JoinError> {
        let (room, joined) = rooms.restore(room, peer.clone(), outbox, arrival)?;
        Ok(Self::new(rooms, room, peer, &joined))
    }

    pub(super) fn new(
        rooms: &RoomRegistry,
        room: Arc<RoomHandle>,
        peer: Peer,
        joined: &JoinOutcome,
    ) -> Self {
        let suffix = SenderSuffix::new(&peer.client_id, &peer.username);
        let JoinOutcome { generation, join_order, .. } = *joined;
        Self {
            rooms: rooms.clone(),
            room,
            peer,
            suffix,
            generation,
            join_order,
            leave_reason: "gone",
        }
    }

    /// From now on dropping it is leaving for `why`, one of our own words.
    pub fn set_leave_reason(&mut self, why: &'static str) {
        self.leave_reason = why;
    }

    /// Notes what the client says of one of its calls.
    pub fn record_call_report(&self, report: &CallReport<'_>, now: Instant) {
        self.room.lock().record_call_report(&self.peer, report, now);
    }

    /// The client's connection is gone, and it may come back: what it would hear is kept from now on,
    /// and those hear of it who want to know.
    pub fn detach(&self) {
        self.rooms.detach(&self.room, &self.peer.client_id, self.generation);
    }

    /// Passes a signal that arrived at `heard_at` on to the peer that it names, or to everyone else in
    /// the room. Says whether somebody has been sent it at once.
    ///
    /// # Errors
    ///
    /// [`RouteError`]; then nobody has heard anything.
    pub fn send(&self, signal: &Signal<'_>, heard_at: Instant) -> Result<bool, RouteError> {
        let mut room = self.room.lock();
        let routed = room.route(&self.peer, self.generation, &self.suffix, signal, heard_at);
        room.record_signal(&self.peer, signal, &routed, heard_at);
        routed
    }

    /// What its client has to hear that knew of those it `had`, where there are those that the room `has`. They
    /// differ where one of two servers was cut off, and still waits for somebody.
    pub(crate) fn roster_changes(&self, had: &[(String, String)], has: &[Peer]) -> Vec<ByteString> {
        self.room.lock().roster_changes(had, has)
    }

    /// Who came later has a higher number; it stays as long as the membership.
    pub fn join_order(&self) -> u64 {
        self.join_order
    }

    /// The number of what was told last of the room to webhooks.
    pub fn webhook_seq(&self) -> u64 {
        self.room.lock().webhook_seq()
    }

    /// Who sits here.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.rooms.leave(&self.room, &self.peer.client_id, self.generation, self.leave_reason);
    }
}
