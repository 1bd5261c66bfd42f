//! Writes what rooms ask of Redis and of the other nodes, many commands in one pipeline.

use std::convert::Infallible;

use redis::{Cmd, Pipeline, RedisError, Value, aio::MultiplexedConnection};
use tokio::sync::mpsc;

use super::{
    codec::{CONNECTED, DETACHED, field, relay_field},
    link::{EngineLink, lease_lost_error},
    messages::ClusterCommand,
    scripts::{INBOX_MAX_LEN, call, call_with_webhooks},
};
use crate::{
    migration::{ConnectionId, HandOver, Migration},
    rooms::{JoinError, RelayedFrame},
};

/// Commands in one pipeline.
const MAX_PIPELINED_COMMANDS: usize = 512;

/// Whether [`MAX_QUEUED_COMMANDS`](super::gateway::MAX_QUEUED_COMMANDS) limits commands like this one.
pub(super) fn is_limited(command: &ClusterCommand) -> bool {
    matches!(
        command,
        ClusterCommand::Relay { .. }
            | ClusterCommand::PeerState { .. }
            | ClusterCommand::Webhook { .. }
    )
}

impl EngineLink {
    /// Writes commands, and passes their answers on, until an error.
    pub(super) async fn write_commands(
        &self,
        mut writer: MultiplexedConnection,
        queue: &mut mpsc::UnboundedReceiver<ClusterCommand>,
    ) -> Result<Infallible, RedisError> {
        let mut commands = Vec::new();
        loop {
            if queue.recv_many(&mut commands, MAX_PIPELINED_COMMANDS).await == 0 {
                std::future::pending::<()>().await;
            }
            let limited = commands.iter().filter(|command| is_limited(command)).count();
            self.gateway.note_dequeued(self.number, limited);
            let mut pipe = Pipeline::with_capacity(commands.len());
            for command in &commands {
                pipe.add_command(self.encode(command));
            }
            let answers: Vec<Value> = pipe.query_async(&mut writer).await?;
            for (command, answer) in commands.drain(..).zip(answers) {
                self.apply_answer(command, answer)?;
            }
        }
    }

    fn apply_answer(&self, command: ClusterCommand, answer: Value) -> Result<(), RedisError> {
        match (command, answer) {
            (ClusterCommand::Join { key, .. }, Value::BulkString(answer)) => match &*answer {
                b"admitted" => {}
                b"full" => self.gateway.refuse_join(key, JoinError::Full),
                b"taken" => self.gateway.refuse_join(key, JoinError::ClientIdTaken),
                _ => return Err(lease_lost_error()),
            },
            (ClusterCommand::Claim { key, .. }, Value::BulkString(answer)) => {
                let connection = std::str::from_utf8(&answer).ok();
                let connection = connection.and_then(|connection| connection.parse().ok());
                self.gateway.resolve_claim(&self.rooms, key, connection);
            }
            (ClusterCommand::Leave { .. }, Value::BulkString(records)) => {
                self.emit_webhooks(&records);
            }
            (ClusterCommand::Webhook { room, event }, Value::Int(sequence @ 1..)) => {
                self.webhooks.publish(&room, sequence.unsigned_abs(), event);
            }
            (ClusterCommand::Move(migration), Value::Int(2)) => {
                self.gateway.cancel_outgoing(&self.rooms, &migration);
            }
            (ClusterCommand::Join { .. } | ClusterCommand::Claim { .. }, _) => {
                return Err(lease_lost_error());
            }
            (
                ClusterCommand::Leave { .. }
                | ClusterCommand::Webhook { .. }
                | ClusterCommand::Relay { .. }
                | ClusterCommand::PeerState { .. }
                | ClusterCommand::DenyClaim { .. }
                | ClusterCommand::Move(_)
                | ClusterCommand::Barrier(_)
                | ClusterCommand::HandOver(_),
                _,
            ) => {}
        }
        Ok(())
    }

    fn encode(&self, command: &ClusterCommand) -> Cmd {
        let scripts = &self.gateway.scripts;
        let connection = |key: &u64| self.connection_id(*key);
        match command {
            ClusterCommand::Join { room, peer, key, is_guest } => {
                let mut join = call_with_webhooks(&self.keys, &scripts.join, &self.webhooks);
                join.arg(&**room).arg(&*peer.client_id).arg(connection(key));
                join.arg(&*peer.username).arg(self.rooms.capacity_of(room));
                join.arg(u8::from(*is_guest));
                join
            }
            ClusterCommand::Leave { room, peer, key, reason, .. } => {
                let mut leave = call_with_webhooks(&self.keys, &scripts.leave, &self.webhooks);
                leave.arg(&**room).arg(&*peer.client_id).arg(connection(key));
                leave.arg(reason.unwrap_or("left"));
                leave
            }
            ClusterCommand::Webhook { room, .. } => {
                let mut report = call_with_webhooks(&self.keys, &scripts.report, &self.webhooks);
                report.arg(&**room);
                report
            }
            ClusterCommand::Relay { node, frame } => self.encode_relay(node, frame),
            ClusterCommand::PeerState { node, room, client_id, key, is_detached } => {
                let mut state =
                    self.post_member(node, "peer_state", room, client_id, &connection(key));
                state.arg(field::STATE).arg(if *is_detached { DETACHED } else { CONNECTED });
                state
            }
            ClusterCommand::Claim { room, client_id, membership, ends, key, context } => {
                let mut claim = call(&self.keys, &scripts.claim);
                claim.arg(&**room).arg(&**client_id).arg(connection(key));
                claim.arg(membership.to_string()).arg(&**context).arg(ends.unwrap_or(0));
                claim
            }
            ClusterCommand::Move(Migration { room, client_id, from, to }) => {
                let mut moves = call(&self.keys, &scripts.move_member);
                moves.arg(&**room).arg(&**client_id).arg(from.to_string()).arg(to.to_string());
                moves
            }
            ClusterCommand::DenyClaim { migration, live } => {
                let mut denied = self.post_migration(&migration.to.node, "claim_denied", migration);
                denied.arg(field::LIVE).arg(live.unwrap_or(0));
                denied
            }
            ClusterCommand::Barrier(migration) => {
                let mut barrier = self.post_migration(&migration.from.node, "barrier", migration);
                barrier.arg(field::NODE).arg(&*self.gateway.node);
                barrier
            }
            ClusterCommand::HandOver(HandOver { migration, context, state, .. }) => {
                let mut handover = self.post_migration(&migration.to.node, "handover", migration);
                #[expect(clippy::expect_used, reason = "strings and numbers")]
                let state = serde_json::to_string(state).expect("frames can be written");
                handover.arg(field::CONTEXT).arg(&**context).arg(field::STATE).arg(state);
                handover
            }
        }
    }

    fn encode_relay(&self, node: &str, frame: &RelayedFrame) -> Cmd {
        let RelayedFrame { room, from, key, to, epoch, frame } = frame;
        let mut relay = self.post(node, "relay");
        relay.arg(relay_field::ROOM).arg(&**room).arg(relay_field::FROM).arg(&**from);
        relay.arg(relay_field::CONNECTION).arg(self.connection_id(*key));
        if let Some(to) = to {
            relay.arg(relay_field::TARGET).arg(&**to);
        }
        relay.arg(relay_field::EPOCH).arg(*epoch).arg(relay_field::FRAME).arg(&**frame);
        relay
    }

    fn connection_id(&self, key: u64) -> String {
        ConnectionId { node: self.gateway.node.clone(), key }.to_string()
    }

    /// An entry for another node's inbox, as long as there is one; bounded as `post` in `lib.lua` does.
    fn post(&self, node: &str, kind: &str) -> Cmd {
        let mut add = redis::cmd("XADD");
        add.arg(self.keys.inbox(node))
            .arg("NOMKSTREAM")
            .arg("MAXLEN")
            .arg("~")
            .arg(INBOX_MAX_LEN)
            .arg("*");
        add.arg(field::KIND).arg(kind);
        add
    }

    /// An entry about a member.
    fn post_member(
        &self,
        node: &str,
        kind: &str,
        room: &str,
        client_id: &str,
        connection: &str,
    ) -> Cmd {
        let mut add = self.post(node, kind);
        add.arg(field::ROOM).arg(room).arg(field::CLIENT).arg(client_id);
        add.arg(field::CONNECTION).arg(connection);
        add
    }

    /// An entry about a membership that moves.
    fn post_migration(&self, node: &str, kind: &str, migration: &Migration) -> Cmd {
        let Migration { room, client_id, from, to } = migration;
        let mut add = self.post_member(node, kind, room, client_id, &from.to_string());
        add.arg(field::TO).arg(to.to_string());
        add
    }
}
