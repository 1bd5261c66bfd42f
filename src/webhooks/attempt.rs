//! What waits for one URL, and when it is tried again after a failure. Pure: `now` and `chance` are arguments.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    event::WebhookEnvelope,
    health::{MinuteLine, ReceiverHealth},
    policy::DeliveryPolicy,
    waiting::{Taken, WaitingByRoom, Worth},
};
use crate::memory::{Charge, MemoryBudget, MemoryKind};

/// An event that waits for its delivery.
#[derive(Debug)]
pub(super) struct QueuedEvent {
    pub envelope: WebhookEnvelope,
    pub since: Instant,
    /// All waiting events together hold as much memory as they may.
    pub is_over_share: bool,
    _charge: Charge,
}

impl QueuedEvent {
    /// An event that happened now; what it takes counts against `memory`.
    pub(super) fn new(envelope: WebhookEnvelope, memory: &MemoryBudget) -> Self {
        let mut charge = memory.server_charge(MemoryKind::WebhookQueues);
        let _ = charge.set(envelope.held_bytes());
        let is_over_share = memory.is_eighth_used_by(MemoryKind::WebhookQueues);
        Self { envelope, since: Instant::now(), is_over_share, _charge: charge }
    }
}

/// An event for one URL, and how often it was posted there in vain.
#[derive(Debug)]
pub(super) struct Delivery {
    pub event: Arc<QueuedEvent>,
    /// How many attempts have failed.
    failures: u32,
    /// How many of these the receiver has answered.
    refusals: u32,
}

/// A delivery that was taken out, for one attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    taken: Taken<Delivery>,
    began_at: Instant,
    /// The last attempt did not reach the receiver.
    is_receiver_failing: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptOutcome {
    Delivered,
    /// The receiver has answered that it does not take the event. It may have asked to wait.
    Refused {
        retry_after: Duration,
    },
    /// The receiver was not reached, or takes no event now. It may have asked to wait.
    Unreached {
        retry_after: Duration,
    },
    /// There was no attempt: the event is too old.
    TooOld,
    /// The receiver has refused the event, and the server stops.
    Stopping,
}

/// What comes of an attempt.
#[derive(Debug)]
pub(super) enum Settled {
    /// The event was delivered; `resumes` where the log said that deliveries fail, and none does any more.
    Delivered { resumes: bool },
    /// It is tried again; `is_line_due` where the log does not say yet that deliveries fail.
    Retried { is_line_due: bool },
    /// It is given up for this reason; how many such events a line in the log stands for, where one is due.
    GivenUp { event: Arc<QueuedEvent>, why: &'static str, count: Option<u64> },
    /// Nothing is delivered any more.
    Closed,
}

/// The events that wait for one URL, or are being delivered.
///
/// A room whose event was refused pauses, and other rooms are served meanwhile. Where the receiver was not reached, all wait, and
/// the next attempt is for the room whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    waiting: WaitingByRoom<Delivery>,
    health: ReceiverHealth,
    /// How many events have failed, and are neither delivered nor given up.
    failed: usize,
    /// The log says that deliveries fail.
    is_failing: bool,
    failing_line: MinuteLine,
    given_up_line: MinuteLine,
}

impl Delivery {
    pub(super) fn new(event: Arc<QueuedEvent>) -> Self {
        Self { event, failures: 0, refusals: 0 }
    }
}

impl Attempt {
    pub(super) fn event(&self) -> &QueuedEvent {
        &self.taken.value.event
    }

    /// Whether an attempt for this event has failed before.
    pub(super) fn is_retry(&self) -> bool {
        self.taken.value.failures > 0
    }

    /// Whether the event is given up instead: it is too old, and it or its receiver has failed.
    pub(super) fn is_too_old(&self, policy: &DeliveryPolicy) -> bool {
        let follows_failure = self.is_retry() || self.is_receiver_failing;
        follows_failure && self.began_at > self.event().since + policy.max_age
    }
}

impl Deliveries {
    /// How many wait; those that are being delivered do not.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether another event may be taken now.
    pub(super) fn has_turn(&self) -> bool {
        self.waiting.has_turn()
    }

    /// Adds an event as the last of its room.
    pub(super) fn push(&mut self, delivery: Delivery, worth: Worth) {
        let room = delivery.event.envelope.room.clone();
        self.waiting.push(&room, delivery, worth);
    }

    /// Drops the event that is missed least.
    pub(super) fn drop_one(&mut self) {
        if self.waiting.drop_one().is_some_and(|delivery| delivery.failures > 0) {
            self.failed -= 1;
        }
    }

    /// Drops all; how many there were, with those that are being delivered.
    pub(super) fn clear(&mut self) -> usize {
        let in_flight = self.waiting.in_flight();
        self.waiting.clear() + in_flight
    }

    /// Takes the next event out. A server that stops waits for nothing.
    ///
    /// # Errors
    ///
    /// When to ask again, where that is known: otherwise after a change.
    pub(super) fn take(
        &mut self,
        now: Instant,
        is_closing: bool,
    ) -> Result<Attempt, Option<Instant>> {
        if is_closing {
            self.waiting.end_pauses(None);
        } else {
            self.health.check(now)?;
            self.waiting.end_pauses(Some(now));
        }
        let Some(taken) = self.waiting.take() else { return Err(self.waiting.next_pause_end()) };
        let is_receiver_failing = self.health.is_failing();
        self.health.begin();
        Ok(Attempt { taken, began_at: now, is_receiver_failing })
    }

    /// Notes how an attempt ended. `chance` makes pauses random.
    pub(super) fn settle(
        &mut self,
        attempt: Attempt,
        outcome: AttemptOutcome,
        policy: &DeliveryPolicy,
        chance: u8,
        now: Instant,
    ) -> Settled {
        let (retry_after, is_refusal) = match outcome {
            AttemptOutcome::Delivered => {
                self.health.succeed();
                return self.settle_delivered(&attempt);
            }
            AttemptOutcome::TooOld => {
                self.health.skip();
                return self.give_up(&attempt, "it is too old", now);
            }
            AttemptOutcome::Stopping => {
                return self.give_up(&attempt, "the server stops", now);
            }
            AttemptOutcome::Refused { retry_after } => {
                self.health.succeed();
                (retry_after, true)
            }
            AttemptOutcome::Unreached { retry_after } => {
                let backoff = policy.receiver_backoff();
                let pause = |failures| backoff.pause(failures, chance).max(retry_after);
                self.health.fail(attempt.began_at, now, pause);
                (retry_after, false)
            }
        };
        self.retry(attempt, is_refusal, retry_after, policy, chance, now)
    }

    fn settle_delivered(&mut self, attempt: &Attempt) -> Settled {
        self.finish(attempt);
        let resumes = self.is_failing && self.failed == 0;
        self.is_failing &= !resumes;
        Settled::Delivered { resumes }
    }

    fn retry(
        &mut self,
        mut attempt: Attempt,
        is_refusal: bool,
        retry_after: Duration,
        policy: &DeliveryPolicy,
        chance: u8,
        now: Instant,
    ) -> Settled {
        let is_first = !attempt.is_retry();
        self.failed += usize::from(is_first);
        let delivery = &mut attempt.taken.value;
        delivery.failures = delivery.failures.saturating_add(1);
        delivery.refusals += u32::from(is_refusal);
        if delivery.refusals >= policy.max_refusals {
            return self.give_up(&attempt, "it was refused too often", now);
        }
        if now > delivery.event.since + policy.max_age {
            return self.give_up(&attempt, "it is too old", now);
        }
        let pause = policy.room_backoff().pause(delivery.failures, chance).max(retry_after);
        let room = delivery.event.envelope.room.clone();
        self.waiting.put_back(&room, attempt.taken, now + pause);
        let is_line_due = !self.is_failing && self.failing_line.count(now).is_some();
        self.is_failing |= is_line_due;
        Settled::Retried { is_line_due }
    }

    fn give_up(&mut self, attempt: &Attempt, why: &'static str, now: Instant) -> Settled {
        self.finish(attempt);
        let (event, count) = (attempt.taken.value.event.clone(), self.given_up_line.count(now));
        Settled::GivenUp { event, why, count }
    }

    /// The event of an attempt waits no longer.
    fn finish(&mut self, attempt: &Attempt) {
        self.failed -= usize::from(attempt.is_retry());
        self.waiting.finish(&attempt.event().envelope.room);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        memory::MemoryBudget,
        webhooks::{WebhookEnvelope, WebhookEvent},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> DeliveryPolicy {
        DeliveryPolicy { first_wait: SECOND, max_refusals: 2, ..DeliveryPolicy::default() }
    }

    /// One event of each of these rooms.
    fn waiting(rooms: impl IntoIterator<Item = impl ToString>) -> Deliveries {
        let mut deliveries = Deliveries::default();
        for room in rooms {
            let (id, room, event) =
                (Uuid::nil(), room.to_string().into(), WebhookEvent::RoomOpened {});
            let envelope = WebhookEnvelope { id, at: 0, room, sequence: 1, event };
            let event = Arc::new(QueuedEvent::new(envelope, &MemoryBudget::default()));
            deliveries.push(Delivery::new(event), Worth::Essential);
        }
        deliveries
    }

    fn settle(
        deliveries: &mut Deliveries,
        outcome: AttemptOutcome,
        now: Instant,
    ) -> (String, Settled) {
        let attempt = deliveries.take(now, false).unwrap();
        let room = attempt.event().envelope.room.to_string();
        (room, deliveries.settle(attempt, outcome, &policy(), u8::MAX, now))
    }

    const UNREACHED: AttemptOutcome = AttemptOutcome::Unreached { retry_after: Duration::ZERO };
    const REFUSED: AttemptOutcome = AttemptOutcome::Refused { retry_after: Duration::ZERO };

    #[test]
    fn a_receiver_that_is_down_is_tried_once_in_a_pause_whichever_room_is_next() {
        let (mut deliveries, mut now) = (waiting(0..100), Instant::now());
        let began_at = now;

        for attempts in 0..12 {
            let (room, settled) = settle(&mut deliveries, UNREACHED, now);
            assert_eq!(room, attempts.to_string(), "the rooms take turns");
            assert!(
                matches!(settled, Settled::Retried { is_line_due } if is_line_due == (attempts == 0))
            );
            let next = deliveries.take(now, false).unwrap_err().unwrap();
            assert!(next - now <= 5 * SECOND, "another room may be fine");
            now = next;
        }
        assert!(now - began_at > 45 * SECOND, "the pauses grow");

        let (room, settled) = settle(&mut deliveries, AttemptOutcome::Delivered, now);
        assert_eq!(room, "12");
        assert!(matches!(settled, Settled::Delivered { resumes: false }), "twelve have failed");
        assert_eq!(settle(&mut deliveries, AttemptOutcome::Delivered, now).0, "13", "at once");
    }

    #[test]
    fn a_room_whose_events_break_the_receiver_delays_another_one_by_seconds_and_is_tried_ever_more_rarely()
     {
        let (mut deliveries, start) = (waiting(["breaks"]), Instant::now());
        let (mut now, mut attempts) = (start, 0);
        while now < start + 600 * SECOND {
            match deliveries.take(now, false) {
                Ok(attempt) => {
                    attempts += 1;
                    deliveries.settle(attempt, UNREACHED, &policy(), u8::MAX, now);
                }
                Err(until) => now = until.unwrap(),
            }
        }
        assert!(attempts < 18, "{attempts} in ten minutes");

        deliveries.push(waiting(["fine"]).waiting.take().unwrap().value, Worth::Essential);
        let until = deliveries.take(now, false).map_or_else(Option::unwrap, |_| now);
        assert!(until - now <= 5 * SECOND, "{:?}", until - now);
    }

    #[test]
    fn the_log_says_that_deliveries_resume_when_all_that_failed_are_delivered_or_given_up() {
        let (mut deliveries, start) = (waiting(["a", "b"]), Instant::now());
        let resumes = |settled| matches!(settled, Settled::Delivered { resumes: true });

        settle(&mut deliveries, REFUSED, start);
        let (room, settled) = settle(&mut deliveries, AttemptOutcome::Delivered, start);
        assert!(room == "b" && !resumes(settled));
        let (room, settled) = settle(&mut deliveries, AttemptOutcome::Delivered, start + SECOND);
        assert!(room == "a" && resumes(settled));
        assert_eq!(deliveries.failed, 0);
    }

    #[test]
    fn an_event_that_is_refused_too_often_or_is_too_old_is_given_up_and_the_line_is_counted() {
        let (mut deliveries, start) = (waiting(0..3), Instant::now());
        let given_up = |settled| match settled {
            Settled::GivenUp { why, count, .. } => (why, count),
            other => panic!("{other:?}"),
        };

        for _ in 0..2 {
            settle(&mut deliveries, REFUSED, start);
        }
        let late = start + SECOND;
        settle(&mut deliveries, AttemptOutcome::Delivered, late);
        let refused = ("it was refused too often", Some(1));
        assert_eq!(given_up(settle(&mut deliveries, REFUSED, late).1), refused);
        let attempt = deliveries.take(late + 4000 * SECOND, false).unwrap();
        assert!(attempt.is_too_old(&policy()), "it has failed, an hour ago");
        let now = late + SECOND;
        let settled = deliveries.settle(attempt, AttemptOutcome::TooOld, &policy(), 0, now);
        assert_eq!(given_up(settled), ("it is too old", None));
        assert_eq!((deliveries.failed, deliveries.len()), (0, 0));
    }

    #[test]
    fn the_receiver_may_ask_all_rooms_or_one_to_wait() {
        let (mut deliveries, now) = (waiting(["a", "b"]), Instant::now());
        let retry_after = 30 * SECOND;

        settle(&mut deliveries, AttemptOutcome::Refused { retry_after }, now);
        settle(&mut deliveries, AttemptOutcome::Unreached { retry_after: 10 * SECOND }, now);

        assert_eq!(deliveries.take(now, false).unwrap_err(), Some(now + 10 * SECOND));
        let (room, _) = settle(&mut deliveries, AttemptOutcome::Delivered, now + 10 * SECOND);
        assert_eq!(room, "b");
        assert_eq!(deliveries.take(now, false).unwrap_err(), Some(now + 30 * SECOND));
    }
}
