//! Guessing tokens.

use serde_json::json;

use super::{attacked_server::AttackedServer, tokens::is_good};

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
