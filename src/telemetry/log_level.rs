//! The level of the log, which can change while the process runs.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, filter::Targets, reload};

/// Changes the level of the log. Clones change the same log.
#[derive(Clone)]
pub struct LogLevelHandle(reload::Handle<Targets, Registry>);

impl LogLevelHandle {
    /// A filter for `LOG_LEVEL`, and the handle that changes it.
    pub(super) fn new(level: LevelFilter) -> (reload::Layer<Targets, Registry>, Self) {
        let (layer, handle) = reload::Layer::new(targets(level));
        (layer, Self(handle))
    }

    /// Sets the level, as `LOG_LEVEL` does at the start.
    pub fn set(&self, level: LevelFilter) {
        #[expect(clippy::expect_used, reason = "see the message")]
        self.0.reload(targets(level)).expect("the subscriber lasts as long as the process");
    }
}

/// Events of this server from `level` on, and of libraries from `WARN` on, whatever `LOG_LEVEL` is: below that some
/// libraries log what crosses a socket, tokens included.
pub(super) fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        // It logs at each attempt to send traces; `otlp` logs the first one.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
        .with_target("signaling", level)
        .with_target("signaling_server", level)
}
