//! Limits the messages of one connection, by number and by bytes (`WEBSOCKET_MESSAGES_PER_SECOND`, `WEBSOCKET_MESSAGE_BURST`,
//! `WEBSOCKET_BYTES_PER_SECOND`).

use std::time::Duration;

use tokio::time::Instant;

use super::token_bucket::BucketSize;

/// How long no message must have been rejected for the next rejection to begin a new burst.
const BURST_GAP: Duration = Duration::from_secs(1);

/// The seconds of its byte rate that a connection may send at once.
const BYTE_BURST_SECONDS: f64 = 16.0;

/// How much a connection may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRate {
    /// How fast the messages refill.
    pub messages_per_second: u32,
    /// Messages at once.
    pub message_burst: u32,
    /// How fast the bytes refill; at once it may send those of 16 seconds.
    pub bytes_per_second: u32,
}

/// Token buckets for the messages of one connection and for their bytes, which are refilled together.
#[derive(Debug)]
pub struct MessageRateLimiter {
    rate: MessageRate,
    messages: f64,
    bytes: f64,
    refilled: Instant,
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
    Warn(ExceededRate),
    /// Reject the message; the client has been warned.
    Drop,
    /// The client does not slow down: close the connection.
    Close,
}

/// Which rate a message is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExceededRate {
    /// That of messages.
    Messages,
    /// That of bytes.
    Bytes,
}

impl MessageRate {
    fn messages(self) -> BucketSize {
        let (burst, per_second) = (self.message_burst.into(), self.messages_per_second.into());
        BucketSize { burst, per_second }
    }

    fn bytes(self) -> BucketSize {
        let per_second = f64::from(self.bytes_per_second);
        BucketSize { burst: per_second * BYTE_BURST_SECONDS, per_second }
    }
}

impl MessageRateLimiter {
    /// Full buckets.
    pub fn new(rate: MessageRate, now: Instant) -> Self {
        let (messages, bytes) = (rate.messages().burst, rate.bytes().burst);
        Self { rate, messages, bytes, refilled: now, rejected: 0.0, rejected_at: now }
    }

    /// Another connection continues with it, under settings that may be new. A burst of rejected messages is over.
    pub(super) fn take_over(&mut self, rate: MessageRate, now: Instant) {
        self.set_rate(rate, now);
        (self.rejected, self.rejected_at) = (0.0, now);
    }

    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.fill_level(now) >= 1.0
    }

    /// Whether no message was ever counted.
    pub(super) fn is_untouched(&self) -> bool {
        self.messages >= self.rate.messages().burst
    }

    /// How much is left of what may be sent at once: 0 is nothing, 1 all of it.
    pub(super) fn fill_level(&self, now: Instant) -> f64 {
        let (messages, bytes) = self.refilled_at(now);
        (messages / self.rate.messages().burst).min(bytes / self.rate.bytes().burst)
    }

    /// From now on the buckets refill at this rate.
    pub fn set_rate(&mut self, rate: MessageRate, now: Instant) {
        self.refill(now);
        self.rate = rate;
    }

    /// The messages and bytes that may be sent at `now`.
    fn refilled_at(&self, now: Instant) -> (f64, f64) {
        let seconds = now.saturating_duration_since(self.refilled).as_secs_f64();
        let messages = self.rate.messages().refilled(self.messages, seconds);
        (messages, self.rate.bytes().refilled(self.bytes, seconds))
    }

    fn refill(&mut self, now: Instant) {
        (self.messages, self.bytes) = self.refilled_at(now);
        self.refilled = now;
    }

    /// Counts one message of so many bytes.
    ///
    /// A burst ends after a second without a rejected message. More rejected messages in one burst than a connection may send
    /// at once are too many.
    pub fn check(&mut self, length: usize, now: Instant) -> RateVerdict {
        self.refill(now);
        let exceeded = if !self.rate.messages().take(&mut self.messages, 1.0) {
            ExceededRate::Messages
        } else if !self.rate.bytes().take(&mut self.bytes, length as f64) {
            ExceededRate::Bytes
        } else {
            return RateVerdict::Pass;
        };
        if now.duration_since(self.rejected_at) >= BURST_GAP {
            self.rejected = 0.0;
        }
        self.rejected += 1.0;
        self.rejected_at = now;
        match self.rejected {
            1.0 => RateVerdict::Warn(exceeded),
            rejected if rejected > f64::from(self.rate.message_burst) => RateVerdict::Close,
            _ => RateVerdict::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(messages_per_second: u32, message_burst: u32) -> MessageRate {
        MessageRate { messages_per_second, message_burst, bytes_per_second: 1_048_576 }
    }

    fn limiter(messages_per_second: u32, message_burst: u32, now: Instant) -> MessageRateLimiter {
        MessageRateLimiter::new(rate(messages_per_second, message_burst), now)
    }

    #[test]
    fn bytes_are_limited_as_messages_are() {
        let now = Instant::now();
        let bytes = |now, limiter: &mut MessageRateLimiter| {
            (0..1_000).take_while(|_| limiter.check(65_536, now) == RateVerdict::Pass).count()
        };
        let mut limiter = limiter(1_000, 1_000, now);

        assert_eq!(bytes(now, &mut limiter), 256, "sixteen seconds' worth");
        assert_eq!(limiter.check(65_536, now), RateVerdict::Drop);
        assert_eq!(bytes(now + SECOND, &mut limiter), 16);
        let warned = limiter.check(65_536, now + 3 * SECOND);
        assert_eq!(warned, RateVerdict::Pass);
        assert_eq!(limiter.check(100, now + 3 * SECOND), RateVerdict::Pass);
    }

    #[test]
    fn a_client_that_sends_too_many_bytes_for_long_is_warned_once_and_then_closed() {
        let now = Instant::now();
        let mut limiter = limiter(50, 250, now);

        let send = |turn| limiter.check(65_536, now + turn * Duration::from_millis(20));
        let verdicts: Vec<_> = (0..2_000).map(send).collect();

        let warning = RateVerdict::Warn(ExceededRate::Bytes);
        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == warning).count(), 1);
        assert!(verdicts.contains(&RateVerdict::Close));
    }

    #[test]
    fn a_message_larger_than_all_that_may_be_sent_at_once_passes_a_full_bucket() {
        let (now, bytes_per_second) = (Instant::now(), 1_024);
        let rate = MessageRate { bytes_per_second, ..rate(50, 250) };
        let mut limiter = MessageRateLimiter::new(rate, now);

        assert_eq!(limiter.check(65_536, now), RateVerdict::Pass);
        assert_eq!(limiter.check(1, now), RateVerdict::Warn(ExceededRate::Bytes));
    }

    #[test]
    fn a_burst_is_warned_once_then_dropped_then_closed() {
        let now = Instant::now();
        let mut limiter = limiter(10, 20, now);

        let verdicts: Vec<_> = (0..41).map(|_| limiter.check(100, now)).collect();

        assert!(verdicts[..20].iter().all(|&verdict| verdict == RateVerdict::Pass));
        assert_eq!(verdicts[20], RateVerdict::Warn(ExceededRate::Messages));
        assert!(verdicts[21..40].iter().all(|&verdict| verdict == RateVerdict::Drop));
        assert_eq!(verdicts[40], RateVerdict::Close);
    }

    #[test]
    fn a_second_without_rejections_ends_a_burst() {
        let now = Instant::now();
        let mut limiter = limiter(10, 20, now);
        let verdicts = |limiter: &mut MessageRateLimiter, now| {
            (0..25).map(|_| limiter.check(100, now)).collect::<Vec<_>>()
        };

        let (first, second) =
            (verdicts(&mut limiter, now), verdicts(&mut limiter, now + 2 * SECOND));

        assert_eq!(first, second);
        assert_eq!(first[20], RateVerdict::Warn(ExceededRate::Messages));
    }

    #[test]
    fn a_client_that_is_slightly_too_fast_for_long_is_warned_once_and_then_closed() {
        let now = Instant::now();
        let mut limiter = limiter(50, 250, now);

        let verdicts: Vec<_> = (0..6000)
            .map(|turn| limiter.check(100, now + turn * Duration::from_millis(16)))
            .collect();

        assert_eq!(
            verdicts
                .iter()
                .filter(|&&verdict| verdict == RateVerdict::Warn(ExceededRate::Messages))
                .count(),
            1
        );
        assert!(verdicts.contains(&RateVerdict::Close));
    }

    #[test]
    fn a_new_rate_counts_from_then_on() {
        let now = Instant::now();
        let mut limiter = limiter(10, 20, now);
        limiter.set_rate(rate(1, 5), now);

        let passed = |limiter: &mut MessageRateLimiter, now| {
            (0..30).take_while(|_| limiter.check(100, now) == RateVerdict::Pass).count()
        };

        assert_eq!(passed(&mut limiter, now), 5);
        assert_eq!(passed(&mut limiter, now + 3 * SECOND), 3);
        limiter.set_rate(rate(10, 20), now + 3 * SECOND);
        assert_eq!(passed(&mut limiter, now + 9 * SECOND), 20);
    }

    #[test]
    fn a_steady_sender_within_its_rate_is_never_rejected() {
        let now = Instant::now();
        let mut limiter = limiter(50, 1, now);

        assert!(
            (1..1000).all(|turn| limiter.check(100, now + turn * Duration::from_millis(21))
                == RateVerdict::Pass)
        );
    }
}
