//! What crosses a socket: the messages a client may send and those it may hear (contract section 2).
//!
//! Payloads (offer, answer, candidate, data) are carried as the bytes they came in: never
//! re-encoded, so that numbers, escapes and key order reach the peer untouched.

use std::{borrow::Cow, sync::Arc};

use bytestring::ByteString;
use memchr::memchr2_iter;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// How deep a frame may nest: the 64 levels of a payload, inside the message's own braces.
const MAX_DEPTH: usize = 65;

/// The longest piece of a client's own text that an error message repeats, in characters.
const MAX_ECHOED_CHARS: usize = 64;

/// The longest `id` that an error repeats, in bytes of JSON.
const MAX_CLIENT_ID_CHARS: usize = 128;

/// One frame from a client: the message, or why it is none, and the `id` to answer with.
#[derive(Debug)]
pub struct ClientFrame<'a> {
    /// The client's own `id` for this frame: a JSON string or number.
    pub id: Option<&'a RawValue>,
    /// The number of the last frame that the client has got, where it says so.
    pub ack: Option<u64>,
    /// What the client said.
    pub message: Result<ClientMessage<'a>, FrameError>,
}

/// One thing a client said, borrowed from the frame that carried it.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// `auth_token`: who the client is.
    AuthToken(AuthToken<'a>),
    /// `resume`: the client was here before.
    Resume(ResumeRequest<'a>),
    /// `offer`, `answer`, `ice_candidate` or `message`, on its way to others.
    Signal(Signal<'a>),
    /// `ping`.
    Ping,
    /// `call_report`: what became of a call.
    CallReport(CallReport<'a>),
}

/// The contents of a `call_report`: counted, and shown to whoever asks why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport<'a> {
    /// The client id of whom the call was with, where it was said.
    pub peer: Option<Cow<'a, str>>,
    /// How it ended up.
    pub outcome: CallOutcome,
    /// How long that took, in milliseconds.
    pub ms: u64,
    /// Which way the media takes, where it was said.
    pub path: Option<MediaPath>,
}

/// Whether two peers came together.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum CallOutcome {
    /// Media may flow.
    Connected,
    /// No way was found.
    Failed,
}

impl CallOutcome {
    /// As it is written in frames.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Failed => "failed",
        }
    }
}

/// The kind of ICE candidate that a call goes by (RFC 8445 section 4).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MediaPath {
    /// Directly.
    Host,
    /// Through a NAT.
    Srflx,
    /// By TURN.
    Relay,
}

impl MediaPath {
    /// As it is written in frames.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Srflx => "srflx",
            Self::Relay => "relay",
        }
    }
}

/// The contents of an `auth_token`.
#[derive(Debug)]
pub struct AuthToken<'a> {
    /// The token as far as the frame has one.
    pub token: TokenField<'a>,
    /// The client id that is asked for.
    pub client_id: RequestedId<'a>,
    /// What else the client can do with.
    pub features: Features,
}

/// The `features` of an `auth_token`; others are not known here, and no fault.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Features {
    /// `resume`: its frames are numbered, and it may come back.
    pub resume: bool,
    /// `peer_state`: it wants to know which peers are away.
    pub peer_state: bool,
    /// `ice`: it wants new ICE servers before the credentials of the old ones run out.
    pub ice: bool,
}

/// The contents of a `resume`.
#[derive(Debug)]
pub struct ResumeRequest<'a> {
    /// The resume token as far as the frame has one.
    pub token: TokenField<'a>,
    /// The number of the last frame that the client has got; `None` where that is no number.
    pub last_seq: Option<u64>,
}

/// The `token` of an `auth_token`, or the `resume_token` of a `resume`.
pub enum TokenField<'a> {
    /// No `token`, or `null`.
    Absent,
    /// Some text; whether it is a good token is not decided here.
    Text(Cow<'a, str>),
    /// Something that is not text.
    Malformed,
}

impl std::fmt::Debug for TokenField<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Text(_) => "Text(…)",
            Self::Malformed => "Malformed",
        })
    }
}

/// The `clientId` of an `auth_token`.
#[derive(Debug)]
pub enum RequestedId<'a> {
    /// None, `null` or empty: the server chooses.
    Any,
    /// An id of the right form.
    This(Cow<'a, str>),
    /// Not 1 to 128 characters of `A–Z a–z 0–9 . _ : @ -`.
    Malformed,
}

/// A payload on its way to one peer, or to every other member of the room.
#[derive(Debug)]
pub struct Signal<'a> {
    /// What the payload is.
    pub kind: SignalKind,
    /// The payload, byte for byte.
    pub payload: &'a RawValue,
    /// The client id of the peer it is for; `None` for everyone else in the room.
    pub to: Option<Cow<'a, str>>,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// An SDP offer.
    Offer,
    /// An SDP answer.
    Answer,
    /// An ICE candidate, or the end of candidates.
    IceCandidate,
    /// Anything that the application wants to tell its peers.
    Message,
}

impl SignalKind {
    /// The `type` of such a message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
            Self::IceCandidate => "ice_candidate",
            Self::Message => "message",
        }
    }
}

/// Why a frame was no message. The text is what its sender reads.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is not JSON.
    #[error("Not valid JSON: {0}")]
    NotJson(String),
    /// The frame is JSON, but not a message of this protocol.
    #[error("{0}")]
    NotAMessage(Cow<'static, str>),
    /// A message of a type that this server does not know.
    #[error("Unknown message type: {0}")]
    UnknownType(String),
}

impl FrameError {
    /// The machine word for this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "invalid_json",
            Self::NotAMessage(_) => "invalid_message",
            Self::UnknownType(_) => "unknown_type",
        }
    }
}

/// Reads one text frame.
pub fn parse(frame: &str) -> ClientFrame<'_> {
    let envelope = match parse_envelope(frame) {
        Ok(envelope) => envelope,
        Err(error) => return ClientFrame { id: None, ack: None, message: Err(error) },
    };
    let id =
        envelope.id.filter(|id| id.get().len() <= MAX_CLIENT_ID_CHARS && is_string_or_number(id));
    ClientFrame { id, ack: envelope.ack.and_then(value), message: envelope.message() }
}

/// Whether `id` may name a member: 1 to 128 characters of `A–Z a–z 0–9 . _ : @ -`.
pub fn is_client_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte))
}

/// `text`, cut so that an error which repeats it stays short.
pub fn truncate_for_error(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHOED_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Every field that some message has, still raw, so that one bad field does not hide the `id`.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ack: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    to: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    token: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    resume_token: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    last_seq: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    features: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    outcome: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ms: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    path: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    peer: Option<&'a RawValue>,
    #[serde(rename = "clientId", borrow, default, deserialize_with = "present")]
    client_id: Option<&'a RawValue>,
    #[serde(rename = "client_id", borrow, default, deserialize_with = "present")]
    client_id_in_snake_case: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    offer: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    answer: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    candidate: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
}

/// A field that is there, `null` included; serde's own `Option` would take `null` for absent.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

/// Text in a frame. Borrowed where it has no escapes; `&str` alone would refuse those.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn parse_envelope(frame: &str) -> Result<Envelope<'_>, FrameError> {
    if nests_too_deep(frame) {
        return Err(FrameError::NotAMessage("Nested deeper than 64 levels".into()));
    }
    // A derived struct would take an array for its fields in order.
    if frame.trim_ascii_start().starts_with('[') {
        return Err(not_an_object(frame));
    }
    serde_json::from_str(frame).map_err(|error| match error.classify() {
        serde_json::error::Category::Data if error.to_string().starts_with("duplicate field") => {
            FrameError::NotAMessage("A field occurs twice".into())
        }
        serde_json::error::Category::Data => not_an_object(frame),
        serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof
        | serde_json::error::Category::Io => not_json(frame, &error),
    })
}

/// The error for a frame that starts like another kind of JSON value.
fn not_an_object(frame: &str) -> FrameError {
    match serde_json::from_str::<&RawValue>(frame) {
        Ok(_) => FrameError::NotAMessage("A message is a JSON object with a \"type\"".into()),
        Err(error) => not_json(frame, &error),
    }
}

/// The error for a frame that does not parse. Python's `json` writes `NaN` and `Infinity`, which no
/// browser reads; that is told apart, since the rest of such a frame is well-formed.
fn not_json(frame: &str, error: &serde_json::Error) -> FrameError {
    let rest = frame.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let stopped = error.column().saturating_sub(1);
    let literal = ["NaN", "Infinity", "-Infinity"].iter().any(|literal| {
        (stopped.saturating_sub(1)..=stopped)
            .any(|at| rest.get(at..).is_some_and(|rest| rest.starts_with(literal)))
    });
    if literal {
        return FrameError::NotAMessage("NaN and Infinity are not JSON".into());
    }
    FrameError::NotJson(error.to_string())
}

/// Whether brackets nest deeper than [`MAX_DEPTH`], by counting those outside of strings.
fn nests_too_deep(frame: &str) -> bool {
    // Nearly every frame has fewer brackets than that in all, and to find so much costs little.
    if memchr2_iter(b'{', b'[', frame.as_bytes()).nth(MAX_DEPTH).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in frame.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

impl<'a> Envelope<'a> {
    fn message(&self) -> Result<ClientMessage<'a>, FrameError> {
        let kind = self.kind.and_then(text).ok_or_else(|| field("type", "a string"))?;
        match &*kind {
            "auth_token" => Ok(ClientMessage::AuthToken(self.auth_token())),
            "resume" => Ok(ClientMessage::Resume(ResumeRequest {
                token: token(self.resume_token),
                last_seq: self.last_seq.and_then(value),
            })),
            "ping" => Ok(ClientMessage::Ping),
            "call_report" => self.call_report().map(ClientMessage::CallReport),
            "offer" => self.signal(SignalKind::Offer, object("offer", self.offer)?),
            "answer" => self.signal(SignalKind::Answer, object("answer", self.answer)?),
            "ice_candidate" => {
                self.signal(SignalKind::IceCandidate, self.candidate.unwrap_or(RawValue::NULL))
            }
            "message" => self.signal(
                SignalKind::Message,
                self.data.ok_or_else(|| field("data", "any JSON value"))?,
            ),
            _ => Err(FrameError::UnknownType(truncate_for_error(&kind))),
        }
    }

    fn auth_token(&self) -> AuthToken<'a> {
        let requested = [self.client_id, self.client_id_in_snake_case];
        let client_id = match requested.into_iter().flatten().find(|raw| !is_null(raw)) {
            None => RequestedId::Any,
            Some(raw) => match text(raw) {
                Some(id) if id.is_empty() => RequestedId::Any,
                Some(id) if is_client_id(&id) => RequestedId::This(id),
                _ => RequestedId::Malformed,
            },
        };
        AuthToken { token: token(self.token), client_id, features: features(self.features) }
    }

    fn call_report(&self) -> Result<CallReport<'a>, FrameError> {
        let outcome = self
            .outcome
            .and_then(value)
            .ok_or_else(|| field("outcome", "\"connected\" or \"failed\""))?;
        let ms = self.ms.and_then(value).ok_or_else(|| field("ms", "whole milliseconds"))?;
        let path = match self.path.filter(|raw| !is_null(raw)) {
            None => None,
            Some(raw) => {
                Some(value(raw).ok_or_else(|| field("path", "\"host\", \"srflx\" or \"relay\""))?)
            }
        };
        // Of any other type it names nobody.
        Ok(CallReport { peer: self.peer.and_then(text), outcome, ms, path })
    }

    fn signal(
        &self,
        kind: SignalKind,
        payload: &'a RawValue,
    ) -> Result<ClientMessage<'a>, FrameError> {
        if kind == SignalKind::IceCandidate && !starts_with_any(payload, "{\"n") {
            return Err(field("candidate", "an object, a string or null"));
        }
        let to = match self.to {
            None => None,
            Some(raw) if is_null(raw) => None,
            Some(raw) => {
                Some(text(raw).ok_or_else(|| field("to", "a string: the client id of a peer"))?)
            }
        };
        let to = to.filter(|to| !to.is_empty());
        Ok(ClientMessage::Signal(Signal { kind, payload, to }))
    }
}

fn object<'a>(name: &'static str, raw: Option<&'a RawValue>) -> Result<&'a RawValue, FrameError> {
    raw.filter(|raw| starts_with_any(raw, "{")).ok_or_else(|| field(name, "an object"))
}

fn field(name: &str, wanted: &str) -> FrameError {
    FrameError::NotAMessage(format!("Field \"{name}\" must be {wanted}").into())
}

fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|Text(text)| text)
}

fn token(raw: Option<&RawValue>) -> TokenField<'_> {
    match raw {
        None => TokenField::Absent,
        Some(raw) if is_null(raw) => TokenField::Absent,
        Some(raw) => text(raw).map_or(TokenField::Malformed, TokenField::Text),
    }
}

fn features(raw: Option<&RawValue>) -> Features {
    let named = raw.and_then(value::<Vec<&RawValue>>).unwrap_or_default();
    let names: Vec<_> = named.into_iter().filter_map(text).collect();
    let has = |name| names.iter().any(|known| known == name);
    Features { resume: has("resume"), peer_state: has("peer_state"), ice: has("ice") }
}

fn value<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

fn is_string_or_number(raw: &RawValue) -> bool {
    starts_with_any(raw, "\"-0123456789")
}

fn starts_with_any(raw: &RawValue, starts: &str) -> bool {
    raw.get().starts_with(|first| starts.contains(first))
}

/// One thing a client hears; encoded once, shared by all who hear it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(missing_docs, reason = "contract section 2 names every field")]
pub enum ServerMessage<'a> {
    /// The first message on every socket.
    AuthRequired {
        message: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        guests: bool,
    },
    /// The client is in.
    AuthSuccess {
        user: &'a str,
        client_id: &'a str,
        message: &'a str,
        #[serde(rename = "iceServers", skip_serializing_if = "<[_]>::is_empty")]
        ice_servers: &'a [IceServer],
        #[serde(flatten)]
        ticket: Option<ResumeOffer<'a>>,
    },
    /// The client is in again, and `replayed` frames that it has not got follow. `users` are the
    /// others that are there now.
    Resumed {
        client_id: &'a str,
        replayed: usize,
        users: Vec<RosterEntry<'a>>,
        #[serde(rename = "iceServers", skip_serializing_if = "<[_]>::is_empty")]
        ice_servers: &'a [IceServer],
        #[serde(flatten)]
        ticket: Option<ResumeOffer<'a>>,
    },
    /// Something that an administrator has to say.
    #[serde(rename = "server_message")]
    Announcement { data: &'a RawValue },
    /// In place of the `iceServers` so far; `ttl` in seconds.
    IceServers {
        #[serde(rename = "iceServers")]
        ice_servers: &'a [IceServer],
        ttl: u64,
    },
    /// A peer's connection is gone, and it may come back; or it has.
    PeerState { client_id: &'a str, state: &'a str },
    /// Everyone who was already there.
    UsersInRoom { users: Vec<RosterEntry<'a>> },
    /// Somebody came.
    UserJoined {
        room_id: &'a str,
        username: &'a str,
        client_id: &'a str,
        connected_users: usize,
        /// As of [`PeerInRoom`].
        polite: bool,
    },
    /// Somebody left.
    UserLeft { room_id: &'a str, client_id: &'a str, username: &'a str, connected_users: usize },
    /// The answer to `ping`.
    Pong,
    /// The new token holds; `expires_in` in seconds.
    TokenRefreshed {
        expires_in: u64,
        #[serde(flatten)]
        ticket: Option<ResumeOffer<'a>>,
    },
    /// Something the client said was refused, or the connection is about to end.
    Error {
        message: &'a str,
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        /// Only before a close: whether coming back makes sense.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// The server stops; the time is spread so that not everyone is back at once.
    ServerShutdown { reconnect_in_ms: u64 },
}

/// What a client needs to come back.
#[derive(Clone, Copy, Serialize)]
pub struct ResumeOffer<'a> {
    /// What it shows then; means nothing to it.
    pub resume_token: &'a str,
    /// How long it may be away, in seconds.
    pub resume_window_seconds: u64,
}

impl std::fmt::Debug for ResumeOffer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketToResume(…)")
    }
}

/// A member as `users_in_room` lists it.
#[derive(Debug, Serialize)]
pub struct RosterEntry<'a> {
    /// Its client id.
    pub client_id: &'a str,
    /// Who it is.
    pub username: &'a str,
    /// Whether the reader gives way to it when both offer at once (perfect negotiation, W3C WebRTC 10.7):
    /// who came later does.
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

impl ServerMessage<'_> {
    /// The message as one text frame.
    pub fn encode(&self) -> ByteString {
        json_of(self).into()
    }
}

/// A frame of ours with its number in it.
pub fn with_seq(frame: &str, seq: u64) -> ByteString {
    let rest = frame.strip_prefix('{').unwrap_or(frame);
    format!(r#"{{"seq":{seq},{rest}"#).into()
}

/// Who a signal is from, as it stands at the end of every frame that its sender's peers hear.
#[derive(Clone, Debug)]
pub struct SenderSuffix(Arc<str>);

impl SenderSuffix {
    /// Of the member `client_id`, who is `username`.
    pub fn new(client_id: &str, username: &str) -> Self {
        let (from, username) = (json_of(client_id), json_of(username));
        Self(format!(r#","from":{from},"username":{username}}}"#).into())
    }
}

impl Signal<'_> {
    /// The frame that the receivers of this signal hear.
    pub fn encode_for_peers(&self, signature: &SenderSuffix) -> ByteString {
        let before = match self.kind {
            SignalKind::Offer => r#"{"type":"offer","offer":"#,
            SignalKind::Answer => r#"{"type":"answer","answer":"#,
            SignalKind::IceCandidate => r#"{"type":"ice_candidate","candidate":"#,
            SignalKind::Message => r#"{"type":"message","data":"#,
        };
        [before, self.payload.get(), &signature.0].concat().into()
    }
}

fn json_of(value: &(impl Serialize + ?Sized)) -> String {
    #[expect(clippy::expect_used, reason = "see the message")]
    serde_json::to_string(value).expect("only strings and numbers: nothing here can fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(frame: &str) -> FrameError {
        parse(frame).message.unwrap_err()
    }

    fn signal(frame: &str) -> Signal<'_> {
        match parse(frame).message.unwrap() {
            ClientMessage::Signal(signal) => signal,
            other => panic!("{other:?} is no signal"),
        }
    }

    #[test]
    fn a_payload_is_passed_on_byte_for_byte() {
        let payload = r#"{ "sdp" :"v=0\r\n\u00e9\ud83d\ude00é","n":[1.0,1e2,-0,12345678901234567890123], "a":null}"#;
        let frame = format!(r#"{{"type":"offer","to":"bob","offer":{payload},"extra":[1]}}"#);

        let heard = signal(&frame).encode_for_peers(&SenderSuffix::new("alice", "Alice \"A\""));

        let expected = format!(
            r#"{{"type":"offer","offer":{payload},"from":"alice","username":"Alice \"A\""}}"#
        );
        assert_eq!(heard, *expected);
    }

    #[test]
    fn a_missing_an_empty_and_a_null_target_are_the_whole_room() {
        for to in ["", r#","to":"""#, r#","to":null"#] {
            let frame = format!(r#"{{"type":"message","data":1{to}}}"#);

            assert_eq!(signal(&frame).to, None, "{frame}");
        }
        assert_eq!(
            signal(r#"{"type":"message","data":1,"to":"b\u00e9"}"#).to.as_deref(),
            Some("bé")
        );
    }

    #[test]
    fn a_target_of_another_type_is_never_the_whole_room() {
        for to in ["[]", "{}", "0", "false", "true", "1.5", r#"["bob"]"#] {
            let frame = format!(r#"{{"type":"message","data":1,"to":{to},"id":7}}"#);

            assert_eq!(refusal(&frame).code(), "invalid_message", "{frame}");
            assert_eq!(parse(&frame).id.map(RawValue::get), Some("7"));
        }
    }

    #[test]
    fn the_end_of_candidates_comes_in_three_spellings() {
        let of = |frame| signal(frame).payload.get();

        assert_eq!(of(r#"{"type":"ice_candidate"}"#), "null");
        assert_eq!(of(r#"{"type":"ice_candidate","candidate":null}"#), "null");
        assert_eq!(of(r#"{"type":"ice_candidate","candidate":""}"#), r#""""#);
    }

    #[test]
    fn what_is_no_json_is_told_from_what_is_no_message() {
        let cases = [
            ("", "invalid_json"),
            ("{", "invalid_json"),
            ("hello", "invalid_json"),
            ("[", "invalid_json"),
            (r#"{"type":"ping"} x"#, "invalid_json"),
            ("[]", "invalid_message"),
            (r#"["ping"]"#, "invalid_message"),
            ("1", "invalid_message"),
            ("null", "invalid_message"),
            (r#""ping""#, "invalid_message"),
            ("{}", "invalid_message"),
            (r#"{"type":5}"#, "invalid_message"),
            (r#"{"type":"offer"}"#, "invalid_message"),
            (r#"{"type":"offer","offer":[]}"#, "invalid_message"),
            (r#"{"type":"answer","answer":"v=0"}"#, "invalid_message"),
            (r#"{"type":"ice_candidate","candidate":5}"#, "invalid_message"),
            (r#"{"type":"ice_candidate","candidate":[]}"#, "invalid_message"),
            (r#"{"type":"message"}"#, "invalid_message"),
            (r#"{"type":"ping","type":"offer"}"#, "invalid_message"),
            (r#"{"type":"offer","offer":NaN}"#, "invalid_message"),
            ("{\"type\":\"offer\",\n \"offer\":{\"a\":-Infinity}}", "invalid_message"),
            (r#"{"type":"message","data":Infinity}"#, "invalid_message"),
            (r#"{"type":"Ping"}"#, "unknown_type"),
        ];

        for (frame, code) in cases {
            assert_eq!(refusal(frame).code(), code, "{frame}");
        }
    }

    #[test]
    fn a_payload_may_nest_64_levels_and_no_more() {
        let frame = |depth| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            format!(r#"{{"type":"message","data":{open}"[[\"[[{{"{close}}}"#)
        };

        assert!(parse(&frame(64)).message.is_ok());
        assert_eq!(refusal(&frame(65)).code(), "invalid_message");
        assert_eq!(refusal(&frame(100_000)).code(), "invalid_message");
    }

    #[test]
    fn an_error_never_repeats_more_than_a_line_of_what_was_sent() {
        let long = "é".repeat(10_000);

        let error = refusal(&format!(r#"{{"type":"{long}"}}"#)).to_string();

        assert_eq!(error, format!("Unknown message type: {}…", "é".repeat(64)));
    }

    #[test]
    fn only_a_short_string_or_number_is_an_id() {
        for (id, kept) in
            [("\"a\"", true), ("-1.5", true), ("{}", false), ("null", false), ("true", false)]
        {
            assert_eq!(parse(&format!(r#"{{"type":"x","id":{id}}}"#)).id.is_some(), kept, "{id}");
        }
        assert!(parse(&format!(r#"{{"type":"x","id":"{}"}}"#, "x".repeat(200))).id.is_none());
    }

    #[test]
    fn a_client_id_has_one_form() {
        let auth = |id: &str| match parse(&format!(r#"{{"type":"auth_token","clientId":{id}}}"#))
            .message
        {
            Ok(ClientMessage::AuthToken(AuthToken { client_id, .. })) => match client_id {
                RequestedId::Any => "any".to_owned(),
                RequestedId::This(id) => format!("this {id}"),
                RequestedId::Malformed => "malformed".to_owned(),
            },
            other => panic!("{other:?}"),
        };

        assert_eq!(auth("null"), "any");
        assert_eq!(auth("\"\""), "any");
        assert_eq!(auth("\"a.B_9:@-\""), "this a.B_9:@-");
        for bad in ["7", "{}", "[\"a\"]", "\"a b\"", "\"a\\n\"", "\"\\u0000\"", "\"é\""] {
            assert_eq!(auth(bad), "malformed", "{bad}");
        }
        assert_eq!(auth(&format!("\"{}\"", "a".repeat(128))), format!("this {}", "a".repeat(128)));
        assert_eq!(auth(&format!("\"{}\"", "a".repeat(129))), "malformed");
    }
}
