//! What nodes tell each other, as values: a [`ClusterCommand`] goes to Redis, a [`ClusterEvent`] comes from it.

use std::sync::Arc;

use bytestring::ByteString;

use super::receipts::{SignalNumber, SignalReceipts};
use crate::{
    migration::{ConnectionId, Epoch, HandOver, MemberRecord, Migration, MigrationState},
    rooms::{Peer, RelayedFrame},
    webhooks::WebhookEvent,
};

/// What a node wants of Redis and of the other nodes.
#[derive(Debug)]
pub enum ClusterCommand {
    /// A client wants to join.
    Join {
        /// The room.
        room: Arc<str>,
        /// The client.
        peer: Peer,
        /// The key of its connection.
        key: u64,
        /// Whether it is a guest.
        is_guest: bool,
    },
    /// A local member has left.
    Leave {
        /// The room.
        room: Arc<str>,
        /// The member.
        peer: Peer,
        /// The key of its connection.
        key: u64,
        /// A constant of this server; nothing where another node reports the leave to webhooks.
        reason: Option<&'static str>,
        /// The number of the room's last webhook event before that.
        sequence: u64,
    },
    /// An event that only webhooks get, and that needs a number.
    Webhook {
        /// The room.
        room: Arc<str>,
        /// The event.
        event: WebhookEvent,
    },
    /// A local member has sent a frame to members of another node.
    Relay {
        /// Their node.
        node: Arc<str>,
        /// The frame.
        frame: RelayedFrame,
        /// What that node confirms.
        number: SignalNumber,
    },
    /// Signals of another node were read here.
    Confirm {
        /// That node.
        node: Arc<str>,
        /// Which.
        receipts: SignalReceipts,
    },
    /// A rule or an announcement of another node has taken effect here.
    ConfirmEffect(EffectReceipt),
    /// See [`ClusterEvent::EvictionRequested`].
    Evict(Eviction),
    /// See [`ClusterEvent::EvictionAnswered`].
    AnswerEviction {
        /// What is answered.
        eviction: Eviction,
        /// Whether there is no such membership any more.
        is_gone: bool,
    },
    /// See [`ClusterEvent::PeerState`].
    PeerState {
        /// The node that is to know.
        node: Arc<str>,
        /// The room.
        room: Arc<str>,
        /// The member.
        client_id: Arc<str>,
        /// The key of its connection.
        key: u64,
        /// Whether its connection is gone.
        is_detached: bool,
    },
    /// The client of a membership on another node is here; [`ClusterGateway::resolve_claim`](super::ClusterGateway::resolve_claim)
    /// gets the answer.
    Claim {
        /// The room.
        room: Arc<str>,
        /// The member.
        client_id: Arc<str>,
        /// See [`Claim::membership`].
        membership: u128,
        /// See [`Claim::ends`].
        ends: Option<u64>,
        /// The key of the connection that it will be on.
        key: u64,
        /// See [`Claim::context`].
        context: ByteString,
    },
    /// See [`ClusterEvent::ClaimDenied`].
    DenyClaim {
        /// Which membership.
        migration: Migration,
        /// As there.
        live: Option<u64>,
    },
    /// A local membership is to be on another node.
    Move(Migration),
    /// See [`ClusterEvent::BarrierReached`].
    Barrier(Migration),
    /// See [`ClusterEvent::HandedOver`].
    HandOver(HandOver),
}

/// Something that has happened in a room, in the order in which it did.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// A client of this node is a member.
    Admitted {
        /// The room.
        room: Arc<str>,
        /// The member.
        record: MemberRecord,
        /// All members of the room.
        members: Vec<MemberRecord>,
    },
    /// A client is a member on another node.
    Joined {
        /// The room.
        room: Arc<str>,
        /// The member.
        record: MemberRecord,
    },
    /// A membership has ended.
    Left {
        /// The room.
        room: Arc<str>,
        /// The member.
        client_id: Arc<str>,
        /// Its connection: a membership on a newer one stays.
        connection: ConnectionId,
    },
    /// A member of another node has sent a frame.
    Relayed {
        /// The room.
        room: Arc<str>,
        /// The sender.
        from: Arc<str>,
        /// The sender's connection.
        connection: ConnectionId,
        /// The target; nothing for all members here.
        to: Option<Arc<str>>,
        /// The changes of the room that the sender's node had applied.
        epoch: Epoch,
        /// What the targets receive.
        frame: ByteString,
        /// What its node wants to be told of.
        number: SignalNumber,
    },
    /// Another node has read signals of this one.
    Confirmed {
        /// That node.
        node: Arc<str>,
        /// The Redis that they went through.
        engine: usize,
        /// Which.
        receipts: SignalReceipts,
    },
    /// The connection of a member of another node is gone, and may come back; or is back.
    PeerState {
        /// The room.
        room: Arc<str>,
        /// The member.
        client_id: Arc<str>,
        /// Its connection.
        connection: ConnectionId,
        /// Whether that is gone.
        is_detached: bool,
    },
    /// The members of a room, after this node was cut off.
    Snapshot {
        /// The room.
        room: Arc<str>,
        /// Its members.
        members: Vec<MemberRecord>,
        /// They are as of this epoch.
        epoch: Epoch,
    },
    /// Another node has a new connection for the user of a local membership, and no place for it: the membership is to end
    /// where no client is behind it.
    EvictionRequested(Eviction),
    /// The answer to that.
    EvictionAnswered {
        /// See [`Eviction::number`].
        number: u64,
        /// Whether there is no such membership any more.
        is_gone: bool,
    },
    /// The client of a local membership is on another node, and wants to resume there.
    Claimed(Claim),
    /// A claim is not granted; or the membership has moved, and its frames do not follow, for it had ended meanwhile.
    ClaimDenied {
        /// Which membership.
        migration: Migration,
        /// Its client has a connection there, with this number, that may be dead: a claim that is repeated has to say that
        /// this one is to end.
        live: Option<u64>,
    },
    /// A membership is on another node than before.
    Moved {
        /// Which membership.
        migration: Migration,
        /// The member.
        record: MemberRecord,
        /// From this epoch on the membership is there.
        epoch: Epoch,
        /// For the node that it has come to: all members of the room.
        members: Vec<MemberRecord>,
        /// For the node that it has left: those that may have sent it a frame before they read of the move.
        nodes: Vec<Arc<str>>,
    },
    /// What a node sends to a member from now on goes to its new node.
    BarrierReached {
        /// Which membership.
        migration: Migration,
        /// The node.
        node: Arc<str>,
    },
    /// All that was sent to a member before it was here.
    HandedOver {
        /// Which membership.
        migration: Migration,
        /// What this node wanted back with it.
        context: ByteString,
        /// Its frames.
        state: Box<MigrationState>,
    },
}

/// Another node's wish for a membership of this one.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Which membership, and where it is to go.
    pub migration: Migration,
    /// Tells the membership from all others of the client id.
    pub membership: u128,
    /// The connection of its client here that is to end for it, if any; see [`ClusterEvent::ClaimDenied`].
    pub ends: Option<u64>,
    /// What its new node wants back with it.
    pub context: ByteString,
}

/// A membership that may be dead, and the node that wants its place.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// The room.
    pub room: Arc<str>,
    /// The member.
    pub client_id: Arc<str>,
    /// Its connection.
    pub connection: ConnectionId,
    /// The node that has asked.
    pub asking_node: Arc<str>,
    /// The number that it has given that.
    pub number: u64,
}

/// Which node is to be told that an entry has taken effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectReceipt {
    /// The node that has written the entry.
    pub node: Arc<str>,
    /// The number that it has given it.
    pub number: u64,
}
