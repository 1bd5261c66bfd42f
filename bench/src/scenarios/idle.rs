//! Members that sit and say nothing: what one costs to let in, and to keep; and such as come and go.

use std::{io, time::Instant};

use hdrhistogram::Histogram;

use super::{PATIENCE, Steady, histogram};
use crate::{
    load::{Identity, Load, Scenario},
    subject::{Subject, settle},
};

/// Connections that are being opened at once.
const AT_ONCE: usize = 64;

/// Members whose joining is measured, first and last.
const MEASURED: usize = 1000;

/// What members cost that do nothing.
pub struct Idle {
    /// How many there were in the end.
    pub members: usize,
    /// Processor time of a join, in microseconds: of the first thousand, and of the last.
    pub join: (f64, f64),
    /// Members that sat down in a second, over all.
    pub joins_per_second: f64,
    /// Memory for each, in bytes.
    pub bytes: f64,
}

#[derive(Default)]
struct Sitting(usize);

impl Scenario for Sitting {
    fn seated(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.0 += 1;
        Ok(())
    }

    fn heard(&mut self, _load: &mut Load, _who: usize, _message: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `members` sit down in rooms of two, in a server where nobody has been before.
pub fn measure(subject: &Subject, load: &mut Load, members: usize) -> io::Result<Idle> {
    let mut sitting = Sitting::default();
    let before = subject.resident()?;
    let began = Instant::now();
    let mut until = |load: &mut Load, wanted: usize| -> io::Result<f64> {
        let (cpu, from) = (subject.cpu()?, sitting.0);
        for who in from..wanted {
            let id = if who % 2 == 0 { "first" } else { "second" };
            load.connect(Identity { room: format!("idle-{}", who / 2), id: id.to_owned() })?;
            load.until(&mut sitting, PATIENCE, |sitting| sitting.0 + AT_ONCE > who)?;
        }
        load.until(&mut sitting, PATIENCE, |sitting| sitting.0 == wanted)?;
        Ok((subject.cpu()? - cpu).as_micros() as f64 / (wanted - from).max(1) as f64)
    };
    let first = until(load, MEASURED.min(members))?;
    until(load, members.saturating_sub(MEASURED).max(MEASURED.min(members)))?;
    let last = if members >= 2 * MEASURED { until(load, members)? } else { first };
    let joins_per_second = members as f64 / began.elapsed().as_secs_f64();
    settle(subject)?;
    let bytes = (subject.resident()? - before) as f64 / members as f64;
    Ok(Idle { members, join: (first, last), joins_per_second, bytes })
}

/// Clients that sit down, hang up at once, and come again. A unit is one visit.
pub struct Churn {
    identities: Vec<Identity>,
    /// Whose connection is whose.
    visitors: Vec<usize>,
    came_at: Vec<Instant>,
    away: Vec<usize>,
    running: bool,
    visits: u64,
    latency: Histogram<u64>,
}

impl Churn {
    /// `clients` in rooms of two; none has come yet.
    pub fn new(clients: usize) -> Self {
        let identity = |who: usize| {
            let id = if who.is_multiple_of(2) { "first" } else { "second" };
            Identity { room: format!("churn-{}", who / 2), id: id.to_owned() }
        };
        Self {
            identities: (0..clients).map(identity).collect(),
            visitors: Vec::new(),
            came_at: vec![Instant::now(); clients],
            away: (0..clients).collect(),
            running: false,
            visits: 0,
            latency: histogram(),
        }
    }
}

impl Scenario for Churn {
    fn seated(&mut self, load: &mut Load, who: usize) -> io::Result<()> {
        let visitor = self.visitors[who];
        load.hang_up(who);
        self.visits += 1;
        let took = self.came_at[visitor].elapsed();
        self.latency.saturating_record(took.as_micros() as u64);
        self.away.push(visitor);
        Ok(())
    }

    fn heard(&mut self, _load: &mut Load, _who: usize, _message: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Steady for Churn {
    fn begin(&mut self, _load: &mut Load) -> io::Result<()> {
        self.running = true;
        Ok(())
    }

    fn tick(&mut self, load: &mut Load) -> io::Result<bool> {
        let is_due = self.running && !self.away.is_empty();
        while self.running
            && let Some(visitor) = self.away.pop()
        {
            self.came_at[visitor] = Instant::now();
            let who = load.connect(self.identities[visitor].clone())?;
            self.visitors.resize(self.visitors.len().max(who + 1), 0);
            self.visitors[who] = visitor;
        }
        Ok(is_due)
    }

    fn end(&mut self) {
        self.running = false;
    }

    fn is_still(&self) -> bool {
        self.away.len() == self.identities.len()
    }

    fn units(&self) -> u64 {
        self.visits
    }

    fn take_latency(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency, histogram())
    }
}
