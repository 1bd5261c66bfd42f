//! Limits how many sockets, connections or logins exist at one time, over all and for each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::address_key;

/// Limits how many permits are held at one time, over all addresses and for each: WebSockets, unauthenticated
/// connections, connections, logins.
#[derive(Clone)]
pub struct ConcurrencyLimiter {
    over_all: usize,
    held: Arc<Mutex<PermitCounts>>,
}

#[derive(Debug, Default)]
struct PermitCounts {
    per_address: usize,
    over_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl ConcurrencyLimiter {
    /// At most `over_all` permits, and `per_address` for one address; 0 = no limit.
    pub fn new(over_all: usize, per_address: usize) -> Self {
        let limiter = Self { over_all: zero_as_unlimited(over_all), held: Arc::default() };
        limiter.apply_settings(per_address);
        limiter
    }

    /// Changes the limit for one address; 0 = no limit. Permits that are held already stay.
    pub fn apply_settings(&self, per_address: usize) {
        self.lock().per_address = zero_as_unlimited(per_address);
    }

    /// Takes a permit for `address`, until it is dropped; `None` at the limit.
    pub fn acquire(&self, address: IpAddr) -> Option<Permit> {
        let address = address_key(address);
        let mut held = self.lock();
        let by_address = held.by_address.get(&address).copied().unwrap_or_default();
        if held.over_all >= self.over_all || by_address >= held.per_address {
            return None;
        }
        held.over_all += 1;
        held.by_address.insert(address, by_address + 1);
        Some(Permit { held: self.held.clone(), address })
    }

    /// How many permits are held.
    pub fn in_use(&self) -> usize {
        self.lock().over_all
    }

    fn lock(&self) -> MutexGuard<'_, PermitCounts> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn zero_as_unlimited(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

/// One permit, held until it is dropped.
#[derive(Debug)]
pub struct Permit {
    held: Arc<Mutex<PermitCounts>>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.over_all -= 1;
        if let Some(count) = held.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.by_address.remove(&self.address);
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
        assert!(held.over_all == 0 && held.by_address.is_empty());
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
