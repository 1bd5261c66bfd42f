//! One connection's life, in order: it introduces itself, sits down, talks and listens, and leaves.

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
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use tracing::{Instrument, Span};

use crate::{
    auth::grants::Grant,
    limits::{MessageBudget, Verdict},
    metrics::{Kind, Metrics, Outcome},
    outbox::{self, Dismissal, Mailbox, Notice, Outbox, Shortcut},
    rooms::{JoinError, Peer, Rooms, RouteError, Seat},
    wire::{
        self, ClientMessage, IceServer, Incoming, Introduction, RequestedId, ServerMessage,
        SignalKind, Token, WireError,
    },
};

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
    /// A Ping (answered already) or a Pong.
    Heartbeat,
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
    /// Whose connection it is, for the log.
    pub address: IpAddr,
    /// How it is to behave.
    pub rules: Rules,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who lets people in.
    pub door: D,
    /// Turns to the time that clients may take to come back when the server stops.
    pub closing: watch::Receiver<Option<Duration>>,
}

impl<D> Host<D> {
    /// What a line of the log says of this connection. Made for each line, and not kept: a session
    /// writes two or three.
    fn span(&self) -> Span {
        tracing::info_span!("socket", room = ?self.room, address = %self.address)
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
}

/// What somebody at the door says about himself.
pub enum Claim<'a> {
    /// A token, good or bad.
    Token(&'a str),
    /// Nothing at all.
    Guest,
}

/// Lets people in: checks the claim of whoever is behind the outbox.
pub trait Door: Fn(Claim<'_>, &Outbox) -> Result<Admission, Refusal> + Send + Sync {}
impl<D: Fn(Claim<'_>, &Outbox) -> Result<Admission, Refusal> + Send + Sync> Door for D {}

/// Somebody may come in.
pub struct Admission {
    /// The account, or the guest's name.
    pub username: Arc<str>,
    /// How long the token still lasts; `None` for a guest.
    pub expires_in: Option<Duration>,
    /// For `new RTCPeerConnection(…)`.
    pub ice_servers: Vec<IceServer>,
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
            Self::Draining => {
                (1012, "Server is restarting", "draining", "The server is restarting", true)
            }
            Self::Internal => {
                (1011, "Internal error", "internal_error", "Something went wrong on our side", true)
            }
        };
        Some(Parting { close, reason, code, sentence, retry })
    }

    /// One word for it: the code of the `error`, or `left` and `gone`.
    fn word(self) -> &'static str {
        match self.parting() {
            Some(parting) => parting.code,
            None if self == Self::Left => "left",
            None => "gone",
        }
    }

    /// Whether also a client that is not in yet is told by an `error` message, not by the close alone.
    fn tells_strangers(self) -> bool {
        matches!(
            self,
            Self::RoomNotAllowed
                | Self::TooManyConnections
                | Self::RoomFull
                | Self::ClientIdTaken
                | Self::InvalidClientId
                | Self::Restarting(_)
                | Self::Draining
        )
    }
}

impl From<Dismissal> for Goodbye {
    fn from(why: Dismissal) -> Self {
        match why {
            Dismissal::TooSlow => Self::TooSlow,
            Dismissal::Replaced => Self::Replaced,
            Dismissal::LoggedOut => Self::LoggedOut,
            Dismissal::PasswordChanged => Self::PasswordChanged,
            Dismissal::AccountGone => Self::AccountGone,
        }
    }
}

impl From<JoinError> for Goodbye {
    fn from(why: JoinError) -> Self {
        match why {
            JoinError::Full => Self::RoomFull,
            JoinError::ClientIdTaken => Self::ClientIdTaken,
        }
    }
}

impl From<Refusal> for Goodbye {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::BadToken => Self::InvalidToken,
            Refusal::Blocked => Self::Blocked,
            Refusal::NoSuchUser => Self::NoSuchUser,
        }
    }
}

/// Lives one connection to its end and says how it ended. The seat is free before the last words.
pub async fn run(socket: &mut impl Socket, host: &Host<impl Door>) -> Goodbye {
    let (outbox, mailbox) = outbox::pair();
    let end = called(mailbox.notice(), host.closing.clone());
    let mut seated: Option<Peer> = None;
    let living = async {
        let mut line = Line { socket, patience: host.rules.patience };
        // Boxed, so that a member does not hold for ever what it needed at the door.
        let introduced = Box::pin(introduce(&mut line, host, outbox, mailbox, &mut seated));
        let mut member = introduced.instrument(host.span()).await?;
        member.converse(&mut line).await
    };
    let goodbye = tokio::select! {
        // The end comes first: when the server stops, nobody is told any more that all the others
        // leave, which would hang up calls that outlive the restart.
        biased;
        goodbye = end => goodbye,
        // One session's fault is nobody else's: unwinding drops the seat, and the client is told.
        lived = AssertUnwindSafe(living).catch_unwind() => match lived {
            Ok(Err(goodbye)) => goodbye,
            Err(_panic) => {
                host.span().in_scope(|| tracing::error!("a session panicked"));
                Goodbye::Internal
            }
        },
    };
    host.metrics.ended(goodbye.word(), seated.is_some());
    host.span().in_scope(|| match &seated {
        Some(Peer { username, client_id }) => {
            tracing::info!(user = ?username, client = %client_id, ?goodbye, "left");
        }
        None => tracing::debug!(?goodbye, "closing"),
    });
    Box::pin(say_goodbye(socket, goodbye, seated.is_some())).await;
    goodbye
}

/// Turns a connection away at the door: the reason stands in place of `auth_required`.
pub async fn refuse(socket: &mut impl Socket, goodbye: Goodbye, metrics: &Metrics) {
    metrics.ended(goodbye.word(), false);
    say_goodbye(socket, goodbye, false).await;
}

async fn say_goodbye(socket: &mut impl Socket, goodbye: Goodbye, admitted: bool) {
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
                socket.send(&[error.encode()]).await?;
            }
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
    uuid::Uuid::new_v4().as_u64_pair().1 % within
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

/// From the first message to a seat, and to `seated` as soon as there is one; a guest's first message is
/// acted on.
async fn introduce<'h, D: Door>(
    line: &mut Line<'_, impl Socket>,
    host: &'h Host<D>,
    outbox: Outbox,
    mailbox: Mailbox,
    seated: &mut Option<Peer>,
) -> Result<Member<'h, D>, Goodbye> {
    let guests = host.rules.guests;
    let greeting = ServerMessage::AuthRequired { message: "Authentication required", guests };
    line.write(&[greeting.encode()]).await?;
    let first = timeout(host.rules.patience, first_text(line.socket)).await;
    let first = first.unwrap_or(Err(Goodbye::AuthRequired))?;

    let message = wire::read(&first).message;
    let (claim, requested) = claim_of(&message, guests)?;
    let admission = (host.door)(claim, &outbox)?;
    let client_id: Arc<str> = match requested {
        RequestedId::This(id) => id.as_ref().into(),
        RequestedId::Any => uuid::Uuid::new_v4().to_string().into(),
        RequestedId::Malformed => return Err(Goodbye::InvalidClientId),
    };
    let carries_on = !matches!(message, Ok(ClientMessage::Auth(_)));
    let peer = Peer { client_id, username: admission.username.clone() };
    let seat = Seat::take(&host.rooms, &host.room, peer, outbox.clone())?;
    let Peer { client_id, username } = seated.insert(seat.peer().clone());
    tracing::info!(user = ?username, client = %client_id, "joined");
    host.metrics.joined();
    let Rules { messages_per_second, message_burst, .. } = host.rules;
    let mut member = Member {
        host,
        seat,
        outbox,
        mailbox,
        expires_at: expiry(&admission),
        is_guest: admission.expires_in.is_none(),
        budget: MessageBudget::new(messages_per_second, message_burst, Instant::now()),
        _grant: admission.grant,
    };
    member.welcome(line, &admission.ice_servers).await?;
    if carries_on && let Some(reply) = member.hear(&first, Instant::now())? {
        line.write(&[reply]).await?;
    }
    Ok(member)
}

/// Who somebody says he is with his first message, and the client id that he asks for.
fn claim_of<'a>(
    first: &'a Result<ClientMessage<'_>, WireError>,
    guests: bool,
) -> Result<(Claim<'a>, &'a RequestedId<'a>), Goodbye> {
    match first {
        Ok(ClientMessage::Auth(Introduction { token, client_id })) => match token {
            Token::Text(token) => Ok((Claim::Token(token), client_id)),
            Token::Malformed => Ok((Claim::Token(""), client_id)),
            Token::Absent if guests => Ok((Claim::Guest, client_id)),
            Token::Absent => Err(Goodbye::InvalidToken),
        },
        Ok(ClientMessage::Signal(_) | ClientMessage::Ping) if guests => {
            Ok((Claim::Guest, &RequestedId::Any))
        }
        Ok(ClientMessage::Signal(_) | ClientMessage::Ping) | Err(_) => Err(Goodbye::AuthRequired),
    }
}

async fn first_text(socket: &mut impl Socket) -> Result<ByteString, Goodbye> {
    loop {
        match unpack(socket.receive().await)? {
            Some(text) => return Ok(text),
            None => continue,
        }
    }
}

/// The text that arrived, nothing for a heartbeat, or why this was the last that arrived.
fn unpack(received: Option<Received>) -> Result<Option<ByteString>, Goodbye> {
    match received {
        Some(Received::Text(text)) => Ok(Some(text)),
        Some(Received::Heartbeat) => Ok(None),
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
    expires_at: Option<Instant>,
    is_guest: bool,
    budget: MessageBudget,
    _grant: Option<Grant>,
}

impl<D: Door> Member<'_, D> {
    /// Talks until something ends it.
    async fn converse(&mut self, line: &mut Line<'_, impl Socket>) -> Result<Infallible, Goodbye> {
        let patience = self.host.rules.patience;
        let mut heard_at = Instant::now();
        let (mut said_at, mut pinged_at) = (heard_at, heard_at);
        // One timer for all deadlines. Messages only move them on: it is looked at when it has run out.
        let mut wake = pin!(sleep_until(heard_at + patience / 3));
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
                    if let Some(text) = unpack(received)?
                        && let Some(reply) = self.hear(&text, heard_at)?
                    {
                        line.write(&[reply]).await?;
                        said_at = heard_at;
                    }
                }
                Event::Deadline => {
                    let now = Instant::now();
                    let expires_at =
                        self.expires_at.filter(|_| self.host.rules.enforce_token_expiry);
                    if expires_at.is_some_and(|at| now >= at) {
                        return Err(Goodbye::TokenExpired);
                    }
                    if now >= heard_at + patience {
                        return Err(Goodbye::Silent);
                    }
                    // Also to somebody who only talks: proxies count what the server says.
                    if now >= heard_at.min(said_at) + patience / 3
                        && now >= pinged_at + patience / 3
                    {
                        line.ping().await?;
                        (pinged_at, said_at) = (now, now);
                    }
                    let next_ping = heard_at.min(said_at).max(pinged_at) + patience / 3;
                    let silent_at = heard_at + patience;
                    let next = expires_at.into_iter().fold(next_ping.min(silent_at), Instant::min);
                    wake.as_mut().reset(next);
                }
                Event::Mail(since) => {
                    line.write(&frames).await?;
                    said_at = Instant::now();
                    if let Some(since) = since {
                        self.host.metrics.routed(said_at.duration_since(since));
                    }
                    frames.clear();
                    frames.shrink_to(outbox::KEPT);
                }
            }
        }
    }

    /// `auth_success`, then `users_in_room`, and nothing before or between them.
    async fn welcome(
        &mut self,
        line: &mut Line<'_, impl Socket>,
        ice_servers: &[IceServer],
    ) -> Result<(), Goodbye> {
        let Peer { client_id, username } = self.seat.peer();
        let success = ServerMessage::AuthSuccess {
            user: username,
            client_id,
            message: "Authentication successful",
            ice_servers,
        };
        let mut frames = vec![success.encode()];
        frames.extend(self.mailbox.next_now());
        line.write(&frames).await?;
        self.mailbox.opens(line.socket.shortcut());
        Ok(())
    }

    /// Acts on one message, and counts it; returns what its sender hears of it.
    fn hear(&mut self, frame: &str, now: Instant) -> Result<Option<ByteString>, Goodbye> {
        let verdict = self.budget.spend(now);
        let (kind, outcome, reply) = match verdict {
            Verdict::Pass => self.act(frame, now),
            Verdict::Warn => (Kind::Other, Outcome::RateLimited, Some(self.warn(frame))),
            Verdict::Drop | Verdict::Close => (Kind::Other, Outcome::RateLimited, None),
        };
        self.host.metrics.said(kind, outcome, frame.len());
        if verdict == Verdict::Close { Err(Goodbye::RateLimited) } else { Ok(reply) }
    }

    fn warn(&self, frame: &str) -> ByteString {
        self.host.span().in_scope(|| tracing::warn!("rate limited"));
        let rate = self.host.rules.messages_per_second;
        let sentence = format!(
            "More than {rate} messages a second: this and the next are not passed on until you slow down"
        );
        error("rate_limited", &sentence, wire::read(frame).id)
    }

    fn act(&mut self, frame: &str, now: Instant) -> (Kind, Outcome, Option<ByteString>) {
        let Incoming { id, message } = wire::read(frame);
        let message = match message {
            Ok(message) => message,
            Err(fault) => return (Kind::Other, Outcome::Refused, Some(wire_error(&fault, id))),
        };
        match message {
            ClientMessage::Ping => (Kind::Ping, Outcome::Done, Some(ServerMessage::Pong.encode())),
            ClientMessage::Auth(introduction) => {
                let refreshed = self.refresh(&introduction);
                let outcome = if refreshed.is_ok() { Outcome::Done } else { Outcome::Refused };
                let refused = |(code, sentence)| error(code, sentence, id);
                (Kind::AuthToken, outcome, Some(refreshed.unwrap_or_else(refused)))
            }
            ClientMessage::Signal(signal) => {
                let kind = match signal.kind {
                    SignalKind::Offer => Kind::Offer,
                    SignalKind::Answer => Kind::Answer,
                    SignalKind::IceCandidate => Kind::IceCandidate,
                    SignalKind::Message => Kind::Message,
                };
                let refused = match self.seat.send(&signal, now) {
                    Ok(at_once) => {
                        if at_once {
                            self.host.metrics.routed(now.elapsed());
                        }
                        return (kind, Outcome::Done, None);
                    }
                    Err(unknown @ RouteError::NoSuchPeer(_)) => {
                        Some(error("target_not_found", &unknown.to_string(), id))
                    }
                    Err(own @ RouteError::Yourself) => {
                        Some(error("invalid_message", &own.to_string(), id))
                    }
                    Err(RouteError::NotSeated) => None, // the dismissal is on its way
                };
                (kind, Outcome::Refused, refused)
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
        let asked = || (self.host.door)(Claim::Token(token), &self.outbox);
        match self.host.span().in_scope(asked) {
            Ok(admission) if admission.username == self.seat.peer().username => {
                let expires_in = admission.expires_in.unwrap_or_default().as_secs();
                self.expires_at = expiry(&admission);
                self._grant = admission.grant;
                Ok(ServerMessage::TokenRefreshed { expires_in }.encode())
            }
            Ok(_) => {
                Err(("invalid_token", "That token is another user's; this session stays as it is"))
            }
            Err(Refusal::BadToken | Refusal::Blocked | Refusal::NoSuchUser) => {
                Err(("invalid_token", "That token is not valid; this session stays as it is"))
            }
        }
    }
}

/// When a session that keeps to its token ends; `None` for guests and for tokens without end.
fn expiry(admission: &Admission) -> Option<Instant> {
    let left = admission.expires_in?.checked_add(REFRESH_GRACE)?;
    Instant::now().checked_add(left)
}

fn wire_error(fault: &WireError, id: Option<&RawValue>) -> ByteString {
    error(fault.code(), &fault.to_string(), id)
}

fn error(code: &str, message: &str, id: Option<&RawValue>) -> ByteString {
    ServerMessage::Error { message, code, id, retry: None, retry_after_ms: None }.encode()
}

#[cfg(test)]
mod tests;
