//! Several server processes and a real Redis between them: what each client has heard must add up to what the engine
//! keeps, whatever happens to nodes, engine and the wires between them.

mod doctor;
pub mod engine;
mod faults;
mod membership;
mod model;
mod moderation;
mod moving;
mod namespace;
mod observer;
mod sentinel;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use self::{engine::Engine, observer::Observer};
use crate::{
    faults::House,
    harness::{SOON, users_file},
};

/// Three nodes and what they share.
struct Town {
    engine: Engine,
    nodes: Vec<House>,
    /// Of one node, and good at all.
    tokens: BTreeMap<&'static str, String>,
    /// Where the accounts are: the same on all nodes, to the salt.
    _users: TempDir,
}

impl Town {
    async fn open(settings: &[(&str, &str)]) -> Self {
        Self::open_on(Engine::start().await, settings, |_, url| url).await
    }

    /// `way` may give a node another URL than the engine's own, such as one that leads through a bad network.
    async fn open_on(
        engine: Engine,
        settings: &[(&str, &str)],
        way: impl Fn(usize, String) -> String,
    ) -> Self {
        let url = engine.url();
        let of_node = |node| vec![("REDIS_URL", way(node, url.clone()))];
        Self::open_with(engine, settings, of_node).await
    }

    /// Each node has settings of its own.
    async fn open_with(
        engine: Engine,
        settings: &[(&str, &str)],
        of_node: impl Fn(usize) -> Vec<(&'static str, String)>,
    ) -> Self {
        let (users, mut nodes) = (tempfile::tempdir().unwrap(), Vec::new());
        let accounts = users_file(&["alice", "bob", "carol", "dave"], 4);
        for number in 0..3 {
            let (own, name) = (of_node(number), format!("n{number}"));
            let csv = users.path().join(format!("{name}.csv"));
            std::fs::write(&csv, &accounts).unwrap();
            let csv = csv.to_str().unwrap();
            let mut all = vec![("NODE_ID", name.as_str()), ("USERS_CSV", csv)];
            all.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
            all.extend(settings);
            nodes.push(House::open(&all).await);
        }
        let mut tokens = BTreeMap::new();
        for name in ["alice", "bob", "carol", "dave"] {
            tokens.insert(name, nodes[0].token(name).await);
        }
        let town = Self { engine, nodes, tokens, _users: users };
        for node in 0..3 {
            town.is(node, "up").await;
        }
        town
    }

    /// Waits until a node says that the engine is `up`, or `down`.
    async fn is(&self, node: usize, engine: &str) {
        let node = &self.nodes[node];
        eventually(&format!("the engine is {engine}"), async || {
            node.health().await["cluster"]["engine"] == engine
        })
        .await;
    }

    async fn enters(&self, node: usize, room: &str, username: &str, client_id: &str) -> Observer {
        let entered = self.tries_to_enter(node, room, username, client_id).await;
        entered.unwrap_or_else(|end| panic!("{client_id} is not in: {end:?}"))
    }

    /// A member, or the close code and reason.
    async fn tries_to_enter(
        &self,
        node: usize,
        room: &str,
        username: &str,
        client_id: &str,
    ) -> Result<Observer, (u16, String)> {
        let node = &self.nodes[node];
        Observer::enters(node.address(), room, username, &self.tokens[username], client_id).await
    }

    /// What everybody sees is what the engine has, and nobody heard anything that does not fit.
    async fn agrees(&mut self, observers: &[Observer]) {
        let deadline = Instant::now() + SOON;
        loop {
            let table = self.engine.members().await;
            let differ = observers.iter().find_map(|observer| {
                let here = table.get(&observer.room).cloned().unwrap_or_default();
                let others: Vec<_> =
                    here.into_iter().filter(|id| *id != observer.client_id).collect();
                (observer.sees() != others).then(|| {
                    format!("{}: {:?}, not {others:?}", observer.client_id, observer.sees())
                })
            });
            match differ {
                None => break,
                Some(differ) => assert!(Instant::now() < deadline, "{differ}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
        for observer in observers {
            assert_eq!(observer.faults(), [] as [String; 0], "{}", observer.client_id);
        }
    }
}

/// Waits for something that must come.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The rooms that a node lists, and how many are in each.
async fn listed(node: &House) -> BTreeMap<String, u64> {
    let list = reqwest::get(format!("http://{}/api/rooms", node.address())).await.unwrap();
    let list: Vec<Value> = list.json().await.unwrap();
    let entry = |room: &Value| {
        (room["room_id"].as_str().unwrap().to_owned(), room["connected_users"].as_u64().unwrap())
    };
    list.iter().map(entry).collect()
}
