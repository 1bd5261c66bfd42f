//! Limits how often an address opens connections (`MAX_CONNECTIONS_PER_IP`).

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{address_key, bucket_table::BucketTable, token_bucket::BucketSize};

/// Connections that an address may open at once beside those of its members: browsers open six for a page.
const BESIDE_MEMBERS: usize = 512;

/// How often each member's connection may be opened anew within a minute.
const ATTEMPTS_PER_MEMBER: usize = 4;

/// A token bucket of connections for each address, refilled within a minute. Answering a connection costs many times what
/// refusing it does: a client that connects again as soon as it was refused would keep a core busy.
#[derive(Default)]
pub struct ConnectionRateLimiter(Mutex<BucketTable<IpAddr>>);

impl ConnectionRateLimiter {
    /// For addresses with at most `per_address` WebSockets; 0 = no limit.
    pub fn new(per_address: usize) -> Self {
        let limiter = Self::default();
        limiter.apply_settings(per_address);
        limiter
    }

    /// Changes the limit, also for buckets in use.
    pub fn apply_settings(&self, per_address: usize) {
        let burst = (BESIDE_MEMBERS + per_address.saturating_mul(ATTEMPTS_PER_MEMBER)) as f64;
        let size = BucketSize { burst, per_second: burst / 60.0 };
        self.lock().size = (per_address > 0).then_some(size);
    }

    /// Counts a connection from `address`. `false` where it has opened too many.
    pub fn check(&self, address: IpAddr, now: Instant) -> bool {
        self.lock().take(address_key(address), now)
    }

    /// Drops buckets that are full again.
    pub fn evict_expired(&self, now: Instant) {
        self.lock().evict_full(now);
    }

    fn lock(&self) -> MutexGuard<'_, BucketTable<IpAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, time::Duration};

    use super::*;
    use crate::limits::MAX_TABLE_ENTRIES;

    fn accepted(limiter: &ConnectionRateLimiter, address: IpAddr, now: Instant) -> usize {
        (0..10_000).take_while(|_| limiter.check(address, now)).count()
    }

    #[test]
    fn an_address_opens_what_its_members_need_and_a_minute_refills_it() {
        let (limiter, now) = (ConnectionRateLimiter::new(100), Instant::now());
        let (office, neighbour) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());

        assert_eq!(accepted(&limiter, office, now), 912);
        assert_eq!(accepted(&limiter, office, now), 0);
        assert_eq!(accepted(&limiter, neighbour, now), 912);
        assert_eq!(accepted(&limiter, office, now + Duration::from_secs(30)), 456);
    }

    #[test]
    fn no_limit_of_sockets_is_no_limit_of_connections() {
        let (limiter, now) = (ConnectionRateLimiter::new(1), Instant::now());
        let address = [192, 0, 2, 1].into();
        assert_eq!(accepted(&limiter, address, now), 516);

        limiter.apply_settings(0);

        assert_eq!(accepted(&limiter, address, now), 10_000);
    }

    #[test]
    fn a_million_networks_take_no_more_memory_than_the_largest_table() {
        let (limiter, now) = (ConnectionRateLimiter::new(100), Instant::now());

        for number in 0..1_000_000_u128 {
            assert!(limiter.check(Ipv6Addr::from_bits(number << 64).into(), now));
        }

        assert!(limiter.lock().len() <= MAX_TABLE_ENTRIES);
        limiter.evict_expired(now + Duration::from_secs(60));
        assert_eq!(limiter.lock().len(), 0);
    }
}
