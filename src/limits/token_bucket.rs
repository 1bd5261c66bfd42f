//! A token bucket, which every limit on a rate is.

use std::time::Duration;

use tokio::time::Instant;

/// How many tokens a bucket holds, and how fast it refills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BucketSize {
    pub(super) burst: f64,
    pub(super) per_second: f64,
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
        self.take_many(1.0, size, now)
    }

    /// Takes so many tokens, where there are as many; of more than the bucket holds, a full bucket.
    pub(super) fn take_many(&mut self, tokens: f64, size: BucketSize, now: Instant) -> bool {
        self.refill(size, now);
        let tokens = tokens.min(size.burst);
        let is_enough = self.tokens >= tokens;
        if is_enough {
            self.tokens -= tokens;
        }
        is_enough
    }

    /// How long until there is a token; zero where there is one.
    pub(super) fn wait(&self, size: BucketSize, now: Instant) -> Duration {
        let missing = 1.0 - self.tokens_at(size, now);
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / size.per_second).unwrap_or(Duration::MAX)
    }

    pub(super) fn is_full(&self, size: BucketSize, now: Instant) -> bool {
        self.tokens_at(size, now) >= size.burst
    }

    /// Whether it was full at its last change.
    pub(super) fn is_untouched(&self, size: BucketSize) -> bool {
        self.tokens >= size.burst
    }

    /// How many tokens there are at `now`.
    pub(super) fn tokens_at(&self, size: BucketSize, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        (self.tokens + elapsed * size.per_second).min(size.burst)
    }

    /// Adds what has been refilled since the last change; call it before the size changes.
    pub(super) fn refill(&mut self, size: BucketSize, now: Instant) {
        self.tokens = self.tokens_at(size, now);
        self.refilled = now;
    }
}
