//! Whether a receiver can be reached, and which of its failures are logged. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long a receiver and a room pause after failures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The pause after the first failure. It doubles after each further one.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl Backoff {
    /// The pause after so many failures in a row: `chance` takes up to half of it away, so that servers which failed together do
    /// not retry together.
    pub(super) fn pause(self, failures: u32, chance: u8) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = self.first.saturating_mul(doubled).min(self.max);
        pause.mul_f64(0.5 + f64::from(chance) / 512.0)
    }
}

/// Whether a receiver can be reached. While it cannot, it is tried once after each pause, whichever room is next.
#[derive(Debug, Default)]
pub(super) struct ReceiverHealth {
    /// In a row.
    failures: u32,
    /// When the last attempt that counts has failed.
    failed_at: Option<Instant>,
    paused_until: Option<Instant>,
    /// The attempt after the pause runs.
    is_probing: bool,
}

impl ReceiverHealth {
    /// Whether the last attempt did not reach the receiver.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether an attempt may begin.
    ///
    /// # Errors
    ///
    /// When it may, where that is known: otherwise after the attempt that runs.
    pub(super) fn check(&self, now: Instant) -> Result<(), Option<Instant>> {
        match self.paused_until {
            Some(until) if now < until => Err(Some(until)),
            Some(_) | None if self.is_probing => Err(None),
            Some(_) | None => Ok(()),
        }
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self) {
        self.is_probing = self.is_failing();
    }

    /// An attempt that began did not take place.
    pub(super) fn skip(&mut self) {
        self.is_probing = false;
    }

    /// An attempt reached the receiver.
    pub(super) fn succeed(&mut self) {
        *self = Self::default();
    }

    /// An attempt that began at `began_at` did not reach the receiver. `pause` is how long it pauses after so many failures in a
    /// row. Attempts that ran at the same time fail for the same cause, and count as one.
    pub(super) fn fail(
        &mut self,
        began_at: Instant,
        now: Instant,
        pause: impl FnOnce(u32) -> Duration,
    ) {
        if self.failed_at.is_none_or(|failed_at| began_at >= failed_at) {
            self.is_probing = false;
            self.failures = self.failures.saturating_add(1);
            self.failed_at = Some(now);
            self.paused_until = now.checked_add(pause(self.failures));
        }
    }
}

/// At most one line in a minute, with the number of what it stands for.
#[derive(Debug, Default)]
pub(super) struct MinuteLine {
    logged_at: Option<Instant>,
    unlogged: u64,
}

/// How long nothing is logged after a line.
const LINE_INTERVAL: Duration = Duration::from_secs(60);

impl MinuteLine {
    /// Counts one. Where a line is due, returns how many it stands for.
    pub(super) fn count(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        if self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < LINE_INTERVAL) {
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_the_longest_and_chance_takes_up_to_half_away() {
        let backoff = Backoff { first: SECOND / 2, max: 60 * SECOND };
        let longest = |failures| backoff.pause(failures, u8::MAX).as_secs_f64();

        let pauses: Vec<_> = (1..=9).map(|failures| longest(failures).ceil()).collect();
        assert_eq!(pauses, [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(backoff.pause(1, 0), SECOND / 4);
        assert!(backoff.pause(u32::MAX, u8::MAX) <= 60 * SECOND);
    }

    #[test]
    fn a_receiver_that_cannot_be_reached_is_tried_once_after_each_pause() {
        let (mut health, start) = (ReceiverHealth::default(), Instant::now());
        let at = |seconds| start + seconds * SECOND;
        let pause = |failures: u32| failures * 10 * SECOND;

        // Two attempts at once, as before a failure.
        health.begin();
        health.begin();
        assert_eq!(health.check(at(0)), Ok(()));
        health.fail(at(0), at(1), pause);
        health.fail(at(0), at(2), pause);
        assert_eq!(health.check(at(10)), Err(Some(at(11))), "both are one failure");
        assert_eq!(health.check(at(11)), Ok(()));

        health.begin();
        assert_eq!(health.check(at(12)), Err(None), "one at a time");
        health.fail(at(11), at(12), pause);
        assert_eq!(health.check(at(31)), Err(Some(at(32))));
        health.begin();
        health.skip();
        assert_eq!(health.check(at(32)), Ok(()), "what was not tried is no attempt");

        health.begin();
        health.succeed();
        assert!(!health.is_failing());
        health.begin();
        assert_eq!(health.check(at(32)), Ok(()));
    }

    #[test]
    fn of_many_faults_in_a_minute_one_is_logged_and_the_rest_are_counted() {
        let (mut line, start) = (MinuteLine::default(), Instant::now());

        assert_eq!(line.count(start), Some(1));
        for _ in 0..100 {
            assert_eq!(line.count(start + 59 * SECOND), None);
        }
        assert_eq!(line.count(start + 60 * SECOND), Some(101));
        assert_eq!(line.count(start + 61 * SECOND), None);
    }
}
