//! Which process and which deployment this node is, and what it tells the other nodes of its settings.

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::migration::{ClusterTimings, random_key};

/// What all nodes of a cluster need to have the same, as each states it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The name of the node.
    pub node: String,
    /// The version of its program.
    pub version: String,
    /// How long a node may be silent, in milliseconds.
    pub lease_ms: u64,
    /// The entries of `REDIS_URL`.
    pub shards: usize,
    /// How many members a room holds.
    pub room_capacity: usize,
    /// The machine or container that the process runs on, by its host name. May differ.
    #[serde(default)]
    pub host: String,
    /// The number of the process there. May differ.
    #[serde(default)]
    pub pid: u32,
}

/// Who this node is, for a Redis that another one may use as well.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// Random: tells this process from every other one that has the same `NODE_ID`.
    pub process: String,
    /// Made of `SECRET_KEY`: the same on all nodes of a deployment, and of no other one.
    pub fingerprint: String,
    /// What it tells the others.
    pub facts: NodeFacts,
}

impl NodeIdentity {
    /// The identity of a node of the deployment with this `fingerprint`.
    pub fn new(
        fingerprint: String,
        node: &str,
        timings: ClusterTimings,
        shards: usize,
        room_capacity: usize,
    ) -> Self {
        let facts = NodeFacts::new(node, timings, shards, room_capacity);
        Self { process: format!("{:016x}", random_key()), fingerprint, facts }
    }

    /// The facts as JSON.
    pub fn facts_json(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings and numbers")]
        serde_json::to_string(&self.facts).expect("facts can be written")
    }
}

/// The host name of this machine or container.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What stands for the deployment with this `SECRET_KEY` in Redis: it tells one deployment from another, and nothing of the key.
pub fn deployment_fingerprint(secret_key: &SecretString) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.expose_secret().as_bytes());
    let digest = hmac::sign(&key, b"signaling cluster fingerprint");
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(first))
}

impl NodeFacts {
    /// What a server of this version, on this machine, tells of these settings.
    pub fn new(node: &str, timings: ClusterTimings, shards: usize, room_capacity: usize) -> Self {
        Self {
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lease_ms: u64::try_from(timings.lease.as_millis()).unwrap_or(u64::MAX),
            shards,
            room_capacity,
            host: host_name(),
            pid: std::process::id(),
        }
    }

    /// Reads an entry of `processes`: `<process> <facts>`. Nothing where another version has written it.
    pub fn parse_entry(entry: &str) -> Option<Self> {
        serde_json::from_str(entry.split_once(' ')?.1).ok()
    }

    /// What differs between two nodes, by the name of the setting.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("version", self.version == other.version),
            ("lease", self.lease_ms == other.lease_ms),
            ("REDIS_URL", self.shards == other.shards),
            ("MAX_CONNECTIONS_PER_ROOM", self.room_capacity == other.room_capacity),
        ]
        .into_iter()
        .filter(|(_, is_same)| !is_same)
        .map(|(name, _)| name)
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_between_nodes_are_named_and_every_process_is_another_one() {
        let identity = |node: &str, capacity| {
            NodeIdentity::new("f".into(), node, ClusterTimings::default(), 1, capacity)
        };
        let (first, second) = (identity("n0", 10), identity("n0", 12));
        assert_ne!(first.process, second.process);

        let entry = format!("{} {}", second.process, second.facts_json());
        let facts = NodeFacts::parse_entry(&entry).unwrap();

        assert_eq!(facts, second.facts);
        assert_eq!(first.facts.differences(&facts), ["MAX_CONNECTIONS_PER_ROOM"]);
        assert_eq!(NodeFacts::parse_entry("f00 nonsense"), None);
    }
}
