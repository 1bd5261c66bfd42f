//! Parses the frames that clients send.

use std::borrow::Cow;

use memchr::memchr2_iter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use strum::IntoStaticStr;

use super::{
    CallReport, ModerationRequest, RequestedId, Signal, SignalKind,
    call_report::MAX_CALL_SETUP_MS,
    envelope::Envelope,
    fields::{field, object},
    is_client_id,
    raw_json::RawJson,
    scan::{MAX_FIELD_DEPTH, scan},
};

/// How deep a frame may nest: the levels of a field, and the message's own braces around it.
const MAX_DEPTH: usize = MAX_FIELD_DEPTH + 1;

/// The most of a client's own text that an error message repeats, in characters.
const MAX_ECHOED_CHARS: usize = 64;

/// The longest `id` that an error repeats, in bytes of JSON.
const MAX_FRAME_ID_BYTES: usize = 128;

/// The longest ban or mute, in seconds: ten years, as for administrators.
const MAX_RULE_SECONDS: u64 = 10 * 365 * 86_400;

/// A frame from a client: its message, or the error, and the `id` for the answer.
#[derive(Debug)]
pub struct ClientFrame<'a> {
    /// The client's own `id` for this frame: a JSON string or number.
    pub id: Option<RawJson<'a>>,
    /// The sequence number of the last frame that the client has received, where the frame names it.
    pub ack: Option<u64>,
    /// The message, or why the frame contains none.
    pub message: Result<ClientMessage<'a>, FrameError>,
}

/// A message from a client, borrowed from the frame that carried it.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// `auth_token`: the client authenticates.
    AuthToken(AuthToken<'a>),
    /// `resume`: the client returns to its membership.
    Resume(ResumeRequest<'a>),
    /// `offer`, `answer`, `ice_candidate` or `message`, for peers.
    Signal(Signal<'a>),
    /// `ping`.
    Ping,
    /// `call_report`: the result of a call.
    CallReport(CallReport<'a>),
    /// `kick`, `mute`, `unmute`, `lock` or `unlock`: a moderator acts on the room.
    Moderate(ModerationRequest<'a>),
}

/// The contents of an `auth_token`.
#[derive(Debug)]
pub struct AuthToken<'a> {
    /// The access token.
    pub token: TokenField<'a>,
    /// The client id that the client asks for.
    pub client_id: RequestedId<'a>,
    /// The optional features that the client supports.
    pub features: Features,
}

/// The `features` of an `auth_token`. The server ignores names that it does not know.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Features {
    /// `resume`: its frames have sequence numbers, and it may resume its membership.
    pub resume: bool,
    /// `peer_state`: it receives which peers are detached.
    pub peer_state: bool,
    /// `ice`: it receives new ICE servers before the TURN credentials expire.
    pub ice: bool,
    /// `limits`: it receives the limits of its messages again when they change.
    #[serde(default)] // a record of an earlier version has none
    pub limits: bool,
}

/// The contents of a `resume`.
#[derive(Debug)]
pub struct ResumeRequest<'a> {
    /// The resume token.
    pub token: TokenField<'a>,
    /// The sequence number of the last frame that the client has received; `None` where the field is no such number.
    pub last_seq: Option<u64>,
}

/// The `token` of an `auth_token`, or the `resume_token` of a `resume`.
pub enum TokenField<'a> {
    /// Absent, or `null`.
    Absent,
    /// A string. Whether it is a valid token is not decided here.
    Text(Cow<'a, str>),
    /// Not a string.
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

/// Why a frame is no message. The text is for the client that sent it.
#[derive(Debug, PartialEq, Eq, IntoStaticStr, thiserror::Error)]
pub enum FrameError {
    /// The frame is not JSON.
    #[strum(serialize = "invalid_json")]
    #[error("Not valid JSON: {0}")]
    NotJson(String),
    /// The frame is JSON, but not a message of this protocol.
    #[strum(serialize = "invalid_message")]
    #[error("{0}")]
    NotAMessage(Cow<'static, str>),
    /// The message has a type that this server does not know.
    #[strum(serialize = "unknown_type")]
    #[error("Unknown message type: {0}")]
    UnknownType(String),
}

impl FrameError {
    /// The `code` of the `error` frame.
    pub fn code(&self) -> &'static str {
        self.into()
    }
}

/// Parses one text frame.
pub fn parse(frame: &str) -> ClientFrame<'_> {
    let envelope = match parse_envelope(frame) {
        Ok(envelope) => envelope,
        Err(error) => return ClientFrame { id: None, ack: None, message: Err(error) },
    };
    let id = envelope.frame_id();
    ClientFrame { id, ack: envelope.ack.and_then(RawJson::value), message: envelope.message() }
}

/// `text`, shortened for an error message that repeats it.
pub fn truncate_for_error(text: &str) -> String {
    match text.char_indices().nth(MAX_ECHOED_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn parse_envelope(frame: &str) -> Result<Envelope<'_>, FrameError> {
    let mut envelope = Envelope::default();
    match scan(frame, &mut envelope) {
        Some(()) => Ok(envelope),
        None => parse_unusual(frame),
    }
}

/// Parses any frame, and says what is wrong with one that is no message.
pub(super) fn parse_unusual(frame: &str) -> Result<Envelope<'_>, FrameError> {
    if nests_too_deep(frame) {
        return Err(FrameError::NotAMessage("Nested deeper than 64 levels".into()));
    }
    // A derived struct would accept an array, as its fields in order.
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

/// The error for a frame that starts like a JSON value other than an object.
fn not_an_object(frame: &str) -> FrameError {
    match serde_json::from_str::<&RawValue>(frame) {
        Ok(_) => FrameError::NotAMessage("A message is a JSON object with a \"type\"".into()),
        Err(error) => not_json(frame, &error),
    }
}

/// The error for a frame that does not parse. Python's `json` writes `NaN` and `Infinity`, which no browser
/// accepts. They have an error of their own, since the rest of such a frame is well-formed.
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
    // Nearly every frame has fewer brackets than that in all, and this check is cheap.
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
    /// The `id` that errors about the frame repeat.
    fn frame_id(&self) -> Option<RawJson<'a>> {
        self.id.filter(|id| id.get().len() <= MAX_FRAME_ID_BYTES && id.is_string_or_number())
    }

    fn message(&self) -> Result<ClientMessage<'a>, FrameError> {
        let kind = self.kind.and_then(RawJson::text).ok_or_else(|| field("type", "a string"))?;
        match &*kind {
            "auth_token" => Ok(ClientMessage::AuthToken(self.auth_token())),
            "resume" => Ok(ClientMessage::Resume(ResumeRequest {
                token: token(self.resume_token),
                last_seq: self.last_seq.and_then(RawJson::value),
            })),
            "ping" => Ok(ClientMessage::Ping),
            "call_report" => self.call_report().map(ClientMessage::CallReport),
            "kick" => self.kick().map(ClientMessage::Moderate),
            "mute" => self.mute().map(ClientMessage::Moderate),
            "unmute" => {
                let client_id = self.moderated_client()?;
                Ok(ClientMessage::Moderate(ModerationRequest::Unmute { client_id }))
            }
            "lock" => Ok(ClientMessage::Moderate(ModerationRequest::Lock)),
            "unlock" => Ok(ClientMessage::Moderate(ModerationRequest::Unlock)),
            "offer" => self.signal(SignalKind::Offer, object("offer", self.offer)?),
            "answer" => self.signal(SignalKind::Answer, object("answer", self.answer)?),
            "ice_candidate" => {
                self.signal(SignalKind::IceCandidate, self.candidate.unwrap_or(RawJson::NULL))
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
        let client_id = match requested.into_iter().flatten().find(|raw| !raw.is_null()) {
            None => RequestedId::Any,
            Some(raw) => match raw.text() {
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
            .and_then(RawJson::value)
            .ok_or_else(|| field("outcome", "\"connected\" or \"failed\""))?;
        let ms =
            self.ms.and_then(RawJson::value).ok_or_else(|| field("ms", "whole milliseconds"))?;
        let ms = u64::min(ms, MAX_CALL_SETUP_MS);
        let path = match self.path.filter(|raw| !raw.is_null()) {
            None => None,
            Some(raw) => {
                Some(raw.value().ok_or_else(|| field("path", "\"host\", \"srflx\" or \"relay\""))?)
            }
        };
        // A `peer` that is not a string names no peer.
        Ok(CallReport { peer: self.peer.and_then(RawJson::text), outcome, ms, path })
    }

    fn kick(&self) -> Result<ModerationRequest<'a>, FrameError> {
        let client_id = self.moderated_client()?;
        let ban_seconds = match self.ban_seconds.filter(|raw| !raw.is_null()) {
            None => 0,
            Some(raw) => raw
                .value::<u64>()
                .filter(|seconds| *seconds <= MAX_RULE_SECONDS)
                .ok_or_else(|| field("ban_seconds", "a whole number of seconds up to 315360000"))?,
        };
        Ok(ModerationRequest::Kick { client_id, ban_seconds })
    }

    fn mute(&self) -> Result<ModerationRequest<'a>, FrameError> {
        let client_id = self.moderated_client()?;
        let seconds = match self.seconds.filter(|raw| !raw.is_null()) {
            None => None,
            Some(raw) => Some(
                raw.value::<u64>()
                    .filter(|seconds| (1..=MAX_RULE_SECONDS).contains(seconds))
                    .ok_or_else(|| field("seconds", "a whole number from 1 to 315360000"))?,
            ),
        };
        Ok(ModerationRequest::Mute { client_id, seconds })
    }

    /// The member that a moderator's message is about.
    fn moderated_client(&self) -> Result<Cow<'a, str>, FrameError> {
        let client_id = self.to.and_then(RawJson::text).filter(|to| is_client_id(to));
        client_id.ok_or_else(|| field("to", "the client id of a member"))
    }

    fn signal(
        &self,
        kind: SignalKind,
        payload: RawJson<'a>,
    ) -> Result<ClientMessage<'a>, FrameError> {
        if kind == SignalKind::IceCandidate && !payload.starts_with_any(b"{\"n") {
            return Err(field("candidate", "an object, a string or null"));
        }
        let to = match self.to {
            None => None,
            Some(raw) if raw.is_null() => None,
            Some(raw) => {
                Some(raw.text().ok_or_else(|| field("to", "a string: the client id of a peer"))?)
            }
        };
        let to = to.filter(|to| !to.is_empty());
        Ok(ClientMessage::Signal(Signal { kind, payload, to, id: self.frame_id() }))
    }
}

fn token(raw: Option<RawJson<'_>>) -> TokenField<'_> {
    match raw {
        None => TokenField::Absent,
        Some(raw) if raw.is_null() => TokenField::Absent,
        Some(raw) => raw.text().map_or(TokenField::Malformed, TokenField::Text),
    }
}

fn features(raw: Option<RawJson<'_>>) -> Features {
    let named = raw.and_then(RawJson::value::<Vec<&RawValue>>).unwrap_or_default();
    let names: Vec<_> = named.into_iter().map(RawJson::from).filter_map(RawJson::text).collect();
    let has = |name| names.iter().any(|known| known == name);
    Features {
        resume: has("resume"),
        peer_state: has("peer_state"),
        ice: has("ice"),
        limits: has("limits"),
    }
}
