//! Guessing: tokens and passwords, and hanging up before the answer.

use reqwest::Method;
use serde_json::json;

use super::{attacked_server::AttackedServer, tokens::is_good};
use crate::harness::PASSWORD;

/// L05, N14: whoever guesses tokens is told no more, but neighbours with a good one come in.
#[tokio::test]
async fn too_many_invalid_tokens_block_an_address_but_not_a_valid_token() {
    let server = AttackedServer::start(&[("AUTH_MAX_FAILURES", "3")]).await;
    let mut reasons = Vec::new();

    for _ in 0..6 {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send(json!({"type":"auth_token","token":"guess"})).await;
        reasons.push(client.rejection().await);
    }

    let refused = |reason: &str| (1008, reason.to_owned());
    assert_eq!(reasons[..3], vec![refused("Invalid token"); 3]);
    assert_eq!(reasons[3..], vec![refused("IP blocked due to security violations"); 3]);
    is_good(&server, &server.token("carol"), "a neighbour's").await;
    let log = server.assert_unharmed().await.log;
    let noted = log.iter().filter(|line| line.contains("\"reason\":\"invalid_token\"")).count();
    assert_eq!(noted, 1, "one line a minute, and whoever is blocked does not fill the log either");
}

/// L02: also where nobody waits for the answer.
#[tokio::test]
async fn an_invalid_token_counts_also_where_its_client_disconnects() {
    const ALLOWED: usize = 3;
    let server = AttackedServer::start(&[("AUTH_MAX_FAILURES", &ALLOWED.to_string())]).await;
    let log_in = async |password: &str| {
        let login = json!({"username":"carol","password":password});
        let request = server.request(Method::POST, "/auth/login").json(&login);
        request.send().await.unwrap().status().as_u16()
    };
    let body = json!({"username":"carol","password":"guess"}).to_string();
    let length = body.len();
    let request = format!(
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );

    for _ in 0..ALLOWED {
        // The first byte of an answer would come after the hashing; this one hangs up before.
        server.raw().await.write(&request).await;
    }
    let mut answered = 0;
    while log_in("guess").await != 429 {
        answered += 1;
    }

    assert!(answered < ALLOWED, "none of those who hung up was counted");
    assert_eq!(log_in(PASSWORD).await, 429, "before any hashing");
    server.assert_unharmed().await;
}
