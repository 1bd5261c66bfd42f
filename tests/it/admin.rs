//! What administrators see and do, over real sockets.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signaling::moderation::{RuleKind, Subject};

use crate::harness::{
    Client, TestServer, join_pair,
    process::{RestartableServer, command, text},
    resumable::RESUME,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn open(settings: &[(&str, &str)]) -> TestServer {
    let mut all = vec![("ADMIN_TOKEN", TOKEN)];
    all.extend(settings);
    TestServer::start(&all).await
}

async fn see(server: &TestServer, path: &str) -> Value {
    let path = format!("/admin/api/{path}");
    let answer = server.request(Method::GET, &path).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer.json().await.unwrap()
}

/// The status and the body of an act.
async fn act(server: &TestServer, path: &str, body: Value) -> (u16, Value) {
    let request = server.request(Method::POST, &format!("/admin/api/{path}"));
    let answer = request.bearer_auth(TOKEN).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn done(server: &TestServer, path: &str, body: Value) -> Value {
    let (status, answer) = act(server, path, body).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// A member of `room` as `username` that may resume, and its resume token.
async fn resumable(server: &TestServer, room: &str, username: &str, id: &str) -> (Client, String) {
    let mut client = server.connect(room).await;
    client.receive().await;
    let token = server.token(username);
    client
        .send(json!({"type":"auth_token","token":token,"clientId":id,"features":["resume"]}))
        .await;
    let success = client.receive().await;
    client.id = success["client_id"].as_str().unwrap().to_owned();
    assert_eq!(client.receive().await["type"], "users_in_room");
    (client, success["resume_token"].as_str().unwrap().to_owned())
}

/// How somebody is refused who introduces himself: the code of the error, and the close.
async fn refusal(server: &TestServer, room: &str, username: &str) -> (String, u16, String) {
    let mut client = server.connect(room).await;
    client.receive().await;
    client.send(json!({"type":"auth_token","token":server.token(username)})).await;
    let (before, (close, reason)) = client.read_to_close().await;
    assert_eq!(before.len(), 1, "{before:?}");
    (before[0]["code"].as_str().unwrap().to_owned(), close, reason)
}

fn banned() -> (String, u16, String) {
    ("banned".into(), 4002, "Removed by an administrator".into())
}

#[tokio::test]
async fn the_admin_api_asks_for_the_admin_token_and_does_not_exist_without_one() {
    let server = open(&[]).await;
    let nothing = TestServer::start(&[]).await;
    let user = server.token("alice");
    let ask = async |server: &TestServer, method: Method, path: &str, token: Option<&str>| {
        let request = server.request(method, &format!("/admin/api/{path}"));
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.unwrap().status().as_u16()
    };
    let reads = ["status", "rooms", "rooms/den", "rooms/den/timeline", "rules"];
    let acts = [
        "ban",
        "remove",
        "drain",
        "rooms/den/kick",
        "rooms/den/mute",
        "rooms/den/unmute",
        "rooms/den/lock",
        "rooms/den/unlock",
        "rooms/den/close",
        "rooms/den/capacity",
        "rooms/den/message",
    ];
    let all = reads
        .map(|path| (Method::GET, path))
        .into_iter()
        .chain(acts.map(|path| (Method::POST, path)));

    for (method, path) in all {
        for token in [None, Some("wrong"), Some(&TOKEN[1..]), Some(&*user)] {
            assert_eq!(ask(&server, method.clone(), path, token).await, 401, "{path} {token:?}");
        }
        assert_eq!(ask(&nothing, method, path, Some(TOKEN)).await, 404, "{path}");
    }
    assert_eq!(ask(&server, Method::GET, "status", Some(TOKEN)).await, 200);
}

#[tokio::test]
async fn the_request_rate_limit_applies_to_all_but_administrators() {
    let server = open(&[("RATE_LIMIT_PER_MINUTE", "2")]).await;

    for _ in 0..5 {
        see(&server, "status").await;
    }
    let mut last = StatusCode::OK;
    for _ in 0..3 {
        last = server
            .request(Method::GET, "/admin/api/status")
            .bearer_auth("guess")
            .send()
            .await
            .unwrap()
            .status();
    }

    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_room_shows_its_members_with_address_and_media_path() {
    let server = open(&[]).await;
    let (alice, _) = resumable(&server, "den", "alice", "a").await;
    let mut bob = server.join_as("den", "bob", json!("b")).await.0;
    bob.send(
        json!({"type":"call_report","peer":"a","outcome":"connected","ms":420,"path":"relay"}),
    )
    .await;
    bob.assert_no_more_messages().await;
    drop(alice);
    bob.assert_no_more_messages().await;

    let room = loop {
        let room = see(&server, "rooms/den").await;
        if room["members"][0]["is_detached"] == true {
            break room;
        }
    };
    let rooms = see(&server, "rooms").await;

    assert_eq!(
        rooms,
        json!([{"room_id":"den","connected_users":2,"capacity":10,"is_locked":false}])
    );
    let (a, b) = (&room["members"][0], &room["members"][1]);
    assert_eq!(
        (&a["client_id"], &a["username"], &a["address"]),
        (&json!("a"), &json!("alice"), &Value::Null)
    );
    assert_eq!(
        (&b["is_detached"], &b["address"], &b["path"]),
        (&json!(false), &json!("127.0.0.1"), &json!("relay"))
    );
    let missing = server
        .request(Method::GET, "/admin/api/rooms/attic")
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_kicked_member_is_disconnected_at_once_and_cannot_resume() {
    let server = open(&[]).await;
    let (alice, ticket) = resumable(&server, "den", "alice", "a").await;
    let mut bob = server.join("den", "bob").await;

    let order = done(&server, "rooms/den/kick", json!({"client_id":"a"})).await;

    assert_eq!((&order["room"], &order["who"]), (&json!("den"), &json!({"client_id":"a"})));
    let (before, close) = alice.read_to_close().await;
    let error = before.last().unwrap();
    assert_eq!((&error["code"], &error["retry"]), (&json!("removed"), &json!(false)));
    assert_eq!(close, (4002, "Removed by an administrator".into()));
    let left = bob.receive().await;
    assert_eq!((&left["type"], &left["client_id"]), (&json!("user_left"), &json!("a")));
    let mut back = server.connect("den").await;
    back.receive().await;
    back.send(json!({"type":"resume","resume_token":ticket,"last_seq":1})).await;
    assert_eq!(back.receive().await["code"], "resume_failed");
    let again = server.join_as("den", "alice", json!("a")).await.0;
    assert_eq!(bob.receive().await["type"], "user_joined");
    bob.assert_no_more_messages().await;
    again.leave().await;
}

#[tokio::test]
async fn a_detached_member_can_be_kicked_and_its_peers_receive_one_user_left() {
    let server = open(&[]).await;
    let (alice, _) = resumable(&server, "den", "alice", "a").await;
    let mut bob = server.join_as("den", "bob", json!("b")).await.0;
    drop(alice);
    while see(&server, "rooms/den").await["members"][0]["is_detached"] != true {}

    done(&server, "rooms/den/kick", json!({"username":"alice"})).await;

    assert_eq!(bob.receive().await["type"], "user_left");
    bob.assert_no_more_messages().await;
    let (status, answer) = act(&server, "rooms/den/kick", json!({"username":"alice"})).await;
    assert_eq!((status, &answer["detail"]), (404, &json!("No such member is in this room")));
}

#[tokio::test]
async fn a_ban_of_a_user_denies_entry_under_every_client_id_until_it_is_removed() {
    let server = open(&[]).await;
    let alice = server.join_as("den", "alice", json!("a")).await.0;
    let elsewhere = server.join("attic", "alice").await;

    done(&server, "rooms/den/kick", json!({"username":"alice","ban_seconds":3600})).await;
    let kicked = alice.read_to_close().await.1.0;
    let refused = refusal(&server, "den", "alice").await;
    // A fresh token is no way back in.
    let refreshed = server
        .request(Method::POST, "/auth/refresh")
        .bearer_auth(server.token("alice"))
        .send()
        .await
        .unwrap();
    assert_eq!(refreshed.status(), StatusCode::OK);
    let still = refusal(&server, "den", "alice").await;
    let orders = see(&server, "rules").await;
    done(&server, "remove", orders["rules"][0].clone()).await;
    server.join("den", "alice").await.leave().await;

    assert_eq!((kicked, refused, still), (4002, banned(), banned()));
    elsewhere.leave().await;
    let (status, _) = act(&server, "remove", orders["rules"][0].clone()).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn kicks_without_end_keep_no_rule_out() {
    let server = open(&[]).await;
    let now = signaling::clock::unix_now();
    let rules = &server.app.moderation_rules;
    for number in 0..12_000 {
        let room = Some("den".to_owned());
        let about = RuleKind::Ban { room, subject: Subject::ClientId(format!("evades-{number}")) };
        let kick = rules.create(about, None, now * 1000, 0).unwrap();
        rules.merge(kick, now);
    }
    let mut member = server.join("den", "alice").await;

    done(&server, "ban", json!({"username":"mallory","seconds":600})).await;
    for path in ["lock", "unlock", "close"] {
        done(&server, &format!("rooms/hall/{path}"), json!({})).await;
    }
    done(&server, "rooms/den/capacity", json!({"members":3})).await;
    done(&server, "rooms/den/kick", json!({"client_id":member.id})).await;

    assert_eq!(member.receive().await["code"], "removed");
    let rules = see(&server, "rules").await;
    assert_eq!(rules["rules"].as_array().unwrap().len(), 2, "{rules}");
}

#[tokio::test]
async fn a_ban_says_whether_it_is_about_anybody() {
    let server = open(&[]).await;
    let bob = server.join("den", "bob").await;
    let ban = async |body: Value| done(&server, "ban", body).await["is_known"].clone();

    assert_eq!(ban(json!({"username":"alice","seconds":60})).await, true, "an account");
    assert_eq!(ban(json!({"username":"malory","seconds":60})).await, false);
    let client = |id: &str| json!({"client_id":id,"room_id":"den","seconds":60});
    assert_eq!(ban(client("nobody")).await, false);
    assert_eq!(ban(client(&bob.id)).await, true);
    let kick =
        done(&server, "rooms/hall/kick", json!({"username":"malory","ban_seconds":60})).await;
    assert_eq!(kick["is_known"], false);
    assert!(done(&server, "rooms/den/lock", json!({})).await.get("is_known").is_none());
    assert_eq!(refusal(&server, "den", "alice").await, banned());
}

/// A folder stands where the file must go, so that it cannot be replaced.
#[tokio::test]
async fn what_was_not_written_to_disk_is_not_answered_as_if_it_were() {
    let server = open(&[]).await;
    for file in ["users.csv.orders", "users.csv.revoked"] {
        std::fs::create_dir(server.folder.path().join(file)).unwrap();
    }
    let ban = json!({"username":"alice","seconds":600});

    let request = server.request(Method::POST, "/admin/api/ban").bearer_auth(TOKEN).json(&ban);
    let answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()),
        (503, "5")
    );
    let detail = answer.json::<Value>().await.unwrap()["detail"].to_string();
    assert!(detail.contains("could not be written to disk"), "{detail}");
    assert_eq!(act(&server, "rooms/den/lock", json!({})).await.0, 503);
    assert_eq!(refusal(&server, "hall", "alice").await, banned(), "it applies all the same");
    let log_out = async |username: &str| {
        let request = server.request(Method::POST, "/auth/logout");
        let answer = request.bearer_auth(server.token(username)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let message = "Successfully logged out";
    assert_eq!(log_out("bob").await, json!({"message":message,"persisted":false}));

    for file in ["users.csv.orders", "users.csv.revoked"] {
        std::fs::remove_dir(server.folder.path().join(file)).unwrap();
    }
    done(&server, "ban", ban).await;
    assert_eq!(act(&server, "rooms/den/unlock", json!({})).await.0, 200);
    assert_eq!(log_out("carol").await, json!({"message":message}));
}

#[tokio::test]
async fn a_ban_from_all_rooms_ends_every_session_of_that_user_and_no_other() {
    let server = open(&[]).await;
    let (one, other) = (server.join("den", "alice").await, server.join("attic", "alice").await);
    let mut bob = server.join("attic", "bob").await;

    done(&server, "ban", json!({"username":"alice","seconds":60})).await;

    assert_eq!((one.read_to_close().await.1.0, other.read_to_close().await.1.0), (4002, 4002));
    assert_eq!(bob.receive().await["type"], "user_left");
    bob.assert_no_more_messages().await;
    assert_eq!(refusal(&server, "cellar", "alice").await, banned());
}

#[tokio::test]
async fn a_locked_room_admits_only_members_that_resume() {
    let server = open(&[]).await;
    let (alice, ticket) = resumable(&server, "Zimmer%207%2F%C3%A9", "alice", "a").await;

    done(&server, "rooms/Zimmer%207%2F%C3%A9/lock", json!({})).await;
    let refused = refusal(&server, "Zimmer%207%2F%C3%A9", "bob").await;
    drop(alice);
    let mut back = server.connect("Zimmer%207%2F%C3%A9").await;
    back.receive().await;
    back.send(json!({"type":"resume","resume_token":ticket,"last_seq":1})).await;
    let resumed = back.receive().await;
    let seen = see(&server, "rooms/Zimmer%207%2F%C3%A9").await;
    done(&server, "rooms/Zimmer%207%2F%C3%A9/unlock", json!({})).await;
    server.join("Zimmer%207%2F%C3%A9", "bob").await;

    assert_eq!(refused, ("room_locked".into(), 1008, "Room is locked".into()));
    assert_eq!(resumed["type"], "resumed");
    assert_eq!((&seen["is_locked"], &seen["rules"][0]["rule"]), (&json!(true), &json!("lock")));
}

#[tokio::test]
async fn a_closed_room_is_empty_and_denies_entry_for_the_time_that_was_given() {
    let server = open(&[]).await;
    let (alice, bob) = join_pair(&server, "den").await;

    done(&server, "rooms/den/close", json!({"seconds":60})).await;

    assert_eq!((alice.read_to_close().await.1.0, bob.read_to_close().await.1.0), (4002, 4002));
    assert_eq!(refusal(&server, "den", "carol").await, banned());
    done(&server, "rooms/attic/close", json!({})).await;
    server.join("attic", "carol").await;
}

#[tokio::test]
async fn an_administrator_sets_the_capacity_of_a_room() {
    let server = open(&[("MAX_CONNECTIONS_PER_ROOM", "2")]).await;
    let _inside = join_pair(&server, "den").await;

    let full = refusal(&server, "den", "carol").await;
    done(&server, "rooms/den/capacity", json!({"members":3})).await;
    let carol = server.join("den", "carol").await;
    done(&server, "rooms/den/capacity", json!({"members":null})).await;
    let still = refusal(&server, "den", "carol").await;

    assert_eq!((full.0, still.0), ("room_full".into(), "room_full".into()));
    carol.leave().await;
}

#[tokio::test]
async fn a_message_from_an_administrator_reaches_its_addressees_unchanged() {
    let server = open(&[]).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;
    let say = async |body: &str| {
        let request =
            server.request(Method::POST, "/admin/api/rooms/den/message").bearer_auth(TOKEN);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    };

    assert_eq!(say(r#"{"data":{"b": 1.0,"a":"\u00e9"}}"#).await, 200);
    assert_eq!(say(&format!(r#"{{"data":"for you","to":"{}"}}"#, bob.id)).await, 200);
    assert_eq!(say(r#"{"data":1,"to":"nobody"}"#).await, 404);

    assert_eq!(
        alice.receive_text().await,
        r#"{"type":"server_message","data":{"b": 1.0,"a":"\u00e9"}}"#
    );
    alice.assert_no_more_messages().await;
    assert_eq!(bob.receive().await["type"], "server_message");
    assert_eq!(bob.receive().await["data"], "for you");
}

#[tokio::test]
async fn a_timeline_shows_why_a_call_failed_and_no_payload() {
    let server = open(&[("MAX_CONNECTIONS_PER_ROOM", "2")]).await;
    let (mut alice, _) = server.join_as("den", "alice", json!("a")).await;
    let mut bob = server.join_as("den", "bob", json!("b")).await.0;
    let offer = json!({"type":"offer","offer":{"sdp":"v=0 s3cr3t-payload 192.0.2.77"},"to":"b"});
    alice.send(offer).await;
    alice.send(json!({"type":"ice_candidate","candidate":null})).await;
    let unknown = json!({"type":"offer","offer":{},"to":"zed"}).to_string();
    assert_eq!(alice.receive().await["type"], "user_joined");
    assert_eq!(alice.error_after(&unknown).await["code"], "target_not_found");
    assert_eq!(refusal(&server, "den", "carol").await.0, "room_full");
    bob.send(json!({"type":"call_report","peer":"a","outcome":"failed","ms":9000})).await;
    bob.receive().await;
    bob.receive().await;
    bob.assert_no_more_messages().await;
    bob.leave().await;
    assert_eq!(alice.receive().await["type"], "user_left");
    alice.leave().await;

    let story = loop {
        let story = see(&server, "rooms/den/timeline").await;
        if story["is_open"] == false {
            break story;
        }
    };
    let events = story["events"].as_array().unwrap();
    let line = |event: &Value| {
        let field = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
        [field("type"), field("client_id"), field("to"), field("outcome")].join(" ")
    };
    let lines: Vec<_> = events.iter().map(line).collect();
    let carol = events[6]["client_id"].as_str().unwrap();
    assert_eq!(
        lines,
        [
            "opened - - -",
            "joined a - -",
            "joined b - -",
            "offer a b sent",
            "ice_candidate a - sent",
            "offer a - target_not_found",
            &format!("refused {carol} - room_full"),
            "call_report b a failed",
            "left b - left",
            "left a - left",
            "closed - - -",
        ]
    );
    assert_eq!((&events[3]["bytes"], &events[7]["ms"]), (&json!(39), &json!(9000)));
    assert!(events.windows(2).all(|pair| pair[0]["at"].as_u64() <= pair[1]["at"].as_u64()));
    let text = story.to_string();
    assert!(
        !text.contains("s3cr3t") && !text.contains("192.0.2.77") && !text.contains("127.0.0.1")
    );
    // Whoever opens it again goes on with it.
    let _carol = server.join("den", "carol").await;
    let story = see(&server, "rooms/den/timeline").await;
    assert_eq!((&story["is_open"], &story["events"][11]["type"]), (&json!(true), &json!("opened")));
}

#[tokio::test]
async fn no_timeline_is_kept_where_timelines_are_off() {
    let server = open(&[("TIMELINE_SECONDS", "0")]).await;
    let _alice = server.join("den", "alice").await;

    let answer = server
        .request(Method::GET, "/admin/api/rooms/den/timeline")
        .bearer_auth(TOKEN)
        .send()
        .await
        .unwrap();

    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_malformed_body_is_answered_with_what_is_accepted() {
    let server = open(&[]).await;
    let _alice = server.join_as("den", "alice", json!("a")).await;
    let cases = [
        ("rooms/den/kick", json!({}), "\"client_id\" or \"username\""),
        (
            "rooms/den/kick",
            json!({"client_id":"a","username":"alice"}),
            "\"client_id\" or \"username\"",
        ),
        ("rooms/den/kick", json!({"client_id":7}), "a string"),
        ("rooms/den/kick", json!({"client_id":"a","ban_secs":7}), "ban_seconds"),
        ("rooms/den/kick", json!({"client_id":"a","ban_seconds":315_360_001_u64}), "315360000"),
        ("ban", json!({"username":"alice"}), "\"seconds\""),
        ("ban", json!({"client_id":"a","seconds":5}), "\"room_id\""),
        ("ban", json!({"username":"alice","seconds":0}), "1 to"),
        ("ban", json!({"username":"a\u{1b}[31m","seconds":5}), "username"),
        ("ban", json!({"client_id":"<b>","seconds":5,"room_id":"den"}), "client_id"),
        ("ban", json!({"username":"alice","seconds":5,"room_id":"a\nb"}), "room_id"),
        ("remove", json!({"rule":"dance"}), "\"rule\":\"ban\""),
        ("rooms/den/close", json!({"seconds":-1}), "\"seconds\""),
        ("rooms/den/capacity", json!({"members":0}), "1 to 1000000"),
        ("rooms/den/message", json!({"text":"hello"}), "\"data\""),
    ];

    for (path, body, says) in cases {
        let (status, answer) = act(&server, path, body.clone()).await;
        assert_eq!(status, 422, "{path} {body}: {answer}");
        assert!(
            answer["detail"][0]["msg"].as_str().unwrap().contains(says),
            "{path} {body}: {answer}"
        );
    }
    server.join_as("den", "bob", json!("b")).await.0.leave().await;
}

#[tokio::test]
async fn moderation_rules_outlive_the_process_and_can_be_given_from_the_command_line() {
    let mut server =
        RestartableServer::start(&[("ADMIN_TOKEN", TOKEN), ("RESUME_WINDOW_SECONDS", "30")]).await;
    let mut alice = server.join("alice", RESUME).await;
    let mut bob = server.join("bob", RESUME).await;
    let admin = async |server: &RestartableServer, arguments: &[&str]| {
        let mut command = command(env!("CARGO_BIN_EXE_signaling-server"), &server.folder);
        let port = server.address().port().to_string();
        let command = command.env("HOST", "127.0.0.1").env("PORT", port).env("ADMIN_TOKEN", TOKEN);
        command.arg("admin").args(arguments).output().await.unwrap()
    };

    alice.receive_type("user_joined").await;

    let rooms = admin(&server, &["rooms"]).await;
    let said = admin(&server, &["say", "den", "closing soon"]).await;
    assert_eq!(alice.receive_type("server_message").await["data"], "closing soon");
    let locked = admin(&server, &["lock", "den"]).await;
    let banned = admin(&server, &["ban", "den", "--user", "alice", "--for", "600", "--json"]).await;
    bob.receive_type("server_message").await;
    bob.receive_type("user_left").await;
    for output in [&rooms, &said, &locked, &banned] {
        assert!(output.status.success(), "{}", text(output));
    }
    assert!(
        text(&rooms).contains("connected_users=2") && text(&rooms).contains("room_id=den"),
        "{}",
        text(&rooms)
    );
    let order: Value = serde_json::from_slice(&banned.stdout).unwrap();
    assert_eq!(order["who"], json!({"username":"alice"}));

    bob.drop_connection().await;
    server.stop().await;
    let is_audit = |line: &&String| line.contains("signaling::audit");
    let audit: Vec<Value> = server
        .process
        .log
        .lines()
        .iter()
        .filter(is_audit)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let fields = &audit.last().unwrap()["fields"];
    assert_eq!(
        (&fields["act"], &fields["room"], &fields["who"], &fields["seconds"]),
        (&json!("ban"), &json!("den"), &json!("username alice"), &json!(600))
    );
    assert_eq!(audit[1]["fields"]["who"], Value::Null, "nobody is nobody");
    server.restart().await;
    assert_eq!(bob.resume(server.address()).await["type"], "resumed");
    let orders = admin(&server, &["rules"]).await;
    assert!(
        text(&orders).contains("alice") && text(&orders).contains("rule=lock"),
        "{}",
        text(&orders)
    );
    let unbanned = admin(&server, &["unban", "den", "--user", "alice"]).await;
    assert!(unbanned.status.success(), "{}", text(&unbanned));
    let nobody = admin(&server, &["kick", "den", "--client", "nobody"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody).contains("No such member is in this room"), "{}", text(&nobody));

    let drained = admin(&server, &["drain"]).await;
    assert!(drained.status.success(), "{}", text(&drained));
    assert_eq!(bob.receive_type("server_shutdown").await["type"], "server_shutdown");
    assert!(server.process.wait().await.success());
}
