//! What has happened in the cluster, applied to the rooms of this node in the order of its inbox.

use std::sync::Arc;

use super::{
    ClusterGateway,
    messages::{Claim, ClusterCommand, ClusterEvent},
    pending::{ClaimReply, PendingJoin},
    receipts::SignalReceipts,
};
use crate::{
    migration::{ConnectionId, Epoch, MemberRecord, Migration},
    rooms::{Backend, RoomRegistry},
};

impl ClusterGateway {
    /// Applies an event of the cluster to `rooms`.
    pub fn apply(&self, rooms: &RoomRegistry, event: ClusterEvent) {
        match event {
            ClusterEvent::Admitted { room, record, members } => {
                self.complete_join(rooms, &room, &record, &members);
            }
            ClusterEvent::Joined { room, record } => rooms.apply_join(&room, record),
            ClusterEvent::Left { room, client_id, connection } => {
                rooms.apply_leave(&room, &client_id, &connection);
            }
            ClusterEvent::Relayed { room, from, connection, to, epoch, frame, number } => {
                self.receive_signal(&room, &connection.node, &number, || {
                    rooms.deliver_remote(&room, &from, &connection, to.as_deref(), epoch, &frame)
                });
            }
            ClusterEvent::Confirmed { node, engine, receipts } => {
                let SignalReceipts { delivered, undeliverable } = receipts;
                self.update_unconfirmed(engine, rooms, |unconfirmed, now| {
                    unconfirmed.confirm(&node, &delivered, &undeliverable, now)
                });
            }
            ClusterEvent::PeerState { room, client_id, connection, is_detached } => {
                rooms.apply_remote_state(&room, &client_id, &connection, is_detached);
            }
            ClusterEvent::Snapshot { room, members, epoch } => {
                rooms.reconcile_snapshot(&room, members, epoch);
            }
            ClusterEvent::EvictionRequested(eviction) => self.evict_and_answer(rooms, eviction),
            ClusterEvent::EvictionAnswered { number, is_gone } => {
                self.answer_eviction(number, is_gone);
            }
            ClusterEvent::Claimed(claim) => {
                if let Some(claim) = self.defer_claim(claim) {
                    self.begin_handover(rooms, claim);
                }
            }
            ClusterEvent::ClaimDenied { migration, live } => {
                // Where its record has come here all the same, its frames do not follow: it leaves.
                self.abandon_incoming(migration.to.key);
                let reply = live.map_or(ClaimReply::Denied(migration.from), ClaimReply::Live);
                self.answer_claim(migration.to.key, reply);
            }
            ClusterEvent::Moved { migration, record, epoch, members, nodes } => {
                self.apply_move(rooms, migration, record, epoch, &members, nodes);
            }
            ClusterEvent::BarrierReached { migration, node } => {
                rooms.confirm_barrier(&migration, &node);
            }
            ClusterEvent::HandedOver { migration, context, state } => {
                match self.complete_incoming(migration.to.key, context, *state) {
                    // Else two nodes could take it from each other for ever, and no client would resume it.
                    Some((Claim { migration, .. }, true)) => {
                        let room = migration.room.clone();
                        self.send(&room, ClusterCommand::DenyClaim { migration, live: None });
                    }
                    Some((claim, false)) => self.apply(rooms, ClusterEvent::Claimed(claim)),
                    None => {}
                }
            }
        }
    }

    /// Redis has let in a client of this node.
    fn complete_join(
        &self,
        rooms: &RoomRegistry,
        room: &Arc<str>,
        record: &MemberRecord,
        members: &[MemberRecord],
    ) {
        let key = record.connection.key;
        let Some(PendingJoin { queue, reply, .. }) = self.take_pending_join(key) else {
            // The client does not wait any more.
            return self.leave(room, record.peer.clone(), key, Some("connection_lost"), 0);
        };
        // A client that has gone meanwhile does not take the membership: then it is dropped, which is to leave.
        let _ = reply.send(rooms.admit(room, record, &queue, members));
    }

    fn apply_move(
        &self,
        rooms: &RoomRegistry,
        migration: Migration,
        record: MemberRecord,
        epoch: Epoch,
        members: &[MemberRecord],
        nodes: Vec<Arc<str>>,
    ) {
        let room = migration.room.clone();
        if migration.from.node == self.node {
            if !rooms.complete_outgoing(migration.clone(), record, epoch, nodes) {
                self.send(&room, ClusterCommand::DenyClaim { migration, live: None });
            }
            return;
        }
        if migration.to.node == self.node {
            if let Some(member) = rooms.accept_migration(&room, &record, epoch, members) {
                self.register_incoming(record.connection.key, member);
            }
        } else {
            rooms.apply_move(&room, record, epoch);
        }
        // Its old node knows then of every signal of the member that was read here.
        self.confirm_signals(self.engine_of(&room));
        // After the change, so that what a member here has sent before is in front of this.
        self.send(&room, ClusterCommand::Barrier(migration));
    }

    fn begin_handover(&self, rooms: &RoomRegistry, claim: Claim) {
        let Claim { migration, membership, ends, context } = claim;
        if let Err(live) = rooms.begin_handover(migration.clone(), membership, ends, context) {
            let room = migration.room.clone();
            self.send(&room, ClusterCommand::DenyClaim { migration, live });
        }
    }

    /// Redis has answered the claim for connection `key`: the membership is on `connection`, whose node was asked for it
    /// unless it is this one; or there is none.
    pub fn resolve_claim(&self, rooms: &RoomRegistry, key: u64, connection: Option<ConnectionId>) {
        let reply = match connection {
            None => ClaimReply::NotFound,
            Some(connection) if connection.node != self.node => return,
            Some(connection) => {
                let Some((room, client_id, membership)) = self.pending_claim(key) else { return };
                match rooms.confirm_membership(&room, &client_id, &connection, membership) {
                    Some(true) => ClaimReply::Granted,
                    Some(false) => ClaimReply::Denied(connection),
                    // This node has not read of it yet, or it is not completely here: then it is granted when it is.
                    None => return,
                }
            }
        };
        self.answer_claim(key, reply);
    }

    /// The other node does not take a membership of this one: it is as if it had come here.
    pub fn cancel_outgoing(&self, rooms: &RoomRegistry, migration: &Migration) {
        if let Some(member) = rooms.cancel_outgoing(migration) {
            self.deliver_migrated(member);
        }
    }
}
