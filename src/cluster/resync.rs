//! What a node states to a Redis that it has connected to: its members, logouts and moderation rules.

use std::{collections::HashSet, convert::Infallible, sync::Arc};

use redis::{AsyncCommands, RedisError};
use serde::Serialize;
use tokio::time::sleep;

use super::{
    connection::RedisConnection,
    link::{EngineLink, lease_lost_error},
    scripts::{call, call_with_webhooks},
};
use crate::{
    migration::{Epoch, MemberRecord},
    rooms::Peer,
};

/// Rooms that are stated in one pipeline: few, for a hundred nodes may do so at once, and each is to be answered in time.
pub(super) const MAX_PIPELINED_ROOMS: usize = 32;

/// A local member that has left while Redis could not be reached.
pub(super) struct MissedLeave {
    pub(super) room: Arc<str>,
    pub(super) peer: Peer,
    pub(super) reason: &'static str,
    /// The number of the room's last webhook event before that.
    pub(super) sequence: u64,
}

/// A member as `resync.lua` reads it.
#[derive(Serialize)]
struct StatedMember<'a> {
    client_id: &'a str,
    record: String,
}

impl<'a> StatedMember<'a> {
    fn new(record: &'a MemberRecord) -> Self {
        Self { client_id: &record.peer.client_id, record: record.to_record() }
    }
}

impl EngineLink {
    /// States everything to Redis, which thinks that this node has members in `stored_rooms`.
    pub(super) async fn resync(
        &self,
        mut writer: RedisConnection,
        stored_rooms: Vec<String>,
        is_known_engine: bool,
        missed: &[MissedLeave],
    ) -> Result<(), RedisError> {
        self.resync_members(&mut writer, stored_rooms, is_known_engine).await?;
        if !is_known_engine {
            self.publish_missed_leaves(&mut writer, missed).await?;
        }
        if self.number == 0 {
            self.publish_logouts(&mut writer).await?;
            self.publish_rules(&mut writer).await?;
        }
        Ok(())
    }

    /// States the local members: of the rooms that have some, and of those that Redis thinks have.
    async fn resync_members(
        &self,
        writer: &mut RedisConnection,
        stored_rooms: Vec<String>,
        is_known_engine: bool,
    ) -> Result<(), RedisError> {
        let is_of_engine = |room: &str| self.gateway.engine_of(room) == self.number;
        let mut rooms: Vec<(Arc<str>, Epoch, Vec<MemberRecord>)> =
            self.rooms.local_members(is_of_engine);
        let known: HashSet<_> = rooms.iter().map(|(room, ..)| room.clone()).collect();
        let stored = stored_rooms.into_iter().map(Arc::from);
        let gone = stored.filter(|room: &Arc<str>| !known.contains(room));
        rooms.extend(gone.map(|room| (room, 0, Vec::new())));
        let knowledge = if is_known_engine { "known" } else { "new" };
        self.state_rooms(writer, &rooms, knowledge).await
    }

    /// States the local members of these rooms: `knowledge` is what resync.lua says of it.
    pub(super) async fn state_rooms(
        &self,
        writer: &mut RedisConnection,
        rooms: &[(Arc<str>, Epoch, Vec<MemberRecord>)],
        knowledge: &str,
    ) -> Result<(), RedisError> {
        for some in rooms.chunks(MAX_PIPELINED_ROOMS) {
            let mut pipe = redis::pipe();
            for (room, epoch, members) in some {
                let members: Vec<_> = members.iter().map(StatedMember::new).collect();
                #[expect(clippy::expect_used, reason = "strings")]
                let members = serde_json::to_string(&members).expect("members can be written");
                let mut resync =
                    call_with_webhooks(&self.keys, &self.gateway.scripts.resync, &self.webhooks);
                resync.arg(&**room).arg(&*self.gateway.node).arg(*epoch);
                resync.arg(self.rooms.webhook_seq(room));
                resync.arg(knowledge).arg(&*self.registration()).arg(members);
                pipe.add_command(resync);
            }
            let stated: Vec<(u8, Vec<u8>)> = pipe.query_async(writer).await?;
            stated.iter().for_each(|(_, records)| self.emit_webhooks(records));
            if stated.iter().any(|(is_done, _)| *is_done == 0) {
                return Err(lease_lost_error());
            }
        }
        Ok(())
    }

    /// Has a Redis that never knew of them number the leaves of members that have left meanwhile.
    async fn publish_missed_leaves(
        &self,
        writer: &mut RedisConnection,
        missed: &[MissedLeave],
    ) -> Result<(), RedisError> {
        for some in missed.chunks(MAX_PIPELINED_ROOMS) {
            let mut pipe = redis::pipe();
            for MissedLeave { room, peer, reason, sequence } in some {
                let script = &self.gateway.scripts.missed_leave;
                let mut leave = call_with_webhooks(&self.keys, script, &self.webhooks);
                leave.arg(&**room).arg(&*peer.client_id).arg(&*peer.username);
                leave.arg(reason).arg(*sequence);
                pipe.add_command(leave);
            }
            let records: Vec<Vec<u8>> = pipe.query_async(writer).await?;
            records.iter().for_each(|records| self.emit_webhooks(records));
        }
        Ok(())
    }

    /// Closes the rooms of those leaves, once all other nodes have had the time to state their own members there.
    pub(super) async fn close_empty_rooms(
        &self,
        mut writer: RedisConnection,
        missed: Vec<MissedLeave>,
    ) -> Result<Infallible, RedisError> {
        sleep(self.gateway.timings.unconfirmed_member_ttl()).await;
        for some in missed.chunks(MAX_PIPELINED_ROOMS) {
            let mut pipe = redis::pipe();
            for MissedLeave { room, .. } in some {
                let script = &self.gateway.scripts.close_room;
                let mut close = call_with_webhooks(&self.keys, script, &self.webhooks);
                close.arg(&**room);
                pipe.add_command(close);
            }
            let records: Vec<Vec<u8>> = pipe.query_async(&mut writer).await?;
            records.iter().for_each(|records| self.emit_webhooks(records));
        }
        std::future::pending().await
    }

    /// Sends the logouts that were made here while Redis was away, and applies those of other nodes.
    async fn publish_logouts(&self, writer: &mut RedisConnection) -> Result<(), RedisError> {
        for some in self.replicated.logouts().chunks(MAX_PIPELINED_ROOMS) {
            let mut logout = call(&self.keys, &self.gateway.scripts.logout);
            for line in some {
                logout.arg(line);
            }
            let _: u8 = logout.query_async(writer).await?;
        }
        let lines: Vec<String> = writer.zrange(self.keys.key("logouts"), 0, -1).await?;
        lines.iter().for_each(|line| self.replicated.apply_logout(line));
        Ok(())
    }

    /// Applies the moderation rules of other nodes, and sends those that were made here while Redis was away. In this order:
    /// Redis then stores the newest of each, also where an older version has stored rules without a rank.
    async fn publish_rules(&self, writer: &mut RedisConnection) -> Result<(), RedisError> {
        let key = self.keys.key("orders");
        let rules: Vec<(String, String)> = writer.hgetall(&key).await?;
        for (rule_key, rule) in rules {
            if !self.replicated.apply_rule(&rule) {
                let _: u8 = writer.hdel(&key, rule_key).await?;
            }
        }
        let (rules, receipt) = (self.replicated.rules(), (&*self.gateway.node, None));
        self.gateway.scripts.publish_rules(&self.keys, writer, &rules, receipt).await?;
        Ok(())
    }
}
