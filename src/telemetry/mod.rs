//! Telemetry: the log, its level, the recent warnings and errors, and traces.

mod escape;
mod fields;
mod json_lines;
mod log_level;
#[cfg(feature = "otel")]
mod otlp;
mod recent;
mod subscriber;
mod trace_context;

pub use log_level::LogLevelHandle;
pub use recent::{RecentEvent, recent_events};
pub use subscriber::{Telemetry, start};
pub use trace_context::TraceContext;
