//! Where log lines go and which there are.

use std::io::IsTerminal;

use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Config, LogFormat};

/// Starts logging to standard output.
///
/// Libraries are heard from `WARN` on, whatever `LOG_LEVEL` says: below that some of them print
/// what crosses a socket, tokens included.
pub fn start(config: &Config) {
    let ours = config.log_level;
    let libraries = ours.min(tracing::level_filters::LevelFilter::WARN);
    let levels = Targets::new()
        .with_default(libraries)
        .with_target("signaling", ours)
        .with_target("signaling_server", ours);
    let default = if std::io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
    let lines = match config.log_format.unwrap_or(default) {
        LogFormat::Pretty => {
            tracing_subscriber::fmt::layer().with_ansi(std::io::stdout().is_terminal()).boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer().json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(levels)).init();
}
