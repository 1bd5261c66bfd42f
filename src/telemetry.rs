//! Where log lines go and which there are.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Config, LogFormat};

/// Starts logging to standard output; lines still on their way are written when the guard is dropped.
///
/// A thread of its own writes: where nobody reads (a stuck journal, a pager), lines are lost and
/// calls go on.
///
/// Libraries are heard from `WARN` on, whatever `LOG_LEVEL` says: below that some of them print
/// what crosses a socket, tokens included.
pub fn start(config: &Config) -> WorkerGuard {
    let (output, guard) = NonBlocking::new(std::io::stdout());
    let ours = config.log_level;
    let libraries = ours.min(tracing::level_filters::LevelFilter::WARN);
    let levels = Targets::new()
        .with_default(libraries)
        .with_target("signaling", ours)
        .with_target("signaling_server", ours);
    let default = if std::io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
    let lines = match config.log_format.unwrap_or(default) {
        LogFormat::Pretty => {
            let colours = std::io::stdout().is_terminal();
            tracing_subscriber::fmt::layer().with_writer(output).with_ansi(colours).boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer().with_writer(output).json().boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(levels)).init();
    // Where, but not what: the message of a panic may hold anything. And never to a stuck stderr.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panicked: this is a bug of ours");
    }));
    guard
}
