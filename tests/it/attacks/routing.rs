//! Who hears what in a room, and what is no message (group M of the catalogue).

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    attacked_server::AttackedServer,
    raw::{Ending, PING, RawSocket, TEXT, frame},
};
use crate::harness::Client;

/// As many messages, and as large, as a test likes.
const TALKATIVE: [(&str, &str); 4] = [
    ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
    ("WEBSOCKET_MESSAGE_BURST", "100000"),
    ("WEBSOCKET_BYTES_PER_SECOND", "1000000000"),
    ("WEBSOCKET_MAX_MESSAGE_BYTES", "1048576"),
];

/// Carol and dave in "hall", who know of each other.
async fn join_pair(server: &AttackedServer) -> (Client, Client) {
    let mut carol = server.join("hall", "carol").await;
    let dave = server.join("hall", "dave").await;
    carol.receive().await;
    (carol, dave)
}

/// M01, M02, M04: to the one who is named and to nobody else; nobody is told of a message to nobody.
#[tokio::test]
async fn a_message_with_a_target_reaches_only_the_target() {
    let server = AttackedServer::start(&[]).await;
    let (mut carol, mut dave) = join_pair(&server).await;
    let mut third = server.join("hall", "alice").await;
    carol.receive().await;
    dave.receive().await;

    for (kind, field) in [
        ("offer", "offer"),
        ("answer", "answer"),
        ("ice_candidate", "candidate"),
        ("message", "data"),
    ] {
        let payload = json!({"secret":kind});
        carol.send(json!({"type":kind,field:payload,"to":dave.id})).await;
        let heard = json!({"type":kind,field:payload,"from":carol.id,"username":"carol"});
        assert_eq!(dave.receive().await, heard);
        third.assert_no_more_messages().await;
        carol.assert_no_more_messages().await;

        for (to, code) in [("nobody", "target_not_found"), (&*carol.id.clone(), "invalid_message")]
        {
            let message = json!({"type":kind,field:payload,"to":to,"id":9}).to_string();
            let refused = carol.error_after(&message).await;
            assert_eq!((&refused["code"], &refused["id"]), (&json!(code), &json!(9)), "{kind}");
        }
        carol.send(json!({"type":kind,field:payload})).await;
        assert_eq!(dave.receive().await, heard);
        assert_eq!(third.receive().await, heard);
    }

    for client in [&mut carol, &mut dave, &mut third] {
        client.assert_no_more_messages().await;
    }
    drop((carol, dave, third));
    server.assert_unharmed().await;
}

/// M03, M05, M06, M07, M08, M12: is answered shortly, never passed on, and the connection goes on.
#[tokio::test]
async fn invalid_messages_are_answered_and_the_connection_stays_open() {
    let server = AttackedServer::start(&TALKATIVE).await;
    let (mut says, mut hears) = join_pair(&server).await;
    let brackets = |open: &str, close: &str, depth: usize| {
        format!(r#"{{"type":"message","data":{}1{}}}"#, open.repeat(depth), close.repeat(depth))
    };
    let long = "x".repeat(200 << 10);

    for (frame, code) in [
        ("", "invalid_json"),
        (" ", "invalid_json"),
        ("{", "invalid_json"),
        ("}", "invalid_json"),
        ("hello", "invalid_json"),
        ("{type:'ping'}", "invalid_json"),
        (r#"{"type":"ping"}{"type":"ping"}"#, "invalid_json"),
        (r#"{"type":"ping"},"#, "invalid_json"),
        (r#"{"type":"ping",}"#, "invalid_json"),
        (r#"{"type":"message","data":"a"#, "invalid_json"),
        ("{\"type\":\"message\",\"data\":\"a\nb\"}", "invalid_json"),
        (r#"{"type":"message","data":"\x41"}"#, "invalid_json"),
        (r#"{"type":"message","data":"\ud8"}"#, "invalid_json"),
        (r#"{"type":"message","data":01}"#, "invalid_json"),
        (r#"{"type":"message","data":1.}"#, "invalid_json"),
        (r#"{"type":"message","data":+1}"#, "invalid_json"),
        ("\u{feff}{\"type\":\"ping\"}", "invalid_json"),
        (r#"{"type":"message","data":NaN}"#, "invalid_message"),
        (r#"{"type":"message","data":-Infinity}"#, "invalid_message"),
        ("[]", "invalid_message"),
        (r#"[{"type":"ping"}]"#, "invalid_message"),
        (r#"["ping"]"#, "invalid_message"),
        ("null", "invalid_message"),
        ("1", "invalid_message"),
        (r#""ping""#, "invalid_message"),
        ("{}", "invalid_message"),
        (r#"{"type":null}"#, "invalid_message"),
        (r#"{"type":7}"#, "invalid_message"),
        (r#"{"type":["ping"]}"#, "invalid_message"),
        (r#"{"type":{"type":"ping"}}"#, "invalid_message"),
        (r#"{"type":"offer"}"#, "invalid_message"),
        (r#"{"type":"offer","offer":null}"#, "invalid_message"),
        (r#"{"type":"offer","offer":"v=0"}"#, "invalid_message"),
        (r#"{"type":"answer","offer":{}}"#, "invalid_message"),
        (r#"{"type":"ice_candidate","candidate":7}"#, "invalid_message"),
        (r#"{"type":"ice_candidate","candidate":[]}"#, "invalid_message"),
        (r#"{"type":"message"}"#, "invalid_message"),
        (r#"{"type":"offer","offer":{},"offer":{}}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":[]}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":{}}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":0}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":1e400}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":false}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":true}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":[null]}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":["everyone"]}"#, "invalid_message"),
        (r#"{"type":"message","data":1,"to":"\ud800"}"#, "invalid_message"),
        (&brackets("[", "]", 65), "invalid_message"),
        (&brackets("[", "]", 100_000), "invalid_message"),
        (&brackets(r#"{"a":"#, "}", 100_000), "invalid_message"),
        (&"[".repeat(100_000), "invalid_message"),
        (&"{\"a\":".repeat(100_000), "invalid_message"),
        (r#"{"type":"dance"}"#, "unknown_type"),
        (r#"{"type":"PING"}"#, "unknown_type"),
        (r#"{"type":"ping "}"#, "unknown_type"),
        (r#"{"type":""}"#, "unknown_type"),
        (r#"{"type":"__proto__"}"#, "unknown_type"),
        (r#"{"type":"</script><img src=x onerror=alert(1)>"}"#, "unknown_type"),
        (&format!(r#"{{"type":"{long}"}}"#), "unknown_type"),
        (&format!(r#"{{"type":"offer","offer":{{}},"to":"{long}"}}"#), "target_not_found"),
    ] {
        let error = says.error_after(frame).await;

        assert_eq!(error["code"], code, "{frame:.60}");
        assert!(error.to_string().len() < 400 && error.get("retry").is_none(), "{error}");
    }
    let unknown = says.error_after(r#"{"type":"dance"}"#).await;
    assert_eq!(unknown["message"], "Unknown message type: dance");
    // An `id` comes back if it is a short string or number; anything else is as if it were not there.
    for (id, back) in [
        (json!("x"), json!("x")),
        (json!(-1.5), json!(-1.5)),
        (json!("x".repeat(200 << 10)), Value::Null),
        (json!({"a":1}), Value::Null),
        (json!([1]), Value::Null),
        (json!(true), Value::Null),
    ] {
        let error = says.error_after(&json!({"type":"dance","id":id}).to_string()).await;
        assert_eq!((&error["code"], &error["id"]), (&json!("unknown_type"), &back));
    }

    hears.assert_no_more_messages().await;
    says.assert_no_more_messages().await;
    drop((says, hears));
    server.assert_unharmed().await;
}

/// M11: byte for byte.
#[tokio::test]
async fn an_unusual_payload_arrives_unchanged() {
    let server = AttackedServer::start(&TALKATIVE).await;
    let (mut says, mut hears) = join_pair(&server).await;
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    let candidates = "a=candidate:1 1 udp 2122260223 192.0.2.1 54321 typ host\\r\\n".repeat(1100);
    let sdp = format!(r#"{{"type":"offer","sdp":"v=0\r\n{candidates}"}}"#);
    assert!((60_000..65_000).contains(&sdp.len()));

    for data in [
        r#"{ "z":1 ,"a" : [ ] , "z":2}"#,
        "12345678901234567890123",
        "1.0",
        "-0",
        "1E+2",
        "1e400",
        "0.1000000000000000055511151231257827",
        r#""\u0000\u001f\/\\\"\b\f\n\r\t""#,
        r#""\ud83d\ude00 😀 \u00e9 é""#,
        r#""\ud800 alone""#,
        r#""</script><!--""#,
        "\"\u{2028}\u{feff}\u{ffff}\"",
        r#"{"type":"auth_success","from":"den-alice","__proto__":{"a":1},"":""}"#,
        "null",
        "false",
        "[[],{},\"\",0]",
        &deep,
        &sdp,
    ] {
        for to in ["null".to_owned(), format!("\"{}\"", hears.id)] {
            says.send_text(&format!(r#"{{"type":"message","data":{data},"to":{to}}}"#)).await;

            let from = &says.id;
            let expected =
                format!(r#"{{"type":"message","data":{data},"from":"{from}","username":"carol"}}"#);
            assert_eq!(hears.receive_text().await, expected);
        }
    }

    drop((says, hears));
    server.assert_unharmed().await;
}

/// M14.
#[tokio::test]
async fn nine_members_that_send_at_once_receive_everything_in_order() {
    const EACH: usize = 50;
    let server = AttackedServer::start(&[]).await;
    let mut crowd: Vec<Client> = Vec::new();
    for number in 0..9 {
        let client = server.join("hall", ["carol", "dave", "alice"][number % 3]).await;
        for earlier in &mut crowd {
            earlier.receive().await;
        }
        crowd.push(client);
    }

    let talking = crowd.into_iter().map(async |mut client| {
        for number in 0..EACH {
            client.send(json!({"type":"message","data":number})).await;
        }
        let mut next = std::collections::HashMap::<String, usize>::new();
        for _ in 0..8 * EACH {
            let news = client.receive().await;
            let expected = next.entry(news["from"].as_str().unwrap().to_owned()).or_default();
            assert_eq!(news["data"], *expected);
            *expected += 1;
        }
        assert!(next.len() == 8 && next.values().all(|&count| count == EACH), "{next:?}");
        client
    });
    let crowd = join_all(talking).await;

    drop(crowd);
    server.assert_unharmed().await;
}

/// M15: whoever does not read is let go when his queue is full, and nobody waits for him.
#[tokio::test]
async fn a_client_that_does_not_read_delays_no_peer_and_is_disconnected() {
    let server = AttackedServer::with(&TALKATIVE).may_grow_by(48).start().await;
    let (mut says, mut hears) = join_pair(&server).await;
    let stalled: RawSocket = server.raw_member("hall", "alice").await;
    for client in [&mut says, &mut hears] {
        assert_eq!(client.receive().await["type"], "user_joined");
    }
    let payload = "x".repeat(60_000);

    // More than the queue and both kernels' buffers hold together.
    let mut left = None;
    for number in 0..2000 {
        says.send(json!({"type":"message","data":[number, payload]})).await;
        let mut news = hears.receive().await;
        if news["type"] == "user_left" {
            left = Some(news);
            news = hears.receive().await;
        }
        assert_eq!(news["data"][0], number);
        if number >= 144 && left.is_some() {
            break;
        }
    }

    assert_eq!(left.expect("he is still there")["client_id"], stalled.id);
    assert_eq!(says.receive().await["client_id"], stalled.id);
    says.assert_no_more_messages().await;
    drop((says, hears, stalled));
    server.assert_unharmed().await;
}

/// M15 with the server's own words: whoever pings and never reads the pongs fills no memory with them,
/// before his introduction or after it.
#[tokio::test]
async fn pings_of_a_client_that_does_not_read_fill_no_memory() {
    let server = AttackedServer::start(&[]).await;
    let mut unauthenticated = server.raw_socket("den").await;
    unauthenticated.receive().await;
    let member = server.raw_member("den", "carol").await;
    let pings = frame(PING, &[b'x'; 125]).repeat(8 << 10);
    let before = server.resident();

    let mut sockets = [unauthenticated, member];
    for socket in &mut sockets {
        for _ in 0..64 {
            // 64 MiB at most; a server that stops reading or hangs up is as good.
            let sending = socket.raw.stream.write_all(&pings);
            if !matches!(timeout(Duration::from_secs(1), sending).await, Ok(Ok(()))) {
                break;
            }
        }
        let grown = server.resident().saturating_sub(before);
        assert!(
            grown < 24 << 20,
            "{grown} bytes of pongs are kept for somebody who does not read them"
        );
    }

    drop(sockets);
    server.assert_unharmed().await;
}

/// M16, L06: what is within the limits is answered, all of it; whoever goes on beyond them is warned once,
/// then closed.
#[tokio::test]
async fn a_client_that_exceeds_the_message_rate_is_warned_and_then_closed() {
    let server = AttackedServer::start(&TALKATIVE).await;
    let mut fast = server.raw_member("den", "carol").await;
    for _ in 0..100 {
        let pings = frame(TEXT, br#"{"type":"ping"}"#).repeat(100);
        fast.write(pings).await;
        for _ in 0..100 {
            assert_eq!(fast.receive().await, json!({"type":"pong"}));
        }
    }
    drop(fast);
    let folder = server.assert_unharmed().await.folder;

    let settings = [("WEBSOCKET_MESSAGES_PER_SECOND", "10"), ("WEBSOCKET_MESSAGE_BURST", "20")];
    let server = AttackedServer::with(&settings).in_folder(folder).start().await;
    let mut shouter = server.raw_member("den", "carol").await;
    let shout = json!({"type":"ping","id":"shout"}).to_string();
    let _ = shouter.raw.try_write(frame(TEXT, shout.as_bytes()).repeat(5000)).await;
    let (before, ending) = shouter.read_to_close().await;

    assert_eq!(ending, Ending::Closed(1008));
    let limited: Vec<_> = before.iter().filter(|news| news["code"] == "rate_limited").collect();
    let [warning, parting] = limited[..] else { panic!("{limited:?}") };
    assert!(warning["message"].as_str().unwrap().starts_with("More than 10 messages a second"));
    assert_eq!((&warning["id"], warning.get("retry")), (&json!("shout"), None));
    assert_eq!((&parting["retry"], before.last()), (&json!(true), Some(parting)));
    let pongs = before.iter().filter(|news| news["type"] == "pong").count();
    assert!((20..100).contains(&pongs), "{pongs} of 5,000 were answered");
    assert_eq!(server.assert_unharmed().await.visits, 1);
}

/// L07, N13: two peers behind one address set up a call, as large as calls get.
#[tokio::test]
async fn a_call_setup_does_not_exceed_the_message_rate() {
    let server = AttackedServer::start(&[]).await;
    let (mut carol, mut dave) = join_pair(&server).await;

    let peers = [dave.id.clone(), carol.id.clone()];
    for number in 0..151 {
        let candidate =
            json!({"candidate":format!("candidate:{number} 1 udp 2122260223 ::1 9 typ host")});
        for (client, to) in [&mut carol, &mut dave].into_iter().zip(&peers) {
            client.send(json!({"type":"ice_candidate","candidate":candidate,"to":to})).await;
        }
    }

    for client in [&mut carol, &mut dave] {
        for number in 0..151 {
            let heard = client.receive().await["candidate"]["candidate"].to_string();
            assert!(heard.starts_with(&format!("\"candidate:{number} ")), "{heard}");
        }
    }
    drop((carol, dave));
    server.assert_unharmed().await;
}

/// M18: one after the other, and all at once; some say goodbye and some do not.
#[tokio::test]
async fn members_that_join_and_leave_leave_no_trace() {
    let server = AttackedServer::with(&[("MAX_CONNECTIONS_PER_ROOM", "100")]).start().await;

    for number in 0..25 {
        let client = server.join("den", "carol").await;
        if number % 2 == 0 {
            client.leave().await;
        }
    }
    let crowd = join_all((0..25).map(async |_| server.raw_member("den", "dave").await)).await;
    for (number, client) in crowd.into_iter().enumerate() {
        if number % 2 == 0 {
            client.raw.reset();
        }
    }

    assert_eq!(server.assert_unharmed().await.visits, 50);
}
