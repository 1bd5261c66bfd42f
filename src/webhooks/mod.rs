//! Webhooks: what happens in rooms is posted to each of `WEBHOOK_URLS`.
//!
//! Events wait in a bounded queue for each URL, and a thread of its own posts them: webhooks never delay signaling. Delivery
//! is at least once, and in order within each room. Rooms take turns.

mod attempt;
mod client;
mod delivery;
mod event;
mod health;
mod policy;
mod publisher;
mod queue;
mod signature;
mod target;
mod waiting;

pub use event::{WebhookEnvelope, WebhookEvent};
pub use publisher::Webhooks;
pub use signature::receiver_secret;
pub use target::{ParseTargetError, WebhookTarget};

#[cfg(test)]
mod tests;
