//! TLS on our own port.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{TEST_TIMEOUT, TestServer};

const SELF_SIGNED: [(&str, &str); 4] = [
    ("REQUIRE_HTTPS", "true"),
    ("SSL_SELF_SIGNED", "true"),
    ("SSL_CERT_FILE", "{folder}/ssl/server.crt"),
    ("SSL_KEY_FILE", "{folder}/ssl/server.key"),
];

/// A TLS connection that trusts nothing but the certificate which is on disk now.
async fn connect(server: &TestServer) -> std::io::Result<TlsStream<TcpStream>> {
    connect_after(server, b"").await
}

/// The same after what a TCP proxy sends first.
async fn connect_after(
    server: &TestServer,
    header: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(server.folder.path().join("ssl/server.crt")).unwrap())
        .unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(header).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(TEST_TIMEOUT, async {
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
    })
    .await
    .expect("no answer");
    String::from_utf8(answer).unwrap().to_lowercase()
}

/// N10: the key.
#[tokio::test]
async fn a_self_signed_certificate_is_made_and_its_key_is_private() {
    let server = TestServer::start(&SELF_SIGNED).await;

    let mut stream = connect(&server).await.unwrap();
    let answer = ask(&mut stream, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;

    assert!(
        answer.starts_with("http/1.1 200")
            && answer.contains("strict-transport-security: max-age="),
        "{answer}"
    );
    let mode = |file: &str| {
        fs::metadata(server.folder.path().join(file)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("ssl/server.key"), mode("ssl/server.crt")), (0o600, 0o644));
}

#[tokio::test]
async fn websockets_work_over_tls() {
    let server = TestServer::start(&SELF_SIGNED).await;
    let mut stream = connect(&server).await.unwrap();

    let answer = ask(
        &mut stream,
        "GET /ws/den HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;

    // The answer to this key is in RFC 6455 section 1.3.
    assert!(
        answer.starts_with("http/1.1 101")
            && answer.contains(&"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_lowercase()),
        "{answer}"
    );
    let mut first = [0; 2];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(first[0], 0x81, "a text frame: auth_required");
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_redirected() {
    let server = TestServer::start(&SELF_SIGNED).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let host = server.address;

    let answer = ask(&mut stream, &format!("GET /docs HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;

    assert!(
        answer.starts_with("http/1.1 308")
            && answer.contains(&format!("location: https://{host}/docs\r\n")),
        "{answer}"
    );
    assert_eq!(server.upgrade_status("den", &[]).await, 403);
}

/// N10: renewed.
#[tokio::test]
async fn a_renewed_certificate_is_taken_up_while_old_connections_go_on() {
    let server = TestServer::start(&SELF_SIGNED).await;
    let mut old = connect(&server).await.unwrap();
    let renewed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();

    let ssl = server.folder.path().join("ssl");
    ask(&mut old, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    fs::write(ssl.join("server.key"), renewed.signing_key.serialize_pem()).unwrap();
    fs::write(ssl.join("server.crt"), renewed.cert.pem()).unwrap();

    let began = Instant::now();
    while connect(&server).await.is_err() {
        assert!(began.elapsed() < TEST_TIMEOUT, "not taken up");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// N10: half a handshake.
#[tokio::test]
async fn an_unfinished_tls_handshake_delays_no_other_client() {
    let server = TestServer::start(&SELF_SIGNED).await;

    for start in [&[][..], &[0x16, 3, 1]] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(start).await.unwrap();

        let read = timeout(TEST_TIMEOUT, stream.read(&mut [0; 64])).await.expect("still open");
        assert!(matches!(read, Ok(0) | Err(_)));
    }
}

/// The certificate that is shown on a connection, whoever has signed it.
pub async fn certificate_of(stream: TcpStream) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// Believes every certificate, but not that whoever shows it has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A TCP proxy that passes TLS on.
#[tokio::test]
async fn a_proxy_header_comes_before_tls() {
    let settings = [&SELF_SIGNED[..], &[("PROXY_PROTOCOL", "true")]].concat();
    let server = TestServer::start(&settings).await;
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    for header in [
        &b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\xdc\x04\x01\xbb",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ] {
        let mut stream = connect_after(&server, header).await.unwrap();
        let answer = ask(&mut stream, request).await;
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
    }
    assert!(connect(&server).await.is_err(), "without a header");
}
