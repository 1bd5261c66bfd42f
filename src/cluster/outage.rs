//! A Redis that cannot be used: how long to wait before the next attempt, and what the log says of it.

use std::time::Duration;

use redis::RedisError;
use tokio::time::Instant;

use crate::migration::ClusterTimings;

/// The pause after the first failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Another error of the same outage is logged after this time at the earliest.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The pauses between the attempts to reach one Redis.
#[derive(Debug)]
pub struct ReconnectPauses {
    next: Duration,
    longest: Duration,
    /// A connection that lasted so long was sound: the next failure is a first one.
    sound_after: Duration,
}

impl ReconnectPauses {
    /// The pauses of a cluster that keeps to `timings`.
    pub fn new(timings: ClusterTimings) -> Self {
        let longest = timings.max_reconnect_pause();
        let next = FIRST_PAUSE.min(longest);
        Self { next, longest, sound_after: timings.lease }
    }

    /// The pause after a failure: `was_up` if Redis had been reached, `lasted` since the attempt began. `random` spreads the
    /// nodes over the second half of the pause.
    pub fn next(&mut self, was_up: bool, lasted: Duration, random: u8) -> Duration {
        if was_up && lasted >= self.sound_after {
            self.next = FIRST_PAUSE.min(self.longest);
        }
        let pause = self.next.mul_f64(0.5 + f64::from(random) / 510.0);
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}

/// What the log has said of a Redis that cannot be used.
#[derive(Debug, Default)]
pub struct Outage {
    /// The error that was logged last, and when.
    logged: Option<(String, Instant)>,
}

impl Outage {
    /// Logs a failure: the first one, each loss of a Redis that had been reached, and errors that differ from the last one,
    /// but not often.
    pub fn log(&mut self, engine: usize, was_up: bool, error: &RedisError) {
        let text = error.to_string();
        if was_up {
            tracing::error!(engine, %error, "redis connection lost; members on other nodes stay as they were");
        } else {
            match &self.logged {
                None => {
                    tracing::error!(engine, %error, "redis cannot be used yet; no client can join a room");
                }
                Some((known, at)) if *known != text && at.elapsed() >= LOG_INTERVAL => {
                    tracing::error!(engine, %error, "redis still cannot be used");
                }
                Some(_) => return,
            }
        }
        self.logged = Some((text, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(random: u8) -> Vec<u128> {
        let mut pauses = ReconnectPauses::new(ClusterTimings::default());
        (0..7).map(|_| pauses.next(false, Duration::ZERO, random).as_millis()).collect()
    }

    #[test]
    fn pauses_grow_up_to_a_quarter_of_the_lease() {
        assert_eq!(pauses(255), [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        assert_eq!(pauses(0), [50, 100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn only_a_connection_that_has_lasted_makes_the_next_pause_short_again() {
        let mut pauses = ReconnectPauses::new(ClusterTimings::default());
        let lasted = [0, 0, 7, 8].map(Duration::from_secs);

        let waited = lasted.map(|lasted| pauses.next(true, lasted, 255).as_millis());

        assert_eq!(waited, [100, 200, 400, 100]);
    }
}
