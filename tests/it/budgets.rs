//! What one account and one address may do over time, however often they reconnect: joins and messages.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Client, TestServer,
    resumable::{RESUME, RESUME_AND_STATES, ResumableClient},
};

const METRICS_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Refills so slowly that no test sees it.
const FEW_MESSAGES: [(&str, &str); 2] =
    [("WEBSOCKET_MESSAGES_PER_SECOND", "1"), ("WEBSOCKET_MESSAGE_BURST", "50")];

/// How a join is answered: `Ok` with the member, or the last frame and the close.
async fn try_join(
    server: &TestServer,
    username: &str,
    address: &str,
) -> Result<Client, (Value, (u16, String))> {
    let mut client = server.connect_with("den", &[("x-forwarded-for", address)]).await.unwrap();
    client.receive().await;
    client.send(json!({"type":"auth_token","token":server.token(username)})).await;
    let answer = client.receive().await;
    if answer["type"] == "auth_success" {
        client.receive().await;
        return Ok(client);
    }
    Err((answer, client.rejection().await))
}

/// How many joins in a row are accepted, each of which leaves again, and how the next one is answered.
async fn joins(server: &TestServer, username: &str, address: &str) -> (usize, Value) {
    let mut accepted = 0;
    loop {
        match try_join(server, username, address).await {
            Ok(member) => member.leave().await,
            Err((error, close)) => {
                assert_eq!(close, (1013, "Try again later".to_owned()), "{error}");
                assert_eq!(
                    (&error["code"], &error["retry"]),
                    (&json!("rate_limited"), &json!(true))
                );
                return (accepted, error["retry_after_ms"].clone());
            }
        }
        accepted += 1;
        assert!(accepted < 200, "no limit");
    }
}

#[tokio::test]
async fn an_account_that_joins_too_often_is_told_when_to_return_and_others_notice_nothing() {
    let settings = [
        ("JOINS_PER_MINUTE", "20"),
        ("MAX_CONNECTIONS_PER_IP", "0"),
        ("METRICS_TOKEN", METRICS_TOKEN),
    ];
    let server = TestServer::start(&settings).await;
    let mut carol =
        ResumableClient::join(server.address, "den", "carol", &server.token("carol"), RESUME).await;

    let (accepted, wait) = joins(&server, "alice", "192.0.2.1").await;

    // One is added every three seconds.
    assert!((10..14).contains(&accepted), "{accepted}");
    assert!((1..=3001).contains(&wait.as_u64().unwrap()), "{wait}");
    assert!(try_join(&server, "alice", "192.0.2.2").await.is_err(), "from anywhere");
    assert!(try_join(&server, "bob", "192.0.2.1").await.is_ok(), "another account");
    for _ in 0..10 {
        carol.receive_pending().await;
        carol.drop_connection().await;
        assert_eq!(carol.resume(server.address).await["type"], "resumed", "is no join");
    }
    let metrics = server.request(Method::GET, "/metrics").bearer_auth(METRICS_TOKEN);
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("signaling_rate_limited_total{kind=\"joins\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_membership_that_is_resumed_too_often_waits_and_its_peers_notice_little() {
    let server = TestServer::start(&[("JOINS_PER_MINUTE", "60")]).await;
    let join = async |name: &str| {
        let token = server.token(name);
        ResumableClient::join(server.address, "den", name, &token, RESUME_AND_STATES).await
    };
    let (mut alice, mut bob) = (join("alice").await, join("bob").await);
    alice.receive_pending().await;

    let mut accepted = 0;
    let refused = loop {
        let (new, answer) = alice.try_resume(server.address).await;
        if answer["type"] != "resumed" {
            assert_eq!(new.client.rejection().await, (1013, "Try again later".to_owned()));
            break answer;
        }
        accepted += 1;
        assert!(accepted < 200, "no limit");
        alice = new;
        alice.receive_pending().await;
    };

    // One is added every second.
    assert!((30..40).contains(&accepted), "{accepted}");
    assert_eq!((&refused["code"], &refused["retry"]), (&json!("rate_limited"), &json!(true)));
    let wait = refused["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1001).contains(&wait), "{refused}");
    // The membership stays, and so does the other one's budget.
    bob.receive_pending().await;
    bob.drop_connection().await;
    assert_eq!(bob.resume(server.address).await["type"], "resumed");
    tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
    assert_eq!(alice.resume(server.address).await["type"], "resumed");
}

#[tokio::test]
async fn an_address_joins_as_often_a_minute_as_it_may_have_connections() {
    let settings = [("JOINS_PER_MINUTE", "1000"), ("MAX_CONNECTIONS_PER_IP", "7")];
    let server = TestServer::start(&settings).await;

    let mut accepted = 0;
    for username in ["alice", "bob", "carol"] {
        accepted += joins(&server, username, "192.0.2.1").await.0;
    }

    assert!((7..10).contains(&accepted), "{accepted}");
    assert!(try_join(&server, "alice", "192.0.2.2").await.is_ok(), "another address");
}

#[tokio::test]
async fn without_the_limit_nobody_is_refused() {
    let settings = [("JOINS_PER_MINUTE", "0"), ("MAX_CONNECTIONS_PER_IP", "5")];
    let server = TestServer::start(&settings).await;

    for _ in 0..40 {
        try_join(&server, "alice", "192.0.2.1").await.unwrap().leave().await;
    }
}

#[tokio::test]
async fn all_guests_of_an_address_are_one_account() {
    let settings = [("JOINS_PER_MINUTE", "8"), ("ALLOW_ANONYMOUS", "true")];
    let server = TestServer::start(&settings).await;
    let join = async |address: &str| {
        let mut guest = server.connect_with("den", &[("x-forwarded-for", address)]).await.unwrap();
        guest.receive().await;
        guest.send(json!({"type":"auth_token"})).await;
        let answer = guest.receive().await;
        answer["type"] == "auth_success"
    };

    let mut accepted = 0;
    while join("192.0.2.1").await {
        accepted += 1;
    }

    assert!((4..6).contains(&accepted), "{accepted}");
    assert!(join("192.0.2.2").await, "another address");
}

/// How many of so many messages reach bob, and whether the sender was told that it is too fast.
async fn deliver(sender: &mut ResumableClient, bob: &mut Client, count: usize) -> (usize, bool) {
    for _ in 0..count {
        sender.send(json!({"type":"message","data":"x","to":"bob"})).await;
    }
    sender.send(json!({"type":"message","data":"end"})).await;
    let answers = sender.receive_until_pong().await;
    let was_warned = answers.iter().any(|answer| answer["code"] == "rate_limited");
    bob.send(json!({"type":"ping"})).await;
    let mut delivered = 0;
    loop {
        let message = bob.receive().await;
        match message["type"].as_str().unwrap() {
            "pong" => return (delivered, was_warned),
            "message" => delivered += 1,
            "user_joined" | "user_left" => {}
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn reconnecting_joining_and_resuming_pass_no_more_messages_than_staying() {
    let server = TestServer::start(&FEW_MESSAGES).await;
    let token = server.token("alice");
    for way in
        ["leave and join", "join as another", "take over", "resume", "resume over an open one"]
    {
        let room = way.replace(' ', "-");
        let mut bob = server.join_as(&room, "bob", json!("bob")).await.0;
        let join =
            async |id: &str| ResumableClient::join(server.address, &room, id, &token, RESUME).await;
        let began = tokio::time::Instant::now();
        let mut alice = join("alice").await;
        let (first, _) = deliver(&mut alice, &mut bob, 40).await;
        assert_eq!(first, 41, "{way}");

        let mut open = Vec::new();
        let mut delivered = first;
        for round in 0..3 {
            match way {
                "leave and join" => {
                    alice.client.leave().await;
                    alice = join("alice").await;
                }
                "join as another" => {
                    alice.drop_connection().await;
                    drop(alice.receive_until_closed().await);
                    alice = join(&format!("alice-{round}")).await;
                }
                "take over" => open.push(std::mem::replace(&mut alice, join("alice").await)),
                "resume" => {
                    alice.drop_connection().await;
                    alice.resume(server.address).await;
                }
                "resume over an open one" => {
                    let (new, answer) = alice.try_resume(server.address).await;
                    assert_eq!(answer["type"], "resumed");
                    open.push(std::mem::replace(&mut alice, new));
                }
                other => unreachable!("{other}"),
            }
            let (more, was_warned) = deliver(&mut alice, &mut bob, 40).await;
            assert!(was_warned, "{way}");
            delivered += more;
        }

        let refilled = 1 + began.elapsed().as_secs() as usize;
        assert!(delivered <= 50 + refilled, "{way}: {delivered}");
    }
}

#[tokio::test]
async fn connections_of_one_account_at_the_same_time_have_a_budget_each() {
    let server = TestServer::start(&FEW_MESSAGES).await;
    let mut bob = server.join_as("den", "bob", json!("bob")).await.0;
    let token = server.token("alice");

    for id in ["laptop", "phone"] {
        let mut alice = ResumableClient::join(server.address, "den", id, &token, RESUME).await;
        assert_eq!(deliver(&mut alice, &mut bob, 40).await, (41, false), "{id}");
        std::mem::forget(alice);
    }
}
