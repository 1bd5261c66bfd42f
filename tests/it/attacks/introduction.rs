//! The first message on a socket (group A of the catalogue).

use std::time::Duration;

use serde_json::json;
use tokio::time::interval;

use super::{
    attacked_server::AttackedServer,
    raw::{BINARY, Ending, PING, RawSocket, TEXT, frame},
};

/// A04, A05, A06, A08, A10.
#[tokio::test]
async fn a_first_message_that_does_not_authenticate_closes_the_connection_and_is_not_relayed() {
    let server = AttackedServer::start(&[("AUTH_MAX_FAILURES", "100")]).await;
    let good = server.token("carol");
    let with_type = |kind: serde_json::Value| json!({"type":kind,"token":good}).to_string();

    for first in [
        r#"{"type":"offer","offer":{}}"#,
        r#"{"type":"ping"}"#,
        "",
        "{",
        "hello",
        "[]",
        "1",
        "null",
        "\"auth_token\"",
        &json!({"token":good}).to_string(),
        &with_type(json!(5)),
        &with_type(json!("AUTH_TOKEN")),
        &with_type(json!("auth_token ")),
    ] {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send_text(first).await;

        let refused = client.rejection().await;
        assert_eq!(refused, (1008, "Authentication required".into()), "{first:.60}");
    }
    for token in [json!(null), json!(1), json!({}), json!([good]), json!(""), json!(true)] {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send(json!({"type":"auth_token","token":token})).await;

        assert_eq!(client.rejection().await, (1008, "Invalid token".into()), "{token}");
    }
    server.assert_unharmed().await;
}

/// A07, A13: not in a binary frame; all in one burst is answered in order.
#[tokio::test]
async fn authentication_is_a_text_message_and_may_be_followed_at_once() {
    let server = AttackedServer::with(&[]).den_may_receive(&["offer"]).start().await;
    let introduction = json!({"type":"auth_token","token":server.token("carol")}).to_string();

    let mut binary = server.raw_socket("den").await;
    binary.receive().await;
    binary.write(frame(BINARY, introduction.as_bytes())).await;
    assert_eq!(binary.rejection().await, Ending::Closed(1003));

    let mut hasty = server.raw_socket("den").await;
    let offer = json!({"type":"offer","offer":{"sdp":"v=0"},"id":1}).to_string();
    let lost = json!({"type":"offer","offer":{"sdp":"v=0"},"to":"nobody","id":2}).to_string();
    let ping = json!({"type":"ping"}).to_string();
    let burst = [introduction, offer, lost, ping].map(|text| frame(TEXT, text.as_bytes()));
    hasty.write(burst.concat()).await;
    let mut kinds = Vec::new();
    for _ in 0..5 {
        kinds.push(hasty.receive().await["type"].clone());
    }
    assert_eq!(kinds, ["auth_required", "auth_success", "users_in_room", "error", "pong"]);
    drop(hasty);

    assert_eq!(server.assert_unharmed().await.visits, 1);
}

/// A first message holds a token and an id: it may be shorter than those of members.
#[tokio::test]
async fn a_first_message_is_at_most_16_kib_where_no_guests_are_allowed() {
    let server = AttackedServer::with(&[]).den_may_receive(&["message"]).start().await;
    let token = server.token("carol");
    let filled = |length: usize| {
        let first = json!({"type":"auth_token","token":token,"filler":""}).to_string();
        first.replace("\"\"", &format!("\"{}\"", "x".repeat(length - first.len())))
    };

    let mut refused = server.raw_socket("den").await;
    refused.receive().await;
    // The header alone says that it is too long.
    refused.write(&frame(TEXT, &[b'x'; 16_385])[..8]).await;
    assert_eq!(refused.rejection().await, Ending::Closed(1009));

    let mut member = server.connect("den").await;
    member.receive().await;
    member.send_text(&filled(16_384)).await;
    assert_eq!(member.receive().await["type"], "auth_success");
    assert_eq!(member.receive().await["type"], "users_in_room");
    let long = "x".repeat(60_000);
    member.send(json!({"type":"message","data":long})).await;
    member.assert_no_more_messages().await;
    member.leave().await;
    assert_eq!(server.assert_unharmed().await.visits, 1);
}

/// A01: also to somebody whose own first word would be long in coming.
#[tokio::test]
async fn the_server_sends_auth_required_first() {
    let server = AttackedServer::start(&[]).await;

    let mut client = server.connect("den").await;
    let welcome = client.receive().await;

    assert_eq!(welcome, json!({"type":"auth_required","message":"Authentication required"}));
    drop(client);
    server.assert_unharmed().await;
}

/// Sends a piece at a time, the last one long after the time for an introduction is over.
async fn sends_slowly(mut socket: RawSocket, pieces: Vec<Vec<u8>>, pace: Duration) -> Ending {
    let mut pace = interval(pace);
    for piece in pieces {
        pace.tick().await;
        let _ = socket.raw.try_write(piece).await;
    }
    socket.rejection().await
}

/// A02, A03: `WEBSOCKET_TIMEOUT` is for the whole introduction, whatever comes meanwhile.
#[tokio::test]
async fn authentication_after_the_timeout_is_rejected() {
    let server = AttackedServer::start(&[("WEBSOCKET_TIMEOUT", "2")]).await;
    let introduction = json!({"type":"auth_token","token":server.token("carol")}).to_string();
    let introduction = frame(TEXT, introduction.as_bytes());
    let (half, rest) = introduction.split_at(introduction.len() / 2);
    let begun = frame(0x01, b"{\"type\":\"auth_token\",");
    let spaces = frame(0x00, b" ");

    let after = |first: &[u8], repeated: &[u8]| {
        let pieces = std::iter::repeat_n(repeated.to_vec(), 38);
        [first.to_vec()].into_iter().chain(pieces).chain([introduction.clone()]).collect::<Vec<_>>()
    };
    let one_byte_at_a_time = introduction.chunks(introduction.len() / 40).map(<[u8]>::to_vec);
    let mut refusals = Vec::new();
    for pieces in [
        vec![half.to_vec(), rest.to_vec()],
        one_byte_at_a_time.collect(),
        after(&[], &frame(PING, b"wait")),
        after(&[], &frame(0x8a, b"")),
        after(&begun, &spaces),
        after(&begun, &frame(0x00, b"")),
    ] {
        let pace = Duration::from_secs(4) / u32::try_from(pieces.len() - 1).unwrap();
        let mut socket = server.raw_socket("den").await;
        socket.receive().await;
        refusals.push(sends_slowly(socket, pieces, pace));
    }
    let mut silent = server.connect("den").await;
    silent.receive().await;

    let (reason, endings) =
        tokio::join!(silent.rejection(), futures_util::future::join_all(refusals));

    assert_eq!(reason, (1008, "Authentication required".into()));
    assert_eq!(endings, vec![Ending::Closed(1008); endings.len()]);
    server.assert_unharmed().await;
}

/// A11: a key that occurs twice means different things to different readers; one that nobody knows means
/// nothing.
#[tokio::test]
async fn unknown_and_repeated_keys_do_not_change_an_identity() {
    let server = AttackedServer::start(&[]).await;
    let (carol, dave) = (server.token("carol"), server.token("dave"));

    for twice in [
        format!(r#"{{"type":"auth_token","token":"{dave}","token":"{carol}"}}"#),
        format!(r#"{{"type":"ping","type":"auth_token","token":"{carol}"}}"#),
        format!(r#"{{"type":"auth_token","token":"{carol}","clientId":"a","clientId":"den-bob"}}"#),
        format!(r#"{{"type":"auth_token","token":"{dave}","\u0074oken":"{carol}"}}"#),
    ] {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send_text(&twice).await;

        let refused = client.rejection().await;
        assert_eq!(refused, (1008, "Authentication required".into()), "{twice:.40}");
    }
    let mut client = server.connect("den").await;
    client.receive().await;
    let more = json!({"user":"dave","username":"dave","sub":"dave","admin":true,"__proto__":{"user":"dave"}});
    let mut introduction = json!({"type":"auth_token","token":carol,"room_id":"attic","users":[]});
    introduction.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    client.send(introduction).await;

    assert_eq!(client.receive().await["user"], "carol");
    assert_eq!(client.receive().await["type"], "users_in_room");
    drop(client);
    server.assert_unharmed().await;
}

/// A12.
#[tokio::test]
async fn a_second_authentication_changes_neither_username_nor_client_id() {
    let server = AttackedServer::start(&[]).await;
    let mut hears = server.join("hall", "dave").await;
    let (mut says, _) = server.join_as("hall", "carol", json!("carol-1")).await;
    hears.receive().await;

    let renewal = json!({"type":"auth_token","token":server.token("carol"),"clientId":"other"});
    says.send(renewal).await;
    assert_eq!(says.receive().await["type"], "token_refreshed");
    for token in [server.token("alice"), server.token("nobody"), "a.b.c".into(), String::new()] {
        let again = json!({"type":"auth_token","token":token,"clientId":"den-alice","id":7});
        let refused = says.error_after(&again.to_string()).await;
        assert_eq!((&refused["code"], &refused["id"]), (&json!("invalid_token"), &json!(7)));
    }
    says.send(json!({"type":"message","data":1})).await;

    let heard = json!({"type":"message","data":1,"from":"carol-1","username":"carol"});
    assert_eq!(hears.receive().await, heard);
    drop((says, hears));
    server.assert_unharmed().await;
}
