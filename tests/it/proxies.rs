//! The server behind proxies, and for clients that are no browsers: what it makes of their headers and frames, and what it
//! says where they are set up wrong.

use std::{net::SocketAddr, process::Stdio};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{MaybeTlsStream, tungstenite};

use crate::harness::{
    Client, TEST_TIMEOUT, TestServer,
    process::{INTERVALS, RestartableServer, SERVER, command, text},
    resumable::{RESUME_AND_STATES, ResumableClient},
};

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The status and the `detail` of a refused handshake.
async fn refusal(server: &RestartableServer, headers: &[(&'static str, &str)]) -> (u16, String) {
    match Client::connect(server.address(), "den", headers).await {
        Err(tungstenite::Error::Http(response)) => {
            let body: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
            (response.status().as_u16(), body["detail"].as_str().unwrap().to_owned())
        }
        other => panic!("not refused: {:?}", other.map(|_| ())),
    }
}

/// The head of the answer to these lines of a request.
async fn head_of_answer(server: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(TEST_TIMEOUT, reading).await.expect("no answer");
    String::from_utf8(answer).unwrap()
}

/// The fields of a line of the log.
fn fields(line: &str) -> Value {
    serde_json::from_str::<Value>(line).unwrap()["fields"].take()
}

/// A connection from `source`, which is an address of this machine.
async fn connect_from(source: &str, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    socket.connect(server).await.unwrap()
}

/// Asks on an open connection, and reads the whole answer.
async fn ask_again(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "closed");
        }
    };
    timeout(TEST_TIMEOUT, reading).await.expect("no answer");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_proxy_finds_its_idle_connection_open_when_that_of_a_client_is_closed() {
    let settings = [("TRUSTED_PROXIES", "127.0.0.2"), (INTERVALS, "head=300")];
    let server = RestartableServer::start(&settings).await;
    let mut proxy = connect_from("127.0.0.2", server.address()).await;
    let mut client = connect_from("127.0.0.1", server.address()).await;
    let mut silent_proxy = connect_from("127.0.0.2", server.address()).await;
    assert!(ask_again(&mut proxy).await.starts_with("HTTP/1.1 200"));
    assert!(ask_again(&mut client).await.starts_with("HTTP/1.1 200"));

    for closed in [&mut client, &mut silent_proxy] {
        let end = timeout(TEST_TIMEOUT, closed.read_u8()).await.expect("still open");
        assert!(end.is_err(), "{end:?}");
    }

    assert!(ask_again(&mut proxy).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_scheme_of_a_websocket_over_tls_is_https_too() {
    let server = RestartableServer::start(&[("REQUIRE_HTTPS", "true")]).await;

    for scheme in ["https", "wss", "WSS", "ws, wss"] {
        let headers = [("x-forwarded-proto", scheme)];
        let mut client = Client::connect(server.address(), "den", &headers).await.unwrap();
        assert_eq!(client.receive().await["type"], "auth_required", "{scheme}");
    }
    for scheme in ["ws", "http", "wss, ws"] {
        let told = refusal(&server, &[("x-forwarded-proto", scheme)]).await;
        assert_eq!(told, (403, "HTTPS required".to_owned()), "{scheme}");
    }
}

#[tokio::test]
async fn a_proxy_that_reports_no_scheme_is_named_in_the_answer_and_once_in_the_log() {
    let mut server = RestartableServer::start(&[("REQUIRE_HTTPS", "true")]).await;
    let url = format!("http://{}", server.address());
    let http = crate::harness::http().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let named = "HTTPS required: the proxy at 127.0.0.1 sent no header X-Forwarded-Proto: https";

    for (method, path) in [("GET", "/"), ("HEAD", "/"), ("POST", "/auth/login"), ("GET", "/docs")] {
        let request = http.request(method.parse().unwrap(), format!("{url}{path}"));
        let request = request.header("host", "signaling.example.com");
        let answer = request.header("x-forwarded-for", "203.0.113.7").send().await.unwrap();

        assert_eq!(
            answer.status(),
            403,
            "no redirect, which could lead here again: {method} {path}"
        );
        if method != "HEAD" {
            assert_eq!(answer.json::<Value>().await.unwrap()["detail"], named, "{method} {path}");
        }
    }
    assert_eq!(refusal(&server, &[]).await, (403, named.to_owned()));
    let page = http.get(format!("{url}/docs")).header("x-forwarded-proto", "http").send().await;
    assert_eq!(page.unwrap().status(), 308, "the proxy reports plain HTTP");

    server.stop().await;
    let said = "HTTPS required, and this proxy sent no X-Forwarded-Proto";
    let lines = server.process.log.lines();
    let about: Vec<_> = lines.iter().filter(|line| line.contains(said)).collect();
    assert_eq!(about.len(), 1, "{about:#?}");
    assert_eq!(fields(about[0])["address"], "127.0.0.1");
}

#[tokio::test]
async fn a_refused_origin_is_named_in_the_answer_and_in_the_log() {
    let mut server = RestartableServer::start(&[(
        "CORS_ORIGINS",
        "https://bücher.example, https://app.example",
    )])
    .await;
    let foreign = format!("http://{}", server.address());

    for allowed in ["https://xn--bcher-kva.example", "https://app.example"] {
        let headers = [("origin", allowed)];
        Client::connect(server.address(), "den", &headers).await.unwrap().receive().await;
    }
    let long = format!("https://{}.example", "a".repeat(5000));
    let told = [
        refusal(&server, &[("origin", &foreign)]).await,
        refusal(&server, &[("origin", &long)]).await,
    ];
    let twice = head_of_answer(
        server.address(),
        "GET /ws/den HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nOrigin: https://app.example\r\n\r\n",
    )
    .await;

    assert_eq!(
        told[0],
        (
            403,
            format!(
                "Origin not allowed: \"{foreign}\" is not one of CORS_ORIGINS; a client that is no web page need not send an Origin"
            )
        )
    );
    assert!(told[1].0 == 403 && told[1].1.len() < 300, "{:?}", told[1]);
    assert!(twice.starts_with("HTTP/1.1 403"), "{twice}");
    server.stop().await;
    let lines = server.process.log.lines();
    let about: Vec<_> = lines.iter().filter(|line| line.contains("\"origin refused\"")).collect();
    assert_eq!(about.len(), 1, "{about:#?}");
    assert_eq!(fields(about[0])["origin"], *foreign);
}

#[tokio::test]
async fn a_refused_handshake_says_why_in_the_log() {
    let mut server = RestartableServer::start(&[("TRUSTED_PROXIES", "[]")]).await;
    let mut strict =
        RestartableServer::start(&[("REQUIRE_HTTPS", "true"), ("TRUSTED_PROXIES", "[]")]).await;
    let ask = async |server: &RestartableServer, path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let head = head_of_answer(server.address(), &request).await;
        head[9..12].to_owned()
    };

    let told = [
        ask(&server, "/ws/den", "Host: a\r\n").await,
        ask(&server, "/ws/den", "Host: a\r\nHost: a\r\n").await,
        ask(&server, "/ws/..", "Host: a\r\n").await,
        ask(&strict, "/ws/den", "Host: a\r\n").await,
        // What is no handshake has no line.
        ask(&server, "/health", "").await,
        ask(&strict, "/auth/me", "Host: a\r\n").await,
    ];

    assert_eq!(told, ["400", "400", "400", "403", "400", "308"]);
    let mut reasons = Vec::new();
    for server in [&mut server, &mut strict] {
        server.stop().await;
        let lines = server.process.log.lines();
        let about = lines.iter().filter(|line| line.contains("\"handshake refused\""));
        reasons.extend(about.map(|line| fields(line)["reason"].clone()));
    }
    assert_eq!(reasons, ["no_handshake", "head", "room_id", "https_required"]);
}

/// Caddy 2.6 closes its connections to the server like this when it is reloaded.
#[tokio::test]
async fn an_unmasked_close_is_a_broken_connection_and_the_member_may_resume() {
    let server = RestartableServer::start(&[]).await;
    let mut alice = server.join("alice", RESUME_AND_STATES).await;
    let mut bob = server.join("bob", RESUME_AND_STATES).await;
    alice.receive_type("user_joined").await;

    for frame in [&b"\x88\x02\x03\xe9"[..], b"\x88\x00", b"\x88\x10\x03\xe9going away.."] {
        write_raw(&mut bob, frame).await;

        assert_eq!(alice.receive_peer_state().await, ("bob".into(), "reconnecting".into()));
        assert_eq!(bob.receive_until_closed().await, [] as [Value; 0], "no error, and no Close");
        bob.resume(server.address()).await;
        assert_eq!(alice.receive_peer_state().await, ("bob".into(), "connected".into()));
    }
    // Any other unmasked frame is an error of the client.
    write_raw(&mut bob, b"\x81\x02{}").await;
    assert_eq!(bob.receive_type("error").await["code"], "protocol_error");
    alice.receive_type("user_left").await;
}

async fn write_raw(member: &mut ResumableClient, bytes: &[u8]) {
    let MaybeTlsStream::Plain(stream) = member.client.socket.get_mut() else { unreachable!() };
    stream.write_all(bytes).await.unwrap();
}

#[tokio::test]
async fn a_switch_of_protocols_says_upgrade_alone() {
    let server = TestServer::start(&[]).await;

    for connection in ["Upgrade", "close, Upgrade", "keep-alive, Upgrade", "Upgrade, Close"] {
        let request = format!(
            "GET /ws/den HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let head = head_of_answer(server.address, &request).await.to_lowercase();

        let said: Vec<_> = head.lines().filter(|line| line.starts_with("connection:")).collect();
        assert_eq!(said, ["connection: upgrade"], "{connection}: {head}");
        assert!(head.starts_with("http/1.1 101 "), "{head}");
    }
}

#[tokio::test]
async fn an_id_that_no_url_can_name_is_no_room() {
    let server = TestServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN)]).await;

    for segment in [".", "..", "%2e", "%2E%2e", ".%2e"] {
        let head = head_of_answer(
            server.address,
            &format!("GET /ws/{segment} HTTP/1.1\r\nHost: a\r\n\r\n"),
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 400"), "{segment}: {head}");
    }
    for room in [".", ".."] {
        let ban = json!({"room_id":room,"username":"alice","seconds":60});
        let request = server.request(reqwest::Method::POST, "/admin/api/ban").json(&ban);
        let answer = request.bearer_auth(ADMIN_TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{room}");
    }
    server.join("...", "alice").await;
}

/// Counts connections to a proxy, and answers each request with 503.
struct HttpProxy {
    url: String,
    requests: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl HttpProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
                let answer = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        });
        Self { url, requests }
    }
}

#[tokio::test]
async fn the_admin_token_goes_through_no_proxy_to_this_machine_and_in_clear_text_to_no_other() {
    let server = RestartableServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN)]).await;
    let mut proxy = HttpProxy::start().await;
    let port = server.address().port().to_string();
    let admin = async |host: &str, arguments: &[&str]| {
        let mut command = command(SERVER, &server.folder);
        command.envs([("HOST", host), ("PORT", &port), ("ADMIN_TOKEN", ADMIN_TOKEN)]);
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"] {
            command.env(name, &proxy.url);
        }
        command.args(["admin", "status"]).args(arguments).stderr(Stdio::piped());
        timeout(TEST_TIMEOUT, command.output()).await.expect("it does not end").unwrap()
    };

    let local = format!("http://localhost:{port}");
    for (host, arguments) in
        [("127.0.0.1", &[][..]), ("0.0.0.0", &[]), ("192.0.2.1", &["--url", &local])]
    {
        let output = admin(host, arguments).await;
        assert!(output.status.success(), "{host} {arguments:?}: {}", text(&output));
    }
    for (host, arguments) in [
        ("192.0.2.1", &[][..]),
        ("127.0.0.1", &["--url", "http://192.0.2.1:8000"]),
        ("127.0.0.1", &["--url", "http://signaling.invalid"]),
    ] {
        let output = admin(host, arguments).await;
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("--insecure"), "{}", text(&output));
    }
    assert!(proxy.requests.try_recv().is_err(), "nothing went to the proxy");

    let output = admin("127.0.0.1", &["--insecure", "--url", "http://192.0.2.1:8000"]).await;
    assert!(text(&output).contains("503"), "{}", text(&output));
    let sent = proxy.requests.recv().await.unwrap();
    assert!(sent.starts_with("GET http://192.0.2.1:8000/admin/api/status"), "{sent}");
}

/// Settings of a server behind a TCP proxy on 127.0.0.1, which is alone in `TRUSTED_PROXIES`.
const BEHIND_TCP_PROXY: [(&str, &str); 3] =
    [("PROXY_PROTOCOL", "true"), ("TRUSTED_PROXIES", "127.0.0.1"), ("ADMIN_TOKEN", ADMIN_TOKEN)];

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\xc0\0\x02\x01\xdc\x04\x01\xbb";
/// With PP2_TYPE_SSL: the client used TLS.
const V2_TLS: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xcb\0\x71\x09\xc0\0\x02\x01\xdc\x04\x01\xbb\x20\0\x05\x01\0\0\0\0";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// All that the server answers to a connection from `source` that sends this.
async fn answer_to(source: &str, server: SocketAddr, sent: &[&[u8]]) -> String {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(server).await.unwrap();
    // The server may have closed already.
    let _ = stream.write_all(&sent.concat()).await;
    let mut answer = Vec::new();
    let _ = timeout(TEST_TIMEOUT, stream.read_to_end(&mut answer)).await.expect("not closed");
    String::from_utf8(answer).unwrap()
}

fn wrong_login() -> String {
    let body = r#"{"username":"alice","password":"wrong"}"#;
    let length = body.len();
    format!(
        "POST /auth/login HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.1\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_tcp_proxy_names_the_client_in_a_proxy_header() {
    let server = RestartableServer::start(&BEHIND_TCP_PROXY).await;

    for (header, address) in [
        (V1, "203.0.113.7"),
        (V2, "203.0.113.8"),
        (V2_TLS, "203.0.113.9"),
        // In a health check the proxy is the client, and may say for whom it asks.
        (V2_LOCAL, "198.51.100.1"),
    ] {
        let login = wrong_login();
        let answer = answer_to("127.0.0.1", server.address(), &[header, login.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{address}: {answer}");
        let line = server.process.log.line_with(&format!("\"{address}\"")).await;
        assert_eq!(fields(&line)["message"], "login failed");
    }
}

#[tokio::test]
async fn a_connection_without_a_proxy_header_or_from_elsewhere_is_closed_and_logged_once() {
    let settings = [&BEHIND_TCP_PROXY[..], &[(crate::harness::process::INTERVALS, "head=3000")]];
    let mut server = RestartableServer::start(&settings.concat()).await;
    let address = server.address();
    let health = HEALTH.as_bytes();

    for (source, sent) in [
        ("127.0.0.1", &[health][..]),
        ("127.0.0.1", &[health]),
        ("127.0.0.1", &[&V2[..15]]),
        ("127.0.0.1", &[b"PROXY TCP4 1.2.3.4 nonsense\r\n", health]),
        ("127.0.0.1", &[b"PROXY UNKNOWN ", &[b'a'; 200]]),
        ("127.0.0.1", &[b"\x16\x03\x01\x02\0\x01"]),
        ("127.0.0.2", &[V1, health]),
        ("127.0.0.2", &[V2, health]),
    ] {
        assert_eq!(answer_to(source, address, sent).await, "", "{source} {sent:?}");
    }
    for (source, header) in [("127.0.0.1", V1), ("127.0.0.1", V2_LOCAL), ("127.0.0.2", V2_LOCAL)] {
        let answer = answer_to(source, address, &[header, health]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{source}: {answer}");
    }
    server.stop().await;
    let said = "connection without a valid PROXY header closed";
    let lines = server.process.log.lines();
    let mut reasons: Vec<_> = lines
        .iter()
        .filter(|line| line.contains(said))
        .map(|line| fields(line)["reason"].as_str().unwrap().to_owned())
        .collect();
    reasons.sort();
    let expected = [
        "header_late",
        "header_malformed",
        "header_missing",
        "header_too_long",
        "proxy_not_trusted",
    ];
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn a_proxy_header_with_tls_is_https_and_one_without_is_named() {
    let settings = [&BEHIND_TCP_PROXY[..], &[("REQUIRE_HTTPS", "true")]].concat();
    let server = RestartableServer::start(&settings).await;
    let page =
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n";

    let secure = answer_to("127.0.0.1", server.address(), &[V2_TLS, page]).await;
    let silent = answer_to("127.0.0.1", server.address(), &[V2, page]).await;

    assert!(secure.starts_with("HTTP/1.1 200") && secure.contains("strict-transport"), "{secure}");
    assert!(silent.starts_with("HTTP/1.1 403"), "{silent}");
    let named = "the PROXY header of 127.0.0.1 does not say that the client used TLS";
    assert!(silent.contains(named), "{silent}");
    server.process.log.line_with("this proxy's PROXY header does not say").await;
}

#[tokio::test]
async fn the_programs_of_this_machine_reach_a_server_that_wants_proxy_headers() {
    let settings = [&BEHIND_TCP_PROXY[..], &[("REQUIRE_HTTPS", "true")]].concat();
    let server = RestartableServer::start(&settings).await;
    let port = server.address().port().to_string();

    for arguments in [&["healthcheck"][..], &["admin", "status"]] {
        let mut command = command(SERVER, &server.folder);
        command.envs(BEHIND_TCP_PROXY).envs([("DEBUG", "true"), ("HOST", "127.0.0.1")]);
        let output = command.env("PORT", &port).args(arguments).output();
        let output = timeout(TEST_TIMEOUT, output).await.expect("it does not end").unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
}
