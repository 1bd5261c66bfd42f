//! The label values that the server's counters have. Each label has a fixed set of values.

use strum::{EnumCount, IntoStaticStr, VariantArray};

/// The type of a client's frame (label `type` of `signaling_messages_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum MessageType {
    /// An SDP offer.
    Offer,
    /// An SDP answer.
    Answer,
    /// An ICE candidate.
    IceCandidate,
    /// A message of the application.
    Message,
    /// A ping of the protocol, not of the WebSocket.
    Ping,
    /// A new access token.
    AuthToken,
    /// A report on a call.
    CallReport,
    /// A type that the protocol does not have, or a frame that was not parsed.
    Other,
}

/// What the server did with a client's frame (label `outcome` of `signaling_messages_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum MessageOutcome {
    /// Relayed, or answered.
    Done,
    /// Answered with an `error`.
    Refused,
    /// Over the connection's message rate.
    RateLimited,
    /// Sent again after a resume, and already relayed before it.
    Repeated,
}

/// How an attempt to resume, or the wait for one, ended (label `result` of `signaling_resumes_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ResumeResult {
    /// The client has its membership again.
    Resumed,
    /// The client's resume token was not accepted.
    Refused,
    /// A detached member did not return in time.
    Expired,
}

/// How a login ended (label `outcome` of `signaling_logins_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LoginOutcome {
    /// The client has an access token.
    Done,
    /// The username or the password was wrong.
    #[strum(serialize = "wrong")]
    WrongCredentials,
    /// Too many logins failed before.
    LockedOut,
    /// Too many logins wait for their passwords to be checked, and this one gave up its place.
    Busy,
    /// The client disconnected before its password was checked.
    Abandoned,
    /// The server could not sign the access token.
    Failed,
}

/// The limit that a client has reached (label `kind` of `signaling_rate_limited_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum LimitKind {
    /// HTTP requests from an address (`RATE_LIMIT_PER_MINUTE`).
    Requests,
    /// Messages on a connection (`WEBSOCKET_MESSAGES_PER_SECOND`).
    Messages,
    /// Failed logins (`AUTH_MAX_FAILURES`).
    FailedLogins,
    /// Bad access tokens on WebSockets from an address (`AUTH_MAX_FAILURES`).
    BadTokens,
    /// Logins that wait for a password to be checked.
    WaitingLogins,
    /// Joins of an account or from an address (`JOINS_PER_MINUTE`).
    Joins,
    /// Moderation rules of a moderator or of a room.
    ModerationRules,
    /// WebSockets from an address (`MAX_CONNECTIONS_PER_IP`).
    Sockets,
    /// WebSockets of an account (`MAX_CONNECTIONS_PER_USER`).
    UserSockets,
    /// WebSockets that have not sent an access token yet.
    UnauthenticatedConnections,
    /// Connections from an address that are no WebSockets.
    Connections,
    /// Requests and WebSockets that were refused because too much memory is held (`MEMORY_BUDGET_MIB`).
    Memory,
    /// Detached members from an address.
    #[strum(serialize = "disconnected_members")]
    DetachedMembers,
}
