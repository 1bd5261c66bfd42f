//! Membership as a value: dropping it is leaving.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    ClaimError, ClaimRequest, JoinError, Peer, Resumed, RoomRegistry, RouteError,
    registry::RoomHandle, room::JoinOutcome,
};
use crate::{
    delivery::{ClientQueue, ClientQueueReader, ResumeError},
    migration::roster_changes,
    protocol::{CallReport, SenderSuffix, Signal},
};

/// One client's membership of one room: it lasts until this is dropped. In this order: every message touches the first half.
#[repr(C)]
pub struct Membership {
    room: Arc<RoomHandle>,
    generation: u64,
    suffix: SenderSuffix,
    peer: Peer,
    rooms: RoomRegistry,
    join_order: u64,
    /// Why it will be left, for the timeline.
    leave_reason: &'static str,
}

/// A membership that has come from another node; its client is detached. Dropping it is leaving.
pub struct MigratedMember {
    /// The membership.
    pub membership: Membership,
    /// Holds the frames for it.
    pub queue: ClientQueue,
    /// The reading end of `queue`.
    pub reader: ClientQueueReader,
    /// What came with it.
    pub context: ByteString,
    /// Whether a connection of its client waits for it.
    pub is_expected: bool,
}

impl Membership {
    /// Makes `peer` a member of `room`, whose frames go to `queue` from now on.
    ///
    /// At once the queue gets `users_in_room` and the others `user_joined`: no message of the room comes before the one, nor
    /// is missed after it. A membership that the same user has under the same client id is replaced: its connection is
    /// disconnected, and the others see it leave first, since a reloaded page is a new WebRTC endpoint.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; then nothing has changed.
    pub fn join_local(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        peer: Peer,
        queue: ClientQueue,
    ) -> Result<Self, JoinError> {
        let (room, joined) = rooms.join(room, peer.clone(), queue)?;
        Ok(Self::new(rooms, room, peer, &joined))
    }

    /// The same where several nodes may share rooms: then Redis decides. A refusal is recorded in the room's timeline.
    ///
    /// # Errors
    ///
    /// [`JoinError`], also [`JoinError::Unavailable`]; then nothing has changed.
    pub async fn join(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        peer: Peer,
        queue: ClientQueue,
    ) -> Result<Self, JoinError> {
        let joined = rooms.backend().join(rooms, room, peer.clone(), queue).await;
        joined.inspect_err(|error| rooms.record_refusal(room, &peer, error.code()))
    }

    /// Resumes the membership of `peer` in `room` on a new connection that reads from `queue`: what the client has not
    /// received after `last_seq` waits there already, and the others are told nothing but `peer_state`. An older connection
    /// that is still open is disconnected. `key` is the membership's.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]; then nothing has changed.
    pub fn resume(
        rooms: &RoomRegistry,
        room: &str,
        peer: Peer,
        key: u128,
        queue: ClientQueue,
        last_seq: u64,
    ) -> Result<(Self, Resumed), ResumeError> {
        let resumed = rooms.resume(room, &peer.client_id, key, queue, last_seq);
        resumed.map(|(room, joined, resumed)| (Self::new(rooms, room, peer, &joined), resumed))
    }

    /// Brings the membership of `client_id` here from another node: once this returns it may be [resumed](Self::resume). Until
    /// then it is a [`MigratedMember`] with `context`. `membership` is its key.
    ///
    /// # Errors
    ///
    /// [`ClaimError`], always on a single node.
    pub async fn claim(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        client_id: &Arc<str>,
        membership: u128,
        context: ByteString,
    ) -> Result<(), ClaimError> {
        let (room, client_id) = (room.clone(), client_id.clone());
        rooms.backend().claim(ClaimRequest { room, client_id, membership, context }).await
    }

    /// Sends it to another node, where its client may resume it; whether it has a client that may. Its peers are not told.
    pub fn migrate_to(&self, node: Arc<str>, context: ByteString) -> bool {
        self.rooms.migrate_to_node(&self.room, &self.peer.client_id, self.generation, node, context)
    }

    /// Makes `peer` a member of `room` again, which it was before this process began, with the
    /// [`join_order`](Self::join_order) that it had then; its peers are not told.
    ///
    /// # Errors
    ///
    /// [`JoinError::ClientIdTaken`].
    pub fn restore(
        rooms: &RoomRegistry,
        room: &Arc<str>,
        peer: Peer,
        queue: ClientQueue,
        join_order: u64,
    ) -> Result<Self, JoinError> {
        let (room, joined) = rooms.restore(room, peer.clone(), queue, join_order)?;
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
            leave_reason: "connection_lost",
        }
    }

    /// From now on dropping it is leaving for `reason`, a constant of this server.
    pub fn set_leave_reason(&mut self, reason: &'static str) {
        self.leave_reason = reason;
    }

    /// Records what the client reports of one of its calls.
    pub fn record_call_report(&self, report: &CallReport<'_>, now: Instant) {
        self.room.lock().record_call_report(&self.peer, report, now);
    }

    /// The client's connection is gone, and may come back: what it would receive is kept from now on, and peers that want to
    /// know are told.
    pub fn detach(&self) {
        self.rooms.detach(&self.room, &self.peer.client_id, self.generation);
    }

    /// Sends a signal that arrived at `received_at` to the peer that it names, or to every other member. Says whether it was
    /// written to a socket at once.
    ///
    /// # Errors
    ///
    /// [`RouteError`]; then no local member has received it.
    pub fn send(&self, signal: &Signal<'_>, received_at: Instant) -> Result<bool, RouteError> {
        let mut room = self.room.lock();
        let routed = room.route(&self.peer, self.generation, &self.suffix, signal, received_at);
        room.record_signal(&self.peer, signal, &routed, received_at);
        routed
    }

    /// The frames for its client that knows of the members `known`, where the others in the room are `present`.
    pub fn roster_changes(&self, known: &[(String, String)], present: &[Peer]) -> Vec<ByteString> {
        let room = self.room.lock().id().clone();
        roster_changes(&room, known, present)
    }

    /// Higher for a member that joined later; it stays as long as the membership.
    pub fn join_order(&self) -> u64 {
        self.join_order
    }

    /// The number of the room's last webhook event.
    pub fn webhook_seq(&self) -> u64 {
        self.room.lock().webhook_seq()
    }

    /// The member.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.rooms.leave(&self.room, &self.peer.client_id, self.generation, self.leave_reason);
    }
}
