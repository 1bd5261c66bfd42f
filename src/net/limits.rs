//! How many connections there may be: over all, by file descriptors, and for each address.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant},
};

use crate::{
    limits::{ConcurrencyLimiter, Permit},
    metrics::{Limit, Metrics},
};

/// Connections from one address that are no WebSocket (yet).
const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 256;

/// Connections to figures: one that is stuck keeps no other out.
const MAX_METRICS_CONNECTIONS: usize = 8;

/// How often the log says that connections have to wait.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How many connections there may be.
pub struct ConnectionLimits {
    descriptors: Arc<Semaphore>,
    by_address: ConcurrencyLimiter,
    trusted_proxies: Vec<IpNet>,
    metrics: Arc<Metrics>,
}

impl ConnectionLimits {
    /// As many connections as there are `handles`, but for a few, and no more than 256 that are no
    /// WebSocket from one address that is not a proxy of ours.
    /// Who finds no place is counted in `metrics`.
    pub fn new(descriptors: usize, trusted_proxies: &[IpNet], metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(connection_capacity(descriptors), trusted_proxies, metrics)
    }

    /// A few, for whoever fetches figures: out of the handles that [`new`](Self::new) leaves.
    pub fn for_metrics(metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(MAX_METRICS_CONNECTIONS, &[], metrics)
    }

    fn with_capacity(connections: usize, trusted_proxies: &[IpNet], metrics: Arc<Metrics>) -> Self {
        Self {
            descriptors: Arc::new(Semaphore::new(connections)),
            by_address: ConcurrencyLimiter::new(0, MAX_UNAUTHENTICATED_PER_ADDRESS),
            trusted_proxies: trusted_proxies.to_vec(),
            metrics,
        }
    }

    /// Waits for a handle. Safe to cancel.
    pub(super) async fn acquire(&self, throttle: &mut LogThrottle) -> OwnedSemaphorePermit {
        if let Ok(permit) = self.descriptors.clone().try_acquire_owned() {
            return permit;
        }
        if throttle.should_log() {
            tracing::warn!("as many connections are open as there are handles; others wait");
        }
        #[expect(clippy::expect_used, reason = "see the message")]
        self.descriptors.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A place for a connection from `peer`: `Ok(None)` where it needs none.
    pub(super) fn address_permit(
        &self,
        peer: SocketAddr,
    ) -> Result<Option<Permit>, AddressLimitReached> {
        let address = peer.ip().to_canonical();
        if self.trusted_proxies.iter().any(|net| net.contains(&address)) {
            return Ok(None);
        }
        self.by_address.acquire(address).map(Some).ok_or_else(|| {
            self.metrics.limited(Limit::Connections);
            AddressLimitReached
        })
    }
}

/// An address has as many connections as it may.
pub(super) struct AddressLimitReached;

/// How many connections `handles` suffice for.
pub fn connection_capacity(descriptors: usize) -> usize {
    descriptors.saturating_sub(reserved_descriptors(descriptors)).clamp(1, Semaphore::MAX_PERMITS)
}

/// How many of `handles` connections leave for everything else: users, certificate and logouts must
/// be read and written also when strangers hold all the connections there can be.
fn reserved_descriptors(descriptors: usize) -> usize {
    (descriptors / 8).clamp(16, 64)
}

/// Takes as many file handles as the system lets this process have, and says how many that are.
pub fn raise_descriptor_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// A throttle that is made again only after a while.
#[derive(Default)]
pub(super) struct LogThrottle(Option<Instant>);

impl LogThrottle {
    /// Whether it may be made now; then it is.
    pub(super) fn should_log(&mut self) -> bool {
        let is_due = self.0.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}
