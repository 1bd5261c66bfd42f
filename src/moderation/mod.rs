//! What administrators have decided: which users may not enter which room, which rooms are locked, which members are muted, how
//! many members a room holds.
//!
//! A rule applies until its time is over, or until a newer one about the same replaces it, also one that removes it. So nodes
//! that send each other their rules, in whatever order, come to the same.
//!
//! `rule` is one rule, `rules` all that are kept, in memory and in a file; `ceilings` says how many there may be, and `refusal`
//! why what a moderator asks for is not done.

mod ceilings;
mod refusal;
mod rule;
mod rules;
#[cfg(test)]
mod tests;

pub use self::{
    ceilings::{MAX_ACTIVE_RULES, RuleLimitReached},
    refusal::ModerationRefusal,
    rule::{EntryDenied, MAX_DURATION_SECONDS, ModerationRule, RuleKind, Subject},
    rules::ModerationRules,
};

/// How long a rule that is over or removed is remembered, in seconds: longer than a node is cut off from the others.
const RETENTION_SECONDS: u64 = 86_400;

/// The same of a kick: longer than its membership could be resumed (`RESUME_WINDOW_SECONDS` is at most an hour), or be on its way
/// to another node.
const KICK_RETENTION_SECONDS: u64 = 3_600 + 300;
