//! Who is in one room, and who hears what there. Pure: no clock, no socket, no lock.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use bytestring::ByteString;
use tokio::time::Instant;

#[path = "handover.rs"]
mod handover;

use self::handover::OutgoingMigration;
use crate::{
    cluster::gateway::{
        ClusterCommand, ClusterGateway, ConnectionId, Epoch, MemberRecord, UNCONFIRMED_MEMBER_TTL,
    },
    outbox::{ClientQueue, DisconnectReason, ResumeError},
    timeline::{PeerRef, Timeline, TimelineEntry, TimelineView},
    webhooks::{self, Webhooks},
    wire::{
        CallReport, MediaPath, RosterEntry, SenderSuffix, ServerMessage, Signal, truncate_for_error,
    },
};

/// Whether `room` may name a room: 1 to 128 characters, none of them a control character.
pub fn is_room_id(room: &str) -> bool {
    (1..=128).contains(&room.chars().count()) && !room.chars().any(char::is_control)
}

/// A member of a room, as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Unique in its room.
    pub client_id: Arc<str>,
    /// The account, or the guest's name.
    pub username: Arc<str>,
}

/// Why nobody sat down.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The room has no seat left.
    #[error("Room is full")]
    Full,
    /// Another user holds this client id in the room.
    #[error("Client id is taken by another user in this room")]
    ClientIdTaken,
    /// What the servers of a cluster share is out of reach, and nobody knows who is in the room.
    #[error("Rooms cannot be entered at the moment")]
    Unavailable,
}

impl JoinError {
    /// The machine word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "room_full",
            Self::ClientIdTaken => "client_id_taken",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a signal went nowhere.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nobody in this room has that client id.
    #[error("Target client {0} not found")]
    TargetNotFound(String),
    /// The sender named itself.
    #[error("\"to\" is your own client id")]
    TargetIsSender,
    /// The sender's seat has gone to a newer connection; its own is about to end.
    #[error("This connection has been replaced")]
    Replaced,
    /// The peer, or some of all, are on another server, which cannot be reached now; perhaps it was.
    #[error("{0} cannot be reached at the moment")]
    TargetUnreachable(String),
}

impl RouteError {
    /// The machine word for it; `None` where nobody is to be told.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::TargetNotFound(_) => Some("target_not_found"),
            Self::TargetIsSender => Some("invalid_message"),
            Self::TargetUnreachable(_) => Some("target_unreachable"),
            // The dismissal is on its way.
            Self::Replaced => None,
        }
    }
}

/// Somebody goes on where it was.
#[derive(Debug)]
pub struct Resumed {
    /// How many frames it is to hear first that it has not got.
    pub replayed_frames: usize,
    /// The others that are there now, and whether each came before.
    pub others: Vec<(Peer, bool)>,
}

/// Why somebody left who was on a server that cannot be found, or on its way to one.
const LOST: &str = "lost";

/// What a peer is whose connection is gone, and which may come back.
const STATE_DETACHED: &str = "reconnecting";
const STATE_CONNECTED: &str = "connected";

fn peer_state_frame(client_id: &str, state: &str) -> ByteString {
    ServerMessage::PeerState { client_id, state }.encode()
}

/// One room, its members, and the outboxes of those.
pub(super) struct Room {
    id: Arc<str>,
    /// By client id, so that lists come in one order.
    members: Vec<Member>,
    last_generation: u64,
    /// The other servers, where there are some.
    gateway: Option<Arc<ClusterGateway>>,
    /// Seats of ours on their way to another server.
    outgoing: Vec<OutgoingMigration>,
    /// Seats that have come from other servers, and in which epoch: what somebody said to all who had not heard
    /// of that went to the server before, and is heard from there.
    arrivals: Vec<(Arc<str>, Epoch)>,
    /// All until then we have heard of.
    epoch: Epoch,
    /// What has happened here, where that is kept.
    timeline: Option<Box<Timeline>>,
    /// Who is told what happens here.
    webhooks: Webhooks,
    /// The number of what they were told last, also by other servers.
    webhook_seq: u64,
}

struct Member {
    peer: Peer,
    location: Location,
    /// Who has a higher one came later.
    join_order: u64,
    /// What tells its membership from all others on its server; 0 where there is one server.
    key: u64,
    /// What the timeline knows it by.
    peer_ref: PeerRef,
    /// When it came to this server, or we heard of it.
    since: Instant,
}

/// A member, as whoever looks after the server sees it.
#[derive(Debug)]
pub struct MemberSnapshot {
    /// Who it is.
    pub peer: Peer,
    /// The server that it is on, where that is another one.
    pub node: Option<Arc<str>>,
    /// Its connection is gone, and it may come back.
    pub is_detached: bool,
    /// How long it has been here.
    pub age: Duration,
    /// From where its connection comes, on this server.
    pub address: Option<IpAddr>,
    /// How long its last answer to a Ping took, on this server.
    pub ping_rtt: Option<Duration>,
    /// By which way its last call went, as it says itself.
    pub path: Option<MediaPath>,
}

/// Where a member is.
enum Location {
    /// On this server.
    Local {
        outbox: ClientQueue,
        /// Tells this member from the one that it replaced, or that replaced it.
        seat: u64,
    },
    /// On another; boxed, for a room's members are looked through for every message.
    Remote(Box<RemoteMember>),
}

struct RemoteMember {
    node: Arc<str>,
    is_detached: bool,
    /// When a picture first did not show it.
    unconfirmed_since: Option<Instant>,
}

impl Member {
    fn queue(&self) -> Option<&ClientQueue> {
        match &self.location {
            Location::Local { outbox, .. } => Some(outbox),
            Location::Remote(_) => None,
        }
    }

    fn node(&self) -> Option<&Arc<str>> {
        match &self.location {
            Location::Local { .. } => None,
            Location::Remote(there) => Some(&there.node),
        }
    }

    fn is_generation(&self, number: u64) -> bool {
        matches!(self.location, Location::Local { seat, .. } if seat == number)
    }

    fn is_detached(&self) -> bool {
        match &self.location {
            Location::Local { outbox, .. } => outbox.is_detached(),
            Location::Remote(there) => there.is_detached,
        }
    }

    /// Whether it is this very membership, wherever it is.
    fn is_same_membership(&self, holder: &MemberRecord) -> bool {
        self.join_order == holder.join_order && self.peer == holder.peer
    }

    /// Whether it is there on this very connection.
    fn is_on_connection(&self, conn: &ConnectionId) -> bool {
        self.key == conn.key && self.node() == Some(&conn.node)
    }
}

/// Somebody sat down.
pub(super) struct JoinOutcome {
    /// The number of the seat, which nobody in this room had before.
    pub generation: u64,
    /// Who came later has a higher one; it stays over a resume.
    pub join_order: u64,
    /// Whether somebody had to leave for it.
    pub replaced: bool,
}

impl Room {
    /// A room that goes on with the `timeline` of those that had this id before.
    pub(super) fn new(
        id: Arc<str>,
        gateway: Option<Arc<ClusterGateway>>,
        timeline: Option<Box<Timeline>>,
        webhooks: Webhooks,
    ) -> Self {
        Self {
            id,
            members: Vec::new(),
            last_generation: 0,
            gateway,
            outgoing: Vec::new(),
            arrivals: Vec::new(),
            epoch: 0,
            timeline,
            webhooks,
            webhook_seq: 0,
        }
    }

    /// Seats `peer` in a room for `capacity` members, as [`Seat::take`](super::Seat::take) promises.
    ///
    /// # Errors
    ///
    /// [`JoinError::ClientIdTaken`] and [`JoinError::Full`]; then nothing has changed.
    pub(super) fn join(
        &mut self,
        peer: Peer,
        outbox: ClientQueue,
        capacity: usize,
        now: Instant,
    ) -> Result<JoinOutcome, JoinError> {
        let holder = self.position(&peer.client_id).ok();
        match holder.and_then(|holder| self.members.get(holder)) {
            Some(holder) if holder.peer.username != peer.username => {
                return Err(JoinError::ClientIdTaken);
            }
            None if self.members.len() >= capacity => return Err(JoinError::Full),
            Some(_) | None => {}
        }
        if self.members.is_empty() {
            self.emit_webhook(webhooks::What::RoomOpened {});
        }
        let replaced = holder.is_some_and(|holder| self.evict_replaced(holder, now));
        let Peer { client_id, username } = peer.clone();
        let seat = self.add_local(peer, outbox, None, 0, now);
        self.emit_webhook(webhooks::What::MemberJoined { client_id, username });
        Ok(JoinOutcome { generation: seat, join_order: seat, replaced })
    }

    /// Seats one of ours that the cluster has let in: `everyone` is in the room, as far as the cluster knows.
    pub(super) fn admit_local(
        &mut self,
        holder: MemberRecord,
        outbox: ClientQueue,
        everyone: Vec<MemberRecord>,
        now: Instant,
    ) -> JoinOutcome {
        // Whoever has ours here has followed the room, and knows better: also who of ours has just left.
        if !self.has_local_members() {
            self.members.clear();
            for other in everyone {
                self.insert_remote(other, now);
            }
        }
        let there = self.position(&holder.peer.client_id).ok();
        let replaced = there.is_some_and(|there| self.evict_replaced(there, now));
        let MemberRecord { peer, connection: conn, join_order: arrival } = holder;
        self.advance_epoch(arrival);
        let seat = self.add_local(peer, outbox, Some(arrival), conn.key, now);
        JoinOutcome { generation: seat, join_order: arrival, replaced }
    }

    /// Notes somebody on another server of whom nobody need be told.
    fn insert_remote(&mut self, holder: MemberRecord, now: Instant) {
        let MemberRecord { peer, connection: ConnectionId { node, key }, join_order: arrival } =
            holder;
        let is_ours = self.gateway.as_ref().is_some_and(|far| far.node == node);
        if let Err(place) = self.position(&peer.client_id)
            && !is_ours
        {
            let there = RemoteMember { node, is_detached: false, unconfirmed_since: None };
            let there = Location::Remote(Box::new(there));
            let mark = self.peer_ref(&peer);
            self.members.insert(
                place,
                Member {
                    peer,
                    location: there,
                    join_order: arrival,
                    key,
                    peer_ref: mark,
                    since: now,
                },
            );
        }
    }

    /// Somebody is in on another server; whether one of ours had to leave for it.
    pub(super) fn apply_join(&mut self, holder: MemberRecord, now: Instant) -> bool {
        self.advance_epoch(holder.join_order);
        let mut replaced = false;
        if let Ok(place) = self.position(&holder.peer.client_id) {
            // Also on another connection than we knew: a membership that has moved is still the same.
            if let Some(Member { location: Location::Remote(there), key, .. }) =
                self.members.get_mut(place).filter(|member| member.is_same_membership(&holder))
            {
                there.unconfirmed_since = None;
                (there.node, *key) = (holder.connection.node, holder.connection.key);
                return false;
            }
            replaced = self.evict_replaced(place, now);
        }
        let (peer, node) = (holder.peer.clone(), holder.connection.node.clone());
        self.announce_join(&peer);
        self.insert_remote(holder, now);
        let who = self.peer_ref(&peer);
        self.record(now, TimelineEntry::Joined { who });
        for away in self
            .members
            .iter()
            .filter(|member| member.queue().is_some_and(ClientQueue::is_detached_reported))
        {
            // Who is new there has not heard of it.
            if let Some(far) = &self.gateway {
                self.send_state_to_node(far, away, &node, true);
            }
        }
        replaced
    }

    /// Somebody has left, as the cluster says; whether it was one of ours.
    pub(super) fn apply_leave(
        &mut self,
        client_id: &str,
        conn: &ConnectionId,
        now: Instant,
    ) -> bool {
        let is_ours = self.gateway.as_ref().is_some_and(|far| far.node == conn.node);
        let Ok(place) = self.position(client_id) else { return false };
        let known = self.members.get(place);
        let peer = known.map(|known| known.peer.clone());
        let is_this = known.is_some_and(|known| match known.location {
            Location::Local { .. } => is_ours && known.key == conn.key,
            Location::Remote(_) => known.is_on_connection(conn),
        });
        // One of ours only where somebody else has its id now.
        let why = if is_ours { "replaced" } else { "left" };
        if !is_this || !self.remove_at(place, Some(DisconnectReason::Replaced), why, now) {
            return false;
        }
        // We may have stated meanwhile that it is still in, after we were cut off.
        if let (Some(far), Some(peer)) = (&self.gateway, peer) {
            self.request_leave(far, peer, conn.key, None);
        }
        true
    }

    /// Passes on to ours what somebody on another server has said.
    pub(super) fn deliver_remote(
        &self,
        from: &str,
        conn: &ConnectionId,
        to: Option<&str>,
        epoch: Epoch,
        frame: &ByteString,
    ) {
        // Not by somebody who has left meanwhile, or has been given up.
        if !self.find(from).is_some_and(|member| member.is_on_connection(conn)) {
            return;
        }
        match to {
            None => {
                let hears = |member: &&Member| {
                    let id = &member.peer.client_id;
                    !self.arrivals.iter().any(|(came, since)| came == id && epoch < *since)
                };
                push_to_all(self.others(from).filter(hears), None, || frame.clone());
            }
            Some(to) => {
                if let Some(outbox) = self.find(to).and_then(Member::queue) {
                    outbox.push(frame.clone(), None);
                }
            }
        }
        for going in self.outgoing.iter().filter(|going| going.receives_epoch(epoch)) {
            if to.is_none_or(|to| to == &*going.migration.client_id) {
                going.queue.push(frame.clone(), None);
            }
        }
    }

    /// All until `epoch` is heard of.
    pub(super) fn advance_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// The connection of somebody on another server is gone, or back.
    pub(super) fn apply_remote_state(
        &mut self,
        client_id: &str,
        conn: &ConnectionId,
        now_away: bool,
    ) {
        let Ok(place) = self.position(client_id) else { return };
        if let Some(Member { location: Location::Remote(there), .. }) =
            self.members.get_mut(place).filter(|member| member.is_on_connection(conn))
        {
            // It may be told again, for the sake of others there.
            if std::mem::replace(&mut there.is_detached, now_away) == now_away {
                return;
            }
            self.announce_state_locally(
                client_id,
                if now_away { STATE_DETACHED } else { STATE_CONNECTED },
            );
        }
    }

    /// Compares with everybody who is in the room, as the cluster has it now: who is new is told of; who is
    /// missing is doubted, for its server may be slower than we are to say that it is there.
    pub(super) fn reconcile_snapshot(
        &mut self,
        everyone: Vec<MemberRecord>,
        epoch: Epoch,
        now: Instant,
    ) {
        self.advance_epoch(epoch);
        let here = |holder: &MemberRecord| {
            self.gateway.as_ref().is_some_and(|far| far.node == holder.connection.node)
        };
        let (_, others): (Vec<_>, Vec<_>) = everyone.into_iter().partition(here);
        for member in &mut self.members {
            if let Location::Remote(there) = &mut member.location {
                there.unconfirmed_since.get_or_insert(now);
            }
        }
        for other in others {
            self.apply_join(other, now);
        }
    }

    /// Gives up those who were missing from a picture for too long, and those of ours that were let go and whom
    /// nobody took; how many of ours that were.
    pub(super) fn expire_unconfirmed(&mut self, now: Instant) -> usize {
        let is_over = |member: &Member| match &member.location {
            Location::Remote(there) => there
                .unconfirmed_since
                .is_some_and(|since| now.duration_since(since) >= UNCONFIRMED_MEMBER_TTL),
            Location::Local { .. } => false,
        };
        while let Some(place) = self.members.iter().position(is_over) {
            self.remove_at(place, None, LOST, now);
        }
        self.expire_outgoing(now)
    }

    /// Which of ours are in, and in which epoch we are, for the cluster to know.
    pub(super) fn local_members(&self) -> (Epoch, Vec<MemberRecord>) {
        let Some(far) = &self.gateway else { return (0, Vec::new()) };
        let ours = self.members.iter().filter(|member| member.queue().is_some());
        let holder = |member: &Member| MemberRecord {
            peer: member.peer.clone(),
            connection: ConnectionId { node: far.node.clone(), key: member.key },
            join_order: member.join_order,
        };
        (self.epoch, ours.map(holder).collect())
    }

    fn has_local_members(&self) -> bool {
        self.members.iter().any(|member| member.queue().is_some())
    }

    /// Tells a newcomer who is there, and those of the newcomer.
    fn add_local(
        &mut self,
        peer: Peer,
        outbox: ClientQueue,
        arrival: Option<u64>,
        key: u64,
        now: Instant,
    ) -> u64 {
        let users = self.members.iter().map(|member| &member.peer);
        let users = users.map(|peer| RosterEntry {
            client_id: &peer.client_id,
            username: &peer.username,
            polite: true,
        });
        outbox.push(ServerMessage::UsersInRoom { users: users.collect() }.encode(), None);
        if outbox.features().peer_state {
            for away in self.members.iter().filter(|member| member.is_detached()) {
                outbox.push(peer_state_frame(&away.peer.client_id, STATE_DETACHED), None);
            }
        }
        self.announce_join(&peer);
        self.insert_local(peer, outbox, arrival, key, now, |who| TimelineEntry::Joined { who })
    }

    fn announce_join(&self, peer: &Peer) {
        self.push_to_others(&peer.client_id, None, || {
            let news = ServerMessage::UserJoined {
                room_id: &self.id,
                username: &peer.username,
                client_id: &peer.client_id,
                connected_users: self.members.len() + 1,
                polite: false,
            };
            news.encode()
        });
    }

    /// Seats somebody who was a member before this process began, and is away.
    ///
    /// # Errors
    ///
    /// [`JoinError::ClientIdTaken`].
    pub(super) fn restore(
        &mut self,
        peer: Peer,
        outbox: ClientQueue,
        arrival: u64,
        now: Instant,
    ) -> Result<JoinOutcome, JoinError> {
        if self.find(&peer.client_id).is_some() {
            return Err(JoinError::ClientIdTaken);
        }
        self.last_generation = self.last_generation.max(arrival);
        let seat = self.insert_local(peer, outbox, Some(arrival), 0, now, |who| {
            TimelineEntry::Arrived { who }
        });
        Ok(JoinOutcome { generation: seat, join_order: arrival, replaced: false })
    }

    fn insert_local(
        &mut self,
        peer: Peer,
        outbox: ClientQueue,
        arrival: Option<u64>,
        key: u64,
        now: Instant,
        what: impl FnOnce(PeerRef) -> TimelineEntry,
    ) -> u64 {
        if self.members.is_empty() {
            self.record(now, TimelineEntry::Opened);
        }
        let mark = self.peer_ref(&peer);
        self.record(now, what(mark));
        self.last_generation += 1;
        let seat = self.last_generation;
        let arrival = arrival.unwrap_or(seat);
        let place = self.position(&peer.client_id).unwrap_or_else(|place| place);
        let here = Location::Local { outbox, seat };
        self.members.insert(
            place,
            Member { peer, location: here, join_order: arrival, key, peer_ref: mark, since: now },
        );
        seat
    }

    /// The connection of a client is gone, and it may come back: whoever wants to know hears of it,
    /// unless it goes `quietly`, and what the client would hear is kept for it.
    pub(super) fn detach(&mut self, client_id: &str, seat: u64, quietly: bool, now: Instant) {
        let Some(member) = self.find(client_id).filter(|member| member.is_generation(seat)) else {
            return;
        };
        let Some(outbox) = member.queue() else { return };
        outbox.detach();
        if !quietly && outbox.mark_detached_reported() {
            self.announce_state(client_id, STATE_DETACHED);
        }
        let who = member.peer_ref;
        self.record(now, TimelineEntry::Away { who });
    }

    /// Gives the seat of a client to its new connection, which reads from `outbox`. `key` is the
    /// membership's; it has got everything up to `last_seq`.
    ///
    /// # Errors
    ///
    /// [`NotResumed`]; then nothing has changed.
    pub(super) fn resume(
        &mut self,
        client_id: &str,
        key: u128,
        outbox: ClientQueue,
        last_seq: u64,
        now: Instant,
    ) -> Result<(JoinOutcome, Resumed), ResumeError> {
        let place = self.position(client_id).map_err(|_| ResumeError::Ended)?;
        // Perhaps it has moved already, and we have not heard of it.
        if self.members.get(place).is_some_and(|member| self.is_migrating(member)) {
            return Err(ResumeError::Ended);
        }
        let member = self.members.get_mut(place).ok_or(ResumeError::Ended)?;
        let Location::Local { outbox: old, .. } = &member.location else {
            return Err(ResumeError::Ended);
        };
        let was_missed = old.is_detached_reported();
        let replayed = old.resume_into(&outbox, key, last_seq)?;
        self.last_generation += 1;
        member.location = Location::Local { outbox, seat: self.last_generation };
        let (arrival, who) = (member.join_order, member.peer_ref);
        if was_missed {
            self.announce_state(client_id, STATE_CONNECTED);
        }
        let frames = u32::try_from(replayed).unwrap_or(u32::MAX);
        self.record(now, TimelineEntry::Resumed { who, replayed: frames });
        let others = self.others(client_id);
        let others = others.map(|other| (other.peer.clone(), other.join_order < arrival));
        let resumed = Resumed { replayed_frames: replayed, others: others.collect() };
        Ok((
            JoinOutcome { generation: self.last_generation, join_order: arrival, replaced: false },
            resumed,
        ))
    }

    /// Takes a client out; whether it was there. Those who stay hear of it, unless it goes `quietly`, when
    /// the server stops: then it is only kept for those of them who will resume. Leaving twice is harmless,
    /// and so is leaving a seat that somebody newer has taken. `why` is one of our own words.
    pub(super) fn leave(
        &mut self,
        client_id: &str,
        seat: u64,
        quietly: bool,
        why: &'static str,
        now: Instant,
    ) -> bool {
        let Ok(place) = self.position(client_id) else { return false };
        let Some(member) = self.members.get(place).filter(|member| member.is_generation(seat))
        else {
            return false;
        };
        if let Some(far) = &self.gateway {
            self.request_leave(far, member.peer.clone(), member.key, Some(why));
        }
        if quietly {
            self.members.iter().filter_map(Member::queue).for_each(ClientQueue::detach);
        }
        let was_ours = self.remove_at(place, None, why, now);
        if self.members.is_empty() {
            self.emit_webhook(webhooks::What::RoomClosed {});
        }
        was_ours
    }

    /// Tells whoever wants to know what happens. Where there are several servers, whoever has had the engine make it
    /// happen tells it: the link.
    fn emit_webhook(&mut self, what: webhooks::What) {
        if self.gateway.is_none() {
            self.webhook_seq += 1;
            self.webhooks.tell(&self.id, self.webhook_seq, what);
        }
    }

    /// One of ours leaves; `why` is for those who are told outside, unless others tell them.
    fn request_leave(&self, far: &ClusterGateway, peer: Peer, key: u64, why: Option<&'static str>) {
        let (room, sequence) = (self.id.clone(), self.webhook_seq);
        far.send(&self.id, ClusterCommand::Leave { room, peer, key, why, sequence });
    }

    /// What was told until then has lower numbers, or this one.
    pub(super) fn advance_webhook_seq(&mut self, sequence: u64) {
        self.webhook_seq = self.webhook_seq.max(sequence);
    }

    /// The number of what was told last.
    pub(super) fn webhook_seq(&self) -> u64 {
        self.webhook_seq
    }

    /// Takes out whoever is at `place` for somebody newer; whether it was one of ours.
    fn evict_replaced(&mut self, place: usize, now: Instant) -> bool {
        self.remove_at(place, Some(DisconnectReason::Replaced), "replaced", now)
    }

    /// Takes out whoever is at `place`, and tells the others; whether it was one of ours, who is told of a
    /// `dismissal`. `why` is for the timeline.
    fn remove_at(
        &mut self,
        place: usize,
        dismissal: Option<DisconnectReason>,
        why: &'static str,
        now: Instant,
    ) -> bool {
        let member = self.members.remove(place);
        self.record(now, TimelineEntry::Left { who: member.peer_ref, why });
        if self.members.is_empty() {
            self.record(now, TimelineEntry::Closed);
        }
        self.arrivals.retain(|(came, _)| *came != member.peer.client_id);
        if let (Some(outbox), Some(dismissal)) = (member.queue(), dismissal) {
            outbox.disconnect(dismissal);
        }
        let Peer { client_id, username } = member.peer.clone();
        self.emit_webhook(webhooks::What::MemberLeft {
            client_id,
            username,
            reason: why.to_owned(),
        });
        let Peer { client_id, username } = &member.peer;
        self.push_to_others(client_id, None, || {
            let news = ServerMessage::UserLeft {
                room_id: &self.id,
                client_id,
                username,
                connected_users: self.members.len(),
            };
            news.encode()
        });
        member.queue().is_some()
    }

    /// What the timeline knows a peer by; 0 where there is none.
    fn peer_ref(&mut self, peer: &Peer) -> PeerRef {
        let members = &self.members;
        let is_there = |mark| members.iter().any(|member| member.peer_ref == mark);
        self.timeline.as_mut().map_or(0, |timeline| timeline.peer_ref(peer, is_there))
    }

    fn record(&mut self, now: Instant, what: TimelineEntry) {
        if let Some(timeline) = &mut self.timeline {
            timeline.record(now, what);
        }
    }

    /// Notes what became of a `signal` of `from`.
    pub(super) fn record_signal(
        &mut self,
        from: &Peer,
        signal: &Signal<'_>,
        routed: &Result<bool, RouteError>,
        now: Instant,
    ) {
        if self.timeline.is_none() {
            return;
        }
        let outcome = match routed {
            Ok(true) => "sent",
            Ok(false) => "queued",
            Err(why) => why.code().unwrap_or("replaced"),
        };
        let mark = |client_id: &str| self.find(client_id).map_or(0, |member| member.peer_ref);
        let to = signal.to.as_deref().map_or(0, mark);
        let (from, kind) = (mark(&from.client_id), signal.kind);
        let bytes = u32::try_from(signal.payload.get().len()).unwrap_or(u32::MAX);
        self.record(now, TimelineEntry::Said { kind, bytes, from, to, outcome });
    }

    /// Notes what a member says of one of its calls.
    pub(super) fn record_call_report(&mut self, of: &Peer, report: &CallReport<'_>, now: Instant) {
        let mark = |client_id: &str| self.find(client_id).map_or(0, |member| member.peer_ref);
        let (who, peer) = (mark(&of.client_id), report.peer.as_deref().map_or(0, mark));
        let ms = u32::try_from(report.ms).unwrap_or(u32::MAX);
        let CallReport { outcome, path, .. } = *report;
        if let (Some(path), Some(outbox)) = (path, self.find(&of.client_id).and_then(Member::queue))
        {
            outbox.set_media_path(path);
        }
        self.record(now, TimelineEntry::Reported { who, peer, outcome, path, ms });
        if self.webhooks.are_wanted() {
            self.emit_call_report(of, report);
        }
    }

    fn emit_call_report(&mut self, of: &Peer, report: &CallReport<'_>) {
        let peer = report.peer.as_deref().and_then(|peer| self.find(peer));
        let Peer { client_id, username } = of.clone();
        let what = webhooks::What::CallReport {
            client_id,
            username,
            peer: peer.map(|member| member.peer.client_id.clone()),
            outcome: report.outcome.as_str(),
            ms: report.ms,
            path: report.path.map(MediaPath::as_str),
        };
        let Some(far) = &self.gateway else { return self.emit_webhook(what) };
        let room = self.id.clone();
        if far.try_send(&self.id, ClusterCommand::Webhook { room, what }).is_err() {
            self.webhooks.misses();
        }
    }

    /// Notes that somebody was not let in, for one of our own words.
    pub(super) fn record_refusal(&mut self, peer: &Peer, why: &'static str, now: Instant) {
        let who = self.peer_ref(peer);
        self.record(now, TimelineEntry::Refused { who, why });
    }

    /// Ends the membership of those of ours that are meant, which is asked with how long each has been here, for
    /// `act`, a word of ours; how many that is.
    pub(super) fn disconnect_matching(
        &mut self,
        is_meant: impl Fn(&Peer, Duration) -> bool,
        act: &'static str,
        now: Instant,
    ) -> usize {
        let mut thrown = Vec::new();
        for member in &self.members {
            let age = now.saturating_duration_since(member.since);
            if let Some(outbox) = member.queue()
                && is_meant(&member.peer, age)
            {
                outbox.disconnect(DisconnectReason::Removed);
                thrown.push(member.peer_ref);
            }
        }
        for &who in &thrown {
            self.record(now, TimelineEntry::Moderated { act, who });
        }
        thrown.len()
    }

    /// Says something to one of ours, or to all; how many that is.
    pub(super) fn announce(&mut self, to: Option<&str>, frame: &ByteString, now: Instant) -> usize {
        let ours =
            self.members.iter().filter(|member| to.is_none_or(|to| to == &*member.peer.client_id));
        let told: Vec<_> =
            ours.filter_map(|member| Some((member.peer_ref, member.queue()?))).collect();
        for (_, outbox) in &told {
            outbox.push(frame.clone(), None);
        }
        let (told, who) = (told.len(), told.first().map_or(0, |(mark, _)| *mark));
        if told > 0 {
            self.record(
                now,
                TimelineEntry::Moderated { act: "message", who: to.map_or(0, |_| who) },
            );
        }
        told
    }

    /// Notes what an administrator has done about the room.
    pub(super) fn record_moderation(&mut self, act: &'static str, now: Instant) {
        self.record(now, TimelineEntry::Moderated { act, who: 0 });
    }

    /// Who sits here, by client id.
    pub(super) fn member_snapshots(&self, now: Instant) -> Vec<MemberSnapshot> {
        let sitting = |member: &Member| {
            let (address, ping_rtt, path) =
                member.queue().map(ClientQueue::connection_info).unwrap_or_default();
            MemberSnapshot {
                peer: member.peer.clone(),
                node: member.node().cloned(),
                is_detached: member.is_detached(),
                age: now.saturating_duration_since(member.since),
                address,
                ping_rtt,
                path,
            }
        };
        self.members.iter().map(sitting).collect()
    }

    /// What is kept of the past, once the room is over.
    pub(super) fn take_timeline(&mut self) -> Option<Box<Timeline>> {
        self.timeline.take()
    }

    /// What has happened here, where that is kept; `now` on both clocks, the second in milliseconds since the Unix epoch.
    pub(super) fn timeline_view(&self, now: (Instant, u64)) -> Option<TimelineView> {
        let is_open = !self.members.is_empty();
        self.timeline.as_ref().map(|timeline| timeline.view(&self.id, is_open, now))
    }

    /// Passes `signal`, which arrived at `heard_at`, to the peer it names, or to everyone else. Says
    /// whether somebody has been sent it at once.
    ///
    /// # Errors
    ///
    /// One [`RouteError`] variant for each thing the sender could do about it; nobody hears anything.
    pub(super) fn route(
        &self,
        from: &Peer,
        seat: u64,
        signature: &SenderSuffix,
        signal: &Signal<'_>,
        heard_at: Instant,
    ) -> Result<bool, RouteError> {
        let heard_at = Some(heard_at);
        let Some(sender) = self.find(&from.client_id).filter(|member| member.is_generation(seat))
        else {
            return Err(RouteError::Replaced);
        };
        match signal.to.as_deref() {
            None => {
                let frame = || signal.encode_for_peers(signature);
                let at_once = self.push_to_others(&from.client_id, heard_at, frame);
                match &self.gateway {
                    None => Ok(at_once),
                    Some(far) => self.broadcast(far, sender, frame).map(|()| at_once),
                }
            }
            Some(to) if *to == *from.client_id => Err(RouteError::TargetIsSender),
            Some(to) => {
                let peer = self
                    .find(to)
                    .ok_or_else(|| RouteError::TargetNotFound(truncate_for_error(to)))?;
                match (&peer.location, &self.gateway) {
                    (Location::Local { outbox, .. }, _) => {
                        Ok(outbox.push(signal.encode_for_peers(signature), heard_at))
                    }
                    (Location::Remote(there), Some(far)) => {
                        let to = Some(peer.peer.client_id.clone());
                        let said = self.send_to_node(
                            far,
                            sender,
                            &there.node,
                            to,
                            signal.encode_for_peers(signature),
                        );
                        said.map(|()| false).map_err(|()| {
                            RouteError::TargetUnreachable(truncate_for_error(&peer.peer.client_id))
                        })
                    }
                    (Location::Remote(_), None) => {
                        Err(RouteError::TargetNotFound(truncate_for_error(to)))
                    }
                }
            }
        }
    }

    /// Once to each server that has members here.
    fn broadcast(
        &self,
        far: &ClusterGateway,
        from: &Member,
        frame: impl Fn() -> ByteString,
    ) -> Result<(), RouteError> {
        let mut is_reached = true;
        for node in self.remote_nodes() {
            is_reached &= self.send_to_node(far, from, node, None, frame()).is_ok();
        }
        is_reached
            .then_some(())
            .ok_or_else(|| RouteError::TargetUnreachable("Somebody here".into()))
    }

    fn send_to_node(
        &self,
        far: &ClusterGateway,
        from: &Member,
        node: &Arc<str>,
        to: Option<Arc<str>>,
        frame: ByteString,
    ) -> Result<(), ()> {
        let (room, node) = (self.id.clone(), node.clone());
        let from_id = from.peer.client_id.clone();
        let (key, epoch) = (from.key, self.epoch);
        let ask = ClusterCommand::Relay { node, room, from: from_id, key, to, epoch, frame };
        far.try_send(&self.id, ask).map_err(|_| ())
    }

    /// The other servers that have members here.
    fn remote_nodes(&self) -> BTreeSet<&Arc<str>> {
        self.members.iter().filter_map(Member::node).collect()
    }

    /// Tells those who want to know where a peer's connection is.
    fn announce_state(&self, client_id: &str, state: &str) {
        self.announce_state_locally(client_id, state);
        let (Some(far), Some(member)) = (&self.gateway, self.find(client_id)) else { return };
        for node in self.remote_nodes() {
            self.send_state_to_node(far, member, node, state == STATE_DETACHED);
        }
    }

    /// Tells another server where a member's connection is. Only news: whoever misses it learns in time whether
    /// the member has left.
    fn send_state_to_node(
        &self,
        far: &ClusterGateway,
        member: &Member,
        node: &Arc<str>,
        is_away: bool,
    ) {
        let (room, node, client_id) =
            (self.id.clone(), node.clone(), member.peer.client_id.clone());
        let ask = ClusterCommand::PeerState { node, room, client_id, key: member.key, is_away };
        let _ = far.try_send(&self.id, ask);
    }

    fn announce_state_locally(&self, client_id: &str, state: &str) {
        let wants_it =
            |other: &&Member| other.queue().is_some_and(|outbox| outbox.features().peer_state);
        push_to_all(self.others(client_id).filter(wants_it), None, || {
            peer_state_frame(client_id, state)
        });
    }

    /// What it is called.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Whether there was somebody on this server, and everybody has left it.
    pub(super) fn is_finished(&self) -> bool {
        self.last_generation > 0 && !self.has_local_members() && self.outgoing.is_empty()
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many frames wait for members here, and for the one that most wait for.
    pub(super) fn queued_frames(&self) -> (usize, usize) {
        let here = self.members.iter().filter_map(Member::queue).map(ClientQueue::queued);
        here.fold((0, 0), |(all, most), frames| (all + frames, most.max(frames)))
    }

    /// Where a client id is, or else where it belongs.
    fn position(&self, client_id: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| (*member.peer.client_id).cmp(client_id))
    }

    fn find(&self, client_id: &str) -> Option<&Member> {
        self.position(client_id).ok().and_then(|place| self.members.get(place))
    }

    fn others(&self, client_id: &str) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| *member.peer.client_id != *client_id)
    }

    /// See [`tell`].
    fn push_to_others(
        &self,
        client_id: &str,
        heard_at: Option<Instant>,
        news: impl Fn() -> ByteString,
    ) -> bool {
        push_to_all(self.others(client_id), heard_at, news)
    }
}

/// Encodes news once for all who hear them; whether they were sent to somebody at once.
fn push_to_all<'a>(
    listeners: impl Iterator<Item = &'a Member>,
    heard_at: Option<Instant>,
    news: impl Fn() -> ByteString,
) -> bool {
    let (mut frame, mut at_once) = (None, false);
    for outbox in listeners.filter_map(Member::queue) {
        at_once |= outbox.push(frame.get_or_insert_with(&news).clone(), heard_at);
    }
    at_once
}
