//! Limits how many sockets, connections or logins exist at one time, over all and for each address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::address_key;

/// So many at once, over all addresses and for each: sockets, strangers, connections, logins.
#[derive(Clone)]
pub struct ConcurrencyLimiter {
    over_all: usize,
    taken: Arc<Mutex<PermitCounts>>,
}

#[derive(Debug, Default)]
struct PermitCounts {
    per_address: usize,
    over_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl ConcurrencyLimiter {
    /// `over_all` places, of which one address gets `per_address`; 0 = no limit.
    pub fn new(over_all: usize, per_address: usize) -> Self {
        let places = Self { over_all: zero_as_unlimited(over_all), taken: Arc::default() };
        places.apply_settings(per_address);
        places
    }

    /// From now on an address gets `per_address`; 0 = no limit. Whoever has more keeps them.
    pub fn apply_settings(&self, per_address: usize) {
        self.lock().per_address = zero_as_unlimited(per_address);
    }

    /// Takes a place for `address` for as long as the value is held; `None` when there is none left
    /// for it.
    pub fn acquire(&self, address: IpAddr) -> Option<Permit> {
        let address = address_key(address);
        let mut taken = self.lock();
        let by_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.over_all >= self.over_all || by_address >= taken.per_address {
            return None;
        }
        taken.over_all += 1;
        taken.by_address.insert(address, by_address + 1);
        Some(Permit { taken: self.taken.clone(), address })
    }

    /// How many places are taken.
    pub fn in_use(&self) -> usize {
        self.lock().over_all
    }

    fn lock(&self) -> MutexGuard<'_, PermitCounts> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn zero_as_unlimited(places: usize) -> usize {
    if places == 0 { usize::MAX } else { places }
}

/// One place, taken until it is dropped.
#[derive(Debug)]
pub struct Permit {
    taken: Arc<Mutex<PermitCounts>>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.over_all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
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
    fn a_place_is_taken_until_it_is_dropped() {
        let places = ConcurrencyLimiter::new(0, 2);
        let first = places.acquire(ip("192.0.2.1")).unwrap();
        let _second = places.acquire(ip("192.0.2.1")).unwrap();

        assert!(places.acquire(ip("192.0.2.1")).is_none());
        assert!(places.acquire(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(places.acquire(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn there_are_so_many_places_however_many_addresses_ask() {
        let places = ConcurrencyLimiter::new(3, 2);

        let held: Vec<_> =
            (0..5).map(|number| places.acquire(IpAddr::from([192, 0, 2, number]))).collect();

        assert_eq!(held.iter().flatten().count(), 3);
        assert_eq!(places.in_use(), 3);
    }

    #[test]
    fn zero_places_means_no_limit() {
        let places = ConcurrencyLimiter::new(0, 0);

        let all: Vec<_> = (0..1000).map(|_| places.acquire(ip("192.0.2.1")).unwrap()).collect();

        drop(all);
        let taken = places.taken.lock().unwrap();
        assert!(taken.over_all == 0 && taken.by_address.is_empty());
    }

    #[test]
    fn fewer_places_leave_those_that_are_taken() {
        let places = ConcurrencyLimiter::new(0, 3);
        let mut held: Vec<_> = (0..3).map_while(|_| places.acquire(ip("192.0.2.1"))).collect();

        places.apply_settings(2);

        assert_eq!(places.in_use(), 3);
        held.pop();
        assert!(places.acquire(ip("192.0.2.1")).is_none(), "two are held still");
        held.pop();
        assert!(places.acquire(ip("192.0.2.1")).is_some());
    }
}
