//! Turns, pauses and drops, as values.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

type Value = (Arc<str>, u32);

fn of(values: &[(&str, u32)]) -> WaitingByRoom<Value> {
    let mut waiting = WaitingByRoom::default();
    for (room, value) in values {
        push(&mut waiting, room, *value, Worth::Essential);
    }
    waiting
}

fn push(waiting: &mut WaitingByRoom<Value>, room: &str, value: u32, worth: Worth) {
    waiting.push(&room.into(), (room.into(), value), worth);
}

/// The values in the order in which one worker takes them.
fn served(waiting: &mut WaitingByRoom<Value>) -> Vec<u32> {
    std::iter::from_fn(|| {
        let (room, value) = waiting.take()?.value;
        waiting.finish(&room);
        Some(value)
    })
    .collect()
}

#[test]
fn rooms_take_turns_and_the_values_of_each_come_in_their_order() {
    let mut waiting = of(&[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("a", 5), ("c", 6), ("b", 7)]);

    assert_eq!(served(&mut waiting), [1, 4, 6, 2, 7, 3, 5]);
    assert!(waiting.rooms.is_empty() && waiting.by_length.is_empty());
}

#[test]
fn a_value_waits_for_at_most_one_of_each_other_room() {
    let mut waiting = of(&[]);
    for value in 0..1_000 {
        push(&mut waiting, if value % 2 == 0 { "loud" } else { "louder" }, value, Worth::Essential);
    }
    let first = waiting.take().unwrap().value;

    push(&mut waiting, "quiet", 5_000, Worth::Essential);
    waiting.finish(&first.0);

    assert_eq!(served(&mut waiting)[..3], [1, 5_000, 2]);
}

#[test]
fn of_a_room_with_one_in_flight_none_is_taken() {
    let mut waiting = of(&[("a", 1), ("a", 2), ("b", 3)]);

    let (a, first) = waiting.take().unwrap().value;
    assert_eq!((first, waiting.take().unwrap().value.1), (1, 3));
    assert!(waiting.take().is_none() && !waiting.has_turn());
    assert_eq!((waiting.len(), waiting.in_flight()), (1, 2));
    waiting.finish(&a);
    assert_eq!(waiting.take().unwrap().value.1, 2);
}

#[test]
fn a_value_that_is_put_back_comes_first_in_its_room_after_the_pause_and_holds_no_other_room() {
    let mut waiting = of(&[("a", 1), ("a", 2), ("b", 3), ("b", 4)]);
    let now = Instant::now();
    let until = now + Duration::from_secs(1);

    let taken = waiting.take().unwrap();
    let room = taken.value.0.clone();
    waiting.put_back(&room, taken, until);

    assert_eq!((waiting.len(), waiting.in_flight()), (4, 0));
    assert_eq!(served(&mut waiting), [3, 4]);
    assert_eq!(waiting.next_pause_end(), Some(until));
    push(&mut waiting, "a", 5, Worth::Essential);
    waiting.end_pauses(Some(now));
    assert!(!waiting.has_turn(), "it pauses");
    waiting.end_pauses(Some(until));
    assert_eq!(served(&mut waiting), [1, 2, 5]);
    assert_eq!(waiting.next_pause_end(), None);
}

#[test]
fn all_pauses_end_when_nothing_is_waited_for_any_more() {
    let mut waiting = of(&[("a", 1), ("b", 2)]);
    for _ in 0..2 {
        let taken = waiting.take().unwrap();
        let room = taken.value.0.clone();
        waiting.put_back(&room, taken, Instant::now() + Duration::from_secs(3600));
    }
    assert!(waiting.take().is_none());

    waiting.end_pauses(None);

    assert_eq!(served(&mut waiting), [1, 2]);
}

#[test]
fn what_is_dropped_is_the_oldest_of_the_room_that_has_most() {
    let mut waiting = of(&[("quiet", 1), ("loud", 2), ("loud", 3), ("loud", 4), ("other", 5)]);

    let dropped: Vec<_> =
        std::iter::from_fn(|| waiting.drop_one()).map(|(_, value)| value).collect();

    assert_eq!(dropped, [2, 3, 1, 4, 5]);
    assert_eq!(waiting.len(), 0);
}

#[test]
fn expendable_values_are_dropped_before_all_others() {
    let mut waiting = of(&[("full", 1), ("full", 2), ("full", 3), ("full", 4)]);
    for (room, value) in [("few", 5), ("many", 6), ("many", 7)] {
        push(&mut waiting, room, value, Worth::Expendable);
    }
    push(&mut waiting, "many", 8, Worth::Essential);

    let dropped: Vec<_> =
        std::iter::from_fn(|| waiting.drop_one()).map(|(_, value)| value).collect();

    assert_eq!(dropped, [6, 5, 7, 1, 2, 3, 4, 8]);
    assert!(waiting.rooms.is_empty() && waiting.turns.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, bool),
    Take,
    Finish(usize),
    PutBack(usize, u64),
    Pass(u64),
    Drop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_u8, any::<bool>()).prop_map(|(room, is_essential)| Step::Push(room, is_essential)),
        3 => Just(Step::Take),
        2 => (0..4_usize).prop_map(Step::Finish),
        1 => (0..4_usize, 0..5_u64).prop_map(|(index, pause)| Step::PutBack(index, pause)),
        1 => (0..5_u64).prop_map(Step::Pass),
        1 => Just(Step::Drop),
    ];
    prop::collection::vec(step, 0..150)
}

proptest! {
    #[test]
    fn order_holds_within_each_room_turns_go_round_and_nothing_is_lost_but_what_is_dropped(steps in steps()) {
        let mut waiting = WaitingByRoom::default();
        let (mut next, mut gone, mut now) = (0_u32, 0, Instant::now());
        let mut last: HashMap<Arc<str>, u32> = HashMap::new();
        let mut flying: Vec<Taken<Value>> = Vec::new();
        // How often another room was served since a room could be.
        let mut passed_over: HashMap<Arc<str>, HashMap<Arc<str>, u32>> = HashMap::new();
        for step in steps {
            match step {
                Step::Push(room, is_essential) => {
                    let worth = if is_essential { Worth::Essential } else { Worth::Expendable };
                    push(&mut waiting, &room.to_string(), next, worth);
                    next += 1;
                }
                Step::Take => {
                    let ready: Vec<_> = waiting.turns.values().cloned().collect();
                    if let Some(taken) = waiting.take() {
                        let (room, value) = taken.value.clone();
                        prop_assert!(flying.iter().all(|other| other.value.0 != room));
                        prop_assert!(last.insert(room.clone(), value).is_none_or(|last| last <= value));
                        passed_over.remove(&room);
                        for other in ready.into_iter().filter(|other| *other != room) {
                            let times = passed_over.entry(other).or_default().entry(room.clone()).or_default();
                            *times += 1;
                            prop_assert!(*times <= 1, "a room was served twice before another");
                        }
                        flying.push(taken);
                        gone += 1;
                    } else {
                        let may_not = |room: &RoomQueue<_>| matches!(room.place, Place::InFlight | Place::Pause(_));
                        prop_assert!(waiting.rooms.values().all(may_not));
                    }
                }
                Step::Finish(index) if index < flying.len() => waiting.finish(&flying.remove(index).value.0),
                Step::PutBack(index, pause) if index < flying.len() => {
                    let taken = flying.remove(index);
                    let room = taken.value.0.clone();
                    waiting.put_back(&room, taken, now + Duration::from_secs(pause));
                    gone -= 1;
                }
                Step::Finish(_) | Step::PutBack(..) => {}
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    waiting.end_pauses(Some(now));
                }
                Step::Drop => {
                    let before: Vec<_> = waiting.turns.values().cloned().collect();
                    gone += usize::from(waiting.drop_one().is_some());
                    // A room that has lost its last value begins anew.
                    before.iter().filter(|room| !waiting.rooms.contains_key(*room)).for_each(|room| {
                        passed_over.remove(room);
                    });
                }
            }
            prop_assert_eq!(waiting.len(), next as usize - gone);
            prop_assert_eq!(waiting.in_flight(), flying.len());
            let sums = waiting.rooms.values().fold((0, 0), |(all, expendable), room| {
                (all + room.len(), expendable + room.expendable.len())
            });
            let ranked = |ranks: &BTreeSet<Rank>| ranks.iter().map(|(length, ..)| *length).sum::<usize>();
            prop_assert_eq!((ranked(&waiting.by_length), ranked(&waiting.by_expendable)), sums);
            prop_assert_eq!(sums.0, waiting.len());
        }
    }
}
