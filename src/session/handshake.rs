//! The handshake of a session: from the first frame to a membership.

use std::sync::Arc;

use bytestring::ByteString;
use tokio::time::{Instant, timeout_at};
use tracing::Span;
use uuid::Uuid;

use super::{
    Credentials, SessionContext, SessionServices,
    context::message_rate,
    liveness::TimedSocket,
    member::{Member, MembershipId, text_or_close},
    resume::{ResumeFailure, ResumedMembership, resume},
};
use crate::{
    auth::access_token::Claims,
    delivery::{ClientQueue, ClientQueueReader, ReplayBuffer},
    limits::{MessageRateLimiter, RateVerdict, RefusalKind, count_refusal},
    metrics::{LimitKind, ResumeResult},
    protocol::{
        self, AuthToken, ClientFrame, ClientMessage, CloseReason, Features, FrameError,
        RequestedId, ServerMessage, TokenField,
    },
    rooms::{JoinError, Membership, Peer},
    websocket::Socket,
};

/// A new member, and what is to be done first.
pub(super) struct HandshakeOutcome<'h, D> {
    pub(super) member: Member<'h, D>,
    /// The frames that the member receives first.
    pub(super) greeting: Vec<ByteString>,
    /// The first frame of a guest, which is not handled yet.
    pub(super) guest_frame: Option<ByteString>,
}

/// Authenticates the client, and gives it a new membership or the one that it resumes.
pub(super) async fn handshake<'h, D: SessionServices>(
    socket: &mut TimedSocket<'_, impl Socket>,
    context: &'h SessionContext<D>,
    queue: ClientQueue,
    reader: ClientQueueReader,
) -> Result<HandshakeOutcome<'h, D>, CloseReason> {
    let guests = context.limits.guests;
    let invitation = ServerMessage::AuthRequired { message: "Authentication required", guests };
    socket.write(&[invitation.encode()]).await?;
    let deadline = Instant::now() + context.limits.timeout;
    let max_message_bytes = context.limits.messages.max_message_bytes;
    let mut budget = MessageRateLimiter::new(message_rate(context.limits.messages), Instant::now());
    let mut first = first_text(socket.socket, deadline, &mut budget).await?;

    if let ClientFrame { id, message: Ok(ClientMessage::Resume(request)), .. } =
        protocol::parse(&first)
    {
        let resumed = timeout_at(deadline, resume(context, &request, &queue)).await;
        match resumed.unwrap_or(Err(ResumeFailure::Unavailable)) {
            Ok(ResumedMembership { membership, authorized, id, resumed }) => {
                record_peer_in_span(membership.peer());
                tracing::info!(replayed = resumed.replayed_frames, "membership resumed");
                context.metrics.record_resume(ResumeResult::Resumed);
                socket.socket.set_max_message_bytes(max_message_bytes);
                let (mut member, told) =
                    Member::new(context, membership, queue, reader, authorized, id);
                member.is_resume_token_sent = true;
                let greeting = vec![member.resumed(&resumed, &told)];
                return Ok(HandshakeOutcome { member, greeting, guest_frame: None });
            }
            Err(ResumeFailure::Unavailable) => return Err(CloseReason::Unavailable),
            Err(ResumeFailure::TooOften(wait)) => {
                context.metrics.record_limit(LimitKind::Joins);
                return Err(CloseReason::TooManyJoins(wait));
            }
            Err(ResumeFailure::Refused(sentence)) => {
                context.metrics.record_resume(ResumeResult::Refused);
                let address = context.address;
                if let Some(count) = count_refusal(RefusalKind::Resume, address, Instant::now()) {
                    tracing::info!(reason = sentence, count, "resume refused");
                }
                socket.write(&[context.encode_error("resume_failed", &sentence, id)]).await?;
            }
        }
        first = first_text(socket.socket, deadline, &mut budget).await?;
    }
    let message = protocol::parse(&first).message;
    let (credentials, requested_id, features) = credentials_of(&message, guests)?;
    if let Credentials::Token(token) = credentials
        && context.services.needs_issuer_key(token)
    {
        let known = context.services.await_issuer_key(token);
        timeout_at(deadline, known).await.map_err(|_elapsed| CloseReason::InvalidToken)?;
    }
    let authorized = context.services.authorize(credentials, &queue)?;
    if authorized.claims.as_ref().is_some_and(|claims| !claims.allow_membership(&context.room)) {
        return Err(CloseReason::Forbidden);
    }
    let client_id: Arc<str> = match requested_id {
        RequestedId::This(id) => id.as_ref().into(),
        RequestedId::Any => Uuid::new_v4().to_string().into(),
        RequestedId::Malformed => return Err(CloseReason::InvalidClientId),
    };
    let account = authorized.account(context.address);
    if let Err(wait) = context.joins.check(&account, context.address, Instant::now()) {
        context.metrics.record_limit(LimitKind::Joins);
        return Err(CloseReason::TooManyJoins(wait));
    }
    let is_guest_frame = !matches!(message, Ok(ClientMessage::AuthToken(_)));
    let key = Uuid::new_v4().as_u128();
    if features.resume && !context.limits.resume_window.is_zero() {
        queue.enable_replay(Box::new(ReplayBuffer::new(key)));
    }
    queue.set_features(features);
    if authorized.is_guest() {
        queue.set_guest();
    }
    let name = authorized.claims.as_ref().and_then(Claims::display_name).map(Arc::from);
    let peer = Peer { client_id, username: authorized.username.clone(), name };
    // Also where the room has no place for the peer.
    record_peer_in_span(&peer);
    let check_entry = || match context.services.check_entry(&context.room, &peer) {
        None => Ok(()),
        Some(denied) => {
            let reason = CloseReason::from(denied);
            context.rooms.record_refusal(&context.room, &peer, reason.as_str());
            Err(reason)
        }
    };
    check_entry()?;
    queue.set_address(context.address);
    let since = context.services.now();
    let join = || Membership::join(&context.rooms, &context.room, peer.clone(), queue.clone());
    let joined = match join().await {
        Err(JoinError::Full) if !authorized.is_guest() && evict_own(context, &peer).await => {
            join().await
        }
        joined => joined,
    };
    let mut membership = joined?;
    // A rule that was made during the join did not find this member to remove it.
    if let Err(reason) = check_entry() {
        membership.set_leave_reason(reason.as_str());
        return Err(reason);
    }
    socket.socket.set_max_message_bytes(max_message_bytes);
    tracing::info!("member joined");
    context.metrics.record_join();
    let id = MembershipId { key, since };
    let expires_in = authorized.expires_in;
    let (mut member, told) = Member::new(context, membership, queue, reader, authorized, id);
    let greeting = member.welcome(expires_in, &told);
    Ok(HandshakeOutcome { member, greeting, guest_frame: is_guest_frame.then_some(first) })
}

/// Makes a place for a client in a full room by ending its user's oldest membership, where no client is behind that. Returns
/// whether there was such a membership.
async fn evict_own<D>(context: &SessionContext<D>, peer: &Peer) -> bool {
    let (rooms, room) = (&context.rooms, &context.room);
    let is_evicted = rooms.backend().evict_oldest_if_dead(rooms, room, &peer.username).await;
    if is_evicted {
        tracing::info!("own membership replaced in a full room");
    }
    is_evicted
}

/// Adds the peer to the log lines of the rest of the handshake.
fn record_peer_in_span(Peer { username, client_id, .. }: &Peer) {
    Span::current().record("user", &**username).record("client", &**client_id);
}

/// The credentials in the first frame, the client id that it asks for, and the features that it opts in to.
fn credentials_of<'a>(
    first: &'a Result<ClientMessage<'_>, FrameError>,
    guests: bool,
) -> Result<(Credentials<'a>, &'a RequestedId<'a>, Features), CloseReason> {
    match first {
        Ok(ClientMessage::AuthToken(AuthToken { token, client_id, features })) => {
            let credentials = match token {
                TokenField::Text(token) => Credentials::Token(token),
                TokenField::Malformed => Credentials::Token(""),
                TokenField::Absent if guests => Credentials::Guest,
                TokenField::Absent => return Err(CloseReason::InvalidToken),
            };
            Ok((credentials, client_id, *features))
        }
        Ok(ClientMessage::Signal(_) | ClientMessage::Ping) if guests => {
            Ok((Credentials::Guest, &RequestedId::Any, Features::default()))
        }
        Ok(
            ClientMessage::Signal(_)
            | ClientMessage::Ping
            | ClientMessage::Resume(_)
            | ClientMessage::CallReport(_)
            | ClientMessage::Moderate(_),
        )
        | Err(_) => Err(CloseReason::AuthRequired),
    }
}

/// The next text message, which must arrive by `deadline`. Pings do not extend it, and count against `budget`.
async fn first_text(
    socket: &mut impl Socket,
    deadline: Instant,
    budget: &mut MessageRateLimiter,
) -> Result<ByteString, CloseReason> {
    let text = async {
        loop {
            if let Some(text) = text_or_close(socket.receive().await)? {
                return Ok(text);
            }
            if budget.check(0, Instant::now()) != RateVerdict::Pass {
                return Err(CloseReason::RateLimited);
            }
        }
    };
    timeout_at(deadline, text).await.unwrap_or(Err(CloseReason::AuthRequired))
}
