//! A user whose own dead connection fills the room.

use serde_json::{Value, json};

use crate::harness::{
    Client, TEST_TIMEOUT, TestServer,
    resumable::{RESUME, ResumableClient},
};

const ROOM_OF_TWO: (&str, &str) = ("MAX_CONNECTIONS_PER_ROOM", "2");

/// A member whose client reads, and so answers Pings, until the test ends.
async fn alive(
    server: &TestServer,
    username: &str,
) -> tokio::task::JoinHandle<(Vec<Value>, (u16, String))> {
    let member = server.join("den", username).await;
    tokio::spawn(member.read_to_close())
}

/// The answer to a join as `username`: `auth_success` or an error.
async fn join(server: &TestServer, username: &str) -> (Client, Value) {
    let mut client = server.connect("den").await;
    client.receive().await;
    client.send(json!({"type":"auth_token","token":server.token(username),"clientId":"new"})).await;
    let answer = client.receive().await;
    (client, answer)
}

#[tokio::test]
async fn a_membership_whose_client_answers_no_ping_makes_room_for_its_user() {
    let server = TestServer::start(&[ROOM_OF_TWO]).await;
    // Nothing is read on it from now on: a browser that has crashed.
    let (dead, _) = server.join_as("den", "alice", json!("dead")).await;
    let mut bob = server.join("den", "bob").await;
    // Bob's client answers, and he is another user.
    let (answer, seen) = tokio::join!(join(&server, "alice"), async {
        let left = bob.receive().await;
        (left, bob.receive().await)
    });

    let (mut alice, answer) = answer;
    assert_eq!(answer["type"], "auth_success", "{answer}");
    assert_eq!(alice.receive().await["users"].as_array().unwrap().len(), 1);
    assert_eq!((&seen.0["type"], &seen.0["client_id"]), (&json!("user_left"), &json!("dead")));
    assert_eq!((&seen.1["type"], &seen.1["client_id"]), (&json!("user_joined"), &json!("new")));
    let (last, close) = dead.read_to_close().await;
    assert_eq!((close.0, &last.last().unwrap()["code"]), (4001, &json!("replaced")));
    assert_eq!(server.app.rooms.member_total(), 2);
}

#[tokio::test]
async fn a_membership_whose_client_answers_stays_and_so_does_another_users() {
    let server = TestServer::start(&[ROOM_OF_TWO]).await;
    let first = alive(&server, "alice").await;
    let _dead = server.join("den", "bob").await;

    let (_, answer) = join(&server, "alice").await;
    assert_eq!(answer["code"], "room_full");
    let (_, answer) = join(&server, "carol").await;
    assert_eq!(answer["code"], "room_full");
    assert!(!first.is_finished());
    assert_eq!(server.app.rooms.member_total(), 2);
}

#[tokio::test]
async fn a_detached_membership_makes_room_for_its_user_at_once() {
    let server = TestServer::start(&[ROOM_OF_TWO, ("WEBSOCKET_TIMEOUT", "600")]).await;
    let token = server.token("alice");
    let mut old = ResumableClient::join(server.address, "den", "old", &token, RESUME).await;
    let mut bob = server.join("den", "bob").await;
    old.drop_connection().await;
    old.receive_until_closed().await;

    let (_alice, answer) = join(&server, "alice").await;

    assert_eq!(answer["type"], "auth_success", "{answer}");
    assert_eq!(bob.receive().await["type"], "user_left");
    assert_eq!(bob.receive().await["type"], "user_joined");
    old.assert_resume_fails(server.address).await;
}

#[tokio::test]
async fn a_guest_has_no_other_connection_and_takes_over_nobody() {
    let server = TestServer::start(&[ROOM_OF_TWO, ("ALLOW_ANONYMOUS", "true")]).await;
    let guest = async |id: &str| {
        let mut guest = server.connect("den").await;
        guest.receive().await;
        guest.send(json!({"type":"auth_token","clientId":id})).await;
        let answer = guest.receive().await;
        (guest, answer)
    };

    let (_first, answer) = guest("a").await;
    let name = answer["user"].as_str().unwrap();
    assert!(name.starts_with("guest-") && name.len() == "guest-000000".len(), "{name}");
    assert_eq!(guest("a").await.1["code"], "client_id_taken");
    let (_second, _) = guest("b").await;
    let refused = tokio::time::timeout(TEST_TIMEOUT, guest("c")).await.unwrap();
    assert_eq!(refused.1["code"], "room_full");
}
