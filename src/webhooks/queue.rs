//! The bounded queue of events for one URL.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::event::{WebhookEnvelope, WebhookEvent};
use crate::metrics::WebhookMetrics;

/// An event that waits for its delivery.
#[derive(Debug)]
pub(super) struct QueuedEvent {
    pub envelope: WebhookEnvelope,
    pub since: Instant,
}

/// The events that wait for one URL.
#[derive(Debug)]
pub(super) struct DeliveryQueue {
    state: Mutex<QueueState>,
    changed: Notify,
    capacity: usize,
    pub metrics: WebhookMetrics,
    /// Host and port, for the log.
    receiver: String,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: VecDeque<Arc<QueuedEvent>>,
    /// An event was taken out, and its delivery has not finished yet.
    is_in_flight: bool,
    /// The queue was full, and has not been empty since.
    is_overflowing: bool,
    /// Nothing is delivered any more.
    is_closed: bool,
}

impl DeliveryQueue {
    pub(super) fn new(capacity: usize, metrics: WebhookMetrics, receiver: String) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        Self { state, changed, capacity, metrics, receiver }
    }

    /// Adds an event. Drops the oldest one if the queue is full.
    pub(super) fn push(&self, event: Arc<QueuedEvent>) {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            self.metrics.dropped.inc();
            return;
        }
        // A member may send any number of reports, which must not displace the events of other members.
        let is_report = matches!(event.envelope.event, WebhookEvent::CallReport { .. });
        if is_report && state.waiting.len() >= self.capacity / 2 {
            drop(state);
            self.metrics.dropped.inc();
            return;
        }
        let mut begins_to_overflow = false;
        if state.waiting.len() >= self.capacity {
            state.waiting.pop_front();
            begins_to_overflow = !std::mem::replace(&mut state.is_overflowing, true);
            self.metrics.dropped.inc();
            self.metrics.queued.dec();
        }
        state.waiting.push_back(event);
        self.metrics.queued.inc();
        drop(state);
        self.changed.notify_one();
        if begins_to_overflow {
            let receiver = &self.receiver;
            tracing::warn!(receiver, "webhook queue full; oldest events are dropped");
        }
    }

    /// Waits for the next event and takes it out; call [`finish_delivery`](Self::finish_delivery) after its delivery.
    /// `None` once `closing` is cancelled and the queue is empty.
    pub(super) async fn next(&self, closing: &CancellationToken) -> Option<Arc<QueuedEvent>> {
        loop {
            let is_closing = closing.is_cancelled();
            {
                let mut state = self.state();
                if let Some(event) = state.waiting.pop_front() {
                    state.is_in_flight = true;
                    return Some(event);
                }
                state.is_overflowing = false;
            }
            if is_closing {
                return None;
            }
            tokio::select! { () = self.changed.notified() => {}, () = closing.cancelled() => {} }
        }
    }

    /// Notes that the event which was taken out last was delivered or given up.
    pub(super) fn finish_delivery(&self) {
        self.state().is_in_flight = false;
        self.metrics.queued.dec();
    }

    /// Ends deliveries, and returns how many events are lost by that.
    pub(super) fn close(&self) -> usize {
        let mut state = self.state();
        state.is_closed = true;
        let in_flight = usize::from(std::mem::take(&mut state.is_in_flight));
        let lost = state.waiting.drain(..).count() + in_flight;
        drop(state);
        self.metrics.dropped.inc_by(lost as u64);
        self.metrics.queued.dec_by(i64::try_from(lost).unwrap_or(i64::MAX));
        lost
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
