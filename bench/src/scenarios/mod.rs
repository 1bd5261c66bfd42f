//! The scenarios. Each has its own clients and its own unit of work.

pub mod broadcast;
pub mod idle;
pub mod mesh;
pub mod relay;
pub mod restart;
pub mod storm;

use std::{
    io,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memchr::memmem;

use crate::{
    frames::{self, TEXT},
    load::{Identity, Load, Scenario},
};

/// Longer than any step takes; a server that needs longer is broken.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The size of a browser's SDP offer with one data channel and one video track, in bytes.
pub const OFFER: usize = 1024;

/// The result of one round of a scenario.
#[derive(Clone)]
pub struct Round<Sample = Duration> {
    /// The samples at the start and at the end of the measurement; by default the processor time of the server.
    pub samples: [Sample; 2],
    /// How long the bench itself had work, in microseconds.
    pub own: f64,
    /// The units of work.
    pub units: u64,
    /// The duration, in seconds.
    pub seconds: f64,
    /// Microseconds from sending to receiving.
    pub latency: Histogram<u64>,
}

impl Round {
    /// Processor time of the server, in microseconds.
    pub fn cpu(&self) -> f64 {
        let [before, after] = self.samples;
        (after - before).as_micros() as f64
    }
}

/// A scenario whose clients have joined, and which can be started and stopped repeatedly.
pub trait Steady: Scenario {
    /// Starts the work.
    fn start(&mut self, load: &mut Load) -> io::Result<()>;
    /// Sends what is due now; returns whether anything was. For scenarios with a fixed rate.
    fn tick(&mut self, _load: &mut Load) -> io::Result<bool> {
        Ok(false)
    }
    /// Starts no new work from now on.
    fn stop(&mut self);
    /// Whether no message is in flight.
    fn is_idle(&self) -> bool;
    /// The units of work since the start.
    fn units(&self) -> u64;
    /// The latencies since the last call.
    fn take_latency(&mut self) -> Histogram<u64>;
}

/// Runs a scenario for `length` and measures it; no message is in flight afterwards. `sample` is called at the start and
/// at the end of the measurement.
pub fn round<Sample>(
    sample: impl Fn() -> io::Result<Sample>,
    load: &mut Load,
    scenario: &mut impl Steady,
    length: Duration,
) -> io::Result<Round<Sample>> {
    let warm_up = length / 5;
    scenario.start(load)?;
    run_for(load, scenario, warm_up)?;
    scenario.take_latency();
    let (start, before, own, units) = (Instant::now(), sample()?, load.busy(), scenario.units());
    run_for(load, scenario, length)?;
    let elapsed = start.elapsed();
    let round = Round {
        samples: [before, sample()?],
        own: (load.busy() - own).as_micros() as f64,
        units: scenario.units() - units,
        seconds: elapsed.as_secs_f64(),
        latency: scenario.take_latency(),
    };
    scenario.stop();
    load.until(scenario, TIMEOUT, |scenario| scenario.is_idle())?;
    Ok(round)
}

/// Runs a scenario, or polls the clients of one that is stopped.
pub fn run_for(load: &mut Load, scenario: &mut impl Steady, length: Duration) -> io::Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        let start = Instant::now();
        if scenario.tick(load)? {
            load.add_busy(start.elapsed());
        }
        load.turn(scenario, Duration::ZERO)?;
    }
    Ok(())
}

/// Lets clients join, up to 100 at once; `joined` returns how many have joined.
pub fn join_all<S: Scenario>(
    load: &mut Load,
    scenario: &mut S,
    identities: impl Iterator<Item = Identity>,
    joined: impl Fn(&S) -> usize,
) -> io::Result<()> {
    const AT_ONCE: usize = 100;
    let mut wanted = 0;
    for identity in identities {
        load.connect(identity)?;
        wanted += 1;
        load.until(scenario, TIMEOUT, |scenario| joined(scenario) + AT_ONCE >= wanted)?;
    }
    load.until(scenario, TIMEOUT, |scenario| joined(scenario) == wanted)
}

/// An empty histogram of 1 us to 1 minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are accepted")
}

/// A message that is sent repeatedly, each time with another number.
pub struct Numbered {
    frame: Vec<u8>,
    number_at: usize,
}

impl Numbered {
    /// An offer of [`OFFER`] bytes to one member of the room, or to all others.
    pub fn offer(to: Option<&str>) -> Self {
        Self::sized(to, OFFER)
    }

    /// An offer of about `bytes`.
    pub fn sized(to: Option<&str>, bytes: usize) -> Self {
        let to = to.map(|to| format!(r#""to":"{to}","#)).unwrap_or_default();
        let sdp = "v=0 ".repeat(bytes / 4 - 40);
        let message =
            format!(r#"{{{to}"type":"offer","offer":{{"n":"0000000000","sdp":"{sdp}"}}}}"#);
        let mut frame = Vec::new();
        frames::push_masked(&mut frame, TEXT, message.as_bytes());
        let number_at = number_in(&frame).unwrap_or_default();
        Self { frame, number_at }
    }

    /// The frame with this number.
    pub fn with(&mut self, number: u64) -> &[u8] {
        let digits = format!("{number:010}");
        self.frame[self.number_at..self.number_at + 10].copy_from_slice(digits.as_bytes());
        &self.frame
    }
}

/// The number of a peer's message; `None` for frames of the server.
pub fn number_of(message: &[u8]) -> Option<u64> {
    let at = number_in(message)?;
    std::str::from_utf8(message.get(at..at + 10)?).ok()?.parse().ok()
}

fn number_in(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, br#""n":""#).map(|at| at + 5)
}

/// The error for a lost, duplicated or reordered message.
pub fn out_of_order(index: usize, expected: u64, received: u64) -> io::Error {
    io::Error::other(format!("client {index} received message {received} instead of {expected}"))
}
