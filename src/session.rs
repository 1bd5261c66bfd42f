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
        grants::Grant,
        ticket::{Ticket, Tickets},
        token::Claims,
    },
    limits::{MessageBudget, Verdict},
    metrics::{MessageOutcome, MessageType, Metrics, ResumeResult},
    moderation::Barred,
    outbox::{self, Dismissal, Mailbox, NotResumed, Notice, Outbox, Shortcut},
    replay::Replay,
    rooms::{JoinError, NotFetched, Peer, Resumed, Rooms, Seat},
    wire::{
        self, ClientMessage, Features, IceServer, Incoming, Introduction, PeerInRoom, RequestedId,
        Resumption, ServerMessage, SignalKind, TicketToResume, Token, WireError,
    },
};

pub use parked::{Parked, Record, Survivors};

/// How long after its token a session may still present a new one.
const REFRESH_GRACE: Duration = Duration::from_secs(60);

/// How long a client may take to read our last words and to close its side.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a session needs of a WebSocket.
pub trait Socket: Send {
    /// The next thing that arrives; `None` when the connection is gone. Safe to cancel.
    fn receive(&mut self) -> impl Future<Output = Option<Received>> + Send;
    /// Writes text frames. After cancelling, what comes next goes out behind whole frames.
    fn send(&mut self, frames: &[ByteString]) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Writes a Ping.
    fn ping(&mut self) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Writes a Close.
    fn close(
        &mut self,
        code: u16,
        reason: &'static str,
    ) -> impl Future<Output = Result<(), Broken>> + Send;
    /// A way for others to write text frames while this socket's own task sleeps, where there is one.
    fn shortcut(&self) -> Option<Arc<dyn Shortcut>> {
        None
    }
}

/// The connection is gone.
#[derive(Debug)]
pub struct Broken;

/// What arrives on a WebSocket (RFC 6455).
#[derive(Debug)]
pub enum Received {
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
pub struct Host<D> {
    /// Where members sit.
    pub rooms: Rooms,
    /// The room of this connection.
    pub room: Arc<str>,
    /// The request that it came with, for the log.
    pub request: Uuid,
    /// Whose connection it is, for the log.
    pub address: IpAddr,
    /// How it is to behave.
    pub rules: Rules,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who lets people in.
    pub door: D,
    /// Signs what clients come back with.
    pub tickets: Arc<Tickets>,
    /// Who is to be let in again by the next process.
    pub survivors: Survivors,
    /// Turns to the time that clients may take to come back when the server stops.
    pub closing: watch::Receiver<Option<Duration>>,
}

impl<D> Host<D> {
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
        self.metrics.record_error(code);
        ServerMessage::Error { message, code, id, retry: None, retry_after_ms: None }.encode()
    }

    /// What a client shows that comes back; `None` where none may.
    fn sign(&self, ticket: &Ticket) -> Option<SecretString> {
        if self.rules.resume_window.is_zero() {
            return None;
        }
        let signed = self.tickets.sign(ticket);
        signed.inspect_err(|error| tracing::error!(%error, "no resume token")).ok()
    }

    fn to_resume<'a>(&self, token: &'a SecretString) -> TicketToResume<'a> {
        TicketToResume {
            resume_token: token.expose_secret(),
            resume_window_seconds: self.rules.resume_window.as_secs(),
        }
    }
}

/// The settings that a session keeps to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// For the first message, for silence, and for a single write.
    pub patience: Duration,
    /// How fast the message budget refills.
    pub messages_per_second: u32,
    /// What the message budget holds.
    pub message_burst: u32,
    /// Whether somebody without a token may come in.
    pub guests: bool,
    /// Whether a session ends with its token.
    pub enforce_token_expiry: bool,
    /// How long a client may be away that resumes; zero where none may.
    pub resume_window: Duration,
}

/// What somebody at the door says about himself.
pub enum Claim<'a> {
    /// A token, good or bad.
    Token(&'a str),
    /// Nothing at all.
    Guest,
    /// He was here before.
    Ticket(&'a Ticket),
}

/// Lets people in.
pub trait Door: Send + Sync {
    /// Checks the claim of whoever is behind the outbox.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    fn admit(&self, claim: Claim<'_>, outbox: &Outbox) -> Result<Admission, Refusal>;
    /// Why somebody who was admitted may not come into this room now, whatever it is that bars him.
    fn bars(&self, room: &str, peer: &Peer) -> Option<Barred>;
    /// The time, in milliseconds since the Unix epoch.
    fn now(&self) -> u64;
    /// What this user is to give to `new RTCPeerConnection(…)` from now on; a guest has no name.
    fn ice_servers(&self, username: Option<&str>) -> IceGrant;

    /// Another number whenever the servers themselves were replaced.
    fn ice_version(&self) -> u64;
}

/// ICE servers, with credentials that run out.
#[derive(Default)]
pub struct IceGrant {
    /// STUN and TURN.
    pub servers: Vec<IceServer>,
    /// How long the credentials are good for; `None` where there are none.
    pub lifetime: Option<Duration>,
}

/// Somebody may come in.
pub struct Admission {
    /// The account, or the guest's name.
    pub username: Arc<str>,
    /// How long the token still lasts; `None` for a guest.
    pub expires_in: Option<Duration>,
    /// What the token says; `None` for a guest.
    pub claims: Option<Claims>,
    /// What ends the session with its token or account; held as long as the session lasts.
    pub grant: Option<Grant>,
}

/// Somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
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
pub enum Goodbye {
    /// The client closed.
    Left,
    /// The connection broke.
    Gone,
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
    AccountGone,
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
struct Parting {
    close: u16,
    reason: &'static str,
    code: &'static str,
    sentence: &'static str,
    retry: bool,
}

impl Goodbye {
    /// Each of them, to be counted from 0.
    const ALL: [Self; 30] = [
        Self::Left,
        Self::Gone,
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
        Self::AccountGone,
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
    fn parting(self) -> Option<Parting> {
        let (close, reason, code, sentence, retry) = match self {
            Self::Left | Self::Gone => return None,
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
            Self::AccountGone => (
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
        Some(Parting { close, reason, code, sentence, retry })
    }

    /// Says in the log that somebody was not let in.
    fn is_logged(self) {
        let reason = self.word();
        // Whoever is blocked could fill the log, and was named often enough before.
        if self.parting().is_none() || self == Self::Blocked {
            tracing::debug!(reason, "not let in");
        } else {
            tracing::warn!(reason, "not let in");
        }
    }

    /// One word for it: the code of the `error`, or `left` and `gone`.
    fn word(self) -> &'static str {
        match self.parting() {
            Some(parting) => parting.code,
            None if self == Self::Left => "left",
            None => "gone",
        }
    }

    /// Whether a member may come back after it, to where it was: what the close says by `"retry":true`, and
    /// a connection that broke. With a token that ran out it may not.
    fn may_resume(self) -> bool {
        match self.parting() {
            Some(parting) => parting.retry && self != Self::TokenExpired,
            None => self == Self::Gone,
        }
    }

    /// Whether also a client that is not in yet is told by an `error` message, not by the close alone.
    fn tells_strangers(self) -> bool {
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

impl From<Dismissal> for Goodbye {
    fn from(why: Dismissal) -> Self {
        match why {
            Dismissal::TooSlow => Self::TooSlow,
            Dismissal::Replaced | Dismissal::Resumed => Self::Replaced,
            Dismissal::LoggedOut => Self::LoggedOut,
            Dismissal::PasswordChanged => Self::PasswordChanged,
            Dismissal::AccountGone => Self::AccountGone,
            Dismissal::Removed => Self::Removed,
        }
    }
}

impl From<Barred> for Goodbye {
    fn from(why: Barred) -> Self {
        match why {
            Barred::Banned => Self::Banned,
            Barred::Locked => Self::RoomLocked,
        }
    }
}

impl From<JoinError> for Goodbye {
    fn from(why: JoinError) -> Self {
        match why {
            JoinError::Full => Self::RoomFull,
            JoinError::ClientIdTaken => Self::ClientIdTaken,
            JoinError::Unavailable => Self::Unavailable,
        }
    }
}

impl From<Refusal> for Goodbye {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::BadToken => Self::InvalidToken,
            Refusal::Blocked => Self::Blocked,
            Refusal::NoSuchUser => Self::NoSuchUser,
            Refusal::Removed => Self::Banned,
        }
    }
}

/// Tells `metrics` how sessions may end. Call it once, before the first.
pub fn announce(metrics: &Metrics) {
    for goodbye in Goodbye::ALL {
        metrics.preregister_session_end(
            goodbye.word(),
            goodbye.parting().map(|parting| parting.close),
        );
        metrics.preregister_leave(goodbye.word());
    }
    metrics.preregister_leave(parked::AWAY_TOO_LONG);
}

/// What the log says, and a trace shows, of a connection to `room` while it introduces itself.
pub fn introduction(request: Uuid, room: &str, address: IpAddr) -> Span {
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
    host: &Host<impl Door>,
    introduction: Span,
) -> (Goodbye, Option<Parked>) {
    let (outbox, mailbox) = outbox::pair();
    let end = called(mailbox.notice(), host.closing.clone());
    let mut member = None;
    let living = async {
        let mut line = Line { socket, patience: host.rules.patience };
        // Boxed, so that a member does not hold for ever what it needed at the door.
        let introduced = Box::pin(introduce(&mut line, host, outbox, mailbox).inspect(|entered| {
            if let Err(goodbye) = entered {
                goodbye.is_logged();
            }
        }));
        let (entered, greeting, first) = introduced.instrument(introduction).await?;
        let member = member.insert(entered);
        member.settles(&mut line, &greeting, first).await?;
        drop(greeting);
        member.converse(&mut line).await
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
                Goodbye::Internal
            }
        },
    };
    let admitted = member.is_some();
    host.metrics.record_session_end(goodbye.word(), admitted);
    let parked = member.and_then(|member| {
        let span = host.span(Some(member.seat.peer()));
        let notice = member.mailbox.notice();
        let parked = member.parks(goodbye);
        let reason = goodbye.word();
        match notice.now() {
            // The seat is another connection's.
            Some(Dismissal::Resumed) => {}
            why => {
                if why == Some(Dismissal::TooSlow) {
                    host.metrics.record_queue_overflow();
                }
                if parked.is_none() {
                    host.metrics.record_leave(reason);
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
    let parked = if matches!(goodbye, Goodbye::Restarting(_)) {
        parked.into_iter().for_each(|parked| host.survivors.keep(parked));
        None
    } else {
        parked
    };
    Box::pin(say_goodbye(socket, goodbye, admitted, &host.metrics)).await;
    (goodbye, parked)
}

/// Our own sleep, in a process or a machine that was stopped, if a timer is so late.
const OWN_SLEEP: Duration = Duration::from_secs(1);

/// Turns a connection away at the door: the reason stands in place of `auth_required`.
pub async fn refuse(
    socket: &mut impl Socket,
    goodbye: Goodbye,
    introduction: Span,
    metrics: &Metrics,
) {
    introduction.in_scope(|| goodbye.is_logged());
    drop(introduction);
    metrics.record_session_end(goodbye.word(), false);
    say_goodbye(socket, goodbye, false, metrics).await;
}

async fn say_goodbye(
    socket: &mut impl Socket,
    goodbye: Goodbye,
    admitted: bool,
    metrics: &Metrics,
) {
    let last_words = async {
        if let Some(parting) = goodbye.parting() {
            let mut retry_after_ms = None;
            if let Goodbye::Restarting(within) = goodbye {
                let reconnect_in_ms = spread_over(within);
                retry_after_ms = Some(reconnect_in_ms);
                socket.send(&[ServerMessage::ServerShutdown { reconnect_in_ms }.encode()]).await?;
            }
            if admitted || goodbye.tells_strangers() {
                let Parting { code, sentence, retry, .. } = parting;
                let error = ServerMessage::Error {
                    message: sentence,
                    code,
                    id: None,
                    retry: Some(retry),
                    retry_after_ms,
                };
                metrics.record_error(code);
                socket.send(&[error.encode()]).await?;
            }
            metrics.record_close(parting.close);
            socket.close(parting.close, parting.reason).await?;
        }
        // Whoever hangs up on unread data resets the connection, and the close may be lost on the way.
        while socket.receive().await.is_some() {}
        Ok::<_, Broken>(())
    };
    let _ = timeout(LAST_WORDS, last_words).await;
}

/// Some time within the given one, different for everybody, in milliseconds.
fn spread_over(within: Duration) -> u64 {
    let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(1);
    Uuid::new_v4().as_u64_pair().1 % within
}

/// A socket whose writes end in time.
struct Line<'a, S> {
    socket: &'a mut S,
    patience: Duration,
}

impl<S: Socket> Line<'_, S> {
    async fn write(&mut self, frames: &[ByteString]) -> Result<(), Goodbye> {
        in_time(self.patience, self.socket.send(frames)).await
    }

    async fn ping(&mut self) -> Result<(), Goodbye> {
        in_time(self.patience, self.socket.ping()).await
    }
}

/// A client that does not read would block its own task in a write.
async fn in_time(
    patience: Duration,
    writing: impl Future<Output = Result<(), Broken>> + Send,
) -> Result<(), Goodbye> {
    let mut writing = pin!(writing);
    // Nearly every write is done at once and needs no timer, nor room for one.
    let written = match poll_fn(|context| Poll::Ready(writing.as_mut().poll(context))).await {
        Poll::Ready(written) => Ok(written),
        Poll::Pending => Box::pin(timeout(patience, writing)).await,
    };
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Broken)) => Err(Goodbye::Gone),
        Err(_elapsed) => Err(Goodbye::TooSlow),
    }
}

/// What ends a session from outside: somebody's dismissal, or the server that stops.
async fn called(notice: Notice, closing: watch::Receiver<Option<Duration>>) -> Goodbye {
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
            notice.wakes(context.waker());
        }
        if let Some(why) = notice.now() {
            return Poll::Ready(why.into());
        }
        if is_waiting && !is_news {
            return Poll::Pending;
        }
        stops.as_mut().poll(context).map(|within| {
            Goodbye::Restarting(within.ok().and_then(|within| *within).unwrap_or_default())
        })
    })
    .await
}

/// What a newcomer hears first, and the first message of a guest, which is still to be acted on.
type Entered<'h, D> = (Member<'h, D>, Vec<ByteString>, Option<ByteString>);

/// From the first message to a seat.
async fn introduce<'h, D: Door>(
    line: &mut Line<'_, impl Socket>,
    host: &'h Host<D>,
    outbox: Outbox,
    mailbox: Mailbox,
) -> Result<Entered<'h, D>, Goodbye> {
    let guests = host.rules.guests;
    let greeting = ServerMessage::AuthRequired { message: "Authentication required", guests };
    line.write(&[greeting.encode()]).await?;
    let until = Instant::now() + host.rules.patience;
    let mut first = first_text(line.socket, until).await?;

    if let Incoming { id, message: Ok(ClientMessage::Resume(resumption)), .. } = wire::read(&first)
    {
        let resumed = timeout_at(until, resume(host, &resumption, &outbox)).await;
        match resumed.unwrap_or(Err(Goodbye::Unavailable))? {
            Ok((seat, admission, membership, resumed)) => {
                is_seen(seat.peer());
                tracing::info!(replayed = resumed.replayed, "resumed");
                host.metrics.record_resume(ResumeResult::Resumed);
                let (mut member, ice_servers, token) =
                    Member::new(host, seat, outbox, mailbox, admission, membership);
                member.may_know_ticket = true;
                let greeting = member.resumed(&resumed, &ice_servers, token.as_ref());
                return Ok((member, vec![greeting], None));
            }
            Err(sentence) => {
                host.metrics.record_resume(ResumeResult::Refused);
                tracing::info!(reason = sentence, "not resumed");
                line.write(&[host.error("resume_failed", &sentence, id)]).await?;
            }
        }
        first = first_text(line.socket, until).await?;
    }
    let message = wire::read(&first).message;
    let (claim, requested, features) = claim_of(&message, guests)?;
    let admission = host.door.admit(claim, &outbox)?;
    let client_id: Arc<str> = match requested {
        RequestedId::This(id) => id.as_ref().into(),
        RequestedId::Any => Uuid::new_v4().to_string().into(),
        RequestedId::Malformed => return Err(Goodbye::InvalidClientId),
    };
    let carries_on = !matches!(message, Ok(ClientMessage::Auth(_)));
    let key = Uuid::new_v4().as_u128();
    if features.resume && !host.rules.resume_window.is_zero() {
        outbox.remembers(Box::new(Replay::new(key)));
    }
    outbox.opts_in(features);
    let peer = Peer { client_id, username: admission.username.clone() };
    // Also where the room has no seat for him.
    is_seen(&peer);
    let is_let_in = || match host.door.bars(&host.room, &peer) {
        None => Ok(()),
        Some(why) => {
            let goodbye = Goodbye::from(why);
            host.rooms.notes_refusal(&host.room, &peer, goodbye.word());
            Err(goodbye)
        }
    };
    is_let_in()?;
    outbox.comes_from(host.address);
    let since = host.door.now();
    let mut seat = Seat::ask(&host.rooms, &host.room, peer.clone(), outbox.clone()).await?;
    // Whoever was barred meanwhile was not in yet to be thrown out.
    if let Err(goodbye) = is_let_in() {
        seat.because(goodbye.word());
        return Err(goodbye);
    }
    tracing::info!("joined");
    host.metrics.record_join();
    let membership = Membership { key, since };
    let (mut member, ice_servers, token) =
        Member::new(host, seat, outbox, mailbox, admission, membership);
    let greeting = member.welcome(&ice_servers, token.as_ref());
    Ok((member, greeting, carries_on.then_some(first)))
}

/// From here on the log says who introduces himself.
fn is_seen(Peer { username, client_id }: &Peer) {
    Span::current().record("user", &**username).record("client", &**client_id);
}

/// One membership, over all its connections.
struct Membership {
    /// Tells it from all others.
    key: u128,
    /// When it began, in milliseconds since the Unix epoch.
    since: u64,
}

/// Gives somebody who was here before the seat that he had, and says which membership that is; or the
/// sentence of the error.
async fn resume<D: Door>(
    host: &Host<D>,
    resumption: &Resumption<'_>,
    outbox: &Outbox,
) -> Result<Result<(Seat, Admission, Membership, Resumed), String>, Goodbye> {
    let (ticket, last_seq, admission) = match readmit(host, resumption, outbox) {
        Ok(readmitted) => readmitted,
        Err(sentence) => return Ok(Err(sentence)),
    };
    let client_id: Arc<str> = ticket.client_id.as_str().into();
    let peer = Peer { client_id: client_id.clone(), username: admission.username.clone() };
    let (rooms, room, key) = (&host.rooms, &host.room, ticket.key);
    let sits_down = || Seat::resume(rooms, room, peer.clone(), key, outbox.clone(), last_seq);
    let luggage = parked::luggage(&ticket, host.rules.resume_window);
    outbox.comes_from(host.address);
    let seat = loop {
        match sits_down() {
            Err(NotResumed::Over) => {}
            seat => break seat,
        }
        match Seat::fetch(rooms, room, &client_id, key, luggage.clone()).await {
            // If it is not gone again, to where its client was looked for before.
            Ok(()) => {}
            // Unless it has come here while we asked.
            Err(NotFetched::Over) => break sits_down(),
            Err(NotFetched::Unavailable) => return Err(Goodbye::Unavailable),
        }
    };
    let membership = Membership { key, since: ticket.since };
    // Whoever was thrown out meanwhile was perhaps on the way.
    if seat.is_ok() && host.door.admit(Claim::Ticket(&ticket), outbox).is_err() {
        return Ok(Err(NO_LONGER.into()));
    }
    let seated = seat.map(|(seat, resumed)| (seat, admission, membership, resumed));
    Ok(seated.map_err(|why| why.to_string()))
}

const NO_LONGER: &str = "What that membership stood on no longer counts";

/// Whether somebody may come back at all, and to which membership; or the sentence of the error.
fn readmit<D: Door>(
    host: &Host<D>,
    resumption: &Resumption<'_>,
    outbox: &Outbox,
) -> Result<(Ticket, u64, Admission), String> {
    let Token::Text(ticket) = &resumption.token else {
        return Err("Field \"resume_token\" must be a string".into());
    };
    let last_seq = resumption
        .last_seq
        .ok_or("Field \"last_seq\" must be the \"seq\" of the last frame that you got, or 0")?;
    let ticket = host.tickets.verify(ticket).map_err(|_| "That resume token is not valid")?;
    if *ticket.room != *host.room {
        return Err("That resume token is for another room".into());
    }
    let admission = host.door.admit(Claim::Ticket(&ticket), outbox);
    let admission = admission.map_err(|_| NO_LONGER)?;
    Ok((ticket, last_seq, admission))
}

/// Who somebody says he is with his first message, the client id that he asks for, and what else he can
/// do with.
fn claim_of<'a>(
    first: &'a Result<ClientMessage<'_>, WireError>,
    guests: bool,
) -> Result<(Claim<'a>, &'a RequestedId<'a>, Features), Goodbye> {
    match first {
        Ok(ClientMessage::Auth(Introduction { token, client_id, features })) => {
            let claim = match token {
                Token::Text(token) => Claim::Token(token),
                Token::Malformed => Claim::Token(""),
                Token::Absent if guests => Claim::Guest,
                Token::Absent => return Err(Goodbye::InvalidToken),
            };
            Ok((claim, client_id, *features))
        }
        Ok(ClientMessage::Signal(_) | ClientMessage::Ping) if guests => {
            Ok((Claim::Guest, &RequestedId::Any, Features::default()))
        }
        Ok(
            ClientMessage::Signal(_)
            | ClientMessage::Ping
            | ClientMessage::Resume(_)
            | ClientMessage::Report(_),
        )
        | Err(_) => Err(Goodbye::AuthRequired),
    }
}

/// The next text, which must be there by `until`.
async fn first_text(socket: &mut impl Socket, until: Instant) -> Result<ByteString, Goodbye> {
    let text = async {
        loop {
            if let Some(text) = unpack(socket.receive().await)? {
                return Ok(text);
            }
        }
    };
    timeout_at(until, text).await.unwrap_or(Err(Goodbye::AuthRequired))
}

/// The text that arrived, nothing for a heartbeat, or why this was the last that arrived.
fn unpack(received: Option<Received>) -> Result<Option<ByteString>, Goodbye> {
    match received {
        Some(Received::Text(text)) => Ok(Some(text)),
        Some(Received::Heartbeat | Received::Pong) => Ok(None),
        Some(Received::Close) => Err(Goodbye::Left),
        Some(Received::Binary) => Err(Goodbye::Binary),
        Some(Received::NotUtf8) => Err(Goodbye::NotUtf8),
        Some(Received::TooBig) => Err(Goodbye::TooBig),
        Some(Received::Malformed) => Err(Goodbye::Malformed),
        None => Err(Goodbye::Gone),
    }
}

/// What a member's task has to do something about.
enum Event {
    /// Something arrived, or the connection is gone.
    Received(Option<Received>),
    /// Frames were taken out of the mailbox; since when the first waits.
    Mail(Option<Instant>),
    /// The timer ran out.
    Deadline,
}

/// Somebody who is in.
struct Member<'h, D> {
    host: &'h Host<D>,
    seat: Seat,
    outbox: Outbox,
    mailbox: Mailbox,
    /// What it comes back with, where it asked to.
    ticket: Option<Box<Ticket>>,
    /// The client has been told what it comes back with.
    may_know_ticket: bool,
    expires_at: Option<Instant>,
    /// When it is to get new ICE servers.
    ice_at: Option<Instant>,
    /// The version of those that the client has.
    ice_version: u64,
    is_guest: bool,
    budget: MessageBudget,
    _grant: Option<Grant>,
}

impl<'h, D: Door> Member<'h, D> {
    /// Somebody who sits on `seat`; and what it is told beside that: its ICE servers, and what it may come
    /// back with.
    fn new(
        host: &'h Host<D>,
        seat: Seat,
        outbox: Outbox,
        mailbox: Mailbox,
        admission: Admission,
        Membership { key, since }: Membership,
    ) -> (Self, Vec<IceServer>, Option<SecretString>) {
        let expires_at = expiry(&admission);
        let Admission { expires_in, claims, grant, .. } = admission;
        let Peer { client_id, username } = seat.peer();
        let is_guest = expires_in.is_none();
        let ice_version = host.door.ice_version();
        let ice = host.door.ice_servers((!is_guest).then_some(username));
        let wants_ice = outbox.features().ice;
        let ticket = Ticket {
            room: host.room.to_string(),
            client_id: client_id.to_string(),
            username: username.to_string(),
            key,
            claims,
            since,
        };
        let token = host.sign(&ticket);
        let Rules { messages_per_second, message_burst, .. } = host.rules;
        let member = Member {
            host,
            seat,
            ticket: outbox.may_resume().then(|| Box::new(ticket)),
            may_know_ticket: false,
            outbox,
            mailbox,
            expires_at,
            ice_at: ice.lifetime.filter(|_| wants_ice).and_then(renewal),
            ice_version,
            is_guest,
            budget: MessageBudget::new(messages_per_second, message_burst, Instant::now()),
            _grant: grant,
        };
        (member, ice.servers, token)
    }

    /// Says the first words to a member that has just sat down or come back, and acts on what a guest
    /// began with.
    async fn settles(
        &mut self,
        line: &mut Line<'_, impl Socket>,
        greeting: &[ByteString],
        first: Option<ByteString>,
    ) -> Result<(), Goodbye> {
        line.write(greeting).await?;
        self.may_know_ticket = true;
        self.mailbox.opens(line.socket.shortcut());
        if let Some(first) = first {
            self.hear(&first, Instant::now(), line).await?;
        }
        Ok(())
    }

    /// The connection has ended: the member stays without it where it may come back after such an end.
    fn parks(self, goodbye: Goodbye) -> Option<Parked> {
        let Self { host, mut seat, mailbox, ticket, may_know_ticket, _grant, .. } = self;
        seat.because(goodbye.word());
        // Dismissed by others, or with a queue that overflowed, it has lost its seat in any case.
        let stays = may_know_ticket && goodbye.may_resume() && mailbox.notice().now().is_none();
        let ticket = ticket.filter(|_| stays)?;
        Some(Parked::new(seat, mailbox, ticket, host.rules.resume_window, _grant))
    }

    /// Talks until something ends it.
    async fn converse(&mut self, line: &mut Line<'_, impl Socket>) -> Result<Infallible, Goodbye> {
        let patience = self.host.rules.patience;
        let mut heard_at = Instant::now();
        let (mut said_at, mut pinged_at) = (heard_at, heard_at);
        // Since when a Ping is not answered.
        let mut unanswered = None;
        // One timer for all deadlines. Messages only move them on: it is looked at when it has run out.
        let first = self.ice_at.into_iter().fold(heard_at + patience / 3, Instant::min);
        let mut wake = pin!(sleep_until(first));
        let mut frames = Vec::new();
        loop {
            let event = {
                let mut receiving = pin!(line.socket.receive());
                let mut taking = pin!(self.mailbox.take(&mut frames));
                // What the client says comes before what it hears: it is heard however much waits for it.
                poll_fn(|context| {
                    if let Poll::Ready(received) = receiving.as_mut().poll(context) {
                        return Poll::Ready(Event::Received(received));
                    }
                    // Before more is written, or nobody would be silent in a talkative room.
                    if wake.as_mut().poll(context).is_ready() {
                        return Poll::Ready(Event::Deadline);
                    }
                    taking.as_mut().poll(context).map(Event::Mail)
                })
                .await
            };
            match event {
                Event::Received(received) => {
                    heard_at = Instant::now();
                    if matches!(received, Some(Received::Pong))
                        && let Some(since) = unanswered.take()
                    {
                        let within = heard_at.duration_since(since);
                        self.host.metrics.record_ping_rtt(within);
                        self.outbox.ponged(within);
                    }
                    if let Some(text) = unpack(received)?
                        && self.hear(&text, heard_at, line).await?
                    {
                        said_at = heard_at;
                    }
                }
                Event::Deadline => {
                    let now = Instant::now();
                    // What we slept through is nobody's silence: what was said meanwhile waits to be read.
                    let late = now.saturating_duration_since(wake.deadline());
                    if late > OWN_SLEEP {
                        heard_at = (heard_at + late).min(now);
                    }
                    let expires_at =
                        self.expires_at.filter(|_| self.host.rules.enforce_token_expiry);
                    if expires_at.is_some_and(|at| now >= at) {
                        return Err(Goodbye::TokenExpired);
                    }
                    if now >= heard_at + patience {
                        return Err(Goodbye::Silent);
                    }
                    let is_other = self.ice_version != self.host.door.ice_version();
                    if self.ice_at.is_some_and(|at| now >= at)
                        || (is_other && self.outbox.features().ice)
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
                    let others = expires_at.into_iter().chain(self.ice_at);
                    let next = others.fold(next_ping.min(silent_at), Instant::min);
                    wake.as_mut().reset(next);
                }
                Event::Mail(since) => {
                    line.write(&frames).await?;
                    said_at = Instant::now();
                    if let Some(since) = since {
                        self.host.metrics.record_routing(said_at.duration_since(since));
                    }
                    frames.clear();
                    frames.shrink_to(outbox::KEPT);
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
        let Peer { client_id, username } = self.seat.peer();
        let success = ServerMessage::AuthSuccess {
            user: username,
            client_id,
            message: "Authentication successful",
            ice_servers,
            ticket: token.map(|token| self.host.to_resume(token)),
        };
        let mut frames = vec![success.encode()];
        frames.extend(self.mailbox.next_now());
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
        let users = others.map(|(peer, came_before)| PeerInRoom {
            client_id: &peer.client_id,
            username: &peer.username,
            polite: *came_before,
        });
        ServerMessage::Resumed {
            client_id: &self.seat.peer().client_id,
            replayed: resumed.replayed,
            users: users.collect(),
            ice_servers,
            ticket: token.map(|token| self.host.to_resume(token)),
        }
        .encode()
    }

    /// Acts on one message, counts it, and tells its sender what there is to tell; whether there was.
    async fn hear(
        &mut self,
        frame: &str,
        now: Instant,
        line: &mut Line<'_, impl Socket>,
    ) -> Result<bool, Goodbye> {
        let verdict = self.budget.spend(now);
        let (kind, outcome, reply) = match verdict {
            Verdict::Pass => self.act(frame, now),
            Verdict::Warn => {
                (MessageType::Other, MessageOutcome::RateLimited, Some(self.warn(frame)))
            }
            Verdict::Drop | Verdict::Close => {
                (MessageType::Other, MessageOutcome::RateLimited, None)
            }
        };
        self.host.metrics.record_message(kind, outcome, frame.len());
        let is_told = reply.is_some();
        match reply {
            // Numbered frames have one order.
            Some(reply) if self.ticket.is_some() => drop(self.outbox.push(reply, None)),
            // Before what waits from others, or somebody who has much to hear would hear of it late.
            Some(reply) => line.write(&[reply]).await?,
            None => {}
        }
        if verdict == Verdict::Close { Err(Goodbye::RateLimited) } else { Ok(is_told) }
    }

    /// New ICE servers before the credentials of the old ones run out.
    fn renew_ice(&mut self) {
        self.ice_version = self.host.door.ice_version();
        let username = &self.seat.peer().username;
        let IceGrant { servers, lifetime } =
            self.host.door.ice_servers((!self.is_guest).then_some(username));
        self.ice_at = lifetime.and_then(renewal);
        let ttl = lifetime.unwrap_or_default().as_secs();
        let frame = ServerMessage::IceServers { ice_servers: &servers, ttl }.encode();
        self.outbox.push(frame, None);
    }

    fn span(&self) -> Span {
        self.host.span(Some(self.seat.peer()))
    }

    fn warn(&self, frame: &str) -> ByteString {
        self.span().in_scope(|| tracing::warn!("rate limited"));
        let rate = self.host.rules.messages_per_second;
        let sentence = format!(
            "More than {rate} messages a second: this and the next are not passed on until you slow down"
        );
        self.host.error("rate_limited", &sentence, wire::read(frame).id)
    }

    fn act(
        &mut self,
        frame: &str,
        now: Instant,
    ) -> (MessageType, MessageOutcome, Option<ByteString>) {
        let Incoming { id, ack, message } = wire::read(frame);
        if let Some(ack) = ack {
            self.outbox.acknowledge(ack);
        }
        let message = match message {
            Ok(message) => message,
            Err(fault) => {
                let told = self.host.error(fault.code(), &fault.to_string(), id);
                return (MessageType::Other, MessageOutcome::Refused, Some(told));
            }
        };
        match message {
            ClientMessage::Ping => {
                (MessageType::Ping, MessageOutcome::Done, Some(ServerMessage::Pong.encode()))
            }
            ClientMessage::Report(report) => {
                self.host.metrics.record_call_report(&report);
                self.seat.reports(&report, now);
                (MessageType::CallReport, MessageOutcome::Done, None)
            }
            ClientMessage::Resume(_) => {
                let sentence = "A resume is the first message of a connection; this one is in";
                let told = self.host.error("invalid_message", sentence, id);
                (MessageType::Other, MessageOutcome::Refused, Some(told))
            }
            ClientMessage::Auth(introduction) => {
                let refreshed = self.refresh(&introduction);
                let outcome =
                    if refreshed.is_ok() { MessageOutcome::Done } else { MessageOutcome::Refused };
                let refused = |(code, sentence)| self.host.error(code, sentence, id);
                (MessageType::AuthToken, outcome, Some(refreshed.unwrap_or_else(refused)))
            }
            ClientMessage::Signal(signal) => {
                let kind = match signal.kind {
                    SignalKind::Offer => MessageType::Offer,
                    SignalKind::Answer => MessageType::Answer,
                    SignalKind::IceCandidate => MessageType::IceCandidate,
                    SignalKind::Message => MessageType::Message,
                };
                let id_to_note = id.filter(|_| self.ticket.is_some());
                if id_to_note.is_some_and(|id| self.outbox.is_repeated(id.get())) {
                    return (kind, MessageOutcome::Repeated, None);
                }
                match self.seat.send(&signal, now) {
                    Ok(at_once) => {
                        if at_once {
                            self.host.metrics.record_routing(now.elapsed());
                        }
                        if let Some(id) = id_to_note {
                            self.outbox.passed_on(id.get());
                        }
                        (kind, MessageOutcome::Done, None)
                    }
                    Err(why) => {
                        let sentence = why.to_string();
                        let refused = why.code().map(|code| self.host.error(code, &sentence, id));
                        (kind, MessageOutcome::Refused, refused)
                    }
                }
            }
        }
    }

    /// A new token in an open session: the same user stays, for longer. Or the code and the sentence of
    /// the error.
    fn refresh(
        &mut self,
        introduction: &Introduction<'_>,
    ) -> Result<ByteString, (&'static str, &'static str)> {
        if self.is_guest {
            let sentence = "A guest has no token to refresh; connect anew to log in";
            return Err(("invalid_message", sentence));
        }
        let Token::Text(token) = &introduction.token else {
            return Err(("invalid_token", "There is no token in this message"));
        };
        match self.host.door.admit(Claim::Token(token), &self.outbox) {
            Ok(admission) if admission.username == self.seat.peer().username => {
                let expires_in = admission.expires_in.unwrap_or_default().as_secs();
                self.expires_at = expiry(&admission);
                self._grant = admission.grant;
                let token = self.ticket.as_mut().and_then(|ticket| {
                    ticket.claims = admission.claims;
                    self.host.sign(ticket)
                });
                let ticket = token.as_ref().map(|token| self.host.to_resume(token));
                Ok(ServerMessage::TokenRefreshed { expires_in, ticket }.encode())
            }
            Ok(_) => {
                Err(("invalid_token", "That token is another user's; this session stays as it is"))
            }
            Err(
                refusal @ (Refusal::BadToken
                | Refusal::Blocked
                | Refusal::NoSuchUser
                | Refusal::Removed),
            ) => {
                let reason = Goodbye::from(refusal).word();
                self.span().in_scope(|| tracing::warn!(reason, "token not refreshed"));
                Err(("invalid_token", "That token is not valid; this session stays as it is"))
            }
        }
    }
}

/// When credentials are to be replaced that are good for so long: while there is time for it.
fn renewal(lifetime: Duration) -> Option<Instant> {
    Instant::now().checked_add(lifetime.mul_f64(0.8))
}

/// When a session that keeps to its token ends; `None` for guests and for tokens without end.
fn expiry(admission: &Admission) -> Option<Instant> {
    let left = admission.expires_in?.checked_add(REFRESH_GRACE)?;
    Instant::now().checked_add(left)
}

#[cfg(test)]
mod tests;
