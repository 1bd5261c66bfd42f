//! Rooms in which every message goes to all members.

use std::{io, time::Instant};

use hdrhistogram::Histogram;

use super::{Numbered, Steady, histogram, join_all, number_of, out_of_order};
use crate::load::{Identity, Load, Scenario};

/// One offer at a time is sent in each room; a unit is one delivery.
pub struct Broadcast {
    size: usize,
    joined: usize,
    rooms: Vec<Room>,
    offer: Numbered,
    running: bool,
    received: u64,
    latency: Histogram<u64>,
}

struct Room {
    /// The number of the message in flight, or of the next one.
    number: u64,
    /// How many members have not received it yet.
    missing: usize,
    sent_at: Instant,
}

impl Broadcast {
    /// `rooms` with `size` members each.
    pub fn join(load: &mut Load, rooms: usize, size: usize) -> io::Result<Self> {
        let room = || Room { number: 0, missing: 0, sent_at: Instant::now() };
        let mut broadcast = Self {
            size,
            joined: 0,
            rooms: (0..rooms).map(|_| room()).collect(),
            offer: Numbered::offer(None),
            running: false,
            received: 0,
            latency: histogram(),
        };
        let identities = (0..rooms * size).map(|index| Identity {
            room: format!("broadcast-{}", index / size),
            id: format!("m{}", index % size),
        });
        join_all(load, &mut broadcast, identities, |broadcast| broadcast.joined)?;
        Ok(broadcast)
    }

    fn send(&mut self, load: &mut Load, room: usize) -> io::Result<()> {
        let state = &mut self.rooms[room];
        (state.missing, state.sent_at) = (self.size - 1, Instant::now());
        let sender = room * self.size + state.number as usize % self.size;
        load.send(sender, self.offer.with(state.number))
    }
}

impl Scenario for Broadcast {
    fn joined(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.joined += 1;
        Ok(())
    }

    fn received(&mut self, load: &mut Load, index: usize, message: &[u8]) -> io::Result<()> {
        let Some(number) = number_of(message) else { return Ok(()) };
        let room = index / self.size;
        let state = &mut self.rooms[room];
        if number != state.number || state.missing == 0 {
            return Err(out_of_order(index, state.number, number));
        }
        state.missing -= 1;
        self.received += 1;
        self.latency.saturating_record(state.sent_at.elapsed().as_micros() as u64);
        if state.missing == 0 {
            state.number += 1;
            if self.running {
                self.send(load, room)?;
            }
        }
        Ok(())
    }
}

impl Steady for Broadcast {
    fn start(&mut self, load: &mut Load) -> io::Result<()> {
        self.running = true;
        (0..self.rooms.len()).try_for_each(|room| self.send(load, room))
    }

    fn stop(&mut self) {
        self.running = false;
    }

    fn is_idle(&self) -> bool {
        self.rooms.iter().all(|room| room.missing == 0)
    }

    fn units(&self) -> u64 {
        self.received
    }

    fn take_latency(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency, histogram())
    }
}
