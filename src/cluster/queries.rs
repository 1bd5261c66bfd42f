//! What REST, moderation and a shutdown ask of Redis.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use redis::{AsyncCommands, ErrorKind, RedisError, RedisResult};
use tokio::sync::mpsc;

use super::{
    ClusterGateway, commands::confirmation, connection::RedisConnection, keys::ShardKeys,
    scripts::call,
};
use crate::{
    migration::MemberRecord,
    rooms::{ClusterUnavailable, Reach, RoomCounts, RoomRegistry},
};

/// Rooms that are read at once, so that Redis is never busy for long.
const ROOMS_AT_ONCE: usize = 1_000;

/// How often the list of nodes is asked for until it cannot be read.
const NODE_LIST_TRIES: usize = 5;

impl ClusterGateway {
    pub(super) async fn query_member_count(
        &self,
        room: &str,
    ) -> Result<Option<usize>, ClusterUnavailable> {
        let engine = self.engine_of(room);
        let (mut connection, rooms) =
            (self.connection(engine)?, ShardKeys::new(engine).key("rooms"));
        connection.hget(rooms, room).await.map_err(|_| ClusterUnavailable)
    }

    /// Every room, by name; an error where one Redis cannot be reached, for a part of the list would be wrong.
    pub(super) async fn query_rooms(&self) -> Result<RoomCounts, ClusterUnavailable> {
        let mut rooms = BTreeMap::new();
        for engine in 0..self.engines.len() {
            let mut connection = self.connection(engine)?;
            let (mut cursor, key) = (0_u64, ShardKeys::new(engine).key("rooms"));
            loop {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(&key).arg(cursor).arg("COUNT").arg(ROOMS_AT_ONCE);
                let (next, found): (u64, Vec<(String, usize)>) =
                    scan.query_async(&mut connection).await.map_err(|_| ClusterUnavailable)?;
                // A scan may show a room twice.
                rooms.extend(found.into_iter().map(|(room, members)| (Arc::from(room), members)));
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(rooms.into_iter().collect())
    }

    pub(super) async fn query_members(
        &self,
        room: &str,
    ) -> Result<Vec<MemberRecord>, ClusterUnavailable> {
        let engine = self.engine_of(room);
        let mut connection = self.connection(engine)?;
        let members = connection.hgetall(ShardKeys::new(engine).room(room)).await;
        let members: Vec<(String, String)> = members.map_err(|_| ClusterUnavailable)?;
        let record =
            |(client_id, record): (String, String)| MemberRecord::parse(&client_id, &record).ok();
        Ok(members.into_iter().filter_map(record).collect())
    }

    pub(super) async fn query_other_nodes(&self) -> Vec<Vec<Arc<str>>> {
        let mut others = Vec::new();
        for engine in 0..self.engines.len() {
            let nodes = self.live_nodes_patiently(engine).await.unwrap_or_else(|error| {
                tracing::warn!(engine, %error, "list of servers cannot be read; detached members leave");
                Vec::new()
            });
            others.push(nodes.into_iter().filter(|node| **node != *self.node).collect());
        }
        others
    }

    /// The same after some tries: an error is no empty list, and this is asked once, when the server stops.
    async fn live_nodes_patiently(
        &self,
        engine: usize,
    ) -> Result<Vec<Arc<str>>, ClusterUnavailable> {
        for _ in 0..NODE_LIST_TRIES {
            if let Ok(mut connection) = self.connection(engine)
                && let Ok(nodes) = self.live_nodes(engine, &mut connection).await
            {
                return Ok(nodes);
            }
            tokio::time::sleep(self.timings.confirm_interval()).await;
        }
        Err(ClusterUnavailable)
    }

    /// The nodes that are certainly up, and stay: a node that renews its lease four times in it has more than half of it
    /// left.
    async fn live_nodes(
        &self,
        engine: usize,
        connection: &mut RedisConnection,
    ) -> RedisResult<Vec<Arc<str>>> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
        let now = Duration::from_secs(seconds) + Duration::from_micros(micros);
        let deadline = (now + self.timings.min_remaining_lease()).as_secs_f64();
        let keys = ShardKeys::new(engine);
        let nodes: Vec<String> =
            connection.zrangebyscore(keys.key("nodes"), deadline, "+inf").await?;
        let closing: HashSet<String> = connection.smembers(keys.key("closing")).await?;
        Ok(nodes.into_iter().filter(|node| !closing.contains(node)).map(Arc::from).collect())
    }

    pub(super) async fn send_logout(&self, line: &str) {
        if let Ok(mut connection) = self.connection(0) {
            let mut logout = call(&ShardKeys::new(0), &self.scripts.logout);
            let _: RedisResult<u8> = logout.arg(line).query_async(&mut connection).await;
        }
    }

    /// Stores `sealed` for an hour, unless there is a key, and reads those of the last `hours`.
    pub(super) async fn exchange_ticket_keys(
        &self,
        hour: u64,
        sealed: &str,
        hours: u64,
    ) -> Result<Vec<(u64, String)>, ClusterUnavailable> {
        let (mut connection, keys) = (self.connection(0)?, ShardKeys::new(0));
        let key = |hour: u64| keys.key(&format!("ticket_key:{hour}"));
        let hours: Vec<_> = (hour.saturating_sub(hours - 1)..=hour).collect();
        let seconds = hours.len() * 60 * 60;
        let mut exchange = redis::pipe();
        exchange.cmd("SET").arg(key(hour)).arg(sealed).arg("NX").arg("EX").arg(seconds).ignore();
        exchange.cmd("MGET").arg(hours.iter().copied().map(key).collect::<Vec<_>>());
        let stored: RedisResult<(Vec<Option<String>>,)> =
            exchange.query_async(&mut connection).await;
        let (stored,) = stored.map_err(|_| ClusterUnavailable)?;
        Ok(hours.into_iter().zip(stored).filter_map(|(hour, key)| Some((hour, key?))).collect())
    }

    pub(super) async fn send_rules(&self, rules: &[String]) -> Reach {
        let publish = async |number| {
            let mut connection = self.connection(0).map_err(unavailable)?;
            let (keys, receipt) = (ShardKeys::new(0), (&*self.node, Some(number)));
            self.scripts.publish_rules(&keys, &mut connection, rules, receipt).await
        };
        self.publish_and_count(publish).await
    }

    pub(super) async fn send_announcement(&self, announcement: &str) -> Reach {
        let publish = async |number: u64| {
            self.broadcast("announcement", announcement, &number.to_string()).await
        };
        self.publish_and_count(publish).await
    }

    /// Writes an entry of this `kind` into the inbox of every other node, and returns how many those are. They confirm it
    /// where it has a number.
    async fn broadcast(&self, kind: &str, body: &str, number: &str) -> RedisResult<usize> {
        let mut connection = self.connection(0).map_err(unavailable)?;
        let mut broadcast = call(&ShardKeys::new(0), &self.scripts.broadcast);
        broadcast.arg(&*self.node).arg(kind).arg(body).arg(number);
        broadcast.query_async(&mut connection).await
    }

    pub(super) async fn stop_accepting_members(&self) {
        for engine in 0..self.engines.len() {
            if let Ok(mut connection) = self.connection(engine) {
                let mut stop = call(&ShardKeys::new(engine), &self.scripts.stop_accepting);
                let _: RedisResult<u8> = stop.arg(&*self.node).query_async(&mut connection).await;
            }
        }
        let all = u32::try_from(self.engines.len()).unwrap_or(u32::MAX);
        drop(self.closed_engines.acquire_many(all).await);
    }

    pub(super) async fn remove_this_node(&self, rooms: &RoomRegistry) {
        for engine in 0..self.engines.len() {
            if let Ok(mut connection) = self.connection(engine) {
                let (node, webhooks) = (&self.node, rooms.webhooks());
                let keys = ShardKeys::new(engine);
                // What was read here was delivered: its senders must not get errors.
                for (sender, receipts) in self.take_receipts(engine) {
                    let confirmed = confirmation(self, engine, &sender, &receipts);
                    let _: RedisResult<u8> = confirmed.query_async(&mut connection).await;
                }
                let _ = self.scripts.reap(&keys, connection, node, true, rooms, webhooks).await;
            }
        }
    }
}

fn unavailable(error: ClusterUnavailable) -> RedisError {
    (ErrorKind::Io, "redis cannot be reached", error.to_string()).into()
}

/// Sends the login attempts of this node to the others, one after the other.
pub(super) async fn publish_auth_events(
    gateway: Arc<ClusterGateway>,
    mut events: mpsc::Receiver<String>,
) {
    while let Some(event) = events.recv().await {
        let _ = gateway.broadcast("auth_event", &event, "").await;
    }
}
