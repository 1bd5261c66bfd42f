//! What an encoded frame is about, for a replay buffer that keeps it until its receiver has a connection again.

use std::borrow::Cow;

use bytestring::ByteString;
use serde::Deserialize;

/// What a frame to one member is about. Frames that report joins, leaves and states of a peer can stand for older ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameSubject {
    /// `user_joined`: the client id of the peer, and its user.
    Joined(Box<str>, Box<str>),
    /// `user_left`: the same.
    Left(Box<str>, Box<str>),
    /// `peer_state` of the peer with this client id.
    State(Box<str>),
    /// A signal from the peer with this client id.
    Signal(Box<str>),
    /// Anything else.
    Other,
}

/// The fields that tell what a frame is about.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    client_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    username: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    from: Option<Cow<'a, str>>,
}

impl FrameSubject {
    /// The subject of an encoded [`ServerMessage`](super::ServerMessage) or signal.
    pub fn of(frame: &str) -> Self {
        let Ok(Envelope { kind, client_id, username, from }) = serde_json::from_str(frame) else {
            return Self::Other;
        };
        let username = || username.unwrap_or_default().into();
        match (&*kind, client_id, from) {
            ("user_joined", Some(id), _) => Self::Joined(id.into(), username()),
            ("user_left", Some(id), _) => Self::Left(id.into(), username()),
            ("peer_state", Some(id), _) => Self::State(id.into()),
            (_, _, Some(from)) => Self::Signal(from.into()),
            (_, _, None) => Self::Other,
        }
    }
}

/// Where the number of members stands in `user_joined` and `user_left`. No string in a frame contains this: quotation
/// marks are escaped there.
const CONNECTED_USERS: &str = r#""connected_users":"#;

/// The `connected_users` of an encoded frame, where it has them.
pub fn connected_users(frame: &str) -> Option<usize> {
    let (_, rest) = frame.split_once(CONNECTED_USERS)?;
    let digits = rest.find(|char: char| !char.is_ascii_digit())?;
    rest.get(..digits)?.parse().ok()
}

/// The frame with another number of `connected_users`, where it has them.
pub fn with_connected_users(frame: ByteString, count: usize) -> ByteString {
    let Some((before, rest)) = frame.split_once(CONNECTED_USERS) else { return frame };
    let after = rest.trim_start_matches(|char: char| char.is_ascii_digit());
    format!("{before}{CONNECTED_USERS}{count}{after}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ClientMessage, SenderSuffix, ServerMessage, parse};

    #[test]
    fn every_frame_of_a_room_is_known_by_its_own_fields_and_not_by_its_payload() {
        let (room_id, client_id, username) = ("den", "c1", "zo\"ë");
        let joined = ServerMessage::UserJoined {
            room_id,
            client_id,
            username,
            name: None,
            connected_users: 2,
            polite: false,
        };
        let left = ServerMessage::UserLeft { room_id, client_id, username, connected_users: 1 };
        let state = ServerMessage::PeerState { client_id, state: "connected" };
        let text = r#"{"type":"message","data":{"type":"user_left","client_id":"x","from":"y"}}"#;
        let Ok(ClientMessage::Signal(signal)) = parse(text).message else { panic!() };
        let signal = signal.encode_for_peers(&SenderSuffix::new(client_id, username));

        let id = || Box::from(client_id);
        let user = || Box::from(username);
        assert_eq!(FrameSubject::of(&joined.encode()), FrameSubject::Joined(id(), user()));
        assert_eq!(FrameSubject::of(&left.encode()), FrameSubject::Left(id(), user()));
        assert_eq!(FrameSubject::of(&state.encode()), FrameSubject::State(id()));
        assert_eq!(FrameSubject::of(&signal), FrameSubject::Signal(id()));
        assert_eq!(connected_users(&signal), None);
        assert_eq!(with_connected_users(signal.clone(), 7), signal);
        let other = |connected_users| ServerMessage::UserLeft {
            room_id: "\"connected_users\":9",
            client_id,
            username,
            connected_users,
        };
        assert_eq!(connected_users(&other(12).encode()), Some(12));
        assert_eq!(with_connected_users(other(12).encode(), 7), other(7).encode());
        for other in [&*ServerMessage::Pong.encode(), "no JSON", "{}"] {
            assert_eq!(FrameSubject::of(other), FrameSubject::Other);
        }
    }
}
