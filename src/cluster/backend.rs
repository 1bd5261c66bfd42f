//! The cluster as rooms, REST and a shutdown see it.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::oneshot, time::timeout};

use super::{
    ClusterGateway,
    messages::ClusterCommand,
    pending::{ClaimReply, PendingJoin},
};
use crate::{
    delivery::ClientQueue,
    migration::{Epoch, HandOver, MemberRecord, Migration, MigrationGuard, random_key},
    rooms::{
        Backend, BackendFuture, ClaimError, ClaimRequest, ClusterCounts, ClusterStatus,
        ClusterUnavailable, JoinError, Membership, NodeUnreachable, Peer, Reach, RelayedFrame,
        RoomCounts, RoomRegistry,
    },
    webhooks::WebhookEvent,
};

impl Backend for ClusterGateway {
    fn node(&self) -> Option<&Arc<str>> {
        Some(&self.node)
    }

    fn is_up(&self) -> bool {
        self.all_up()
    }

    fn note_epoch(&self, epoch: Epoch) {
        self.highest_epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    fn note_unsettled(&self, room: &Arc<str>) {
        self.unsettled().insert(room.clone());
    }

    fn join<'a>(
        &'a self,
        _: &'a RoomRegistry,
        room: &'a Arc<str>,
        peer: Peer,
        queue: ClientQueue,
    ) -> BackendFuture<'a, Result<Membership, JoinError>> {
        Box::pin(async {
            let ((reply, answer), key) = (oneshot::channel(), random_key());
            self.request_join(peer, key, PendingJoin { room: room.clone(), queue, reply });
            match timeout(self.timings.join_timeout(), answer).await {
                Ok(answer) => answer.unwrap_or(Err(JoinError::Unavailable)),
                // A client that Redis lets in all the same is not waited for, and leaves.
                Err(_elapsed) => {
                    self.take_pending_join(key);
                    Err(JoinError::Unavailable)
                }
            }
        })
    }

    fn evict_oldest_if_dead<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
        room: &'a Arc<str>,
        username: &'a str,
    ) -> BackendFuture<'a, bool> {
        Box::pin(self.find_and_evict(rooms, room, username))
    }

    fn claim(&self, request: ClaimRequest) -> BackendFuture<'_, Result<(), ClaimError>> {
        Box::pin(self.claim_until_answered(request))
    }

    fn leave(
        &self,
        room: &Arc<str>,
        peer: Peer,
        key: u64,
        reason: Option<&'static str>,
        sequence: u64,
    ) {
        let command = ClusterCommand::Leave { room: room.clone(), peer, key, reason, sequence };
        self.send(room, command);
    }

    fn relay(&self, node: &Arc<str>, frame: RelayedFrame) -> Result<(), NodeUnreachable> {
        self.send_signal(node, frame)
    }

    fn was_answered(&self, room: &str, key: u64, id: &str) -> bool {
        self.was_signal_answered(room, key, id)
    }

    fn report_state(
        &self,
        node: &Arc<str>,
        room: &Arc<str>,
        client_id: &Arc<str>,
        key: u64,
        is_detached: bool,
    ) {
        let (node, client_id) = (node.clone(), client_id.clone());
        let command =
            ClusterCommand::PeerState { node, room: room.clone(), client_id, key, is_detached };
        let _ = self.try_send(room, command);
    }

    fn publish_event(&self, room: &Arc<str>, event: WebhookEvent) -> Result<(), NodeUnreachable> {
        self.try_send(room, ClusterCommand::Webhook { room: room.clone(), event })
    }

    fn track_migration(&self) -> Option<MigrationGuard> {
        Some(self.migrations.track())
    }

    fn move_member(&self, migration: Migration) {
        self.send(&migration.room.clone(), ClusterCommand::Move(migration));
    }

    fn hand_over(&self, hand_over: HandOver) {
        self.send(&hand_over.migration.room.clone(), ClusterCommand::HandOver(hand_over));
    }

    fn status(&self) -> Option<ClusterStatus> {
        let (node, is_up) = (self.node.clone(), self.all_up());
        Some(ClusterStatus { node, is_up, nodes: self.known_nodes() })
    }

    fn failure(&self) -> BackendFuture<'_, String> {
        Box::pin(self.wait_for_failure())
    }

    fn repairs(&self) -> Option<u64> {
        Some(self.repair_count())
    }

    fn counts(&self) -> Option<Result<ClusterCounts, ClusterUnavailable>> {
        Some(self.known_counts())
    }

    fn list<'a>(
        &'a self,
        _: &'a RoomRegistry,
    ) -> BackendFuture<'a, Result<RoomCounts, ClusterUnavailable>> {
        Box::pin(self.query_rooms())
    }

    fn member_count<'a>(
        &'a self,
        _: &'a RoomRegistry,
        room: &'a str,
    ) -> BackendFuture<'a, Result<Option<usize>, ClusterUnavailable>> {
        Box::pin(self.query_member_count(room))
    }

    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BackendFuture<'a, Result<Vec<MemberRecord>, ClusterUnavailable>> {
        Box::pin(self.query_members(room))
    }

    fn publish_logout<'a>(&'a self, line: &'a str) -> BackendFuture<'a, ()> {
        Box::pin(self.send_logout(line))
    }

    fn publish_rules<'a>(&'a self, rules: &'a [String]) -> BackendFuture<'a, Option<Reach>> {
        Box::pin(async { Some(self.send_rules(rules).await) })
    }

    fn publish_announcement<'a>(
        &'a self,
        announcement: &'a str,
    ) -> BackendFuture<'a, Option<Reach>> {
        Box::pin(async { Some(self.send_announcement(announcement).await) })
    }

    fn share_ticket_key<'a>(
        &'a self,
        hour: u64,
        sealed: &'a str,
        hours: u64,
    ) -> BackendFuture<'a, Result<Vec<(u64, String)>, ClusterUnavailable>> {
        Box::pin(self.exchange_ticket_keys(hour, sealed, hours))
    }

    fn report_auth_event(&self, event: String) {
        let _ = self.auth_events.try_send(event);
    }

    fn stop_accepting(&self) -> BackendFuture<'_, ()> {
        Box::pin(self.stop_accepting_members())
    }

    fn other_nodes(&self) -> BackendFuture<'_, Vec<Vec<Arc<str>>>> {
        Box::pin(self.query_other_nodes())
    }

    fn shard_of(&self, room: &str) -> usize {
        self.engine_of(room)
    }

    fn wait_for_migrations(&self) -> BackendFuture<'_, ()> {
        Box::pin(self.migrations.wait_until_idle())
    }

    fn deregister<'a>(&'a self, rooms: &'a RoomRegistry) -> BackendFuture<'a, ()> {
        Box::pin(self.remove_this_node(rooms))
    }
}

impl ClusterGateway {
    /// Claims a membership until it is here, detached, or until it is known that it does not come.
    async fn claim_until_answered(&self, request: ClaimRequest) -> Result<(), ClaimError> {
        let (mut denied_by, mut ends, mut is_first) = (None, None, true);
        loop {
            let answer = self.request_claim(&request, ends);
            match timeout(self.timings.claim_retry_interval(), answer).await {
                Ok(Ok(ClaimReply::Granted)) => return Ok(()),
                Ok(Ok(ClaimReply::NotFound)) => return Err(ClaimError::Ended),
                Ok(Ok(ClaimReply::Denied(connection)))
                    if denied_by.as_ref() == Some(&connection) =>
                {
                    return Err(ClaimError::Ended);
                }
                // Once only: a client that has gone back there must not be asked for again, nor the connection end of one
                // that did so while this node waited. A client that is here asks again itself.
                Ok(Ok(ClaimReply::Live(connection))) if is_first => ends = Some(connection),
                Ok(Ok(ClaimReply::Live(_))) => return Err(ClaimError::Unavailable),
                // It may have moved on to a third node, or to this one.
                Ok(Ok(ClaimReply::Denied(connection))) => denied_by = Some(connection),
                Ok(Err(_)) => return Err(ClaimError::Unavailable),
                // The node that has it is slow, or gone: then the membership expires in time, and there is none.
                Err(_elapsed) => {}
            }
            is_first = false;
        }
    }
}
