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
        Client, TEST_TIMEOUT, http,
        process::{RestartableServer, SERVER, ServerProcess, command, start_err, text},
    },
};

/// As [`RestartableServer`] has it.
const KEY: &str = "jwt-key-of-the-server-0123456789abcdef";

/// A token that no library has made.
fn minted(key: &[u8], header: &Value, claims: &Value) -> String {
    let signed = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = signed.join(".");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
}

fn hs256(key: &str, claims: &Value) -> String {
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
async fn diagnose(folder: &TempDir, token: &str, settings: &[(&str, &str)]) -> (bool, Vec<Value>) {
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

fn about<'a>(found: &'a [Value], subject: &str) -> &'a Value {
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
    for subject in ["token", "alg", "key", "exp", "account"] {
        assert_eq!(about(&found, subject)["verdict"], "ok", "{found:#?}");
    }

    let wrong = hs256(key, &json!({"sub":7,"exp":later * 1000,"nbf":"soon"}));
    let (is_well, found) = diagnose(&folder, &wrong, &[]).await;
    assert!(!is_well);
    assert_eq!(about(&found, "key")["verdict"], "ok");
    for (subject, message, fix) in [
        ("exp", "milliseconds", "divide by 1000"),
        ("nbf", "is a text", "without quotes"),
        ("sub", "`sub` is a number; it must be a text", "as a text"),
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
