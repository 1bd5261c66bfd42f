//! Locks usernames and addresses out after failed logins and rejected socket tokens
//! (`AUTH_MAX_FAILURES`, `AUTH_LOCKOUT_SECONDS`).

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::IpAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{MAX_TABLE_ENTRIES, address_key};

/// How many times more failures one address may have over all usernames, and one username over all addresses.
const WIDE_FACTOR: usize = 10;

/// An event that lockouts count, here and on other nodes. A name is a short digest of a username.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum AuthEvent {
    /// A login failed.
    LoginFailed {
        /// The digest of the username.
        name: String,
        /// The address of the client.
        address: IpAddr,
    },
    /// A login succeeded.
    LoggedIn {
        /// The digest of the username.
        name: String,
        /// The address of the client.
        address: IpAddr,
    },
    /// A WebSocket presented an invalid token.
    TokenRefused {
        /// The address of the client.
        address: IpAddr,
    },
}

/// Counts failed logins and invalid socket tokens, and locks out the usernames and addresses that have too many.
pub struct Lockouts {
    max_failures: usize,
    logins: FailureWindow<LockoutKey>,
    /// A table of its own: an invalid token costs nothing to send, and must not displace failed logins.
    sockets: FailureWindow<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum LockoutKey {
    UserFrom(String, IpAddr),
    From(IpAddr),
    User(String),
}

impl Lockouts {
    /// Locks out after `max_failures` within `window`, until `window` has passed since the last of them.
    pub fn new(max_failures: usize, window: Duration) -> Self {
        Self {
            max_failures,
            logins: FailureWindow::new(window),
            sockets: FailureWindow::new(window),
        }
    }

    /// Applies other settings, also to failures that were counted before.
    pub fn apply_settings(&mut self, max_failures: usize, window: Duration) {
        self.max_failures = max_failures;
        (self.logins.window, self.sockets.window) = (window, window);
    }

    /// Whether a login as `username` from `address` may be tried.
    ///
    /// # Errors
    ///
    /// How long to wait until it may.
    pub fn check_login(
        &self,
        username: &str,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), Duration> {
        self.lockout_keys(username, address)
            .iter()
            .try_for_each(|(key, allowed)| self.logins.check(key, *allowed, now))
    }

    /// Records an event, and returns whether it changed a lockout.
    pub fn record(&mut self, event: &AuthEvent, now: Instant) -> bool {
        match event {
            AuthEvent::LoginFailed { name, address } => self.login_failed(name, *address, now),
            AuthEvent::LoggedIn { name, address } => return self.login_succeeded(name, *address),
            AuthEvent::TokenRefused { address } => self.token_refused(*address, now),
        }
        true
    }

    /// Records a failed login.
    fn login_failed(&mut self, username: &str, address: IpAddr, now: Instant) {
        for (key, allowed) in self.lockout_keys(username, address) {
            self.logins.record(key, allowed, now);
        }
    }

    /// Clears the failures of `username` at `address`, after its owner logged in. Returns whether there were any.
    fn login_succeeded(&mut self, username: &str, address: IpAddr) -> bool {
        let key = LockoutKey::UserFrom(username.to_owned(), address_key(address));
        self.logins.times.remove(&key).is_some()
    }

    /// Whether `address` has sent too many invalid socket tokens.
    pub fn is_blocked(&self, address: IpAddr, now: Instant) -> bool {
        self.sockets.check(&address_key(address), self.max_failures, now).is_err()
    }

    /// Records an invalid socket token.
    fn token_refused(&mut self, address: IpAddr, now: Instant) {
        self.sockets.record(address_key(address), self.max_failures, now);
    }

    /// Drops failures that are older than the window.
    pub fn evict_expired(&mut self, now: Instant) {
        self.logins.evict_expired(now);
        self.sockets.evict_expired(now);
    }

    /// The keys that a failed login counts against, and how many failures each may have.
    fn lockout_keys(&self, username: &str, address: IpAddr) -> [(LockoutKey, usize); 3] {
        let (few, many) = (self.max_failures, self.max_failures.saturating_mul(WIDE_FACTOR));
        let address = address_key(address);
        [
            (LockoutKey::From(address), many),
            (LockoutKey::UserFrom(username.to_owned(), address), few),
            (LockoutKey::User(username.to_owned()), many),
        ]
    }
}

/// The times of the last failures of each key.
struct FailureWindow<K> {
    window: Duration,
    times: HashMap<K, VecDeque<Instant>>,
}

impl<K: Eq + Hash> FailureWindow<K> {
    fn new(window: Duration) -> Self {
        Self { window, times: HashMap::new() }
    }

    fn check(&self, key: &K, allowed: usize, now: Instant) -> Result<(), Duration> {
        let Some(times) = self.times.get(key) else { return Ok(()) };
        let Some(&last) = times.back() else { return Ok(()) };
        let since = now.duration_since(last);
        if times.len() >= allowed && since < self.window {
            return Err(self.window - since);
        }
        Ok(())
    }

    fn record(&mut self, key: K, allowed: usize, now: Instant) {
        if self.times.len() >= MAX_TABLE_ENTRIES {
            self.evict_expired(now);
            if self.times.len() > MAX_TABLE_ENTRIES / 2 {
                self.times.clear();
            }
        }
        let window = self.window;
        let times = self.times.entry(key).or_default();
        times.retain(|&then| now.duration_since(then) < window);
        if times.len() >= allowed {
            times.pop_front();
        }
        times.push_back(now);
    }

    fn evict_expired(&mut self, now: Instant) {
        let window = self.window;
        self.times
            .retain(|_, times| times.back().is_some_and(|&last| now.duration_since(last) < window));
        self.times.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests;
