//! The reasons for which a connection ends, and what its client receives for each (contract section 2, "Errors
//! and closes").

use std::time::Duration;

use strum::EnumIter;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter)]
pub enum CloseReason {
    /// The client closed the connection.
    ClosedByClient,
    /// The connection broke.
    ConnectionLost,
    /// Nothing arrived from the client for `WEBSOCKET_TIMEOUT`.
    Silent,
    /// The state that the nodes of a cluster share cannot be reached.
    Unavailable,
    /// The server holds as much memory as it may.
    Overloaded,
    /// The first frame was no `auth_token`, or did not arrive in time.
    AuthRequired,
    /// The access token is not valid.
    InvalidToken,
    /// The token's account does not exist or is disabled.
    NoSuchUser,
    /// Too many invalid tokens came from this address.
    Blocked,
    /// The permissions of the token lack the room, or joining.
    Forbidden,
    /// The room is not one of `ALLOWED_ROOMS`.
    RoomNotAllowed,
    /// The address has as many connections as it may.
    TooManyConnections,
    /// The account has as many connections as it may.
    TooManyUserConnections,
    /// The room has as many members as it may.
    RoomFull,
    /// Another user has the client id in this room.
    ClientIdTaken,
    /// The client id is malformed.
    InvalidClientId,
    /// The client kept sending above its message rate.
    RateLimited,
    /// The account or the address joins rooms too often; the next join is accepted after this time.
    TooManyJoins(Duration),
    /// The access token expired during the session.
    TokenExpired,
    /// The access token was logged out.
    LoggedOut,
    /// The password was changed after the token was issued.
    PasswordChanged,
    /// A newer connection of the same user has this client id.
    Replaced,
    /// The account was removed or disabled.
    AccountDisabled,
    /// An administrator removed the member.
    Removed,
    /// A moderation rule denies the user or the client id entry.
    Banned,
    /// A moderation rule denies everyone entry to the room.
    RoomLocked,
    /// The client reads too slowly: its send queue overflowed, or a write timed out.
    TooSlow,
    /// The client sent a binary message.
    Binary,
    /// The client sent text that is not UTF-8.
    NotUtf8,
    /// The client sent a message over the size limit.
    TooBig,
    /// The client sent bytes that are no WebSocket frame.
    Malformed,
    /// The server is stopping; the client may return within this time.
    Restarting(Duration),
    /// The client connected while the server was stopping.
    Draining,
    /// A fault of the server.
    Internal,
}

/// What the server does when a connection ends: a row of the table of close reasons.
#[derive(Clone, Copy, Debug)]
pub struct CloseInfo {
    /// The Close frame; `None` where the connection is closed or lost already, and nothing can be sent.
    pub frame: Option<CloseFrame>,
    /// The `code` of the `error` frame before it; also the reason in logs, metrics, timelines and webhooks.
    pub code: &'static str,
    /// The `message` of the `error` frame.
    pub sentence: &'static str,
    /// Whether the `error` frame is sent also to a client that is not authenticated yet, which otherwise receives
    /// the Close frame alone.
    pub is_sent_before_auth: bool,
    /// The `retry` of the `error` frame: whether the client may connect again.
    pub retry: bool,
    /// Whether a member that asked for it may resume its membership. Where a frame is sent this is `retry`, except
    /// after a token expired: a resume would not make it valid.
    pub may_resume: bool,
}

/// The contents of a Close frame (RFC 6455 section 5.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// Status code.
    pub code: u16,
    /// Reason, at most 123 bytes.
    pub reason: &'static str,
}

/// The `error` frame goes also to clients that are not authenticated yet.
const ALWAYS: bool = true;
/// The `error` frame goes to members only.
const MEMBERS: bool = false;
const RETRY: bool = true;
const FINAL: bool = false;
const RESUME: bool = true;
const LEAVE: bool = false;

impl CloseReason {
    /// The row of this reason.
    #[rustfmt::skip]
    pub const fn info(self) -> CloseInfo {
        match self {
            //                               error code              error to retry  resume  close code and reason                               sentence
            Self::ClosedByClient     => unsent("left",                                LEAVE),
            Self::ConnectionLost     => unsent("connection_lost",                     RESUME),
            Self::Silent             => sent("timeout",              MEMBERS, RETRY, RESUME, 1001, "Connection timed out",                       "Nothing was heard from you for too long"),
            Self::Malformed          => sent("protocol_error",       MEMBERS, FINAL, LEAVE,  1002, "Protocol error",                             "What arrived is no WebSocket frame"),
            Self::Binary             => sent("binary_frame",         MEMBERS, FINAL, LEAVE,  1003, "Binary frames are not accepted",             "Messages are JSON in text frames"),
            Self::NotUtf8            => sent("invalid_utf8",         MEMBERS, FINAL, LEAVE,  1007, "Not UTF-8",                                  "A text frame must be UTF-8"),
            Self::AuthRequired       => sent("auth_required",        MEMBERS, FINAL, LEAVE,  1008, "Authentication required",                    "The first message must be auth_token"),
            Self::InvalidToken       => sent("invalid_token",        MEMBERS, FINAL, LEAVE,  1008, "Invalid token",                              "The token is not valid"),
            Self::LoggedOut          => sent("logged_out",           MEMBERS, FINAL, LEAVE,  1008, "Invalid token",                              "The token was logged out"),
            Self::PasswordChanged    => sent("password_changed",     MEMBERS, FINAL, LEAVE,  1008, "Invalid token",                              "The password was changed; log in again"),
            Self::TokenExpired       => sent("token_expired",        MEMBERS, RETRY, LEAVE,  1008, "Token expired",                              "The token ran out and was not refreshed in time"),
            Self::NoSuchUser         => sent("user_inactive",        MEMBERS, FINAL, LEAVE,  1008, "User not found or inactive",                 "There is no such active user"),
            Self::Blocked            => sent("blocked",              MEMBERS, FINAL, LEAVE,  1008, "IP blocked due to security violations",      "Too many invalid tokens came from your address; come back later, or with a valid one"),
            Self::RateLimited        => sent("rate_limited",         MEMBERS, RETRY, RESUME, 1008, "Rate limit exceeded",                        "You went on sending more messages than are passed on"),
            Self::Forbidden          => sent("forbidden",            ALWAYS,  FINAL, LEAVE,  1008, "Forbidden",                                  "The permissions of your token lack this room, or \"join\""),
            Self::TooManyConnections => sent("too_many_connections", ALWAYS,  RETRY, RESUME, 1008, "Too many connections",                       "Your address has as many connections open as it may"),
            Self::TooManyUserConnections => sent("too_many_connections", ALWAYS, RETRY, RESUME, 1008, "Too many connections",                    "Your account has as many connections open as it may"),
            Self::RoomNotAllowed     => sent("room_not_allowed",     ALWAYS,  FINAL, LEAVE,  1008, "Room not allowed",                           "This server does not have that room"),
            Self::RoomFull           => sent("room_full",            ALWAYS,  RETRY, RESUME, 1008, "Room is full",                               "Room is full"),
            Self::RoomLocked         => sent("room_locked",          ALWAYS,  RETRY, RESUME, 1008, "Room is locked",                             "The room is locked: no client may join now"),
            Self::ClientIdTaken      => sent("client_id_taken",      ALWAYS,  FINAL, LEAVE,  1008, "Client id is taken",                         "Another user in this room has that client id; choose another, or send none"),
            Self::InvalidClientId    => sent("invalid_client_id",    ALWAYS,  FINAL, LEAVE,  1008, "Invalid client id",                          "A client id has 1 to 128 characters of A-Z a-z 0-9 . _ : @ -"),
            Self::TooBig             => sent("message_too_big",      MEMBERS, FINAL, LEAVE,  1009, "Message too big",                            "The message is over the size limit"),
            Self::Internal           => sent("internal_error",       MEMBERS, RETRY, RESUME, 1011, "Internal error",                             "Something went wrong on our side"),
            Self::Restarting(_)      => sent("server_restarting",    ALWAYS,  RETRY, RESUME, 1012, "Server is restarting",                       "The server is restarting"),
            Self::Draining           => sent("draining",             ALWAYS,  RETRY, RESUME, 1012, "Server is restarting",                       "The server is restarting"),
            Self::Unavailable        => sent("unavailable",          ALWAYS,  RETRY, RESUME, 1013, "Try again later",                            "Rooms cannot be entered at the moment"),
            Self::TooManyJoins(_)    => sent("rate_limited",         ALWAYS,  RETRY, RESUME, 1013, "Try again later",                            "You join or resume too often; try again after the given time"),
            Self::Overloaded         => sent("unavailable",          ALWAYS,  RETRY, RESUME, 1013, "Try again later",                            "The server holds as much as it may at the moment"),
            Self::TooSlow            => sent("too_slow",             MEMBERS, RETRY, RESUME, 1013, "Reading too slowly",                         "Send queue overflow: the client reads too slowly"),
            Self::Replaced           => sent("replaced",             MEMBERS, FINAL, LEAVE,  4001, "Replaced by a new connection",               "The same user opened a new connection with this client id"),
            Self::Removed            => sent("removed",              ALWAYS,  FINAL, LEAVE,  4002, "Removed by an administrator",                "An administrator has removed you from this room"),
            Self::Banned             => sent("banned",               ALWAYS,  FINAL, LEAVE,  4002, "Removed by an administrator",                "An administrator does not let you into this room"),
            Self::AccountDisabled    => sent("user_disabled",        MEMBERS, FINAL, LEAVE,  4003, "User disabled or removed",                   "The account was disabled or removed"),
        }
    }

    /// The `code` of the error frame, or `left` and `connection_lost` where none is sent.
    pub const fn as_str(self) -> &'static str {
        self.info().code
    }

    /// Whether a member may resume its membership after this end.
    pub const fn may_resume(self) -> bool {
        self.info().may_resume
    }
}

/// A row of a reason for which nothing can be sent any more.
const fn unsent(code: &'static str, may_resume: bool) -> CloseInfo {
    CloseInfo {
        frame: None,
        code,
        sentence: "",
        is_sent_before_auth: false,
        retry: false,
        may_resume,
    }
}

/// A row of a reason that the client is sent.
const fn sent(
    code: &'static str,
    is_sent_before_auth: bool,
    retry: bool,
    may_resume: bool,
    close_code: u16,
    reason: &'static str,
    sentence: &'static str,
) -> CloseInfo {
    let frame = Some(CloseFrame { code: close_code, reason });
    CloseInfo { frame, code, sentence, is_sent_before_auth, retry, may_resume }
}
