//! A token bucket, which every limit on a rate is.

use std::time::Duration;

use tokio::time::Instant;

/// How much less than a token is one: times are whole nanoseconds, and a bucket must give what [`TokenBucket::wait`] has
/// promised.
const TOLERANCE: f64 = 1e-4;

/// How many tokens a bucket holds, and how fast it refills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BucketSize {
    pub(super) burst: f64,
    pub(super) per_second: f64,
}

impl BucketSize {
    /// What a bucket of `tokens` holds so many seconds later.
    pub(super) fn refilled(self, tokens: f64, seconds: f64) -> f64 {
        (tokens + seconds * self.per_second).min(self.burst)
    }

    /// Takes `wanted` tokens from a bucket of `tokens`, where there are as many; of more than it holds, a full bucket.
    pub(super) fn take(self, tokens: &mut f64, wanted: f64) -> bool {
        let wanted = wanted.min(self.burst);
        let is_enough = *tokens + TOLERANCE >= wanted;
        if is_enough {
            *tokens = (*tokens - wanted).max(0.0);
        }
        is_enough
    }
}

/// What is left in one bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenBucket {
    tokens: f64,
    refilled: Instant,
}

impl TokenBucket {
    pub(super) fn full(size: BucketSize, now: Instant) -> Self {
        Self { tokens: size.burst, refilled: now }
    }

    /// Takes a token, where there is one.
    pub(super) fn take(&mut self, size: BucketSize, now: Instant) -> bool {
        self.tokens = self.tokens_at(size, now);
        self.refilled = now;
        size.take(&mut self.tokens, 1.0)
    }

    /// How long until there is a token; zero where there is one.
    pub(super) fn wait(&self, size: BucketSize, now: Instant) -> Duration {
        let missing = 1.0 - self.tokens_at(size, now);
        if missing <= TOLERANCE {
            return Duration::ZERO;
        }
        let wait = Duration::try_from_secs_f64(missing / size.per_second);
        wait.unwrap_or(Duration::MAX).max(Duration::from_nanos(1))
    }

    pub(super) fn is_full(&self, size: BucketSize, now: Instant) -> bool {
        self.tokens_at(size, now) >= size.burst
    }

    /// How many tokens there are at `now`.
    pub(super) fn tokens_at(&self, size: BucketSize, now: Instant) -> f64 {
        size.refilled(self.tokens, now.saturating_duration_since(self.refilled).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Otherwise a limit that looks first and takes then would pass one without counting it.
        #[test]
        fn a_bucket_that_promises_a_token_gives_one(
            burst in 1..20_u32, per_minute in 1..10_000_000_u32, pauses in prop::collection::vec(0..100_000_000_u64, 1..50),
        ) {
            let size = BucketSize { burst: burst.into(), per_second: f64::from(per_minute) / 60.0 };
            let mut now = Instant::now();
            let mut bucket = TokenBucket::full(size, now);
            for pause in pauses {
                now += Duration::from_nanos(pause);
                let is_promised = bucket.wait(size, now).is_zero();
                prop_assert_eq!(bucket.take(size, now), is_promised);
                now += bucket.wait(size, now);
                prop_assert!(bucket.wait(size, now).is_zero());
            }
        }
    }
}
