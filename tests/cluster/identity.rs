//! Which process a node is, and of which deployment.

use rustix::process::Signal;

use super::{SHORT_LEASE, TestCluster, faults::join_six};
use crate::harness::{
    eventually,
    process::{INTERVALS, RestartableServer},
    redis_server::RedisServer,
};

#[tokio::test]
async fn a_second_server_with_the_name_of_a_running_one_gives_up_and_disturbs_nobody() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let all = join_six(&cluster).await;
    let url = cluster.redis.url();
    let settings = [("REDIS_URL", url.as_str()), ("NODE_ID", "n1"), SHORT_LEASE];
    let mut second = RestartableServer::start(&settings).await;

    assert_eq!(second.health().await["cluster"]["engine"], "down");
    let status = second.process.wait().await;
    assert!(!status.success());
    let log = second.process.log.lines().join("\n");
    assert!(log.contains("another running server has the name"), "{log}");
    assert!(all.iter().all(|member| member.peers_left() == 0));
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn a_server_that_was_killed_comes_back_under_its_name_when_its_lease_is_over() {
    let mut cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;

    cluster.nodes[1].process.kill().await;
    cluster.nodes[1].restart().await;
    cluster.wait_for_redis(1, "up").await;

    all.retain(|member| !["m1", "m4"].contains(&member.client_id.as_str()));
    for member in &all {
        eventually("both have left", async || member.peers_left() == 2).await;
    }
    all.push(cluster.join(1, "den", "alice", "m1").await);
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn a_deployment_with_another_secret_is_refused_as_long_as_the_first_one_is_there() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let of_first = [("REDIS_URL", url.as_str()), ("NODE_ID", "n0"), (INTERVALS, "lease=2000")];
    let first = RestartableServer::start(&of_first).await;
    eventually("the first is up", async || first.health().await["cluster"]["engine"] == "up").await;

    let of_second = [
        ("REDIS_URL", url.as_str()),
        ("NODE_ID", "other"),
        ("SECRET_KEY", "another-secret-of-another-deployment-0123456789"),
        (INTERVALS, "lease=2000"),
    ];
    let second = RestartableServer::start(&of_second).await;
    let line = second.process.log.line_with("another SECRET_KEY").await;
    assert!(line.contains("redis://host:6379/1"), "{line}");
    assert_eq!(second.health().await["cluster"]["engine"], "down");

    first.signal(Signal::KILL);
    eventually("the second is up", async || second.health().await["cluster"]["engine"] == "up")
        .await;
}

#[tokio::test]
async fn a_server_with_other_settings_than_another_one_warns_of_it_and_serves() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let start = async |node, members| {
        let settings =
            [("REDIS_URL", url.as_str()), ("NODE_ID", node), ("MAX_CONNECTIONS_PER_ROOM", members)];
        let server = RestartableServer::start(&settings).await;
        eventually("it is up", async || server.health().await["cluster"]["engine"] == "up").await;
        server
    };
    let first = start("n0", "4").await;
    let second = start("n1", "6").await;

    let line = second.process.log.line_with("another server has other settings").await;
    assert!(line.contains("n0") && line.contains("MAX_CONNECTIONS_PER_ROOM"), "{line}");
    assert_eq!(first.process.log.count("another server has other settings"), 0);
}
