//! How long receivers may take, and how often they are tried.

use std::time::Duration;

use super::health::Backoff;

/// How long receivers may take, and how often they are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeliveryPolicy {
    /// The longest that an attempt takes, from the name lookup to the head of the response.
    pub attempt_timeout: Duration,
    /// The wait after the first failure. It doubles after each further one.
    pub first_wait: Duration,
    /// The longest wait of a room whose event fails.
    pub max_wait: Duration,
    /// The longest wait of a receiver that is not reached, where it has not asked for more: the cause may be an event of one room,
    /// and the others are tried meanwhile.
    pub max_receiver_wait: Duration,
    /// An event that is older is given up when its receiver fails.
    pub max_age: Duration,
    /// An event that is refused this many times is given up.
    pub max_refusals: u32,
    /// The most events that wait.
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
            max_receiver_wait: Duration::from_secs(5),
            max_age: Duration::from_secs(3600),
            max_refusals: 8,
            // About three megabytes.
            capacity: 10_000,
            concurrency: 1,
        }
    }
}

impl DeliveryPolicy {
    /// The pauses of a room after failures of its event.
    pub(super) fn room_backoff(&self) -> Backoff {
        Backoff { first: self.first_wait, max: self.max_wait }
    }

    /// The pauses of a receiver after attempts that did not reach it.
    pub(super) fn receiver_backoff(&self) -> Backoff {
        Backoff { first: self.first_wait, max: self.max_receiver_wait }
    }
}
