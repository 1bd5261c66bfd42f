//! What a client reports on a call.

use std::borrow::Cow;

use serde::Deserialize;
use strum::IntoStaticStr;

/// The longest time that a report may name, an hour; a longer one is taken for it. Clients choose it freely, and one of a million years
/// would drown all others in a sum.
pub(super) const MAX_CALL_SETUP_MS: u64 = 3_600_000;

/// The contents of a `call_report`. It is counted in the metrics and kept in the timeline of the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport<'a> {
    /// The client id of the peer, where the client names it.
    pub peer: Option<Cow<'a, str>>,
    /// Whether the call was established.
    pub outcome: CallOutcome,
    /// The time until then, in milliseconds: at most an hour.
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
