//! What administrators do with rooms and members, on this server and on all that share rooms with it.

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
    rooms::{Peer, RoomRegistry},
    wire::ServerMessage,
};

/// How far the clocks of two servers may differ without somebody staying who was thrown out just after coming in.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

/// Something to say to a room, or to one of its members, on every server.
#[derive(Deserialize, Serialize)]
struct Announcement {
    room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    frame: String,
}

impl AppState {
    /// Throws members out of a room, or an account out of all, and keeps them out for so many seconds, which may be 0.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then nothing has changed.
    pub async fn ban(
        &self,
        room: Option<String>,
        who: Subject,
        seconds: u64,
    ) -> Result<ModerationRule, RuleLimitReached> {
        let order =
            self.moderation_rules.create(RuleKind::Ban { room, who }, unix_now_ms(), seconds)?;
        self.publish_rule(order.clone()).await;
        Ok(order)
    }

    /// Lets nobody into a room any more who is not in.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then nothing has changed.
    pub async fn lock(&self, room: String) -> Result<ModerationRule, RuleLimitReached> {
        let order = self.moderation_rules.create(
            RuleKind::Lock { room },
            unix_now_ms(),
            MAX_DURATION_SECONDS,
        )?;
        self.publish_rule(order.clone()).await;
        Ok(order)
    }

    /// Has a room hold so many members, also where others hold more or fewer. Who is in stays.
    ///
    /// # Errors
    ///
    /// [`TooMany`]; then nothing has changed.
    pub async fn set_capacity(
        &self,
        room: String,
        members: usize,
    ) -> Result<ModerationRule, RuleLimitReached> {
        let order = self.moderation_rules.create(
            RuleKind::Capacity { room },
            unix_now_ms(),
            MAX_DURATION_SECONDS,
        )?;
        let order = ModerationRule { members: Some(members), ..order };
        self.publish_rule(order.clone()).await;
        Ok(order)
    }

    /// Takes an order back; whether it stood.
    pub async fn remove_rule(&self, about: RuleKind) -> bool {
        let stood =
            self.moderation_rules.active(unix_now()).iter().any(|order| order.about == about);
        if stood && let Ok(order) = self.moderation_rules.create(about, unix_now_ms(), 0) {
            self.publish_rule(ModerationRule { is_lifted: true, ..order }).await;
        }
        stood
    }

    async fn publish_rule(&self, order: ModerationRule) {
        let line = order.to_line();
        apply_rule(&self.moderation_rules, &self.rooms, order);
        let app = self.clone();
        let _ = tokio::task::spawn_blocking(move || app.save_rules()).await;
        if let Some(cluster) = &self.cluster {
            cluster.publish_rules(&[line]).await;
        }
    }

    /// Says something to everybody in a room, or to one; how many that is on this server. Other servers say it to theirs.
    pub async fn announce(&self, room: String, to: Option<String>, data: &RawValue) -> usize {
        let frame = ServerMessage::Announcement { data }.encode();
        let told = self.rooms.announce(&room, to.as_deref(), &frame);
        if let Some(cluster) = &self.cluster {
            let announcement = Announcement { room, to, frame: frame.to_string() };
            if let Ok(announcement) = serde_json::to_string(&announcement) {
                cluster.publish_announcement(&announcement).await;
            }
        }
        told
    }
}

/// Takes in an order, of this server's administrator or of another's, and does what it says.
pub(super) fn apply_rule(orders: &ModerationRules, rooms: &RoomRegistry, order: ModerationRule) {
    if !orders.merge(order.clone()) {
        return;
    }
    let stands = order.is_active(unix_now());
    match &order.about {
        RuleKind::Ban { room, .. } => {
            let age = Duration::from_millis(unix_now_ms().saturating_sub(order.at));
            // It may come late, when somebody is in again who was only kicked.
            let is_meant = |room: &str, peer: &Peer, here: Duration| {
                (stands || here + MAX_CLOCK_DIFFERENCE >= age)
                    && order.ends_membership(room, &peer.username, &peer.client_id)
            };
            let act = if stands { "ban" } else { "kick" };
            rooms.disconnect_matching(room.as_deref(), is_meant, act);
        }
        RuleKind::Lock { room } => {
            rooms.record_moderation(room, if stands { "lock" } else { "unlock" })
        }
        RuleKind::Capacity { room } => {
            rooms.set_room_capacity(room, order.members.filter(|_| stands))
        }
    }
}

/// Says what another server's administrator has to say.
pub(super) fn deliver_announcement(rooms: &RoomRegistry, announcement: &str) {
    if let Ok(Announcement { room, to, frame }) = serde_json::from_str(announcement) {
        rooms.announce(&room, to.as_deref(), &ByteString::from(frame));
    }
}
