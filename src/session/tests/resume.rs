//! Members that lose their connection: they resume, leave in time, or continue in the next process.

use std::collections::BTreeSet;

use secrecy::ExposeSecret;

use super::*;
use crate::auth::resume_token::ResumeToken;

/// Drops the socket without a Close, as a network does.
async fn lose_connection(client: Client) {
    drop(client.to_server);
    drop(client.from_server);
    client.session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_resumed_member_receives_exactly_what_it_missed_and_its_peers_receive_no_leave() {
    let server = TestServer::new();
    let (mut alice, token) = server.join("alice", json!(["resume"])).await;
    assert_eq!(alice.receive().await, json!({"seq":1,"type":"users_in_room","users":[]}));
    let (mut bob, _) = server.join("bob", json!([])).await;
    assert_eq!(bob.receive().await["users"].as_array().unwrap().len(), 1);
    assert_eq!(alice.receive().await["seq"], 2);
    bob.send(json!({"type":"message","data":"received and not acknowledged"})).await;
    assert_eq!(alice.receive().await["seq"], 3);
    lose_connection(alice).await;

    for number in 0..3 {
        bob.send(json!({"type":"message","data":number,"to":"alice"})).await;
    }
    bob.send(json!({"type":"ping"})).await;
    assert_eq!(bob.receive().await, json!({"type":"pong"}));
    let (mut alice, reply) = server.resume(&token, json!(2)).await;

    assert_eq!((&reply["type"], &reply["client_id"]), (&json!("resumed"), &json!("alice")));
    assert_eq!(reply["users"], json!([{"client_id":"bob","username":"bob","polite":false}]));
    assert_eq!((&reply["replayed"], reply.get("seq")), (&json!(4), None));
    assert!(reply["resume_token"].is_string());
    let replayed = ["received and not acknowledged".into(), json!(0), json!(1), json!(2)];
    for (seq, data) in (3..).zip(replayed) {
        let received = alice.receive().await;
        assert_eq!((&received["seq"], &received["data"]), (&json!(seq), &data));
    }
    alice.send(json!({"type":"ping","ack":6})).await;
    assert_eq!(alice.receive().await, json!({"seq":7,"type":"pong"}));
    alice.send(json!({"type":"message","data":"back"})).await;
    assert_eq!(bob.receive().await["data"], "back");
}

#[tokio::test(start_paused = true)]
async fn a_detached_member_leaves_once_when_its_time_is_over() {
    let server = TestServer::new();
    let (alice, token) = server.join("alice", json!(["resume"])).await;
    let (mut bob, _) = server.join("bob", json!(["peer_state"])).await;
    bob.receive().await;
    let began = Instant::now();
    lose_connection(alice).await;

    let away = json!({"type":"peer_state","client_id":"alice","state":"reconnecting"});
    assert_eq!((bob.receive().await, began.elapsed()), (away, Duration::ZERO));
    assert_eq!(server.rooms.member_count("den"), Some(2));
    assert_eq!((&bob.receive().await["type"], began.elapsed()), (&json!("user_left"), WINDOW));
    assert_eq!(server.rooms.member_count("den"), Some(1));
    let (mut alice, reply) = server.resume(&token, json!(1)).await;
    assert_eq!((&reply["code"], &reply["id"]), (&json!("resume_failed"), &json!(5)));

    // The ordinary handshake continues.
    alice.send(json!({"type":"auth_token","token":"alice 60"})).await;
    assert_eq!(alice.receive().await["type"], "auth_success");
    assert_eq!(bob.receive().await["type"], "user_joined");
}

#[tokio::test(start_paused = true)]
async fn a_resumed_member_is_not_counted_as_a_leave_and_an_expired_one_is_once() {
    let server = TestServer::new();
    preregister_metrics(&server.metrics);
    let leaves = || server.metric_lines("signaling_leaves_total");
    let (alice, token) = server.join("alice", json!(["resume"])).await;
    lose_connection(alice).await;

    let (old, _) = server.resume(&token, json!(1)).await;
    let (new, reply) = server.resume(&token, json!(1)).await;
    assert_eq!(reply["type"], "resumed");
    old.read_to_close().await;
    lose_connection(new).await;
    assert_eq!(leaves(), [] as [&str; 0]);
    sleep(WINDOW).await;
    let (mallory, _) = server.join("mallory", json!([])).await;
    lose_connection(mallory).await;

    assert_eq!(
        BTreeSet::from_iter(leaves()),
        BTreeSet::from([
            "{reason=\"resume_timeout\"} 1".to_owned(),
            "{reason=\"connection_lost\"} 1".to_owned()
        ])
    );
    assert_eq!(server.rooms.member_total(), 0);
    assert_eq!(server.metric_lines("signaling_send_queue_overflows_total "), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_client_with_peer_state_receives_which_peers_are_detached_also_on_joining() {
    let server = TestServer::new();
    let (alice, token) = server.join("alice", json!(["resume"])).await;
    lose_connection(alice).await;
    let (mut bob, _) = server.join("bob", json!(["peer_state", 7, "resume", "unknown"])).await;

    assert_eq!(bob.receive().await["type"], "users_in_room");
    let state = |seq: u64, state: &str| json!({"seq":seq,"type":"peer_state","client_id":"alice","state":state});
    assert_eq!(bob.receive().await, state(2, "reconnecting"));
    let (_alice, reply) = server.resume(&token, json!(0)).await;
    assert_eq!(reply["type"], "resumed");
    assert_eq!(bob.receive().await, state(3, "connected"));
}

#[tokio::test(start_paused = true)]
async fn a_second_connection_with_the_same_resume_token_takes_over_silently() {
    let server = TestServer::new();
    let (old, token) = server.join("alice", json!(["resume"])).await;
    let (mut bob, _) = server.join("bob", json!(["peer_state"])).await;
    bob.receive().await;

    let (mut new, reply) = server.resume(&token, json!(1)).await;

    assert_eq!((&reply["type"], &reply["replayed"]), (&json!("resumed"), &json!(1)));
    assert_eq!(new.receive().await["type"], "user_joined");
    let (_, close, reason) = old.read_to_close().await;
    assert_eq!((close.0, reason), (4001, CloseReason::Replaced));
    new.send(json!({"type":"message","data":"still here"})).await;
    assert_eq!(bob.receive().await["data"], "still here");
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_sent_again_after_a_resume_is_relayed_once() {
    let server = TestServer::new();
    let (alice, token) = server.join("alice", json!(["resume"])).await;
    let (mut bob, _) = server.join("bob", json!([])).await;
    bob.receive().await;
    let offer = |id: Value| json!({"type":"offer","offer":{"n":id},"id":id});
    alice.send(offer(json!(1))).await;
    alice.send(offer(json!("two"))).await;
    assert_eq!(bob.receive().await["offer"]["n"], 1);
    assert_eq!(bob.receive().await["offer"]["n"], "two");
    lose_connection(alice).await;

    let (alice, _) = server.resume(&token, json!(1)).await;
    for id in [json!(1), json!("two"), json!(3)] {
        alice.send(offer(id)).await;
    }

    assert_eq!(bob.receive().await["offer"]["n"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_close_and_an_end_without_retry_are_leaves_at_once() {
    for last in [SocketEvent::Close, SocketEvent::Malformed] {
        let server = TestServer::new();
        let (alice, token) = server.join("alice", json!(["resume"])).await;
        alice.to_server.send(last).await.unwrap();
        lose_connection(alice).await;

        assert_eq!(server.rooms.member_total(), 0);
        assert_eq!(server.resume(&token, json!(1)).await.1["code"], "resume_failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_did_not_opt_in_to_resume_leaves_with_its_connection() {
    let server = TestServer::new();
    let (mut alice, token) = server.join("alice", json!(["peer_state", 7])).await;
    assert_eq!(alice.receive().await.get("seq"), None);
    lose_connection(alice).await;

    assert_eq!(server.rooms.member_total(), 0);
    assert_eq!(server.resume(&token, json!(0)).await.1["code"], "resume_failed");
}

#[tokio::test(start_paused = true)]
async fn an_invalid_resume_is_refused_with_a_reason_and_disturbs_no_member() {
    let server = TestServer::new();
    let (mut alice, token) = server.join("alice", json!(["resume"])).await;
    alice.receive().await;
    let altered = |change: fn(&mut ResumeToken)| {
        let mut token = server.resume_tokens.verify(&token).unwrap();
        change(&mut token);
        server.resume_tokens.sign(&token).unwrap().expose_secret().to_owned()
    };
    let forged =
        ResumeTokenSigner::new(&"other".into()).sign(&server.resume_tokens.verify(&token).unwrap());

    for (token, last_seq) in [
        ("nonsense".to_owned(), json!(0)),
        (forged.unwrap().expose_secret().to_owned(), json!(0)),
        (altered(|token| token.room = "elsewhere".into()), json!(0)),
        (altered(|token| token.client_id = "nobody".into()), json!(0)),
        (altered(|token| token.key += 1), json!(0)),
        (altered(|token| token.username = "disabled".into()), json!(0)),
        (token.clone(), json!(2)),
        (token.clone(), json!(-1)),
        (token.clone(), json!("1")),
        (token.clone(), json!(null)),
    ] {
        let (client, reply) = server.resume(&token, last_seq.clone()).await;
        assert_eq!(reply["code"], "resume_failed", "{last_seq} {reply}");
        // A second resume is not accepted.
        client.send(json!({"type":"resume","resume_token":token,"last_seq":1})).await;
        assert_eq!(client.read_to_close().await.1, (1008, "Authentication required"));
    }

    alice.expect_no_frame().await;
}

#[tokio::test(start_paused = true)]
async fn a_detached_member_that_misses_too_much_has_left() {
    let server = TestServer::new();
    let (alice, token) = server.join("alice", json!(["resume"])).await;
    let (mut bob, _) = server.join("bob", json!([])).await;
    bob.receive().await;
    lose_connection(alice).await;

    let peer = Peer { client_id: "carol".into(), username: "carol".into(), name: None };
    let carol =
        Membership::join_local(&server.rooms, &"den".into(), peer, delivery::channel().0).unwrap();
    assert_eq!(bob.receive().await["type"], "user_joined");
    for _ in 0..=delivery::REPLAY_MAX_FRAMES {
        let frame = r#"{"type":"message","data":1,"to":"alice"}"#;
        let ClientMessage::Signal(signal) = protocol::parse(frame).message.unwrap() else {
            panic!()
        };
        let _ = carol.send(&signal, Instant::now());
    }

    assert_eq!(bob.receive().await["type"], "user_left");
    assert_eq!(server.resume(&token, json!(1)).await.1["code"], "resume_failed");
}

/// A restart changes nothing for the peers, except for members that do not return.
#[tokio::test(start_paused = true)]
async fn members_that_may_resume_continue_in_the_next_process() {
    let server = TestServer::new();
    let (alice, token) = server.join("alice", json!(["resume"])).await;
    let (away, away_token) = server.join("carol", json!(["resume"])).await;
    let (bob, _) = server.join("bob", json!([])).await;
    lose_connection(away).await;
    server.rooms.begin_shutdown();
    server.closer.send_replace(Some(Duration::from_secs(10)));
    server.rooms.wake_members();
    for client in [alice, bob] {
        let (_, close, _) = client.read_to_close().await;
        assert_eq!(close.0, 1012);
    }
    tokio::task::yield_now().await;
    let snapshot = server.snapshot.take();
    let saved: Vec<_> = snapshot.iter().filter_map(|detached| detached.to_saved(1_000)).collect();
    assert_eq!(saved.len(), 2);
    let written = serde_json::to_string(&saved).unwrap();

    let next = TestServer { resume_tokens: server.resume_tokens.clone(), ..TestServer::new() };
    for member in serde_json::from_str::<Vec<SavedMember>>(&written).unwrap() {
        let detached =
            DetachedMember::restore(&next.rooms, member, 1_005, WINDOW, |token, queue| {
                test_services().authorize(Credentials::ResumeToken(token), queue)
            });
        let (detached, next) = (detached.unwrap(), next.clone());
        tokio::spawn(async move {
            detached.wait_for_resume(next.closer.subscribe(), &next.snapshot, &next.metrics).await;
        });
    }
    assert_eq!(next.rooms.member_count("den"), Some(2));
    let (mut alice, reply) = next.resume(&token, json!(3)).await;
    assert_eq!((&reply["replayed"], &reply["users"][0]["client_id"]), (&json!(1), &json!("carol")));
    let left = alice.receive().await;
    assert_eq!(
        (&left["seq"], &left["type"], &left["client_id"]),
        (&json!(4), &json!("user_left"), &json!("bob"))
    );
    sleep(WINDOW).await;
    assert_eq!(alice.receive().await["client_id"], "carol");
    assert_eq!(next.resume(&away_token, json!(1)).await.1["code"], "resume_failed");

    // A saved member that is too old has no time left, and a clock that was set back adds none.
    for (now, left) in [(1_022, Duration::ZERO), (0, WINDOW)] {
        for member in serde_json::from_str::<Vec<SavedMember>>(&written).unwrap() {
            let authorize = |token: &ResumeToken, queue: &ClientQueue| {
                test_services().authorize(Credentials::ResumeToken(token), queue)
            };
            let rooms = TestServer::new().rooms;
            let detached = DetachedMember::restore(&rooms, member, now, WINDOW, authorize).unwrap();
            assert_eq!(detached.remaining(), left);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_later_peer_is_polite_also_after_a_resume_and_in_the_next_process() {
    let server = TestServer::new();
    let polite = |message: &Value| {
        message["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["polite"].as_bool().unwrap())
            .collect::<Vec<_>>()
    };
    let (first, first_token) = server.join("first", json!(["resume"])).await;
    let (mut second, second_token) = server.join("second", json!(["resume"])).await;
    assert_eq!(polite(&second.receive().await), [true]);
    let (mut third, third_token) = server.join("third", json!(["resume"])).await;
    assert_eq!(polite(&third.receive().await), [true, true]);
    assert_eq!(second.receive().await["polite"], false);
    lose_connection(first).await;

    let (first, reply) = server.resume(&first_token, json!(1)).await;
    assert_eq!(polite(&reply), [false, false]);
    server.rooms.begin_shutdown();
    server.closer.send_replace(Some(Duration::from_secs(10)));
    server.rooms.wake_members();
    for client in [first, second, third] {
        client.read_to_close().await;
    }
    let snapshot = server.snapshot.take();
    let next = TestServer { resume_tokens: server.resume_tokens.clone(), ..TestServer::new() };
    for detached in snapshot.iter().rev() {
        let member = detached.to_saved(1_000).unwrap();
        let detached =
            DetachedMember::restore(&next.rooms, member, 1_000, WINDOW, |token, queue| {
                test_services().authorize(Credentials::ResumeToken(token), queue)
            });
        std::mem::forget(detached.unwrap());
    }

    for (token, seq, expected) in [
        (third_token, 1, [true, true]),
        (first_token, 3, [false, false]),
        (second_token, 2, [true, false]),
    ] {
        let (client, reply) = next.resume(&token, json!(seq)).await;
        let mut reply = polite(&reply);
        if expected == [true, false] {
            reply.sort_unstable_by_key(|polite| !polite);
        }
        assert_eq!(reply, expected);
        std::mem::forget(client);
    }
}
