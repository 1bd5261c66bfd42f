//! The link to one engine: it is made, told what is true, kept, and made again.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{
    AsyncCommands, AsyncConnectionConfig, Cmd, ErrorKind, Pipeline, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    PREFIX, RedisEndpoint, ReplicatedState, SharedConnection,
    facts::{self, InboxEntry, InboxFields},
    scripts::{
        self, BEAT, ENTER, GONE, JOIN, LEAVE, LOGOUT, MOVE, REPORT, SYNC, WANT, call,
        call_with_webhooks,
    },
    told::{self, WebhookRecord},
};
use crate::{
    rooms::{
        JoinError, Peer, RoomRegistry,
        far::{ClusterCommand, ClusterGateway, ConnectionId, Epoch, MemberRecord, Migration},
    },
    webhooks::Webhooks,
};

/// How long sentinels may take to say where the engine is.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long connecting may take, and any answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// How long the engine waits for something to read, and how long we wait for it.
const READ_BLOCK: Duration = Duration::from_secs(1);
const READ_TIMEOUT: Duration = Duration::from_millis(2_500);

/// What goes in one pipeline.
const MAX_PIPELINED_COMMANDS: usize = 512;
/// As few, for a hundred nodes may state at once what they have, and each is to be answered in time.
const MAX_PIPELINED_ROOMS: usize = 32;
/// What is read at once.
const MAX_ENTRIES_PER_READ: usize = 512;

/// One engine, and what this node has to do with it.
pub struct EngineLink {
    pub number: usize,
    pub rooms: RoomRegistry,
    pub far: Arc<ClusterGateway>,
    pub connection: SharedConnection,
    pub accounts: Arc<ReplicatedState>,
    /// Has a permit for each engine that sends no seat here any more.
    pub closed: Arc<Semaphore>,
    /// The id of the last entry of the inbox that was read.
    pub position: Mutex<Option<String>>,
    pub webhooks: Webhooks,
    /// The run id of the engine that was connected to last.
    pub engine_of: Mutex<Option<String>>,
}

type InboxEntries = Vec<(String, InboxFields)>;

impl EngineLink {
    /// Stays connected for as long as it is polled.
    pub async fn run(
        self,
        mut way: RedisEndpoint,
        mut asked: mpsc::UnboundedReceiver<ClusterCommand>,
    ) {
        let mut is_known_lost = false;
        loop {
            let client = timeout(FAILOVER_TIMEOUT, way.client())
                .await
                .unwrap_or_else(|_| Err(no_endpoint_error()));
            let error = match client {
                Ok(client) => {
                    let Err(error) = self.run_connected(&client, &mut asked).await;
                    error
                }
                Err(error) => error,
            };
            let was_up = self.shared().take().is_some();
            self.far.set_engine_up(self.number, false);
            // Once until it is back. Its words may hold an address, but never a password.
            if was_up || !is_known_lost {
                tracing::error!(engine = self.number, %error, "engine lost; who is in the rooms of others is as it was");
            }
            is_known_lost = true;
            sleep(Duration::from_millis(50 + u64::from(rand_byte()))).await;
        }
    }

    /// From connecting to the first error.
    async fn run_connected(
        &self,
        client: &redis::Client,
        asked: &mut mpsc::UnboundedReceiver<ClusterCommand>,
    ) -> Result<Infallible, RedisError> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT));
        let connect = async |within| {
            let config = config.clone().set_response_timeout(Some(within));
            client.get_multiplexed_async_connection_with_config(&config).await
        };
        let mut writer = connect(RESPONSE_TIMEOUT).await?;
        let reader = connect(READ_TIMEOUT).await?;
        let run_id = run_id(&mut writer).await?;
        scripts::load(&mut writer).await?;

        // What was asked until now is part of what we state, or too late.
        let (mut says, mut gone) = (0, Vec::new());
        while let Ok(ask) = asked.try_recv() {
            says += usize::from(is_say(&ask));
            if matches!(ask, ClusterCommand::Webhook { .. }) {
                self.webhooks.record_missed();
            }
            if let ClusterCommand::Leave { room, peer, why: Some(why), sequence, .. } = ask {
                gone.push((room, peer, why, sequence));
            }
        }
        self.far.note_dequeued(self.number, says);
        let is_known_engine = self.remember_run_id(&run_id);
        let mut enter = call(&ENTER);
        enter.arg(&*self.far.node).arg(run_id);
        enter.arg(self.far.timing.lease.as_secs_f64());
        let (is_known, hello, seats): (u8, String, Vec<String>) =
            enter.query_async(&mut writer).await?;
        // What was read of a stream that is gone, or in which something is missing, is no place to go on from.
        if is_known == 0 || self.position().is_none() {
            *self.position() = Some(hello);
        }
        let (mut stating, beating) = (writer.clone(), writer.clone());
        let resynced = async {
            self.resync_members(&mut stating, seats, is_known_engine).await?;
            if !is_known_engine {
                self.publish_missed_leaves(&mut stating, &gone).await?;
            }
            if self.number == 0 {
                self.publish_logouts(&mut stating).await?;
                self.publish_rules(&mut stating).await?;
            }
            Ok::<_, RedisError>(())
        };
        // Whoever has much to state lives all the while.
        tokio::select! {
            stated = resynced => stated?,
            beaten = self.run_heartbeat(beating) => match beaten? {},
        }

        *self.shared() = Some(writer.clone());
        self.far.set_engine_up(self.number, true);
        tracing::info!(engine = self.number, node = &*self.far.node, "engine reached");
        let (read, beat) = (self.read_inbox(reader), self.run_heartbeat(writer.clone()));
        let left = if is_known_engine { Vec::new() } else { gone };
        let closing = self.close_empty_rooms(writer.clone(), left);
        let (never, ..) =
            tokio::try_join!(read, beat, self.write_commands(writer, asked), closing)?;
        match never {}
    }

    /// States who of ours is where: in the rooms that we have, and that the engine thinks we have.
    async fn resync_members(
        &self,
        writer: &mut MultiplexedConnection,
        seats: Vec<String>,
        is_known_engine: bool,
    ) -> Result<(), RedisError> {
        let mut rooms: Vec<(Arc<str>, Epoch, Vec<MemberRecord>)> =
            self.rooms.local_members(self.number);
        let known: std::collections::HashSet<_> =
            rooms.iter().map(|(room, ..)| room.clone()).collect();
        let gone = seats.into_iter().map(Arc::from).filter(|room: &Arc<str>| !known.contains(room));
        rooms.extend(gone.map(|room| (room, 0, Vec::new())));
        for some in rooms.chunks(MAX_PIPELINED_ROOMS) {
            let mut pipe = redis::pipe();
            for (room, epoch, ours) in some {
                let mut sync = call_with_webhooks(&SYNC, &self.webhooks);
                sync.arg(&**room).arg(&*self.far.node).arg(*epoch);
                sync.arg(self.rooms.webhook_seq(room));
                sync.arg(if is_known_engine { "known" } else { "new" });
                for holder in ours {
                    sync.arg(&*holder.peer.client_id).arg(holder.to_record());
                }
                pipe.add_command(sync);
            }
            let stated: Vec<(u8, Vec<WebhookRecord>)> = pipe.query_async(writer).await?;
            stated.iter().for_each(|(_, told)| self.emit_webhooks(told));
            if stated.iter().any(|(is_done, _)| *is_done == 0) {
                return Err(lease_lost_error());
            }
        }
        Ok(())
    }

    /// Has an engine that never knew of them number those that have left meanwhile.
    async fn publish_missed_leaves(
        &self,
        writer: &mut MultiplexedConnection,
        gone: &[(Arc<str>, Peer, &str, u64)],
    ) -> Result<(), RedisError> {
        for some in gone.chunks(MAX_PIPELINED_ROOMS) {
            let mut pipe = redis::pipe();
            for (room, peer, why, sequence) in some {
                let mut left = call_with_webhooks(&GONE, &self.webhooks);
                left.arg(&**room).arg(&*peer.client_id).arg(&*peer.username);
                pipe.add_command(left.arg(why).arg(*sequence).clone());
            }
            let told: Vec<Vec<WebhookRecord>> = pipe.query_async(writer).await?;
            told.iter().for_each(|told| self.emit_webhooks(told));
        }
        Ok(())
    }

    /// Closes the rooms of those, once all other nodes have had the time to state who of theirs is there.
    async fn close_empty_rooms(
        &self,
        mut writer: MultiplexedConnection,
        gone: Vec<(Arc<str>, Peer, &str, u64)>,
    ) -> Result<Infallible, RedisError> {
        sleep(self.far.timing.unconfirmed_member_ttl()).await;
        for some in gone.chunks(MAX_PIPELINED_ROOMS) {
            let mut pipe = redis::pipe();
            for (room, ..) in some {
                pipe.add_command(call_with_webhooks(&GONE, &self.webhooks).arg(&**room).clone());
            }
            let told: Vec<Vec<WebhookRecord>> = pipe.query_async(&mut writer).await?;
            told.iter().for_each(|told| self.emit_webhooks(told));
        }
        std::future::pending().await
    }

    /// Tells which tokens were logged out here while the engine was away, and hears which elsewhere.
    async fn publish_logouts(&self, writer: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for some in (self.accounts.logouts)().chunks(MAX_PIPELINED_ROOMS) {
            let mut logout = call(&LOGOUT);
            some.iter().for_each(|line| {
                logout.arg(line);
            });
            let _: u8 = logout.query_async(writer).await?;
        }
        let mut range = redis::cmd("ZRANGE");
        let lines: Vec<String> =
            range.arg(format!("{PREFIX}logouts")).arg(0).arg(-1).query_async(writer).await?;
        lines.iter().for_each(|line| (self.accounts.logged_out)(line));
        Ok(())
    }

    /// Tells what was ordered here while the engine was away, and hears what elsewhere.
    async fn publish_rules(&self, writer: &mut MultiplexedConnection) -> Result<(), RedisError> {
        scripts::publish_rules(writer, &(self.accounts.orders)()).await?;
        let key = format!("{PREFIX}orders");
        let orders: Vec<(String, String)> = writer.hgetall(&key).await?;
        for (about, line) in orders {
            if !(self.accounts.ordered)(&line) {
                let _: u8 = writer.hdel(&key, about).await?;
            }
        }
        Ok(())
    }

    /// Reads the inbox.
    async fn read_inbox(
        &self,
        mut reader: MultiplexedConnection,
    ) -> Result<Infallible, RedisError> {
        let inbox = self.inbox();
        loop {
            let from = self.position().clone().unwrap_or_default();
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT")
                .arg(MAX_ENTRIES_PER_READ)
                .arg("BLOCK")
                .arg(READ_BLOCK.as_millis() as u64);
            read.arg("STREAMS").arg(&inbox).arg(&from);
            let read: Option<Vec<(String, InboxEntries)>> = read.query_async(&mut reader).await?;
            let entries: Vec<_> =
                read.into_iter().flatten().flat_map(|(_, entries)| entries).collect();
            // Whoever is far behind may have missed something.
            if entries.len() == MAX_ENTRIES_PER_READ
                && detect_overrun(&mut reader, &inbox, &from).await?
            {
                *self.position() = None;
                return Err(inbox_overrun_error());
            }
            let mut last = None;
            for (id, mut entry) in entries {
                let (number, told) = facts::decode_webhook_records(&mut entry);
                let room = entry.get("r").and_then(|room| str::from_utf8(room).ok());
                let room = number.and(room).map(str::to_owned);
                match facts::decode(&mut entry) {
                    Ok(InboxEntry::Fact(fact)) => self.rooms.apply(fact),
                    Ok(InboxEntry::Logout(line)) => (self.accounts.logged_out)(&line),
                    Ok(InboxEntry::Attempt(attempt)) => (self.accounts.attempted)(&attempt),
                    Ok(InboxEntry::Order(line)) => drop((self.accounts.ordered)(&line)),
                    Ok(InboxEntry::Announcement(said)) => (self.accounts.announced)(&said),
                    Ok(InboxEntry::Closing) => self.closed.add_permits(1),
                    Ok(InboxEntry::Other) => {}
                    Err(error) => tracing::warn!(%error, "an entry of the inbox is passed over"),
                }
                // Of a room that may have come to be just now.
                if let (Some(room), Some(number)) = (room, number) {
                    self.rooms.advance_webhook_seq(&room, number);
                }
                self.emit_webhooks(&told);
                last = Some(id);
            }
            if last.is_some() {
                *self.position() = last;
            }
        }
    }

    /// Says that this node lives, and lets those leave whose node does not.
    async fn run_heartbeat(
        &self,
        mut writer: MultiplexedConnection,
    ) -> Result<Infallible, RedisError> {
        let mut ticks = interval(self.far.timing.heartbeat_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let mut beat = call(&BEAT);
            beat.arg(&*self.far.node).arg(self.position().clone().unwrap_or_default());
            beat.arg(self.far.timing.lease.as_secs_f64());
            let dead: String = beat.query_async(&mut writer).await?;
            match dead.as_str() {
                "" => {}
                "?" => return Err(lease_lost_error()),
                dead => {
                    tracing::warn!(node = dead, "a node is silent for too long; its members leave");
                    let (rooms, webhooks) = (&self.rooms, &self.webhooks);
                    scripts::reap(writer.clone(), dead, false, rooms, webhooks).await?;
                }
            }
            self.rooms.expire_unconfirmed(Instant::now());
        }
    }

    /// Passes on what is asked.
    async fn write_commands(
        &self,
        mut writer: MultiplexedConnection,
        asked: &mut mpsc::UnboundedReceiver<ClusterCommand>,
    ) -> Result<Infallible, RedisError> {
        let mut asks = Vec::new();
        loop {
            if asked.recv_many(&mut asks, MAX_PIPELINED_COMMANDS).await == 0 {
                std::future::pending::<()>().await;
            }
            self.far.note_dequeued(self.number, asks.iter().filter(|ask| is_say(ask)).count());
            let mut pipe = Pipeline::with_capacity(asks.len());
            for ask in &asks {
                pipe.add_command(self.command(ask));
            }
            let answers: Vec<Value> = pipe.query_async(&mut writer).await?;
            for (ask, answer) in asks.drain(..).zip(answers) {
                match (ask, answer) {
                    (ClusterCommand::Join { key, .. }, Value::BulkString(answer)) => match &*answer
                    {
                        b"seated" => {}
                        b"full" => self.far.refuse_join(key, JoinError::Full),
                        b"taken" => self.far.refuse_join(key, JoinError::ClientIdTaken),
                        _ => return Err(lease_lost_error()),
                    },
                    (ClusterCommand::Claim { key, .. }, Value::BulkString(answer)) => {
                        let holder = std::str::from_utf8(&answer).ok();
                        self.rooms.resolve_claim(key, holder.and_then(|conn| conn.parse().ok()));
                    }
                    (ClusterCommand::Leave { .. }, told) => {
                        self.emit_webhooks(&redis::from_redis_value::<Vec<WebhookRecord>>(told)?);
                    }
                    (ClusterCommand::Webhook { room, what }, Value::Int(number @ 1..)) => {
                        self.webhooks.publish(&room, number.unsigned_abs(), what);
                    }
                    (ClusterCommand::Move(moving), Value::Int(2)) => {
                        self.rooms.cancel_outgoing(&moving)
                    }
                    (ClusterCommand::Join { .. } | ClusterCommand::Claim { .. }, _) => {
                        return Err(lease_lost_error());
                    }
                    _ => {}
                }
            }
        }
    }

    fn command(&self, ask: &ClusterCommand) -> Cmd {
        let conn = |key: &u64| ConnectionId { node: self.far.node.clone(), key: *key }.to_string();
        match ask {
            ClusterCommand::Join { room, peer, key } => {
                let mut join = call_with_webhooks(&JOIN, &self.webhooks);
                join.arg(&**room).arg(&*peer.client_id).arg(conn(key));
                join.arg(&*peer.username).arg(self.rooms.capacity_of(room));
                join
            }
            ClusterCommand::Leave { room, peer, key, why, .. } => {
                let mut leave = call_with_webhooks(&LEAVE, &self.webhooks);
                leave.arg(&**room).arg(&*peer.client_id).arg(conn(key));
                leave.arg(why.unwrap_or("left"));
                leave
            }
            ClusterCommand::Webhook { room, .. } => {
                let mut report = call_with_webhooks(&REPORT, &self.webhooks);
                report.arg(&**room);
                report
            }
            ClusterCommand::Relay { node, room, from, key, to, epoch, frame } => {
                let mut say = post(node, "say", room, from, &conn(key));
                if let Some(to) = to {
                    say.arg("t").arg(&**to);
                }
                say.arg("e").arg(*epoch).arg("d").arg(&**frame);
                say
            }
            ClusterCommand::PeerState { node, room, client_id, key, is_away } => {
                let mut state = post(node, "state", room, client_id, &conn(key));
                state.arg("d").arg(if *is_away { "away" } else { "back" });
                state
            }
            ClusterCommand::Claim { room, client_id, membership, ends, key, luggage } => {
                let mut want = call(&WANT);
                want.arg(&**room).arg(&**client_id).arg(conn(key));
                want.arg(membership.to_string()).arg(&**luggage).arg(ends.unwrap_or(0));
                want
            }
            ClusterCommand::Move(Migration { room, client_id, from, to }) => {
                let mut moves = call(&MOVE);
                moves.arg(&**room).arg(&**client_id).arg(from.to_string()).arg(to.to_string());
                moves
            }
            ClusterCommand::DenyClaim { moving, live } => {
                let mut deny = moved(&moving.to.node, "deny", moving);
                deny.arg("l").arg(live.unwrap_or(0));
                deny
            }
            ClusterCommand::Barrier(moving) => {
                let mut mark = moved(&moving.from.node, "mark", moving);
                mark.arg("f").arg(&*self.far.node);
                mark
            }
            ClusterCommand::HandOver { moving, luggage, goods, .. } => {
                let mut hand = moved(&moving.to.node, "hand", moving);
                #[expect(clippy::expect_used, reason = "strings and numbers")]
                let goods = serde_json::to_string(goods).expect("frames can be written");
                hand.arg("m").arg(&**luggage).arg("d").arg(goods);
                hand
            }
        }
    }

    fn emit_webhooks(&self, told: &[WebhookRecord]) {
        told::emit(&self.webhooks, &self.rooms, told);
    }

    /// Whether it is the engine that was connected to last.
    fn remember_run_id(&self, run_id: &str) -> bool {
        let mut known = self.engine_of.lock().unwrap_or_else(PoisonError::into_inner);
        known.replace(run_id.to_owned()).is_some_and(|known| known == run_id)
    }

    fn inbox(&self) -> String {
        inbox(&self.far.node)
    }

    fn position(&self) -> MutexGuard<'_, Option<String>> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn inbox(node: &str) -> String {
    format!("{PREFIX}inbox:{node}")
}

/// An entry for another node's inbox, as long as there is one; bounded as `post` in `lib.lua` does.
fn post(node: &str, kind: &str, room: &str, client_id: &str, conn: &str) -> Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(inbox(node)).arg("NOMKSTREAM").arg("MAXLEN").arg("~").arg(100_000).arg("*");
    add.arg("k").arg(kind).arg("r").arg(room).arg("c").arg(client_id).arg("v").arg(conn);
    add
}

/// An entry about a seat that moves.
fn moved(node: &str, kind: &str, moving: &Migration) -> Cmd {
    let Migration { room, client_id, from, to } = moving;
    let mut add = post(node, kind, room, client_id, &from.to_string());
    add.arg("t").arg(to.to_string());
    add
}

fn is_say(ask: &ClusterCommand) -> bool {
    matches!(
        ask,
        ClusterCommand::Relay { .. }
            | ClusterCommand::PeerState { .. }
            | ClusterCommand::Webhook { .. }
    )
}

/// The engine does not know this node any more: it was given up, or what the engine knew is lost.
fn lease_lost_error() -> RedisError {
    (ErrorKind::Client, "this node was given up meanwhile").into()
}

fn no_endpoint_error() -> RedisError {
    (ErrorKind::Io, "no sentinel has said where the engine is").into()
}

/// Whether an inbox has dropped something that came after `position`: then it has dropped that entry as well, which
/// is kept otherwise (`beat.lua`).
async fn detect_overrun(
    connection: &mut MultiplexedConnection,
    inbox: &str,
    position: &str,
) -> Result<bool, RedisError> {
    let mut range = redis::cmd("XRANGE");
    let there: InboxEntries =
        range.arg(inbox).arg(position).arg(position).query_async(connection).await?;
    Ok(there.is_empty())
}

/// More was written into the inbox than it holds, before it was read.
fn inbox_overrun_error() -> RedisError {
    (ErrorKind::Client, "more was said to this node than it read; it begins anew").into()
}

/// Tells one life of an engine from the next.
async fn run_id(connection: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    run_id.map(str::to_owned).ok_or_else(|| (ErrorKind::Client, "INFO tells no run_id").into())
}

fn rand_byte() -> u8 {
    uuid::Uuid::new_v4().into_bytes()[0]
}
