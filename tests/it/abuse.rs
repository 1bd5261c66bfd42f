//! Too big, too fast, too many, nonsense: the contract's answer, and neighbours that notice nothing.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::harness::{Client, SOON, Server, couple};

/// Members of the room in which things happen, and of another one.
struct Bystanders {
    here: (Client, Client),
    elsewhere: (Client, Client),
}

impl Bystanders {
    async fn at(server: &Server) -> Self {
        Self { here: couple(server, "den").await, elsewhere: couple(server, "attic").await }
    }

    /// Each of them still reaches the next, and has heard nothing but the coming and going of whoever
    /// misbehaved, and what he was allowed to say.
    async fn are_undisturbed(&mut self) {
        for (one, other) in [&mut self.here, &mut self.elsewhere] {
            one.says(json!({"type":"offer","offer":{"sdp":"v=0"},"to":other.id})).await;
            let heard = loop {
                let news = other.hears().await;
                if !["user_joined", "user_left", "message"]
                    .contains(&news["type"].as_str().unwrap())
                {
                    break news;
                }
            };
            assert_eq!(heard["offer"], json!({"sdp":"v=0"}));
            assert_eq!(heard["from"], one.id);
        }
    }
}

#[tokio::test]
async fn nonsense_is_answered_and_the_connection_goes_on() {
    let server = Server::start(&[]).await;
    let mut bystanders = Bystanders::at(&server).await;
    let mut clumsy = server.join("den", "carol").await;
    let deep =
        format!(r#"{{"type":"message","data":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));

    for (frame, code) in [
        ("{", "invalid_json"),
        ("hello", "invalid_json"),
        ("", "invalid_json"),
        ("[]", "invalid_message"),
        ("null", "invalid_message"),
        (r#"{"type":7}"#, "invalid_message"),
        (r#"{"type":"offer"}"#, "invalid_message"),
        (r#"{"type":"offer","offer":NaN}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":[]}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":{}}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":0}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":false}"#, "invalid_message"),
        (&deep, "invalid_message"),
        (r#"{"type":"dance"}"#, "unknown_type"),
    ] {
        let error = clumsy.is_told_after(frame).await;

        assert_eq!(error["code"], code, "{frame:.60}");
        assert!(error.to_string().len() < 300 && error.get("retry").is_none(), "{error}");
    }
    let unknown = clumsy.is_told_after(r#"{"type":"dance"}"#).await;
    assert_eq!(unknown["message"], "Unknown message type: dance");
    let long = clumsy
        .is_told_after(&format!(r#"{{"type":"offer","offer":{{}},"to":"{}"}}"#, "x".repeat(60_000)))
        .await;
    assert!(long["code"] == "target_not_found" && long.to_string().len() < 300);
    clumsy.hears_nothing_else().await;
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn a_first_message_that_is_no_introduction_is_the_last() {
    let server = Server::start(&[]).await;
    let mut bystanders = Bystanders::at(&server).await;
    let good = server.token("carol");

    for (first, reason) in [
        (r#"{"type":"offer","offer":{}}"#.to_owned(), "Authentication required"),
        (r#"{"type":"ping"}"#.to_owned(), "Authentication required"),
        (String::new(), "Authentication required"),
        ("{".to_owned(), "Authentication required"),
        ("[]".to_owned(), "Authentication required"),
        ("null".to_owned(), "Authentication required"),
        (json!({"token":good}).to_string(), "Authentication required"),
        (json!({"type":"AUTH_TOKEN","token":good}).to_string(), "Authentication required"),
        (r#"{"type":"auth_token"}"#.to_owned(), "Invalid token"),
        (r#"{"type":"auth_token","token":null}"#.to_owned(), "Invalid token"),
        (
            json!({"type":"auth_token","token":server.token("nobody")}).to_string(),
            "User not found or inactive",
        ),
    ] {
        let mut client = server.connect("den").await;
        client.hears().await;
        client.says_text(&first).await;

        assert_eq!(client.is_refused().await, (1008, reason.to_owned()), "{first:.60}");
    }
    bystanders.are_undisturbed().await;
    assert_eq!(server.app.rooms.read(|rooms| rooms.members()), 4);
}

#[tokio::test]
async fn tokens_that_are_forged_are_refused() {
    for token in [
        json!(1),
        json!({}),
        json!(""),
        json!("a.b.c"),
        json!("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9."),
        json!("x".repeat(60_000)),
    ] {
        let server = Server::start(&[]).await;
        let mut client = server.connect("den").await;
        client.hears().await;
        client.says(json!({"type":"auth_token","token":token})).await;

        assert_eq!(client.is_refused().await, (1008, "Invalid token".into()), "{token:.60}");
    }
}

#[tokio::test]
async fn after_too_many_bad_tokens_an_address_is_blocked_but_a_good_token_gets_in() {
    let server = Server::start(&[("AUTH_MAX_FAILURES", "3")]).await;
    let mut reasons = Vec::new();

    for _ in 0..5 {
        let mut client = server.connect("den").await;
        client.hears().await;
        client.says(json!({"type":"auth_token","token":"guess"})).await;
        reasons.push(client.is_refused().await);
    }

    let refused = |reason: &str| (1008, reason.to_owned());
    assert_eq!(reasons[..3], vec![refused("Invalid token"); 3]);
    assert_eq!(reasons[3..], vec![refused("IP blocked due to security violations"); 2]);
    server.join("den", "alice").await;
}

#[tokio::test]
async fn a_binary_frame_ends_the_connection_with_1003() {
    let server = Server::start(&[]).await;
    let mut bystanders = Bystanders::at(&server).await;
    let mut early = server.connect("den").await;
    early.hears().await;
    let mut late = server.join("den", "carol").await;

    early.sends(Message::binary(&b"{}"[..])).await;
    late.sends(Message::binary(&b"{}"[..])).await;

    assert_eq!(early.is_refused().await.0, 1003);
    let (before, close) = late.is_let_go().await;
    assert_eq!(
        (before[0]["type"].as_str(), before[0]["retry"].as_bool(), close.0),
        (Some("error"), Some(false), 1003)
    );
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_connection_with_1009() {
    let server = Server::start(&[("WEBSOCKET_MAX_MESSAGE_BYTES", "2048")]).await;
    let mut bystanders = Bystanders::at(&server).await;
    let mut fits = server.join("den", "carol").await;
    let mut exceeds = server.join("den", "carol").await;
    let frame =
        |length: usize| format!(r#"{{"type":"message","data":"{}"}}"#, "x".repeat(length - 28));

    assert_eq!(frame(2048).len(), 2048);
    fits.says_text(&frame(2048)).await;
    exceeds.says_text(&frame(2049)).await;

    assert_eq!(exceeds.is_let_go().await.1.0, 1009);
    fits.says(json!({"type":"ping"})).await;
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn what_is_not_utf8_ends_the_connection_with_1007_and_what_is_no_frame_with_1002() {
    let server = Server::start(&[]).await;
    let mut bystanders = Bystanders::at(&server).await;

    for (bytes, code) in [
        (&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe][..], 1007),
        (&[0x81, 0x83, 0, 0, 0, 0, 0xed, 0xa0, 0x80], 1007),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x02, b'h', b'i'], 1002),
        (&[0x81, 0xff, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], 1009),
    ] {
        let mut client = server.join("den", "carol").await;
        let tokio_tungstenite::MaybeTlsStream::Plain(stream) = client.socket.get_mut() else {
            panic!("TLS")
        };
        stream.write_all(bytes).await.unwrap();

        assert_eq!(client.is_let_go().await.1.0, code, "{bytes:x?}");
    }
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn a_client_that_shouts_is_warned_and_then_closed() {
    let server =
        Server::start(&[("WEBSOCKET_MESSAGES_PER_SECOND", "1"), ("WEBSOCKET_MESSAGE_BURST", "20")])
            .await;
    let mut bystanders = Bystanders::at(&server).await;
    let mut shouter = server.join("den", "carol").await;

    for number in 0..100 {
        let _ = futures_util::SinkExt::send(
            &mut shouter.socket,
            Message::text(json!({"type":"ping","id":number}).to_string()),
        )
        .await;
    }
    let (before, close) = shouter.is_let_go().await;

    assert_eq!(close, (1008, "Rate limit exceeded".into()));
    let warned = before.iter().find(|news| news["code"] == "rate_limited").unwrap();
    assert!(warned["message"].as_str().unwrap().starts_with("More than 1 messages a second"));
    let warnings = before
        .iter()
        .filter(|news| news["code"] == "rate_limited" && news.get("retry").is_none())
        .count();
    assert_eq!((warnings, before.last().unwrap()["retry"].clone()), (1, json!(true)));
    bystanders.are_undisturbed().await;
}

#[tokio::test]
async fn a_real_call_setup_is_not_too_many_messages() {
    let server = Server::start(&[]).await;
    let (mut alice, mut bob) = couple(&server, "den").await;

    for number in 0..151 {
        alice.says(json!({"type":"ice_candidate","candidate":{"candidate":format!("candidate:{number}")},"to":bob.id})).await;
    }

    for number in 0..151 {
        assert_eq!(bob.hears().await["candidate"]["candidate"], format!("candidate:{number}"));
    }
}

#[tokio::test]
async fn somebody_who_does_not_read_is_let_go_and_slows_nobody() {
    let server = Server::start(&[
        ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
        ("WEBSOCKET_MESSAGE_BURST", "100000"),
    ])
    .await;
    let (mut alice, mut bob) = couple(&server, "den").await;
    let stalled = server.join("den", "carol").await;
    assert_eq!(
        (alice.hears().await["type"].clone(), bob.hears().await["type"].clone()),
        (json!("user_joined"), json!("user_joined"))
    );
    let payload = "x".repeat(60_000);

    // More than the stalled one's queue and both kernels' socket buffers hold together.
    let mut gone = false;
    for number in 0..2000 {
        alice.says(json!({"type":"message","data":[number, payload]})).await;
        loop {
            let news = bob.hears().await;
            if news["type"] == "user_left" {
                gone = true;
                continue;
            }
            assert_eq!(news["data"][0], number);
            break;
        }
        if gone {
            break;
        }
    }

    assert!(gone, "the stalled member is still there");
    assert_eq!(alice.hears().await["client_id"], stalled.id);
    alice.hears_nothing_else().await;
    drop(stalled);
}

#[tokio::test]
async fn a_guess_counts_also_when_nobody_waits_for_the_answer() {
    const ALLOWED: usize = 3;
    let server = Server::start(&[("AUTH_MAX_FAILURES", &ALLOWED.to_string())]).await;
    let body = json!({"username":"alice","password":"guess"}).to_string();
    let length = body.len();
    let request = format!(
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    for _ in 0..ALLOWED {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        // The first byte of an answer would come after the hashing; this one hangs up before.
    }

    let mut answered = 0;
    while server.log_in("alice", "guess").await.status() != 429 {
        answered += 1;
    }

    assert!(answered < ALLOWED, "none of those who hung up was counted");
}

#[tokio::test]
async fn an_address_with_too_many_sockets_without_a_token_is_told_to_wait() {
    let server = Server::start(&[("MAX_CONNECTIONS_PER_IP", "0")]).await;
    let (mut alice, _bob) = couple(&server, "den").await;

    let mut strangers = Vec::new();
    for _ in 0..256 {
        strangers.push(server.connect("den").await);
    }
    let refused = server.refused_with("den", &[]).await;
    let elsewhere = server.connect_with("den", &[("x-forwarded-for", "192.0.2.9")]).await;
    drop(strangers);
    drop(elsewhere.unwrap());
    alice.hears_nothing_else().await;
    let mut member = loop {
        if let Ok(client) = server.connect_with("attic", &[]).await {
            break client;
        }
    };

    assert_eq!(refused, 503);
    assert_eq!(member.hears().await["type"], "auth_required");
}

#[tokio::test]
async fn half_a_request_is_not_waited_for() {
    let server = Server::start(&[]).await;
    let began = Instant::now();

    let mut streams = Vec::new();
    for head in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\nX-A: "] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    for mut stream in streams {
        let mut rest = Vec::new();
        timeout(SOON, stream.read_to_end(&mut rest)).await.expect("still open").unwrap();
    }
    assert!(began.elapsed() < SOON);
}

#[tokio::test]
async fn half_a_body_is_not_waited_for() {
    let server = Server::start(&[]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();

    let head = "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    timeout(SOON, stream.read_exact(&mut answer)).await.expect("no answer").unwrap();

    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused_in_json() {
    let server = Server::start(&[]).await;

    let plain = server.get("/ws/den").await;
    let post = server.post_json("/ws/den", json!({})).await;

    assert_eq!((plain.status().as_u16(), post.status().as_u16()), (400, 405));
    let body: Value = plain.json().await.unwrap();
    assert!(body["detail"].is_string());
    for (name, value) in [("sec-websocket-version", "8"), ("sec-websocket-version", "")] {
        assert_eq!(server.refused_with("den", &[(name, value)]).await, 400, "{name}: {value}");
    }
}

#[tokio::test]
async fn a_ping_of_the_protocol_is_answered_with_its_payload() {
    let server = Server::start(&[]).await;
    let mut alice = server.join("den", "alice").await;

    alice.sends(Message::Ping(Bytes::from_static(b"are you there"))).await;

    let pong = timeout(Duration::from_secs(10), futures_util::StreamExt::next(&mut alice.socket))
        .await
        .unwrap();
    assert_eq!(pong.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"are you there")));
}
