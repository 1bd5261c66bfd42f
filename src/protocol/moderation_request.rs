//! What moderators ask for over their own connection.

use std::borrow::Cow;

/// What a moderator asks for in its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModerationRequest<'a> {
    /// Removes a member, and perhaps keeps it out.
    Kick {
        /// Its client id.
        client_id: Cow<'a, str>,
        /// For how long it may not come back, in seconds.
        ban_seconds: u64,
    },
    /// Has nothing that a member sends to everyone passed on, and none of its messages.
    Mute {
        /// Its client id.
        client_id: Cow<'a, str>,
        /// For how long, in seconds; `None` until it is taken back.
        seconds: Option<u64>,
    },
    /// Takes that back.
    Unmute {
        /// Its client id.
        client_id: Cow<'a, str>,
    },
    /// Lets no more members in.
    Lock,
    /// Lets members in again.
    Unlock,
}

impl ModerationRequest<'_> {
    /// The `type` of such a message.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Kick { .. } => "kick",
            Self::Mute { .. } => "mute",
            Self::Unmute { .. } => "unmute",
            Self::Lock => "lock",
            Self::Unlock => "unlock",
        }
    }
}
