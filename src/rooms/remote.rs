//! Members on other nodes, as the cluster reports them.

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    backend::is_on_this_node,
    events::{EventMember, RoomEvent, STATE_CONNECTED, STATE_DETACHED},
    room::{LOST, Location, RemoteMember, Room, RoomMember},
    routing::push_to_all,
};
use crate::{
    delivery::{ClientQueue, DisconnectReason},
    migration::{ClusterTimings, ConnectionId, Epoch, MemberRecord},
};

impl Room {
    /// Adds a member of another node, unreported.
    pub(super) fn insert_remote(&mut self, record: MemberRecord, now: Instant) {
        let is_local = is_on_this_node(&*self.backend, &record.connection);
        let MemberRecord { peer, connection: ConnectionId { node, key }, join_order } = record;
        if let Err(index) = self.position(&peer.client_id)
            && !is_local
        {
            let remote = RemoteMember { node, is_detached: false, unconfirmed_since: None };
            let location = Location::Remote(Box::new(remote));
            let peer_ref = self.peer_ref(&peer);
            let member = RoomMember { peer, location, join_order, key, peer_ref, since: now };
            self.insert_member(index, member);
        }
    }

    /// A client has joined on another node; whether a local member had to leave for it.
    pub(super) fn apply_join(&mut self, record: MemberRecord, now: Instant) -> bool {
        self.advance_epoch(record.join_order);
        let mut replaced = false;
        if let Ok(index) = self.position(&record.peer.client_id) {
            // Also on another connection than was known: a membership that has moved is still the same.
            if let Some(RoomMember { location: Location::Remote(remote), key, .. }) =
                self.members.get_mut(index).filter(|member| member.is_same_membership(&record))
            {
                remote.unconfirmed_since = None;
                (remote.node, *key) = (record.connection.node, record.connection.key);
                return false;
            }
            replaced = self.evict_replaced(index, now);
        }
        let (peer, node) = (record.peer.clone(), record.connection.node.clone());
        let connected_users = self.members.len() + 1;
        self.insert_remote(record, now);
        let member = EventMember { peer: &peer, peer_ref: self.peer_ref(&peer) };
        self.emit(now, RoomEvent::Joined { member, connected_users });
        // The new member's node does not know yet which members are detached.
        let is_reported =
            |member: &&RoomMember| member.queue().is_some_and(ClientQueue::is_detached_reported);
        for detached in self.members.iter().filter(is_reported) {
            self.report_state_to(detached, &node, true);
        }
        replaced
    }

    /// A member has left, as the cluster says; whether it was a local one.
    pub(super) fn apply_leave(
        &mut self,
        client_id: &str,
        connection: &ConnectionId,
        now: Instant,
    ) -> bool {
        let is_local = is_on_this_node(&*self.backend, connection);
        let Ok(index) = self.position(client_id) else { return false };
        let Some(member) = self.members.get(index) else { return false };
        let is_this = match member.location {
            Location::Local { .. } => is_local && member.key == connection.key,
            Location::Remote(_) => member.is_on_connection(connection),
        };
        let peer = member.peer.clone();
        // The cluster removes a local member only where another client has its id now.
        let reason = if is_local { "replaced" } else { "left" };
        if !is_this || !self.remove_at(index, Some(DisconnectReason::Replaced), reason, now) {
            return false;
        }
        // This node may have stated meanwhile that it is still a member, after it was cut off.
        self.request_leave(peer, connection.key, None);
        true
    }

    /// Delivers a frame from a member of another node to local members; false where its target is not here, or its sender is
    /// not in the room as far as this node knows.
    pub(super) fn deliver_remote(
        &self,
        from: &str,
        connection: &ConnectionId,
        to: Option<&str>,
        epoch: Epoch,
        frame: &ByteString,
    ) -> bool {
        // Not of a member that has left meanwhile, or has expired.
        if !self.find(from).is_some_and(|member| member.is_on_connection(connection)) {
            return false;
        }
        let mut is_delivered = to.is_none();
        match to {
            None => {
                let receives = |member: &&RoomMember| {
                    let id = &member.peer.client_id;
                    !self.arrivals.iter().any(|(arrived, since)| arrived == id && epoch < *since)
                };
                push_to_all(self.others(from).filter(receives), None, || frame.clone());
            }
            Some(to) => {
                if let Some(queue) = self.find(to).and_then(RoomMember::queue) {
                    queue.push(frame.clone(), None);
                    is_delivered = true;
                }
            }
        }
        for outgoing in self.outgoing.iter().filter(|outgoing| outgoing.receives_epoch(epoch)) {
            if to.is_none_or(|to| to == &*outgoing.migration.client_id) {
                outgoing.queue.push(frame.clone(), None);
                is_delivered = true;
            }
        }
        is_delivered
    }

    /// The connection of a member of another node is gone, or back.
    pub(super) fn apply_remote_state(
        &mut self,
        client_id: &str,
        connection: &ConnectionId,
        is_detached: bool,
    ) {
        let Ok(index) = self.position(client_id) else { return };
        if let Some(RoomMember { location: Location::Remote(remote), .. }) =
            self.members.get_mut(index).filter(|member| member.is_on_connection(connection))
        {
            // It may be reported again, for other members of this node.
            if std::mem::replace(&mut remote.is_detached, is_detached) == is_detached {
                return;
            }
            let state = if is_detached { STATE_DETACHED } else { STATE_CONNECTED };
            self.announce_state_locally(client_id, state);
        }
    }

    /// Applies the member list as the cluster has it now: new members join; one that is missing is unconfirmed, for its node
    /// may be slower than this one to state that it is there.
    pub(super) fn reconcile_snapshot(
        &mut self,
        everyone: Vec<MemberRecord>,
        epoch: Epoch,
        now: Instant,
    ) {
        self.advance_epoch(epoch);
        for member in &mut self.members {
            if let Location::Remote(remote) = &mut member.location {
                remote.unconfirmed_since.get_or_insert(now);
            }
        }
        self.backend.note_unsettled(&self.id);
        for record in everyone {
            if !is_on_this_node(&*self.backend, &record.connection) {
                self.apply_join(record, now);
            }
        }
    }

    /// Removes members of other nodes that were unconfirmed for too long, and local ones that were released and that no node
    /// took; how many of those there are. It has to be called again as long as there are others of either kind.
    pub(super) fn expire_unconfirmed(&mut self, now: Instant, timings: ClusterTimings) -> usize {
        let unconfirmed_since = |member: &RoomMember| match &member.location {
            Location::Remote(remote) => remote.unconfirmed_since,
            Location::Local { .. } => None,
        };
        let is_over = |member: &RoomMember| {
            unconfirmed_since(member)
                .is_some_and(|since| now.duration_since(since) >= timings.unconfirmed_member_ttl())
        };
        while let Some(index) = self.members.iter().position(is_over) {
            self.remove_at(index, None, LOST, now);
        }
        let lost = self.expire_outgoing(now, timings);
        let is_unconfirmed = self.members.iter().any(|member| unconfirmed_since(member).is_some());
        if is_unconfirmed || !self.outgoing.is_empty() {
            self.backend.note_unsettled(&self.id);
        }
        lost
    }

    /// The local members, and the epoch that has been applied: what this node states to the cluster.
    pub(super) fn local_members(&self) -> (Epoch, Vec<MemberRecord>) {
        let Some(node) = self.backend.node() else { return (0, Vec::new()) };
        let local = self.members.iter().filter(|member| member.queue().is_some());
        let record = |member: &RoomMember| MemberRecord {
            peer: member.peer.clone(),
            connection: ConnectionId { node: node.clone(), key: member.key },
            join_order: member.join_order,
        };
        (self.epoch, local.map(record).collect())
    }
}
