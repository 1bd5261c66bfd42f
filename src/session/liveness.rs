//! Silence and pings of a client, and the deadlines of the writes to it.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytestring::ByteString;
use tokio::time::{Instant, timeout};

use super::SessionLimits;
use crate::{
    protocol::CloseReason,
    websocket::{ConnectionLost, Socket},
};

/// A timer that fires later than this shows that the process or the machine was suspended.
pub(super) const SUSPEND_THRESHOLD: Duration = Duration::from_secs(1);

/// When the client last sent and was last written to, and what follows from it. A client that is silent for a third of the
/// timeout is pinged, and after the whole timeout its connection ends.
pub(super) struct Liveness<'a> {
    limits: &'a SessionLimits,
    received_at: Instant,
    sent_at: Instant,
    pinged_at: Instant,
    /// When the first of the Pings was sent that are not answered.
    unanswered_since: Option<Instant>,
    /// How many Pings were sent that are not answered.
    unanswered: u32,
}

impl<'a> Liveness<'a> {
    pub(super) fn new(limits: &'a SessionLimits, now: Instant) -> Self {
        let (received_at, sent_at, pinged_at) = (now, now, now);
        let (unanswered_since, unanswered) = (None, 0);
        Self { limits, received_at, sent_at, pinged_at, unanswered_since, unanswered }
    }

    pub(super) fn record_received(&mut self, now: Instant) {
        self.received_at = now;
    }

    pub(super) fn record_sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// Records that the last frame was answered.
    pub(super) fn record_answer(&mut self) {
        self.sent_at = self.received_at;
    }

    pub(super) fn record_ping(&mut self, now: Instant) {
        self.unanswered_since = self.unanswered_since.or(Some(now));
        self.unanswered += 1;
        (self.pinged_at, self.sent_at) = (now, now);
    }

    /// Records a Pong; whether it answers a Ping.
    pub(super) fn record_pong(&mut self, now: Instant) -> PongOrigin {
        if self.unanswered == 0 {
            return PongOrigin::Unasked;
        }
        self.unanswered -= 1;
        let since = self.unanswered_since.take();
        PongOrigin::Answer { rtt: since.map(|since| now.duration_since(since)) }
    }

    /// The timer of `deadline` fires at `now`. The time for which the process was suspended is not the client's
    /// silence: what the client sent meanwhile is still unread.
    pub(super) fn excuse_suspension(&mut self, deadline: Instant, now: Instant) {
        let late = now.saturating_duration_since(deadline);
        if late > SUSPEND_THRESHOLD {
            self.received_at = (self.received_at + late).min(now);
        }
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now >= self.received_at + self.limits.timeout
    }

    /// Whether to send a Ping. A client that only sends is pinged too: proxies count what the server sends.
    pub(super) fn is_ping_due(&self, now: Instant) -> bool {
        let third = self.limits.timeout / 3;
        now >= self.received_at.min(self.sent_at) + third && now >= self.pinged_at + third
    }

    /// When to look at the client again.
    pub(super) fn next_deadline(&self) -> Instant {
        let ping_at =
            self.received_at.min(self.sent_at).max(self.pinged_at) + self.limits.timeout / 3;
        let silent_at = self.received_at + self.limits.timeout;
        ping_at.min(silent_at)
    }
}

/// Why a client sent a Pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PongOrigin {
    /// It answers a Ping: the time since the first of the Pings that were not answered, with the first Pong after it.
    Answer { rtt: Option<Duration> },
    /// No Ping was sent that is not answered yet (RFC 6455 section 5.5.3 allows such a Pong).
    Unasked,
}

/// A socket whose writes have a deadline.
pub(super) struct TimedSocket<'a, S> {
    pub(super) socket: &'a mut S,
    /// Whose `timeout` is that of a write.
    pub(super) limits: &'a SessionLimits,
}

impl<S: Socket> TimedSocket<'_, S> {
    /// Without a deadline, a client that does not read would block its own task in a write.
    pub(super) async fn write(&mut self, frames: &[ByteString]) -> Result<(), CloseReason> {
        let (socket, mut unstarted) = (&mut *self.socket, frames);
        let mut write = |context: &mut Context<'_>| {
            if !unstarted.is_empty() {
                ready!(socket.poll_start_send(context, unstarted))?;
                unstarted = &[];
            }
            socket.poll_flush(context)
        };
        // Nearly every write completes at once and needs neither a timer nor memory for one.
        let written = match poll_fn(|context| Poll::Ready(write(context))).await {
            Poll::Ready(written) => Ok(written),
            Poll::Pending => Box::pin(timeout(self.limits.timeout, poll_fn(write))).await,
        };
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ConnectionLost)) => Err(CloseReason::ConnectionLost),
            Err(_elapsed) => Err(CloseReason::TooSlow),
        }
    }
}
