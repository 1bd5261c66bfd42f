//! The frames that clients and server exchange (docs/build/protocol.md), as values: no socket, no clock, no state.
//!
//! - `client`: parses what a client sends, `scan` the frames that are sent all the time. `envelope` is what they find, `fields`
//!   reads single fields.
//! - `raw_json`: values as the text in which they arrived.
//! - `call_report`: what a client reports on a call; `moderation_request`: what a moderator asks for.
//! - `server`: encodes what the server sends.
//! - `signal`: offers, answers, ICE candidates and messages of the application, which the server relays.
//! - `frame_subject`: what an encoded frame is about.
//! - `relay_only`: signals without the addresses of their sender.
//! - `ids`: the form of client ids.
//! - `close`: the reasons for which a connection ends, and what its client receives for each.
//!
//! Payloads (offer, answer, candidate, data) are carried as the bytes in which they arrived: the server never
//! re-encodes them, so numbers, escapes and key order reach the peer unchanged.

mod call_report;
mod client;
mod close;
mod envelope;
mod fields;
mod frame_subject;
mod ids;
mod moderation_request;
mod raw_json;
mod relay_only;
mod scan;
mod server;
mod signal;

pub use call_report::{CallOutcome, CallReport, MediaPath};
pub use client::{
    AuthToken, ClientFrame, ClientMessage, Features, FrameError, ResumeRequest, TokenField, parse,
    truncate_for_error,
};
pub use close::{CloseFrame, CloseInfo, CloseReason};
pub use frame_subject::{FrameSubject, connected_users, with_connected_users};
pub use ids::{RequestedId, is_client_id};
pub use moderation_request::ModerationRequest;
pub use raw_json::RawJson;
pub use relay_only::{RelayOnly, relay_only};
pub use server::{
    GrantedPermissions, IceServer, MessageLimits, ResumeOffer, RosterEntry, ServerMessage, with_seq,
};
pub use signal::{SenderSuffix, Signal, SignalKind};

#[cfg(test)]
mod tests;
