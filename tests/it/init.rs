//! `signaling-server init` and `config`: from an empty folder to settings that are accepted, and what is in force.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use super::doctor::{SOUND, home};
use crate::harness::{
    TEST_TIMEOUT,
    process::{SERVER, ServerProcess, command, text},
};

async fn run(folder: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(SERVER, folder);
    let output = command.args(arguments).envs(variables.iter().copied()).output();
    timeout(TEST_TIMEOUT, output).await.expect("it ends").unwrap()
}

async fn run_ok(folder: &TempDir, arguments: &[&str]) -> String {
    let output = run(folder, arguments, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
    text(&output)
}

/// Every file of a folder with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read_to_string(&path).unwrap());
        }
    }
    found
}

fn setting(env: &str, name: &str) -> String {
    let line = env.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("no {name} in {env}")).to_owned()
}

const INIT: [&str; 5] = ["init", "--domain", "calls.test.example", "--turn", "relay.test.example"];

#[tokio::test]
async fn init_writes_an_installation_that_is_accepted_and_whose_account_logs_in() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();

    let said = run_ok(&folder, &INIT).await;
    let checked = run_ok(&folder, &["--check-config", "--strict"]).await;

    assert_eq!(checked, "");
    let env = read(".env");
    assert_eq!(setting(&env, "CORS_ORIGINS"), "[\"https://calls.test.example\"]");
    let secret = setting(&env, "TURNSERVER_SECRET");
    assert!(read("turnserver.conf").contains(&format!("\nstatic-auth-secret={secret}\n")));
    assert!(read("turnserver.conf").contains("\nrealm=relay.test.example\n"));
    assert!(read("turnserver.conf").contains("\npkey=/etc/coturn/privkey.pem\n"));
    assert!(read("nginx.conf").contains("server_name calls.test.example;"));
    assert!(read("renew-coturn").contains("domain=relay.test.example\n"));
    for name in ["SECRET_KEY", "JWT_SECRET_KEY", "ADMIN_TOKEN"] {
        assert_eq!(setting(&env, name).len(), 64);
        assert!(!said.contains(&setting(&env, name)) && !said.contains(&secret), "{said}");
    }
    for (path, content) in files(folder.path()) {
        let is_open = fs::metadata(&path).unwrap().permissions().mode() & 0o077 != 0;
        let holds_secret = content.contains(&secret) || path.ends_with("users.csv");
        assert!(!(is_open && holds_secret), "{path:?} is open to others");
        assert!(!content.contains("REPLACE_WITH"), "{path:?}");
        let is_about_other =
            content.contains("signaling.example.com") || content.contains("turn.example.com");
        assert!(!is_about_other, "{path:?}");
    }
    assert!(said.contains(read("NEXT-STEPS.md").trim_end()), "{said}");

    let password = said.split("password ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert!(
        !files(folder.path()).values().any(|content| content.contains(&password)),
        "kept nowhere"
    );
    let development = [("PORT", "0"), ("REQUIRE_HTTPS", "false"), ("LOG_FORMAT", "json")];
    let mut server = ServerProcess::start(&folder, &development).await;
    let login = reqwest::Client::new()
        .post(format!("http://{}/auth/login", server.address))
        .json(&json!({"username": "admin", "password": password}));
    assert_eq!(login.send().await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test]
async fn init_run_again_changes_nothing_that_exists() {
    let folder = tempfile::tempdir().unwrap();
    run_ok(&folder, &INIT).await;
    let before = files(folder.path());

    let again = run_ok(&folder, &INIT).await;
    let other = run_ok(&folder, &["init", "--domain", "other.example", "--proxy", "caddy"]).await;

    for said in ["written", "password", "differs"] {
        assert!(!again.contains(said), "{again}");
    }
    assert!(other.contains("kept    NEXT-STEPS.md, which differs from what would be"), "{other}");
    assert!(!other.contains("signaling-server.service, which"), "{other}");
    let after = files(folder.path());
    for (path, content) in &before {
        assert_eq!(after.get(path), Some(content), "{path:?}");
    }
    let added: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert_eq!(added, [&folder.path().join("Caddyfile")], "{other}");
}

#[tokio::test]
async fn init_says_what_an_existing_env_lacks_and_shares_its_turn_secret() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "0123456789abcdef0123456789abcdef";
    let env = format!("SECRET_KEY=own\nTURNSERVER_SECRET={secret}\n");
    fs::write(folder.path().join(".env"), &env).unwrap();

    let said = run_ok(&folder, &INIT).await;

    assert_eq!(fs::read_to_string(folder.path().join(".env")).unwrap(), env);
    for line in [
        "kept    .env",
        "add CORS_ORIGINS=[\"https://calls.test.example\"]",
        "add JWT_SECRET_KEY, made with",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("add SECRET_KEY") && !said.contains("add TURNSERVER_SECRET"), "{said}");
    let coturn = fs::read_to_string(folder.path().join("turnserver.conf")).unwrap();
    assert!(coturn.contains(&format!("static-auth-secret={secret}\n")));
}

#[tokio::test]
async fn init_writes_only_what_is_asked_for() {
    for (options, names) in [
        (&["--proxy", "caddy"][..], &["Caddyfile", "signaling-server.service"][..]),
        (&["--proxy", "none"], &["signaling-server.socket"]),
        (
            &["--service", "compose"],
            &["compose.yaml", "deploy/nginx.conf", "deploy/turnserver.conf"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let all = [&["init", "--domain", "calls.test.example"], options].concat();

        run_ok(&folder, &all).await;

        for name in names {
            assert!(folder.path().join(name).exists(), "{options:?} {name}");
        }
        assert!(!folder.path().join("nginx.conf").exists(), "{options:?}");
        assert!(!folder.path().join("turnserver.conf").exists(), "{options:?}");
    }
}

#[tokio::test]
async fn init_refuses_what_is_no_domain_or_account_and_writes_nothing() {
    for arguments in [
        &["init"][..],
        &["init", "--domain", "https://calls.test.example"],
        &["init", "--domain", "localhost"],
        &["init", "--domain", "calls.test.example", "--user", "a"],
        &["init", "--domain", "calls.test.example", "--proxy", "apache"],
        &["init", "--domain", "calls.test.example", "--service", "compose", "--proxy", "caddy"],
    ] {
        let folder = tempfile::tempdir().unwrap();

        let output = run(&folder, arguments, &[]).await;

        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
        assert!(files(folder.path()).is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn config_names_the_source_of_each_setting_and_shows_no_secret() {
    let folder = home();
    let sound: String = SOUND.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let env = format!(
        "{sound}REDIS_URL=redis://:hunter2@127.0.0.1\nMAX_CONNECTIONS_PER_ROOM=\nALLOWED_ROOM=x\n"
    );
    fs::write(folder.path().join(".env"), env).unwrap();
    let variables = [("PORT", "9000"), ("ADMIN_TOKEN", "0123456789abcdef0123456789abcdef")];

    let table = run(&folder, &["config"], &variables).await;
    let listed = run(&folder, &["config", "--json", "--set"], &variables).await;

    assert_eq!(table.status.code(), Some(0), "{}", text(&table));
    let table = text(&table);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("PORT"), ["PORT", "9000", "environment"]);
    assert_eq!(row("HOST"), ["HOST", "127.0.0.1", ".env"]);
    assert_eq!(row("MAX_CONNECTIONS_PER_ROOM"), ["MAX_CONNECTIONS_PER_ROOM", "10", "default"]);
    assert_eq!(row("SECRET_KEY"), ["SECRET_KEY", "(set)", ".env"]);
    assert_eq!(row("METRICS_TOKEN"), ["METRICS_TOKEN", "(not", "set)", "default"]);
    assert!(table.contains("did you mean ALLOWED_ROOMS?"), "{table}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let names: Vec<_> =
        listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "HOST",
            "PORT",
            "CORS_ORIGINS",
            "SECRET_KEY",
            "JWT_SECRET_KEY",
            "ADMIN_TOKEN",
            "REDIS_URL"
        ]
    );
    let said = table + &listed.to_string();
    for secret in [SOUND[0].1, SOUND[1].1, "hunter2", variables[1].1] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn config_fails_where_a_setting_is_not_accepted() {
    let folder = home();
    let output = run(&folder, &["config"], &[("PORT", "x"), SOUND[0], SOUND[1]]).await;

    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("PORT: \"x\" is not accepted"), "{}", text(&output));
}
