//! Signals from one member to another, or to all others.

use std::{collections::BTreeSet, sync::Arc};

use bytestring::ByteString;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    NodeUnreachable, Peer, RelayedFrame, RelayedSignal,
    events::RoomEvent,
    room::{Location, Room, RoomMember},
};
use crate::protocol::{RawJson, SenderSuffix, ServerMessage, Signal, truncate_for_error};

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
    /// A broadcast has not reached every node.
    fn member_unreachable() -> Self {
        Self::TargetUnreachable("A member of this room".into())
    }

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
                let at_once = !self.is_repeated(sender, signal)
                    && self.push_to_others(&from.client_id, received_at, frame);
                if self.is_shared {
                    self.broadcast(sender, signal, frame)?;
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
                        let relayed = self.relayed_signal(sender, to, signal);
                        let sent = self.relay_to_node(&relayed, &remote.node, frame);
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
        signal: &Signal<'_>,
        frame: impl Fn() -> ByteString,
    ) -> Result<(), RouteError> {
        let (mut is_reached, nodes) = (true, self.remote_nodes());
        if nodes.is_empty() {
            return Ok(());
        }
        let relayed = self.relayed_signal(from, None, signal);
        for node in nodes {
            is_reached &= self.relay_to_node(&relayed, node, frame()).is_ok();
        }
        is_reached.then_some(()).ok_or_else(RouteError::member_unreachable)
    }

    fn relayed_signal(
        &self,
        from: &RoomMember,
        to: Option<Arc<str>>,
        signal: &Signal<'_>,
    ) -> Arc<RelayedSignal> {
        Arc::new(RelayedSignal::new(&self.id, (&from.peer.client_id, from.key), to, signal))
    }

    fn relay_to_node(
        &self,
        signal: &Arc<RelayedSignal>,
        node: &Arc<str>,
        frame: ByteString,
    ) -> Result<(), NodeUnreachable> {
        self.backend.relay(node, RelayedFrame { signal: signal.clone(), epoch: self.epoch, frame })
    }

    /// Whether a broadcast is repeated because another node may not have received it: the members here have.
    fn is_repeated(&self, from: &RoomMember, signal: &Signal<'_>) -> bool {
        let is_known = |id: RawJson<'_>| self.backend.was_answered(&self.id, from.key, id.get());
        self.is_shared && signal.id.is_some_and(is_known)
    }

    /// Answers a signal that another node has not confirmed.
    pub(super) fn answer_unreachable(&mut self, signal: &RelayedSignal, now: Instant) {
        let sender = self.find(&signal.from).filter(|sender| sender.key == signal.key);
        let local = sender.and_then(RoomMember::queue);
        // Or on its way to another node, with its queue.
        let moving =
            self.outgoing.iter().find(|outgoing| outgoing.migration.from.key == signal.key);
        let Some(queue) = local.or(moving.map(|outgoing| &outgoing.queue)) else { return };
        let sender = sender.map_or(0, |sender| sender.peer_ref);
        let error = match &signal.to {
            Some(to) => RouteError::TargetUnreachable(truncate_for_error(to)),
            None => RouteError::member_unreachable(),
        };
        let code = error.code().unwrap_or_default();
        let id = signal.id.as_deref();
        if let Some(id) = id {
            queue.forget_relayed_id(id);
        }
        let id = id.and_then(|id| serde_json::from_str::<&RawValue>(id).ok()).map(RawJson::from);
        let message = &error.to_string();
        let (retry, retry_after_ms, max_message_bytes) = (None, None, None);
        let error =
            ServerMessage::Error { message, code, id, retry, retry_after_ms, max_message_bytes };
        queue.push(error.encode(), None);
        let peer_ref = |client_id: &str| self.find(client_id).map_or(0, |member| member.peer_ref);
        let (from, to) = (sender, signal.to.as_deref().map_or(0, peer_ref));
        let (kind, bytes) = (signal.kind, signal.bytes);
        self.emit(now, RoomEvent::Signal { kind, bytes, from, to, outcome: code });
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
            self.emit(now, RoomEvent::Moderated { action: "message", member });
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
