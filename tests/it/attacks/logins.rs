//! Floods of logins, beside which those of others have their turns; and clients that disconnect before the answer.

use std::thread::available_parallelism;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::attacked_server::AttackedServer;
use crate::harness::{PASSWORD, eventually};

const METRICS_TOKEN: &str = "metrics-token-of-the-target-0123456789abcdef";

/// How a login was answered.
#[derive(Debug)]
struct LoginAnswer {
    status: u16,
    has_retry_after: bool,
    body: Value,
}

/// A server that hashes as production does, and how many threads it has for that.
async fn server() -> (AttackedServer, usize) {
    let settings = [("METRICS_TOKEN", METRICS_TOKEN), ("AUTH_MAX_FAILURES", "100000")];
    let server = AttackedServer::with(&settings).with_production_hashes().start().await;
    (server, available_parallelism().unwrap().get().saturating_sub(1).max(1))
}

/// Logs in as `username`, through a proxy that names `address`.
fn login(
    server: &AttackedServer,
    address: &str,
    username: &str,
) -> impl Future<Output = LoginAnswer> + Send + use<> {
    let request = server.request(Method::POST, "/auth/login").header("x-forwarded-for", address);
    let request = request.json(&json!({"username":username,"password":PASSWORD}));
    async {
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let has_retry_after = answer.headers().contains_key("retry-after");
        LoginAnswer { status, has_retry_after, body: answer.json().await.unwrap() }
    }
}

/// So many logins of alice at once, from four addresses.
fn flood_of_alice(server: &AttackedServer, count: usize) -> JoinSet<LoginAnswer> {
    (0..count).map(|number| login(server, &format!("198.51.100.{}", number % 4), "alice")).collect()
}

/// The value of a metric.
async fn metric(server: &AttackedServer, name: &str) -> usize {
    let request = server.request(Method::GET, "/metrics").bearer_auth(METRICS_TOKEN);
    let text = request.send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until at least so many logins are checked or wait.
async fn pending_reach(server: &AttackedServer, count: usize) {
    eventually(&format!("{count} logins are pending"), async || {
        let pending = metric(server, "signaling_hashing_queue").await;
        if pending >= count { Ok(()) } else { Err(pending) }
    })
    .await;
}

/// The answers that have come.
fn answers(flood: &mut JoinSet<LoginAnswer>) -> Vec<LoginAnswer> {
    std::iter::from_fn(|| flood.try_join_next()).map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_login_waits_for_few_of_an_account_that_comes_from_many_addresses() {
    let (server, threads) = server().await;
    let mut flood = flood_of_alice(&server, 28 * threads);
    pending_reach(&server, 20 * threads).await;
    answers(&mut flood);

    let bob = login(&server, "203.0.113.1", "bob").await;
    let went_first = answers(&mut flood).len();

    assert_eq!(bob.status, 200);
    // One of them, those that were checked already, and what else a busy machine has time for.
    assert!(went_first < 10 * threads, "{went_first} went first");
    drop(flood);
    server.assert_unharmed().await;
}

#[tokio::test]
async fn a_full_queue_of_logins_gives_way_to_other_accounts() {
    let (server, threads) = server().await;
    let places = 32 * threads;
    let mut flood = flood_of_alice(&server, 2 * places);
    pending_reach(&server, places).await;

    let others = ["bob", "carol", "dave"].into_iter().zip(1..);
    let others = others.map(|(name, host)| login(&server, &format!("203.0.113.{host}"), name));
    let others = futures_util::future::join_all(others).await;

    assert!(others.iter().all(|answer| answer.status == 200), "{others:?}");
    let flood_answers = answers(&mut flood);
    let (done, rejected): (Vec<_>, Vec<_>) =
        flood_answers.into_iter().partition(|answer| answer.status == 200);
    assert!(rejected.len() > places / 2, "{} rejected, {} done", rejected.len(), done.len());
    let detail = json!({"detail":"Too many logins are waiting. Please try again later."});
    for answer in rejected {
        assert!(answer.status == 503 && answer.has_retry_after, "{answer:?}");
        assert_eq!(answer.body, detail);
    }
    drop(flood);
    server.assert_unharmed().await;
}

#[tokio::test]
async fn a_login_whose_client_has_disconnected_leaves_the_queue() {
    let (server, threads) = server().await;
    let count = 28 * threads;
    let flood = flood_of_alice(&server, count);
    pending_reach(&server, 20 * threads).await;

    drop(flood);

    eventually("no login is pending", async || {
        match metric(&server, "signaling_hashing_queue").await {
            0 => Ok(()),
            pending => Err(pending),
        }
    })
    .await;
    let of = async |outcome| {
        metric(&server, &format!("signaling_logins_total{{outcome=\"{outcome}\"}}")).await
    };
    let (done, abandoned) = (of("done").await, of("abandoned").await);
    assert_eq!(done + abandoned, count, "{done} done");
    assert!(abandoned >= 10 * threads, "{abandoned} abandoned, {done} done");
    server.assert_unharmed().await;
}

/// L02: also where nobody waits for the answer. A check that has not begun is left out, and reveals nothing.
#[tokio::test]
async fn a_wrong_password_counts_also_where_its_client_disconnects_during_the_check() {
    const ALLOWED: usize = 3;
    let settings = [
        ("METRICS_TOKEN", METRICS_TOKEN),
        ("AUTH_MAX_FAILURES", &*ALLOWED.to_string()),
        ("LOG_LEVEL", "TRACE"),
    ];
    let server = AttackedServer::with(&settings).with_production_hashes().start().await;
    let body = json!({"username":"carol","password":"guess"}).to_string();
    let length = body.len();
    let request = format!(
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.1\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );

    for number in 1..=ALLOWED {
        let mut guesser = server.raw().await;
        guesser.write(&request).await;
        server.wait_for_log_lines("checking a password", number).await;
    }

    eventually("the guesses are counted", async || {
        match metric(&server, "signaling_logins_total{outcome=\"wrong\"}").await {
            ALLOWED => Ok(()),
            counted => Err(counted),
        }
    })
    .await;
    assert_eq!(login(&server, "203.0.113.1", "carol").await.status, 429, "before any hashing");
    server.assert_unharmed().await;
}

/// On a machine with few cores, a check shares one with members.
#[tokio::test]
async fn threads_that_check_passwords_give_way_to_those_that_serve_members() {
    let (server, threads) = server().await;
    server.log_in("carol").await;

    let (niceness, of_main) = server.niceness("password");

    assert_eq!(niceness, vec![(of_main + 5).min(19); threads]);
    server.assert_unharmed().await;
}
