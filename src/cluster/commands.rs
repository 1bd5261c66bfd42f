//! Writes what rooms ask of Redis and of the other nodes, many commands in one pipeline.

use std::{convert::Infallible, sync::Arc};

use redis::{Arg, Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::mpsc;

use super::{
    ClusterGateway,
    codec::{CONNECTED, DETACHED, GONE, SIGNAL, STAYS, encode_signal, field},
    connection::RedisConnection,
    keys::ShardKeys,
    link::{EngineLink, lease_lost_error},
    messages::{ClusterCommand, EffectReceipt, Eviction},
    receipts::SignalReceipts,
    scripts::{call, call_with_webhooks},
};
use crate::{
    migration::{ConnectionId, HandOver, Migration},
    rooms::JoinError,
};

/// Commands in one pipeline.
const MAX_PIPELINED_COMMANDS: usize = 512;

/// A pipeline of so many bytes takes no further command: heartbeats wait behind it, which a slow network must not make too late.
const MAX_PIPELINED_BYTES: usize = 256 << 10;

/// An entry of so many bytes takes no further signal. Redis answers when it has all of it, and counts as lost where nothing comes for
/// too long.
const MAX_ENTRY_BYTES: usize = 16 << 10;

/// A command of a pipeline.
struct PipelinedCommand {
    encoded: Cmd,
    bytes: usize,
    /// What it does: one thing, or several signals to one node.
    commands: Vec<ClusterCommand>,
}

impl PipelinedCommand {
    /// Whether it is an entry with signals to `node`.
    fn is_for(&self, node: &Arc<str>) -> bool {
        matches!(&*self.commands, [ClusterCommand::Relay { node: to, .. }, ..] if to == node)
    }
}

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
        mut writer: RedisConnection,
        queue: &mut mpsc::UnboundedReceiver<ClusterCommand>,
    ) -> Result<Infallible, RedisError> {
        let mut commands = Vec::new();
        loop {
            if queue.recv_many(&mut commands, MAX_PIPELINED_COMMANDS).await == 0 {
                std::future::pending::<()>().await;
            }
            let limited = commands.iter().filter(|command| is_limited(command)).count();
            self.gateway.note_dequeued(self.number, limited);
            let mut waiting = commands.drain(..);
            while waiting.len() > 0 {
                let (pipe, sent) = self.fill_pipeline(&mut waiting);
                let answers: Vec<RedisResult<Value>> = pipe.query_async(&mut writer).await?;
                for (commands, answer) in sent.into_iter().zip(answers) {
                    for command in commands {
                        match &answer {
                            Ok(answer) => self.apply_answer(command, answer)?,
                            Err(error) => self.apply_refusal(command, error)?,
                        }
                    }
                }
            }
        }
    }

    /// As many of the commands as one pipeline takes, and those behind each of its own: signals to one node share an entry.
    fn fill_pipeline(
        &self,
        waiting: &mut impl Iterator<Item = ClusterCommand>,
    ) -> (Pipeline, Vec<Vec<ClusterCommand>>) {
        let mut pipelined: Vec<PipelinedCommand> = Vec::new();
        // A signal does not overtake another command: only entries from here on take more.
        let (mut open, mut bytes) = (0, 0);
        while bytes < MAX_PIPELINED_BYTES
            && let Some(command) = waiting.next()
        {
            if let ClusterCommand::Relay { node, frame, number } = &command {
                let mut entries = pipelined.iter_mut().skip(open);
                if let Some(entry) = entries.rfind(|entry| entry.is_for(node))
                    && entry.bytes + frame.frame.len() <= MAX_ENTRY_BYTES
                {
                    let signal = encode_signal(&self.gateway.node, frame, number);
                    bytes += signal.len();
                    entry.bytes += signal.len();
                    entry.encoded.arg(SIGNAL).arg(signal);
                    entry.commands.push(command);
                    continue;
                }
            } else {
                open = pipelined.len() + 1;
            }
            let encoded = self.encode(&command);
            let size = encoded_size(&encoded);
            bytes += size;
            pipelined.push(PipelinedCommand { encoded, bytes: size, commands: vec![command] });
        }
        let (mut pipe, mut sent) = (Pipeline::with_capacity(pipelined.len()), Vec::new());
        for PipelinedCommand { encoded, commands, .. } in pipelined {
            pipe.add_command(encoded);
            sent.push(commands);
        }
        pipe.ignore_errors();
        (pipe, sent)
    }

    /// Redis does not run a command, perhaps because its memory is full: what can be answered is answered, and whatever else
    /// would be lost is stated anew.
    fn apply_refusal(&self, command: ClusterCommand, error: &RedisError) -> Result<(), RedisError> {
        match command {
            ClusterCommand::Relay { node, number, .. } => {
                self.fail_signal(&node, number.number);
                Ok(())
            }
            ClusterCommand::Join { key, .. } if is_out_of_memory(error) => {
                self.gateway.refuse_join(key, JoinError::Unavailable);
                Ok(())
            }
            // Another node asks again, waits no longer, or learns in time whether the member has left.
            ClusterCommand::Evict(_)
            | ClusterCommand::AnswerEviction { .. }
            | ClusterCommand::PeerState { .. }
            | ClusterCommand::Confirm { .. }
            | ClusterCommand::ConfirmEffect(_) => Ok(()),
            ClusterCommand::Webhook { .. } => {
                self.webhooks.record_missed();
                Ok(())
            }
            ClusterCommand::Join { .. }
            | ClusterCommand::Leave { .. }
            | ClusterCommand::Claim { .. }
            | ClusterCommand::DenyClaim { .. }
            | ClusterCommand::Move(_)
            | ClusterCommand::Barrier(_)
            | ClusterCommand::HandOver(_) => Err(error.clone()),
        }
    }

    fn fail_signal(&self, node: &str, number: u64) {
        let rooms = &self.rooms;
        self.gateway.update_unconfirmed(self.number, rooms, |unconfirmed, now| {
            unconfirmed.fail(node, number, now).into_iter().collect()
        });
    }

    fn apply_answer(&self, command: ClusterCommand, answer: &Value) -> Result<(), RedisError> {
        match (command, answer) {
            (ClusterCommand::Join { key, .. }, Value::BulkString(answer)) => match &**answer {
                b"admitted" => {}
                b"damaged" => self.gateway.refuse_join(key, JoinError::Unavailable),
                b"full" => self.gateway.refuse_join(key, JoinError::Full),
                b"taken" => self.gateway.refuse_join(key, JoinError::ClientIdTaken),
                _ => return Err(lease_lost_error()),
            },
            (ClusterCommand::Claim { key, .. }, Value::BulkString(answer)) => {
                let connection = std::str::from_utf8(answer).ok();
                let connection = connection.and_then(|connection| connection.parse().ok());
                self.gateway.resolve_claim(&self.rooms, key, connection);
            }
            (ClusterCommand::Leave { .. }, Value::BulkString(records)) => {
                self.emit_webhooks(records);
            }
            (ClusterCommand::Webhook { room, event }, Value::Int(sequence @ 1..)) => {
                self.webhooks.publish(&room, sequence.unsigned_abs(), event);
            }
            // The node has no inbox, and reads nothing.
            (ClusterCommand::Relay { node, .. }, Value::Nil) => {
                self.gateway.update_unconfirmed(self.number, &self.rooms, |unconfirmed, now| {
                    unconfirmed.fail_node(&node, now)
                });
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
                | ClusterCommand::Confirm { .. }
                | ClusterCommand::ConfirmEffect(_)
                | ClusterCommand::Evict(_)
                | ClusterCommand::AnswerEviction { .. }
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
                join.arg(u8::from(*is_guest)).arg(peer.name.as_deref().unwrap_or_default());
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
            // Not by a script, for most commands are such. Redis refuses it where it has no memory left.
            ClusterCommand::Relay { node, frame, number } => {
                let mut add = redis::cmd("XADD");
                add.arg(self.keys.inbox(node)).arg("NOMKSTREAM").arg("*");
                add.arg(SIGNAL).arg(encode_signal(&self.gateway.node, frame, number));
                add
            }
            ClusterCommand::Confirm { node, receipts } => {
                confirmation(&self.gateway, self.number, node, receipts)
            }
            ClusterCommand::ConfirmEffect(EffectReceipt { node, number }) => {
                let mut effective = self.post(node, "effective");
                effective.arg(field::NUMBER).arg(*number);
                effective
            }
            ClusterCommand::Evict(Eviction {
                room,
                client_id,
                connection,
                asking_node,
                number,
            }) => {
                let (node, connection) = (&connection.node, connection.to_string());
                let mut evict = self.post_member(node, "evict", room, client_id, &connection);
                evict.arg(field::NODE).arg(&**asking_node).arg(field::NUMBER).arg(*number);
                evict
            }
            ClusterCommand::AnswerEviction { eviction, is_gone } => {
                let mut answer = self.post(&eviction.asking_node, "evicted");
                answer.arg(field::NUMBER).arg(eviction.number);
                answer.arg(field::STATE).arg(if *is_gone { GONE } else { STAYS });
                answer
            }
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

    fn connection_id(&self, key: u64) -> String {
        ConnectionId { node: self.gateway.node.clone(), key }.to_string()
    }

    /// An entry for another node's inbox, as long as there is one; also where Redis has no memory left.
    fn post(&self, node: &str, kind: &str) -> Cmd {
        let mut post = call(&self.keys, &self.gateway.scripts.post);
        post.arg(node).arg(field::KIND).arg(kind);
        post
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

/// Tells `node` which of its signals through the Redis with this `number` were read here.
pub(super) fn confirmation(
    gateway: &ClusterGateway,
    number: usize,
    node: &str,
    receipts: &SignalReceipts,
) -> Cmd {
    let SignalReceipts { delivered, undeliverable } = receipts;
    let mut confirmed = call(&ShardKeys::new(number), &gateway.scripts.post);
    confirmed.arg(node).arg(field::KIND).arg("confirmed");
    confirmed.arg(field::NODE).arg(&*gateway.node).arg(field::ENGINE).arg(number);
    confirmed.arg(field::DELIVERED).arg(delivered.to_string());
    confirmed.arg(field::UNDELIVERABLE).arg(undeliverable.to_string());
    confirmed
}

/// The bytes of the arguments of a command.
fn encoded_size(command: &Cmd) -> usize {
    let length =
        |argument: Arg<&[u8]>| if let Arg::Simple(bytes) = argument { bytes.len() } else { 0 };
    command.args_iter().map(length).sum()
}

/// Whether Redis has no memory for a command, and may have some later.
fn is_out_of_memory(error: &RedisError) -> bool {
    error.code() == Some("OOM")
}
