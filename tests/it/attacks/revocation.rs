//! How tokens, and the sockets that stand on them, end before their time or with it.

use std::{fs, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use signaling::clock::unix_now;

use super::{
    jwt::{self, HS256},
    scene::{JWT_SECRET_KEY, Scene},
    tokens::{is_bad, is_good, is_refused},
};
use crate::{
    harness::{Client, PASSWORD, Server},
    process::managed,
};

/// What an admitted client hears at the end: the machine word of the last error, and the close.
async fn end_of(client: Client) -> (String, (u16, String)) {
    let (before, close) = client.is_let_go().await;
    (before.last().unwrap()["code"].as_str().unwrap().to_owned(), close)
}

fn invalid_token(code: &str) -> (String, (u16, String)) {
    (code.to_owned(), (1008, "Invalid token".to_owned()))
}

async fn member(scene: &Scene, token: &str) -> Client {
    let mut client = scene.connect("den").await;
    client.comes_in("carol", token, Value::Null).await;
    client
}

async fn log_out(scene: &Scene, token: &str) {
    let request = scene.request(Method::POST, "/auth/logout").bearer_auth(token);
    let answer = request.send().await.unwrap();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body, json!({"message":"Successfully logged out"}));
}

async fn refreshed(scene: &Scene, token: &str) -> String {
    let request = scene.request(Method::POST, "/auth/refresh").bearer_auth(token);
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

/// E21: and nobody else's, not even another one of the same user.
#[tokio::test]
async fn a_logout_ends_this_token_and_its_sockets_at_once() {
    let scene = Scene::open(&[]).await;
    let (login, elsewhere) = (scene.log_in("carol").await, scene.log_in("carol").await);
    let minted = scene.token("carol");
    let (ends, stays) = (member(&scene, &login).await, member(&scene, &elsewhere).await);
    let minted_ends = member(&scene, &minted).await;
    // A session that has come to stand on another token ends with that one alone.
    let mut moved_away = member(&scene, &login).await;
    let mut moved_here = member(&scene, &elsewhere).await;
    for (client, token) in [(&mut moved_away, &elsewhere), (&mut moved_here, &login)] {
        client.says(json!({"type":"auth_token","token":token})).await;
        while client.hears().await["type"] != "token_refreshed" {}
    }

    log_out(&scene, &login).await;
    log_out(&scene, &minted).await;

    for ended in [ends, moved_here, minted_ends] {
        assert_eq!(end_of(ended).await, invalid_token("logged_out"));
    }
    is_bad(&scene, &login, "after logout").await;
    is_bad(&scene, &minted, "after logout").await;
    for mut still in [stays, moved_away] {
        still.says(json!({"type":"ping"})).await;
        while still.hears().await["type"] != "pong" {}
        still.leaves().await;
    }
    is_good(&scene, &elsewhere, "not logged out").await;
    scene.still_stands().await;
}

/// The same token in other letters is the same token: base64 can spell its last byte in four ways.
#[tokio::test]
async fn a_logged_out_token_comes_back_in_no_spelling() {
    let scene = Scene::open(&[("AUTH_MAX_FAILURES", "100")]).await;
    let token = scene.token("carol");
    let (rest, last) = token.split_at(token.len() - 1);
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = letters.find(last).unwrap();
    let spelled = |offset: usize| format!("{rest}{}", &letters[place + offset..=place + offset]);

    log_out(&scene, &token).await;

    for other in [spelled(1), spelled(2), spelled(3), format!("{token}="), format!("{token}==")] {
        is_bad(&scene, &other, "another spelling").await;
    }
    scene.still_stands().await;
}

/// N11 for logouts: neither a restart nor a crash right after the answer brings a token back, and the file
/// that remembers holds nothing that would.
#[tokio::test]
async fn a_logout_outlives_the_process() {
    let scene = Scene::open(&[]).await;
    let (one, two, other) =
        (scene.log_in("carol").await, scene.token("carol"), scene.log_in("carol").await);

    log_out(&scene, &one).await;
    let folder = scene.is_killed().await;
    let scene = Scene::plan(&[]).in_folder(folder).open().await;
    is_bad(&scene, &one, "after a crash").await;
    is_good(&scene, &two, "not logged out yet").await;
    log_out(&scene, &two).await;
    let file = fs::read_to_string(scene.folder.path().join("users.csv.revoked")).unwrap();
    let scene = Scene::plan(&[]).in_folder(scene.still_stands().await.folder).open().await;

    is_bad(&scene, &one, "after a restart").await;
    is_bad(&scene, &two, "after a restart").await;
    is_good(&scene, &other, "never logged out").await;
    assert_eq!(file.lines().count(), 2, "{file}");
    for part in one.split('.').chain(two.split('.')) {
        assert!(!file.contains(part), "the file holds a part of a token");
    }
    scene.still_stands().await;
}

/// Only whoever holds a good token can log it out: made-up ones take no room.
#[tokio::test]
async fn a_logout_with_a_bad_token_changes_nothing() {
    let scene = Scene::open(&[]).await;
    let expired = json!({"sub":"carol","exp":unix_now() - 10});
    let unknown = json!({"sub":"nobody","exp":unix_now() + 600});

    for number in 0..50 {
        log_out(&scene, &format!("made.up.{number}")).await;
        log_out(&scene, &jwt::signed(HS256, &expired, JWT_SECRET_KEY.as_bytes())).await;
        log_out(&scene, &jwt::signed(HS256, &unknown, JWT_SECRET_KEY.as_bytes())).await;
    }

    let file = fs::read_to_string(scene.folder.path().join("users.csv.revoked"));
    assert_eq!(file.unwrap_or_default(), "");
    scene.still_stands().await;
}

/// J14: and back again, when the account is.
#[tokio::test]
async fn the_tokens_of_a_disabled_user_are_not_good() {
    let scene = Scene::open(&[]).await;
    let (login, minted) = (scene.log_in("carol").await, scene.token("carol"));
    let (one, two) = (member(&scene, &login).await, member(&scene, &minted).await);

    managed(&scene.folder, &["disable", "carol"], "").await;

    for client in [one, two] {
        let gone = (4003, "User disabled or removed".to_owned());
        assert_eq!(end_of(client).await, ("user_disabled".to_owned(), gone));
    }
    is_refused(&scene, &login, "User not found or inactive", "disabled").await;
    is_refused(&scene, &minted, "User not found or inactive", "disabled").await;
    let refresh = scene.request(Method::POST, "/auth/refresh").bearer_auth(&login);
    assert_eq!(refresh.send().await.unwrap().status(), 401);
    scene.still_stands().await;
}

/// Whoever changes a password wants others out who know it; services that mint tokens know none.
#[tokio::test]
async fn a_new_password_ends_the_tokens_that_the_old_one_was_good_for() {
    let scene = Scene::open(&[]).await;
    let (login, minted) = (scene.log_in("carol").await, scene.token("carol"));
    let second = refreshed(&scene, &login).await;
    let (one, two) = (member(&scene, &login).await, member(&scene, &second).await);
    let mut stays = member(&scene, &minted).await;

    managed(&scene.folder, &["passwd", "--password-stdin", "carol"], "a better one").await;

    for client in [one, two] {
        assert_eq!(end_of(client).await, invalid_token("password_changed"));
    }
    stays.says(json!({"type":"ping"})).await;
    while stays.hears().await["type"] != "pong" {}
    stays.leaves().await;
    let scene = Scene::plan(&[]).in_folder(scene.still_stands().await.folder).open().await;
    is_bad(&scene, &login, "after the change").await;
    is_bad(&scene, &second, "after the change").await;
    is_good(&scene, &minted, "by another service").await;
    let log_in = async |password: &str| {
        let login = json!({"username":"carol","password":password});
        scene.request(Method::POST, "/auth/login").json(&login).send().await.unwrap()
    };
    assert_eq!(log_in(PASSWORD).await.status(), 401);
    let body: Value = log_in("a better one").await.json().await.unwrap();
    is_good(&scene, body["access_token"].as_str().unwrap(), "after the change").await;
    scene.still_stands().await;
}

/// N11: a new key signs, the old one still verifies until it is taken away.
#[tokio::test]
async fn keys_change_without_logging_anybody_out() {
    const NEW: &str = "the-next-key-of-the-scene-0123456789abcdef";
    let scene = Scene::open(&[]).await;
    let (login, minted) = (scene.log_in("carol").await, scene.token("carol"));
    let folder = scene.still_stands().await.folder;

    let settings = [("JWT_SECRET_KEY", NEW), ("JWT_SECRET_KEY_PREVIOUS", JWT_SECRET_KEY)];
    let scene = Scene::plan(&settings).in_folder(folder).open().await;
    is_good(&scene, &login, "signed with the old key").await;
    is_good(&scene, &minted, "signed with the old key").await;
    let (renewed, fresh) = (refreshed(&scene, &minted).await, scene.log_in("carol").await);
    log_out(&scene, &login).await;
    is_bad(&scene, &login, "logged out").await;
    let folder = scene.still_stands().await.folder;

    let settings = [("JWT_SECRET_KEY", NEW), ("JWT_SECRET_KEY_PREVIOUS", "")];
    let scene = Scene::plan(&settings).in_folder(folder).open().await;
    is_bad(&scene, &minted, "signed with a key that is gone").await;
    is_bad(&scene, &jwt::good("carol", ""), "signed with no key").await;
    is_good(&scene, &renewed, "signed with the new key").await;
    is_good(&scene, &fresh, "signed with the new key").await;
    scene.still_stands().await;
}

/// J16: a session outlives its token for as long as a new one may be presented.
#[tokio::test]
async fn a_session_on_an_expired_token_can_be_renewed_but_begin_nothing_new() {
    let scene = Scene::open(&[("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", "true")]).await;
    let claims = json!({"sub":"carol","exp":unix_now() + 2});
    let short = jwt::signed(HS256, &claims, JWT_SECRET_KEY.as_bytes());
    let mut client = member(&scene, &short).await;

    let expired = async || {
        let request = scene.request(Method::GET, "/auth/me").bearer_auth(&short);
        if request.send().await.unwrap().status() == 401 { Ok(()) } else { Err("still good") }
    };
    super::scene::eventually(crate::harness::SOON, expired).await.unwrap();
    is_bad(&scene, &short, "expired").await;
    let again = json!({"type":"auth_token","token":short}).to_string();
    while client.is_told_after(&again).await["code"] != "invalid_token" {}
    client.says(json!({"type":"auth_token","token":scene.token("carol")})).await;

    assert_eq!(client.hears().await["type"], "token_refreshed");
    client.leaves().await;
    scene.still_stands().await;
}

/// J16: past that minute it ends, where the setting says so. The minute passes on a paused clock, which
/// stands still for as long as somebody is busy.
#[tokio::test]
async fn a_session_ends_a_minute_after_its_token_where_that_is_set() {
    let settings =
        |enforced| [("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", enforced), ("WEBSOCKET_TIMEOUT", "3600")];
    let (strict, lenient) =
        (Server::start(&settings("true")).await, Server::start(&settings("false")).await);
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
    ends.hears_nothing_else().await;
    renewed.says(json!({"type":"auth_token","token":strict.token("bob")})).await;
    assert_eq!(renewed.hears().await["type"], "token_refreshed");
    tokio::time::advance(Duration::from_secs(20)).await;

    let expired = (1008, "Token expired".to_owned());
    assert_eq!(end_of(ends).await, ("token_expired".to_owned(), expired));
    stays.hears_nothing_else().await;
    renewed.hears_nothing_else().await;
    busy.abort();
}
