//! Signals: the frames that the server relays from one member to its peers.

use std::{borrow::Cow, sync::Arc};

use bytestring::ByteString;
use strum::IntoStaticStr;

use super::{raw_json::RawJson, server::to_json};

/// A payload for one peer, or for every other member of the room.
#[derive(Debug)]
pub struct Signal<'a> {
    /// The type of the payload.
    pub kind: SignalKind,
    /// The payload, byte for byte.
    pub payload: RawJson<'a>,
    /// The client id of the peer that it is for; `None` for every other member of the room.
    pub to: Option<Cow<'a, str>>,
    /// The `id` that its sender gave it, for the error that it may get.
    pub id: Option<RawJson<'a>>,
}

/// The type of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum SignalKind {
    /// An SDP offer.
    Offer,
    /// An SDP answer.
    Answer,
    /// An ICE candidate, or the end of candidates.
    IceCandidate,
    /// Data of the application.
    Message,
}

impl SignalKind {
    /// The `type` of such a frame.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The end of every frame that a member's peers receive from it: `from` and `username`, encoded once for each
/// membership.
#[derive(Clone, Debug)]
pub struct SenderSuffix(Arc<str>);

impl SenderSuffix {
    /// The suffix of member `client_id`, whose user is `username`.
    pub fn new(client_id: &str, username: &str) -> Self {
        let (from, username) = (to_json(client_id), to_json(username));
        Self(format!(r#","from":{from},"username":{username}}}"#).into())
    }
}

impl Signal<'_> {
    /// The frame that the receivers of this signal get, spliced from the bytes of the payload.
    pub fn encode_for_peers(&self, sender: &SenderSuffix) -> ByteString {
        let prefix = match self.kind {
            SignalKind::Offer => r#"{"type":"offer","offer":"#,
            SignalKind::Answer => r#"{"type":"answer","answer":"#,
            SignalKind::IceCandidate => r#"{"type":"ice_candidate","candidate":"#,
            SignalKind::Message => r#"{"type":"message","data":"#,
        };
        [prefix, self.payload.get(), &sender.0].concat().into()
    }
}
