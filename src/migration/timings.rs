//! How long the nodes of a cluster wait for each other: one value, so that tests do not wait out what operators do.

use std::time::Duration;

/// The times of a cluster, which all follow from its lease. All nodes need the same.
#[derive(Clone, Copy, Debug)]
pub struct ClusterTimings {
    /// How long a node may be silent before the others remove its members.
    pub lease: Duration,
}

impl Default for ClusterTimings {
    fn default() -> Self {
        Self { lease: Duration::from_secs(8) }
    }
}

impl ClusterTimings {
    /// How often a node renews its lease: it may miss three renewals.
    pub fn heartbeat_interval(self) -> Duration {
        self.lease / 4
    }

    /// How long a node waits at most before it tries again to reach a Redis that fails: much shorter than the lease, for all
    /// nodes are to be back before the first of them gives the others up.
    pub fn max_reconnect_pause(self) -> Duration {
        self.lease / 4
    }

    /// What is left of the lease of a node that is certainly up: it has renewed it lately.
    pub fn min_remaining_lease(self) -> Duration {
        self.lease / 2
    }

    /// How long a member of another node stays that a snapshot does not contain: as long as its node may be silent.
    pub fn unconfirmed_member_ttl(self) -> Duration {
        self.lease
    }

    /// How long a membership may be on its way to another node before it is given up: longer than a lost node is waited for.
    pub fn outgoing_migration_timeout(self) -> Duration {
        self.lease * 5 / 4
    }

    /// The same on the node that it comes to, which waits a little longer than the one that it leaves.
    pub fn incoming_migration_timeout(self) -> Duration {
        self.lease * 15 / 8
    }

    /// How long a signal may be on its way to another node before its sender gets an error: with the time until that is
    /// noticed, less than five seconds.
    pub fn confirm_timeout(self) -> Duration {
        self.lease / 2
    }

    /// How long a client may wait for Redis to let it in.
    pub fn join_timeout(self) -> Duration {
        self.lease / 2
    }

    /// How often a node confirms the signals of the others at most.
    pub fn confirm_interval(self) -> Duration {
        self.lease / 40
    }

    /// After so long without an answer a node is asked again for a membership.
    pub fn claim_retry_interval(self) -> Duration {
        self.lease * 3 / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_of_eight_seconds_is_renewed_every_two() {
        let timings = ClusterTimings::default();

        let times = [
            timings.lease,
            timings.heartbeat_interval(),
            timings.max_reconnect_pause(),
            timings.min_remaining_lease(),
            timings.unconfirmed_member_ttl(),
            timings.outgoing_migration_timeout(),
            timings.incoming_migration_timeout(),
            timings.claim_retry_interval(),
        ];

        assert_eq!(times.map(|time| time.as_secs()), [8, 2, 2, 4, 8, 10, 15, 3]);
    }
}
