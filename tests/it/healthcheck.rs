//! `signaling-server healthcheck`, as a container runs it.

use std::{net::TcpListener, process::Output};

use signaling::{cli::healthcheck, http_client::LocalServer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use crate::harness::{
    TEST_TIMEOUT, TestServer,
    process::{command, text},
};

/// Asks on `port` with these settings beside.
async fn ask(port: u16, settings: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut check = command(env!("CARGO_BIN_EXE_signaling-server"), &folder);
    check.arg("healthcheck").envs([("DEBUG", "true"), ("HOST", "0.0.0.0")]);
    check.env("PORT", port.to_string()).envs(settings.iter().copied());
    timeout(TEST_TIMEOUT, check.output()).await.expect("no answer").unwrap()
}

/// What it says where it fails: one sentence, for the operator.
fn fault(output: &Output) -> String {
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
    let said = text(output);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[tokio::test]
async fn a_server_that_accepts_clients_is_healthy() {
    let server = TestServer::start(&[("REQUIRE_HTTPS", "true")]).await;

    let output = ask(server.address.port(), &[]).await;

    assert_eq!((output.status.code(), &*text(&output)), (Some(0), ""));
}

#[tokio::test]
async fn the_certificate_of_a_server_with_tls_is_not_verified() {
    let files = [
        ("SSL_SELF_SIGNED", "true"),
        ("SSL_CERT_FILE", "{folder}/server.crt"),
        ("SSL_KEY_FILE", "{folder}/server.key"),
    ];
    let server = TestServer::start(&files).await;

    let tls = [("SSL_CERT_FILE", "server.crt"), ("SSL_KEY_FILE", "server.key")];
    let output = ask(server.address.port(), &tls).await;

    assert_eq!((output.status.code(), &*text(&output)), (Some(0), ""));
}

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    let server = TestServer::start(&[]).await;
    let nowhere = "http://127.0.0.1:1";

    let proxies = [("http_proxy", nowhere), ("HTTP_PROXY", nowhere), ("ALL_PROXY", nowhere)];
    let output = ask(server.address.port(), &proxies).await;

    assert_eq!((output.status.code(), &*text(&output)), (Some(0), ""));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        let answer = b"HTTP/1.1 308 Permanent Redirect\r\nLocation: /health\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        String::from_utf8(request).unwrap()
    });

    let said = fault(&ask(port, &[]).await);

    let expected =
        format!("127.0.0.1 port {port} is not ready: it answered 308 Permanent Redirect");
    assert_eq!(said.trim_end(), expected);
    assert!(answering.await.unwrap().starts_with("GET /health/ready HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_server_that_drains_is_not_healthy() {
    let server = TestServer::start(&[]).await;
    server.app.close().await;

    let said = fault(&ask(server.address.port(), &[]).await);

    assert!(said.contains("not ready") && said.contains("503"), "{said}");
}

#[tokio::test]
async fn a_port_that_refuses_connections_is_not_healthy() {
    // Bound, so that nobody else gets the port, and deaf.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = deaf.local_addr().unwrap().port();

    let said = fault(&ask(port, &[]).await);

    assert!(said.contains(&format!("127.0.0.1 port {port} cannot be reached")), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();

    let server = LocalServer::new("127.0.0.1", silent.local_addr().unwrap().port());
    let said = healthcheck::check(server).await;

    assert!(said.unwrap_err().to_string().contains("did not answer within 3 s"));
}
