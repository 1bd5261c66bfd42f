//! What is told of a room, and how it reads.

use std::sync::Arc;

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

/// Something that has happened in a room.
#[derive(Clone, Debug)]
pub struct Event {
    /// Nothing else ever has it; it stays over retries.
    pub id: Uuid,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// Where.
    pub room: Arc<str>,
    /// Its number in the room: 1 opens it, and what happened later has a higher one.
    pub sequence: u64,
    /// What.
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum What {
    /// `room.opened`: the first member comes.
    RoomOpened {},
    /// `room.closed`: the last member has left.
    RoomClosed {},
    /// `member.joined`.
    MemberJoined {
        /// The client id.
        client_id: Arc<str>,
        /// The account, or the guest's name.
        username: Arc<str>,
    },
    /// `member.left`.
    MemberLeft {
        /// The client id.
        client_id: Arc<str>,
        /// The account, or the guest's name.
        username: Arc<str>,
        /// Why, in one word.
        reason: String,
    },
    /// `call.report`: what a member says became of one of its calls.
    CallReport {
        /// The client id.
        client_id: Arc<str>,
        /// The account, or the guest's name.
        username: Arc<str>,
        /// The client id of whom the call was with, where it was said and is there.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<Arc<str>>,
        /// `connected` or `failed`.
        outcome: &'static str,
        /// How long that took, in milliseconds.
        ms: u64,
        /// Which way the media takes, where it was said: `host`, `srflx` or `relay`.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'static str>,
    },
}

impl What {
    /// The `type` of the event.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RoomOpened {} => "room.opened",
            Self::RoomClosed {} => "room.closed",
            Self::MemberJoined { .. } => "member.joined",
            Self::MemberLeft { .. } => "member.left",
            Self::CallReport { .. } => "call.report",
        }
    }
}

impl Event {
    /// The body that is posted; `node` where there are several servers.
    pub fn json(&self, node: Option<&str>) -> String {
        let body = Body {
            id: self.id.to_string(),
            kind: self.what.kind(),
            time: rfc_3339(self.at),
            room_id: &self.room,
            sequence: self.sequence,
            node,
            what: &self.what,
        };
        #[expect(clippy::expect_used, reason = "strings and numbers")]
        serde_json::to_string(&body).expect("an event can be written")
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
    what: &'a What,
}

/// A time as people and programs read it, in UTC and with milliseconds (RFC 3339).
fn rfc_3339(millis: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    let text = at.ok().and_then(|at| at.format(&Rfc3339).ok());
    text.unwrap_or_default()
}
