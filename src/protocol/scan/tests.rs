//! The one pass against the general parser: serde_json.

use super::*;
use crate::protocol::client::parse_unusual;

/// What clients send, as `JSON.stringify` and `json.dumps` write it.
const USUAL: [&str; 9] = [
    r#"{"type":"offer","to":"bob-phone","offer":{"type":"offer","sdp":"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\n"},"id":7,"ack":12}"#,
    r#"{"type": "answer", "to": null, "answer": {"type": "answer", "sdp": "\u00e9\ud83d\ude00\/"}}"#,
    r#"{"type":"ice_candidate","candidate":{"candidate":"candidate:1 1 udp 2122260223 192.0.2.1 54321 typ host","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null}}"#,
    r#"{"type":"message","data":[1,-0,0.5,1e3,-1.25E-7,[],{},[{}],[[[]]],{"a":{"b":[true,false,null,"é"]}}]}"#,
    r#"{"type":"auth_token","token":"a.b.c","clientId":"x","client_id":"y","features":["resume","ice"]}"#,
    r#"{"type":"call_report","outcome":"connected","ms":1200,"path":"relay","peer":"bob","other":{"type":1}}"#,
    r#"{"type":"kick","to":"bob","ban_seconds":60,"seconds":1,"resume_token":"t","last_seq":3,"other":1,"other":2}"#,
    r#" { "type" : "ping" , "id" : "a" } "#,
    "{}",
];

/// Where the one pass has a result, the general parser has the same.
fn check(frame: &str) -> bool {
    let mut scanned = Envelope::default();
    let is_scanned = scan(frame, &mut scanned).is_some();
    if is_scanned {
        assert_eq!(parse_unusual(frame).as_ref(), Ok(&scanned), "{frame}");
    }
    is_scanned
}

#[test]
fn what_clients_send_is_parsed_in_one_pass() {
    for frame in USUAL {
        assert!(check(frame), "{frame}");
    }
    let nested = |levels: usize| {
        let (open, close) = ("[{\"a\":".repeat(levels / 2), "}]".repeat(levels / 2));
        format!(r#"{{"type":"message","data":{open}1{close}}}"#)
    };
    assert!(check(&nested(64)));
    assert!(!check(&nested(66)));
    let brackets = |levels| {
        format!(r#"{{"type":"message","data":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    assert!(check(&brackets(64)));
    assert!(!check(&brackets(65)));
}

#[test]
fn a_frame_with_one_byte_changed_removed_or_added_means_what_the_general_parser_says() {
    let bytes = [
        "\"", "\\", "{", "}", "[", "]", ":", ",", " ", "\t", "\n", "\u{0}", "\u{1f}", "\u{7f}",
        "é", "0", "1", "-", ".", "e", "E", "+", "u", "t", "n", "/", "a",
    ];
    let mut parsed = 0;
    for frame in USUAL {
        let places: Vec<usize> =
            frame.char_indices().map(|(at, _)| at).chain([frame.len()]).collect();
        for at in places {
            let (before, after) = frame.split_at(at);
            let rest = after.chars().next().map_or("", |char| &after[char.len_utf8()..]);
            check(before);
            check(after);
            parsed += usize::from(check(&format!("{before}{rest}")));
            for byte in bytes {
                parsed += usize::from(check(&format!("{before}{byte}{rest}")));
                parsed += usize::from(check(&format!("{before}{byte}{after}")));
            }
        }
    }
    assert!(parsed > 10_000, "only {parsed}");
}

#[test]
fn an_unusual_frame_is_left_to_the_general_parser() {
    let frames = [
        "",
        "[]",
        "{\n\"type\":\"ping\"}",
        r#"{"typ\u0065":"ping"}"#,
        r#"{"type":"ping","type":"ping"}"#,
        r#"{"type":"ping"} x"#,
        r#"{"type":"ping",}"#,
        r#"{"type":NaN}"#,
    ];
    for frame in frames {
        assert!(!check(frame), "{frame}");
    }
}
