//! How many connections there may be: over all, by file descriptors, and for each address.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant},
};

use super::{connection::ConnectionSlot, socket::PeerAddress};
use crate::{
    intervals::HttpTimeouts,
    limits::{ConcurrencyLimiter, ConnectionRateLimiter, Permit},
    memory::MemoryBudget,
    metrics::{LimitKind, Metrics},
};

/// Connections from one address that are no WebSocket, or not yet.
const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 256;

/// Connections to `METRICS_LISTEN`. One more may be accepted, for which the oldest silent one is closed.
const MAX_METRICS_CONNECTIONS: usize = 8;

/// How often the log reports that connections wait or are closed.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The limits on open connections.
pub struct ConnectionLimits {
    descriptors: Arc<Semaphore>,
    by_address: ConcurrencyLimiter,
    rate: Arc<ConnectionRateLimiter>,
    trusted_proxies: Vec<IpNet>,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub(super) has_proxy_headers: bool,
    metrics: Arc<Metrics>,
    pub(super) memory: MemoryBudget,
    pub(super) timeouts: Arc<HttpTimeouts>,
    /// The open connections, the oldest first, where new ones displace silent ones.
    displaceable: Option<Mutex<Vec<Weak<ConnectionSlot>>>>,
}

impl ConnectionLimits {
    /// As many connections as there are file `descriptors`, less a reserve, and at most 256 from one address that are no
    /// WebSocket, unless the address is a trusted proxy. Connections over the limit are counted in `metrics`.
    pub fn new(descriptors: usize, trusted_proxies: &[IpNet], metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(connection_capacity(descriptors), trusted_proxies, metrics)
    }

    /// The limits of `METRICS_LISTEN`: a few connections, out of the reserve that [`new`](Self::new) leaves. A further one
    /// displaces the oldest that waits for its client, so that silent connections keep no monitor out.
    pub fn for_metrics(metrics: Arc<Metrics>) -> Self {
        let limits = Self::with_capacity(MAX_METRICS_CONNECTIONS + 1, &[], metrics);
        Self { displaceable: Some(Mutex::default()), ..limits }
    }

    fn with_capacity(connections: usize, trusted_proxies: &[IpNet], metrics: Arc<Metrics>) -> Self {
        Self {
            descriptors: Arc::new(Semaphore::new(connections)),
            by_address: ConcurrencyLimiter::new(0, MAX_UNAUTHENTICATED_PER_ADDRESS),
            rate: Arc::default(),
            trusted_proxies: trusted_proxies.to_vec(),
            has_proxy_headers: false,
            metrics,
            memory: MemoryBudget::default(),
            timeouts: Arc::default(),
            displaceable: None,
        }
    }

    /// The same limits with other time-outs than [the default](HttpTimeouts::default).
    #[must_use]
    pub fn with_timeouts(self, timeouts: HttpTimeouts) -> Self {
        Self { timeouts: Arc::new(timeouts), ..self }
    }

    /// The same limits, where what connections hold counts against `memory`.
    #[must_use]
    pub fn with_memory(self, memory: MemoryBudget) -> Self {
        Self { memory, ..self }
    }

    /// The same limits, where `rate` says how often an address that is no trusted proxy opens a connection.
    #[must_use]
    pub fn with_rate(self, rate: Arc<ConnectionRateLimiter>) -> Self {
        Self { rate, ..self }
    }

    /// The same limits, where each connection begins with a header of the PROXY protocol, which only a trusted proxy may send.
    #[must_use]
    pub fn with_proxy_headers(self, has_proxy_headers: bool) -> Self {
        Self { has_proxy_headers, ..self }
    }

    /// Waits for a free file descriptor. Cancel safe.
    pub(super) async fn acquire(&self, throttle: &mut LogThrottle) -> OwnedSemaphorePermit {
        if let Ok(permit) = self.descriptors.clone().try_acquire_owned() {
            return permit;
        }
        if throttle.should_log() {
            tracing::warn!("all file descriptors are in use; connections wait");
        }
        #[expect(clippy::expect_used, reason = "see the message")]
        self.descriptors.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Closes the oldest silent connection where the connection of `slot`, which was just accepted, is one too many.
    pub(super) fn make_room(&self, slot: &Arc<ConnectionSlot>) {
        let Some(open) = &self.displaceable else { return };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|slot| slot.strong_count() > 0);
        if open.len() >= MAX_METRICS_CONNECTIONS {
            let is_silent =
                |slot: &Weak<ConnectionSlot>| slot.upgrade().is_some_and(|slot| slot.is_silent());
            if let Some(oldest) = open.iter().position(is_silent) {
                // Off the list at once: its task may take a while to end, and the next connection needs another one closed.
                if let Some(oldest) = open.remove(oldest).upgrade() {
                    oldest.close();
                }
            }
        }
        open.push(Arc::downgrade(slot));
    }

    /// A permit for a connection from `peer`; `Ok(None)` for a trusted proxy, which needs none.
    pub(super) fn address_permit(
        &self,
        peer: PeerAddress,
    ) -> Result<Option<Permit>, AddressLimitReached> {
        let Some(address) = peer.ip().filter(|_| !self.is_trusted(peer)) else { return Ok(None) };
        let is_in_time = self.rate.check(address, Instant::now());
        let permit = is_in_time.then(|| self.by_address.acquire(address)).flatten();
        permit.map(Some).ok_or_else(|| {
            self.metrics.record_limit(LimitKind::Connections);
            AddressLimitReached
        })
    }

    /// Whether a peer is a trusted proxy.
    pub(super) fn is_trusted(&self, peer: PeerAddress) -> bool {
        let is_listed =
            |address: IpAddr| self.trusted_proxies.iter().any(|net| net.contains(&address));
        peer.ip().is_none_or(is_listed)
    }
}

/// The address has as many connections as it may have, or opens them too often.
#[derive(Debug)]
pub(super) struct AddressLimitReached;

/// How many connections fit into so many file descriptors.
pub fn connection_capacity(descriptors: usize) -> usize {
    descriptors.saturating_sub(reserved_descriptors(descriptors)).clamp(1, Semaphore::MAX_PERMITS)
}

/// File descriptors that connections leave for everything else: the users file, the certificate and logouts must be read
/// and written also when unauthenticated clients hold every connection.
fn reserved_descriptors(descriptors: usize) -> usize {
    (descriptors / 8).clamp(16, 64)
}

/// Raises the soft limit of file descriptors to the hard limit, and returns it.
pub fn raise_descriptor_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Lets a log line pass at most once in each [`LOG_INTERVAL`].
#[derive(Default)]
pub(super) struct LogThrottle(Option<Instant>);

impl LogThrottle {
    /// Whether to log the line now. `true` starts the next interval.
    pub(super) fn should_log(&mut self) -> bool {
        let is_due = self.0.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn each_further_connection_closes_another_silent_one_though_the_closed_ones_still_end() {
        let limits = ConnectionLimits::for_metrics(Arc::default());
        let slots: Vec<_> = (0..MAX_METRICS_CONNECTIONS + 3)
            .map(|_| {
                let slot = ConnectionSlot::new(None, Arc::default(), &MemoryBudget::default());
                limits.make_room(&slot);
                slot
            })
            .collect();

        let (closed, open) = slots.split_at(3);

        for slot in closed {
            assert!(slot.closed().now_or_never().is_some());
        }
        for slot in open {
            assert!(slot.closed().now_or_never().is_none());
        }
    }
}
