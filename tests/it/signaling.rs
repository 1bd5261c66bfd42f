//! What members of a room hear of each other (contract section 2).

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, join_pair};

#[tokio::test]
async fn a_client_joins_receives_its_peers_and_is_announced() {
    let server = TestServer::start(&[]).await;
    let mut alice = server.join("den", "alice").await;

    let mut bob = server.connect("den").await;
    let welcome = bob.receive().await;
    bob.send(json!({"type":"auth_token","token":server.token("bob"),"clientId":"bob-1"})).await;
    let mut success = bob.receive().await;
    let there = bob.receive().await;
    let news = alice.receive().await;

    let ticket = success.as_object_mut().unwrap().remove("resume_token").unwrap();
    assert!(!ticket.as_str().unwrap().is_empty());
    let limits = success.as_object_mut().unwrap().remove("limits").unwrap();
    assert_eq!(
        limits,
        json!({"max_message_bytes":65536,"messages_per_second":50,"message_burst":250,"bytes_per_second":1048576})
    );
    let expires_in = success.as_object_mut().unwrap().remove("expires_in").unwrap();
    assert!((1700..=1800).contains(&expires_in.as_u64().unwrap()), "{expires_in}");
    assert_eq!(welcome, json!({"type":"auth_required","message":"Authentication required"}));
    assert_eq!(
        success,
        json!({"type":"auth_success","user":"bob","client_id":"bob-1","message":"Authentication successful","resume_window_seconds":30})
    );
    assert_eq!(
        there,
        json!({"type":"users_in_room","users":[{"client_id":alice.id,"username":"alice","polite":true}]})
    );
    assert_eq!(
        news,
        json!({"type":"user_joined","room_id":"den","username":"bob","client_id":"bob-1","connected_users":2,"polite":false})
    );
}

#[tokio::test]
async fn users_in_room_is_sent_also_where_it_is_empty() {
    let server = TestServer::start(&[]).await;

    let (_alice, there) = server.join_as("den", "alice", json!("")).await;

    assert_eq!(there, json!([]));
}

#[tokio::test]
async fn users_in_room_comes_before_any_answer() {
    let server = TestServer::start(&[("ALLOW_ANONYMOUS", "true")]).await;
    let in_one_go = async |frames: &[Value]| {
        let mut client = server.connect("den").await;
        client.receive().await;
        for frame in frames {
            client.feed(frame).await;
        }
        client.flush().await;
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(client.receive().await["type"].as_str().unwrap().to_owned());
        }
        kinds
    };

    for _ in 0..50 {
        let user = [
            json!({"type":"auth_token","token":server.token("alice")}),
            json!({"type":"ping"}),
            json!({"type":"dance"}),
        ];
        assert_eq!(in_one_go(&user).await, ["auth_success", "users_in_room", "pong", "error"]);
        let guest = [json!({"type":"ping"}), json!({"type":"dance"})];
        assert_eq!(in_one_go(&guest).await, ["auth_success", "users_in_room", "pong", "error"]);
    }
}

#[tokio::test]
async fn a_signal_with_a_target_reaches_only_the_target_unchanged() {
    let server = TestServer::start(&[]).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;
    let mut carol = server.join("den", "carol").await;
    alice.receive().await;
    bob.receive().await;
    let sdp = r#"{ "sdp":"v=0\r\no=- \u00e9 \ud83d\ude00","n":1.0,"big":12345678901234567890123, "type":"offer" }"#;

    for (kind, field) in [("offer", "offer"), ("answer", "answer"), ("ice_candidate", "candidate")]
    {
        alice
            .send_text(&format!(
                r#"{{"type":"{kind}","to":"{}","from":"bob","username":"root","{field}":{sdp}}}"#,
                bob.id
            ))
            .await;

        let expected = format!(
            r#"{{"type":"{kind}","{field}":{sdp},"from":"{}","username":"alice"}}"#,
            alice.id
        );
        assert_eq!(bob.receive_text().await, expected);
    }
    carol.assert_no_more_messages().await;
    alice.assert_no_more_messages().await;
}

#[tokio::test]
async fn a_signal_without_a_target_reaches_all_other_members_of_the_room() {
    let server = TestServer::start(&[]).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;
    let mut outside = server.join("attic", "carol").await;

    for to in [None, Some(Value::Null), Some(json!(""))] {
        let mut message = json!({"type":"message","data":{"muted":true}});
        if let Some(to) = to {
            message["to"] = to;
        }
        alice.send(message).await;

        assert_eq!(
            bob.receive().await,
            json!({"type":"message","data":{"muted":true},"from":alice.id,"username":"alice"})
        );
    }
    alice.assert_no_more_messages().await;
    outside.assert_no_more_messages().await;
}

#[tokio::test]
async fn the_end_of_candidates_is_relayed() {
    let server = TestServer::start(&[]).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;

    for (sent, heard) in [
        (r#","candidate":null"#, Value::Null),
        (r#","candidate":"""#, json!("")),
        ("", Value::Null),
    ] {
        alice.send_text(&format!(r#"{{"type":"ice_candidate"{sent}}}"#)).await;

        assert_eq!(bob.receive().await["candidate"], heard);
    }
}

#[tokio::test]
async fn a_signal_to_an_unknown_target_is_answered_with_an_error_and_its_id() {
    let server = TestServer::start(&[]).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;

    for (kind, field) in [("offer", "offer"), ("answer", "answer"), ("ice_candidate", "candidate")]
    {
        let error = alice
            .error_after(&format!(r#"{{"type":"{kind}","{field}":{{}},"to":"ghost","id":"x1"}}"#))
            .await;

        assert_eq!(
            error,
            json!({"type":"error","code":"target_not_found","message":"Target client ghost not found","id":"x1"})
        );
    }
    let own = alice
        .error_after(&format!(r#"{{"type":"offer","offer":{{}},"to":"{}","id":2}}"#, alice.id))
        .await;
    assert_eq!((&own["code"], &own["id"]), (&json!("invalid_message"), &json!(2)));
    bob.assert_no_more_messages().await;
}

#[tokio::test]
async fn each_way_of_leaving_is_announced_once() {
    let server = TestServer::start(&[]).await;
    let mut alice = server.join("den", "alice").await;

    let (bob, _) = server.join_as("den", "bob", json!("b1")).await;
    alice.receive().await;
    bob.leave().await;
    let after_close = alice.receive().await;
    let (bob, _) = server.join_as("den", "bob", json!("b2")).await;
    alice.receive().await;
    drop(bob); // the connection breaks without a goodbye
    let after_break = alice.receive().await;

    let left = |id: &str| json!({"type":"user_left","room_id":"den","client_id":id,"username":"bob","connected_users":1});
    assert_eq!((after_close, after_break), (left("b1"), left("b2")));
    alice.assert_no_more_messages().await;
}

#[tokio::test]
async fn a_reloaded_page_takes_over_its_own_client_id() {
    let server = TestServer::start(&[]).await;
    let mut bob = server.join("den", "bob").await;
    let (old, _) = server.join_as("den", "alice", json!("a")).await;
    bob.receive().await;

    let (mut new, there) = server.join_as("den", "alice", json!("a")).await;
    let (before, close) = old.read_to_close().await;

    assert_eq!(close, (4001, "Replaced by a new connection".into()));
    assert_eq!((&before[0]["code"], &before[0]["retry"]), (&json!("replaced"), &json!(false)));
    assert_eq!(there, json!([{"client_id":bob.id,"username":"bob","polite":true}]));
    let (left, joined) = (bob.receive().await, bob.receive().await);
    assert_eq!((&left["type"], &left["connected_users"]), (&json!("user_left"), &json!(1)));
    assert_eq!((&joined["type"], &joined["connected_users"]), (&json!("user_joined"), &json!(2)));
    new.send(json!({"type":"message","data":1,"to":bob.id})).await;
    assert_eq!(bob.receive().await["from"], "a");
    bob.assert_no_more_messages().await;
}

#[tokio::test]
async fn a_client_id_of_another_user_is_rejected_and_its_member_is_not_affected() {
    let server = TestServer::start(&[]).await;
    let (mut alice, _) = server.join_as("den", "alice", json!("a")).await;

    let mut mallory = server.connect("den").await;
    mallory.receive().await;
    mallory.send(json!({"type":"auth_token","token":server.token("bob"),"client_id":"a"})).await;
    let (before, close) = mallory.read_to_close().await;

    assert_eq!((close.0, &before[0]["code"]), (1008, &json!("client_id_taken")));
    alice.assert_no_more_messages().await;
    server.join_as("attic", "bob", json!("a")).await; // in another room the id is free
}

#[tokio::test]
async fn a_malformed_client_id_is_rejected() {
    let server = TestServer::start(&[]).await;

    for id in [
        json!(7),
        json!(["a"]),
        json!({}),
        json!("a b"),
        json!("a\nb"),
        json!("é"),
        json!("x".repeat(129)),
    ] {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send(json!({"type":"auth_token","token":server.token("alice"),"clientId":id})).await;
        let (before, close) = client.read_to_close().await;

        assert_eq!((close.0, &before[0]["code"]), (1008, &json!("invalid_client_id")), "{id}");
    }
}

#[tokio::test]
async fn clients_without_a_client_id_get_different_ones() {
    let server = TestServer::start(&[]).await;

    let (one, two) = (server.join("den", "alice").await, server.join("den", "alice").await);

    assert_ne!(one.id, two.id);
    assert!(uuid::Uuid::try_parse(&one.id).is_ok());
}

#[tokio::test]
async fn all_encodings_of_a_room_id_are_one_room() {
    let server = TestServer::start(&[]).await;
    let _alice = server.join("Zimmer%207%2f%C3%A9", "alice").await;

    let (_bob, there) = server.join_as("%5aimmer%20%37%2F%c3%a9/", "bob", Value::Null).await;

    assert_eq!(there.as_array().unwrap().len(), 1);
    let rooms: Value = server.get("/api/rooms").await.json().await.unwrap();
    assert_eq!(rooms, json!([{"room_id":"Zimmer 7/é","connected_users":2,"is_active":true}]));
}

#[tokio::test]
async fn an_invalid_room_id_is_rejected_before_the_upgrade() {
    let server = TestServer::start(&[]).await;

    for room in ["%00", "a%0Ab", "%7F", "%FF", &"a".repeat(129), "%C2%80"] {
        assert_eq!(server.upgrade_status(room, &[]).await, 400, "{room}");
    }
    assert_eq!(server.upgrade_status("", &[]).await, 404);
    assert_eq!(server.upgrade_status("a/b", &[]).await, 404);
    server.join(&"%C3%A9".repeat(128), "alice").await;
}

#[tokio::test]
async fn messages_between_two_members_keep_their_order() {
    let server = TestServer::start(&[("WEBSOCKET_MESSAGE_BURST", "1000")]).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;

    for number in 0..400 {
        let to = if number % 2 == 0 { json!(bob.id) } else { Value::Null };
        alice.send(json!({"type":"message","data":number,"to":to})).await;
    }

    for number in 0..400 {
        assert_eq!(bob.receive().await["data"], number);
    }
}

#[tokio::test]
async fn a_token_is_refreshed_inside_the_session_for_the_same_user_only() {
    let server = TestServer::start(&[]).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;

    alice.send(json!({"type":"auth_token","token":server.token("alice")})).await;
    let refreshed = alice.receive().await;
    let foreign = alice
        .error_after(&json!({"type":"auth_token","token":server.token("bob"),"id":3}).to_string())
        .await;
    alice.send(json!({"type":"message","data":1})).await;

    assert_eq!(refreshed["type"], "token_refreshed");
    assert!((1790..=1800).contains(&refreshed["expires_in"].as_u64().unwrap()));
    assert_eq!((&foreign["code"], &foreign["id"]), (&json!("invalid_token"), &json!(3)));
    assert_eq!(bob.receive().await["username"], "alice");
}

/// Calls outlive a restart, and would be hung up by whoever hears that all the others leave.
#[tokio::test]
async fn members_receive_no_user_left_at_shutdown() {
    let server = TestServer::start(&[]).await;
    let mut members = Vec::new();
    for _ in 0..8 {
        members.push(server.join("den", "alice").await);
    }
    for (before, member) in members.iter_mut().enumerate() {
        for _ in before + 1..8 {
            assert_eq!(member.receive().await["type"], "user_joined");
        }
    }

    let farewells = futures_util::future::join_all(members.into_iter().map(Client::read_to_close));
    let (farewells, ()) = tokio::join!(farewells, server.app.close());

    for (heard, _) in farewells {
        let kinds: Vec<_> = heard.iter().map(|news| news["type"].clone()).collect();
        assert_eq!(kinds, ["server_shutdown", "error"]);
    }
}

#[tokio::test]
async fn shutdown_closes_every_session() {
    let server = TestServer::start(&[]).await;
    let alice = server.join("den", "alice").await;
    let mut unauthenticated = server.connect("den").await;
    unauthenticated.receive().await;

    let (from_member, from_unauthenticated, ()) =
        tokio::join!(alice.read_to_close(), unauthenticated.read_to_close(), server.app.close());

    let (before, close) = from_member;
    assert_eq!(close, (1012, "Server is restarting".to_owned()));
    assert_eq!(
        before.iter().map(|news| news["type"].as_str().unwrap()).collect::<Vec<_>>(),
        ["server_shutdown", "error"]
    );
    assert!(before[0]["reconnect_in_ms"].as_u64().unwrap() < 10_000);
    assert_eq!(before[1]["retry"], true);
    assert_eq!(from_unauthenticated.1.0, 1012);
    assert!(server.app.rooms.member_count("den").is_none());

    let late = server.connect("den").await;
    let (frames, close) = late.read_to_close().await;
    assert_eq!((&frames[0]["code"], frames.len(), close.0), (&json!("draining"), 1, 1012));
}
