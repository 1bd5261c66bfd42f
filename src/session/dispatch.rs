//! Acts on each frame of a member: relays signals, answers pings, refreshes tokens.

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    AuthError, Credentials, SessionServices,
    liveness::TimedSocket,
    member::{Member, expires_at},
};
use crate::{
    limits::RateVerdict,
    metrics::{MessageOutcome, MessageType},
    protocol::{
        self, AuthToken, ClientFrame, ClientMessage, CloseReason, ServerMessage, SignalKind,
        TokenField,
    },
    websocket::Socket,
};

impl<D: SessionServices> Member<'_, D> {
    /// Acts on one frame, counts it, and answers its sender where there is an answer; returns whether there was one.
    pub(super) async fn handle_frame(
        &mut self,
        frame: &str,
        now: Instant,
        socket: &mut TimedSocket<'_, impl Socket>,
    ) -> Result<bool, CloseReason> {
        let verdict = self.budget.check(now);
        let (kind, outcome, reply) = match verdict {
            RateVerdict::Pass => self.dispatch(frame, now),
            RateVerdict::Warn => {
                (MessageType::Other, MessageOutcome::RateLimited, Some(self.rate_warning(frame)))
            }
            RateVerdict::Drop | RateVerdict::Close => {
                (MessageType::Other, MessageOutcome::RateLimited, None)
            }
        };
        self.context.metrics.record_message(kind, outcome, frame.len());
        let is_answered = reply.is_some();
        match reply {
            // Frames with sequence numbers have one order.
            Some(reply) if self.resume_token.is_some() => drop(self.queue.push(reply, None)),
            // Before the queued frames of others, or a client that receives many would get its answer late.
            Some(reply) => socket.write(&[reply]).await?,
            None => {}
        }
        if verdict == RateVerdict::Close { Err(CloseReason::RateLimited) } else { Ok(is_answered) }
    }

    /// The `error` frame for the first frame over the message rate.
    fn rate_warning(&self, frame: &str) -> ByteString {
        self.span().in_scope(|| tracing::warn!("message rate exceeded"));
        let rate = self.context.limits.messages_per_second;
        let sentence = format!(
            "More than {rate} messages a second: this and the next are not passed on until you slow down"
        );
        self.context.encode_error("rate_limited", &sentence, protocol::parse(frame).id)
    }

    /// Acts on one frame. Returns its type, what was done with it, and the answer to its sender.
    fn dispatch(
        &mut self,
        frame: &str,
        now: Instant,
    ) -> (MessageType, MessageOutcome, Option<ByteString>) {
        let ClientFrame { id, ack, message } = protocol::parse(frame);
        if let Some(ack) = ack {
            self.queue.acknowledge(ack);
        }
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                let reply = self.context.encode_error(error.code(), &error.to_string(), id);
                return (MessageType::Other, MessageOutcome::Refused, Some(reply));
            }
        };
        match message {
            ClientMessage::Ping => {
                (MessageType::Ping, MessageOutcome::Done, Some(ServerMessage::Pong.encode()))
            }
            ClientMessage::CallReport(report) => {
                self.context.metrics.record_call_report(&report);
                self.membership.record_call_report(&report, now);
                (MessageType::CallReport, MessageOutcome::Done, None)
            }
            ClientMessage::Resume(_) => {
                let sentence = "A resume is the first message of a connection; this one is in";
                let reply = self.context.encode_error("invalid_message", sentence, id);
                (MessageType::Other, MessageOutcome::Refused, Some(reply))
            }
            ClientMessage::AuthToken(auth) => {
                let refreshed = self.refresh(&auth);
                let outcome =
                    if refreshed.is_ok() { MessageOutcome::Done } else { MessageOutcome::Refused };
                let refuse = |(code, sentence)| self.context.encode_error(code, sentence, id);
                (MessageType::AuthToken, outcome, Some(refreshed.unwrap_or_else(refuse)))
            }
            ClientMessage::Signal(signal) => {
                let kind = match signal.kind {
                    SignalKind::Offer => MessageType::Offer,
                    SignalKind::Answer => MessageType::Answer,
                    SignalKind::IceCandidate => MessageType::IceCandidate,
                    SignalKind::Message => MessageType::Message,
                };
                let id_to_note = id.filter(|_| self.resume_token.is_some());
                if id_to_note.is_some_and(|id| self.queue.is_duplicate_id(id.get())) {
                    return (kind, MessageOutcome::Repeated, None);
                }
                match self.membership.send(&signal, now) {
                    Ok(is_written) => {
                        if is_written {
                            self.context.metrics.record_routing(now.elapsed());
                        }
                        if let Some(id) = id_to_note {
                            self.queue.note_relayed_id(id.get());
                        }
                        (kind, MessageOutcome::Done, None)
                    }
                    Err(error) => {
                        let sentence = error.to_string();
                        let reply =
                            error.code().map(|code| self.context.encode_error(code, &sentence, id));
                        (kind, MessageOutcome::Refused, reply)
                    }
                }
            }
        }
    }

    /// Accepts a new access token of the same user, which extends the session. The error is a code and a sentence.
    fn refresh(
        &mut self,
        auth: &AuthToken<'_>,
    ) -> Result<ByteString, (&'static str, &'static str)> {
        if self.is_guest {
            let sentence = "A guest has no token to refresh; connect anew to log in";
            return Err(("invalid_message", sentence));
        }
        let TokenField::Text(token) = &auth.token else {
            return Err(("invalid_token", "There is no token in this message"));
        };
        match self.context.services.authorize(Credentials::Token(token), &self.queue) {
            Ok(authorized) if authorized.username == self.peer().username => {
                let expires_in = authorized.expires_in.unwrap_or_default().as_secs();
                let grace = self.context.limits.token_refresh_grace;
                self.expires_at = expires_at(&authorized, grace);
                self.token_session = authorized.session;
                let signed = self.resume_token.as_mut().and_then(|token| {
                    token.claims = authorized.claims;
                    self.context.sign_resume_token(token)
                });
                let resume_offer = signed.as_ref().map(|token| self.context.resume_offer(token));
                Ok(ServerMessage::TokenRefreshed { expires_in, resume_offer }.encode())
            }
            Ok(_) => {
                Err(("invalid_token", "That token is another user's; this session stays as it is"))
            }
            Err(
                error @ (AuthError::BadToken
                | AuthError::Blocked
                | AuthError::NoSuchUser
                | AuthError::Removed),
            ) => {
                let reason = CloseReason::from(error).as_str();
                self.span().in_scope(|| tracing::warn!(reason, "token refresh refused"));
                Err(("invalid_token", "That token is not valid; this session stays as it is"))
            }
        }
    }
}
