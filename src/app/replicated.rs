//! What this node shares with the others of its cluster beside rooms.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::moderating;
use crate::{
    auth::{grants::TokenSessions, revoked::RevokedTokens},
    clock::unix_now,
    cluster::ReplicatedState,
    limits::Lockouts,
    moderation::{ModerationRule, ModerationRules},
    rooms::RoomRegistry,
};

/// State of this node that the others share.
pub(super) struct NodeState {
    pub(super) revoked_tokens: Arc<RevokedTokens>,
    pub(super) token_sessions: TokenSessions,
    pub(super) lockouts: Arc<Mutex<Lockouts>>,
    pub(super) moderation_rules: Arc<ModerationRules>,
}

/// The same, with the rooms that moderation rules and announcements are about.
pub(super) struct ClusteredState {
    pub(super) state: NodeState,
    pub(super) rooms: RoomRegistry,
}

impl ReplicatedState for ClusteredState {
    fn apply_logout(&self, line: &str) {
        if let Some((username, fingerprint)) = self.state.revoked_tokens.insert_line(line) {
            self.state.token_sessions.end_token(&username, fingerprint);
        }
    }

    fn logouts(&self) -> Vec<String> {
        self.state.revoked_tokens.lines()
    }

    fn apply_auth_event(&self, event: &str) {
        if let Ok(event) = serde_json::from_str(event) {
            let mut lockouts = self.state.lockouts.lock().unwrap_or_else(PoisonError::into_inner);
            lockouts.record(&event, Instant::now());
        }
    }

    fn apply_rule(&self, rule: &str) -> bool {
        let Some(rule) = ModerationRule::parse(rule) else {
            tracing::warn!("an order of another server is passed over");
            return true;
        };
        let is_remembered = rule.retained_until() > unix_now();
        if is_remembered {
            moderating::apply_rule(&self.state.moderation_rules, &self.rooms, rule);
        }
        is_remembered
    }

    fn rules(&self) -> Vec<String> {
        let rules = self.state.moderation_rules.all();
        rules.iter().map(ModerationRule::to_replicated_line).collect()
    }

    fn deliver_announcement(&self, announcement: &str) {
        moderating::deliver_announcement(&self.rooms, announcement);
    }
}
