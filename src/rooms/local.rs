//! Members on this node: they join, come back after a restart, detach, resume and leave.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    JoinError, Peer, Resumed,
    events::{EventMember, RoomEvent, STATE_DETACHED, peer_state_frame},
    room::{JoinOutcome, Location, Room, RoomMember},
};
use crate::{
    delivery::{ClientQueue, DisconnectReason, ResumeError},
    migration::MemberRecord,
    protocol::ServerMessage,
};

/// A local member that is about to be inserted.
pub(super) struct NewMember {
    pub(super) peer: Peer,
    pub(super) queue: ClientQueue,
    /// Where it is known; else the member's own generation.
    pub(super) join_order: Option<u64>,
    pub(super) key: u64,
}

/// How a local member comes to be in the room.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    /// It joins.
    Joins,
    /// It was a member before. Where its peers do not know of it, it joins for them.
    Arrives { is_announced: bool },
}

impl Room {
    /// Makes `peer` a member of a room for `capacity` members, as [`Membership::join`](super::Membership::join) promises.
    ///
    /// # Errors
    ///
    /// [`JoinError::ClientIdTaken`] and [`JoinError::Full`]; then nothing has changed.
    pub(super) fn join(
        &mut self,
        peer: Peer,
        queue: ClientQueue,
        capacity: usize,
        now: Instant,
    ) -> Result<JoinOutcome, JoinError> {
        let current = self.position(&peer.client_id).ok();
        match current.and_then(|current| self.members.get(current)) {
            Some(current) if current.peer.username != peer.username || queue.is_guest() => {
                return Err(JoinError::ClientIdTaken);
            }
            None if self.members.len() >= capacity => return Err(JoinError::Full),
            Some(_) | None => {}
        }
        let replaced = current.is_some_and(|current| self.evict_replaced(current, now));
        let member = NewMember { peer, queue, join_order: None, key: 0 };
        let generation = self.add_local(member, replaced, now);
        Ok(JoinOutcome { generation, join_order: generation, replaced })
    }

    /// Makes a client a member that the cluster has let in: `everyone` is in the room, as far as the cluster knows.
    pub(super) fn admit_local(
        &mut self,
        record: MemberRecord,
        queue: ClientQueue,
        everyone: Vec<MemberRecord>,
        now: Instant,
    ) -> JoinOutcome {
        // A node with local members has followed the room, and knows better: also which local member has just left.
        if !self.has_local_members() {
            self.members.clear();
            for other in everyone {
                self.insert_remote(other, now);
            }
        }
        let current = self.position(&record.peer.client_id).ok();
        let replaced = current.is_some_and(|current| self.evict_replaced(current, now));
        let MemberRecord { peer, connection, join_order } = record;
        self.advance_epoch(join_order);
        let member = NewMember { peer, queue, join_order: Some(join_order), key: connection.key };
        let generation = self.add_local(member, replaced, now);
        JoinOutcome { generation, join_order, replaced }
    }

    /// Sends a new member the list of the others, and reports it to them.
    fn add_local(&mut self, member: NewMember, is_continued: bool, now: Instant) -> u64 {
        let users = self.members.iter().map(|member| &member.peer);
        let users = users.map(|peer| peer.to_roster_entry(true));
        let queue = &member.queue;
        queue.push(ServerMessage::UsersInRoom { users: users.collect() }.encode(), None);
        if queue.features().peer_state {
            for detached in self.members.iter().filter(|member| member.is_detached()) {
                queue.push(peer_state_frame(&detached.peer.client_id, STATE_DETACHED), None);
            }
        }
        self.insert_local(member, Entry::Joins, is_continued, now)
    }

    /// Makes a member of the process before this one a member again, detached.
    ///
    /// # Errors
    ///
    /// [`JoinError::ClientIdTaken`].
    pub(super) fn restore(
        &mut self,
        peer: Peer,
        queue: ClientQueue,
        join_order: u64,
        now: Instant,
    ) -> Result<JoinOutcome, JoinError> {
        if self.find(&peer.client_id).is_some() {
            return Err(JoinError::ClientIdTaken);
        }
        self.last_generation = self.last_generation.max(join_order);
        let member = NewMember { peer, queue, join_order: Some(join_order), key: 0 };
        let entry = Entry::Arrives { is_announced: false };
        let generation = self.insert_local(member, entry, true, now);
        Ok(JoinOutcome { generation, join_order, replaced: false })
    }

    /// Inserts a local member and reports it; its generation. See [`RoomEvent::Opened`] for `is_continued`.
    pub(super) fn insert_local(
        &mut self,
        member: NewMember,
        entry: Entry,
        is_continued: bool,
        now: Instant,
    ) -> u64 {
        let NewMember { peer, queue, join_order, key } = member;
        if self.members.is_empty() {
            self.emit(now, RoomEvent::Opened { is_continued });
        }
        let peer_ref = self.peer_ref(&peer);
        let (member, users) = (EventMember { peer: &peer, peer_ref }, self.members.len() + 1);
        let event = match entry {
            Entry::Joins => RoomEvent::Joined { member, connected_users: users },
            Entry::Arrives { is_announced } => {
                RoomEvent::Arrived { member, announced_users: is_announced.then_some(users) }
            }
        };
        self.emit(now, event);
        self.last_generation += 1;
        let generation = self.last_generation;
        let join_order = join_order.unwrap_or(generation);
        let index = self.position(&peer.client_id).unwrap_or_else(|index| index);
        let location = Location::Local { queue, generation };
        let member = RoomMember { peer, location, join_order, key, peer_ref, since: now };
        self.insert_member(index, member);
        generation
    }

    /// The connection of a client is gone, and may come back: what it would receive is kept for it, and its peers are told,
    /// unless `quietly`.
    pub(super) fn detach(&mut self, client_id: &str, generation: u64, quietly: bool, now: Instant) {
        let Some(member) = self.find(client_id).filter(|member| member.is_generation(generation))
        else {
            return;
        };
        let Some(queue) = member.queue() else { return };
        queue.detach();
        let is_reported = !quietly && queue.mark_detached_reported();
        let (peer, peer_ref) = (member.peer.clone(), member.peer_ref);
        let member = EventMember { peer: &peer, peer_ref };
        self.emit(now, RoomEvent::Detached { member, is_reported });
    }

    /// Gives the membership of a client to its new connection, which reads from `queue`. `key` is the membership's; the
    /// client has received everything up to `last_seq`.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]; then nothing has changed.
    pub(super) fn resume(
        &mut self,
        client_id: &str,
        key: u128,
        queue: ClientQueue,
        last_seq: u64,
        now: Instant,
    ) -> Result<(JoinOutcome, Resumed), ResumeError> {
        let index = self.position(client_id).map_err(|_| ResumeError::Ended)?;
        // Perhaps it has moved already, and this node has not read of it.
        if self.members.get(index).is_some_and(|member| self.is_migrating(member)) {
            return Err(ResumeError::Ended);
        }
        let member = self.members.get_mut(index).ok_or(ResumeError::Ended)?;
        let Location::Local { queue: old, .. } = &member.location else {
            return Err(ResumeError::Ended);
        };
        let is_reported = old.is_detached_reported();
        let replayed = old.resume_into(&queue, key, last_seq)?;
        self.last_generation += 1;
        let generation = self.last_generation;
        member.location = Location::Local { queue, generation };
        let (peer, peer_ref, join_order) =
            (member.peer.clone(), member.peer_ref, member.join_order);
        let member = EventMember { peer: &peer, peer_ref };
        self.emit(now, RoomEvent::Resumed { member, replayed, is_reported });
        let others = self.others(client_id);
        let others = others.map(|other| (other.peer.clone(), other.join_order < join_order));
        let resumed = Resumed { replayed_frames: replayed, others: others.collect() };
        Ok((JoinOutcome { generation, join_order, replaced: false }, resumed))
    }

    /// Removes a client; whether it was a local member. The others are told, unless `quietly`, when the server stops: then it
    /// is only kept for those of them that will resume. Leaving twice is harmless, and so is leaving a membership that a
    /// newer one has replaced. `reason` is a constant of this server.
    pub(super) fn leave(
        &mut self,
        client_id: &str,
        generation: u64,
        quietly: bool,
        reason: &'static str,
        now: Instant,
    ) -> bool {
        let Ok(index) = self.position(client_id) else { return false };
        let Some(member) =
            self.members.get(index).filter(|member| member.is_generation(generation))
        else {
            return false;
        };
        if self.is_shared {
            self.request_leave(member.peer.clone(), member.key, Some(reason));
        }
        if quietly {
            self.members.iter().filter_map(RoomMember::queue).for_each(ClientQueue::detach);
        }
        self.remove_at(index, None, reason, now)
    }

    /// Removes a local member for another one of the same user; whether it was still there.
    pub(super) fn evict(&mut self, client_id: &str, generation: u64, now: Instant) -> bool {
        let Ok(index) = self.position(client_id) else { return false };
        let Some(member) =
            self.members.get(index).filter(|member| member.is_generation(generation))
        else {
            return false;
        };
        if self.is_shared {
            self.request_leave(member.peer.clone(), member.key, Some("replaced"));
        }
        self.evict_replaced(index, now)
    }

    /// A local member leaves; see [`Backend::leave`](super::Backend::leave) for `reason`.
    pub(super) fn request_leave(&self, peer: Peer, key: u64, reason: Option<&'static str>) {
        self.backend.leave(&self.id, peer, key, reason, self.webhook_seq);
    }

    /// Ends the membership of the local members that `is_meant` selects, by who each is and for how long it has been here,
    /// for `action`, a constant of this server; how many they are.
    pub(super) fn disconnect_matching(
        &mut self,
        is_meant: impl Fn(&Peer, Duration) -> bool,
        action: &'static str,
        now: Instant,
    ) -> usize {
        let mut disconnected = Vec::new();
        for member in &self.members {
            let age = now.saturating_duration_since(member.since);
            if let Some(queue) = member.queue()
                && is_meant(&member.peer, age)
            {
                queue.disconnect(DisconnectReason::Removed);
                disconnected.push(member.peer_ref);
            }
        }
        for &member in &disconnected {
            self.emit(now, RoomEvent::Moderated { action, member });
        }
        disconnected.len()
    }
}
