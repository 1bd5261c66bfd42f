//! One event as a timeline stores it: small, and without a name of its own.

use crate::protocol::{CallOutcome, MediaPath, SignalKind};

/// Stands for a peer; 0 for none.
pub type PeerRef = u32;

/// One event. Its texts are constants of this server.
#[derive(Clone, Copy, Debug)]
pub enum TimelineEntry {
    /// The first member comes.
    Opened,
    /// The last member has left.
    Closed,
    /// A member has joined.
    Joined {
        /// Which.
        member: PeerRef,
    },
    /// A member has left.
    Left {
        /// Which.
        member: PeerRef,
        /// Why.
        reason: &'static str,
    },
    /// The connection of a member is gone, and may come back.
    Detached {
        /// Which.
        member: PeerRef,
    },
    /// A member is back.
    Resumed {
        /// Which.
        member: PeerRef,
        /// How many frames it received that it had missed.
        replayed: u32,
    },
    /// A membership has gone to another node.
    Moved {
        /// Whose.
        member: PeerRef,
    },
    /// A membership has come from another node, or from the process before this one.
    Arrived {
        /// Whose.
        member: PeerRef,
    },
    /// A signal; `to` is 0 where it went to every other member, or, by the `outcome`, to a peer that is not in the room.
    Signal {
        /// Its type.
        kind: SignalKind,
        /// The length of its payload.
        bytes: u32,
        /// Its sender.
        from: PeerRef,
        /// Its target.
        to: PeerRef,
        /// `sent`, `queued`, or an error code.
        outcome: &'static str,
    },
    /// A client was not let in.
    Refused {
        /// Which.
        peer: PeerRef,
        /// The error code.
        reason: &'static str,
    },
    /// What a member reports of one of its calls.
    CallReported {
        /// The member.
        member: PeerRef,
        /// The other end of the call.
        peer: PeerRef,
        /// How it ended up.
        outcome: CallOutcome,
        /// How the media travel.
        path: Option<MediaPath>,
        /// How long the call took to be set up, in milliseconds.
        ms: u32,
    },
    /// What an administrator has done.
    Moderated {
        /// Such as `ban`.
        action: &'static str,
        /// To which member, where it was one.
        member: PeerRef,
    },
}

impl TimelineEntry {
    /// The `type` of the event.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Joined { .. } => "joined",
            Self::Left { .. } => "left",
            Self::Detached { .. } => "away",
            Self::Resumed { .. } => "resumed",
            Self::Moved { .. } => "moved",
            Self::Arrived { .. } => "arrived",
            Self::Signal { kind, .. } => kind.as_str(),
            Self::Refused { .. } => "refused",
            Self::CallReported { .. } => "call_report",
            Self::Moderated { .. } => "moderated",
        }
    }

    /// The peers that it names.
    pub(super) fn peer_refs(self) -> [PeerRef; 2] {
        match self {
            Self::Opened | Self::Closed => [0, 0],
            Self::Joined { member }
            | Self::Left { member, .. }
            | Self::Detached { member }
            | Self::Resumed { member, .. }
            | Self::Moved { member }
            | Self::Arrived { member }
            | Self::Refused { peer: member, .. }
            | Self::Moderated { member, .. } => [member, 0],
            Self::Signal { from, to, .. } => [from, to],
            Self::CallReported { member, peer, .. } => [member, peer],
        }
    }
}
