//! The events that wait for one URL, by room. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

/// Values that wait, each of a room.
///
/// Rooms take turns: a room whose value was taken comes after all others that have one. None is taken of a room of which one
/// is still in flight, or that pauses: so order holds within each room, however many are in flight at once.
#[derive(Debug)]
pub(super) struct WaitingByRoom<T> {
    rooms: HashMap<Arc<str>, RoomQueue<T>>,
    /// The rooms of which a value may be taken, in the order in which they are served.
    turns: BTreeMap<u64, Arc<str>>,
    /// The rooms of which the next value waits for a time.
    pauses: BTreeSet<(Instant, Arc<str>)>,
    /// The rooms by how many values wait.
    by_length: BTreeSet<Rank>,
    /// The rooms by how many expendable values wait.
    by_expendable: BTreeSet<Rank>,
    /// The number of the next value.
    pushed: u64,
    /// The number of the next turn.
    next_turn: u64,
    waiting: usize,
    in_flight: usize,
}

/// What is dropped first where too many values wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// Dropped only where no expendable value waits.
    Essential,
    /// Dropped before any essential value.
    Expendable,
}

/// A value that is in flight.
#[derive(Debug)]
pub(super) struct Taken<T> {
    pub value: T,
    number: u64,
    worth: Worth,
}

/// Orders rooms by how many of their values wait, and among equals those first whose oldest value is newer.
type Rank = (usize, Reverse<u64>, Arc<str>);

/// The values of one room, each with its number among all.
#[derive(Debug)]
struct RoomQueue<T> {
    essential: VecDeque<(u64, T)>,
    expendable: VecDeque<(u64, T)>,
    place: Place,
}

/// Where a room stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has no value.
    Empty,
    /// It is served at this turn.
    Turn(u64),
    /// One of its values is in flight.
    InFlight,
    /// Its next value waits until this time.
    Pause(Instant),
}

impl<T> Default for WaitingByRoom<T> {
    fn default() -> Self {
        Self {
            rooms: HashMap::new(),
            turns: BTreeMap::new(),
            pauses: BTreeSet::new(),
            by_length: BTreeSet::new(),
            by_expendable: BTreeSet::new(),
            pushed: 0,
            next_turn: 0,
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

    /// How many were taken and are neither finished nor put back.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a value may be taken now.
    pub(super) fn has_turn(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Adds a value as the last of its room.
    pub(super) fn push(&mut self, room: &Arc<str>, value: T, worth: Worth) {
        let number = self.pushed;
        self.pushed += 1;
        self.change(room, |queue| queue.of(worth).push_back((number, value)));
    }

    /// Takes the next value of the room whose turn it is; [`finish`](Self::finish) its room after that, or
    /// [`put_back`](Self::put_back) the value.
    pub(super) fn take(&mut self) -> Option<Taken<T>> {
        let (_, room) = self.turns.first_key_value()?;
        let room = room.clone();
        let taken = self.change(&room, |queue| {
            queue.place = Place::InFlight;
            queue.pop()
        });
        self.in_flight += usize::from(taken.is_some());
        taken
    }

    /// The value of `room` that was taken is in flight no longer.
    pub(super) fn finish(&mut self, room: &Arc<str>) {
        let landed = self.change(room, RoomQueue::land);
        self.in_flight -= usize::from(landed);
    }

    /// A value of `room` that was taken is the first of its room again, and the room pauses until `until`.
    pub(super) fn put_back(&mut self, room: &Arc<str>, taken: Taken<T>, until: Instant) {
        let Taken { value, number, worth } = taken;
        let landed = self.change(room, |queue| {
            queue.of(worth).push_front((number, value));
            let landed = queue.land();
            queue.place = Place::Pause(until);
            landed
        });
        self.in_flight -= usize::from(landed);
    }

    /// Ends the pauses that are over at `now`; all of them where that is `None`.
    pub(super) fn end_pauses(&mut self, now: Option<Instant>) {
        while let Some((until, room)) = self.pauses.first() {
            if now.is_some_and(|now| now < *until) {
                return;
            }
            let room = room.clone();
            self.change(&room, |queue| queue.place = Place::Empty);
        }
    }

    /// When the first pause ends.
    pub(super) fn next_pause_end(&self) -> Option<Instant> {
        self.pauses.first().map(|(until, _)| *until)
    }

    /// Drops the oldest expendable value of the room with the most of them. Where none waits, drops the oldest value of the room
    /// with the most values.
    pub(super) fn drop_one(&mut self) -> Option<T> {
        if let Some((_, _, room)) = self.by_expendable.last() {
            let room = room.clone();
            return self
                .change(&room, |queue| queue.expendable.pop_front())
                .map(|(_, value)| value);
        }
        let (_, _, room) = self.by_length.last()?;
        let room = room.clone();
        self.change(&room, |queue| queue.essential.pop_front()).map(|(_, value)| value)
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
        let before = (queue.rank(room), queue.rank_expendable(room), queue.place);
        let length_before = queue.len();
        let result = change(queue);
        if queue.place != Place::InFlight && queue.len() == 0 {
            queue.place = Place::Empty;
        } else if queue.place == Place::Empty {
            queue.place = Place::Turn(self.next_turn);
            self.next_turn += 1;
        }
        let after = (queue.rank(room), queue.rank_expendable(room), queue.place);
        self.waiting = self.waiting + queue.len() - length_before;
        replace(&mut self.by_length, before.0, after.0);
        replace(&mut self.by_expendable, before.1, after.1);
        if before.2 != after.2 {
            self.move_room(room, before.2, after.2);
        }
        if after.2 == Place::Empty {
            self.rooms.remove(room);
        }
        result
    }

    fn move_room(&mut self, room: &Arc<str>, from: Place, to: Place) {
        match from {
            Place::Turn(turn) => {
                self.turns.remove(&turn);
            }
            Place::Pause(until) => {
                self.pauses.remove(&(until, room.clone()));
            }
            Place::Empty | Place::InFlight => {}
        }
        match to {
            Place::Turn(turn) => {
                self.turns.insert(turn, room.clone());
            }
            Place::Pause(until) => {
                self.pauses.insert((until, room.clone()));
            }
            Place::Empty | Place::InFlight => {}
        }
    }
}

/// Replaces the rank of a room.
fn replace(ranks: &mut BTreeSet<Rank>, before: Option<Rank>, after: Option<Rank>) {
    if before != after {
        if let Some(before) = before {
            ranks.remove(&before);
        }
        ranks.extend(after);
    }
}

impl<T> Default for RoomQueue<T> {
    fn default() -> Self {
        let (essential, expendable) = (VecDeque::new(), VecDeque::new());
        Self { essential, expendable, place: Place::Empty }
    }
}

impl<T> RoomQueue<T> {
    fn len(&self) -> usize {
        self.essential.len() + self.expendable.len()
    }

    fn of(&mut self, worth: Worth) -> &mut VecDeque<(u64, T)> {
        match worth {
            Worth::Essential => &mut self.essential,
            Worth::Expendable => &mut self.expendable,
        }
    }

    /// The worth and the number of the oldest value.
    fn oldest(&self) -> Option<(u64, Worth)> {
        let essential = self.essential.front().map(|(number, _)| (*number, Worth::Essential));
        let expendable = self.expendable.front().map(|(number, _)| (*number, Worth::Expendable));
        [essential, expendable].into_iter().flatten().min_by_key(|(number, _)| *number)
    }

    /// Takes the oldest value out.
    fn pop(&mut self) -> Option<Taken<T>> {
        let (_, worth) = self.oldest()?;
        let (number, value) = self.of(worth).pop_front()?;
        Some(Taken { value, number, worth })
    }

    /// No value is in flight any more; whether one was.
    fn land(&mut self) -> bool {
        let was_in_flight = self.place == Place::InFlight;
        if was_in_flight {
            self.place = Place::Empty;
        }
        was_in_flight
    }

    fn rank(&self, room: &Arc<str>) -> Option<Rank> {
        self.oldest().map(|(number, _)| (self.len(), Reverse(number), room.clone()))
    }

    fn rank_expendable(&self, room: &Arc<str>) -> Option<Rank> {
        let (number, _) = self.expendable.front()?;
        Some((self.expendable.len(), Reverse(*number), room.clone()))
    }
}

#[cfg(test)]
mod tests;
