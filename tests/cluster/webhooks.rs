//! Each event is told once, by one of the nodes, and numbered by what they share.

use rustix::process::Signal;
use serde_json::json;

use super::{SHORT_LEASE, TestCluster};
use crate::harness::{
    eventually,
    receiver::WebhookReceiver,
    resumable::{RESUME, ResumableClient},
};

impl TestCluster {
    async fn start_with_webhooks(receiver: &WebhookReceiver) -> Self {
        let url = receiver.url();
        let webhooks = [("WEBHOOK_URLS", &*url), ("WEBHOOK_ALLOW_PRIVATE", "true"), SHORT_LEASE];
        Self::start(&webhooks).await
    }
}

#[tokio::test]
async fn webhook_events_of_a_room_on_two_nodes_are_delivered_once() {
    let receiver = WebhookReceiver::start().await;
    let cluster = TestCluster::start_with_webhooks(&receiver).await;
    let mut alice = cluster.join(0, "den", "alice", "a").await;
    let bob = cluster.join(1, "den", "bob", "b").await;
    alice.send(json!({"type":"call_report","peer":"b","outcome":"failed","ms":30000})).await;
    let so_far = ["room.opened", "member.joined a", "member.joined b", "call.report a failed"];
    receiver.wait_for_events("den", &so_far).await;

    let taking_over = cluster.join(2, "den", "bob", "b").await;
    eventually("the first is closed", async || !bob.is_open()).await;
    cluster.assert_consistent(&[]).await;
    alice.leave().await;
    eventually("one is left", async || taking_over.peers().is_empty()).await;
    taking_over.leave().await;
    let then = ["member.left b replaced", "member.joined b", "member.left a left"];
    let end = ["member.left b left", "room.closed"];
    receiver.wait_for_events("den", &[&so_far[..], &then, &end].concat()).await;

    // Whose it was: of a replacement, the one that the newer connection is on.
    let nodes: Vec<_> = receiver.room_events("den").into_iter().map(|(number, _)| number).collect();
    let of = |number: u64| {
        let events = receiver.events();
        let event = events.iter().find(|event| event["sequence"] == number).unwrap();
        event["node"].as_str().unwrap().to_owned()
    };
    let nodes: Vec<_> = nodes.into_iter().map(of).collect();
    assert_eq!(nodes, ["n0", "n0", "n1", "n0", "n2", "n2", "n0", "n2", "n2"]);
    eventually("nothing is left", async || cluster.redis.room_keys().await.is_empty()).await;

    // A room that was closed is opened anew, from 1.
    cluster.join(1, "den", "bob", "b").await.leave().await;
    eventually("it is told", async || receiver.events().len() == 13).await;
    let again = receiver.events().split_off(9);
    let numbers: Vec<_> = again.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_membership_that_migrates_causes_no_webhook_event() {
    let receiver = WebhookReceiver::start().await;
    let cluster = TestCluster::start_with_webhooks(&receiver).await;
    let token = &cluster.tokens["alice"];
    let address = cluster.nodes[0].address();
    let mut alice = ResumableClient::join(address, "den", "a", token, RESUME).await;
    let bob = cluster.join(2, "den", "bob", "b").await;
    alice.receive_type("user_joined").await;

    alice.drop_connection().await;
    alice.resume(cluster.nodes[1].address()).await;
    bob.leave().await;
    alice.receive_type("user_left").await;
    // The same client on a page that was reloaded, which does not resume.
    let reloaded = cluster.join(0, "den", "alice", "a").await;
    reloaded.leave().await;

    let story = ["room.opened", "member.joined a", "member.joined b"];
    let end = [
        "member.left b left",
        "member.left a replaced",
        "member.joined a",
        "member.left a left",
        "room.closed",
    ];
    receiver.wait_for_events("den", &[&story[..], &end].concat()).await;
}

#[tokio::test]
async fn another_node_reports_the_leaves_of_a_node_that_crashed() {
    let receiver = WebhookReceiver::start().await;
    let mut cluster = TestCluster::start_with_webhooks(&receiver).await;
    let _alice = cluster.join(0, "den", "alice", "a").await;
    let _bob = cluster.join(1, "den", "bob", "b").await;
    let _carol = cluster.join(1, "attic", "carol", "c").await;
    receiver.wait_for_events("attic", &["room.opened", "member.joined c"]).await;
    let story = ["room.opened", "member.joined a", "member.joined b"];
    receiver.wait_for_events("den", &story).await;

    cluster.nodes[1].process.kill().await;

    receiver.wait_for_events("den", &[&story[..], &["member.left b node_lost"]].concat()).await;
    let attic = ["room.opened", "member.joined c", "member.left c node_lost", "room.closed"];
    receiver.wait_for_events("attic", &attic).await;
}

#[tokio::test]
async fn a_node_that_stops_reports_the_leaves_of_its_members() {
    let receiver = WebhookReceiver::start().await;
    let mut cluster = TestCluster::start_with_webhooks(&receiver).await;
    let _alice = cluster.join(0, "den", "alice", "a").await;
    let bob = cluster.join(1, "den", "bob", "b").await;

    cluster.nodes[1].stop().await;

    let story = ["room.opened", "member.joined a", "member.joined b"];
    let left = ["member.left b server_restarting"];
    receiver.wait_for_events("den", &[&story[..], &left].concat()).await;
    assert!(!bob.is_open());
}

/// Members on other nodes have heard that they left, and so has the receiver of webhooks.
#[tokio::test]
async fn members_of_a_node_that_lost_its_lease_and_returns_join_anew() {
    let receiver = WebhookReceiver::start().await;
    let cluster = TestCluster::start_with_webhooks(&receiver).await;
    let alice = cluster.join(0, "den", "alice", "a").await;
    let bob = cluster.join(1, "den", "bob", "b").await;
    let carol = cluster.join(1, "attic", "carol", "c").await;
    receiver.wait_for_events("attic", &["room.opened", "member.joined c"]).await;

    cluster.nodes[1].signal(Signal::STOP);
    let story = ["room.opened", "member.joined a", "member.joined b", "member.left b node_lost"];
    receiver.wait_for_events("den", &story).await;
    cluster.nodes[1].signal(Signal::CONT);

    receiver.wait_for_events("den", &[&story[..], &["member.joined b"]].concat()).await;
    cluster.assert_consistent(&[alice, bob, carol]).await;
    // It was closed, and is opened anew.
    let numbers = || receiver.room_events("attic").into_iter().map(|(number, _)| number);
    eventually("the attic is opened anew", async || numbers().count() == 6).await;
    assert_eq!(numbers().collect::<Vec<_>>(), [1, 1, 2, 2, 3, 4]);
}

#[tokio::test]
async fn after_a_redis_that_lost_its_data_only_leaves_meanwhile_are_reported() {
    let receiver = WebhookReceiver::start().await;
    let mut cluster = TestCluster::start_with_webhooks(&receiver).await;
    let alice = cluster.join(0, "den", "alice", "a").await;
    let bob = cluster.join(1, "den", "bob", "b").await;
    let carol = cluster.join(2, "den", "carol", "c").await;
    let alone = cluster.join(2, "attic", "dave", "d").await;
    let attic = ["room.opened", "member.joined d"];
    receiver.wait_for_events("attic", &attic).await;
    let story = ["room.opened", "member.joined a", "member.joined b", "member.joined c"];
    receiver.wait_for_events("den", &story).await;

    cluster.redis.kill().await;
    cluster.wait_until_down().await;
    carol.leave().await;
    alone.leave().await;
    cluster.redis.restart().await;
    cluster.wait_until_up().await;
    let dave = cluster.join(2, "den", "dave", "d").await;

    receiver
        .wait_for_events("den", &[&story[..], &["member.left c left", "member.joined d"]].concat())
        .await;
    cluster.assert_consistent(&[alice, bob, dave]).await;
    let attic = [&attic[..], &["member.left d left", "room.closed"]].concat();
    receiver.wait_for_events("attic", &attic).await;
}
