//! Acts on each frame of a member: relays signals, answers pings, refreshes tokens.

use std::borrow::Cow;

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    AuthError, Credentials, SessionServices,
    member::{Answer, Member, expires_at},
    welcome::{granted, ice_transport_policy},
};
use crate::{
    auth::{access_token::Claims, permissions::CapabilitySet},
    limits::{AccountKey, ExceededRate, RateVerdict, RefusalKind, log_refusal_in_span},
    metrics::{LimitKind, MessageOutcome, MessageType},
    protocol::{
        self, AuthToken, ClientFrame, ClientMessage, CloseReason, RawJson, RelayOnly,
        ServerMessage, Signal, SignalKind, TokenField, relay_only,
    },
};

/// The type of a message, what was done with it, and the answer to its sender.
pub(super) type Handled = (MessageType, MessageOutcome, Option<ByteString>);

/// A message over the message rate.
fn rate_limited(reply: Option<ByteString>) -> Handled {
    (MessageType::Other, MessageOutcome::RateLimited, reply)
}

impl<D: SessionServices> Member<'_, D> {
    /// Acts on one message of `length` bytes for which the message budget said `verdict`, and counts it. The `frame` of a
    /// message over the size limit was discarded.
    pub(super) fn handle_message(
        &mut self,
        verdict: RateVerdict,
        frame: Option<&str>,
        length: usize,
        now: Instant,
    ) -> Answer {
        let (kind, outcome, reply) = match verdict {
            RateVerdict::Pass => match frame {
                Some(frame) => self.dispatch(frame, now),
                None => {
                    let reply = self.context.encode_too_big(self.message_limits.max_message_bytes);
                    (MessageType::Other, MessageOutcome::Refused, Some(reply))
                }
            },
            RateVerdict::Warn(rate) => {
                let id = frame.and_then(|frame| protocol::parse(frame).id);
                rate_limited(Some(self.rate_warning(rate, id)))
            }
            RateVerdict::Drop | RateVerdict::Close => rate_limited(None),
        };
        self.context.metrics.record_message(kind, outcome, length);
        Answer { reply, is_over_rate: verdict == RateVerdict::Close }
    }

    /// Counts a frame that is no message: a Ping, a Pong that answers no Ping, or a short fragment. Each costs as much
    /// as a message, so they share its budget.
    pub(super) fn count_control_frame(&mut self, now: Instant) -> Answer {
        let verdict = self.budget.check(0, now);
        if verdict != RateVerdict::Pass {
            self.context.metrics.record_limit(LimitKind::Messages);
        }
        let reply = match verdict {
            RateVerdict::Warn(rate) => Some(self.rate_warning(rate, None)),
            RateVerdict::Pass | RateVerdict::Drop | RateVerdict::Close => None,
        };
        Answer { reply, is_over_rate: verdict == RateVerdict::Close }
    }

    /// Queues a reply where frames have sequence numbers, and so one order; else returns it: it is written before the queued
    /// frames of others, or a client that receives many would get its answer late.
    pub(super) fn queue_reply(&self, reply: ByteString) -> Option<ByteString> {
        if self.resume_token.is_none() {
            return Some(reply);
        }
        self.queue.push(reply, None);
        None
    }

    pub(super) fn log_refusal(&self, kind: RefusalKind) {
        let address = self.context.address;
        self.span().in_scope(|| log_refusal_in_span(kind, address, Instant::now()));
    }

    /// The `error` frame for the first frame over the message rate.
    fn rate_warning(&self, exceeded: ExceededRate, id: Option<RawJson<'_>>) -> ByteString {
        self.log_refusal(RefusalKind::MessageRate);
        let (rate, unit) = match exceeded {
            ExceededRate::Messages => (self.message_limits.messages_per_second, "messages"),
            ExceededRate::Bytes => (self.message_limits.bytes_per_second, "bytes"),
        };
        let sentence = format!(
            "More than {rate} {unit} a second: this and the next are not passed on until you slow down"
        );
        self.context.encode_error("rate_limited", &sentence, id)
    }

    /// What the token would have to allow for this signal.
    fn missing_capability(&self, signal: &Signal<'_>) -> Option<&'static str> {
        let (wanted, name) = match signal.to {
            Some(_) => (CapabilitySet::SEND, "send"),
            None => (CapabilitySet::BROADCAST, "broadcast"),
        };
        (!self.can.has_all(wanted)).then_some(name)
    }

    /// The new token that a frame brings, where its key must be fetched first.
    pub(super) fn token_with_unknown_key<'f>(&self, frame: &'f str) -> Option<Cow<'f, str>> {
        if !self.context.limits.has_issuer || !frame.contains("auth_token") {
            return None;
        }
        match protocol::parse(frame).message {
            Ok(ClientMessage::AuthToken(AuthToken { token: TokenField::Text(token), .. }))
                if self.context.services.needs_issuer_key(&token) =>
            {
                Some(token)
            }
            _ => None,
        }
    }

    /// Acts on one frame.
    fn dispatch(&mut self, frame: &str, now: Instant) -> Handled {
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
                let username = &self.membership.peer().username;
                let account = AccountKey::new(username, self.is_guest, self.context.address);
                if !self.context.joins.check_report(account, now) {
                    return (MessageType::CallReport, MessageOutcome::RateLimited, None);
                }
                self.context.metrics.record_call_report(&report);
                self.membership.record_call_report(&report, now);
                (MessageType::CallReport, MessageOutcome::Done, None)
            }
            ClientMessage::Moderate(request) => self.moderate(&request, id),
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
                if let Some(missing) = self.missing_capability(&signal) {
                    let sentence = format!(
                        "Your token does not allow this: \"{missing}\" is not in its permissions"
                    );
                    let reply = self.context.encode_error("forbidden", &sentence, id);
                    return (kind, MessageOutcome::Refused, Some(reply));
                }
                let is_refused_to_muted = signal.to.is_none() || signal.kind == SignalKind::Message;
                if is_refused_to_muted
                    && self.context.services.is_muted(&self.context.room, self.membership.peer())
                {
                    let sentence = "You are muted: what you send to everyone, and your messages, are not passed on";
                    let reply = self.context.encode_error("muted", sentence, id);
                    return (kind, MessageOutcome::Refused, Some(reply));
                }
                let without_addresses;
                let signal = if self.is_relay_only {
                    match relay_only(signal.kind, signal.payload) {
                        RelayOnly::Unchanged => signal,
                        RelayOnly::Payload(payload) => {
                            without_addresses = payload;
                            Signal { payload: RawJson::from(&*without_addresses), ..signal }
                        }
                        // The client sends it and need not know: its peers connect through the TURN server.
                        RelayOnly::Nothing => return (kind, MessageOutcome::Done, None),
                    }
                } else {
                    signal
                };
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
                let claims = authorized.claims.as_ref();
                if claims.is_some_and(|claims| !claims.allow_membership(&self.context.room)) {
                    let sentence = "The permissions of that token lack this room, or \"join\"; this session stays as it is";
                    return Err(("forbidden", sentence));
                }
                self.can = claims.map_or(CapabilitySet::MEMBER, Claims::capabilities);
                self.is_relay_only = claims.is_some_and(Claims::is_relay_only);
                let permissions = claims.and_then(|claims| claims.permissions.clone());
                let expires_in = authorized.expires_in.unwrap_or_default().as_secs();
                let grace = self.context.limits.token_refresh_grace;
                self.expires_at = expires_at(&authorized, grace);
                self.token_session = authorized.session;
                let signed = self.resume_token.as_mut().and_then(|token| {
                    token.claims = authorized.claims;
                    self.context.sign_resume_token(token)
                });
                let resume_offer = signed.as_ref().map(|token| self.context.resume_offer(token));
                let answer = ServerMessage::TokenRefreshed {
                    expires_in,
                    ice_transport_policy: ice_transport_policy(permissions.as_deref()),
                    permissions: granted(permissions.as_deref()),
                    resume_offer,
                };
                Ok(answer.encode())
            }
            Ok(_) => {
                Err(("invalid_token", "That token is another user's; this session stays as it is"))
            }
            Err(
                error @ (AuthError::BadToken
                | AuthError::Blocked
                | AuthError::NoSuchUser
                | AuthError::TooManyConnections
                | AuthError::Removed),
            ) => {
                let reason = CloseReason::from(error).as_str();
                self.log_refusal(RefusalKind::TokenRefresh(reason));
                Err(("invalid_token", "That token is not valid; this session stays as it is"))
            }
        }
    }
}
