//! Room ids: what a URL names, all doors agree on.

use std::{cell::OnceCell, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, Uri},
};
use serde_json::Value;
use signaling::{
    auth::{revocation::RevokedTokens, users::Users},
    config::Config,
    delivery, http,
    moderation::ModerationRules,
    net::{ConnectionInfo, HttpService, PeerAddress, workers::Workers},
    rooms::{Membership, Peer, is_room_id},
    state::AppState,
};
use tokio::runtime::Runtime;
use tower::ServiceExt;

/// One server for all inputs, and the runtime that it runs on.
struct Server {
    app: AppState,
    service: HttpService,
    runtime: Runtime,
}

thread_local! {
    static SERVER: OnceCell<Server> = const { OnceCell::new() };
}

/// Any bytes as the segment of a URL that names a room, percent-encoded or not.
pub fn room_id(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        assert_eq!(is_room_id(text), may_be_room(text));
    }
    let Ok(segment) = str::from_utf8(data) else { return };
    if segment.is_empty() || segment.contains(['/', '?', '#']) || !segment.is_ascii() {
        return; // another URL, or none
    }
    let Ok(uri) = format!("/ws/{segment}").parse::<Uri>() else { return };
    let room = String::from_utf8(decoded(segment)).ok().filter(|room| may_be_room(room));
    SERVER.with(|server| server.get_or_init(build).check(uri, segment, room));
}

fn build() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    std::fs::write(&path, "username,hashed_password\n").unwrap();
    let (users, _) = Users::load(&path).unwrap();
    let revoked = RevokedTokens::load(&path, 0).unwrap();
    let rules = ModerationRules::load(&path).unwrap();
    let config = Config::read(|name| match name {
        "DEBUG" => Some("true".into()),
        "REQUIRE_HTTPS" => Some("false".into()),
        "RATE_LIMIT_PER_MINUTE" | "JOINS_PER_MINUTE" => Some("0".into()),
        _ => None,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let app = runtime.block_on(async { AppState::new(config.unwrap(), users, revoked, rules) });
    Server { service: http::http_service(&app), app, runtime }
}

impl Server {
    fn check(&self, uri: Uri, segment: &str, room: Option<String>) {
        // Nothing here asks for a WebSocket: a good room is refused for that, a bad one for itself.
        let (status, answer) = self.ask(uri);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        let about_room = answer["detail"].as_str().unwrap().starts_with("A room id has 1 to 128");
        assert_eq!(about_room, room.is_none(), "{segment:?} names {room:?}: {answer}");

        let info = format!("/api/rooms/{segment}/info").parse().unwrap();
        let Some(room) = room else {
            return assert_eq!(self.ask(info).0, StatusCode::NOT_FOUND);
        };
        let (outbox, _mailbox) = delivery::channel();
        let peer = Peer { client_id: "a".into(), username: "alice".into(), name: None };
        let membership =
            Membership::join_local(&self.app.rooms, &Arc::from(&*room), peer, outbox).unwrap();
        let (status, answer) = self.ask(info);
        drop(membership);
        assert_eq!(status, StatusCode::OK, "a member is in {room:?}");
        assert_eq!(
            (answer["room_id"].as_str(), &answer["connected_users"]),
            (Some(&*room), &1.into())
        );
    }

    fn ask(&self, uri: Uri) -> (StatusCode, Value) {
        self.runtime.block_on(async {
            let workers = Workers::start(1).unwrap();
            let peer = PeerAddress::Ip(([192, 0, 2, 1], 80).into());
            let (tcp_proxy, slot, turns) = (None, Arc::default(), Arc::default());
            let transport = ConnectionInfo { peer, tls: false, tcp_proxy, slot, workers, turns };
            let request = Request::get(uri).header("host", "fuzzed").extension(transport);
            let answered = self.service.clone().oneshot(request.body(Body::empty()).unwrap()).await;
            let Ok(answer) = answered;
            let status = answer.status();
            let body = to_bytes(answer.into_body(), 64 * 1024).await.unwrap();
            (status, serde_json::from_slice(&body).expect("every answer is JSON"))
        })
    }
}

/// Contract section 2, without the segments that URLs cannot have (RFC 3986 section 3.3).
fn may_be_room(room: &str) -> bool {
    if room == "." || room == ".." {
        return false;
    }
    let is_control = |char| matches!(char, '\0'..='\x1f' | '\x7f'..='\u{9f}');
    (1..=128).contains(&room.chars().count()) && !room.chars().any(is_control)
}

/// RFC 3986 section 2.1; a `%` without two digits stands for itself.
fn decoded(segment: &str) -> Vec<u8> {
    let (mut rest, mut bytes) = (segment.as_bytes(), Vec::new());
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|two| *first == b'%' && two.iter().all(u8::is_ascii_hexdigit));
        match digits {
            Some(two) => {
                let two = str::from_utf8(two).unwrap();
                bytes.push(u8::from_str_radix(two, 16).unwrap());
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
