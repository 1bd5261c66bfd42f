//! Each event is told once, by one of the nodes, and numbered by what they share.

use serde_json::json;

use super::{Town, eventually};
use crate::{
    faults::{Member, RESUME},
    receiver::Receiver,
};

impl Town {
    async fn that_tells(receiver: &Receiver) -> Self {
        let url = receiver.url();
        Self::open(&[("WEBHOOK_URLS", &url), ("WEBHOOK_ALLOW_PRIVATE", "true")]).await
    }
}

#[tokio::test]
async fn what_happens_in_a_room_of_two_nodes_is_told_once() {
    let receiver = Receiver::start().await;
    let mut town = Town::that_tells(&receiver).await;
    let mut alice = town.enters(0, "den", "alice", "a").await;
    let bob = town.enters(1, "den", "bob", "b").await;
    alice.says(json!({"type":"call_report","peer":"b","outcome":"failed","ms":30000})).await;
    let so_far = ["room.opened", "member.joined a", "member.joined b", "call.report a failed"];
    receiver.is_told("den", &so_far).await;

    let taking_over = town.enters(2, "den", "bob", "b").await;
    eventually("the first is closed", async || !bob.is_open()).await;
    town.agrees(&[]).await;
    alice.leaves().await;
    eventually("one is left", async || taking_over.sees().is_empty()).await;
    taking_over.leaves().await;
    let then = ["member.left b replaced", "member.joined b", "member.left a left"];
    let end = ["member.left b left", "room.closed"];
    receiver.is_told("den", &[&so_far[..], &then, &end].concat()).await;

    // Whose it was: of a replacement, the one that the newer connection is on.
    let nodes: Vec<_> = receiver.story("den").into_iter().map(|(number, _)| number).collect();
    let of = |number: u64| {
        let events = receiver.events();
        let event = events.iter().find(|event| event["sequence"] == number).unwrap();
        event["node"].as_str().unwrap().to_owned()
    };
    let nodes: Vec<_> = nodes.into_iter().map(of).collect();
    assert_eq!(nodes, ["n0", "n0", "n1", "n0", "n2", "n2", "n0", "n2", "n2"]);
    eventually("nothing is left", async || town.engine.room_keys().await.is_empty()).await;

    // A room that was closed is opened anew, from 1.
    town.enters(1, "den", "bob", "b").await.leaves().await;
    eventually("it is told", async || receiver.events().len() == 13).await;
    let again = receiver.events().split_off(9);
    let numbers: Vec<_> = again.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_seat_that_moves_to_another_node_has_neither_left_nor_joined() {
    let receiver = Receiver::start().await;
    let town = Town::that_tells(&receiver).await;
    let token = &town.tokens["alice"];
    let address = town.nodes[0].address();
    let mut alice = Member::enters(address, "den", "a", token, RESUME).await;
    let bob = town.enters(2, "den", "bob", "b").await;
    alice.hears_a("user_joined").await;

    alice.hangs_up().await;
    alice.resumes(town.nodes[1].address()).await;
    bob.leaves().await;
    alice.hears_a("user_left").await;
    // The same client on a page that was reloaded, which does not resume.
    let reloaded = town.enters(0, "den", "alice", "a").await;
    reloaded.leaves().await;

    let story = ["room.opened", "member.joined a", "member.joined b"];
    let end = [
        "member.left b left",
        "member.left a replaced",
        "member.joined a",
        "member.left a left",
        "room.closed",
    ];
    receiver.is_told("den", &[&story[..], &end].concat()).await;
}

#[tokio::test]
async fn of_a_node_that_is_killed_another_tells_that_its_members_have_left() {
    let receiver = Receiver::start().await;
    let mut town = Town::that_tells(&receiver).await;
    let _alice = town.enters(0, "den", "alice", "a").await;
    let _bob = town.enters(1, "den", "bob", "b").await;
    let _carol = town.enters(1, "attic", "carol", "c").await;
    receiver.is_told("attic", &["room.opened", "member.joined c"]).await;
    let story = ["room.opened", "member.joined a", "member.joined b"];
    receiver.is_told("den", &story).await;

    town.nodes[1].server.child.kill().await.unwrap();

    receiver.is_told("den", &[&story[..], &["member.left b node_lost"]].concat()).await;
    let attic = ["room.opened", "member.joined c", "member.left c node_lost", "room.closed"];
    receiver.is_told("attic", &attic).await;
}

#[tokio::test]
async fn a_node_that_stops_tells_that_its_members_have_left() {
    let receiver = Receiver::start().await;
    let mut town = Town::that_tells(&receiver).await;
    let _alice = town.enters(0, "den", "alice", "a").await;
    let bob = town.enters(1, "den", "bob", "b").await;

    town.nodes[1].stops().await;

    let story = ["room.opened", "member.joined a", "member.joined b"];
    let left = ["member.left b server_restarting"];
    receiver.is_told("den", &[&story[..], &left].concat()).await;
    assert!(!bob.is_open());
}

/// Others have heard that they left, and so has whoever is told outside.
#[tokio::test]
async fn members_of_a_node_that_was_given_up_and_is_back_join_anew() {
    let receiver = Receiver::start().await;
    let mut town = Town::that_tells(&receiver).await;
    let alice = town.enters(0, "den", "alice", "a").await;
    let bob = town.enters(1, "den", "bob", "b").await;
    let carol = town.enters(1, "attic", "carol", "c").await;

    town.nodes[1].signal("-STOP").await;
    let story = ["room.opened", "member.joined a", "member.joined b", "member.left b node_lost"];
    receiver.is_told("den", &story).await;
    town.nodes[1].signal("-CONT").await;

    receiver.is_told("den", &[&story[..], &["member.joined b"]].concat()).await;
    town.agrees(&[alice, bob, carol]).await;
    // It was closed, and is opened anew. What the node told before it was stopped may have come after that.
    let numbers = || receiver.story("attic").into_iter().map(|(number, _)| number);
    eventually("the attic is opened anew", async || numbers().count() == 6).await;
    assert_eq!(numbers().collect::<Vec<_>>(), [1, 1, 2, 2, 3, 4]);
}

#[tokio::test]
async fn of_an_engine_that_forgets_others_hear_only_who_left_meanwhile() {
    let receiver = Receiver::start().await;
    let mut town = Town::that_tells(&receiver).await;
    let alice = town.enters(0, "den", "alice", "a").await;
    let bob = town.enters(1, "den", "bob", "b").await;
    let carol = town.enters(2, "den", "carol", "c").await;
    let alone = town.enters(2, "attic", "dave", "d").await;
    let attic = ["room.opened", "member.joined d"];
    receiver.is_told("attic", &attic).await;
    let story = ["room.opened", "member.joined a", "member.joined b", "member.joined c"];
    receiver.is_told("den", &story).await;

    town.engine.dies().await;
    for node in 0..3 {
        town.is(node, "down").await;
    }
    carol.leaves().await;
    alone.leaves().await;
    town.engine.comes_back().await;
    for node in 0..3 {
        town.is(node, "up").await;
    }
    let dave = town.enters(2, "den", "dave", "d").await;

    receiver
        .is_told("den", &[&story[..], &["member.left c left", "member.joined d"]].concat())
        .await;
    town.agrees(&[alice, bob, dave]).await;
    let attic = [&attic[..], &["member.left d left", "room.closed"]].concat();
    receiver.is_told("attic", &attic).await;
}
