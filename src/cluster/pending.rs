//! What waits for an answer of the cluster: joins, claims, and memberships that come from other nodes.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use bytestring::ByteString;
use tokio::{sync::oneshot, time::Instant};

use super::{
    gateway::ClusterGateway,
    messages::{Claim, ClusterCommand},
};
use crate::{
    delivery::ClientQueue,
    migration::{ConnectionId, MigrationGuard, MigrationState, random_key},
    rooms::{AcceptedMember, ClaimRequest, JoinError, Membership, MigratedMember, Peer},
};

/// A client that has asked to join.
pub(super) struct PendingJoin {
    pub(super) room: Arc<str>,
    pub(super) queue: ClientQueue,
    pub(super) reply: oneshot::Sender<Result<Membership, JoinError>>,
}

/// A client that waits for a membership that is on another node.
pub(super) struct PendingClaim {
    pub(super) room: Arc<str>,
    pub(super) client_id: Arc<str>,
    pub(super) membership: u128,
    pub(super) reply: oneshot::Sender<ClaimReply>,
}

/// What has become of a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClaimReply {
    /// The membership is here.
    Granted,
    /// There is no such membership.
    NotFound,
    /// It was on this connection, and does not come from there.
    Denied(ConnectionId),
    /// Its client has a connection where it is, with this number.
    Live(u64),
}

/// A membership whose record is on this node, and whose frames are on their way.
pub(super) struct IncomingMigration {
    pub(super) member: AcceptedMember,
    pub(super) since: Instant,
    /// Another node claims it already.
    pub(super) deferred_claim: Option<Claim>,
    pub(super) guard: MigrationGuard,
}

impl ClusterGateway {
    // Joins.

    /// Asks to let a client in; the answer is an [`Admitted`](super::messages::ClusterEvent::Admitted), or
    /// [`refuse_join`](Self::refuse_join).
    pub(super) fn request_join(&self, peer: Peer, key: u64, pending: PendingJoin) {
        let (room, is_guest) = (pending.room.clone(), pending.queue.is_guest());
        let Some(engine) = self.engine(&room) else { return };
        self.joins().insert(key, pending);
        // In this order: a link that finds its Redis gone clears what waits.
        let is_sent = engine.is_up.load(Ordering::SeqCst)
            && engine.commands.send(ClusterCommand::Join { room, peer, key, is_guest }).is_ok();
        if !is_sent {
            self.joins().remove(&key);
        }
    }

    /// A client is not let in.
    pub fn refuse_join(&self, key: u64, error: JoinError) {
        if let Some(pending) = self.take_pending_join(key) {
            let _ = pending.reply.send(Err(error));
        }
    }

    pub(super) fn take_pending_join(&self, key: u64) -> Option<PendingJoin> {
        self.joins().remove(&key)
    }

    // Claims.

    /// Claims a membership that is on another node. The receiver fails where the Redis is lost meanwhile.
    pub(super) fn request_claim(
        &self,
        request: &ClaimRequest,
        ends: Option<u64>,
    ) -> oneshot::Receiver<ClaimReply> {
        let (reply, answer) = oneshot::channel();
        let ClaimRequest { room, client_id, membership, context } = request.clone();
        let Some(engine) = self.engine(&room) else { return answer };
        let key = random_key();
        let pending =
            PendingClaim { room: room.clone(), client_id: client_id.clone(), membership, reply };
        self.claims().insert(key, pending);
        let command = ClusterCommand::Claim { room, client_id, membership, ends, key, context };
        // In this order: a link that finds its Redis gone clears what waits.
        let is_sent = engine.is_up.load(Ordering::SeqCst) && engine.commands.send(command).is_ok();
        if !is_sent {
            self.claims().remove(&key);
        }
        answer
    }

    /// The membership that was claimed for connection `key`: room, client id, and key of the membership.
    pub(super) fn pending_claim(&self, key: u64) -> Option<(Arc<str>, Arc<str>, u128)> {
        let claims = self.claims();
        let PendingClaim { room, client_id, membership, .. } = claims.get(&key)?;
        Some((room.clone(), client_id.clone(), *membership))
    }

    pub(super) fn answer_claim(&self, key: u64, reply: ClaimReply) {
        if let Some(pending) = self.claims().remove(&key) {
            let _ = pending.reply.send(reply);
        }
    }

    // Memberships that come to this node.

    /// The record of a membership is on this node; its frames are on their way.
    pub(super) fn register_incoming(&self, key: u64, member: AcceptedMember) {
        let (since, guard) = (Instant::now(), self.migrations.track());
        let incoming = IncomingMigration { member, since, deferred_claim: None, guard };
        self.incoming().insert(key, incoming);
    }

    /// Keeps a claim for a membership that is not completely here yet, or gives it back.
    pub(super) fn defer_claim(&self, claim: Claim) -> Option<Claim> {
        match self.incoming().get_mut(&claim.migration.from.key) {
            Some(incoming) => {
                incoming.deferred_claim = Some(claim);
                None
            }
            None => Some(claim),
        }
    }

    /// A membership is completely here. Returns the claim for it that came before, and whether its client is here, too.
    pub(super) fn complete_incoming(
        &self,
        key: u64,
        context: ByteString,
        state: MigrationState,
    ) -> Option<(Claim, bool)> {
        let incoming = self.incoming().remove(&key)?;
        let IncomingMigration { member, deferred_claim, guard, .. } = incoming;
        let AcceptedMember { membership, queue, reader, others } = member;
        let MigrationState { replay, features, is_detached_reported, known_members } = state;
        let claimed = replay.key();
        let changes = membership.roster_changes(&known_members, &others);
        queue.absorb_migration(replay, changes, features, is_detached_reported);
        let mut claims = self.claims();
        let waiting = claims.extract_if(|_, pending| pending.membership == claimed);
        let replies: Vec<_> = waiting.map(|(_, pending)| pending.reply).collect();
        drop(claims);
        let is_expected = replies.iter().any(|reply| !reply.is_closed());
        let member = MigratedMember { membership, queue, reader, context, is_expected };
        let _ = self.migrated.send((member, guard));
        for reply in replies {
            let _ = reply.send(ClaimReply::Granted);
        }
        deferred_claim.map(|claim| (claim, is_expected))
    }

    /// A membership is here without its client.
    pub(super) fn deliver_migrated(&self, member: MigratedMember) {
        let _ = self.migrated.send((member, self.migrations.track()));
    }

    /// Ends a membership whose frames do not come.
    pub(super) fn abandon_incoming(&self, key: u64) {
        let abandoned = self.incoming().remove(&key);
        // Without the lock: to drop a membership is to leave.
        drop(abandoned);
    }

    /// Ends memberships whose frames have not come in time.
    pub fn expire_incoming(&self, now: Instant) {
        let timeout = self.timings.incoming_migration_timeout();
        let is_overdue = |_: &u64, incoming: &mut IncomingMigration| {
            now.duration_since(incoming.since) >= timeout
        };
        let overdue: Vec<_> = self.incoming().extract_if(is_overdue).collect();
        // Without the lock: to drop a membership is to leave.
        drop(overdue);
    }

    pub(super) fn joins(&self) -> MutexGuard<'_, HashMap<u64, PendingJoin>> {
        self.pending_joins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn claims(&self) -> MutexGuard<'_, HashMap<u64, PendingClaim>> {
        self.pending_claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn incoming(&self) -> MutexGuard<'_, HashMap<u64, IncomingMigration>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
