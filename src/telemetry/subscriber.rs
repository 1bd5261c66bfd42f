//! Starts the log and the export of traces, and ends them.

use std::{error::Error, io::IsTerminal, time::Duration};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::{Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use super::{
    json_lines::JsonLines,
    log_level::{LogLevelHandle, targets},
    recent::RecentEventsLayer,
};
use crate::config::{Config, LogFormat};

/// Log and traces, for as long as the process lasts.
pub struct Telemetry {
    /// Changes the level of the log.
    pub log_level: LogLevelHandle,
    _log: WorkerGuard,
    #[cfg(feature = "otel")]
    traces: Option<super::otlp::TraceExporter>,
}

impl Telemetry {
    /// Writes the log lines that still wait, and sends the spans that still wait, these within `timeout`.
    pub fn shut_down(self, timeout: Duration) {
        #[cfg(feature = "otel")]
        if let Some(traces) = &self.traces {
            traces.shut_down(timeout);
        }
        #[cfg(not(feature = "otel"))]
        let _ = timeout;
    }
}

/// Starts logging to standard output, and the export of traces if the settings ask for it. Not to be called
/// on a runtime.
///
/// A thread of its own writes the log: while nothing reads the output (a stuck journal, a pager), lines are lost and
/// calls go on.
///
/// # Errors
///
/// Traces cannot be exported at all.
pub fn start(config: &Config) -> Result<Telemetry, Box<dyn Error>> {
    let (output, guard) = NonBlocking::new(std::io::stdout());
    let (level_filter, log_level) = LogLevelHandle::new(config.reloadable.telemetry.log_level);
    let default = if std::io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
    let lines = match config.startup.telemetry.log_format.unwrap_or(default) {
        LogFormat::Pretty => {
            let colours = std::io::stdout().is_terminal();
            tracing_subscriber::fmt::layer().with_writer(output).with_ansi(colours).boxed()
        }
        LogFormat::Json => JsonLines(output).boxed(),
    };
    #[cfg_attr(not(feature = "otel"), expect(unused_mut, reason = "there is no layer to add"))]
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![
        lines.with_filter(level_filter).boxed(),
        RecentEventsLayer.with_filter(targets(LevelFilter::WARN)).boxed(),
    ];
    #[cfg(feature = "otel")]
    let traces = match &config.startup.telemetry.otlp {
        Some(otlp) => {
            let traces = super::otlp::TraceExporter::start(otlp)
                .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?;
            layers.push(traces.layer().boxed());
            Some(traces)
        }
        None => None,
    };
    tracing_subscriber::registry().with(layers).init();
    // The place of a panic, but not its message, which may hold anything; and not to standard error, which may be stuck.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panic in the server; please report it");
    }));
    Ok(Telemetry {
        log_level,
        _log: guard,
        #[cfg(feature = "otel")]
        traces,
    })
}
