//! Text that is UTF-8, wherever it is cut, and text that is not.

use serde_json::json;

use super::{
    attacked_server::AttackedServer,
    raw::{BEGIN, CLOSE, END, Ending, TEXT, closing, frame},
};

/// The borders between lengths, and what looks forbidden but is not (noncharacters, a byte order mark).
const GOOD: [&str; 14] = [
    "\u{20}",
    "\u{7f}",
    "\u{80}",
    "\u{7ff}",
    "\u{800}",
    "\u{d7ff}",
    "\u{e000}",
    "\u{feff}",
    "\u{fffd}",
    "\u{fffe}",
    "\u{2028}\u{2029}",
    "\u{10000}",
    "\u{1f600}\u{200d}",
    "\u{10ffff}",
];

/// RFC 3629: what no UTF-8 holds.
const BAD: [&[u8]; 24] = [
    b"\xff\xfe", // bytes that occur nowhere
    b"\xff",
    b"\x80", // a continuation of nothing
    b"\xbf",
    b"a\x80b",
    b"\xc3\xa9\xa9",
    b"\xc0\x80", // longer than need be
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xed\xa0\x80", // surrogates
    b"\xed\xbf\xbf",
    b"\xed\xa0\xbd\xed\xb8\x80",
    b"\xf4\x90\x80\x80", // past the last character
    b"\xf5\x80\x80\x80",
    b"\xf7\xbf\xbf\xbf",
    b"\xc3", // cut short
    b"\xe2\x82",
    b"\xf0\x9f\x98",
];

#[tokio::test]
async fn characters_arrive_unchanged_wherever_a_fragment_ends() {
    let settings = [("WEBSOCKET_MESSAGE_BURST", "1000")];
    let server = AttackedServer::start(&settings).await;
    let mut hears = server.join("hall", "dave").await;
    let mut says = server.raw_member("hall", "carol").await;
    hears.receive().await;

    for text in GOOD {
        let said = json!({"type":"message","data":text}).to_string();
        let start = said.find(text).unwrap();
        for cut in start..=start + text.len() {
            let (one, two) = said.as_bytes().split_at(cut);
            says.write([frame(BEGIN, one), frame(END, two)].concat()).await;

            assert_eq!(hears.receive().await["data"], text, "cut at {cut}");
        }
    }

    drop((says, hears));
    server.assert_unharmed().await;
}

/// H09.
#[tokio::test]
async fn invalid_utf8_is_closed_with_1007_and_not_relayed() {
    let server = AttackedServer::start(&[]).await;
    let mut cases = Vec::new();
    for bad in BAD {
        let said = [b"{\"type\":\"message\",\"data\":\"", bad, b"\"}"].concat();
        cases.push(frame(TEXT, &said));
        let start = said.len() - bad.len() - 2;
        for cut in start..=start + bad.len() {
            let (one, two) = said.split_at(cut);
            cases.push([frame(BEGIN, one), frame(END, two)].concat());
        }
        cases.push(frame(TEXT, &said[..start + bad.len()])); // the message ends with it
        cases.push(frame(CLOSE, &closing(1000, bad)));
    }

    for bytes in &cases {
        let mut member = server.raw_member("den", "carol").await;
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;
        member.write(bytes).await;
        unauthenticated.write(bytes).await;

        let (frames, ending) = member.read_to_close().await;
        let frames = frames.iter().map(|news| (&news["code"], &news["retry"])).collect::<Vec<_>>();
        let last_words = (&json!("invalid_utf8"), &json!(false));
        assert_eq!((frames, ending), (vec![last_words], Ending::Closed(1007)), "{bytes:x?}");
        assert_eq!(unauthenticated.rejection().await, Ending::Closed(1007), "{bytes:x?}");
    }

    assert_eq!(server.assert_unharmed().await.visits, cases.len());
}
