//! Encodes the frames that the server sends.

use bytestring::ByteString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::raw_json::RawJson;

/// A frame from the server. It is encoded once and shared by all its receivers.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "docs/build/protocol.md describes every field")]
pub enum ServerMessage<'a> {
    /// The first frame on every connection.
    AuthRequired {
        message: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        guests: bool,
    },
    /// The client is a member of the room.
    AuthSuccess {
        user: &'a str,
        client_id: &'a str,
        message: &'a str,
        /// How long the access token is still valid, in seconds; a guest has none.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
        limits: MessageLimits,
        #[serde(rename = "iceServers", skip_serializing_if = "<[_]>::is_empty")]
        ice_servers: &'a [IceServer],
        /// `relay` where the client must use TURN servers only.
        #[serde(rename = "iceTransportPolicy", skip_serializing_if = "Option::is_none")]
        ice_transport_policy: Option<&'static str>,
        /// Only where the token limits them.
        #[serde(skip_serializing_if = "Option::is_none")]
        permissions: Option<GrantedPermissions<'a>>,
        #[serde(flatten)]
        resume_offer: Option<ResumeOffer<'a>>,
    },
    /// The client has resumed its membership, and the `replayed` frames that it had not received follow. `users`
    /// are the other members of the room now.
    Resumed {
        client_id: &'a str,
        replayed: usize,
        users: Vec<RosterEntry<'a>>,
        limits: MessageLimits,
        #[serde(rename = "iceServers", skip_serializing_if = "<[_]>::is_empty")]
        ice_servers: &'a [IceServer],
        /// `relay` where the client must use TURN servers only.
        #[serde(rename = "iceTransportPolicy", skip_serializing_if = "Option::is_none")]
        ice_transport_policy: Option<&'static str>,
        /// Only where the token limits them.
        #[serde(skip_serializing_if = "Option::is_none")]
        permissions: Option<GrantedPermissions<'a>>,
        #[serde(flatten)]
        resume_offer: Option<ResumeOffer<'a>>,
    },
    /// An announcement of an administrator.
    #[serde(rename = "server_message")]
    Announcement { data: &'a RawValue },
    /// Replaces the client's `iceServers`; `ttl` in seconds.
    IceServers {
        #[serde(rename = "iceServers")]
        ice_servers: &'a [IceServer],
        ttl: u64,
    },
    /// Replaces the limits of the client's messages.
    Limits { limits: MessageLimits },
    /// A peer has lost its connection and may return; or it has returned.
    PeerState { client_id: &'a str, state: &'a str },
    /// The members that were in the room before the client.
    UsersInRoom { users: Vec<RosterEntry<'a>> },
    /// A peer has joined.
    UserJoined {
        room_id: &'a str,
        username: &'a str,
        client_id: &'a str,
        /// As in [`RosterEntry`].
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<&'a str>,
        connected_users: usize,
        /// As in [`RosterEntry`].
        polite: bool,
    },
    /// A peer has left.
    UserLeft { room_id: &'a str, client_id: &'a str, username: &'a str, connected_users: usize },
    /// The answer to `ping`.
    Pong,
    /// What a moderator asked for is in force.
    Moderated {
        action: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RawJson<'a>>,
    },
    /// The session now lasts as long as the new token; `expires_in` in seconds.
    TokenRefreshed {
        expires_in: u64,
        /// As in [`Self::AuthSuccess`].
        #[serde(rename = "iceTransportPolicy", skip_serializing_if = "Option::is_none")]
        ice_transport_policy: Option<&'static str>,
        /// As in [`Self::AuthSuccess`].
        #[serde(skip_serializing_if = "Option::is_none")]
        permissions: Option<GrantedPermissions<'a>>,
        #[serde(flatten)]
        resume_offer: Option<ResumeOffer<'a>>,
    },
    /// A frame of the client was refused, or the connection is about to end.
    Error {
        message: &'a str,
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RawJson<'a>>,
        /// Only before a close: whether the client may connect again.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// Only with `message_too_big`: the limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_message_bytes: Option<usize>,
    },
    /// The server is stopping; the time is spread so that its clients do not all return at once.
    ServerShutdown { reconnect_in_ms: u64 },
}

impl ServerMessage<'_> {
    /// The message as one text frame.
    pub fn encode(&self) -> ByteString {
        to_json(self).into()
    }
}

/// How large the messages of a client may be, and how many it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MessageLimits {
    /// The longest message, in bytes: the payload of its text frame.
    pub max_message_bytes: usize,
    /// How many messages it may send each second, sustained.
    pub messages_per_second: u32,
    /// How many messages it may send at once.
    pub message_burst: u32,
    /// How many bytes of messages it may send each second, sustained.
    pub bytes_per_second: u32,
}

/// What the token of a client allows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrantedPermissions<'a> {
    /// The rooms, or beginnings of their names with `*`; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<&'a [String]>,
    /// `join`, `send`, `broadcast`, `moderate`.
    pub can: Vec<&'static str>,
}

/// What a client needs to resume its membership.
#[derive(Clone, Copy, Serialize)]
pub struct ResumeOffer<'a> {
    /// The token that it presents; opaque to the client.
    pub resume_token: &'a str,
    /// How long it may be without a connection, in seconds.
    pub resume_window_seconds: u64,
}

impl std::fmt::Debug for ResumeOffer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeOffer(…)")
    }
}

/// A member as `users_in_room` lists it.
#[derive(Debug, Serialize)]
pub struct RosterEntry<'a> {
    /// Its client id.
    pub client_id: &'a str,
    /// Its user.
    pub username: &'a str,
    /// The display name that its token gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// Whether the reader of the list is the polite peer towards it (perfect negotiation, W3C WebRTC 10.7): when
    /// both offer at once, the one that came later gives way.
    pub polite: bool,
}

/// An `RTCIceServer`: an entry of `iceServers` for `new RTCPeerConnection(…)` (W3C WebRTC, 4.2.4).
#[derive(Clone, Serialize, utoipa::ToSchema)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URLs.
    pub urls: Vec<String>,
    /// TURN user name; absent for STUN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// TURN password; absent for STUN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// `frame`, an encoded [`ServerMessage`] or signal, with its sequence number in front of its other fields.
pub fn with_seq(frame: &str, seq: u64) -> ByteString {
    let rest = frame.strip_prefix('{').unwrap_or(frame);
    format!(r#"{{"seq":{seq},{rest}"#).into()
}

pub(super) fn to_json(value: &(impl Serialize + ?Sized)) -> String {
    #[expect(clippy::expect_used, reason = "see the message")]
    serde_json::to_string(value).expect("only strings and numbers: serializing them cannot fail")
}
