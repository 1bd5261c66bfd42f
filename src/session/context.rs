//! What a session is given: settings, shared state, and the services that it calls.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytestring::ByteString;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tracing::{Span, field::Empty};
use uuid::Uuid;

use super::{ShutdownSnapshot, close::whole_ms};
use crate::{
    auth::{
        access_token::Claims,
        resume_token::{ResumeToken, ResumeTokenSigner},
        token_rejection::TokenRejection,
        token_sessions::TokenSessionGuard,
    },
    delivery::ClientQueue,
    limits::{AccountKey, JoinRateLimiter, MessageBudgets, MessageRate},
    memory::MemoryHolder,
    metrics::Metrics,
    moderation::{EntryDenied, ModerationRefusal},
    protocol::{IceServer, MessageLimits, ModerationRequest, RawJson, ResumeOffer, ServerMessage},
    rooms::{Peer, RoomRegistry},
    websocket::FrameCounter,
};

/// What one session is given.
pub struct SessionContext<D> {
    /// All rooms.
    pub rooms: RoomRegistry,
    /// The room of this connection.
    pub room: Arc<str>,
    /// The id of the request that was upgraded, for the log.
    pub request_id: Uuid,
    /// The client's address, for the log.
    pub address: IpAddr,
    /// The settings of the session.
    pub limits: Arc<SessionLimits>,
    /// Limits how often accounts and addresses join.
    pub joins: Arc<JoinRateLimiter>,
    /// The message budgets of all connections.
    pub message_budgets: MessageBudgets,
    /// Counts what happens.
    pub metrics: Arc<Metrics>,
    /// Counts the memory that the connection holds.
    pub memory: Arc<MemoryHolder>,
    /// Authorizes clients, and more.
    pub services: D,
    /// Signs and verifies resume tokens.
    pub resume_tokens: Arc<ResumeTokenSigner>,
    /// The members that the next process of this server takes over.
    pub snapshot: ShutdownSnapshot,
    /// When the server stops, this turns to the time within which clients are to return.
    pub closing: watch::Receiver<Option<Duration>>,
}

impl<D> SessionContext<D> {
    /// The fields of this connection in a log line. The span is made for each line and not kept: a session logs two or
    /// three. It has the highest level, so that it is present at every log level.
    pub(super) fn span(&self, member: Option<&Peer>) -> Span {
        tracing::error_span!(
            "socket",
            request_id = %self.request_id,
            room = &*self.room,
            address = %self.address,
            user = member.map(|peer| &*peer.username),
            client = member.map(|peer| &*peer.client_id),
        )
    }

    /// Counts an error and encodes the frame for its client.
    pub(super) fn encode_error(
        &self,
        code: &'static str,
        message: &str,
        id: Option<RawJson<'_>>,
    ) -> ByteString {
        self.encode_error_with(code, message, id, (None, None))
    }

    /// As [`Self::encode_error`] for a message that is larger than `max_message_bytes`.
    pub(super) fn encode_too_big(&self, max_message_bytes: usize) -> ByteString {
        let message = format!(
            "A message has at most {max_message_bytes} bytes; this one was longer and is discarded"
        );
        self.encode_error_with("message_too_big", &message, None, (None, Some(max_message_bytes)))
    }

    /// As [`Self::encode_error`] for what a moderator asked for.
    pub(super) fn encode_refused_moderation(
        &self,
        refusal: &ModerationRefusal,
        id: Option<RawJson<'_>>,
    ) -> ByteString {
        let retry_after_ms = refusal.retry_after().map(whole_ms);
        self.encode_error_with(refusal.code(), &refusal.to_string(), id, (retry_after_ms, None))
    }

    fn encode_error_with(
        &self,
        code: &'static str,
        message: &str,
        id: Option<RawJson<'_>>,
        (retry_after_ms, max_message_bytes): (Option<u64>, Option<usize>),
    ) -> ByteString {
        self.metrics.record_error(code);
        ServerMessage::Error { message, code, id, retry: None, retry_after_ms, max_message_bytes }
            .encode()
    }

    /// Signs the token with which a client resumes; `None` where no client may resume.
    pub(super) fn sign_resume_token(&self, token: &ResumeToken) -> Option<SecretString> {
        if self.limits.resume_window.is_zero() {
            return None;
        }
        let signed = self.resume_tokens.sign(token);
        signed.inspect_err(|error| tracing::error!(%error, "resume token could not be signed")).ok()
    }

    pub(super) fn resume_offer<'a>(&self, token: &'a SecretString) -> ResumeOffer<'a> {
        ResumeOffer {
            resume_token: token.expose_secret(),
            resume_window_seconds: self.limits.resume_window.as_secs(),
        }
    }
}

/// The settings of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// The longest wait for the first frame, the longest silence, and the longest single write.
    pub timeout: Duration,
    /// The limits of its messages at the start; [`SessionServices::message_limits`] may change them.
    pub messages: MessageLimits,
    /// Whether a client without a token may join.
    pub guests: bool,
    /// Whether a session ends when its token expires.
    pub enforce_token_expiry: bool,
    /// Whether tokens may be signed with keys of an issuer, which are fetched.
    pub has_issuer: bool,
    /// How long after its token such a session may still present a new one.
    pub token_refresh_grace: Duration,
    /// How long a client that may resume may be without a connection; zero where none may resume.
    pub resume_window: Duration,
}

/// The longest first message of a client that is no guest, in bytes: an access token of 8 KiB, or a resume token, and a
/// client id.
const MAX_FIRST_MESSAGE_BYTES: usize = 16 * 1024;

/// What limits of messages allow a connection to send.
pub(super) fn message_rate(limits: MessageLimits) -> MessageRate {
    let MessageLimits { messages_per_second, message_burst, bytes_per_second, .. } = limits;
    MessageRate { messages_per_second, message_burst, bytes_per_second }
}

impl SessionLimits {
    /// The longest message that is accepted before a client is a member, in bytes. A guest may begin with any message.
    pub fn max_first_message_bytes(&self) -> usize {
        if self.guests {
            self.messages.max_message_bytes
        } else {
            self.messages.max_message_bytes.min(MAX_FIRST_MESSAGE_BYTES)
        }
    }
}

/// What a client presents to be authorized.
pub enum Credentials<'a> {
    /// An access token, valid or not.
    Token(&'a str),
    /// Nothing.
    Guest,
    /// A verified resume token.
    ResumeToken(&'a ResumeToken),
}

/// What a session asks of the server. Tests implement it without accounts.
pub trait SessionServices: Send + Sync {
    /// Authorizes the client whose send queue is `queue`.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    fn authorize(
        &self,
        credentials: Credentials<'_>,
        queue: &ClientQueue,
    ) -> Result<Authorized, AuthError>;
    /// Whether `token` needs a key of an issuer that is not known, and that can be waited for.
    fn needs_issuer_key(&self, _token: &str) -> bool {
        false
    }
    /// Waits until that key is known, or cannot be had now.
    fn await_issuer_key(&self, _token: &str) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
    /// Carries out what `moderator`, a username, asks for in `room`, and queues `answer` once it is in force on this node and
    /// kept, else `failure`.
    ///
    /// # Errors
    ///
    /// Why nothing is done; then nothing is queued.
    fn moderate(
        &self,
        _room: &Arc<str>,
        _moderator: &Arc<str>,
        _request: &ModerationRequest<'_>,
        queue: ClientQueue,
        answer: ByteString,
        _failure: ByteString,
    ) -> Result<(), ModerationRefusal> {
        queue.push(answer, None);
        Ok(())
    }
    /// The moderation rule by which an authorized client may not enter this room now, if there is one.
    fn check_entry(&self, room: &str, peer: &Peer) -> Option<EntryDenied>;
    /// Whether what this member of the room sends to everyone, and its messages, are not passed on now.
    fn is_muted(&self, _room: &str, _peer: &Peer) -> bool {
        false
    }
    /// The time, in milliseconds since the Unix epoch.
    fn now(&self) -> u64;
    /// The servers for this user's `new RTCPeerConnection(…)` from now on; `None` for a guest.
    fn ice_servers(&self, username: Option<&str>) -> IceServerSet;
    /// A number that changes whenever the configured servers were replaced.
    fn ice_version(&self) -> u64;
    /// The limits of each client's messages from now on.
    fn message_limits(&self) -> MessageLimits;
}

/// ICE servers, with credentials that expire.
#[derive(Default)]
pub struct IceServerSet {
    /// STUN and TURN servers.
    pub servers: Vec<IceServer>,
    /// How long the credentials are valid; `None` where there are none.
    pub lifetime: Option<Duration>,
}

/// A client that may join.
pub struct Authorized {
    /// The account, or the guest's generated name.
    pub username: Arc<str>,
    /// How long the access token is still valid; `None` for a guest.
    pub expires_in: Option<Duration>,
    /// The claims of the access token; `None` for a guest.
    pub claims: Option<Claims>,
    /// Ends the session with its token or account; held as long as the session lasts.
    pub session: Option<TokenSessionGuard>,
}

impl Authorized {
    /// Whether the client has no account.
    pub fn is_guest(&self) -> bool {
        self.expires_in.is_none()
    }

    /// What the limits on each account count the client at `address` as.
    pub(super) fn account(&self, address: IpAddr) -> AccountKey {
        AccountKey::new(&self.username, self.is_guest(), address)
    }
}

/// Why a client is not authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The token is not valid.
    BadToken,
    /// The token is not valid, and too many invalid tokens came from this address.
    Blocked,
    /// The token is valid, but its account does not exist or is disabled.
    NoSuchUser,
    /// The account has as many connections as it may.
    TooManyConnections,
    /// An administrator has ended the membership, or a moderation rule denies its user or client id entry.
    Removed,
}

impl From<&TokenRejection> for AuthError {
    fn from(rejection: &TokenRejection) -> Self {
        match rejection {
            TokenRejection::UnknownUser(_) | TokenRejection::DisabledUser(_) => Self::NoSuchUser,
            TokenRejection::TooLong { .. }
            | TokenRejection::Malformed(_)
            | TokenRejection::UnknownAlgorithm
            | TokenRejection::Algorithm { .. }
            | TokenRejection::CriticalExtension
            | TokenRejection::WrongKey
            | TokenRejection::NoClaims
            | TokenRejection::MissingClaim(_)
            | TokenRejection::ClaimType { .. }
            | TokenRejection::Milliseconds { .. }
            | TokenRejection::Expired { .. }
            | TokenRejection::NotYetValid { .. }
            | TokenRejection::TooLongLived { .. }
            | TokenRejection::NoKeys
            | TokenRejection::UnknownKey
            | TokenRejection::TooManyKeys { .. }
            | TokenRejection::OtherIssuer(_)
            | TokenRejection::OtherAudience(_)
            | TokenRejection::NoUser(_)
            | TokenRejection::EmailNotVerified
            | TokenRejection::BadName
            | TokenRejection::NameTaken(_)
            | TokenRejection::Permissions(_)
            | TokenRejection::LoggedOut
            | TokenRejection::PasswordChanged => Self::BadToken,
        }
    }
}

/// The log and trace span of a connection to `room` during its handshake.
pub fn handshake_span(request_id: Uuid, room: &str, address: IpAddr) -> Span {
    tracing::error_span!(
        "introduction",
        %request_id,
        room,
        %address,
        user = Empty,
        client = Empty,
    )
}

impl FrameCounter for Metrics {
    fn record_sent_frame(&self, bytes: usize) {
        Metrics::record_sent_frame(self, bytes);
    }
}
