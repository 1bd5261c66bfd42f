//! Accepts events, and starts and stops their delivery.

use std::{io, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    attempt::QueuedEvent,
    client,
    delivery::DeliveryWorker,
    event::{WebhookEnvelope, WebhookEvent},
    policy::DeliveryPolicy,
    queue::DeliveryQueue,
    signature::Signer,
    target::WebhookTarget,
};
use crate::{clock::unix_now_ms, memory::MemoryBudget, metrics::WebhookMetrics};

/// The receivers of webhooks. Clones share their queues; the default has no receivers.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    queues: Arc<[Arc<DeliveryQueue>]>,
    memory: MemoryBudget,
    closing: CancellationToken,
    deliveries: TaskTracker,
}

impl Webhooks {
    /// Starts to deliver to `targets`, on a thread of its own that lasts as long as the process; to each at most
    /// `concurrency` events at once.
    ///
    /// `node` is the name of this server in a cluster. `names_own_certificate` as in
    /// [`system_roots`](crate::tls::verify::system_roots), by which receivers are verified.
    ///
    /// # Errors
    ///
    /// The system has no thread or no file descriptor left.
    pub fn start(
        targets: &[WebhookTarget],
        concurrency: usize,
        secret_key: &SecretString,
        node: Option<&str>,
        names_own_certificate: bool,
        metrics: &WebhookMetrics,
    ) -> io::Result<Self> {
        let policy = DeliveryPolicy { concurrency, ..DeliveryPolicy::default() };
        Self::start_with(targets, secret_key, node, names_own_certificate, metrics, policy)
    }

    pub(super) fn start_with(
        targets: &[WebhookTarget],
        secret_key: &SecretString,
        node: Option<&str>,
        names_own_certificate: bool,
        metrics: &WebhookMetrics,
        policy: DeliveryPolicy,
    ) -> io::Result<Self> {
        if targets.is_empty() {
            return Ok(Self::default());
        }
        let (closing, deliveries) = (CancellationToken::new(), TaskTracker::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tls = client::tls(targets, names_own_certificate);
        let signer = Signer::new(secret_key);
        let queues = targets.iter().map(|target| {
            let queue = DeliveryQueue::new(policy, metrics.clone(), target.to_string());
            let queue = Arc::new(queue);
            for _ in 0..policy.concurrency {
                let worker = DeliveryWorker::new(
                    target.clone(),
                    queue.clone(),
                    tls.clone(),
                    signer.clone(),
                    node,
                    policy,
                    closing.clone(),
                );
                deliveries.spawn_on(worker.run(), runtime.handle());
            }
            queue
        });
        let queues = queues.collect();
        deliveries.close();
        let all_done = deliveries.clone();
        let thread = std::thread::Builder::new().name("webhooks".into());
        thread.spawn(move || {
            runtime.block_on(all_done.wait());
            // Without waiting for a name lookup that is still running.
            runtime.shutdown_background();
        })?;
        let memory = MemoryBudget::default();
        Ok(Self { queues, memory, closing, deliveries })
    }

    /// The same receivers; events that wait for them count against `memory`.
    #[must_use]
    pub fn with_memory(self, memory: MemoryBudget) -> Self {
        Self { memory, ..self }
    }

    /// Whether there are receivers.
    pub fn is_enabled(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Queues an event that has just happened in `room`, where it has the number `sequence`. Never waits.
    pub fn publish(&self, room: &Arc<str>, sequence: u64, event: WebhookEvent) {
        if !self.is_enabled() {
            return;
        }
        let (id, room) = (Uuid::new_v4(), room.clone());
        let envelope = WebhookEnvelope { id, at: unix_now_ms(), room, sequence, event };
        let queued = Arc::new(QueuedEvent::new(envelope, &self.memory));
        for queue in self.queues.iter() {
            queue.push(queued.clone());
        }
    }

    /// Counts an event as dropped whose number in its room is unknown.
    pub fn record_missed(&self) {
        for queue in self.queues.iter() {
            queue.metrics.dropped.inc();
        }
    }

    /// Delivers what waits, without retries, for `within` at most. What is not delivered by then is lost, and logged as
    /// such.
    pub async fn close(&self, within: Duration) {
        self.closing.cancel();
        if self.is_enabled() {
            let _ = timeout(within, self.deliveries.wait()).await;
        }
        let lost: usize = self.queues.iter().map(|queue| queue.close()).sum();
        if lost > 0 {
            tracing::warn!(lost, "webhooks lost at shutdown");
        }
    }
}
