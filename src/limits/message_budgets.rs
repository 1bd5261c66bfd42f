//! The message budgets of connections, kept while they are not full: a client that reconnects continues with what it
//! had left.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{AccountKey, MAX_TABLE_ENTRIES, MessageRate, MessageRateLimiter, RateVerdict};

/// The message budgets of all connections. Clones are the same.
///
/// A connection that an account opens to a room takes over the budget of one that it has closed there, and shares that
/// of one that it replaces or resumes. Connections that are open at the same time have a budget each.
#[derive(Clone, Default)]
pub struct MessageBudgets(Arc<Mutex<BudgetTable>>);

#[derive(Default)]
struct BudgetTable {
    kept: HashMap<BudgetKey, Vec<KeptBudget>>,
    /// How many of them no connection has. Only these are limited here: connections are elsewhere.
    unheld: usize,
}

/// An account in a room.
#[derive(Clone, PartialEq, Eq, Hash)]
struct BudgetKey {
    account: AccountKey,
    room: Arc<str>,
}

/// A budget that a connection has, or that is not full again since its connection was closed.
struct KeptBudget {
    client_id: Arc<str>,
    /// How many connections have it.
    holders: u32,
    limiter: Arc<Mutex<MessageRateLimiter>>,
}

/// The message budget of one connection, until it is dropped.
#[repr(C)] // what every message touches first
pub struct MessageBudget {
    limiter: Arc<Mutex<MessageRateLimiter>>,
    budgets: MessageBudgets,
    key: BudgetKey,
}

impl MessageBudgets {
    /// The budget of a new connection.
    pub fn acquire(
        &self,
        account: AccountKey,
        room: Arc<str>,
        client_id: &Arc<str>,
        rate: MessageRate,
        now: Instant,
    ) -> MessageBudget {
        let key = BudgetKey { account, room };
        let mut table = self.lock();
        let BudgetTable { kept, unheld } = &mut *table;
        // Most accounts have one connection to a room.
        let kept = kept.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
        let shared = kept.iter_mut().find(|kept| kept.holders > 0 && kept.client_id == *client_id);
        let taken = match shared {
            Some(shared) => Some(shared),
            None => emptiest_unheld(kept, now),
        };
        let limiter = match taken {
            Some(taken) => {
                *unheld -= usize::from(taken.holders == 0);
                taken.holders += 1;
                taken.client_id = client_id.clone();
                lock(&taken.limiter).take_over(rate, now);
                taken.limiter.clone()
            }
            None => {
                let limiter = MessageRateLimiter::new(rate, now);
                let limiter = Arc::new(Mutex::new(limiter));
                let client_id = client_id.clone();
                kept.push(KeptBudget { client_id, holders: 1, limiter: limiter.clone() });
                limiter
            }
        };
        MessageBudget { budgets: self.clone(), key, limiter }
    }

    /// Drops the budgets of closed connections that are full again.
    pub fn evict_expired(&self, now: Instant) {
        self.lock().retain_unheld(|kept| !lock(&kept.limiter).is_full(now));
    }

    fn lock(&self) -> MutexGuard<'_, BudgetTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BudgetTable {
    /// Drops the budgets that no connection has and for which `is_kept` is false.
    fn retain_unheld(&mut self, is_kept: impl Fn(&KeptBudget) -> bool) {
        self.unheld = 0;
        self.kept.retain(|_, kept| {
            kept.retain(|kept| kept.holders > 0 || is_kept(kept));
            self.unheld += kept.iter().filter(|kept| kept.holders == 0).count();
            !kept.is_empty()
        });
        self.kept.shrink_to_fit();
    }
}

fn emptiest_unheld(kept: &mut [KeptBudget], now: Instant) -> Option<&mut KeptBudget> {
    let unheld = kept.iter().enumerate().filter(|(_, kept)| kept.holders == 0);
    let by_level = unheld.map(|(index, kept)| (lock(&kept.limiter).fill_level(now), index));
    let (_, index) = by_level.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
    kept.get_mut(index)
}

fn lock(limiter: &Mutex<MessageRateLimiter>) -> MutexGuard<'_, MessageRateLimiter> {
    limiter.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MessageBudget {
    /// See [`MessageRateLimiter::set_rate`].
    pub fn set_rate(&self, rate: MessageRate, now: Instant) {
        lock(&self.limiter).set_rate(rate, now);
    }

    /// Counts one message of so many bytes; see [`MessageRateLimiter::check`].
    pub fn check(&self, length: usize, now: Instant) -> RateVerdict {
        lock(&self.limiter).check(length, now)
    }
}

impl Drop for MessageBudget {
    fn drop(&mut self) {
        let mut table = self.budgets.lock();
        if table.unheld >= MAX_TABLE_ENTRIES {
            table.retain_unheld(|_| false);
        }
        let BudgetTable { kept: all, unheld } = &mut *table;
        let Some(kept) = all.get_mut(&self.key) else { return };
        if let Some(index) = kept.iter().position(|kept| Arc::ptr_eq(&kept.limiter, &self.limiter))
            && let Some(mine) = kept.get_mut(index)
        {
            mine.holders -= 1;
            let (is_held, is_untouched) = (mine.holders > 0, lock(&mine.limiter).is_untouched());
            if !is_held && is_untouched {
                kept.swap_remove(index);
            }
            *unheld += usize::from(!is_held && !is_untouched);
        }
        if kept.is_empty() {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::ExceededRate, *};

    const RATE: MessageRate =
        MessageRate { messages_per_second: 10, message_burst: 20, bytes_per_second: 1_048_576 };

    /// How many messages in a row pass.
    fn passed(budget: &MessageBudget, now: Instant) -> usize {
        (0..100).take_while(|_| budget.check(100, now) == RateVerdict::Pass).count()
    }

    fn acquire(
        budgets: &MessageBudgets,
        user: &str,
        room: &str,
        id: &str,
        now: Instant,
    ) -> MessageBudget {
        budgets.acquire(AccountKey::User(user.into()), room.into(), &id.into(), RATE, now)
    }

    #[test]
    fn a_connection_continues_with_the_budget_of_one_that_was_closed() {
        let (budgets, now) = (MessageBudgets::default(), Instant::now());
        let first = acquire(&budgets, "alice", "den", "a", now);
        assert_eq!(passed(&first, now), 20);
        drop(first);

        let second = acquire(&budgets, "alice", "den", "b", now + Duration::from_secs(1));
        assert_eq!(passed(&second, now + Duration::from_secs(1)), 10);
        assert_eq!(passed(&acquire(&budgets, "bob", "den", "b", now), now), 20, "another account");
        assert_eq!(passed(&acquire(&budgets, "alice", "attic", "b", now), now), 20, "another room");
    }

    #[test]
    fn connections_at_the_same_time_have_a_budget_each_and_leave_them_to_as_many_others() {
        let (budgets, now) = (MessageBudgets::default(), Instant::now());
        for expected in [20, 0] {
            let both = ["a", "b"].map(|id| acquire(&budgets, "alice", "den", id, now));
            assert_eq!(both.each_ref().map(|budget| passed(budget, now)), [expected; 2]);
        }

        let third = acquire(&budgets, "alice", "den", "c", now);
        let [_fourth, fifth] = ["d", "e"].map(|id| acquire(&budgets, "alice", "den", id, now));
        assert_eq!((passed(&third, now), passed(&fifth, now)), (0, 20));
    }

    #[test]
    fn a_connection_that_replaces_or_resumes_another_shares_its_budget() {
        let (budgets, now) = (MessageBudgets::default(), Instant::now());
        let old = acquire(&budgets, "alice", "den", "a", now);
        assert_eq!(passed(&old, now), 20);

        let new = acquire(&budgets, "alice", "den", "a", now);
        assert_eq!(passed(&new, now), 0);
        drop(old);
        drop(new);
        assert_eq!(passed(&acquire(&budgets, "alice", "den", "a", now), now), 0);
    }

    #[test]
    fn a_client_that_takes_over_an_empty_budget_is_warned_before_it_is_closed() {
        let (budgets, now) = (MessageBudgets::default(), Instant::now());
        let old = acquire(&budgets, "alice", "den", "a", now);
        assert!((0..100).any(|_| old.check(100, now) == RateVerdict::Close));
        drop(old);

        assert_eq!(
            acquire(&budgets, "alice", "den", "a", now).check(100, now),
            RateVerdict::Warn(ExceededRate::Messages)
        );
    }

    #[test]
    fn only_budgets_that_are_held_or_not_full_are_kept() {
        let (budgets, now) = (MessageBudgets::default(), Instant::now());
        drop(acquire(&budgets, "alice", "den", "a", now));
        assert_eq!(budgets.lock().kept.len(), 0);
        acquire(&budgets, "alice", "den", "a", now).check(100, now);
        let held = acquire(&budgets, "bob", "den", "b", now);
        budgets.evict_expired(now);
        assert_eq!(budgets.lock().kept.len(), 2);

        budgets.evict_expired(now + Duration::from_secs(1));

        assert_eq!(budgets.lock().kept.len(), 1);
        drop(held);
        let table = budgets.lock();
        assert_eq!((table.kept.len(), table.unheld), (0, 0));
    }

    #[test]
    fn budgets_of_open_connections_are_never_dropped_and_the_others_are_limited() {
        let (budgets, now) = (MessageBudgets::default(), Instant::now());
        let held =
            (0..MAX_TABLE_ENTRIES).map(|n| acquire(&budgets, &n.to_string(), "den", "a", now));
        let held: Vec<_> = held.collect();
        assert_eq!(passed(&held[0], now), 20);

        for number in 0..=MAX_TABLE_ENTRIES {
            acquire(&budgets, &number.to_string(), "attic", "a", now).check(100, now);
        }

        let table = budgets.lock();
        assert_eq!((table.unheld, table.kept.len()), (1, MAX_TABLE_ENTRIES + 1));
        drop(table);
        let another = acquire(&budgets, "0", "den", "a", now);
        assert_eq!(passed(&another, now), 0, "it shares the budget of the open connection");
    }
}
