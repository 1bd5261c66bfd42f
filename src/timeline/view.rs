//! A timeline as administrators see it.

use std::sync::Arc;

use serde::Serialize;

use super::{PeerRef, TimelineEntry};
use crate::{peer::Peer, protocol::MediaPath};

/// The timeline of a room, as it is shown.
#[derive(Debug, Serialize)]
pub struct TimelineView {
    /// Which room.
    pub room_id: Arc<str>,
    /// Whether it has members.
    pub is_open: bool,
    /// Events that are no longer kept.
    pub dropped: u64,
    /// The oldest first.
    pub events: Vec<TimelineEvent>,
}

/// One event, as it is shown; what does not apply is left out.
#[derive(Debug, Default, Serialize)]
pub struct TimelineEvent {
    /// Counts from 1 for as long as the room's timeline is kept.
    pub seq: u64,
    /// In milliseconds since the Unix epoch.
    pub at: u64,
    /// `opened`, `closed`, `joined`, `left`, `away`, `resumed`, `moved`, `arrived`, `refused`, `call_report`, `moderated`, or the type of a
    /// message between members, as its `SignalKind` is called on the wire.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The member that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Arc<str>>,
    /// Its account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<Arc<str>>,
    /// The target of a message, or the other end of a call. A message without it went to every other member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Arc<str>>,
    /// The length of a message's payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u32>,
    /// `sent`, `queued`, the code of the error that a message was answered with, the reason why a member left or was
    /// refused, what an administrator did, or how a call ended up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// How the media of a call travel: `host`, `srflx`, `relay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// How long a call took to be set up, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u32>,
    /// How many frames a member received that it had missed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u32>,
}

impl TimelineEvent {
    /// An `entry` as it is shown; `peer` looks up the peers that it refers to.
    pub(super) fn new<'a>(
        seq: u64,
        at: u64,
        entry: &TimelineEntry,
        peer: impl Fn(PeerRef) -> Option<&'a Peer>,
    ) -> Self {
        let event = |member: PeerRef| {
            let member = peer(member);
            Self {
                seq,
                at,
                kind: entry.kind(),
                client_id: member.map(|peer| peer.client_id.clone()),
                username: member.map(|peer| peer.username.clone()),
                ..Self::default()
            }
        };
        let client_id = |peer_ref: PeerRef| peer(peer_ref).map(|peer| peer.client_id.clone());
        match *entry {
            TimelineEntry::Opened | TimelineEntry::Closed => event(0),
            TimelineEntry::Joined { member }
            | TimelineEntry::Detached { member }
            | TimelineEntry::Moved { member }
            | TimelineEntry::Arrived { member } => event(member),
            TimelineEntry::Left { member, reason }
            | TimelineEntry::Refused { peer: member, reason } => {
                Self { outcome: Some(reason), ..event(member) }
            }
            TimelineEntry::Resumed { member, replayed } => {
                Self { replayed: Some(replayed), ..event(member) }
            }
            TimelineEntry::Signal { bytes, from, to, outcome, .. } => Self {
                to: client_id(to),
                bytes: Some(bytes),
                outcome: Some(outcome),
                ..event(from)
            },
            TimelineEntry::CallReported { member, peer, outcome, path, ms } => Self {
                to: client_id(peer),
                outcome: Some(outcome.as_str()),
                path: path.map(MediaPath::as_str),
                ms: Some(ms),
                ..event(member)
            },
            TimelineEntry::Moderated { action, member } => {
                Self { outcome: Some(action), ..event(member) }
            }
        }
    }
}
