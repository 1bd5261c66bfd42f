//! Clients that go on on another node than they were on, and nobody notices.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{SHORT_LEASE, TestCluster};
use crate::{
    faults::client::{MEMBERS, NUMBERS, talk},
    harness::{
        eventually,
        process::INTERVALS,
        proxy::FaultyProxy,
        resumable::{RESUME, RESUME_AND_STATES, ResumableClient, of_type},
    },
};

/// In the room of [`RestartableServer::join`](crate::harness::process::RestartableServer::join): alice on the first node, bob
/// on the second, carol on the third.
async fn three(cluster: &TestCluster) -> [ResumableClient; 3] {
    let mut alice = cluster.nodes[0].join("alice", RESUME).await;
    let mut bob = cluster.nodes[1].join("bob", &[]).await;
    assert_eq!(alice.receive_type("user_joined").await["client_id"], "bob");
    let carol = cluster.nodes[2].join("carol", RESUME_AND_STATES).await;
    for member in [&mut alice, &mut bob] {
        assert_eq!(member.receive_type("user_joined").await["client_id"], "carol");
    }
    [alice, bob, carol]
}

fn said(number: usize) -> Value {
    json!({"type":"message","data":number,"to":"alice"})
}

#[tokio::test]
async fn a_client_resumes_on_any_node_and_receives_what_it_missed() {
    let cluster = TestCluster::start(&[]).await;
    let [mut alice, mut bob, mut carol] = three(&cluster).await;

    alice.drop_connection().await;
    for number in 0..100 {
        bob.send(said(number)).await;
        carol.send(json!({"type":"message","data":number})).await;
    }
    let told = alice.resume(cluster.nodes[1].address()).await;
    let heard = alice.receive_pending().await;

    let ids = told["users"].as_array().unwrap().iter().map(|user| user["client_id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), ["bob", "carol"]);
    for from in ["bob", "carol"] {
        let from: Vec<_> = heard.iter().filter(|it| it["from"] == from).cloned().collect();
        assert_eq!(of_type(&from, "message", "data"), Vec::from_iter((0..100).map(Value::from)));
    }
    alice.send(json!({"type":"message","data":"back","to":"carol"})).await;
    for state in ["reconnecting", "connected"] {
        assert_eq!(carol.receive_type("peer_state").await["state"], state);
    }
    assert_eq!(carol.receive_data().await, "back");
    let bob_heard = bob.receive_pending().await;
    assert!(bob_heard.iter().all(|it| it["type"] == "message"), "{bob_heard:?}");
    let members = cluster.redis.members().await;
    assert_eq!(members["den"], ["alice", "bob", "carol"]);
}

/// Also on a node that had nobody in the room when she went away.
#[tokio::test]
async fn a_new_member_receives_that_a_peer_on_another_node_is_detached() {
    let cluster = TestCluster::start(&[]).await;
    let mut alice = cluster.nodes[0].join("alice", RESUME).await;
    let mut bob = cluster.nodes[1].join("bob", RESUME_AND_STATES).await;
    alice.drop_connection().await;
    assert_eq!(bob.receive_type("peer_state").await["state"], "reconnecting");

    let mut carol = cluster.nodes[2].join("carol", RESUME_AND_STATES).await;

    assert_eq!(carol.receive_type("peer_state").await["client_id"], "alice");
    assert_eq!(bob.receive_type("user_joined").await["client_id"], "carol");
    let mut dave = cluster.nodes[2].join("dave", RESUME_AND_STATES).await;
    assert_eq!(dave.receive_type("peer_state").await["state"], "reconnecting");
    for member in [&mut bob, &mut carol] {
        assert_eq!(member.receive_type("user_joined").await["client_id"], "dave");
    }
    alice.resume(cluster.nodes[2].address()).await;
    for member in [&mut bob, &mut carol, &mut dave] {
        assert_eq!(member.receive_type("peer_state").await["state"], "connected");
        member.assert_no_more_messages().await;
    }
}

/// A phone that has found a better network: its old connection stands still.
#[tokio::test]
async fn an_open_connection_is_closed_when_its_client_resumes_on_another_node() {
    let cluster = TestCluster::start(&[]).await;
    let [mut alice, mut bob, mut carol] = three(&cluster).await;

    for round in 0..6 {
        let (mut there, told) = alice.try_resume(cluster.nodes[(round + 1) % 3].address()).await;
        assert_eq!(told["type"], "resumed", "{told}");
        std::mem::swap(&mut alice, &mut there);
        let end = there.receive_until_closed().await;
        assert_eq!(end.last().unwrap()["code"], "replaced", "{end:?}");
        bob.send(said(round)).await;
        assert_eq!(alice.receive_data().await, round);
    }

    bob.assert_no_more_messages().await;
    carol.assert_no_more_messages().await;
}

#[tokio::test]
async fn a_membership_that_has_ended_cannot_resume_on_any_node() {
    let cluster = TestCluster::start(&[]).await;
    let [mut alice, mut bob, _carol] = three(&cluster).await;
    let token = cluster.nodes[0].token("alice").await;

    // The same user takes the client id over, so that the ticket is one of a membership that was.
    let _newer = cluster.nodes[2].join("alice", RESUME).await;
    let kinds = [bob.receive().await["type"].clone(), bob.receive().await["type"].clone()];
    assert_eq!(kinds, ["user_left", "user_joined"]);
    for node in 0..3 {
        alice.assert_resume_fails(cluster.nodes[node].address()).await;
    }

    // As after a resume that fails anywhere, it may begin anew.
    assert_eq!(alice.authenticate("alice", &token, RESUME).await, ["bob", "carol"]);
}

#[tokio::test]
async fn memberships_outlive_a_node_that_stops_also_where_their_client_returns_late() {
    let mut cluster = TestCluster::start(&[]).await;
    let [mut alice, mut bob, mut carol] = three(&cluster).await;

    alice.drop_connection().await;
    bob.send(said(0)).await;
    assert_eq!(carol.receive_type("peer_state").await["state"], "reconnecting");
    cluster.nodes[0].stop().await;
    bob.send(said(1)).await;
    cluster.nodes[0].restart().await;
    cluster.wait_for_redis(0, "up").await;
    bob.send(said(2)).await;
    alice.resume(cluster.nodes[0].address()).await;

    for number in 0..3 {
        assert_eq!(alice.receive_data().await, number);
    }
    bob.assert_no_more_messages().await;
    assert_eq!(carol.receive_type("peer_state").await["state"], "connected");
    carol.assert_no_more_messages().await;
}

#[tokio::test]
async fn a_client_that_cannot_be_located_is_told_to_retry_and_keeps_its_membership() {
    let mut cluster = TestCluster::start(&[]).await;
    let [mut alice, mut bob, _carol] = three(&cluster).await;

    alice.drop_connection().await;
    cluster.redis.kill().await;
    cluster.wait_until_down().await;
    let (_, told) = alice.try_resume(cluster.nodes[1].address()).await;
    assert_eq!((&told["code"], &told["retry"]), (&json!("unavailable"), &json!(true)));
    cluster.redis.restart().await;
    cluster.wait_until_up().await;
    alice.resume(cluster.nodes[1].address()).await;

    bob.send(said(1)).await;
    assert_eq!(alice.receive_data().await, 1);
}

#[tokio::test]
async fn a_membership_on_a_node_that_crashed_is_lost_and_the_client_joins_anew_on_any_node() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let [mut alice, mut bob, _carol] = three(&cluster).await;
    let token = cluster.nodes[1].token("alice").await;

    cluster.nodes[0].signal(Signal::KILL);
    alice.assert_resume_fails(cluster.nodes[1].address()).await;
    assert_eq!(alice.authenticate("alice", &token, RESUME).await, ["bob", "carol"]);

    let heard = bob.receive_pending().await;
    assert_eq!(of_type(&heard, "user_left", "client_id"), ["alice"]);
}

/// Every node stops and starts again while six talk, who reach one or the other by a balancer.
#[tokio::test]
async fn a_rolling_restart_loses_no_message_and_announces_no_leave() {
    let mut cluster = TestCluster::start(&[]).await;
    let balancer =
        FaultyProxy::balancing(cluster.nodes.iter().map(|node| node.address()).collect()).await;

    let (stories, _sessions) = talk([balancer.address; MEMBERS], async |mut heard_by_last| {
        for node in 0..3 {
            let so_far = NUMBERS * (node + 1) / 5;
            heard_by_last.wait_for(|next| next[0] >= so_far).await.unwrap();
            assert_eq!(cluster.nodes[node].stop().await, [] as [&str; 0]);
            cluster.nodes[node].restart().await;
            cluster.wait_for_redis(node, "up").await;
        }
    })
    .await;

    assert!(stories.iter().all(|story| story.resumed >= 1), "{stories:?}");
    let mut connections = 0;
    for node in &cluster.nodes {
        connections += node.health().await["active_connections"].as_u64().unwrap();
    }
    assert_eq!(connections, MEMBERS as u64);
    eventually("the engine has six", async || {
        cluster.redis.members().await.get("den").map(Vec::len) == Some(MEMBERS)
    })
    .await;
}

#[tokio::test]
async fn a_membership_on_a_suspended_node_is_handed_over_when_the_node_continues() {
    // So long that the node does not lose its members while it is suspended.
    let patient = [("WEBSOCKET_TIMEOUT", "60"), (INTERVALS, "lease=60000")];
    let cluster = TestCluster::start(&patient).await;
    let [mut alice, mut bob, _carol] = three(&cluster).await;

    alice.drop_connection().await;
    cluster.nodes[0].signal(Signal::STOP);
    let asked = eventually("the node that hangs has been asked", async || {
        let inbox = cluster.redis.inbox("n0").await;
        if inbox.contains("claim") { Ok(()) } else { Err(inbox) }
    });
    tokio::select! {
        (_, answer) = alice.try_resume(cluster.nodes[1].address()) => panic!("{answer}: not known yet"),
        () = asked => {}
    }
    cluster.nodes[0].signal(Signal::CONT);
    alice.resume(cluster.nodes[2].address()).await;
    bob.assert_no_more_messages().await;
    bob.send(said(1)).await;
    assert_eq!(alice.receive_data().await, 1);
    bob.assert_no_more_messages().await;
}
