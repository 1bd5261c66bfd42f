//! Seats of one room that go to other servers, and come from them: nothing that was said to them is lost, doubled or
//! out of order, and nobody hears of it.
//!
//! Whoever has the seat lets it go and keeps its frames, the engine moves it, every other server says that it has heard of
//! that, and then the frames follow. In which [`Epoch`] something was said tells to which of both servers it went.

use std::{cell::Cell, collections::BTreeSet, sync::Arc};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    super::far::{Ask, Conn, Epoch, Goods, Holder, MOVED_WITHIN, Moving, OnItsWay},
    super::timeline::What,
    Joined, LOST, Member, Peer, Place, Room, There,
};
use crate::{
    outbox::{self, Mailbox, Outbox},
    wire::ServerMessage,
};

/// A seat that is to be on another server, or is, and whose frames are still here.
pub(super) struct Going {
    pub(super) moving: Moving,
    luggage: ByteString,
    pub(super) outbox: Outbox,
    mailbox: Mailbox,
    since: Instant,
    moved: Option<Moved>,
    on_its_way: OnItsWay,
}

/// A seat that is on another server.
struct Moved {
    epoch: Epoch,
    /// Those that may have said something to it before they heard of that.
    waits_for: BTreeSet<Arc<str>>,
    /// Who else was there.
    others: Vec<(String, String)>,
}

impl Going {
    /// Whether what was said in `epoch` goes here, and not to its new server.
    pub(super) fn hears(&self, epoch: Epoch) -> bool {
        self.moved.as_ref().is_some_and(|moved| epoch < moved.epoch)
    }
}

impl Room {
    /// Lets one of ours go to another server, where its client is or may come to, if it is the seat that is
    /// meant; whether it is. From now on it has no connection here.
    fn lets_go(
        &mut self,
        moving: Moving,
        is_meant: impl Fn(&Member, &Outbox) -> bool,
        luggage: ByteString,
        now: Instant,
    ) -> bool {
        let Some(far) = self.far.clone() else { return false };
        let Ok(place) = self.place(&moving.client_id) else { return false };
        let Some(member) = self.members.get_mut(place) else { return false };
        let Some(outbox) = member.outbox().filter(|outbox| is_meant(member, outbox)) else {
            return false;
        };
        let of_same = |going: &&mut Going| going.moving.from == moving.from;
        if let Some(going) = self.going.iter_mut().find(of_same) {
            (going.moving, going.luggage, going.since) = (moving.clone(), luggage, now);
        } else {
            let (carrier, mailbox) = outbox::pair();
            outbox.moves_to(&carrier);
            self.last_seat += 1;
            member.place = Place::Here { outbox: carrier.clone(), seat: self.last_seat };
            self.going.push(Going {
                moving: moving.clone(),
                luggage,
                outbox: carrier,
                mailbox,
                since: now,
                moved: None,
                on_its_way: far.is_on_its_way(),
            });
        }
        far.asks(&self.id, Ask::Move(moving));
        true
    }

    /// The client of one of ours is on another server, which wants the seat.
    ///
    /// # Errors
    ///
    /// It stays; and for which connection that its client has here, which only a wish `ends` that names it: one may
    /// come late, of a client that has been there and is back.
    pub(in super::super) fn is_wanted(
        &mut self,
        moving: Moving,
        membership: u128,
        ends: Option<u64>,
        luggage: ByteString,
        now: Instant,
    ) -> Result<(), Option<u64>> {
        let (key, live) = (moving.from.key, Cell::new(None));
        let is_meant = |member: &Member, outbox: &Outbox| {
            let is_it = member.key == key && outbox.membership() == Some(membership);
            if let Place::Here { seat, .. } = member.place
                && is_it
                && !outbox.is_away()
            {
                live.set(Some(seat));
            }
            is_it && (live.get().is_none() || live.get() == ends)
        };
        if self.lets_go(moving, is_meant, luggage, now) { Ok(()) } else { Err(live.get()) }
    }

    /// One of ours, whose client is away, is to be on `to`.
    pub(in super::super) fn sends_off(
        &mut self,
        client_id: &Arc<str>,
        seat: u64,
        to: Conn,
        luggage: ByteString,
        now: Instant,
    ) -> bool {
        let Some(far) = &self.far else { return false };
        let Some(key) = self.find(client_id).map(|member| member.key) else { return false };
        let from = Conn { node: far.node.clone(), key };
        let moving = Moving { room: self.id.clone(), client_id: client_id.clone(), from, to };
        let is_meant = |member: &Member, outbox: &Outbox| {
            member.has_seat(seat) && outbox.membership().is_some()
        };
        self.lets_go(moving, is_meant, luggage, now)
    }

    /// One of ours is on another server now; whether it was still here. What is said to it goes there, but for
    /// what those say who have not heard of it.
    pub(in super::super) fn has_moved(
        &mut self,
        moving: Moving,
        holder: Holder,
        epoch: Epoch,
        nodes: Vec<Arc<str>>,
        now: Instant,
    ) -> bool {
        self.heard_of(epoch);
        let others = self.others(&holder.peer.client_id).map(|other| &other.peer);
        let others = others.map(|peer| (peer.client_id.to_string(), peer.username.to_string()));
        let others = others.collect();
        let Some(going) = self.going.iter_mut().find(|going| going.moving.from == moving.from)
        else {
            return self.hears_of(holder, now);
        };
        going.moved = Some(Moved { epoch, waits_for: nodes.into_iter().collect(), others });
        going.moving = moving;
        let place = self.place(&holder.peer.client_id);
        let member = place.ok().and_then(|place| self.members.get_mut(place));
        let is_here = member.filter(|member| member.outbox().is_some() && member.is_same(&holder));
        let was_ours = match is_here {
            Some(member) => {
                self.came.retain(|(came, _)| *came != member.peer.client_id);
                let is_away = member.outbox().is_some_and(Outbox::is_missed);
                let there = There { node: holder.conn.node, is_away, doubted_at: None };
                (member.place, member.key) = (Place::There(Box::new(there)), holder.conn.key);
                let who = member.mark;
                self.note(now, What::Moved { who });
                true
            }
            None => self.hears_of(holder, now),
        };
        self.hands_over();
        was_ours
    }

    /// Whether it is one of ours that was let go.
    pub(super) fn is_going(&self, member: &Member) -> bool {
        let is_it = |going: &Going| going.moving.from.key == member.key;
        member.outbox().is_some() && self.going.iter().any(is_it)
    }

    /// Whether the one who is here on `conn` is this membership; nothing where it is not here, or not all of it.
    pub(in super::super) fn has(
        &self,
        client_id: &str,
        conn: &Conn,
        membership: u128,
    ) -> Option<bool> {
        let member = self.find(client_id).filter(|member| member.key == conn.key)?;
        let outbox = member.outbox()?;
        match outbox.membership() {
            _ if self.is_going(member) => None,
            Some(outbox::AWAITED) => None,
            known => Some(known == Some(membership)),
        }
    }

    /// The other server does not take one of ours that was let go: its seat, and where its frames are kept.
    pub(in super::super) fn stays(
        &mut self,
        moving: &Moving,
    ) -> Option<(Peer, Joined, Outbox, Mailbox, ByteString)> {
        let is_it = |going: &mut Going| going.moving == *moving && going.moved.is_none();
        let Going { luggage, outbox, mailbox, .. } = self.going.extract_if(.., is_it).next()?;
        let member = self.find(&moving.client_id).filter(|member| member.key == moving.from.key)?;
        let Place::Here { seat, .. } = member.place else { return None };
        let joined = Joined { seat, arrival: member.arrival, replaced: false };
        Some((member.peer.clone(), joined, outbox, mailbox, luggage))
    }

    /// What `node` says to a member that has moved goes to its new server from now on.
    pub(in super::super) fn is_marked(&mut self, moving: &Moving, node: &str) {
        let going = self.going.iter_mut().find(|going| going.moving == *moving);
        if let Some(moved) = going.and_then(|going| going.moved.as_mut()) {
            moved.waits_for.remove(node);
            self.hands_over();
        }
    }

    /// Sends what was said to members that have moved after them, once that is all.
    fn hands_over(&mut self) {
        let Some(far) = &self.far else { return };
        let is_all = |going: &mut Going| {
            going.moved.as_ref().is_some_and(|moved| moved.waits_for.is_empty())
        };
        for going in self.going.extract_if(.., is_all) {
            let Going { moving, luggage, outbox, mailbox, on_its_way, moved, .. } = going;
            let is_missed = outbox.is_missed();
            if let (Some((replay, features)), Some(moved)) = (mailbox.take_replay(), moved) {
                let goods = Box::new(Goods { replay, features, is_missed, others: moved.others });
                far.asks(&self.id, Ask::Hand { moving, luggage, goods, on_its_way });
            }
        }
    }

    /// Seats somebody who was on another server until now, and is away: those who follow the room hear
    /// nothing of it. Says who else is there.
    pub(in super::super) fn takes_in(
        &mut self,
        holder: Holder,
        epoch: Epoch,
        outbox: Outbox,
        everyone: Vec<Holder>,
        now: Instant,
    ) -> (Joined, Vec<Peer>) {
        self.heard_of(epoch);
        let follows = self.has_ours();
        if !follows {
            self.members.clear();
            for other in everyone {
                self.knows(other, now);
            }
        }
        let known = self.place(&holder.peer.client_id).ok();
        let same = known.filter(|place| {
            self.members
                .get(*place)
                .is_some_and(|member| member.outbox().is_none() && member.is_same(&holder))
        });
        let mut replaced = false;
        if let Some(place) = same {
            self.members.remove(place);
        } else if follows {
            replaced = known.is_some_and(|place| self.is_replaced(place, now));
            self.tell_of_newcomer(&holder.peer);
        }
        let Holder { peer, conn, arrival } = holder;
        let others = self.others(&peer.client_id).map(|other| other.peer.clone()).collect();
        self.came.push((peer.client_id.clone(), epoch));
        let what = |who| What::Arrived { who };
        let seat = self.seats(peer, outbox, Some(arrival), conn.key, now, what);
        (Joined { seat, arrival, replaced }, others)
    }

    /// What a client has to hear that knew of those it `had`, where there are those that we `has`.
    pub(in super::super) fn news_between(
        &self,
        had: &[(String, String)],
        has: &[Peer],
    ) -> Vec<ByteString> {
        let is_known = |peer: &&Peer| {
            !had.iter()
                .any(|(id, username)| **id == *peer.client_id && **username == *peer.username)
        };
        let is_gone = |known: &&(String, String)| {
            !has.iter().any(|peer| *peer.client_id == *known.0 && *peer.username == *known.1)
        };
        let left = had.iter().filter(is_gone).map(|(client_id, username)| {
            let connected_users = has.len() + 1;
            ServerMessage::UserLeft { room_id: &self.id, client_id, username, connected_users }
        });
        let joined = has.iter().filter(is_known).map(|peer| ServerMessage::UserJoined {
            room_id: &self.id,
            username: &peer.username,
            client_id: &peer.client_id,
            connected_users: has.len() + 1,
            polite: false,
        });
        left.chain(joined).map(|news| news.encode()).collect()
    }

    /// Gives up those that were let go and whom nobody took for too long; how many that is.
    pub(super) fn gives_up(&mut self, now: Instant) -> usize {
        let mut lost = 0;
        let is_late = |going: &mut Going| now.duration_since(going.since) >= MOVED_WITHIN;
        let late: Vec<_> = self.going.extract_if(.., is_late).collect();
        for mut going in late {
            // A server that has not said that it has heard is gone, and has nothing more to say.
            if let Some(moved) = &mut going.moved {
                moved.waits_for.clear();
                self.going.push(going);
                continue;
            }
            let Moving { client_id, from, .. } = going.moving;
            let is_it = |member: &Member| member.outbox().is_some() && member.key == from.key;
            if let Ok(place) = self.place(&client_id)
                && self.members.get(place).is_some_and(is_it)
            {
                if let (Some(far), Some(member)) = (&self.far, self.members.get(place)) {
                    self.asks_to_leave(far, member.peer.clone(), from.key, Some(LOST));
                }
                lost += usize::from(self.takes_out(place, None, LOST, now));
            }
        }
        self.hands_over();
        lost
    }
}
