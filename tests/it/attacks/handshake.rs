//! From the first byte to the first frame (group H of the catalogue): requests that are none, upgrades that
//! are none, and frames whose header alone says too much.

use serde_json::{Value, json};

use super::{
    attacked_server::AttackedServer,
    raw::{CLOSE, Ending, PING, Raw, TEXT, ask, closing, frame, header, upgrade},
};

/// A good handshake in which one piece of text stands for another.
fn with(text: &str, instead: &str) -> String {
    let good = upgrade("den") + "\r\n";
    assert!(good.contains(text), "{text:?} is in no handshake");
    good.replacen(text, instead, 1)
}

/// H01, H02, H03, H04, H23.
#[tokio::test]
async fn an_invalid_upgrade_is_rejected_in_json() {
    let server = AttackedServer::start(&[]).await;
    let get = "GET /ws/den HTTP/1.1\r\nHost: a\r\n\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";

    for (case, request, status) in [
        ("plain GET", get.to_owned(), 400),
        ("version 8", with("Version: 13", "Version: 8"), 400),
        ("version 0", with("Version: 13", "Version: 0"), 400),
        ("an empty version", with("Version: 13", "Version:"), 400),
        ("no version", with(version, ""), 400),
        ("no key", with(key, ""), 400),
        ("an empty key", with("dGhlIHNhbXBsZSBub25jZQ==", ""), 400),
        ("a key of 15 bytes", with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), 400),
        ("a key of 17 bytes", with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWU="), 400),
        (
            "a key that is no base64",
            with("dGhlIHNhbXBsZSBub25jZQ==", "no base64, 24 letters --"),
            400,
        ),
        ("no Upgrade", with("Upgrade: websocket\r\n", ""), 400),
        ("another Upgrade", with("Upgrade: websocket", "Upgrade: h2c"), 400),
        ("no Connection", with("Connection: Upgrade\r\n", ""), 400),
        ("another Connection", with("Connection: Upgrade", "Connection: close"), 400),
        ("HTTP/1.0", with("HTTP/1.1", "HTTP/1.0"), 400),
        ("POST", with("GET /", "POST /"), 405),
        ("PUT", with("GET /", "PUT /"), 405),
        ("no room", with("/ws/den", "/ws/"), 404),
    ] {
        let answer = ask(server.address, request).await.expect(case);

        assert_eq!(answer.status, status, "{case}");
        assert!(answer.json()["detail"].is_string(), "{case}");
        assert_eq!(answer.header("upgrade"), None, "{case}");
    }
    let head = server.request(reqwest::Method::HEAD, "/ws/den").send().await.unwrap();
    assert_eq!(head.status(), 400);

    server.assert_unharmed().await;
}

/// What may stand only once (RFC 6455 section 11.3), and a body: where it ends and frames begin would depend
/// on what has arrived when the server switches.
#[tokio::test]
async fn an_ambiguous_upgrade_is_rejected() {
    let server = AttackedServer::start(&[]).await;

    for (case, more) in [
        ("two keys", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"),
        ("two versions", "Sec-WebSocket-Version: 8\r\n\r\n"),
        ("a body", "Content-Length: 5\r\n\r\nhello"),
        ("a body to come", "Content-Length: 5\r\n\r\n"),
        ("a body in chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let answer = ask(server.address, upgrade("den") + more).await.unwrap();

        assert_eq!(answer.status, 400, "{case}");
    }
    let empty = ask(server.address, upgrade("den") + "Content-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(empty.status, 101);

    server.assert_unharmed().await;
}

/// H28, H29, H26: what a client may ask for beside the upgrade, and what it does not get.
#[tokio::test]
async fn unsupported_extensions_and_subprotocols_are_not_negotiated() {
    let server = AttackedServer::start(&[]).await;

    for (case, more) in [
        ("a subprotocol", "Sec-WebSocket-Protocol: soap, wamp\r\nSec-WebSocket-Protocol: x\r\n"),
        ("compression", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"),
        (
            "an extension",
            "Sec-WebSocket-Extensions: x-webkit-deflate-frame, mux; max-channels=4\r\n",
        ),
    ] {
        let mut connection = server.raw().await;
        connection.write(upgrade("den") + more + "\r\n").await;
        let answer = connection.answer().await.unwrap();

        assert_eq!(answer.status, 101, "{case}");
        assert_eq!(answer.header("sec-websocket-protocol"), None, "{case}");
        assert_eq!(answer.header("sec-websocket-extensions"), None, "{case}");
    }
    for (text, instead) in [
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "connection: UPGRADE"),
        ("Upgrade: websocket", "Upgrade: WebSocket"),
        ("GET /ws/den", "GET /ws/den?token=never-read"),
    ] {
        let answer = ask(server.address, with(text, instead)).await.unwrap();

        assert_eq!(answer.status, 101, "{instead}");
    }
    server.keep_secret("never-read");

    server.assert_unharmed().await;
}

/// H26: since nobody agreed to compression, a compressed message is a broken one.
#[tokio::test]
async fn a_compressed_message_is_not_inflated() {
    let server = AttackedServer::start(&[]).await;
    let mut member = server.raw_member("den", "carol").await;

    // RFC 7692 section 7.2.3.1: "Hello", deflated.
    member.write(frame(TEXT | 0x40, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])).await;

    assert_eq!(member.read_to_close().await.1, Ending::Closed(1002));
    server.assert_unharmed().await;
}

/// H20, H21, H22.
#[tokio::test]
async fn a_request_head_that_is_too_long_is_rejected() {
    let server = AttackedServer::start(&[]).await;
    let long = "x".repeat(100 << 10);
    let many: String = (0..2000).map(|number| format!("X-{number}: 1\r\n")).collect();

    for (case, more, statuses) in [
        ("a header of 100 KiB", format!("X-Long: {long}\r\n"), &[431][..]),
        ("a name of 100 KiB", format!("{long}: 1\r\n"), &[431]),
        ("2,000 headers", many, &[400, 431]),
    ] {
        let answer = ask(server.address, upgrade("den") + &more + "\r\n").await.expect(case);

        assert!(statuses.contains(&answer.status), "{case}: {}", answer.status);
    }
    let answer = ask(server.address, format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert!([414, 431].contains(&answer.unwrap().status));

    // Refused long before the 8 MiB that it may send at most.
    let mut endless = server.raw().await;
    endless.write(upgrade("den") + "X-Endless: ").await;
    let mut sent = 0;
    while sent < 512 && endless.try_write(&[b'x'; 16 << 10]).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 512, "8 MiB of one header were read");
    if let Some(answer) = endless.answer().await {
        assert_eq!(answer.status, 431);
    }

    server.assert_unharmed().await;
}

/// H24, H25: each is refused, and what the client says never becomes our header.
#[tokio::test]
async fn ambiguous_requests_are_rejected() {
    let server = AttackedServer::start(&[]).await;
    let post = |headers: &str, body: &str| {
        format!(
            "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{body}"
        )
    };
    let get = |header: &str| format!("GET /health HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
    let chunked = "Transfer-Encoding: chunked";

    for request in [
        post("Content-Length: 2\r\nContent-Length: 3", "{}}"),
        post("Content-Length: 2, 3", "{}}"),
        post("Content-Length: -1", "{}"),
        post("Content-Length: +2", "{}"),
        post("Content-Length: 0x2", "{}"),
        post("Content-Length: 2 3", "{}"),
        post("Content-Length: 18446744073709551617", "{}"),
        post("Content-Length : 2", "{}"),
        post(chunked, "x\r\n{}\r\n0\r\n\r\n"),
        post(chunked, "-2\r\n{}\r\n0\r\n\r\n"),
        post(chunked, "2\r\n{}}\r\n0\r\n\r\n"),
        post(chunked, "10000000000000002\r\n{}\r\n0\r\n\r\n"),
        post(chunked, "2\n{}\n0\n\n"),
        post("Transfer-Encoding: chunked, identity", "0\r\n\r\n"),
        post("Transfer-Encoding: identity, chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n"),
        post("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        post("Transfer-Encoding: \x0bchunked", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
        "GET /health HTTP/1.1\r\n\r\n".to_owned(),
        get("Host: b"),
        get("hOST: a"),
        get("X-Odd : 1"),
        get(" X-Odd: 1"),
        get("X-Odd"),
        get("X-Odd: a\0b"),
        get("X-\0Odd: a"),
        get("Sec-WebSocket-Protocol: a\x02b"),
        get("X-Odd: a\rInjected: yes"),
        get("X-Odd: a\r\n Injected: yes"),
        get("X(Odd): a"),
        get("X-\u{e9}: a"),
        "GET  /health HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /he alth HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health HTTP/11\r\nHost: a\r\n\r\n".to_owned(),
        "GET /health\r\n\r\n".to_owned(),
        "G\u{e9}T /health HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /ws/a\rInjected: yes HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ] {
        let answer = ask(server.address, &request).await.expect(&request);

        // Not 422: that would be an opinion about the body.
        assert_eq!(answer.status, 400, "{request:?}: {answer:?}");
        assert!(!answer.head.to_lowercase().contains("injected"), "{request:?}: {answer:?}");
    }
    // RFC 9112 section 6.1 lets a server believe the chunks, if it ends the connection then.
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 40",
    ] {
        let mut connection = server.raw().await;
        let smuggled = "0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n";
        connection.write(post(headers, smuggled)).await;

        let answer = connection.answer().await.unwrap();
        assert!((400..500).contains(&answer.status), "{headers}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{headers}");
        assert!(connection.answer().await.is_none(), "{headers}: the second request is answered");
    }
    for path in ["/%0d%0aInjected:%20yes", "/ws/a%0d%0aInjected:%20yes", "//evil.example/%2e%2e"] {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nOrigin: http://a%0d%0aInjected\r\n\r\n");
        let answer = ask(server.address, request).await.unwrap();

        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        let injected = answer.head.lines().any(|line| line.to_lowercase().starts_with("injected"));
        assert!(!injected && answer.header("location").is_none(), "{path}: {answer:?}");
    }

    server.assert_unharmed().await;
}

/// TLS, noise and whatever else is no HTTP, on a plain port.
#[tokio::test]
async fn upgrades_to_other_protocols_are_not_accepted() {
    let server = AttackedServer::start(&[]).await;
    let tls = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
    let noise = (0..4096_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[1]);

    for (case, bytes) in [
        ("TLS", tls),
        ("noise", noise.collect()),
        ("NULs", vec![0; 1000]),
        ("a frame", frame(PING, b"hello")),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()),
        ("a proxy", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        let answer = ask(server.address, bytes).await.expect(case);

        assert_eq!(answer.status, 400, "{case}: {answer:?}");
    }
    server.assert_unharmed().await;
}

/// H27: a client that takes HTTP/2 for granted is told that it is not spoken (RFC 9113 section 3.4).
#[tokio::test]
async fn http2_is_rejected_with_a_message() {
    let server = AttackedServer::start(&[]).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    let refused = ask(server.address, preface).await;
    let offered = with("Upgrade: websocket", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__");
    let upgraded = ask(server.address, offered).await.unwrap();

    assert_eq!(upgraded.status, 400);
    assert!(refused.is_some_and(|answer| (400..500).contains(&answer.status)), "hung up");
    server.assert_unharmed().await;
}

/// Frames may come in the same packet as the request; none of them is lost, and none is read before the
/// answer to the upgrade.
#[tokio::test]
async fn frames_sent_together_with_the_request_are_processed() {
    let server = AttackedServer::start(&[]).await;
    let introduction = json!({"type":"auth_token","token":server.token("carol")}).to_string();
    let mut eager = Raw::connect(server.address).await;

    let request = upgrade("den") + "\r\n";
    let bye = frame(CLOSE, &closing(1000, b""));
    eager.write([request.as_bytes(), &frame(TEXT, introduction.as_bytes()), &bye].concat()).await;

    assert_eq!(eager.answer().await.unwrap().status, 101);
    let (heard, _) = eager.read_to_end().await;
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains("auth_required") && heard.contains("auth_success"), "{heard}");
    server.assert_unharmed().await;
}

/// H16, H17, H19: a frame over the limit is refused when its header says so, before any of it has come.
#[tokio::test]
async fn a_frame_that_is_too_large_is_rejected_at_its_header() {
    let server = AttackedServer::start(&[]).await;
    let declares = |first: u8, length: u64| {
        let mut header = header(first, length);
        header[1] |= 0x80;
        [&header[..], &[1, 2, 3, 4]].concat()
    };
    let lengths =
        [(256 << 10) + 1, 8 << 20, 32 << 20, 1 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX];

    for length in lengths {
        for first in [TEXT, 0x01, 0x82] {
            let mut member = server.raw_member("den", "carol").await;
            member.write(declares(first, length)).await;

            let (frames, ending) = member.read_to_close().await;
            let frames: Vec<_> =
                frames.iter().map(|news| (&news["code"], &news["retry"])).collect();
            assert_eq!(frames, [(&json!("message_too_big"), &json!(false))], "{length}");
            assert_eq!(ending, Ending::Closed(1009), "{length}");
        }
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;
        unauthenticated.write(declares(TEXT, length)).await;
        assert_eq!(unauthenticated.rejection().await, Ending::Closed(1009), "{length}");
    }
    // H17: the same with some of the payload, which then stops.
    let mut stalls = server.raw_socket("den").await;
    stalls.receive().await;
    let some = [declares(TEXT, 8 << 20), vec![b'x'; 256 << 10]].concat();
    let _ = stalls.raw.try_write(some).await;
    assert_eq!(stalls.rejection().await, Ending::Closed(1009));

    assert_eq!(server.assert_unharmed().await.visits, lengths.len() * 3);
}

/// H18, M13, J10, I03: what is too big for a message is too big in every field of it.
#[tokio::test]
async fn a_message_over_four_times_the_limit_is_closed_with_1009_and_not_relayed() {
    let server = AttackedServer::start(&[]).await;
    let token = server.token("carol");
    let long = |length: usize| "x".repeat(length);

    for introduction in [
        json!({"type":"auth_token","token":long(8 << 20)}),
        json!({"type":"auth_token","token":long(1 << 20)}),
        json!({"type":"auth_token","token":long(64 << 10)}),
        json!({"type":"auth_token","token":token,"clientId":long(1 << 20)}),
    ] {
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;
        let _ =
            unauthenticated.raw.try_write(frame(TEXT, introduction.to_string().as_bytes())).await;

        assert_eq!(unauthenticated.rejection().await, Ending::Closed(1009));
    }
    for message in [
        json!({"type":"offer","offer":{"sdp":long(4 << 20)}}),
        json!({"type":"offer","offer":{},"to":long(257 << 10)}),
        json!({"type":long(257 << 10)}),
    ] {
        let mut member = server.raw_member("den", "carol").await;
        let _ = member.raw.try_write(frame(TEXT, message.to_string().as_bytes())).await;

        assert_eq!(member.read_to_close().await.1, Ending::Closed(1009));
    }
    // The same in pieces, each of which would do.
    let mut member = server.raw_member("den", "carol").await;
    let piece = frame(0x00, &[b' '; 4096]);
    let _ = member.raw.try_write([frame(0x01, b"{"), piece.repeat(65)].concat()).await;
    let (frames, ending) = member.read_to_close().await;
    let frames: Vec<_> = frames.iter().map(|frame| (&frame["code"], &frame["retry"])).collect();
    let code = json!("message_too_big");
    assert_eq!(frames, [(&code, &Value::Null), (&code, &json!(false))]);
    assert_eq!(ending, Ending::Closed(1009));

    server.assert_unharmed().await;
}

#[tokio::test]
async fn the_message_size_limit_is_exact_to_the_byte() {
    let settings = [("WEBSOCKET_MAX_MESSAGE_BYTES", "2048")];
    let server = AttackedServer::with(&settings).den_may_receive(&["message"]).start().await;
    let said = |length: usize| {
        let data = "x".repeat(length - json!({"type":"message","data":""}).to_string().len());
        json!({"type":"message","data":data}).to_string()
    };
    let mut fits = server.raw_member("den", "carol").await;
    let mut exceeds = server.raw_member("hall", "dave").await;
    let in_pieces = |text: &str| {
        let (one, two) = text.as_bytes().split_at(1000);
        [frame(0x01, one), frame(0x80, two)].concat()
    };

    fits.write(frame(TEXT, said(2048).as_bytes())).await;
    fits.write(in_pieces(&said(2048))).await;
    fits.assert_no_more_messages().await;
    exceeds.write(in_pieces(&said(4 * 2048))).await;
    exceeds.write(frame(TEXT, said(2049).as_bytes())).await;
    for _ in 0..2 {
        let answer = exceeds.receive().await;
        assert_eq!(
            (&answer["code"], &answer["max_message_bytes"], &answer["retry"]),
            (&json!("message_too_big"), &json!(2048), &Value::Null)
        );
    }
    exceeds.write(frame(TEXT, br#"{"type":"ping"}"#)).await;
    assert_eq!(exceeds.receive().await["type"], "pong");
    exceeds.write(frame(TEXT, said(4 * 2048 + 1).as_bytes())).await;

    assert_eq!(exceeds.read_to_close().await.1, Ending::Closed(1009));
    drop(fits);
    server.assert_unharmed().await;
}

/// What is discarded is not kept: its payload may come in any pieces, with control frames among them.
#[tokio::test]
async fn a_discarded_message_is_answered_before_it_has_arrived_and_the_next_one_is_read() {
    let server = AttackedServer::start(&[]).await;
    let mut member = server.raw_member("den", "carol").await;
    let long = frame(0x01, &vec![b'x'; 200 << 10]);
    let (start, rest) = long.split_at(100);

    member.write(start.to_vec()).await;
    assert_eq!(member.receive().await["code"], "message_too_big");
    for piece in rest.chunks(30_000) {
        member.write(piece.to_vec()).await;
    }
    member
        .write(
            [frame(PING, b"a"), frame(0x80, b"\xff"), frame(TEXT, br#"{"type":"ping"}"#)].concat(),
        )
        .await;

    let mut answers = Vec::new();
    while answers.len() < 2 {
        let answer = member.next_frame().await.unwrap();
        answers.push((answer.first, String::from_utf8(answer.payload).unwrap()));
    }
    assert_eq!(answers, [(0x8a, "a".to_owned()), (TEXT, r#"{"type":"pong"}"#.to_owned())]);
    drop(member);
    server.assert_unharmed().await;
}
