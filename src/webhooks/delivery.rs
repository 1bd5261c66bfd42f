//! Delivers the events of one queue: those of a room in order, and again after a failure.

use std::{sync::Arc, time::Duration};

use hyper::{StatusCode, body::Bytes};
use rustls::ClientConfig;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    client::{DeliveryError, WebhookClient},
    queue::{DeliveryQueue, QueuedEvent},
    signature::Signer,
    target::WebhookTarget,
};

/// How long receivers may take, and how often they are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeliveryPolicy {
    /// The longest that an attempt takes, from the name lookup to the head of the response.
    pub attempt_timeout: Duration,
    /// The wait after the first failure. It doubles after each further one.
    pub first_wait: Duration,
    /// The longest wait.
    pub max_wait: Duration,
    /// An event that is older is given up when its receiver fails.
    pub max_age: Duration,
    /// An event that is refused this many times is given up.
    pub max_refusals: u32,
    /// The most events that wait. Then the room with the most loses its oldest.
    pub capacity: usize,
    /// How many events are delivered to a receiver at once, each of another room.
    pub concurrency: usize,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(15),
            first_wait: Duration::from_millis(500),
            max_wait: Duration::from_secs(60),
            max_age: Duration::from_secs(3600),
            max_refusals: 8,
            // About three megabytes.
            capacity: 10_000,
            concurrency: 1,
        }
    }
}

/// How the delivery of an event ended.
enum DeliveryOutcome {
    Delivered,
    GivenUp,
    /// The receiver wants no more events, or the server stops.
    Stopped,
}

/// Delivers the events of one queue to one receiver, one at a time. Several of them may share a queue.
pub(super) struct DeliveryWorker {
    target: WebhookTarget,
    queue: Arc<DeliveryQueue>,
    client: WebhookClient,
    node: Option<String>,
    policy: DeliveryPolicy,
    closing: CancellationToken,
    /// Since the last success.
    failures: u32,
    /// The wait that the receiver has asked for.
    retry_after: Duration,
}

impl DeliveryWorker {
    pub(super) fn new(
        target: WebhookTarget,
        queue: Arc<DeliveryQueue>,
        tls: ClientConfig,
        signer: Signer,
        node: Option<&str>,
        policy: DeliveryPolicy,
        closing: CancellationToken,
    ) -> Self {
        let client = WebhookClient::new(target.clone(), tls, signer, policy.attempt_timeout);
        let (node, failures, retry_after) = (node.map(str::to_owned), 0, Duration::ZERO);
        Self { target, queue, client, node, policy, closing, failures, retry_after }
    }

    /// Delivers events until the server stops or the receiver wants no more.
    pub(super) async fn run(mut self) {
        while let Some(event) = self.queue.next(&self.closing).await {
            let counter = match self.deliver(&event).await {
                DeliveryOutcome::Delivered => &self.queue.metrics.delivered,
                DeliveryOutcome::GivenUp => &self.queue.metrics.failed,
                DeliveryOutcome::Stopped => return,
            };
            counter.inc();
            self.queue.finish_delivery(&event);
        }
    }

    async fn deliver(&mut self, event: &QueuedEvent) -> DeliveryOutcome {
        let body = Bytes::from(event.envelope.to_json(self.node.as_deref()));
        let (mut refusals, mut attempts) = (0, 0);
        loop {
            if self.failures > 0 {
                if event.since.elapsed() > self.policy.max_age {
                    return self.give_up(event, "it is too old");
                }
                if attempts > 0 && self.closing.is_cancelled() {
                    return DeliveryOutcome::Stopped;
                }
                let wait = self.backoff().max(self.retry_after);
                tokio::select! { () = sleep(wait) => {}, () = self.closing.cancelled() => {} }
            }
            if attempts > 0 {
                self.queue.metrics.retried.inc();
            }
            attempts += 1;
            let posting = self.client.post(event.envelope.id, &body);
            let posted = timeout(self.policy.attempt_timeout, posting).await;
            let error = match posted.unwrap_or(Err(DeliveryError::Timeout)) {
                Ok(()) => {
                    self.failures = 0;
                    if self.queue.stop_failing() {
                        tracing::info!(receiver = %self.target, "webhook delivery resumed");
                    }
                    return DeliveryOutcome::Delivered;
                }
                Err(error) => error,
            };
            self.client.disconnect();
            self.failures += 1;
            if self.queue.start_failing() {
                tracing::warn!(receiver = %self.target, fault = %error, "webhook delivery failed; events wait and are retried");
            }
            self.retry_after = Duration::ZERO;
            if let DeliveryError::Status(status, retry_after) = error {
                if status == StatusCode::GONE {
                    let lost = self.queue.close();
                    tracing::error!(receiver = %self.target, lost, "webhook receiver answered 410 Gone; no events are sent to it until the next start");
                    return DeliveryOutcome::Stopped;
                }
                self.retry_after = retry_after.unwrap_or_default().min(self.policy.max_wait);
            }
            refusals += u32::from(error.is_refusal());
            if refusals >= self.policy.max_refusals {
                return self.give_up(event, "it was refused too often");
            }
        }
    }

    fn give_up(&self, event: &QueuedEvent, why: &str) -> DeliveryOutcome {
        let (id, kind) = (event.envelope.id, event.envelope.event.kind());
        tracing::warn!(receiver = %self.target, %id, kind, why, "webhook given up");
        DeliveryOutcome::GivenUp
    }

    /// The wait before the next attempt: it doubles after each failure, and is a random part of that between half and
    /// all, so that servers which failed together do not retry together.
    fn backoff(&self) -> Duration {
        let doubled = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let wait = self.policy.first_wait.saturating_mul(doubled).min(self.policy.max_wait);
        let [chance, ..] = uuid::Uuid::new_v4().into_bytes();
        wait.mul_f64(0.5 + f64::from(chance) / 512.0)
    }
}
