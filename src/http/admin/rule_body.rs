//! A moderation rule as the API reads and returns it; files and nodes of a cluster have a form of their own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    moderation::{ModerationRule, RuleKind, Subject},
    state::PublishedRule,
};

/// A rule.
#[derive(Serialize, ToSchema)]
pub(super) struct RuleBody {
    #[serde(flatten)]
    target: RuleTarget,
    /// When it was created, in milliseconds since the Unix epoch.
    at: u64,
    /// When it ends, in seconds since the Unix epoch.
    until: u64,
    /// The capacity of the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<usize>,
    /// The username of the moderator who has made it; absent where that was an administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    moderator: Option<String>,
    /// In the answer to a kick, a ban or a mute: whether an account, or a member on this server, has that name now. The rule applies in
    /// either case.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_known: Option<bool>,
    /// In the answer to a request, in a cluster: on how many servers it has taken effect, this one among them. The answer waits a few seconds for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_on: Option<usize>,
    /// Likewise: how many servers there are. The rule comes into force on the others when they can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<usize>,
}

impl RuleBody {
    /// The same with `is_known`.
    pub(super) fn with_is_known(self, is_known: bool) -> Self {
        Self { is_known: Some(is_known), ..self }
    }
}

/// What a rule does, and what it applies to.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub(super) enum RuleTarget {
    /// Bans members from a room, or from all rooms.
    Ban {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        room: Option<String>,
        /// `"everyone"`, or `{"username": …}`, or `{"client_id": …}`.
        #[schema(value_type = serde_json::Value)]
        who: Subject,
    },
    /// Lets no further members join a room.
    Lock { room: String },
    /// Has nothing that members of a room send to everyone passed on, and none of their messages.
    Mute {
        room: String,
        /// `{"username": …}` or `{"client_id": …}`.
        #[schema(value_type = serde_json::Value)]
        who: Subject,
    },
    /// Sets how many members a room may have.
    Capacity { room: String },
}

impl From<ModerationRule> for RuleBody {
    fn from(rule: ModerationRule) -> Self {
        let ModerationRule { about, at, until, members, moderator, is_removed: _ } = rule;
        let target = match about {
            RuleKind::Ban { room, subject } => RuleTarget::Ban { room, who: subject },
            RuleKind::Lock { room } => RuleTarget::Lock { room },
            RuleKind::Mute { room, subject } => RuleTarget::Mute { room, who: subject },
            RuleKind::Capacity { room } => RuleTarget::Capacity { room },
        };
        let (is_known, applied_on, nodes) = (None, None, None);
        Self { target, at, until, members, moderator, is_known, applied_on, nodes }
    }
}

impl From<PublishedRule> for RuleBody {
    fn from(PublishedRule { rule, reach }: PublishedRule) -> Self {
        let (applied_on, nodes) = (reach.map(|it| it.applied_on), reach.map(|it| it.nodes));
        Self { applied_on, nodes, ..Self::from(rule) }
    }
}

impl From<RuleTarget> for RuleKind {
    fn from(target: RuleTarget) -> Self {
        match target {
            RuleTarget::Ban { room, who } => Self::Ban { room, subject: who },
            RuleTarget::Lock { room } => Self::Lock { room },
            RuleTarget::Mute { room, who } => Self::Mute { room, subject: who },
            RuleTarget::Capacity { room } => Self::Capacity { room },
        }
    }
}
