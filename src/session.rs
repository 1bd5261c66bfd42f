//! One connection's life, in order: it introduces itself, sits down, talks and listens, and leaves.

mod parked;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use bytestring::ByteString;
use futures_util::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use crate::{
    auth::{
        grants::TokenSessionGuard,
        ticket::{ResumeToken, ResumeTokenSigner},
        token::Claims,
    },
    limits::{MessageRateLimiter, RateVerdict},
    metrics::{Kind, Metrics, Outcome, Resume},
    moderation::EntryDenied,
    outbox::{
        self, ClientQueue, ClientQueueReader, DirectWriter, DisconnectReason, DisconnectSignal,
        ResumeError,
    },
    replay::ReplayBuffer,
    rooms::{ClaimError, JoinError, Membership, Peer, Resumed, RoomRegistry},
    wire::{
        self, AuthToken, ClientFrame, ClientMessage, Features, FrameError, IceServer, RequestedId,
        ResumeOffer, ResumeRequest, RosterEntry, ServerMessage, SignalKind, TokenField,
    },
};

pub use parked::{DetachedMember, SavedMember, ShutdownSnapshot};

/// How long a client may take to read our last words and to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a session needs of a WebSocket.
pub trait Socket: Send {
    /// The next thing that arrives; `None` when the connection is gone. Safe to cancel.
    fn receive(&mut self) -> impl Future<Output = Option<SocketEvent>> + Send;
    /// Writes text frames. After cancelling, what comes next goes out behind whole frames.
    fn send(
        &mut self,
        frames: &[ByteString],
    ) -> impl Future<Output = Result<(), ConnectionLost>> + Send;
    /// Writes a Ping.
    fn ping(&mut self) -> impl Future<Output = Result<(), ConnectionLost>> + Send;
    /// Writes a Close.
    fn close(
        &mut self,
        code: u16,
        reason: &'static str,
    ) -> impl Future<Output = Result<(), ConnectionLost>> + Send;
    /// A way for others to write text frames while this socket's own task sleeps, where there is one.
    fn direct_writer(&self) -> Option<Arc<dyn DirectWriter>> {
        None
    }
}

/// The connection is gone.
#[derive(Debug)]
pub struct ConnectionLost;

/// What arrives on a WebSocket (RFC 6455).
#[derive(Debug)]
pub enum SocketEvent {
    /// A text message.
    Text(ByteString),
    /// A binary message.
    Binary,
    /// A Ping, answered already.
    Heartbeat,
    /// The answer to a Ping of ours.
    Pong,
    /// The client closes.
    Close,
    /// A text message that is not UTF-8.
    NotUtf8,
    /// A message over the limit.
    TooBig,
    /// Something that is no WebSocket frame.
    Malformed,
}

/// What the house gives a session.
pub struct SessionContext<D> {
    /// Where members sit.
    pub rooms: RoomRegistry,
    /// The room of this connection.
    pub room: Arc<str>,
    /// The request that it came with, for the log.
    pub request: Uuid,
    /// Whose connection it is, for the log.
    pub address: IpAddr,
    /// How it is to behave.
    pub limits: SessionLimits,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who lets people in.
    pub services: D,
    /// Signs what clients come back with.
    pub resume_tokens: Arc<ResumeTokenSigner>,
    /// Who is to be let in again by the next process.
    pub snapshot: ShutdownSnapshot,
    /// Turns to the time that clients may take to come back when the server stops.
    pub closing: watch::Receiver<Option<Duration>>,
}

impl<D> SessionContext<D> {
    /// What a line of the log says of this connection. Made for each line, and not kept: a session
    /// writes two or three. Of the highest level, so that it is there however quiet the log is.
    fn span(&self, member: Option<&Peer>) -> Span {
        tracing::error_span!(
            "socket",
            request_id = %self.request,
            room = &*self.room,
            address = %self.address,
            user = member.map(|peer| &*peer.username),
            client = member.map(|peer| &*peer.client_id),
        )
    }

    /// Counts an error, and says what its client is told.
    fn error(&self, code: &'static str, message: &str, id: Option<&RawValue>) -> ByteString {
        self.metrics.erred(code);
        ServerMessage::Error { message, code, id, retry: None, retry_after_ms: None }.encode()
    }

    /// What a client shows that comes back; `None` where none may.
    fn sign(&self, ticket: &ResumeToken) -> Option<SecretString> {
        if self.limits.resume_window.is_zero() {
            return None;
        }
        let signed = self.resume_tokens.sign(ticket);
        signed.inspect_err(|error| tracing::error!(%error, "no resume token")).ok()
    }

    fn resume_offer<'a>(&self, token: &'a SecretString) -> ResumeOffer<'a> {
        ResumeOffer {
            resume_token: token.expose_secret(),
            resume_window_seconds: self.limits.resume_window.as_secs(),
        }
    }
}

/// The settings that a session keeps to.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// For the first message, for silence, and for a single write.
    pub timeout: Duration,
    /// How fast the message budget refills.
    pub messages_per_second: u32,
    /// What the message budget holds.
    pub message_burst: u32,
    /// Whether somebody without a token may come in.
    pub guests: bool,
    /// Whether a session ends with its token.
    pub enforce_token_expiry: bool,
    /// How long after its token such a session may still present a new one.
    pub token_refresh_grace: Duration,
    /// How long a client may be away that resumes; zero where none may.
    pub resume_window: Duration,
}

/// What somebody at the door says about himself.
pub enum Credentials<'a> {
    /// A token, good or bad.
    Token(&'a str),
    /// Nothing at all.
    Guest,
    /// He was here before.
    ResumeToken(&'a ResumeToken),
}

/// Lets people in.
pub trait SessionServices: Send + Sync {
    /// Checks the claim of whoever is behind the outbox.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    fn authorize(
        &self,
        claim: Credentials<'_>,
        outbox: &ClientQueue,
    ) -> Result<Authorized, AuthError>;
    /// Why somebody who was admitted may not come into this room now, whatever it is that bars him.
    fn check_entry(&self, room: &str, peer: &Peer) -> Option<EntryDenied>;
    /// The time, in milliseconds since the Unix epoch.
    fn now(&self) -> u64;
    /// What this user is to give to `new RTCPeerConnection(…)` from now on; a guest has no name.
    fn ice_servers(&self, username: Option<&str>) -> IceServerSet;

    /// Another number whenever the servers themselves were replaced.
    fn ice_version(&self) -> u64;
}

/// ICE servers, with credentials that run out.
#[derive(Default)]
pub struct IceServerSet {
    /// STUN and TURN.
    pub servers: Vec<IceServer>,
    /// How long the credentials are good for; `None` where there are none.
    pub lifetime: Option<Duration>,
}

/// Somebody may come in.
pub struct Authorized {
    /// The account, or the guest's name.
    pub username: Arc<str>,
    /// How long the token still lasts; `None` for a guest.
    pub expires_in: Option<Duration>,
    /// What the token says; `None` for a guest.
    pub claims: Option<Claims>,
    /// What ends the session with its token or account; held as long as the session lasts.
    pub session: Option<TokenSessionGuard>,
}

/// Somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// The token is not good.
    BadToken,
    /// The token is not good, and there were too many of them from this address.
    Blocked,
    /// The token is good, but there is no such active account.
    NoSuchUser,
    /// An administrator has ended that membership, or bars whoever had it.
    Removed,
}

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed.
    ClosedByClient,
    /// The connection broke.
    ConnectionLost,
    /// Nothing was heard for too long.
    Silent,
    /// What the servers of a cluster share cannot be reached.
    Unavailable,
    /// No introduction, or none in time.
    AuthRequired,
    /// The token is not good.
    InvalidToken,
    /// There is no such active account.
    NoSuchUser,
    /// Too many bad tokens from this address.
    Blocked,
    /// The room is not one of `ALLOWED_ROOMS`.
    RoomNotAllowed,
    /// The address has too many sockets.
    TooManyConnections,
    /// The room is full.
    RoomFull,
    /// Another user has the client id.
    ClientIdTaken,
    /// The client id has not the right form.
    InvalidClientId,
    /// Too many messages, and no end.
    RateLimited,
    /// The token ran out.
    TokenExpired,
    /// The token was logged out.
    LoggedOut,
    /// The password was changed after the token was given out.
    PasswordChanged,
    /// A newer connection has this client id.
    Replaced,
    /// The account was removed or disabled.
    AccountDisabled,
    /// An administrator has thrown it out.
    Removed,
    /// An administrator does not let it in.
    Banned,
    /// The room lets nobody in.
    RoomLocked,
    /// The client does not read.
    TooSlow,
    /// A binary frame.
    Binary,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A message over the limit.
    TooBig,
    /// Something that is no WebSocket frame.
    Malformed,
    /// The server stops; come back within this time.
    Restarting(Duration),
    /// The server is stopping: somebody came too late.
    Draining,
    /// Our own fault.
    Internal,
}

/// What a client is told at the end.
struct CloseInfo {
    close: u16,
    reason: &'static str,
    code: &'static str,
    sentence: &'static str,
    retry: bool,
}

impl CloseReason {
    /// Each of them, to be counted from 0.
    const ALL: [Self; 30] = [
        Self::ClosedByClient,
        Self::ConnectionLost,
        Self::Silent,
        Self::Unavailable,
        Self::AuthRequired,
        Self::InvalidToken,
        Self::NoSuchUser,
        Self::Blocked,
        Self::RoomNotAllowed,
        Self::TooManyConnections,
        Self::RoomFull,
        Self::ClientIdTaken,
        Self::InvalidClientId,
        Self::RateLimited,
        Self::TokenExpired,
        Self::LoggedOut,
        Self::PasswordChanged,
        Self::Replaced,
        Self::AccountDisabled,
        Self::Removed,
        Self::Banned,
        Self::RoomLocked,
        Self::TooSlow,
        Self::Binary,
        Self::NotUtf8,
        Self::TooBig,
        Self::Malformed,
        Self::Restarting(Duration::ZERO),
        Self::Draining,
        Self::Internal,
    ];

    /// Contract section 2, "Errors and closes"; `None` where nobody is left to be told.
    fn info(self) -> Option<CloseInfo> {
        let (close, reason, code, sentence, retry) = match self {
            Self::ClosedByClient | Self::ConnectionLost => return None,
            Self::Silent => (
                1001,
                "Connection timed out",
                "timeout",
                "Nothing was heard from you for too long",
                true,
            ),
            Self::AuthRequired => (
                1008,
                "Authentication required",
                "auth_required",
                "The first message must be auth_token",
                false,
            ),
            Self::InvalidToken => {
                (1008, "Invalid token", "invalid_token", "The token is not valid", false)
            }
            Self::NoSuchUser => (
                1008,
                "User not found or inactive",
                "user_inactive",
                "There is no such active user",
                false,
            ),
            Self::Blocked => (
                1008,
                "IP blocked due to security violations",
                "blocked",
                "Too many invalid tokens came from your address; come back later, or with a valid one",
                false,
            ),
            Self::RoomNotAllowed => (
                1008,
                "Room not allowed",
                "room_not_allowed",
                "This server does not have that room",
                false,
            ),
            Self::TooManyConnections => (
                1008,
                "Too many connections",
                "too_many_connections",
                "Your address has as many connections open as it may",
                true,
            ),
            Self::RoomFull => (1008, "Room is full", "room_full", "Room is full", true),
            Self::ClientIdTaken => (
                1008,
                "Client id is taken",
                "client_id_taken",
                "Another user in this room has that client id; choose another, or send none",
                false,
            ),
            Self::InvalidClientId => (
                1008,
                "Invalid client id",
                "invalid_client_id",
                "A client id has 1 to 128 characters of A-Z a-z 0-9 . _ : @ -",
                false,
            ),
            Self::RateLimited => (
                1008,
                "Rate limit exceeded",
                "rate_limited",
                "You went on sending more messages than are passed on",
                true,
            ),
            Self::TokenExpired => (
                1008,
                "Token expired",
                "token_expired",
                "The token ran out and was not refreshed in time",
                true,
            ),
            Self::LoggedOut => {
                (1008, "Invalid token", "logged_out", "The token was logged out", false)
            }
            Self::PasswordChanged => (
                1008,
                "Invalid token",
                "password_changed",
                "The password was changed; log in again",
                false,
            ),
            Self::Replaced => (
                4001,
                "Replaced by a new connection",
                "replaced",
                "The same user opened a new connection with this client id",
                false,
            ),
            Self::AccountDisabled => (
                4003,
                "User disabled or removed",
                "user_disabled",
                "The account was disabled or removed",
                false,
            ),
            Self::Removed => (
                4002,
                "Removed by an administrator",
                "removed",
                "An administrator has removed you from this room",
                false,
            ),
            Self::Banned => (
                4002,
                "Removed by an administrator",
                "banned",
                "An administrator does not let you into this room",
                false,
            ),
            Self::RoomLocked => {
                (1008, "Room is locked", "room_locked", "Nobody is let into this room now", true)
            }
            Self::TooSlow => (
                1013,
                "Reading too slowly",
                "too_slow",
                "More waited for you than the server keeps",
                true,
            ),
            Self::Binary => (
                1003,
                "Binary frames are not accepted",
                "binary_frame",
                "Messages are JSON in text frames",
                false,
            ),
            Self::NotUtf8 => {
                (1007, "Not UTF-8", "invalid_utf8", "A text frame must be UTF-8", false)
            }
            Self::TooBig => (
                1009,
                "Message too big",
                "message_too_big",
                "The message is over the size limit",
                false,
            ),
            Self::Malformed => (
                1002,
                "Protocol error",
                "protocol_error",
                "What arrived is no WebSocket frame",
                false,
            ),
            Self::Restarting(_) => (
                1012,
                "Server is restarting",
                "server_restarting",
                "The server is restarting",
                true,
            ),
            Self::Unavailable => (
                1013,
                "Try again later",
                "unavailable",
                "Rooms cannot be entered at the moment",
                true,
            ),
            Self::Draining => {
                (1012, "Server is restarting", "draining", "The server is restarting", true)
            }
            Self::Internal => {
                (1011, "Internal error", "internal_error", "Something went wrong on our side", true)
            }
        };
        Some(CloseInfo { close, reason, code, sentence, retry })
    }

    /// Says in the log that somebody was not let in.
    fn log_rejection(self) {
        let reason = self.as_str();
        // Whoever is blocked could fill the log, and was named often enough before.
        if self.info().is_none() || self == Self::Blocked {
            tracing::debug!(reason, "not let in");
        } else {
            tracing::warn!(reason, "not let in");
        }
    }

    /// One word for it: the code of the `error`, or `left` and `gone`.
    fn as_str(self) -> &'static str {
        match self.info() {
            Some(parting) => parting.code,
            None if self == Self::ClosedByClient => "left",
            None => "gone",
        }
    }

    /// Whether a member may come back after it, to where it was: what the close says by `"retry":true`, and
    /// a connection that broke. With a token that ran out it may not.
    fn may_resume(self) -> bool {
        match self.info() {
            Some(parting) => parting.retry && self != Self::TokenExpired,
            None => self == Self::ConnectionLost,
        }
    }

    /// Whether also a client that is not in yet is told by an `error` message, not by the close alone.
    fn is_sent_before_auth(self) -> bool {
        matches!(
            self,
            Self::RoomNotAllowed
                | Self::TooManyConnections
                | Self::RoomFull
                | Self::RoomLocked
                | Self::Banned
                | Self::Removed
                | Self::ClientIdTaken
                | Self::InvalidClientId
                | Self::Restarting(_)
                | Self::Draining
                | Self::Unavailable
        )
    }
}

impl From<DisconnectReason> for CloseReason {
    fn from(why: DisconnectReason) -> Self {
        match why {
            DisconnectReason::TooSlow => Self::TooSlow,
            DisconnectReason::Replaced | DisconnectReason::Resumed => Self::Replaced,
            DisconnectReason::LoggedOut => Self::LoggedOut,
            DisconnectReason::PasswordChanged => Self::PasswordChanged,
            DisconnectReason::AccountGone => Self::AccountDisabled,
            DisconnectReason::Removed => Self::Removed,
        }
    }
}

impl From<EntryDenied> for CloseReason {
    fn from(why: EntryDenied) -> Self {
        match why {
            EntryDenied::Banned => Self::Banned,
            EntryDenied::Locked => Self::RoomLocked,
        }
    }
}

impl From<JoinError> for CloseReason {
    fn from(why: JoinError) -> Self {
        match why {
            JoinError::Full => Self::RoomFull,
            JoinError::ClientIdTaken => Self::ClientIdTaken,
            JoinError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<AuthError> for CloseReason {
    fn from(why: AuthError) -> Self {
        match why {
            AuthError::BadToken => Self::InvalidToken,
            AuthError::Blocked => Self::Blocked,
            AuthError::NoSuchUser => Self::NoSuchUser,
            AuthError::Removed => Self::Banned,
        }
    }
}

/// Tells `metrics` how sessions may end. Call it once, before the first.
pub fn preregister_metrics(metrics: &Metrics) {
    for goodbye in CloseReason::ALL {
        metrics.expects_end(goodbye.as_str(), goodbye.info().map(|parting| parting.close));
        metrics.expects_leave(goodbye.as_str());
    }
    metrics.expects_leave(parked::NOT_RESUMED_IN_TIME);
}

/// What the log says, and a trace shows, of a connection to `room` while it introduces itself.
pub fn handshake_span(request: Uuid, room: &str, address: IpAddr) -> Span {
    tracing::error_span!(
        "introduction",
        request_id = %request,
        room,
        %address,
        user = Empty,
        client = Empty,
    )
}

/// Lives one connection to its end; says how it ended, and who stays without it. The seat of somebody who
/// does not is free before the last words. `introduction` is held no longer than that takes.
pub async fn run(
    socket: &mut impl Socket,
    host: &SessionContext<impl SessionServices>,
    introduction: Span,
) -> (CloseReason, Option<DetachedMember>) {
    let (outbox, mailbox) = outbox::channel();
    let end = disconnect_requested(mailbox.disconnect_signal(), host.closing.clone());
    let mut member = None;
    let living = async {
        let mut line = TimedSocket { socket, patience: host.limits.timeout };
        // Boxed, so that a member does not hold for ever what it needed at the door.
        let introduced = Box::pin(handshake(&mut line, host, outbox, mailbox).inspect(|entered| {
            if let Err(goodbye) = entered {
                goodbye.log_rejection();
            }
        }));
        let (entered, greeting, first) = introduced.instrument(introduction).await?;
        let member = member.insert(entered);
        member.send_welcome(&mut line, &greeting, first).await?;
        drop(greeting);
        member.run_member(&mut line).await
    };
    let goodbye = tokio::select! {
        // The end comes first: when the server stops, nobody is told any more that all the others
        // leave, which would hang up calls that outlive the restart.
        biased;
        goodbye = end => goodbye,
        // One session's fault is nobody else's: unwinding ends it, and the client is told.
        lived = AssertUnwindSafe(living).catch_unwind() => match lived {
            Ok(Err(goodbye)) => goodbye,
            Err(_panic) => {
                host.span(None).in_scope(|| tracing::error!("a session panicked"));
                CloseReason::Internal
            }
        },
    };
    let admitted = member.is_some();
    host.metrics.ended(goodbye.as_str(), admitted);
    let parked = member.and_then(|member| {
        let span = host.span(Some(member.membership.peer()));
        let notice = member.reader.disconnect_signal();
        let parked = member.into_detached(goodbye);
        let reason = goodbye.as_str();
        match notice.reason() {
            // The seat is another connection's.
            Some(DisconnectReason::Resumed) => {}
            why => {
                if why == Some(DisconnectReason::TooSlow) {
                    host.metrics.overflowed();
                }
                if parked.is_none() {
                    host.metrics.left(reason);
                }
            }
        }
        span.in_scope(|| match parked {
            Some(_) => tracing::info!(reason, "away"),
            None => tracing::info!(reason, "left"),
        });
        parked
    });
    // When the server stops, nobody is to lose its seat for reading its last words too slowly.
    let parked = if matches!(goodbye, CloseReason::Restarting(_)) {
        parked.into_iter().for_each(|parked| host.snapshot.push(parked));
        None
    } else {
        parked
    };
    Box::pin(close(socket, goodbye, admitted, &host.metrics)).await;
    (goodbye, parked)
}

/// Our own sleep, in a process or a machine that was stopped, if a timer is so late.
const SUSPEND_THRESHOLD: Duration = Duration::from_secs(1);

/// Turns a connection away at the door: the reason stands in place of `auth_required`.
pub async fn reject(
    socket: &mut impl Socket,
    goodbye: CloseReason,
    introduction: Span,
    metrics: &Metrics,
) {
    introduction.in_scope(|| goodbye.log_rejection());
    drop(introduction);
    metrics.ended(goodbye.as_str(), false);
    close(socket, goodbye, false, metrics).await;
}

async fn close(socket: &mut impl Socket, goodbye: CloseReason, admitted: bool, metrics: &Metrics) {
    let last_words = async {
        if let Some(parting) = goodbye.info() {
            let mut retry_after_ms = None;
            if let CloseReason::Restarting(within) = goodbye {
                let reconnect_in_ms = spread_over(within);
                retry_after_ms = Some(reconnect_in_ms);
                socket.send(&[ServerMessage::ServerShutdown { reconnect_in_ms }.encode()]).await?;
            }
            if admitted || goodbye.is_sent_before_auth() {
                let CloseInfo { code, sentence, retry, .. } = parting;
                let error = ServerMessage::Error {
                    message: sentence,
                    code,
                    id: None,
                    retry: Some(retry),
                    retry_after_ms,
                };
                metrics.erred(code);
                socket.send(&[error.encode()]).await?;
            }
            metrics.closed(parting.close);
            socket.close(parting.close, parting.reason).await?;
        }
        // Whoever hangs up on unread data resets the connection, and the close may be lost on the way.
        while socket.receive().await.is_some() {}
        Ok::<_, ConnectionLost>(())
    };
    let _ = timeout(CLOSE_TIMEOUT, last_words).await;
}

/// Some time within the given one, different for everybody, in milliseconds.
fn spread_over(within: Duration) -> u64 {
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
    Uuid::new_v4().as_u64_pair().1 % within
}

/// A socket whose writes end in time.
struct TimedSocket<'a, S> {
    socket: &'a mut S,
    patience: Duration,
}

impl<S: Socket> TimedSocket<'_, S> {
    async fn write(&mut self, frames: &[ByteString]) -> Result<(), CloseReason> {
        with_deadline(self.patience, self.socket.send(frames)).await
    }

    async fn ping(&mut self) -> Result<(), CloseReason> {
        with_deadline(self.patience, self.socket.ping()).await
    }
}

/// A client that does not read would block its own task in a write.
async fn with_deadline(
    patience: Duration,
    writing: impl Future<Output = Result<(), ConnectionLost>> + Send,
) -> Result<(), CloseReason> {
    let mut writing = pin!(writing);
    // Nearly every write is done at once and needs no timer, nor room for one.
    let written = match poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
        Poll::Ready(written) => Ok(written),
        Poll::Pending => Box::pin(timeout(patience, writing)).await,
    };
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ConnectionLost)) => Err(CloseReason::ConnectionLost),
        Err(_elapsed) => Err(CloseReason::TooSlow),
    }
}

/// What ends a session from outside: somebody's dismissal, or the server that stops.
async fn disconnect_requested(
    notice: DisconnectSignal,
    closing: watch::Receiver<Option<Duration>>,
) -> CloseReason {
    let mut stopping = closing.clone();
    let mut stops = pin!(stopping.wait_for(Option::is_some));
    let mut woken: Option<Waker> = None;
    poll_fn(|context| {
        // This is asked before every message. Whether there is news costs little to see; to be told of it
        // takes locks, of which all sessions share one, and to ask once is enough.
        let is_news = closing.has_changed().unwrap_or(true);
        let is_waiting = woken.as_ref().is_some_and(|known| known.will_wake(context.waker()));
        if !is_waiting {
            woken = Some(context.waker().clone());
            notice.register_waker(context.waker());
        }
        if let Some(why) = notice.reason() {
            return Poll::Ready(why.into());
        }
        if is_waiting && !is_news {
            return Poll::Pending;
        }
        stops.as_mut().poll(context).map(|within| {
            CloseReason::Restarting(within.ok().and_then(|within| *within).unwrap_or_default())
        })
    })
    .await
}

/// What a newcomer hears first, and the first message of a guest, which is still to be acted on.
type HandshakeOutcome<'h, D> = (Member<'h, D>, Vec<ByteString>, Option<ByteString>);

/// From the first message to a seat.
async fn handshake<'h, D: SessionServices>(
    line: &mut TimedSocket<'_, impl Socket>,
    host: &'h SessionContext<D>,
    outbox: ClientQueue,
    mailbox: ClientQueueReader,
) -> Result<HandshakeOutcome<'h, D>, CloseReason> {
    let guests = host.limits.guests;
    let greeting = ServerMessage::AuthRequired { message: "Authentication required", guests };
    line.write(&[greeting.encode()]).await?;
    let until = Instant::now() + host.limits.timeout;
    let mut first = first_text(line.socket, until).await?;

    if let ClientFrame { id, message: Ok(ClientMessage::Resume(resumption)), .. } =
        wire::parse(&first)
    {
        let resumed = timeout_at(until, resume(host, &resumption, &outbox)).await;
        match resumed.unwrap_or(Err(CloseReason::Unavailable))? {
            Ok((seat, admission, membership, resumed)) => {
                record_peer_in_span(seat.peer());
                tracing::info!(replayed = resumed.replayed_frames, "resumed");
                host.metrics.resumed(Resume::Resumed);
                let (mut member, ice_servers, token) =
                    Member::new(host, seat, outbox, mailbox, admission, membership);
                member.is_resume_token_sent = true;
                let greeting = member.resumed(&resumed, &ice_servers, token.as_ref());
                return Ok((member, vec![greeting], None));
            }
            Err(sentence) => {
                host.metrics.resumed(Resume::Refused);
                tracing::info!(reason = sentence, "not resumed");
                line.write(&[host.error("resume_failed", &sentence, id)]).await?;
            }
        }
        first = first_text(line.socket, until).await?;
    }
    let message = wire::parse(&first).message;
    let (claim, requested, features) = credentials_of(&message, guests)?;
    let admission = host.services.authorize(claim, &outbox)?;
    let client_id: Arc<str> = match requested {
        RequestedId::This(id) => id.as_ref().into(),
        RequestedId::Any => Uuid::new_v4().to_string().into(),
        RequestedId::Malformed => return Err(CloseReason::InvalidClientId),
    };
    let carries_on = !matches!(message, Ok(ClientMessage::AuthToken(_)));
    let key = Uuid::new_v4().as_u128();
    if features.resume && !host.limits.resume_window.is_zero() {
        outbox.enable_replay(Box::new(ReplayBuffer::new(key)));
    }
    outbox.set_features(features);
    let peer = Peer { client_id, username: admission.username.clone() };
    // Also where the room has no seat for him.
    record_peer_in_span(&peer);
    let is_let_in = || match host.services.check_entry(&host.room, &peer) {
        None => Ok(()),
        Some(why) => {
            let goodbye = CloseReason::from(why);
            host.rooms.record_refusal(&host.room, &peer, goodbye.as_str());
            Err(goodbye)
        }
    };
    is_let_in()?;
    outbox.set_address(host.address);
    let since = host.services.now();
    let mut seat = Membership::join(&host.rooms, &host.room, peer.clone(), outbox.clone()).await?;
    // Whoever was barred meanwhile was not in yet to be thrown out.
    if let Err(goodbye) = is_let_in() {
        seat.set_leave_reason(goodbye.as_str());
        return Err(goodbye);
    }
    tracing::info!("joined");
    host.metrics.joined();
    let membership = MembershipId { key, since };
    let (mut member, ice_servers, token) =
        Member::new(host, seat, outbox, mailbox, admission, membership);
    let greeting = member.welcome(&ice_servers, token.as_ref());
    Ok((member, greeting, carries_on.then_some(first)))
}

/// From here on the log says who introduces himself.
fn record_peer_in_span(Peer { username, client_id }: &Peer) {
    Span::current().record("user", &**username).record("client", &**client_id);
}

/// One membership, over all its connections.
struct MembershipId {
    /// Tells it from all others.
    key: u128,
    /// When it began, in milliseconds since the Unix epoch.
    since: u64,
}

/// Gives somebody who was here before the seat that he had, and says which membership that is; or the
/// sentence of the error.
async fn resume<D: SessionServices>(
    host: &SessionContext<D>,
    resumption: &ResumeRequest<'_>,
    outbox: &ClientQueue,
) -> Result<Result<(Membership, Authorized, MembershipId, Resumed), String>, CloseReason> {
    let (ticket, last_seq, admission) = match verify_resume(host, resumption, outbox) {
        Ok(readmitted) => readmitted,
        Err(sentence) => return Ok(Err(sentence)),
    };
    let client_id: Arc<str> = ticket.client_id.as_str().into();
    let peer = Peer { client_id: client_id.clone(), username: admission.username.clone() };
    let (rooms, room, key) = (&host.rooms, &host.room, ticket.key);
    let sits_down = || Membership::resume(rooms, room, peer.clone(), key, outbox.clone(), last_seq);
    let luggage = parked::encode_context(&ticket, host.limits.resume_window);
    outbox.set_address(host.address);
    let seat = loop {
        match sits_down() {
            Err(ResumeError::Ended) => {}
            seat => break seat,
        }
        match Membership::claim(rooms, room, &client_id, key, luggage.clone()).await {
            // If it is not gone again, to where its client was looked for before.
            Ok(()) => {}
            // Unless it has come here while we asked.
            Err(ClaimError::Ended) => break sits_down(),
            Err(ClaimError::Unavailable) => return Err(CloseReason::Unavailable),
        }
    };
    let membership = MembershipId { key, since: ticket.since };
    // Whoever was thrown out meanwhile was perhaps on the way.
    if seat.is_ok() && host.services.authorize(Credentials::ResumeToken(&ticket), outbox).is_err() {
        return Ok(Err(MEMBERSHIP_VOID.into()));
    }
    let seated = seat.map(|(seat, resumed)| (seat, admission, membership, resumed));
    Ok(seated.map_err(|why| why.to_string()))
}

const MEMBERSHIP_VOID: &str = "What that membership stood on no longer counts";

/// Whether somebody may come back at all, and to which membership; or the sentence of the error.
fn verify_resume<D: SessionServices>(
    host: &SessionContext<D>,
    resumption: &ResumeRequest<'_>,
    outbox: &ClientQueue,
) -> Result<(ResumeToken, u64, Authorized), String> {
    let TokenField::Text(ticket) = &resumption.token else {
        return Err("Field \"resume_token\" must be a string".into());
    };
    let last_seq = resumption
        .last_seq
        .ok_or("Field \"last_seq\" must be the \"seq\" of the last frame that you got, or 0")?;
    let ticket = host.resume_tokens.verify(ticket).map_err(|_| "That resume token is not valid")?;
    if *ticket.room != *host.room {
        return Err("That resume token is for another room".into());
    }
    let admission = host.services.authorize(Credentials::ResumeToken(&ticket), outbox);
    let admission = admission.map_err(|_| MEMBERSHIP_VOID)?;
    Ok((ticket, last_seq, admission))
}

/// Who somebody says he is with his first message, the client id that he asks for, and what else he can
/// do with.
fn credentials_of<'a>(
    first: &'a Result<ClientMessage<'_>, FrameError>,
    guests: bool,
) -> Result<(Credentials<'a>, &'a RequestedId<'a>, Features), CloseReason> {
    match first {
        Ok(ClientMessage::AuthToken(AuthToken { token, client_id, features })) => {
            let claim = match token {
                TokenField::Text(token) => Credentials::Token(token),
                TokenField::Malformed => Credentials::Token(""),
                TokenField::Absent if guests => Credentials::Guest,
                TokenField::Absent => return Err(CloseReason::InvalidToken),
            };
            Ok((claim, client_id, *features))
        }
        Ok(ClientMessage::Signal(_) | ClientMessage::Ping) if guests => {
            Ok((Credentials::Guest, &RequestedId::Any, Features::default()))
        }
        Ok(
            ClientMessage::Signal(_)
            | ClientMessage::Ping
            | ClientMessage::Resume(_)
            | ClientMessage::CallReport(_),
        )
        | Err(_) => Err(CloseReason::AuthRequired),
    }
}

/// The next text, which must be there by `until`.
async fn first_text(socket: &mut impl Socket, until: Instant) -> Result<ByteString, CloseReason> {
    let text = async {
        loop {
            if let Some(text) = text_or_close(socket.receive().await)? {
                return Ok(text);
            }
        }
    };
    timeout_at(until, text).await.unwrap_or(Err(CloseReason::AuthRequired))
}

/// The text that arrived, nothing for a heartbeat, or why this was the last that arrived.
fn text_or_close(received: Option<SocketEvent>) -> Result<Option<ByteString>, CloseReason> {
    match received {
        Some(SocketEvent::Text(text)) => Ok(Some(text)),
        Some(SocketEvent::Heartbeat | SocketEvent::Pong) => Ok(None),
        Some(SocketEvent::Close) => Err(CloseReason::ClosedByClient),
        Some(SocketEvent::Binary) => Err(CloseReason::Binary),
        Some(SocketEvent::NotUtf8) => Err(CloseReason::NotUtf8),
        Some(SocketEvent::TooBig) => Err(CloseReason::TooBig),
        Some(SocketEvent::Malformed) => Err(CloseReason::Malformed),
        None => Err(CloseReason::ConnectionLost),
    }
}

/// What a member's task has to do something about.
enum MemberEvent {
    /// Something arrived, or the connection is gone.
    Received(Option<SocketEvent>),
    /// Frames were taken out of the mailbox; since when the first waits.
    Queued(Option<Instant>),
    /// The timer ran out.
    Deadline,
}

/// Somebody who is in.
struct Member<'h, D> {
    host: &'h SessionContext<D>,
    membership: Membership,
    queue: ClientQueue,
    reader: ClientQueueReader,
    /// What it comes back with, where it asked to.
    resume_token: Option<Box<ResumeToken>>,
    /// The client has been told what it comes back with.
    is_resume_token_sent: bool,
    expires_at: Option<Instant>,
    /// When it is to get new ICE servers.
    renew_ice_at: Option<Instant>,
    /// The version of those that the client has.
    ice_version: u64,
    is_guest: bool,
    budget: MessageRateLimiter,
    _grant: Option<TokenSessionGuard>,
}

impl<'h, D: SessionServices> Member<'h, D> {
    /// Somebody who sits on `seat`; and what it is told beside that: its ICE servers, and what it may come
    /// back with.
    fn new(
        host: &'h SessionContext<D>,
        seat: Membership,
        outbox: ClientQueue,
        mailbox: ClientQueueReader,
        admission: Authorized,
        MembershipId { key, since }: MembershipId,
    ) -> (Self, Vec<IceServer>, Option<SecretString>) {
        let expires_at = expires_at(&admission, host.limits.token_refresh_grace);
        let Authorized { expires_in, claims, session: grant, .. } = admission;
        let Peer { client_id, username } = seat.peer();
        let is_guest = expires_in.is_none();
        let ice_version = host.services.ice_version();
        let ice = host.services.ice_servers((!is_guest).then_some(username));
        let wants_ice = outbox.features().ice;
        let ticket = ResumeToken {
            room: host.room.to_string(),
            client_id: client_id.to_string(),
            username: username.to_string(),
            key,
            claims,
            since,
        };
        let token = host.sign(&ticket);
        let SessionLimits { messages_per_second, message_burst, .. } = host.limits;
        let member = Member {
            host,
            membership: seat,
            resume_token: outbox.may_resume().then(|| Box::new(ticket)),
            is_resume_token_sent: false,
            queue: outbox,
            reader: mailbox,
            expires_at,
            renew_ice_at: ice.lifetime.filter(|_| wants_ice).and_then(renew_at),
            ice_version,
            is_guest,
            budget: MessageRateLimiter::new(messages_per_second, message_burst, Instant::now()),
            _grant: grant,
        };
        (member, ice.servers, token)
    }

    /// Says the first words to a member that has just sat down or come back, and acts on what a guest
    /// began with.
    async fn send_welcome(
        &mut self,
        line: &mut TimedSocket<'_, impl Socket>,
        greeting: &[ByteString],
        first: Option<ByteString>,
    ) -> Result<(), CloseReason> {
        line.write(greeting).await?;
        self.is_resume_token_sent = true;
        self.reader.set_direct_writer(line.socket.direct_writer());
        if let Some(first) = first {
            self.handle_frame(&first, Instant::now(), line).await?;
        }
        Ok(())
    }

    /// The connection has ended: the member stays without it where it may come back after such an end.
    fn into_detached(self, goodbye: CloseReason) -> Option<DetachedMember> {
        let Self {
            host,
            membership: mut seat,
            reader: mailbox,
            resume_token: ticket,
            is_resume_token_sent: may_know_ticket,
            _grant,
            ..
        } = self;
        seat.set_leave_reason(goodbye.as_str());
        // Dismissed by others, or with a queue that overflowed, it has lost its seat in any case.
        let stays = may_know_ticket
            && goodbye.may_resume()
            && mailbox.disconnect_signal().reason().is_none();
        let ticket = ticket.filter(|_| stays)?;
        Some(DetachedMember::new(seat, mailbox, ticket, host.limits.resume_window, _grant))
    }

    /// Talks until something ends it.
    async fn run_member(
        &mut self,
        line: &mut TimedSocket<'_, impl Socket>,
    ) -> Result<Infallible, CloseReason> {
        let patience = self.host.limits.timeout;
        let mut heard_at = Instant::now();
        let (mut said_at, mut pinged_at) = (heard_at, heard_at);
        // Since when a Ping is not answered.
        let mut unanswered = None;
        // One timer for all deadlines. Messages only move them on: it is looked at when it has run out.
        let first = self.renew_ice_at.into_iter().fold(heard_at + patience / 3, Instant::min);
        let mut wake = pin!(sleep_until(first));
        let mut frames = Vec::new();
        loop {
            let event = {
                let mut receiving = pin!(line.socket.receive());
                let mut taking = pin!(self.reader.recv_many(&mut frames));
                // What the client says comes before what it hears: it is heard however much waits for it.
                poll_fn(|context| {
                    if let Poll::Ready(received) = receiving.as_mut().poll(context) {
                        return Poll::Ready(MemberEvent::Received(received));
                    }
                    // Before more is written, or nobody would be silent in a talkative room.
                    if wake.as_mut().poll(context).is_ready() {
                        return Poll::Ready(MemberEvent::Deadline);
                    }
                    taking.as_mut().poll(context).map(MemberEvent::Queued)
                })
                .await
            };
            match event {
                MemberEvent::Received(received) => {
                    heard_at = Instant::now();
                    if matches!(received, Some(SocketEvent::Pong))
                        && let Some(since) = unanswered.take()
                    {
                        let within = heard_at.duration_since(since);
                        self.host.metrics.ponged(within);
                        self.queue.record_ping_rtt(within);
                    }
                    if let Some(text) = text_or_close(received)?
                        && self.handle_frame(&text, heard_at, line).await?
                    {
                        said_at = heard_at;
                    }
                }
                MemberEvent::Deadline => {
                    let now = Instant::now();
                    // What we slept through is nobody's silence: what was said meanwhile waits to be read.
                    let late = now.saturating_duration_since(wake.deadline());
                    if late > SUSPEND_THRESHOLD {
                        heard_at = (heard_at + late).min(now);
                    }
                    let expires_at =
                        self.expires_at.filter(|_| self.host.limits.enforce_token_expiry);
                    if expires_at.is_some_and(|at| now >= at) {
                        return Err(CloseReason::TokenExpired);
                    }
                    if now >= heard_at + patience {
                        return Err(CloseReason::Silent);
                    }
                    let is_other = self.ice_version != self.host.services.ice_version();
                    if self.renew_ice_at.is_some_and(|at| now >= at)
                        || (is_other && self.queue.features().ice)
                    {
                        self.renew_ice();
                    }
                    // Also to somebody who only talks: proxies count what the server says.
                    if now >= heard_at.min(said_at) + patience / 3
                        && now >= pinged_at + patience / 3
                    {
                        line.ping().await?;
                        unanswered = unanswered.or(Some(now));
                        (pinged_at, said_at) = (now, now);
                    }
                    let next_ping = heard_at.min(said_at).max(pinged_at) + patience / 3;
                    let silent_at = heard_at + patience;
                    let others = expires_at.into_iter().chain(self.renew_ice_at);
                    let next = others.fold(next_ping.min(silent_at), Instant::min);
                    wake.as_mut().reset(next);
                }
                MemberEvent::Queued(since) => {
                    line.write(&frames).await?;
                    said_at = Instant::now();
                    if let Some(since) = since {
                        self.host.metrics.routed(said_at.duration_since(since));
                    }
                    frames.clear();
                    frames.shrink_to(outbox::IDLE_CAPACITY);
                }
            }
        }
    }

    /// `auth_success`, then `users_in_room`, and nothing before or between them.
    fn welcome(
        &mut self,
        ice_servers: &[IceServer],
        token: Option<&SecretString>,
    ) -> Vec<ByteString> {
        let Peer { client_id, username } = self.membership.peer();
        let success = ServerMessage::AuthSuccess {
            user: username,
            client_id,
            message: "Authentication successful",
            ice_servers,
            ticket: token.map(|token| self.host.resume_offer(token)),
        };
        let mut frames = vec![success.encode()];
        frames.extend(self.reader.try_recv());
        frames
    }

    /// `resumed`; what the client has not got waits in the mailbox.
    fn resumed(
        &self,
        resumed: &Resumed,
        ice_servers: &[IceServer],
        token: Option<&SecretString>,
    ) -> ByteString {
        let others = resumed.others.iter();
        let users = others.map(|(peer, came_before)| RosterEntry {
            client_id: &peer.client_id,
            username: &peer.username,
            polite: *came_before,
        });
        ServerMessage::Resumed {
            client_id: &self.membership.peer().client_id,
            replayed: resumed.replayed_frames,
            users: users.collect(),
            ice_servers,
            ticket: token.map(|token| self.host.resume_offer(token)),
        }
        .encode()
    }

    /// Acts on one message, counts it, and tells its sender what there is to tell; whether there was.
    async fn handle_frame(
        &mut self,
        frame: &str,
        now: Instant,
        line: &mut TimedSocket<'_, impl Socket>,
    ) -> Result<bool, CloseReason> {
        let verdict = self.budget.check(now);
        let (kind, outcome, reply) = match verdict {
            RateVerdict::Pass => self.dispatch(frame, now),
            RateVerdict::Warn => (Kind::Other, Outcome::RateLimited, Some(self.warn(frame))),
            RateVerdict::Drop | RateVerdict::Close => (Kind::Other, Outcome::RateLimited, None),
        };
        self.host.metrics.said(kind, outcome, frame.len());
        let is_told = reply.is_some();
        match reply {
            // Numbered frames have one order.
            Some(reply) if self.resume_token.is_some() => drop(self.queue.push(reply, None)),
            // Before what waits from others, or somebody who has much to hear would hear of it late.
            Some(reply) => line.write(&[reply]).await?,
            None => {}
        }
        if verdict == RateVerdict::Close { Err(CloseReason::RateLimited) } else { Ok(is_told) }
    }

    /// New ICE servers before the credentials of the old ones run out.
    fn renew_ice(&mut self) {
        self.ice_version = self.host.services.ice_version();
        let username = &self.membership.peer().username;
        let IceServerSet { servers, lifetime } =
            self.host.services.ice_servers((!self.is_guest).then_some(username));
        self.renew_ice_at = lifetime.and_then(renew_at);
        let ttl = lifetime.unwrap_or_default().as_secs();
        let frame = ServerMessage::IceServers { ice_servers: &servers, ttl }.encode();
        self.queue.push(frame, None);
    }

    fn span(&self) -> Span {
        self.host.span(Some(self.membership.peer()))
    }

    fn warn(&self, frame: &str) -> ByteString {
        self.span().in_scope(|| tracing::warn!("rate limited"));
        let rate = self.host.limits.messages_per_second;
        let sentence = format!(
            "More than {rate} messages a second: this and the next are not passed on until you slow down"
        );
        self.host.error("rate_limited", &sentence, wire::parse(frame).id)
    }

    fn dispatch(&mut self, frame: &str, now: Instant) -> (Kind, Outcome, Option<ByteString>) {
        let ClientFrame { id, ack, message } = wire::parse(frame);
        if let Some(ack) = ack {
            self.queue.acknowledge(ack);
        }
        let message = match message {
            Ok(message) => message,
            Err(fault) => {
                let told = self.host.error(fault.code(), &fault.to_string(), id);
                return (Kind::Other, Outcome::Refused, Some(told));
            }
        };
        match message {
            ClientMessage::Ping => (Kind::Ping, Outcome::Done, Some(ServerMessage::Pong.encode())),
            ClientMessage::CallReport(report) => {
                self.host.metrics.reported(&report);
                self.membership.record_call_report(&report, now);
                (Kind::Report, Outcome::Done, None)
            }
            ClientMessage::Resume(_) => {
                let sentence = "A resume is the first message of a connection; this one is in";
                let told = self.host.error("invalid_message", sentence, id);
                (Kind::Other, Outcome::Refused, Some(told))
            }
            ClientMessage::AuthToken(introduction) => {
                let refreshed = self.refresh(&introduction);
                let outcome = if refreshed.is_ok() { Outcome::Done } else { Outcome::Refused };
                let refused = |(code, sentence)| self.host.error(code, sentence, id);
                (Kind::AuthToken, outcome, Some(refreshed.unwrap_or_else(refused)))
            }
            ClientMessage::Signal(signal) => {
                let kind = match signal.kind {
                    SignalKind::Offer => Kind::Offer,
                    SignalKind::Answer => Kind::Answer,
                    SignalKind::IceCandidate => Kind::IceCandidate,
                    SignalKind::Message => Kind::Message,
                };
                let id_to_note = id.filter(|_| self.resume_token.is_some());
                if id_to_note.is_some_and(|id| self.queue.is_duplicate_id(id.get())) {
                    return (kind, Outcome::Repeated, None);
                }
                match self.membership.send(&signal, now) {
                    Ok(at_once) => {
                        if at_once {
                            self.host.metrics.routed(now.elapsed());
                        }
                        if let Some(id) = id_to_note {
                            self.queue.note_relayed_id(id.get());
                        }
                        (kind, Outcome::Done, None)
                    }
                    Err(why) => {
                        let sentence = why.to_string();
                        let refused = why.code().map(|code| self.host.error(code, &sentence, id));
                        (kind, Outcome::Refused, refused)
                    }
                }
            }
        }
    }

    /// A new token in an open session: the same user stays, for longer. Or the code and the sentence of
    /// the error.
    fn refresh(
        &mut self,
        introduction: &AuthToken<'_>,
    ) -> Result<ByteString, (&'static str, &'static str)> {
        if self.is_guest {
            let sentence = "A guest has no token to refresh; connect anew to log in";
            return Err(("invalid_message", sentence));
        }
        let TokenField::Text(token) = &introduction.token else {
            return Err(("invalid_token", "There is no token in this message"));
        };
        match self.host.services.authorize(Credentials::Token(token), &self.queue) {
            Ok(admission) if admission.username == self.membership.peer().username => {
                let expires_in = admission.expires_in.unwrap_or_default().as_secs();
                let grace = self.host.limits.token_refresh_grace;
                self.expires_at = expires_at(&admission, grace);
                self._grant = admission.session;
                let token = self.resume_token.as_mut().and_then(|ticket| {
                    ticket.claims = admission.claims;
                    self.host.sign(ticket)
                });
                let ticket = token.as_ref().map(|token| self.host.resume_offer(token));
                Ok(ServerMessage::TokenRefreshed { expires_in, ticket }.encode())
            }
            Ok(_) => {
                Err(("invalid_token", "That token is another user's; this session stays as it is"))
            }
            Err(
                refusal @ (AuthError::BadToken
                | AuthError::Blocked
                | AuthError::NoSuchUser
                | AuthError::Removed),
            ) => {
                let reason = CloseReason::from(refusal).as_str();
                self.span().in_scope(|| tracing::warn!(reason, "token not refreshed"));
                Err(("invalid_token", "That token is not valid; this session stays as it is"))
            }
        }
    }
}

/// When credentials are to be replaced that are good for so long: while there is time for it.
fn renew_at(lifetime: Duration) -> Option<Instant> {
    Instant::now().checked_add(lifetime.mul_f64(0.8))
}

/// When a session that keeps to its token ends; `None` for guests and for tokens without end.
fn expires_at(admission: &Authorized, grace: Duration) -> Option<Instant> {
    let left = admission.expires_in?.checked_add(grace)?;
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests;
