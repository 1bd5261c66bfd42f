//! Frames as RFC 6455 has them, and frames as it forbids them (what the Autobahn cases are about).

use serde_json::json;

use super::{
    attacked_server::AttackedServer,
    raw::{
        BEGIN, BINARY, CLOSE, END, Ending, Frame, GO_ON, PING, PONG, RawSocket, TEXT, closing,
        frame, header, masked,
    },
};
use crate::harness::Client;

/// Text whose characters take one to four bytes.
const WORDS: &str = "aé€😀";

/// As many messages as a test likes to say.
const TALKATIVE: [(&str, &str); 3] = [
    ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
    ("WEBSOCKET_MESSAGE_BURST", "100000"),
    ("WEBSOCKET_BYTES_PER_SECOND", "1000000000"),
];

/// Somebody whose frames are made by hand, and who hears him, in a room of their own.
async fn pair(server: &AttackedServer) -> (RawSocket, Client) {
    let hears = server.join("hall", "dave").await;
    let mut says = server.raw_member("hall", "carol").await;
    says.assert_no_more_messages().await;
    let mut pair = (says, hears);
    assert_eq!(pair.1.receive().await["type"], "user_joined");
    pair
}

fn message(data: &str) -> String {
    json!({"type":"message","data":data}).to_string()
}

/// The frames of one message, one for each of its `pieces`.
fn fragments<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut frames: Vec<_> = pieces.into_iter().map(|piece| frame(GO_ON, piece)).collect();
    frames[0][0] = BEGIN;
    frames.last_mut().unwrap()[0] |= END;
    frames
}

/// Whatever is heard next is this message, as it was said.
async fn is_heard(by: &mut Client, data: &str, case: &str) {
    let news = by.receive().await;
    assert_eq!((&news["type"], &news["data"]), (&json!("message"), &json!(data)), "{case}");
}

/// H12, H30, M17.
#[tokio::test]
async fn a_fragmented_message_arrives_whole() {
    let server = AttackedServer::start(&TALKATIVE).await;
    let (mut says, mut hears) = pair(&server).await;
    let text = message(WORDS);
    let bytes = text.as_bytes();

    for cut in 0..=bytes.len() {
        let (one, two) = bytes.split_at(cut);
        says.write(fragments([one, two]).concat()).await;
        is_heard(&mut hears, WORDS, &format!("cut at {cut}")).await;

        says.write(fragments([&[], one, &[], two, &[]]).join(&frame(PING, b"between")[..])).await;
        for _ in 0..4 {
            let pong = says.next_frame().await;
            assert_eq!(pong, Some(Frame { first: PONG, payload: b"between".into() }));
        }
        is_heard(&mut hears, WORDS, &format!("pings at {cut}")).await;
    }
    says.write(fragments(bytes.chunks(1)).join(&frame(PONG, b"unasked")[..])).await;
    is_heard(&mut hears, WORDS, "a pong after every byte").await;
    says.raw.write_bytewise(fragments(bytes.chunks(3)).concat()).await;
    is_heard(&mut hears, WORDS, "a packet for every byte").await;
    let long = WORDS.repeat(2000);
    says.write(fragments(message(&long).as_bytes().chunks(1)).concat()).await;
    is_heard(&mut hears, &long, "20,000 fragments").await;
    let empty = std::iter::repeat_n(&[][..], 20_000);
    says.write(fragments([bytes].into_iter().chain(empty)).concat()).await;
    is_heard(&mut hears, WORDS, "20,000 empty fragments").await;

    says.assert_no_more_messages().await;
    drop((says, hears));
    server.assert_unharmed().await;
}

/// Masks hide nothing but from proxies; every encoding of a length that fits is understood.
#[tokio::test]
async fn masks_and_lengths_are_decoded() {
    let server = AttackedServer::start(&TALKATIVE).await;
    let (mut says, mut hears) = pair(&server).await;
    let envelope = message("").len();

    for mask in [[0; 4], [0xff; 4], [0, 0, 0, 1], [0x80, 0, 0, 0], [1, 2, 3, 4], *b"\"\\{}"] {
        says.write(masked(TEXT, message(WORDS).as_bytes(), mask)).await;
        is_heard(&mut hears, WORDS, &format!("mask {mask:x?}")).await;
    }
    for length in [60, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536] {
        let data = "x".repeat(length - envelope);
        says.write(frame(TEXT, message(&data).as_bytes())).await;
        is_heard(&mut hears, &data, &format!("{length} bytes")).await;
    }
    // RFC 6455 section 5.2 wants the shortest encoding of a length; a longer one means the same.
    let (text, long) = (message(WORDS), message(&WORDS.repeat(20)));
    let two_bytes =
        |text: &str| [&[TEXT, 0xfe, 0][..], &[u8::try_from(text.len()).unwrap()]].concat();
    let eight_bytes = |text: &str| {
        [&[TEXT, 0xff][..], &u64::try_from(text.len()).unwrap().to_be_bytes()].concat()
    };
    for (encoded, text, data) in [
        (two_bytes(&text), &text, WORDS),
        (eight_bytes(&text), &text, WORDS),
        (eight_bytes(&long), &long, &WORDS.repeat(20)),
    ] {
        says.write([&encoded, &[0; 4][..], text.as_bytes()].concat()).await;
        is_heard(&mut hears, data, &format!("length {encoded:x?}")).await;
    }
    says.assert_no_more_messages().await;

    drop((says, hears));
    server.assert_unharmed().await;
}

/// H13, M16.
#[tokio::test]
async fn every_ping_is_answered_with_its_payload_and_pongs_are_ignored() {
    let ample =
        [("WEBSOCKET_MESSAGES_PER_SECOND", "100000"), ("WEBSOCKET_MESSAGE_BURST", "100000")];
    let server = AttackedServer::start(&ample).await;
    let mut member = server.raw_member("den", "carol").await;
    let mut unauthenticated = server.raw_socket("den").await;
    unauthenticated.receive().await;
    let payload: Vec<u8> = (0..=125).map(|byte| byte * 2 + 1).collect();

    for socket in [&mut member, &mut unauthenticated] {
        for length in 0..=125 {
            socket.write(frame(PONG, &payload[..length])).await;
            socket.write(frame(PING, &payload[..length])).await;

            let pong = socket.next_frame().await.unwrap();
            assert_eq!((pong.first, &pong.payload[..]), (PONG, &payload[..length]));
        }
    }
    for hundred in 0..100_u8 {
        member.write(frame(PING, &[hundred]).repeat(100)).await;
        for _ in 0..100 {
            assert_eq!(member.next_frame().await.unwrap().payload, [hundred]);
        }
    }

    member.assert_no_more_messages().await;
    drop((member, unauthenticated));
    server.assert_unharmed().await;
}

/// A frame as servers send it.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, payload.len() as u64), payload.into()].concat()
}

/// What no client may send, by name.
fn violations() -> Vec<(String, Vec<u8>)> {
    let begun = frame(BEGIN, b"{\"type\":");
    let after_begin = |bytes: Vec<u8>| [begun.clone(), bytes].concat();
    let mut cases = vec![
        ("a lone continuation".to_owned(), frame(GO_ON, b"a")),
        ("a lone end".to_owned(), frame(END, b"a")),
        ("a lone empty end".to_owned(), frame(END, b"")),
        ("text inside fragments".to_owned(), after_begin(frame(TEXT, b"\"ping\"}"))),
        ("a second beginning".to_owned(), after_begin(frame(BEGIN, b"\"ping\"}"))),
        ("binary inside fragments".to_owned(), after_begin(frame(BINARY, b"\"ping\"}"))),
        ("unmasked text".to_owned(), unmasked(TEXT, b"{\"type\":\"ping\"}")),
        ("unmasked nothing".to_owned(), unmasked(TEXT, b"")),
        ("unmasked ping".to_owned(), unmasked(PING, b"a")),
        ("unmasked pong".to_owned(), unmasked(PONG, b"")),
        ("unmasked continuation".to_owned(), after_begin(unmasked(END, b"\"ping\"}"))),
    ];
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        cases.push((format!("opcode {opcode:x}, empty"), frame(0x80 | opcode, b"")));
        cases.push((format!("opcode {opcode:x}"), frame(0x80 | opcode, b"{\"type\":\"ping\"}")));
        cases.push((format!("opcode {opcode:x}, begun"), frame(opcode, b"{")));
        cases.push((format!("opcode {opcode:x} inside"), after_begin(frame(0x80 | opcode, b"a"))));
    }
    for reserved in [0x40, 0x20, 0x10, 0x70] {
        for first in [TEXT, BINARY, BEGIN, PING, PONG, CLOSE] {
            let bits = first | reserved;
            cases.push((format!("reserved bits {bits:x}"), frame(bits, b"")));
        }
        let bits = END | reserved;
        cases.push((format!("reserved bits {bits:x} inside"), after_begin(frame(bits, b"1}"))));
    }
    for control in [PING, PONG, CLOSE] {
        for length in [126, 127, 65_535, 65_536] {
            let long = frame(control, &closing(1000, &vec![b'a'; length - 2]));
            cases.push((format!("control {control:x} of {length} bytes"), long));
        }
        let begun = control & 0x7f;
        cases.push((format!("control {control:x} begun"), frame(begun, b"")));
        let pieces = [frame(begun, &closing(1000, b"")), frame(END, b"a")].concat();
        cases.push((format!("control {control:x} in pieces"), pieces));
    }
    cases
}

/// H05, H06, H07, H08, H10.
#[tokio::test]
async fn a_protocol_violation_is_closed_with_1002_and_not_relayed() {
    let server = AttackedServer::start(&[]).await;
    let cases = violations();
    let last_words = json!({
        "type":"error","code":"protocol_error","retry":false,
        "message":"What arrived is no WebSocket frame",
    });

    for (case, bytes) in &cases {
        let mut member = server.raw_member("den", "carol").await;
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;
        member.write(bytes).await;
        unauthenticated.write(bytes).await;

        let (frames, ending) = member.read_to_close().await;
        assert_eq!((frames, ending), (vec![last_words.clone()], Ending::Closed(1002)), "{case}");
        assert_eq!(unauthenticated.rejection().await, Ending::Closed(1002), "{case}");
    }

    assert_eq!(server.assert_unharmed().await.visits, cases.len());
}

/// A proxy sends it; what it means for a member is in `proxies`.
#[tokio::test]
async fn an_unmasked_close_is_answered_with_nothing() {
    let server = AttackedServer::start(&[]).await;

    for bytes in [unmasked(CLOSE, b""), unmasked(CLOSE, &closing(1000, b"")), unmasked(CLOSE, b"a")]
    {
        let mut member = server.raw_member("den", "carol").await;
        let mut stranger = server.raw_socket("den").await;
        stranger.receive().await;
        member.write(&bytes).await;
        stranger.write(&bytes).await;

        let (told, ending) = member.read_to_close().await;
        assert!(told.is_empty() && matches!(ending, Ending::Dropped), "{told:?}");
        assert!(matches!(stranger.rejection().await, Ending::Dropped));
    }
}

/// M09, and a frame that is no text before the introduction too.
#[tokio::test]
async fn a_binary_message_is_closed_with_1003() {
    let server = AttackedServer::start(&[]).await;
    let ping = b"{\"type\":\"ping\"}";

    let cases = [frame(BINARY, ping), frame(BINARY, b""), {
        let mut pieces = fragments([&ping[..5], &ping[5..]]);
        pieces[0][0] = 0x02;
        pieces.concat()
    }];
    for bytes in &cases {
        let mut member = server.raw_member("den", "carol").await;
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;
        member.write(bytes).await;
        unauthenticated.write(bytes).await;

        let (frames, ending) = member.read_to_close().await;
        let frames = frames.iter().map(|news| (&news["code"], &news["retry"])).collect::<Vec<_>>();
        assert_eq!(frames, [(&json!("binary_frame"), &json!(false))]);
        assert_eq!(
            (ending, unauthenticated.rejection().await),
            (Ending::Closed(1003), Ending::Closed(1003))
        );
    }

    assert_eq!(server.assert_unharmed().await.visits, cases.len());
}
