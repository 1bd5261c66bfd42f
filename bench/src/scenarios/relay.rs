//! Pairs that send offers to each other: an answer to each, or at a fixed rate.

use std::{
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memchr::memmem;

use super::{Numbered, OFFER, Steady, TIMEOUT, histogram, join_all, number_of, out_of_order};
use crate::load::{Identity, Load, Scenario};

/// Rooms of two. A unit is a delivered message.
pub struct Relay {
    joined: usize,
    /// How many `user_joined` frames were received.
    introduced: usize,
    /// For each client: messages sent and received.
    counts: Vec<(u64, u64)>,
    /// For each client: when its messages in flight were due to be sent.
    in_flight: Vec<std::collections::VecDeque<Instant>>,
    to_first: Numbered,
    to_second: Numbered,
    pace: Pace,
    running: bool,
    received: u64,
    latency: Histogram<u64>,
}

/// When the next message is sent.
enum Pace {
    /// When one was received; `at_once` are in flight in each room.
    Answering { at_once: usize },
    /// At fixed intervals, by one client after the other.
    Steady { every: Duration, next: Instant, sender: usize },
}

impl Relay {
    /// `rooms` with two members each, and `others` with one silent member each. With `per_second`, so many messages are
    /// sent in all rooms together, whether or not earlier ones have arrived; else one is in flight in each room.
    pub fn join(
        load: &mut Load,
        rooms: usize,
        others: usize,
        per_second: Option<u32>,
    ) -> io::Result<Self> {
        let pace = per_second.map_or(Pace::Answering { at_once: 1 }, |rate| Pace::Steady {
            every: Duration::from_secs(1) / rate,
            next: Instant::now(),
            sender: 0,
        });
        let mut relay = Self::new(rooms, pace, OFFER);
        let other = |room| Identity { room: format!("other-{room}"), id: "only".to_owned() };
        let identities = pairs(rooms).chain((0..others).map(other));
        join_all(load, &mut relay, identities, |relay| relay.joined)?;
        Ok(relay)
    }

    /// `rooms` with two members each, and `at_once` messages of about `bytes` in flight in each.
    pub fn flood(load: &mut Load, rooms: usize, at_once: usize, bytes: usize) -> io::Result<Self> {
        let mut relay = Self::new(rooms, Pace::Answering { at_once }, bytes);
        join_all(load, &mut relay, pairs(rooms), |relay| relay.joined)?;
        Ok(relay)
    }

    /// Waits until the members know each other: on two nodes, a member may join before the other node has announced its peer.
    pub fn introduce(mut self, load: &mut Load) -> io::Result<Self> {
        let rooms = self.counts.len() / 2;
        load.until(&mut self, TIMEOUT, |relay| relay.introduced == rooms)?;
        Ok(self)
    }

    fn new(rooms: usize, pace: Pace, bytes: usize) -> Self {
        Self {
            joined: 0,
            introduced: 0,
            counts: vec![(0, 0); 2 * rooms],
            in_flight: vec![Default::default(); 2 * rooms],
            to_first: Numbered::sized(Some("first"), bytes),
            to_second: Numbered::sized(Some("second"), bytes),
            pace,
            running: false,
            received: 0,
            latency: histogram(),
        }
    }

    fn send(&mut self, load: &mut Load, index: usize, due: Instant) -> io::Result<()> {
        let number = self.counts[index].0;
        self.counts[index].0 += 1;
        self.in_flight[index].push_back(due);
        let message =
            if index.is_multiple_of(2) { &mut self.to_second } else { &mut self.to_first };
        load.send(index, message.with(number))
    }
}

fn pairs(rooms: usize) -> impl Iterator<Item = Identity> {
    (0..rooms).flat_map(|room| {
        ["first", "second"].map(|id| Identity { room: format!("relay-{room}"), id: id.to_owned() })
    })
}

impl Scenario for Relay {
    fn joined(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.joined += 1;
        Ok(())
    }

    fn received(&mut self, load: &mut Load, index: usize, message: &[u8]) -> io::Result<()> {
        let Some(number) = number_of(message) else {
            if memmem::find(message, br#""type":"error""#).is_some() {
                return Err(io::Error::other(String::from_utf8_lossy(message)));
            }
            self.introduced += usize::from(memmem::find(message, br#""user_joined""#).is_some());
            return Ok(());
        };
        let expected = self.counts[index].1;
        if number != expected {
            return Err(out_of_order(index, expected, number));
        }
        self.counts[index].1 += 1;
        self.received += 1;
        let now = Instant::now();
        if let Some(due) = self.in_flight[index ^ 1].pop_front() {
            self.latency.saturating_record(now.duration_since(due).as_micros() as u64);
        }
        if self.running && matches!(self.pace, Pace::Answering { .. }) {
            self.send(load, index, now)?;
        }
        Ok(())
    }
}

impl Steady for Relay {
    fn start(&mut self, load: &mut Load) -> io::Result<()> {
        self.running = true;
        let now = Instant::now();
        match &mut self.pace {
            Pace::Answering { at_once } => {
                let at_once = *at_once;
                let senders = (0..self.counts.len()).step_by(2);
                let mut messages = senders.flat_map(|index| std::iter::repeat_n(index, at_once));
                messages.try_for_each(|index| self.send(load, index, now))
            }
            Pace::Steady { next, .. } => {
                *next = now;
                Ok(())
            }
        }
    }

    fn tick(&mut self, load: &mut Load) -> io::Result<bool> {
        let mut was_due = false;
        while let Pace::Steady { every, next, sender } = &mut self.pace {
            let (due, index) = (*next, *sender);
            if !self.running || due > Instant::now() {
                break;
            }
            *next += *every;
            *sender = (index + 1) % self.counts.len();
            self.send(load, index, due)?;
            was_due = true;
        }
        Ok(was_due)
    }

    fn stop(&mut self) {
        self.running = false;
    }

    fn is_idle(&self) -> bool {
        self.in_flight.iter().all(|in_flight| in_flight.is_empty())
    }

    fn units(&self) -> u64 {
        self.received
    }

    fn take_latency(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency, histogram())
    }
}
