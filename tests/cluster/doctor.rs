//! `signaling-server doctor` looks at the Redis that the settings name.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::harness::{process::DEBUG, redis_server::RedisServer, users_file};

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
async fn findings(settings: &[(&str, &str)]) -> (bool, Vec<(String, String, String)>) {
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
    assert_eq!(found.len(), 5);
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
