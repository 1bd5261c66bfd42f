//! A server that sleeps (SIGSTOP) for longer than it waits for its clients.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{House, Member, RESUME, RESUME_AND_STATES, of_type};

const ASLEEP: Duration = Duration::from_secs(3);

/// Pairs in rooms of their own, so that all workers have some.
async fn pairs(house: &House, features: &[&str]) -> Vec<[Member; 2]> {
    let (alices, bobs) = (house.token("alice").await, house.token("bob").await);
    let mut pairs = Vec::new();
    for room in 0..8 {
        let room = format!("room{room}");
        let enter =
            async |name, token| Member::enters(house.address(), &room, name, token, features).await;
        let mut alice = enter("alice", &alices).await;
        let bob = enter("bob", &bobs).await;
        alice.hears_a("user_joined").await;
        pairs.push([alice, bob]);
    }
    pairs
}

/// What each hears of it first that the server has slept meanwhile.
async fn sleeps(house: &House, pairs: &mut [[Member; 2]], say: bool) -> Vec<Value> {
    house.signal("-STOP").await;
    for member in pairs.iter_mut().flatten().filter(|_| say) {
        member.says(json!({"type":"message","data":"are you asleep?"})).await;
    }
    sleep(ASLEEP).await;
    house.signal("-CONT").await;

    let mut first = Vec::new();
    for member in pairs.iter_mut().flatten() {
        if !say {
            member.says(json!({"type":"ping"})).await;
        }
        first.push(member.hears().await);
    }
    first
}

/// Their bytes have waited for the server all the time.
#[tokio::test]
async fn who_talks_to_a_server_that_sleeps_is_heard_when_it_wakes() {
    for features in [&[][..], RESUME] {
        let house = House::open(&[("WEBSOCKET_TIMEOUT", "2")]).await;
        let mut pairs = pairs(&house, features).await;

        let first = sleeps(&house, &mut pairs, true).await;

        let heard = of_type(&first, "message", "data");
        assert_eq!(heard, ["are you asleep?"; 16], "{features:?} {first:?}");
        for member in pairs.iter_mut().flatten() {
            member.hears_nothing_else().await;
        }
    }
}

/// They would have answered its pings, had there been any.
#[tokio::test]
async fn who_has_nothing_to_say_to_a_server_that_sleeps_stays() {
    let house = House::open(&[("WEBSOCKET_TIMEOUT", "2")]).await;
    let mut pairs = pairs(&house, &[]).await;

    let first = sleeps(&house, &mut pairs, false).await;

    assert_eq!(of_type(&first, "pong", "type").len(), 16, "{first:?}");
}

#[tokio::test]
async fn whom_a_sleep_has_thrown_out_comes_back_to_everything() {
    let house = House::open(&[("WEBSOCKET_TIMEOUT", "2")]).await;
    let mut pairs = pairs(&house, RESUME).await;

    house.signal("-STOP").await;
    sleep(ASLEEP).await;
    house.signal("-CONT").await;

    for [alice, bob] in &mut pairs {
        bob.resumes(house.address()).await;
        bob.says(json!({"type":"message","data":"awake"})).await;
        alice.resumes(house.address()).await;
        let heard = alice.hears_the_rest().await;
        assert_eq!(of_type(&heard, "message", "data"), ["awake"]);
        assert_eq!(heard.len(), 1, "{heard:?}");
        bob.hears_nothing_else().await;
    }
}

/// Its window would have ended while nobody could reach the server.
#[tokio::test]
async fn who_was_away_when_the_server_fell_asleep_comes_back_when_it_wakes() {
    let house = House::open(&[("WEBSOCKET_TIMEOUT", "30"), ("RESUME_WINDOW_SECONDS", "2")]).await;
    let mut alice = house.join("alice", RESUME).await;
    let mut bob = house.join("bob", RESUME_AND_STATES).await;
    alice.hears_a("user_joined").await;
    alice.hangs_up().await;
    assert_eq!(bob.hears_state().await.1, "reconnecting");

    house.signal("-STOP").await;
    sleep(ASLEEP).await;
    house.signal("-CONT").await;

    assert_eq!(alice.resumes(house.address()).await["replayed"], 0);
    assert_eq!(bob.hears_state().await.1, "connected");
    alice.hangs_up().await;
    assert_eq!(bob.hears_state().await.1, "reconnecting");
    bob.hears_a("user_left").await;
}
