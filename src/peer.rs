//! The identity of a member: what the other members of its room, the timeline and the webhooks know it by.

use std::sync::Arc;

/// A member of a room, as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Unique in its room.
    pub client_id: Arc<str>,
    /// The account, or the guest's name.
    pub username: Arc<str>,
}
