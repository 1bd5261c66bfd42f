//! Rooms in which everybody hears everything.

use std::{io, time::Instant};

use hdrhistogram::Histogram;

use super::{Numbered, Steady, histogram, number_of, out_of_order, sit_down};
use crate::load::{Identity, Load, Scenario};

/// One offer at a time goes round in each room; a unit is one member that has heard it.
pub struct Broadcast {
    size: usize,
    seated: usize,
    rooms: Vec<Room>,
    offer: Numbered,
    running: bool,
    heard: u64,
    latency: Histogram<u64>,
}

struct Room {
    /// The number of the message that is on its way, or of the next.
    number: u64,
    /// Who has not heard it yet.
    missing: usize,
    sent_at: Instant,
}

impl Broadcast {
    /// `rooms` with `size` members each.
    pub fn seat(load: &mut Load, rooms: usize, size: usize) -> io::Result<Self> {
        let room = || Room { number: 0, missing: 0, sent_at: Instant::now() };
        let mut broadcast = Self {
            size,
            seated: 0,
            rooms: (0..rooms).map(|_| room()).collect(),
            offer: Numbered::offer(None),
            running: false,
            heard: 0,
            latency: histogram(),
        };
        let identities = (0..rooms * size).map(|who| Identity {
            room: format!("broadcast-{}", who / size),
            id: format!("m{}", who % size),
        });
        sit_down(load, &mut broadcast, identities, |broadcast| broadcast.seated)?;
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
    fn seated(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.seated += 1;
        Ok(())
    }

    fn heard(&mut self, load: &mut Load, who: usize, message: &[u8]) -> io::Result<()> {
        let Some(number) = number_of(message) else { return Ok(()) };
        let room = who / self.size;
        let state = &mut self.rooms[room];
        if number != state.number || state.missing == 0 {
            return Err(out_of_order(who, state.number, number));
        }
        state.missing -= 1;
        self.heard += 1;
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
    fn begin(&mut self, load: &mut Load) -> io::Result<()> {
        self.running = true;
        (0..self.rooms.len()).try_for_each(|room| self.send(load, room))
    }

    fn end(&mut self) {
        self.running = false;
    }

    fn is_still(&self) -> bool {
        self.rooms.iter().all(|room| room.missing == 0)
    }

    fn units(&self) -> u64 {
        self.heard
    }

    fn take_latency(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency, histogram())
    }
}
