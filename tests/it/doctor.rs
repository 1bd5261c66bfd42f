//! `signaling-server doctor`: each thing that it looks at, as it should be and not. Redis is in `cluster`, relays are in `turn`.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, process::Output};

use rcgen::{CertificateParams, KeyPair};
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::harness::{
    TEST_TIMEOUT, TestServer,
    process::{ServerProcess, command, text},
    users_file,
};

/// Settings without a fault, for whoever has no relay.
pub const SOUND: [(&str, &str); 5] = [
    ("SECRET_KEY", "2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4"),
    ("JWT_SECRET_KEY", "9b1e48362f0a7d5ca0c7d5e9f1b2a3c4"),
    ("CORS_ORIGINS", "https://app.example.com"),
    ("HOST", "127.0.0.1"),
    ("PORT", "0"),
];

/// A folder with a users file.
pub fn home() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.csv");
    fs::write(&path, users_file(&["alice"], 4)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

pub async fn run(folder: &TempDir, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = command(env!("CARGO_BIN_EXE_signaling-server"), folder);
    command.arg("doctor").args(arguments).envs(SOUND).envs(settings.iter().copied());
    timeout(TEST_TIMEOUT, command.output()).await.expect("it does not end").unwrap()
}

/// What it finds.
pub struct Findings {
    /// Whether it exits with 0.
    pub is_well: bool,
    pub all: Vec<Value>,
}

impl Findings {
    pub async fn of(folder: &TempDir, settings: &[(&str, &str)]) -> Self {
        Self::with(folder, &[], settings).await
    }

    pub async fn with(folder: &TempDir, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let output = run(folder, &[&["--json"], arguments].concat(), settings).await;
        let all: Vec<Value> = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output)));
        let is_well = output.status.code() == Some(0);
        let at_fault = all.iter().any(|finding| finding["verdict"] == "fault");
        assert_eq!(is_well, !at_fault, "the exit code: {all:#?}");
        Self { is_well, all }
    }

    /// Verdict, message and fix of each diagnostic about `subject`.
    pub fn about(&self, subject: &str) -> Vec<(&str, &str, &str)> {
        let about = self.all.iter().filter(|finding| finding["subject"] == subject);
        about
            .map(|it| {
                let text = |name: &str| it[name].as_str().unwrap();
                (text("verdict"), text("message"), text("fix"))
            })
            .collect()
    }

    /// The one diagnostic about `subject`.
    pub fn one(&self, subject: &str) -> (&str, &str, &str) {
        let about = self.about(subject);
        assert_eq!(about.len(), 1, "{subject}: {:#?}", self.all);
        about[0]
    }

    /// Asserts the verdict, and parts of message and fix.
    pub fn assert_finding(&self, subject: &str, verdict: &str, message: &str, fix: &str) {
        let one = self.one(subject);
        let fits = one.0 == verdict && one.1.contains(message) && one.2.contains(fix);
        assert!(fits, "{subject}: {one:?} is not {verdict}, {message}, {fix}");
        assert_eq!(verdict == "ok", one.2.is_empty(), "a fix for what is not ok, and only that");
    }
}

#[tokio::test]
async fn a_sound_installation_has_no_faults() {
    let folder = home();
    let found = Findings::of(&folder, &[]).await;

    assert!(found.is_well);
    found.assert_finding("settings", "ok", "accepted", "");
    found.assert_finding(
        "secrets",
        "ok",
        "SECRET_KEY, JWT_SECRET_KEY: set, strong and different",
        "",
    );
    found.assert_finding("users", "ok", "1 can log in", "");
    found.assert_finding("files", "ok", "closed to others", "");
    found.assert_finding("HTTPS", "ok", "in force", "");
    found.assert_finding("CORS_ORIGINS", "ok", "https://app.example.com", "");
    found.assert_finding("PORT", "ok", "free one", "");
    found.assert_finding("Redis", "ok", "single node", "");
    found.assert_finding("TURN", "warning", "no TURN server", "docs/run/deployment.md");
    assert!(found.about("certificate").is_empty(), "there is none to look at");
    let keys = ["fix", "message", "subject", "verdict"];
    for finding in &found.all {
        let mut names: Vec<_> = finding.as_object().unwrap().keys().collect();
        names.sort_unstable();
        assert_eq!(names, keys);
    }
}

#[tokio::test]
async fn faults_in_settings_do_not_end_the_diagnosis_and_text_and_json_agree() {
    let folder = home();
    let settings =
        [("SECRET_KEY", "your-secret-key-here"), ("PORT", "x"), ("DEBUG", "true"), ("HOST", "::")];

    let found = Findings::of(&folder, &settings).await;
    let said = run(&folder, &[], &settings).await;

    assert!(!found.is_well && said.status.code() == Some(1));
    found.assert_finding("DEBUG", "fault", "for development", "DEBUG=false");
    let port = found.about("PORT");
    assert_eq!(port, [("fault", "\"x\" is not accepted", "use a port from 0 to 65535")]);
    found.assert_finding("users", "ok", "1 can log in", "");
    let said = text(&said);
    assert!(
        said.contains("FAULT       PORT: \"x\" is not accepted\n            use a port"),
        "{said}"
    );
    assert!(said.contains("faults found: "), "{said}");

    let placeholder = Findings::of(&folder, &[("SECRET_KEY", "your-secret-key-here")]).await;
    placeholder.assert_finding(
        "SECRET_KEY",
        "fault",
        "published placeholder",
        "openssl rand -hex 32",
    );
    assert!(placeholder.about("secrets").is_empty(), "not said to be well");
}

#[tokio::test]
async fn weak_and_shared_secrets_are_found_and_never_printed() {
    let folder = home();
    let (repeated, shared) = ("ab".repeat(20), "9b1e48362f0a7d5ca0c7d5e9f1b2a3c4");
    let settings = [
        ("SECRET_KEY", &*repeated),
        ("TURNSERVER_SECRET", shared),
        ("STUNSERVER_URLS", ""),
        ("METRICS_TOKEN", "hunter2"),
        ("ADMIN_TOKEN", shared),
    ];

    let found = Findings::of(&folder, &settings).await;

    assert!(found.is_well, "warnings are no faults");
    found.assert_finding("SECRET_KEY", "warning", "2 different characters", "openssl");
    found.assert_finding("METRICS_TOKEN", "warning", "shorter than 16", "openssl");
    for name in ["TURNSERVER_SECRET", "ADMIN_TOKEN"] {
        let about = found.about(name);
        assert!(about.iter().any(|it| it.1.contains("same as JWT_SECRET_KEY")), "{about:?}");
    }
    assert!(found.about("secrets").is_empty());
    let said = format!("{:?}", found.all) + &text(&run(&folder, &[], &settings).await);
    for secret in [&*repeated, shared, "hunter2"] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn default_and_unusable_accounts_are_found() {
    let folder = home();
    let path = folder.path().join("users.csv");
    let with = async |text: &str| {
        fs::write(&path, text).unwrap();
        Findings::of(&folder, &[]).await
    };
    let published = bcrypt::hash("admin123", 4).unwrap();
    let head = "username,email,hashed_password,is_active\n";

    let default = with(&format!("{head}admin,,{published},True\n")).await;
    default.assert_finding("users", "fault", "user \"admin\"", "manage_users passwd admin");
    let disabled = with(&format!("{head}admin,,{published},False\n")).await;
    disabled.assert_finding("users", "warning", "no active user", "manage_users add");
    let row = with(&format!("{}bob,,x,True\n", users_file(&["alice"], 4))).await;
    row.assert_finding("users", "fault", "line 3", "row");
    let garbage = with("{}").await;
    garbage.assert_finding("users", "fault", "line 1", "first line");
    fs::remove_file(&path).unwrap();
    let gone = Findings::of(&folder, &[]).await;
    gone.assert_finding("USERS_CSV", "fault", "no file users.csv", "manage_users add");
}

#[tokio::test]
async fn files_that_other_users_may_read_are_found() {
    let folder = home();
    let path = folder.path().join("users.csv");
    let open = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();

    open(0o644);
    let found = Findings::of(&folder, &[]).await;
    found.assert_finding(
        "files",
        "warning",
        "users.csv: other users of this machine may read",
        "chmod 600 users.csv",
    );
    open(0o640);
    Findings::of(&folder, &[]).await.assert_finding("files", "ok", "closed", "");
}

#[tokio::test]
async fn plain_http_and_cors_origins_are_checked() {
    let folder = home();
    for (settings, subject, verdict, says) in [
        (&[("REQUIRE_HTTPS", "false")][..], "HTTPS", "warning", "in the clear are served"),
        (&[("REQUIRE_HTTPS", "false"), ("HOST", "0.0.0.0")], "HTTPS", "fault", "cross the network"),
        (&[("TRUSTED_PROXIES", "[]")], "HTTPS", "fault", "every request is refused"),
        (&[("TRUSTED_PROXIES", "0.0.0.0/0")], "HTTPS", "fault", "any client may claim"),
        (&[("TRUSTED_PROXIES", "10.0.0.0/8")], "HTTPS", "ok", "trusted proxy"),
        (&[("CORS_ORIGINS", "*")], "CORS_ORIGINS", "warning", "any site"),
        (&[("CORS_ORIGINS", "[]")], "CORS_ORIGINS", "warning", "no web page"),
        (&[("WEBSOCKET_TIMEOUT", "151")], "WEBSOCKET_TIMEOUT", "warning", "pinged every 50 s"),
        (&[("ALLOW_ANONYMOUS", "true")], "ALLOW_ANONYMOUS", "warning", "as a guest"),
    ] {
        let found = Findings::of(&folder, settings).await;

        let one = found.one(subject);
        assert!(one.0 == verdict && one.1.contains(says), "{settings:?}: {one:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_checked_for_validity_key_name_and_issuer() {
    let folder = home();
    let (certificate, key) = (folder.path().join("a.pem"), folder.path().join("a.key"));
    let issue = |days: i64| {
        let key_pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let now = rcgen::date_time_ymd(1970, 1, 1)
            + std::time::Duration::from_secs(signaling::clock::unix_now() + 3600);
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        params.not_before = now - day * 100;
        params.not_after =
            if days < 0 { now - day } else { now + day * days.unsigned_abs() as u32 };
        let made = params.self_signed(&key_pair).unwrap();
        fs::write(&certificate, made.pem()).unwrap();
        fs::write(&key, key_pair.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let settings =
        [("SSL_CERT_FILE", certificate.to_str().unwrap()), ("SSL_KEY_FILE", key.to_str().unwrap())];

    issue(90);
    let long = Findings::of(&folder, &settings).await;
    issue(9);
    let short = Findings::of(&folder, &settings).await;
    let named = [&settings[..], &[("HOST", "signaling.example.com")]].concat();
    let misnamed = Findings::of(&folder, &named).await;
    issue(-1);
    let over = Findings::of(&folder, &settings).await;
    fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let of_another_pair = Findings::of(&folder, &settings).await;
    fs::remove_file(&certificate).unwrap();
    let gone = Findings::of(&folder, &settings).await;

    long.assert_finding("HTTPS", "ok", "TLS of its own", "");
    let said = |found: &Findings, verdict: &str, says: &str| {
        let about = found.about("certificate");
        let is_said = about.iter().any(|it| it.0 == verdict && it.1.contains(says));
        assert!(is_said, "{verdict} {says}: {about:?}");
    };
    said(&long, "ok", "valid for 90 days");
    said(&long, "warning", "UnknownIssuer");
    said(&short, "warning", "expires in 9 days");
    said(&misnamed, "warning", "not issued for HOST=signaling.example.com");
    assert!(!short.about("certificate").iter().any(|it| it.1.contains("HOST=")));
    said(&over, "fault", "has expired");
    said(&of_another_pair, "fault", "a.pem");
    said(&gone, "fault", "a.pem");
    let made = Findings::of(&folder, &[("SSL_SELF_SIGNED", "true")]).await;
    said(&made, "warning", "self-signed certificate will be created");
    assert!(!folder.path().join("ssl").exists(), "looking changes nothing");
}

#[tokio::test]
async fn a_port_is_free_or_ours_or_taken_by_another_program() {
    let folder = home();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port().to_string();
    let on = async |port: &str| Findings::of(&folder, &[("PORT", port)]).await;

    on(&taken).await.assert_finding(
        "PORT",
        "fault",
        "another program listens",
        &format!("ss -ltnp 'sport = :{taken}'"),
    );
    drop(other);
    on(&taken).await.assert_finding("PORT", "ok", "is free", "");
    let running = ServerProcess::start(&folder, &SOUND).await;
    let port = running.address.port().to_string();
    on(&port).await.assert_finding("PORT", "ok", "a signaling-server answers", "");
    for token in ["", "a-token-for-figures-of-32-bytes-0"] {
        let mut settings = SOUND.to_vec();
        settings.extend([("METRICS_LISTEN", "127.0.0.1:0"), ("METRICS_TOKEN", token)]);
        let measured = ServerProcess::start(&folder, &settings).await;
        let figures = super::metrics::figures_at(&measured).to_string();
        let figures = [("METRICS_LISTEN", &*figures), ("METRICS_TOKEN", token)];
        let found = Findings::of(&folder, &figures).await;
        found.assert_finding("METRICS_LISTEN", "ok", "a signaling-server answers", "");
    }
    let elsewhere = Findings::of(&folder, &[("HOST", "192.0.2.1"), ("PORT", "8000")]).await;
    elsewhere.assert_finding("PORT", "fault", "cannot listen", "ip address");
}

#[tokio::test]
async fn the_limit_of_file_descriptors_is_checked_against_the_settings() {
    let folder = home();
    let limited = async |handles: usize| {
        let mut shell = command("/bin/sh", &folder);
        let line = format!("ulimit -n {handles}; exec \"$0\" doctor --json");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_signaling-server")]).envs(SOUND);
        let output = timeout(TEST_TIMEOUT, shell.output()).await.unwrap().unwrap();
        let all = serde_json::from_slice(&output.stdout).unwrap();
        Findings { is_well: output.status.success(), all }
    };

    limited(1024).await.assert_finding(
        "file descriptors",
        "warning",
        "leaves 960 connections",
        "LimitNOFILE",
    );
    let few = limited(100).await;
    few.assert_finding("file descriptors", "fault", "84 connections", "LimitNOFILE");
    assert!(!few.is_well);
    limited(10_000).await.assert_finding("file descriptors", "ok", "9936 connections", "");
}

#[tokio::test]
async fn the_memory_is_checked_against_the_budget() {
    let folder = home();
    let found = Findings::of(&folder, &[("MEMORY_BUDGET_MIB", "1048576")]).await;
    found.assert_finding("memory", "fault", "1048576 MiB may be held", "MemoryMax");
    let found = Findings::of(&folder, &[("MEMORY_BUDGET_MIB", "64")]).await;
    found.assert_finding("memory", "ok", "64 MiB may be held", "");
}

/// What the kernel says comes through `timedatectl`, which a script stands for here.
#[tokio::test]
async fn the_clock_is_as_synchronised_as_the_kernel_reports() {
    let folder = home();
    let script = folder.path().join("timedatectl");
    let path = folder.path().to_str().unwrap();
    let says = async |says: &str| {
        // By a process of its own: what one of ours still has open for writing cannot be run.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >timedatectl; chmod 755 timedatectl";
        let mut shell = command("/bin/sh", &folder);
        assert!(shell.args(["-c", write, "sh", says]).status().await.unwrap().success());
        Findings::of(&folder, &[("PATH", path)]).await
    };

    says("echo yes").await.assert_finding("clock", "ok", "NTP keeps it", "");
    says("echo no").await.assert_finding("clock", "warning", "no NTP", "timedatectl set-ntp true");
    says("echo yes; exit 1").await.assert_finding("clock", "not_checked", "does not say", "--date");
    fs::remove_file(&script).unwrap();
    let unknown = Findings::of(&folder, &[("PATH", path)]).await;
    unknown.assert_finding("clock", "not_checked", "does not say", "--date");
    assert!(unknown.is_well);
}

#[tokio::test]
async fn the_clock_is_compared_with_an_http_server_that_is_named() {
    let folder = home();
    let running = ServerProcess::start(&folder, &SOUND).await;
    let url = format!("http://{}/health", running.address);
    let mut compiler = tokio::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join("clock.so"));
    let compiled = compiler.args(["tests/it/attacks/clock.c", "-ldl"]).status().await.unwrap();
    assert!(compiled.success());
    fs::write(folder.path().join("offset"), "-100").unwrap();
    let [clock, offset] =
        ["clock.so", "offset"].map(|name| folder.path().join(name).display().to_string());
    let late = [("LD_PRELOAD", &*clock), ("CLOCK_OFFSET", &*offset)];
    // Nobody has a kernel to ask here.
    let path = [("PATH", folder.path().to_str().unwrap())];
    let date = ["--date", &*url];

    let same = Findings::with(&folder, &date, &path).await;
    same.assert_finding("clock", "ok", "within 5 s", "");
    let off = Findings::with(&folder, &date, &[&path[..], &late].concat()).await;
    let (verdict, message, fix) = off.one("clock");
    assert!(verdict == "warning" && fix.contains("set-ntp"));
    let seconds: u64 = message.split(' ').next().unwrap().parse().unwrap();
    assert!((99..=101).contains(&seconds), "{message}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for (url, words) in [
        ("ftp://a", "not an HTTP URL"),
        ("not a url", "not a URL"),
        ("http://nowhere.invalid", "failed to lookup"),
        ("http://127.0.0.1:1", "refused"),
        (&*silent, "no answer within 5 s"),
    ] {
        let found = Findings::with(&folder, &["--date", url], &path).await;
        found.assert_finding("clock", "not_checked", words, "server that you trust");
    }
}

#[tokio::test]
async fn an_http_server_without_a_valid_date_leaves_the_clock_unchecked() {
    let folder = home();
    for (answer, words) in [
        ("HTTP/1.1 200 OK\r\nDate: none\r\n\r\n", "not an HTTP date"),
        ("HTTP/1.1 200 OK\r\n\r\nDate: none", "no Date"),
        ("HTTP/1.1 200 OK\r\nServer: a\r\n\r\n", "no Date"),
        ("\0\x01\x02", "no Date"),
        ("", "no Date"),
    ] {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let path = [("PATH", folder.path().to_str().unwrap())];

        let found = Findings::with(&folder, &["--date", &url], &path).await;

        found.assert_finding("clock", "not_checked", words, "trust");
        answering.await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_option_is_answered_with_the_usage() {
    let folder = home();
    for wrong in
        [&["--yaml"][..], &["--date"], &["--json", "now"], &["--slow"], &["--url", "nonsense"]]
    {
        let output = run(&folder, wrong, &[]).await;

        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output).contains("doctor [--json] [--date URL] [--url URL [--slow]"),
            "{}",
            text(&output)
        );
    }
}

/// Through proxies that are set up right it is asked in tests/browser/proxies.test.mjs.
#[tokio::test]
async fn the_public_address_shows_what_the_proxy_lacks() {
    let folder = home();
    let mut settings = SOUND.to_vec();
    settings.extend([("DEBUG", "true"), ("REQUIRE_HTTPS", "true"), ("LOG_FORMAT", "json")]);
    let server = ServerProcess::start(&folder, &settings).await;
    let url = format!("http://{}/", server.address);
    let web_socket = format!("{url} WebSocket");

    let found = Findings::with(&folder, &["--url", &url], &[]).await;
    let other = [("SECRET_KEY", "another-key-of-another-server-0123")];
    let of_another = Findings::with(&folder, &["--url", &url], &other).await;
    let nowhere = Findings::with(&folder, &["--url", "https://127.0.0.1:1"], &[]).await;

    let about: Vec<_> = found.about(&url);
    assert!(about[0].1.contains("is not https"), "{about:?}");
    assert!(about[1].1.contains("the proxy at 127.0.0.1 sends no X-Forwarded-For"), "{about:?}");
    let refused = found.one(&web_socket);
    assert!(refused.1.contains("127.0.0.1 sent no header X-Forwarded-Proto"), "{refused:?}");
    let about = of_another.about(&url);
    assert!(about[0].0 == "warning" && about[0].1.contains("another SECRET_KEY"), "{about:?}");
    let about = nowhere.one("https://127.0.0.1:1/");
    assert!(about.0 == "fault" && about.1.contains("cannot be reached"), "{about:?}");
}

#[tokio::test]
async fn only_doctor_of_the_same_installation_is_told_how_the_server_sees_a_connection() {
    let server = TestServer::start(&[]).await;
    let ask = async |token: Option<&str>| {
        let request = server.request(reqwest::Method::GET, "/health/connection");
        let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
        request.send().await.unwrap().status().as_u16()
    };
    let own = &server.app.config.auth.secret_key;
    let token = |now| signaling::auth::probe_token::sign(own, now).expose_secret().to_owned();

    let now = signaling::clock::unix_now();
    assert_eq!(ask(Some(&token(now))).await, 200);
    assert_eq!(ask(None).await, 401);
    assert_eq!(ask(Some(&token(now - 400))).await, 401);
    assert_eq!(ask(Some(&server.token("alice"))).await, 401);
}
