//! Parsing and encoding, on the edges of what a frame may be.

use strum::IntoEnumIterator;

use super::*;

fn parse_error(frame: &str) -> FrameError {
    parse(frame).message.unwrap_err()
}

fn signal(frame: &str) -> Signal<'_> {
    match parse(frame).message.unwrap() {
        ClientMessage::Signal(signal) => signal,
        other => panic!("{other:?} is not a signal"),
    }
}

#[test]
fn a_payload_is_relayed_byte_for_byte() {
    let payload = r#"{ "sdp" :"v=0\r\n\u00e9\ud83d\ude00é","n":[1.0,1e2,-0,12345678901234567890123], "a":null}"#;
    let frame = format!(r#"{{"type":"offer","to":"bob","offer":{payload},"extra":[1]}}"#);

    let relayed = signal(&frame).encode_for_peers(&SenderSuffix::new("alice", "Alice \"A\""));

    let expected =
        format!(r#"{{"type":"offer","offer":{payload},"from":"alice","username":"Alice \"A\""}}"#);
    assert_eq!(relayed, *expected);
}

#[test]
fn a_missing_an_empty_and_a_null_target_are_the_whole_room() {
    for to in ["", r#","to":"""#, r#","to":null"#] {
        let frame = format!(r#"{{"type":"message","data":1{to}}}"#);

        assert_eq!(signal(&frame).to, None, "{frame}");
    }
    assert_eq!(signal(r#"{"type":"message","data":1,"to":"b\u00e9"}"#).to.as_deref(), Some("bé"));
}

#[test]
fn a_target_of_another_type_is_never_the_whole_room() {
    for to in ["[]", "{}", "0", "false", "true", "1.5", r#"["bob"]"#] {
        let frame = format!(r#"{{"type":"message","data":1,"to":{to},"id":7}}"#);

        assert_eq!(parse_error(&frame).code(), "invalid_message", "{frame}");
        assert_eq!(parse(&frame).id.map(RawJson::get), Some("7"));
    }
}

#[test]
fn the_end_of_candidates_comes_in_three_spellings() {
    let of = |frame| signal(frame).payload.get();

    assert_eq!(of(r#"{"type":"ice_candidate"}"#), "null");
    assert_eq!(of(r#"{"type":"ice_candidate","candidate":null}"#), "null");
    assert_eq!(of(r#"{"type":"ice_candidate","candidate":""}"#), r#""""#);
}

#[test]
fn invalid_json_and_invalid_messages_have_different_codes() {
    let cases = [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("hello", "invalid_json"),
        ("[", "invalid_json"),
        (r#"{"type":"ping"} x"#, "invalid_json"),
        ("[]", "invalid_message"),
        (r#"["ping"]"#, "invalid_message"),
        ("1", "invalid_message"),
        ("null", "invalid_message"),
        (r#""ping""#, "invalid_message"),
        ("{}", "invalid_message"),
        (r#"{"type":5}"#, "invalid_message"),
        (r#"{"type":"offer"}"#, "invalid_message"),
        (r#"{"type":"offer","offer":[]}"#, "invalid_message"),
        (r#"{"type":"answer","answer":"v=0"}"#, "invalid_message"),
        (r#"{"type":"ice_candidate","candidate":5}"#, "invalid_message"),
        (r#"{"type":"ice_candidate","candidate":[]}"#, "invalid_message"),
        (r#"{"type":"message"}"#, "invalid_message"),
        (r#"{"type":"ping","type":"offer"}"#, "invalid_message"),
        (r#"{"type":"offer","offer":NaN}"#, "invalid_message"),
        ("{\"type\":\"offer\",\n \"offer\":{\"a\":-Infinity}}", "invalid_message"),
        (r#"{"type":"message","data":Infinity}"#, "invalid_message"),
        (r#"{"type":"Ping"}"#, "unknown_type"),
    ];

    for (frame, code) in cases {
        assert_eq!(parse_error(frame).code(), code, "{frame}");
    }
}

#[test]
fn a_payload_may_nest_64_levels_and_no_more() {
    let frame = |depth| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"type":"message","data":{open}"[[\"[[{{"{close}}}"#)
    };

    assert!(parse(&frame(64)).message.is_ok());
    assert_eq!(parse_error(&frame(65)).code(), "invalid_message");
    assert_eq!(parse_error(&frame(100_000)).code(), "invalid_message");
}

#[test]
fn an_error_repeats_at_most_64_characters_of_the_frame() {
    let long = "é".repeat(10_000);

    let error = parse_error(&format!(r#"{{"type":"{long}"}}"#)).to_string();

    assert_eq!(error, format!("Unknown message type: {}…", "é".repeat(64)));
}

#[test]
fn only_a_short_string_or_number_is_an_id() {
    for (id, is_kept) in
        [("\"a\"", true), ("-1.5", true), ("{}", false), ("null", false), ("true", false)]
    {
        assert_eq!(parse(&format!(r#"{{"type":"x","id":{id}}}"#)).id.is_some(), is_kept, "{id}");
    }
    assert!(parse(&format!(r#"{{"type":"x","id":"{}"}}"#, "x".repeat(200))).id.is_none());
}

#[test]
fn only_a_well_formed_client_id_is_accepted() {
    let auth =
        |id: &str| match parse(&format!(r#"{{"type":"auth_token","clientId":{id}}}"#)).message {
            Ok(ClientMessage::AuthToken(AuthToken { client_id, .. })) => match client_id {
                RequestedId::Any => "any".to_owned(),
                RequestedId::This(id) => format!("this {id}"),
                RequestedId::Malformed => "malformed".to_owned(),
            },
            other => panic!("{other:?}"),
        };

    assert_eq!(auth("null"), "any");
    assert_eq!(auth("\"\""), "any");
    assert_eq!(auth("\"a.B_9:@-\""), "this a.B_9:@-");
    for bad in ["7", "{}", "[\"a\"]", "\"a b\"", "\"a\\n\"", "\"\\u0000\"", "\"é\""] {
        assert_eq!(auth(bad), "malformed", "{bad}");
    }
    assert_eq!(auth(&format!("\"{}\"", "a".repeat(128))), format!("this {}", "a".repeat(128)));
    assert_eq!(auth(&format!("\"{}\"", "a".repeat(129))), "malformed");
}

#[test]
fn every_close_code_is_one_of_the_contract() {
    for CloseFrame { code, reason } in CloseReason::iter().filter_map(|it| it.info().frame) {
        assert!(
            [1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4001, 4002, 4003]
                .contains(&code)
        );
        assert!(reason.len() <= 123, "RFC 6455 section 5.5: a control frame has at most 125 bytes");
    }
}

#[test]
fn a_membership_is_resumed_exactly_after_the_closes_that_say_retry_but_not_with_an_expired_token() {
    for reason in CloseReason::iter() {
        let CloseInfo { frame, retry, may_resume, .. } = reason.info();

        let expected = match frame {
            Some(_) => retry && reason != CloseReason::TokenExpired,
            None => reason == CloseReason::ConnectionLost,
        };
        assert_eq!(may_resume, expected, "{reason:?}");
    }
}
