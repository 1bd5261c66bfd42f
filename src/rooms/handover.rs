//! Memberships of one room that go to other nodes, and come from them. See [`migration`](crate::migration) for the order in
//! which that happens.

use std::{cell::Cell, sync::Arc};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    Peer,
    events::RoomEvent,
    local::{Entry, NewMember},
    room::{JoinOutcome, LOST, Location, RemoteMember, Room, RoomMember},
};
use crate::{
    delivery::{self, ClientQueue, ClientQueueReader},
    migration::{ClusterTimings, ConnectionId, Epoch, MemberRecord, Migration, OutgoingMigration},
};

/// A local membership that was released and does not move: it stays, detached.
pub(super) struct ReturnedMember {
    pub(super) peer: Peer,
    pub(super) outcome: JoinOutcome,
    pub(super) queue: ClientQueue,
    pub(super) reader: ClientQueueReader,
    pub(super) context: ByteString,
}

impl Room {
    /// Releases a local membership to another node, where its client is or may come to, if it is the one that `is_meant`;
    /// whether it is. From now on it has no connection here.
    fn start_outgoing(
        &mut self,
        migration: Migration,
        is_meant: impl Fn(&RoomMember, &ClientQueue) -> bool,
        context: ByteString,
        now: Instant,
    ) -> bool {
        let Ok(index) = self.position(&migration.client_id) else { return false };
        let Some(member) = self.members.get_mut(index) else { return false };
        let Some(queue) = member.queue().filter(|queue| is_meant(member, queue)) else {
            return false;
        };
        if !self.outgoing.retarget(&migration, &context, now) {
            let Some(guard) = self.backend.track_migration() else { return false };
            let (carrier, reader) = delivery::channel();
            queue.migrate_into(&carrier);
            self.last_generation += 1;
            let generation = self.last_generation;
            member.location = Location::Local { queue: carrier.clone(), generation };
            let moved = migration.clone();
            self.outgoing.push(OutgoingMigration::new(moved, context, carrier, reader, now, guard));
            self.backend.note_unsettled(&self.id);
        }
        self.backend.move_member(migration);
        true
    }

    /// The client of a local membership is on another node, which claims it.
    ///
    /// # Errors
    ///
    /// It stays; and the connection that its client has here, where it has one: only a claim that names it in `ends` may end
    /// it. A claim may come late, of a client that has been there and is back.
    pub(super) fn begin_handover(
        &mut self,
        migration: Migration,
        membership: u128,
        ends: Option<u64>,
        context: ByteString,
        now: Instant,
    ) -> Result<(), Option<u64>> {
        let (key, live) = (migration.from.key, Cell::new(None));
        let is_meant = |member: &RoomMember, queue: &ClientQueue| {
            let is_it = member.key == key && queue.membership_key() == Some(membership);
            if let Location::Local { generation, .. } = member.location
                && is_it
                && !queue.is_detached()
            {
                live.set(Some(generation));
            }
            is_it && (live.get().is_none() || live.get() == ends)
        };
        let is_released = self.start_outgoing(migration, is_meant, context, now);
        if is_released { Ok(()) } else { Err(live.get()) }
    }

    /// Releases a local, detached membership to `to`; whether it may resume there.
    pub(super) fn migrate_to_node(
        &mut self,
        client_id: &Arc<str>,
        generation: u64,
        to: ConnectionId,
        context: ByteString,
        now: Instant,
    ) -> bool {
        let Some(node) = self.backend.node() else { return false };
        let Some(key) = self.find(client_id).map(|member| member.key) else { return false };
        let from = ConnectionId { node: node.clone(), key };
        let migration = Migration { room: self.id.clone(), client_id: client_id.clone(), from, to };
        let is_meant = |member: &RoomMember, queue: &ClientQueue| {
            member.is_generation(generation) && queue.membership_key().is_some()
        };
        self.start_outgoing(migration, is_meant, context, now)
    }

    /// The record of a local membership is on another node: whether the membership was still here, and whether its frames
    /// follow it. What is sent to it goes there, but for frames of nodes that have not read of the move.
    pub(super) fn complete_outgoing(
        &mut self,
        migration: Migration,
        record: MemberRecord,
        epoch: Epoch,
        nodes: Vec<Arc<str>>,
        now: Instant,
    ) -> (bool, bool) {
        self.advance_epoch(epoch);
        let others = self.others(&record.peer.client_id).map(|other| &other.peer);
        let others = others.map(|peer| (peer.client_id.to_string(), peer.username.to_string()));
        let others = others.collect();
        if !self.outgoing.complete(migration, epoch, nodes, others) {
            return (self.apply_join(record, now), false);
        }
        let index = self.position(&record.peer.client_id);
        let member = index.ok().and_then(|index| self.members.get_mut(index));
        let local =
            member.filter(|member| member.queue().is_some() && member.is_same_membership(&record));
        let was_local = match local {
            Some(member) => {
                self.arrivals.retain(|(arrived, _)| *arrived != member.peer.client_id);
                let is_detached = member.queue().is_some_and(ClientQueue::is_detached_reported);
                let node = record.connection.node.clone();
                let remote = RemoteMember { node, is_detached, unconfirmed_since: None };
                (member.location, member.key) =
                    (Location::Remote(Box::new(remote)), record.connection.key);
                let member = member.peer_ref;
                self.emit(now, RoomEvent::Moved { member });
                true
            }
            None => self.apply_join(record, now),
        };
        self.send_ready_handovers();
        (was_local, true)
    }

    /// Whether it is a local member that has been released.
    pub(super) fn is_migrating(&self, member: &RoomMember) -> bool {
        member.queue().is_some() && self.outgoing.contains(member.key)
    }

    /// Whether the member on `connection` has this `membership` key; nothing where it is not here, or not completely.
    pub(super) fn confirm_membership(
        &self,
        client_id: &str,
        connection: &ConnectionId,
        membership: u128,
    ) -> Option<bool> {
        let member = self.find(client_id).filter(|member| member.key == connection.key)?;
        let queue = member.queue()?;
        match queue.membership_key() {
            _ if self.is_migrating(member) => None,
            Some(delivery::AWAITING_MIGRATION) => None,
            known => Some(known == Some(membership)),
        }
    }

    /// The other node does not take a membership that was released: it is a detached one of this node again.
    pub(super) fn cancel_outgoing(&mut self, migration: &Migration) -> Option<ReturnedMember> {
        let OutgoingMigration { context, queue, reader, .. } = self.outgoing.cancel(migration)?;
        let member = self.find(&migration.client_id);
        let member = member.filter(|member| member.key == migration.from.key)?;
        let Location::Local { generation, .. } = member.location else { return None };
        let outcome = JoinOutcome { generation, join_order: member.join_order, replaced: false };
        Some(ReturnedMember { peer: member.peer.clone(), outcome, queue, reader, context })
    }

    /// What `node` sends to a member that has moved goes to its new node from now on.
    pub(super) fn confirm_barrier(&mut self, migration: &Migration, node: &str) {
        self.outgoing.confirm_barrier(migration, node);
        self.send_ready_handovers();
    }

    /// Sends the frames of memberships that have moved after them, once they are complete.
    fn send_ready_handovers(&mut self) {
        for hand_over in self.outgoing.take_ready() {
            self.backend.hand_over(hand_over);
        }
    }

    /// Makes a member of another node, which is detached, a local one: a node that follows the room reports nothing of it.
    /// Returns the other members, too.
    pub(super) fn accept_migration(
        &mut self,
        record: MemberRecord,
        epoch: Epoch,
        queue: ClientQueue,
        everyone: Vec<MemberRecord>,
        now: Instant,
    ) -> (JoinOutcome, Vec<Peer>) {
        self.advance_epoch(epoch);
        let follows = self.has_local_members();
        if !follows {
            self.members.clear();
            for other in everyone {
                self.insert_remote(other, now);
            }
        }
        let known = self.position(&record.peer.client_id).ok();
        let same = known.filter(|index| {
            self.members.get(*index).is_some_and(|member| {
                member.queue().is_none() && member.is_same_membership(&record)
            })
        });
        let (mut replaced, mut is_announced) = (false, false);
        if let Some(index) = same {
            self.members.remove(index);
        } else if follows {
            replaced = known.is_some_and(|index| self.evict_replaced(index, now));
            is_announced = true;
        }
        let MemberRecord { peer, connection, join_order } = record;
        let others = self.others(&peer.client_id).map(|other| other.peer.clone()).collect();
        self.arrivals.push((peer.client_id.clone(), epoch));
        let member = NewMember { peer, queue, join_order: Some(join_order), key: connection.key };
        let generation = self.insert_local(member, Entry::Arrives { is_announced }, true, now);
        (JoinOutcome { generation, join_order, replaced }, others)
    }

    /// Removes local members that were released and that no node took for too long; how many they are.
    pub(super) fn expire_outgoing(&mut self, now: Instant, timings: ClusterTimings) -> usize {
        let mut lost = 0;
        for migration in self.outgoing.expire(now, timings.outgoing_migration_timeout()) {
            let Migration { client_id, from, .. } = migration;
            let Ok(index) = self.position(&client_id) else { continue };
            let member = self.members.get(index);
            let is_it = |member: &&RoomMember| member.queue().is_some() && member.key == from.key;
            if let Some(member) = member.filter(is_it) {
                self.request_leave(member.peer.clone(), from.key, Some(LOST));
                lost += usize::from(self.remove_at(index, None, LOST, now));
            }
        }
        self.send_ready_handovers();
        lost
    }
}
