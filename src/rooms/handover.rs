//! Seats of one room that go to other servers, and come from them: nothing that was said to them is lost, doubled or
//! out of order, and nobody hears of it.
//!
//! Whoever has the seat lets it go and keeps its frames, the engine moves it, every other server says that it has heard of
//! that, and then the frames follow. In which [`Epoch`] something was said tells to which of both servers it went.

use std::{cell::Cell, collections::BTreeSet, sync::Arc};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{JoinOutcome, LOST, Location, Member, Peer, RemoteMember, Room};
use crate::{
    cluster::gateway::{
        ClusterCommand, ConnectionId, Epoch, MemberRecord, Migration, MigrationGuard,
        MigrationState, OUTGOING_MIGRATION_TIMEOUT,
    },
    outbox::{self, ClientQueue, ClientQueueReader},
    timeline::TimelineEntry,
    wire::ServerMessage,
};

/// A seat that is to be on another server, or is, and whose frames are still here.
pub(super) struct OutgoingMigration {
    pub(super) migration: Migration,
    context: ByteString,
    pub(super) queue: ClientQueue,
    reader: ClientQueueReader,
    since: Instant,
    moved: Option<CompletedMove>,
    guard: MigrationGuard,
}

/// A seat that is on another server.
struct CompletedMove {
    epoch: Epoch,
    /// Those that may have said something to it before they heard of that.
    waits_for: BTreeSet<Arc<str>>,
    /// Who else was there.
    others: Vec<(String, String)>,
}

impl OutgoingMigration {
    /// Whether what was said in `epoch` goes here, and not to its new server.
    pub(super) fn receives_epoch(&self, epoch: Epoch) -> bool {
        self.moved.as_ref().is_some_and(|moved| epoch < moved.epoch)
    }
}

impl Room {
    /// Lets one of ours go to another server, where its client is or may come to, if it is the seat that is
    /// meant; whether it is. From now on it has no connection here.
    fn start_outgoing(
        &mut self,
        moving: Migration,
        is_meant: impl Fn(&Member, &ClientQueue) -> bool,
        luggage: ByteString,
        now: Instant,
    ) -> bool {
        let Some(far) = self.gateway.clone() else { return false };
        let Ok(place) = self.position(&moving.client_id) else { return false };
        let Some(member) = self.members.get_mut(place) else { return false };
        let Some(outbox) = member.queue().filter(|outbox| is_meant(member, outbox)) else {
            return false;
        };
        let of_same = |going: &&mut OutgoingMigration| going.migration.from == moving.from;
        if let Some(going) = self.outgoing.iter_mut().find(of_same) {
            (going.migration, going.context, going.since) = (moving.clone(), luggage, now);
        } else {
            let (carrier, mailbox) = outbox::channel();
            outbox.migrate_into(&carrier);
            self.last_generation += 1;
            member.location =
                Location::Local { outbox: carrier.clone(), seat: self.last_generation };
            self.outgoing.push(OutgoingMigration {
                migration: moving.clone(),
                context: luggage,
                queue: carrier,
                reader: mailbox,
                since: now,
                moved: None,
                guard: far.track_migration(),
            });
        }
        far.send(&self.id, ClusterCommand::Move(moving));
        true
    }

    /// The client of one of ours is on another server, which wants the seat.
    ///
    /// # Errors
    ///
    /// It stays; and for which connection that its client has here, which only a wish `ends` that names it: one may
    /// come late, of a client that has been there and is back.
    pub(in crate::rooms) fn begin_handover(
        &mut self,
        moving: Migration,
        membership: u128,
        ends: Option<u64>,
        luggage: ByteString,
        now: Instant,
    ) -> Result<(), Option<u64>> {
        let (key, live) = (moving.from.key, Cell::new(None));
        let is_meant = |member: &Member, outbox: &ClientQueue| {
            let is_it = member.key == key && outbox.membership_key() == Some(membership);
            if let Location::Local { seat, .. } = member.location
                && is_it
                && !outbox.is_detached()
            {
                live.set(Some(seat));
            }
            is_it && (live.get().is_none() || live.get() == ends)
        };
        if self.start_outgoing(moving, is_meant, luggage, now) { Ok(()) } else { Err(live.get()) }
    }

    /// One of ours, whose client is away, is to be on `to`.
    pub(in crate::rooms) fn migrate_to_node(
        &mut self,
        client_id: &Arc<str>,
        seat: u64,
        to: ConnectionId,
        luggage: ByteString,
        now: Instant,
    ) -> bool {
        let Some(far) = &self.gateway else { return false };
        let Some(key) = self.find(client_id).map(|member| member.key) else { return false };
        let from = ConnectionId { node: far.node.clone(), key };
        let moving = Migration { room: self.id.clone(), client_id: client_id.clone(), from, to };
        let is_meant = |member: &Member, outbox: &ClientQueue| {
            member.is_generation(seat) && outbox.membership_key().is_some()
        };
        self.start_outgoing(moving, is_meant, luggage, now)
    }

    /// One of ours is on another server now; whether it was still here. What is said to it goes there, but for
    /// what those say who have not heard of it.
    pub(in crate::rooms) fn complete_outgoing(
        &mut self,
        moving: Migration,
        holder: MemberRecord,
        epoch: Epoch,
        nodes: Vec<Arc<str>>,
        now: Instant,
    ) -> bool {
        self.advance_epoch(epoch);
        let others = self.others(&holder.peer.client_id).map(|other| &other.peer);
        let others = others.map(|peer| (peer.client_id.to_string(), peer.username.to_string()));
        let others = others.collect();
        let Some(going) =
            self.outgoing.iter_mut().find(|going| going.migration.from == moving.from)
        else {
            return self.apply_join(holder, now);
        };
        going.moved = Some(CompletedMove { epoch, waits_for: nodes.into_iter().collect(), others });
        going.migration = moving;
        let place = self.position(&holder.peer.client_id);
        let member = place.ok().and_then(|place| self.members.get_mut(place));
        let is_here =
            member.filter(|member| member.queue().is_some() && member.is_same_membership(&holder));
        let was_ours = match is_here {
            Some(member) => {
                self.arrivals.retain(|(came, _)| *came != member.peer.client_id);
                let is_away = member.queue().is_some_and(ClientQueue::is_detached_reported);
                let there = RemoteMember {
                    node: holder.connection.node,
                    is_detached: is_away,
                    unconfirmed_since: None,
                };
                (member.location, member.key) =
                    (Location::Remote(Box::new(there)), holder.connection.key);
                let who = member.peer_ref;
                self.record(now, TimelineEntry::Moved { who });
                true
            }
            None => self.apply_join(holder, now),
        };
        self.send_ready_handovers();
        was_ours
    }

    /// Whether it is one of ours that was let go.
    pub(super) fn is_migrating(&self, member: &Member) -> bool {
        let is_it = |going: &OutgoingMigration| going.migration.from.key == member.key;
        member.queue().is_some() && self.outgoing.iter().any(is_it)
    }

    /// Whether the one who is here on `conn` is this membership; nothing where it is not here, or not all of it.
    pub(in crate::rooms) fn confirm_membership(
        &self,
        client_id: &str,
        conn: &ConnectionId,
        membership: u128,
    ) -> Option<bool> {
        let member = self.find(client_id).filter(|member| member.key == conn.key)?;
        let outbox = member.queue()?;
        match outbox.membership_key() {
            _ if self.is_migrating(member) => None,
            Some(outbox::AWAITING_MIGRATION) => None,
            known => Some(known == Some(membership)),
        }
    }

    /// The other server does not take one of ours that was let go: its seat, and where its frames are kept.
    pub(in crate::rooms) fn cancel_outgoing(
        &mut self,
        moving: &Migration,
    ) -> Option<(Peer, JoinOutcome, ClientQueue, ClientQueueReader, ByteString)> {
        let is_it =
            |going: &mut OutgoingMigration| going.migration == *moving && going.moved.is_none();
        let OutgoingMigration { context: luggage, queue: outbox, reader: mailbox, .. } =
            self.outgoing.extract_if(.., is_it).next()?;
        let member = self.find(&moving.client_id).filter(|member| member.key == moving.from.key)?;
        let Location::Local { seat, .. } = member.location else { return None };
        let joined =
            JoinOutcome { generation: seat, join_order: member.join_order, replaced: false };
        Some((member.peer.clone(), joined, outbox, mailbox, luggage))
    }

    /// What `node` says to a member that has moved goes to its new server from now on.
    pub(in crate::rooms) fn confirm_barrier(&mut self, moving: &Migration, node: &str) {
        let going = self.outgoing.iter_mut().find(|going| going.migration == *moving);
        if let Some(moved) = going.and_then(|going| going.moved.as_mut()) {
            moved.waits_for.remove(node);
            self.send_ready_handovers();
        }
    }

    /// Sends what was said to members that have moved after them, once that is all.
    fn send_ready_handovers(&mut self) {
        let Some(far) = &self.gateway else { return };
        let is_all = |going: &mut OutgoingMigration| {
            going.moved.as_ref().is_some_and(|moved| moved.waits_for.is_empty())
        };
        for going in self.outgoing.extract_if(.., is_all) {
            let OutgoingMigration {
                migration: moving,
                context: luggage,
                queue: outbox,
                reader: mailbox,
                guard: on_its_way,
                moved,
                ..
            } = going;
            let is_missed = outbox.is_detached_reported();
            if let (Some((replay, features)), Some(moved)) = (mailbox.take_replay(), moved) {
                let goods =
                    Box::new(MigrationState { replay, features, is_missed, others: moved.others });
                far.send(&self.id, ClusterCommand::HandOver { moving, luggage, goods, on_its_way });
            }
        }
    }

    /// Seats somebody who was on another server until now, and is away: those who follow the room hear
    /// nothing of it. Says who else is there.
    pub(in crate::rooms) fn accept_migration(
        &mut self,
        holder: MemberRecord,
        epoch: Epoch,
        outbox: ClientQueue,
        everyone: Vec<MemberRecord>,
        now: Instant,
    ) -> (JoinOutcome, Vec<Peer>) {
        self.advance_epoch(epoch);
        let follows = self.has_local_members();
        if !follows {
            self.members.clear();
            for other in everyone {
                self.insert_remote(other, now);
            }
        }
        let known = self.position(&holder.peer.client_id).ok();
        let same = known.filter(|place| {
            self.members.get(*place).is_some_and(|member| {
                member.queue().is_none() && member.is_same_membership(&holder)
            })
        });
        let mut replaced = false;
        if let Some(place) = same {
            self.members.remove(place);
        } else if follows {
            replaced = known.is_some_and(|place| self.evict_replaced(place, now));
            self.announce_join(&holder.peer);
        }
        let MemberRecord { peer, connection: conn, join_order: arrival } = holder;
        let others = self.others(&peer.client_id).map(|other| other.peer.clone()).collect();
        self.arrivals.push((peer.client_id.clone(), epoch));
        let what = |who| TimelineEntry::Arrived { who };
        let seat = self.insert_local(peer, outbox, Some(arrival), conn.key, now, what);
        (JoinOutcome { generation: seat, join_order: arrival, replaced }, others)
    }

    /// What a client has to hear that knew of those it `had`, where there are those that we `has`.
    pub(in crate::rooms) fn roster_changes(
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
    pub(super) fn expire_outgoing(&mut self, now: Instant) -> usize {
        let mut lost = 0;
        let is_late = |going: &mut OutgoingMigration| {
            now.duration_since(going.since) >= OUTGOING_MIGRATION_TIMEOUT
        };
        let late: Vec<_> = self.outgoing.extract_if(.., is_late).collect();
        for mut going in late {
            // A server that has not said that it has heard is gone, and has nothing more to say.
            if let Some(moved) = &mut going.moved {
                moved.waits_for.clear();
                self.outgoing.push(going);
                continue;
            }
            let Migration { client_id, from, .. } = going.migration;
            let is_it = |member: &Member| member.queue().is_some() && member.key == from.key;
            if let Ok(place) = self.position(&client_id)
                && self.members.get(place).is_some_and(is_it)
            {
                if let (Some(far), Some(member)) = (&self.gateway, self.members.get(place)) {
                    self.request_leave(far, member.peer.clone(), from.key, Some(LOST));
                }
                lost += usize::from(self.remove_at(place, None, LOST, now));
            }
        }
        self.send_ready_handovers();
        lost
    }
}
