//! The events of a session, and the types in them.

use std::{fmt, time::Duration};

use serde::Deserialize;
use serde_json::Value;

/// An event of a session. Events are delivered in the order in which they happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session has changed its state, or has lost another socket.
    State(Change),
    /// A peer is in the room: it has joined, or was there when this client joined ([`Member::existing`]).
    PeerJoined(Member),
    /// A peer is no longer in the room.
    PeerLeft {
        /// The peer.
        peer: Member,
        /// The server did not report that it left: the client had to join again, and the peer was not in the room.
        /// It may only reconnect later, so a call with it may continue for a while (`docs/build/clients.md`: 30
        /// seconds).
        is_missing: bool,
    },
    /// The server has lost a peer's connection, or has it again. The peer is a member all the time.
    PeerState {
        /// The client id of the peer.
        client_id: String,
        /// Whether its connection is lost or back.
        state: PeerState,
    },
    /// A description or a candidate from a peer.
    Signal {
        /// The client id of the peer.
        from: String,
        /// The username of the peer.
        username: String,
        /// Offer, answer or candidate.
        kind: SignalKind,
        /// As the peer sent it; the end of candidates is `null`.
        payload: Value,
    },
    /// A message from a peer.
    Message {
        /// The client id of the peer.
        from: String,
        /// The username of the peer.
        username: String,
        /// Any JSON value.
        data: Value,
    },
    /// A message from an administrator of the server.
    ServerMessage {
        /// Any JSON value.
        data: Value,
    },
    /// ICE servers for every connection from now on; or the same, and
    /// [`Session::ice_transport_policy`](crate::Session::ice_transport_policy) is another one.
    IceServers(Vec<IceServer>),
    /// An error. [`Error::Closed`] ends the session, and only the state [`State::Closed`] follows.
    Error(Error),
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The client has not joined yet.
    Connecting,
    /// The client is a member of the room and has a connection.
    Connected,
    /// The connection is lost; sent frames are queued.
    Reconnecting,
    /// The session has ended.
    Closed,
}

/// A new [`State`], or another failed attempt in the same state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The state from now on.
    pub state: State,
    /// With [`State::Connected`]: the membership was resumed, and no frame was lost.
    pub is_resumed: bool,
    /// The delay until the next attempt.
    pub retry_in: Option<Duration>,
    /// The close code of the last socket; 1006 if there was no Close frame.
    pub code: Option<u16>,
    /// The close reason of the last socket, or the error that the client has seen.
    pub reason: Option<String>,
}

/// A member as the server lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Member {
    /// Unique in the room.
    pub client_id: String,
    /// The account of the member, or the name of the guest.
    pub username: String,
    /// The display name that the token of the member gives it; `None` if it gives none.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether this client is the polite one of the pair: on an offer collision it accepts the member's offer.
    #[serde(default)]
    pub polite: bool,
    /// Whether it was in the room when this client joined, or joined again.
    #[serde(skip)]
    pub existing: bool,
}

/// The connection of a peer to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Its connection is lost, and its membership is kept.
    Reconnecting,
    /// It has a connection again.
    Connected,
}

/// The kind of a signaling frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// A session description: an object.
    Offer,
    /// A session description: an object.
    Answer,
    /// A candidate: an object, or `null` for the end of candidates.
    IceCandidate,
}

impl SignalKind {
    /// The `type` of its frame, and the field that holds the payload.
    pub(crate) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Offer => ("offer", "offer"),
            Self::Answer => ("answer", "answer"),
            Self::IceCandidate => ("ice_candidate", "candidate"),
        }
    }
}

/// Which candidates a connection may use: the `iceTransportPolicy` of `RTCConfiguration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IceTransportPolicy {
    /// All.
    #[default]
    All,
    /// Those of TURN servers alone: the token keeps the addresses of this client from its peers.
    Relay,
}

/// A STUN or TURN server, in the form of `RTCIceServer`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct IceServer {
    /// `stun:`, `turn:` and `turns:` URLs.
    pub urls: Vec<String>,
    /// The TURN username.
    pub username: Option<String>,
    /// The TURN password.
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// An error of a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL is not that of a server.
    #[error("{0}")]
    Url(String),
    /// No token is available at the moment. The session requests one again.
    #[error("no token: {0}")]
    NoToken(String),
    /// The server has refused a frame; the session continues.
    #[error("{message}")]
    Refused {
        /// The error code of the server (`docs/build/protocol.md`, section 3).
        code: String,
        /// The error message of the server.
        message: String,
    },
    /// The message is longer than the server accepts. It was not sent, and the session continues.
    #[error("a message of {length} bytes is longer than the {max} that the server accepts")]
    TooBig {
        /// The length of its frame in bytes.
        length: usize,
        /// The limit of the server.
        max: usize,
    },
    /// The session has ended, and reconnecting with the same options would fail again.
    #[error("{message}")]
    Closed {
        /// The error code of the server, `closed` if it gave none, or `refused` if it refused the upgrade.
        code: String,
        /// The error message or the close reason.
        message: String,
    },
}
