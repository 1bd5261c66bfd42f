//! Limits how often an account and an address join rooms (`JOINS_PER_MINUTE`, `MAX_CONNECTIONS_PER_IP`), how often a
//! membership is resumed, and how many calls an account reports.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    AccountKey, address_key,
    bucket_table::{BucketTable, take_both},
    token_bucket::BucketSize,
};

/// How many times as many resumes as joins an account has: many of its members may lose their connections at once.
const RESUMES_PER_JOIN: f64 = 10.0;

/// How many times as many reports of calls as joins an account has: a join leads to a call with each other member of the room, and
/// each of its peers reports one, too.
const REPORTS_PER_JOIN: f64 = 10.0;

/// A token bucket of joins for each account, and one for each address. A resume is no join: it has a bucket of its
/// membership, as large as an account's of joins, and another one of its account. Each resume is news for the peers, and two
/// lines in the log.
///
/// An account's bucket holds half a minute's joins. That of an address holds as many as it may have connections, and
/// refills within a minute: all its members may reconnect at once.
pub struct JoinRateLimiter(Mutex<JoinBuckets>);

#[derive(Default)]
struct JoinBuckets {
    accounts: BucketTable<AccountKey>,
    addresses: BucketTable<IpAddr>,
    /// Of resumes, by the key of the membership.
    memberships: BucketTable<u128>,
    resuming_accounts: BucketTable<AccountKey>,
    /// Of reports of calls.
    reporting_accounts: BucketTable<AccountKey>,
}

impl JoinRateLimiter {
    /// An account may join `per_minute` times a minute, an address `per_address` times. Where `per_minute` is 0, nothing
    /// is limited; where `per_address` is 0, no address is.
    pub fn new(per_minute: u32, per_address: usize) -> Self {
        let limiter = Self(Mutex::default());
        limiter.apply_settings(per_minute, per_address);
        limiter
    }

    /// Changes the limits, also for buckets in use.
    pub fn apply_settings(&self, per_minute: u32, per_address: usize) {
        let mut joins = self.lock();
        let (account, address) = (f64::from(per_minute), per_address as f64);
        let size =
            |burst: f64, per_minute: f64| BucketSize { burst, per_second: per_minute / 60.0 };
        let is_limited = per_minute > 0;
        let burst = (account / 2.0).floor().max(1.0);
        let of_account = is_limited.then(|| size(burst, account));
        joins.accounts.size = of_account;
        joins.memberships.size = of_account;
        joins.resuming_accounts.size =
            is_limited.then(|| size(burst * RESUMES_PER_JOIN, account * RESUMES_PER_JOIN));
        joins.reporting_accounts.size =
            is_limited.then(|| size(burst * REPORTS_PER_JOIN, account * REPORTS_PER_JOIN));
        joins.addresses.size = (is_limited && per_address > 0).then(|| size(address, address));
    }

    /// Counts a join of `account` from `address`.
    ///
    /// # Errors
    ///
    /// How long to wait until one is accepted; then nothing is counted.
    pub fn check(
        &self,
        account: &AccountKey,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), Duration> {
        let address = address_key(address);
        let joins = &mut *self.lock();
        take_both((&mut joins.accounts, account), (&mut joins.addresses, &address), now)
    }

    /// Counts a resume by `account` of the membership with this key.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn check_resume(
        &self,
        account: &AccountKey,
        membership: u128,
        now: Instant,
    ) -> Result<(), Duration> {
        let joins = &mut *self.lock();
        let of_account = (&mut joins.resuming_accounts, account);
        take_both(of_account, (&mut joins.memberships, &membership), now)
    }

    /// Counts a report by `account` of one of its calls, and says whether it may be passed on.
    pub fn check_report(&self, account: AccountKey, now: Instant) -> bool {
        self.lock().reporting_accounts.take(account, now)
    }

    /// Drops buckets that are full again.
    pub fn evict_expired(&self, now: Instant) {
        let joins = &mut *self.lock();
        joins.reporting_accounts.evict_full(now);
        joins.memberships.evict_full(now);
        joins.resuming_accounts.evict_full(now);
        joins.accounts.evict_full(now);
        joins.addresses.evict_full(now);
    }

    fn lock(&self) -> MutexGuard<'_, JoinBuckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::limits::MAX_TABLE_ENTRIES;

    const SECOND: Duration = Duration::from_secs(1);

    fn user(name: &str) -> AccountKey {
        AccountKey::User(name.into())
    }

    fn ip(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    /// How many joins in a row are accepted.
    fn accepted(
        limiter: &JoinRateLimiter,
        account: &AccountKey,
        address: IpAddr,
        now: Instant,
    ) -> usize {
        (0..10_000).take_while(|_| limiter.check(account, address, now).is_ok()).count()
    }

    #[test]
    fn an_account_has_half_a_minutes_joins_at_once_and_then_its_rate() {
        let (limiter, now) = (JoinRateLimiter::new(60, 0), Instant::now());

        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now), 30);
        let wait = limiter.check(&user("alice"), ip(2), now).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= SECOND, "{wait:?}");
        assert_eq!(accepted(&limiter, &user("bob"), ip(1), now), 30, "another account");
        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now + wait), 1);
        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now + 60 * SECOND), 30);
    }

    #[test]
    fn an_address_has_as_many_joins_a_minute_as_it_may_have_connections() {
        let (limiter, now) = (JoinRateLimiter::new(60, 100), Instant::now());
        let all = |now| {
            (0..10)
                .map(|name| accepted(&limiter, &user(&name.to_string()), ip(1), now))
                .sum::<usize>()
        };

        assert_eq!(all(now), 100);
        assert_eq!(all(now + 30 * SECOND), 50);
        assert_eq!(accepted(&limiter, &user("9"), ip(2), now), 30, "another address");
    }

    #[test]
    fn all_guests_of_an_address_are_one_account() {
        let (limiter, now) = (JoinRateLimiter::new(10, 0), Instant::now());
        let guest = |name: &str, address| AccountKey::new(&name.into(), true, address);

        assert_eq!(accepted(&limiter, &guest("guest-000001", ip(1)), ip(1), now), 5);
        assert_eq!(accepted(&limiter, &guest("guest-000002", ip(1)), ip(1), now), 0);
        assert_eq!(accepted(&limiter, &guest("guest-000002", ip(2)), ip(2), now), 5);
    }

    #[test]
    fn a_membership_is_resumed_as_often_as_an_account_joins_and_all_of_an_account_ten_times_as_often()
     {
        let (limiter, now) = (JoinRateLimiter::new(60, 100), Instant::now());
        let resumed = |account: &str, membership, now| {
            (0..10_000)
                .take_while(|_| limiter.check_resume(&user(account), membership, now).is_ok())
                .count()
        };

        assert_eq!(resumed("alice", 0, now), 30);
        assert_eq!(resumed("alice", 0, now + SECOND), 1);
        let others: usize = (1..100).map(|membership| resumed("alice", membership, now)).sum();
        assert_eq!(others, 300 - 30 + 9, "ten were refilled, and one used, in the second");
        assert_eq!(resumed("bob", 100, now), 30, "another account");
        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now), 30, "joins are counted apart");
    }

    #[test]
    fn an_account_reports_ten_times_as_many_calls_as_it_joins_rooms() {
        let (limiter, now) = (JoinRateLimiter::new(60, 100), Instant::now());
        let reported = |account: &str, now| {
            (0..10_000).take_while(|_| limiter.check_report(user(account), now)).count()
        };

        assert_eq!(reported("alice", now), 300);
        assert_eq!(reported("alice", now + SECOND), 10);
        assert_eq!(reported("bob", now + SECOND), 300, "another account");
        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now), 30, "joins are counted apart");
        limiter.apply_settings(0, 0);
        assert_eq!(reported("alice", now + SECOND), 10_000);
    }

    #[test]
    fn zero_is_no_limit_and_a_new_limit_applies_at_once() {
        let (limiter, now) = (JoinRateLimiter::new(0, 3), Instant::now());
        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now), 10_000);

        limiter.apply_settings(1, 0);
        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now), 1);
        assert_eq!(accepted(&limiter, &user("alice"), ip(1), now + 60 * SECOND), 1);
    }

    #[test]
    fn a_million_accounts_take_no_more_memory_than_the_largest_table() {
        let (limiter, now) = (JoinRateLimiter::new(60, 100), Instant::now());

        for number in 0..1_000_000_u128 {
            let address = Ipv6Addr::from_bits(number << 64).into();
            limiter.check(&AccountKey::GuestsOf(address), address, now).unwrap();
        }

        let sizes = || {
            let joins = limiter.lock();
            (joins.accounts.len(), joins.addresses.len())
        };
        assert!(sizes().0 <= MAX_TABLE_ENTRIES && sizes().1 <= MAX_TABLE_ENTRIES);
        limiter.evict_expired(now + 60 * SECOND);
        assert_eq!(sizes(), (0, 0));
    }
}
