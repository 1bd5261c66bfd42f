//! What happens to nodes and to the engine, and what users see of it.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{Town, engine::Engine, eventually, observer::Observer};
use crate::faults::proxy::{Network, Weather};

/// Two on each node.
pub async fn six(town: &Town) -> Vec<Observer> {
    let mut all = Vec::new();
    for number in 0..6 {
        all.push(town.enters(number % 3, "den", "alice", &format!("m{number}")).await);
    }
    for member in &all {
        eventually("all are there", async || member.sees().len() == 5).await;
    }
    all
}

/// How many have left, as a member has heard.
fn left(member: &Observer) -> usize {
    member.events().iter().filter(|event| event.starts_with("left")).count()
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
        eventually("both have left", async || left(member) == 2).await;
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

/// A town whose first node reaches the engine over a wire of ours.
async fn wired() -> (Town, Network) {
    let engine = Engine::start().await;
    let wire = Network::before(engine.address()).await;
    let through = format!("redis://{}", wire.address);
    let way = |node, url| if node == 0 { through.clone() } else { url };
    (Town::open_on(engine, &[], way).await, wire)
}

#[tokio::test]
async fn a_node_that_is_cut_off_removes_nobody_and_is_back_when_the_wire_is() {
    let (mut town, wire) = wired().await;
    let mut all = six(&town).await;
    let is_cut = |member: &&Observer| ["m0", "m3"].contains(&member.client_id.as_str());
    let before: Vec<_> = all.iter().filter(is_cut).map(Observer::events).collect();

    wire.stays(Weather::Silent);
    eventually("the others give both up", async || {
        all.iter().filter(|member| !is_cut(member)).all(|member| left(member) == 2)
    })
    .await;
    all[0].says(json!({"type":"message","data":"here","to":"m3"})).await;
    all[3].hears_from("m0", json!("here")).await;
    let during: Vec<_> = all.iter().filter(is_cut).map(Observer::events).collect();
    assert_eq!(during, before);
    wire.stays(Weather::Fair);
    wire.turns(Weather::Reset);
    town.is(0, "up").await;

    for member in &all {
        eventually("all are back", async || member.sees().len() == 5).await;
    }
    town.agrees(&all).await;
    assert!(all.iter().filter(is_cut).all(|member| left(member) == 0));
}

#[tokio::test]
async fn a_slow_wire_to_the_engine_costs_neither_messages_nor_their_order() {
    const SAID: usize = 100;
    let (mut town, wire) = wired().await;
    let mut all = six(&town).await;

    wire.turns(Weather::Late(Duration::from_millis(50)));
    for number in 0..SAID {
        for member in &mut all {
            member.says(json!({"type":"message","data":number})).await;
        }
    }

    let everything: Vec<_> = (0..SAID).map(|number| json!(number)).collect();
    for member in &all {
        eventually("everything is heard", async || member.messages().len() == 5 * SAID).await;
        for other in all.iter().filter(|other| other.client_id != member.client_id) {
            let said = member.messages().into_iter().filter(|(from, _)| *from == other.client_id);
            assert_eq!(said.map(|(_, data)| data).collect::<Vec<_>>(), everything);
        }
    }
    let late = town.enters(0, "den", "bob", "late").await;
    all.push(late);
    town.agrees(&all).await;
}

#[tokio::test]
async fn rooms_are_shared_out_among_engines_and_each_is_missed_for_its_own_rooms_alone() {
    let (first, mut second) = (Engine::start().await, Engine::start().await);
    let other = second.url();
    let town = Town::open_on(first, &[], |_, url| format!("{url},{other}")).await;
    let mut all = Vec::new();
    for number in 0..12 {
        let room = format!("room-{}", number / 2);
        all.push(town.enters(number % 3, &room, "alice", &format!("m{number}")).await);
    }
    for member in &all {
        eventually("both are there", async || member.sees().len() == 1).await;
    }
    let (of_first, of_second) = (town.engine.members().await, second.members().await);
    assert!(!of_first.is_empty() && !of_second.is_empty(), "{of_first:?}, {of_second:?}");
    assert_eq!(of_first.len() + of_second.len(), 6);
    assert_eq!(super::listed(&town.nodes[2]).await.len(), 6);

    second.dies().await;
    town.is(0, "down").await;
    let (here, there) = (of_first.keys().next().unwrap(), of_second.keys().next().unwrap());
    all.push(town.enters(0, here, "bob", "late").await);
    let refused = town.tries_to_enter(0, there, "bob", "later").await;
    assert_eq!(refused.err().unwrap().0, 1013);

    second.comes_back().await;
    town.is(0, "up").await;
    town.enters(0, there, "bob", "later").await.leaves().await;
    assert!(all.iter().all(|member| member.faults().is_empty()));
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
    for page in ["api/rooms", "health/ready"] {
        let page = format!("http://{}/{page}", town.nodes[0].address());
        assert_eq!(reqwest::get(page).await.unwrap().status(), 503);
    }

    town.engine.comes_back().await;
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

/// What the engine has written down is not what is true: m1 has left since, m6 has come, and a node has died.
#[tokio::test]
async fn an_engine_that_comes_back_with_an_old_picture_is_told_the_new_one() {
    let mut town = Town::open(&[]).await;
    let mut all = six(&town).await;
    town.engine.saves().await;
    all.remove(1).leaves().await;
    all.push(town.enters(1, "den", "alice", "m6").await);
    for member in &all {
        eventually("m1 has gone and m6 come", async || {
            let others = member.sees();
            !others.contains(&"m1".to_owned()) && others.len() == 5
        })
        .await;
    }
    let before = events_of(&all[..5]);

    town.engine.dies().await;
    town.nodes[2].signal("-KILL").await;
    town.engine.comes_back().await;
    for node in 0..2 {
        town.is(node, "up").await;
    }
    all.retain(|member| !["m2", "m5"].contains(&member.client_id.as_str()));
    for member in &all {
        eventually("those of the dead node are gone", async || member.sees().len() == 3).await;
    }
    // As long as a doubt, and another beat.
    sleep(Duration::from_secs(10)).await;

    town.agrees(&all).await;
    for (now, before) in events_of(&all).iter().zip([0, 2, 3].map(|member| &before[member])) {
        let mut news: Vec<_> = now[before.len()..].to_vec();
        news.sort();
        assert_eq!(news, ["left m2", "left m5"]);
    }
}

/// A node that reads too slowly misses what its inbox does not hold, and makes up for it.
#[tokio::test]
async fn a_node_whose_inbox_overflows_begins_anew() {
    let mut town = Town::open(&[("WEBSOCKET_TIMEOUT", "60")]).await;
    let mut all = six(&town).await;

    town.nodes[0].signal("-STOP").await;
    all.remove(1).leaves().await;
    all.push(town.enters(1, "den", "alice", "m6").await);
    town.engine.floods("n0", 101_000).await;
    town.nodes[0].signal("-CONT").await;

    town.agrees(&all).await;
    town.nodes[0].server.says("begins anew").await;
    all[0].says(json!({"type":"message","data":"again","to":"m6"})).await;
    all[5].hears_from("m0", json!("again")).await;
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
    town.engine.comes_back().await;

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
