//! Pairs that send each other offers: as fast as they come back, or at a set pace.

use std::{
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memchr::memmem;

use super::{Numbered, OFFER, PATIENCE, Steady, histogram, number_of, out_of_order, sit_down};
use crate::load::{Identity, Load, Scenario};

/// Rooms of two. A unit is a message that arrived.
pub struct Relay {
    seated: usize,
    /// How often somebody heard that somebody came.
    introduced: usize,
    /// For each client: messages sent and heard.
    counts: Vec<(u64, u64)>,
    /// For each client: when the messages that its peer has not heard yet were due to be sent.
    on_the_way: Vec<std::collections::VecDeque<Instant>>,
    to_first: Numbered,
    to_second: Numbered,
    pace: Pace,
    running: bool,
    heard: u64,
    latency: Histogram<u64>,
}

/// When the next message is sent.
enum Pace {
    /// By whoever has heard one; so many are on the way in each room.
    Answering { at_once: usize },
    /// Every so often, by one client after the other.
    Steady { every: Duration, next: Instant, who: usize },
}

impl Relay {
    /// `rooms` with two members each, and beside them `others` in which one member says nothing. With
    /// `per_second`, that many messages are sent over all, whether
    /// or not those before have arrived; else one is on the way in each room.
    pub fn seat(
        load: &mut Load,
        rooms: usize,
        others: usize,
        per_second: Option<u32>,
    ) -> io::Result<Self> {
        let pace = per_second.map_or(Pace::Answering { at_once: 1 }, |rate| Pace::Steady {
            every: Duration::from_secs(1) / rate,
            next: Instant::now(),
            who: 0,
        });
        let mut relay = Self::new(rooms, pace, OFFER);
        let other = |room| Identity { room: format!("other-{room}"), id: "only".to_owned() };
        let identities = pairs(rooms).chain((0..others).map(other));
        sit_down(load, &mut relay, identities, |relay| relay.seated)?;
        Ok(relay)
    }

    /// `rooms` with two members each, `at_once` messages of about `bytes` on the way in each. They know each other: on
    /// two servers, whoever sits may not yet see everybody who does.
    pub fn flood(load: &mut Load, rooms: usize, at_once: usize, bytes: usize) -> io::Result<Self> {
        let mut relay = Self::new(rooms, Pace::Answering { at_once }, bytes);
        sit_down(load, &mut relay, pairs(rooms), |relay| relay.seated)?;
        load.until(&mut relay, PATIENCE, |relay| relay.introduced == rooms)?;
        Ok(relay)
    }

    fn new(rooms: usize, pace: Pace, bytes: usize) -> Self {
        Self {
            seated: 0,
            introduced: 0,
            counts: vec![(0, 0); 2 * rooms],
            on_the_way: vec![Default::default(); 2 * rooms],
            to_first: Numbered::sized(Some("first"), bytes),
            to_second: Numbered::sized(Some("second"), bytes),
            pace,
            running: false,
            heard: 0,
            latency: histogram(),
        }
    }

    fn send(&mut self, load: &mut Load, who: usize, due: Instant) -> io::Result<()> {
        let number = self.counts[who].0;
        self.counts[who].0 += 1;
        self.on_the_way[who].push_back(due);
        let message = if who.is_multiple_of(2) { &mut self.to_second } else { &mut self.to_first };
        load.send(who, message.with(number))
    }
}

fn pairs(rooms: usize) -> impl Iterator<Item = Identity> {
    (0..rooms).flat_map(|room| {
        ["first", "second"].map(|id| Identity { room: format!("relay-{room}"), id: id.to_owned() })
    })
}

impl Scenario for Relay {
    fn seated(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.seated += 1;
        Ok(())
    }

    fn heard(&mut self, load: &mut Load, who: usize, message: &[u8]) -> io::Result<()> {
        let Some(number) = number_of(message) else {
            self.introduced += usize::from(memmem::find(message, br#""user_joined""#).is_some());
            return Ok(());
        };
        let expected = self.counts[who].1;
        if number != expected {
            return Err(out_of_order(who, expected, number));
        }
        self.counts[who].1 += 1;
        self.heard += 1;
        let now = Instant::now();
        if let Some(due) = self.on_the_way[who ^ 1].pop_front() {
            self.latency.saturating_record(now.duration_since(due).as_micros() as u64);
        }
        if self.running && matches!(self.pace, Pace::Answering { .. }) {
            self.send(load, who, now)?;
        }
        Ok(())
    }
}

impl Steady for Relay {
    fn begin(&mut self, load: &mut Load) -> io::Result<()> {
        self.running = true;
        let now = Instant::now();
        match &mut self.pace {
            Pace::Answering { at_once } => {
                let at_once = *at_once;
                let senders = (0..self.counts.len()).step_by(2);
                let mut messages = senders.flat_map(|who| std::iter::repeat_n(who, at_once));
                messages.try_for_each(|who| self.send(load, who, now))
            }
            Pace::Steady { next, .. } => {
                *next = now;
                Ok(())
            }
        }
    }

    fn tick(&mut self, load: &mut Load) -> io::Result<bool> {
        let mut was_due = false;
        while let Pace::Steady { every, next, who } = &mut self.pace {
            let (due, sender) = (*next, *who);
            if !self.running || due > Instant::now() {
                break;
            }
            *next += *every;
            *who = (sender + 1) % self.counts.len();
            self.send(load, sender, due)?;
            was_due = true;
        }
        Ok(was_due)
    }

    fn end(&mut self) {
        self.running = false;
    }

    fn is_still(&self) -> bool {
        self.on_the_way.iter().all(|on_the_way| on_the_way.is_empty())
    }

    fn units(&self) -> u64 {
        self.heard
    }

    fn take_latency(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency, histogram())
    }
}
