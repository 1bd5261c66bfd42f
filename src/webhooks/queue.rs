//! The bounded queue of events for one URL.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Attempt, AttemptOutcome, Deliveries, Delivery, QueuedEvent, Settled},
    event::WebhookEvent,
    policy::DeliveryPolicy,
    waiting::Worth,
};
use crate::metrics::WebhookMetrics;

/// The events that wait for one URL.
#[derive(Debug)]
pub(super) struct DeliveryQueue {
    state: Mutex<QueueState>,
    changed: Notify,
    policy: DeliveryPolicy,
    pub metrics: WebhookMetrics,
    /// Host and port, for the log.
    receiver: String,
}

#[derive(Debug, Default)]
struct QueueState {
    deliveries: Deliveries,
    /// The queue was full, and has not been empty since.
    is_overflowing: bool,
    /// Nothing is delivered any more.
    is_closed: bool,
}

impl DeliveryQueue {
    pub(super) fn new(policy: DeliveryPolicy, metrics: WebhookMetrics, receiver: String) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        Self { state, changed, policy, metrics, receiver }
    }

    /// Adds an event. If too many wait, the room with the most call reports loses its oldest one, because a member may send many;
    /// where none waits, the room with the most events does.
    pub(super) fn push(&self, event: Arc<QueuedEvent>) {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            self.metrics.dropped.inc();
            return;
        }
        let worth = match event.envelope.event {
            WebhookEvent::CallReport { .. } => Worth::Expendable,
            WebhookEvent::RoomOpened {}
            | WebhookEvent::RoomClosed {}
            | WebhookEvent::MemberJoined { .. }
            | WebhookEvent::MemberLeft { .. } => Worth::Essential,
        };
        let is_over_share = event.is_over_share;
        state.deliveries.push(Delivery::new(event), worth);
        let waiting = state.deliveries.len();
        let excess = waiting.saturating_sub(self.policy.capacity);
        let excess = excess.max(usize::from(is_over_share && waiting > 1));
        for _ in 0..excess {
            state.deliveries.drop_one();
        }
        let begins_to_overflow = excess > 0 && !std::mem::replace(&mut state.is_overflowing, true);
        self.metrics.queued.inc();
        self.record_dropped(excess);
        drop(state);
        self.changed.notify_one();
        if begins_to_overflow {
            let receiver = &self.receiver;
            tracing::warn!(
                receiver,
                "webhook queue full; call reports are dropped, then the oldest events of the rooms with the most"
            );
        }
    }

    /// Waits for the next event and takes it out, of a room of which no other event is being delivered; call
    /// [`settle`](Self::settle) after its attempt. `None` once the queue is closed, or `closing` is cancelled and no such event is
    /// left: what waits then is delivered by the worker of its room.
    pub(super) async fn next(&self, closing: &CancellationToken) -> Option<Attempt> {
        loop {
            let is_closing = closing.is_cancelled();
            let until = {
                let mut state = self.state();
                if state.is_closed {
                    return None;
                }
                match state.deliveries.take(Instant::now(), is_closing) {
                    Ok(attempt) => {
                        let has_turn = state.deliveries.has_turn();
                        drop(state);
                        if has_turn {
                            self.changed.notify_one();
                        }
                        return Some(attempt);
                    }
                    Err(until) => {
                        state.is_overflowing &= state.deliveries.len() > 0;
                        until
                    }
                }
            };
            if is_closing {
                return None;
            }
            let pause = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = closing.cancelled() => {}
                () = pause => {}
            }
        }
    }

    /// Notes how an attempt ended, and says what comes of it.
    pub(super) fn settle(&self, attempt: Attempt, outcome: AttemptOutcome) -> Settled {
        let [chance, ..] = uuid::Uuid::new_v4().into_bytes();
        let mut state = self.state();
        if state.is_closed {
            return Settled::Closed;
        }
        let settled =
            state.deliveries.settle(attempt, outcome, &self.policy, chance, Instant::now());
        if !matches!(settled, Settled::Retried { .. }) {
            self.metrics.queued.dec();
        }
        drop(state);
        self.changed.notify_one();
        settled
    }

    /// Ends deliveries, and returns how many events are lost by that.
    pub(super) fn close(&self) -> usize {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_closed, true) {
            return 0;
        }
        let lost = state.deliveries.clear();
        drop(state);
        self.changed.notify_waiters();
        self.record_dropped(lost);
        lost
    }

    /// Counts events that waited and are dropped.
    fn record_dropped(&self, events: usize) {
        self.metrics.dropped.inc_by(events as u64);
        self.metrics.queued.dec_by(i64::try_from(events).unwrap_or(i64::MAX));
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
