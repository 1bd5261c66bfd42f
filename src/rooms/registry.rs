//! All rooms of this node. Each has a lock of its own, so that no message waits for another room's.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytestring::ByteString;
use dashmap::DashMap;
use tokio::time::Instant;

use super::{
    Backend, JoinError, Peer, Resumed, SingleNode,
    room::{JoinOutcome, Room},
};
use crate::{
    delivery::{ClientQueue, ResumeError},
    memory::{MemoryBudget, MemoryKind},
    migration::{ConnectionId, random_key},
    timeline::{Timeline, TimelineArchive, TimelineEntry},
    webhooks::Webhooks,
};

/// Every room on this node. Clones are the same rooms. No lock is held over an `await`.
#[derive(Clone)]
pub struct RoomRegistry(pub(super) Arc<RegistryState>);

pub(super) struct RegistryState {
    pub(super) rooms: DashMap<Arc<str>, Arc<RoomHandle>>,
    capacity: AtomicUsize,
    /// Of rooms with another capacity.
    capacities: DashMap<Arc<str>, usize>,
    pub(super) members: AtomicUsize,
    is_closing: AtomicBool,
    pub(super) backend: Arc<dyn Backend>,
    webhooks: Webhooks,
    /// How long the timelines of closed rooms are kept; zero where there are none.
    pub(super) timelines: Duration,
    archive: Mutex<TimelineArchive>,
    memory: MemoryBudget,
}

/// A room as all its members share it. Once its last member has gone it is finished, and never entered again: the next
/// client opens another.
pub(super) struct RoomHandle(Mutex<Room>);

impl RoomHandle {
    pub(super) fn lock(&self) -> MutexGuard<'_, Room> {
        // A panic under the lock ends its own session; every change is whole before it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomRegistry {
    /// No rooms yet, on a single node; each will hold `capacity` members, at least one.
    pub fn new(capacity: usize) -> Self {
        Self::with_backend(capacity, Arc::new(SingleNode))
    }

    /// The same, on a node that shares them with those that `backend` reaches.
    pub fn with_backend(capacity: usize, backend: Arc<dyn Backend>) -> Self {
        let (webhooks, memory) = (Webhooks::default(), MemoryBudget::default());
        Self::from_parts(capacity, backend, Duration::ZERO, webhooks, memory)
    }

    /// The same rooms with timelines, which are kept for so long after a room is closed. Call it before the first join.
    #[must_use]
    pub fn with_timelines(self, kept: Duration) -> Self {
        let capacity = self.0.capacity.load(Ordering::Relaxed);
        let (backend, memory) = (self.0.backend.clone(), self.0.memory.clone());
        Self::from_parts(capacity, backend, kept, self.0.webhooks.clone(), memory)
    }

    /// The same rooms, whose timelines count against `memory`. Call it before the first join.
    #[must_use]
    pub fn with_memory(self, memory: MemoryBudget) -> Self {
        let capacity = self.0.capacity.load(Ordering::Relaxed);
        let (backend, webhooks) = (self.0.backend.clone(), self.0.webhooks.clone());
        Self::from_parts(capacity, backend, self.0.timelines, webhooks, memory)
    }

    /// The same rooms, whose events go to `webhooks`. Call it before the first join.
    #[must_use]
    pub fn with_webhooks(self, webhooks: Webhooks) -> Self {
        let capacity = self.0.capacity.load(Ordering::Relaxed);
        let (backend, memory) = (self.0.backend.clone(), self.0.memory.clone());
        Self::from_parts(capacity, backend, self.0.timelines, webhooks, memory)
    }

    fn from_parts(
        capacity: usize,
        backend: Arc<dyn Backend>,
        timelines: Duration,
        webhooks: Webhooks,
        memory: MemoryBudget,
    ) -> Self {
        Self(Arc::new(RegistryState {
            rooms: DashMap::new(),
            capacity: AtomicUsize::new(capacity),
            capacities: DashMap::new(),
            members: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            backend,
            webhooks,
            timelines,
            archive: Mutex::default(),
            memory,
        }))
    }

    /// Where the events of its rooms go.
    pub fn webhooks(&self) -> &Webhooks {
        &self.0.webhooks
    }

    /// What this node needs of the others.
    pub fn backend(&self) -> &dyn Backend {
        &*self.0.backend
    }

    // Capacities and moderation.

    /// From now on every room without a capacity of its own lets in `capacity` members. Where it has more, they stay.
    pub fn set_default_capacity(&self, capacity: usize) {
        self.0.capacity.store(capacity, Ordering::Relaxed);
    }

    /// How many members a room holds.
    pub fn capacity_of(&self, room: &str) -> usize {
        // Nearly always, and asked for every join.
        let default = self.0.capacity.load(Ordering::Relaxed);
        if self.0.capacities.is_empty() {
            return default;
        }
        self.0.capacities.get(room).map_or(default, |capacity| *capacity)
    }

    /// From now on a room holds so many members, or as many as others. Its members stay.
    pub fn set_room_capacity(&self, room: &str, capacity: Option<usize>) {
        match capacity {
            Some(capacity) => drop(self.0.capacities.insert(room.into(), capacity)),
            None => drop(self.0.capacities.remove(room)),
        }
        self.record_moderation(room, "capacity");
    }

    /// Ends the memberships on this node that `is_meant` selects, in one room or in all, for `action`, a constant of this
    /// server; how many they are. `is_meant` is asked with the room, the member, and how long that has been here.
    pub fn disconnect_matching(
        &self,
        room: Option<&str>,
        is_meant: impl Fn(&str, &Peer, Duration) -> bool,
        action: &'static str,
    ) -> usize {
        let disconnected = self.rooms_named(room).into_iter().map(|room| {
            let mut room = room.lock();
            let id = room.id().clone();
            room.disconnect_matching(|peer, age| is_meant(&id, peer, age), action, Instant::now())
        });
        disconnected.sum()
    }

    /// Whether a member that `is_meant` selects is in `room`, or in any room of this node.
    pub fn has_member(&self, room: Option<&str>, is_meant: &dyn Fn(&Peer) -> bool) -> bool {
        self.rooms_named(room).iter().any(|room| room.lock().has_member(is_meant))
    }

    /// Whether `client_id` is that of a member of `room` on any node, or was so within the last minutes while the room had a
    /// member here.
    pub fn is_recent_member(&self, room: &str, client_id: &str, now: Instant) -> bool {
        self.find(room).is_some_and(|room| room.lock().is_recent_member(client_id, now))
    }

    /// Sends a frame to a member of a room on this node, or to all of them; how many received it.
    pub fn announce(&self, room: &str, to: Option<&str>, frame: &ByteString) -> usize {
        self.find(room).map_or(0, |room| room.lock().announce(to, frame, Instant::now()))
    }

    /// Records in the timeline of a room what an administrator has done about it.
    pub fn record_moderation(&self, room: &str, action: &'static str) {
        if let Some(room) = self.find(room) {
            room.lock().record_moderation(action, Instant::now());
        }
    }

    /// Records in the timeline of a room that a client was not let in, for a constant of this server.
    pub fn record_refusal(&self, id: &str, peer: &Peer, reason: &'static str) {
        if self.0.timelines.is_zero() {
            return;
        }
        let now = Instant::now();
        match self.find(id) {
            Some(room) => room.lock().record_refusal(peer, reason, now),
            None => {
                if let Some(timeline) = self.archive().get_mut(id) {
                    let peer = timeline.peer_ref(peer, |_| false);
                    timeline.record(now, TimelineEntry::Refused { peer, reason });
                }
            }
        }
    }

    // Memberships.

    /// See [`Room::join`]; the room is opened where there is none.
    pub(super) fn join(
        &self,
        id: &Arc<str>,
        peer: Peer,
        queue: ClientQueue,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome), JoinError> {
        self.enter(id, |room| {
            room.join(peer.clone(), queue.clone(), self.capacity_of(id), Instant::now())
        })
    }

    /// See [`Room::restore`].
    pub(super) fn restore(
        &self,
        id: &Arc<str>,
        peer: Peer,
        queue: ClientQueue,
        join_order: u64,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome), JoinError> {
        self.enter(id, |room| room.restore(peer.clone(), queue.clone(), join_order, Instant::now()))
    }

    /// See [`Room::resume`].
    pub(super) fn resume(
        &self,
        id: &str,
        client_id: &str,
        key: u128,
        queue: ClientQueue,
        last_seq: u64,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome, Resumed), ResumeError> {
        let room = self.0.rooms.get(id).ok_or(ResumeError::Ended)?.value().clone();
        let resumed = room.lock().resume(client_id, key, queue, last_seq, Instant::now());
        resumed.map(|(joined, resumed)| (room, joined, resumed))
    }

    /// See [`Room::detach`].
    pub(super) fn detach(&self, room: &RoomHandle, client_id: &str, generation: u64) {
        let quietly = self.0.is_closing.load(Ordering::Relaxed);
        room.lock().detach(client_id, generation, quietly, Instant::now());
    }

    /// See [`Membership::migrate_to`](super::Membership::migrate_to).
    pub(super) fn migrate_to_node(
        &self,
        room: &RoomHandle,
        client_id: &Arc<str>,
        generation: u64,
        node: Arc<str>,
        context: ByteString,
    ) -> bool {
        let to = ConnectionId { node, key: random_key() };
        room.lock().migrate_to_node(client_id, generation, to, context, Instant::now())
    }

    /// See [`Room::leave`]; the last one closes the room.
    pub(super) fn leave(
        &self,
        room: &Arc<RoomHandle>,
        client_id: &str,
        generation: u64,
        reason: &'static str,
    ) {
        self.remove_from(room, |inside| {
            let quietly = self.0.is_closing.load(Ordering::Relaxed);
            inside.leave(client_id, generation, quietly, reason, Instant::now())
        });
    }

    /// See [`Room::evict`].
    pub(super) fn evict(&self, room: &Arc<RoomHandle>, client_id: &str, generation: u64) {
        self.remove_from(room, |inside| inside.evict(client_id, generation, Instant::now()));
    }

    /// Removes a local member, where `remove` says that it did; the last one closes the room.
    fn remove_from(&self, room: &Arc<RoomHandle>, remove: impl FnOnce(&mut Room) -> bool) {
        let mut inside = room.lock();
        if remove(&mut inside) {
            self.0.members.fetch_sub(1, Ordering::Relaxed);
        }
        if inside.is_finished() {
            let id = inside.id().clone();
            drop(inside);
            self.archive_and_remove(&id, room);
        }
    }

    /// Adds a member to a room, which is opened where there is none.
    pub(super) fn enter(
        &self,
        id: &Arc<str>,
        join: impl Fn(&mut Room) -> Result<JoinOutcome, JoinError>,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome), JoinError> {
        loop {
            let open = || {
                let (backend, webhooks) = (self.0.backend.clone(), self.0.webhooks.clone());
                let timeline = self.take_or_start_timeline(id);
                let room = Room::new(id.clone(), backend, timeline, webhooks);
                Arc::new(RoomHandle(Mutex::new(room)))
            };
            let room = self.0.rooms.entry(id.clone()).or_insert_with(open).clone();
            let mut inside = room.lock();
            if inside.is_finished() {
                drop(inside);
                self.archive_and_remove(id, &room);
                continue;
            }
            let joined = join(&mut inside);
            if let Ok(joined) = &joined
                && !joined.replaced
            {
                self.0.members.fetch_add(1, Ordering::Relaxed);
            }
            drop(inside);
            return joined.map(|joined| (room, joined));
        }
    }

    /// From now on peers are not told that others leave: all of them do, and their calls may outlive this process.
    pub fn begin_shutdown(&self) {
        self.0.is_closing.store(true, Ordering::Relaxed);
    }

    /// Wakes the connection of every member, which looks whether the server stops.
    pub fn wake_members(&self) {
        for room in self.rooms_named(None) {
            room.lock().wake_members();
        }
    }

    /// The room of this id, or all.
    fn rooms_named(&self, id: Option<&str>) -> Vec<Arc<RoomHandle>> {
        match id {
            Some(id) => self.find(id).into_iter().collect(),
            None => self.0.rooms.iter().map(|room| room.value().clone()).collect(),
        }
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<RoomHandle>> {
        self.0.rooms.get(id).map(|room| room.value().clone())
    }

    pub(super) fn archive_and_remove(&self, id: &str, room: &Arc<RoomHandle>) {
        // Before it is gone: the next room of this id continues its timeline.
        let (shared_id, timeline) = {
            let mut inside = room.lock();
            (inside.id().clone(), inside.take_timeline())
        };
        if let Some(timeline) = timeline {
            let is_too_much = || self.0.memory.is_eighth_used_by(MemoryKind::Timelines);
            self.archive().insert(shared_id, timeline, Instant::now(), is_too_much);
        }
        self.0.rooms.remove_if(id, |_, known| Arc::ptr_eq(known, room));
    }

    // Timelines.

    /// The timeline that a room continues.
    fn take_or_start_timeline(&self, id: &str) -> Option<Box<Timeline>> {
        if self.0.timelines.is_zero() {
            return None;
        }
        let known = self.archive().remove(id);
        known.or_else(|| {
            let charge = self.0.memory.server_charge(MemoryKind::Timelines);
            Some(Box::new(Timeline::new(Instant::now()).with_charge(charge)))
        })
    }

    /// Drops timelines that were kept for long enough.
    pub fn evict_expired(&self) {
        self.archive().evict_expired(self.0.timelines, Instant::now());
    }

    pub(super) fn archive(&self) -> MutexGuard<'_, TimelineArchive> {
        self.0.archive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every room and its id.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<RoomHandle>)> {
        self.0.rooms.iter().map(|room| (room.key().clone(), room.value().clone())).collect()
    }
}
