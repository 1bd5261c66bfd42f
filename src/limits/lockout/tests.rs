//! Lockouts after failed logins and rejected socket tokens.

use std::net::Ipv6Addr;

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
    lockouts.login_failed("alice", ip("192.0.2.1"), now);

    for number in 0..1_000_000_u128 {
        lockouts.token_refused(Ipv6Addr::from_bits(number << 64).into(), now);
    }

    assert!(lockouts.sockets.times.len() <= MAX_TABLE_ENTRIES);
    assert!(lockouts.check_login("alice", ip("192.0.2.1"), now).is_err());
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
