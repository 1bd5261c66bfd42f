//! What happens in the cluster, applied to the rooms of this node. The cluster calls it in the order of its inbox.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    JoinError, Membership, MigratedMember, Peer, RelayedSignal, RoomRegistry,
    handover::ReturnedMember, room::Room,
};
use crate::{
    delivery::{self, ClientQueue, ClientQueueReader},
    migration::{ClusterTimings, ConnectionId, Epoch, MemberRecord, Migration},
};

/// A membership that has come to this node; its frames are still on the node that it left.
pub struct AcceptedMember {
    /// The membership.
    pub membership: Membership,
    /// Holds its frames.
    pub queue: ClientQueue,
    /// The reading end of `queue`.
    pub reader: ClientQueueReader,
    /// The other members at this moment.
    pub others: Vec<Peer>,
}

impl RoomRegistry {
    /// The cluster has let in a client of this node; `everyone` is in the room.
    ///
    /// # Errors
    ///
    /// [`JoinError`]; the cluster has checked all of its conditions.
    pub fn admit(
        &self,
        id: &Arc<str>,
        record: &MemberRecord,
        queue: &ClientQueue,
        everyone: &[MemberRecord],
    ) -> Result<Membership, JoinError> {
        let (room, joined) = self.enter(id, |room| {
            let (record, everyone) = (record.clone(), everyone.to_vec());
            Ok(room.admit_local(record, queue.clone(), everyone, Instant::now()))
        })?;
        Ok(Membership::new(self, room, record.peer.clone(), &joined))
    }

    /// A client has joined on another node.
    pub fn apply_join(&self, room: &str, record: MemberRecord) {
        self.update_room(room, |room| room.apply_join(record, Instant::now()));
    }

    /// A member has left.
    pub fn apply_leave(&self, room: &str, client_id: &str, connection: &ConnectionId) {
        self.update_room(room, |room| room.apply_leave(client_id, connection, Instant::now()));
    }

    /// A member of another node has sent a frame. False where a target is not here: its sender has to know.
    pub fn deliver_remote(
        &self,
        room: &str,
        from: &str,
        connection: &ConnectionId,
        to: Option<&str>,
        epoch: Epoch,
        frame: &ByteString,
    ) -> bool {
        // In a room without members here no broadcast has a target.
        self.find(room).map_or(to.is_none(), |room| {
            room.lock().deliver_remote(from, connection, to, epoch, frame)
        })
    }

    /// Another node has not confirmed a signal of a member of this one: the sender gets an error.
    pub fn answer_unreachable(&self, signal: &RelayedSignal) {
        if let Some(room) = self.find(&signal.room) {
            room.lock().answer_unreachable(signal, Instant::now());
        }
    }

    /// The connection of a member of another node is gone, or back.
    pub fn apply_remote_state(
        &self,
        room: &str,
        client_id: &str,
        connection: &ConnectionId,
        is_detached: bool,
    ) {
        if let Some(room) = self.find(room) {
            room.lock().apply_remote_state(client_id, connection, is_detached);
        }
    }

    /// The member list of a room, after this node was cut off.
    pub fn reconcile_snapshot(&self, room: &str, everyone: Vec<MemberRecord>, epoch: Epoch) {
        if let Some(room) = self.find(room) {
            room.lock().reconcile_snapshot(everyone, epoch, Instant::now());
        }
    }

    /// A membership has moved from one other node to another.
    pub fn apply_move(&self, room: &str, record: MemberRecord, epoch: Epoch) {
        self.update_room(room, |room| {
            room.advance_epoch(epoch);
            room.apply_join(record, Instant::now())
        });
    }

    /// Another node claims a membership of this one. `ends` is the connection of its client here that is to end for it, if
    /// any.
    ///
    /// # Errors
    ///
    /// The membership is not released; and the connection that its client has here, where it has one.
    pub fn begin_handover(
        &self,
        migration: Migration,
        membership: u128,
        ends: Option<u64>,
        context: ByteString,
    ) -> Result<(), Option<u64>> {
        let room = self.find(&migration.room).ok_or(None)?;
        room.lock().begin_handover(migration, membership, ends, context, Instant::now())
    }

    /// The record of a membership of this node is on another one; `nodes` have to confirm that. Whether its frames follow it:
    /// they do not where it has ended here meanwhile.
    pub fn complete_outgoing(
        &self,
        migration: Migration,
        record: MemberRecord,
        epoch: Epoch,
        nodes: Vec<Arc<str>>,
    ) -> bool {
        let (id, mut is_followed) = (migration.room.clone(), false);
        self.update_room(&id, |room| {
            let (was_local, frames_follow) =
                room.complete_outgoing(migration, record, epoch, nodes, Instant::now());
            is_followed = frames_follow;
            was_local
        });
        is_followed
    }

    /// `node` has read that a membership has moved.
    pub fn confirm_barrier(&self, migration: &Migration, node: &str) {
        self.update_room(&migration.room, |room| {
            room.confirm_barrier(migration, node);
            false
        });
    }

    /// The record of a membership has come to this node; `everyone` is in the room.
    pub fn accept_migration(
        &self,
        id: &Arc<str>,
        record: &MemberRecord,
        epoch: Epoch,
        everyone: &[MemberRecord],
    ) -> Option<AcceptedMember> {
        let (queue, reader) = delivery::channel();
        queue.expect_migration();
        let others = Cell::default();
        let entered = self.enter(id, |room| {
            let (queue, everyone) = (queue.clone(), everyone.to_vec());
            let now = Instant::now();
            let (joined, present) =
                room.accept_migration(record.clone(), epoch, queue, everyone, now);
            others.set(present);
            Ok(joined)
        });
        let (room, joined) = entered.ok()?;
        let membership = Membership::new(self, room, record.peer.clone(), &joined);
        Some(AcceptedMember { membership, queue, reader, others: others.take() })
    }

    /// The other node does not take a membership of this one: it is detached here, as if it had come from there.
    pub fn cancel_outgoing(&self, migration: &Migration) -> Option<MigratedMember> {
        let room = self.find(&migration.room)?;
        let returned = room.lock().cancel_outgoing(migration)?;
        let ReturnedMember { peer, outcome, queue, reader, context } = returned;
        let membership = Membership::new(self, room, peer, &outcome);
        Some(MigratedMember { membership, queue, reader, context, is_expected: false })
    }

    /// Whether the member on `connection` of this node has this `membership` key; nothing where it is not here, or not
    /// completely.
    pub fn confirm_membership(
        &self,
        room: &str,
        client_id: &str,
        connection: &ConnectionId,
        membership: u128,
    ) -> Option<bool> {
        self.find(room)?.lock().confirm_membership(client_id, connection, membership)
    }

    /// The local members of each room that `is_included`, and the epoch that has been applied to it: what this node states to
    /// a Redis that is back.
    pub fn local_members(
        &self,
        is_included: impl Fn(&str) -> bool,
    ) -> Vec<(Arc<str>, Epoch, Vec<MemberRecord>)> {
        let rooms = self.all().into_iter().filter(|(id, _)| is_included(id));
        let local = rooms.map(|(id, room)| {
            let (epoch, members) = room.lock().local_members();
            (id, epoch, members)
        });
        local.filter(|(.., members)| !members.is_empty()).collect()
    }

    /// The rooms that are `is_included`.
    pub fn names(&self, is_included: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let rooms = self.0.rooms.iter();
        rooms.filter(|room| is_included(room.key())).map(|room| room.key().clone()).collect()
    }

    /// The local members of one room, which may have none, and the epoch that has been applied to it.
    pub fn local_members_of(&self, room: &str) -> (Epoch, Vec<MemberRecord>) {
        self.find(room).map_or_else(Default::default, |room| room.lock().local_members())
    }

    /// Removes members of other nodes that were unconfirmed for too long, and local ones that were too long on their way, of these
    /// `rooms`: those of which [`Backend::note_unsettled`](super::Backend::note_unsettled) was called.
    pub fn expire_unconfirmed(
        &self,
        rooms: impl IntoIterator<Item = Arc<str>>,
        now: Instant,
        timings: ClusterTimings,
    ) {
        for id in rooms {
            let Some(room) = self.find(&id) else { continue };
            let mut inside = room.lock();
            let lost = inside.expire_unconfirmed(now, timings);
            self.0.members.fetch_sub(lost, Ordering::Relaxed);
            let is_over = inside.is_finished();
            drop(inside);
            if is_over {
                self.archive_and_remove(&id, &room);
            }
        }
    }

    /// The number of a room's last webhook event; 0 where there was none.
    pub fn webhook_seq(&self, room: &str) -> u64 {
        self.find(room).map_or(0, |room| room.lock().webhook_seq())
    }

    /// A webhook event of a room has been sent with this number, perhaps by another node.
    pub fn advance_webhook_seq(&self, room: &str, sequence: u64) {
        if let Some(room) = self.find(room) {
            room.lock().advance_webhook_seq(sequence);
        }
    }

    /// Changes a room that has local members; `change` says whether one of them had to leave.
    fn update_room(&self, id: &str, change: impl FnOnce(&mut Room) -> bool) {
        let Some(room) = self.find(id) else { return };
        let mut inside = room.lock();
        if !inside.is_finished() && change(&mut inside) {
            self.0.members.fetch_sub(1, Ordering::Relaxed);
        }
        let is_over = inside.is_finished();
        drop(inside);
        if is_over {
            self.archive_and_remove(id, &room);
        }
    }
}
