//! What rooms, REST and a shutdown need of the other nodes. It is chosen once, at the start: [`SingleNode`](super::SingleNode), or the cluster
//! gateway, which asks Redis.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytestring::ByteString;

use super::{JoinError, Membership, Peer, RoomRegistry};
use crate::{
    delivery::ClientQueue,
    migration::{ConnectionId, Epoch, HandOver, MemberRecord, Migration, MigrationGuard},
    protocol::{Signal, SignalKind},
    webhooks::WebhookEvent,
};

/// Rooms and how many members each has, by name.
pub type RoomCounts = Vec<(Arc<str>, usize)>;

/// A boxed future: a backend is chosen at run time.
pub type BackendFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The other nodes, as this one needs them.
///
/// A room calls the synchronous methods under its lock: none of them waits, nor calls back into a room.
pub trait Backend: Send + Sync {
    // Which node this is.

    /// The name of this node among those that share rooms; nothing on a single node, whose rooms have local members only.
    fn node(&self) -> Option<&Arc<str>>;

    /// Whether rooms can be joined.
    fn is_up(&self) -> bool;

    /// A change with this epoch was applied to a room.
    fn note_epoch(&self, _epoch: Epoch) {}

    /// Something in a room ends by itself after a time: [`RoomRegistry::expire_unconfirmed`] has to look at it.
    fn note_unsettled(&self, _room: &Arc<str>) {}

    // Memberships.

    /// Lets `peer` into `room`, as [`Membership::join`] promises.
    fn join<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
        room: &'a Arc<str>,
        peer: Peer,
        queue: ClientQueue,
    ) -> BackendFuture<'a, Result<Membership, JoinError>>;

    /// Ends the membership that `username` has had for longest in `room`, on whichever node it is, where no client is behind
    /// it: see [`RoomRegistry::evict_oldest_if_dead`].
    fn evict_oldest_if_dead<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
        room: &'a Arc<str>,
        username: &'a str,
    ) -> BackendFuture<'a, bool>;

    /// Brings a membership here from another node, as [`Membership::claim`] promises.
    fn claim(&self, request: ClaimRequest) -> BackendFuture<'_, Result<(), ClaimError>>;

    /// Reports that a local member has left. `reason` goes to webhooks, unless another node reports it to them; `sequence`
    /// numbers the room's last webhook event before that.
    fn leave(
        &self,
        room: &Arc<str>,
        peer: Peer,
        key: u64,
        reason: Option<&'static str>,
        sequence: u64,
    );

    // Frames and events of one room.

    /// Sends a frame of a local member to `node`. Where that node does not confirm in time that it has delivered it, the
    /// sender gets an error: [`RoomRegistry::answer_unreachable`].
    ///
    /// # Errors
    ///
    /// [`NodeUnreachable`]; then the frame is lost.
    fn relay(&self, node: &Arc<str>, frame: RelayedFrame) -> Result<(), NodeUnreachable>;

    /// Whether the member with this key got an error lately for a signal with this `id`, which may have arrived all the same:
    /// it is repeated now.
    fn was_answered(&self, room: &str, key: u64, id: &str) -> bool;

    /// Reports to `node` that a local member is detached, or is not any more. A node that misses it learns in time whether
    /// the member has left.
    fn report_state(
        &self,
        node: &Arc<str>,
        room: &Arc<str>,
        client_id: &Arc<str>,
        key: u64,
        is_detached: bool,
    );

    /// Has an event numbered and sent to webhooks that is no change of membership.
    ///
    /// # Errors
    ///
    /// [`NodeUnreachable`]; then the event is lost.
    fn publish_event(&self, room: &Arc<str>, event: WebhookEvent) -> Result<(), NodeUnreachable>;

    // Memberships that change node.

    /// Counts a membership as on its way until the guard is dropped; nothing on a single node, where none moves.
    fn track_migration(&self) -> Option<MigrationGuard>;

    /// Moves the record of a membership that has been released.
    fn move_member(&self, migration: Migration);

    /// Sends the frames of a membership after it.
    fn hand_over(&self, hand_over: HandOver);

    // What REST, metrics and moderation need.

    /// The cluster as this node sees it, from memory: whether a process lives must not depend on Redis. Nothing on a single
    /// node.
    fn status(&self) -> Option<ClusterStatus>;

    /// Waits until this node cannot be part of the cluster, and says why not; for ever on a single node.
    fn failure(&self) -> BackendFuture<'_, String>;

    /// How many rooms, members and counts Redis had lost and got again; nothing on a single node.
    fn repairs(&self) -> Option<u64>;

    /// Nodes, rooms and members of the whole cluster at the last heartbeat; nothing on a single node.
    fn counts(&self) -> Option<Result<ClusterCounts, ClusterUnavailable>>;

    /// Every room and its number of members, by name.
    fn list<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
    ) -> BackendFuture<'a, Result<RoomCounts, ClusterUnavailable>>;

    /// How many members `room` has; nothing where it has none.
    fn member_count<'a>(
        &'a self,
        rooms: &'a RoomRegistry,
        room: &'a str,
    ) -> BackendFuture<'a, Result<Option<usize>, ClusterUnavailable>>;

    /// The members of a room that has none on this node.
    fn members<'a>(
        &'a self,
        room: &'a str,
    ) -> BackendFuture<'a, Result<Vec<MemberRecord>, ClusterUnavailable>>;

    /// Sends a logout to every node. Nodes that cannot be reached get it when they can.
    fn publish_logout<'a>(&'a self, line: &'a str) -> BackendFuture<'a, ()>;

    /// Sends moderation rules to every node. Nodes that cannot be reached get them when they can. Returns where the last one
    /// has taken effect until then; nothing on a single node.
    fn publish_rules<'a>(&'a self, rules: &'a [String]) -> BackendFuture<'a, Option<Reach>>;

    /// Sends an announcement to every other node that can be reached, and returns the same.
    fn publish_announcement<'a>(
        &'a self,
        announcement: &'a str,
    ) -> BackendFuture<'a, Option<Reach>>;

    /// Stores the sealed key of TLS session tickets for an hour (since the Unix epoch), unless there is one, and returns those
    /// of the last `hours` that are stored, by their hours. A single node has no other to share with.
    fn share_ticket_key<'a>(
        &'a self,
        hour: u64,
        sealed: &'a str,
        hours: u64,
    ) -> BackendFuture<'a, Result<Vec<(u64, String)>, ClusterUnavailable>>;

    /// Sends a login attempt to every other node that can be reached. Never waits.
    fn report_auth_event(&self, event: String);

    // Shutdown.

    /// From now on no membership comes to this node; once this returns it knows all that have come. Never returns where
    /// Redis cannot be reached.
    fn stop_accepting(&self) -> BackendFuture<'_, ()>;

    /// The other nodes that are up and stay, for each shard of rooms.
    fn other_nodes(&self) -> BackendFuture<'_, Vec<Vec<Arc<str>>>>;

    /// The shard that a room belongs to, as in [`other_nodes`](Self::other_nodes).
    fn shard_of(&self, room: &str) -> usize;

    /// Waits until no membership is on its way to another node, or to this one.
    fn wait_for_migrations(&self) -> BackendFuture<'_, ()>;

    /// Removes this node and its members, so that the others need not wait for the end of its lease.
    fn deregister<'a>(&'a self, rooms: &'a RoomRegistry) -> BackendFuture<'a, ()>;
}

/// A membership that is to come here from another node.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The room.
    pub room: Arc<str>,
    /// The member.
    pub client_id: Arc<str>,
    /// Tells the membership from all others of the client id.
    pub membership: u128,
    /// What this node wants back with it.
    pub context: ByteString,
}

/// A signal of a local member that has targets on other nodes: what an error about it has to say.
#[derive(Debug)]
pub struct RelayedSignal {
    /// The room.
    pub room: Arc<str>,
    /// The sender.
    pub from: Arc<str>,
    /// The key of the sender's connection.
    pub key: u64,
    /// The target; nothing for every other member.
    pub to: Option<Arc<str>>,
    /// The type of the payload.
    pub kind: SignalKind,
    /// The size of the payload in bytes.
    pub bytes: usize,
    /// The `id` that the sender gave it, as JSON.
    pub id: Option<Box<str>>,
    is_answered: AtomicBool,
    /// The nodes that it was sent to, each with the number that it has there.
    sent: Mutex<Vec<(Arc<str>, u64)>>,
}

impl RelayedSignal {
    /// A signal that was not answered.
    pub(super) fn new(
        room: &Arc<str>,
        from: (&Arc<str>, u64),
        to: Option<Arc<str>>,
        signal: &Signal<'_>,
    ) -> Self {
        Self {
            room: room.clone(),
            from: from.0.clone(),
            key: from.1,
            to,
            kind: signal.kind,
            bytes: signal.payload.get().len(),
            id: signal.id.map(|id| id.get().into()),
            is_answered: AtomicBool::new(false),
            sent: Mutex::default(),
        }
    }

    /// It is sent to `node` under this number.
    pub fn note_sent(&self, node: &Arc<str>, number: u64) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push((node.clone(), number));
    }

    /// The numbers under which it was sent to `node`.
    pub fn numbers_at(&self, node: &str) -> Vec<u64> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let to_node = sent.iter().filter(|(sent_to, _)| **sent_to == *node);
        to_node.map(|(_, number)| *number).collect()
    }

    /// Its sender gets an error; false where it has got one, for another node.
    pub fn mark_answered(&self) -> bool {
        !self.is_answered.swap(true, Ordering::Relaxed)
    }

    /// Whether its sender has got an error.
    pub fn is_answered(&self) -> bool {
        self.is_answered.load(Ordering::Relaxed)
    }

    /// A broadcast of the member with this key.
    #[cfg(test)]
    pub fn for_tests(key: u64, id: &str) -> Self {
        let (room, from) = ("den".into(), "a".into());
        let (kind, id, is_answered) =
            (SignalKind::Message, Some(id.into()), AtomicBool::new(false));
        let sent = Mutex::default();
        Self { room, from, key, to: None, kind, bytes: 1, id, is_answered, sent }
    }
}

/// A frame of a local member on its way to another node.
#[derive(Debug)]
pub struct RelayedFrame {
    /// What it is part of.
    pub signal: Arc<RelayedSignal>,
    /// All changes of the room up to this one had been applied here when the frame was sent.
    pub epoch: Epoch,
    /// What the targets receive.
    pub frame: ByteString,
}

/// Why a membership does not come from another node.
#[derive(Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// There is no such membership, or no longer.
    Ended,
    /// Unknown: Redis cannot be reached.
    Unavailable,
}

/// Another node cannot be reached, or has too much waiting for it.
#[derive(Debug)]
pub struct NodeUnreachable;

/// Redis cannot be reached, so the whole cluster is not known.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("redis cannot be reached")]
pub struct ClusterUnavailable;

/// The cluster as one node sees it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The name of this node.
    pub node: Arc<str>,
    /// Whether every Redis can be reached.
    pub is_up: bool,
    /// How many nodes there were at the last heartbeat, while Redis can be reached.
    pub nodes: Option<usize>,
}

/// Where something has taken effect that an administrator did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// On how many nodes, this one among them.
    pub applied_on: usize,
    /// How many nodes there are, as far as this one knows.
    pub nodes: usize,
}

/// The size of a cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClusterCounts {
    /// Nodes.
    pub nodes: usize,
    /// Rooms that have members.
    pub rooms: usize,
    /// Members of all of them.
    pub members: usize,
}

/// Whether `connection` is on the node of this `backend`.
pub(super) fn is_on_this_node(backend: &dyn Backend, connection: &ConnectionId) -> bool {
    backend.node().is_some_and(|node| *node == connection.node)
}
