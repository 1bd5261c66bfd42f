//! The process and what is around it: signals, clocks, proxies, logs, file modes (group O).

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use signaling::clock::unix_now;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::{Instant, interval, timeout},
};

use rustix::process::Signal;

use super::{
    attacked_server::{AttackedServer, JWT_SECRET_KEY, SECRET_KEY},
    raw::{PING, Raw},
};
use crate::harness::{
    Client, PASSWORD, TEST_TIMEOUT, compile_clock, eventually,
    process::{DEBUG, INTERVALS, ServerProcess, command, signal},
    replace_file, users_file,
};

fn folder_with_users(cost: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let names = ["alice", "bob", "carol", "dave"];
    fs::write(folder.path().join("users.csv"), users_file(&names, cost)).unwrap();
    folder
}

async fn log_in(address: SocketAddr, username: &str) -> reqwest::Response {
    let request = reqwest::Client::new().post(format!("http://{address}/auth/login"));
    request.json(&json!({"username":username,"password":PASSWORD})).send().await.unwrap()
}

async fn token(address: SocketAddr, username: &str) -> String {
    let body: Value = log_in(address, username).await.json().await.unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

async fn join(address: SocketAddr, room: &str, username: &str, token: &str) -> Client {
    let mut client = Client::connect(address, room, &[]).await.unwrap();
    client.authenticate(username, token, Value::Null).await;
    client
}

/// O02: whoever is logging in when the server is asked to stop is logged in.
#[tokio::test]
async fn a_login_that_has_begun_is_finished_before_shutdown() {
    let folder = folder_with_users(12);
    let more = [("LOG_LEVEL", "TRACE"), ("SHUTDOWN_GRACE_SECONDS", "60")];
    let settings = [&DEBUG[..], &more].concat();
    let mut server = ServerProcess::start(&folder, &settings).await;
    let address = server.address;
    let login = tokio::spawn(async move { log_in(address, "alice").await.status() });
    server.log.next_line_with("checking a password").await;

    let ended = server.stop().await;

    assert_eq!(ended.code(), Some(0));
    assert_eq!(login.await.unwrap(), 200);
}

/// O03: five of the catalogue's hundred rounds: killed with forty members, and soon ready for them again.
#[tokio::test]
async fn a_server_that_was_killed_can_be_restarted_again_and_again() {
    let folder = folder_with_users(4);

    for _ in 0..5 {
        let mut server = ServerProcess::start(&folder, &DEBUG).await;
        let token = token(server.address, "alice").await;
        let arriving = (0..40).map(async |number| {
            join(server.address, &format!("room{}", number % 8), "alice", &token).await
        });
        let members = join_all(arriving).await;

        server.kill().await;
        drop(members);
    }
    assert_eq!(fs::read_to_string(folder.path().join("users.csv")).unwrap().lines().count(), 5);
}

/// X04: a herd that comes while the server has no time for it waits in the system's queue, and nobody of
/// it has to knock a second later again. As many as the system lets wait, here at most 1,000.
#[tokio::test]
async fn connections_to_a_suspended_server_wait_in_the_listen_queue() {
    let longest: usize =
        fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let server = AttackedServer::start(&[]).await;
    let before = server.open_files();
    server.signal(Signal::STOP);

    let herd = (0..longest.min(1_000)).map(|_| server.raw()).collect::<Vec<_>>();
    let herd = timeout(TEST_TIMEOUT, join_all(herd)).await;
    server.signal(Signal::CONT);

    let herd = herd.expect("no room in the queue");
    eventually("all are accepted", async || match server.open_files() {
        now if now >= before + herd.len() => Ok(()),
        now => Err(now),
    })
    .await;
    drop(herd);
    server.assert_unharmed().await;
}

/// O01, N16: 240 members hear that the server restarts, when to come back, each at another time within
/// the grace, and the close; the process ends in time. (The catalogue has 5,000.)
#[tokio::test]
async fn every_member_is_told_when_to_reconnect() {
    let folder = folder_with_users(4);
    let settings = [&DEBUG[..], &[("MAX_CONNECTIONS_PER_IP", "0")]].concat();
    let mut server = ServerProcess::start(&folder, &settings).await;
    let token = token(server.address, "alice").await;
    let mut members = Vec::new();
    for number in 0..240 {
        members.push(join(server.address, &format!("room{}", number % 40), "alice", &token).await);
    }

    let listening = join_all(members.into_iter().map(Client::read_to_close));
    let (farewells, ended) = tokio::join!(listening, server.stop());

    assert_eq!(ended.code(), Some(0));
    let mut times = Vec::new();
    for (before, close) in farewells {
        assert_eq!(close, (1012, "Server is restarting".into()));
        let [.., shutdown, error] = &before[..] else { panic!("{before:?}") };
        assert_eq!((&shutdown["type"], &error["retry"]), (&json!("server_shutdown"), &json!(true)));
        times.push(shutdown["reconnect_in_ms"].as_u64().unwrap());
    }
    assert!(times.iter().all(|time| *time < 10_000), "{times:?}");
    // Of 240 throws of a fair die no tenth stays empty, but once in many millions of times.
    for tenth in 0..10 {
        assert!(
            times.iter().any(|time| time / 1000 == tenth),
            "nobody in second {tenth}: {times:?}"
        );
    }
}

/// O08: whatever a client writes, it writes no line of the log; logins are in it, tokens are not.
#[tokio::test]
async fn clients_cannot_forge_log_lines() {
    const FORGED: &str = "\n{\"level\":\"ERROR\",\"fields\":{\"message\":\"FORGED\"}}\r\n\u{1b}[31mFORGED\u{2028}FORGED";
    const ESCAPED: &str = "%0a%7b%22FORGED%22%7d%0d%0a%1b%5b31mFORGED";
    let folder = folder_with_users(4);
    for format in ["json", "pretty"] {
        let mut child = command(env!("CARGO_BIN_EXE_signaling-server"), &folder);
        let settings = [("LOG_LEVEL", "TRACE"), ("LOG_FORMAT", format), ("AUTH_MAX_FAILURES", "3")];
        let child = child.envs(DEBUG).envs(settings).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut log = Vec::new();
        let address = loop {
            let line = timeout(TEST_TIMEOUT, lines.next_line()).await.unwrap().unwrap().unwrap();
            log.push(line.clone());
            if line.contains("listening") && line.contains("127.0.0.1:") {
                let rest = line.split_once("127.0.0.1:").unwrap().1;
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
            }
        };
        let reading = tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                log.push(line);
            }
            log
        });

        let good = token(address, "alice").await;
        for username in [FORGED, &format!("alice{FORGED}"), "alice"] {
            let request = reqwest::Client::new().post(format!("http://{address}/auth/login"));
            let request = request.header("x-forwarded-for", format!("FORGED{ESCAPED}"));
            request.json(&json!({"username":username,"password":FORGED})).send().await.unwrap();
        }
        for path in
            [format!("/{ESCAPED}"), format!("/api/rooms/{ESCAPED}/info"), format!("/ws/{ESCAPED}")]
        {
            let mut raw = Raw::connect(address).await;
            let agent = "\u{85}\u{2028}FORGED";
            let head = format!(
                "GET {path}?q={ESCAPED} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n"
            );
            raw.write(head).await;
            raw.answer().await.unwrap();
        }
        let mut client = join(address, "FORGED%5B31m%E2%80%A8den", "alice", &good).await;
        client.error_after(&json!({"type":FORGED}).to_string()).await;
        client.error_after(&json!({"type":"offer","offer":{},"to":FORGED}).to_string()).await;
        client.leave().await;
        signal(&child, Signal::TERM);
        let ended = timeout(TEST_TIMEOUT, child.wait()).await.expect("still running").unwrap();
        let log = timeout(TEST_TIMEOUT, reading).await.unwrap().unwrap();

        assert_eq!(ended.code(), Some(0));
        for line in &log {
            let coloured =
                line.contains('\u{1b}') || line.contains('\u{2028}') || line.contains('\u{85}');
            assert!(!coloured && !line.contains("\u{7b}\"level\":\"ERROR\""), "{line:?}");
            match format {
                "json" => assert!(serde_json::from_str::<Value>(line).is_ok(), "{line:?}"),
                _ => assert!(!line.trim_start().starts_with("FORGED"), "{line:?}"),
            }
            assert!(!line.contains(&good) && !line.contains(PASSWORD), "{line:?}");
        }
        let all = log.join("\n");
        assert!(all.contains("logged in") && all.contains("login failed"), "{all}");
    }
}

/// N05: the wall clock of the server jumps by an hour, forwards and back: nobody is dropped, no lock
/// opens early, and tokens are judged by the clock that is.
#[tokio::test]
async fn a_wall_clock_that_jumps_disconnects_no_member() {
    let folder = folder_with_users(4);
    let clock = compile_clock(&folder).await;
    let (offset, users_csv) = (folder.path().join("offset"), folder.path().join("users.csv"));
    let settings = [&clock[..], &[(INTERVALS, "file_poll=20")]].concat();
    let mut reloads = 0;
    let server = AttackedServer::with(&settings).in_folder(folder).start().await;
    let mut carol = server.join("den", "carol").await;
    let me = async |token: &str| {
        let request = server.request(Method::GET, "/auth/me").bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    let guess = async || {
        let body = json!({"username":"dave","password":"guess"});
        let request = server.request(Method::POST, "/auth/login").json(&body);
        request.send().await.unwrap().status().as_u16()
    };
    while guess().await != 429 {}

    for (jump, mine) in [(3600, 401), (-3600, 200), (0, 200)] {
        fs::write(&offset, jump.to_string()).unwrap();
        let fresh = server.log_in("alice").await;
        let ahead = issued_at(&fresh) - i64::try_from(unix_now()).unwrap();
        assert!((jump - 60..=jump + 60).contains(&ahead), "the clock is {ahead} s ahead");

        // What acts on a jump has acted once the server has polled the users file since.
        let users = fs::read_to_string(&users_csv).unwrap() + "\n";
        replace_file(&users_csv, users);
        reloads += 1;
        server.wait_for_log_lines("users file reloaded", reloads).await;
        carol.assert_no_more_messages().await;
        assert_eq!(guess().await, 429, "{jump}");
        assert_eq!((me(&fresh).await, me(&server.token("carol")).await), (200, mine), "{jump}");
    }
    carol.leave().await;
    server.assert_unharmed().await;
}

/// What a token says of the time when it was issued.
fn issued_at(token: &str) -> i64 {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["iat"].as_i64().unwrap()
}

/// N09: nginx closes what says nothing for 60 seconds. The default of `WEBSOCKET_TIMEOUT` is 30 seconds, and a
/// ping comes after a third of it; here it is 6.
#[tokio::test]
async fn a_quiet_member_is_pinged_long_before_its_timeout() {
    let server = AttackedServer::start(&[("WEBSOCKET_TIMEOUT", "6")]).await;
    let mut quiet = server.raw_member("den", "carol").await;

    let began = Instant::now();
    let ping = quiet.next_frame().await;

    assert_eq!(ping.unwrap().first, PING);
    assert!(began.elapsed() > Duration::from_secs(1), "not a storm of pings either");
    drop(quiet);
    server.assert_unharmed().await;
}

/// N09: and so does a member that talks to others who have nothing to answer: the proxy counts what
/// the server says, not what the client does. `WEBSOCKET_TIMEOUT` is 3 instead of 30 here.
#[tokio::test]
async fn a_member_that_only_sends_is_pinged_too() {
    let server = AttackedServer::with(&[("WEBSOCKET_TIMEOUT", "3")])
        .den_may_receive(&["message"])
        .start()
        .await;
    let mut talker = server.raw_member("den", "carol").await;

    let mut pace = interval(Duration::from_millis(300));
    let pinged = async {
        loop {
            tokio::select! {
                frame = talker.next_frame() => return frame,
                _ = pace.tick() => talker.send(&json!({"type":"message","data":"on and on"})).await,
            }
        }
    };
    let frame = timeout(TEST_TIMEOUT, pinged).await.expect("no ping");

    assert_eq!(frame.expect("a ping").first, PING);
    drop(talker);
    server.assert_unharmed().await;
}

/// N15, O10, O11: a start in production names each file that others may read with what mends it, and
/// accounts whose password is published.
#[tokio::test]
async fn a_start_in_production_logs_files_that_other_users_may_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::copy("tests/fixtures/fastapi_users.csv", path("users.csv")).unwrap();
    fs::write(path(".env"), format!("JWT_SECRET_KEY={JWT_SECRET_KEY}\n")).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(path("tls.crt"), made.cert.pem()).unwrap();
    fs::write(path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let settings = [
        ("HOST", "127.0.0.1"),
        ("PORT", "0"),
        ("LOG_FORMAT", "json"),
        ("SECRET_KEY", SECRET_KEY),
        ("SSL_CERT_FILE", "tls.crt"),
        ("SSL_KEY_FILE", "tls.key"),
    ];

    for (mode, exposed) in
        [(0o644, true), (0o604, true), (0o620, true), (0o666, true), (0o600, false), (0o640, false)]
    {
        for file in ["users.csv", ".env", "tls.key"] {
            fs::set_permissions(path(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut server = ServerProcess::start(&folder, &settings).await;
        for user in ["admin", "user1", "user2"] {
            server.log.next_line_with(&format!("manage_users passwd {user}")).await;
        }
        assert_eq!(server.stop().await.code(), Some(0));

        let said = server.log.lines().join("\n");
        for file in ["users.csv", ".env", "tls.key"] {
            assert_eq!(said.contains(&format!("`chmod 600 {file}`")), exposed, "{mode:o}: {said}");
        }
    }
}
