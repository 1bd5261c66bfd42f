//! The budget, without clients.

use std::{
    fs,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use proptest::prelude::*;
use strum::VariantArray;

use super::{
    Charge, Growth, MIN_ACCOUNT_SHARE, MIN_UNAUTHENTICATED_SHARE, MemoryAccount, MemoryBudget,
    MemoryHolder, MemoryKind, Shed, available::available_in, default_budget, socket_capacity,
};

const MIB: usize = 1 << 20;

fn user(name: &str) -> MemoryAccount {
    MemoryAccount::User(name.into())
}

/// A connection whose only memory is its send queue.
struct Connection {
    queue: Mutex<Charge>,
    is_open: AtomicBool,
}

impl Connection {
    fn open(holder: &Arc<MemoryHolder>, bytes: usize) -> Arc<Self> {
        let (queue, is_open) = (holder.charge(MemoryKind::SendQueues), AtomicBool::new(true));
        let connection = Arc::new(Self { queue: Mutex::new(queue), is_open });
        let weak: Weak<Self> = Arc::downgrade(&connection);
        holder.set_shed(weak);
        let _ = connection.hold(bytes);
        connection
    }

    fn of(budget: &MemoryBudget, account: &MemoryAccount, bytes: usize) -> Arc<Self> {
        let holder = budget.holder();
        holder.assign(account);
        Self::open(&holder, bytes)
    }

    fn hold(&self, bytes: usize) -> Growth {
        self.queue.lock().unwrap().set(bytes)
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Relaxed)
    }
}

impl Shed for Connection {
    fn shed(&self) -> bool {
        let _ = self.hold(0);
        self.is_open.store(false, Relaxed);
        true
    }
}

#[test]
fn the_largest_connection_of_an_account_over_its_share_is_shed_and_no_other() {
    let budget = MemoryBudget::new(64 * MIB);
    let small = Connection::of(&budget, &user("mallory"), 3 * MIB);
    let large = Connection::of(&budget, &user("mallory"), 5 * MIB);
    let other = Connection::of(&budget, &user("alice"), 6 * MIB);
    assert_eq!(budget.shed_excess(), 0, "the share is {MIN_ACCOUNT_SHARE}");

    let _ = small.hold(4 * MIB);

    assert!(budget.has_excess());
    assert_eq!(budget.shed_excess(), 1);
    assert_eq!([small.is_open(), large.is_open(), other.is_open()], [true, false, true]);
    assert_eq!((budget.held(), budget.shed_count()), (10 * MIB, 1));
    assert!(!budget.has_excess());
}

#[test]
fn what_is_beside_the_budget_is_for_web_sockets() {
    let capacity =
        |available: u64, budget: u64, tls| socket_capacity(available << 20, budget << 20, tls);

    assert_eq!(capacity(256, 64, false), 13_107);
    assert_eq!(capacity(512, 128, true), 21_845);
    assert_eq!(capacity(64, 64, false), 256);
    assert_eq!(capacity(0, u64::MAX >> 20, false), 256);
}

#[test]
fn of_connections_that_hold_about_as_much_the_oldest_are_shed() {
    let budget = MemoryBudget::new(64 * MIB);
    let idle: Vec<_> = (0..1024).map(|_| Connection::open(&budget.holder(), 16 << 10)).collect();
    assert_eq!(budget.shed_excess(), 0);

    let newer: Vec<_> = (0..3).map(|_| Connection::open(&budget.holder(), 30 << 10)).collect();
    let large = Connection::open(&budget.holder(), 80 << 10);

    // 170 KiB too many.
    assert_eq!(budget.shed_excess(), 7);
    assert!(!large.is_open() && newer.iter().all(|it| it.is_open()));
    assert!(idle.iter().take(6).all(|it| !it.is_open()));
    assert!(idle.iter().skip(6).all(|it| it.is_open()));
}

#[test]
fn an_account_has_a_sixteenth_of_a_large_budget() {
    let budget = MemoryBudget::new(1024 * MIB);
    let connection = Connection::of(&budget, &user("alice"), 64 * MIB);
    assert_eq!(budget.shed_excess(), 0);

    let _ = connection.hold(64 * MIB + 1);

    assert_eq!(budget.shed_excess(), 1);
}

#[test]
fn unauthenticated_connections_have_one_share_together() {
    let budget = MemoryBudget::new(64 * MIB);
    let holders: Vec<_> = (0..17).map(|_| budget.holder()).collect();
    let connections: Vec<_> = holders.iter().map(|holder| Connection::open(holder, MIB)).collect();
    assert_eq!(MIN_UNAUTHENTICATED_SHARE, 16 * MIB);

    assert_eq!(budget.shed_excess(), 1);

    let open = connections.iter().filter(|connection| connection.is_open()).count();
    assert_eq!(open, 16);
}

#[test]
fn what_an_unauthenticated_connection_holds_goes_with_it_to_its_account() {
    let budget = MemoryBudget::new(64 * MIB);
    let holders: Vec<_> = (0..16).map(|_| budget.holder()).collect();
    let connections: Vec<_> = holders.iter().map(|holder| Connection::open(holder, MIB)).collect();

    holders.iter().take(8).for_each(|holder| holder.assign(&user("alice")));
    let _ = connections[15].hold(8 * MIB);

    assert_eq!(budget.shed_excess(), 0, "8 MiB of alice, 15 MiB of the others");
    let _ = connections[0].hold(2 * MIB);
    assert_eq!(budget.shed_excess(), 1);
    assert!(!connections[0].is_open(), "the largest of alice");
}

#[test]
fn all_guests_of_an_address_are_one_account() {
    let budget = MemoryBudget::new(64 * MIB);
    let guests = |last: u8| MemoryAccount::GuestsOf(Ipv4Addr::new(192, 0, 2, last).into());
    let home = [1, 1, 1].map(|last| Connection::of(&budget, &guests(last), 3 * MIB));
    let elsewhere = Connection::of(&budget, &guests(2), 3 * MIB);

    assert_eq!(budget.shed_excess(), 1);

    assert_eq!(home.iter().filter(|guest| guest.is_open()).count(), 2);
    assert!(elsewhere.is_open());
}

#[test]
fn above_four_fifths_the_largest_of_all_are_shed() {
    let budget = MemoryBudget::new(80 * MIB);
    let sizes = [4, 8, 7, 8, 7, 8, 7, 8, 7];
    let connections: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(number, size)| Connection::of(&budget, &user(&number.to_string()), size * MIB))
        .collect();
    assert_eq!((budget.held(), budget.shed_excess()), (64 * MIB, 0));

    let _ = connections[0].hold(5 * MIB);

    assert_eq!(budget.shed_excess(), 1);
    let smallest_shed = connections.iter().zip(sizes).filter(|(it, _)| !it.is_open());
    assert_eq!(smallest_shed.map(|(_, size)| size).collect::<Vec<_>>(), [8]);
}

#[test]
fn what_a_shed_connection_still_holds_makes_no_other_leave() {
    struct Slow(Mutex<Charge>);
    impl Shed for Slow {
        fn shed(&self) -> bool {
            true // its buffers go when its task ends
        }
    }
    let budget = MemoryBudget::new(64 * MIB);
    let holder = budget.holder();
    holder.assign(&user("mallory"));
    let slow = Arc::new(Slow(Mutex::new(holder.charge(MemoryKind::UnsentRemainders))));
    let weak: Weak<Slow> = Arc::downgrade(&slow);
    holder.set_shed(weak);
    let _ = slow.0.lock().unwrap().set(5 * MIB);
    let other = Connection::of(&budget, &user("mallory"), 4 * MIB);

    assert_eq!([budget.shed_excess(), budget.shed_excess()], [1, 0]);

    assert!(other.is_open());
}

#[test]
fn growth_beyond_the_whole_budget_is_refused_at_once_but_not_to_a_small_connection() {
    let budget = MemoryBudget::new(64 * MIB);
    let mut rooms = budget.server_charge(MemoryKind::Timelines);
    let (small, large) =
        (Connection::of(&budget, &user("alice"), 0), Connection::of(&budget, &user("bob"), 0));

    assert_eq!(rooms.set(64 * MIB), Growth::Fits);

    assert_eq!(small.hold(60 << 10), Growth::Fits);
    assert_eq!(large.hold(64 << 10), Growth::Excessive);
    assert!(budget.is_exhausted());
    drop(rooms);
    assert!(!budget.is_exhausted());
}

proptest! {
    #[test]
    fn the_counters_are_the_sum_of_all_charges(
        steps in prop::collection::vec((0..6_usize, 0..7_usize, 0..1_000_000_usize), 1..200)
    ) {
        let budget = MemoryBudget::default();
        let holders: Vec<_> = (0..6).map(|_| budget.holder()).collect();
        let mut charges: Vec<Vec<Charge>> = holders
            .iter()
            .map(|it| MemoryKind::VARIANTS.iter().map(|&kind| it.charge(kind)).collect())
            .collect();
        for (number, (holder, kind, bytes)) in steps.into_iter().enumerate() {
            if number % 17 == 0 {
                holders[holder].assign(&user(&(holder / 2).to_string()));
            }
            if number % 5 == 0 {
                charges[holder][kind].bill(&holders[(holder + 1) % 6]);
            }
            let _ = charges[holder][kind].set(bytes);
        }

        let sum: usize = charges.iter().flatten().map(Charge::bytes).sum();
        prop_assert_eq!(budget.held(), sum);
        for (kind, held) in budget.held_by_kind() {
            let of_kind = charges.iter().map(|of| of[kind as usize].bytes());
            prop_assert_eq!(held, of_kind.sum::<usize>());
        }
        let of_accounts = budget.all_accounts();
        prop_assert_eq!(of_accounts.iter().map(|it| it.held()).sum::<usize>(), sum);
        prop_assert_eq!(holders.iter().map(|it| it.held()).sum::<usize>(), sum);
        drop(charges);
        prop_assert_eq!(budget.held(), 0);
        prop_assert!(budget.all_accounts().iter().all(|account| account.held() == 0));
    }
}

/// The files of a process that is in these groups.
fn machine(groups: &str, limits: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/self/cgroup", groups);
    limits.iter().for_each(|(path, text)| write(path, text));
    root
}

/// The groups of a process, the files with their limits, and what is available, in MiB.
type Case<'a> = (&'a str, &'a [(String, &'a str)], u64);

#[test]
fn the_available_memory_is_the_lowest_limit_of_the_control_groups_or_all_of_the_machine() {
    let mib = |mebibytes: u64| mebibytes << 20;
    let v2 = "sys/fs/cgroup";
    let v1 = "sys/fs/cgroup/memory";
    let unlimited = "9223372036854771712\n";
    let cases: [Case<'_>; 6] = [
        ("", &[], 8192),
        ("0::/app/server\n", &[(format!("{v2}/app/server/memory.max"), "max\n")], 8192),
        (
            "0::/app/server\n",
            &[
                (format!("{v2}/app/server/memory.max"), "536870912\n"),
                (format!("{v2}/app/memory.max"), "268435456\n"),
            ],
            256,
        ),
        ("0::/\n", &[(format!("{v2}/memory.max"), "536870912\n")], 512),
        (
            "5:memory:/app\n3:cpu,cpuacct:/\n0::/\n",
            &[
                (format!("{v1}/app/memory.limit_in_bytes"), "536870912\n"),
                (format!("{v1}/memory.limit_in_bytes"), unlimited),
            ],
            512,
        ),
        // In a container that shows its own group as the root.
        ("5:memory:/docker/0123\n", &[(format!("{v1}/memory.limit_in_bytes"), "536870912\n")], 512),
    ];
    for (groups, limits, expected) in cases {
        let limits: Vec<_> = limits.iter().map(|(path, text)| (&**path, *text)).collect();
        let root = machine(groups, &limits);

        assert_eq!(available_in(root.path(), mib(8192)), mib(expected), "{groups} {limits:?}");
    }
    assert_eq!([default_budget(mib(100)), default_budget(mib(512))], [mib(64), mib(128)]);
}
