//! Frames of clients: the server parses them as JSON means them, and relays payloads unchanged.

use serde_json::Value;
use signaling::protocol::{
    self, AuthToken, ClientMessage, RequestedId, SenderSuffix, ServerMessage, Signal, SignalKind,
    TokenField,
};

use super::json::{self, Fault};

/// No error that a client causes is longer, in bytes, however much of the client's text it repeats.
const LONGEST_ERROR: usize = 300;

/// The fields of a message that the server reads; each may occur once.
const KNOWN: [&str; 12] = [
    "type",
    "id",
    "to",
    "token",
    "clientId",
    "client_id",
    "offer",
    "answer",
    "candidate",
    "data",
    "ban_seconds",
    "seconds",
];

/// What a frame means by the contract.
enum Meaning<'a> {
    /// No message; the error has one of these codes.
    Nothing(&'static [&'static str]),
    Auth,
    Ping,
    Signal {
        kind: SignalKind,
        name: &'static str,
        payload: &'a str,
        to: Option<String>,
    },
}

type Named<'a> = [(String, &'a str)];

/// Any bytes as a text frame.
pub fn client_frame(data: &[u8]) {
    let Ok(frame) = str::from_utf8(data) else { return };

    let parsed = protocol::parse(frame);

    let fields = known_fields(frame);
    let id = fields.as_ref().and_then(|fields| value(fields, "id")).filter(|raw| is_good_id(raw));
    assert_eq!(parsed.id.map(|id| id.get()), id, "the id to answer with");
    match (&parsed.message, meaning(frame, fields.as_deref())) {
        (Err(error), Meaning::Nothing(codes)) => {
            assert!(codes.contains(&error.code()), "{error:?} is none of {codes:?}");
            let text = error.to_string();
            assert!(text.len() < LONGEST_ERROR, "{} bytes of error", text.len());
            let answer = ServerMessage::Error {
                message: &text,
                code: error.code(),
                id: parsed.id,
                retry: None,
                retry_after_ms: None,
                max_message_bytes: None,
            };
            let answer = answer.encode();
            let answer = json::object(&answer).expect("an error is one JSON object");
            assert_eq!(value(&answer, "id"), id);
            assert_eq!(json::string(value(&answer, "message").unwrap()).unwrap(), text);
        }
        (Ok(ClientMessage::Ping), Meaning::Ping) => {}
        (Ok(ClientMessage::AuthToken(auth)), Meaning::Auth) => {
            check_auth_token(fields.as_deref().unwrap(), auth);
        }
        (Ok(ClientMessage::Signal(signal)), Meaning::Signal { kind, name, payload, to }) => {
            assert_eq!(signal.kind, kind);
            assert_eq!(signal.payload.get(), payload, "the payload as it stands in the frame");
            assert_eq!(signal.to.as_deref(), to.as_deref(), "the peer that it is for");
            check_relayed(signal, name);
            check_by_value(frame, signal, name);
        }
        (message, _) => panic!("{message:?} is not what the frame means"),
    }
}

/// The frame's fields, if it is an object that the server parses at all.
fn known_fields(frame: &str) -> Option<Vec<(String, &str)>> {
    let mut fields = Vec::new();
    for (name, value) in json::read(frame).ok()?? {
        let name = json::string(name)?;
        if KNOWN.contains(&name.as_str()) && fields.iter().any(|(other, _)| *other == name) {
            return None;
        }
        fields.push((name, value));
    }
    Some(fields)
}

fn value<'a>(fields: &Named<'a>, name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}

fn is_good_id(raw: &str) -> bool {
    raw.len() <= 128
        && raw.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit())
}

/// Contract section 2, "Signaling".
fn meaning<'a>(frame: &'a str, fields: Option<&Named<'a>>) -> Meaning<'a> {
    const NO_MESSAGE: Meaning<'_> = Meaning::Nothing(&["invalid_message"]);
    let Some(fields) = fields else {
        return match json::read(frame) {
            Err(Fault::TooDeep) => NO_MESSAGE,
            Ok(_) | Err(Fault::Grammar) => Meaning::Nothing(&["invalid_json", "invalid_message"]),
        };
    };
    let field = |name| value(fields, name);
    let starts = |raw: &str, starts: &str| raw.starts_with(|first| starts.contains(first));
    let Some(kind) = field("type").and_then(json::string) else { return NO_MESSAGE };
    let (kind, name, payload) = match kind.as_str() {
        "ping" => return Meaning::Ping,
        "auth_token" => return Meaning::Auth,
        "offer" => (SignalKind::Offer, "offer", field("offer").filter(|raw| starts(raw, "{"))),
        "answer" => (SignalKind::Answer, "answer", field("answer").filter(|raw| starts(raw, "{"))),
        "ice_candidate" => {
            let candidate = field("candidate").unwrap_or("null");
            let fits = starts(candidate, "{\"n");
            (SignalKind::IceCandidate, "candidate", Some(candidate).filter(|_| fits))
        }
        "message" => (SignalKind::Message, "data", field("data")),
        _ => return Meaning::Nothing(&["unknown_type"]),
    };
    let Some(payload) = payload else { return NO_MESSAGE };
    let to = match field("to") {
        None | Some("null") => None,
        Some(raw) => match json::string(raw) {
            None => return NO_MESSAGE, // never a broadcast
            Some(to) => Some(to).filter(|to| !to.is_empty()),
        },
    };
    Meaning::Signal { kind, name, payload, to }
}

/// The frame for the peers is one object: the payload byte for byte, and the sender as the server knows it.
fn check_relayed(signal: &Signal<'_>, name: &str) {
    let (from, username) = ("the.server:knows@1-2_3", "Zoë \"from\":\"x\" \\ \n");

    let relayed = signal.encode_for_peers(&SenderSuffix::new(from, username));

    let fields = json::object(&relayed).expect("one object, no field twice");
    assert_eq!(fields.len(), 4, "{relayed}");
    assert_eq!(value(&fields, name), Some(signal.payload.get()));
    for (name, text) in [("from", from), ("username", username)] {
        assert_eq!(json::string(value(&fields, name).unwrap()).as_deref(), Some(text));
    }
    let kind = match signal.kind {
        SignalKind::Offer => "\"offer\"",
        SignalKind::Answer => "\"answer\"",
        SignalKind::IceCandidate => "\"ice_candidate\"",
        SignalKind::Message => "\"message\"",
    };
    assert_eq!(value(&fields, "type"), Some(kind));
}

/// A second oracle where `Value` accepts the frame: it accepts no half surrogates and no 1e400.
fn check_by_value(frame: &str, signal: &Signal<'_>, name: &str) {
    let Ok(whole) = serde_json::from_str::<Value>(frame) else { return };
    let payload: Value = serde_json::from_str(signal.payload.get()).expect("a part of valid JSON");
    assert_eq!(*whole.get(name).unwrap_or(&Value::Null), payload);
    match whole.get("to") {
        None | Some(Value::Null) => assert_eq!(signal.to, None),
        Some(Value::String(to)) => assert_eq!(signal.to.as_deref().unwrap_or_default(), to),
        Some(other) => panic!("{other} names no peer"),
    }
}

/// Contract section 2, "Handshake": what an `auth_token` may contain.
pub fn check_auth_token(fields: &Named<'_>, auth: &AuthToken<'_>) {
    let token = value(fields, "token").filter(|raw| *raw != "null");
    match &auth.token {
        TokenField::Absent => assert_eq!(token, None),
        TokenField::Text(text) => {
            assert_eq!(json::string(token.unwrap()).as_deref(), Some(&**text))
        }
        TokenField::Malformed => assert_eq!(json::string(token.unwrap()), None),
    }

    let names =
        ["clientId", "client_id"].map(|name| value(fields, name).filter(|raw| *raw != "null"));
    let requested = names.into_iter().flatten().next();
    match &auth.client_id {
        RequestedId::Any => assert!(requested.is_none() || requested == Some("\"\"")),
        RequestedId::This(id) => {
            assert_eq!(json::string(requested.unwrap()).as_deref(), Some(&**id));
            assert!(may_be_client_id(id), "{id:?}");
        }
        RequestedId::Malformed => {
            assert!(!json::string(requested.unwrap()).is_some_and(|id| may_be_client_id(&id)));
        }
    }
}

fn may_be_client_id(id: &str) -> bool {
    const ALLOWED: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-";
    (1..=128).contains(&id.chars().count()) && id.chars().all(|char| ALLOWED.contains(char))
}
