//! Limits the messages of one connection (`WEBSOCKET_MESSAGES_PER_SECOND`, `WEBSOCKET_MESSAGE_BURST`).

use std::time::Duration;

use tokio::time::Instant;

/// How long nothing may have been refused for the next refusal to begin a new burst.
const BURST_GAP: Duration = Duration::from_secs(1);

/// What one connection may still say: a token bucket
/// (`WEBSOCKET_MESSAGES_PER_SECOND`, `WEBSOCKET_MESSAGE_BURST`).
#[derive(Debug)]
pub struct MessageRateLimiter {
    per_second: f64,
    burst: f64,
    tokens: f64,
    refilled: Instant,
    /// Messages refused in this burst, and when the last of them was.
    refused: f64,
    refused_at: Instant,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateVerdict {
    /// Handle it.
    Pass,
    /// Refuse it, and say so: the first of this burst.
    Warn,
    /// Refuse it; the sender has been told.
    Drop,
    /// The sender does not stop: end the connection.
    Close,
}

impl MessageRateLimiter {
    /// A full bucket of `burst` messages that refills at `per_second`.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            per_second: f64::from(per_second),
            burst,
            tokens: burst,
            refilled: now,
            refused: 0.0,
            refused_at: now,
        }
    }

    /// Takes one message into account.
    ///
    /// A burst ends with a second in which nothing had to be refused. As many refused messages in
    /// one burst as the bucket holds are too many.
    pub fn check(&mut self, now: Instant) -> RateVerdict {
        let elapsed = now.duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return RateVerdict::Pass;
        }
        if now.duration_since(self.refused_at) >= BURST_GAP {
            self.refused = 0.0;
        }
        self.refused += 1.0;
        self.refused_at = now;
        match self.refused {
            1.0 => RateVerdict::Warn,
            refused if refused > self.burst => RateVerdict::Close,
            _ => RateVerdict::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_warns_once_then_drops_then_closes() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(10, 20, now);

        let verdicts: Vec<_> = (0..41).map(|_| budget.check(now)).collect();

        assert!(verdicts[..20].iter().all(|&verdict| verdict == RateVerdict::Pass));
        assert_eq!(verdicts[20], RateVerdict::Warn);
        assert!(verdicts[21..40].iter().all(|&verdict| verdict == RateVerdict::Drop));
        assert_eq!(verdicts[40], RateVerdict::Close);
    }

    #[test]
    fn a_second_without_refusals_ends_a_burst() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(10, 20, now);
        let verdicts = |budget: &mut MessageRateLimiter, now| {
            (0..25).map(|_| budget.check(now)).collect::<Vec<_>>()
        };

        let (first, second) = (verdicts(&mut budget, now), verdicts(&mut budget, now + 2 * SECOND));

        assert_eq!(first, second);
        assert_eq!(first[20], RateVerdict::Warn);
    }

    #[test]
    fn somebody_who_is_a_little_too_fast_for_long_is_warned_once_and_then_closed() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(50, 250, now);

        let verdicts: Vec<_> =
            (0..6000).map(|turn| budget.check(now + turn * Duration::from_millis(16))).collect();

        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == RateVerdict::Warn).count(), 1);
        assert!(verdicts.contains(&RateVerdict::Close));
    }

    #[test]
    fn a_steady_sender_within_its_rate_is_never_refused() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(50, 1, now);

        assert!(
            (1..1000)
                .all(|turn| budget.check(now + turn * Duration::from_millis(21))
                    == RateVerdict::Pass)
        );
    }
}
