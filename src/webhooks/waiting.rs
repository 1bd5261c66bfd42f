//! The events that wait for one URL, by room. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// Values that wait, each of a room. They are taken in the order in which they came, but none of a room of which one is
/// still in flight: so order holds within each room, however many are in flight at once.
#[derive(Debug)]
pub(super) struct WaitingByRoom<T> {
    rooms: HashMap<Arc<str>, RoomQueue<T>>,
    /// The rooms of which none is in flight, by the number of their first value.
    ready: BTreeMap<u64, Arc<str>>,
    /// The rooms by how many values wait.
    by_length: BTreeSet<(usize, Arc<str>)>,
    /// How many values came before the next.
    pushed: u64,
    waiting: usize,
    in_flight: usize,
}

/// The values of one room, each with its number among all.
#[derive(Debug)]
struct RoomQueue<T> {
    values: VecDeque<(u64, T)>,
    is_in_flight: bool,
}

impl<T> Default for WaitingByRoom<T> {
    fn default() -> Self {
        Self {
            rooms: HashMap::new(),
            ready: BTreeMap::new(),
            by_length: BTreeSet::new(),
            pushed: 0,
            waiting: 0,
            in_flight: 0,
        }
    }
}

impl<T> WaitingByRoom<T> {
    /// How many wait; those in flight do not.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// How many were taken and are not finished.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Adds a value as the last.
    pub(super) fn push(&mut self, room: &Arc<str>, value: T) {
        let number = self.pushed;
        self.pushed += 1;
        self.change(room, |queue| queue.values.push_back((number, value)));
    }

    /// Takes the first value that may be in flight now; [`finish`](Self::finish) its room after that.
    pub(super) fn take(&mut self) -> Option<T> {
        let (_, room) = self.ready.first_key_value()?;
        let room = room.clone();
        let taken = self.change(&room, |queue| {
            queue.is_in_flight = true;
            queue.values.pop_front()
        });
        self.in_flight += usize::from(taken.is_some());
        taken.map(|(_, value)| value)
    }

    /// The value of `room` that was taken is in flight no longer.
    pub(super) fn finish(&mut self, room: &Arc<str>) {
        let was_in_flight = self.change(room, |queue| std::mem::take(&mut queue.is_in_flight));
        self.in_flight -= usize::from(was_in_flight);
    }

    /// Drops the oldest value of the room with the most; where no room has more than one, the oldest of all.
    pub(super) fn drop_one(&mut self) -> Option<T> {
        let (length, longest) = self.by_length.last()?;
        let oldest = self.ready.first_key_value().filter(|_| *length < 2);
        let room = oldest.map_or(longest, |(_, room)| room).clone();
        self.change(&room, |queue| queue.values.pop_front()).map(|(_, value)| value)
    }

    /// Drops all that wait; how many they were.
    pub(super) fn clear(&mut self) -> usize {
        let waiting = self.waiting;
        *self = Self::default();
        waiting
    }

    /// Changes the queue of a room, and brings everything up to date that follows from it.
    fn change<R>(&mut self, room: &Arc<str>, change: impl FnOnce(&mut RoomQueue<T>) -> R) -> R {
        let queue = self.rooms.entry(room.clone()).or_default();
        let before = queue.values.len();
        if let Some((first, _)) = queue.values.front() {
            self.ready.remove(first);
        }
        let result = change(queue);
        let after = queue.values.len();
        if let Some((first, _)) = queue.values.front()
            && !queue.is_in_flight
        {
            self.ready.insert(*first, room.clone());
        }
        if after == 0 && !queue.is_in_flight {
            self.rooms.remove(room);
        }
        if before != after {
            self.by_length.remove(&(before, room.clone()));
            if after > 0 {
                self.by_length.insert((after, room.clone()));
            }
        }
        self.waiting = self.waiting + after - before;
        result
    }
}

impl<T> Default for RoomQueue<T> {
    fn default() -> Self {
        Self { values: VecDeque::new(), is_in_flight: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[(&str, u32)]) -> WaitingByRoom<(Arc<str>, u32)> {
        let mut waiting = WaitingByRoom::default();
        for (room, value) in values {
            waiting.push(&(*room).into(), ((*room).into(), *value));
        }
        waiting
    }

    #[test]
    fn one_at_a_time_they_come_in_their_order() {
        let mut waiting = of(&[("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)]);

        for expected in 1..=5 {
            let (room, value) = waiting.take().unwrap();
            assert_eq!(value, expected);
            waiting.finish(&room);
        }
        assert!(
            waiting.take().is_none() && waiting.rooms.is_empty() && waiting.by_length.is_empty()
        );
    }

    #[test]
    fn of_a_room_with_one_in_flight_none_is_taken() {
        let mut waiting = of(&[("a", 1), ("a", 2), ("b", 3)]);

        let (a, first) = waiting.take().unwrap();
        assert_eq!((first, waiting.take().unwrap().1), (1, 3));
        assert!(waiting.take().is_none());
        assert_eq!((waiting.len(), waiting.in_flight()), (1, 2));
        waiting.finish(&a);
        assert_eq!(waiting.take().unwrap().1, 2);
    }

    #[test]
    fn what_is_dropped_is_the_oldest_of_the_room_that_has_most() {
        let mut waiting = of(&[("quiet", 1), ("loud", 2), ("loud", 3), ("loud", 4), ("other", 5)]);

        let dropped: Vec<_> =
            std::iter::from_fn(|| waiting.drop_one()).map(|(_, value)| value).collect();

        assert_eq!(dropped, [2, 3, 1, 4, 5]);
        assert_eq!(waiting.len(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Take,
        Finish(usize),
        Drop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..4_u8).prop_map(Step::Push),
            2 => Just(Step::Take),
            2 => (0..4_usize).prop_map(Step::Finish),
            1 => Just(Step::Drop),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        #[test]
        fn order_holds_within_each_room_and_nothing_is_lost_but_what_is_dropped(steps in steps()) {
            let mut waiting = WaitingByRoom::default();
            let (mut next, mut gone) = (0_u32, 0);
            let mut last: HashMap<Arc<str>, u32> = HashMap::new();
            let mut flying: Vec<Arc<str>> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(room) => {
                        let room: Arc<str> = room.to_string().into();
                        waiting.push(&room, (room.clone(), next));
                        next += 1;
                    }
                    Step::Take => {
                        if let Some((room, value)) = waiting.take() {
                            prop_assert!(!flying.contains(&room));
                            prop_assert!(last.insert(room.clone(), value).is_none_or(|last| last < value));
                            flying.push(room);
                            gone += 1;
                        } else {
                            prop_assert!(waiting.rooms.iter().all(|(_, room)| room.is_in_flight));
                        }
                    }
                    Step::Finish(index) if index < flying.len() => waiting.finish(&flying.remove(index)),
                    Step::Finish(_) => {}
                    Step::Drop => gone += usize::from(waiting.drop_one().is_some()),
                }
                prop_assert_eq!(waiting.len(), next as usize - gone);
                prop_assert_eq!(waiting.in_flight(), flying.len());
            }
        }
    }
}
