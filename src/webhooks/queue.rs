//! The bounded queue of events for one URL.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    event::{WebhookEnvelope, WebhookEvent},
    waiting::WaitingByRoom,
};
use crate::{
    memory::{Charge, MemoryBudget, MemoryKind},
    metrics::WebhookMetrics,
};

/// An event that waits for its delivery.
#[derive(Debug)]
pub(super) struct QueuedEvent {
    pub envelope: WebhookEnvelope,
    pub since: Instant,
    /// All waiting events together hold as much memory as they may.
    is_over_share: bool,
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

/// The events that wait for one URL.
#[derive(Debug)]
pub(super) struct DeliveryQueue {
    state: Mutex<QueueState>,
    changed: Notify,
    capacity: usize,
    /// The last attempt failed, and none has succeeded since.
    is_failing: AtomicBool,
    pub metrics: WebhookMetrics,
    /// Host and port, for the log.
    receiver: String,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: WaitingByRoom<Arc<QueuedEvent>>,
    /// The queue was full, and has not been empty since.
    is_overflowing: bool,
    /// Nothing is delivered any more.
    is_closed: bool,
}

impl DeliveryQueue {
    pub(super) fn new(capacity: usize, metrics: WebhookMetrics, receiver: String) -> Self {
        let (state, changed, is_failing) = (Mutex::default(), Notify::new(), false.into());
        Self { state, changed, capacity, is_failing, metrics, receiver }
    }

    /// Adds an event. If the queue is full, the room with the most events loses its oldest one.
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
        if state.waiting.len() >= self.capacity || (event.is_over_share && state.waiting.len() > 0)
        {
            state.waiting.drop_one();
            begins_to_overflow = !std::mem::replace(&mut state.is_overflowing, true);
            self.metrics.dropped.inc();
            self.metrics.queued.dec();
        }
        state.waiting.push(&event.envelope.room.clone(), event);
        self.metrics.queued.inc();
        drop(state);
        self.changed.notify_one();
        if begins_to_overflow {
            let receiver = &self.receiver;
            tracing::warn!(
                receiver,
                "webhook queue full; the rooms with the most events lose their oldest"
            );
        }
    }

    /// Waits for the next event and takes it out, of a room of which no other event is being delivered; call
    /// [`finish_delivery`](Self::finish_delivery) after its delivery. `None` once the queue is closed, or `closing` is
    /// cancelled and no such event is left: what waits then is delivered by the worker of its room.
    pub(super) async fn next(&self, closing: &CancellationToken) -> Option<Arc<QueuedEvent>> {
        loop {
            let is_closing = closing.is_cancelled();
            {
                let mut state = self.state();
                if state.is_closed {
                    return None;
                }
                if let Some(event) = state.waiting.take() {
                    return Some(event);
                }
                state.is_overflowing &= state.waiting.len() > 0;
            }
            if is_closing {
                return None;
            }
            tokio::select! { () = self.changed.notified() => {}, () = closing.cancelled() => {} }
        }
    }

    /// Notes that an event which was taken out was delivered or given up.
    pub(super) fn finish_delivery(&self, event: &QueuedEvent) {
        let mut state = self.state();
        if !state.is_closed {
            state.waiting.finish(&event.envelope.room);
            self.metrics.queued.dec();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// An attempt has failed; whether it is the first since the last success.
    pub(super) fn start_failing(&self) -> bool {
        !self.is_failing.swap(true, Ordering::Relaxed)
    }

    /// An attempt has succeeded; whether it is the first since a failure.
    pub(super) fn stop_failing(&self) -> bool {
        self.is_failing.swap(false, Ordering::Relaxed)
    }

    /// Ends deliveries, and returns how many events are lost by that.
    pub(super) fn close(&self) -> usize {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_closed, true) {
            return 0;
        }
        let in_flight = state.waiting.in_flight();
        let lost = state.waiting.clear() + in_flight;
        drop(state);
        self.changed.notify_waiters();
        self.metrics.dropped.inc_by(lost as u64);
        self.metrics.queued.dec_by(i64::try_from(lost).unwrap_or(i64::MAX));
        lost
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
