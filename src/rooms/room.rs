//! One room and its members. Pure: no clock, no socket, no lock.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Backend, Peer,
    events::{EventMember, RoomEvent},
    recent_members::RecentMembers,
};
use crate::{
    delivery::{ClientQueue, DisconnectReason},
    memory::reserve_for_next,
    migration::{ConnectionId, Epoch, MemberRecord, OutgoingMigrations},
    timeline::{PeerRef, Timeline},
    webhooks::Webhooks,
};

/// Whether `room` may name a room: 1 to 128 characters, none of them a control character, and neither `.` nor `..`, which
/// are no segment of a URL's path (RFC 3986 section 3.3): clients and proxies remove them, also percent-encoded.
pub fn is_room_id(room: &str) -> bool {
    (1..=128).contains(&room.chars().count())
        && !room.chars().any(char::is_control)
        && !matches!(room, "." | "..")
}

/// Why a client does not become a member.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The room has as many members as it may.
    #[error("Room is full")]
    Full,
    /// Another user has this client id in the room.
    #[error("Client id is taken by another user in this room")]
    ClientIdTaken,
    /// Redis cannot be reached, so the members of the room are not known.
    #[error("Rooms cannot be entered at the moment")]
    Unavailable,
}

impl JoinError {
    /// The error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full => "room_full",
            Self::ClientIdTaken => "client_id_taken",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A member is back on a new connection.
#[derive(Debug)]
pub struct Resumed {
    /// How many frames it receives first that it had missed.
    pub replayed_frames: usize,
    /// The other members, and whether each joined before it.
    pub others: Vec<(Peer, bool)>,
}

/// Why a member left whose node cannot be found, or which was on its way to one.
pub(super) const LOST: &str = "lost";

/// One room, its members, and their send queues.
///
/// In this order: every message touches the first four fields.
#[repr(C)]
pub(super) struct Room {
    /// By client id, so that lists come in one order.
    pub(super) members: Vec<RoomMember>,
    /// The room's timeline, where timelines are kept.
    pub(super) timeline: Option<Box<Timeline>>,
    /// Whether `backend` is a cluster. A copy, so that relaying on a single node costs one comparison for it.
    pub(super) is_shared: bool,
    pub(super) id: Arc<str>,
    /// The last [generation](Location::Local) that was given to a local member.
    pub(super) last_generation: u64,
    /// The other nodes.
    pub(super) backend: Arc<dyn Backend>,
    /// Local memberships on their way to another node.
    pub(super) outgoing: OutgoingMigrations,
    /// Memberships that have come from other nodes, and in which epoch: a frame to all members from a sender that had not
    /// read of that went to the node before, which delivers it.
    pub(super) arrivals: Vec<(Arc<str>, Epoch)>,
    /// All changes up to this one have been applied.
    pub(super) epoch: Epoch,
    /// Members that have left lately.
    pub(super) recent_members: RecentMembers,
    pub(super) webhooks: Webhooks,
    /// The number of the room's last webhook event, also of one that another node has sent.
    pub(super) webhook_seq: u64,
}

/// A member of a room.
pub(super) struct RoomMember {
    pub(super) peer: Peer,
    pub(super) location: Location,
    /// Higher for a member that joined later.
    pub(super) join_order: u64,
    /// Tells the membership from all others on its node; 0 on a single node.
    pub(super) key: u64,
    /// What the timeline knows it by.
    pub(super) peer_ref: PeerRef,
    /// When it came to this node, or this node read of it.
    pub(super) since: Instant,
}

/// Where a member is.
pub(super) enum Location {
    /// On this node.
    Local {
        /// Its send queue.
        queue: ClientQueue,
        /// Tells this member from the one that it replaced, or that replaced it.
        generation: u64,
    },
    /// On another node; boxed, for every message looks through a room's members.
    Remote(Box<RemoteMember>),
}

/// A member on another node.
pub(super) struct RemoteMember {
    pub(super) node: Arc<str>,
    pub(super) is_detached: bool,
    /// When a snapshot first did not contain it.
    pub(super) unconfirmed_since: Option<Instant>,
}

impl RoomMember {
    /// The send queue, where it is on this node.
    pub(super) fn queue(&self) -> Option<&ClientQueue> {
        match &self.location {
            Location::Local { queue, .. } => Some(queue),
            Location::Remote(_) => None,
        }
    }

    /// The node that it is on, where that is another one.
    pub(super) fn node(&self) -> Option<&Arc<str>> {
        match &self.location {
            Location::Local { .. } => None,
            Location::Remote(remote) => Some(&remote.node),
        }
    }

    pub(super) fn is_generation(&self, number: u64) -> bool {
        matches!(self.location, Location::Local { generation, .. } if generation == number)
    }

    pub(super) fn is_detached(&self) -> bool {
        match &self.location {
            Location::Local { queue, .. } => queue.is_detached(),
            Location::Remote(remote) => remote.is_detached,
        }
    }

    /// Whether it is this membership, wherever it is.
    pub(super) fn is_same_membership(&self, record: &MemberRecord) -> bool {
        self.join_order == record.join_order && self.peer == record.peer
    }

    /// Whether it is on another node, on this connection.
    pub(super) fn is_on_connection(&self, connection: &ConnectionId) -> bool {
        self.key == connection.key && self.node() == Some(&connection.node)
    }

    /// As events name it.
    pub(super) fn as_event_member(&self) -> EventMember<'_> {
        EventMember { peer: &self.peer, peer_ref: self.peer_ref }
    }
}

/// A client has become a member.
pub(super) struct JoinOutcome {
    /// The number of the membership, which no other in this room had before.
    pub(super) generation: u64,
    /// Higher for a member that joined later; it survives a resume.
    pub(super) join_order: u64,
    /// Whether a local member had to leave for it.
    pub(super) replaced: bool,
}

impl Room {
    /// A room that continues the `timeline` of the rooms that had this id before.
    pub(super) fn new(
        id: Arc<str>,
        backend: Arc<dyn Backend>,
        timeline: Option<Box<Timeline>>,
        webhooks: Webhooks,
    ) -> Self {
        Self {
            id,
            members: Vec::new(),
            last_generation: 0,
            is_shared: backend.node().is_some(),
            backend,
            outgoing: OutgoingMigrations::default(),
            arrivals: Vec::new(),
            epoch: 0,
            recent_members: RecentMembers::default(),
            timeline,
            webhooks,
            webhook_seq: 0,
        }
    }

    /// Its id.
    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Whether it had local members, and has none left.
    pub(super) fn is_finished(&self) -> bool {
        self.last_generation > 0 && !self.has_local_members() && self.outgoing.is_empty()
    }

    /// How many members it has.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn has_local_members(&self) -> bool {
        self.members.iter().any(|member| member.queue().is_some())
    }

    pub(super) fn wake_members(&self) {
        self.members.iter().filter_map(RoomMember::queue).for_each(ClientQueue::wake);
    }

    /// Whether it has a member that `is_meant` selects.
    pub(super) fn has_member(&self, is_meant: impl Fn(&Peer) -> bool) -> bool {
        self.members.iter().any(|member| is_meant(&member.peer))
    }

    /// Whether a client id is that of a member, or was so a short time ago.
    pub(super) fn is_recent_member(&self, client_id: &str, now: Instant) -> bool {
        self.position(client_id).is_ok() || self.recent_members.contains(client_id, now)
    }

    /// Inserts a member at `index`.
    pub(super) fn insert_member(&mut self, index: usize, member: RoomMember) {
        reserve_for_next(&mut self.members);
        self.members.insert(index, member);
    }

    /// Removes the member at `index` for a newer one; whether it was local.
    pub(super) fn evict_replaced(&mut self, index: usize, now: Instant) -> bool {
        self.remove_at(index, Some(DisconnectReason::Replaced), "replaced", now)
    }

    /// Removes the member at `index` and reports that for `reason`; whether it was local. A local one is disconnected for
    /// `disconnect`.
    pub(super) fn remove_at(
        &mut self,
        index: usize,
        disconnect: Option<DisconnectReason>,
        reason: &'static str,
        now: Instant,
    ) -> bool {
        let member = self.members.remove(index);
        self.arrivals.retain(|(arrived, _)| *arrived != member.peer.client_id);
        if let Some(queue) = member.queue() {
            if let Some(disconnect) = disconnect {
                queue.disconnect(disconnect);
            }
            // From here on it misses what happens in the room, so its frames may not follow a record that moves after all.
            self.outgoing.abandon(member.key);
        }
        self.recent_members.insert(member.peer.client_id.clone(), now);
        let (event_member, connected_users) = (member.as_event_member(), self.members.len());
        self.emit(now, RoomEvent::Left { member: event_member, reason, connected_users });
        if self.members.is_empty() {
            let is_continued = disconnect == Some(DisconnectReason::Replaced);
            self.emit(now, RoomEvent::Closed { is_continued });
        }
        member.queue().is_some()
    }

    /// What the timeline knows a peer by; 0 where no timeline is kept.
    pub(super) fn peer_ref(&mut self, peer: &Peer) -> PeerRef {
        let members = &self.members;
        let is_present = |peer_ref| members.iter().any(|member| member.peer_ref == peer_ref);
        self.timeline.as_mut().map_or(0, |timeline| timeline.peer_ref(peer, is_present))
    }

    /// All changes up to `epoch` have been applied.
    pub(super) fn advance_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
        self.backend.note_epoch(epoch);
    }

    /// Another node has sent a webhook event with this number.
    pub(super) fn advance_webhook_seq(&mut self, sequence: u64) {
        self.webhook_seq = self.webhook_seq.max(sequence);
    }

    /// The number of the last webhook event.
    pub(super) fn webhook_seq(&self) -> u64 {
        self.webhook_seq
    }

    /// The index of a client id, or else where it belongs.
    pub(super) fn position(&self, client_id: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|member| (*member.peer.client_id).cmp(client_id))
    }

    pub(super) fn find(&self, client_id: &str) -> Option<&RoomMember> {
        self.position(client_id).ok().and_then(|index| self.members.get(index))
    }

    pub(super) fn others(&self, client_id: &str) -> impl Iterator<Item = &RoomMember> {
        self.members.iter().filter(move |member| *member.peer.client_id != *client_id)
    }
}
