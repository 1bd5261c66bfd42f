//! What a server needs of Redis, and what it does with one that refuses it.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{TestCluster, doctor::findings, faults::join_six};
use crate::harness::{eventually, http, process::RestartableServer, redis_server::RedisServer};

#[tokio::test]
async fn health_is_answered_from_memory() {
    const ASKED: u64 = 500;
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
    let (before, began) = (commands().await, Instant::now());

    // By one client over one connection, so that little else happens meanwhile.
    let http = http().build().unwrap();
    let url = format!("http://{}/health", cluster.nodes[0].address());
    for _ in 0..ASKED {
        let health: Value = http.get(&url).send().await.unwrap().json().await.unwrap();
        assert_eq!(health["cluster"]["engine"], "up");
    }

    // Three nodes send a heartbeat every two seconds, of some commands each, and no request adds any.
    let asked = commands().await - before;
    let heartbeats = 3 * (began.elapsed().as_secs() / 2 + 2);
    assert!(asked < ASKED.max(10 * heartbeats), "{asked} commands for {ASKED} requests");
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

/// The line that the documents give.
pub fn documented_rules() -> String {
    let page = include_str!("../../docs/run/scaling.md");
    let line = page.lines().find(|line| line.starts_with("ACL SETUSER ")).unwrap();
    line.replace("REPLACE_WITH_PASSWORD", "hunter2")
}

#[tokio::test]
async fn the_access_rules_of_the_documents_are_all_that_a_server_needs() {
    let redis = RedisServer::start().await;
    redis.execute(&documented_rules()).await;
    let url = redis.user_url();
    let (is_well, found) = findings(&[("REDIS_URL", &url)]).await;
    assert!(is_well, "{found:?}");

    let cluster = TestCluster::start_on(redis, &[], |_, _| url.clone()).await;
    let mut all = join_six(&cluster).await;
    all[0].send(json!({"type":"message","data":"to all"})).await;
    for member in &all[1..] {
        member.wait_for_message("m0", json!("to all")).await;
    }
    assert_eq!(super::listed(&cluster.nodes[1]).await, [("den".into(), 6)].into());
    all.pop().unwrap().leave().await;
    cluster.assert_consistent(&all).await;
}
