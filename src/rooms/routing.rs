//! Signals from one member to another, or to all others.

use std::{collections::BTreeSet, sync::Arc};

use bytestring::ByteString;
use tokio::time::Instant;

use super::{
    NodeUnreachable, Peer, RelayedFrame,
    room::{Location, Room, RoomMember},
};
use crate::protocol::{SenderSuffix, Signal, truncate_for_error};

/// Why a signal was not routed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No member of this room has that client id.
    #[error("Target client {0} not found")]
    TargetNotFound(String),
    /// The sender named itself.
    #[error("\"to\" is your own client id")]
    TargetIsSender,
    /// A newer connection has the sender's membership; its own is about to end.
    #[error("This connection has been replaced")]
    Replaced,
    /// The target, or one of all, is on a node that cannot be reached now; others may have received the signal.
    #[error("{0} cannot be reached at the moment")]
    TargetUnreachable(String),
}

impl RouteError {
    /// The error code; nothing where the client gets no error.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::TargetNotFound(_) => Some("target_not_found"),
            Self::TargetIsSender => Some("invalid_message"),
            Self::TargetUnreachable(_) => Some("target_unreachable"),
            // Its connection is being closed.
            Self::Replaced => None,
        }
    }
}

impl Room {
    /// Sends `signal`, which arrived at `received_at`, to the peer that it names, or to every other member. Says whether it
    /// was written to a socket at once.
    ///
    /// # Errors
    ///
    /// One [`RouteError`] variant for each thing that the sender could do about it; then no local member receives it.
    pub(super) fn route(
        &self,
        from: &Peer,
        generation: u64,
        suffix: &SenderSuffix,
        signal: &Signal<'_>,
        received_at: Instant,
    ) -> Result<bool, RouteError> {
        let received_at = Some(received_at);
        let sender = self.find(&from.client_id);
        let Some(sender) = sender.filter(|member| member.is_generation(generation)) else {
            return Err(RouteError::Replaced);
        };
        match signal.to.as_deref() {
            None => {
                let frame = || signal.encode_for_peers(suffix);
                let at_once = self.push_to_others(&from.client_id, received_at, frame);
                if self.is_shared {
                    self.broadcast(sender, frame)?;
                }
                Ok(at_once)
            }
            Some(to) if *to == *from.client_id => Err(RouteError::TargetIsSender),
            Some(to) => {
                let target = self
                    .find(to)
                    .ok_or_else(|| RouteError::TargetNotFound(truncate_for_error(to)))?;
                let frame = signal.encode_for_peers(suffix);
                match &target.location {
                    Location::Local { queue, .. } => Ok(queue.push(frame, received_at)),
                    Location::Remote(remote) => {
                        let to = Some(target.peer.client_id.clone());
                        let sent = self.relay_to_node(sender, &remote.node, to, frame);
                        sent.map(|()| false).map_err(|NodeUnreachable| {
                            let target = truncate_for_error(&target.peer.client_id);
                            RouteError::TargetUnreachable(target)
                        })
                    }
                }
            }
        }
    }

    /// Once to each node that has members here.
    fn broadcast(
        &self,
        from: &RoomMember,
        frame: impl Fn() -> ByteString,
    ) -> Result<(), RouteError> {
        let mut is_reached = true;
        for node in self.remote_nodes() {
            is_reached &= self.relay_to_node(from, node, None, frame()).is_ok();
        }
        is_reached
            .then_some(())
            .ok_or_else(|| RouteError::TargetUnreachable("A member of this room".into()))
    }

    fn relay_to_node(
        &self,
        from: &RoomMember,
        node: &Arc<str>,
        to: Option<Arc<str>>,
        frame: ByteString,
    ) -> Result<(), NodeUnreachable> {
        let (room, sender) = (self.id.clone(), from.peer.client_id.clone());
        let (key, epoch) = (from.key, self.epoch);
        self.backend.relay(node, RelayedFrame { room, from: sender, key, to, epoch, frame })
    }

    /// Reports to another node whether a member is detached.
    pub(super) fn report_state_to(&self, member: &RoomMember, node: &Arc<str>, is_detached: bool) {
        let client_id = &member.peer.client_id;
        self.backend.report_state(node, &self.id, client_id, member.key, is_detached);
    }

    /// The other nodes that have members here.
    pub(super) fn remote_nodes(&self) -> BTreeSet<&Arc<str>> {
        self.members.iter().filter_map(RoomMember::node).collect()
    }

    /// Sends an announcement to one local member, or to all; how many received it.
    pub(super) fn announce(&mut self, to: Option<&str>, frame: &ByteString, now: Instant) -> usize {
        let targets =
            self.members.iter().filter(|member| to.is_none_or(|to| to == &*member.peer.client_id));
        let mut first = None;
        let mut receivers = 0;
        for (member, queue) in targets.filter_map(|member| Some((member, member.queue()?))) {
            first.get_or_insert(member.peer_ref);
            receivers += 1;
            queue.push(frame.clone(), None);
        }
        if receivers > 0 {
            let member = first.filter(|_| to.is_some()).unwrap_or(0);
            self.emit(now, super::events::RoomEvent::Moderated { action: "message", member });
        }
        receivers
    }

    /// See [`push_to_all`].
    pub(super) fn push_to_others(
        &self,
        client_id: &str,
        received_at: Option<Instant>,
        frame: impl Fn() -> ByteString,
    ) -> bool {
        push_to_all(self.others(client_id), received_at, frame)
    }
}

/// Encodes a frame once for all its receivers; whether it was written to a socket at once.
pub(super) fn push_to_all<'a>(
    receivers: impl Iterator<Item = &'a RoomMember>,
    received_at: Option<Instant>,
    encode: impl Fn() -> ByteString,
) -> bool {
    let (mut frame, mut at_once) = (None, false);
    for queue in receivers.filter_map(RoomMember::queue) {
        at_once |= queue.push(frame.get_or_insert_with(&encode).clone(), received_at);
    }
    at_once
}
