//! The other members of the room, and the events that frames from and about them become.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    events::{Event, Member, PeerState, SignalKind},
    membership::frame::{Frame, field},
};

/// The other members of the room, by client id.
#[derive(Default)]
pub(super) struct Roster(BTreeMap<String, Member>);

impl Roster {
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes the list of a new join. Returns an event for each member that is missing from it, and for each that is new.
    pub fn replace(&mut self, members: Vec<Member>) -> Vec<Event> {
        let listed = members
            .into_iter()
            .map(|member| (member.client_id.clone(), Member { existing: true, ..member }));
        let before = std::mem::replace(&mut self.0, listed.collect());
        let missing = before.iter().filter(|(id, _)| !self.0.contains_key(*id));
        let missing =
            missing.map(|(_, peer)| Event::PeerLeft { peer: peer.clone(), is_missing: true });
        let new = self.0.iter().filter(|(id, _)| !before.contains_key(*id));
        missing.chain(new.map(|(_, peer)| Event::PeerJoined(peer.clone()))).collect()
    }

    /// The event of a frame from or about another member; `None` for a frame of an unknown or malformed kind.
    pub fn handle_frame(&mut self, kind: &str, frame: &Frame) -> Option<Event> {
        match kind {
            "user_joined" => {
                let peer = Member::deserialize(Value::Object(frame.clone())).ok()?;
                let is_known = self.0.insert(peer.client_id.clone(), peer.clone()).is_some();
                (!is_known).then_some(Event::PeerJoined(peer))
            }
            "user_left" => {
                let peer = self.0.remove(&field::<String>(frame, "client_id")?)?;
                Some(Event::PeerLeft { peer, is_missing: false })
            }
            "peer_state" => {
                let client_id = field(frame, "client_id")?;
                let state = field::<PeerState>(frame, "state")?;
                Some(Event::PeerState { client_id, state })
            }
            "message" => {
                let (from, username) = sender(frame)?;
                Some(Event::Message { from, username, data: data(frame) })
            }
            "server_message" => Some(Event::ServerMessage { data: data(frame) }),
            "offer" => signal(SignalKind::Offer, frame),
            "answer" => signal(SignalKind::Answer, frame),
            "ice_candidate" => signal(SignalKind::IceCandidate, frame),
            _ => None,
        }
    }
}

/// The client id and the username of the sender.
fn sender(frame: &Frame) -> Option<(String, String)> {
    field(frame, "from").zip(field(frame, "username"))
}

fn data(frame: &Frame) -> Value {
    frame.get("data").cloned().unwrap_or_default()
}

fn signal(kind: SignalKind, frame: &Frame) -> Option<Event> {
    let (from, username) = sender(frame)?;
    let payload = frame.get(kind.names().1).cloned().unwrap_or_default();
    // The end of candidates may be null, empty or left out; here it is always null.
    let is_end = kind == SignalKind::IceCandidate && payload.as_str() == Some("");
    let payload = if is_end { Value::Null } else { payload };
    Some(Event::Signal { from, username, kind, payload })
}
