//! Why what a moderator asks for is not done.

use std::time::Duration;

use super::RuleLimitReached;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ModerationRefusal {
    /// It is about a client id that is no member of the room, and was none lately.
    #[error("Target client {0} not found")]
    TargetNotFound(String),
    /// The account, or the moderators of the room, make too many rules; how long to wait.
    #[error("Too many moderation rules in a short time: this one is not made")]
    TooOften(Duration),
    /// Too many rules are active.
    #[error(transparent)]
    RuleLimitReached(#[from] RuleLimitReached),
}

impl ModerationRefusal {
    /// The `code` of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TargetNotFound(_) => "target_not_found",
            Self::TooOften(_) => "rate_limited",
            Self::RuleLimitReached(_) => "rule_limit_reached",
        }
    }

    /// How long to wait before it is asked for again, where that helps.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooOften(wait) => Some(*wait),
            Self::TargetNotFound(_) | Self::RuleLimitReached(_) => None,
        }
    }
}
