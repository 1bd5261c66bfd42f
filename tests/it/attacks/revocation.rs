//! How tokens, and the sockets that stand on them, end before their time or with it.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use signaling::clock::unix_now;

use super::{
    attacked_server::{AttackedServer, JWT_SECRET_KEY},
    jwt::{self, HS256},
    tokens::{is_bad, is_good, is_refused},
};
use crate::harness::{Client, PASSWORD, TestServer, eventually, process::manage_ok};

/// What an admitted client hears at the end: the machine word of the last error, and the close.
async fn end_of(client: Client) -> (String, (u16, String)) {
    let (before, close) = client.read_to_close().await;
    (before.last().unwrap()["code"].as_str().unwrap().to_owned(), close)
}

fn invalid_token(code: &str) -> (String, (u16, String)) {
    (code.to_owned(), (1008, "Invalid token".to_owned()))
}

async fn member(server: &AttackedServer, token: &str) -> Client {
    let mut client = server.connect("den").await;
    client.authenticate("carol", token, Value::Null).await;
    client
}

async fn log_out(server: &AttackedServer, token: &str) {
    let request = server.request(Method::POST, "/auth/logout").bearer_auth(token);
    let answer = request.send().await.unwrap();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body, json!({"message":"Successfully logged out"}));
}

async fn refreshed(server: &AttackedServer, token: &str) -> String {
    let request = server.request(Method::POST, "/auth/refresh").bearer_auth(token);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// E21: and nobody else's, not even another one of the same user.
#[tokio::test]
async fn a_logout_ends_this_token_and_its_sockets_at_once() {
    let server = AttackedServer::start(&[]).await;
    let (login, elsewhere) = (server.log_in("carol").await, server.log_in("carol").await);
    let minted = server.token("carol");
    let (ends, stays) = (member(&server, &login).await, member(&server, &elsewhere).await);
    let minted_ends = member(&server, &minted).await;
    // A session that has come to stand on another token ends with that one alone.
    let mut moved_away = member(&server, &login).await;
    let mut moved_here = member(&server, &elsewhere).await;
    for (client, token) in [(&mut moved_away, &elsewhere), (&mut moved_here, &login)] {
        client.send(json!({"type":"auth_token","token":token})).await;
        while client.receive().await["type"] != "token_refreshed" {}
    }

    log_out(&server, &login).await;
    log_out(&server, &minted).await;

    for ended in [ends, moved_here, minted_ends] {
        assert_eq!(end_of(ended).await, invalid_token("logged_out"));
    }
    is_bad(&server, &login, "after logout").await;
    is_bad(&server, &minted, "after logout").await;
    for mut still in [stays, moved_away] {
        still.send(json!({"type":"ping"})).await;
        while still.receive().await["type"] != "pong" {}
        still.leave().await;
    }
    is_good(&server, &elsewhere, "not logged out").await;
    server.assert_unharmed().await;
}

/// The same token in other letters is the same token: base64 can spell its last byte in four ways.
#[tokio::test]
async fn a_revoked_token_is_rejected_in_every_spelling() {
    let server = AttackedServer::start(&[("AUTH_MAX_FAILURES", "100")]).await;
    let token = server.token("carol");
    let (rest, last) = token.split_at(token.len() - 1);
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = letters.find(last).unwrap();
    let spelled = |offset: usize| format!("{rest}{}", &letters[place + offset..=place + offset]);

    log_out(&server, &token).await;

    for other in [spelled(1), spelled(2), spelled(3), format!("{token}="), format!("{token}==")] {
        is_bad(&server, &other, "another spelling").await;
    }
    server.assert_unharmed().await;
}

/// N11 for logouts: neither a restart nor a crash right after the answer brings a token back, and the file
/// that remembers holds nothing that would.
#[tokio::test]
async fn a_logout_outlives_the_process() {
    let server = AttackedServer::start(&[]).await;
    let (one, two, other) =
        (server.log_in("carol").await, server.token("carol"), server.log_in("carol").await);

    log_out(&server, &one).await;
    let folder = server.kill().await;
    let server = AttackedServer::with(&[]).in_folder(folder).start().await;
    is_bad(&server, &one, "after a crash").await;
    is_good(&server, &two, "not logged out yet").await;
    log_out(&server, &two).await;
    let file = fs::read_to_string(server.folder.path().join("users.csv.revoked")).unwrap();
    let server =
        AttackedServer::with(&[]).in_folder(server.assert_unharmed().await.folder).start().await;

    is_bad(&server, &one, "after a restart").await;
    is_bad(&server, &two, "after a restart").await;
    is_good(&server, &other, "never logged out").await;
    assert_eq!(file.lines().count(), 2, "{file}");
    for part in one.split('.').chain(two.split('.')) {
        assert!(!file.contains(part), "the file holds a part of a token");
    }
    server.assert_unharmed().await;
}

/// Only whoever holds a good token can log it out: made-up ones take no room.
#[tokio::test]
async fn a_logout_with_a_bad_token_changes_nothing() {
    let server = AttackedServer::start(&[]).await;
    let expired = json!({"sub":"carol","exp":unix_now() - 10});
    let unknown = json!({"sub":"nobody","exp":unix_now() + 600});

    for number in 0..50 {
        log_out(&server, &format!("made.up.{number}")).await;
        log_out(&server, &jwt::signed(HS256, &expired, JWT_SECRET_KEY.as_bytes())).await;
        log_out(&server, &jwt::signed(HS256, &unknown, JWT_SECRET_KEY.as_bytes())).await;
    }

    let file = fs::read_to_string(server.folder.path().join("users.csv.revoked"));
    assert_eq!(file.unwrap_or_default(), "");
    server.assert_unharmed().await;
}

/// J14: and back again, when the account is.
#[tokio::test]
async fn the_tokens_of_a_disabled_user_are_rejected() {
    let server = AttackedServer::start(&[]).await;
    let (login, minted) = (server.log_in("carol").await, server.token("carol"));
    let (one, two) = (member(&server, &login).await, member(&server, &minted).await);

    manage_ok(&server.folder, &["disable", "carol"], "").await;

    for client in [one, two] {
        let gone = (4003, "User disabled or removed".to_owned());
        assert_eq!(end_of(client).await, ("user_disabled".to_owned(), gone));
    }
    is_refused(&server, &login, "User not found or inactive", "disabled").await;
    is_refused(&server, &minted, "User not found or inactive", "disabled").await;
    let refresh = server.request(Method::POST, "/auth/refresh").bearer_auth(&login);
    assert_eq!(refresh.send().await.unwrap().status(), 401);
    server.assert_unharmed().await;
}

/// Whoever changes a password wants others out who know it; services that mint tokens know none.
#[tokio::test]
async fn a_new_password_revokes_the_tokens_of_the_old_one() {
    let server = AttackedServer::start(&[]).await;
    let (login, minted) = (server.log_in("carol").await, server.token("carol"));
    let second = refreshed(&server, &login).await;
    let (one, two) = (member(&server, &login).await, member(&server, &second).await);
    let mut stays = member(&server, &minted).await;

    manage_ok(&server.folder, &["passwd", "--password-stdin", "carol"], "a better one").await;

    for client in [one, two] {
        assert_eq!(end_of(client).await, invalid_token("password_changed"));
    }
    stays.send(json!({"type":"ping"})).await;
    while stays.receive().await["type"] != "pong" {}
    stays.leave().await;
    let server =
        AttackedServer::with(&[]).in_folder(server.assert_unharmed().await.folder).start().await;
    is_bad(&server, &login, "after the change").await;
    is_bad(&server, &second, "after the change").await;
    is_good(&server, &minted, "by another service").await;
    let log_in = async |password: &str| {
        let login = json!({"username":"carol","password":password});
        server.request(Method::POST, "/auth/login").json(&login).send().await.unwrap()
    };
    assert_eq!(log_in(PASSWORD).await.status(), 401);
    let body: Value = log_in("a better one").await.json().await.unwrap();
    is_good(&server, body["access_token"].as_str().unwrap(), "after the change").await;
    server.assert_unharmed().await;
}

/// N11: a new key signs, the old one still verifies until it is taken away.
#[tokio::test]
async fn keys_can_be_changed_without_ending_sessions() {
    const NEW: &str = "the-next-key-of-the-server-0123456789abcdef";
    let server = AttackedServer::start(&[]).await;
    let (login, minted) = (server.log_in("carol").await, server.token("carol"));
    let folder = server.assert_unharmed().await.folder;

    let settings = [("JWT_SECRET_KEY", NEW), ("JWT_SECRET_KEY_PREVIOUS", JWT_SECRET_KEY)];
    let server = AttackedServer::with(&settings).in_folder(folder).start().await;
    is_good(&server, &login, "signed with the old key").await;
    is_good(&server, &minted, "signed with the old key").await;
    let (renewed, fresh) = (refreshed(&server, &minted).await, server.log_in("carol").await);
    log_out(&server, &login).await;
    is_bad(&server, &login, "logged out").await;
    let folder = server.assert_unharmed().await.folder;

    let settings = [("JWT_SECRET_KEY", NEW), ("JWT_SECRET_KEY_PREVIOUS", "")];
    let server = AttackedServer::with(&settings).in_folder(folder).start().await;
    is_bad(&server, &minted, "signed with a key that is gone").await;
    is_bad(&server, &jwt::good("carol", ""), "signed with no key").await;
    is_good(&server, &renewed, "signed with the new key").await;
    is_good(&server, &fresh, "signed with the new key").await;
    server.assert_unharmed().await;
}

/// J16: a session outlives its token for as long as a new one may be presented.
#[tokio::test]
async fn a_session_with_an_expired_token_can_be_refreshed_and_no_new_one_begun() {
    let server = AttackedServer::start(&[("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", "true")]).await;
    let claims = json!({"sub":"carol","exp":unix_now() + 2});
    let short = jwt::signed(HS256, &claims, JWT_SECRET_KEY.as_bytes());
    let mut client = member(&server, &short).await;

    let expired = async || {
        let request = server.request(Method::GET, "/auth/me").bearer_auth(&short);
        if request.send().await.unwrap().status() == 401 { Ok(()) } else { Err("still good") }
    };
    eventually("the token has expired", expired).await;
    is_bad(&server, &short, "expired").await;
    let again = json!({"type":"auth_token","token":short}).to_string();
    while client.error_after(&again).await["code"] != "invalid_token" {}
    client.send(json!({"type":"auth_token","token":server.token("carol")})).await;

    assert_eq!(client.receive().await["type"], "token_refreshed");
    client.leave().await;
    server.assert_unharmed().await;
}

/// J16: past that minute it ends, where the setting says so. The minute passes on a paused clock, which
/// stands still for as long as somebody is busy.
#[tokio::test]
async fn a_session_ends_a_minute_after_its_token_where_that_is_set() {
    let settings =
        |enforced| [("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", enforced), ("WEBSOCKET_TIMEOUT", "3600")];
    let (strict, lenient) =
        (TestServer::start(&settings("true")).await, TestServer::start(&settings("false")).await);
    let (mut ends, mut stays, mut renewed) = (
        strict.join("den", "alice").await,
        lenient.join("den", "alice").await,
        strict.join("attic", "bob").await,
    );
    let busy = tokio::spawn(async {
        for _ in 0..1_000_000 {
            tokio::task::yield_now().await;
        }
    });
    tokio::time::pause();

    tokio::time::advance(Duration::from_secs(1800 + 50)).await;
    ends.assert_no_more_messages().await;
    renewed.send(json!({"type":"auth_token","token":strict.token("bob")})).await;
    assert_eq!(renewed.receive().await["type"], "token_refreshed");
    tokio::time::advance(Duration::from_secs(20)).await;

    let expired = (1008, "Token expired".to_owned());
    assert_eq!(end_of(ends).await, ("token_expired".to_owned(), expired));
    stays.assert_no_more_messages().await;
    renewed.assert_no_more_messages().await;
    busy.abort();
}
