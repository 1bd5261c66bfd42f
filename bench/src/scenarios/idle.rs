//! Members that send nothing: the cost of a join and the memory of a member; and members that join and leave.

use std::{io, time::Instant};

use hdrhistogram::Histogram;

use super::{Steady, TIMEOUT, histogram};
use crate::{
    load::{Identity, Load, Scenario},
    subject::{Subject, settle},
};

/// Connections that are opened at once.
const AT_ONCE: usize = 64;

/// How many joins are measured, at the start and at the end.
const MEASURED: usize = 1000;

/// The cost of idle members.
pub struct Idle {
    /// Processor time of a join in microseconds: mean of the first thousand, and of the last.
    pub join: (f64, f64),
    /// Joins per second, on average.
    pub joins_per_second: f64,
    /// Memory of a member, in bytes.
    pub bytes: f64,
}

#[derive(Default)]
struct Joined(usize);

impl Scenario for Joined {
    fn joined(&mut self, _load: &mut Load, _who: usize) -> io::Result<()> {
        self.0 += 1;
        Ok(())
    }

    fn received(&mut self, _load: &mut Load, _who: usize, _message: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Lets `members` join in rooms of two, on a server that has had no members before.
pub fn measure(subject: &Subject, load: &mut Load, members: usize) -> io::Result<Idle> {
    let mut joined = Joined::default();
    let before = subject.resident()?;
    let start = Instant::now();
    let mut until = |load: &mut Load, wanted: usize| -> io::Result<f64> {
        let (cpu, from) = (subject.cpu()?, joined.0);
        for index in from..wanted {
            let id = if index % 2 == 0 { "first" } else { "second" };
            load.connect(Identity { room: format!("idle-{}", index / 2), id: id.to_owned() })?;
            load.until(&mut joined, TIMEOUT, |joined| joined.0 + AT_ONCE > index)?;
        }
        load.until(&mut joined, TIMEOUT, |joined| joined.0 == wanted)?;
        Ok((subject.cpu()? - cpu).as_micros() as f64 / (wanted - from).max(1) as f64)
    };
    let first = until(load, MEASURED.min(members))?;
    until(load, members.saturating_sub(MEASURED).max(MEASURED.min(members)))?;
    let last = if members >= 2 * MEASURED { until(load, members)? } else { first };
    let joins_per_second = members as f64 / start.elapsed().as_secs_f64();
    settle(subject)?;
    let bytes = (subject.resident()? - before) as f64 / members as f64;
    Ok(Idle { join: (first, last), joins_per_second, bytes })
}

/// Clients that join, disconnect at once, and join again. A unit is one such visit.
pub struct Churn {
    identities: Vec<Identity>,
    /// The client of each connection, by the index of the connection.
    clients: Vec<usize>,
    connected_at: Vec<Instant>,
    disconnected: Vec<usize>,
    running: bool,
    visits: u64,
    latency: Histogram<u64>,
}

impl Churn {
    /// `clients` in rooms of two; none is connected yet.
    pub fn new(clients: usize) -> Self {
        let identity = |index: usize| {
            let id = if index.is_multiple_of(2) { "first" } else { "second" };
            Identity { room: format!("churn-{}", index / 2), id: id.to_owned() }
        };
        Self {
            identities: (0..clients).map(identity).collect(),
            clients: Vec::new(),
            connected_at: vec![Instant::now(); clients],
            disconnected: (0..clients).collect(),
            running: false,
            visits: 0,
            latency: histogram(),
        }
    }
}

impl Scenario for Churn {
    fn joined(&mut self, load: &mut Load, index: usize) -> io::Result<()> {
        let client = self.clients[index];
        load.hang_up(index);
        self.visits += 1;
        let elapsed = self.connected_at[client].elapsed();
        self.latency.saturating_record(elapsed.as_micros() as u64);
        self.disconnected.push(client);
        Ok(())
    }

    fn received(&mut self, _load: &mut Load, _who: usize, _message: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Steady for Churn {
    fn start(&mut self, _load: &mut Load) -> io::Result<()> {
        self.running = true;
        Ok(())
    }

    fn tick(&mut self, load: &mut Load) -> io::Result<bool> {
        let is_due = self.running && !self.disconnected.is_empty();
        while self.running
            && let Some(client) = self.disconnected.pop()
        {
            self.connected_at[client] = Instant::now();
            let index = load.connect(self.identities[client].clone())?;
            self.clients.resize(self.clients.len().max(index + 1), 0);
            self.clients[index] = client;
        }
        Ok(is_due)
    }

    fn stop(&mut self) {
        self.running = false;
    }

    fn is_idle(&self) -> bool {
        self.disconnected.len() == self.identities.len()
    }

    fn units(&self) -> u64 {
        self.visits
    }

    fn take_latency(&mut self) -> Histogram<u64> {
        std::mem::replace(&mut self.latency, histogram())
    }
}
