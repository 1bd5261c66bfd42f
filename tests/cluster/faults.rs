//! What happens to nodes and to the engine, and what users see of it.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Town, eventually, observer::Observer};

/// Two on each node.
async fn six(town: &Town) -> Vec<Observer> {
    let mut all = Vec::new();
    for number in 0..6 {
        all.push(town.enters(number % 3, "den", "alice", &format!("m{number}")).await);
    }
    for member in &all {
        eventually("all are there", async || member.sees().len() == 5).await;
    }
    all
}

fn events_of(members: &[Observer]) -> Vec<Vec<String>> {
    members.iter().map(Observer::events).collect()
}

#[tokio::test]
async fn the_members_of_a_node_that_died_leave_once() {
    let mut town = Town::open(&[]).await;
    let mut all = six(&town).await;
    let died = Instant::now();

    town.nodes[0].signal("-KILL").await;
    all.retain(|member| !["m0", "m3"].contains(&member.client_id.as_str()));

    for member in &all {
        eventually("both have left", async || {
            member.events().iter().filter(|event| event.starts_with("left")).count() == 2
        })
        .await;
    }
    assert!(died.elapsed() < Duration::from_secs(14), "{:?}", died.elapsed());
    town.agrees(&all).await;
    let again = town.enters(1, "den", "alice", "m0").await;
    all.push(again);
    town.agrees(&all).await;
}

#[tokio::test]
async fn a_node_that_slept_is_given_up_and_comes_back() {
    let mut town = Town::open(&[("WEBSOCKET_TIMEOUT", "60")]).await;
    let all = six(&town).await;

    town.nodes[0].signal("-STOP").await;
    let left = |member: &Observer| {
        member.events().iter().filter(|event| event.starts_with("left")).count()
    };
    for member in &all {
        if !["m0", "m3"].contains(&member.client_id.as_str()) {
            eventually("both have left", async || left(member) == 2).await;
        }
    }
    town.nodes[0].signal("-CONT").await;

    eventually("they are back", async || all[1].sees().len() == 5).await;
    town.agrees(&all).await;
    assert!(all.iter().all(|member| left(member) <= 2), "{:?}", events_of(&all));
}

#[tokio::test]
async fn without_the_engine_a_node_goes_on_alone_and_nobody_notices_its_return() {
    let mut town = Town::open(&[]).await;
    let mut all = six(&town).await;
    let before = events_of(&all);

    town.engine.dies().await;
    for node in 0..3 {
        town.is(node, "down").await;
    }
    all[0].says(json!({"type":"message","data":"here","to":"m3"})).await;
    all[3].hears_from("m0", json!("here")).await;
    all[0].says(json!({"type":"message","data":"there","to":"m1"})).await;
    all[0].hears_error("target_unreachable").await;
    let refused = town.tries_to_enter(0, "den", "alice", "late").await;
    assert_eq!(refused.err().unwrap(), (1013, "Try again later".into()));
    let health = town.nodes[0].health().await;
    assert_eq!(health["status"], "degraded");

    town.engine.comes_back_empty().await;
    for node in 0..3 {
        town.is(node, "up").await;
    }
    // Longer than anybody is in doubt.
    sleep(Duration::from_secs(11)).await;

    assert_eq!(events_of(&all), before);
    town.agrees(&all).await;
    all[0].says(json!({"type":"message","data":"again"})).await;
    for member in all.iter().skip(1) {
        member.hears_from("m0", json!("again")).await;
    }
    let late = town.enters(0, "den", "alice", "late").await;
    all.push(late);
    town.agrees(&all).await;
}

#[tokio::test]
async fn who_leaves_without_the_engine_has_left_when_it_is_back() {
    let mut town = Town::open(&[]).await;
    let mut all = six(&town).await;
    town.engine.dies().await;
    for node in 0..3 {
        town.is(node, "down").await;
    }

    all.remove(0).leaves().await;
    town.engine.comes_back_empty().await;

    for member in &all {
        eventually("m0 has left", async || member.sees().len() == 4).await;
    }
    town.agrees(&all).await;
}

#[tokio::test]
async fn an_engine_that_hangs_is_waited_for() {
    let mut town = Town::open(&[]).await;
    let all = six(&town).await;
    let before = events_of(&all);

    for seconds in [1, 3, 12] {
        town.engine.signal("-STOP").await;
        sleep(Duration::from_secs(seconds)).await;
        town.engine.signal("-CONT").await;
        for node in 0..3 {
            town.is(node, "up").await;
        }
    }
    // As long as a lease, and another beat.
    sleep(Duration::from_secs(10)).await;

    assert_eq!(events_of(&all), before);
    town.agrees(&all).await;
}

#[tokio::test]
async fn a_node_that_stops_in_order_tells_the_others_at_once() {
    let mut town = Town::open(&[]).await;
    let mut all = six(&town).await;

    town.nodes[0].signal("-TERM").await;
    all.retain(|member| !["m0", "m3"].contains(&member.client_id.as_str()));

    for member in &all {
        eventually("both have left", async || member.sees().len() == 3).await;
    }
    town.agrees(&all).await;
}
