//! What REST, metrics and the admin page ask of all rooms of this node.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{MemberSnapshot, RoomRegistry};
use crate::timeline::TimelineView;

impl RoomRegistry {
    /// The timeline of a room on this node, also for a while after it is closed. `unix_ms` is the time, in milliseconds since
    /// the Unix epoch.
    pub fn timeline(&self, id: &str, unix_ms: u64) -> Option<TimelineView> {
        let now = Instant::now();
        if let Some(room) = self.find(id)
            && let Some(view) = room.lock().timeline_view((now, unix_ms))
        {
            return Some(view);
        }
        let mut archive = self.archive();
        archive.evict_expired(self.0.timelines, now);
        let (id, timeline) = archive.get(id)?;
        Some(timeline.view(id, false, (now, unix_ms)))
    }

    /// Closed rooms that have a timeline, the latest first, each with how long it has been closed.
    pub fn closed_rooms(&self) -> Vec<(Arc<str>, Duration)> {
        let now = Instant::now();
        let mut archive = self.archive();
        archive.evict_expired(self.0.timelines, now);
        let closed = archive.closed_rooms();
        closed.map(|(room, since)| (room.clone(), now.duration_since(since))).collect()
    }

    /// The members of a room, as far as this node knows: all of them where one of them is on it.
    pub fn member_snapshots(&self, room: &str) -> Vec<MemberSnapshot> {
        self.find(room).map_or_else(Vec::new, |room| room.lock().member_snapshots(Instant::now()))
    }

    /// How many members `room` has; nothing where there is no such room.
    pub fn member_count(&self, room: &str) -> Option<usize> {
        let room = self.0.rooms.get(room)?.value().clone();
        Some(room.lock().len()).filter(|members| *members > 0)
    }

    /// Every room of this node and its number of members, by name.
    pub fn list(&self) -> Vec<(Arc<str>, usize)> {
        // Clones first: no join waits while other rooms are counted.
        let counted = self.all().into_iter().map(|(id, room)| (id, room.lock().len()));
        let mut rooms: Vec<_> = counted.filter(|(_, members)| *members > 0).collect();
        rooms.sort_unstable();
        rooms
    }

    /// How many frames wait for members, and for the one with the most.
    pub fn queued_frames(&self) -> (usize, usize) {
        let rooms: Vec<_> = self.0.rooms.iter().map(|room| room.value().clone()).collect();
        rooms.iter().fold((0, 0), |(all, most), room| {
            let (here, deepest) = room.lock().queued_frames();
            (all + here, most.max(deepest))
        })
    }

    /// How many members all rooms have together.
    pub fn member_total(&self) -> usize {
        self.0.members.load(Ordering::Relaxed)
    }

    /// How many rooms there are.
    pub fn room_count(&self) -> usize {
        self.0.rooms.len()
    }
}
