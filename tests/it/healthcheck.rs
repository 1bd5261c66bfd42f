//! `signaling-server healthcheck`, as a container runs it.

use std::{net::TcpListener, process::Output};

use signaling::cli::healthcheck;
use tokio::{net::TcpSocket, time::timeout};

use super::{
    harness::{SOON, Server},
    process::{command, text},
};

/// Asks on `port` with these settings beside.
async fn ask(port: u16, settings: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut check = command(env!("CARGO_BIN_EXE_signaling-server"), &folder);
    check.arg("healthcheck").envs([("DEBUG", "true"), ("HOST", "0.0.0.0")]);
    check.env("PORT", port.to_string()).envs(settings.iter().copied());
    timeout(SOON, check.output()).await.expect("no answer").unwrap()
}

/// What it says where it fails: one sentence, for the operator.
fn fault(output: &Output) -> String {
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
    let said = text(output);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[tokio::test]
async fn a_server_that_takes_newcomers_is_healthy() {
    let server = Server::start(&[("REQUIRE_HTTPS", "true")]).await;

    let output = ask(server.address.port(), &[]).await;

    assert_eq!((output.status.code(), &*text(&output)), (Some(0), ""));
}

#[tokio::test]
async fn one_with_tls_of_its_own_is_asked_without_a_look_at_its_certificate() {
    let files = [
        ("SSL_SELF_SIGNED", "true"),
        ("SSL_CERT_FILE", "{folder}/server.crt"),
        ("SSL_KEY_FILE", "{folder}/server.key"),
    ];
    let server = Server::start(&files).await;

    let tls = [("SSL_CERT_FILE", "server.crt"), ("SSL_KEY_FILE", "server.key")];
    let output = ask(server.address.port(), &tls).await;

    assert_eq!((output.status.code(), &*text(&output)), (Some(0), ""));
}

#[tokio::test]
async fn one_that_stops_is_not_healthy() {
    let server = Server::start(&[]).await;
    server.app.close().await;

    let said = fault(&ask(server.address.port(), &[]).await);

    assert!(said.contains("not ready") && said.contains("503"), "{said}");
}

#[tokio::test]
async fn nobody_is_not_healthy() {
    // Bound, so that nobody else gets the port, and deaf.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = deaf.local_addr().unwrap().port();

    let said = fault(&ask(port, &[]).await);

    assert!(said.contains(&format!("127.0.0.1 port {port} cannot be asked")), "{said}");
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();

    let said = healthcheck::ask("127.0.0.1", silent.local_addr().unwrap().port()).await;

    assert!(said.unwrap_err().contains("has not answered for 3 s"));
}
