//! Which room somebody is in, and what others learn of it (group R of the catalogue).

use std::fs;

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    attacked_server::AttackedServer,
    raw::{ask, upgrade},
};

fn room(id: &str, users: usize) -> Value {
    json!({"room_id":id,"connected_users":users,"is_active":true})
}

/// R01: a room has one name, whatever its spelling; names that only look alike are others.
#[tokio::test]
async fn a_room_id_is_percent_decoded() {
    let server = AttackedServer::start(&[]).await;

    for (one, other, same) in [
        ("abc", "%61bc", true),
        ("Zimmer%207%2f%C3%A9", "%5aimmer%20%37%2F%c3%a9", true),
        ("a+b", "a%2Bb", true),
        ("caf%C3%A9", "cafe%CC%81", false), // composed and decomposed
        ("Abc", "abc", false),
        ("%2561bc", "abc", false), // decoded once only
        ("a+c", "a%20c", false),
        ("r%C3%B6m", "rom", false),
    ] {
        let first = server.join(one, "carol").await;
        let (second, there) = server.join_as(other, "dave", Value::Null).await;

        let found = json!([{"client_id":first.id,"username":"carol","polite":true}]);
        assert_eq!(there, if same { found } else { json!([]) }, "{one} {other}");
        second.leave().await;
        first.leave().await;
    }

    server.assert_unharmed().await;
}

/// R02, R03, R04, R05: what is no name of a room is refused before the upgrade; what is one, however odd,
/// is a room and nothing else: no file, no other URL.
#[tokio::test]
async fn an_unusual_room_id_is_accepted_or_rejected() {
    let server = AttackedServer::start(&[]).await;
    let listed = || {
        let files =
            fs::read_dir(server.folder.path()).unwrap().map(|file| file.unwrap().file_name());
        let mut files: Vec<_> = files.collect();
        files.sort();
        files
    };
    let before = listed();

    for (name, status) in [
        ("%ff", 400),
        ("a%ffb", 400),
        ("%ED%A0%80", 400), // a surrogate
        ("%C0%AF", 400),    // a slash, longer than need be
        ("%00", 400),
        ("a%00b", 400),
        ("a%0Ab", 400),
        ("a%0D%0AInjected:%20yes", 400),
        ("%1b%5b2J", 400),
        ("%7F", 400),
        ("%C2%80", 400),
        (&"a".repeat(129), 400),
        (&"%C3%A9".repeat(129), 400),
        (&"a".repeat(20_000), 400),
        (&"a".repeat(60 << 10), 431),
        ("", 404),
        ("/", 404),
        ("a/b", 404),
        ("../den", 404),
        ("..", 400),
        (".", 400),
        ("%2e%2e", 400),
        ("%2E", 400),
    ] {
        let answer = ask(server.address, upgrade(name) + "\r\n").await.unwrap();

        assert_eq!(answer.status, status, "{name:.40}");
        assert!(!answer.head.to_lowercase().contains("\ninjected"), "{answer:?}");
    }
    for (name, id) in [
        ("..%2f..%2fetc%2fpasswd", "../../etc/passwd"),
        ("..%5c..%5cusers.csv", "..\\..\\users.csv"),
        ("users.csv", "users.csv"),
        ("...", "..."),
        ("%252e", "%2e"),
        ("a%", "a%"),
        ("a%zz", "a%zz"),
        ("%20", " "),
        ("%22%3E%3Cscript%3E", "\"><script>"),
        ("__proto__", "__proto__"),
        ("%E2%80%AEmoor", "\u{202e}moor"),
        ("*", "*"),
        (&"%F0%9F%98%80".repeat(128), &"😀".repeat(128)),
    ] {
        // By hand: other clients tidy up such a path before they send it.
        let mut socket = server.raw_socket(name).await;
        socket.authenticate(&server.token("carol")).await;
        let rooms: Value =
            server.request(Method::GET, "/api/rooms").send().await.unwrap().json().await.unwrap();

        assert!(rooms.as_array().unwrap().contains(&room(id, 1)), "{name}: {rooms}");
    }

    assert_eq!(listed(), before);
    server.assert_unharmed().await;
}

/// R07: the same id in two rooms is two members, who cannot reach each other.
#[tokio::test]
async fn rooms_are_isolated_from_each_other() {
    let server = AttackedServer::start(&[]).await;
    let (mut here, _) = server.join_as("hall", "carol", json!("same")).await;
    let (mut there, _) = server.join_as("cellar", "carol", json!("same")).await;
    let (mut dave, _) = server.join_as("hall", "dave", json!("only-in-hall")).await;
    here.receive().await;

    dave.send(json!({"type":"offer","offer":{"n":1},"to":"same"})).await;
    dave.send(json!({"type":"message","data":2})).await;
    assert_eq!(here.receive().await["offer"], json!({"n":1}));
    assert_eq!(here.receive().await["data"], 2);
    let to_dave = json!({"type":"offer","offer":{},"to":"only-in-hall"}).to_string();
    assert_eq!(there.error_after(&to_dave).await["code"], "target_not_found");
    there.send(json!({"type":"message","data":3})).await;
    there.assert_no_more_messages().await;

    dave.assert_no_more_messages().await;
    here.assert_no_more_messages().await;
    drop((here, there, dave));
    server.assert_unharmed().await;
}

/// R08, R09: a stranger learns how many are in which rooms, not who; a room that is empty is gone.
#[tokio::test]
async fn an_unauthenticated_request_lists_rooms_without_usernames() {
    let server = AttackedServer::start(&[]).await;
    let (carol, _) = server.join_as("hall", "carol", json!("her-client-id")).await;
    let dave = server.join("hall", "dave").await;
    let get = async |path: &str| {
        let answer = server.request(Method::GET, path).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };

    let (_, list) = get("/api/rooms").await;
    let (_, info) = get("/api/rooms/hall/info").await;
    let (_, health) = get("/health").await;
    assert_eq!(
        serde_json::from_str::<Value>(&list).unwrap(),
        json!([room("attic", 2), room("den", 2), room("hall", 2)])
    );
    assert_eq!(serde_json::from_str::<Value>(&info).unwrap(), room("hall", 2));
    for text in [&list, &info, &health] {
        for name in ["carol", "dave", "alice", "her-client-id", &dave.id] {
            assert!(!text.contains(name), "{name} in {text}");
        }
    }

    carol.leave().await;
    let (_, info) = get("/api/rooms/hall/info").await;
    assert_eq!(serde_json::from_str::<Value>(&info).unwrap(), room("hall", 1));
    dave.leave().await;
    assert_eq!(get("/api/rooms/hall/info").await.0, 404);
    assert!(!get("/api/rooms").await.1.contains("hall"));
    server.assert_unharmed().await;
}

/// R10.
#[tokio::test]
async fn invalid_paths_describe_no_room() {
    let server = AttackedServer::start(&[]).await;

    for path in [
        "/api/rooms/nowhere/info",
        "/api/rooms/%ff/info",
        "/api/rooms/%00/info",
        "/api/rooms/..%2f..%2fden/info",
        "/api/rooms/den%2finfo",
        "/api/rooms//info",
        "/api/rooms/den//info",
        "/api/rooms/den/info/x",
        "/api/rooms/den",
        "/api/rooms/DEN/info",
        "/api/rooms/den%20/info",
        "/api/rooms/*/info",
    ] {
        for method in ["GET", "POST"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
            let answer = ask(server.address, request).await.unwrap();

            assert_eq!(answer.status, 404, "{method} {path}");
            assert!(answer.json()["detail"].is_string(), "{method} {path}");
        }
    }

    server.assert_unharmed().await;
}
