//! One moderation rule.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{KICK_RETENTION_SECONDS, RETENTION_SECONDS};

/// The longest that a rule may apply, in seconds: ten years.
pub const MAX_DURATION_SECONDS: u64 = 10 * 365 * 86_400;

/// The latest time of a rule: JSON has no whole numbers beyond it (RFC 8259 section 6).
const MAX_TIMESTAMP: u64 = (1 << 53) - 1;

/// One rule.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ModerationRule {
    /// What it is about; a newer one about the same replaces it.
    #[serde(flatten)]
    pub about: RuleKind,
    /// When it was made, in milliseconds since the Unix epoch.
    pub at: u64,
    /// When it is over by itself, in seconds since the Unix epoch.
    pub until: u64,
    /// It was removed.
    #[serde(default, rename = "is_lifted", skip_serializing_if = "std::ops::Not::not")]
    pub is_removed: bool,
    /// How many members the room holds, where it is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<usize>,
    /// The username of the moderator who has made it; nothing where that was an administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moderator: Option<String>,
}

/// What a rule is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum RuleKind {
    /// These members are disconnected, and may neither join nor resume until it is over. One that is over at once is a kick.
    Ban {
        /// Of this room, or of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        /// The members that it is about.
        #[serde(rename = "who")]
        subject: Subject,
    },
    /// Clients that are no members cannot join.
    Lock {
        /// This room.
        room: String,
    },
    /// What these members send to everyone, and their messages, are not passed on.
    Mute {
        /// In this room.
        room: String,
        /// The members that it is about.
        #[serde(rename = "who")]
        subject: Subject,
    },
    /// The room holds more, or fewer, members than others.
    Capacity {
        /// This room.
        room: String,
    },
}

impl RuleKind {
    /// Which room it is about; nothing for all.
    pub fn room(&self) -> Option<&str> {
        match self {
            Self::Ban { room, .. } => room.as_deref(),
            Self::Lock { room } | Self::Mute { room, .. } | Self::Capacity { room } => Some(room),
        }
    }

    /// What rules about the same share on every node: a JSON array of kind, room, kind of subject, and name.
    fn replication_key(&self) -> String {
        let room = self.room().unwrap_or_default();
        let (kind, [kind_of_subject, name]) = match self {
            Self::Ban { subject, .. } => ("ban", subject.key_parts()),
            Self::Lock { .. } => ("lock", ["", ""]),
            Self::Mute { subject, .. } => ("mute", subject.key_parts()),
            Self::Capacity { .. } => ("capacity", ["", ""]),
        };
        let parts = [kind, room, kind_of_subject, name];
        #[expect(clippy::expect_used, reason = "strings")]
        serde_json::to_string(&parts).expect("texts can be written")
    }
}

/// The members that a ban or a mute is about.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// All: the room is closed.
    Everyone,
    /// An account, or a guest by its name.
    Username(String),
    /// The member with this client id.
    ClientId(String),
}

impl Subject {
    /// Its kind and its name, as replication keys have them.
    fn key_parts(&self) -> [&str; 2] {
        match self {
            Self::Everyone => ["everyone", ""],
            Self::Username(name) => ["username", name],
            Self::ClientId(id) => ["client_id", id],
        }
    }
}

/// As the log has it.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("everyone"),
            Self::Username(name) => write!(f, "username {name}"),
            Self::ClientId(id) => write!(f, "client_id {id}"),
        }
    }
}

/// Why a client may not enter a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryDenied {
    /// Banned, or the room is closed.
    Banned,
    /// The room is locked.
    Locked,
}

/// A rule as the nodes of a cluster send it to each other: any node that reads it ignores the additions, and Redis compares
/// them.
#[derive(Serialize)]
struct ReplicatedRule<'a> {
    #[serde(flatten)]
    rule: &'a ModerationRule,
    key: String,
    rank: String,
}

impl ModerationRule {
    /// The rule of a [`line`](Self::to_line), if it is one that could have been made.
    pub fn parse(line: &str) -> Option<Self> {
        let rule: Self = serde_json::from_str(line).ok()?;
        let times = rule.at.max(rule.until) <= MAX_TIMESTAMP;
        (times && rule.members != Some(0)).then_some(rule)
    }

    /// Whether it applies at `now`, in seconds since the Unix epoch.
    pub fn is_active(&self, now: u64) -> bool {
        !self.is_removed && now < self.until
    }

    /// Whether it ends the membership of `username` in `room` that has this client id, whenever that began.
    pub fn ends_membership(&self, room: &str, username: &str, client_id: &str) -> bool {
        let RuleKind::Ban { room: of, subject } = &self.about else { return false };
        !self.is_removed
            && of.as_deref().is_none_or(|of| of == room)
            && match subject {
                Subject::Everyone => true,
                Subject::Username(name) => name == username,
                Subject::ClientId(id) => id == client_id,
            }
    }

    /// Whether it only ended memberships: it was over at once.
    pub fn is_kick(&self) -> bool {
        let is_ban = matches!(self.about, RuleKind::Ban { .. });
        is_ban && !self.is_removed && self.until <= self.at / 1000
    }

    /// Until when it is remembered, in seconds since the Unix epoch.
    pub fn retained_until(&self) -> u64 {
        let over = if self.is_removed { 0 } else { self.until };
        let retention = if self.is_kick() { KICK_RETENTION_SECONDS } else { RETENTION_SECONDS };
        over.max((self.at / 1000).saturating_add(retention))
    }

    /// The rule as a line of the file.
    pub fn to_line(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings and numbers")]
        serde_json::to_string(self).expect("a rule can be written")
    }

    /// The rule as a line for other nodes: with what it is about as one text, and its rank as another.
    pub fn to_replicated_line(&self) -> String {
        let (key, rank) = (self.about.replication_key(), self.rank_text());
        #[expect(clippy::expect_used, reason = "strings and numbers")]
        serde_json::to_string(&ReplicatedRule { rule: self, key, rank })
            .expect("a rule can be written")
    }

    /// Greater for a newer one of two rules about the same, on all nodes alike.
    pub(super) fn rank(&self) -> (u64, bool, u64, Option<usize>, Option<&str>) {
        (self.at, self.is_removed, self.until, self.members, self.moderator.as_deref())
    }

    /// [`rank`](Self::rank) as a text that compares the same, byte for byte: digits, and the moderator, who has a name.
    pub(super) fn rank_text(&self) -> String {
        let (at, is_removed, until, members, moderator) = self.rank();
        let (is_removed, has_members) = (u8::from(is_removed), u8::from(members.is_some()));
        let (members, moderator) = (members.unwrap_or(0), moderator.unwrap_or_default());
        format!("{at:020}{is_removed}{until:020}{has_members}{members:020}{moderator}")
    }
}
