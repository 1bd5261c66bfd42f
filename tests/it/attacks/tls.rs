//! TLS on our own port, under attack. Bystanders come through a proxy, in plain.

use std::{fs, sync::Arc, time::Duration};

use futures_util::future::join_all;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{interval, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    attacked_server::{AttackedServer, Builder},
    bystanders::HERE,
    raw::{Raw, TEXT, frame, upgrade},
};
use crate::harness::{
    TEST_TIMEOUT, eventually,
    process::{INTERVALS, NEVER},
    users_file,
};

const FILES: [(&str, &str); 2] =
    [("SSL_CERT_FILE", "{folder}/tls.crt"), ("SSL_KEY_FILE", "{folder}/tls.key")];

/// A certificate for localhost that is valid from January of one year to January of another, in force
/// as soon as it is noticed.
fn write_certificate(folder: &TempDir, from: i32, to: i32) {
    let mut wanted = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    wanted.not_before = rcgen::date_time_ymd(from, 1, 1);
    wanted.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = wanted.self_signed(&key).unwrap();
    fs::write(folder.path().join("tls.key"), key.serialize_pem()).unwrap();
    fs::write(folder.path().join("tls.crt"), certificate.pem()).unwrap();
}

fn with_certificate(from: i32, to: i32, intervals: &str) -> Builder {
    let folder = tempfile::tempdir().unwrap();
    let users = users_file(&["alice", "bob", "carol", "dave"], 4);
    fs::write(folder.path().join("users.csv"), users).unwrap();
    write_certificate(&folder, from, to);
    AttackedServer::with(&[&FILES[..], &[(INTERVALS, intervals)]].concat()).in_folder(folder)
}

/// A TLS connection that trusts what is on disk now, and speaks these protocols.
async fn connect(
    server: &AttackedServer,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificate = CertificateDer::from_pem_file(server.folder.path().join("tls.crt")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn answers(stream: &mut TlsStream<TcpStream>) -> bool {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.is_ok() && &start == b"HTTP/1.1 200"
}

/// The first bytes of a TLS handshake.
const HELLO: [u8; 12] = [0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3, 0x55];

/// 300 connections whose handshake stops at different bytes, and thirty that are done and carry no request.
async fn unfinished(server: &AttackedServer) -> (Vec<Raw>, Vec<TlsStream<TcpStream>>) {
    let silent = (0..300).map(async |number: usize| {
        let mut raw = server.raw().await;
        raw.write(&HELLO[..number % HELLO.len()]).await;
        raw
    });
    let done = (0..30).map(async |_| connect(server, &[]).await.unwrap());
    (join_all(silent).await, join_all(done).await)
}

/// N10.
#[tokio::test]
async fn handshakes_that_do_not_go_on_keep_no_newcomer_out() {
    let server = with_certificate(2020, 2100, NEVER).start().await;

    let unfinished = unfinished(&server).await;
    for _ in 0..20 {
        let mut newcomer = server.connect_with("den", &HERE).await.unwrap();
        newcomer.authenticate("carol", &server.token("carol"), json!(null)).await;
        newcomer.leave().await;
    }

    drop(unfinished);
    assert_eq!(server.assert_unharmed().await.visits, 20);
}

/// N10, and thirty more whose bytes dribble.
#[tokio::test]
async fn handshakes_that_do_not_go_on_are_cut() {
    let server = with_certificate(2020, 2100, "head=3000").start().await;

    let dribbling = (0..30).map(async |_| {
        let mut raw = server.raw().await;
        raw.write(HELLO).await;
        let mut pace = interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                _ = pace.tick() => { let _ = raw.try_write([0x55]).await; }
                _ = raw.read_to_end() => return,
            }
        }
    });
    let stopping = async {
        let (silent, done) = unfinished(&server).await;
        for mut raw in silent {
            raw.read_to_end().await;
        }
        for mut stream in done {
            let _ = timeout(TEST_TIMEOUT, stream.read_to_end(&mut Vec::new())).await.expect("open");
        }
    };
    tokio::join!(join_all(dribbling), stopping);

    server.assert_unharmed().await;
}

/// What is no TLS, or none that is safe any more, gets an alert or nothing, and no page.
#[tokio::test]
async fn invalid_and_outdated_tls_is_rejected() {
    let server = with_certificate(2020, 2100, "").start().await;
    // RFC 2246: a ClientHello of TLS 1.0 or 1.1, with two cipher suites and no extensions.
    let old_hello = |minor: u8| {
        let body = [&[3, minor][..], &[7; 32], &[0, 0, 4, 0, 0x2f, 0, 0x35, 1, 0]].concat();
        let length = body.len() as u8;
        [&[0x16, 3, 1, 0, length + 4, 1, 0, 0, length][..], &body].concat()
    };
    let noise: Vec<u8> =
        (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();

    for (case, bytes) in [
        ("TLS 1.0", old_hello(1)),
        ("TLS 1.1", old_hello(2)),
        ("SSL 3", old_hello(0)),
        ("noise", [&[0x16][..], &noise].concat()),
        (
            "a record of 64 KiB",
            [&[0x16, 3, 1, 0xff, 0xff][..], &noise, &noise, &noise, &noise].concat(),
        ),
        ("a hello of 16 MiB", [&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &noise].concat()),
        ("an alert", vec![0x15, 3, 3, 0, 2, 2, 40]),
        ("data first", [&[0x17, 3, 3, 0, 100][..], &[0; 100]].concat()),
        ("HTTP in a record", [&[0x16, 3, 1, 0, 18][..], b"GET / HTTP/1.1\r\n\r\n"].concat()),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
    ] {
        let mut raw = Raw::connect(server.address).await;
        let _ = raw.try_write(bytes).await;
        let (answer, _) = raw.read_to_end().await;

        let alert = answer.len() == 7 && answer[0] == 0x15;
        let plain = answer.starts_with(b"HTTP/1.1 4");
        assert!(answer.is_empty() || alert || plain, "{case}: {answer:x?}");
    }
    assert!(connect(&server, &["h2"]).await.is_err(), "HTTP/2 is not spoken");
    assert!(answers(&mut connect(&server, &["h2", "http/1.1"]).await.unwrap()).await);
    server.assert_unharmed().await;
}

/// N10: a server whose certificate has expired runs on, and so do its calls; the new certificate is
/// taken up without a restart, half a one is not, and connections that are open stay.
#[tokio::test]
async fn an_expired_certificate_is_replaced_without_a_restart() {
    let server = with_certificate(2020, 2021, "certificate_poll=50")
        .may_log(&["certificate not reloaded"])
        .start()
        .await;
    let expired = connect(&server, &[]).await.unwrap_err().to_string();
    assert!(expired.contains("xpired"), "{expired}");

    write_certificate(&server.folder, 2020, 2100);
    let renewed = async || match connect(&server, &[]).await {
        Ok(stream) => Ok(stream),
        Err(error) => Err(error.to_string()),
    };
    let mut stream = eventually("the new certificate is taken up", renewed).await;
    assert!(answers(&mut stream).await);

    let good = fs::read(server.folder.path().join("tls.key")).unwrap();
    fs::write(server.folder.path().join("tls.key"), &good[..good.len() / 2]).unwrap();
    server.wait_for_log("certificate not reloaded").await;
    assert!(answers(&mut connect(&server, &[]).await.unwrap()).await, "the one in force stays");
    drop(stream);
    server.assert_unharmed().await;
}

/// A member over TLS who vanishes without a word of TLS or of the protocol has left once.
#[tokio::test]
async fn a_member_over_tls_whose_connection_breaks_leaves() {
    let server = with_certificate(2020, 2100, "").start().await;
    let introduction = json!({"type":"auth_token","token":server.token("carol")}).to_string();

    for _ in 0..3 {
        let mut stream = connect(&server, &[]).await.unwrap();
        stream.write_all((upgrade("den") + "\r\n").as_bytes()).await.unwrap();
        stream.write_all(&frame(TEXT, introduction.as_bytes())).await.unwrap();
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains("users_in_room") {
            assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{heard:?}");
        }
        drop(stream.into_inner().0);
    }
    assert_eq!(server.assert_unharmed().await.visits, 3);
}
