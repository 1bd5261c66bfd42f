//! Which signals have arrived on other nodes. Each is confirmed by the node that it was sent to, or its sender gets an
//! error: a signal leaves [`UnconfirmedSignals`] in no other way. Pure.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    migration::random_key,
    rooms::{NodeUnreachable, RelayedSignal},
};

/// Bytes on their way from this node to one other that may be unread there. Redis holds no more of them: this is what
/// bounds the inbox of a node that reads slowly, and `deploy/redis.conf` counts with it.
pub const MAX_UNREAD_BYTES: usize = 8 << 20;

/// What an entry costs in Redis beside its frame, about.
const ENTRY_OVERHEAD: usize = 256;

/// Signals that were answered and may be repeated: how many are remembered, and for how long.
const MAX_ANSWERED: usize = 4_096;
const ANSWERED_TTL: Duration = Duration::from_secs(60);

/// Gaps in the numbers of one node that are remembered. Only signals that were lost leave some.
const MAX_GAPS: usize = 256;

/// The signals of this node to the others through one Redis.
#[derive(Default)]
pub struct UnconfirmedSignals {
    nodes: BTreeMap<Arc<str>, NodeSignals>,
    answered: AnsweredSignals,
}

/// The signals to one node.
struct NodeSignals {
    /// The number of the next signal. It begins at random, so that a process never repeats the numbers of the one before.
    next: u64,
    /// Signals with a number below this were answered; those that are still here count as unread.
    answered_before: u64,
    unread: BTreeMap<u64, UnreadSignal>,
    bytes: usize,
}

struct UnreadSignal {
    signal: Arc<RelayedSignal>,
    bytes: usize,
    since: Instant,
}

/// What goes with a signal to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalNumber {
    /// Tells it from all other signals to this node.
    pub number: u64,
    /// The numbers of the same signal when it was sent before, and was answered: only one of them counts.
    pub before: Vec<u64>,
}

impl UnconfirmedSignals {
    /// Numbers a signal that goes to `node` in a frame of so many bytes.
    ///
    /// # Errors
    ///
    /// More waits there than [`MAX_UNREAD_BYTES`].
    pub fn insert(
        &mut self,
        node: &Arc<str>,
        signal: &Arc<RelayedSignal>,
        bytes: usize,
        now: Instant,
    ) -> Result<SignalNumber, NodeUnreachable> {
        let signals = self.nodes.entry(node.clone()).or_insert_with(|| {
            let first = random_key() >> 16;
            NodeSignals { next: first, answered_before: 0, unread: BTreeMap::new(), bytes: 0 }
        });
        let bytes = bytes + ENTRY_OVERHEAD;
        if signals.bytes + bytes > MAX_UNREAD_BYTES {
            return Err(NodeUnreachable);
        }
        let number = signals.next;
        signals.next += 1;
        signals.bytes += bytes;
        signal.note_sent(node, number);
        signals.unread.insert(number, UnreadSignal { signal: signal.clone(), bytes, since: now });
        Ok(SignalNumber { number, before: self.answered.numbers(signal, node) })
    }

    /// `node` has read these signals: the first were handed to their targets, the others had none. Returns those that have
    /// to be answered.
    pub fn confirm(
        &mut self,
        node: &str,
        delivered: &NumberRanges,
        undeliverable: &NumberRanges,
        now: Instant,
    ) -> Vec<Arc<RelayedSignal>> {
        let Some(signals) = self.nodes.get_mut(node) else { return Vec::new() };
        for range in delivered.iter() {
            for (_, signal) in signals.take(range) {
                self.answered.forget(&signal);
            }
        }
        let lost = undeliverable.iter().flat_map(|range| signals.take(range));
        lost.filter_map(|(_, signal)| self.answered.answer(signal, now)).collect()
    }

    /// `node` has no inbox, so it reads nothing that was sent to it. Returns the signals that have to be answered.
    pub fn fail_node(&mut self, node: &str, now: Instant) -> Vec<Arc<RelayedSignal>> {
        let Some(signals) = self.nodes.remove(node) else { return Vec::new() };
        self.answer_all(signals, now)
    }

    /// A signal was not written. Returns it where it has to be answered.
    pub fn fail(&mut self, node: &str, number: u64, now: Instant) -> Option<Arc<RelayedSignal>> {
        let (_, signal) = self.nodes.get_mut(node)?.take((number, number)).pop()?;
        self.answered.answer(signal, now)
    }

    /// The Redis cannot be reached: nothing is known of what was sent. Returns the signals that have to be answered.
    pub fn fail_all(&mut self, now: Instant) -> Vec<Arc<RelayedSignal>> {
        let nodes = std::mem::take(&mut self.nodes);
        nodes.into_values().flat_map(|signals| self.answer_all(signals, now)).collect()
    }

    /// Returns the signals that were not confirmed for `timeout`, and have to be answered. They count as unread until they
    /// are confirmed after all.
    pub fn expire(&mut self, timeout: Duration, now: Instant) -> Vec<Arc<RelayedSignal>> {
        let mut late = Vec::new();
        for signals in self.nodes.values_mut() {
            let from = signals.answered_before;
            for (number, unread) in signals.unread.range(from..) {
                if now.duration_since(unread.since) < timeout {
                    break;
                }
                signals.answered_before = number + 1;
                late.extend(self.answered.answer(unread.signal.clone(), now));
            }
        }
        // A node that has confirmed nothing for so long is gone.
        let is_gone = |unread: &UnreadSignal| now.duration_since(unread.since) > ANSWERED_TTL;
        self.nodes.retain(|_, signals| {
            !signals.unread.first_key_value().is_some_and(|(_, unread)| is_gone(unread))
        });
        self.answered.expire(now);
        late
    }

    /// Whether the sender of this signal was told that it may not have arrived: then it is sent again now.
    pub fn was_answered(&self, key: u64, id: &str) -> bool {
        self.answered.is_known(key, id)
    }

    /// An error was returned for a signal at once.
    pub fn note_answered(&mut self, signal: &Arc<RelayedSignal>, now: Instant) {
        self.answered.note(signal, now);
    }

    fn answer_all(&mut self, signals: NodeSignals, now: Instant) -> Vec<Arc<RelayedSignal>> {
        let unread = signals.unread.into_values();
        unread.filter_map(|unread| self.answered.answer(unread.signal, now)).collect()
    }
}

impl NodeSignals {
    /// Takes the signals with these numbers.
    fn take(&mut self, (first, last): (u64, u64)) -> Vec<(u64, Arc<RelayedSignal>)> {
        if first > last {
            return Vec::new();
        }
        let numbers: Vec<u64> =
            self.unread.range(first..=last).map(|(number, _)| *number).collect();
        let taken = numbers.into_iter().filter_map(|number| {
            let unread = self.unread.remove(&number)?;
            self.bytes -= unread.bytes;
            Some((number, unread.signal))
        });
        taken.collect()
    }
}

/// The key of a sender, and the `id` that it gave a signal.
type SignalKey = (u64, Box<str>);

/// The signals whose senders have got an error: they may have arrived, and may be repeated.
#[derive(Default)]
struct AnsweredSignals {
    signals: HashMap<SignalKey, Vec<Arc<RelayedSignal>>>,
    order: VecDeque<(SignalKey, Instant)>,
}

impl AnsweredSignals {
    /// Notes that a signal is answered; returns it where it was not answered before, as a broadcast may be.
    fn answer(&mut self, signal: Arc<RelayedSignal>, now: Instant) -> Option<Arc<RelayedSignal>> {
        signal.mark_answered().then(|| {
            self.note(&signal, now);
            signal
        })
    }

    fn note(&mut self, signal: &Arc<RelayedSignal>, now: Instant) {
        let Some(id) = &signal.id else { return };
        let key = (signal.key, id.clone());
        if !self.signals.contains_key(&key) {
            self.order.push_back((key.clone(), now));
        }
        self.signals.entry(key).or_default().push(signal.clone());
        while self.order.len() > MAX_ANSWERED {
            self.evict_oldest();
        }
    }

    fn numbers(&self, signal: &RelayedSignal, node: &str) -> Vec<u64> {
        let Some(id) = signal.id.as_ref().filter(|_| !self.signals.is_empty()) else {
            return Vec::new();
        };
        let before = self.signals.get(&(signal.key, id.clone())).into_iter().flatten();
        before.flat_map(|before| before.numbers_at(node)).collect()
    }

    fn is_known(&self, key: u64, id: &str) -> bool {
        !self.signals.is_empty() && self.signals.contains_key(&(key, id.into()))
    }

    /// A signal has arrived: its `id` may be used for another one.
    fn forget(&mut self, signal: &RelayedSignal) {
        if let Some(id) = signal.id.as_ref().filter(|_| !self.signals.is_empty())
            && !signal.is_answered()
        {
            self.signals.remove(&(signal.key, id.clone()));
        }
    }

    fn expire(&mut self, now: Instant) {
        let is_over = |at: &Instant| now.duration_since(*at) > ANSWERED_TTL;
        while self.order.front().is_some_and(|(_, at)| is_over(at)) {
            self.evict_oldest();
        }
    }

    fn evict_oldest(&mut self) {
        if let Some((key, _)) = self.order.pop_front() {
            self.signals.remove(&key);
        }
    }
}

/// The signals of other nodes that this one has read.
#[derive(Default)]
pub struct ReceivedSignals {
    nodes: HashMap<Arc<str>, NodeReceipts>,
}

#[derive(Default)]
struct NodeReceipts {
    /// All that were handed to their targets.
    delivered: NumberRanges,
    /// What the node has not been told yet.
    unsent: SignalReceipts,
}

/// What a node has read, as it tells the node that has sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalReceipts {
    /// Signals that were handed to their targets.
    pub delivered: NumberRanges,
    /// Signals without a target here.
    pub undeliverable: NumberRanges,
}

impl ReceivedSignals {
    /// Whether a signal of `node` that was repeated has been delivered before.
    pub fn is_repeated(&self, node: &str, sent: &SignalNumber) -> bool {
        let known = self.nodes.get(node);
        known
            .is_some_and(|known| sent.before.iter().any(|number| known.delivered.contains(*number)))
    }

    /// Notes that a signal of `node` was read, and whether it was delivered; whether that node had nothing to be told before.
    pub fn note(&mut self, node: &Arc<str>, number: u64, is_delivered: bool) {
        let known = self.nodes.entry(node.clone()).or_default();
        if is_delivered {
            known.delivered.insert(number);
            known.delivered.truncate(MAX_GAPS);
            known.unsent.delivered.insert(number);
        } else {
            known.unsent.undeliverable.insert(number);
        }
    }

    /// Takes what each node has to be told.
    pub fn take_unsent(&mut self) -> Vec<(Arc<str>, SignalReceipts)> {
        let unsent = self.nodes.iter_mut().filter(|(_, known)| known.unsent != <_>::default());
        unsent.map(|(node, known)| (node.clone(), std::mem::take(&mut known.unsent))).collect()
    }
}

/// Numbers, most of which follow each other. As text: `3-7,9-9`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberRanges(Vec<(u64, u64)>);

impl NumberRanges {
    /// Adds a number.
    pub fn insert(&mut self, number: u64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            Some((_, last)) if *last < number => self.0.push((number, number)),
            None => self.0.push((number, number)),
            // Of a process that has begun with a lower number; or one that was read twice.
            Some(_) => {
                if !self.contains(number) {
                    let index = self.0.partition_point(|(first, _)| *first < number);
                    self.0.insert(index, (number, number));
                }
            }
        }
    }

    /// Whether it is among them.
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        let range = after.checked_sub(1).and_then(|index| self.0.get(index));
        range.is_some_and(|(_, last)| number <= *last)
    }

    /// The first and the last number of each range.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// Forgets the lowest ranges where there are more than `most`.
    fn truncate(&mut self, most: usize) {
        let excess = self.0.len().saturating_sub(most);
        self.0.drain(..excess);
    }
}

impl std::fmt::Display for NumberRanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (first, last)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{first}-{last}")?;
        }
        Ok(())
    }
}

impl FromStr for NumberRanges {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ranges = text.split(',').filter(|range| !range.is_empty());
        let parse = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Ok((first.parse()?, last.parse()?))
        };
        ranges.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(4);

    fn signal(id: &str) -> Arc<RelayedSignal> {
        Arc::new(RelayedSignal::for_tests(7, id))
    }

    fn ranges(text: &str) -> NumberRanges {
        text.parse().unwrap()
    }

    fn ids(signals: &[Arc<RelayedSignal>]) -> Vec<&str> {
        signals.iter().map(|signal| signal.id.as_deref().unwrap()).collect()
    }

    #[test]
    fn a_signal_is_confirmed_or_answered_and_never_both_by_itself() {
        let (mut sent, now, node) = (UnconfirmedSignals::default(), Instant::now(), "n1".into());
        let mut numbers = Vec::new();
        for id in ["1", "2", "3"] {
            numbers.push(sent.insert(&node, &signal(id), 10, now).unwrap().number);
        }
        let only = |number: u64| ranges(&format!("{number}"));

        let nothing = sent.confirm("n1", &only(numbers[0]), &only(numbers[2]), now);
        assert_eq!(ids(&nothing), ["3"]);
        assert!(sent.expire(TIMEOUT, now).is_empty());
        assert_eq!(ids(&sent.expire(TIMEOUT, now + TIMEOUT)), ["2"]);
        assert!(sent.expire(TIMEOUT, now + TIMEOUT * 2).is_empty());
        assert!(sent.fail_all(now + TIMEOUT * 2).is_empty());
    }

    #[test]
    fn a_broadcast_is_answered_once_for_all_nodes() {
        let (mut sent, now, said) = (UnconfirmedSignals::default(), Instant::now(), signal("1"));
        for node in ["n1", "n2"] {
            sent.insert(&node.into(), &said, 10, now).unwrap();
        }

        assert_eq!(ids(&sent.fail_node("n2", now)), ["1"]);
        assert!(sent.fail_all(now).is_empty());
    }

    #[test]
    fn what_is_unread_is_bounded_also_when_it_was_answered() {
        let (mut sent, now, node) = (UnconfirmedSignals::default(), Instant::now(), "n1".into());
        let half = MAX_UNREAD_BYTES / 2 - ENTRY_OVERHEAD;
        let first = sent.insert(&node, &signal("1"), half, now).unwrap().number;
        sent.insert(&node, &signal("2"), half, now).unwrap();
        assert_eq!(sent.expire(TIMEOUT, now + TIMEOUT).len(), 2);

        assert!(sent.insert(&node, &signal("3"), 1, now).is_err());
        sent.confirm("n1", &ranges(&first.to_string()), &<_>::default(), now);
        sent.insert(&node, &signal("3"), 1, now).unwrap();
    }

    #[test]
    fn a_repeated_signal_is_known_where_it_was_delivered_before() {
        let (mut sent, now, node) = (UnconfirmedSignals::default(), Instant::now(), "n1".into());
        let first = sent.insert(&node, &signal("1"), 10, now).unwrap();
        assert_eq!(first.before, Vec::<u64>::new());
        sent.expire(TIMEOUT, now + TIMEOUT);
        assert!(sent.was_answered(7, "1") && !sent.was_answered(7, "2"));

        let again = sent.insert(&node, &signal("1"), 10, now).unwrap();

        let mut received = ReceivedSignals::default();
        assert!(!received.is_repeated("n0", &again));
        received.note(&"n0".into(), first.number, true);
        assert!(received.is_repeated("n0", &again));
        assert!(!received.is_repeated("n2", &again));
        let unsent = received.take_unsent();
        assert_eq!(unsent[0].1.delivered, ranges(&first.number.to_string()));
        assert!(received.take_unsent().is_empty());
        let delivered = ranges(&again.number.to_string());
        assert!(sent.confirm("n1", &delivered, &<_>::default(), now).is_empty());
        assert!(!sent.was_answered(7, "1"));
    }

    #[test]
    fn ranges_are_written_and_read_alike() {
        let mut numbers = NumberRanges::default();
        for number in [5, 6, 7, 9, 3, 6] {
            numbers.insert(number);
        }

        assert_eq!(numbers.to_string(), "3-3,5-7,9-9");
        assert_eq!(ranges(&numbers.to_string()), numbers);
        assert!([3, 5, 7, 9].iter().all(|number| numbers.contains(*number)));
        assert!([2, 4, 8, 10].iter().all(|number| !numbers.contains(*number)));
        assert!("3-x".parse::<NumberRanges>().is_err());
    }
}
