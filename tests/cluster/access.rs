//! What a server needs of Redis, and what it does with one that refuses it.

use serde_json::Value;

use super::TestCluster;
use crate::harness::{eventually, process::RestartableServer, redis_server::RedisServer};

#[tokio::test]
async fn health_is_answered_from_memory() {
    const ASKED: usize = 500;
    let cluster = TestCluster::start(&[]).await;
    let commands = async || {
        let mut total = 0;
        for command in ["zcard", "hlen", "get", "time", "info", "ping"] {
            total += cluster.redis.calls(command).await;
        }
        total
    };
    eventually("every node has been counted", async || {
        cluster.nodes[0].health().await["cluster"]["nodes"] == 3
    })
    .await;
    let before = commands().await;

    for _ in 0..ASKED {
        assert_eq!(cluster.nodes[0].health().await["cluster"]["engine"], "up");
    }

    // Three nodes send a heartbeat every two seconds, of some commands each.
    let asked = commands().await - before;
    assert!(asked < ASKED as u64, "{asked} commands for {ASKED} requests");
}

/// Without `XREAD` a server can connect and register, but hears nothing of the others.
#[tokio::test]
async fn a_redis_that_cannot_be_read_is_never_reported_as_reached() {
    let redis = RedisServer::start_with_user("~* +@all -xread").await;
    let url = redis.user_url();
    let node = RestartableServer::start(&[("REDIS_URL", &url), ("NODE_ID", "a")]).await;

    let first = node.process.log.line_with("redis").await;
    assert!(first.contains("redis cannot be used yet") && first.contains("xread"), "{first}");
    // It registers in each attempt, and sends a heartbeat.
    eventually("several attempts", async || redis.calls("evalsha").await > 8).await;

    let health = node.health().await;
    assert_eq!(
        (&health["cluster"]["engine"], &health["cluster"]["nodes"]),
        (&"down".into(), &Value::Null)
    );
    // It was neither reached nor lost.
    assert_eq!(node.process.log.count("redis"), 1, "{:?}", node.process.log.lines());
}
