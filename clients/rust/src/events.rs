//! What a session tells.

use std::{fmt, time::Duration};

use serde::Deserialize;
use serde_json::Value;

/// One thing that a session tells, in the order in which it happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Where we are now.
    State(Change),
    /// Somebody is there: at first everyone who was there before us.
    PeerJoined(Member),
    /// Somebody is no longer there.
    PeerLeft {
        /// Whom this was.
        peer: Member,
        /// Nobody said so: we had to sit down anew, and it was not there. It may only be slower to come
        /// back than we are; a call with it can go on for a while (`docs/build/clients.md`: 30 seconds).
        is_missing: bool,
    },
    /// The server has lost a peer's connection, or has it again. The peer is there all the time.
    PeerState {
        /// Whose.
        client_id: String,
        /// Which of the two.
        state: PeerState,
    },
    /// A peer negotiates.
    Signal {
        /// Its client id.
        from: String,
        /// Its name.
        username: String,
        /// Which of the three.
        kind: SignalKind,
        /// As it was said; the end of candidates is `null`.
        payload: Value,
    },
    /// A peer has said something.
    Message {
        /// Its client id.
        from: String,
        /// Its name.
        username: String,
        /// What.
        data: Value,
    },
    /// An administrator of the server has said something.
    ServerMessage {
        /// What.
        data: Value,
    },
    /// ICE servers for every connection from now on.
    IceServers(Vec<IceServer>),
    /// Something went wrong; after [`Error::Closed`] there is nothing more but the state.
    Error(Error),
}

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not in yet.
    Connecting,
    /// In the room.
    Connected,
    /// Without a socket; what is said waits.
    Reconnecting,
    /// Over, for good.
    Closed,
}

/// A new [`State`], or one more attempt in the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where we are now.
    pub state: State,
    /// [`State::Connected`] again, and nothing was missed.
    pub is_resumed: bool,
    /// How long until the next attempt.
    pub retry_in: Option<Duration>,
    /// The close code of the last socket; 1006 where it just broke.
    pub code: Option<u16>,
    /// What it said, or what we know.
    pub reason: Option<String>,
}

/// A member as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Unique in the room.
    pub client_id: String,
    /// Whose it is.
    pub username: String,
    /// Whether we give way to it when both offer at once.
    #[serde(default)]
    pub polite: bool,
}

/// What `peer_state` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Its connection is gone, and its seat is kept.
    Reconnecting,
    /// It is back.
    Connected,
}

/// What peers negotiate with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// A session description, an object.
    Offer,
    /// A session description, an object.
    Answer,
    /// An object or, at the end, `null`.
    IceCandidate,
}

impl SignalKind {
    /// The `type` of its message, and the field that holds the payload.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Offer => ("offer", "offer"),
            Self::Answer => ("answer", "answer"),
            Self::IceCandidate => ("ice_candidate", "candidate"),
        }
    }
}

/// A STUN or TURN server, as RTCPeerConnection takes it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` addresses.
    pub urls: Vec<String>,
    /// For TURN.
    pub username: Option<String>,
    /// The password to that.
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This is no address of a server.
    #[error("{0}")]
    Url(String),
    /// There is no token to be had at the moment; the session tries again where it needs one.
    #[error("no token: {0}")]
    NoToken(String),
    /// The server could not do what it was asked; the session goes on.
    #[error("{message}")]
    Refused {
        /// The server's word (`docs/build/protocol.md`, section 3).
        code: String,
        /// Its sentence.
        message: String,
    },
    /// The session is over; coming back makes no sense as it is.
    #[error("{message}")]
    Closed {
        /// The server's word, or `closed`, or `refused` where it did not even upgrade.
        code: String,
        /// Why.
        message: String,
    },
}
