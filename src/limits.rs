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
const WIDER: usize = 10;

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 household gets.
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// How many addresses or names a table of failures or of requests may hold. Whoever commands more
/// addresses than that is not held by a limit on each of them.
const LARGEST_TABLE: usize = 100_000;

/// What lockouts are about. Names are whatever stands for one, and short.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Attempt {
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
    logins: Failures<Culprit>,
    /// A table of its own: a bad token costs nothing to send, and must not crowd out failed logins.
    sockets: Failures<IpAddr>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Culprit {
    UserFrom(String, IpAddr),
    From(IpAddr),
    User(String),
}

impl Lockouts {
    /// `max_failures` within `window` lock out until `window` has passed since the last of them.
    pub fn new(max_failures: usize, window: Duration) -> Self {
        Self { max_failures, logins: Failures::new(window), sockets: Failures::new(window) }
    }

    /// The same with other settings, also for what was counted before.
    pub fn adopt(&mut self, max_failures: usize, window: Duration) {
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
        self.culprits(username, address)
            .iter()
            .try_for_each(|(culprit, allowed)| self.logins.check(culprit, *allowed, now))
    }

    /// Takes an attempt into account; whether that changed anything.
    pub fn note(&mut self, attempt: &Attempt, now: Instant) -> bool {
        match attempt {
            Attempt::LoginFailed { name, address } => self.login_failed(name, *address, now),
            Attempt::LoggedIn { name, address } => return self.login_succeeded(name, *address),
            Attempt::TokenRefused { address } => self.token_refused(*address, now),
        }
        true
    }

    /// Remembers a failed login.
    fn login_failed(&mut self, username: &str, address: IpAddr, now: Instant) {
        for (culprit, allowed) in self.culprits(username, address) {
            self.logins.record(culprit, allowed, now);
        }
    }

    /// Forgets what `username` got wrong from `address`: it was the owner after all. Whether there was anything.
    fn login_succeeded(&mut self, username: &str, address: IpAddr) -> bool {
        let culprit = Culprit::UserFrom(username.to_owned(), address_key(address));
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
    pub fn forget(&mut self, now: Instant) {
        self.logins.forget(now);
        self.sockets.forget(now);
    }

    /// Whom a failed login is counted against, and how often each may fail.
    fn culprits(&self, username: &str, address: IpAddr) -> [(Culprit, usize); 3] {
        let (few, many) = (self.max_failures, self.max_failures.saturating_mul(WIDER));
        let address = address_key(address);
        [
            (Culprit::From(address), many),
            (Culprit::UserFrom(username.to_owned(), address), few),
            (Culprit::User(username.to_owned()), many),
        ]
    }
}

/// When whoever a key stands for failed last.
struct Failures<K> {
    window: Duration,
    times: HashMap<K, VecDeque<Instant>>,
}

impl<K: Eq + Hash> Failures<K> {
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
        if self.times.len() >= LARGEST_TABLE {
            self.forget(now);
            if self.times.len() > LARGEST_TABLE / 2 {
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

    fn forget(&mut self, now: Instant) {
        let window = self.window;
        self.times
            .retain(|_, times| times.back().is_some_and(|&last| now.duration_since(last) < window));
        self.times.shrink_to_fit();
    }
}

/// So many at once, over all addresses and for each: sockets, strangers, connections, logins.
#[derive(Clone)]
pub struct Places {
    over_all: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    per_address: usize,
    over_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    /// `over_all` places, of which one address gets `per_address`; 0 = no limit.
    pub fn new(over_all: usize, per_address: usize) -> Self {
        let places = Self { over_all: unlimited_if_zero(over_all), taken: Arc::default() };
        places.adopt(per_address);
        places
    }

    /// From now on an address gets `per_address`; 0 = no limit. Whoever has more keeps them.
    pub fn adopt(&self, per_address: usize) {
        self.lock().per_address = unlimited_if_zero(per_address);
    }

    /// Takes a place for `address` for as long as the value is held; `None` when there is none left
    /// for it.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let address = address_key(address);
        let mut taken = self.lock();
        let by_address = taken.by_address.get(&address).copied().unwrap_or_default();
        if taken.over_all >= self.over_all || by_address >= taken.per_address {
            return None;
        }
        taken.over_all += 1;
        taken.by_address.insert(address, by_address + 1);
        Some(Place { taken: self.taken.clone(), address })
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.lock().over_all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unlimited_if_zero(places: usize) -> usize {
    if places == 0 { usize::MAX } else { places }
}

/// One place, taken until it is dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    address: IpAddr,
}

impl Drop for Place {
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
pub struct Requests(RwLock<Option<Limited>>);

struct Limited {
    per_minute: NonZeroU32,
    buckets: Buckets,
}

type Buckets =
    RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock, StateInformationMiddleware>;

/// What is left of a bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// What the bucket holds, which is also what comes back in a minute.
    pub quota: u32,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// For a refused request: how long until one is let through.
    pub wait: Option<Duration>,
}

impl Requests {
    /// A bucket of `per_minute` for each address; 0 = no limit.
    pub fn new(per_minute: u32) -> Self {
        Self(RwLock::new(limited(per_minute)))
    }

    /// Another limit, with full buckets; the one that holds already changes nothing.
    pub fn adopt(&self, per_minute: u32) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().map_or(0, |limited| limited.per_minute.get()) != per_minute {
            *held = limited(per_minute);
        }
    }

    /// Takes one request from `address` into account; `None` where requests are not limited.
    pub fn take(&self, address: IpAddr) -> Option<Allowance> {
        let held = self.lock();
        let Limited { per_minute, buckets } = held.as_ref()?;
        if buckets.len() >= LARGEST_TABLE {
            drop(held);
            self.make_room();
            return self.take(address);
        }
        let quota = per_minute.get();
        Some(match buckets.check_key(&address_key(address)) {
            Ok(state) => {
                Allowance { quota, remaining: state.remaining_burst_capacity(), wait: None }
            }
            Err(refused) => {
                let wait = refused.wait_time_from(DefaultClock::default().now());
                Allowance { quota, remaining: 0, wait: Some(wait) }
            }
        })
    }

    /// Drops buckets that are full again.
    pub fn forget(&self) {
        if let Some(Limited { buckets, .. }) = self.lock().as_ref() {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
    }

    fn make_room(&self) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(Limited { per_minute, buckets }) = held.as_mut() else { return };
        buckets.retain_recent();
        if buckets.len() > LARGEST_TABLE / 2 {
            *buckets = full_buckets(*per_minute);
        }
    }

    fn lock(&self) -> RwLockReadGuard<'_, Option<Limited>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn limited(per_minute: u32) -> Option<Limited> {
    let per_minute = NonZeroU32::new(per_minute)?;
    Some(Limited { per_minute, buckets: full_buckets(per_minute) })
}

fn full_buckets(per_minute: NonZeroU32) -> Buckets {
    RateLimiter::dashmap(Quota::per_minute(per_minute)).with_middleware()
}

/// How long nothing may have been refused for the next refusal to begin a new burst.
const BURST_ENDS_AFTER: Duration = Duration::from_secs(1);

/// What one connection may still say: a token bucket
/// (`WEBSOCKET_MESSAGES_PER_SECOND`, `WEBSOCKET_MESSAGE_BURST`).
#[derive(Debug)]
pub struct MessageBudget {
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
pub enum Verdict {
    /// Handle it.
    Pass,
    /// Refuse it, and say so: the first of this burst.
    Warn,
    /// Refuse it; the sender has been told.
    Drop,
    /// The sender does not stop: end the connection.
    Close,
}

impl MessageBudget {
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
    pub fn spend(&mut self, now: Instant) -> Verdict {
        let elapsed = now.duration_since(self.refilled).as_secs_f64();
        self.refilled = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Verdict::Pass;
        }
        if now.duration_since(self.refused_at) >= BURST_ENDS_AFTER {
            self.refused = 0.0;
        }
        self.refused += 1.0;
        self.refused_at = now;
        match self.refused {
            1.0 => Verdict::Warn,
            refused if refused > self.burst => Verdict::Close,
            _ => Verdict::Drop,
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

        lockouts.forget(now + 10 * SECOND);

        assert_eq!((lockouts.logins.times.len(), lockouts.sockets.times.len()), (0, 0));
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_the_largest_table_and_free_no_guesser() {
        let (mut lockouts, now) = (Lockouts::new(1, 300 * SECOND), Instant::now());
        let requests = Requests::new(60);
        lockouts.login_failed("alice", ip("192.0.2.1"), now);

        for number in 0..1_000_000_u128 {
            let household = Ipv6Addr::from_bits(number << 64).into();
            lockouts.token_refused(household, now);
            requests.take(household);
        }

        assert!(lockouts.sockets.times.len() <= LARGEST_TABLE);
        assert!(requests.lock().as_ref().unwrap().buckets.len() <= LARGEST_TABLE);
        assert!(lockouts.check_login("alice", ip("192.0.2.1"), now).is_err());
    }

    #[test]
    fn a_place_is_taken_until_it_is_dropped() {
        let places = Places::new(0, 2);
        let first = places.take(ip("192.0.2.1")).unwrap();
        let _second = places.take(ip("192.0.2.1")).unwrap();

        assert!(places.take(ip("192.0.2.1")).is_none());
        assert!(places.take(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(places.take(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn there_are_so_many_places_however_many_addresses_ask() {
        let places = Places::new(3, 2);

        let held: Vec<_> =
            (0..5).map(|number| places.take(IpAddr::from([192, 0, 2, number]))).collect();

        assert_eq!(held.iter().flatten().count(), 3);
        assert_eq!(places.taken(), 3);
    }

    #[test]
    fn zero_places_means_no_limit() {
        let places = Places::new(0, 0);

        let all: Vec<_> = (0..1000).map(|_| places.take(ip("192.0.2.1")).unwrap()).collect();

        drop(all);
        let taken = places.taken.lock().unwrap();
        assert!(taken.over_all == 0 && taken.by_address.is_empty());
    }

    #[test]
    fn an_address_gets_its_requests_and_then_is_told_when_to_come_back() {
        let requests = Requests::new(3);
        let (home, neighbour) = (ip("192.0.2.1"), ip("192.0.2.2"));

        let left: Vec<_> = (0..3).map(|_| requests.take(home).unwrap().remaining).collect();

        assert_eq!(left, [2, 1, 0]);
        let wait = requests.take(home).unwrap().wait.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(requests.take(neighbour).unwrap().wait, None);
    }

    #[test]
    fn another_limit_on_requests_holds_at_once_and_the_same_one_forgives_nothing() {
        let (requests, home) = (Requests::new(1), ip("192.0.2.1"));
        let wait = |requests: &Requests| requests.take(home).unwrap().wait;
        assert_eq!(wait(&requests), None);

        requests.adopt(1);
        assert!(wait(&requests).is_some());
        requests.adopt(2);
        assert_eq!([wait(&requests), wait(&requests)], [None, None]);
        assert!(wait(&requests).is_some());
        requests.adopt(0);
        assert_eq!(requests.take(home), None);
    }

    #[test]
    fn other_lockouts_count_what_was_wrong_before() {
        let (mut lockouts, now, home) =
            (Lockouts::new(5, 300 * SECOND), Instant::now(), ip("192.0.2.1"));
        (0..2).for_each(|_| lockouts.login_failed("alice", home, now));

        lockouts.adopt(2, 60 * SECOND);

        assert_eq!(lockouts.check_login("alice", home, now), Err(60 * SECOND));
        assert_eq!(lockouts.check_login("alice", home, now + 60 * SECOND), Ok(()));
    }

    #[test]
    fn fewer_places_leave_those_that_are_taken() {
        let places = Places::new(0, 3);
        let mut held: Vec<_> = (0..3).map_while(|_| places.take(ip("192.0.2.1"))).collect();

        places.adopt(2);

        assert_eq!(places.taken(), 3);
        held.pop();
        assert!(places.take(ip("192.0.2.1")).is_none(), "two are held still");
        held.pop();
        assert!(places.take(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn a_budget_warns_once_then_drops_then_closes() {
        let now = Instant::now();
        let mut budget = MessageBudget::new(10, 20, now);

        let verdicts: Vec<_> = (0..41).map(|_| budget.spend(now)).collect();

        assert!(verdicts[..20].iter().all(|&verdict| verdict == Verdict::Pass));
        assert_eq!(verdicts[20], Verdict::Warn);
        assert!(verdicts[21..40].iter().all(|&verdict| verdict == Verdict::Drop));
        assert_eq!(verdicts[40], Verdict::Close);
    }

    #[test]
    fn a_second_without_refusals_ends_a_burst() {
        let now = Instant::now();
        let mut budget = MessageBudget::new(10, 20, now);
        let verdicts = |budget: &mut MessageBudget, now| {
            (0..25).map(|_| budget.spend(now)).collect::<Vec<_>>()
        };

        let (first, second) = (verdicts(&mut budget, now), verdicts(&mut budget, now + 2 * SECOND));

        assert_eq!(first, second);
        assert_eq!(first[20], Verdict::Warn);
    }

    #[test]
    fn somebody_who_is_a_little_too_fast_for_long_is_warned_once_and_then_closed() {
        let now = Instant::now();
        let mut budget = MessageBudget::new(50, 250, now);

        let verdicts: Vec<_> =
            (0..6000).map(|turn| budget.spend(now + turn * Duration::from_millis(16))).collect();

        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Warn).count(), 1);
        assert!(verdicts.contains(&Verdict::Close));
    }

    #[test]
    fn a_steady_sender_within_its_rate_is_never_refused() {
        let now = Instant::now();
        let mut budget = MessageBudget::new(50, 1, now);

        assert!(
            (1..1000)
                .all(|turn| budget.spend(now + turn * Duration::from_millis(21)) == Verdict::Pass)
        );
    }
}
