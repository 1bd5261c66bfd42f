//! Limits how many sockets or connections exist at one time, over all and for each address or account.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::address_key;

/// Limits how many permits are held at one time, over all keys and for each. A key is an address (WebSockets,
/// unauthenticated connections, connections), or the name of an account (WebSockets).
#[derive(Clone)]
pub struct ConcurrencyLimiter<K: Eq + Hash = IpAddr> {
    over_all: usize,
    held: Arc<Mutex<PermitCounts<K>>>,
}

#[derive(Debug)]
struct PermitCounts<K> {
    per_key: usize,
    over_all: usize,
    by_key: HashMap<K, usize>,
}

impl ConcurrencyLimiter {
    /// Takes a permit for `address`, until it is dropped; `None` at the limit.
    pub fn acquire(&self, address: IpAddr) -> Option<Permit> {
        self.acquire_for(address_key(address))
    }
}

impl<K: Clone + Eq + Hash> ConcurrencyLimiter<K> {
    /// At most `over_all` permits, and `per_key` for one key; 0 = no limit.
    pub fn new(over_all: usize, per_key: usize) -> Self {
        let held = PermitCounts { per_key: 0, over_all: 0, by_key: HashMap::new() };
        let held = Arc::new(Mutex::new(held));
        let limiter = Self { over_all: zero_as_unlimited(over_all), held };
        limiter.apply_settings(per_key);
        limiter
    }

    /// Changes the limit for one key; 0 = no limit. Permits that are held already stay.
    pub fn apply_settings(&self, per_key: usize) {
        self.lock().per_key = zero_as_unlimited(per_key);
    }

    /// Takes a permit for `key`, until it is dropped; `None` at the limit.
    pub fn acquire_for(&self, key: K) -> Option<Permit<K>> {
        let mut held = self.lock();
        let of_key = held.by_key.get(&key).copied().unwrap_or_default();
        if held.over_all >= self.over_all || of_key >= held.per_key {
            return None;
        }
        held.count(key.clone());
        Some(Permit { held: self.held.clone(), key })
    }

    /// Takes a permit for `key` also at the limit.
    pub fn acquire_beyond_limit(&self, key: K) -> Permit<K> {
        self.lock().count(key.clone());
        Permit { held: self.held.clone(), key }
    }

    /// How many permits are held.
    pub fn in_use(&self) -> usize {
        self.lock().over_all
    }

    fn lock(&self) -> MutexGuard<'_, PermitCounts<K>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> PermitCounts<K> {
    fn count(&mut self, key: K) {
        self.over_all += 1;
        *self.by_key.entry(key).or_default() += 1;
    }
}

fn zero_as_unlimited(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// One permit, held until it is dropped.
#[derive(Debug)]
pub struct Permit<K: Eq + Hash = IpAddr> {
    held: Arc<Mutex<PermitCounts<K>>>,
    key: K,
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.over_all -= 1;
        if let Some(count) = held.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                held.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_permit_is_held_until_it_is_dropped() {
        let limiter = ConcurrencyLimiter::new(0, 2);
        let first = limiter.acquire(ip("192.0.2.1")).unwrap();
        let _second = limiter.acquire(ip("192.0.2.1")).unwrap();

        assert!(limiter.acquire(ip("192.0.2.1")).is_none());
        assert!(limiter.acquire(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(limiter.acquire(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn the_limit_over_all_holds_for_any_number_of_addresses() {
        let limiter = ConcurrencyLimiter::new(3, 2);

        let held: Vec<_> =
            (0..5).map(|number| limiter.acquire(IpAddr::from([192, 0, 2, number]))).collect();

        assert_eq!(held.iter().flatten().count(), 3);
        assert_eq!(limiter.in_use(), 3);
    }

    #[test]
    fn zero_means_no_limit() {
        let limiter = ConcurrencyLimiter::new(0, 0);

        let all: Vec<_> = (0..1000).map(|_| limiter.acquire(ip("192.0.2.1")).unwrap()).collect();

        drop(all);
        let held = limiter.held.lock().unwrap();
        assert!(held.over_all == 0 && held.by_key.is_empty());
    }

    #[test]
    fn a_lower_limit_leaves_the_permits_that_are_held() {
        let limiter = ConcurrencyLimiter::new(0, 3);
        let mut held: Vec<_> = (0..3).map_while(|_| limiter.acquire(ip("192.0.2.1"))).collect();

        limiter.apply_settings(2);

        assert_eq!(limiter.in_use(), 3);
        held.pop();
        assert!(limiter.acquire(ip("192.0.2.1")).is_none(), "two are held still");
        held.pop();
        assert!(limiter.acquire(ip("192.0.2.1")).is_some());
    }
}
