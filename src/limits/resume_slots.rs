//! Which detached members are kept: counted by account first, then by address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::address_key;

/// The slots of detached members. Where an address has no slot left, an account that uses more of them than another gives
/// one up: clients that share an address notice nothing of one that breaks all its connections. `T` stands for a member.
pub struct ResumeSlots<T>(Arc<Mutex<SlotTable<T>>>);

struct SlotTable<T> {
    per_account: usize,
    per_address: usize,
    by_account: HashMap<Arc<str>, usize>,
    by_address: HashMap<IpAddr, Vec<Slot<T>>>,
    last: u64,
}

struct Slot<T> {
    number: u64,
    /// `None` for guests: all of one address are one account.
    account: Option<Arc<str>>,
    member: T,
}

/// A slot, held until it is dropped.
pub struct ResumeSlot<T> {
    table: Arc<Mutex<SlotTable<T>>>,
    address: IpAddr,
    number: u64,
}

/// There is no slot for the member.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSlot;

impl<T> ResumeSlots<T> {
    /// At most `per_account` slots for an account and `per_address` for an address; 0 = no limit.
    pub fn new(per_account: usize, per_address: usize) -> Self {
        let (by_account, by_address, last) = (HashMap::new(), HashMap::new(), 0);
        let table = SlotTable { per_account: 0, per_address: 0, by_account, by_address, last };
        let slots = Self(Arc::new(Mutex::new(table)));
        slots.apply_settings(per_account, per_address);
        slots
    }

    /// Changes the limits; 0 = no limit. Slots that are held stay.
    pub fn apply_settings(&self, per_account: usize, per_address: usize) {
        let unlimited = |limit| if limit == 0 { usize::MAX } else { limit };
        let mut table = lock(&self.0);
        (table.per_account, table.per_address) = (unlimited(per_account), unlimited(per_address));
    }

    /// Takes a slot for a member of `account`, `None` for a guest, that was connected from `address`. Returns it, and the
    /// member that has to give up its own.
    ///
    /// # Errors
    ///
    /// [`NoSlot`] where the account has as many as it may, or no account at the address has more than this one would have.
    pub fn acquire(
        &self,
        address: IpAddr,
        account: Option<Arc<str>>,
        member: T,
    ) -> Result<(ResumeSlot<T>, Option<T>), NoSlot> {
        let address = address_key(address);
        let mut table = lock(&self.0);
        let (per_account, per_address) = (table.per_account, table.per_address);
        let of_account = account.as_ref().and_then(|account| table.by_account.get(account));
        if of_account.is_some_and(|count| *count >= per_account) {
            return Err(NoSlot);
        }
        let here = table.by_address.get(&address);
        let displaced = match here.filter(|slots| slots.len() >= per_address) {
            None => None,
            Some(slots) => Some(displaced_by(slots, account.as_ref()).ok_or(NoSlot)?),
        };
        let displaced = displaced.and_then(|number| table.remove(address, number));
        table.last += 1;
        let number = table.last;
        if let Some(account) = &account {
            *table.by_account.entry(account.clone()).or_default() += 1;
        }
        let slot = Slot { number, account, member };
        table.by_address.entry(address).or_default().push(slot);
        drop(table);
        Ok((ResumeSlot { table: self.0.clone(), address, number }, displaced))
    }
}

impl<T> SlotTable<T> {
    fn remove(&mut self, address: IpAddr, number: u64) -> Option<T> {
        let slots = self.by_address.get_mut(&address)?;
        let index = slots.binary_search_by_key(&number, |slot| slot.number).ok()?;
        let Slot { account, member, .. } = slots.remove(index);
        if slots.is_empty() {
            self.by_address.remove(&address);
        }
        if let Some(account) = account
            && let Some(count) = self.by_account.get_mut(&account)
        {
            *count -= 1;
            if *count == 0 {
                self.by_account.remove(&account);
            }
        }
        Some(member)
    }
}

impl<T> Drop for ResumeSlot<T> {
    fn drop(&mut self) {
        lock(&self.table).remove(self.address, self.number);
    }
}

fn lock<T>(table: &Mutex<SlotTable<T>>) -> MutexGuard<'_, SlotTable<T>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The oldest slot of the account that has the most in `slots`, where it has at least two more than `account`.
fn displaced_by<T>(slots: &[Slot<T>], account: Option<&Arc<str>>) -> Option<u64> {
    let mut counts: HashMap<Option<&Arc<str>>, (usize, u64)> = HashMap::new();
    for slot in slots {
        let (count, _) = counts.entry(slot.account.as_ref()).or_insert((0, slot.number));
        *count += 1;
    }
    let own = counts.get(&account).map_or(0, |(count, _)| *count);
    // The one with the oldest slot among equals, so that the order of a hash map decides nothing.
    let most =
        counts.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest)));
    most.filter(|(count, _)| *count >= own + 2).map(|(_, oldest)| oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn account(name: &str) -> Option<Arc<str>> {
        Some(name.into())
    }

    #[test]
    fn an_account_that_has_most_slots_of_an_address_gives_its_oldest_up_for_another() {
        let slots = ResumeSlots::new(0, 4);
        let held: Vec<_> = (0..4)
            .map(|number| slots.acquire(ip(1), account("mallory"), number).unwrap())
            .collect();
        assert!(held.iter().all(|(_, displaced)| displaced.is_none()));

        assert_eq!(slots.acquire(ip(1), account("mallory"), 4).err(), Some(NoSlot));
        let (_alice, displaced) = slots.acquire(ip(1), account("alice"), 5).unwrap();
        assert_eq!(displaced, Some(0));
        let (_bob, displaced) = slots.acquire(ip(1), account("bob"), 6).unwrap();
        assert_eq!(displaced, Some(1));
        let (_guest, displaced) = slots.acquire(ip(1), None, 7).unwrap_or_else(|_| panic!());
        assert_eq!(displaced, Some(2));

        assert_eq!(slots.acquire(ip(1), account("carol"), 8).err(), Some(NoSlot), "one each");
        assert!(slots.acquire(ip(2), account("carol"), 9).is_ok(), "another address");
    }

    #[test]
    fn an_account_has_so_many_slots_on_all_addresses_together() {
        let slots = ResumeSlots::new(2, 0);
        let first = slots.acquire(ip(1), account("mallory"), ()).unwrap();
        let _second = slots.acquire(ip(2), account("mallory"), ()).unwrap();

        assert!(slots.acquire(ip(3), account("mallory"), ()).is_err());
        assert!(slots.acquire(ip(3), account("alice"), ()).is_ok());
        drop(first);
        assert!(slots.acquire(ip(3), account("mallory"), ()).is_ok());
    }

    #[test]
    fn a_slot_is_free_once_it_is_dropped_also_where_it_was_displaced_before() {
        let slots = ResumeSlots::new(3, 2);
        let (first, _) = slots.acquire(ip(1), account("mallory"), 1).unwrap();
        let (second, _) = slots.acquire(ip(1), account("mallory"), 2).unwrap();
        let (alice, displaced) = slots.acquire(ip(1), account("alice"), 3).unwrap();
        assert_eq!(displaced, Some(1));

        drop((first, second, alice));

        let table = lock(&slots.0);
        assert!(table.by_account.is_empty() && table.by_address.is_empty());
    }

    #[test]
    fn a_lower_limit_leaves_the_slots_that_are_held() {
        let slots = ResumeSlots::new(0, 0);
        let held: Vec<_> =
            (0..3).map(|_| slots.acquire(ip(1), account("alice"), ()).unwrap()).collect();

        slots.apply_settings(2, 0);

        assert!(slots.acquire(ip(1), account("alice"), ()).is_err());
        assert_eq!(lock(&slots.0).by_account.values().sum::<usize>(), held.len());
    }
}
