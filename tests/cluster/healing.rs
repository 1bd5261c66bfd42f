//! Keys that vanish from Redis: nobody seems to leave, and in the end Redis holds what the members see.

use serde_json::json;

use super::{
    LEASE, SHORT_LEASE, TestCluster,
    faults::{events_of, join_six},
};
use crate::harness::eventually;

/// Deletes keys while six are in a room; everything is then as it was.
async fn assert_heals(keys: &[&str]) {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);

    cluster.redis.delete(keys).await;
    cluster.wait_until_expired(LEASE).await;

    assert_eq!(events_of(&all), before, "after {keys:?}");
    cluster.assert_consistent(&all).await;
    for (speaker, target) in [(0, 1), (1, 2), (2, 0)] {
        let to = all[target].client_id.clone();
        all[speaker].send(json!({"type":"message","data":"still here","to":to})).await;
        let from = all[speaker].client_id.clone();
        all[target].wait_for_message(&from, json!("still here")).await;
    }
    for node in 0..3 {
        all.push(cluster.join(node, "den", "bob", &format!("late{node}")).await);
    }
    all.remove(0).leave().await;
    for member in &all {
        eventually("all are there", async || member.peers().len() == all.len() - 1).await;
    }
    cluster.assert_consistent(&all).await;
    assert_eq!(cluster.redis.count("rooms", "den").await, all.len());
    for member in all {
        member.leave().await;
    }
    eventually("nothing of the room is left", async || {
        let keys = cluster.redis.room_keys().await;
        if keys.is_empty() { Ok(()) } else { Err(keys) }
    })
    .await;
}

#[tokio::test]
async fn a_lost_inbox_is_noticed() {
    assert_heals(&["inbox:n0"]).await;
}

#[tokio::test]
async fn a_lost_room_is_stated_again() {
    assert_heals(&["room:den"]).await;
}

#[tokio::test]
async fn lost_counts_of_a_room_are_made_right() {
    assert_heals(&["on:den", "rooms"]).await;
}

#[tokio::test]
async fn a_lost_list_of_the_rooms_of_a_node_is_stated_again() {
    assert_heals(&["seats:n0", "seats:n1"]).await;
}

#[tokio::test]
async fn lost_leases_and_names_are_stated_again() {
    assert_heals(&["nodes", "processes", "pulse", "fingerprint"]).await;
}

#[tokio::test]
async fn a_lost_epoch_goes_on_where_it_was() {
    assert_heals(&["arrivals", "members", "life"]).await;
}

/// Entries that were not read are gone: what they said is read from the member list.
#[tokio::test]
async fn an_inbox_that_was_trimmed_is_noticed() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let all = join_six(&cluster).await;
    let before = events_of(&all);

    cluster.redis.trim_inbox("n0").await;
    cluster.nodes[0].process.log.line_with("inbox overrun").await;
    cluster.wait_until_up().await;
    cluster.wait_until_expired(LEASE).await;

    assert_eq!(events_of(&all), before);
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_again() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);

    cluster.redis.run(&["SCRIPT", "FLUSH"]).await;
    cluster.wait_until_expired(LEASE).await;
    cluster.wait_until_up().await;

    assert_eq!(events_of(&all), before);
    all.push(cluster.join(0, "den", "bob", "late").await);
    cluster.assert_consistent(&all).await;
}

/// A member of a node that nobody knows, as it stays where the list of that node's rooms was lost before it died.
#[tokio::test]
async fn a_member_without_a_node_does_not_stay() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let all = join_six(&cluster).await;
    cluster
        .redis
        .run(&["HSET", "{sig2_0}:room:den", "ghost", "nobody.00000000000000aa 1 alice"])
        .await;
    cluster
        .redis
        .run(&["HSET", "{sig2_0}:room:empty", "ghost", "nobody.00000000000000ab 2 alice"])
        .await;
    cluster
        .redis
        .run(&["HSET", "{sig2_0}:room:unlisted", "ghost", "nobody.00000000000000ac 3 alice"])
        .await;
    cluster.redis.run(&["HINCRBY", "{sig2_0}:rooms", "den", "1"]).await;
    cluster.redis.run(&["HSET", "{sig2_0}:rooms", "empty", "1"]).await;

    eventually("the ghosts are gone", async || {
        let members = cluster.redis.members().await;
        if members.len() == 1 && members["den"].len() == 6 { Ok(()) } else { Err(members) }
    })
    .await;
    cluster.assert_consistent(&all).await;
}
