//! Logs and traces: where they go, at which level, and which recent events are kept.

#[cfg(feature = "otel")]
mod otlp;
mod subscriber;
pub mod trace_context;

pub use subscriber::{Line, Loudness, Telemetry, recent, start};
