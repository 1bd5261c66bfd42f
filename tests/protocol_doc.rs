//! Every example in docs/build/protocol.md is understood, or is what the server sends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "these are tests"
)]

use std::time::Duration;

use serde_json::{Value, value::RawValue};
use signaling::{
    delivery::ResumeError,
    moderation::ModerationRefusal,
    protocol::{
        self, ClientMessage, IceServer, MessageLimits, RawJson, ResumeOffer, RosterEntry,
        SenderSuffix, ServerMessage, Signal, SignalKind,
    },
};

const DOCUMENT: &str = include_str!("../docs/build/protocol.md");

/// The blocks that open with this line.
fn blocks(opening: &str) -> Vec<&'static str> {
    let blocks: Vec<_> = DOCUMENT
        .split(opening)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().trim())
        .collect();
    assert!(!blocks.is_empty());
    blocks
}

#[test]
fn the_server_understands_every_client_message() {
    let mut kinds = Vec::new();
    for block in blocks("```json client\n") {
        let read = protocol::parse(block);

        kinds.push(match read.message.unwrap_or_else(|error| panic!("{block}: {error}")) {
            ClientMessage::AuthToken(_) => "auth_token".to_owned(),
            ClientMessage::Ping => "ping".to_owned(),
            ClientMessage::Resume(_) => "resume".to_owned(),
            ClientMessage::CallReport(_) => "call_report".to_owned(),
            ClientMessage::Moderate(request) => request.as_str().to_owned(),
            ClientMessage::Signal(signal) => format!("{:?}", signal.kind),
        });
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "Answer",
            "IceCandidate",
            "Message",
            "Offer",
            "auth_token",
            "call_report",
            "kick",
            "lock",
            "mute",
            "ping",
            "resume",
            "unlock",
            "unmute"
        ],
        "a kind of message is not documented"
    );
}

#[test]
fn the_server_sends_every_server_message_exactly_so_and_no_other() {
    let raw = |json: &str| RawValue::from_string(json.to_owned()).unwrap();
    let (offer, answer) =
        (raw(r#"{"type":"offer","sdp":"v=0…"}"#), raw(r#"{"type":"answer","sdp":"v=0…"}"#));
    let candidate = raw(
        r#"{"candidate":"candidate:1 1 udp 2122260223 192.0.2.1 54321 typ host","sdpMid":"0","sdpMLineIndex":0}"#,
    );
    let (muted, id) = (raw(r#"{"muted":true}"#), raw("7"));
    let text = raw(r#"{"text":"Maintenance at ten"}"#);
    let ice_servers = [
        IceServer {
            urls: vec!["stun:turn.example.com:3478".into()],
            username: None,
            credential: None,
        },
        IceServer {
            urls: vec!["turn:turn.example.com:3478".into()],
            username: Some("1704067200:alice".into()),
            credential: Some("4gGuYbOmCDpGhM3M5zDHcvWRPOk=".into()),
        },
    ];
    let (alice, laptop, bob, phone, room_id) =
        ("alice", "alice-laptop", "bob", "bob-phone", "standup");
    let message = "Authentication required";
    let heard = |kind, payload: &RawValue, (from, username)| {
        Signal { kind, payload: RawJson::from(payload), to: None, id: None }
            .encode_for_peers(&SenderSuffix::new(from, username))
    };
    let resume_offer = Some(ResumeOffer {
        resume_token: "eyJhbGciOiJIUzI1NiJ9.eyJyb29tIjoi…",
        resume_window_seconds: 30,
    });
    let limits = MessageLimits {
        max_message_bytes: 65_536,
        messages_per_second: 50,
        message_burst: 250,
        bytes_per_second: 1_048_576,
    };
    let moderation_id = RawValue::from_string("8".to_owned()).unwrap();
    let refused_moderation = ModerationRefusal::TooOften(Duration::from_millis(939));
    let state = |state| ServerMessage::PeerState { client_id: phone, state }.encode();
    let sent = [
        ServerMessage::AuthRequired { message, guests: false }.encode(),
        ServerMessage::AuthRequired { message, guests: true }.encode(),
        ServerMessage::AuthSuccess {
            user: alice,
            client_id: laptop,
            message: "Authentication successful",
            expires_in: Some(1800),
            limits,
            ice_servers: &ice_servers,
            ice_transport_policy: None,
            permissions: None,
            resume_offer,
        }
        .encode(),
        ServerMessage::UsersInRoom {
            users: vec![RosterEntry { client_id: phone, username: bob, name: None, polite: true }],
        }
        .encode(),
        ServerMessage::UserJoined {
            room_id,
            username: alice,
            client_id: laptop,
            name: None,
            connected_users: 2,
            polite: false,
        }
        .encode(),
        ServerMessage::UserJoined {
            room_id,
            username: "u-17",
            client_id: "ada-phone",
            name: Some("Ada Lovelace"),
            connected_users: 3,
            polite: false,
        }
        .encode(),
        ServerMessage::Error {
            message: "You join or resume too often; try again after the given time",
            code: "rate_limited",
            id: None,
            retry: Some(true),
            retry_after_ms: Some(1200),
            max_message_bytes: None,
        }
        .encode(),
        heard(SignalKind::Offer, &offer, (laptop, alice)),
        heard(SignalKind::Answer, &answer, (phone, bob)),
        heard(SignalKind::IceCandidate, &candidate, (laptop, alice)),
        heard(SignalKind::IceCandidate, RawValue::NULL, (laptop, alice)),
        heard(SignalKind::Message, &muted, (laptop, alice)),
        ServerMessage::Pong.encode(),
        ServerMessage::TokenRefreshed {
            expires_in: 1800,
            ice_transport_policy: None,
            permissions: None,
            resume_offer: None,
        }
        .encode(),
        ServerMessage::IceServers { ice_servers: ice_servers.get(1..).unwrap(), ttl: 86_400 }
            .encode(),
        ServerMessage::Limits { limits }.encode(),
        ServerMessage::Moderated { action: "kick", id: Some((&*moderation_id).into()) }.encode(),
        ServerMessage::Error {
            message: &refused_moderation.to_string(),
            code: refused_moderation.code(),
            id: Some((&*moderation_id).into()),
            retry: None,
            retry_after_ms: Some(940),
            max_message_bytes: None,
        }
        .encode(),
        ServerMessage::Announcement { data: &text }.encode(),
        ServerMessage::UserLeft { room_id, client_id: phone, username: bob, connected_users: 1 }
            .encode(),
        ServerMessage::Error {
            message: "Target client carol not found",
            code: "target_not_found",
            id: Some((&*id).into()),
            retry: None,
            retry_after_ms: None,
            max_message_bytes: None,
        }
        .encode(),
        ServerMessage::Error {
            message: "A message has at most 65536 bytes; this one was longer and is discarded",
            code: "message_too_big",
            id: None,
            retry: None,
            retry_after_ms: None,
            max_message_bytes: Some(65_536),
        }
        .encode(),
        ServerMessage::Error {
            message: "The server is restarting",
            code: "server_restarting",
            id: None,
            retry: Some(true),
            retry_after_ms: Some(4200),
            max_message_bytes: None,
        }
        .encode(),
        ServerMessage::ServerShutdown { reconnect_in_ms: 4200 }.encode(),
        protocol::with_seq(&heard(SignalKind::Message, &muted, (phone, bob)), 2),
        ServerMessage::Resumed {
            client_id: laptop,
            replayed: 1,
            users: vec![RosterEntry { client_id: phone, username: bob, name: None, polite: true }],
            limits,
            ice_servers: &[],
            ice_transport_policy: None,
            permissions: None,
            resume_offer,
        }
        .encode(),
        ServerMessage::Error {
            message: &ResumeError::Ended.to_string(),
            code: "resume_failed",
            id: None,
            retry: None,
            retry_after_ms: None,
            max_message_bytes: None,
        }
        .encode(),
        state("reconnecting"),
        state("connected"),
    ];

    let sent: Vec<Value> = sent.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect();
    let documented: Vec<Value> = blocks("```json server\n")
        .into_iter()
        .map(|block| serde_json::from_str(block).unwrap())
        .collect();

    assert_eq!(documented, sent);
}

const CODES: &str = include_str!("../docs/reference/close-and-error-codes.md");

/// The clients decide by `clients/closes.json` whether to reconnect.
#[test]
fn the_table_of_close_codes_lists_what_the_server_sends_and_the_clients_know() {
    let table = CODES.split("\n## Close codes\n").nth(1).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| 1") || line.starts_with("| 4"));
    let documented: Vec<(u64, &str, Vec<&str>)> = rows
        .map(|row| {
            let cells: Vec<_> = row.split(" | ").collect();
            let code = cells[0].trim_start_matches("| ").parse().unwrap();
            let errors = cells[2].split('`').skip(1).step_by(2).collect();
            (code, cells[1].split('`').nth(1).unwrap(), errors)
        })
        .collect();
    let known: Vec<Value> = serde_json::from_str(include_str!("../clients/closes.json")).unwrap();
    // A client's own close, one without a code, and what only a browser or a proxy reports.
    let sent = known
        .iter()
        .filter(|close| ![1000, 1005, 1006, 1014].map(Value::from).contains(&close["code"]));

    for close in sent.clone() {
        let (code, reason) = (close["code"].as_u64().unwrap(), close["reason"].as_str().unwrap());
        let error = close.pointer("/error/code").and_then(Value::as_str);
        assert!(
            documented.iter().any(|(listed, why, errors)| (*listed, *why) == (code, reason)
                && error.is_none_or(|error| errors.contains(&error))),
            "not in the table: {close}"
        );
    }
    for (code, reason, _) in &documented {
        assert!(
            sent.clone().any(|close| close["code"] == *code && close["reason"] == *reason),
            "unknown to the clients: {code} {reason}"
        );
    }
}
