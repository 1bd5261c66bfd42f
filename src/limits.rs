//! How often is too often: failed logins, open sockets, messages. Decisions only: `now` is given.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use tokio::time::Instant;

/// How many times more failures one address may have over all names, and one name over all addresses.
const WIDER: usize = 10;

/// No account has a longer name, so a longer one needs no count of its own.
const LONGEST_USERNAME: usize = 256;

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 household gets.
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Failed logins and bad socket tokens, and who has to wait because of them
/// (`AUTH_MAX_FAILURES`, `AUTH_LOCKOUT_SECONDS`).
pub struct Lockouts {
    max_failures: usize,
    window: Duration,
    failures: HashMap<Culprit, VecDeque<Instant>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Culprit {
    UserFrom(String, IpAddr),
    LoginsFrom(IpAddr),
    User(String),
    SocketsFrom(IpAddr),
}

impl Lockouts {
    /// `max_failures` within `window` lock out until `window` has passed since the last of them.
    pub fn new(max_failures: usize, window: Duration) -> Self {
        Self { max_failures, window, failures: HashMap::new() }
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
        self.login_culprits(username, address)
            .iter()
            .try_for_each(|culprit| self.check(culprit, now))
    }

    /// Remembers a failed login.
    pub fn login_failed(&mut self, username: &str, address: IpAddr, now: Instant) {
        for culprit in self.login_culprits(username, address) {
            self.record(culprit, now);
        }
    }

    /// Forgets what `username` got wrong from `address`: it was the owner after all.
    pub fn login_succeeded(&mut self, username: &str, address: IpAddr) {
        self.failures.remove(&Culprit::UserFrom(username.to_owned(), address_key(address)));
    }

    /// Whether a bad socket token from `address` is only one more of too many.
    pub fn is_blocked(&self, address: IpAddr, now: Instant) -> bool {
        self.check(&Culprit::SocketsFrom(address_key(address)), now).is_err()
    }

    /// Remembers a bad socket token.
    pub fn token_refused(&mut self, address: IpAddr, now: Instant) {
        self.record(Culprit::SocketsFrom(address_key(address)), now);
    }

    /// Drops what no longer counts.
    pub fn forget(&mut self, now: Instant) {
        let window = self.window;
        self.failures
            .retain(|_, times| times.back().is_some_and(|&last| now.duration_since(last) < window));
        self.failures.shrink_to_fit();
    }

    fn login_culprits(&self, username: &str, address: IpAddr) -> Vec<Culprit> {
        let address = address_key(address);
        let mut culprits = vec![Culprit::LoginsFrom(address)];
        if username.len() <= LONGEST_USERNAME {
            culprits.push(Culprit::UserFrom(username.to_owned(), address));
            culprits.push(Culprit::User(username.to_owned()));
        }
        culprits
    }

    fn allowed(&self, culprit: &Culprit) -> usize {
        match culprit {
            Culprit::UserFrom(..) | Culprit::SocketsFrom(_) => self.max_failures,
            Culprit::LoginsFrom(_) | Culprit::User(_) => self.max_failures.saturating_mul(WIDER),
        }
    }

    fn check(&self, culprit: &Culprit, now: Instant) -> Result<(), Duration> {
        let Some(times) = self.failures.get(culprit) else { return Ok(()) };
        let Some(&last) = times.back() else { return Ok(()) };
        let since = now.duration_since(last);
        if times.len() >= self.allowed(culprit) && since < self.window {
            return Err(self.window - since);
        }
        Ok(())
    }

    fn record(&mut self, culprit: Culprit, now: Instant) {
        let (allowed, window) = (self.allowed(&culprit), self.window);
        let times = self.failures.entry(culprit).or_default();
        times.retain(|&then| now.duration_since(then) < window);
        if times.len() >= allowed {
            times.pop_front();
        }
        times.push_back(now);
    }
}

/// How many sockets each address has open (`MAX_CONNECTIONS_PER_IP`).
#[derive(Clone)]
pub struct Connections {
    per_address: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Connections {
    /// `per_address` sockets for each address; 0 = no limit.
    pub fn new(per_address: usize) -> Self {
        Self { per_address, open: Arc::default() }
    }

    /// Counts one more socket from `address` for as long as the value is held; `None` when it has
    /// as many as it may.
    pub fn admit(&self, address: IpAddr) -> Option<Connection> {
        let address = address_key(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if self.per_address != 0 && *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Connection { open: self.open.clone(), address })
    }
}

/// One socket, counted until it is dropped.
pub struct Connection {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// HTTP requests per client address (`RATE_LIMIT_PER_MINUTE`): a bucket of that many, refilled within
/// a minute. The one limit that asks a clock itself, inside of governor.
pub struct Requests {
    per_minute: NonZeroU32,
    buckets:
        RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock, StateInformationMiddleware>,
}

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
    /// A bucket of `per_minute` for each address.
    pub fn new(per_minute: NonZeroU32) -> Self {
        let buckets = RateLimiter::dashmap(Quota::per_minute(per_minute));
        Self { per_minute, buckets: buckets.with_middleware() }
    }

    /// Takes one request from `address` into account.
    pub fn take(&self, address: IpAddr) -> Allowance {
        let quota = self.per_minute.get();
        match self.buckets.check_key(&address_key(address)) {
            Ok(state) => {
                Allowance { quota, remaining: state.remaining_burst_capacity(), wait: None }
            }
            Err(refused) => {
                let wait = refused.wait_time_from(DefaultClock::default().now());
                Allowance { quota, remaining: 0, wait: Some(wait) }
            }
        }
    }

    /// Drops buckets that are full again.
    pub fn forget(&self) {
        self.buckets.retain_recent();
        self.buckets.shrink_to_fit();
    }
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
        }

        lockouts.forget(now + 10 * SECOND);

        assert_eq!(lockouts.failures.len(), 0);
    }

    #[test]
    fn a_socket_counts_until_it_is_dropped() {
        let connections = Connections::new(2);
        let first = connections.admit(ip("192.0.2.1")).unwrap();
        let _second = connections.admit(ip("192.0.2.1")).unwrap();

        assert!(connections.admit(ip("192.0.2.1")).is_none());
        assert!(connections.admit(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(connections.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn zero_connections_means_no_limit() {
        let connections = Connections::new(0);

        let all: Vec<_> = (0..1000).map(|_| connections.admit(ip("192.0.2.1")).unwrap()).collect();

        drop(all);
        assert!(connections.open.lock().unwrap().is_empty());
    }

    #[test]
    fn an_address_gets_its_requests_and_then_is_told_when_to_come_back() {
        let requests = Requests::new(NonZeroU32::new(3).unwrap());
        let (home, neighbour) = (ip("192.0.2.1"), ip("192.0.2.2"));

        let left: Vec<_> = (0..3).map(|_| requests.take(home).remaining).collect();

        assert_eq!(left, [2, 1, 0]);
        let wait = requests.take(home).wait.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
        assert_eq!(requests.take(neighbour).wait, None);
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
