//! TLS on our own port.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, process::Stdio, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme,
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

use crate::harness::{
    TEST_TIMEOUT, TestServer, eventually,
    process::{RestartableServer, command},
    redis_server::RedisServer,
};

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

const UPGRADE: &str = "GET /ws/den HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

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

    let answer = ask(&mut stream, UPGRADE).await;

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
async fn a_record_that_has_arrived_in_part_counts_as_memory_that_is_held() {
    let server = TestServer::start(&SELF_SIGNED).await;
    let mut stream = connect(&server).await.unwrap();
    ask(&mut stream, UPGRADE).await;
    stream.read_exact(&mut [0; 2]).await.unwrap();
    let held = || server.app.memory.held();
    let before = held();

    let (wire, _) = stream.get_mut();
    wire.write_all(&[23, 3, 3, 0x40, 0]).await.unwrap(); // the head of a record of 16 KiB
    wire.write_all(&[0; 12_000]).await.unwrap();

    let is_more = async || (held() >= before + 12_000).then_some(()).ok_or(held());
    eventually("the part is counted", is_more).await;
    drop(stream);
    eventually("nothing is held", async || (held() == 0).then_some(()).ok_or(held())).await;
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

/// A client that comes back, with whatever `config` remembers of earlier connections: how it made its handshake.
async fn return_to(address: SocketAddr, config: &Arc<ClientConfig>) -> HandshakeKind {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(config.clone()).connect(name, stream).await.unwrap();
    // The tickets of TLS 1.3 come behind the handshake.
    let answer = ask(&mut stream, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    stream.get_ref().1.handshake_kind().unwrap()
}

/// Clients of a server with a certificate of its own, one for each version of TLS.
fn clients_of(server: &RestartableServer) -> Vec<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let certificate = server.folder.path().join("ssl/server.crt");
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let with = |version| {
        let config = ClientConfig::builder_with_protocol_versions(&[version]);
        Arc::new(config.with_root_certificates(roots.clone()).with_no_client_auth())
    };
    vec![with(&rustls::version::TLS13), with(&rustls::version::TLS12)]
}

#[tokio::test]
async fn clients_resume_their_tls_session_after_a_restart() {
    let mut server = RestartableServer::start(&SELF_SIGNED).await;
    let clients = clients_of(&server);
    for client in &clients {
        assert_eq!(return_to(server.address(), client).await, HandshakeKind::Full);
        assert_eq!(return_to(server.address(), client).await, HandshakeKind::Resumed);
    }

    server.process.kill().await;
    server.restart().await;

    for client in &clients {
        assert_eq!(return_to(server.address(), client).await, HandshakeKind::Resumed);
    }
    let keys = server.folder.path().join("users.csv.state.tickets");
    assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(&keys).unwrap();
    let secret = secret.split_whitespace().nth(1).unwrap();
    assert!(server.process.log.lines().iter().all(|line| !line.contains(secret)));

    // Without the keys, or with other ones, the handshake is a full one.
    server.process.kill().await;
    fs::write(&keys, "not a key\n").unwrap();
    server.restart().await;
    for client in &clients {
        assert_eq!(return_to(server.address(), client).await, HandshakeKind::Full);
        assert_eq!(return_to(server.address(), client).await, HandshakeKind::Resumed);
    }
}

#[tokio::test]
async fn clients_resume_their_tls_session_on_another_server_of_the_cluster() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let settings = [&SELF_SIGNED[..], &[("REDIS_URL", &url)]].concat();
    let first = RestartableServer::start(&settings).await;
    let folder = first.folder.path().display();
    let (certificate, key) =
        (format!("{folder}/ssl/server.crt"), format!("{folder}/ssl/server.key"));
    let of_first = [("SSL_CERT_FILE", certificate.as_str()), ("SSL_KEY_FILE", key.as_str())];
    let second = RestartableServer::start(&[&settings[..], &of_first].concat()).await;

    for (one, other) in [(&first, &second), (&second, &first)] {
        // The other one takes the key a moment after its start.
        eventually("a session goes on on the other server", async || {
            for client in clients_of(&first) {
                return_to(one.address(), &client).await;
                if return_to(other.address(), &client).await != HandshakeKind::Resumed {
                    return false;
                }
            }
            true
        })
        .await;
    }

    let names = redis.keys().await;
    // The hour may just have ended.
    let stored = names.iter().find(|name| name.contains("ticket_key")).unwrap();
    let seconds: u64 = redis.ask(&format!("TTL {stored}")).await;
    assert!((1..=24 * 60 * 60).contains(&seconds), "{seconds}");
    let sealed: String = redis.ask(&format!("GET {stored}")).await;
    let own = fs::read_to_string(first.folder.path().join("users.csv.state.tickets")).unwrap();
    let own = own.lines().map(|line| line.split(' ').next_back().unwrap());
    assert!({ own }.all(|secret| !sealed.contains(secret)), "it is encrypted");
}

#[tokio::test]
async fn no_session_outlives_a_server_without_tickets() {
    let settings = [&SELF_SIGNED[..], &[("TLS_SESSION_TICKETS", "false")]].concat();
    let mut server = RestartableServer::start(&settings).await;
    let clients = clients_of(&server);
    for client in &clients {
        assert_eq!(return_to(server.address(), client).await, HandshakeKind::Full);
    }

    server.process.kill().await;
    server.restart().await;

    for client in &clients {
        assert_eq!(return_to(server.address(), client).await, HandshakeKind::Full);
    }
    assert!(!server.folder.path().join("users.csv.state.tickets").exists());
}

/// OpenSSL is what curl, Node and most proxies are built on.
#[tokio::test]
async fn openssl_resumes_its_session_after_a_restart() {
    let mut server = RestartableServer::start(&SELF_SIGNED).await;
    let session = server.folder.path().join("session.pem").to_str().unwrap().to_owned();
    let connect = async |server: &RestartableServer, version: &str, more: [&str; 2]| {
        let address = server.address().to_string();
        let mut openssl = command("/usr/bin/openssl", &server.folder);
        openssl.args(["s_client", "-connect", &address, "-servername", "localhost", version]);
        openssl.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut openssl = openssl.spawn().unwrap();
        let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        // Kept open until the server has closed: what comes behind the handshake is read.
        let mut input = openssl.stdin.take().unwrap();
        input.write_all(request).await.unwrap();
        let output = timeout(TEST_TIMEOUT, openssl.wait_with_output()).await.unwrap().unwrap();
        drop(input);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };

    for version in ["-tls1_3", "-tls1_2"] {
        let first = connect(&server, version, ["-sess_out", &session]).await;
        assert!(first.contains("New, TLSv1"), "{first}");
        server.process.kill().await;
        server.restart().await;
        let second = connect(&server, version, ["-sess_in", &session]).await;
        assert!(second.contains("Reused, TLSv1"), "{second}");
    }
}
