//! What administrators do with rooms and members, on this node and on all that share rooms with it.

use std::time::Duration;

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::AppState;
use crate::{
    clock::{unix_now, unix_now_ms},
    moderation::{
        MAX_DURATION_SECONDS, ModerationRule, ModerationRules, RuleKind, RuleLimitReached, Subject,
    },
    protocol::ServerMessage,
    rooms::{Peer, Reach, RoomRegistry},
};

/// How far the clocks of two nodes may differ without a member staying that was removed just after it had joined.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

/// Why a moderation rule is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ModerationError {
    /// Nothing has changed.
    #[error(transparent)]
    RuleLimitReached(#[from] RuleLimitReached),
    /// The change applies for as long as this process runs.
    #[error(transparent)]
    NotPersisted(#[from] NotPersisted),
}

/// What changed could not be written to disk; the cause is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not written to disk")]
pub struct NotPersisted;

/// A rule that is in force.
pub struct PublishedRule {
    /// The rule.
    pub rule: ModerationRule,
    /// On how many nodes, where there are others.
    pub reach: Option<Reach>,
}

/// A rule is not in force any more.
pub struct RemovedRule {
    /// On how many nodes, where there are others.
    pub reach: Option<Reach>,
}

/// A message to a room, or to one of its members, on every node.
#[derive(Deserialize, Serialize)]
struct Announcement {
    room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    frame: String,
}

impl AppState {
    /// Removes members from a room, or an account from all, and bans them for so many seconds, which may be 0.
    ///
    /// # Errors
    ///
    /// [`ModerationError`].
    pub async fn ban(
        &self,
        room: Option<String>,
        subject: Subject,
        seconds: u64,
    ) -> Result<PublishedRule, ModerationError> {
        let rule = self.moderation_rules.create(
            RuleKind::Ban { room, subject },
            None,
            unix_now_ms(),
            seconds,
        )?;
        Ok(self.publish_rule(rule).await?)
    }

    /// Locks a room: only its members stay in it.
    ///
    /// # Errors
    ///
    /// [`ModerationError`].
    pub async fn lock(&self, room: String) -> Result<PublishedRule, ModerationError> {
        let rule = self.moderation_rules.create(
            RuleKind::Lock { room },
            None,
            unix_now_ms(),
            MAX_DURATION_SECONDS,
        )?;
        Ok(self.publish_rule(rule).await?)
    }

    /// Mutes members of a room for so many seconds.
    ///
    /// # Errors
    ///
    /// [`ModerationError`].
    pub async fn mute(
        &self,
        room: String,
        subject: Subject,
        seconds: u64,
    ) -> Result<ModerationRule, ModerationError> {
        let about = RuleKind::Mute { room, subject };
        let rule = self.moderation_rules.create(about, None, unix_now_ms(), seconds)?;
        self.publish_rule(rule.clone()).await?;
        Ok(rule)
    }

    /// Has a room hold so many members, also where others hold more or fewer. Its members stay.
    ///
    /// # Errors
    ///
    /// [`ModerationError`].
    pub async fn set_capacity(
        &self,
        room: String,
        members: usize,
    ) -> Result<PublishedRule, ModerationError> {
        let rule = self.moderation_rules.create(
            RuleKind::Capacity { room },
            None,
            unix_now_ms(),
            MAX_DURATION_SECONDS,
        )?;
        Ok(self.publish_rule(ModerationRule { members: Some(members), ..rule }).await?)
    }

    /// Removes a rule and says where; nothing where it was not active.
    ///
    /// # Errors
    ///
    /// [`NotPersisted`]; then it is removed for as long as this process runs.
    pub async fn remove_rule(&self, about: RuleKind) -> Result<Option<RemovedRule>, NotPersisted> {
        if !self.moderation_rules.is_active(&about, unix_now()) {
            return Ok(None);
        }
        let Ok(rule) = self.moderation_rules.create(about, None, unix_now_ms(), 0) else {
            return Ok(Some(RemovedRule { reach: None }));
        };
        let rule = ModerationRule { is_removed: true, ..rule };
        let PublishedRule { reach, .. } = self.publish_rule(rule).await?;
        Ok(Some(RemovedRule { reach }))
    }

    /// Applies a rule here and on all other nodes, and writes it to disk.
    async fn publish_rule(&self, rule: ModerationRule) -> Result<PublishedRule, NotPersisted> {
        let line = rule.to_replicated_line();
        apply_rule(&self.moderation_rules, &self.rooms, rule.clone());
        let saved = self.save_rules().await;
        let reach = self.rooms.backend().publish_rules(&[line]).await;
        saved?;
        Ok(PublishedRule { rule, reach })
    }

    /// Whether a rule about `subject` is about anybody now: an account, or a member of `room` or of any room of this node.
    pub fn is_known(&self, room: Option<&str>, subject: &Subject) -> bool {
        let is_member = |is_meant: &dyn Fn(&Peer) -> bool| self.rooms.has_member(room, is_meant);
        match subject {
            Subject::Everyone => true,
            Subject::Username(name) => {
                self.users.find(name).is_some() || is_member(&|peer| *peer.username == **name)
            }
            Subject::ClientId(id) => is_member(&|peer| *peer.client_id == **id),
        }
    }

    /// Sends a message to all members of a room, or to one. Other nodes send it to theirs; on how many that was done, where there
    /// are others.
    pub async fn announce(
        &self,
        room: String,
        to: Option<String>,
        data: &RawValue,
    ) -> Option<Reach> {
        let frame = ServerMessage::Announcement { data }.encode();
        self.rooms.announce(&room, to.as_deref(), &frame);
        let announcement = Announcement { room, to, frame: frame.to_string() };
        let announcement = serde_json::to_string(&announcement).ok()?;
        self.rooms.backend().publish_announcement(&announcement).await
    }
}

/// Merges a rule, of this node's administrator or of another's, and enforces it.
pub(super) fn apply_rule(rules: &ModerationRules, rooms: &RoomRegistry, rule: ModerationRule) {
    if !rules.merge(rule.clone(), unix_now()) {
        return;
    }
    let is_active = rule.is_active(unix_now());
    match &rule.about {
        RuleKind::Ban { room, .. } => {
            let age = Duration::from_millis(unix_now_ms().saturating_sub(rule.at));
            // It may come late, when a member that was only kicked has joined again.
            let is_meant = |room: &str, peer: &Peer, here: Duration| {
                (is_active || here + MAX_CLOCK_DIFFERENCE >= age)
                    && rule.ends_membership(room, &peer.username, &peer.client_id)
            };
            let action = if is_active { "ban" } else { "kick" };
            rooms.disconnect_matching(room.as_deref(), is_meant, action);
        }
        RuleKind::Lock { room } => {
            rooms.record_moderation(room, if is_active { "lock" } else { "unlock" })
        }
        RuleKind::Mute { room, .. } => {
            rooms.record_moderation(room, if is_active { "mute" } else { "unmute" })
        }
        RuleKind::Capacity { room } => {
            rooms.set_room_capacity(room, rule.members.filter(|_| is_active))
        }
    }
}

/// Delivers an announcement of another node's administrator to the members here.
pub(super) fn deliver_announcement(rooms: &RoomRegistry, announcement: &str) {
    if let Ok(Announcement { room, to, frame }) = serde_json::from_str(announcement) {
        rooms.announce(&room, to.as_deref(), &ByteString::from(frame));
    }
}
