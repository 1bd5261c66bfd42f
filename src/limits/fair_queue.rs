//! A bounded queue in which addresses and accounts take turns: the logins that wait for their passwords to be checked.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::address_key;

/// Values that wait, each of an address and an account.
///
/// Each address and each account takes its turn with the others, as in a ring: a new one comes last, and one that had its turn
/// becomes the last. A value waits for both of its turns. So neither the accounts of one address nor the addresses of one
/// account delay others: until a value is taken, any other address or account is served at most once.
///
/// Where all places are taken, the newest value of the address or account that has most of them gives up its place.
pub struct FairQueue<T> {
    places: usize,
    /// By number, in the order in which they came.
    values: BTreeMap<u64, WaitingValue<T>>,
    /// The addresses and accounts of those values.
    turns: HashMap<TurnKey, Turn>,
    /// Counts what came and what was taken.
    steps: u64,
}

/// A value that came into a [`FairQueue`].
#[derive(Debug, PartialEq, Eq)]
pub struct Pushed<T> {
    /// Its number, for [`FairQueue::remove`].
    pub number: u64,
    /// The value that gives up its place: the new one itself where no other has to.
    pub displaced: Option<T>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum TurnKey {
    Address(IpAddr),
    Account(Arc<str>),
}

/// The place of an address or an account in the ring.
struct Turn {
    /// The step at which it became the last.
    last_since: u64,
    /// How many of its values wait; not zero.
    waiting: usize,
}

struct WaitingValue<T> {
    keys: [TurnKey; 2],
    value: T,
}

impl<T> FairQueue<T> {
    /// An empty queue for at most so many values.
    pub fn new(places: usize) -> Self {
        Self { places, values: BTreeMap::new(), turns: HashMap::new(), steps: 0 }
    }

    /// How many values wait.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds a value of a client at `address` that names `account`, which need not exist.
    pub fn push(&mut self, address: IpAddr, account: Arc<str>, value: T) -> Pushed<T> {
        let number = self.next_step();
        let keys = [TurnKey::Address(address_key(address)), TurnKey::Account(account)];
        for key in &keys {
            let new = Turn { last_since: number, waiting: 0 };
            self.turns.entry(key.clone()).or_insert(new).waiting += 1;
        }
        self.values.insert(number, WaitingValue { keys, value });
        let displaced = if self.values.len() > self.places { self.displace() } else { None };
        Pushed { number, displaced }
    }

    /// Takes the value whose turn it is.
    pub fn take(&mut self) -> Option<T> {
        let turn = |waiting: &WaitingValue<T>| self.pair(waiting, |turn| turn.last_since);
        let next = self.values.iter().min_by_key(|(number, waiting)| (turn(waiting), **number));
        let number = *next?.0;
        let step = self.next_step();
        for key in &self.values.get(&number)?.keys {
            if let Some(turn) = self.turns.get_mut(key) {
                turn.last_since = step;
            }
        }
        self.remove(number)
    }

    /// Removes the value with this number, if it still waits.
    pub fn remove(&mut self, number: u64) -> Option<T> {
        let WaitingValue { keys, value } = self.values.remove(&number)?;
        for key in &keys {
            if let Some(turn) = self.turns.get_mut(key) {
                turn.waiting -= 1;
                if turn.waiting == 0 {
                    self.turns.remove(key);
                }
            }
        }
        Some(value)
    }

    /// Removes the newest value of the address or account that has most, and of its values one whose other key has most.
    fn displace(&mut self) -> Option<T> {
        let share = |waiting: &WaitingValue<T>| self.pair(waiting, |turn| turn.waiting);
        let most = self.values.iter().max_by_key(|(number, waiting)| (share(waiting), **number));
        let number = *most?.0;
        self.remove(number)
    }

    /// A figure of the value's address and account, the larger one first.
    fn pair<N: Ord + Default>(
        &self,
        waiting: &WaitingValue<T>,
        figure: impl Fn(&Turn) -> N,
    ) -> (N, N) {
        let [one, other] =
            waiting.keys.each_ref().map(|key| self.turns.get(key).map(&figure).unwrap_or_default());
        if one > other { (one, other) } else { (other, one) }
    }

    fn next_step(&mut self) -> u64 {
        self.steps += 1;
        self.steps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Login = (u8, u8);

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn push(queue: &mut FairQueue<Login>, login: Login) -> Pushed<Login> {
        queue.push(ip(login.0), login.1.to_string().into(), login)
    }

    /// The logins, by the numbers of their address and account, in the order in which they are taken.
    fn order_of(logins: &[Login]) -> Vec<Login> {
        let mut queue = FairQueue::new(100);
        for login in logins {
            assert_eq!(push(&mut queue, *login).displaced, None);
        }
        let order = std::iter::from_fn(|| queue.take()).collect();
        assert!(queue.values.is_empty() && queue.turns.is_empty());
        order
    }

    #[test]
    fn those_of_different_clients_are_taken_in_their_order() {
        assert_eq!(order_of(&[(1, 1), (2, 2), (3, 3)]), [(1, 1), (2, 2), (3, 3)]);
    }

    #[test]
    fn a_newcomer_waits_for_one_of_an_account_that_comes_from_many_addresses() {
        let flood = [(1, 1), (2, 1), (3, 1), (4, 1), (1, 1), (2, 1)];

        let order = order_of(&[&flood[..], &[(9, 9)]].concat());

        assert_eq!(order[..2], [(1, 1), (9, 9)]);
    }

    #[test]
    fn a_newcomer_waits_for_one_of_an_address_that_names_many_accounts() {
        let order = order_of(&[(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (9, 9)]);

        assert_eq!(order[..2], [(1, 1), (9, 9)]);
    }

    #[test]
    fn the_owner_of_an_account_that_others_name_waits_for_one_of_each_of_their_addresses() {
        let flood = [(1, 1), (2, 1), (1, 1), (2, 1), (1, 1), (2, 1)];

        let order = order_of(&[&flood[..], &[(9, 1)]].concat());

        assert_eq!(order[..3], [(1, 1), (2, 1), (9, 1)]);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let mut queue = FairQueue::new(100);
        for host in 1..=3_u16 {
            queue.push(format!("2001:db8::{host}").parse().unwrap(), host.to_string().into(), 1);
        }
        queue.push("2001:db8:0:1::1".parse().unwrap(), "other".into(), 2);

        assert_eq!((queue.take(), queue.take()), (Some(1), Some(2)));
    }

    #[test]
    fn a_full_queue_displaces_the_newest_of_whoever_has_most() {
        let mut queue = FairQueue::new(4);
        for login in [(1, 1), (2, 1), (3, 1), (4, 4)] {
            push(&mut queue, login);
        }

        assert_eq!(push(&mut queue, (5, 5)).displaced, Some((3, 1)), "of the account");
        assert_eq!(push(&mut queue, (6, 1)).displaced, Some((6, 1)), "the new one itself");
        assert_eq!(push(&mut queue, (4, 6)).displaced, Some((4, 6)), "as many as another has");
        assert_eq!(push(&mut queue, (7, 7)).displaced, Some((2, 1)));
        assert_eq!(push(&mut queue, (8, 8)).displaced, Some((8, 8)), "nobody has more than one");
    }

    #[test]
    fn the_owner_of_an_account_that_others_name_is_not_displaced_for_them() {
        let mut queue = FairQueue::new(4);
        for login in [(1, 1), (1, 1), (1, 1), (9, 1)] {
            push(&mut queue, login);
        }

        assert_eq!(push(&mut queue, (5, 5)).displaced, Some((1, 1)));
    }

    #[test]
    fn a_removed_value_is_not_taken_and_its_place_is_free() {
        let mut queue = FairQueue::new(2);
        let first = push(&mut queue, (1, 1)).number;
        push(&mut queue, (2, 2));

        assert_eq!((queue.remove(first), queue.remove(first)), (Some((1, 1)), None));
        assert_eq!(push(&mut queue, (3, 3)).displaced, None);
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some((2, 2)), Some((3, 3)), None));
        assert!(queue.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Login),
        Take,
        Remove(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..5_u8, 0..5_u8).prop_map(Step::Push),
            2 => Just(Step::Take),
            1 => (0..8_usize).prop_map(Step::Remove),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// A login of the model.
    struct Model {
        number: u64,
        login: Login,
        /// What was taken since it came, or since its own address or account had a turn.
        passed_by: Vec<Login>,
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_each_other_address_and_account_goes_first_at_most_once(steps in steps()) {
            const PLACES: usize = 8;
            let mut queue = FairQueue::new(PLACES);
            let mut model: Vec<Model> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(login) => {
                        let number = queue.steps + 1;
                        model.push(Model { number, login, passed_by: Vec::new() });
                        let pushed = queue.push(ip(login.0), login.1.to_string().into(), number);
                        prop_assert_eq!(pushed.number, number);
                        prop_assert_eq!(pushed.displaced.is_some(), model.len() > PLACES);
                        if let Some(displaced) = pushed.displaced {
                            let share = |of: Login| {
                                let count = |is: &dyn Fn(Login) -> bool| {
                                    model.iter().filter(|other| is(other.login)).count()
                                };
                                count(&|it| it.0 == of.0).max(count(&|it| it.1 == of.1))
                            };
                            let index = model.iter().position(|it| it.number == displaced).unwrap();
                            let most = model.iter().map(|it| share(it.login)).max().unwrap();
                            prop_assert_eq!(share(model[index].login), most);
                            model.remove(index);
                        }
                    }
                    Step::Take => {
                        let Some(taken) = queue.take() else {
                            prop_assert!(model.is_empty());
                            continue;
                        };
                        let index = model.iter().position(|it| it.number == taken).unwrap();
                        let (address, account) = model.remove(index).login;
                        for other in &mut model {
                            if other.login.0 == address || other.login.1 == account {
                                other.passed_by.clear();
                                continue;
                            }
                            let seen = |it: &&Login| it.0 == address || it.1 == account;
                            prop_assert_eq!(other.passed_by.iter().find(seen), None);
                            other.passed_by.push((address, account));
                        }
                    }
                    Step::Remove(index) => {
                        let index = index.min(model.len());
                        let number = model.get(index).map_or(0, |it| it.number);
                        let expected = (index < model.len()).then(|| model.remove(index).number);
                        prop_assert_eq!(queue.remove(number), expected);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            let keys = model.iter().flat_map(|it| [(true, it.login.0), (false, it.login.1)]);
            let keys: std::collections::BTreeSet<_> = keys.collect();
            prop_assert_eq!(queue.turns.len(), keys.len());
        }
    }
}
