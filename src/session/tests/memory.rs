//! Members whose memory the server needs.

use super::*;
use crate::memory::{Charge, MemoryKind};

/// A member that may resume, whose connection holds 90 KB of a message, and what counts them.
async fn member_with_partial_message(server: &TestServer) -> (Client, String, Charge) {
    let (mut alice, token) = server.join("alice", json!(["resume"])).await;
    assert_eq!(alice.receive().await["seq"], 1);
    let mut charge =
        server.last_holder.lock().unwrap().clone().unwrap().charge(MemoryKind::PartialFrames);
    let _ = charge.set(90_000);
    (alice, token, charge)
}

/// Disconnects the largest holder, and returns the last message and the close code of its client.
async fn shed(server: &TestServer, mut client: Client) -> (Value, u16) {
    assert_eq!(server.memory.shed_excess(), 1);
    let mut last = Value::Null;
    loop {
        match client.from_server.recv().await.unwrap() {
            Written::Text(message) => last = message,
            Written::Close(code, _) => return (last, code),
            Written::Ping => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_shed_may_resume_where_it_has_acknowledged_every_frame() {
    let server = TestServer { memory: MemoryBudget::new(100_000), ..TestServer::new() };
    let (alice, token, _charge) = member_with_partial_message(&server).await;
    alice.send(json!({"type":"message","data":1,"ack":1})).await;
    // The clock stands still until the message is handled.
    sleep(Duration::from_millis(1)).await;

    let (last, close) = shed(&server, alice).await;

    assert_eq!((&last["code"], &last["retry"], close), (&json!("too_slow"), &json!(true), 1013));
    let (_alice, reply) = server.resume(&token, json!(1)).await;
    assert_eq!(reply["type"], "resumed");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_shed_cannot_resume_what_it_has_not_acknowledged() {
    let server = TestServer { memory: MemoryBudget::new(100_000), ..TestServer::new() };
    let (alice, token, _charge) = member_with_partial_message(&server).await;

    let (last, close) = shed(&server, alice).await;

    assert_eq!((&last["code"], close), (&json!("too_slow"), 1013));
    let (_alice, reply) = server.resume(&token, json!(1)).await;
    assert_eq!(reply["code"], "resume_failed");
    assert_eq!(server.metric_lines("signaling_leaves_total"), ["{reason=\"too_slow\"} 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_detached_member_that_is_shed_leaves_at_once() {
    let server = TestServer { memory: MemoryBudget::new(100_000), ..TestServer::new() };
    let (alice, token, charge) = member_with_partial_message(&server).await;
    drop((alice.to_server, alice.from_server));
    alice.session.await.unwrap();
    let (mut bob, _) = server.join("bob", json!([])).await;
    assert_eq!(bob.receive().await["users"][0]["client_id"], "alice");

    assert_eq!(server.memory.shed_excess(), 1);

    assert_eq!(bob.receive().await["type"], "user_left");
    drop(charge);
    let (_alice, reply) = server.resume(&token, json!(1)).await;
    assert_eq!(reply["code"], "resume_failed");
}

/// What a queue and a replay buffer hold is counted once, and nothing is counted when all is acknowledged.
#[tokio::test(start_paused = true)]
async fn what_a_member_is_kept_is_counted_until_it_acknowledges_it() {
    let server = TestServer::new();
    let (mut alice, token) = server.join("alice", json!(["resume"])).await;
    alice.receive().await;
    let (mut bob, _) = server.join("bob", json!([])).await;
    bob.receive().await;
    alice.receive().await;
    let kept = || {
        let held = server.memory.held_by_kind();
        held.filter(|(_, bytes)| *bytes > 0).map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    assert_eq!(kept(), [MemoryKind::ReplayBuffers]);
    drop((alice.to_server, alice.from_server));
    alice.session.await.unwrap();
    let before = server.memory.held();

    bob.send(json!({"type":"message","data":"x".repeat(50_000)})).await;
    bob.send(json!({"type":"ping"})).await;
    bob.receive().await;

    let grown = server.memory.held() - before;
    assert!((50_000..51_000).contains(&grown), "{grown}");
    let (mut alice, reply) = server.resume(&token, json!(2)).await;
    assert_eq!(reply["replayed"], 1);
    assert_eq!(alice.receive().await["seq"], 3);
    assert_eq!(kept(), [MemoryKind::ReplayBuffers]);
    alice.send(json!({"type":"message","data":1,"ack":3})).await;
    assert_eq!(bob.receive().await["data"], 1);
    assert_eq!(server.memory.held(), 0);
}
