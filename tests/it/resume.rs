//! A dropped network is not a hang-up (docs/build/protocol.md, section 5), over real sockets.

use serde_json::{Value, json};

use crate::harness::{
    Client, TestServer, eventually, replace_file,
    resumable::{RESUME, ResumableClient, client_ids, of_type},
};

/// A member that may resume: itself, its resume token, and whom it found there.
async fn resumable(server: &TestServer, room: &str, username: &str) -> (Client, String, Value) {
    let mut client = server.connect(room).await;
    client.receive().await;
    let token = server.token(username);
    client.send(json!({"type":"auth_token","token":token,"features":["resume"]})).await;
    let success = client.receive().await;
    client.id = success["client_id"].as_str().unwrap().to_owned();
    let there = client.receive().await;
    assert_eq!((&there["type"], &there["seq"]), (&json!("users_in_room"), &json!(1)));
    (client, success["resume_token"].as_str().unwrap().to_owned(), there["users"].clone())
}

async fn resumes(server: &TestServer, room: &str, token: &str, last_seq: u64) -> (Client, Value) {
    let mut client = server.connect(room).await;
    client.receive().await;
    client.send(json!({"type":"resume","resume_token":token,"last_seq":last_seq})).await;
    let answer = client.receive().await;
    (client, answer)
}

#[tokio::test]
async fn a_broken_connection_that_resumes_is_not_announced_and_loses_no_message() {
    let server = TestServer::start(&[]).await;
    let (alice, token, _) = resumable(&server, "den", "alice").await;
    let mut bob = server.join("den", "bob").await;
    drop(alice);

    for number in 0..100 {
        bob.send(json!({"type":"message","data":number,"to":null})).await;
    }
    bob.assert_no_more_messages().await;
    let health: Value = server.get("/health").await.json().await.unwrap();
    let (mut alice, answer) = resumes(&server, "den", &token, 1).await;

    assert_eq!(health["active_connections"], 2);
    assert_eq!((&answer["type"], &answer["replayed"]), (&json!("resumed"), &json!(101)));
    assert_eq!(alice.receive().await["type"], "user_joined");
    for number in 0..100 {
        let heard = alice.receive().await;
        assert_eq!((&heard["data"], &heard["seq"]), (&json!(number), &json!(number + 3)));
    }
    alice.send(json!({"type":"message","data":"back"})).await;
    assert_eq!(bob.receive().await["data"], "back");
}

#[tokio::test]
async fn a_session_that_was_ended_cannot_resume() {
    let server = TestServer::start(&[]).await;
    let (alice, token, _) = resumable(&server, "den", "alice").await;
    let mut bob = server.join("den", "bob").await;
    let access = server.token("alice");
    drop(alice);
    bob.assert_no_more_messages().await;

    // Another token of hers is another login.
    server.app.log_out(&access, server.address.ip(), false).await.unwrap();
    let (alice, answer) = resumes(&server, "den", &token, 2).await;
    assert_eq!(answer["type"], "resumed");
    drop(alice);
    let users = std::fs::read_to_string(server.users_csv()).unwrap();
    let without: Vec<_> = users.lines().filter(|line| !line.starts_with("alice,")).collect();
    replace_file(&server.users_csv(), without.join("\n") + "\n");

    assert_eq!(bob.receive().await["type"], "user_left");
    let (_, answer) = resumes(&server, "den", &token, 2).await;
    assert_eq!(answer["code"], "resume_failed");
}

#[tokio::test]
async fn a_detached_session_that_is_logged_out_cannot_resume() {
    let server = TestServer::start(&[]).await;
    let access = server.token("alice");
    let mut alice = server.connect("den").await;
    alice.receive().await;
    alice.send(json!({"type":"auth_token","token":access,"features":["resume"]})).await;
    let token = alice.receive().await["resume_token"].as_str().unwrap().to_owned();
    let mut bob = server.join("den", "bob").await;
    drop(alice);
    bob.assert_no_more_messages().await;

    server.app.log_out(&access, server.address.ip(), false).await.unwrap();

    assert_eq!(bob.receive().await["type"], "user_left");
    assert_eq!(resumes(&server, "den", &token, 1).await.1["code"], "resume_failed");
}

#[tokio::test]
async fn a_new_access_token_comes_with_a_new_resume_token() {
    let server = TestServer::start(&[]).await;
    let (mut alice, _, _) = resumable(&server, "den", "alice").await;

    alice.send(json!({"type":"auth_token","token":server.token("alice"),"ack":1})).await;
    let refreshed = alice.receive().await;
    assert_eq!((&refreshed["type"], &refreshed["seq"]), (&json!("token_refreshed"), &json!(2)));
    let token = refreshed["resume_token"].as_str().unwrap();
    drop(alice);

    assert_eq!(resumes(&server, "den", token, 2).await.1["type"], "resumed");
    assert_eq!(
        resumes(&server, "den", token, 0).await.1["code"],
        "resume_failed",
        "that was acknowledged"
    );
    assert_eq!(resumes(&server, "elsewhere", token, 2).await.1["code"], "resume_failed");
}

#[tokio::test]
async fn a_detached_member_counts_against_the_capacity_of_its_room() {
    let server = TestServer::start(&[("MAX_CONNECTIONS_PER_ROOM", "1")]).await;
    let (alice, token, _) = resumable(&server, "den", "alice").await;
    drop(alice);

    let mut bob = server.connect("den").await;
    bob.receive().await;
    bob.send(json!({"type":"auth_token","token":server.token("bob")})).await;
    let (frames, _) = bob.read_to_close().await;

    assert_eq!(frames[0]["code"], "room_full");
    assert_eq!(resumes(&server, "den", &token, 1).await.1["type"], "resumed");
}

#[tokio::test]
async fn without_a_resume_window_no_resume_token_is_issued() {
    let server = TestServer::start(&[("RESUME_WINDOW_SECONDS", "0")]).await;
    let mut alice = server.connect("den").await;
    alice.receive().await;
    alice
        .send(json!({"type":"auth_token","token":server.token("alice"),"features":["resume"]}))
        .await;

    let success = alice.receive().await;
    assert!(
        success.get("resume_token").is_none() && success.get("resume_window_seconds").is_none()
    );
    assert!(alice.receive().await.get("seq").is_none());
    let mut bob = server.join("den", "bob").await;
    drop(alice);
    assert_eq!(bob.receive().await["type"], "user_left");
}

/// As many as an address may have connections: otherwise one could fill the memory with seats.
#[tokio::test]
async fn detached_members_are_limited_per_address() {
    let server = TestServer::start(&[("MAX_CONNECTIONS_PER_IP", "3")]).await;
    let mut watcher = server.join("den", "carol").await;
    let mut there = 1;
    for kept in [true, true, true, false, false] {
        let (member, ..) = resumable(&server, "den", "alice").await;
        there += 1;
        assert_eq!(watcher.receive().await["connected_users"], there);
        drop(member);
        if !kept {
            there -= 1;
            let left = watcher.receive().await;
            assert_eq!(
                (&left["type"], &left["connected_users"]),
                (&json!("user_left"), &json!(there))
            );
        }
    }
}

/// More joins and leaves than frames are kept.
#[tokio::test]
async fn members_that_come_and_go_cost_a_detached_member_neither_its_resume_nor_a_signal() {
    // As long as 600 joins take, also on a busy machine.
    let settings = [("MAX_CONNECTIONS_PER_IP", "0"), ("RESUME_WINDOW_SECONDS", "600")];
    let server = TestServer::start(&settings).await;
    let mut alice =
        ResumableClient::join(server.address, "den", "alice", &server.token("alice"), RESUME).await;
    let (mut carol, _) = server.join_as("den", "carol", json!("carol")).await;
    assert_eq!(alice.receive_type("user_joined").await["client_id"], "carol");
    alice.drop_connection().await;

    for number in 0..600 {
        if number == 300 {
            carol.send(json!({"type":"message","data":"in the middle","to":"alice"})).await;
        }
        let id = if number % 2 == 0 { json!("bob") } else { Value::Null };
        let (mut bob, _) = server.join_as("den", "bob", id).await;
        if number == 299 {
            bob.send(json!({"type":"message","data":"hello","to":"alice"})).await;
        }
        bob.leave().await;
    }
    let resumed = alice.resume(server.address).await;

    let pending = alice.receive_pending().await;
    assert_eq!(resumed["replayed"], pending.len(), "{pending:?}");
    assert_eq!(of_type(&pending, "message", "data"), ["hello", "in the middle"]);
    let known = of_type(&pending, "message", "from");
    assert_eq!(of_type(&pending, "user_joined", "client_id"), known[..1], "it was heard of");
    assert_eq!(of_type(&pending, "user_left", "client_id"), known[..1]);
    assert_eq!(client_ids(&resumed), ["carol"]);
}

#[tokio::test]
async fn a_peer_that_was_replaced_while_a_member_was_detached_is_seen_to_leave_and_join_once() {
    let server = TestServer::start(&[]).await;
    let mut alice =
        ResumableClient::join(server.address, "den", "alice", &server.token("alice"), RESUME).await;
    let mut bobs = vec![server.join_as("den", "bob", json!("bob")).await.0];
    alice.receive_type("user_joined").await;
    alice.drop_connection().await;

    for _ in 0..3 {
        bobs.push(server.join_as("den", "bob", json!("bob")).await.0);
    }
    bobs[3].send(json!({"type":"offer","offer":{"sdp":"new"},"to":"alice"})).await;
    bobs[3].assert_no_more_messages().await;
    let resumed = alice.resume(server.address).await;

    assert_eq!(resumed["replayed"], 3);
    for kind in ["user_left", "user_joined"] {
        assert_eq!(alice.receive_type(kind).await["client_id"], "bob");
    }
    assert_eq!(alice.receive_type("offer").await["offer"]["sdp"], "new");
    alice.assert_no_more_messages().await;
}

/// One account that breaks all its connections takes no slot from another behind the same address.
#[tokio::test]
async fn an_account_that_uses_all_slots_of_an_address_gives_one_up_for_a_neighbour() {
    let server = TestServer::start(&[("MAX_CONNECTIONS_PER_IP", "4")]).await;
    for number in 0..3 {
        drop(resumable(&server, &format!("room{number}"), "carol").await);
    }
    let detached = async |count: usize| {
        eventually(&format!("{count} are detached"), async || match server.app.detached_count() {
            found if found == count => Ok(()),
            found => Err(found),
        })
        .await;
    };
    detached(3).await;
    drop(resumable(&server, "room3", "carol").await);
    detached(4).await;

    let (alice, token, _) = resumable(&server, "den", "alice").await;
    drop(alice);

    let oldest_gone = async || server.app.rooms.member_count("room0").is_none();
    eventually("the oldest of carol has left", oldest_gone).await;
    detached(4).await;
    assert_eq!(resumes(&server, "den", &token, 1).await.1["type"], "resumed");
}
