//! The users file under a running server.

use std::fs;

use serde_json::json;
use signaling::auth::users::edit;
use tokio::time::{Instant, sleep};

use crate::harness::{PASSWORD, TEST_TIMEOUT, TestServer, replace_file};

/// Waits until the server has noticed; the contract gives it two seconds, a loaded machine more.
async fn noticed(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < TEST_TIMEOUT, "not noticed");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// U01.
#[tokio::test]
async fn a_user_who_is_added_may_log_in_without_a_restart() {
    let server = TestServer::start(&[]).await;
    let hash = bcrypt::hash("another one", 4).unwrap();

    edit(&server.users_csv(), |table| table.add("dave", "d@example.com", &hash)).unwrap();
    noticed(|| server.app.users.find("dave").is_some()).await;

    assert_eq!(server.log_in("dave", "another one").await.status(), 200);
}

/// U02, U03.
#[tokio::test]
async fn a_removed_or_disabled_user_is_disconnected() {
    for disable in [true, false] {
        let server = TestServer::start(&[]).await;
        let mut bob = server.join("den", "bob").await;
        let alice = server.join("den", "alice").await;
        bob.receive().await;
        let token = server.token("alice");

        edit(&server.users_csv(), |table| {
            if disable { table.set_active("alice", false) } else { table.remove("alice") }
        })
        .unwrap();
        let (before, close) = alice.read_to_close().await;

        assert_eq!(close, (4003, "User disabled or removed".into()));
        assert_eq!(
            (&before[0]["code"], &before[0]["retry"]),
            (&json!("user_disabled"), &json!(false))
        );
        assert_eq!(bob.receive().await["type"], "user_left");
        bob.assert_no_more_messages().await;
        let me = server
            .request(reqwest::Method::GET, "/auth/me")
            .bearer_auth(&token)
            .send()
            .await
            .unwrap();
        assert_eq!(me.status(), 401);
        assert_eq!(server.log_in("alice", PASSWORD).await.status(), 401);
        let mut again = server.connect("den").await;
        again.receive().await;
        again.send(json!({"type":"auth_token","token":token})).await;
        assert_eq!(again.rejection().await, (1008, "User not found or inactive".into()));
    }
}

/// U12.
#[tokio::test]
async fn a_users_file_that_cannot_be_read_affects_no_user() {
    let server = TestServer::start(&[]).await;
    let mut alice = server.join("den", "alice").await;
    let good = fs::read_to_string(server.users_csv()).unwrap();
    let hash = bcrypt::hash("another one", 4).unwrap();

    for broken in ["garbage", ""] {
        fs::write(server.users_csv(), broken).unwrap();
        assert_eq!(server.log_in("alice", PASSWORD).await.status(), 200);
    }
    replace_file(&server.users_csv(), format!("{good}dave,,{hash},True\n"));
    noticed(|| server.app.users.find("dave").is_some()).await;

    alice.assert_no_more_messages().await;
}

#[tokio::test]
async fn the_users_file_of_the_fastapi_server_is_accepted() {
    let server = TestServer::start(&[]).await;

    fs::copy("tests/fixtures/fastapi_users.csv", server.users_csv()).unwrap();
    noticed(|| server.app.users.find("user1").is_some()).await;

    assert_eq!(server.log_in("user1", "password123").await.status(), 200);
    assert_eq!(server.log_in("admin", "admin123").await.status(), 200);
    assert_eq!(server.log_in("admin", "password123").await.status(), 401);
}
