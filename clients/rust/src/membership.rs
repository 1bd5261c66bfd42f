//! Keeps one membership of one room over successive WebSockets (`docs/build/protocol.md`, `docs/build/clients.md`).
//!
//! A state machine without input or output: inputs go in with the time at which they happened, effects come out. It
//! uses no socket, no clock and no source of randomness.

mod effect;
mod frame;
mod reconnect;
mod roster;
mod send_buffer;
mod sequence;
mod timers;

use std::{collections::VecDeque, time::Duration};

use serde_json::{Value, json};

pub(crate) use self::{
    effect::{Effect, Input, Moment, TokenPurpose},
    frame::{Frame, object},
};
use self::{
    frame::{ServerError, field},
    roster::Roster,
    send_buffer::SendBuffer,
    sequence::ReceivedSequence,
    timers::{OnSilence, Timers},
};
use crate::events::{Change, Error, Event, IceServer, IceTransportPolicy, Member, State};

/// How long before its expiry a token is renewed; half of its lifetime if that is shorter.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// After a token refresh that failed.
const REFRESH_RETRY_DELAY: Duration = Duration::from_secs(15);

/// A token and its remaining lifetime, as far as they are known; a guest has no token.
type TokenResult = Result<(Option<String>, Option<Duration>), Error>;

/// One client's membership of one room.
pub(crate) struct Membership {
    can_renew: bool,
    state: State,
    client_id: Option<String>,
    username: Option<String>,
    roster: Roster,
    ice_servers: Vec<IceServer>,
    ice_transport_policy: IceTransportPolicy,
    resume_token: Option<String>,
    attempt: u32,
    received: ReceivedSequence,
    buffer: SendBuffer,
    /// The longest frame that the server accepts, in bytes, if it has told.
    max_message_bytes: Option<usize>,
    /// The lifetime that the last token states.
    token_lifetime: Option<Duration>,
    renew: bool,
    has_renewed: bool,
    is_joined: bool,
    /// A token was requested to join with on the socket that is open.
    is_authenticating: bool,
    last_error: Option<ServerError>,
    reconnect_in: Option<Duration>,
    timers: Timers,
    effects: VecDeque<Effect>,
}

impl Membership {
    /// A membership that opens its first socket; `can_renew` if the program can provide more than one token.
    pub fn new(client_id: Option<String>, can_renew: bool) -> Self {
        let mut new = Self {
            can_renew,
            state: State::Connecting,
            client_id,
            username: None,
            roster: Roster::default(),
            ice_servers: Vec::new(),
            ice_transport_policy: IceTransportPolicy::All,
            resume_token: None,
            attempt: 0,
            received: ReceivedSequence::default(),
            buffer: SendBuffer::default(),
            max_message_bytes: None,
            token_lifetime: None,
            renew: false,
            has_renewed: false,
            is_joined: false,
            is_authenticating: false,
            last_error: None,
            reconnect_in: None,
            timers: Timers::default(),
            effects: VecDeque::new(),
        };
        new.open(Duration::ZERO);
        new
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    pub fn peers(&self) -> impl Iterator<Item = &Member> {
        self.roster.members()
    }

    pub fn ice_transport_policy(&self) -> IceTransportPolicy {
        self.ice_transport_policy
    }

    pub fn ice_servers(&self) -> &[IceServer] {
        &self.ice_servers
    }

    /// Takes the next effect to carry out.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Wakeup`] is due, if no other input comes first.
    pub fn next_wakeup(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Handles an input; its effects are then returned by [`Self::next_effect`].
    pub fn handle(&mut self, input: Input, at: Moment) {
        if self.state == State::Closed {
            return;
        }
        match input {
            Input::Received(text) => self.handle_text(&text, at),
            Input::SocketClosed { code, reason } => self.handle_close(code, reason, at),
            Input::UpgradeRefused(status) => self.handle_refused_upgrade(status, at),
            Input::Token(TokenPurpose::Join, token) => self.handle_join_token(token, at),
            Input::Token(TokenPurpose::Refresh, token) => self.handle_refreshed_token(token, at),
            Input::Wakeup => self.handle_wakeup(at),
            Input::Leave => self.end(1000, String::new()),
        }
    }

    /// Sends a frame, or keeps it until it can be sent. [`Error::TooBig`] if the server would discard it. Does nothing
    /// after the end.
    pub fn queue_frame(&mut self, frame: Frame) -> Result<(), Error> {
        if self.state == State::Closed {
            return Ok(());
        }
        let frame = self.buffer.push(frame, self.max_message_bytes)?;
        if self.is_joined {
            self.send(frame);
        }
        Ok(())
    }

    fn open(&mut self, now: Duration) {
        self.timers.retry_at = None;
        self.last_error = None;
        self.effects.push_back(Effect::OpenSocket);
        // A socket may neither open nor fail.
        self.timers.expect_response(now);
    }

    fn handle_wakeup(&mut self, at: Moment) {
        let is_due = |time: Option<Duration>| time.is_some_and(|time| time <= at.now);
        if is_due(self.timers.refresh_at) {
            self.timers.refresh_at = None;
            // A client that is about to join gets a token anyway.
            if !self.is_authenticating {
                self.effects.push_back(Effect::RequestToken(TokenPurpose::Refresh, true));
            }
        }
        if is_due(self.timers.retry_at) {
            self.open(at.now);
            return;
        }
        match self.timers.silence_due(at.now) {
            Some(OnSilence::Ping) => self.ping(at.now),
            Some(OnSilence::Abandon) => {
                self.effects.push_back(Effect::AbandonSocket);
                self.handle_close(1006, "No response from the server".to_owned(), at);
            }
            None => {}
        }
    }

    fn send_kept_frames(&mut self) {
        for error in self.buffer.remove_larger(self.max_message_bytes) {
            self.emit(Event::Error(error));
        }
        for frame in self.buffer.frames() {
            self.send(frame);
        }
    }

    fn send(&mut self, mut frame: Frame) {
        if self.is_joined {
            frame.extend(self.received.take_ack().map(|ack| ("ack".to_owned(), ack.into())));
        }
        self.effects.push_back(Effect::SendText(Value::Object(frame).to_string()));
    }

    fn ping(&mut self, now: Duration) {
        self.buffer.mark_pinged();
        self.send(object(json!({"type":"ping"})));
        self.restart_silence_timer(now);
    }

    fn restart_silence_timer(&mut self, now: Duration) {
        if self.buffer.is_pong_awaited() {
            self.timers.expect_response(now);
        } else {
            self.timers.schedule_ping(now);
        }
    }

    fn handle_text(&mut self, text: &str, at: Moment) {
        let Some(frame) = frame::parse(text) else { return };
        let seq = frame.get("seq").and_then(Value::as_u64);
        let is_replayed = seq.is_some_and(|seq| self.received.receive(seq));
        if self.is_joined {
            self.restart_silence_timer(at.now);
            if self.received.is_ack_due() && !self.buffer.is_pong_awaited() {
                self.ping(at.now);
            }
        }
        match frame.get("type").and_then(Value::as_str).unwrap_or_default() {
            "auth_required" => self.resume_or_authenticate(),
            "auth_success" => {
                self.client_id = field(&frame, "client_id").or(self.client_id.take());
                self.username = field(&frame, "user");
                self.received.reset();
                self.store_credentials(&frame);
                self.store_limits(&frame);
                self.schedule_refresh(expires_in(&frame).or(self.token_lifetime), at.now);
            }
            "users_in_room" => self.handle_users_in_room(&frame, at.now),
            "resumed" => {
                self.store_credentials(&frame);
                self.store_limits(&frame);
                self.received.expect_replay(field(&frame, "replayed").unwrap_or_default());
                self.set_joined(true, at.now);
                self.send_kept_frames();
            }
            "ice_servers" => self.store_credentials(&frame),
            "token_refreshed" => {
                self.store_credentials(&frame);
                self.schedule_refresh(expires_in(&frame).or(self.token_lifetime), at.now);
            }
            "limits" => self.store_limits(&frame),
            // It answers a ping on the previous socket and confirms nothing that was sent on this one.
            "pong" if is_replayed => {}
            "pong" => {
                self.buffer.confirm_pinged();
                if self.is_joined {
                    self.restart_silence_timer(at.now);
                }
            }
            "server_shutdown" => {
                self.reconnect_in = field(&frame, "reconnect_in_ms").map(Duration::from_millis);
            }
            "error" => self.handle_error(frame),
            other => {
                let event = self.roster.handle_frame(other, &frame);
                self.effects.extend(event.map(Effect::Emit));
            }
        }
    }

    fn resume_or_authenticate(&mut self) {
        match &self.resume_token {
            Some(token) => self.send(frame::resume(token, self.received.last())),
            None => self.authenticate(),
        }
    }

    fn authenticate(&mut self) {
        self.is_authenticating = true;
        self.effects.push_back(Effect::RequestToken(TokenPurpose::Join, self.renew));
    }

    fn handle_join_token(&mut self, token: TokenResult, at: Moment) {
        if !std::mem::take(&mut self.is_authenticating) {
            return; // the socket that needed it is closed
        }
        match token {
            Ok((token, lifetime)) => {
                self.renew = false;
                self.token_lifetime = lifetime;
                self.send(frame::auth_token(token, self.client_id.clone()));
            }
            Err(error) => {
                let (is_fatal, reason) = (matches!(error, Error::Closed { .. }), error.to_string());
                self.emit(Event::Error(error));
                if is_fatal {
                    return self.end(1008, reason);
                }
                self.effects.push_back(Effect::AbandonSocket);
                self.handle_close(1006, reason, at);
            }
        }
    }

    fn handle_refreshed_token(&mut self, token: TokenResult, at: Moment) {
        match token {
            Ok((token, lifetime)) => {
                if self.is_joined {
                    self.send(object(json!({"type":"auth_token","token":token})));
                }
                self.token_lifetime = lifetime;
                self.schedule_refresh(lifetime, at.now);
            }
            // Not fatal: the current token is valid for a while.
            Err(error) => {
                let is_fatal = matches!(error, Error::Closed { .. });
                let error = if is_fatal { Error::NoToken(error.to_string()) } else { error };
                self.emit(Event::Error(error));
                self.timers.refresh_at = Some(at.now + REFRESH_RETRY_DELAY);
            }
        }
    }

    /// Schedules the renewal of a token that is valid for `lifetime` from `now` on. It counts from the receipt: the
    /// clocks of this machine and of the server are never compared.
    fn schedule_refresh(&mut self, lifetime: Option<Duration>, now: Duration) {
        self.timers.refresh_at = lifetime
            .filter(|_| self.can_renew)
            .map(|left| now + (left - RENEW_BEFORE.min(left / 2)).max(Duration::from_secs(1)));
    }

    /// The resume token and the ICE servers, which several frames carry.
    fn store_credentials(&mut self, frame: &Frame) {
        if let Some(token) = field(frame, "resume_token") {
            self.resume_token = Some(token);
        }
        let policy = self.ice_transport_policy;
        if frame.get("type").is_none_or(|kind| kind != "ice_servers") {
            self.ice_transport_policy = field(frame, "iceTransportPolicy").unwrap_or_default();
        }
        let servers = field::<Vec<IceServer>>(frame, "iceServers");
        if servers.is_some() || policy != self.ice_transport_policy {
            self.ice_servers = servers.unwrap_or_else(|| self.ice_servers.clone());
            self.emit(Event::IceServers(self.ice_servers.clone()));
        }
    }

    fn store_limits(&mut self, frame: &Frame) {
        let limits: Option<Frame> = field(frame, "limits");
        self.max_message_bytes = limits.and_then(|limits| field(&limits, "max_message_bytes"));
    }

    /// The client has joined without resuming.
    fn handle_users_in_room(&mut self, frame: &Frame, now: Duration) {
        if self.state == State::Reconnecting {
            // The kept frames were addressed to a membership that no longer exists.
            self.buffer.clear();
        }
        self.set_joined(false, now);
        self.send_kept_frames();
        let events = self.roster.replace(field(frame, "users").unwrap_or_default());
        self.effects.extend(events.into_iter().map(Effect::Emit));
    }

    fn set_joined(&mut self, is_resumed: bool, now: Duration) {
        self.is_joined = true;
        self.attempt = 0;
        self.has_renewed = false;
        self.buffer.forget_ping();
        self.restart_silence_timer(now);
        let state = State::Connected;
        self.set_state(Change { state, is_resumed, retry_in: None, code: None, reason: None });
    }

    fn handle_error(&mut self, frame: Frame) {
        let announces_close = frame.contains_key("retry");
        let Ok(error) = serde_json::from_value::<ServerError>(Value::Object(frame)) else {
            return;
        };
        if error.code == "resume_failed" {
            self.resume_token = None;
            self.authenticate();
        } else if announces_close || !self.is_joined {
            let delay = error.retry_after_ms.map(Duration::from_millis);
            self.reconnect_in = self.reconnect_in.or(delay);
            self.last_error = Some(error);
        } else {
            if let Some(refused) = error.id.as_ref().and_then(Value::as_u64) {
                self.buffer.refuse(refused);
            }
            let ServerError { code, message, .. } = error;
            self.emit(Event::Error(Error::Refused { code, message }));
        }
    }

    /// Decides what the end of a socket means: a retry, with or without a new token, or the end of the session.
    fn handle_close(&mut self, code: u16, reason: String, at: Moment) {
        self.timers.stop_heartbeat();
        (self.is_joined, self.is_authenticating) = (false, false);
        self.buffer.forget_ping();
        self.received.expect_replay(0);
        let error = self.last_error.take();
        let retry = error.as_ref().and_then(|error| error.retry);
        let is_token_refused = reconnect::is_token_reason(&reason)
            || error.as_ref().is_some_and(|error| reconnect::is_token_error(&error.code));
        if self.can_renew && is_token_refused && !self.has_renewed {
            (self.renew, self.has_renewed) = (true, true);
            self.resume_token = None;
        } else if !retry.unwrap_or_else(|| reconnect::is_retried(code)) {
            self.emit(Event::Error(reconnect::close_error(error, code, &reason)));
            return self.end(code, reason);
        }
        self.schedule_retry(code, reason, at);
    }

    fn schedule_retry(&mut self, code: u16, reason: String, at: Moment) {
        let delay = self.reconnect_in.take().unwrap_or_else(|| {
            self.attempt += 1;
            reconnect::retry_delay(self.attempt - 1, at.random)
        });
        self.timers.retry_at = Some(at.now + delay);
        let state = match self.state {
            State::Connecting => State::Connecting,
            State::Connected | State::Reconnecting | State::Closed => State::Reconnecting,
        };
        let (code, reason) = (Some(code), Some(reason));
        let retry_in = Some(delay);
        self.set_state(Change { state, is_resumed: false, retry_in, code, reason });
    }

    /// Before the first join a status like 404 ends the session. Browsers do not expose it, so their client retries.
    fn handle_refused_upgrade(&mut self, status: u16, at: Moment) {
        let message = format!("HTTP {status}");
        if self.state == State::Connecting && reconnect::is_permanent_status(status) {
            let code = "refused".to_owned();
            self.emit(Event::Error(Error::Closed { code, message: message.clone() }));
            return self.end(1006, message);
        }
        self.handle_close(1006, message, at);
    }

    fn end(&mut self, code: u16, reason: String) {
        self.timers = Timers::default();
        self.is_joined = false;
        self.roster.clear();
        let (code, reason) = (Some(code), Some(reason));
        let state = State::Closed;
        self.set_state(Change { state, is_resumed: false, retry_in: None, code, reason });
        self.effects.push_back(Effect::Close);
    }

    fn set_state(&mut self, change: Change) {
        self.state = change.state;
        self.emit(Event::State(change));
    }

    fn emit(&mut self, event: Event) {
        self.effects.push_back(Effect::Emit(event));
    }
}

/// The lifetime of a token from now on, as the server tells it.
fn expires_in(frame: &Frame) -> Option<Duration> {
    field(frame, "expires_in").map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
