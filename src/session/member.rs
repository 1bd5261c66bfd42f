//! A member with a connection: the loop in which its session waits.

use std::{convert::Infallible, future::poll_fn, pin::pin, task::Poll, time::Duration};

use bytestring::ByteString;
use tokio::time::{Instant, sleep_until};
use tracing::Span;

use super::{
    Authorized, DetachedMember, IceServerSet, SessionContext, SessionServices,
    context::message_rate,
    liveness::{Liveness, PongOrigin, TimedSocket},
    welcome::Welcome,
};
use crate::{
    auth::{
        access_token::Claims, permissions::CapabilitySet, resume_token::ResumeToken,
        token_sessions::TokenSessionGuard,
    },
    delivery::{ClientQueue, ClientQueueReader, DisconnectSignal},
    limits::{MessageBudget, RateVerdict},
    protocol::{CloseReason, MessageLimits, ServerMessage},
    rooms::{Membership, Peer, Resumed},
    websocket::{Socket, SocketEvent},
};

/// Identifies a membership across its connections.
pub(super) struct MembershipId {
    /// Unique among all memberships.
    pub(super) key: u128,
    /// When it began, in milliseconds since the Unix epoch.
    pub(super) since: u64,
}

/// What comes of a frame for its sender.
pub(super) struct Answer {
    pub(super) reply: Option<ByteString>,
    /// It does not slow down, so its connection ends.
    pub(super) is_over_rate: bool,
}

/// What a member's task has to handle.
enum MemberEvent {
    /// The socket has an event; `None` when the connection is lost.
    Received(Option<SocketEvent>),
    /// Frames were taken from the send queue, or none where a Ping was requested. The time is that of the oldest peer's
    /// signal among them.
    Queued(Option<Instant>),
    /// The timer fired.
    Deadline,
}

/// What is left to do for an event. A member's task holds what it has across a wait for as long as it lives, so that all else is done
/// before.
enum Step {
    /// Nothing.
    Done,
    /// To write the frames for it, or the Ping that is queued.
    Write,
    /// To write frames of the send queue. The time is that of the oldest peer's signal among them.
    WriteQueued(Option<Instant>),
    /// To fetch the key of the token in this text, and to handle the text then.
    FetchKey(ByteString),
}

/// A member with a connection. In this order: every message touches the first half.
#[repr(C)]
pub(super) struct Member<'h, D> {
    pub(super) context: &'h SessionContext<D>,
    pub(super) queue: ClientQueue,
    reader: ClientQueueReader,
    /// The contents of the token with which the client resumes, where it opted in to that.
    pub(super) resume_token: Option<Box<ResumeToken>>,
    /// The client may have received its resume token.
    pub(super) is_resume_token_sent: bool,
    pub(super) is_guest: bool,
    /// Its signals are passed on without its addresses.
    pub(super) is_relay_only: bool,
    /// What its token allows.
    pub(super) can: CapabilitySet,
    pub(super) membership: Membership,
    pub(super) budget: MessageBudget,
    /// The limits that apply to the client's messages, as it was told.
    pub(super) message_limits: MessageLimits,
    pub(super) expires_at: Option<Instant>,
    /// When it receives new ICE servers.
    renew_ice_at: Option<Instant>,
    /// The version of the ICE servers that the client has.
    ice_version: u64,
    pub(super) token_session: Option<TokenSessionGuard>,
}

impl<'h, D: SessionServices> Member<'h, D> {
    /// The member of `membership`, and what it is told first.
    pub(super) fn new(
        context: &'h SessionContext<D>,
        membership: Membership,
        queue: ClientQueue,
        reader: ClientQueueReader,
        authorized: Authorized,
        MembershipId { key, since }: MembershipId,
    ) -> (Self, Welcome) {
        let expires_at = expires_at(&authorized, context.limits.token_refresh_grace);
        let (is_guest, account) = (authorized.is_guest(), authorized.account(context.address));
        let Authorized { claims, session, .. } = authorized;
        let can = claims.as_ref().map_or(CapabilitySet::MEMBER, Claims::capabilities);
        let is_relay_only = claims.as_ref().is_some_and(Claims::is_relay_only);
        let Peer { client_id, username, name } = membership.peer();
        let ice_version = context.services.ice_version();
        let ice = context.services.ice_servers((!is_guest).then_some(username));
        let wants_ice = queue.features().ice;
        let permissions = claims.as_ref().and_then(|claims| claims.permissions.clone());
        let resume_token = ResumeToken {
            room: context.room.to_string(),
            client_id: client_id.to_string(),
            username: username.to_string(),
            name: name.as_deref().map(str::to_owned),
            key,
            claims,
            since,
        };
        let signed = context.sign_resume_token(&resume_token);
        let message_limits = context.limits.messages;
        let budget = context.message_budgets.acquire(
            account,
            context.room.clone(),
            client_id,
            message_rate(message_limits),
            Instant::now(),
        );
        let member = Member {
            context,
            membership,
            resume_token: queue.may_resume().then(|| Box::new(resume_token)),
            is_resume_token_sent: false,
            queue,
            reader,
            expires_at,
            renew_ice_at: ice.lifetime.filter(|_| wants_ice).and_then(renew_at),
            ice_version,
            message_limits,
            is_guest,
            can,
            is_relay_only,
            budget,
            token_session: session,
        };
        let welcome = Welcome { ice_servers: ice.servers, resume_token: signed, permissions };
        (member, welcome)
    }

    /// Sends the greeting to a member that has just joined or resumed, and handles the first frame of a guest.
    pub(super) async fn send_welcome(
        &mut self,
        socket: &mut TimedSocket<'_, impl Socket>,
        greeting: Vec<ByteString>,
        guest_frame: Option<ByteString>,
    ) -> Result<(), CloseReason> {
        // A reload may have been between the start of the connection and this session.
        socket.socket.set_max_message_bytes(self.message_limits.max_message_bytes);
        socket.write(&greeting).await?;
        self.is_resume_token_sent = true;
        self.reader.set_direct_writer(socket.socket.direct_writer());
        if let Some(frame) = guest_frame {
            let now = Instant::now();
            let verdict = self.budget.check(frame.len(), now);
            let Answer { reply, .. } = self.handle_message(verdict, Some(&frame), frame.len(), now);
            if let Some(reply) = reply.and_then(|reply| self.queue_reply(reply)) {
                socket.write(std::slice::from_ref(&reply)).await?;
            }
        }
        Ok(())
    }

    /// Receives and sends until the connection ends.
    pub(super) async fn run_member(
        &mut self,
        socket: &mut TimedSocket<'_, impl Socket>,
    ) -> Result<Infallible, CloseReason> {
        let mut liveness = Liveness::new(&self.context.limits, Instant::now());
        // One timer for all deadlines. Frames only postpone them: they are checked when it fires.
        let first = self.renew_ice_at.into_iter().fold(liveness.next_deadline(), Instant::min);
        let mut timer = pin!(sleep_until(first));
        loop {
            let mut frames = Vec::new();
            let event = poll_fn(|context| {
                // The client's frames come before those for it: it is read however many are queued.
                if let Poll::Ready(received) = socket.socket.poll_receive(context) {
                    return Poll::Ready(MemberEvent::Received(received));
                }
                // Before more is written, or no member would time out in a busy room.
                if timer.as_mut().poll(context).is_ready() {
                    return Poll::Ready(MemberEvent::Deadline);
                }
                self.reader.poll_recv_many(context, &mut frames).map(MemberEvent::Queued)
            })
            .await;
            let mut step = match event {
                MemberEvent::Received(received) => {
                    self.receive(received, &mut liveness, &mut frames)?
                }
                MemberEvent::Deadline => {
                    let now = Instant::now();
                    liveness.excuse_suspension(timer.deadline(), now);
                    self.check_deadlines(&liveness, now)?;
                    self.follow_message_limits(socket.socket, now);
                    let is_ping_due = liveness.is_ping_due(now);
                    if is_ping_due {
                        socket.socket.queue_ping();
                        liveness.record_ping(now);
                    }
                    timer.as_mut().reset(self.next_deadline(&liveness));
                    if is_ping_due { Step::Write } else { Step::Done }
                }
                MemberEvent::Queued(_) if frames.is_empty() => {
                    socket.socket.queue_ping();
                    liveness.record_ping(Instant::now());
                    Step::Write
                }
                MemberEvent::Queued(oldest_received_at) => Step::WriteQueued(oldest_received_at),
            };
            if let Step::FetchKey(text) = step {
                if let Some(token) = self.token_with_unknown_key(&text) {
                    Box::pin(self.context.services.await_issuer_key(&token)).await;
                }
                let now = Instant::now();
                let answer = self.handle_message(RateVerdict::Pass, Some(&text), text.len(), now);
                step = self.answer(answer, &mut liveness, &mut frames)?;
            }
            if !matches!(step, Step::Done) {
                socket.write(&frames).await?;
            }
            if let Step::WriteQueued(oldest_received_at) = step {
                let now = Instant::now();
                liveness.record_sent(now);
                if let Some(received_at) = oldest_received_at {
                    self.context.metrics.record_routing(now.duration_since(received_at));
                }
            }
        }
    }

    /// Handles what has arrived. What is to be written for it goes to `frames`.
    fn receive(
        &mut self,
        received: Option<SocketEvent>,
        liveness: &mut Liveness<'_>,
        frames: &mut Vec<ByteString>,
    ) -> Result<Step, CloseReason> {
        let now = Instant::now();
        liveness.record_received(now);
        if matches!(received, Some(SocketEvent::Pong)) {
            self.queue.record_pong();
            if let PongOrigin::Answer { rtt } = liveness.record_pong(now) {
                self.record_ping_rtt(rtt);
                return Ok(Step::Done);
            }
        }
        let answer = match received {
            Some(SocketEvent::Discarded { length }) => {
                let verdict = self.budget.check(length, now);
                self.handle_message(verdict, None, length, now)
            }
            other => match text_or_close(other)? {
                Some(text) => {
                    let verdict = self.budget.check(text.len(), now);
                    if verdict == RateVerdict::Pass && self.token_with_unknown_key(&text).is_some()
                    {
                        return Ok(Step::FetchKey(text));
                    }
                    self.handle_message(verdict, Some(&text), text.len(), now)
                }
                None => self.count_control_frame(now),
            },
        };
        self.answer(answer, liveness, frames)
    }

    /// Puts the answer to `frames`, or into the send queue, or says why the connection ends.
    fn answer(
        &self,
        Answer { reply, is_over_rate }: Answer,
        liveness: &mut Liveness<'_>,
        frames: &mut Vec<ByteString>,
    ) -> Result<Step, CloseReason> {
        if is_over_rate {
            return Err(CloseReason::RateLimited);
        }
        if reply.is_some() {
            liveness.record_answer();
        }
        frames.extend(reply.and_then(|reply| self.queue_reply(reply)));
        Ok(if frames.is_empty() { Step::Done } else { Step::Write })
    }

    fn record_ping_rtt(&self, rtt: Option<Duration>) {
        if let Some(rtt) = rtt {
            self.context.metrics.record_ping_rtt(rtt);
            self.queue.record_ping_rtt(rtt);
        }
    }

    /// Ends the connection when its token has expired or its client is silent, and renews ICE servers.
    fn check_deadlines(
        &mut self,
        liveness: &Liveness<'_>,
        now: Instant,
    ) -> Result<(), CloseReason> {
        if self.enforced_expiry().is_some_and(|at| now >= at) {
            return Err(CloseReason::TokenExpired);
        }
        if liveness.is_silent(now) {
            return Err(CloseReason::Silent);
        }
        let is_replaced = self.ice_version != self.context.services.ice_version();
        if self.renew_ice_at.is_some_and(|at| now >= at)
            || (is_replaced && self.queue.features().ice)
        {
            self.renew_ice();
        }
        Ok(())
    }

    fn next_deadline(&self, liveness: &Liveness<'_>) -> Instant {
        let others = self.enforced_expiry().into_iter().chain(self.renew_ice_at);
        others.fold(liveness.next_deadline(), Instant::min)
    }

    /// When the session ends with its token, where it does.
    fn enforced_expiry(&self) -> Option<Instant> {
        self.expires_at.filter(|_| self.context.limits.enforce_token_expiry)
    }

    /// Queues new ICE servers before the credentials of the old ones expire.
    fn renew_ice(&mut self) {
        self.ice_version = self.context.services.ice_version();
        let username = &self.membership.peer().username;
        let IceServerSet { servers, lifetime } =
            self.context.services.ice_servers((!self.is_guest).then_some(username));
        self.renew_ice_at = lifetime.and_then(renew_at);
        let ttl = lifetime.unwrap_or_default().as_secs();
        let frame = ServerMessage::IceServers { ice_servers: &servers, ttl }.encode();
        self.queue.push(frame, None);
    }

    /// Applies other limits of messages, and sends them to a client that opted in to that.
    fn follow_message_limits(&mut self, socket: &mut impl Socket, now: Instant) {
        let limits = self.context.services.message_limits();
        if limits == self.message_limits {
            return;
        }
        self.message_limits = limits;
        self.budget.set_rate(message_rate(limits), now);
        socket.set_max_message_bytes(limits.max_message_bytes);
        if self.queue.features().limits {
            self.queue.push(ServerMessage::Limits { limits }.encode(), None);
        }
    }

    /// `auth_success`, then `users_in_room`; no other frame comes before or between them.
    pub(super) fn welcome(
        &mut self,
        expires_in: Option<Duration>,
        contents: &Welcome,
    ) -> Vec<ByteString> {
        let peer = self.membership.peer();
        let success = contents.auth_success(self.context, peer, expires_in, self.message_limits);
        let mut frames = vec![success];
        frames.extend(self.reader.try_recv());
        frames
    }

    /// `resumed`. The frames that the client has not received are in its send queue.
    pub(super) fn resumed(&self, resumed: &Resumed, contents: &Welcome) -> ByteString {
        contents.resumed(self.context, self.peer(), resumed, self.message_limits)
    }

    pub(super) fn peer(&self) -> &Peer {
        self.membership.peer()
    }

    pub(super) fn span(&self) -> Span {
        self.context.span(Some(self.peer()))
    }

    pub(super) fn disconnect_signal(&self) -> DisconnectSignal {
        self.reader.disconnect_signal()
    }

    /// The connection has ended for `reason`: returns the member where it may resume after that, otherwise it leaves.
    pub(super) fn into_detached(self, reason: CloseReason) -> Option<DetachedMember> {
        let Self {
            context,
            mut membership,
            reader,
            resume_token,
            is_resume_token_sent,
            token_session,
            ..
        } = self;
        membership.set_leave_reason(reason.as_str());
        // A member that was disconnected by others, or whose queue overflowed, loses its membership in any case.
        let stays = is_resume_token_sent
            && reason.may_resume()
            && reader.disconnect_signal().reason().is_none();
        let token = resume_token.filter(|_| stays)?;
        let window = context.limits.resume_window;
        Some(DetachedMember::new(membership, reader, token, window, token_session))
    }
}

/// The text that arrived; `None` for a Ping, a Pong or a short fragment; or why nothing more is accepted.
pub(super) fn text_or_close(
    received: Option<SocketEvent>,
) -> Result<Option<ByteString>, CloseReason> {
    match received {
        Some(SocketEvent::Text(text)) => Ok(Some(text)),
        Some(SocketEvent::Ping | SocketEvent::Pong | SocketEvent::ShortFragment) => Ok(None),
        Some(SocketEvent::Close) => Err(CloseReason::ClosedByClient),
        Some(SocketEvent::Binary) => Err(CloseReason::Binary),
        Some(SocketEvent::NotUtf8) => Err(CloseReason::NotUtf8),
        Some(SocketEvent::TooBig | SocketEvent::Discarded { .. }) => Err(CloseReason::TooBig),
        Some(SocketEvent::Malformed) => Err(CloseReason::Malformed),
        None => Err(CloseReason::ConnectionLost),
    }
}

/// When to replace credentials that are valid for `lifetime`: at four fifths of it.
fn renew_at(lifetime: Duration) -> Option<Instant> {
    Instant::now().checked_add(lifetime.mul_f64(0.8))
}

/// When a session ends that ends with its token; `None` for guests and for tokens without expiry.
pub(super) fn expires_at(authorized: &Authorized, grace: Duration) -> Option<Instant> {
    let left = authorized.expires_in?.checked_add(grace)?;
    Instant::now().checked_add(left)
}
