//! Limits the messages of one connection (`WEBSOCKET_MESSAGES_PER_SECOND`, `WEBSOCKET_MESSAGE_BURST`).

use std::time::Duration;

use tokio::time::Instant;

use super::token_bucket::{BucketSize, TokenBucket};

/// How long no message must have been rejected for the next rejection to begin a new burst.
const BURST_GAP: Duration = Duration::from_secs(1);

/// A token bucket for the messages of one connection.
#[derive(Debug)]
pub struct MessageRateLimiter {
    size: BucketSize,
    bucket: TokenBucket,
    /// Messages rejected in this burst, and when the last of them was.
    rejected: f64,
    rejected_at: Instant,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateVerdict {
    /// Handle the message.
    Pass,
    /// Reject the message and warn the client: it is the first of this burst.
    Warn,
    /// Reject the message; the client has been warned.
    Drop,
    /// The client does not slow down: close the connection.
    Close,
}

impl MessageRateLimiter {
    /// A full bucket of `burst` messages that refills at `per_second`.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let size = bucket_size(per_second, burst);
        Self { size, bucket: TokenBucket::full(size, now), rejected: 0.0, rejected_at: now }
    }

    /// Another connection continues with it, under settings that may be new. A burst of rejected messages is over.
    pub(super) fn take_over(&mut self, per_second: u32, burst: u32, now: Instant) {
        self.set_rate(per_second, burst, now);
        (self.rejected, self.rejected_at) = (0.0, now);
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.bucket.is_full(self.size, now)
    }

    /// Whether no message was ever counted.
    pub(super) fn is_untouched(&self) -> bool {
        self.bucket.is_untouched(self.size)
    }

    pub(super) fn tokens_at(&self, now: Instant) -> f64 {
        self.bucket.tokens_at(self.size, now)
    }

    /// From now on the bucket refills at `per_second` and holds `burst` messages.
    pub fn set_rate(&mut self, per_second: u32, burst: u32, now: Instant) {
        self.bucket.refill(self.size, now);
        self.size = bucket_size(per_second, burst);
    }

    /// Counts one message.
    ///
    /// A burst ends after a second without a rejected message. More rejected messages in one burst than the bucket holds
    /// are too many.
    pub fn check(&mut self, now: Instant) -> RateVerdict {
        if self.bucket.take(self.size, now) {
            return RateVerdict::Pass;
        }
        if now.duration_since(self.rejected_at) >= BURST_GAP {
            self.rejected = 0.0;
        }
        self.rejected += 1.0;
        self.rejected_at = now;
        match self.rejected {
            1.0 => RateVerdict::Warn,
            rejected if rejected > self.size.burst => RateVerdict::Close,
            _ => RateVerdict::Drop,
        }
    }
}

fn bucket_size(per_second: u32, burst: u32) -> BucketSize {
    BucketSize { burst: f64::from(burst), per_second: f64::from(per_second) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_warned_once_then_dropped_then_closed() {
        let now = Instant::now();
        let mut limiter = MessageRateLimiter::new(10, 20, now);

        let verdicts: Vec<_> = (0..41).map(|_| limiter.check(now)).collect();

        assert!(verdicts[..20].iter().all(|&verdict| verdict == RateVerdict::Pass));
        assert_eq!(verdicts[20], RateVerdict::Warn);
        assert!(verdicts[21..40].iter().all(|&verdict| verdict == RateVerdict::Drop));
        assert_eq!(verdicts[40], RateVerdict::Close);
    }

    #[test]
    fn a_second_without_rejections_ends_a_burst() {
        let now = Instant::now();
        let mut limiter = MessageRateLimiter::new(10, 20, now);
        let verdicts = |limiter: &mut MessageRateLimiter, now| {
            (0..25).map(|_| limiter.check(now)).collect::<Vec<_>>()
        };

        let (first, second) =
            (verdicts(&mut limiter, now), verdicts(&mut limiter, now + 2 * SECOND));

        assert_eq!(first, second);
        assert_eq!(first[20], RateVerdict::Warn);
    }

    #[test]
    fn a_client_that_is_slightly_too_fast_for_long_is_warned_once_and_then_closed() {
        let now = Instant::now();
        let mut limiter = MessageRateLimiter::new(50, 250, now);

        let verdicts: Vec<_> =
            (0..6000).map(|turn| limiter.check(now + turn * Duration::from_millis(16))).collect();

        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == RateVerdict::Warn).count(), 1);
        assert!(verdicts.contains(&RateVerdict::Close));
    }

    #[test]
    fn a_new_rate_counts_from_then_on() {
        let now = Instant::now();
        let mut limiter = MessageRateLimiter::new(10, 20, now);
        limiter.set_rate(1, 5, now);

        let passed = |limiter: &mut MessageRateLimiter, now| {
            (0..30).take_while(|_| limiter.check(now) == RateVerdict::Pass).count()
        };

        assert_eq!(passed(&mut limiter, now), 5);
        assert_eq!(passed(&mut limiter, now + 3 * SECOND), 3);
        limiter.set_rate(10, 20, now + 3 * SECOND);
        assert_eq!(passed(&mut limiter, now + 9 * SECOND), 20);
    }

    #[test]
    fn a_steady_sender_within_its_rate_is_never_rejected() {
        let now = Instant::now();
        let mut limiter = MessageRateLimiter::new(50, 1, now);

        assert!(
            (1..1000)
                .all(|turn| limiter.check(now + turn * Duration::from_millis(21))
                    == RateVerdict::Pass)
        );
    }
}
