//! `signaling-server doctor` looks at the Redis that the settings name.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{
    eventually,
    process::{DEBUG, RestartableServer},
    redis_server::RedisServer,
    users_file,
};

const SECRETS: [(&str, &str); 3] = [
    ("DEBUG", "false"),
    ("SECRET_KEY", "2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4"),
    ("JWT_SECRET_KEY", "9b1e48362f0a7d5ca0c7d5e9f1b2a3c4"),
];

/// What it says with these settings beside sound ones.
async fn doctor(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users.csv"), users_file(&["alice"], 4)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_signaling-server"));
    command.env_clear().envs(DEBUG).envs(SECRETS).envs(settings.iter().copied());
    command.current_dir(folder.path()).arg("doctor").args(arguments).output().await.unwrap()
}

/// What it found of Redis: subject, verdict, what it says.
pub async fn findings(settings: &[(&str, &str)]) -> (bool, Vec<(String, String, String)>) {
    let output = doctor(&["--json"], settings).await;
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let found =
        found.iter().map(|it| (text(it, "subject"), text(it, "verdict"), text(it, "message")));
    let about_redis = found.filter(|(subject, ..)| subject.starts_with("Redis"));
    (output.status.success(), about_redis.collect())
}

#[tokio::test]
async fn a_redis_with_tls_and_a_password_has_no_faults() {
    let engine = RedisServer::start_tls().await;
    let (url, authority) = (engine.url(), engine.ca_file());
    let (is_well, found) =
        findings(&[("REDIS_URL", &url), ("REDIS_CA_FILE", authority.to_str().unwrap())]).await;

    assert!(is_well, "{found:?}");
    assert_eq!(found.len(), 6);
    assert!(found.iter().all(|(subject, verdict, _)| subject == "Redis 1" && verdict != "fault"));
}

#[tokio::test]
async fn faults_of_redis_are_named_with_their_fixes() {
    let first = RedisServer::start_with_password("hunter2").await;
    let replica = first.start_replica("hunter2").await;
    let forgetful = RedisServer::start_with_settings(&[
        "--maxmemory",
        "50mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ])
    .await;
    let wrong = first.url().replace("hunter2", "hunter3");
    let nobody = "redis://127.0.0.1:1";
    let urls = [forgetful.url(), replica.url(), wrong, nobody.to_owned()].join(",");

    let (is_well, found) = findings(&[("REDIS_URL", &urls)]).await;
    let at_fault: Vec<_> = found.iter().filter(|(_, verdict, _)| verdict == "fault").collect();

    assert!(!is_well);
    let subjects: Vec<_> = at_fault.iter().map(|(subject, ..)| subject.as_str()).collect();
    assert_eq!(subjects, ["Redis 1", "Redis 2", "Redis 3", "Redis 4"], "{found:?}");
    assert!(at_fault[0].2.contains("allkeys-lru") && at_fault[1].2.contains("slave"));
    let said = doctor(&[], &[("REDIS_URL", &urls)]).await;
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("noeviction") && !said.contains("hunter"), "{said}");
}

#[tokio::test]
async fn a_single_node_without_redis_is_no_fault() {
    let (is_well, found) = findings(&[]).await;
    assert!(is_well && found.len() == 1 && found[0].2.contains("single node"), "{found:?}");
}

/// What is at fault with Redis, and what to do about it.
async fn faults(url: &str, more: &[(&str, &str)]) -> (String, String) {
    let settings = [&[("REDIS_URL", url)], more].concat();
    let output = doctor(&["--json"], &settings).await;
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let at_fault = found.iter().filter(|it| it["verdict"] == "fault");
    let [fault] = at_fault.collect::<Vec<_>>()[..] else { panic!("{found:#?}") };
    assert!(!output.status.success());
    let text = |name: &str| fault[name].as_str().unwrap().to_owned();
    (text("message"), text("fix"))
}

#[tokio::test]
async fn what_an_acl_user_lacks_is_named_as_a_line_that_mends_it() {
    for (rules, lacks) in [
        ("~* +@all -@scripting", "+evalsha +script|load"),
        ("~app:* +@all", "~{sig2_*}:*"),
        ("~* +@all -@blocking", "+xread"),
        ("~* +@all -info", "+info"),
        ("~* +@all -hincrby -xtrim", "+hincrby +xtrim"),
    ] {
        let redis = RedisServer::start_with_user(rules).await;

        let (message, fix) = faults(&redis.user_url(), &[]).await;

        assert_eq!(message, format!("the user signaling lacks {lacks}"), "{rules}");
        let line = fix.split_once(" (").unwrap().0;
        assert_eq!(line, format!("ACL SETUSER signaling {lacks}"), "{rules}");
        redis.execute(line).await;
        let (is_well, found) = findings(&[("REDIS_URL", &redis.user_url())]).await;
        assert!(is_well, "{rules}: {found:?}");
        assert!(redis.keys().await.is_empty(), "doctor leaves keys behind");
    }
}

#[tokio::test]
async fn a_redis_that_refuses_what_a_server_does_is_at_fault_in_words() {
    for (settings, message) in [
        ("--rename-command SCRIPT q", "does not know script|load"),
        ("--rename-command EVALSHA q", "does not know evalsha"),
        ("--rename-command XTRIM q", "does not know xtrim"),
        ("--maxmemory 100kb", "is full"),
        ("--min-replicas-to-write 1", "min-replicas-to-write"),
    ] {
        let arguments: Vec<_> = settings.split(' ').collect();
        let redis = RedisServer::start_with_settings(&arguments).await;

        let (found, _) = faults(&redis.url(), &[]).await;

        assert!(found.contains(message), "{settings}: {found}");
    }
}

#[tokio::test]
async fn only_where_nothing_answers_redis_cannot_be_reached() {
    let tls = RedisServer::start_tls().await;
    let plain = RedisServer::start_with_password("hunter2").await;
    let authority = tls.ca_file();
    let with_authority = [("REDIS_CA_FILE", authority.to_str().unwrap())];
    let wrong_name = tls.url().replace("localhost", "127.0.0.1");
    let wrong_database = format!("{}/99", plain.url());
    let wrong_password = plain.url().replace("hunter2", "hunter3");
    let no_password = format!("redis://{}", plain.address());
    let tls_without = format!("redis://:hunter2@{}", tls.address());

    for (url, settings, message, fix) in [
        ("redis://127.0.0.1:1", &[][..], "cannot be reached", "REDIS_URL"),
        ("redis://no-such-host.invalid", &[], "cannot be reached", "REDIS_URL"),
        (&*tls.url(), &[], "answers, and TLS fails", "REDIS_CA_FILE"),
        (&wrong_name, &with_authority, "answers, and TLS fails", "as the certificate does"),
        (&tls_without, &[], "closes the connection", "rediss://"),
        (&wrong_password, &[], "answers, and refuses user or password", "percent-encoded"),
        (&no_password, &[], "answers, and asks for a password", "percent-encoded"),
        (&wrong_database, &[], "answers, and refuses the connection", "database number"),
    ] {
        let (found, mend) = faults(url, settings).await;

        assert!(found.starts_with(message) && mend.contains(fix), "{url}: {found}; {mend}");
        assert!(!found.contains("hunter"), "{found}");
    }
}

#[tokio::test]
async fn a_name_that_a_running_server_has_and_servers_with_another_secret_are_named() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let server = RestartableServer::start(&[("REDIS_URL", &url), ("NODE_ID", "n0")]).await;
    eventually("it is up", async || server.health().await["cluster"]["engine"] == "up").await;

    let (message, fix) = faults(&url, &[("NODE_ID", "n0")]).await;
    assert!(message.contains("another SECRET_KEY"), "{message}");
    assert!(fix.contains("redis://host:6379/1"), "{fix}");
    let (_, found) = findings(&[("REDIS_URL", &url), ("NODE_ID", "n0")]).await;
    let name = found.iter().find(|(.., message)| message.contains("NODE_ID n0"));
    assert_eq!(name.unwrap().1, "ok", "on this machine: {found:?}");
    let (_, found) = findings(&[("REDIS_URL", &url), ("MAX_CONNECTIONS_PER_ROOM", "7")]).await;
    let other = found.iter().find(|(.., message)| message.contains("MAX_CONNECTIONS_PER_ROOM"));
    assert_eq!(other.unwrap().1, "warning", "{found:?}");
}
