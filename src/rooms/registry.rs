//! Which rooms there are. Each has a lock of its own, and no message waits for another room's.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytestring::ByteString;
use dashmap::DashMap;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    Membership,
    room::{JoinError, JoinOutcome, MemberSnapshot, Peer, Resumed, Room},
};
use crate::{
    cluster::gateway::{
        CLAIM_RETRY_INTERVAL, ClaimReply, ClusterCommand, ClusterEvent, ClusterGateway,
        ConnectionId, Epoch, IncomingMigration, MemberRecord, MigratedMember, Migration,
        PendingJoin, random_key,
    },
    outbox::{self, ClientQueue, ResumeError},
    timeline::{Timeline, TimelineEntry, TimelineView},
    webhooks::Webhooks,
};

/// Rooms that are over and whose timelines are kept at most.
const MAX_ARCHIVED_TIMELINES: usize = 1024;

/// Every room on this server. Clones are the same rooms. No lock is held over an `await`.
#[derive(Clone)]
pub struct RoomRegistry(Arc<RegistryState>);

struct RegistryState {
    rooms: DashMap<Arc<str>, Arc<RoomHandle>>,
    capacity: AtomicUsize,
    /// Of rooms that hold more or fewer.
    capacities: DashMap<Arc<str>, usize>,
    members: AtomicUsize,
    is_closing: AtomicBool,
    gateway: Option<Arc<ClusterGateway>>,
    webhooks: Webhooks,
    /// How long the timelines of rooms are kept that are over; zero where there are none.
    timelines: Duration,
    archive: Mutex<TimelineArchive>,
}

/// The timelines of rooms that are over.
#[derive(Default)]
struct TimelineArchive {
    /// With the time at which each was over.
    rooms: HashMap<Arc<str>, (Instant, Box<Timeline>)>,
    /// The same times, the oldest first; of rooms that were opened again as well.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl TimelineArchive {
    fn keep(&mut self, room: Arc<str>, timeline: Box<Timeline>, now: Instant) {
        self.order.push_back((now, room.clone()));
        self.rooms.insert(room, (now, timeline));
        while self.order.len() > MAX_ARCHIVED_TIMELINES {
            self.evict_oldest();
        }
    }

    fn evict_expired(&mut self, window: Duration, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.duration_since(*since) >= window) {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some((since, room)) = self.order.pop_front()
            && self.rooms.get(&room).is_some_and(|(known, _)| *known == since)
        {
            self.rooms.remove(&room);
        }
    }
}

/// Why a seat does not come from another node.
#[derive(Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// There is no such membership, or no longer.
    Ended,
    /// Nobody knows: what the nodes share is out of reach.
    Unavailable,
}

/// A room as everyone in it shares it. Once its last member has gone it is over, and never entered again:
/// whoever comes then opens another.
pub(super) struct RoomHandle(Mutex<Room>);

impl RoomHandle {
    pub(super) fn lock(&self) -> MutexGuard<'_, Room> {
        // A panic under the lock ends its own session; every change is whole before it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RoomRegistry {
    /// No rooms yet; each will hold `capacity` members, at least one.
    pub fn new(capacity: usize) -> Self {
        Self::of(capacity, None, Duration::ZERO, Webhooks::default())
    }

    /// The same rooms, of each of which a timeline is kept, and for so long after it is over. Call it before anybody
    /// comes in.
    #[must_use]
    pub fn with_timelines(self, kept: Duration) -> Self {
        let capacity = self.0.capacity.load(Ordering::Relaxed);
        Self::of(capacity, self.0.gateway.clone(), kept, self.0.webhooks.clone())
    }

    /// The same rooms, of which `webhooks` are told what happens. Call it before anybody comes in.
    #[must_use]
    pub fn with_webhooks(self, webhooks: Webhooks) -> Self {
        let capacity = self.0.capacity.load(Ordering::Relaxed);
        Self::of(capacity, self.0.gateway.clone(), self.0.timelines, webhooks)
    }

    /// The same, on one of several servers: who may come in is decided by what they share.
    pub fn clustered(capacity: usize, far: Arc<ClusterGateway>) -> Self {
        Self::of(capacity, Some(far), Duration::ZERO, Webhooks::default())
    }

    fn of(
        capacity: usize,
        far: Option<Arc<ClusterGateway>>,
        timelines: Duration,
        webhooks: Webhooks,
    ) -> Self {
        Self(Arc::new(RegistryState {
            rooms: DashMap::new(),
            capacity: AtomicUsize::new(capacity),
            capacities: DashMap::new(),
            members: AtomicUsize::new(0),
            is_closing: AtomicBool::new(false),
            gateway: far,
            webhooks,
            timelines,
            archive: Mutex::default(),
        }))
    }

    /// From now on every room of which nothing else is said lets in `capacity` members. Where it has more, they stay.
    pub fn set_default_capacity(&self, capacity: usize) {
        self.0.capacity.store(capacity, Ordering::Relaxed);
    }

    /// How many members a room holds.
    pub fn capacity_of(&self, room: &str) -> usize {
        // Nearly always, and asked for every join.
        let usual = self.0.capacity.load(Ordering::Relaxed);
        if self.0.capacities.is_empty() {
            return usual;
        }
        self.0.capacities.get(room).map_or(usual, |capacity| *capacity)
    }

    /// From now on a room holds so many members, or as many as others. Who is in stays.
    pub fn set_room_capacity(&self, room: &str, capacity: Option<usize>) {
        match capacity {
            Some(capacity) => drop(self.0.capacities.insert(room.into(), capacity)),
            None => drop(self.0.capacities.remove(room)),
        }
        self.record_moderation(room, "capacity");
    }

    /// Ends the memberships on this server that are meant, in one room or in all, for `act`, a word of ours; how many that
    /// is. `is_meant` is asked with the room, the member, and how long that has been here.
    pub fn disconnect_matching(
        &self,
        room: Option<&str>,
        is_meant: impl Fn(&str, &Peer, Duration) -> bool,
        act: &'static str,
    ) -> usize {
        let rooms: Vec<_> = match room {
            Some(room) => self.find(room).into_iter().collect(),
            None => self.0.rooms.iter().map(|room| room.value().clone()).collect(),
        };
        let thrown = rooms.into_iter().map(|room| {
            let mut room = room.lock();
            let id = room.id().clone();
            room.disconnect_matching(|peer, age| is_meant(&id, peer, age), act, Instant::now())
        });
        thrown.sum()
    }

    /// Says something to a member of a room on this server, or to all of them; how many that is.
    pub fn announce(&self, room: &str, to: Option<&str>, frame: &ByteString) -> usize {
        self.find(room).map_or(0, |room| room.lock().announce(to, frame, Instant::now()))
    }

    /// Notes in the timeline of a room what an administrator has done about it.
    pub fn record_moderation(&self, room: &str, act: &'static str) {
        if let Some(room) = self.find(room) {
            room.lock().record_moderation(act, Instant::now());
        }
    }

    /// Who is in a room, as far as this server knows: all of them where one of them is on it.
    pub fn member_snapshots(&self, room: &str) -> Vec<MemberSnapshot> {
        self.find(room).map_or_else(Vec::new, |room| room.lock().member_snapshots(Instant::now()))
    }

    /// The way to the other servers, where there are some.
    pub fn gateway(&self) -> Option<&Arc<ClusterGateway>> {
        self.0.gateway.as_ref()
    }

    /// Asks the cluster for a seat, and waits until it is there.
    pub(super) async fn request_join(
        &self,
        far: &ClusterGateway,
        room: &Arc<str>,
        peer: Peer,
        outbox: ClientQueue,
    ) -> Result<Membership, JoinError> {
        let (reply, answer) = oneshot::channel();
        far.join(peer, random_key(), PendingJoin { room: room.clone(), queue: outbox, reply });
        answer.await.unwrap_or(Err(JoinError::Unavailable))
    }

    /// Takes in what has happened in the cluster.
    pub fn apply(&self, fact: ClusterEvent) {
        let Some(far) = self.gateway() else { return };
        let now = Instant::now();
        match fact {
            ClusterEvent::Admitted { room, holder, everyone } => {
                self.complete_join(far, &room, holder, everyone)
            }
            ClusterEvent::Joined { room, holder } => {
                self.update_room(&room, |room| room.apply_join(holder, now))
            }
            ClusterEvent::Left { room, client_id, conn } => {
                self.update_room(&room, |room| room.apply_leave(&client_id, &conn, now));
            }
            ClusterEvent::Relayed { room, from, conn, to, epoch, frame } => {
                if let Some(room) = self.find(&room) {
                    room.lock().deliver_remote(&from, &conn, to.as_deref(), epoch, &frame);
                }
            }
            ClusterEvent::PeerState { room, client_id, conn, is_away } => {
                if let Some(room) = self.find(&room) {
                    room.lock().apply_remote_state(&client_id, &conn, is_away);
                }
            }
            ClusterEvent::Snapshot { room, everyone, epoch } => {
                if let Some(room) = self.find(&room) {
                    room.lock().reconcile_snapshot(everyone, epoch, now);
                }
            }
            ClusterEvent::Claimed { ref moving, .. } => {
                let key = moving.from.key;
                if let Some(fact) = far.defer_claim(key, fact) {
                    self.begin_handover(far, fact);
                }
            }
            ClusterEvent::ClaimDenied { moving, live } => {
                let wish = live.map_or(ClaimReply::Denied(moving.from), ClaimReply::Live);
                far.answer_claim(moving.to.key, wish);
            }
            ClusterEvent::Moved { moving, holder, epoch, everyone, nodes } => {
                let id = moving.room.clone();
                if moving.from.node == far.node {
                    let moves =
                        |room: &mut Room| room.complete_outgoing(moving, holder, epoch, nodes, now);
                    return self.update_room(&id, moves);
                }
                if moving.to.node == far.node {
                    self.accept_migration(far, &id, holder, epoch, everyone);
                } else {
                    self.update_room(&id, |room| {
                        room.advance_epoch(epoch);
                        room.apply_join(holder, now)
                    });
                }
                // After the change, so that what anybody here has said before is before this.
                far.send(&id, ClusterCommand::Barrier(moving));
            }
            ClusterEvent::BarrierReached { moving, node } => {
                self.update_room(&moving.room.clone(), |room| {
                    room.confirm_barrier(&moving, &node);
                    false
                })
            }
            ClusterEvent::HandedOver { moving, luggage, goods } => {
                match far.complete_incoming(moving.to.key, luggage, *goods) {
                    // Else two nodes could take it from each other for ever, and no client would sit down.
                    Some((ClusterEvent::Claimed { moving, .. }, true)) => {
                        far.send(
                            &moving.room.clone(),
                            ClusterCommand::DenyClaim { moving, live: None },
                        );
                    }
                    Some((wanted, _)) => self.apply(wanted),
                    None => {}
                }
            }
        }
    }

    /// The number of what was told outside last of a room; 0 where nothing was.
    pub fn webhook_seq(&self, room: &str) -> u64 {
        self.find(room).map_or(0, |room| room.lock().webhook_seq())
    }

    /// Another server has told outside what happened in a room, under this number.
    pub fn advance_webhook_seq(&self, room: &str, sequence: u64) {
        if let Some(room) = self.find(room) {
            room.lock().advance_webhook_seq(sequence);
        }
    }

    /// Who has the seat that was wanted for connection `key`: that node was asked for it, unless it is this one.
    pub fn resolve_claim(&self, key: u64, holder: Option<ConnectionId>) {
        let Some(far) = self.gateway() else { return };
        let wish = match holder {
            None => ClaimReply::Nobody,
            Some(conn) if conn.node != far.node => return,
            Some(conn) => {
                let Some((room, client_id, membership)) = far.pending_claim(key) else { return };
                let room = self.find(&room);
                match room
                    .and_then(|room| room.lock().confirm_membership(&client_id, &conn, membership))
                {
                    Some(true) => ClaimReply::Granted,
                    Some(false) => ClaimReply::Denied(conn),
                    // We have not heard of it yet, or it is not all here: then it is granted when it is.
                    None => return,
                }
            }
        };
        far.answer_claim(key, wish);
    }

    /// The other node does not take a seat of ours: it is as if it had come here.
    pub fn cancel_outgoing(&self, moving: &Migration) {
        let (Some(far), Some(room)) = (self.gateway(), self.find(&moving.room)) else { return };
        let stays = room.lock().cancel_outgoing(moving);
        if let Some((peer, joined, outbox, mailbox, luggage)) = stays {
            let seat = Membership::new(self, room, peer, &joined);
            far.deliver_migrated(MigratedMember {
                membership: seat,
                queue: outbox,
                reader: mailbox,
                context: luggage,
                is_expected: false,
            });
        }
    }

    fn begin_handover(&self, far: &ClusterGateway, wanted: ClusterEvent) {
        let ClusterEvent::Claimed { moving, membership, ends, luggage } = wanted else { return };
        let (id, now) = (moving.room.clone(), Instant::now());
        let refused = match self.find(&id) {
            None => Err(None),
            Some(room) => {
                room.lock().begin_handover(moving.clone(), membership, ends, luggage, now)
            }
        };
        if let Err(live) = refused {
            far.send(&id, ClusterCommand::DenyClaim { moving, live });
        }
    }

    fn accept_migration(
        &self,
        far: &ClusterGateway,
        id: &Arc<str>,
        holder: MemberRecord,
        epoch: Epoch,
        everyone: Vec<MemberRecord>,
    ) {
        let (outbox, mailbox) = outbox::channel();
        outbox.expect_migration();
        let others = std::cell::Cell::default();
        let entered = self.enter(id, |room| {
            let (outbox, everyone) = (outbox.clone(), everyone.clone());
            let now = Instant::now();
            let (joined, there) =
                room.accept_migration(holder.clone(), epoch, outbox, everyone, now);
            others.set(there);
            Ok(joined)
        });
        if let Ok((room, joined)) = entered {
            let (key, others, since) = (holder.connection.key, others.take(), Instant::now());
            let seat = Membership::new(self, room, holder.peer, &joined);
            let on_its_way = far.track_migration();
            far.register_incoming(
                key,
                IncomingMigration {
                    membership: seat,
                    queue: outbox,
                    reader: mailbox,
                    since,
                    others,
                    deferred_claim: None,
                    guard: on_its_way,
                },
            );
        }
    }

    /// Asks for a seat that is on another node, and waits until it is here, away.
    pub(super) async fn claim(
        &self,
        far: &ClusterGateway,
        room: &Arc<str>,
        client_id: &Arc<str>,
        membership: u128,
        luggage: ByteString,
    ) -> Result<(), ClaimError> {
        let (mut denied_by, mut ends, mut is_first) = (None, None, true);
        loop {
            let answer = far.claim(room, client_id, membership, ends, luggage.clone());
            match timeout(CLAIM_RETRY_INTERVAL, answer).await {
                Ok(Ok(ClaimReply::Granted)) => return Ok(()),
                Ok(Ok(ClaimReply::Nobody)) => return Err(ClaimError::Ended),
                Ok(Ok(ClaimReply::Denied(conn))) if denied_by.as_ref() == Some(&conn) => {
                    return Err(ClaimError::Ended);
                }
                // Nobody would ask again for a client that has gone back there, nor end the connection of one that
                // did so while we waited: if it is here, it asks again.
                Ok(Ok(ClaimReply::Live(connection))) if is_first => ends = Some(connection),
                Ok(Ok(ClaimReply::Live(_))) => return Err(ClaimError::Unavailable),
                // It may have moved on to a third node, or to this one.
                Ok(Ok(ClaimReply::Denied(conn))) => denied_by = Some(conn),
                Ok(Err(_)) => return Err(ClaimError::Unavailable),
                // Whoever has it is slow, or gone: then it is given up in time, and nobody has it.
                Err(_elapsed) => {}
            }
            is_first = false;
        }
    }

    /// See [`Seat::moves_to`].
    pub(super) fn migrate_to_node(
        &self,
        room: &RoomHandle,
        client_id: &Arc<str>,
        seat: u64,
        node: Arc<str>,
        luggage: ByteString,
    ) -> bool {
        let to = ConnectionId { node, key: random_key() };
        room.lock().migrate_to_node(client_id, seat, to, luggage, Instant::now())
    }

    fn complete_join(
        &self,
        far: &ClusterGateway,
        id: &Arc<str>,
        holder: MemberRecord,
        everyone: Vec<MemberRecord>,
    ) {
        let MemberRecord { peer, connection: conn, .. } = holder.clone();
        let Some(PendingJoin { queue: outbox, reply, .. }) = far.take_pending_join(conn.key) else {
            // Whoever has asked does not wait any more.
            let (room, why) = (id.clone(), Some("gone"));
            return far
                .send(id, ClusterCommand::Leave { room, peer, key: conn.key, why, sequence: 0 });
        };
        let entered = self.enter(id, |room| {
            Ok(room.admit_local(holder.clone(), outbox.clone(), everyone.clone(), Instant::now()))
        });
        // Nobody who hung up meanwhile takes the seat: then it is dropped, which is to leave.
        let _ =
            reply.send(entered.map(|(room, joined)| Membership::new(self, room, peer, &joined)));
    }

    fn find(&self, id: &str) -> Option<Arc<RoomHandle>> {
        self.0.rooms.get(id).map(|room| room.value().clone())
    }

    /// Changes a room in which there is somebody of ours; `change` says whether one of them had to leave.
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

    /// Who of ours is where, in the rooms of one engine, and what we have heard of: what a node tells it that has
    /// come back.
    pub fn local_members(&self, engine: usize) -> Vec<(Arc<str>, Epoch, Vec<MemberRecord>)> {
        let Some(far) = self.gateway() else { return Vec::new() };
        let rooms: Vec<_> =
            self.0.rooms.iter().map(|room| (room.key().clone(), room.value().clone())).collect();
        let rooms = rooms.into_iter().filter(|(id, _)| far.engine_of(id) == engine);
        let ours = rooms.map(|(id, room)| {
            let (epoch, ours) = room.lock().local_members();
            (id, epoch, ours)
        });
        ours.filter(|(.., ours)| !ours.is_empty()).collect()
    }

    /// Gives up members of other servers that were missing for too long, and seats that were too long on their
    /// way.
    pub fn expire_unconfirmed(&self, now: Instant) {
        let rooms: Vec<_> =
            self.0.rooms.iter().map(|room| (room.key().clone(), room.value().clone())).collect();
        for (id, room) in rooms {
            let mut inside = room.lock();
            let lost = inside.expire_unconfirmed(now);
            self.0.members.fetch_sub(lost, Ordering::Relaxed);
            let is_over = inside.is_finished();
            drop(inside);
            if is_over {
                self.archive_and_remove(&id, &room);
            }
        }
        if let Some(far) = self.gateway() {
            drop(far.expire_incoming(now));
        }
    }

    /// See [`Room::join`]; the room is opened where there is none.
    pub(super) fn join(
        &self,
        id: &Arc<str>,
        peer: Peer,
        outbox: ClientQueue,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome), JoinError> {
        self.enter(id, |room| {
            room.join(peer.clone(), outbox.clone(), self.capacity_of(id), Instant::now())
        })
    }

    /// See [`Room::restore`].
    pub(super) fn restore(
        &self,
        id: &Arc<str>,
        peer: Peer,
        outbox: ClientQueue,
        arrival: u64,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome), JoinError> {
        self.enter(id, |room| room.restore(peer.clone(), outbox.clone(), arrival, Instant::now()))
    }

    /// See [`Room::resume`].
    pub(super) fn resume(
        &self,
        id: &str,
        client_id: &str,
        key: u128,
        outbox: ClientQueue,
        last_seq: u64,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome, Resumed), ResumeError> {
        let room = self.0.rooms.get(id).ok_or(ResumeError::Ended)?.value().clone();
        let resumed = room.lock().resume(client_id, key, outbox, last_seq, Instant::now());
        resumed.map(|(joined, resumed)| (room, joined, resumed))
    }

    /// See [`Room::goes_away`].
    pub(super) fn detach(&self, room: &RoomHandle, client_id: &str, seat: u64) {
        let quietly = self.0.is_closing.load(Ordering::Relaxed);
        room.lock().detach(client_id, seat, quietly, Instant::now());
    }

    fn enter(
        &self,
        id: &Arc<str>,
        join: impl Fn(&mut Room) -> Result<JoinOutcome, JoinError>,
    ) -> Result<(Arc<RoomHandle>, JoinOutcome), JoinError> {
        loop {
            let open = || {
                let (far, webhooks) = (self.0.gateway.clone(), self.0.webhooks.clone());
                let room = Room::new(id.clone(), far, self.take_or_start_timeline(id), webhooks);
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

    /// See [`Room::leave`]; the last one closes the room.
    pub(super) fn leave(
        &self,
        room: &Arc<RoomHandle>,
        client_id: &str,
        seat: u64,
        why: &'static str,
    ) {
        let mut inside = room.lock();
        let quietly = self.0.is_closing.load(Ordering::Relaxed);
        if inside.leave(client_id, seat, quietly, why, Instant::now()) {
            self.0.members.fetch_sub(1, Ordering::Relaxed);
        }
        if inside.is_finished() {
            let id = inside.id().clone();
            drop(inside);
            self.archive_and_remove(&id, room);
        }
    }

    /// From now on nobody hears any more that others leave: all of them do, and their calls may outlive
    /// this process.
    pub fn begin_shutdown(&self) {
        self.0.is_closing.store(true, Ordering::Relaxed);
    }

    fn archive_and_remove(&self, id: &str, room: &Arc<RoomHandle>) {
        // Before it is gone: whoever opens it anew goes on with its timeline.
        let (id_of_all, timeline) = {
            let mut inside = room.lock();
            (inside.id().clone(), inside.take_timeline())
        };
        if let Some(timeline) = timeline {
            self.archive().keep(id_of_all, timeline, Instant::now());
        }
        self.0.rooms.remove_if(id, |_, known| Arc::ptr_eq(known, room));
    }

    /// What a room that is opened goes on with.
    fn take_or_start_timeline(&self, id: &str) -> Option<Box<Timeline>> {
        if self.0.timelines.is_zero() {
            return None;
        }
        let known = self.archive().rooms.remove(id).map(|(_, timeline)| timeline);
        known.or_else(|| Some(Box::new(Timeline::new(Instant::now()))))
    }

    /// What has happened in a room on this server, also a while after it is over. `unix_ms` is the time, in
    /// milliseconds since the Unix epoch.
    pub fn timeline(&self, id: &str, unix_ms: u64) -> Option<TimelineView> {
        let now = Instant::now();
        if let Some(room) = self.find(id)
            && let Some(story) = room.lock().timeline_view((now, unix_ms))
        {
            return Some(story);
        }
        let mut past = self.archive();
        past.evict_expired(self.0.timelines, now);
        let (id, (_, timeline)) = past.rooms.get_key_value(id)?;
        Some(timeline.view(id, false, (now, unix_ms)))
    }

    /// Rooms that are over and have a timeline, the latest first, each with how long it has been over.
    pub fn closed_rooms(&self) -> Vec<(Arc<str>, Duration)> {
        let now = Instant::now();
        let mut past = self.archive();
        past.evict_expired(self.0.timelines, now);
        let is_known = |room: &Arc<str>, since: Instant| {
            past.rooms.get(room).is_some_and(|(known, _)| *known == since)
        };
        let order = past.order.iter().rev().filter(|(since, room)| is_known(room, *since));
        order.map(|(since, room)| (room.clone(), now.duration_since(*since))).collect()
    }

    /// Notes in the timeline of a room that somebody was not let in, for one of our own words.
    pub fn record_refusal(&self, id: &str, peer: &Peer, why: &'static str) {
        if self.0.timelines.is_zero() {
            return;
        }
        let now = Instant::now();
        match self.find(id) {
            Some(room) => room.lock().record_refusal(peer, why, now),
            None => {
                if let Some((_, timeline)) = self.archive().rooms.get_mut(id) {
                    let who = timeline.peer_ref(peer, |_| false);
                    timeline.record(now, TimelineEntry::Refused { who, why });
                }
            }
        }
    }

    /// Drops timelines that were kept for long enough.
    pub fn evict_expired(&self) {
        self.archive().evict_expired(self.0.timelines, Instant::now());
    }

    fn archive(&self) -> MutexGuard<'_, TimelineArchive> {
        self.0.archive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many members `room` has; `None` when there is no such room.
    pub fn member_count(&self, room: &str) -> Option<usize> {
        let room = self.0.rooms.get(room)?.value().clone();
        Some(room.lock().len()).filter(|members| *members > 0)
    }

    /// Every room and its number of members, by name.
    pub fn list(&self) -> Vec<(Arc<str>, usize)> {
        // Clones first: nobody waits at the door of a room while others are counted.
        let rooms: Vec<_> =
            self.0.rooms.iter().map(|room| (room.key().clone(), room.value().clone())).collect();
        let counted = rooms.into_iter().map(|(id, room)| (id, room.lock().len()));
        let mut rooms: Vec<_> = counted.filter(|(_, members)| *members > 0).collect();
        rooms.sort_unstable();
        rooms
    }

    /// How many frames wait for members, and for the one that most wait for.
    pub fn queued_frames(&self) -> (usize, usize) {
        let rooms: Vec<_> = self.0.rooms.iter().map(|room| room.value().clone()).collect();
        rooms.iter().fold((0, 0), |(all, most), room| {
            let (here, deepest) = room.lock().queued_frames();
            (all + here, most.max(deepest))
        })
    }

    /// How many members there are in all rooms together.
    pub fn member_total(&self) -> usize {
        self.0.members.load(Ordering::Relaxed)
    }

    /// How many rooms there are.
    pub fn room_count(&self) -> usize {
        self.0.rooms.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        outbox::{self, ClientQueueReader},
        replay::ReplayBuffer,
        rooms::{Membership, RouteError, is_room_id},
        wire::{self, ClientMessage},
    };

    fn peer(client_id: &str, username: &str) -> Peer {
        Peer { client_id: client_id.into(), username: username.into() }
    }

    fn sit(
        rooms: &RoomRegistry,
        room: &str,
        peer: Peer,
        outbox: ClientQueue,
    ) -> Result<Membership, JoinError> {
        Membership::join_local(rooms, &room.into(), peer, outbox)
    }

    /// Seats somebody whose client id is the user's name.
    fn enter(rooms: &RoomRegistry, room: &str, name: &str) -> (Membership, ClientQueueReader) {
        let (outbox, mailbox) = outbox::channel();
        (sit(rooms, room, peer(name, name), outbox).unwrap(), mailbox)
    }

    fn heard(mailbox: &mut ClientQueueReader) -> Vec<Value> {
        std::iter::from_fn(|| mailbox.try_recv())
            .map(|frame| serde_json::from_str(&frame).unwrap())
            .collect()
    }

    fn say(seat: &Membership, frame: &str) -> Result<bool, RouteError> {
        match wire::parse(frame).message.unwrap() {
            ClientMessage::Signal(signal) => seat.send(&signal, Instant::now()),
            other => panic!("{other:?} is no signal"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rooms_that_are_over_are_listed_until_their_timelines_are_forgotten() {
        let rooms = RoomRegistry::new(10).with_timelines(Duration::from_secs(300));
        let seats = ["den", "attic", "cellar"].map(|room| enter(&rooms, room, "alice"));
        for seat in seats {
            drop(seat);
            tokio::time::advance(Duration::from_secs(100)).await;
        }
        let _again = enter(&rooms, "attic", "bob");

        let past = rooms.closed_rooms().into_iter();
        let past: Vec<_> = past.map(|(room, over_for)| (room, over_for.as_secs())).collect();

        assert_eq!(past, [("cellar".into(), 100)]);
        tokio::time::advance(Duration::from_secs(200)).await;
        assert_eq!(rooms.closed_rooms(), []);
    }

    #[test]
    fn what_waits_for_members_is_counted_over_all_rooms_and_for_the_one_with_most() {
        let rooms = RoomRegistry::new(10);
        let (_alice, mut alice) = enter(&rooms, "den", "alice");
        let (bob, mut bobs) = enter(&rooms, "den", "bob");
        let (_carol, _carols) = enter(&rooms, "attic", "carol");
        heard(&mut alice);
        heard(&mut bobs);
        assert_eq!(rooms.queued_frames(), (1, 1), "carol is to hear that she is alone");

        for _ in 0..5 {
            say(&bob, r#"{"type":"message","data":1}"#).unwrap();
        }

        assert_eq!(rooms.queued_frames(), (6, 5));
        heard(&mut alice);
        assert_eq!(rooms.queued_frames(), (1, 1));
    }

    #[test]
    fn a_newcomer_hears_who_is_there_and_the_others_hear_of_the_newcomer() {
        let rooms = RoomRegistry::new(10);
        let (_alice, mut alice) = enter(&rooms, "den", "alice");
        let (_bob, mut bob) = enter(&rooms, "den", "bob");

        assert_eq!(
            heard(&mut bob),
            [
                json!({"type":"users_in_room","users":[{"client_id":"alice","username":"alice","polite":true}]})
            ]
        );
        assert_eq!(
            heard(&mut alice),
            [
                json!({"type":"users_in_room","users":[]}),
                json!({"type":"user_joined","room_id":"den","username":"bob","client_id":"bob","connected_users":2,"polite":false}),
            ]
        );
    }

    #[test]
    fn a_target_in_another_room_does_not_exist() {
        let rooms = RoomRegistry::new(10);
        let (alice, _mailbox) = enter(&rooms, "den", "alice");
        let (_bob, mut bob) = enter(&rooms, "attic", "bob");
        heard(&mut bob);

        let refused = say(&alice, r#"{"type":"offer","offer":{},"to":"bob"}"#);

        assert_eq!(refused, Err(RouteError::TargetNotFound("bob".into())));
        assert_eq!(heard(&mut bob), [] as [Value; 0]);
    }

    #[test]
    fn nobody_hears_itself() {
        let rooms = RoomRegistry::new(10);
        let (alice, mut mailbox) = enter(&rooms, "den", "alice");
        heard(&mut mailbox);

        assert_eq!(say(&alice, r#"{"type":"message","data":1}"#), Ok(false));
        assert_eq!(
            say(&alice, r#"{"type":"message","data":1,"to":"alice"}"#),
            Err(RouteError::TargetIsSender)
        );
        assert_eq!(heard(&mut mailbox), [] as [Value; 0]);
    }

    #[test]
    fn a_full_room_admits_nobody_but_a_reloaded_page() {
        let rooms = RoomRegistry::new(2);
        let _alice = enter(&rooms, "den", "alice");
        let _bob = enter(&rooms, "den", "bob");

        let carol = sit(&rooms, "den", peer("carol", "carol"), outbox::channel().0);
        let bob_again = sit(&rooms, "den", peer("bob", "bob"), outbox::channel().0);

        assert_eq!(carol.err(), Some(JoinError::Full));
        assert!(bob_again.is_ok());
        assert_eq!(rooms.member_count("den"), Some(2));
    }

    #[test]
    fn a_client_id_of_another_user_is_taken() {
        let rooms = RoomRegistry::new(2);
        let (_alice, mut alice) = enter(&rooms, "den", "alice");
        heard(&mut alice);

        let mallory = sit(&rooms, "den", peer("alice", "mallory"), outbox::channel().0);

        assert_eq!(mallory.err(), Some(JoinError::ClientIdTaken));
        assert_eq!(heard(&mut alice), [] as [Value; 0]);
    }

    #[test]
    fn a_seat_that_was_taken_over_can_neither_speak_nor_leave() {
        let rooms = RoomRegistry::new(10);
        let (old, _mailbox) = enter(&rooms, "den", "alice");
        let (_bob, mut bob) = enter(&rooms, "den", "bob");
        heard(&mut bob);
        let _new = enter(&rooms, "den", "alice");

        let said = say(&old, r#"{"type":"message","data":1}"#);
        drop(old);

        assert_eq!(said, Err(RouteError::Replaced));
        assert_eq!(rooms.member_count("den"), Some(2));
        let kinds: Vec<_> = heard(&mut bob).iter().map(|news| news["type"].clone()).collect();
        assert_eq!(kinds, ["user_left", "user_joined"]);
    }

    #[test]
    fn an_empty_room_is_gone() {
        let rooms = RoomRegistry::new(10);
        let (alice, _mailbox) = enter(&rooms, "den", "alice");

        drop(alice);

        assert_eq!(
            (rooms.member_count("den"), rooms.room_count(), rooms.member_total()),
            (None, 0, 0)
        );
        assert_eq!(rooms.list(), []);
    }

    /// The last one leaves while others come: whoever is in finds everybody else who is.
    #[test]
    fn nobody_is_alone_in_a_room_that_is_no_more() {
        let rooms = RoomRegistry::new(10);
        std::thread::scope(|scope| {
            for name in ["alice", "bob", "carol", "dave"] {
                let rooms = &rooms;
                scope.spawn(move || {
                    for _ in 0..5_000 {
                        let (seat, _mailbox) = enter(rooms, "den", name);
                        assert!(rooms.member_count("den").is_some());
                        drop(seat);
                    }
                });
            }
        });

        assert_eq!(
            (rooms.member_count("den"), rooms.room_count(), rooms.member_total()),
            (None, 0, 0)
        );
    }

    #[test]
    fn a_room_id_has_one_form() {
        assert!(is_room_id("a") && is_room_id("Zimmer 7/é") && is_room_id(&"é".repeat(128)));
        assert!(
            !is_room_id("")
                && !is_room_id(&"é".repeat(129))
                && !is_room_id("a\nb")
                && !is_room_id("\u{7f}")
        );
    }

    #[derive(Clone, Debug)]
    enum Act {
        Join {
            room: usize,
            name: usize,
            user: usize,
            resumes: bool,
        },
        Leave {
            seat: usize,
        },
        /// The connection is gone, after so many of the frames that wait were heard.
        Break {
            seat: usize,
            heard: usize,
        },
        /// Also by somebody whose connection is not gone: the new one takes over.
        Resume {
            seat: usize,
        },
        Say {
            seat: usize,
            to: Option<usize>,
        },
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0..3_usize, 0..5_usize, 0..2_usize, any::<bool>()).prop_map(|(room, name, user, resumes)| Act::Join { room, name, user, resumes }),
            3 => (0..20_usize, 0..4_usize).prop_map(|(seat, heard)| Act::Break { seat, heard }),
            3 => (0..20_usize).prop_map(|seat| Act::Resume { seat }),
            2 => (0..20_usize).prop_map(|seat| Act::Leave { seat }),
            4 => (0..20_usize, prop::option::of(0..6_usize)).prop_map(|(seat, to)| Act::Say { seat, to }),
        ];
        prop::collection::vec(act, 1..120)
    }

    /// A member as the test itself keeps it, with the picture of the room that its frames add up to.
    struct Observer {
        room: String,
        peer: Peer,
        seat: Option<Membership>,
        mailbox: ClientQueueReader,
        sees: BTreeSet<(String, String)>,
        expects: Vec<u64>,
        here: bool,
        /// The key of its membership, where it may resume.
        key: Option<u128>,
        /// The number of the last frame that it has got.
        got: u64,
        is_away: bool,
    }

    impl Observer {
        /// Folds what was heard into the picture, and checks that each step fits the one before.
        fn catch_up(&mut self) {
            self.hear(usize::MAX);
            assert!(self.expects.is_empty(), "something was not heard");
        }

        fn hear(&mut self, at_most: usize) {
            for _ in 0..at_most {
                let Some(news) = self.mailbox.try_recv() else { break };
                let news: Value = serde_json::from_str(&news).unwrap();
                if self.key.is_some() {
                    self.got += 1;
                    assert_eq!(news["seq"], self.got, "a frame is missing, or came twice");
                }
                let text = |field: &str| news[field].as_str().unwrap().to_owned();
                match news["type"].as_str().unwrap() {
                    "users_in_room" => {
                        assert!(self.sees.is_empty());
                        for user in news["users"].as_array().unwrap() {
                            self.sees.insert((
                                user["client_id"].as_str().unwrap().into(),
                                user["username"].as_str().unwrap().into(),
                            ));
                        }
                    }
                    "user_joined" => {
                        assert!(
                            self.sees.insert((text("client_id"), text("username"))),
                            "joined twice"
                        );
                        assert_eq!(news["connected_users"], self.sees.len() + 1);
                    }
                    "user_left" => {
                        assert!(
                            self.sees.remove(&(text("client_id"), text("username"))),
                            "left without having been there"
                        );
                        assert_eq!(news["connected_users"], self.sees.len() + 1);
                    }
                    "message" => {
                        assert!(
                            self.sees.contains(&(text("from"), text("username"))),
                            "a stranger spoke"
                        );
                        assert_eq!(news["data"], self.expects.remove(0));
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// N04 of the attack catalogue; the fuzz target `registry` has a second model.
        #[test]
        fn what_each_member_has_heard_adds_up_to_who_is_in_the_room(acts in acts()) {
            const CAPACITY: usize = 4;
            let rooms = RoomRegistry::new(CAPACITY);
            let mut all: Vec<Observer> = Vec::new();
            let mut said = 0;

            for act in acts {
                match act {
                    Act::Join { room, name, user, resumes } => {
                        let (room, peer) = (format!("room {room}"), peer(&format!("c{name}"), &format!("u{user}")));
                        let (outbox, mailbox) = outbox::channel();
                        let key = resumes.then_some(all.len() as u128);
                        if let Some(key) = key {
                            outbox.enable_replay(Box::new(ReplayBuffer::new(key)));
                        }
                        let inside = all.iter().filter(|other| other.here && other.room == room).count();
                        let holder = all.iter_mut().find(|other| other.here && other.room == room && other.peer.client_id == peer.client_id);
                        let joined = sit(&rooms, &room, peer.clone(), outbox);
                        match holder {
                            Some(holder) if holder.peer.username != peer.username => prop_assert_eq!(joined.as_ref().err(), Some(&JoinError::ClientIdTaken)),
                            Some(holder) => holder.here = false,
                            None if inside == CAPACITY => prop_assert_eq!(joined.as_ref().err(), Some(&JoinError::Full)),
                            None => {}
                        }
                        if let Ok(seat) = joined {
                            all.push(Observer { room, peer, seat: Some(seat), mailbox, sees: BTreeSet::new(), expects: Vec::new(), here: true, key, got: 0, is_away: false });
                        }
                    }
                    Act::Leave { seat } => {
                        if let Some(leaver) = all.get_mut(seat) {
                            leaver.seat = None;
                            leaver.here = false;
                        }
                    }
                    Act::Break { seat, heard } => {
                        let Some(member) = all.get_mut(seat).filter(|member| member.here && !member.is_away) else { continue };
                        member.hear(heard);
                        match (&member.seat, member.key) {
                            (Some(seat), Some(_)) => {
                                seat.detach();
                                member.is_away = true;
                            }
                            (_, _) => {
                                member.seat = None;
                                member.here = false;
                            }
                        }
                    }
                    Act::Resume { seat } => {
                        let Some(member) = all.get(seat) else { continue };
                        let Some(key) = member.key else { continue };
                        let (outbox, mailbox) = outbox::channel();
                        let resumed = Membership::resume(&rooms, &member.room, member.peer.clone(), key, outbox, member.got);
                        let others = all.iter().filter(|other| other.here && other.room == member.room && other.peer != member.peer);
                        let others: BTreeSet<_> = others.map(|other| other.peer.client_id.clone()).collect();
                        prop_assert_eq!(resumed.as_ref().err(), (!member.here).then_some(&ResumeError::Ended));
                        if let Ok((seat, resumed)) = resumed {
                            prop_assert_eq!(resumed.others.into_iter().map(|(peer, _)| peer.client_id).collect::<BTreeSet<_>>(), others);
                            let member = &mut all[usize::try_from(key).unwrap()];
                            (member.seat, member.mailbox, member.is_away) = (Some(seat), mailbox, false);
                        }
                    }
                    Act::Say { seat, to } => {
                        let Some(speaker) = all.get(seat).filter(|speaker| !speaker.is_away) else { continue };
                        let Some(seat) = &speaker.seat else { continue };
                        let (room, from, here) = (speaker.room.clone(), speaker.peer.clone(), speaker.here);
                        let to = to.map(|to| format!("c{to}"));
                        said += 1;
                        let frame = json!({"type":"message","data":said,"to":to}).to_string();
                        let sent = say(seat, &frame);
                        let others = all.iter_mut().filter(|other| other.here && other.room == room && other.peer.client_id != from.client_id);
                        let hearers: Vec<_> = others.filter(|other| to.as_deref().is_none_or(|to| *to == *other.peer.client_id)).collect();
                        match (here, to) {
                            (false, _) => prop_assert_eq!(sent, Err(RouteError::Replaced)),
                            (true, Some(to)) if *to == *from.client_id => prop_assert_eq!(sent, Err(RouteError::TargetIsSender)),
                            (true, Some(to)) if hearers.is_empty() => prop_assert_eq!(sent, Err(RouteError::TargetNotFound(to))),
                            (true, _) => {
                                prop_assert_eq!(sent, Ok(false));
                                for hearer in hearers {
                                    hearer.expects.push(said);
                                }
                            }
                        }
                    }
                }

                let here: Vec<_> = all.iter().filter(|member| member.here).map(|member| (member.room.clone(), member.peer.clone())).collect();
                prop_assert_eq!(rooms.member_total(), here.len());
                for member in all.iter_mut().filter(|member| member.here && !member.is_away) {
                    member.catch_up();
                    let others = here.iter().filter(|(room, peer)| *room == member.room && *peer != member.peer);
                    let others: BTreeSet<_> = others.map(|(_, peer)| (peer.client_id.to_string(), peer.username.to_string())).collect();
                    prop_assert_eq!(&member.sees, &others);
                    prop_assert_eq!(rooms.member_count(&member.room), Some(others.len() + 1));
                }
            }
        }
    }
}
