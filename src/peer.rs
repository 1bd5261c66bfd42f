//! The identity of a member: what the other members of its room, the timeline and the webhooks know it by.

use std::sync::Arc;

use crate::protocol::RosterEntry;

/// A member of a room, as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Unique in its room.
    pub client_id: Arc<str>,
    /// The account, or the guest's name.
    pub username: Arc<str>,
    /// The display name that its token gives it. It stays as long as the membership.
    pub name: Option<Arc<str>>,
}

impl Peer {
    /// The peer as lists show it to a reader that is the `polite` one of the two.
    pub fn to_roster_entry(&self, polite: bool) -> RosterEntry<'_> {
        let Self { client_id, username, name } = self;
        RosterEntry { client_id, username, name: name.as_deref(), polite }
    }
}
