//! Tells other programs what happens in rooms: events wait in a bounded queue for each of `WEBHOOK_URLS`, and a thread
//! of its own posts them. Whoever tells never waits.

mod delivery;
mod event;
mod target;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub use self::{
    event::{Event, What},
    target::{BadTarget, Target},
};

use self::delivery::{Delivery, Rules};
use crate::{clock::unix_now_ms, metrics::WebhookMetrics};

/// Whoever wants to know what happens. Clones are the same; the default is nobody.
#[derive(Clone, Debug, Default)]
pub struct Webhooks {
    queues: Arc<[Arc<Queue>]>,
    is_silent: Arc<AtomicBool>,
    closing: CancellationToken,
    deliveries: TaskTracker,
}

impl Webhooks {
    /// Begins to deliver to `targets`, on a thread of its own that lasts as long as the process. `node` is the name of
    /// this server where there are several; where it
    /// `has_own_certificate`, `SSL_CERT_FILE` does not name the authorities that receivers are known by.
    ///
    /// # Errors
    ///
    /// When the system has no thread or no handle left.
    pub fn start(
        targets: &[Target],
        secret_key: &SecretString,
        node: Option<&str>,
        has_own_certificate: bool,
        figures: &WebhookMetrics,
    ) -> io::Result<Self> {
        let rules = Rules::default();
        Self::start_with(targets, secret_key, node, has_own_certificate, figures, rules)
    }

    fn start_with(
        targets: &[Target],
        secret_key: &SecretString,
        node: Option<&str>,
        has_own_certificate: bool,
        figures: &WebhookMetrics,
        rules: Rules,
    ) -> io::Result<Self> {
        if targets.is_empty() {
            return Ok(Self::default());
        }
        let (closing, deliveries) = (CancellationToken::new(), TaskTracker::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tls = delivery::tls(targets, has_own_certificate);
        let queues = targets.iter().map(|target| {
            let queue = Arc::new(Queue::new(rules.waiting, figures.clone(), target.to_string()));
            let key = hmac::Key::new(hmac::HMAC_SHA256, key_of(secret_key).as_ref());
            let (tls, closing) = (tls.clone().filter(|_| target.is_tls), closing.clone());
            let delivery =
                Delivery::new(target.clone(), queue.clone(), tls, key, node, rules, closing);
            deliveries.spawn_on(delivery.run(), runtime.handle());
            queue
        });
        let queues = queues.collect();
        deliveries.close();
        let all_done = deliveries.clone();
        let thread = std::thread::Builder::new().name("webhooks".into());
        thread.spawn(move || {
            runtime.block_on(all_done.wait());
            // Not waiting for a name that is still being looked up.
            runtime.shutdown_background();
        })?;
        Ok(Self { queues, is_silent: Arc::default(), closing, deliveries })
    }

    /// Whether anybody wants to know.
    pub fn are_wanted(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Tells what happened in `room` just now, as the event with this number there. Never waits.
    pub fn tell(&self, room: &Arc<str>, sequence: u64, what: What) {
        if !self.are_wanted() || self.is_silent.load(Ordering::Relaxed) {
            return;
        }
        let (id, room) = (Uuid::new_v4(), room.clone());
        let event = Event { id, at: unix_now_ms(), room, sequence, what };
        let waiting = Arc::new(Waiting { event, since: Instant::now() });
        for queue in self.queues.iter() {
            queue.push(waiting.clone());
        }
    }

    /// Something has happened of which nobody can say what number it has: it is counted as dropped.
    pub fn misses(&self) {
        for queue in self.queues.iter() {
            queue.figures.dropped.inc();
        }
    }

    /// From now on nothing that happens is told any more: it happens only because the process ends.
    pub fn falls_silent(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// Gives what waits so long to leave; whatever has not is lost, and the log says how much that is. From now on
    /// what fails is not tried again.
    pub async fn close(&self, within: Duration) {
        self.closing.cancel();
        if self.are_wanted() {
            let _ = timeout(within, self.deliveries.wait()).await;
        }
        let lost: usize = self.queues.iter().map(|queue| queue.ends()).sum();
        if lost > 0 {
            tracing::warn!(lost, "webhooks not delivered before the end");
        }
    }
}

/// What receivers verify signatures with, as the Standard Webhooks specification writes it down. Made of `SECRET_KEY`,
/// which stays with the server: whoever has that signs resume tokens.
pub fn secret(secret_key: &SecretString) -> SecretString {
    format!("whsec_{}", BASE64_STANDARD.encode(key_of(secret_key))).into()
}

fn key_of(secret_key: &SecretString) -> hmac::Tag {
    let secret_key = secret_key.expose_secret().as_bytes();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret_key), b"webhooks")
}

/// An event on its way to a receiver.
#[derive(Debug)]
struct Waiting {
    event: Event,
    since: Instant,
}

/// What waits for one URL.
#[derive(Debug)]
struct Queue {
    inside: Mutex<Inside>,
    news: Notify,
    capacity: usize,
    figures: WebhookMetrics,
    /// Host and port, for the log.
    receiver: String,
}

#[derive(Debug, Default)]
struct Inside {
    waiting: VecDeque<Arc<Waiting>>,
    /// One was taken out, and nobody has said yet what became of it.
    is_on_its_way: bool,
    /// It was full, and has not been empty since.
    overflows: bool,
    /// Nothing is delivered any more.
    is_over: bool,
}

impl Queue {
    fn new(capacity: usize, figures: WebhookMetrics, receiver: String) -> Self {
        let (inside, news) = (Mutex::default(), Notify::new());
        Self { inside, news, capacity, figures, receiver }
    }

    fn push(&self, event: Arc<Waiting>) {
        let mut inside = self.inside();
        if inside.is_over {
            drop(inside);
            self.figures.dropped.inc();
            return;
        }
        // Whoever is in may report as much as it likes, and is not to drive out what others should know.
        let is_report = matches!(event.event.what, What::CallReport { .. });
        if is_report && inside.waiting.len() >= self.capacity / 2 {
            drop(inside);
            self.figures.dropped.inc();
            return;
        }
        let mut begins_to_overflow = false;
        if inside.waiting.len() >= self.capacity {
            inside.waiting.pop_front();
            begins_to_overflow = !std::mem::replace(&mut inside.overflows, true);
            self.figures.dropped.inc();
            self.figures.queued.dec();
        }
        inside.waiting.push_back(event);
        self.figures.queued.inc();
        drop(inside);
        self.news.notify_one();
        if begins_to_overflow {
            let receiver = &self.receiver;
            tracing::warn!(receiver, "too many webhooks wait; the oldest are dropped");
        }
    }

    /// The next that is to be delivered; call [`is_done`](Self::is_done) when that is decided. Nothing once it is
    /// `closing` and nothing waits.
    async fn next(&self, closing: &CancellationToken) -> Option<Arc<Waiting>> {
        loop {
            let is_closing = closing.is_cancelled();
            {
                let mut inside = self.inside();
                if let Some(event) = inside.waiting.pop_front() {
                    inside.is_on_its_way = true;
                    return Some(event);
                }
                inside.overflows = false;
            }
            if is_closing {
                return None;
            }
            tokio::select! { () = self.news.notified() => {}, () = closing.cancelled() => {} }
        }
    }

    /// It is decided what became of the one that was taken out last.
    fn is_done(&self) {
        self.inside().is_on_its_way = false;
        self.figures.queued.dec();
    }

    /// Nothing is delivered any more; how much is lost by that.
    fn ends(&self) -> usize {
        let mut inside = self.inside();
        inside.is_over = true;
        let on_its_way = usize::from(std::mem::take(&mut inside.is_on_its_way));
        let lost = inside.waiting.drain(..).count() + on_its_way;
        drop(inside);
        self.figures.dropped.inc_by(lost as u64);
        self.figures.queued.dec_by(i64::try_from(lost).unwrap_or(i64::MAX));
        lost
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
