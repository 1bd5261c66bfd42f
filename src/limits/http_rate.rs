//! Limits HTTP requests for each client address (`RATE_LIMIT_PER_MINUTE`).

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use super::{MAX_TABLE_ENTRIES, address_key};

/// A token bucket for each client address: it holds one minute's requests (`RATE_LIMIT_PER_MINUTE`) and is refilled within
/// a minute. The one limit that reads a clock itself, inside of governor.
pub struct HttpRateLimiter(RwLock<Option<RateLimit>>);

struct RateLimit {
    per_minute: NonZeroU32,
    buckets: Buckets,
}

type Buckets =
    RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock, StateInformationMiddleware>;

/// The state of a bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateDecision {
    /// How many requests the bucket holds, which is also how many are refilled in a minute.
    pub quota: u32,
    /// Requests that may follow now.
    pub remaining: u32,
    /// For a rejected request: how long until one is accepted.
    pub wait: Option<Duration>,
}

impl HttpRateLimiter {
    /// A bucket of `per_minute` for each address; 0 = no limit.
    pub fn new(per_minute: u32) -> Self {
        Self(RwLock::new(rate_limit(per_minute)))
    }

    /// Changes the limit, and refills all buckets; the limit in force changes nothing.
    pub fn apply_settings(&self, per_minute: u32) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().map_or(0, |limited| limited.per_minute.get()) != per_minute {
            *current = rate_limit(per_minute);
        }
    }

    /// Counts one request from `address`; `None` where requests are not limited.
    pub fn check(&self, address: IpAddr) -> Option<RateDecision> {
        let current = self.lock();
        let RateLimit { per_minute, buckets } = current.as_ref()?;
        if buckets.len() >= MAX_TABLE_ENTRIES {
            drop(current);
            self.evict_if_full();
            return self.check(address);
        }
        let quota = per_minute.get();
        // Before the check: once it has refused, the bucket may be refilled, and the wait would be nothing.
        let now = buckets.clock().now();
        Some(match buckets.check_key(&address_key(address)) {
            Ok(state) => {
                RateDecision { quota, remaining: state.remaining_burst_capacity(), wait: None }
            }
            Err(refused) => {
                let wait = refused.wait_time_from(now);
                RateDecision { quota, remaining: 0, wait: Some(wait) }
            }
        })
    }

    /// Drops the buckets that are full again.
    pub fn evict_expired(&self) {
        if let Some(RateLimit { buckets, .. }) = self.lock().as_ref() {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
    }

    fn evict_if_full(&self) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(RateLimit { per_minute, buckets }) = current.as_mut() else { return };
        buckets.retain_recent();
        if buckets.len() > MAX_TABLE_ENTRIES / 2 {
            *buckets = full_buckets(*per_minute);
        }
    }

    fn lock(&self) -> RwLockReadGuard<'_, Option<RateLimit>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rate_limit(per_minute: u32) -> Option<RateLimit> {
    let per_minute = NonZeroU32::new(per_minute)?;
    Some(RateLimit { per_minute, buckets: full_buckets(per_minute) })
}

fn full_buckets(per_minute: NonZeroU32) -> Buckets {
    RateLimiter::dashmap(Quota::per_minute(per_minute)).with_middleware()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_million_addresses_take_no_more_memory_than_the_largest_table() {
        let limiter = HttpRateLimiter::new(60);

        for number in 0..1_000_000_u128 {
            limiter.check(Ipv6Addr::from_bits(number << 64).into());
        }

        assert!(limiter.lock().as_ref().unwrap().buckets.len() <= MAX_TABLE_ENTRIES);
    }

    #[test]
    fn a_rejected_request_says_when_the_next_one_is_accepted() {
        let limiter = HttpRateLimiter::new(3);
        let (home, neighbour) = (ip("192.0.2.1"), ip("192.0.2.2"));

        let left: Vec<_> = (0..3).map(|_| limiter.check(home).unwrap().remaining).collect();

        assert_eq!(left, [2, 1, 0]);
        let wait = limiter.check(home).unwrap().wait.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(limiter.check(neighbour).unwrap().wait, None);
    }

    #[test]
    fn a_new_limit_applies_at_once_and_the_same_limit_refills_nothing() {
        let (limiter, home) = (HttpRateLimiter::new(1), ip("192.0.2.1"));
        let wait = |limiter: &HttpRateLimiter| limiter.check(home).unwrap().wait;
        assert_eq!(wait(&limiter), None);

        limiter.apply_settings(1);
        assert!(wait(&limiter).is_some());
        limiter.apply_settings(2);
        assert_eq!([wait(&limiter), wait(&limiter)], [None, None]);
        assert!(wait(&limiter).is_some());
        limiter.apply_settings(0);
        assert_eq!(limiter.check(home), None);
    }
}
