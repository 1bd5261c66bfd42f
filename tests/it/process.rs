//! The two binaries, as processes.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::UnixDatagram, time::timeout};

use rustix::process::Signal;

use crate::harness::{
    Client, TEST_TIMEOUT, http,
    log::ProcessLog,
    process::{
        DEBUG, INTERVALS, NEVER, ServerProcess, command, manage_err, manage_ok, signal, start_err,
        text,
    },
};

pub fn users_csv(folder: &TempDir) -> String {
    fs::read_to_string(folder.path().join("users.csv")).unwrap()
}

#[tokio::test]
async fn users_are_added_listed_changed_and_removed() {
    let folder = tempfile::tempdir().unwrap();

    let hinted = manage_ok(&folder, &["add", "alice:secret1"], "").await;
    manage_ok(&folder, &["add", "bob:secret1:bob@company.com"], "").await;
    manage_ok(&folder, &["add", "carol:secret1", "carol@company.com"], "").await;
    let quiet = manage_ok(&folder, &["add", "--password-stdin", "dave"], "se:cret:1\n").await;
    let list = manage_ok(&folder, &["list"], "").await;

    assert!(
        hinted.contains("user \"alice\" added")
            && hinted.contains("hint:")
            && !quiet.contains("hint:")
    );
    for words in
        ["alice@example.com", "bob@company.com", "carol@company.com", "dave@example.com", "4 users"]
    {
        assert!(list.contains(words), "{list}");
    }
    let file = users_csv(&folder);
    assert!(
        file.starts_with(
            "username,email,hashed_password,is_active\nalice,alice@example.com,$2b$12$"
        ),
        "{file}"
    );
    let dave =
        file.lines().find(|line| line.starts_with("dave,")).unwrap().split(',').nth(2).unwrap();
    assert!(bcrypt::verify("se:cret:1", dave).unwrap());

    manage_ok(&folder, &["passwd", "--password-stdin", "dave"], "other1").await;
    manage_ok(&folder, &["disable", "bob"], "").await;
    manage_ok(&folder, &["remove", "alice"], "").await;
    let list = manage_ok(&folder, &["list"], "").await;
    manage_ok(&folder, &["enable", "bob"], "").await;

    assert!(!list.contains("alice") && list.contains("3 users"));
    assert!(list.lines().any(|line| line.starts_with("bob") && line.ends_with("no")), "{list}");
    let file = users_csv(&folder);
    assert!(file.lines().any(|line| line.starts_with("bob,") && line.ends_with(",True")));
    let dave =
        file.lines().find(|line| line.starts_with("dave,")).unwrap().split(',').nth(2).unwrap();
    assert!(bcrypt::verify("other1", dave).unwrap());
}

/// U05.
#[tokio::test]
async fn invalid_changes_are_rejected_and_leave_the_users_file_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    manage_ok(&folder, &["add", "alice:secret1"], "").await;
    let before = users_csv(&folder);
    let exact = format!("exact:{}", "x".repeat(72));
    let long = format!("long:{}", "x".repeat(73));

    for (arguments, typed, words) in [
        (&["add", "alice:secret2"][..], "", "exists already"),
        (&["add", "bob:pa:ss:word"], "", "--password-stdin bob"),
        (&["add", "bob:pass:word"], "", "--password-stdin bob"),
        (&["add", "bob:pass:word", "bob@company.com"], "", "--password-stdin bob"),
        (&["add", "al:secret1"], "", "3 to 64 characters"),
        (&["add", " bob:secret1"], "", "no space"),
        (&["add", "bob:12345"], "", "6 to 72 bytes"),
        (&["add", &long], "", "73"),
        (&["add", "bob:secret1", "nonsense"], "", "no email address"),
        (&["add", "--password-stdin", "bob"], "", "6 to 72 bytes"),
        (&["add", "--password-stdin", "b:ob"], "secret1", "no \":\""),
        (&["add", "bob"], "", "--password-stdin"),
        (&["remove", "nobody"], "", "no user \"nobody\""),
        (&["passwd", "--password-stdin", "nobody"], "secret1", "no user \"nobody\""),
        (&["disable", "nobody"], "", "no user \"nobody\""),
        (&["dance"], "", "unrecognized subcommand"),
        (&[], "", "Usage"),
    ] {
        let said = manage_err(&folder, arguments, typed).await;

        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert_eq!(users_csv(&folder), before);
    manage_ok(&folder, &["add", &exact], "").await;
    manage_ok(&folder, &["add", "zoë miller:secret1"], "").await;
}

#[tokio::test]
async fn only_add_creates_a_missing_users_file() {
    let folder = tempfile::tempdir().unwrap();

    for arguments in
        [&["list"][..], &["remove", "alice"], &["enable", "alice"], &["disable", "alice"]]
    {
        assert!(manage_err(&folder, arguments, "").await.contains("users.csv"));
    }
    assert!(!folder.path().join("users.csv").exists());
}

/// U07.
#[tokio::test]
async fn concurrent_additions_are_all_made() {
    let folder = tempfile::tempdir().unwrap();

    let adding = (0..6).map(async |number| {
        manage_ok(&folder, &["add", &format!("user{number}:secret1")], "").await
    });
    futures_util::future::join_all(adding).await;

    assert_eq!(users_csv(&folder).lines().count(), 7);
}

/// O01.
#[tokio::test]
async fn a_server_in_debug_creates_users_logs_its_address_and_stops_on_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = ServerProcess::start(&folder, &DEBUG).await;

        let health: Value = reqwest::get(format!("http://{}/health", server.address))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        server.signal(signal);
        let ended = server.wait().await;

        assert_eq!((health["status"].as_str(), ended.code()), (Some("healthy"), Some(0)));
        let users = users_csv(&folder);
        assert!(["admin,", "user1,", "user2,"].iter().all(|user| users.contains(user)));
    }
}

async fn status(address: SocketAddr, path: &str) -> u16 {
    let client = http().pool_max_idle_per_host(0).build().unwrap();
    let answer = client.get(format!("http://{address}{path}")).send().await;
    answer.map_or(0, |answer| answer.status().as_u16())
}

/// Whoever comes while the server stops is told so, until the last has left.
#[tokio::test]
async fn a_draining_server_is_not_ready_and_rejects_new_clients() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&folder, &DEBUG).await;
    let address: SocketAddr = server.address;
    assert_eq!(status(server.address, "/health/ready").await, 200);
    // Reads nothing, and so does not close in turn.
    let slow = Client::connect(address, "den", &[]).await.unwrap();

    server.signal(Signal::TERM);
    server.log.next_line_with("shutting down").await;

    assert_eq!(status(server.address, "/health/ready").await, 503);
    let late = Client::connect(address, "den", &[]).await.unwrap();
    let (frames, close) = late.read_to_close().await;
    assert_eq!((&frames[0]["code"], close.0), (&"draining".into(), 1012));
    drop(slow);
    let ended = timeout(TEST_TIMEOUT, server.child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0));
}

/// While one process follows the other on a socket that was handed over, whoever connects waits.
#[tokio::test]
async fn with_socket_activation_a_restart_refuses_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut old = ServerProcess::start_on(&listener, &folder).await;
    assert_eq!(old.address, address, "it does not look at HOST and PORT");
    assert_eq!(status(address, "/health").await, 200);

    assert_eq!(old.stop().await.code(), Some(0));
    let mut between = tokio::net::TcpStream::connect(&address).await.unwrap();
    between.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let _new = ServerProcess::start_on(&listener, &folder).await;

    let mut answer = [0; 15];
    let answered = tokio::io::AsyncReadExt::read_exact(&mut between, &mut answer);
    timeout(TEST_TIMEOUT, answered).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// sd_notify(3).
#[tokio::test]
async fn systemd_is_notified_when_the_server_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let notified = async || {
        let mut state = [0; 64];
        let length = timeout(TEST_TIMEOUT, systemd.recv(&mut state))
            .await
            .expect("no notification")
            .unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let mut settings = DEBUG.to_vec();
    settings.push(("NOTIFY_SOCKET", path.to_str().unwrap()));

    let mut server = ServerProcess::start(&folder, &settings).await;
    assert_eq!(notified().await.trim_end(), "READY=1");
    assert_eq!(status(server.address, "/health").await, 200);

    assert_eq!(server.stop().await.code(), Some(0));
    assert_eq!(notified().await.trim_end(), "STOPPING=1");
}

/// A listener that is none, or another kind of socket, is no reason to listen elsewhere.
#[tokio::test]
async fn an_inherited_descriptor_that_is_not_one_tcp_socket_prevents_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for count in [1, 2] {
        let mut command = command("/bin/sh", &folder);
        let start =
            format!("exec 3</dev/null 4</dev/null; LISTEN_FDS={count} LISTEN_PID=$$ exec \"$0\"");
        command.args(["-c", &start, env!("CARGO_BIN_EXE_signaling-server")]).envs(DEBUG);

        let output = timeout(TEST_TIMEOUT, command.output()).await.unwrap().unwrap();

        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).starts_with("LISTEN_FDS: "), "{}", text(&output));
    }
}

#[tokio::test]
async fn shutdown_waits_no_longer_than_the_grace_for_an_unfinished_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = DEBUG.to_vec();
    settings.extend([("SHUTDOWN_GRACE_SECONDS", "1"), (INTERVALS, NEVER)]);
    let mut server = ServerProcess::start(&folder, &settings).await;
    // A request that does not end: its head is whole, its body never comes.
    let mut stuck = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let head = "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
    stuck.write_all(head.as_bytes()).await.unwrap();
    let mut goes_on = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stuck, &mut goes_on).await.unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100", "the server is reading the body");

    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_log_that_is_not_read_blocks_neither_requests_nor_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = DEBUG.to_vec();
    settings.push(("LOG_LEVEL", "DEBUG"));
    let mut server = ServerProcess::start(&folder, &settings).await;
    let client = http().build().unwrap();

    server.log.pause();
    // More than a pipe holds: a line for each request.
    for _ in 0..1000 {
        let health = client.get(format!("http://{}/health", server.address)).send();
        assert_eq!(
            timeout(TEST_TIMEOUT, health)
                .await
                .expect("the server waits for its log")
                .unwrap()
                .status(),
            200
        );
    }
    let ended = server.stop().await;

    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_connection_without_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = DEBUG.to_vec();
    settings.extend([("SHUTDOWN_GRACE_SECONDS", "600"), (INTERVALS, NEVER)]);
    let mut server = ServerProcess::start(&folder, &settings).await;
    let _ahead_of_need = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let mut half = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    half.write_all(b"GET / HT").await.unwrap();
    // Answered after the two were accepted, since connections are accepted in order.
    reqwest::get(format!("http://{}/health", server.address)).await.unwrap();

    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn sighup_does_not_end_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(&folder, &DEBUG).await;

    server.signal(Signal::HUP);

    let health = reqwest::get(format!("http://{}/health", server.address)).await.unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn sighup_reloads_the_turn_servers_and_members_receive_them() {
    let folder = tempfile::tempdir().unwrap();
    let set = |text: &str| fs::write(folder.path().join(".env"), text).unwrap();
    let secret = "TURNSERVER_SECRET=a-secret-that-is-long-enough-for-coturn\n";
    set(&format!("{secret}TURNSERVER_URLS=turn:a:3478\n"));
    let mut settings = DEBUG.to_vec();
    settings.extend([("LOG_FORMAT", "json"), ("WEBSOCKET_TIMEOUT", "3")]);
    let mut server = ServerProcess::start(&folder, &settings).await;
    let login = reqwest::Client::new().post(format!("http://{}/auth/login", server.address));
    let login = login.json(&json!({"username":"user1","password":"password123"}));
    let token: Value = login.send().await.unwrap().json().await.unwrap();
    let mut client = Client::connect(server.address, "den", &[]).await.unwrap();
    client.receive().await;
    let token = &token["access_token"];
    client.send(json!({"type":"auth_token","token":token,"features":["ice"]})).await;
    let success = client.receive().await;
    assert_eq!(success["iceServers"][0]["urls"], json!(["turn:a:3478"]));
    client.receive().await;

    set(&format!("{secret}TURNSERVER_URLS=nonsense\n"));
    server.signal(Signal::HUP);
    let refused = server.log.next_line_with("settings not reloaded").await;
    set(&format!("{secret}TURNSERVER_URLS=turn:b:3478\nTURNSERVER_TTL=600\n"));
    server.signal(Signal::HUP);
    let read = server.log.next_line_with("\"settings reloaded\"").await;
    let news = client.receive().await;

    assert!(refused.contains("TURNSERVER_URLS") && !refused.contains("a-secret"), "{refused}");
    assert!(read.contains("TURNSERVER_URLS: turn:a:3478 → turn:b:3478"), "{read}");
    assert_eq!((&news["type"], &news["ttl"]), (&json!("ice_servers"), &json!(600)));
    assert_eq!(news["iceServers"][0]["urls"], json!(["turn:b:3478"]));
    assert!(news["iceServers"][0]["username"].as_str().unwrap().ends_with(":user1"));
    server.signal(Signal::HUP);
    assert!(server.log.next_line_with("\"settings reloaded\"").await.contains("\"changed\":\"\""));
    assert_eq!(server.stop().await.code(), Some(0));
}

/// One thread checks eight passwords that take a second or more each.
#[tokio::test]
async fn shutdown_does_not_wait_for_password_checks() {
    const LOGINS: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let slow = "$2b$16$PNdffZl.HgEeyIRjlAqU7e3sDURzEN7C7i/Y9Dnc..easEWd1ZvJy";
    let rows = (0..LOGINS).map(|number| format!("slow{number},{slow}\n"));
    let users = format!("username,hashed_password\n{}", rows.collect::<String>());
    fs::write(folder.path().join("users.csv"), users).unwrap();
    let mut settings = DEBUG.to_vec();
    settings.extend([("SHUTDOWN_GRACE_SECONDS", "1"), ("LOG_LEVEL", "TRACE")]);
    let mut server = ServerProcess::start(&folder, &settings).await;
    let mut logins = Vec::new();
    for number in 0..LOGINS {
        let body = format!(r#"{{"username":"slow{number}","password":"whatever"}}"#);
        let head = format!(
            "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nX-Forwarded-For: 192.0.2.{number}\r\n"
        );
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = tokio::net::TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        logins.push(stream);
    }
    server.log.next_line_with("checking a password").await;

    assert_eq!(server.stop().await.code(), Some(0));

    assert!(server.log.count("login failed") < LOGINS, "all have been checked");
}

#[tokio::test]
async fn the_log_has_the_level_and_the_format_of_the_settings() {
    for (level, format, loud) in [("WARNING", "pretty", false), ("INFO", "json", true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = command(env!("CARGO_BIN_EXE_signaling-server"), &folder);
        let settings = [("LOG_LEVEL", level), ("LOG_FORMAT", format)];
        let mut child = child.envs(DEBUG).envs(settings).stdout(Stdio::piped()).spawn().unwrap();
        let mut log = ProcessLog::default();
        log.keep(child.stdout.take().unwrap());

        log.line_with("default users created").await; // a warning; signals are handled by then
        signal(&child, Signal::TERM);
        let ended = timeout(TEST_TIMEOUT, child.wait()).await.expect("still running").unwrap();
        assert_eq!(ended.code(), Some(0));

        let said = log.read_to_end().await.join("\n");
        assert_eq!(said.contains("shutdown complete"), loud, "{said}");
        assert_eq!(said.starts_with('{'), format == "json", "{said}");
    }
}

/// O04.
#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();

    let settings = [("DEBUG", "true"), ("HOST", "127.0.0.1"), ("PORT", &*port)];
    let said = start_err(&folder, &settings, &[]).await;

    assert!(said.contains(&format!("another program listens on 127.0.0.1 port {port}")), "{said}");
}

/// O05, O06.
#[tokio::test]
async fn an_unsafe_start_is_refused_with_a_line_for_each_fault() {
    let folder = tempfile::tempdir().unwrap();

    let bare = start_err(&folder, &[], &[]).await;
    let odd =
        start_err(&folder, &[("MAX_CONNECTIONS_PER_ROOM", "-3"), ("DEBUG", "true")], &[]).await;

    let faults_of = |said: &str| said.lines().filter(|line| !line.starts_with("no .env")).count();
    assert_eq!(faults_of(&bare), 3, "{bare}");
    assert!(
        bare.contains("SECRET_KEY")
            && bare.contains("JWT_SECRET_KEY")
            && bare.contains("openssl rand -hex 32")
            && bare.contains("manage_users add")
    );
    assert_eq!(faults_of(&odd), 1, "{odd}");
    assert!(odd.contains("MAX_CONNECTIONS_PER_ROOM: \"-3\""));
}

/// O10.
#[tokio::test]
async fn default_passwords_are_found_by_check_config() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy("tests/fixtures/fastapi_users.csv", folder.path().join("users.csv")).unwrap();
    let (one, two) = ("a".repeat(32), "b".repeat(32));
    let settings = [("SECRET_KEY", &*one), ("JWT_SECRET_KEY", &*two)];

    let faults = start_err(&folder, &settings, &["--check-config"]).await;
    let spaced = [settings[0], settings[1], ("USERS_CSV", " users.csv ")];
    assert_eq!(start_err(&folder, &spaced, &["--check-config"]).await, faults);
    let empty = [settings[0], settings[1], ("USERS_CSV", "")];
    assert_eq!(start_err(&folder, &empty, &["--check-config"]).await, faults);
    for user in ["admin", "user1", "user2"] {
        manage_ok(&folder, &["passwd", "--password-stdin", user], "a better one").await;
    }
    let mut check = command(env!("CARGO_BIN_EXE_signaling-server"), &folder);
    let check = check.arg("--check-config").envs(settings).output().await.unwrap();
    let debug = start_err(&folder, &[("DEBUG", "true")], &["--check-config"]).await;

    let counted = faults.lines().filter(|line| line.starts_with("users: user ")).count();
    assert_eq!(counted, 3, "{faults}");
    assert!(faults.contains("manage_users passwd admin"));
    assert_eq!(check.status.code(), Some(0), "{}", text(&check));
    assert!(debug.contains("DEBUG=true"));
}

#[tokio::test]
async fn the_environment_overrides_dotenv() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}DEBUG=true\nREQUIRE_HTTPS=false\nHOST=127.0.0.1\nPORT=nonsense\nUSERS_CSV=people.csv\nCORS_ORIGINS=[\"https://a.example\"] # ours\n";
    fs::write(folder.path().join(".env"), text).unwrap();

    let mut server = ServerProcess::start(&folder, &[("PORT", "0"), ("LOG_FORMAT", "json")]).await;
    let listed = manage_ok(&folder, &["list"], "").await;
    let ended = server.stop().await;

    assert!(
        Path::new(&folder.path().join("people.csv")).exists()
            && !folder.path().join("users.csv").exists()
    );
    assert!(listed.contains("3 users"));
    assert_eq!(ended.code(), Some(0));
}
