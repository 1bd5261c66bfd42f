//! A server that sleeps (SIGSTOP) for longer than it waits for its clients.

use rustix::process::Signal;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{
    process::RestartableServer,
    resumable::{RESUME, RESUME_AND_STATES, ResumableClient, of_type},
};

/// Longer than `WEBSOCKET_TIMEOUT` and `RESUME_WINDOW_SECONDS`.
const ASLEEP: Duration = Duration::from_secs(5);

/// Pairs in rooms of their own, so that all workers have some.
async fn pairs(server: &RestartableServer, features: &[&str]) -> Vec<[ResumableClient; 2]> {
    let (alices, bobs) = (server.token("alice").await, server.token("bob").await);
    let mut pairs = Vec::new();
    for room in 0..8 {
        let room = format!("room{room}");
        let enter = async |name, token| {
            ResumableClient::join(server.address(), &room, name, token, features).await
        };
        let mut alice = enter("alice", &alices).await;
        let bob = enter("bob", &bobs).await;
        alice.receive_type("user_joined").await;
        pairs.push([alice, bob]);
    }
    pairs
}

/// What each hears of it first that the server has slept meanwhile.
async fn sleeps(
    server: &RestartableServer,
    pairs: &mut [[ResumableClient; 2]],
    say: bool,
) -> Vec<Value> {
    server.signal(Signal::STOP);
    for member in pairs.iter_mut().flatten().filter(|_| say) {
        member.send(json!({"type":"message","data":"are you asleep?"})).await;
    }
    sleep(ASLEEP).await;
    server.signal(Signal::CONT);

    let mut first = Vec::new();
    for member in pairs.iter_mut().flatten() {
        if !say {
            member.send(json!({"type":"ping"})).await;
        }
        first.push(member.receive().await);
    }
    first
}

/// Their bytes have waited for the server all the time.
#[tokio::test]
async fn messages_to_a_suspended_server_arrive_when_it_continues() {
    for features in [&[][..], RESUME] {
        let server = RestartableServer::start(&[("WEBSOCKET_TIMEOUT", "4")]).await;
        let mut pairs = pairs(&server, features).await;

        let first = sleeps(&server, &mut pairs, true).await;

        let heard = of_type(&first, "message", "data");
        assert_eq!(heard, ["are you asleep?"; 16], "{features:?} {first:?}");
        for member in pairs.iter_mut().flatten() {
            member.assert_no_more_messages().await;
        }
    }
}

/// They would have answered its pings, had there been any.
#[tokio::test]
async fn silent_members_of_a_suspended_server_stay() {
    let server = RestartableServer::start(&[("WEBSOCKET_TIMEOUT", "4")]).await;
    let mut pairs = pairs(&server, &[]).await;

    let first = sleeps(&server, &mut pairs, false).await;

    assert_eq!(of_type(&first, "pong", "type").len(), 16, "{first:?}");
}

#[tokio::test]
async fn members_that_a_suspension_has_detached_resume_without_loss() {
    let server = RestartableServer::start(&[("WEBSOCKET_TIMEOUT", "4")]).await;
    let mut pairs = pairs(&server, RESUME).await;

    server.signal(Signal::STOP);
    sleep(ASLEEP).await;
    server.signal(Signal::CONT);

    for [alice, bob] in &mut pairs {
        bob.resume(server.address()).await;
        bob.send(json!({"type":"message","data":"awake"})).await;
        alice.resume(server.address()).await;
        let heard = alice.receive_pending().await;
        assert_eq!(of_type(&heard, "message", "data"), ["awake"]);
        assert_eq!(heard.len(), 1, "{heard:?}");
        bob.assert_no_more_messages().await;
    }
}

/// Its window would have ended while nobody could reach the server.
#[tokio::test]
async fn a_member_that_was_detached_when_the_server_was_suspended_resumes() {
    let server =
        RestartableServer::start(&[("WEBSOCKET_TIMEOUT", "30"), ("RESUME_WINDOW_SECONDS", "4")])
            .await;
    let mut alice = server.join("alice", RESUME).await;
    let mut bob = server.join("bob", RESUME_AND_STATES).await;
    alice.receive_type("user_joined").await;
    alice.drop_connection().await;
    assert_eq!(bob.receive_peer_state().await.1, "reconnecting");

    server.signal(Signal::STOP);
    sleep(ASLEEP).await;
    server.signal(Signal::CONT);

    assert_eq!(alice.resume(server.address()).await["replayed"], 0);
    assert_eq!(bob.receive_peer_state().await.1, "connected");
    alice.drop_connection().await;
    assert_eq!(bob.receive_peer_state().await.1, "reconnecting");
    bob.receive_type("user_left").await;
}
