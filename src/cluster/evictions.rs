//! The end of a dead membership, on whichever node it is, for a new connection of its user: see
//! [`RoomRegistry::evict_oldest_if_dead`].

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
};

use tokio::{sync::oneshot, time::timeout};

use super::{
    ClusterGateway,
    messages::{ClusterCommand, Eviction},
};
use crate::{
    migration::{MemberRecord, random_key},
    rooms::{PONG_WAIT, RoomRegistry},
};

/// Clients that wait for another node, by number.
pub(super) type PendingEvictions = HashMap<u64, oneshot::Sender<bool>>;

impl ClusterGateway {
    /// Finds the membership that `username` has had for longest in `room`, and has its node end it, where no client is behind
    /// it. Whether there was one, and it has ended.
    pub(super) async fn find_and_evict(
        &self,
        rooms: &RoomRegistry,
        room: &Arc<str>,
        username: &str,
    ) -> bool {
        let members = self.query_members(room).await.unwrap_or_default();
        let own = members.into_iter().filter(|member| *member.peer.username == *username);
        let Some(oldest) = own.min_by_key(|member| member.join_order) else { return false };
        if oldest.connection.node == self.node {
            return rooms.evict_if_dead(room, &oldest.peer.client_id, oldest.connection.key).await;
        }
        self.request_eviction(room, oldest).await
    }

    async fn request_eviction(&self, room: &Arc<str>, member: MemberRecord) -> bool {
        let (number, (reply, answer)) = (random_key(), oneshot::channel());
        let Some(engine) = self.engine(room).filter(|it| it.is_up.load(Ordering::SeqCst)) else {
            return false;
        };
        self.await_eviction(number, reply);
        let MemberRecord { peer, connection, .. } = member;
        let (room, client_id, asking_node) = (room.clone(), peer.client_id, self.node.clone());
        let eviction = Eviction { room, client_id, connection, asking_node, number };
        let _ = engine.commands.send(ClusterCommand::Evict(eviction));
        // A node that does not answer is too old to know this, or is gone; then its members leave in time.
        let within = PONG_WAIT + self.timings.join_timeout();
        matches!(timeout(within, answer).await, Ok(Ok(true)))
    }

    fn await_eviction(&self, number: u64, reply: oneshot::Sender<bool>) {
        let mut pending = self.pending_evictions();
        // What was not answered, and is not waited for any more.
        pending.retain(|_, waiting| !waiting.is_closed());
        pending.insert(number, reply);
    }

    /// Another node wants a membership of this one to end, where no client is behind it.
    pub(super) fn evict_and_answer(&self, rooms: &RoomRegistry, eviction: Eviction) {
        let Some(engine) = self.engine(&eviction.room) else { return };
        let (commands, rooms) = (engine.commands.clone(), rooms.clone());
        // The inbox does not wait for a client.
        tokio::spawn(async move {
            let Eviction { room, client_id, connection, .. } = &eviction;
            let is_gone = rooms.evict_if_dead(room, client_id, connection.key).await;
            // Behind the leave, so that the other node finds a place in the room.
            let _ = commands.send(ClusterCommand::AnswerEviction { eviction, is_gone });
        });
    }

    pub(super) fn answer_eviction(&self, number: u64, is_gone: bool) {
        if let Some(reply) = self.pending_evictions().remove(&number) {
            let _ = reply.send(is_gone);
        }
    }

    fn pending_evictions(&self) -> MutexGuard<'_, PendingEvictions> {
        self.pending_evictions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
