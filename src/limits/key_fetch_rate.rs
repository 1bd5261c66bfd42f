//! Limits how often tokens that name unknown keys cause a fetch of an issuer's keys.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::{address_key, bucket_table::BucketTable, token_bucket::BucketSize};

/// How many fetches may be caused at once.
const BURST: f64 = 3.0;

/// How many of them by one address: its second one is for tokens that came while the first one ran, as the issuer may have changed
/// its keys after it had answered.
const ADDRESS_BURST: f64 = 2.0;

/// How many times the interval of all addresses together that of one address is: two thirds of the fetches are left to others,
/// whatever it sends.
const ADDRESS_INTERVALS: u32 = 3;

/// A token bucket of fetches for all addresses together, and one for each address. Where no address sends tokens with keys that
/// do not exist, a token with a new key causes a fetch at once.
pub struct KeyFetchRateLimiter {
    all: BucketTable<()>,
    addresses: BucketTable<IpAddr>,
}

impl KeyFetchRateLimiter {
    /// Tokens may cause a fetch in each `interval`; no limit where that is zero.
    pub fn new(interval: Duration) -> Self {
        let size = |burst, interval: Duration| BucketSize {
            burst,
            per_second: 1.0 / interval.as_secs_f64(),
        };
        let is_limited = !interval.is_zero();
        let mut limiter = Self { all: BucketTable::default(), addresses: BucketTable::default() };
        limiter.all.size = is_limited.then(|| size(BURST, interval));
        limiter.addresses.size =
            is_limited.then(|| size(ADDRESS_BURST, interval.saturating_mul(ADDRESS_INTERVALS)));
        limiter
    }

    /// Whether a token from `address` may cause a fetch.
    pub fn allows(&self, address: IpAddr, now: Instant) -> bool {
        let address = address_key(address);
        self.all.wait(&(), now).is_zero() && self.addresses.wait(&address, now).is_zero()
    }

    /// Counts a fetch that a token from `address` causes.
    pub fn count(&mut self, address: IpAddr, now: Instant) {
        self.addresses.evict_full(now);
        self.all.take((), now);
        self.addresses.take(address_key(address), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many fetches the addresses cause in ten minutes, each with a token every second, and how long a further address waits
    /// at most for one.
    fn flood(addresses: u8) -> (u32, u32) {
        let (mut limiter, start) = (KeyFetchRateLimiter::new(20 * SECOND), Instant::now());
        let (mut fetches, mut waited, mut longest) = (0, 0, 0);
        for second in 0..600 {
            let now = start + second * SECOND;
            for address in (0..addresses).map(|number| IpAddr::from([192, 0, 2, number])) {
                if limiter.allows(address, now) {
                    limiter.count(address, now);
                    fetches += 1;
                }
            }
            let may_fetch = limiter.allows([198, 51, 100, 1].into(), now);
            waited = if may_fetch { 0 } else { waited + 1 };
            longest = longest.max(waited);
        }
        (fetches, longest)
    }

    #[test]
    fn one_address_causes_a_fetch_a_minute_and_takes_none_from_others() {
        assert_eq!(flood(1), (11, 0));
    }

    #[test]
    fn all_addresses_cause_three_fetches_a_minute() {
        let (fetches, _) = flood(50);

        assert!((30..=33).contains(&fetches), "{fetches}");
    }

    #[test]
    fn an_interval_of_zero_is_no_limit() {
        let (mut limiter, now) = (KeyFetchRateLimiter::new(Duration::ZERO), Instant::now());

        for _ in 0..1_000 {
            assert!(limiter.allows([192, 0, 2, 1].into(), now));
            limiter.count([192, 0, 2, 1].into(), now);
        }
    }
}
