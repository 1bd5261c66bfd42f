//! Metrics for `GET /metrics`: what this server counts, and what the system reports about its process.

mod counters;
mod labels;
pub mod process;

pub use counters::{Metrics, WebhookMetrics};
pub use labels::{LimitKind, LoginOutcome, MessageOutcome, MessageType, ResumeResult};
