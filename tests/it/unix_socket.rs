//! A server on a Unix socket, for a proxy on the same machine.

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    time::timeout,
};

use crate::harness::{
    CHEAP, TEST_TIMEOUT, folder_with_users, http,
    log::ProcessLog,
    process::{DEBUG, SERVER, command, signal, start_err, text},
};

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A server process on `socket` in its folder.
struct SocketServer {
    folder: TempDir,
    child: Child,
    log: ProcessLog,
    settings: Vec<(&'static str, String)>,
}

fn socket_of(folder: &TempDir) -> PathBuf {
    folder.path().join("socket")
}

/// Starts `command` and waits until it listens; what it says that it listens on.
async fn run(mut command: Command) -> (Child, ProcessLog, String) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut log = ProcessLog::default();
    log.keep(child.stdout.take().unwrap());
    let line: Value = serde_json::from_str(&log.line_with("\"listening\"").await).unwrap();
    let address = line["fields"]["address"].as_str().unwrap().to_owned();
    (child, log, address)
}

impl SocketServer {
    async fn start(settings: &[(&'static str, &str)]) -> Self {
        let folder = folder_with_users(CHEAP);
        let host = format!("unix:{}", socket_of(&folder).display());
        let mut all: Vec<_> = DEBUG.map(|(name, value)| (name, value.to_owned())).to_vec();
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        all.extend([("HOST", host.clone()), ("ADMIN_TOKEN", ADMIN_TOKEN.to_owned())]);
        let mut server = command(SERVER, &folder);
        let (child, log, address) = run({
            server.envs(all.iter().map(|(name, value)| (*name, value.as_str())));
            server
        })
        .await;
        assert_eq!(address, host);
        Self { folder, child, log, settings: all }
    }

    fn socket(&self) -> PathBuf {
        socket_of(&self.folder)
    }

    /// What another program of the server prints with the same settings.
    async fn other(&self, arguments: &[&str]) -> Output {
        let mut command = command(SERVER, &self.folder);
        let settings = self.settings.iter().map(|(name, value)| (*name, value.as_str()));
        let output = command.args(arguments).envs(settings).output();
        timeout(TEST_TIMEOUT, output).await.expect("it does not end").unwrap()
    }
}

/// The status of a GET through a socket, with headers.
async fn status(socket: &Path, path: &str, headers: &[(&str, &str)]) -> u16 {
    let client = http().unix_socket(socket).build().unwrap();
    let mut request = client.get(format!("http://localhost{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_peer_on_the_unix_socket_is_a_trusted_proxy() {
    let server = SocketServer::start(&[
        ("REQUIRE_HTTPS", "true"),
        ("TRUSTED_PROXIES", "192.0.2.1"),
        ("RATE_LIMIT_PER_MINUTE", "2"),
    ])
    .await;
    let socket = server.socket();
    let https = ("x-forwarded-proto", "https");

    assert_eq!(status(&socket, "/", &[]).await, 403, "it does not say how its client came");
    server.log.line_with("this proxy sent no X-Forwarded-Proto").await;
    let mut statuses = Vec::new();
    for client in ["203.0.113.1", "203.0.113.1", "203.0.113.1", "203.0.113.2"] {
        statuses.push(status(&socket, "/", &[https, ("x-forwarded-for", client)]).await);
    }
    assert_eq!(statuses, [200, 200, 429, 200], "each client has its own limit");

    let stream = UnixStream::connect(&socket).await.unwrap();
    let mut request =
        tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(
            "ws://localhost/ws/den",
        )
        .unwrap();
    request.headers_mut().insert("x-forwarded-proto", "https".parse().unwrap());
    let (mut member, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let first = timeout(TEST_TIMEOUT, member.next()).await.unwrap().unwrap().unwrap();
    assert!(first.to_text().unwrap().contains("auth_required"), "{first}");
}

#[tokio::test]
async fn the_socket_has_its_mode_and_a_restart_replaces_what_a_crash_has_left() {
    let mut server = SocketServer::start(&[("UNIX_SOCKET_MODE", "0606")]).await;
    let socket = server.socket();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o606);
    let settings: Vec<_> =
        server.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();

    let second = start_err(&server.folder, &settings, &[]).await;
    assert!(second.contains("another program listens on"), "{second}");
    assert_eq!(status(&socket, "/health", &[]).await, 200, "the first is still there");

    server.child.kill().await.unwrap();
    assert!(fs::metadata(&socket).unwrap().file_type().is_socket(), "a crash leaves it");
    let mut next = command(SERVER, &server.folder);
    next.envs(settings.iter().copied());
    let (mut next, _log, _) = run(next).await;
    assert_eq!(status(&socket, "/health", &[]).await, 200);

    signal(&next, Signal::TERM);
    assert!(timeout(TEST_TIMEOUT, next.wait()).await.unwrap().unwrap().success());
    assert!(!socket.exists(), "a server that ends in order removes it");
    fs::write(&socket, "important").unwrap();
    let refused = start_err(&server.folder, &settings, &[]).await;
    assert!(refused.contains("no socket"), "{refused}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "important");
}

#[tokio::test]
async fn the_programs_of_this_machine_reach_the_server_through_its_socket() {
    for settings in [&[("REQUIRE_HTTPS", "true")][..], &[("PROXY_PROTOCOL", "true")]] {
        let server = SocketServer::start(settings).await;

        let health = server.other(&["healthcheck"]).await;
        let admin = server.other(&["admin", "status"]).await;
        let doctor = server.other(&["doctor", "--json"]).await;

        assert!(health.status.success(), "{}", text(&health));
        assert!(admin.status.success(), "{}", text(&admin));
        let found: Vec<Value> = serde_json::from_slice(&doctor.stdout).unwrap();
        let about = found.iter().find(|it| it["subject"] == "HOST").unwrap();
        assert!(
            about["message"].as_str().unwrap().contains("a signaling-server answers"),
            "{about}"
        );
        let https = found.iter().find(|it| it["subject"] == "HTTPS").unwrap();
        assert_ne!(https["verdict"], "fault", "{https}");
        if settings[0].0 == "PROXY_PROTOCOL" {
            assert!(!is_answered(&server.socket()).await, "without a header");
        }
    }
}

/// Whether the server answers a plain request.
async fn is_answered(socket: &Path) -> bool {
    let client = http().unix_socket(socket).build().unwrap();
    client.get("http://localhost/health").send().await.is_ok()
}

#[tokio::test]
async fn a_unix_socket_may_be_inherited() {
    let folder = folder_with_users(CHEAP);
    let socket = socket_of(&folder);
    let listener = UnixListener::bind(&socket).unwrap();
    let mut server = command("/bin/sh", &folder);
    let start = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\"";
    server.args(["-c", start, SERVER]).envs(DEBUG);
    server.stdin(std::os::fd::OwnedFd::from(listener.try_clone().unwrap()));

    let (mut child, log, address) = run(server).await;

    assert_eq!(address, format!("unix:{}", socket.display()));
    assert!(log.line_with("\"listening\"").await.contains("\"is_inherited\":true"));
    assert_eq!(status(&socket, "/health", &[]).await, 200);
    signal(&child, Signal::TERM);
    assert!(timeout(TEST_TIMEOUT, child.wait()).await.unwrap().unwrap().success());
    assert!(socket.exists(), "it belongs to the process that made it");
}

#[tokio::test]
async fn settings_that_do_not_go_together_prevent_the_start() {
    let folder = folder_with_users(CHEAP);
    for (settings, problem) in [
        (&[("HOST", "unix:/tmp/a"), ("SSL_SELF_SIGNED", "true")][..], "TLS of its own on TCP only"),
        (&[("HOST", "unix:relative")], "\"unix:relative\" is not accepted"),
        (&[("HOST", "unix:/folder/")], "is not accepted"),
        (&[("UNIX_SOCKET_MODE", "400")], "UNIX_SOCKET_MODE"),
        (&[("UNIX_SOCKET_MODE", "888")], "UNIX_SOCKET_MODE"),
        (&[("PROXY_PROTOCOL", "true"), ("TRUSTED_PROXIES", "[]")], "closes every connection"),
        (
            &[("HOST", "unix:/no/such/folder/socket")],
            "cannot listen on /no/such/folder/socket: there is no folder",
        ),
    ] {
        let all: Vec<_> = [("DEBUG", "true")].iter().chain(settings).copied().collect();
        let said = start_err(&folder, &all, &[]).await;
        assert!(said.contains(problem), "{settings:?}: {said}");
    }
}
