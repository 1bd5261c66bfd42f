//! The backend of a server that shares no rooms.

use std::{future::ready, sync::Arc};

use super::{
    Backend, BackendFuture, ClaimError, ClaimRequest, ClusterCounts, ClusterStatus,
    ClusterUnavailable, JoinError, Membership, NodeUnreachable, Peer, Reach, RelayedFrame,
    RoomCounts, RoomRegistry,
};
use crate::{
    delivery::ClientQueue,
    migration::{HandOver, MemberRecord, Migration, MigrationGuard},
    webhooks::WebhookEvent,
};

/// A node that shares no rooms.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleNode;

impl Backend for SingleNode {
    fn node(&self) -> Option<&Arc<str>> {
        None
    }

    fn is_up(&self) -> bool {
        true
    }

    fn join<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
        room: &'a Arc<str>,
        peer: Peer,
        queue: ClientQueue,
    ) -> BackendFuture<'a, Result<Membership, JoinError>> {
        Box::pin(ready(Membership::join_local(rooms, room, peer, queue)))
    }

    fn evict_oldest_if_dead<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
        room: &'a Arc<str>,
        username: &'a str,
    ) -> BackendFuture<'a, bool> {
        Box::pin(rooms.evict_oldest_if_dead(room, username))
    }

    fn claim(&self, _: ClaimRequest) -> BackendFuture<'_, Result<(), ClaimError>> {
        Box::pin(ready(Err(ClaimError::Ended)))
    }

    fn leave(&self, _: &Arc<str>, _: Peer, _: u64, _: Option<&'static str>, _: u64) {}

    fn relay(&self, _: &Arc<str>, _: RelayedFrame) -> Result<(), NodeUnreachable> {
        Err(NodeUnreachable)
    }

    fn was_answered(&self, _: &str, _: u64, _: &str) -> bool {
        false
    }

    fn report_state(&self, _: &Arc<str>, _: &Arc<str>, _: &Arc<str>, _: u64, _: bool) {}

    fn publish_event(&self, _: &Arc<str>, _: WebhookEvent) -> Result<(), NodeUnreachable> {
        Err(NodeUnreachable)
    }

    fn track_migration(&self) -> Option<MigrationGuard> {
        None
    }

    fn move_member(&self, _: Migration) {}

    fn hand_over(&self, _: HandOver) {}

    fn status(&self) -> Option<ClusterStatus> {
        None
    }

    fn failure(&self) -> BackendFuture<'_, String> {
        Box::pin(std::future::pending())
    }

    fn repairs(&self) -> Option<u64> {
        None
    }

    fn counts(&self) -> Option<Result<ClusterCounts, ClusterUnavailable>> {
        None
    }

    fn list<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
    ) -> BackendFuture<'a, Result<RoomCounts, ClusterUnavailable>> {
        // Not on a worker, which has signals to relay: the list may be long.
        let rooms = rooms.clone();
        let list = tokio::task::spawn_blocking(move || rooms.list());
        Box::pin(async { list.await.map_err(|_panicked| ClusterUnavailable) })
    }

    fn member_count<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
        room: &'a str,
    ) -> BackendFuture<'a, Result<Option<usize>, ClusterUnavailable>> {
        Box::pin(ready(Ok(rooms.member_count(room))))
    }

    fn members<'a>(
        &'a self,
        _: &'a str,
    ) -> BackendFuture<'a, Result<Vec<MemberRecord>, ClusterUnavailable>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn publish_logout<'a>(&'a self, _: &'a str) -> BackendFuture<'a, ()> {
        Box::pin(ready(()))
    }

    fn publish_rules<'a>(&'a self, _: &'a [String]) -> BackendFuture<'a, Option<Reach>> {
        Box::pin(ready(None))
    }

    fn publish_announcement<'a>(&'a self, _: &'a str) -> BackendFuture<'a, Option<Reach>> {
        Box::pin(ready(None))
    }

    fn share_ticket_key(
        &self,
        _: u64,
        _: &str,
        _: u64,
    ) -> BackendFuture<'_, Result<Vec<(u64, String)>, ClusterUnavailable>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn report_auth_event(&self, _: String) {}

    fn stop_accepting(&self) -> BackendFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn other_nodes(&self) -> BackendFuture<'_, Vec<Vec<Arc<str>>>> {
        Box::pin(ready(Vec::new()))
    }

    fn shard_of(&self, _: &str) -> usize {
        0
    }

    fn wait_for_migrations(&self) -> BackendFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn deregister<'a>(&'a self, _: &'a RoomRegistry) -> BackendFuture<'a, ()> {
        Box::pin(ready(()))
    }
}
