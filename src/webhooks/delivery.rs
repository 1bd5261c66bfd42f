//! Delivers the events of one queue: those of a room in order, and again after a failure.

use std::{sync::Arc, time::Duration};

use hyper::{StatusCode, body::Bytes};
use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{Attempt, AttemptOutcome, Settled},
    client::{DeliveryError, WebhookClient},
    policy::DeliveryPolicy,
    queue::DeliveryQueue,
    signature::Signer,
    target::WebhookTarget,
};

/// Delivers the events of one queue to one receiver, one at a time. Several of them may share a queue.
pub(super) struct DeliveryWorker {
    target: WebhookTarget,
    queue: Arc<DeliveryQueue>,
    client: WebhookClient,
    node: Option<String>,
    policy: DeliveryPolicy,
    closing: CancellationToken,
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
        let node = node.map(str::to_owned);
        Self { target, queue, client, node, policy, closing }
    }

    /// Delivers events until the server stops or the receiver wants no more.
    pub(super) async fn run(mut self) {
        while let Some(attempt) = self.queue.next(&self.closing).await {
            if attempt.is_too_old(&self.policy) {
                self.settle(attempt, AttemptOutcome::TooOld, None);
                continue;
            }
            match self.post(&attempt).await {
                Ok(()) => self.settle(attempt, AttemptOutcome::Delivered, None),
                Err(error) => match self.outcome_of(&error) {
                    Some(outcome) => self.settle(attempt, outcome, Some(error)),
                    None => return,
                },
            }
        }
    }

    async fn post(&mut self, attempt: &Attempt) -> Result<(), DeliveryError> {
        if attempt.is_retry() {
            self.queue.metrics.retried.inc();
        }
        let envelope = &attempt.event().envelope;
        let body = Bytes::from(envelope.to_json(self.node.as_deref()));
        let posting = self.client.post(envelope.id, &body);
        let posted = timeout(self.policy.attempt_timeout, posting).await;
        let posted = posted.unwrap_or(Err(DeliveryError::Timeout));
        if posted.is_err() {
            self.client.disconnect();
        }
        posted
    }

    /// How an attempt has ended that failed; `None` where the receiver wants no more events, or the server stops and does not
    /// reach it.
    fn outcome_of(&self, error: &DeliveryError) -> Option<AttemptOutcome> {
        let retry_after = match error {
            DeliveryError::Status(StatusCode::GONE, _) => {
                let lost = self.queue.close();
                tracing::error!(receiver = %self.target, lost, "webhook receiver answered 410 Gone; no events are sent to it until the next start");
                return None;
            }
            DeliveryError::Status(_, retry_after) => retry_after.unwrap_or_default(),
            DeliveryError::UnknownHost(_)
            | DeliveryError::PrivateAddress(_)
            | DeliveryError::Connect(_)
            | DeliveryError::Tls(_)
            | DeliveryError::Http(_)
            | DeliveryError::Timeout => Duration::ZERO,
        };
        let retry_after = retry_after.min(self.policy.max_wait);
        match (error.is_refusal(), self.closing.is_cancelled()) {
            (true, true) => Some(AttemptOutcome::Stopping),
            (true, false) => Some(AttemptOutcome::Refused { retry_after }),
            (false, true) => None,
            (false, false) => Some(AttemptOutcome::Unreached { retry_after }),
        }
    }

    /// Notes how an attempt has ended, and counts and logs what comes of it.
    fn settle(&self, attempt: Attempt, outcome: AttemptOutcome, error: Option<DeliveryError>) {
        let receiver = &self.target;
        match self.queue.settle(attempt, outcome) {
            Settled::Delivered { resumes } => {
                self.queue.metrics.delivered.inc();
                if resumes {
                    tracing::info!(%receiver, "webhook delivery resumed");
                }
            }
            Settled::Retried { is_line_due: false } | Settled::Closed => {}
            Settled::Retried { is_line_due: true } => {
                let fault = error.as_ref().map(tracing::field::display);
                tracing::warn!(%receiver, fault, "webhook delivery failed; events wait and are retried");
            }
            Settled::GivenUp { event, why, count } => {
                self.queue.metrics.failed.inc();
                let (id, kind) = (event.envelope.id, event.envelope.event.kind());
                if let Some(count) = count {
                    tracing::warn!(%receiver, %id, kind, why, count, "webhook given up");
                }
            }
        }
    }
}
