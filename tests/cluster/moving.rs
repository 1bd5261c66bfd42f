//! Clients that go on on another node than they were on, and nobody notices.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Town, eventually};
use crate::faults::{
    Member, RESUME, RESUME_AND_STATES,
    client::{MEMBERS, NUMBERS, talk},
    of_type,
    proxy::Network,
};

/// In the room of [`House::join`](crate::faults::House::join): alice on the first node, bob on the second, carol on the
/// third.
async fn three(town: &Town) -> [Member; 3] {
    let mut alice = town.nodes[0].join("alice", RESUME).await;
    let mut bob = town.nodes[1].join("bob", &[]).await;
    assert_eq!(alice.hears_a("user_joined").await["client_id"], "bob");
    let carol = town.nodes[2].join("carol", RESUME_AND_STATES).await;
    for member in [&mut alice, &mut bob] {
        assert_eq!(member.hears_a("user_joined").await["client_id"], "carol");
    }
    [alice, bob, carol]
}

fn said(number: usize) -> Value {
    json!({"type":"message","data":number,"to":"alice"})
}

#[tokio::test]
async fn a_client_goes_on_on_any_node_with_all_that_it_missed() {
    let town = Town::open(&[]).await;
    let [mut alice, mut bob, mut carol] = three(&town).await;

    alice.hangs_up().await;
    for number in 0..100 {
        bob.says(said(number)).await;
        carol.says(json!({"type":"message","data":number})).await;
    }
    let told = alice.resumes(town.nodes[1].address()).await;
    let heard = alice.hears_the_rest().await;

    let ids = told["users"].as_array().unwrap().iter().map(|user| user["client_id"].clone());
    assert_eq!(ids.collect::<Vec<_>>(), ["bob", "carol"]);
    for from in ["bob", "carol"] {
        let from: Vec<_> = heard.iter().filter(|it| it["from"] == from).cloned().collect();
        assert_eq!(of_type(&from, "message", "data"), Vec::from_iter((0..100).map(Value::from)));
    }
    alice.says(json!({"type":"message","data":"back","to":"carol"})).await;
    for state in ["reconnecting", "connected"] {
        assert_eq!(carol.hears_a("peer_state").await["state"], state);
    }
    assert_eq!(carol.hears_data().await, "back");
    let bob_heard = bob.hears_the_rest().await;
    assert!(bob_heard.iter().all(|it| it["type"] == "message"), "{bob_heard:?}");
    let members = town.engine.members().await;
    assert_eq!(members["den"], ["alice", "bob", "carol"]);
}

/// Also on a node that had nobody in the room when she went away.
#[tokio::test]
async fn who_comes_later_hears_who_is_away_on_another_node() {
    let town = Town::open(&[]).await;
    let mut alice = town.nodes[0].join("alice", RESUME).await;
    let mut bob = town.nodes[1].join("bob", RESUME_AND_STATES).await;
    alice.hangs_up().await;
    assert_eq!(bob.hears_a("peer_state").await["state"], "reconnecting");

    let mut carol = town.nodes[2].join("carol", RESUME_AND_STATES).await;

    assert_eq!(carol.hears_a("peer_state").await["client_id"], "alice");
    assert_eq!(bob.hears_a("user_joined").await["client_id"], "carol");
    let mut dave = town.nodes[2].join("dave", RESUME_AND_STATES).await;
    assert_eq!(dave.hears_a("peer_state").await["state"], "reconnecting");
    for member in [&mut bob, &mut carol] {
        assert_eq!(member.hears_a("user_joined").await["client_id"], "dave");
    }
    alice.resumes(town.nodes[2].address()).await;
    for member in [&mut bob, &mut carol, &mut dave] {
        assert_eq!(member.hears_a("peer_state").await["state"], "connected");
        member.hears_nothing_else().await;
    }
}

/// A phone that has found a better network: its old connection stands still.
#[tokio::test]
async fn a_connection_that_still_stands_is_closed_where_its_client_is_on_another_node() {
    let town = Town::open(&[]).await;
    let [mut alice, mut bob, mut carol] = three(&town).await;

    for round in 0..6 {
        let (mut there, told) = alice.asks_to_resume(town.nodes[(round + 1) % 3].address()).await;
        assert_eq!(told["type"], "resumed", "{told}");
        std::mem::swap(&mut alice, &mut there);
        let end = there.hears_the_end().await;
        assert_eq!(end.last().unwrap()["code"], "replaced", "{end:?}");
        bob.says(said(round)).await;
        assert_eq!(alice.hears_data().await, round);
    }

    bob.hears_nothing_else().await;
    carol.hears_nothing_else().await;
}

#[tokio::test]
async fn a_membership_that_is_over_is_over_on_every_node() {
    let town = Town::open(&[]).await;
    let [mut alice, mut bob, _carol] = three(&town).await;
    let token = town.nodes[0].token("alice").await;

    // The same user takes the client id over, so that the ticket is one of a membership that was.
    let _newer = town.nodes[2].join("alice", RESUME).await;
    let kinds = [bob.hears().await["type"].clone(), bob.hears().await["type"].clone()];
    assert_eq!(kinds, ["user_left", "user_joined"]);
    for node in 0..3 {
        alice.fails_to_resume(town.nodes[node].address()).await;
    }

    // As after a resume that fails anywhere, it may begin anew.
    assert_eq!(alice.introduces_itself("alice", &token, RESUME).await, ["bob", "carol"]);
}

#[tokio::test]
async fn seats_outlive_the_node_that_stops_also_of_those_who_come_late() {
    let mut town = Town::open(&[]).await;
    let [mut alice, mut bob, mut carol] = three(&town).await;

    alice.hangs_up().await;
    bob.says(said(0)).await;
    assert_eq!(carol.hears_a("peer_state").await["state"], "reconnecting");
    town.nodes[0].stops().await;
    bob.says(said(1)).await;
    town.nodes[0].opens_again().await;
    town.is(0, "up").await;
    bob.says(said(2)).await;
    alice.resumes(town.nodes[0].address()).await;

    for number in 0..3 {
        assert_eq!(alice.hears_data().await, number);
    }
    bob.hears_nothing_else().await;
    assert_eq!(carol.hears_a("peer_state").await["state"], "connected");
    carol.hears_nothing_else().await;
}

#[tokio::test]
async fn a_client_that_nobody_can_place_is_asked_to_come_again_and_keeps_its_seat() {
    let mut town = Town::open(&[]).await;
    let [mut alice, mut bob, _carol] = three(&town).await;

    alice.hangs_up().await;
    town.engine.dies().await;
    for node in 0..3 {
        town.is(node, "down").await;
    }
    let (_, told) = alice.asks_to_resume(town.nodes[1].address()).await;
    assert_eq!((&told["code"], &told["retry"]), (&json!("unavailable"), &json!(true)));
    town.engine.comes_back().await;
    for node in 0..3 {
        town.is(node, "up").await;
    }
    alice.resumes(town.nodes[1].address()).await;

    bob.says(said(1)).await;
    assert_eq!(alice.hears_data().await, 1);
}

#[tokio::test]
async fn the_seat_on_a_node_that_died_is_lost_and_a_new_one_is_found_anywhere() {
    let town = Town::open(&[]).await;
    let [mut alice, mut bob, _carol] = three(&town).await;
    let token = town.nodes[1].token("alice").await;

    town.nodes[0].signal("-KILL").await;
    alice.fails_to_resume(town.nodes[1].address()).await;
    assert_eq!(alice.introduces_itself("alice", &token, RESUME).await, ["bob", "carol"]);

    let heard = bob.hears_the_rest().await;
    assert_eq!(of_type(&heard, "user_left", "client_id"), ["alice"]);
}

/// Every node stops and starts again while six talk, who reach one or the other by a balancer.
#[tokio::test]
async fn a_rolling_restart_costs_no_message_and_no_leave() {
    let mut town = Town::open(&[("SHUTDOWN_GRACE_SECONDS", "2")]).await;
    let balancer = Network::among(town.nodes.iter().map(|node| node.address()).collect()).await;

    let (stories, _sessions) = talk([balancer.address; MEMBERS], async |mut heard_by_last| {
        for node in 0..3 {
            let so_far = NUMBERS * (node + 1) / 5;
            heard_by_last.wait_for(|next| next[0] >= so_far).await.unwrap();
            assert_eq!(town.nodes[node].stops().await, [] as [&str; 0]);
            town.nodes[node].opens_again().await;
            town.is(node, "up").await;
        }
    })
    .await;

    assert!(stories.iter().all(|story| story.resumed >= 1), "{stories:?}");
    let mut connections = 0;
    for node in &town.nodes {
        connections += node.health().await["active_connections"].as_u64().unwrap();
    }
    assert_eq!(connections, MEMBERS as u64);
    eventually("the engine has six", async || {
        town.engine.members().await.get("den").map(Vec::len) == Some(MEMBERS)
    })
    .await;
}

#[tokio::test]
async fn a_seat_on_a_node_that_hangs_for_a_moment_is_to_be_had_when_that_wakes() {
    let town = Town::open(&[("WEBSOCKET_TIMEOUT", "60")]).await;
    let [mut alice, mut bob, _carol] = three(&town).await;

    alice.hangs_up().await;
    town.nodes[0].signal("-STOP").await;
    let resuming =
        tokio::time::timeout(Duration::from_secs(2), alice.asks_to_resume(town.nodes[1].address()));
    assert!(resuming.await.is_err(), "nobody knows yet");
    town.nodes[0].signal("-CONT").await;
    alice.resumes(town.nodes[2].address()).await;
    bob.hears_nothing_else().await;
    bob.says(said(1)).await;
    assert_eq!(alice.hears_data().await, 1);
    bob.hears_nothing_else().await;
}
