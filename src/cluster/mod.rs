//! What several servers share: Redis holds who is in which room, and an inbox for each node. Knows no sockets, and of
//! rooms only what they ask and what they are told: [`gateway`].
//!
//! Every change of membership is one script, which changes the room and, in the same step, writes the event into the
//! inbox of each node that has members there. What a node knows is the sum of its inbox.

mod codec;
mod endpoint;
pub mod gateway;
mod link;
mod redis_info;
mod scripts;
mod webhooks;

use std::sync::{Arc, Mutex, PoisonError};

use redis::{AsyncCommands, aio::MultiplexedConnection};
use tokio::sync::{Semaphore, mpsc};

pub use self::{
    endpoint::{RedisEndpoint, parse_endpoints},
    redis_info::RedisInfo,
};

use self::{
    gateway::{ClusterCommand, ClusterGateway, MemberRecord},
    link::EngineLink,
};
use crate::{rooms::RoomRegistry, webhooks::Webhooks};

/// In front of every key. A hash tag, so that an engine that is a Redis Cluster keeps all in one slot; the number
/// changes with what is written there.
const PREFIX: &str = "{sig1}:";

/// Rooms that are asked for at once, so that the engine is never busy for long.
const ROOMS_AT_ONCE: usize = 1_000;

/// Attempts to log in of which other nodes are still to hear; of more than that at once they hear a part.
const MAX_QUEUED_AUTH_EVENTS: usize = 1_024;

/// The engines of a cluster. Clones are the same.
#[derive(Clone)]
pub struct Cluster(Arc<ClusterShared>);

struct ClusterShared {
    far: Arc<ClusterGateway>,
    rooms: RoomRegistry,
    webhooks: Webhooks,
    engines: Vec<SharedConnection>,
    /// Has a permit for each engine that sends no seat here any more.
    closed: Arc<Semaphore>,
    attempts: mpsc::Sender<String>,
}

/// The way to one engine, while there is one.
type SharedConnection = Arc<Mutex<Option<MultiplexedConnection>>>;

/// The engines cannot be reached, and nobody knows the whole.
#[derive(Debug, thiserror::Error)]
#[error("what the servers of this cluster share cannot be reached")]
pub struct ClusterUnavailable;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
pub struct ClusterCounts {
    /// Servers.
    pub nodes: usize,
    /// Rooms with somebody in them.
    pub rooms: usize,
    /// Members of all of them.
    pub members: usize,
}

/// What counts of accounts on every node, as lines.
pub struct ReplicatedState {
    /// A logout that was made on another node, or on this.
    pub logged_out: Box<dyn Fn(&str) + Send + Sync>,
    /// All logouts that this node knows.
    pub logouts: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// An attempt to log in that was made on another node.
    pub attempted: Box<dyn Fn(&str) + Send + Sync>,
    /// An order of an administrator, that was given on another node or on this; whether it is still to be remembered.
    pub ordered: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// All orders that this node knows.
    pub orders: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// What an administrator has to say on every node.
    pub announced: Box<dyn Fn(&str) + Send + Sync>,
}

impl Cluster {
    /// Connects, and stays connected, to every engine, on its `way`. `asked` is what `rooms` ask of each;
    /// `webhooks` are told what this node has had them do.
    pub fn start(
        ways: Vec<RedisEndpoint>,
        rooms: &RoomRegistry,
        far: Arc<ClusterGateway>,
        asked: Vec<mpsc::UnboundedReceiver<ClusterCommand>>,
        accounts: ReplicatedState,
        webhooks: &Webhooks,
    ) -> Self {
        let accounts = Arc::new(accounts);
        let engines: Vec<SharedConnection> =
            ways.iter().map(|_| SharedConnection::default()).collect();
        let closed = Arc::new(Semaphore::new(0));
        let links = ways.into_iter().zip(asked).zip(engines.clone()).enumerate();
        for (number, ((way, asked), connection)) in links {
            let (rooms, far, accounts) = (rooms.clone(), far.clone(), accounts.clone());
            let (position, closed) = (Mutex::default(), closed.clone());
            let (webhooks, engine_of) = (webhooks.clone(), Mutex::default());
            let link = EngineLink {
                number,
                rooms,
                far,
                connection,
                accounts,
                closed,
                position,
                webhooks,
                engine_of,
            };
            tokio::spawn(link.run(way, asked));
        }
        let (attempts, attempted) = mpsc::channel(MAX_QUEUED_AUTH_EVENTS);
        if let Some(first) = engines.first() {
            tokio::spawn(publish_auth_events(first.clone(), far.node.clone(), attempted));
        }
        let (rooms, webhooks) = (rooms.clone(), webhooks.clone());
        Self(Arc::new(ClusterShared { far, rooms, webhooks, engines, closed, attempts }))
    }

    /// Tells every other node of an attempt to log in; or, while they cannot be reached, none.
    pub fn report_auth_event(&self, attempt: String) {
        let _ = self.0.attempts.try_send(attempt);
    }

    /// Whether all that is shared can be reached.
    pub fn is_up(&self) -> bool {
        self.0.far.is_up()
    }

    /// The name of this node.
    pub fn node(&self) -> &str {
        &self.0.far.node
    }

    /// How many nodes there are.
    ///
    /// # Errors
    ///
    /// [`Away`].
    pub async fn nodes(&self) -> Result<usize, ClusterUnavailable> {
        let first = self.0.engines.first().ok_or(ClusterUnavailable)?;
        let mut connection = open_connection(first)?;
        connection.zcard(format!("{PREFIX}nodes")).await.map_err(|_| ClusterUnavailable)
    }

    /// How much there is of everything, on all nodes together.
    ///
    /// # Errors
    ///
    /// [`Away`].
    pub async fn counts(&self) -> Result<ClusterCounts, ClusterUnavailable> {
        let mut counts = ClusterCounts { nodes: self.nodes().await?, rooms: 0, members: 0 };
        for engine in &self.0.engines {
            let mut pipe = redis::pipe();
            pipe.hlen(format!("{PREFIX}rooms")).get(format!("{PREFIX}members"));
            let (rooms, members): (usize, Option<usize>) = pipe
                .query_async(&mut open_connection(engine)?)
                .await
                .map_err(|_| ClusterUnavailable)?;
            counts.rooms += rooms;
            counts.members += members.unwrap_or(0);
        }
        Ok(counts)
    }

    /// How many members `room` has on all nodes together; `None` where nobody is.
    ///
    /// # Errors
    ///
    /// [`Away`].
    pub async fn info(&self, room: &str) -> Result<Option<usize>, ClusterUnavailable> {
        let engine = self.0.engines.get(self.0.far.engine_of(room)).ok_or(ClusterUnavailable)?;
        open_connection(engine)?
            .hget(format!("{PREFIX}rooms"), room)
            .await
            .map_err(|_| ClusterUnavailable)
    }

    /// Every room of the cluster and its number of members, by name.
    ///
    /// # Errors
    ///
    /// [`Away`]: part of the truth would be none.
    pub async fn list(&self) -> Result<Vec<(String, usize)>, ClusterUnavailable> {
        let mut rooms = std::collections::BTreeMap::new();
        for engine in &self.0.engines {
            let mut connection = open_connection(engine)?;
            let mut cursor = 0_u64;
            loop {
                let mut scan = redis::cmd("HSCAN");
                scan.arg(format!("{PREFIX}rooms")).arg(cursor).arg("COUNT").arg(ROOMS_AT_ONCE);
                let (next, found): (u64, Vec<(String, usize)>) =
                    scan.query_async(&mut connection).await.map_err(|_| ClusterUnavailable)?;
                // A scan may show a room twice.
                rooms.extend(found);
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(rooms.into_iter().collect())
    }

    /// Tells every node of a logout. Where they cannot be reached, they hear of it when they can.
    pub async fn publish_logout(&self, line: &str) {
        if let Some(Ok(mut connection)) = self.0.engines.first().map(open_connection) {
            let mut logout = scripts::call(&scripts::LOGOUT);
            let _: redis::RedisResult<u8> = logout.arg(line).query_async(&mut connection).await;
        }
    }

    /// Tells every node of an administrator's orders, and of all others where they do not know them. Where they cannot be
    /// reached, they hear of them when they can.
    pub async fn publish_rules(&self, lines: &[String]) {
        if let Some(Ok(mut connection)) = self.0.engines.first().map(open_connection) {
            let _ = scripts::publish_rules(&mut connection, lines).await;
        }
    }

    /// Has every other node say something to its members.
    pub async fn publish_announcement(&self, announcement: &str) {
        if let Some(Ok(mut connection)) = self.0.engines.first().map(open_connection) {
            let mut tell = scripts::call(&scripts::TELL);
            tell.arg(self.node()).arg("announce").arg(announcement);
            let _: redis::RedisResult<u8> = tell.query_async(&mut connection).await;
        }
    }

    /// Who is in a room, on all nodes together.
    ///
    /// # Errors
    ///
    /// [`Away`].
    pub async fn members(&self, room: &str) -> Result<Vec<MemberRecord>, ClusterUnavailable> {
        let engine = self.0.engines.get(self.0.far.engine_of(room)).ok_or(ClusterUnavailable)?;
        let key = format!("{PREFIX}room:{room}");
        let seats: Vec<(String, String)> =
            open_connection(engine)?.hgetall(key).await.map_err(|_| ClusterUnavailable)?;
        let holder =
            |(client_id, seat): (String, String)| MemberRecord::parse(&client_id, &seat).ok();
        Ok(seats.into_iter().filter_map(holder).collect())
    }

    /// From now on no seat comes to this node; once this returns it knows all that have come. Never returns where
    /// an engine cannot be reached.
    pub async fn stop_accepting(&self) {
        for engine in &self.0.engines {
            if let Ok(mut connection) = open_connection(engine) {
                let mut close = scripts::call(&scripts::CLOSE);
                close.arg(self.node());
                let _: redis::RedisResult<u8> = close.query_async(&mut connection).await;
            }
        }
        let all = u32::try_from(self.0.engines.len()).unwrap_or(u32::MAX);
        drop(self.0.closed.acquire_many(all).await);
    }

    /// The other nodes that live and stay, by engine.
    pub async fn other_nodes(&self) -> Vec<Vec<Arc<str>>> {
        let mut others = Vec::new();
        for engine in &self.0.engines {
            let living = match open_connection(engine) {
                Ok(mut connection) => {
                    scripts::live_nodes(&mut connection).await.unwrap_or_default()
                }
                Err(ClusterUnavailable) => Vec::new(),
            };
            others.push(living.into_iter().filter(|node| **node != *self.0.far.node).collect());
        }
        others
    }

    /// Which engine a room belongs to, as in [`others`](Self::others).
    pub fn engine_of(&self, room: &str) -> usize {
        self.0.far.engine_of(room)
    }

    /// Waits until no seat is on its way to another node, or to this one.
    pub async fn wait_for_migrations(&self) {
        self.0.far.wait_for_migrations().await;
    }

    /// This node is gone, and its members with it: those who stay hear of it now, and not when its lease is over.
    pub async fn deregister(&self) {
        for engine in &self.0.engines {
            if let Ok(connection) = open_connection(engine) {
                let (rooms, webhooks) = (&self.0.rooms, &self.0.webhooks);
                let _ = scripts::reap(connection, self.node(), true, rooms, webhooks).await;
            }
        }
    }
}

/// Tells every other node, as long as somebody says something.
async fn publish_auth_events(
    engine: SharedConnection,
    node: Arc<str>,
    mut attempts: mpsc::Receiver<String>,
) {
    while let Some(attempt) = attempts.recv().await {
        if let Ok(mut connection) = open_connection(&engine) {
            let mut tell = scripts::call(&scripts::TELL);
            tell.arg(&*node).arg("attempt").arg(attempt);
            let _: redis::RedisResult<u8> = tell.query_async(&mut connection).await;
        }
    }
}

fn open_connection(engine: &SharedConnection) -> Result<MultiplexedConnection, ClusterUnavailable> {
    engine.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(ClusterUnavailable)
}
