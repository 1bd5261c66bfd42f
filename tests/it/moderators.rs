//! What moderators may do over their own connections, and how often.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};
use signaling::clock::{unix_now, unix_now_ms};

use crate::{
    harness::{
        CHEAP, Client, folder_with_users, http,
        process::{KEY, RestartableServer, SERVER, ServerProcess, command, text},
        resumable::RESUME,
    },
    tokens::{hs256, post, present},
};

const ADMIN: &str = "admin-token-of-this-test-0123456789abcdef";

const SETTINGS: &[(&str, &str)] = &[("USERS_REQUIRED", "false"), ("ADMIN_TOKEN", ADMIN)];

async fn join(server: &ServerProcess, room: &str, user: &str, can: &[&str]) -> Client {
    let mut client = present(server, room, user, json!({"can":can})).await;
    assert_eq!(client.receive().await["type"], "auth_success");
    assert_eq!(client.receive().await["type"], "users_in_room");
    client
}

async fn moderator(server: &ServerProcess, room: &str, user: &str) -> Client {
    join(server, room, user, &["join", "moderate"]).await
}

/// The next answer; what happens in the room is passed over.
async fn answer(client: &mut Client) -> Value {
    loop {
        let message = client.receive().await;
        if ["moderated", "error"].iter().any(|kind| message["type"] == *kind) {
            return message;
        }
    }
}

#[tokio::test]
async fn moderators_rule_about_members_and_those_that_have_just_left_and_no_others() {
    let running = RestartableServer::start(SETTINGS).await;
    let server = &running.process;
    let mut boss = moderator(server, "den", "boss").await;
    for (message, sentence) in [
        (
            json!({"type":"kick","to":"ghost","ban_seconds":60,"id":1}),
            "Target client ghost not found",
        ),
        (json!({"type":"kick","to":"ghost","id":1}), "Target client ghost not found"),
        (json!({"type":"mute","to":"ghost","id":1}), "Target client ghost not found"),
    ] {
        boss.send(message).await;
        let refused = json!({"type":"error","code":"target_not_found","message":sentence,"id":1});
        assert_eq!(answer(&mut boss).await, refused);
    }
    boss.send(json!({"type":"unmute","to":"ghost","id":2})).await;
    assert_eq!(answer(&mut boss).await, json!({"type":"moderated","action":"unmute","id":2}));

    join(server, "den", "bob", &["join"]).await.leave().await;
    while boss.receive().await["type"] != "user_left" {}
    boss.send(json!({"type":"kick","to":"bob","ban_seconds":600,"id":3})).await;
    assert_eq!(answer(&mut boss).await, json!({"type":"moderated","action":"kick","id":3}));
    let (before, _) = present(server, "den", "bob", json!({})).await.read_to_close().await;
    assert_eq!(before[0]["code"], "banned");

    let mut carol = Client::connect(server.address, "den", &[]).await.unwrap();
    carol.receive().await;
    let token = hs256(KEY, &json!({"sub":"carol","exp":unix_now() + 300}));
    carol
        .send(json!({"type":"auth_token","token":token,"clientId":"carol","features":RESUME}))
        .await;
    assert_eq!(carol.receive().await["type"], "auth_success");
    drop(carol);
    server.log.line_with("\"member detached\"").await;
    boss.send(json!({"type":"mute","to":"carol","id":4})).await;
    assert_eq!(answer(&mut boss).await, json!({"type":"moderated","action":"mute","id":4}));

    // Her room is another: there she is nobody.
    let mut other = moderator(server, "hall", "other").await;
    other.send(json!({"type":"mute","to":"carol","id":5})).await;
    assert_eq!(answer(&mut other).await["code"], "target_not_found");
}

/// How many threads the server has.
fn threads(server: &ServerProcess) -> usize {
    fs::read_dir(format!("/proc/{}/task", server.child.id().unwrap())).unwrap().count()
}

#[tokio::test]
async fn a_flood_of_moderators_is_limited_and_takes_no_threads_and_few_log_lines() {
    const ACTS: usize = 200;
    let running = RestartableServer::start(SETTINGS).await;
    let server = &running.process;
    let threads_before = threads(server);
    let mut moderators = Vec::new();
    for number in 0..10 {
        let (room, user) = (format!("room{number}"), format!("boss{number}"));
        moderators.push(moderator(server, &room, &user).await);
    }
    for client in &mut moderators {
        for number in 0..ACTS {
            client.feed(&json!({"type":"kick","to":format!("x{number}"),"ban_seconds":60})).await;
            client.feed(&json!({"type":"lock"})).await;
        }
        client.flush().await;
    }

    let mut answers = BTreeMap::<String, usize>::new();
    for client in &mut moderators {
        for _ in 0..2 * ACTS {
            let answer = answer(client).await;
            let kind = answer["code"].as_str().unwrap_or("moderated").to_owned();
            if kind == "rate_limited" {
                let wait = answer["retry_after_ms"].as_u64().unwrap();
                assert!((1..=1_001).contains(&wait), "{answer}");
            }
            *answers.entry(kind).or_default() += 1;
        }
    }

    assert_eq!(answers["target_not_found"], 10 * ACTS, "{answers:?}");
    assert!(answers["moderated"] >= 600 && answers["rate_limited"] > 0, "{answers:?}");
    assert_eq!(answers.values().sum::<usize>(), 20 * ACTS, "{answers:?}");
    let threads = threads(server);
    assert!(threads <= threads_before + 8, "{threads_before} threads before, now {threads}");
    let lines = server.log.count("\"moderator acts\"") + server.log.count("\"moderation refused\"");
    // One of each kind in a minute; the answers may take longer on a slow machine.
    assert!((3..30).contains(&lines), "{lines}");
    let (status, body) = post(server, "/admin/api/rooms/attic/lock", ADMIN, json!({})).await;
    assert_eq!((status.as_u16(), &body["moderator"]), (200, &Value::Null), "{body}");
}

#[tokio::test]
async fn a_room_with_all_its_rules_takes_one_more_of_an_administrator_and_another_room_of_its_moderator()
 {
    let folder = folder_with_users(CHEAP);
    let rule = |number: usize| {
        json!({"order":"ban","room":"den","who":{"client_id":format!("c{number}")},"at":unix_now_ms(),
            "until":unix_now() + 3_600,"moderator":"boss"})
    };
    let rules: String = (0..200).map(|number| rule(number).to_string() + "\n").collect();
    fs::write(folder.path().join("users.csv.orders"), rules).unwrap();
    let running = RestartableServer::start_in(folder, SETTINGS).await;
    let server = &running.process;
    let mut boss = moderator(server, "den", "boss").await;

    boss.send(json!({"type":"lock","id":1})).await;
    let refused = answer(&mut boss).await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("rule_limit_reached"), &json!(1)));
    assert!(refused.get("retry_after_ms").is_none(), "{refused}");
    let (status, rule) = post(server, "/admin/api/rooms/den/lock", ADMIN, json!({})).await;
    assert_eq!(status, 200, "{rule}");
    let (status, _) = post(server, "/admin/api/rooms/den/unlock", ADMIN, json!({})).await;
    assert_eq!(status, 200);
    let mut elsewhere = moderator(server, "hall", "boss").await;
    elsewhere.send(json!({"type":"lock"})).await;
    assert_eq!(answer(&mut elsewhere).await["action"], "lock");

    // One that was banned long ago is let in again, which frees a place.
    boss.send(json!({"type":"kick","to":"c7","id":2})).await;
    assert_eq!(answer(&mut boss).await, json!({"type":"moderated","action":"kick","id":2}));
    boss.send(json!({"type":"lock","id":3})).await;
    assert_eq!(answer(&mut boss).await, json!({"type":"moderated","action":"lock","id":3}));
    let url = format!("http://{}/admin/api/rules", server.address);
    let listed = http().build().unwrap().get(url).bearer_auth(ADMIN).send().await.unwrap();
    let listed = listed.json::<Value>().await.unwrap();
    let rules = listed["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 201);
    assert!(rules.iter().all(|rule| rule["moderator"] == "boss"), "{listed}");

    let mut shell = command(SERVER, &running.folder);
    let url = format!("http://{}", server.address);
    shell.args(["admin", "rules", "--url", &url]).env("ADMIN_TOKEN", ADMIN);
    let printed = text(&shell.output().await.unwrap());
    let rules: Vec<_> = printed.lines().filter(|line| line.contains("rule=")).collect();
    assert_eq!(rules.len(), 201, "{printed}");
    assert!(rules.iter().all(|rule| rule.contains("moderator=boss  ")), "{printed}");
}

#[tokio::test]
async fn logouts_without_end_are_few_lines_of_the_log() {
    const LOGOUTS: u64 = 100;
    let running = RestartableServer::start(SETTINGS).await;
    let (server, client, now) = (&running.process, http().build().unwrap(), unix_now());
    let ask = async |path: &str, token: &str| {
        let request = client.post(format!("http://{}{path}", server.address)).bearer_auth(token);
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };

    for number in 0..LOGOUTS {
        let token = hs256(KEY, &json!({"sub":"u1","exp":now + 3_600 + number}));
        assert_eq!(ask("/auth/logout", &token).await, json!({"message":"Successfully logged out"}));
        assert_eq!(ask("/auth/refresh", &token).await["detail"], "Could not validate credentials");
    }

    let line: Value = serde_json::from_str(&server.log.line_with("\"logged out\"").await).unwrap();
    assert_eq!((&line["fields"]["user"], &line["fields"]["count"]), (&json!("u1"), &json!(1)));
    let lines = server.log.count("\"logged out\"");
    assert!(lines <= 10, "{lines}: one a minute");
    let revoked = fs::read_to_string(running.folder.path().join("users.csv.revoked")).unwrap();
    assert_eq!(revoked.lines().count() as u64, LOGOUTS);
}
