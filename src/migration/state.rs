//! What moves from one node to another with a membership, and a count of what is on its way.

use std::{fmt, sync::Arc};

use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::ConnectionId;
use crate::{
    delivery::ReplayBuffer,
    peer::Peer,
    protocol::{Features, ServerMessage},
};

/// A membership on its way from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The room.
    pub room: Arc<str>,
    /// The member.
    pub client_id: Arc<str>,
    /// The connection that it was on.
    pub from: ConnectionId,
    /// The connection that it will be on.
    pub to: ConnectionId,
}

/// What the client of a membership that moves may not have received yet.
#[derive(Clone, Deserialize, Serialize)]
pub struct MigrationState {
    /// Its frames.
    pub replay: Box<ReplayBuffer>,
    /// The optional protocol features that it has enabled.
    pub features: Features,
    /// Whether its peers were told that it is detached.
    #[serde(rename = "is_missed")]
    pub is_detached_reported: bool,
    /// The members that it knows of: client ids and usernames.
    #[serde(rename = "others")]
    pub known_members: Vec<(String, String)>,
}

/// Without the frames, which hold what members said.
impl fmt::Debug for MigrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigrationState").finish_non_exhaustive()
    }
}

/// Counts the memberships that are on their way, to other nodes and to this one.
#[derive(Debug, Default)]
pub struct MigrationTracker(watch::Sender<usize>);

/// A membership is on its way to another node, or to this one, until this is dropped.
#[derive(Debug)]
pub struct MigrationGuard(watch::Sender<usize>);

impl MigrationTracker {
    /// Counts one until the guard is dropped.
    pub fn track(&self) -> MigrationGuard {
        self.0.send_modify(|in_flight| *in_flight += 1);
        MigrationGuard(self.0.clone())
    }

    /// Waits until none is on its way.
    pub async fn wait_until_idle(&self) {
        let _ = self.0.subscribe().wait_for(|in_flight| *in_flight == 0).await;
    }
}

impl Drop for MigrationGuard {
    fn drop(&mut self) {
        self.0.send_modify(|in_flight| *in_flight -= 1);
    }
}

/// The frames for a client that knows of the members `known`, in a `room` whose other members are `present`. They differ
/// where one of two nodes was cut off, and still waits for a member to be confirmed.
pub fn roster_changes(room: &str, known: &[(String, String)], present: &[Peer]) -> Vec<ByteString> {
    let connected_users = present.len() + 1;
    let is_new = |peer: &&Peer| {
        !known.iter().any(|(id, username)| **id == *peer.client_id && **username == *peer.username)
    };
    let is_gone = |member: &&(String, String)| {
        !present.iter().any(|peer| *peer.client_id == *member.0 && *peer.username == *member.1)
    };
    let left = known.iter().filter(is_gone).map(|(client_id, username)| ServerMessage::UserLeft {
        room_id: room,
        client_id,
        username,
        connected_users,
    });
    let joined = present.iter().filter(is_new).map(|peer| ServerMessage::UserJoined {
        room_id: room,
        username: &peer.username,
        client_id: &peer.client_id,
        name: peer.name.as_deref(),
        connected_users,
        polite: false,
    });
    left.chain(joined).map(|message| message.encode()).collect()
}
