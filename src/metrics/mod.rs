//! Metrics for `GET /metrics`: what this server counts, and what the system says of its process.

mod counters;
pub mod process;

pub use counters::{Kind, Limit, Login, Metrics, Outcome, Resume, WebhookFigures};
