//! The events of a room that are posted, and their JSON.

use std::sync::Arc;

use serde::Serialize;
use strum::IntoStaticStr;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// An event with what identifies it.
#[derive(Clone, Debug)]
pub struct WebhookEnvelope {
    /// Unique to the event, and the same for each retry.
    pub id: Uuid,
    /// When the event happened, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The room's id.
    pub room: Arc<str>,
    /// The number of the event in its room: 1 opens the room, and later events have higher numbers.
    pub sequence: u64,
    /// What happened.
    pub event: WebhookEvent,
}

/// What happened in a room.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr, Serialize)]
#[serde(untagged)]
pub enum WebhookEvent {
    /// The first member joins.
    #[strum(serialize = "room.opened")]
    RoomOpened {},
    /// The last member has left.
    #[strum(serialize = "room.closed")]
    RoomClosed {},
    /// A member joins.
    #[strum(serialize = "member.joined")]
    MemberJoined {
        /// The client id.
        client_id: Arc<str>,
        /// The account, or the guest's name.
        username: Arc<str>,
    },
    /// A member leaves for good.
    #[strum(serialize = "member.left")]
    MemberLeft {
        /// The client id.
        client_id: Arc<str>,
        /// The account, or the guest's name.
        username: Arc<str>,
        /// Why, in one word.
        reason: String,
    },
    /// A member reports on one of its calls.
    #[strum(serialize = "call.report")]
    CallReport {
        /// The client id.
        client_id: Arc<str>,
        /// The account, or the guest's name.
        username: Arc<str>,
        /// The client id of the call's other member, if the report names a member of the room.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<Arc<str>>,
        /// `connected` or `failed`.
        outcome: &'static str,
        /// How long that took, in milliseconds.
        ms: u64,
        /// The path of the media, if the report names it: `host`, `srflx` or `relay`.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'static str>,
    },
}

impl WebhookEvent {
    /// The `type` of the event.
    pub fn kind(&self) -> &'static str {
        self.into()
    }
}

impl WebhookEnvelope {
    /// How many bytes it takes while it waits, about: its names have no other owner once their members have left.
    pub(super) fn held_bytes(&self) -> usize {
        let names = match &self.event {
            WebhookEvent::RoomOpened {} | WebhookEvent::RoomClosed {} => 0,
            WebhookEvent::MemberJoined { client_id, username } => client_id.len() + username.len(),
            WebhookEvent::MemberLeft { client_id, username, reason } => {
                client_id.len() + username.len() + reason.len()
            }
            WebhookEvent::CallReport { client_id, username, peer, .. } => {
                client_id.len() + username.len() + peer.as_ref().map_or(0, |peer| peer.len())
            }
        };
        2 * size_of::<Self>() + self.room.len() + names
    }

    /// The body that is posted. `node` is the name of this server in a cluster.
    pub fn to_json(&self, node: Option<&str>) -> String {
        let body = Body {
            id: self.id.to_string(),
            kind: self.event.kind(),
            time: format_rfc3339(self.at),
            room_id: &self.room,
            sequence: self.sequence,
            node,
            event: &self.event,
        };
        #[expect(clippy::expect_used, reason = "strings and numbers")]
        serde_json::to_string(&body).expect("an event can be serialized")
    }
}

#[derive(Serialize)]
struct Body<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    room_id: &'a str,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(flatten)]
    event: &'a WebhookEvent,
}

/// A time in UTC with milliseconds (RFC 3339).
fn format_rfc3339(millis: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    let text = at.ok().and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_default()
}
