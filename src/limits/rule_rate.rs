//! Limits how many moderation rules a moderator makes, and how many moderators make for a room.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    bucket_table::{BucketTable, take_both},
    token_bucket::BucketSize,
};

/// Rules that a moderator makes in a minute, over all rooms, and at once. Each is written to disk and sent to all nodes.
const RULES_PER_MODERATOR: f64 = 60.0;

/// The same for a room, over all its moderators.
const RULES_PER_ROOM: f64 = 120.0;

/// A token bucket for each moderator's account, and one for each room. Each holds the rules of a minute.
pub struct RuleRateLimiter(Mutex<RuleBuckets>);

struct RuleBuckets {
    moderators: BucketTable<Arc<str>>,
    rooms: BucketTable<Arc<str>>,
}

impl Default for RuleRateLimiter {
    fn default() -> Self {
        let size = |rules| Some(BucketSize { burst: rules, per_second: rules / 60.0 });
        let mut buckets =
            RuleBuckets { moderators: BucketTable::default(), rooms: BucketTable::default() };
        buckets.moderators.size = size(RULES_PER_MODERATOR);
        buckets.rooms.size = size(RULES_PER_ROOM);
        Self(Mutex::new(buckets))
    }
}

impl RuleRateLimiter {
    /// Counts a rule that `moderator`, a username, makes for `room`.
    ///
    /// # Errors
    ///
    /// How long to wait until one is accepted; then nothing is counted.
    pub fn check(
        &self,
        moderator: &Arc<str>,
        room: &Arc<str>,
        now: Instant,
    ) -> Result<(), Duration> {
        let buckets = &mut *self.lock();
        take_both((&mut buckets.moderators, moderator), (&mut buckets.rooms, room), now)
    }

    /// Drops buckets that are full again.
    pub fn evict_expired(&self, now: Instant) {
        let buckets = &mut *self.lock();
        buckets.moderators.evict_full(now);
        buckets.rooms.evict_full(now);
    }

    fn lock(&self) -> MutexGuard<'_, RuleBuckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many rules in a row are accepted.
    fn accepted(limiter: &RuleRateLimiter, moderator: &str, room: &str, now: Instant) -> usize {
        let (moderator, room) = (moderator.into(), room.into());
        (0..1_000).take_while(|_| limiter.check(&moderator, &room, now).is_ok()).count()
    }

    #[test]
    fn a_moderator_has_a_minutes_rules_at_once_over_all_rooms_and_then_its_rate() {
        let (limiter, now) = (RuleRateLimiter::default(), Instant::now());

        assert_eq!(accepted(&limiter, "boss", "den", now), 60);
        assert_eq!(accepted(&limiter, "boss", "hall", now), 0, "another room");
        let wait = limiter.check(&"boss".into(), &"den".into(), now).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(accepted(&limiter, "boss", "hall", now + wait), 1);
        assert_eq!(accepted(&limiter, "other", "hall", now), 60, "another moderator");
    }

    #[test]
    fn all_moderators_of_a_room_have_two_minutes_rules_of_one_and_what_is_refused_is_not_counted() {
        let (limiter, now) = (RuleRateLimiter::default(), Instant::now());

        let rules = ["a", "b", "c"].map(|moderator| accepted(&limiter, moderator, "den", now));

        assert_eq!(rules, [60, 60, 0]);
        assert_eq!(accepted(&limiter, "c", "hall", now), 60);
        limiter.evict_expired(now + Duration::from_secs(60));
        let buckets = limiter.lock();
        assert_eq!((buckets.moderators.len(), buckets.rooms.len()), (0, 0));
    }
}
