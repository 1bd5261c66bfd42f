//! TURN credentials (group T of the catalogue). A real coturn judges them in tests/browser/turn.test.mjs.

use std::{
    process::{Command, Stdio},
    time::UNIX_EPOCH,
};

use reqwest::Method;
use serde_json::{Value, json};

use super::attacked_server::AttackedServer;
use crate::{harness::PASSWORD, rest::parts};

const SECRET: &str = "turn-secret-of-the-server-0123456789abcdef";
const URLS: &str = r#"["turn:turn.example.com:3478?transport=udp","turns:turn.example.com:5349"]"#;

fn settings(ttl: &str) -> Vec<(&str, &str)> {
    vec![("TURNSERVER_SECRET", SECRET), ("TURNSERVER_URLS", URLS), ("TURNSERVER_TTL", ttl)]
}

/// base64(HMAC-SHA1(secret, username)), as openssl computes it.
fn signed_by_openssl(username: &str) -> String {
    let pipe = r#"printf %s "$1" | openssl dgst -sha1 -hmac "$2" -binary | openssl base64"#;
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", pipe, "sh", username, SECRET]).stderr(Stdio::inherit()).output();
    String::from_utf8(output.expect("no openssl: run ./test.sh").stdout).unwrap().trim().to_owned()
}

async fn credentials(server: &AttackedServer, token: &str) -> Value {
    let request = server.request(Method::GET, "/auth/turn-credentials").bearer_auth(token);
    let (status, headers, body) = parts(request.send().await.unwrap()).await;
    assert_eq!((status, &headers["cache-control"]), (200, &"no-store".parse().unwrap()));
    body
}

/// T01: over the whole range of ttl, in REST and on the socket alike; the log holds no credential.
#[tokio::test]
async fn credentials_are_what_openssl_signs_and_last_as_long_as_they_say() {
    for ttl in ["1", "86400", "1000000"] {
        let server = AttackedServer::start(&settings(ttl)).await;
        server.keep_secret(SECRET);
        let lasts: u64 = ttl.parse().unwrap();
        let token = server.token("alice");

        let before = UNIX_EPOCH.elapsed().unwrap().as_secs();
        let by_rest = credentials(&server, &token).await;
        let ice = server.request(Method::GET, "/auth/ice-servers").bearer_auth(&token).send();
        let ice: Value = ice.await.unwrap().json().await.unwrap();
        let mut socket = server.connect("den").await;
        socket.receive().await;
        socket.send(json!({"type":"auth_token","token":token})).await;
        let by_socket = socket.receive().await["iceServers"][0].clone();
        let after = UNIX_EPOCH.elapsed().unwrap().as_secs();

        assert_eq!((&by_rest["ttl"], &ice["ttl"]), (&json!(lasts), &json!(lasts)));
        for minted in [by_rest, ice["iceServers"][0].clone(), by_socket] {
            let username = minted["username"].as_str().unwrap();
            let (expiry, name) = username.split_once(':').unwrap();
            let expiry: u64 = expiry.parse().unwrap();
            assert!((before + lasts..=after + lasts).contains(&expiry) && name == "alice");
            assert_eq!(minted["urls"].to_string(), URLS);
            let credential = minted["credential"].as_str().unwrap();
            assert_eq!(credential, signed_by_openssl(username), "{username}");
            server.keep_secret(credential);
        }
        drop(socket);
        server.assert_unharmed().await;
    }
}

/// T02: no token, no credentials; with a token that ended neither, and guests get none.
#[tokio::test]
async fn turn_credentials_need_a_valid_token() {
    let mut with_guests = settings("600");
    with_guests.push(("ALLOW_ANONYMOUS", "true"));
    let server = AttackedServer::start(&with_guests).await;
    let good = server.token("carol");
    let (unknown, ended) = (server.token("nobody"), server.token("carol"));
    let out =
        server.request(Method::POST, "/auth/logout").bearer_auth(&ended).send().await.unwrap();
    assert_eq!(out.status(), 200);
    let (head, tail) = good.rsplit_once('.').unwrap();

    for token in ["", "x", &unknown, &ended, head, &format!("{head}."), &format!("{head}.{tail}x")]
    {
        for path in ["/auth/turn-credentials", "/auth/ice-servers"] {
            let request = server.request(Method::GET, path).bearer_auth(token);
            let (status, headers, body) = parts(request.send().await.unwrap()).await;

            assert_eq!((status, &headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
            assert!(body["detail"].is_string() && body.as_object().unwrap().len() == 1, "{body}");
        }
    }
    let mut guest = server.connect("den").await;
    guest.receive().await;
    guest.send(json!({"type":"auth_token"})).await;
    let success = guest.receive().await;
    assert_eq!(success["type"], "auth_success");
    assert!(!success.to_string().contains("credential"), "{success}");
    drop(guest);
    server.assert_unharmed().await;
}

/// T03: a name that would move the end of the expiry is no user's, or comes after it; names in any
/// script are signed as they are, but for what coturn refuses in a name.
#[tokio::test]
async fn unusual_usernames_are_rejected_or_get_what_coturn_computes() {
    let server = AttackedServer::with(&settings("600"))
        .may_log(&["invalid row of the users file"])
        .start()
        .await;
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let path = server.folder.path().join("users.csv");
    let odd = [
        "a:b",
        "9999999999:root",
        "zo\u{eb} m\u{fc}ller",
        "\u{7530}\u{4e2d}",
        "e\u{301}ve",
        "a,b",
        "a%3Ab",
    ];
    let rows = odd.map(|name| format!("\"{name}\",x@example.com,{hash},True\n"));
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &rows.concat()).unwrap();
    server.wait_for_log("users file reloaded").await;
    let mut served = 0;

    for name in odd {
        let login = json!({"username":name,"password":PASSWORD});
        let login = server.request(Method::POST, "/auth/login").json(&login).send().await.unwrap();
        let (status, _, login) = parts(login).await;
        if status == 401 {
            continue;
        }
        assert_eq!(status, 200, "{name}");
        let body = credentials(&server, login["access_token"].as_str().unwrap()).await;

        let username = body["username"].as_str().unwrap();
        let (expiry, rest) = username.split_once(':').unwrap();
        let left = expiry.parse::<u64>().unwrap() - UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!((590..=600).contains(&left), "the expiry comes first: {username}");
        assert_eq!(rest, name.replace(' ', "%20"), "coturn takes no space");
        assert_eq!(body["credential"], signed_by_openssl(username));
        served += 1;
    }
    assert!(served >= 4, "names without a colon are served");
    server.assert_unharmed().await;
}

/// T01: many at once, none with another's name.
#[tokio::test]
async fn two_hundred_concurrent_requests_get_credentials_of_their_own() {
    let server = AttackedServer::start(&settings("600")).await;
    let tokens = ["alice", "bob", "carol", "dave"].map(|name| (name, server.token(name)));

    let asking = (0..200).map(async |number: usize| {
        let (name, token) = &tokens[number % tokens.len()];
        let body = credentials(&server, token).await;
        assert!(body["username"].as_str().unwrap().ends_with(&format!(":{name}")), "{body}");
    });
    futures_util::future::join_all(asking).await;

    server.assert_unharmed().await;
}
