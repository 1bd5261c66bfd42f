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

/// How many times more failures one address may have over all names, and one name over all addresses.
const WIDE_FACTOR: usize = 10;

/// What lockouts are about. Names are whatever stands for one, and short.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum AuthEvent {
    /// Somebody tried to log in, and could not.
    LoginFailed {
        /// As whom.
        name: String,
        /// From where.
        address: IpAddr,
    },
    /// Somebody logged in.
    LoggedIn {
        /// As whom.
        name: String,
        /// From where.
        address: IpAddr,
    },
    /// A bad socket token.
    TokenRefused {
        /// From where.
        address: IpAddr,
    },
}

/// Failed logins and bad socket tokens, and who has to wait because of them
/// (`AUTH_MAX_FAILURES`, `AUTH_LOCKOUT_SECONDS`).
pub struct Lockouts {
    max_failures: usize,
    logins: FailureWindow<LockoutKey>,
    /// A table of its own: a bad token costs nothing to send, and must not crowd out failed logins.
    sockets: FailureWindow<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum LockoutKey {
    UserFrom(String, IpAddr),
    From(IpAddr),
    User(String),
}

impl Lockouts {
    /// `max_failures` within `window` lock out until `window` has passed since the last of them.
    pub fn new(max_failures: usize, window: Duration) -> Self {
        Self {
            max_failures,
            logins: FailureWindow::new(window),
            sockets: FailureWindow::new(window),
        }
    }

    /// The same with other settings, also for what was counted before.
    pub fn apply_settings(&mut self, max_failures: usize, window: Duration) {
        self.max_failures = max_failures;
        (self.logins.window, self.sockets.window) = (window, window);
    }

    /// Whether somebody may try to log in as `username` from `address`.
    ///
    /// # Errors
    ///
    /// How long to wait.
    pub fn check_login(
        &self,
        username: &str,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), Duration> {
        self.lockout_keys(username, address)
            .iter()
            .try_for_each(|(culprit, allowed)| self.logins.check(culprit, *allowed, now))
    }

    /// Takes an attempt into account; whether that changed anything.
    pub fn record(&mut self, attempt: &AuthEvent, now: Instant) -> bool {
        match attempt {
            AuthEvent::LoginFailed { name, address } => self.login_failed(name, *address, now),
            AuthEvent::LoggedIn { name, address } => return self.login_succeeded(name, *address),
            AuthEvent::TokenRefused { address } => self.token_refused(*address, now),
        }
        true
    }

    /// Remembers a failed login.
    fn login_failed(&mut self, username: &str, address: IpAddr, now: Instant) {
        for (culprit, allowed) in self.lockout_keys(username, address) {
            self.logins.record(culprit, allowed, now);
        }
    }

    /// Forgets what `username` got wrong from `address`: it was the owner after all. Whether there was anything.
    fn login_succeeded(&mut self, username: &str, address: IpAddr) -> bool {
        let culprit = LockoutKey::UserFrom(username.to_owned(), address_key(address));
        self.logins.times.remove(&culprit).is_some()
    }

    /// Whether a bad socket token from `address` is only one more of too many.
    pub fn is_blocked(&self, address: IpAddr, now: Instant) -> bool {
        self.sockets.check(&address_key(address), self.max_failures, now).is_err()
    }

    /// Remembers a bad socket token.
    fn token_refused(&mut self, address: IpAddr, now: Instant) {
        self.sockets.record(address_key(address), self.max_failures, now);
    }

    /// Drops what no longer counts.
    pub fn evict_expired(&mut self, now: Instant) {
        self.logins.evict_expired(now);
        self.sockets.evict_expired(now);
    }

    /// Whom a failed login is counted against, and how often each may fail.
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

/// When whoever a key stands for failed last.
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
