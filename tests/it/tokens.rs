//! Access tokens from other services: accepted, or refused with the reason in the log.

use std::process::Stdio;

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use serde_json::{Value, json};
use signaling::clock::unix_now;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    doctor::{SOUND, home},
    harness::{
        Client, PASSWORD, TEST_TIMEOUT, http,
        process::{
            INTERVALS, KEY, RestartableServer, SERVER, ServerProcess, command, manage_ok,
            start_err, text,
        },
    },
};

/// A token that no library has made.
fn minted(key: &[u8], header: &Value, claims: &Value) -> String {
    let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = signed.join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

pub fn hs256(key: &str, claims: &Value) -> String {
    minted(key.as_bytes(), &json!({"alg": "HS256"}), claims)
}

async fn status_of(server: &ServerProcess, token: &str) -> StatusCode {
    let url = format!("http://{}/auth/me", server.address);
    http().build().unwrap().get(url).bearer_auth(token).send().await.unwrap().status()
}

/// The reason of the next line about a refused token.
async fn reason(server: &mut ServerProcess) -> String {
    let line = server.log.next_line_with("\"token refused\"").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["fields"]["address"], "127.0.0.1");
    line["fields"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_log_says_why_a_token_is_refused_and_the_client_does_not_learn_it() {
    let mut server = RestartableServer::start(&[("MAX_TOKEN_LIFETIME", "86400")]).await.process;
    let now = unix_now();
    let later = now + 300;
    let refused = [
        (json!({"sub":"alice"}), "`exp` is missing"),
        (
            json!({"sub":"alice","exp":later.to_string()}),
            "`exp` is a text; it must be a number of seconds",
        ),
        (
            json!({"sub":"alice","exp":later * 1000}),
            "`exp` is in milliseconds; it must be in seconds",
        ),
        (json!({"sub":"alice","exp":now - 120}), "it expired 2 min"),
        (json!({"sub":"alice","exp":later,"nbf":now + 7200}), "`nbf` lies "),
        (json!({"sub":"alice","exp":now + 604_800}), "MAX_TOKEN_LIFETIME allows 24 h 0 min"),
        (json!({"sub":"nobody","exp":later}), "the users file has no account \"nobody\""),
    ];
    for (claims, expected) in refused {
        assert_eq!(status_of(&server, &hs256(KEY, &claims)).await, 401, "{claims}");

        let reason = reason(&mut server).await;
        assert!(reason.contains(expected), "{claims}: {reason}");
    }

    let good = json!({"sub":"alice","exp":later});
    let other_key = hs256("another-key-of-more-than-32-bytes-000", &good);
    let mut client = Client::connect(server.address, "den", &[]).await.unwrap();
    client.receive().await;
    client.send(json!({"type":"auth_token","token":other_key})).await;
    assert_eq!(client.rejection().await, (1008, "Invalid token".to_owned()));
    assert_eq!(reason(&mut server).await, "it is signed with another key");
    let hs512 = minted(KEY.as_bytes(), &json!({"alg":"HS512"}), &good);
    assert_eq!(status_of(&server, &hs512).await, 401);
    assert_eq!(reason(&mut server).await, "`alg` is HS512; accepted: HS256");
    assert_eq!(status_of(&server, &hs256(KEY, &good)).await, 200);
}

#[tokio::test]
async fn a_client_that_repeats_a_bad_token_writes_one_line() {
    let mut server = RestartableServer::start(&[]).await.process;
    for _ in 0..20 {
        assert_eq!(status_of(&server, &hs256("other", &json!({"sub":"alice"}))).await, 401);
    }
    assert_eq!(status_of(&server, "another-kind-of-fault").await, 401);

    reason(&mut server).await;
    assert_eq!(reason(&mut server).await, "it is not three parts with dots between them");
}

/// What `doctor --token -` finds, and whether it exits with 0.
pub async fn diagnose(
    folder: &TempDir,
    token: &str,
    settings: &[(&str, &str)],
) -> (bool, Vec<Value>) {
    let mut command = command(SERVER, folder);
    command.args(["doctor", "--json", "--token", "-"]).envs(SOUND).envs(settings.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).await.unwrap();
    let output = timeout(TEST_TIMEOUT, child.wait_with_output()).await.unwrap().unwrap();
    let said = text(&output);
    assert!(!said.contains(token), "it prints the token: {said}");
    (output.status.success(), serde_json::from_slice(&output.stdout).expect(&said))
}

pub fn about<'a>(found: &'a [Value], subject: &str) -> &'a Value {
    found.iter().find(|it| it["subject"] == subject).unwrap_or_else(|| panic!("{found:#?}"))
}

#[tokio::test]
async fn doctor_says_line_by_line_what_is_right_and_wrong_with_a_token() {
    let folder = home();
    let (_, key) = SOUND[1];
    let later = unix_now() + 300;
    let good = json!({"sub":"alice","exp":later});

    let (is_well, found) = diagnose(&folder, &hs256(key, &good), &[]).await;
    assert!(is_well, "{found:#?}");
    for subject in ["token", "alg", "key", "exp", "account", "ended"] {
        assert_eq!(about(&found, subject)["verdict"], "ok", "{found:#?}");
    }

    let wrong = hs256(key, &json!({"sub":7,"exp":later * 1000,"nbf":"soon"}));
    let (is_well, found) = diagnose(&folder, &wrong, &[]).await;
    assert!(!is_well);
    assert_eq!(about(&found, "key")["verdict"], "ok");
    for (subject, message, fix) in [
        ("exp", "milliseconds", "convert it"),
        ("nbf", "is a text", "without quotes"),
        ("user", "`sub` is a number; it must be a text", "as a text"),
    ] {
        let found = about(&found, subject);
        assert_eq!(found["verdict"], "fault");
        assert!(found["message"].as_str().unwrap().contains(message), "{found}");
        assert!(found["fix"].as_str().unwrap().contains(fix), "{found}");
    }

    let decoded: Vec<u8> = (0..key.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap())
        .collect();
    for (signed_with, expected) in [
        (decoded, "hexadecimal"),
        (BASE64_URL_SAFE_NO_PAD.decode(key).unwrap(), "base64"),
        (format!("{key}\n").into_bytes(), "a line end"),
        (b"unknown".to_vec(), "another key"),
    ] {
        let token = minted(&signed_with, &json!({"alg":"HS256"}), &good);
        let (is_well, found) = diagnose(&folder, &token, &[]).await;
        let message = about(&found, "key")["message"].as_str().unwrap().to_owned();
        assert!(!is_well && message.contains(expected), "{message}");
    }
    let spaced = format!("{key}\n");
    let settings = [("JWT_SECRET_KEY", spaced.as_str())];
    let (_, found) = diagnose(&folder, &hs256(key, &good), &settings).await;
    let message = about(&found, "key")["message"].as_str().unwrap();
    assert!(message.contains("without the white space"), "{message}");
    let (is_well, found) = diagnose(&folder, "Bearer x", &[]).await;
    assert!(!is_well && found.len() == 1, "{found:#?}");

    let mut server = RestartableServer::start_in(folder, &[("JWT_SECRET_KEY", key)]).await;
    let token = server.token("alice").await;
    assert_eq!(post(&server.process, "/auth/logout", &token, json!({})).await.0, 200);
    server.stop().await;
    let (is_well, found) = diagnose(&server.folder, &token, &[]).await;
    let message = about(&found, "ended")["message"].as_str().unwrap();
    assert!(!is_well && message.contains("by a logout"), "{found:#?}");
}

pub async fn post(
    server: &ServerProcess,
    path: &str,
    token: &str,
    body: Value,
) -> (StatusCode, Value) {
    let url = format!("http://{}{path}", server.address);
    let answer = http().build().unwrap().post(url).bearer_auth(token).json(&body).send().await;
    let answer = answer.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn log_in(server: &ServerProcess, username: &str) -> String {
    let login = json!({"username": username, "password": PASSWORD});
    let (_, body) = post(server, "/auth/login", "", login).await;
    body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

async fn refresh(server: &ServerProcess, token: &str) -> String {
    let (_, body) = post(server, "/auth/refresh", token, Value::Null).await;
    body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[tokio::test]
async fn a_logout_ends_the_whole_session_and_with_all_every_session() {
    let mut server = RestartableServer::start(&[]).await;
    let process = &server.process;
    let first = log_in(process, "alice").await;
    let second = refresh(process, &first).await;
    let third = refresh(process, &second).await;
    let other_device = log_in(process, "alice").await;
    let mut socket = Client::connect(process.address, "den", &[]).await.unwrap();
    socket.authenticate("alice", &third, Value::Null).await;

    post(process, "/auth/logout", &first, Value::Null).await;

    assert_eq!(socket.read_to_close().await.1, (1008, "Invalid token".to_owned()));
    for token in [&first, &second, &third] {
        assert_eq!(status_of(process, token).await, 401);
    }
    assert_eq!(status_of(process, &other_device).await, 200);

    let bob = log_in(process, "bob").await;
    post(process, "/auth/logout", &log_in(process, "alice").await, json!({"all":true})).await;
    let after = log_in(process, "alice").await;
    server.process.kill().await;
    server.restart().await;
    let process = &server.process;
    assert_eq!(status_of(process, &other_device).await, 401);
    assert_eq!(status_of(process, &after).await, 200, "a login after it counts");
    assert_eq!(status_of(process, &bob).await, 200);
}

#[tokio::test]
async fn a_token_from_before_an_account_was_disabled_stays_ended() {
    let mut server = RestartableServer::start(&[(INTERVALS, "file_poll=20")]).await;
    let before = log_in(&server.process, "alice").await;

    manage_ok(&server.folder, &["disable", "alice"], "").await;
    server.process.log.next_line_with("users file reloaded").await;
    manage_ok(&server.folder, &["enable", "alice"], "").await;
    server.process.log.next_line_with("users file reloaded").await;

    assert_eq!(status_of(&server.process, &before).await, 401);
    let after = log_in(&server.process, "alice").await;
    assert_eq!(status_of(&server.process, &after).await, 200);
}

#[tokio::test]
async fn an_administrator_ends_tokens_by_their_id_their_user_and_their_time() {
    const ADMIN: &str = "admin-token-of-this-test-0123456789abcdef";
    let mut server =
        RestartableServer::start(&[("ADMIN_TOKEN", ADMIN), ("USERS_REQUIRED", "false")]).await;
    let process = &server.process;
    let now = unix_now();
    let token = |user: &str, issued_at: u64, jti: &str| {
        hs256(KEY, &json!({"sub":user,"exp":now + 300,"iat":issued_at,"jti":jti}))
    };
    let (stolen, older, newer) =
        (token("u1", now, "stolen"), token("u2", now - 100, "a"), token("u2", now - 10, "b"));
    let mut socket = Client::connect(process.address, "den", &[]).await.unwrap();
    socket.authenticate("u1", &stolen, Value::Null).await;

    for (body, status) in [
        (json!({"jti":"stolen"}), 200),
        (json!({"username":"u2","issued_before":now - 50}), 200),
        (json!({"username":"u2","jti":"x"}), 422),
        (json!({}), 422),
    ] {
        let (found, answer) = post(process, "/admin/api/sessions/end", ADMIN, body).await;
        assert_eq!(found, status, "{answer}");
    }

    assert_eq!(socket.read_to_close().await.1.0, 1008);
    server.process.kill().await;
    server.restart().await;
    let process = &server.process;
    assert_eq!(status_of(process, &stolen).await, 401);
    assert_eq!(status_of(process, &older).await, 401);
    assert_eq!(status_of(process, &newer).await, 200);
    post(process, "/admin/api/sessions/end", ADMIN, json!({"username":"u2"})).await;
    assert_eq!(status_of(process, &newer).await, 401);
}

/// A connection to `room` on which a token with the claim `signaling` was presented.
pub async fn present(server: &ServerProcess, room: &str, user: &str, signaling: Value) -> Client {
    let token = hs256(KEY, &json!({"sub":user,"exp":unix_now() + 300,"signaling":signaling}));
    let mut client = Client::connect(server.address, room, &[]).await.unwrap();
    assert_eq!(client.receive().await["type"], "auth_required");
    client.send(json!({"type":"auth_token","token":token,"clientId":user})).await;
    client
}

#[tokio::test]
async fn a_token_allows_the_rooms_and_messages_that_it_names() {
    let mut server = RestartableServer::start(&[("USERS_REQUIRED", "false")]).await.process;
    for (room, signaling) in
        [("attic", json!({"rooms":["den","team-*"]})), ("den", json!({"can":["send"]}))]
    {
        let (before, close) = present(&server, room, "u1", signaling).await.read_to_close().await;
        assert_eq!((before.len(), &before[0]["code"]), (1, &json!("forbidden")));
        assert_eq!(close, (1008, "Forbidden".to_owned()));
    }
    let misspelled = present(&server, "den", "u1", json!({"can":["sned"]})).await;
    assert_eq!(misspelled.rejection().await.0, 1008);
    assert!(reason(&mut server).await.contains("`signaling.can` is no list"));

    let mut full = present(&server, "team-7", "u0", json!({})).await;
    assert_eq!(full.receive().await["type"], "auth_success");
    full.receive().await;
    let signaling = json!({"rooms":["den","team-*"],"can":["join","send"]});
    let mut limited = present(&server, "team-7", "u1", signaling).await;
    let success = limited.receive().await;
    let permissions = json!({"rooms":["den","team-*"],"can":["join","send"]});
    assert_eq!(success["permissions"], permissions, "{success}");
    limited.receive().await;
    full.receive().await;
    let error = limited.error_after(r#"{"type":"message","data":1,"id":7}"#).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!(7)), "{error}");
    assert!(error["message"].as_str().unwrap().contains("\"broadcast\""), "{error}");
    limited.send(json!({"type":"message","data":2,"to":"u0"})).await;
    assert_eq!(full.receive().await["data"], 2);

    let token = hs256(KEY, &json!({"sub":"u1","exp":unix_now() + 300}));
    limited.send(json!({"type":"auth_token","token":token})).await;
    assert_eq!(limited.receive().await["type"], "token_refreshed");
    limited.send(json!({"type":"message","data":3})).await;
    assert_eq!(full.receive().await["data"], 3);
}

#[tokio::test]
async fn a_moderator_kicks_and_locks_and_nobody_else_does() {
    let running = RestartableServer::start(&[("USERS_REQUIRED", "false")]).await;
    let server = &running.process;
    let mut moderator = present(server, "den", "boss", json!({"can":["join","moderate"]})).await;
    moderator.receive().await;
    moderator.receive().await;
    let mut member = present(server, "den", "u1", json!({})).await;
    member.receive().await;
    member.receive().await;
    moderator.receive().await;

    let error = member.error_after(r#"{"type":"kick","to":"boss","id":1}"#).await;
    assert_eq!((&error["code"], &error["id"]), (&json!("forbidden"), &json!(1)), "{error}");
    let error = moderator.error_after(r#"{"type":"kick","id":2}"#).await;
    assert_eq!(error["code"], "invalid_message");
    moderator.send(json!({"type":"kick","to":"u1","ban_seconds":60,"id":3})).await;
    assert_eq!(member.read_to_close().await.1.0, 4002);
    let mut answers = [moderator.receive().await, moderator.receive().await];
    answers.sort_by_key(|answer| answer["type"].to_string());
    assert_eq!(answers[0], json!({"type":"moderated","action":"kick","id":3}));
    assert_eq!(answers[1]["type"], "user_left");
    let (before, _) = present(server, "den", "u1", json!({})).await.read_to_close().await;
    assert_eq!(before[0]["code"], "banned");

    moderator.send(json!({"type":"lock"})).await;
    assert_eq!(moderator.receive().await["action"], "lock");
    let (before, _) = present(server, "den", "u2", json!({})).await.read_to_close().await;
    assert_eq!(before[0]["code"], "room_locked");
    moderator.send(json!({"type":"unlock"})).await;
    assert_eq!(moderator.receive().await["action"], "unlock");
    let mut later = present(server, "den", "u2", json!({})).await;
    assert_eq!(later.receive().await["type"], "auth_success");
}

/// boss, who may moderate, and u1.
async fn moderator_and_member(server: &ServerProcess) -> (Client, Client) {
    let mut boss = present(server, "den", "boss", json!({"can":["join","moderate"]})).await;
    assert_eq!(boss.receive().await["type"], "auth_success");
    boss.receive().await;
    let mut member = present(server, "den", "u1", json!({})).await;
    assert_eq!(member.receive().await["type"], "auth_success");
    member.receive().await;
    assert_eq!(boss.receive().await["type"], "user_joined");
    (boss, member)
}

#[tokio::test]
async fn a_moderator_mutes_a_member_whose_calls_go_on() {
    const ADMIN: &str = "admin-token-of-this-test-0123456789abcdef";
    let settings = [("USERS_REQUIRED", "false"), ("ADMIN_TOKEN", ADMIN)];
    let mut running = RestartableServer::start(&settings).await;
    let server = &running.process;
    let (mut boss, mut member) = moderator_and_member(server).await;
    let error = member.error_after(r#"{"type":"mute","to":"boss","id":1}"#).await;
    assert_eq!(error["code"], "forbidden");
    for wrong in [r#"{"type":"mute"}"#, r#"{"type":"mute","to":"u1","seconds":0}"#] {
        assert_eq!(boss.error_after(wrong).await["code"], "invalid_message", "{wrong}");
    }

    boss.send(json!({"type":"mute","to":"u1","seconds":600,"id":2})).await;
    assert_eq!(boss.receive().await, json!({"type":"moderated","action":"mute","id":2}));
    for muted in [
        r#"{"type":"message","data":1,"id":3}"#,
        r#"{"type":"message","data":1,"to":"boss","id":3}"#,
        r#"{"type":"offer","offer":{},"id":3}"#,
        r#"{"type":"ice_candidate","candidate":null,"id":3}"#,
    ] {
        let error = member.error_after(muted).await;
        assert_eq!((&error["code"], &error["id"]), (&json!("muted"), &json!(3)), "{muted}");
    }
    for (kind, field) in [("offer", "offer"), ("answer", "answer"), ("ice_candidate", "candidate")]
    {
        member.send(json!({"type":kind,field:{"sdp":"v=0"},"to":"boss"})).await;
        assert_eq!(boss.receive().await["type"], kind);
    }
    boss.assert_no_more_messages().await;

    running.process.kill().await;
    running.restart().await;
    let server = &running.process;
    let (mut boss, mut member) = moderator_and_member(server).await;
    assert_eq!(member.error_after(r#"{"type":"message","data":1}"#).await["code"], "muted");
    boss.send(json!({"type":"unmute","to":"u1"})).await;
    assert_eq!(boss.receive().await["action"], "unmute");
    member.send(json!({"type":"message","data":2})).await;
    assert_eq!(boss.receive().await["data"], 2);

    // By its account, as an administrator may.
    let body = json!({"username":"u1"});
    let (status, rule) = post(server, "/admin/api/rooms/den/mute", ADMIN, body.clone()).await;
    assert_eq!((status, &rule["rule"]), (StatusCode::OK, &json!("mute")), "{rule}");
    assert_eq!(member.error_after(r#"{"type":"message","data":1}"#).await["code"], "muted");
    let (status, _) = post(server, "/admin/api/rooms/den/unmute", ADMIN, body.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = post(server, "/admin/api/rooms/den/unmute", ADMIN, body).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    member.send(json!({"type":"message","data":3})).await;
    assert_eq!(boss.receive().await["data"], 3);
}

#[tokio::test]
async fn a_relay_only_token_hides_the_addresses_of_its_user() {
    let server = RestartableServer::start(&[("USERS_REQUIRED", "false")]).await.process;
    let mut hidden = present(&server, "den", "u1", json!({"ice":"relay"})).await;
    assert_eq!(hidden.receive().await["iceTransportPolicy"], "relay");
    hidden.receive().await;
    let mut peer = present(&server, "den", "u2", json!({})).await;
    assert_eq!(peer.receive().await["iceTransportPolicy"], Value::Null);
    peer.receive().await;
    hidden.receive().await;

    let sdp = "v=0\r\no=- 1 2 IN IP4 192.168.7.7\r\ns=-\r\nt=0 0\r\nm=audio 4444 RTP 0\r\nc=IN IP4 192.168.7.7\r\n\
        a=candidate:1 1 udp 2 192.168.7.7 4444 typ host\r\n\
        a=candidate:2 1 udp 1 198.51.100.3 5555 typ relay raddr 192.168.7.7 rport 4444\r\n";
    hidden.send(json!({"type":"offer","offer":{"type":"offer","sdp":sdp}})).await;
    for line in [
        "candidate:1 1 udp 2 192.168.7.7 4444 typ host",
        "candidate:1 1 udp 2 192.168.7.7 4444 typ srflx raddr 10.0.0.1 rport 1",
        "candidate:2 1 udp 1 198.51.100.3 5555 typ relay raddr 192.168.7.7 rport 4444",
        "",
    ] {
        hidden
            .send(json!({"type":"ice_candidate","candidate":{"candidate":line,"sdpMid":"0"}}))
            .await;
    }

    let mut received = Vec::new();
    for _ in 0..3 {
        received.push(peer.receive_text().await);
    }
    peer.assert_no_more_messages().await;
    assert!(
        received.iter().all(|frame| !frame.contains("192.168") && !frame.contains("10.0.0")),
        "{received:?}"
    );
    assert!(received.iter().take(2).all(|frame| frame.contains("198.51.100.3")), "{received:?}");
    assert!(received[2].contains(r#""candidate":"""#), "the end of candidates: {received:?}");
}

#[tokio::test]
async fn tokens_are_minted_over_rest_and_on_the_command_line() {
    const ADMIN: &str = "admin-token-of-this-test-0123456789abcdef";
    let settings = [("ADMIN_TOKEN", ADMIN), ("USERS_REQUIRED", "false"), ("JWT_SECRET_KEY", KEY)];
    let server = RestartableServer::start(&settings).await;
    let body = json!({"username":"u-17","rooms":["den"],"can":["join"],"seconds":60});
    let (status, minted) = post(&server.process, "/admin/api/tokens", ADMIN, body).await;
    assert_eq!((status, &minted["expires_in"]), (StatusCode::OK, &json!(60)), "{minted}");
    let over_rest = minted["access_token"].as_str().unwrap().to_owned();
    for (body, fault) in [
        (json!({"username":"u","can":["dance"]}), "`signaling.can`"),
        (json!({"username":"x".repeat(200)}), "1 to 128 characters"),
        (json!({"username":"u","seconds":0}), "1 to 31536000"),
    ] {
        let (status, refusal) = post(&server.process, "/admin/api/tokens", ADMIN, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refusal.to_string().contains(fault), "{refusal}");
    }

    let mut minting = command(SERVER, &server.folder);
    minting.args(["token", "--user", "u-17", "--room", "den", "--can", "join", "--seconds", "60"]);
    let printed = minting.env("DEBUG", "true").env("JWT_SECRET_KEY", KEY).output().await.unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap().trim().to_owned();

    for token in [over_rest, printed] {
        let mut client = Client::connect(server.process.address, "den", &[]).await.unwrap();
        client.receive().await;
        client.send(json!({"type":"auth_token","token":token})).await;
        let success = client.receive().await;
        assert_eq!(success["permissions"], json!({"rooms":["den"],"can":["join"]}), "{success}");
        let (status, _) = post(&server.process, "/auth/refresh", &token, Value::Null).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn check_config_warns_of_secrets_with_a_line_end() {
    let folder = home();
    let mut settings = SOUND.to_vec();
    settings[1].1 = "9b1e48362f0a7d5ca0c7d5e9f1b2a3c4\n";
    let mut command = command(SERVER, &folder);
    let output = command.arg("--check-config").envs(settings.clone()).output().await.unwrap();

    assert!(output.status.success());
    assert!(text(&output).contains("warning: JWT_SECRET_KEY: begins or ends with white space"));
    settings.push(("MAX_TOKEN_LIFETIME", "60"));
    let said = start_err(&folder, &settings, &["--check-config"]).await;
    assert!(said.contains("MAX_TOKEN_LIFETIME: is shorter than ACCESS_TOKEN_EXPIRE_MINUTES"));
}
