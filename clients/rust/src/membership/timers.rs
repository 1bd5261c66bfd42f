//! The timers of a membership, as points in time.

use std::time::Duration;

const PING_INTERVAL: Duration = Duration::from_secs(15);
/// From a ping to the next frame, and from opening a socket to joining.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens if no frame arrives in time.
#[derive(Clone, Copy)]
pub(super) enum OnSilence {
    Ping,
    Abandon,
}

/// When each timer is due, since the membership was created; `None` while it does not run.
#[derive(Default)]
pub(super) struct Timers {
    /// The next socket is opened.
    pub retry_at: Option<Duration>,
    /// The token is refreshed.
    pub refresh_at: Option<Duration>,
    silence: Option<(Duration, OnSilence)>,
}

impl Timers {
    /// The earliest time at which a timer is due.
    pub fn next(&self) -> Option<Duration> {
        let silence = self.silence.map(|(at, _)| at);
        [silence, self.retry_at, self.refresh_at].into_iter().flatten().min()
    }

    /// Without a frame for 10 s the socket is abandoned.
    pub fn expect_response(&mut self, now: Duration) {
        self.silence = Some((now + RESPONSE_TIMEOUT, OnSilence::Abandon));
    }

    /// Without a frame for 15 s a ping is sent.
    pub fn schedule_ping(&mut self, now: Duration) {
        self.silence = Some((now + PING_INTERVAL, OnSilence::Ping));
    }

    pub fn stop_heartbeat(&mut self) {
        self.silence = None;
    }

    /// What is to be done if the socket has been silent for too long.
    pub fn silence_due(&self, now: Duration) -> Option<OnSilence> {
        self.silence.filter(|(at, _)| *at <= now).map(|(_, action)| action)
    }
}
