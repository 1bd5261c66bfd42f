//! What a room shows of itself to administrators and metrics, and what it records on the word of others.

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Peer, RouteError,
    events::RoomEvent,
    room::{Room, RoomMember},
};
use crate::{
    delivery::ClientQueue,
    protocol::{CallReport, MediaPath, Signal},
    timeline::{Timeline, TimelineView},
};

/// A member, as administrators see it.
#[derive(Debug)]
pub struct MemberSnapshot {
    /// The member.
    pub peer: Peer,
    /// Its node, where that is another one.
    pub node: Option<Arc<str>>,
    /// Its connection is gone, and may come back.
    pub is_detached: bool,
    /// How long it has been here.
    pub age: Duration,
    /// The address that its connection comes from, on this node.
    pub address: Option<IpAddr>,
    /// The round trip time of its last Ping, on this node.
    pub ping_rtt: Option<Duration>,
    /// How the media of its last call travelled, as it reports.
    pub path: Option<MediaPath>,
}

impl Room {
    /// The members, by client id.
    pub(super) fn member_snapshots(&self, now: Instant) -> Vec<MemberSnapshot> {
        let snapshot = |member: &RoomMember| {
            let (address, ping_rtt, path) =
                member.queue().map(ClientQueue::connection_info).unwrap_or_default();
            MemberSnapshot {
                peer: member.peer.clone(),
                node: member.node().cloned(),
                is_detached: member.is_detached(),
                age: now.saturating_duration_since(member.since),
                address,
                ping_rtt,
                path,
            }
        };
        self.members.iter().map(snapshot).collect()
    }

    /// How many frames wait for local members, and for the one with the most.
    pub(super) fn queued_frames(&self) -> (usize, usize) {
        let queued = self.members.iter().filter_map(RoomMember::queue).map(ClientQueue::queued);
        queued.fold((0, 0), |(all, most), frames| (all + frames, most.max(frames)))
    }

    /// Takes the timeline, once the room is closed.
    pub(super) fn take_timeline(&mut self) -> Option<Box<Timeline>> {
        self.timeline.take()
    }

    /// The timeline, where timelines are kept; `now` on both clocks, the second in milliseconds since the Unix epoch.
    pub(super) fn timeline_view(&self, now: (Instant, u64)) -> Option<TimelineView> {
        let is_open = !self.members.is_empty();
        self.timeline.as_ref().map(|timeline| timeline.view(&self.id, is_open, now))
    }

    /// Records a `signal` of `from` and its outcome.
    pub(super) fn record_signal(
        &mut self,
        from: &Peer,
        signal: &Signal<'_>,
        routed: &Result<bool, RouteError>,
        now: Instant,
    ) {
        if self.timeline.is_none() {
            return;
        }
        let outcome = match routed {
            Ok(true) => "sent",
            Ok(false) => "queued",
            Err(error) => error.code().unwrap_or("replaced"),
        };
        let peer_ref = |client_id: &str| self.find(client_id).map_or(0, |member| member.peer_ref);
        let (from, to) = (peer_ref(&from.client_id), signal.to.as_deref().map_or(0, peer_ref));
        let (kind, bytes) = (signal.kind, signal.payload.get().len());
        self.emit(now, RoomEvent::Signal { kind, bytes, from, to, outcome });
    }

    /// Records what a member reports of one of its calls.
    pub(super) fn record_call_report(
        &mut self,
        member: &Peer,
        report: &CallReport<'_>,
        now: Instant,
    ) {
        let reporter = self.find(&member.client_id);
        if let (Some(path), Some(queue)) = (report.path, reporter.and_then(RoomMember::queue)) {
            queue.set_media_path(path);
        }
        let peer_ref = reporter.map_or(0, |reporter| reporter.peer_ref);
        let peer = report.peer.as_deref().and_then(|peer| self.find(peer));
        let peer = peer.map(|peer| (peer.peer.clone(), peer.peer_ref));
        let event_member = |(peer, peer_ref)| super::events::EventMember { peer, peer_ref };
        let peer = peer.as_ref().map(|(peer, peer_ref)| event_member((peer, *peer_ref)));
        let member = event_member((member, peer_ref));
        self.emit(now, RoomEvent::CallReported { member, peer, report });
    }

    /// Records that a client was not let in, for a constant of this server.
    pub(super) fn record_refusal(&mut self, peer: &Peer, reason: &'static str, now: Instant) {
        let peer = self.peer_ref(peer);
        self.emit(now, RoomEvent::Refused { peer, reason });
    }

    /// Records what an administrator has done about the room.
    pub(super) fn record_moderation(&mut self, action: &'static str, now: Instant) {
        self.emit(now, RoomEvent::Moderated { action, member: 0 });
    }
}
