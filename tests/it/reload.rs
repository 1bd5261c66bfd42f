//! What SIGHUP changes while the server runs: all of it, or nothing.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use rustix::process::Signal;

use crate::harness::PASSWORD;
use crate::harness::{
    Client, http,
    process::{DEBUG, ServerProcess},
    replace_file, users_file,
};

const TURN_SECRET: &str = "a-secret-that-nobody-may-see-in-the-log";

/// A server with `.env` and a users file of its own, in which alice and bob are.
struct ReloadableServer {
    folder: TempDir,
    process: ServerProcess,
}

impl ReloadableServer {
    async fn with(dotenv: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("users.csv"), users_file(&["alice", "bob"], 4)).unwrap();
        fs::write(folder.path().join(".env"), dotenv).unwrap();
        let mut settings = DEBUG.to_vec();
        settings.push(("LOG_FORMAT", "json"));
        let process = ServerProcess::start(&folder, &settings).await;
        Self { folder, process }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hang_up(&self) {
        self.process.signal(Signal::HUP);
    }

    /// What the log says of a reload with this `.env`.
    async fn reloads(&mut self, dotenv: &str) -> Value {
        fs::write(self.file(".env"), dotenv).unwrap();
        self.hang_up();
        let line = self.process.log.next_line_with("\"message\":\"settings ").await;
        serde_json::from_str::<Value>(&line).unwrap()["fields"].clone()
    }

    async fn log_in(&self, username: &str) -> (u16, Value) {
        self.log_in_from("127.0.0.1", username).await
    }

    async fn log_in_from(&self, address: &str, username: &str) -> (u16, Value) {
        let url = format!("http://{}/auth/login", self.process.address);
        let body = json!({"username":username,"password":PASSWORD});
        let request = http().build().unwrap().post(url).header("x-forwarded-for", address);
        let answer = request.json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn connects(&self, room: &str) -> Client {
        Client::connect(self.process.address, room, &[]).await.unwrap()
    }

    async fn joins(&self, room: &str, username: &str) -> Client {
        let (_, login) = self.log_in(username).await;
        let mut client = self.connects(room).await;
        client.authenticate(username, login["access_token"].as_str().unwrap(), Value::Null).await;
        client
    }

    /// How somebody is sent away who wants in.
    async fn is_sent_away(&self, room: &str, username: &str) -> String {
        let (_, login) = self.log_in(username).await;
        let mut client = self.connects(room).await;
        let first = client.receive().await;
        if first["type"] == "auth_required" {
            client.send(json!({"type":"auth_token","token":login["access_token"]})).await;
        }
        client.read_to_close().await.1.1
    }
}

#[tokio::test]
async fn reloaded_limits_apply_at_once_and_members_stay() {
    let mut server = ReloadableServer::with("").await;
    let mut alice = server.joins("den", "alice").await;

    let said = server
        .reloads(
            "MAX_CONNECTIONS_PER_ROOM=1\nALLOWED_ROOMS=den\nWEBSOCKET_MAX_MESSAGE_BYTES=1024\n\
             CORS_ORIGINS=https://a.example\nRATE_LIMIT_PER_MINUTE=1000\nWEBSOCKET_MESSAGES_PER_SECOND=7\n",
        )
        .await;

    let changed = said["changed"].as_str().unwrap();
    for change in [
        "ALLOWED_ROOMS: (default) → den",
        "CORS_ORIGINS: (default) → https://a.example",
        "MAX_CONNECTIONS_PER_ROOM: (default) → 1",
        "RATE_LIMIT_PER_MINUTE: (default) → 1000",
        "WEBSOCKET_MAX_MESSAGE_BYTES: (default) → 1024",
        "WEBSOCKET_MESSAGES_PER_SECOND: (default) → 7",
    ] {
        assert!(changed.contains(change), "{changed}");
    }
    assert_eq!(
        (&said["message"], &said["need_restart"]),
        (&json!("settings reloaded"), &json!(""))
    );
    assert_eq!(server.is_sent_away("den", "bob").await, "Room is full");
    assert_eq!(server.is_sent_away("attic", "bob").await, "Room not allowed");
    alice.assert_no_more_messages().await;
    let url = format!("http://{}/health", server.process.address);
    let shared = async |origin| {
        let asked =
            http().build().unwrap().get(&url).header("origin", origin).send().await.unwrap();
        asked.headers().contains_key("access-control-allow-origin")
    };
    assert!(shared("https://a.example").await && !shared("https://b.example").await);
    let address = server.process.address;
    let foreign = Client::connect(address, "den", &[("origin", "https://b.example")]).await;
    assert!(foreign.is_err(), "a socket of a page that is none of ours");

    alice.leave().await;
    let mut bob = server.joins("den", "bob").await;
    bob.send(json!({"type":"message","message":"x".repeat(1024)})).await;
    assert_eq!(bob.receive().await["max_message_bytes"], 1024);
    bob.send(json!({"type":"message","message":"x".repeat(4096)})).await;
    assert_eq!(bob.read_to_close().await.1.0, 1009);
}

#[tokio::test]
async fn a_member_that_asked_for_it_is_told_the_reloaded_limits_of_its_messages() {
    let mut server = ReloadableServer::with("WEBSOCKET_TIMEOUT=9\n").await;
    let (_, login) = server.log_in("alice").await;
    let mut alice = server.connects("den").await;
    alice.receive().await;
    alice
        .send(json!({"type":"auth_token","token":login["access_token"],"features":["limits"]}))
        .await;
    let limits = alice.receive().await["limits"].clone();
    assert_eq!(
        limits,
        json!({"max_message_bytes":65536,"messages_per_second":50,"message_burst":250,"bytes_per_second":1048576})
    );
    alice.receive().await;

    server.reloads("WEBSOCKET_TIMEOUT=9\nWEBSOCKET_MAX_MESSAGE_BYTES=1024\n").await;

    let answer = alice.receive().await;
    assert_eq!(
        answer,
        json!({"type":"limits","limits":{"max_message_bytes":1024,"messages_per_second":50,"message_burst":250,"bytes_per_second":1048576}})
    );
    alice.send(json!({"type":"message","message":"x".repeat(1024)})).await;
    assert_eq!(alice.receive().await["code"], "message_too_big");
}

#[tokio::test]
async fn the_last_reload_sets_the_limits_of_sockets_requests_and_failed_logins() {
    let mut server = ReloadableServer::with("RATE_LIMIT_PER_MINUTE=0\n").await;
    let _alice = server.joins("den", "alice").await;
    let wrong = async |server: &ReloadableServer| server.log_in("nobody").await.0;
    assert_eq!(wrong(&server).await, 401);

    server
        .reloads("RATE_LIMIT_PER_MINUTE=0\nMAX_CONNECTIONS_PER_IP=1\nAUTH_MAX_FAILURES=1\n")
        .await;

    assert_eq!(server.is_sent_away("den", "bob").await, "Too many connections");
    assert_eq!(wrong(&server).await, 429, "the failure before counts");
    server.reloads("RATE_LIMIT_PER_MINUTE=1\nAUTH_MAX_FAILURES=2\n").await;
    assert_eq!([wrong(&server).await, wrong(&server).await], [401, 429]);
    let _bob = server.connects("den").await;
}

#[tokio::test]
async fn one_fault_rejects_the_whole_reload() {
    let mut server = ReloadableServer::with("ALLOWED_ROOMS=den\n").await;
    let users = fs::read_to_string(server.file("users.csv")).unwrap();
    let _alice = server.joins("den", "alice").await;

    let faulty = [
        ("ALLOWED_ROOMS=attic\nWEBSOCKET_TIMEOUT=soon\n", None, "WEBSOCKET_TIMEOUT: \"soon\""),
        ("ALLOWED_ROOMS=attic\nWORKERS=many\n", None, "WORKERS: \"many\""),
        ("ALLOWED_ROOMS=attic\nnonsense\n", None, ".env, line 2"),
        ("ALLOWED_ROOMS=attic\n", Some("garbage\n"), "users.csv, line 1"),
    ];
    for (dotenv, broken, named) in faulty {
        if let Some(broken) = broken {
            fs::write(server.file("users.csv"), broken).unwrap();
        }
        let said = server.reloads(dotenv).await;

        assert_eq!(
            said["message"],
            "settings not reloaded: settings, users and certificate are unchanged"
        );
        assert!(said["error"].as_str().unwrap().contains(named), "{said}");
        assert_eq!(server.is_sent_away("attic", "bob").await, "Room not allowed");
    }
    replace_file(&server.file("users.csv"), users);
    assert_eq!(server.reloads("ALLOWED_ROOMS=attic\n").await["message"], "settings reloaded");
    server.joins("attic", "bob").await;
}

#[tokio::test]
async fn reloaded_users_apply_at_once_and_removed_users_are_disconnected() {
    let mut server = ReloadableServer::with("").await;
    let alice = server.joins("den", "alice").await;

    replace_file(&server.file("users.csv"), users_file(&["bob", "carol"], 4));
    let said = server.reloads("").await;

    // Also where the file was noticed before.
    assert!(["", "the users file"].contains(&said["changed"].as_str().unwrap()), "{said}");
    assert_eq!(server.log_in("carol").await.0, 200);
    assert_eq!(alice.read_to_close().await.1.0, 4003);
}

#[tokio::test]
async fn a_reload_logs_the_names_of_changed_secrets_and_of_settings_that_need_a_restart() {
    let mut server = ReloadableServer::with("").await;

    let said = server
        .reloads(&format!(
            "TURNSERVER_SECRET={TURN_SECRET}\nTURNSERVER_URLS=turn:a:3478\nMETRICS_TOKEN={TURN_SECRET}\n"
        ))
        .await;
    let (_, login) = server.log_in("alice").await;
    let url = format!("http://{}/auth/turn-credentials", server.process.address);
    let token = login["access_token"].as_str().unwrap();
    let turn = http().build().unwrap().get(url).bearer_auth(token).send().await.unwrap();

    assert_eq!(said["changed"], "TURNSERVER_SECRET, TURNSERVER_URLS: (default) → turn:a:3478");
    assert_eq!(said["need_restart"], "METRICS_TOKEN");
    assert_eq!(turn.json::<Value>().await.unwrap()["urls"], json!(["turn:a:3478"]));
    assert!(!server.process.log.lines().concat().contains(TURN_SECRET));
}

#[tokio::test]
async fn a_reloaded_log_level_is_logged_in_both_directions() {
    let mut server = ReloadableServer::with("").await;

    for (number, level) in
        ["DEBUG", "ERROR", "WARNING", "DEBUG", "INFO", "ERROR"].iter().enumerate()
    {
        let said = server.reloads(&format!("LOG_LEVEL={level}\n")).await;
        assert!(said["changed"].as_str().unwrap().ends_with(level), "{said}");
        // Each from another address: a second failure of one address within a minute has no line.
        server.log_in_from(&format!("192.0.2.{number}"), "nobody").await;
    }

    let said =
        |word: &str| server.process.log.lines().iter().filter(|line| line.contains(word)).count();
    assert_eq!(said("\"settings reloaded\""), 6);
    // A warning, and what only DEBUG shows.
    assert_eq!((said("login failed"), said("\"answered\"")), (4, 2));
}

#[tokio::test]
async fn a_reload_takes_up_a_certificate_and_rejects_one_that_does_not_match_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let process = ServerProcess::start(
        &folder,
        &[
            ("DEBUG", "true"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("LOG_FORMAT", "json"),
            ("SSL_SELF_SIGNED", "true"),
        ],
    )
    .await;
    let mut server = ReloadableServer { folder, process };
    let make = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, two) = (make(), make());
    let ssl = |file: &str| server.folder.path().join("ssl").join(file);
    let (certificate, key) = (ssl("server.crt"), ssl("server.key"));
    let shown = async |server: &ReloadableServer| {
        super::tls::certificate_of(TcpStream::connect(&server.process.address).await.unwrap()).await
    };
    let before = shown(&server).await;

    fs::write(&certificate, one.cert.pem()).unwrap();
    fs::write(&key, two.signing_key.serialize_pem()).unwrap();
    let refused = server.reloads("ALLOWED_ROOMS=den\n").await;
    assert_eq!(
        refused["message"],
        "settings not reloaded: settings, users and certificate are unchanged"
    );
    assert!(refused["error"].as_str().unwrap().contains("SSL_CERT_FILE"), "{refused}");
    assert_eq!(shown(&server).await, before);

    fs::write(&key, one.signing_key.serialize_pem()).unwrap();
    let said = server.reloads("ALLOWED_ROOMS=den\n").await;
    let changed = said["changed"].as_str().unwrap();
    assert!(changed.starts_with("ALLOWED_ROOMS: (default) → den"), "{said}");
    assert_eq!(shown(&server).await, one.cert.der().to_vec());
}
