//! Who is in one room, and who hears what there. Pure: no clock, no socket, no lock.

mod moving;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use bytestring::ByteString;
use tokio::time::Instant;

use self::moving::Going;
use super::{
    far::{Ask, Conn, DOUBT, Epoch, Far, Holder},
    timeline::{Mark, Story, Timeline, What},
};
use crate::{
    outbox::{Dismissal, NotResumed, Outbox},
    webhooks::{self, Webhooks},
    wire::{CallReport, MediaPath, PeerInRoom, ServerMessage, Signal, Signature, quoted},
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
    NoSuchPeer(String),
    /// The sender named itself.
    #[error("\"to\" is your own client id")]
    Yourself,
    /// The sender's seat has gone to a newer connection; its own is about to end.
    #[error("This connection has been replaced")]
    NotSeated,
    /// The peer, or some of all, are on another server, which cannot be reached now; perhaps it was.
    #[error("{0} cannot be reached at the moment")]
    Unreachable(String),
}

impl RouteError {
    /// The machine word for it; `None` where nobody is to be told.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::NoSuchPeer(_) => Some("target_not_found"),
            Self::Yourself => Some("invalid_message"),
            Self::Unreachable(_) => Some("target_unreachable"),
            // The dismissal is on its way.
            Self::NotSeated => None,
        }
    }
}

/// Somebody goes on where it was.
#[derive(Debug)]
pub struct Resumed {
    /// How many frames it is to hear first that it has not got.
    pub replayed: usize,
    /// The others that are there now, and whether each came before.
    pub others: Vec<(Peer, bool)>,
}

/// Why somebody left who was on a server that cannot be found, or on its way to one.
const LOST: &str = "lost";

/// What a peer is whose connection is gone, and which may come back.
const AWAY: &str = "reconnecting";
const BACK: &str = "connected";

fn state_of(client_id: &str, state: &str) -> ByteString {
    ServerMessage::PeerState { client_id, state }.encode()
}

/// One room, its members, and the outboxes of those.
pub(super) struct Room {
    id: Arc<str>,
    /// By client id, so that lists come in one order.
    members: Vec<Member>,
    last_seat: u64,
    /// The other servers, where there are some.
    far: Option<Arc<Far>>,
    /// Seats of ours on their way to another server.
    going: Vec<Going>,
    /// Seats that have come from other servers, and in which epoch: what somebody said to all who had not heard
    /// of that went to the server before, and is heard from there.
    came: Vec<(Arc<str>, Epoch)>,
    /// All until then we have heard of.
    epoch: Epoch,
    /// What has happened here, where that is kept.
    timeline: Option<Box<Timeline>>,
    /// Who is told what happens here.
    webhooks: Webhooks,
    /// The number of what they were told last, also by other servers.
    sequence: u64,
}

struct Member {
    peer: Peer,
    place: Place,
    /// Who has a higher one came later.
    arrival: u64,
    /// What tells its membership from all others on its server; 0 where there is one server.
    key: u64,
    /// What the timeline knows it by.
    mark: Mark,
    /// When it came to this server, or we heard of it.
    since: Instant,
}

/// A member, as whoever looks after the server sees it.
#[derive(Debug)]
pub struct Sitting {
    /// Who it is.
    pub peer: Peer,
    /// The server that it is on, where that is another one.
    pub node: Option<Arc<str>>,
    /// Its connection is gone, and it may come back.
    pub is_away: bool,
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
enum Place {
    /// On this server.
    Here {
        outbox: Outbox,
        /// Tells this member from the one that it replaced, or that replaced it.
        seat: u64,
    },
    /// On another; boxed, for a room's members are looked through for every message.
    There(Box<There>),
}

struct There {
    node: Arc<str>,
    is_away: bool,
    /// When a picture first did not show it.
    doubted_at: Option<Instant>,
}

impl Member {
    fn outbox(&self) -> Option<&Outbox> {
        match &self.place {
            Place::Here { outbox, .. } => Some(outbox),
            Place::There(_) => None,
        }
    }

    fn node(&self) -> Option<&Arc<str>> {
        match &self.place {
            Place::Here { .. } => None,
            Place::There(there) => Some(&there.node),
        }
    }

    fn has_seat(&self, number: u64) -> bool {
        matches!(self.place, Place::Here { seat, .. } if seat == number)
    }

    fn is_away(&self) -> bool {
        match &self.place {
            Place::Here { outbox, .. } => outbox.is_away(),
            Place::There(there) => there.is_away,
        }
    }

    /// Whether it is this very membership, wherever it is.
    fn is_same(&self, holder: &Holder) -> bool {
        self.arrival == holder.arrival && self.peer == holder.peer
    }

    /// Whether it is there on this very connection.
    fn is_on(&self, conn: &Conn) -> bool {
        self.key == conn.key && self.node() == Some(&conn.node)
    }
}

/// Somebody sat down.
pub(super) struct Joined {
    /// The number of the seat, which nobody in this room had before.
    pub seat: u64,
    /// Who came later has a higher one; it stays over a resume.
    pub arrival: u64,
    /// Whether somebody had to leave for it.
    pub replaced: bool,
}

impl Room {
    /// A room that goes on with the `timeline` of those that had this id before.
    pub(super) fn new(
        id: Arc<str>,
        far: Option<Arc<Far>>,
        timeline: Option<Box<Timeline>>,
        webhooks: Webhooks,
    ) -> Self {
        Self {
            id,
            members: Vec::new(),
            last_seat: 0,
            far,
            going: Vec::new(),
            came: Vec::new(),
            epoch: 0,
            timeline,
            webhooks,
            sequence: 0,
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
        outbox: Outbox,
        capacity: usize,
        now: Instant,
    ) -> Result<Joined, JoinError> {
        let holder = self.place(&peer.client_id).ok();
        match holder.and_then(|holder| self.members.get(holder)) {
            Some(holder) if holder.peer.username != peer.username => {
                return Err(JoinError::ClientIdTaken);
            }
            None if self.members.len() >= capacity => return Err(JoinError::Full),
            Some(_) | None => {}
        }
        if self.members.is_empty() {
            self.tells(webhooks::WebhookEvent::RoomOpened {});
        }
        let replaced = holder.is_some_and(|holder| self.is_replaced(holder, now));
        let Peer { client_id, username } = peer.clone();
        let seat = self.comes_in(peer, outbox, None, 0, now);
        self.tells(webhooks::WebhookEvent::MemberJoined { client_id, username });
        Ok(Joined { seat, arrival: seat, replaced })
    }

    /// Seats one of ours that the cluster has let in: `everyone` is in the room, as far as the cluster knows.
    pub(super) fn admit(
        &mut self,
        holder: Holder,
        outbox: Outbox,
        everyone: Vec<Holder>,
        now: Instant,
    ) -> Joined {
        // Whoever has ours here has followed the room, and knows better: also who of ours has just left.
        if !self.has_ours() {
            self.members.clear();
            for other in everyone {
                self.knows(other, now);
            }
        }
        let there = self.place(&holder.peer.client_id).ok();
        let replaced = there.is_some_and(|there| self.is_replaced(there, now));
        let Holder { peer, conn, arrival } = holder;
        self.heard_of(arrival);
        let seat = self.comes_in(peer, outbox, Some(arrival), conn.key, now);
        Joined { seat, arrival, replaced }
    }

    /// Notes somebody on another server of whom nobody need be told.
    fn knows(&mut self, holder: Holder, now: Instant) {
        let Holder { peer, conn: Conn { node, key }, arrival } = holder;
        let is_ours = self.far.as_ref().is_some_and(|far| far.node == node);
        if let Err(place) = self.place(&peer.client_id)
            && !is_ours
        {
            let there = There { node, is_away: false, doubted_at: None };
            let there = Place::There(Box::new(there));
            let mark = self.mark(&peer);
            self.members
                .insert(place, Member { peer, place: there, arrival, key, mark, since: now });
        }
    }

    /// Somebody is in on another server; whether one of ours had to leave for it.
    pub(super) fn hears_of(&mut self, holder: Holder, now: Instant) -> bool {
        self.heard_of(holder.arrival);
        let mut replaced = false;
        if let Ok(place) = self.place(&holder.peer.client_id) {
            // Also on another connection than we knew: a membership that has moved is still the same.
            if let Some(Member { place: Place::There(there), key, .. }) =
                self.members.get_mut(place).filter(|member| member.is_same(&holder))
            {
                there.doubted_at = None;
                (there.node, *key) = (holder.conn.node, holder.conn.key);
                return false;
            }
            replaced = self.is_replaced(place, now);
        }
        let (peer, node) = (holder.peer.clone(), holder.conn.node.clone());
        self.tell_of_newcomer(&peer);
        self.knows(holder, now);
        let who = self.mark(&peer);
        self.note(now, What::Joined { who });
        for away in
            self.members.iter().filter(|member| member.outbox().is_some_and(Outbox::is_missed))
        {
            // Who is new there has not heard of it.
            if let Some(far) = &self.far {
                self.say_state(far, away, &node, true);
            }
        }
        replaced
    }

    /// Somebody has left, as the cluster says; whether it was one of ours.
    pub(super) fn forgets(&mut self, client_id: &str, conn: &Conn, now: Instant) -> bool {
        let is_ours = self.far.as_ref().is_some_and(|far| far.node == conn.node);
        let Ok(place) = self.place(client_id) else { return false };
        let known = self.members.get(place);
        let peer = known.map(|known| known.peer.clone());
        let is_this = known.is_some_and(|known| match known.place {
            Place::Here { .. } => is_ours && known.key == conn.key,
            Place::There(_) => known.is_on(conn),
        });
        // One of ours only where somebody else has its id now.
        let why = if is_ours { "replaced" } else { "left" };
        if !is_this || !self.takes_out(place, Some(Dismissal::Replaced), why, now) {
            return false;
        }
        // We may have stated meanwhile that it is still in, after we were cut off.
        if let (Some(far), Some(peer)) = (&self.far, peer) {
            self.asks_to_leave(far, peer, conn.key, None);
        }
        true
    }

    /// Passes on to ours what somebody on another server has said.
    pub(super) fn said(
        &self,
        from: &str,
        conn: &Conn,
        to: Option<&str>,
        epoch: Epoch,
        frame: &ByteString,
    ) {
        // Not by somebody who has left meanwhile, or has been given up.
        if !self.find(from).is_some_and(|member| member.is_on(conn)) {
            return;
        }
        match to {
            None => {
                let hears = |member: &&Member| {
                    let id = &member.peer.client_id;
                    !self.came.iter().any(|(came, since)| came == id && epoch < *since)
                };
                tell(self.others(from).filter(hears), None, || frame.clone());
            }
            Some(to) => {
                if let Some(outbox) = self.find(to).and_then(Member::outbox) {
                    outbox.push(frame.clone(), None);
                }
            }
        }
        for going in self.going.iter().filter(|going| going.hears(epoch)) {
            if to.is_none_or(|to| to == &*going.moving.client_id) {
                going.outbox.push(frame.clone(), None);
            }
        }
    }

    /// All until `epoch` is heard of.
    pub(super) fn heard_of(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// The connection of somebody on another server is gone, or back.
    pub(super) fn far_state(&mut self, client_id: &str, conn: &Conn, now_away: bool) {
        let Ok(place) = self.place(client_id) else { return };
        if let Some(Member { place: Place::There(there), .. }) =
            self.members.get_mut(place).filter(|member| member.is_on(conn))
        {
            // It may be told again, for the sake of others there.
            if std::mem::replace(&mut there.is_away, now_away) == now_away {
                return;
            }
            self.tell_state_here(client_id, if now_away { AWAY } else { BACK });
        }
    }

    /// Compares with everybody who is in the room, as the cluster has it now: who is new is told of; who is
    /// missing is doubted, for its server may be slower than we are to say that it is there.
    pub(super) fn compares(&mut self, everyone: Vec<Holder>, epoch: Epoch, now: Instant) {
        self.heard_of(epoch);
        let here =
            |holder: &Holder| self.far.as_ref().is_some_and(|far| far.node == holder.conn.node);
        let (_, others): (Vec<_>, Vec<_>) = everyone.into_iter().partition(here);
        for member in &mut self.members {
            if let Place::There(there) = &mut member.place {
                there.doubted_at.get_or_insert(now);
            }
        }
        for other in others {
            self.hears_of(other, now);
        }
    }

    /// Gives up those who were missing from a picture for too long, and those of ours that were let go and whom
    /// nobody took; how many of ours that were.
    pub(super) fn doubts(&mut self, now: Instant) -> usize {
        let is_over = |member: &Member| match &member.place {
            Place::There(there) => {
                there.doubted_at.is_some_and(|since| now.duration_since(since) >= DOUBT)
            }
            Place::Here { .. } => false,
        };
        while let Some(place) = self.members.iter().position(is_over) {
            self.takes_out(place, None, LOST, now);
        }
        self.gives_up(now)
    }

    /// Which of ours are in, and in which epoch we are, for the cluster to know.
    pub(super) fn ours(&self) -> (Epoch, Vec<Holder>) {
        let Some(far) = &self.far else { return (0, Vec::new()) };
        let ours = self.members.iter().filter(|member| member.outbox().is_some());
        let holder = |member: &Member| Holder {
            peer: member.peer.clone(),
            conn: Conn { node: far.node.clone(), key: member.key },
            arrival: member.arrival,
        };
        (self.epoch, ours.map(holder).collect())
    }

    fn has_ours(&self) -> bool {
        self.members.iter().any(|member| member.outbox().is_some())
    }

    /// Tells a newcomer who is there, and those of the newcomer.
    fn comes_in(
        &mut self,
        peer: Peer,
        outbox: Outbox,
        arrival: Option<u64>,
        key: u64,
        now: Instant,
    ) -> u64 {
        let users = self.members.iter().map(|member| &member.peer);
        let users = users.map(|peer| PeerInRoom {
            client_id: &peer.client_id,
            username: &peer.username,
            polite: true,
        });
        outbox.push(ServerMessage::UsersInRoom { users: users.collect() }.encode(), None);
        if outbox.features().peer_state {
            for away in self.members.iter().filter(|member| member.is_away()) {
                outbox.push(state_of(&away.peer.client_id, AWAY), None);
            }
        }
        self.tell_of_newcomer(&peer);
        self.seats(peer, outbox, arrival, key, now, |who| What::Joined { who })
    }

    fn tell_of_newcomer(&self, peer: &Peer) {
        self.tell_others(&peer.client_id, None, || {
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
        outbox: Outbox,
        arrival: u64,
        now: Instant,
    ) -> Result<Joined, JoinError> {
        if self.find(&peer.client_id).is_some() {
            return Err(JoinError::ClientIdTaken);
        }
        self.last_seat = self.last_seat.max(arrival);
        let seat = self.seats(peer, outbox, Some(arrival), 0, now, |who| What::Arrived { who });
        Ok(Joined { seat, arrival, replaced: false })
    }

    fn seats(
        &mut self,
        peer: Peer,
        outbox: Outbox,
        arrival: Option<u64>,
        key: u64,
        now: Instant,
        what: impl FnOnce(Mark) -> What,
    ) -> u64 {
        if self.members.is_empty() {
            self.note(now, What::Opened);
        }
        let mark = self.mark(&peer);
        self.note(now, what(mark));
        self.last_seat += 1;
        let seat = self.last_seat;
        let arrival = arrival.unwrap_or(seat);
        let place = self.place(&peer.client_id).unwrap_or_else(|place| place);
        let here = Place::Here { outbox, seat };
        self.members.insert(place, Member { peer, place: here, arrival, key, mark, since: now });
        seat
    }

    /// The connection of a client is gone, and it may come back: whoever wants to know hears of it,
    /// unless it goes `quietly`, and what the client would hear is kept for it.
    pub(super) fn goes_away(&mut self, client_id: &str, seat: u64, quietly: bool, now: Instant) {
        let Some(member) = self.find(client_id).filter(|member| member.has_seat(seat)) else {
            return;
        };
        let Some(outbox) = member.outbox() else { return };
        outbox.goes_away();
        if !quietly && outbox.is_missed_now() {
            self.tell_state(client_id, AWAY);
        }
        let who = member.mark;
        self.note(now, What::Away { who });
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
        outbox: Outbox,
        last_seq: u64,
        now: Instant,
    ) -> Result<(Joined, Resumed), NotResumed> {
        let place = self.place(client_id).map_err(|_| NotResumed::Over)?;
        // Perhaps it has moved already, and we have not heard of it.
        if self.members.get(place).is_some_and(|member| self.is_going(member)) {
            return Err(NotResumed::Over);
        }
        let member = self.members.get_mut(place).ok_or(NotResumed::Over)?;
        let Place::Here { outbox: old, .. } = &member.place else { return Err(NotResumed::Over) };
        let was_missed = old.is_missed();
        let replayed = old.resumes_at(&outbox, key, last_seq)?;
        self.last_seat += 1;
        member.place = Place::Here { outbox, seat: self.last_seat };
        let (arrival, who) = (member.arrival, member.mark);
        if was_missed {
            self.tell_state(client_id, BACK);
        }
        let frames = u32::try_from(replayed).unwrap_or(u32::MAX);
        self.note(now, What::Resumed { who, replayed: frames });
        let others = self.others(client_id);
        let others = others.map(|other| (other.peer.clone(), other.arrival < arrival));
        let resumed = Resumed { replayed, others: others.collect() };
        Ok((Joined { seat: self.last_seat, arrival, replaced: false }, resumed))
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
        let Ok(place) = self.place(client_id) else { return false };
        let Some(member) = self.members.get(place).filter(|member| member.has_seat(seat)) else {
            return false;
        };
        if let Some(far) = &self.far {
            self.asks_to_leave(far, member.peer.clone(), member.key, Some(why));
        }
        if quietly {
            self.members.iter().filter_map(Member::outbox).for_each(Outbox::goes_away);
        }
        let was_ours = self.takes_out(place, None, why, now);
        if self.members.is_empty() {
            self.tells(webhooks::WebhookEvent::RoomClosed {});
        }
        was_ours
    }

    /// Tells whoever wants to know what happens. Where there are several servers, whoever has had the engine make it
    /// happen tells it: the link.
    fn tells(&mut self, what: webhooks::WebhookEvent) {
        if self.far.is_none() {
            self.sequence += 1;
            self.webhooks.publish(&self.id, self.sequence, what);
        }
    }

    /// One of ours leaves; `why` is for those who are told outside, unless others tell them.
    fn asks_to_leave(&self, far: &Far, peer: Peer, key: u64, why: Option<&'static str>) {
        let (room, sequence) = (self.id.clone(), self.sequence);
        far.asks(&self.id, Ask::Leave { room, peer, key, why, sequence });
    }

    /// What was told until then has lower numbers, or this one.
    pub(super) fn is_numbered(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// The number of what was told last.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Takes out whoever is at `place` for somebody newer; whether it was one of ours.
    fn is_replaced(&mut self, place: usize, now: Instant) -> bool {
        self.takes_out(place, Some(Dismissal::Replaced), "replaced", now)
    }

    /// Takes out whoever is at `place`, and tells the others; whether it was one of ours, who is told of a
    /// `dismissal`. `why` is for the timeline.
    fn takes_out(
        &mut self,
        place: usize,
        dismissal: Option<Dismissal>,
        why: &'static str,
        now: Instant,
    ) -> bool {
        let member = self.members.remove(place);
        self.note(now, What::Left { who: member.mark, why });
        if self.members.is_empty() {
            self.note(now, What::Closed);
        }
        self.came.retain(|(came, _)| *came != member.peer.client_id);
        if let (Some(outbox), Some(dismissal)) = (member.outbox(), dismissal) {
            outbox.dismiss(dismissal);
        }
        let Peer { client_id, username } = member.peer.clone();
        self.tells(webhooks::WebhookEvent::MemberLeft {
            client_id,
            username,
            reason: why.to_owned(),
        });
        let Peer { client_id, username } = &member.peer;
        self.tell_others(client_id, None, || {
            let news = ServerMessage::UserLeft {
                room_id: &self.id,
                client_id,
                username,
                connected_users: self.members.len(),
            };
            news.encode()
        });
        member.outbox().is_some()
    }

    /// What the timeline knows a peer by; 0 where there is none.
    fn mark(&mut self, peer: &Peer) -> Mark {
        let members = &self.members;
        let is_there = |mark| members.iter().any(|member| member.mark == mark);
        self.timeline.as_mut().map_or(0, |timeline| timeline.mark(peer, is_there))
    }

    fn note(&mut self, now: Instant, what: What) {
        if let Some(timeline) = &mut self.timeline {
            timeline.note(now, what);
        }
    }

    /// Notes what became of a `signal` of `from`.
    pub(super) fn notes_signal(
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
        let mark = |client_id: &str| self.find(client_id).map_or(0, |member| member.mark);
        let to = signal.to.as_deref().map_or(0, mark);
        let (from, kind) = (mark(&from.client_id), signal.kind);
        let bytes = u32::try_from(signal.payload.get().len()).unwrap_or(u32::MAX);
        self.note(now, What::Said { kind, bytes, from, to, outcome });
    }

    /// Notes what a member says of one of its calls.
    pub(super) fn notes_report(&mut self, of: &Peer, report: &CallReport<'_>, now: Instant) {
        let mark = |client_id: &str| self.find(client_id).map_or(0, |member| member.mark);
        let (who, peer) = (mark(&of.client_id), report.peer.as_deref().map_or(0, mark));
        let ms = u32::try_from(report.ms).unwrap_or(u32::MAX);
        let CallReport { outcome, path, .. } = *report;
        if let (Some(path), Some(outbox)) =
            (path, self.find(&of.client_id).and_then(Member::outbox))
        {
            outbox.calls_by(path);
        }
        self.note(now, What::Reported { who, peer, outcome, path, ms });
        if self.webhooks.is_enabled() {
            self.tells_report(of, report);
        }
    }

    fn tells_report(&mut self, of: &Peer, report: &CallReport<'_>) {
        let peer = report.peer.as_deref().and_then(|peer| self.find(peer));
        let Peer { client_id, username } = of.clone();
        let what = webhooks::WebhookEvent::CallReport {
            client_id,
            username,
            peer: peer.map(|member| member.peer.client_id.clone()),
            outcome: report.outcome.word(),
            ms: report.ms,
            path: report.path.map(MediaPath::word),
        };
        let Some(far) = &self.far else { return self.tells(what) };
        let room = self.id.clone();
        if far.say(&self.id, Ask::Tell { room, what }).is_err() {
            self.webhooks.record_missed();
        }
    }

    /// Notes that somebody was not let in, for one of our own words.
    pub(super) fn notes_refusal(&mut self, peer: &Peer, why: &'static str, now: Instant) {
        let who = self.mark(peer);
        self.note(now, What::Refused { who, why });
    }

    /// Ends the membership of those of ours that are meant, which is asked with how long each has been here, for
    /// `act`, a word of ours; how many that is.
    pub(super) fn throws_out(
        &mut self,
        is_meant: impl Fn(&Peer, Duration) -> bool,
        act: &'static str,
        now: Instant,
    ) -> usize {
        let mut thrown = Vec::new();
        for member in &self.members {
            let age = now.saturating_duration_since(member.since);
            if let Some(outbox) = member.outbox()
                && is_meant(&member.peer, age)
            {
                outbox.dismiss(Dismissal::Removed);
                thrown.push(member.mark);
            }
        }
        for &who in &thrown {
            self.note(now, What::Moderated { act, who });
        }
        thrown.len()
    }

    /// Says something to one of ours, or to all; how many that is.
    pub(super) fn announces(
        &mut self,
        to: Option<&str>,
        frame: &ByteString,
        now: Instant,
    ) -> usize {
        let ours =
            self.members.iter().filter(|member| to.is_none_or(|to| to == &*member.peer.client_id));
        let told: Vec<_> =
            ours.filter_map(|member| Some((member.mark, member.outbox()?))).collect();
        for (_, outbox) in &told {
            outbox.push(frame.clone(), None);
        }
        let (told, who) = (told.len(), told.first().map_or(0, |(mark, _)| *mark));
        if told > 0 {
            self.note(now, What::Moderated { act: "message", who: to.map_or(0, |_| who) });
        }
        told
    }

    /// Notes what an administrator has done about the room.
    pub(super) fn notes_order(&mut self, act: &'static str, now: Instant) {
        self.note(now, What::Moderated { act, who: 0 });
    }

    /// Who sits here, by client id.
    pub(super) fn inspect(&self, now: Instant) -> Vec<Sitting> {
        let sitting = |member: &Member| {
            let (address, ping_rtt, path) =
                member.outbox().map(Outbox::whereabouts).unwrap_or_default();
            Sitting {
                peer: member.peer.clone(),
                node: member.node().cloned(),
                is_away: member.is_away(),
                age: now.saturating_duration_since(member.since),
                address,
                ping_rtt,
                path,
            }
        };
        self.members.iter().map(sitting).collect()
    }

    /// What is kept of the past, once the room is over.
    pub(super) fn takes_timeline(&mut self) -> Option<Box<Timeline>> {
        self.timeline.take()
    }

    /// What has happened here, where that is kept; `now` on both clocks, the second in milliseconds since the Unix epoch.
    pub(super) fn story(&self, now: (Instant, u64)) -> Option<Story> {
        let is_open = !self.members.is_empty();
        self.timeline.as_ref().map(|timeline| timeline.story(&self.id, is_open, now))
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
        signature: &Signature,
        signal: &Signal<'_>,
        heard_at: Instant,
    ) -> Result<bool, RouteError> {
        let heard_at = Some(heard_at);
        let Some(sender) = self.find(&from.client_id).filter(|member| member.has_seat(seat)) else {
            return Err(RouteError::NotSeated);
        };
        match signal.to.as_deref() {
            None => {
                let frame = || signal.as_heard(signature);
                let at_once = self.tell_others(&from.client_id, heard_at, frame);
                match &self.far {
                    None => Ok(at_once),
                    Some(far) => self.broadcast(far, sender, frame).map(|()| at_once),
                }
            }
            Some(to) if *to == *from.client_id => Err(RouteError::Yourself),
            Some(to) => {
                let peer = self.find(to).ok_or_else(|| RouteError::NoSuchPeer(quoted(to)))?;
                match (&peer.place, &self.far) {
                    (Place::Here { outbox, .. }, _) => {
                        Ok(outbox.push(signal.as_heard(signature), heard_at))
                    }
                    (Place::There(there), Some(far)) => {
                        let to = Some(peer.peer.client_id.clone());
                        let said =
                            self.say(far, sender, &there.node, to, signal.as_heard(signature));
                        said.map(|()| false)
                            .map_err(|()| RouteError::Unreachable(quoted(&peer.peer.client_id)))
                    }
                    (Place::There(_), None) => Err(RouteError::NoSuchPeer(quoted(to))),
                }
            }
        }
    }

    /// Once to each server that has members here.
    fn broadcast(
        &self,
        far: &Far,
        from: &Member,
        frame: impl Fn() -> ByteString,
    ) -> Result<(), RouteError> {
        let mut is_reached = true;
        for node in self.nodes() {
            is_reached &= self.say(far, from, node, None, frame()).is_ok();
        }
        is_reached.then_some(()).ok_or_else(|| RouteError::Unreachable("Somebody here".into()))
    }

    fn say(
        &self,
        far: &Far,
        from: &Member,
        node: &Arc<str>,
        to: Option<Arc<str>>,
        frame: ByteString,
    ) -> Result<(), ()> {
        let (room, node) = (self.id.clone(), node.clone());
        let from_id = from.peer.client_id.clone();
        let (key, epoch) = (from.key, self.epoch);
        let ask = Ask::Say { node, room, from: from_id, key, to, epoch, frame };
        far.say(&self.id, ask).map_err(|_| ())
    }

    /// The other servers that have members here.
    fn nodes(&self) -> BTreeSet<&Arc<str>> {
        self.members.iter().filter_map(Member::node).collect()
    }

    /// Tells those who want to know where a peer's connection is.
    fn tell_state(&self, client_id: &str, state: &str) {
        self.tell_state_here(client_id, state);
        let (Some(far), Some(member)) = (&self.far, self.find(client_id)) else { return };
        for node in self.nodes() {
            self.say_state(far, member, node, state == AWAY);
        }
    }

    /// Tells another server where a member's connection is. Only news: whoever misses it learns in time whether
    /// the member has left.
    fn say_state(&self, far: &Far, member: &Member, node: &Arc<str>, is_away: bool) {
        let (room, node, client_id) =
            (self.id.clone(), node.clone(), member.peer.client_id.clone());
        let ask = Ask::State { node, room, client_id, key: member.key, is_away };
        let _ = far.say(&self.id, ask);
    }

    fn tell_state_here(&self, client_id: &str, state: &str) {
        let wants_it =
            |other: &&Member| other.outbox().is_some_and(|outbox| outbox.features().peer_state);
        tell(self.others(client_id).filter(wants_it), None, || state_of(client_id, state));
    }

    /// What it is called.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Whether there was somebody on this server, and everybody has left it.
    pub(super) fn is_over(&self) -> bool {
        self.last_seat > 0 && !self.has_ours() && self.going.is_empty()
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// How many frames wait for members here, and for the one that most wait for.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let here = self.members.iter().filter_map(Member::outbox).map(Outbox::waiting);
        here.fold((0, 0), |(all, most), frames| (all + frames, most.max(frames)))
    }

    /// Where a client id is, or else where it belongs.
    fn place(&self, client_id: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| (*member.peer.client_id).cmp(client_id))
    }

    fn find(&self, client_id: &str) -> Option<&Member> {
        self.place(client_id).ok().and_then(|place| self.members.get(place))
    }

    fn others(&self, client_id: &str) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| *member.peer.client_id != *client_id)
    }

    /// See [`tell`].
    fn tell_others(
        &self,
        client_id: &str,
        heard_at: Option<Instant>,
        news: impl Fn() -> ByteString,
    ) -> bool {
        tell(self.others(client_id), heard_at, news)
    }
}

/// Encodes news once for all who hear them; whether they were sent to somebody at once.
fn tell<'a>(
    listeners: impl Iterator<Item = &'a Member>,
    heard_at: Option<Instant>,
    news: impl Fn() -> ByteString,
) -> bool {
    let (mut frame, mut at_once) = (None, false);
    for outbox in listeners.filter_map(Member::outbox) {
        at_once |= outbox.push(frame.get_or_insert_with(&news).clone(), heard_at);
    }
    at_once
}
