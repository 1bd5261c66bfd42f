//! Mistakes in `.env`: each is answered alike by the start, by `--check-config` and by `doctor`.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use tempfile::TempDir;
use tokio::time::timeout;

use super::doctor::{SOUND, home};
use crate::harness::{
    TEST_TIMEOUT,
    process::{MANAGE_USERS, SERVER, ServerProcess, command, text},
};

/// A folder with accounts, and with an `.env` that has `lines` after settings without a fault.
pub fn folder_with(lines: &str) -> TempDir {
    let folder = home();
    let sound: String = SOUND.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    write(&folder, ".env", &format!("{sound}{lines}\n"));
    folder
}

/// Writes a file that only its owner may read.
pub fn write(folder: &TempDir, name: &str, text: &str) {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub async fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    let output = command(SERVER, folder).args(arguments).output();
    timeout(TEST_TIMEOUT, output).await.expect("it ends").unwrap()
}

/// What a start says until it listens or ends, and whether it listens.
async fn start(folder: &TempDir) -> (String, bool) {
    start_until(folder, "").await
}

/// What a start says until it listens and has said `expected`, or ends; and whether it listens.
pub async fn start_until(folder: &TempDir, expected: &str) -> (String, bool) {
    let log = folder.path().join("log");
    let script = "exec \"$0\" > log 2>&1";
    let mut child = command("/bin/sh", folder).args(["-c", script, SERVER]).spawn().unwrap();
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let is_listening = timeout(TEST_TIMEOUT, async {
        loop {
            let text = said();
            if text.contains("\"listening\"") && text.contains(expected) {
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                return said().contains("\"listening\"");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    let is_listening = is_listening.await;
    let _ = child.kill().await;
    let said = said();
    (said.clone(), is_listening.unwrap_or_else(|_| panic!("not \"{expected}\", but: {said}")))
}

/// What is written, what is said about it, how it is mended, and whether it stops the start.
type Mistake = (&'static str, &'static str, &'static str, bool);

/// In the form of values, and in names.
const MALFORMED: [Mistake; 22] = [
    (
        "ALLOWED_ROOM=[\"standup\"]",
        "ALLOWED_ROOM: no setting has this name, so line 6 of .env has no effect",
        "did you mean ALLOWED_ROOMS?",
        false,
    ),
    ("Rate_Limit_Per_Minute=10", "line 6 of .env", "did you mean RATE_LIMIT_PER_MINUTE?", false),
    ("TURN_SECRET=x", "no setting has this name", "use TURNSERVER_SECRET", false),
    ("HOST=127.0.0.1", "line 4 of .env has no effect", "remove one of the two lines", false),
    (
        "TURNSERVER_SECRET=2f0a7d5c9b1e48362f0a7d5c9b1e4836",
        "so no TURN credentials are issued",
        "name the URLs of the TURN server",
        false,
    ),
    (
        "STATE_FILE=/no/such/folder/state",
        "no file can be written in /no/such/folder",
        "make it a folder",
        false,
    ),
    ("ALLOW_ANONYMOUS=true", "can join any room as a guest", "ALLOW_ANONYMOUS=false", false),
    ("PORT=80a", "80a", "use a port from 0 to 65535", true),
    ("REQUIRE_HTTPS=ture", "ture", "use true or false", true),
    ("TURNSERVER_TTL=1d", "1d", "use ", true),
    ("TURNSERVER_URLS=turn.example.com:3478", "turn.example.com:3478", "use ", true),
    ("TRUSTED_PROXIES=nginx", "nginx", "use ", true),
    (
        "CORS_ORIGINS=https://app.example.com/room",
        "https://app.example.com/room",
        "without a path",
        true,
    ),
    (
        "CORS_ORIGINS=['https://a.example, https://b.example']",
        "is not accepted",
        "use a list of origins",
        true,
    ),
    ("CORS_ORIGINS https://app.example.com", ".env, line 6: has no ", "write NAME=value", true),
    ("JWT_SECRET_KEY='9b1e48362f0a7d5ca0c7d5e9f1b2a3c4", "opens a quote", "close the quote", true),
    (
        "JWT_SECRET_KEY=hunter2",
        "JWT_SECRET_KEY: is shorter than 32 bytes",
        "openssl rand -hex 32",
        true,
    ),
    (
        "JWT_SECRET_KEY=2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4",
        "has the same value as JWT_SECRET_KEY",
        "make another one",
        true,
    ),
    ("USERS_CSV=user.csv", "there is no file user.csv", "manage_users add", true),
    ("REDIS_URL=localhost:6379", "REDIS_URL", "use redis://", true),
    ("HOST=127.0.0.1:8080", "\"127.0.0.1:8080\" is not accepted", "without a port", true),
    ("ALLOWED_ROOMS=standup;retro", "in its name", "separate the rooms by commas", false),
];

/// In what values mean: each is accepted by itself.
const MISTAKEN: [Mistake; 11] = [
    ("USERS_CSV=/tmp", "/tmp: not a regular file", "name a file with accounts", true),
    ("SSL_CERT_FILE=a.pem", "line 6 of .env has no effect", "set SSL_KEY_FILE, too", false),
    ("STATE_FILE=/tmp", "/tmp is not a regular file", "name a file", false),
    ("TRUSTED_PROXIES=0.0.0.0/0", "holds every address", "addresses of your proxies only", false),
    ("TRUSTED_PROXIES=[]", "every request is refused", "name the proxy in TRUSTED_PROXIES", false),
    ("REQUIRE_HTTPS=false", "in the clear", "set REQUIRE_HTTPS=true", false),
    ("CORS_ORIGINS=[]", "lets no web page use this server", "origins of your pages", false),
    ("METRICS_TOKEN=secret", "METRICS_TOKEN: is shorter than 16 bytes", "openssl rand", false),
    (
        "ADMIN_TOKEN=2f0a7d5c9b1e4836a0c7d5e9f1b2a3c4",
        "ADMIN_TOKEN: is the same as SECRET_KEY",
        "openssl rand",
        false,
    ),
    (
        "TURNSERVER_URLS=turn:127.0.0.1:3478",
        "TURNSERVER_SECRET is empty",
        "static-auth-secret",
        false,
    ),
    ("MEMORY_BUDGET_MIB=1048576", "(MEMORY_BUDGET_MIB), of ", "lower MEMORY_BUDGET_MIB", false),
];

/// In addresses to listen on, which another machine may have.
const NOT_HERE: [Mistake; 4] = [
    (
        "HOST=192.0.2.7",
        "cannot listen on 192.0.2.7",
        "set HOST to an address of this machine",
        true,
    ),
    ("HOST=signaling.invalid", "cannot listen on signaling.invalid", "`ip address`", true),
    (
        "HOST=unix:/no/such/folder/socket",
        "there is no folder /no/such/folder",
        "`RuntimeDirectory=`",
        true,
    ),
    ("METRICS_LISTEN=192.0.2.7:9464", "cannot listen on 192.0.2.7", "set METRICS_LISTEN to", true),
];

#[tokio::test]
async fn each_malformed_line_of_env_is_answered_alike_with_what_mends_it() {
    assert_answered_alike(&MALFORMED, true).await;
}

#[tokio::test]
async fn each_mistaken_value_in_env_is_answered_alike_with_what_mends_it() {
    assert_answered_alike(&MISTAKEN, true).await;
}

#[tokio::test]
async fn an_address_that_this_machine_does_not_have_is_answered_alike_and_fails_the_start_alone() {
    assert_answered_alike(&NOT_HERE, false).await;
}

/// The start, `--check-config` and `doctor` name the problem and the fix of each. What stops a start is a fault for
/// `--check-config`, too, where `is_fault_everywhere`.
async fn assert_answered_alike(mistakes: &[Mistake], is_fault_everywhere: bool) {
    for &(line, problem, fix, stops) in mistakes {
        let folder = folder_with(line);
        let is_fault = stops && is_fault_everywhere;

        let (started, is_listening) = start(&folder).await;
        let checked = run(&folder, &["--check-config"]).await;
        let diagnosed = run(&folder, &["doctor"]).await;

        assert_eq!(is_listening, !stops, "{line}: {started}");
        assert_eq!(checked.status.code(), Some(i32::from(is_fault)), "{line}: {}", text(&checked));
        for said in [started, text(&checked), text(&diagnosed)] {
            assert!(said.contains(problem) && said.contains(fix), "{line}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[tokio::test]
async fn check_config_finds_in_files_what_stops_a_start() {
    let pair = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (pair(), pair());
    for (lines, file, content, problem) in [
        ("SSL_CERT_FILE=a.pem\nSSL_KEY_FILE=a.key", "", "", "SSL_CERT_FILE, SSL_KEY_FILE"),
        (
            "JWT_PUBLIC_KEY_FILE=issuer.pem\nJWT_ALGORITHMS=HS256,RS256",
            "issuer.pem",
            "x",
            "issuer.pem",
        ),
        ("", "users.csv.revoked", "nonsense", "users.csv.revoked: line 1"),
        ("", "users.csv.orders", "nonsense", "users.csv.orders: line 1"),
        ("", "users.csv", "nonsense", "USERS_CSV: "),
        (
            "SSL_SELF_SIGNED=true\nSSL_CERT_FILE=/proc/a.pem\nSSL_KEY_FILE=/proc/a.key",
            "",
            "",
            "/proc",
        ),
    ] {
        let folder = folder_with(lines);
        write(&folder, "a.pem", &one.cert.pem());
        write(&folder, "a.key", &other.signing_key.serialize_pem());
        if !file.is_empty() {
            write(&folder, file, content);
        }

        let (started, is_listening) = start(&folder).await;
        let checked = run(&folder, &["--check-config"]).await;
        let diagnosed = run(&folder, &["doctor"]).await;

        assert!(!is_listening && started.contains(problem), "{problem}: {started}");
        assert_eq!(checked.status.code(), Some(1), "{problem}");
        assert!(text(&checked).contains(problem), "{problem}: {}", text(&checked));
        assert_eq!(diagnosed.status.code(), Some(1), "{problem}: {}", text(&diagnosed));
    }
}

#[tokio::test]
async fn only_strict_fails_for_lines_without_effect_and_only_for_those() {
    for (lines, is_mistake) in [
        ("", false),
        ("ALLOW_ANONYMOUS=true\nCOMPOSE_PROJECT_NAME=x\nDOMAIN=example.com", false),
        ("CORS_ORIGIN=https://a.example", true),
        ("PORT=0", true),
        ("TURNSERVER_SECRET=\"2f0a7d5c9b1e48362f0a7d5c9b1e4836 \"", true),
    ] {
        let folder = folder_with(lines);

        let lenient = run(&folder, &["--check-config"]).await;
        let strict = run(&folder, &["--check-config", "--strict"]).await;

        assert_eq!(lenient.status.code(), Some(0), "{lines}: {}", text(&lenient));
        assert_eq!(strict.status.code(), Some(i32::from(is_mistake)), "{lines}: {}", text(&strict));
    }
}

#[tokio::test]
async fn names_in_the_environment_are_not_judged() {
    let folder = folder_with("");
    let mut command = command(SERVER, &folder);
    command.args(["--check-config", "--strict"]).env("CORS_ORIGIN", "x").env("PATH_TO_X", "y");

    let output = timeout(TEST_TIMEOUT, command.output()).await.unwrap().unwrap();

    assert_eq!((output.status.code(), &*text(&output)), (Some(0), ""));
}

#[tokio::test]
async fn where_there_is_no_env_file_the_first_line_names_the_folder() {
    let folder = home();
    let place = fs::canonicalize(folder.path()).unwrap();
    let expected = format!("no .env in {}", place.display());

    for arguments in [&[][..], &["--check-config"], &["webhook-secret"], &["admin", "rooms"]] {
        let said = text(&run(&folder, arguments).await);
        assert!(
            said.lines().next().unwrap_or_default().starts_with(&expected),
            "{arguments:?}: {said}"
        );
    }
    let diagnosed = text(&run(&folder, &["doctor"]).await);
    let first = diagnosed.lines().next().unwrap_or_default();
    assert!(first.starts_with("ok ") && first.contains(&expected), "{diagnosed}");
    assert!(!diagnosed.contains("secrets: :"), "{diagnosed}");
    assert!(diagnosed.contains("SECRET_KEY: is not set"), "{diagnosed}");
}

#[tokio::test]
async fn a_named_file_takes_the_place_of_env_for_every_command_and_at_a_reload() {
    let folder = folder_with("PORT=nonsense");
    let sound: String = SOUND.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    write(
        &folder,
        "other",
        &format!("{sound}USERS_CSV=people.csv\nLOG_FORMAT=json\nCORS_ORIGIN=x\n"),
    );
    fs::rename(folder.path().join("users.csv"), folder.path().join("people.csv")).unwrap();

    for arguments in [
        &["--env-file", "other", "--check-config"][..],
        &["--env-file", "other", "webhook-secret"],
        &["webhook-secret", "--env-file=other"],
    ] {
        let output = run(&folder, arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
    }
    let mut listed = command(MANAGE_USERS, &folder);
    let listed = listed.args(["list", "--env-file", "other"]).output().await.unwrap();
    assert!(text(&listed).contains("alice"), "{}", text(&listed));
    let missing = run(&folder, &["--env-file", "none"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing).contains("none: ") && text(&missing).contains("--env-file"),
        "{}",
        text(&missing)
    );

    let mut program = command(SERVER, &folder);
    program.args(["--env-file", "other"]);
    let mut server = ServerProcess::run(program).await;
    let named = server.log.line_with("line of .env has no effect").await;
    assert!(named.contains("line 8 of other"), "{named}");
    server.signal(rustix::process::Signal::HUP);
    server.log.next_line_with("settings reloaded").await;
    server.stop().await;
}
