//! How often is too often: failed logins, open sockets, messages. Decisions only: `now` is given.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How many times more failures one address may have over all names, and one name over all addresses.
const WIDE_FACTOR: usize = 10;

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 household gets.
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// How many addresses or names a table of failures or of requests may hold. Whoever commands more
/// addresses than that is not held by a limit on each of them.
const MAX_TABLE_ENTRIES: usize = 100_000;

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

/// HTTP requests per client address (`RATE_LIMIT_PER_MINUTE`): a bucket of that many, refilled within
/// a minute. The one limit that asks a clock itself, inside of governor.
pub struct HttpRateLimiter(RwLock<Option<RateLimit>>);

struct RateLimit {
    per_minute: NonZeroU32,
    buckets: Buckets,
}

type Buckets =
    RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock, StateInformationMiddleware>;

/// What is left of a bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateDecision {
    /// What the bucket holds, which is also what comes back in a minute.
    pub quota: u32,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// For a refused request: how long until one is let through.
    pub wait: Option<Duration>,
}

impl HttpRateLimiter {
    /// A bucket of `per_minute` for each address; 0 = no limit.
    pub fn new(per_minute: u32) -> Self {
        Self(RwLock::new(rate_limit(per_minute)))
    }

    /// Another limit, with full buckets; the one that holds already changes nothing.
    pub fn apply_settings(&self, per_minute: u32) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().map_or(0, |limited| limited.per_minute.get()) != per_minute {
            *held = rate_limit(per_minute);
        }
    }

    /// Takes one request from `address` into account; `None` where requests are not limited.
    pub fn check(&self, address: IpAddr) -> Option<RateDecision> {
        let held = self.lock();
        let RateLimit { per_minute, buckets } = held.as_ref()?;
        if buckets.len() >= MAX_TABLE_ENTRIES {
            drop(held);
            self.evict_if_full();
            return self.check(address);
        }
        let quota = per_minute.get();
        Some(match buckets.check_key(&address_key(address)) {
            Ok(state) => {
                RateDecision { quota, remaining: state.remaining_burst_capacity(), wait: None }
            }
            Err(refused) => {
                let wait = refused.wait_time_from(DefaultClock::default().now());
                RateDecision { quota, remaining: 0, wait: Some(wait) }
            }
        })
    }

    /// Drops buckets that are full again.
    pub fn evict_expired(&self) {
        if let Some(RateLimit { buckets, .. }) = self.lock().as_ref() {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
    }

    fn evict_if_full(&self) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(RateLimit { per_minute, buckets }) = held.as_mut() else { return };
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

/// How long nothing may have been refused for the next refusal to begin a new burst.
const BURST_GAP: Duration = Duration::from_secs(1);

/// What one connection may still say: a token bucket
/// (`WEBSOCKET_MESSAGES_PER_SECOND`, `WEBSOCKET_MESSAGE_BURST`).
#[derive(Debug)]
pub struct MessageRateLimiter {
    per_second: f64,
    burst: f64,
    tokens: f64,
    refilled: Instant,
    /// Messages refused in this burst, and when the last of them was.
    refused: f64,
    refused_at: Instant,
}

/// What to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateVerdict {
    /// Handle it.
    Pass,
    /// Refuse it, and say so: the first of this burst.
    Warn,
    /// Refuse it; the sender has been told.
    Drop,
    /// The sender does not stop: end the connection.
    Close,
}

impl MessageRateLimiter {
    /// A full bucket of `burst` messages that refills at `per_second`.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst);
        Self {
            per_second: f64::from(per_second),
            burst,
            tokens: burst,
            refilled: now,
            refused: 0.0,
            refused_at: now,
        }
    }

    /// Takes one message into account.
    ///
    /// A burst ends with a second in which nothing had to be refused. As many refused messages in
    /// one burst as the bucket holds are too many.
    pub fn check(&mut self, now: Instant) -> RateVerdict {
        let elapsed = now.duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return RateVerdict::Pass;
        }
        if now.duration_since(self.refused_at) >= BURST_GAP {
            self.refused = 0.0;
        }
        self.refused += 1.0;
        self.refused_at = now;
        match self.refused {
            1.0 => RateVerdict::Warn,
            refused if refused > self.burst => RateVerdict::Close,
            _ => RateVerdict::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn five_failures_lock_one_name_from_one_address_until_the_window_has_passed() {
        let (mut lockouts, now, home) =
            (Lockouts::new(5, 300 * SECOND), Instant::now(), ip("192.0.2.1"));

        for second in 0..5 {
            assert_eq!(lockouts.check_login("alice", home, now + second * SECOND), Ok(()));
            lockouts.login_failed("alice", home, now + second * SECOND);
        }

        assert_eq!(lockouts.check_login("alice", home, now + 5 * SECOND), Err(299 * SECOND));
        assert_eq!(lockouts.check_login("bob", home, now + 5 * SECOND), Ok(()), "a neighbour");
        assert_eq!(
            lockouts.check_login("alice", ip("192.0.2.2"), now + 5 * SECOND),
            Ok(()),
            "the owner, elsewhere"
        );
        assert_eq!(lockouts.check_login("alice", home, now + 304 * SECOND), Ok(()));
    }

    #[test]
    fn failures_that_lie_further_apart_than_the_window_do_not_add_up() {
        let (mut lockouts, now, home) =
            (Lockouts::new(2, 10 * SECOND), Instant::now(), ip("192.0.2.1"));

        for round in 0..10 {
            lockouts.login_failed("alice", home, now + round * 11 * SECOND);
            assert_eq!(lockouts.check_login("alice", home, now + round * 11 * SECOND), Ok(()));
        }
    }

    #[test]
    fn a_success_wipes_the_slate_of_this_name_at_this_address_only() {
        let (mut lockouts, now, home) =
            (Lockouts::new(2, 300 * SECOND), Instant::now(), ip("192.0.2.1"));
        lockouts.login_failed("alice", home, now);
        lockouts.login_failed("bob", home, now);

        lockouts.login_succeeded("alice", home);
        lockouts.login_failed("alice", home, now);
        lockouts.login_failed("bob", home, now);

        assert_eq!(lockouts.check_login("alice", home, now), Ok(()));
        assert!(lockouts.check_login("bob", home, now).is_err());
    }

    #[test]
    fn ten_times_as_many_lock_an_address_for_every_name_and_a_name_from_every_address() {
        let (mut lockouts, now, home) =
            (Lockouts::new(2, 300 * SECOND), Instant::now(), ip("192.0.2.1"));
        for number in 0..20_u8 {
            lockouts.login_failed(&format!("user{number}"), home, now);
            lockouts.login_failed("victim", IpAddr::from([198, 51, 100, number]), now);
        }

        assert!(lockouts.check_login("somebody", home, now).is_err());
        assert!(lockouts.check_login("victim", ip("203.0.113.9"), now).is_err());
        assert_eq!(lockouts.check_login("somebody", ip("203.0.113.9"), now), Ok(()));
    }

    #[test]
    fn one_ipv6_household_is_one_address() {
        let (mut lockouts, now) = (Lockouts::new(2, 300 * SECOND), Instant::now());
        lockouts.token_refused(ip("2001:db8:1:2::1"), now);
        lockouts.token_refused(ip("2001:db8:1:2:ffff::9"), now);

        assert!(lockouts.is_blocked(ip("2001:db8:1:2::77"), now));
        assert!(!lockouts.is_blocked(ip("2001:db8:1:3::1"), now));
        assert_eq!(address_key(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }

    #[test]
    fn what_no_longer_counts_takes_no_room() {
        let (mut lockouts, now) = (Lockouts::new(5, 10 * SECOND), Instant::now());
        for number in 0..100 {
            lockouts.login_failed(&format!("user{number}"), ip("192.0.2.1"), now);
            lockouts.token_refused(IpAddr::from([192, 0, 2, number]), now);
        }

        lockouts.evict_expired(now + 10 * SECOND);

        assert_eq!((lockouts.logins.times.len(), lockouts.sockets.times.len()), (0, 0));
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_the_largest_table_and_free_no_guesser() {
        let (mut lockouts, now) = (Lockouts::new(1, 300 * SECOND), Instant::now());
        let requests = HttpRateLimiter::new(60);
        lockouts.login_failed("alice", ip("192.0.2.1"), now);

        for number in 0..1_000_000_u128 {
            let household = Ipv6Addr::from_bits(number << 64).into();
            lockouts.token_refused(household, now);
            requests.check(household);
        }

        assert!(lockouts.sockets.times.len() <= MAX_TABLE_ENTRIES);
        assert!(requests.lock().as_ref().unwrap().buckets.len() <= MAX_TABLE_ENTRIES);
        assert!(lockouts.check_login("alice", ip("192.0.2.1"), now).is_err());
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
    fn an_address_gets_its_requests_and_then_is_told_when_to_come_back() {
        let requests = HttpRateLimiter::new(3);
        let (home, neighbour) = (ip("192.0.2.1"), ip("192.0.2.2"));

        let left: Vec<_> = (0..3).map(|_| requests.check(home).unwrap().remaining).collect();

        assert_eq!(left, [2, 1, 0]);
        let wait = requests.check(home).unwrap().wait.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(requests.check(neighbour).unwrap().wait, None);
    }

    #[test]
    fn another_limit_on_requests_holds_at_once_and_the_same_one_forgives_nothing() {
        let (requests, home) = (HttpRateLimiter::new(1), ip("192.0.2.1"));
        let wait = |requests: &HttpRateLimiter| requests.check(home).unwrap().wait;
        assert_eq!(wait(&requests), None);

        requests.apply_settings(1);
        assert!(wait(&requests).is_some());
        requests.apply_settings(2);
        assert_eq!([wait(&requests), wait(&requests)], [None, None]);
        assert!(wait(&requests).is_some());
        requests.apply_settings(0);
        assert_eq!(requests.check(home), None);
    }

    #[test]
    fn other_lockouts_count_what_was_wrong_before() {
        let (mut lockouts, now, home) =
            (Lockouts::new(5, 300 * SECOND), Instant::now(), ip("192.0.2.1"));
        (0..2).for_each(|_| lockouts.login_failed("alice", home, now));

        lockouts.apply_settings(2, 60 * SECOND);

        assert_eq!(lockouts.check_login("alice", home, now), Err(60 * SECOND));
        assert_eq!(lockouts.check_login("alice", home, now + 60 * SECOND), Ok(()));
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

    #[test]
    fn a_budget_warns_once_then_drops_then_closes() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(10, 20, now);

        let verdicts: Vec<_> = (0..41).map(|_| budget.check(now)).collect();

        assert!(verdicts[..20].iter().all(|&verdict| verdict == RateVerdict::Pass));
        assert_eq!(verdicts[20], RateVerdict::Warn);
        assert!(verdicts[21..40].iter().all(|&verdict| verdict == RateVerdict::Drop));
        assert_eq!(verdicts[40], RateVerdict::Close);
    }

    #[test]
    fn a_second_without_refusals_ends_a_burst() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(10, 20, now);
        let verdicts = |budget: &mut MessageRateLimiter, now| {
            (0..25).map(|_| budget.check(now)).collect::<Vec<_>>()
        };

        let (first, second) = (verdicts(&mut budget, now), verdicts(&mut budget, now + 2 * SECOND));

        assert_eq!(first, second);
        assert_eq!(first[20], RateVerdict::Warn);
    }

    #[test]
    fn somebody_who_is_a_little_too_fast_for_long_is_warned_once_and_then_closed() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(50, 250, now);

        let verdicts: Vec<_> =
            (0..6000).map(|turn| budget.check(now + turn * Duration::from_millis(16))).collect();

        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == RateVerdict::Warn).count(), 1);
        assert!(verdicts.contains(&RateVerdict::Close));
    }

    #[test]
    fn a_steady_sender_within_its_rate_is_never_refused() {
        let now = Instant::now();
        let mut budget = MessageRateLimiter::new(50, 1, now);

        assert!(
            (1..1000)
                .all(|turn| budget.check(now + turn * Duration::from_millis(21))
                    == RateVerdict::Pass)
        );
    }
}
