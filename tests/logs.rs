//! Nothing secret reaches the log. A process of its own: `tracing` caches call sites per process,
//! and here the most talkative server there is writes to a pipe that is read to its end.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "these are tests"
)]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::{connect_async, tungstenite::Message};

const JWT_SECRET: &str = "jwt-key-that-nobody-may-see-0123456789";
const SECRET: &str = "own-key-that-nobody-may-see-0123456789";
const TURN_SECRET: &str = "turn-key-that-nobody-may-see";
const WEBHOOK: &str = "path-that-nobody-may-see";
const PASSWORD: &str = "password123";
const SDP: &str = "v=0 o=- 4611731400430051336 2 IN IP4 127.0.0.1 a=ice-pwd:asd88fgpdd777uzjYhagZg";
const API_KEY: &str = "a-key-that-a-collector-asks-for";
const REDIS_PASSWORD: &str = "redis-password-that-nobody-may-see";
const WEBHOOK_FAILED: &str = "webhook delivery failed";
const MISTYPED: &str = "MyOtherPassw0rd-in-the-wrong-field";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_session_logged_at_trace_leaves_no_secret_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("DEBUG", "true"),
        ("REQUIRE_HTTPS", "false"),
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("LOG_LEVEL", "TRACE"),
        ("LOG_FORMAT", "json"),
        ("JWT_SECRET_KEY", JWT_SECRET),
        ("SECRET_KEY", SECRET),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_EXPORTER_OTLP_HEADERS", &format!("api-key={API_KEY}")),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("TURNSERVER_URLS", "turn:127.0.0.1:3478"),
        ("WEBHOOK_URLS", &format!("http://127.0.0.1:1/hooks/{WEBHOOK}?key={WEBHOOK}")),
        ("WEBHOOK_ALLOW_PRIVATE", "true"),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_signaling-server"));
    command
        .env_clear()
        .envs(settings)
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = Server(command.spawn().unwrap());
    let mut stderr = server.0.stderr.take().unwrap();
    let mut stdout = BufReader::new(server.0.stdout.take().unwrap());
    let mut log = String::new();
    while !log.contains("\"listening\"") {
        assert_ne!(stdout.read_line(&mut log).unwrap(), 0, "ended: {log}");
    }
    let open: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    let address = open["fields"]["address"].as_str().unwrap().to_owned();
    let (logs_webhook, webhook_logged) = tokio::sync::oneshot::channel();
    let reading = std::thread::spawn(move || {
        let mut logs_webhook = Some(logs_webhook);
        loop {
            let start = log.len();
            if stdout.read_line(&mut log).unwrap() == 0 {
                break;
            }
            if log[start..].contains(WEBHOOK_FAILED)
                && let Some(logs_webhook) = logs_webhook.take()
            {
                let _ = logs_webhook.send(());
            }
        }
        stderr.read_to_string(&mut log).unwrap();
        log
    });

    let pid = server.0.id().to_string();
    let secrets = live_a_whole_session(&address, folder.path(), &pid).await;
    // A thread of its own posts webhooks, and a server that stops does not log that it could not.
    timeout(Duration::from_secs(60), webhook_logged).await.expect(WEBHOOK_FAILED).unwrap();
    // It ends by itself, so that what it still has to log is there.
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    server.0.wait().unwrap();
    drop(server);
    let log = reading.join().unwrap();

    for event in [
        "logged in",
        "login failed",
        "member joined",
        "member left",
        "connection rejected",
        "token refresh refused",
        "logged out",
        "settings reloaded",
        "settings not reloaded",
    ] {
        assert!(log.contains(event), "the log does not say {event:?}: it tests nothing");
    }
    let users = std::fs::read_to_string(folder.path().join("users.csv")).unwrap();
    let hashes = users.lines().skip(1).map(|line| line.split(',').nth(2).unwrap().to_owned());
    for secret in secrets.into_iter().chain(hashes) {
        assert!(secret.len() > 5 && !log.contains(&secret), "the log contains {secret}");
    }
}

/// Does everything once that a secret is part of; returns the secrets.
async fn live_a_whole_session(address: &str, folder: &Path, pid: &str) -> Vec<String> {
    let hang_up = |dotenv: &str| {
        std::fs::write(folder.join(".env"), dotenv).unwrap();
        assert!(Command::new("kill").args(["-HUP", pid]).status().unwrap().success());
    };
    let dotenv = format!("TURNSERVER_SECRET={TURN_SECRET}\nMETRICS_TOKEN={SECRET}\n");
    hang_up(&dotenv);
    let http = reqwest::Client::new();
    let url = |path: &str| format!("http://{address}{path}");
    let log_in = async |username: &str, password: &str| {
        let request =
            http.post(url("/auth/login")).json(&json!({"username":username,"password":password}));
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let token = log_in("user1", PASSWORD).await["access_token"].as_str().unwrap().to_owned();
    log_in("user1", "not-the-password").await;
    log_in(MISTYPED, PASSWORD).await;
    http.post(url("/auth/login"))
        .header("content-type", "application/json")
        .body(format!("{{\"password\":{MISTYPED}"))
        .send()
        .await
        .unwrap();
    let form = http.post(url("/auth/token")).form(&[("username", "user2"), ("password", PASSWORD)]);
    let second: Value = form.send().await.unwrap().json().await.unwrap();
    let second = second["access_token"].as_str().unwrap().to_owned();
    let refreshed: Value = http
        .post(url("/auth/refresh"))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let refreshed = refreshed["access_token"].as_str().unwrap().to_owned();
    // Until the secret is taken up there are none.
    let turn: Value = loop {
        let asked = http.get(url("/auth/turn-credentials")).bearer_auth(&token).send();
        let turn: Value = asked.await.unwrap().json().await.unwrap();
        if turn["credential"].is_string() {
            break turn;
        }
    };
    hang_up(&format!("{dotenv}REDIS_URL=http://user:{REDIS_PASSWORD}@127.0.0.1\n"));
    http.get(url(&format!("/auth/me?token={token}")))
        .bearer_auth(format!("{token}x"))
        .send()
        .await
        .unwrap();

    let mut sockets = Vec::new();
    for token in [&token, &second] {
        let (mut socket, _) =
            connect_async(format!("ws://{address}/ws/den?token={token}")).await.unwrap();
        socket.send(text(&json!({"type":"auth_token","token":token}))).await.unwrap();
        while !heard(&mut socket).await.contains("users_in_room") {}
        sockets.push(socket);
    }
    let (mut forger, _) = connect_async(format!("ws://{address}/ws/den")).await.unwrap();
    forger.send(text(&json!({"type":"auth_token","token":format!("{token}x")}))).await.unwrap();
    while forger.next().await.is_some_and(|frame| frame.is_ok()) {}

    let mut listener = sockets.pop().unwrap();
    let mut talker = sockets.pop().unwrap();
    talker.send(text(&json!({"type":"offer","offer":{"sdp":SDP}}))).await.unwrap();
    talker.send(text(&json!({"type":"dance","sdp":SDP}))).await.unwrap();
    talker.send(Message::text(format!("{{{SDP}"))).await.unwrap();
    talker.send(text(&json!({"type":"auth_token","token":format!("{token}x")}))).await.unwrap();
    talker.send(text(&json!({"type":"auth_token","token":refreshed}))).await.unwrap();
    while !heard(&mut listener).await.contains("ice-pwd") {}
    while !heard(&mut talker).await.contains("token_refreshed") {}
    http.post(url("/auth/logout")).bearer_auth(&refreshed).send().await.unwrap();
    while talker.next().await.is_some_and(|frame| frame.is_ok()) {}
    drop(listener);
    while !http.get(url("/api/rooms")).send().await.unwrap().text().await.unwrap().starts_with("[]")
    {
    }

    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let credential = turn["credential"].as_str().unwrap().to_owned();
    let plain = [
        JWT_SECRET,
        SECRET,
        TURN_SECRET,
        API_KEY,
        REDIS_PASSWORD,
        WEBHOOK,
        PASSWORD,
        "not-the-password",
        MISTYPED,
        "ice-pwd",
        SDP,
    ]
    .map(str::to_owned);
    let tokens =
        [signature(&token), signature(&second), signature(&refreshed), token, second, refreshed];
    plain.into_iter().chain(tokens).chain([credential]).collect()
}

fn text(message: &Value) -> Message {
    Message::text(message.to_string())
}

async fn heard(
    socket: &mut (impl StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin),
) -> String {
    let frame = timeout(Duration::from_secs(20), socket.next()).await.expect("nothing was heard");
    frame.unwrap().unwrap().to_text().unwrap_or_default().to_owned()
}
