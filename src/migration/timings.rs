//! How long a cluster waits for what: one value, so that tests do not wait out what operators do.

use std::time::Duration;

/// The durations that the nodes of a cluster keep to. All nodes need the same.
#[derive(Clone, Copy, Debug)]
pub struct ClusterTimings {
    /// How long a node may be silent before the others remove its members. Also how long a member of another node stays
    /// that a snapshot does not contain: its node may be slower than this one to state that it is there.
    pub lease: Duration,
    /// How often a node renews its lease: four times in a lease.
    pub heartbeat_interval: Duration,
    /// How long a membership may be on its way to another node before it is given up: longer than the lease of a lost
    /// node.
    pub outgoing_migration_timeout: Duration,
    /// The same on the node that it comes to, which waits a little longer than the one that it leaves.
    pub incoming_migration_timeout: Duration,
    /// After so long without an answer a node is asked again for a membership.
    pub claim_retry_interval: Duration,
}

impl Default for ClusterTimings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(8),
            heartbeat_interval: Duration::from_secs(2),
            outgoing_migration_timeout: Duration::from_secs(10),
            incoming_migration_timeout: Duration::from_secs(15),
            claim_retry_interval: Duration::from_secs(3),
        }
    }
}
