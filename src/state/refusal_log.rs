//! Which refused tokens are logged: clients that send them endlessly must not fill the log.

use std::{
    collections::HashMap,
    mem::Discriminant,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{auth::token_rejection::TokenRejection, limits::address_key};

/// The least time between two lines of one kind about one address.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many addresses and kinds are remembered; with more in one interval the rest is not logged.
const MAX_ENTRIES: usize = 4096;

/// When a refusal of each kind was last logged for each address.
#[derive(Default)]
pub(super) struct RefusalLog(Mutex<HashMap<(IpAddr, Discriminant<TokenRejection>), Instant>>);

impl RefusalLog {
    /// Whether a refusal is to be logged, which it then counts as.
    pub(super) fn admit(&self, address: IpAddr, rejection: &TokenRejection, now: Instant) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.len() >= MAX_ENTRIES {
            logged.retain(|_, at| now.duration_since(*at) < INTERVAL);
        }
        let key = (address_key(address), rejection.kind());
        let is_due = match logged.get(&key) {
            Some(at) => now.duration_since(*at) >= INTERVAL,
            None => logged.len() < MAX_ENTRIES,
        };
        if is_due {
            logged.insert(key, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_logged_once_a_minute_for_an_address_and_the_memory_is_bounded() {
        let (log, now) = (RefusalLog::default(), Instant::now());
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let (key, user) = (TokenRejection::WrongKey, TokenRejection::UnknownUser("a".into()));

        assert!(log.admit(address(1), &key, now));
        assert!(!log.admit(address(1), &key, now + INTERVAL / 2));
        assert!(log.admit(address(1), &user, now) && log.admit(address(2), &key, now));
        assert!(log.admit(address(1), &key, now + INTERVAL));

        let admitted = (10..10_000).filter(|number| log.admit(address(*number), &key, now)).count();
        assert_eq!(admitted, MAX_ENTRIES - 3);
        assert!(log.admit(address(9_999), &key, now + 2 * INTERVAL), "older entries were dropped");
    }
}
