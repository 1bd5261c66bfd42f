//! Who is in one room, and who hears what there. Pure: no clock, no socket, no lock.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::time::Instant;

use crate::{
    outbox::{Dismissal, NotResumed, Outbox},
    wire::{PeerInRoom, ServerMessage, Signal, Signature, quoted},
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
}

/// Somebody goes on where it was.
#[derive(Debug)]
pub struct Resumed {
    /// How many frames it is to hear first that it has not got.
    pub replayed: usize,
    /// The others that are there now, and whether each came before.
    pub others: Vec<(Peer, bool)>,
}

/// What a peer is whose connection is gone, and which may come back.
const AWAY: &str = "reconnecting";

fn state_of(client_id: &str, state: &str) -> ByteString {
    ServerMessage::PeerState { client_id, state }.encode()
}

/// One room, its members, and the outboxes of those.
pub(super) struct Room {
    id: Arc<str>,
    /// By client id, so that lists come in one order.
    members: Vec<Member>,
    last_seat: u64,
}

struct Member {
    peer: Peer,
    outbox: Outbox,
    /// Tells this member from the one that it replaced, or that replaced it.
    seat: u64,
    /// The seat that it came in with: who has a higher one came later.
    arrival: u64,
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
    pub(super) fn new(id: Arc<str>) -> Self {
        Self { id, members: Vec::new(), last_seat: 0 }
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
    ) -> Result<Joined, JoinError> {
        let holder = self.find(&peer.client_id);
        match holder {
            Some(holder) if holder.peer.username != peer.username => {
                return Err(JoinError::ClientIdTaken);
            }
            None if self.members.len() >= capacity => return Err(JoinError::Full),
            Some(_) | None => {}
        }
        let replaced = holder.map(|holder| {
            holder.outbox.dismiss(Dismissal::Replaced);
            holder.seat
        });
        let replaced = replaced.is_some_and(|seat| self.leave(&peer.client_id, seat, false));

        let users = self.members.iter().map(|member| &member.peer);
        let users = users.map(|peer| PeerInRoom {
            client_id: &peer.client_id,
            username: &peer.username,
            polite: true,
        });
        outbox.push(ServerMessage::UsersInRoom { users: users.collect() }.encode(), None);
        if outbox.features().peer_state {
            for away in self.members.iter().filter(|member| member.outbox.is_away()) {
                outbox.push(state_of(&away.peer.client_id, AWAY), None);
            }
        }
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

        let seat = self.seats(peer, outbox, None);
        Ok(Joined { seat, arrival: seat, replaced })
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
    ) -> Result<Joined, JoinError> {
        if self.find(&peer.client_id).is_some() {
            return Err(JoinError::ClientIdTaken);
        }
        self.last_seat = self.last_seat.max(arrival);
        let seat = self.seats(peer, outbox, Some(arrival));
        Ok(Joined { seat, arrival, replaced: false })
    }

    fn seats(&mut self, peer: Peer, outbox: Outbox, arrival: Option<u64>) -> u64 {
        self.last_seat += 1;
        let seat = self.last_seat;
        let arrival = arrival.unwrap_or(seat);
        let place = self.place(&peer.client_id).unwrap_or_else(|place| place);
        self.members.insert(place, Member { peer, outbox, seat, arrival });
        seat
    }

    /// The connection of a client is gone, and it may come back: whoever wants to know hears of it,
    /// unless it goes `quietly`, and what the client would hear is kept for it.
    pub(super) fn goes_away(&self, client_id: &str, seat: u64, quietly: bool) {
        let Some(member) = self.find(client_id).filter(|member| member.seat == seat) else {
            return;
        };
        member.outbox.goes_away();
        if !quietly {
            self.tell_state(client_id, AWAY);
        }
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
    ) -> Result<(Joined, Resumed), NotResumed> {
        let place = self.place(client_id).map_err(|_| NotResumed::Over)?;
        let member = self.members.get_mut(place).ok_or(NotResumed::Over)?;
        let was_away = member.outbox.is_away();
        let replayed = member.outbox.resumes_at(&outbox, key, last_seq)?;
        member.outbox = outbox;
        self.last_seat += 1;
        member.seat = self.last_seat;
        let arrival = member.arrival;
        if was_away {
            self.tell_state(client_id, "connected");
        }
        let others = self.others(client_id);
        let others = others.map(|other| (other.peer.clone(), other.arrival < arrival));
        let resumed = Resumed { replayed, others: others.collect() };
        Ok((Joined { seat: self.last_seat, arrival, replaced: false }, resumed))
    }

    /// Takes a client out; whether it was there. Those who stay hear of it, unless it goes `quietly`, when
    /// the server stops: then it is only kept for those of them who will resume. Leaving twice is harmless,
    /// and so is leaving a seat that somebody newer has taken.
    pub(super) fn leave(&mut self, client_id: &str, seat: u64, quietly: bool) -> bool {
        let Ok(place) = self.place(client_id) else { return false };
        if self.members.get(place).is_none_or(|member| member.seat != seat) {
            return false;
        }
        let Member { peer, .. } = self.members.remove(place);
        if quietly {
            self.members.iter().for_each(|member| member.outbox.goes_away());
        }
        self.tell_others(client_id, None, || {
            let news = ServerMessage::UserLeft {
                room_id: &self.id,
                client_id,
                username: &peer.username,
                connected_users: self.members.len(),
            };
            news.encode()
        });
        true
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
        if self.find(&from.client_id).is_none_or(|member| member.seat != seat) {
            return Err(RouteError::NotSeated);
        }
        match signal.to.as_deref() {
            None => Ok(self.tell_others(&from.client_id, heard_at, || signal.as_heard(signature))),
            Some(to) if *to == *from.client_id => Err(RouteError::Yourself),
            Some(to) => {
                let peer = self.find(to).ok_or_else(|| RouteError::NoSuchPeer(quoted(to)))?;
                Ok(peer.outbox.push(signal.as_heard(signature), heard_at))
            }
        }
    }

    /// Tells those who want to know where a peer's connection is.
    fn tell_state(&self, client_id: &str, state: &str) {
        let listeners = self.others(client_id).filter(|other| other.outbox.features().peer_state);
        tell(listeners, None, || state_of(client_id, state));
    }

    /// What it is called.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Whether there was somebody, and everybody has left.
    pub(super) fn is_over(&self) -> bool {
        self.members.is_empty() && self.last_seat > 0
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
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
    for listener in listeners {
        at_once |= listener.outbox.push(frame.get_or_insert_with(&news).clone(), heard_at);
    }
    at_once
}
