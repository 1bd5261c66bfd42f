//! What happens in a room, as one value for every subscriber: the timeline, the webhooks, and the peers.

use bytestring::ByteString;
use tokio::time::Instant;

use super::{Peer, room::Room, routing::push_to_all};
use crate::{
    protocol::{CallReport, MediaPath, ServerMessage, SignalKind},
    timeline::{PeerRef, TimelineEntry},
    webhooks::WebhookEvent,
};

/// The state of a peer whose connection is gone, and which may come back.
pub(super) const STATE_DETACHED: &str = "reconnecting";
pub(super) const STATE_CONNECTED: &str = "connected";

/// A member that an event is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventMember<'a> {
    pub(super) peer: &'a Peer,
    /// What the timeline knows it by.
    pub(super) peer_ref: PeerRef,
}

/// Something that has happened in a room. It borrows, so that emitting one allocates nothing that no subscriber needs.
#[derive(Clone, Copy, Debug)]
pub(super) enum RoomEvent<'a> {
    /// The first member comes. Webhooks do not get it where the room `is_continued`: a member replaces itself in it, or was
    /// in it before this process began.
    Opened { is_continued: bool },
    /// The last member has left. Webhooks do not get it where the room `is_continued`: the member is replaced.
    Closed { is_continued: bool },
    /// A member has joined; how many there are now.
    Joined { member: EventMember<'a>, connected_users: usize },
    /// A member has left; how many there are now.
    Left { member: EventMember<'a>, reason: &'static str, connected_users: usize },
    /// The connection of a member is gone, and may come back. Peers get it where it `is_reported`.
    Detached { member: EventMember<'a>, is_reported: bool },
    /// A member is back. Peers get it where its absence was reported to them.
    Resumed { member: EventMember<'a>, replayed: usize, is_reported: bool },
    /// A membership has gone to another node.
    Moved { member: PeerRef },
    /// A membership has come from another node, or from the process before this one. Peers that did not know of it get that
    /// it has joined, and how many there are now.
    Arrived { member: EventMember<'a>, announced_users: Option<usize> },
    /// A signal was routed, or could not be. Its targets receive the signal itself.
    Signal { kind: SignalKind, bytes: usize, from: PeerRef, to: PeerRef, outcome: &'static str },
    /// A client was not let in.
    Refused { peer: PeerRef, reason: &'static str },
    /// What a member reports of one of its calls.
    CallReported {
        member: EventMember<'a>,
        peer: Option<EventMember<'a>>,
        report: &'a CallReport<'a>,
    },
    /// What an administrator has done, perhaps to one member.
    Moderated { action: &'static str, member: PeerRef },
}

impl RoomEvent<'_> {
    /// The event as the timeline stores it.
    fn to_timeline_entry(self) -> TimelineEntry {
        let saturate = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        match self {
            Self::Opened { .. } => TimelineEntry::Opened,
            Self::Closed { .. } => TimelineEntry::Closed,
            Self::Joined { member, .. } => TimelineEntry::Joined { member: member.peer_ref },
            Self::Left { member, reason, .. } => {
                TimelineEntry::Left { member: member.peer_ref, reason }
            }
            Self::Detached { member, .. } => TimelineEntry::Detached { member: member.peer_ref },
            Self::Resumed { member, replayed, .. } => TimelineEntry::Resumed {
                member: member.peer_ref,
                replayed: saturate(replayed as u64),
            },
            Self::Moved { member } => TimelineEntry::Moved { member },
            Self::Arrived { member, .. } => TimelineEntry::Arrived { member: member.peer_ref },
            Self::Signal { kind, bytes, from, to, outcome } => {
                TimelineEntry::Signal { kind, bytes: saturate(bytes as u64), from, to, outcome }
            }
            Self::Refused { peer, reason } => TimelineEntry::Refused { peer, reason },
            Self::CallReported { member, peer, report } => TimelineEntry::CallReported {
                member: member.peer_ref,
                peer: peer.map_or(0, |peer| peer.peer_ref),
                outcome: report.outcome,
                path: report.path,
                ms: saturate(report.ms),
            },
            Self::Moderated { action, member } => TimelineEntry::Moderated { action, member },
        }
    }

    /// The event as webhooks receive it, where they do.
    fn to_webhook(self) -> Option<WebhookEvent> {
        let names = |member: EventMember<'_>| {
            let Peer { client_id, username, .. } = member.peer.clone();
            (client_id, username)
        };
        match self {
            Self::Opened { is_continued: false } => Some(WebhookEvent::RoomOpened {}),
            Self::Closed { is_continued: false } => Some(WebhookEvent::RoomClosed {}),
            Self::Joined { member, .. } => {
                let (client_id, username) = names(member);
                Some(WebhookEvent::MemberJoined { client_id, username })
            }
            Self::Left { member, reason, .. } => {
                let (client_id, username) = names(member);
                Some(WebhookEvent::MemberLeft { client_id, username, reason: reason.to_owned() })
            }
            Self::CallReported { member, peer, report } => {
                let (client_id, username) = names(member);
                Some(WebhookEvent::CallReport {
                    client_id,
                    username,
                    peer: peer.map(|peer| peer.peer.client_id.clone()),
                    outcome: report.outcome.as_str(),
                    ms: report.ms,
                    path: report.path.map(MediaPath::as_str),
                })
            }
            Self::Opened { is_continued: true }
            | Self::Closed { is_continued: true }
            | Self::Detached { .. }
            | Self::Resumed { .. }
            | Self::Moved { .. }
            | Self::Arrived { .. }
            | Self::Signal { .. }
            | Self::Refused { .. }
            | Self::Moderated { .. } => None,
        }
    }
}

impl Room {
    /// Gives an event to every subscriber.
    pub(super) fn emit(&mut self, now: Instant, event: RoomEvent<'_>) {
        if let Some(timeline) = &mut self.timeline {
            timeline.record(now, event.to_timeline_entry());
        }
        self.notify_webhooks(event);
        self.notify_peers(event);
    }

    /// Where several nodes share rooms, Redis numbers the events, and the node that has made it change a membership reports
    /// that change: the cluster's command writer.
    fn notify_webhooks(&mut self, event: RoomEvent<'_>) {
        let is_report = matches!(event, RoomEvent::CallReported { .. });
        if (self.is_shared && !is_report) || (is_report && !self.webhooks.is_enabled()) {
            return;
        }
        let Some(webhook) = event.to_webhook() else { return };
        if !self.is_shared {
            self.webhook_seq += 1;
            self.webhooks.publish(&self.id, self.webhook_seq, webhook);
        } else if self.backend.publish_event(&self.id, webhook).is_err() {
            self.webhooks.record_missed();
        }
    }

    fn notify_peers(&self, event: RoomEvent<'_>) {
        match event {
            RoomEvent::Joined { member, connected_users } => {
                self.announce_join(member.peer, connected_users);
            }
            RoomEvent::Arrived { member, announced_users: Some(connected_users) } => {
                self.announce_join(member.peer, connected_users);
            }
            RoomEvent::Left { member, connected_users, .. } => {
                let Peer { client_id, username, .. } = member.peer;
                self.push_to_others(client_id, None, || {
                    let message = ServerMessage::UserLeft {
                        room_id: &self.id,
                        client_id,
                        username,
                        connected_users,
                    };
                    message.encode()
                });
            }
            RoomEvent::Detached { member, is_reported: true } => {
                self.announce_state(&member.peer.client_id, STATE_DETACHED);
            }
            RoomEvent::Resumed { member, is_reported: true, .. } => {
                self.announce_state(&member.peer.client_id, STATE_CONNECTED);
            }
            RoomEvent::Opened { .. }
            | RoomEvent::Closed { .. }
            | RoomEvent::Detached { is_reported: false, .. }
            | RoomEvent::Resumed { is_reported: false, .. }
            | RoomEvent::Moved { .. }
            | RoomEvent::Arrived { announced_users: None, .. }
            | RoomEvent::Signal { .. }
            | RoomEvent::Refused { .. }
            | RoomEvent::CallReported { .. }
            | RoomEvent::Moderated { .. } => {}
        }
    }

    fn announce_join(&self, peer: &Peer, connected_users: usize) {
        self.push_to_others(&peer.client_id, None, || {
            let message = ServerMessage::UserJoined {
                room_id: &self.id,
                username: &peer.username,
                client_id: &peer.client_id,
                name: peer.name.as_deref(),
                connected_users,
                polite: false,
            };
            message.encode()
        });
    }

    /// Tells peers that want to know whether a member is detached, here and on other nodes.
    fn announce_state(&self, client_id: &str, state: &str) {
        self.announce_state_locally(client_id, state);
        if !self.is_shared {
            return;
        }
        let Some(member) = self.find(client_id) else { return };
        for node in self.remote_nodes() {
            self.report_state_to(member, node, state == STATE_DETACHED);
        }
    }

    /// The same on this node alone.
    pub(super) fn announce_state_locally(&self, client_id: &str, state: &str) {
        let wants_state = |other: &&super::room::RoomMember| {
            other.queue().is_some_and(|queue| queue.features().peer_state)
        };
        push_to_all(self.others(client_id).filter(wants_state), None, || {
            peer_state_frame(client_id, state)
        });
    }
}

pub(super) fn peer_state_frame(client_id: &str, state: &str) -> ByteString {
    ServerMessage::PeerState { client_id, state }.encode()
}
