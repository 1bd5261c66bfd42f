//! What moderators do over their own connections: in the room of the connection, about its members, within limits.

use std::sync::Arc;

use tokio::time::Instant;

use super::{AppState, NotPersisted, moderation::apply_rule};
use crate::{
    clock::{unix_now, unix_now_ms},
    moderation::{MAX_DURATION_SECONDS, ModerationRefusal, ModerationRule, RuleKind, Subject},
    protocol::ModerationRequest,
};

/// What is to become of a rule.
enum RuleChange {
    /// It applies for so many seconds; 0 for a kick.
    Make { seconds: u64 },
    /// It is removed, where there is one.
    Remove,
}

impl AppState {
    /// Applies on this node what a moderator of `room` asks for. The rule is [to be kept](Self::keep_rule); there is none where
    /// the one that is to be removed does not apply.
    ///
    /// # Errors
    ///
    /// [`ModerationRefusal`]; then nothing has changed.
    pub fn moderate(
        &self,
        room: &Arc<str>,
        moderator: &Arc<str>,
        request: &ModerationRequest<'_>,
    ) -> Result<Option<ModerationRule>, ModerationRefusal> {
        let (about, change) = change_of(room, request);
        let (rules, now) = (&self.moderation_rules, Instant::now());
        let is_active = rules.is_active(&about, unix_now());
        let seconds = match change {
            RuleChange::Make { seconds } => seconds,
            RuleChange::Remove if !is_active => return Ok(None),
            RuleChange::Remove => 0,
        };
        // A rule that there is may be changed, also about a client that is long gone.
        if let Some(client_id) = target_of(request)
            && !is_active
            && !self.rooms.is_recent_member(room, client_id, now)
        {
            return Err(ModerationRefusal::TargetNotFound(client_id.to_owned()));
        }
        self.rule_rate.check(moderator, room, now).map_err(ModerationRefusal::TooOften)?;
        let rule = rules.create(about, Some(moderator), unix_now_ms(), seconds)?;
        let is_removed = matches!(change, RuleChange::Remove);
        let rule = ModerationRule { is_removed, ..rule };
        apply_rule(rules, &self.rooms, rule.clone());
        Ok(Some(rule))
    }

    /// Writes a rule that applies on this node to disk, and applies it on all others.
    ///
    /// # Errors
    ///
    /// [`NotPersisted`].
    pub async fn keep_rule(&self, rule: &ModerationRule) -> Result<(), NotPersisted> {
        let saved = self.save_rules().await;
        self.rooms.backend().publish_rules(&[rule.to_replicated_line()]).await;
        saved
    }
}

/// What a request is about, and what is to become of the rule about that.
fn change_of(room: &str, request: &ModerationRequest<'_>) -> (RuleKind, RuleChange) {
    let room = room.to_owned();
    let subject = |client_id: &str| Subject::ClientId(client_id.to_owned());
    match request {
        ModerationRequest::Kick { client_id, ban_seconds } => (
            RuleKind::Ban { room: Some(room), subject: subject(client_id) },
            RuleChange::Make { seconds: *ban_seconds },
        ),
        ModerationRequest::Mute { client_id, seconds } => (
            RuleKind::Mute { room, subject: subject(client_id) },
            RuleChange::Make { seconds: seconds.unwrap_or(MAX_DURATION_SECONDS) },
        ),
        ModerationRequest::Unmute { client_id } => {
            (RuleKind::Mute { room, subject: subject(client_id) }, RuleChange::Remove)
        }
        ModerationRequest::Lock => {
            (RuleKind::Lock { room }, RuleChange::Make { seconds: MAX_DURATION_SECONDS })
        }
        ModerationRequest::Unlock => (RuleKind::Lock { room }, RuleChange::Remove),
    }
}

/// The client that a rule is to be made about.
fn target_of<'a>(request: &'a ModerationRequest<'_>) -> Option<&'a str> {
    match request {
        ModerationRequest::Kick { client_id, .. } | ModerationRequest::Mute { client_id, .. } => {
            Some(client_id)
        }
        ModerationRequest::Unmute { .. } | ModerationRequest::Lock | ModerationRequest::Unlock => {
            None
        }
    }
}
