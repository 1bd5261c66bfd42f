//! The membership as the handles of a session and its driver share it.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    events::Error,
    membership::{Frame, Input, Membership, Moment},
};

/// A membership behind a lock. The handles of a session send inputs to it; the driver carries out its effects.
pub(crate) struct SharedMembership {
    membership: Mutex<Membership>,
    /// Notified when there may be effects to carry out.
    pub changed: Notify,
}

impl SharedMembership {
    pub fn new(membership: Membership) -> Self {
        Self { membership: Mutex::new(membership), changed: Notify::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame, or keeps it until it can be sent, and wakes the driver.
    pub fn send(&self, frame: Frame) -> Result<(), Error> {
        self.lock().queue_frame(frame)?;
        self.changed.notify_one();
        Ok(())
    }

    /// Handles an input whose effects do not depend on the time, and wakes the driver.
    pub fn handle(&self, input: Input) {
        self.lock().handle(input, moment(Duration::ZERO));
        self.changed.notify_one();
    }
}

/// The time `now`, with a random number: the standard library seeds its hashers from the system.
pub(crate) fn moment(now: Duration) -> Moment {
    let random = RandomState::new().build_hasher().finish() >> 11;
    Moment { now, random: random as f64 / (1_u64 << 53) as f64 }
}
