//! One membership of one room over as many WebSockets as it takes (`docs/build/protocol.md`, `docs/build/clients.md`).
//!
//! Decides, and does nothing: facts go in with the moment at which they became known, effects come
//! out. It knows no socket, no clock and no chance.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{Change, Error, Event, IceServer, Member, PeerState, SignalKind, State};

const PING_EVERY: Duration = Duration::from_secs(15);
/// For an answer to a ping, and for a new socket to bring us in.
const PONG_WITHIN: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Frames that wait for a socket, and that may have to be said again.
const MOST_KEPT: usize = 200;
/// Unacknowledged frames that make us say so on our own.
const ACK_AFTER: u64 = 32;
/// How long before the end of a token there is to be a new one; half its life where that is shorter.
const RENEWED_BEFORE: Duration = Duration::from_secs(60);
/// After a refresh that failed.
const REFRESH_AGAIN: Duration = Duration::from_secs(15);
const FEATURES: [&str; 3] = ["resume", "peer_state", "ice"];

/// A JSON object as it is said.
pub(crate) type Frame = Map<String, Value>;

/// When a fact became known.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    /// Since the membership began.
    pub now: Duration,
    /// From 0 up to, but not including, 1; another one each time.
    pub random: f64,
}

/// What a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To come in with.
    Introduction,
    /// To go on with.
    Refresh,
}

/// What becomes known.
pub(crate) enum Fact {
    /// The server has said this.
    Heard(String),
    /// The socket is gone; 1006 where it just broke.
    Lost { code: u16, reason: String },
    /// The server answered the handshake with this HTTP status.
    NotUpgraded(u16),
    /// What [`Effect::ClusterCommand`] asked for, and how long it is good where that is known; a guest has none.
    /// [`Error::Closed`] where there will never be one.
    Token(Purpose, Result<(Option<String>, Option<Duration>), Error>),
    /// It is as late as [`Membership::wakes_at`] said, or later.
    Woken,
    /// The program has something to say.
    Said(Frame),
    /// The program leaves.
    Left,
}

/// What is to be done, in order.
#[cfg_attr(test, derive(Debug, PartialEq))]
pub(crate) enum Effect {
    /// Open a socket in place of the one before.
    Open,
    /// Say this on it.
    Send(String),
    /// Give it up without a word: a Close would be taken for leaving.
    Abandon,
    /// ClusterCommand for a token, for a new one where that is `true`, in place of what was asked before.
    ClusterCommand(Purpose, bool),
    /// Tell the program.
    Tell(Event),
    /// Say Close on the socket if there is one; nothing follows.
    Close,
}

/// What ends the silence.
#[derive(Clone, Copy)]
enum Beat {
    Ping,
    GiveUp,
}

/// How the server announces what it does next; of several the last counts.
#[derive(Deserialize)]
struct Complaint {
    code: String,
    #[serde(default)]
    message: String,
    retry: Option<bool>,
    retry_after_ms: Option<u64>,
}

/// One client's membership of one room, over as many sockets as it takes.
pub(crate) struct Membership {
    can_renew: bool,
    state: State,
    client_id: Option<String>,
    username: Option<String>,
    peers: BTreeMap<String, Member>,
    ice_servers: Vec<IceServer>,
    resume_token: Option<String>,
    last_seq: u64,
    acked: u64,
    attempt: u32,
    last_id: u64,
    /// Said and perhaps not heard, and what waits for a socket.
    kept: VecDeque<Frame>,
    /// How many of `kept` the pong that is awaited answers for.
    pinged: Option<usize>,
    /// How many frames are still to come that were meant for the socket before: a pong among them
    /// answers for nothing that was said on this one.
    replayed: u64,
    renew: bool,
    has_renewed: bool,
    is_seated: bool,
    /// A token has been asked for, to come in with on the socket that is open.
    is_introducing: bool,
    last_error: Option<Complaint>,
    reconnect_in: Option<Duration>,
    retry: Option<Duration>,
    beat: Option<(Duration, Beat)>,
    refresh: Option<Duration>,
    effects: VecDeque<Effect>,
}

impl Membership {
    /// A membership that is to begin; `can_renew` where there is more than one token to be had.
    pub fn new(client_id: Option<String>, can_renew: bool) -> Self {
        let mut new = Self {
            can_renew,
            state: State::Connecting,
            client_id,
            username: None,
            peers: BTreeMap::new(),
            ice_servers: Vec::new(),
            resume_token: None,
            last_seq: 0,
            acked: 0,
            attempt: 0,
            last_id: 0,
            kept: VecDeque::new(),
            pinged: None,
            replayed: 0,
            renew: false,
            has_renewed: false,
            is_seated: false,
            is_introducing: false,
            last_error: None,
            reconnect_in: None,
            retry: None,
            beat: None,
            refresh: None,
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
        self.peers.values()
    }

    pub fn ice_servers(&self) -> &[IceServer] {
        &self.ice_servers
    }

    /// The next thing to be done.
    pub fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When it wants to be [woken](Fact::Woken) where nothing else happens.
    pub fn wakes_at(&self) -> Option<Duration> {
        let beat = self.beat.map(|(at, _)| at);
        [beat, self.retry, self.refresh].into_iter().flatten().min()
    }

    pub fn learns(&mut self, fact: Fact, at: Moment) {
        if self.state == State::Closed {
            return;
        }
        match fact {
            Fact::Heard(text) => self.hears(&text, at),
            Fact::Lost { code, reason } => self.loses(code, reason, at),
            Fact::NotUpgraded(status) => self.meets_refusal(status, at),
            Fact::Token(purpose, token) => self.gets(purpose, token, at),
            Fact::Woken => self.wakes(at),
            Fact::Said(frame) => self.says(frame),
            Fact::Left => self.ends(1000, String::new()),
        }
    }

    fn open(&mut self, now: Duration) {
        self.retry = None;
        self.last_error = None;
        self.effects.push_back(Effect::Open);
        // A socket that neither opens nor fails would be waited for without end.
        self.beat = Some((now + PONG_WITHIN, Beat::GiveUp));
    }

    fn wakes(&mut self, at: Moment) {
        let is_due = |time: Option<Duration>| time.is_some_and(|time| time <= at.now);
        if is_due(self.refresh) {
            self.refresh = None;
            // Whoever is about to come in brings a token anyway.
            if !self.is_introducing {
                self.effects.push_back(Effect::ClusterCommand(Purpose::Refresh, true));
            }
        }
        if is_due(self.retry) {
            self.open(at.now);
        } else if let Some((time, beat)) = self.beat
            && is_due(Some(time))
        {
            match beat {
                Beat::Ping => self.pings(at.now),
                Beat::GiveUp => {
                    self.effects.push_back(Effect::Abandon);
                    self.loses(1006, "Nothing heard".to_owned(), at);
                }
            }
        }
    }

    /// Says something in order, also over a reconnect. An id makes it safe to say again what may have arrived.
    fn says(&mut self, mut frame: Frame) {
        self.last_id += 1;
        frame.insert("id".to_owned(), self.last_id.into());
        self.kept.push_back(frame.clone());
        if self.kept.len() > MOST_KEPT {
            self.kept.pop_front();
            self.pinged = self.pinged.map(|count| count.saturating_sub(1));
        }
        if self.is_seated {
            self.sends(frame);
        }
    }

    /// What may not have arrived, and what waited.
    fn says_again(&mut self) {
        for said in self.kept.clone() {
            self.sends(said);
        }
    }

    fn sends(&mut self, mut frame: Frame) {
        if self.is_seated && self.last_seq > self.acked {
            self.acked = self.last_seq;
            frame.insert("ack".to_owned(), self.acked.into());
        }
        self.effects.push_back(Effect::Send(Value::Object(frame).to_string()));
    }

    fn pings(&mut self, now: Duration) {
        self.pinged = Some(self.kept.len());
        self.sends(object(json!({"type":"ping"})));
        self.hears_something(now);
    }

    /// There is somebody: the silence begins anew.
    fn hears_something(&mut self, now: Duration) {
        self.beat = Some(match self.pinged {
            None => (now + PING_EVERY, Beat::Ping),
            Some(_) => (now + PONG_WITHIN, Beat::GiveUp),
        });
    }

    fn hears(&mut self, text: &str, at: Moment) {
        let Ok(Value::Object(frame)) = serde_json::from_str(text) else { return };
        let mut is_replayed = false;
        if let Some(seq) = frame.get("seq").and_then(Value::as_u64) {
            self.last_seq = seq;
            is_replayed = self.replayed > 0;
            self.replayed -= u64::from(is_replayed);
        }
        if self.is_seated {
            self.hears_something(at.now);
            if self.last_seq >= self.acked + ACK_AFTER && self.pinged.is_none() {
                self.pings(at.now);
            }
        }
        match frame.get("type").and_then(Value::as_str).unwrap_or_default() {
            "auth_required" => self.shows_itself(),
            "auth_success" => {
                self.client_id = field(&frame, "client_id").or(self.client_id.take());
                self.username = field(&frame, "user");
                (self.last_seq, self.acked) = (0, 0);
                self.takes(&frame);
            }
            "users_in_room" => self.sits_down(&frame, at.now),
            "resumed" => {
                self.takes(&frame);
                self.replayed = field(&frame, "replayed").unwrap_or_default();
                self.enters(true, at.now);
                self.says_again();
            }
            "token_refreshed" | "ice_servers" => self.takes(&frame),
            "pong" if is_replayed => {}
            "pong" => {
                self.kept.drain(..self.pinged.take().unwrap_or_default());
                if self.is_seated {
                    self.hears_something(at.now);
                }
            }
            "server_shutdown" => {
                self.reconnect_in = field(&frame, "reconnect_in_ms").map(Duration::from_millis);
            }
            "error" => self.hears_complaint(frame),
            other => self.hears_of_peers(other, &frame),
        }
    }

    fn shows_itself(&mut self) {
        match &self.resume_token {
            Some(token) => {
                let (token, last_seq) = (token.as_str(), self.last_seq);
                let resume = json!({"type":"resume","resume_token":token,"last_seq":last_seq});
                self.sends(object(resume));
            }
            None => self.introduces_itself(),
        }
    }

    fn introduces_itself(&mut self) {
        self.is_introducing = true;
        self.effects.push_back(Effect::ClusterCommand(Purpose::Introduction, self.renew));
    }

    fn gets(
        &mut self,
        purpose: Purpose,
        token: Result<(Option<String>, Option<Duration>), Error>,
        at: Moment,
    ) {
        if purpose == Purpose::Introduction && !std::mem::take(&mut self.is_introducing) {
            return; // the socket that asked for it is gone
        }
        match (token, purpose) {
            (Ok((token, life)), Purpose::Introduction) => {
                self.renew = false;
                let mut auth = object(json!({"type":"auth_token","features":FEATURES}));
                auth.extend(token.map(|token| ("token".to_owned(), token.into())));
                let id = self.client_id.clone().map(|id| ("clientId".to_owned(), id.into()));
                auth.extend(id);
                self.sends(auth);
                self.keeps_fresh(life, at.now);
            }
            (Ok((token, life)), Purpose::Refresh) => {
                if self.is_seated {
                    self.sends(object(json!({"type":"auth_token","token":token})));
                }
                self.keeps_fresh(life, at.now);
            }
            (Err(error), Purpose::Introduction) => {
                let (is_over, why) = (matches!(error, Error::Closed { .. }), error.to_string());
                self.tells(Event::Error(error));
                if is_over {
                    return self.ends(1008, why);
                }
                self.effects.push_back(Effect::Abandon);
                self.loses(1006, why, at);
            }
            // The one before is still good for a while.
            (Err(error), Purpose::Refresh) => {
                let is_over = matches!(error, Error::Closed { .. });
                let why = if is_over { Error::NoToken(error.to_string()) } else { error };
                self.tells(Event::Error(why));
                self.refresh = Some(at.now + REFRESH_AGAIN);
            }
        }
    }

    /// Shows a new token a minute before the old one runs out.
    fn keeps_fresh(&mut self, life: Option<Duration>, now: Duration) {
        self.refresh = life
            .filter(|_| self.can_renew)
            .map(|left| now + (left - RENEWED_BEFORE.min(left / 2)).max(Duration::from_secs(1)));
    }

    /// What comes with being in, and may be replaced.
    fn takes(&mut self, frame: &Frame) {
        if let Some(token) = field(frame, "resume_token") {
            self.resume_token = Some(token);
        }
        if let Some(servers) = field::<Vec<IceServer>>(frame, "iceServers") {
            self.ice_servers.clone_from(&servers);
            self.tells(Event::IceServers(servers));
        }
    }

    /// We are in, as one who has not been here before.
    fn sits_down(&mut self, frame: &Frame, now: Duration) {
        if self.state == State::Reconnecting {
            // What was said in another life is no use to anybody.
            self.kept.clear();
        }
        self.enters(false, now);
        self.says_again();
        let users: Vec<Member> = field(frame, "users").unwrap_or_default();
        let there = users.into_iter().map(|user| (user.client_id.clone(), user));
        let before = std::mem::replace(&mut self.peers, there.collect());
        for (id, peer) in &before {
            if !self.peers.contains_key(id) {
                let gone = Event::PeerLeft { peer: peer.clone(), is_missing: true };
                self.effects.push_back(Effect::Tell(gone));
            }
        }
        for (id, peer) in &self.peers {
            if !before.contains_key(id) {
                self.effects.push_back(Effect::Tell(Event::PeerJoined(peer.clone())));
            }
        }
    }

    fn enters(&mut self, is_resumed: bool, now: Duration) {
        self.is_seated = true;
        self.attempt = 0;
        self.has_renewed = false;
        self.pinged = None;
        self.hears_something(now);
        self.becomes(Change {
            state: State::Connected,
            is_resumed,
            retry_in: None,
            code: None,
            reason: None,
        });
    }

    fn hears_complaint(&mut self, frame: Frame) {
        let has_retry = frame.contains_key("retry");
        let Ok(complaint) = serde_json::from_value::<Complaint>(Value::Object(frame)) else {
            return;
        };
        if complaint.code == "resume_failed" {
            self.resume_token = None;
            self.introduces_itself();
        } else if has_retry || !self.is_seated {
            let after = complaint.retry_after_ms.map(Duration::from_millis);
            self.reconnect_in = self.reconnect_in.or(after);
            self.last_error = Some(complaint);
        } else {
            let Complaint { code, message, .. } = complaint;
            self.tells(Event::Error(Error::Refused { code, message }));
        }
    }

    /// What others do and say; what we do not know is nothing to us.
    fn hears_of_peers(&mut self, kind: &str, frame: &Frame) {
        let from = || field::<String>(frame, "from").zip(field::<String>(frame, "username"));
        let signal = |kind: SignalKind| {
            let payload = frame.get(kind.names().1).cloned().unwrap_or_default();
            let is_the_end = kind == SignalKind::IceCandidate && payload.as_str() == Some("");
            let payload = if is_the_end { Value::Null } else { payload };
            from().map(|(from, username)| Event::Signal { from, username, kind, payload })
        };
        let event = match kind {
            "user_joined" => {
                let Ok(peer) = Member::deserialize(Value::Object(frame.clone())) else { return };
                let is_known = self.peers.insert(peer.client_id.clone(), peer.clone()).is_some();
                (!is_known).then_some(Event::PeerJoined(peer))
            }
            "user_left" => field::<String>(frame, "client_id")
                .and_then(|id| self.peers.remove(&id))
                .map(|peer| Event::PeerLeft { peer, is_missing: false }),
            "peer_state" => field(frame, "client_id")
                .zip(field::<PeerState>(frame, "state"))
                .map(|(client_id, state)| Event::PeerState { client_id, state }),
            "message" => from().map(|(from, username)| {
                let data = frame.get("data").cloned().unwrap_or_default();
                Event::Message { from, username, data }
            }),
            "server_message" => {
                let data = frame.get("data").cloned().unwrap_or_default();
                Some(Event::ServerMessage { data })
            }
            "offer" => signal(SignalKind::Offer),
            "answer" => signal(SignalKind::Answer),
            "ice_candidate" => signal(SignalKind::IceCandidate),
            _ => None,
        };
        self.effects.extend(event.map(Effect::Tell));
    }

    fn loses(&mut self, code: u16, reason: String, at: Moment) {
        self.beat = None;
        (self.is_seated, self.is_introducing) = (false, false);
        (self.pinged, self.replayed) = (None, 0);
        let error = self.last_error.take();
        let is_about_the_token = ["Invalid token", "Token expired"].contains(&reason.as_str());
        if self.can_renew && is_about_the_token && !self.has_renewed {
            (self.renew, self.has_renewed) = (true, true);
            self.resume_token = None;
        } else if !error.as_ref().and_then(|error| error.retry).unwrap_or_else(|| comes_back(code))
        {
            let (word, message) = match error {
                Some(error) => (error.code, error.message),
                None if reason.is_empty() => ("closed".to_owned(), format!("Closed with {code}")),
                None => ("closed".to_owned(), reason.clone()),
            };
            self.tells(Event::Error(Error::Closed { code: word, message }));
            return self.ends(code, reason);
        }
        self.tries_again(code, reason, at);
    }

    fn tries_again(&mut self, code: u16, reason: String, at: Moment) {
        let pause = self.reconnect_in.take().unwrap_or_else(|| {
            self.attempt += 1;
            pause_before(self.attempt - 1, at.random)
        });
        self.retry = Some(at.now + pause);
        let state = match self.state {
            State::Connecting => State::Connecting,
            State::Connected | State::Reconnecting | State::Closed => State::Reconnecting,
        };
        let (code, reason) = (Some(code), Some(reason));
        let retry_in = Some(pause);
        self.becomes(Change { state, is_resumed: false, retry_in, code, reason });
    }

    /// A browser sees nothing of this and tries for ever; whoever has never been in is told.
    fn meets_refusal(&mut self, status: u16, at: Moment) {
        let message = format!("HTTP {status}");
        let is_our_fault = (400..500).contains(&status) && ![408, 425, 429].contains(&status);
        if self.state == State::Connecting && is_our_fault {
            let code = "refused".to_owned();
            self.tells(Event::Error(Error::Closed { code, message: message.clone() }));
            return self.ends(1006, message);
        }
        self.loses(1006, message, at);
    }

    fn ends(&mut self, code: u16, reason: String) {
        (self.beat, self.retry, self.refresh) = (None, None, None);
        self.is_seated = false;
        self.peers.clear();
        let (code, reason) = (Some(code), Some(reason));
        let state = State::Closed;
        self.becomes(Change { state, is_resumed: false, retry_in: None, code, reason });
        self.effects.push_back(Effect::Close);
    }

    fn becomes(&mut self, change: Change) {
        self.state = change.state;
        self.tells(Event::State(change));
    }

    fn tells(&mut self, event: Event) {
        self.effects.push_back(Effect::Tell(event));
    }
}

/// How long to wait before attempt `number`: anything up to twice as long each time.
pub(crate) fn pause_before(number: u32, random: f64) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(number)).min(LONGEST_PAUSE);
    longest.mul_f64(random)
}

/// Whether a close says so, where no error before it did (`clients/closes.json`).
fn comes_back(code: u16) -> bool {
    [1001, 1005, 1006, 1011, 1012, 1013, 1014].contains(&code)
}

/// What `json!` made of braces.
pub(crate) fn object(value: Value) -> Frame {
    if let Value::Object(frame) = value { frame } else { Frame::new() }
}

/// A field, where there is one and it is what it should be.
fn field<T: DeserializeOwned>(frame: &Frame, name: &str) -> Option<T> {
    T::deserialize(frame.get(name)?).ok()
}

#[cfg(test)]
mod tests;
