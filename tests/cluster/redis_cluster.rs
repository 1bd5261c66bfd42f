//! A real Redis Cluster of three nodes and a replica: a slot that moves and a primary that fails while members talk.

use serde_json::json;

use super::{
    LEASE, SHORT_LEASE, TestCluster,
    access::documented_rules,
    delivery::{assert_none_lost, talk_during},
    doctor::findings,
    faults::join_six,
    observer::RoomObserver,
};
use crate::harness::{eventually, redis_server::RedisServer};

/// The slot of the first shard, as `CLUSTER KEYSLOT {sig2_0}:` answers: the third node serves it.
const SLOT: u16 = 12_596;

/// Three nodes that serve a third of all slots each, and a replica of the third one.
async fn start_nodes() -> [RedisServer; 4] {
    let nodes = [
        RedisServer::start_cluster_node().await,
        RedisServer::start_cluster_node().await,
        RedisServer::start_cluster_node().await,
        RedisServer::start_cluster_node().await,
    ];
    for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        node.execute(&format!("CLUSTER ADDSLOTSRANGE {slots}")).await;
    }
    for node in &nodes[1..] {
        let (port, bus) = (node.address().port(), node.bus_port());
        nodes[0].execute(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).await;
    }
    for node in &nodes {
        eventually("the nodes have met", async || {
            let info: String = node.ask("CLUSTER INFO").await;
            let is_whole =
                info.contains("cluster_known_nodes:4") && info.contains("cluster_state:ok");
            if is_whole { Ok(()) } else { Err(info) }
        })
        .await;
    }
    let primary: String = nodes[2].ask("CLUSTER MYID").await;
    eventually("the replica knows its primary", async || {
        nodes[3].try_execute(&format!("CLUSTER REPLICATE {primary}")).await
    })
    .await;
    eventually("the replica is in sync", async || {
        nodes[3].info("replication").await.contains("master_link_status:up")
    })
    .await;
    nodes
}

/// Moves the slot of the first shard as `redis-cli --cluster reshard` does: key by key, while it is used.
async fn move_slot(from: &RedisServer, to: &RedisServer, others: [&RedisServer; 1]) {
    let (source, target): (String, String) =
        (from.ask("CLUSTER MYID").await, to.ask("CLUSTER MYID").await);
    to.execute(&format!("CLUSTER SETSLOT {SLOT} IMPORTING {source}")).await;
    from.execute(&format!("CLUSTER SETSLOT {SLOT} MIGRATING {target}")).await;
    loop {
        let keys: Vec<String> = from.ask(&format!("CLUSTER GETKEYSINSLOT {SLOT} 3")).await;
        let Some(key) = keys.first() else { break };
        from.execute(&format!("MIGRATE 127.0.0.1 {} {key} 0 5000", to.address().port())).await;
    }
    for node in [&[to, from][..], &others].concat() {
        node.execute(&format!("CLUSTER SETSLOT {SLOT} NODE {target}")).await;
    }
}

/// Has one of the members talk while something goes on: each of its messages is delivered or answered.
async fn assert_delivered_or_answered(
    all: &mut [RoomObserver],
    speaker: usize,
    fault: impl Future<Output = ()>,
) {
    all.rotate_left(speaker);
    if let [speaker, others @ ..] = all {
        let said = talk_during(speaker, &others[0], fault).await;
        assert_none_lost(speaker, said, &others[0].client_id, others).await;
    }
    all.rotate_right(speaker);
}

/// Everybody hears everybody, and nobody has been reported as gone.
async fn assert_whole(cluster: &TestCluster, all: &mut [RoomObserver], news: &str) {
    cluster.wait_until_up().await;
    cluster.wait_until_expired(LEASE).await;
    all[0].send(json!({"type":"message","data":news})).await;
    for member in &all[1..] {
        member.wait_for_message("m0", json!(news)).await;
    }
    assert!(all.iter().all(|member| member.peers_left() == 0));
    cluster.assert_consistent(all).await;
}

#[tokio::test]
async fn a_slot_that_moves_and_a_primary_that_fails_announce_no_leave() {
    let [first, second, third, replica] = start_nodes().await;
    // Any node may be named; the servers find the one that has their slot, and the others.
    let urls = [first.url(), format!("redis+cluster://{}", second.address()), third.url()];
    let mut cluster =
        TestCluster::start_on(third, &[SHORT_LEASE], |node, _| urls[node].clone()).await;
    let mut all = join_six(&cluster).await;
    assert_whole(&cluster, &mut all, "at first").await;

    let moving = move_slot(&cluster.redis, &first, [&second]);
    assert_delivered_or_answered(&mut all, 0, moving).await;
    let third = std::mem::replace(&mut cluster.redis, first);
    assert_whole(&cluster, &mut all, "on the first node").await;

    let moving = move_slot(&cluster.redis, &third, [&second]);
    assert_delivered_or_answered(&mut all, 1, moving).await;
    let first = std::mem::replace(&mut cluster.redis, third);
    assert_whole(&cluster, &mut all, "on the third node again").await;

    assert_delivered_or_answered(&mut all, 2, async {
        cluster.redis.kill().await;
        eventually("the replica has taken over", async || {
            replica.info("replication").await.contains("role:master")
        })
        .await;
    })
    .await;
    cluster.redis = replica;
    assert_whole(&cluster, &mut all, "on the replica").await;
    let late = cluster.join(1, "den", "bob", "late").await;
    all.push(late);
    cluster.assert_consistent(&all).await;
    drop(first);
}

#[tokio::test]
async fn several_entries_for_one_redis_cluster_spread_the_rooms_over_its_nodes() {
    let [first, second, third, _replica] = start_nodes().await;
    let url = [first.url(), second.url(), third.url()].join(",");
    let (is_well, found) = findings(&[("REDIS_URL", &url)]).await;
    assert!(is_well, "{found:?}");

    let cluster = TestCluster::start_on(third, &[], |_, _| url.clone()).await;
    let mut all = Vec::new();
    for number in 0..24 {
        let room = format!("room-{}", number / 2);
        all.push(cluster.join(number % 3, &room, "alice", &format!("m{number}")).await);
    }
    for member in &all {
        eventually("both are there", async || member.peers().len() == 1).await;
    }

    let mut rooms = 0;
    for node in [&first, &second, &cluster.redis] {
        let here = node.members().await.len();
        assert!(here > 0, "a node of the Redis Cluster has no room");
        rooms += here;
    }
    assert_eq!(rooms, 12);
    assert_eq!(super::listed(&cluster.nodes[2]).await.len(), 12);
}

#[tokio::test]
async fn the_access_rules_of_the_documents_are_enough_for_a_redis_cluster() {
    let nodes = start_nodes().await;
    let diagnose = async |rules: &str| {
        for node in &nodes {
            node.execute(rules).await;
        }
        findings(&[("REDIS_URL", &nodes[0].user_url().replace("://", "+cluster://"))]).await
    };

    let (is_well, found) = diagnose(&documented_rules()).await;
    assert!(is_well, "{found:?}");

    let (is_well, found) = diagnose("ACL SETUSER signaling -cluster|slots").await;
    assert!(!is_well);
    assert_eq!(found[0].2, "the user signaling lacks +cluster|slots", "{found:?}");
}
