//! How a WebSocket ends, when it is the client that ends it (RFC 6455 section 7).

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{
    attacked_server::AttackedServer,
    raw::{BEGIN, BINARY, CLOSE, Ending, Frame, PING, RawSocket, TEXT, closing, frame, header},
};

/// The close frame that answers, after which nothing comes but the end of the connection.
async fn answer_to(socket: &mut RawSocket, bytes: &[u8]) -> Vec<u8> {
    socket.write(bytes).await;
    let Some(Frame { first: CLOSE, payload }) = socket.next_frame().await else {
        panic!("no close frame")
    };
    assert_eq!(socket.raw.read_to_end().await, (Vec::new(), true));
    payload
}

/// H14: the code and the reason come back, and it is the server that ends the connection.
#[tokio::test]
async fn a_valid_close_frame_is_answered_with_the_same_code() {
    let server = AttackedServer::start(&[]).await;
    let longest = [b'a'; 123];
    let codes = (1000..=1003).chain(1007..=1013).chain([3000, 3999, 4000, 4999]);
    let mut cases: Vec<_> = codes.map(|code| closing(code, b"")).collect();
    cases.extend([vec![], closing(1000, "tschüß 😀".as_bytes()), closing(1001, &longest)]);

    for payload in &cases {
        let mut member = server.raw_member("den", "carol").await;
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;

        assert_eq!(&answer_to(&mut member, &frame(CLOSE, payload)).await, payload);
        assert_eq!(&answer_to(&mut unauthenticated, &frame(CLOSE, payload)).await, payload);
    }

    // 1014 was registered after RFC 6455; not every library knows it.
    let mut gateway = server.raw_member("den", "carol").await;
    let answer = answer_to(&mut gateway, &frame(CLOSE, &closing(1014, b""))).await;
    assert!(
        [1014, 1002].map(|code: u16| code.to_be_bytes()).contains(answer.first_chunk().unwrap())
    );

    assert_eq!(server.assert_unharmed().await.visits, cases.len() + 1);
}

/// H11: codes that may not be sent, and half a code. (A reason that is not UTF-8 is among the texts.)
#[tokio::test]
async fn an_invalid_close_frame_is_a_protocol_error() {
    let server = AttackedServer::start(&[]).await;
    let codes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    let mut cases: Vec<_> = codes.map(|code| closing(code, b"")).into();
    cases.extend([vec![3], closing(1005, b"why")]);

    for payload in &cases {
        let mut member = server.raw_member("den", "carol").await;
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;
        member.write(frame(CLOSE, payload)).await;
        unauthenticated.write(frame(CLOSE, payload)).await;

        assert_eq!(member.read_to_close().await.1, Ending::Closed(1002), "{payload:x?}");
        assert_eq!(unauthenticated.read_to_close().await.1, Ending::Closed(1002), "{payload:x?}");
    }

    assert_eq!(server.assert_unharmed().await.visits, cases.len());
}

#[tokio::test]
async fn frames_after_a_close_frame_are_ignored() {
    let server = AttackedServer::start(&[]).await;
    let bye = frame(CLOSE, &closing(1000, b""));
    let cases = [
        frame(TEXT, json!({"type":"message","data":1}).to_string().as_bytes()),
        frame(TEXT, b"\xff"),
        frame(PING, b"still there?"),
        frame(CLOSE, &closing(1001, b"")),
        frame(BEGIN, b"{"),
        vec![0xff; 1000],
    ];

    for rest in &cases {
        let mut member = server.raw_member("den", "carol").await;
        member.write([&bye[..], rest].concat()).await;

        let close = Frame { first: CLOSE, payload: closing(1000, b"") };
        assert_eq!(member.next_frame().await, Some(close));
        // Unread bytes may make it a reset; nothing is said any more in either case.
        assert_eq!(member.raw.read_to_end().await.0, b"");
    }

    assert_eq!(server.assert_unharmed().await.visits, cases.len());
}

/// H15: however a connection breaks, its seat is free; also in the middle of a frame.
#[tokio::test]
async fn a_member_whose_connection_breaks_leaves() {
    let server = AttackedServer::start(&[]).await;
    let half = &frame(TEXT, b"{\"type\":\"ping\"}")[..9];
    let mut breaks = 0;

    for said in [&[][..], &[TEXT], half, &frame(BEGIN, b"{"), &frame(PING, b"a")] {
        let mut vanishes = server.raw_member("den", "carol").await;
        vanishes.write(said).await;
        drop(vanishes);
        let mut crashes = server.raw_member("den", "carol").await;
        crashes.write(said).await;
        crashes.raw.reset();
        let mut hangs_up = server.raw_member("den", "carol").await;
        hangs_up.write(said).await;
        hangs_up.raw.stream.shutdown().await.unwrap();
        hangs_up.raw.read_to_end().await;
        server.raw_socket("den").await.raw.reset();
        breaks += 3;
    }

    assert_eq!(server.assert_unharmed().await.visits, breaks);
}

/// Whoever still sends when he has said something wrong reads what it was: what comes after it is read and
/// thrown away for a moment, since a reset overtakes the close frame on its way (RFC 6455 section 7.1.1),
/// and a browser whose sending fails reports 1006.
#[tokio::test]
async fn a_client_that_is_still_sending_receives_the_close_reason() {
    let server = AttackedServer::start(&[]).await;
    let more = frame(TEXT, &[b'x'; 20_000]).repeat(50);
    let big = 1_000_000_u64;

    for (wrong, code) in [
        (frame(BINARY, b""), 1003),
        (frame(0x83, b""), 1002),
        (frame(TEXT, b"\xff"), 1007),
        ([&header(TEXT, big)[..1], &[0xff], &big.to_be_bytes()].concat(), 1009),
    ] {
        let mut member = server.raw_member("den", "carol").await;
        member.write([wrong, more.clone()].concat()).await;

        let answer = member.receive().await;
        assert_eq!((&answer["type"], &answer["retry"]), (&json!("error"), &json!(false)));
        let close = member.next_frame().await.unwrap();
        assert_eq!((close.first, &close.payload[..2]), (CLOSE, &closing(code, b"")[..]));
        member.write(frame(CLOSE, &close.payload)).await;
        assert_eq!(member.raw.read_to_end().await, (vec![], true), "reset after {code}");
    }

    server.assert_unharmed().await;
}
