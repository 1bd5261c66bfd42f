//! The numbers of received frames, and their acknowledgement.

/// So many unacknowledged frames make the client send a ping, which carries the acknowledgement.
const ACK_AFTER: u64 = 32;

/// The `seq` of the last received frame, and what was acknowledged of it.
#[derive(Default)]
pub(super) struct ReceivedSequence {
    last: u64,
    acked: u64,
    /// How many replayed frames of the previous socket are still to come.
    replayed: u64,
}

impl ReceivedSequence {
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Takes the `seq` of a frame. Returns whether the frame is replayed from the previous socket.
    pub fn receive(&mut self, seq: u64) -> bool {
        self.last = seq;
        let is_replayed = self.replayed > 0;
        self.replayed -= u64::from(is_replayed);
        is_replayed
    }

    /// The next `count` numbered frames are replayed.
    pub fn expect_replay(&mut self, count: u64) {
        self.replayed = count;
    }

    /// Whether an acknowledgement is due.
    pub fn is_ack_due(&self) -> bool {
        self.last >= self.acked + ACK_AFTER
    }

    /// The number to acknowledge in the next frame, if it was not acknowledged yet.
    pub fn take_ack(&mut self) -> Option<u64> {
        let is_new = self.last > self.acked;
        self.acked = self.acked.max(self.last);
        is_new.then_some(self.acked)
    }

    /// Numbering starts again with a new membership.
    pub fn reset(&mut self) {
        (self.last, self.acked) = (0, 0);
    }
}
