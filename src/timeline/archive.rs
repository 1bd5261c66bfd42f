//! The timelines of rooms that are closed, for a while.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::Timeline;

/// Timelines of closed rooms that are kept at most.
const MAX_ARCHIVED_TIMELINES: usize = 1024;

/// The timelines of rooms that are closed.
#[derive(Default)]
pub struct TimelineArchive {
    /// With the time at which each room was closed.
    rooms: HashMap<Arc<str>, (Instant, Box<Timeline>)>,
    /// The same times, the oldest first; also of rooms that were opened again.
    order: VecDeque<(Instant, Arc<str>)>,
}

impl TimelineArchive {
    /// Keeps the timeline of a room that is closed at `now`; the oldest go where there are too many, or while they hold too
    /// much memory.
    pub fn insert(
        &mut self,
        room: Arc<str>,
        timeline: Box<Timeline>,
        now: Instant,
        is_too_much: impl Fn() -> bool,
    ) {
        self.order.push_back((now, room.clone()));
        self.rooms.insert(room, (now, timeline));
        while self.order.len() > MAX_ARCHIVED_TIMELINES || (!self.order.is_empty() && is_too_much())
        {
            self.evict_oldest();
        }
    }

    /// Takes out the timeline of a room that is opened again.
    pub fn remove(&mut self, room: &str) -> Option<Box<Timeline>> {
        self.rooms.remove(room).map(|(_, timeline)| timeline)
    }

    /// The timeline of a closed room, and the room's id.
    pub fn get(&self, room: &str) -> Option<(&Arc<str>, &Timeline)> {
        self.rooms.get_key_value(room).map(|(room, (_, timeline))| (room, &**timeline))
    }

    /// The same, for a further entry.
    pub fn get_mut(&mut self, room: &str) -> Option<&mut Timeline> {
        self.rooms.get_mut(room).map(|(_, timeline)| &mut **timeline)
    }

    /// The closed rooms, the latest first, each with the time at which it was closed.
    pub fn closed_rooms(&self) -> impl Iterator<Item = (&Arc<str>, Instant)> {
        let is_current = |room: &Arc<str>, since: Instant| {
            self.rooms.get(room).is_some_and(|(known, _)| *known == since)
        };
        let order = self.order.iter().rev();
        let current = order.filter(move |(since, room)| is_current(room, *since));
        current.map(|(since, room)| (room, *since))
    }

    /// Drops timelines of rooms that were closed `window` ago or longer.
    pub fn evict_expired(&mut self, window: Duration, now: Instant) {
        while self.order.front().is_some_and(|(since, _)| now.duration_since(*since) >= window) {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some((since, room)) = self.order.pop_front()
            && self.rooms.get(&room).is_some_and(|(known, _)| *known == since)
        {
            self.rooms.remove(&room);
        }
    }
}
