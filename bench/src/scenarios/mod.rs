//! What is measured. Each scenario brings its clients, and says what a unit of its work is.

pub mod broadcast;
pub mod idle;
pub mod mesh;
pub mod relay;
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

/// Longer than anything here takes; a server that needs longer is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What an SDP offer of a browser with one data channel and one video track takes, in bytes.
pub const OFFER: usize = 1024;

/// What one round of a scenario came to.
#[derive(Clone)]
pub struct Round<Look = Duration> {
    /// What was seen when measuring began, and when it ended: here, processor time that the server had had.
    pub looks: [Look; 2],
    /// How long the bench itself had something to do, in microseconds.
    pub own: f64,
    /// How much was done.
    pub units: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Microseconds from sending to hearing.
    pub latency: Histogram<u64>,
}

impl Round {
    /// Processor time of the server, in microseconds.
    pub fn cpu(&self) -> f64 {
        let [before, after] = self.looks;
        (after - before).as_micros() as f64
    }
}

/// A scenario whose clients sit, and which can be set going and stopped again.
pub trait Steady: Scenario {
    /// Sets it going.
    fn begin(&mut self, load: &mut Load) -> io::Result<()>;
    /// Does what is due now, and says whether there was something. For scenarios that keep to a clock.
    fn tick(&mut self, _load: &mut Load) -> io::Result<bool> {
        Ok(false)
    }
    /// Begins nothing new from now on.
    fn end(&mut self);
    /// Whether everything that was begun has arrived.
    fn is_still(&self) -> bool;
    /// How much has been done since the start.
    fn units(&self) -> u64;
    /// How long messages took since the last call.
    fn take_latency(&mut self) -> Histogram<u64>;
}

/// Lets a scenario run for `length` and measures it; nothing is left on the way afterwards. `look` is asked as
/// measuring begins, and as it ends.
pub fn round<Look>(
    look: impl Fn() -> io::Result<Look>,
    load: &mut Load,
    scenario: &mut impl Steady,
    length: Duration,
) -> io::Result<Round<Look>> {
    let warm_up = length / 5;
    scenario.begin(load)?;
    run_for(load, scenario, warm_up)?;
    scenario.take_latency();
    let (began, before, own, units) = (Instant::now(), look()?, load.busy(), scenario.units());
    run_for(load, scenario, length)?;
    let took = began.elapsed();
    let round = Round {
        looks: [before, look()?],
        own: (load.busy() - own).as_micros() as f64,
        units: scenario.units() - units,
        seconds: took.as_secs_f64(),
        latency: scenario.take_latency(),
    };
    scenario.end();
    load.until(scenario, PATIENCE, |scenario| scenario.is_still())?;
    Ok(round)
}

/// Lets a scenario run, or the clients of one that does nothing be polled.
pub fn run_for(load: &mut Load, scenario: &mut impl Steady, length: Duration) -> io::Result<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        let began = Instant::now();
        if scenario.tick(load)? {
            load.was_busy(began.elapsed());
        }
        load.turn(scenario, Duration::ZERO)?;
    }
    Ok(())
}

/// Lets clients sit down, some at once; `seated` says how many do.
pub fn sit_down<S: Scenario>(
    load: &mut Load,
    scenario: &mut S,
    identities: impl Iterator<Item = Identity>,
    seated: impl Fn(&S) -> usize,
) -> io::Result<()> {
    const AT_ONCE: usize = 100;
    let mut wanted = 0;
    for identity in identities {
        load.connect(identity)?;
        wanted += 1;
        load.until(scenario, PATIENCE, |scenario| seated(scenario) + AT_ONCE >= wanted)?;
    }
    load.until(scenario, PATIENCE, |scenario| seated(scenario) == wanted)
}

/// Percentiles to a microsecond, up to a minute.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("these bounds are accepted")
}

/// A message that is sent again and again with another number in it.
pub struct Numbered {
    frame: Vec<u8>,
    number_at: usize,
}

impl Numbered {
    /// An offer of [`OFFER`] bytes to a member of the room, or to all others.
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

/// The number of a message that a peer sent; `None` for news of the room.
pub fn number_of(message: &[u8]) -> Option<u64> {
    let at = number_in(message)?;
    std::str::from_utf8(message.get(at..at + 10)?).ok()?.parse().ok()
}

fn number_in(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, br#""n":""#).map(|at| at + 5)
}

/// The error for a message that was lost, came twice or out of order.
pub fn out_of_order(who: usize, expected: u64, heard: u64) -> io::Error {
    io::Error::other(format!("client {who} heard message {heard} where {expected} was due"))
}
