//! The wall clock, read in one place; decisions take its time as `now`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A smaller difference is no jump: NTP slews the clock, and two clocks are never read at once.
const JUMP_TOLERANCE: Duration = Duration::from_secs(5);

/// Notices that the wall clock was set, as at the first NTP answer after the start of a machine without a battery: it then
/// counts otherwise than the monotonic clock. A machine that was suspended looks the same.
#[derive(Debug)]
pub struct ClockWatch {
    /// The wall clock at the last look, in milliseconds since the Unix epoch.
    wall_ms: u64,
    looked_at: Instant,
}

impl ClockWatch {
    /// Watches from `now` on, when the wall clock shows `wall_ms`.
    pub fn new(wall_ms: u64, now: Instant) -> Self {
        Self { wall_ms, looked_at: now }
    }

    /// By how many seconds the wall clock was moved since the last look; `None` where it was not.
    pub fn take_jump(&mut self, wall_ms: u64, now: Instant) -> Option<i64> {
        let passed = now.saturating_duration_since(self.looked_at).as_millis();
        let expected = i128::from(self.wall_ms) + i128::try_from(passed).unwrap_or(i128::MAX);
        let moved_ms = i128::from(wall_ms) - expected;
        (self.wall_ms, self.looked_at) = (wall_ms, now);
        let is_jump = moved_ms.unsigned_abs() >= JUMP_TOLERANCE.as_millis();
        is_jump.then(|| i64::try_from(moved_ms / 1000).unwrap_or_default())
    }
}

/// Milliseconds since the Unix epoch, as our own records count time.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whole seconds since the Unix epoch, as JWT claims and TURN usernames count time.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_has_jumped_and_one_that_runs_has_not() {
        let start = Instant::now();
        let mut watch = ClockWatch::new(1_000_000, start);
        let after = |seconds| start + Duration::from_secs(seconds);

        assert_eq!(watch.take_jump(1_010_000, after(10)), None);
        assert_eq!(watch.take_jump(1_024_900, after(20)), None, "slewed");
        assert_eq!(watch.take_jump(200_034_900, after(30)), Some(199_000));
        assert_eq!(watch.take_jump(200_044_900, after(40)), None);
        assert_eq!(watch.take_jump(0, after(50)), Some(-200_054));
        assert_eq!(watch.take_jump(u64::MAX, after(50)), Some(18_446_744_073_709_551));
    }
}
