//! Several server processes and a real Redis between them: what each client has received must add up to what Redis holds,
//! whatever happens to nodes, Redis and the network between them.

mod access;
mod delivery;
mod display_names;
mod doctor;
mod faults;
mod figures;
mod healing;
mod identity;
mod membership;
mod model;
mod moderation;
mod moving;
mod namespace;
mod observer;
mod redis_cluster;
mod schedules;
mod sentinel;
mod webhooks;

use std::collections::BTreeMap;

use serde_json::Value;
use tempfile::TempDir;

use self::observer::RoomObserver;

use crate::harness::{
    CHEAP, eventually, http,
    process::{INTERVALS, RestartableServer},
    redis_server::RedisServer,
    users_file,
};

/// A lease that a test waits out, and that a busy machine does not miss.
const SHORT_LEASE: (&str, &str) = (INTERVALS, "lease=3000");
/// The same in seconds.
const LEASE: f64 = 3.0;

/// Three nodes and the Redis that they share.
struct TestCluster {
    redis: RedisServer,
    nodes: Vec<RestartableServer>,
    /// Issued by one node, and valid on all.
    tokens: BTreeMap<&'static str, String>,
    /// The nodes' users files, which are equal to the salt.
    _users: TempDir,
}

impl TestCluster {
    async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_on(RedisServer::start().await, settings, |_, url| url).await
    }

    /// `url_of` may give a node another URL than Redis's own, such as one that leads through a proxy.
    async fn start_on(
        redis: RedisServer,
        settings: &[(&str, &str)],
        url_of: impl Fn(usize, String) -> String,
    ) -> Self {
        let url = redis.url();
        let of_node = |node| vec![("REDIS_URL", url_of(node, url.clone()))];
        Self::start_with(redis, settings, of_node).await
    }

    /// Each node has settings of its own besides those of all.
    async fn start_with(
        redis: RedisServer,
        settings: &[(&str, &str)],
        of_node: impl Fn(usize) -> Vec<(&'static str, String)>,
    ) -> Self {
        let (users, mut nodes) = (tempfile::tempdir().unwrap(), Vec::new());
        let accounts = users_file(&["alice", "bob", "carol", "dave"], CHEAP);
        for number in 0..3 {
            let (own, name) = (of_node(number), format!("n{number}"));
            let csv = users.path().join(format!("{name}.csv"));
            std::fs::write(&csv, &accounts).unwrap();
            let csv = csv.to_str().unwrap();
            let mut all = vec![("NODE_ID", name.as_str()), ("USERS_CSV", csv)];
            all.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
            all.extend(settings);
            nodes.push(RestartableServer::start(&all).await);
        }
        let mut tokens = BTreeMap::new();
        for name in ["alice", "bob", "carol", "dave"] {
            tokens.insert(name, nodes[0].token(name).await);
        }
        let cluster = Self { redis, nodes, tokens, _users: users };
        cluster.wait_until_up().await;
        cluster
    }

    /// Waits until a node reports that Redis is `up`, or `down`.
    async fn wait_for_redis(&self, node: usize, state: &str) {
        let node = &self.nodes[node];
        eventually(&format!("Redis is {state}"), async || {
            let health = node.health().await;
            if health["cluster"]["engine"] == state { Ok(()) } else { Err(health) }
        })
        .await;
    }

    /// Waits until every node reports that Redis is up.
    async fn wait_until_up(&self) {
        for node in 0..self.nodes.len() {
            self.wait_for_redis(node, "up").await;
        }
    }

    /// Waits until every node reports that Redis is down.
    async fn wait_until_down(&self) {
        for node in 0..self.nodes.len() {
            self.wait_for_redis(node, "down").await;
        }
    }

    /// Waits until every node has sent two heartbeats since it would have expired the members that it could not confirm when
    /// Redis came up: members that are to expire have expired by then. The nodes' lease is `lease` seconds.
    async fn wait_until_expired(&self, lease: f64) {
        let due = self.redis.time().await + lease;
        let mut beaten = Vec::new();
        for at_least in [due, due + lease / 4.0] {
            beaten = eventually("every node has sent a heartbeat", async || {
                let ends: Vec<f64> = self.redis.lease_ends().await.into_values().collect();
                let is_later = !ends.is_empty() && ends.iter().all(|end| end - lease > at_least);
                if is_later { Ok(ends) } else { Err((at_least, ends)) }
            })
            .await;
        }
        assert!(!beaten.is_empty());
    }

    async fn join(&self, node: usize, room: &str, username: &str, client_id: &str) -> RoomObserver {
        let joined = self.try_join(node, room, username, client_id).await;
        joined.unwrap_or_else(|close| {
            let log = self.nodes[node].process.log.lines();
            panic!("{client_id} does not join: {close:?}: {}", log.join("\n"))
        })
    }

    /// A member, or the close code and reason.
    async fn try_join(
        &self,
        node: usize,
        room: &str,
        username: &str,
        client_id: &str,
    ) -> Result<RoomObserver, (u16, String)> {
        let address = self.nodes[node].address();
        RoomObserver::join(address, room, username, &self.tokens[username], client_id).await
    }

    /// Waits until the peers of each observer are those that Redis holds, and checks that no observer has received anything
    /// that does not fit.
    async fn assert_consistent(&self, observers: &[RoomObserver]) {
        eventually("the members agree with Redis", async || {
            let members = self.redis.members().await;
            for observer in observers {
                let mut expected = members.get(&observer.room).cloned().unwrap_or_default();
                expected.retain(|id| *id != observer.client_id);
                if observer.peers() != expected {
                    let (id, peers) = (&observer.client_id, observer.peers());
                    return Err(format!("{id}: {peers:?}, not {expected:?}"));
                }
            }
            Ok(())
        })
        .await;
        for observer in observers {
            assert_eq!(observer.violations(), [] as [String; 0], "{}", observer.client_id);
        }
    }
}

/// The rooms that a node lists, and how many members each has.
async fn listed(node: &RestartableServer) -> BTreeMap<String, u64> {
    let url = format!("http://{}/api/rooms", node.address());
    let list = http().build().unwrap().get(url).send().await.unwrap();
    let list: Vec<Value> = list.json().await.unwrap();
    let entry = |room: &Value| {
        (room["room_id"].as_str().unwrap().to_owned(), room["connected_users"].as_u64().unwrap())
    };
    list.iter().map(entry).collect()
}

/// The last cell of each row says which test, or which file of them, shows it.
#[test]
fn each_test_that_the_page_of_faults_names_is_there() {
    let page = include_str!("../../docs/run/cluster-faults.md");
    let cells = page.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once("| "));
    let cells = cells.map(|(_, last)| last).filter(|last| !["---", "test"].contains(last));
    let mut rows = 0;
    for cell in cells {
        let quoted = cell.split('`').skip(1).step_by(2);
        let names: Vec<_> = quoted.filter(|name| !name.starts_with("CLUSTER_")).collect();
        assert!(!names.is_empty(), "{cell}");
        for name in names {
            let (file, test) = name.split_once("::").unwrap_or((name, ""));
            let path = format!("{}/tests/cluster/{file}.rs", env!("CARGO_MANIFEST_DIR"));
            let code = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(code.contains(&format!("fn {test}")), "{name}");
        }
        rows += 1;
    }
    assert!(rows > 25, "{rows}");
}
