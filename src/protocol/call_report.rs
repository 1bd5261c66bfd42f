//! What a client reports on a call.

use std::borrow::Cow;

use serde::Deserialize;
use strum::IntoStaticStr;

/// The contents of a `call_report`. It is counted in the metrics and kept in the timeline of the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport<'a> {
    /// The client id of the peer, where the client names it.
    pub peer: Option<Cow<'a, str>>,
    /// Whether the call was established.
    pub outcome: CallOutcome,
    /// The time until then, in milliseconds.
    pub ms: u64,
    /// The path of the media, where the client names it.
    pub path: Option<MediaPath>,
}

/// Whether a call was established.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum CallOutcome {
    /// Media can flow.
    Connected,
    /// ICE found no path.
    Failed,
}

impl CallOutcome {
    /// As frames spell it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The type of the ICE candidate that a call uses (RFC 8445 section 4).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum MediaPath {
    /// A direct path.
    Host,
    /// A path through a NAT.
    Srflx,
    /// A path through a TURN server.
    Relay,
}

impl MediaPath {
    /// As frames spell it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
