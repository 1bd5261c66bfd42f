//! A Redis that is watched by three real sentinels, which put its replica in its place.

use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{
    LEASE, SHORT_LEASE, TestCluster,
    access::documented_rules,
    delivery::{assert_none_lost, talk_during},
    doctor::findings,
    faults::join_six,
};
use crate::harness::redis_server::{binary, free_port};
use crate::harness::{eventually, redis_server::RedisServer};

const PASSWORD: &str = "hunter2";

struct Sentinel {
    port: u16,
    process: Child,
    _folder: TempDir,
}

impl Sentinel {
    /// As `deploy/sentinel.conf` has it, but for addresses, and less patient.
    fn watches(engine: &RedisServer) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let settings = std::fs::read_to_string("deploy/sentinel.conf").unwrap();
        let address = engine.address();
        let settings = settings
            .replace("port 26379", &format!("port {port}"))
            .replace("REPLACE_WITH_ADDRESS 6379", &format!("{} {}", address.ip(), address.port()))
            .replace("REPLACE_WITH_PASSWORD", PASSWORD)
            .replace("signaling 3000", "signaling 1000");
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new(binary());
        command.arg(file).arg("--sentinel").stdout(Stdio::null()).kill_on_drop(true);
        Self { port, process: command.spawn().unwrap(), _folder: folder }
    }

    /// Whether it knows the other sentinels, and the replica.
    async fn knows_all(&self) -> bool {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let connection = client.get_multiplexed_async_connection().await;
        let Ok(mut connection): Result<MultiplexedConnection, _> = connection else { return false };
        let mut about = redis::cmd("INFO");
        let about: String = about.arg("sentinel").query_async(&mut connection).await.unwrap();
        about.contains("status=ok") && about.contains("slaves=1,sentinels=3")
    }
}

#[tokio::test]
async fn a_failover_of_redis_announces_no_leave() {
    let mut first = RedisServer::start_with_password(PASSWORD).await;
    let second = first.start_replica(PASSWORD).await;
    let sentinels = [0; 3].map(|_| Sentinel::watches(&first));
    for sentinel in &sentinels {
        eventually("the sentinels know all", async || sentinel.knows_all().await).await;
    }
    let ports = sentinels.each_ref().map(|it| format!("127.0.0.1:{}", it.port)).join(";");
    let url = format!("redis+sentinel://:{PASSWORD}@{ports}/signaling");
    let cluster = TestCluster::start_on(second, &[SHORT_LEASE], |_, _| url.clone()).await;
    let mut all = join_six(&cluster).await;
    let before: Vec<_> = all.iter().map(|member| member.events()).collect();

    let (speaker, others) = all.split_first_mut().unwrap();
    let said = talk_during(speaker, &others[0], async {
        first.kill().await;
        cluster.wait_for_redis(0, "down").await;
        cluster.wait_until_up().await;
    })
    .await;
    assert_none_lost(speaker, said, "m1", others).await;
    assert!(!speaker.unreachable_ids().is_empty());
    cluster.wait_until_expired(LEASE).await;

    all[0].send(json!({"type":"message","data":"again"})).await;
    for member in &all[1..] {
        member.wait_for_message("m0", json!("again")).await;
    }
    assert_eq!(all.iter().map(|member| member.events()).collect::<Vec<_>>(), before);
    cluster.assert_consistent(&all).await;
    let late = cluster.join(2, "den", "bob", "late").await;
    all.push(late);
    cluster.assert_consistent(&all).await;
    // The one that was first comes back as the other's replica, and nobody notices.
    first.restart().await;
    eventually("it is the replica", async || {
        first.info("replication").await.contains("role:slave")
    })
    .await;
    cluster.assert_consistent(&all).await;
    for mut sentinel in sentinels {
        sentinel.process.kill().await.unwrap();
    }
}

/// A client of sentinels asks the Redis for its role, by `ROLE` or by `INFO`.
#[tokio::test]
async fn the_access_rules_of_the_documents_are_enough_behind_sentinels() {
    let redis = RedisServer::start_with_password(PASSWORD).await;
    redis.execute(&documented_rules()).await;
    let mut sentinel = Sentinel::watches(&redis);
    let url =
        format!("redis+sentinel://signaling:{PASSWORD}@127.0.0.1:{}/signaling", sentinel.port);
    eventually("doctor finds no fault", async || {
        let (_, found) = findings(&[("REDIS_URL", &url)]).await;
        let is_well = found.iter().all(|(_, verdict, _)| verdict != "fault");
        if is_well { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;

    redis.execute("ACL SETUSER signaling -role -info").await;

    let (is_well, found) = findings(&[("REDIS_URL", &url)]).await;
    assert!(!is_well);
    assert_eq!(found[0].2, "the user signaling lacks +info", "{found:?}");
    sentinel.process.kill().await.unwrap();
}
