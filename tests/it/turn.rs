//! TURN for real: what doctor and a running server find out about relays, with a real coturn and with such as are none.

use std::{fs, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use signaling::{clock::unix_now, turn};
use stun_types::{
    attribute::{AttributeType, ErrorCode, Nonce, RawAttribute, Realm, Username},
    message::{
        IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageIntegrityCredentials,
        MessageWrite, MessageWriteExt, MessageWriteVec, Method,
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    process::Command,
    task::JoinHandle,
};

use super::doctor::{Findings, home};
use crate::harness::coturn::free_port;
use crate::harness::{
    Client,
    coturn::{self, Coturn},
    process::{DEBUG, ServerProcess},
};
use rustix::process::Signal;

/// What coturn says of an allocation that was made, and of one that is gone.
const GIVEN: &str = "ALLOCATE processed, success";
const GIVEN_BACK: &str = "REFRESH processed, success";
const GONE: &str = "delete:";

async fn diagnose(urls: &[&str], more: &[(&str, &str)]) -> Findings {
    let urls = json!(urls).to_string();
    let settings = [("TURNSERVER_SECRET", coturn::SECRET), ("TURNSERVER_URLS", &urls)];
    Findings::of(&home(), &[&settings, more].concat()).await
}

/// A library that moves the clock of the process that it is loaded into, and the variables for that.
async fn clock(folder: &TempDir, seconds: i64) -> [(&'static str, String); 2] {
    let library = folder.path().join("clock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
    let compiled = compiler.args(["tests/it/attacks/clock.c", "-ldl"]).status().await.unwrap();
    assert!(compiled.success());
    let offset = folder.path().join("offset");
    fs::write(&offset, seconds.to_string()).unwrap();
    [("LD_PRELOAD", library.display().to_string()), ("CLOCK_OFFSET", offset.display().to_string())]
}

#[tokio::test]
async fn a_turn_server_passes_over_udp_tcp_and_tls_and_keeps_no_allocation() {
    let coturn = Coturn::start().await;
    let urls = coturn.urls();
    let trusted = [("SSL_CERT_FILE", coturn.certificate.to_str().unwrap())];
    let stun = format!("stun:127.0.0.1:{}", coturn.port);
    let stuns = format!("stuns:localhost:{}", coturn.tls_port);
    let both = json!([stun, stuns]).to_string();

    let found =
        diagnose(&urls.each_ref().map(String::as_str), &[trusted[0], ("STUNSERVER_URLS", &both)])
            .await;

    for url in &urls {
        found.assert_finding(url, "ok", "relays, within", "");
    }
    for url in [&stun, &stuns] {
        found.assert_finding(url, "ok", "answers, within", "");
    }
    found.assert_finding(&format!("{} certificate", urls[2]), "ok", "valid for", "");
    coturn.log.lines_with(GIVEN, 3).await;
    coturn.log.lines_with(GIVEN_BACK, 3).await;
    coturn.log.lines_with(GONE, 3).await;
    assert_eq!(coturn.log.count(GIVEN), 3, "{:#?}", coturn.log.lines());
    assert!(found.is_well);
}

#[tokio::test]
async fn a_wrong_secret_and_a_wrong_clock_are_distinguished() {
    let coturn = Coturn::start().await;
    let [udp, tcp, _] = coturn.urls();
    let folder = home();
    let diagnose = async |secret: &str, offset: i64| {
        let clock = clock(&folder, offset).await;
        let urls = json!([udp, tcp]).to_string();
        let settings = [
            ("TURNSERVER_SECRET", secret),
            ("TURNSERVER_URLS", &*urls),
            ("TURNSERVER_TTL", "3600"),
            (clock[0].0, &*clock[0].1),
            (clock[1].0, &*clock[1].1),
        ];
        Findings::of(&folder, &settings).await
    };

    let other = diagnose("the-secret-of-another-server-altogether", 0).await;
    let other_and_late = diagnose("the-secret-of-another-server-altogether", -100_000).await;
    let late = diagnose(coturn::SECRET, -100_000).await;
    let rather_late = diagnose(coturn::SECRET, -600).await;
    let hardly_late = diagnose(coturn::SECRET, -30).await;

    for url in [&udp, &tcp] {
        for wrong in [&other, &other_and_late] {
            wrong.assert_finding(url, "fault", "another secret", "static-auth-secret");
        }
        late.assert_finding(
            url,
            "fault",
            "clock is ahead of this server's by more than TURNSERVER_TTL",
            "timedatectl",
        );
        rather_late.assert_finding(url, "warning", "more than a minute ahead", "timedatectl");
        hardly_late.assert_finding(url, "ok", "relays", "");
    }
}

/// Servers that are none, each on a port of its own.
struct BrokenServers {
    urls: Vec<(String, &'static str, &'static str)>,
    tasks: Vec<JoinHandle<()>>,
    _silent: (TcpListener, UdpSocket),
}

impl Drop for BrokenServers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn tcp_that_says(what: &'static [u8]) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // All of it: to close on what was not read would take back what is said.
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(what).await;
            });
        }
    });
    (port, serving)
}

/// A socket that answers each datagram by what `answer` makes of it.
async fn udp_that(
    mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (u16, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (length, from): (usize, SocketAddr) = socket.recv_from(&mut buffer).await.unwrap();
            for answer in answer(&buffer[..length]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    (port, serving)
}

impl BrokenServers {
    async fn start() -> Self {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (silent_port, hole_port) =
            (silent.local_addr().unwrap().port(), hole.local_addr().unwrap().port());
        let closed = free_port();
        let (http, first) = tcp_that_says(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let (ssh, second) = tcp_that_says(b"SSH-2.0-OpenSSH_9.2p1\r\n").await;
        let (deaf, third) = tcp_that_says(b"").await;
        let (babble, fourth) = udp_that(|_| vec![b"babble".to_vec(); 3]).await;
        let (echo, fifth) = udp_that(|asked| vec![asked.to_vec()]).await;
        let urls = vec![
            (format!("turn:127.0.0.1:{closed}"), "connection refused", "/udp"),
            (format!("turn:127.0.0.1:{closed}?transport=tcp"), "connection refused", "/tcp"),
            (format!("turns:127.0.0.1:{closed}"), "connection refused", "/tcp"),
            (
                "turn:nowhere.invalid".into(),
                "its host name cannot be resolved",
                "getent hosts nowhere.invalid",
            ),
            (
                "turns:nowhere.invalid:443".into(),
                "its host name cannot be resolved",
                "getent hosts",
            ),
            (format!("turn:127.0.0.1:{silent_port}?transport=tcp"), "no answer within", "firewall"),
            (format!("turns:127.0.0.1:{silent_port}"), "no answer within", "firewall"),
            (format!("turn:127.0.0.1:{hole_port}"), "no answer within", "firewall"),
            (format!("turn:127.0.0.1:{http}?transport=tcp"), "not STUN", "ss -lnp"),
            (format!("turns:127.0.0.1:{http}"), "TLS handshake failed", "pkey="),
            (format!("turn:127.0.0.1:{ssh}?transport=tcp"), "not STUN", "ss -lnp"),
            (format!("turn:127.0.0.1:{deaf}?transport=tcp"), "closes the connection", "turns:"),
            (format!("turn:127.0.0.1:{babble}"), "not STUN", "ss -lnp"),
            (format!("turn:127.0.0.1:{echo}"), "no answer within", "firewall"),
        ];
        let tasks = vec![first, second, third, fourth, fifth];
        Self { urls, tasks, _silent: (silent, hole) }
    }
}

#[tokio::test]
async fn each_failure_of_a_turn_server_has_its_own_message_and_fix() {
    let broken = BrokenServers::start().await;
    let coturn = Coturn::start().await;
    let [_, _, tls] = coturn.urls();
    let mut urls: Vec<_> = broken.urls.iter().map(|(url, ..)| url.as_str()).collect();
    let dtls = format!("turns:localhost:{}?transport=udp", coturn.tls_port);
    urls.extend([&*tls, &*dtls]);

    let found = diagnose(&urls, &[]).await;

    for (url, says, mend) in &broken.urls {
        found.assert_finding(url, "fault", says, mend);
    }
    found.assert_finding(&tls, "fault", "certificate is not accepted", "openssl s_client");
    found.assert_finding(&dtls, "fault", "certificate is not accepted", "openssl s_client");
    let warned = found.about("TURNSERVER_URLS");
    assert!(warned.iter().any(|it| it.1.contains("no browser uses DTLS")), "{warned:?}");
    assert!(!found.is_well);
}

#[tokio::test]
async fn an_open_turn_server_is_a_fault_and_keeps_no_allocation() {
    let coturn = Coturn::start_open().await;
    let [udp, ..] = coturn.urls();

    let found = diagnose(&[&udp], &[]).await;

    found.assert_finding(&udp, "fault", "no browser takes one", "no-auth");
    coturn.log.line_with(GONE).await;
}

/// An operator of coturn can get each of these wrong, and `doctor` says which.
#[tokio::test]
async fn each_way_to_configure_coturn_wrongly_has_its_own_message_and_fix() {
    let secret = ("REPLACE_WITH_TURNSERVER_SECRET", coturn::SECRET);
    let commented = format!("{}  # must match .env", coturn::SECRET);
    let line = "static-auth-secret=REPLACE_WITH_TURNSERVER_SECRET";
    let use_secret = "\nuse-auth-secret\n";
    for (changes, verdict, says, fix) in [
        (
            &[(use_secret, "\nuse-auth-secret\nstun-only\n"), secret][..],
            "fault",
            "answers STUN",
            "stun-only",
        ),
        (
            &[(use_secret, "\nlt-cred-mech\nuser=a:b\n"), (line, "")],
            "fault",
            "another way",
            "lt-cred-mech",
        ),
        (&[(secret.0, &*commented)], "fault", "another secret", "comments and quotes"),
        (
            // coturn tries each port before it answers 508; on a slow machine for longer than the probe waits.
            &[
                (
                    "\nrelay-ip=127.0.0.1\n",
                    "\nrelay-ip=192.0.2.1\nmin-port=50000\nmax-port=50015\n",
                ),
                secret,
            ],
            "fault",
            "relay-ip= is no address of its machine",
            "external-ip",
        ),
        (&[("stale-nonce=600", "stale-nonce=1"), secret], "ok", "relays", ""),
        (
            &[("\nno-tcp-relay\n", "\nno-tcp-relay\nno-udp\n"), secret],
            "fault",
            "connection refused",
            "ufw allow",
        ),
    ] {
        let coturn = Coturn::start_with(changes).await;
        let [udp, ..] = coturn.urls();

        let found = diagnose(&[&udp], &[]).await;

        found.assert_finding(&udp, verdict, says, fix);
    }
}

/// Sends an Allocate for `account` over UDP, and returns the socket that holds the allocation, or the error code.
async fn allocate(coturn: &Coturn, account: &str) -> Result<UdpSocket, u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", coturn.port)).await.unwrap();
    let ask = async |request: Vec<u8>| {
        socket.send(&request).await.unwrap();
        let mut answer = vec![0; 2048];
        let length = socket.recv(&mut answer).await.unwrap();
        answer.truncate(length);
        answer
    };
    let request = || {
        let mut request = Message::builder_request(Method::new(0x003), MessageWriteVec::new());
        let udp = RawAttribute::new(AttributeType::new(0x0019), &[17, 0, 0, 0]);
        request.add_attribute(&udp).unwrap();
        request
    };
    let challenge = ask(request().finish()).await;
    let challenge = Message::from_bytes(&challenge).unwrap();
    let (realm, nonce) =
        (challenge.attribute::<Realm>().unwrap(), challenge.attribute::<Nonce>().unwrap());
    let minted = turn::mint(&coturn::SECRET.into(), account, Duration::from_secs(600), unix_now());
    let mut proven = request();
    proven.add_attribute(&Username::new(&minted.username).unwrap()).unwrap();
    proven.add_attribute(&realm).unwrap();
    proven.add_attribute(&nonce).unwrap();
    let key =
        LongTermKeyCredentials::new(minted.username, minted.credential, realm.realm().to_owned());
    let key = MessageIntegrityCredentials::LongTerm(key);
    proven.add_message_integrity(&key, IntegrityAlgorithm::Sha1).unwrap();
    let answer = ask(proven.finish()).await;
    let answer = Message::from_bytes(&answer).unwrap();
    match answer.attribute::<ErrorCode>() {
        Ok(error) => Err(error.code()),
        Err(_) => Ok(socket),
    }
}

/// Every name that `manage_users` accepts.
#[tokio::test]
async fn every_account_gets_an_address_from_coturn() {
    let coturn = Coturn::start().await;

    for account in [
        "anna maria",
        "o'neil",
        "a\"b",
        "a\\b",
        "union select",
        "Ünïön Sélect 日本 😀",
        "100% a;b,c=d&e?f#g/h@i",
        "<b>`$(x)`{|}~^*!()[]",
        "é ".repeat(32).trim(),
    ] {
        assert!(allocate(&coturn, account).await.is_ok(), "{account}");
    }
}

#[tokio::test]
async fn a_quota_that_is_reached_is_told() {
    let secret = ("REPLACE_WITH_TURNSERVER_SECRET", coturn::SECRET);
    let coturn = Coturn::start_with(&[("total-quota=1200", "total-quota=1"), secret]).await;
    let _held = allocate(&coturn, "alice").await.unwrap();
    let [udp, ..] = coturn.urls();

    let found = diagnose(&[&udp], &[]).await;

    found.assert_finding(&udp, "fault", "486", "total-quota");
}

/// A URL that one browser does not use is tried like any other, and told at the start and by `doctor`.
#[tokio::test]
async fn urls_that_a_browser_does_not_use_are_told() {
    let coturn = Coturn::start().await;
    let by_address = format!("turns:127.0.0.1:{}", coturn.tls_port);
    let over_udp = format!("turns:localhost:{}?transport=udp", coturn.tls_port);
    let trusted = ("SSL_CERT_FILE", coturn.certificate.to_str().unwrap());

    let found = diagnose(
        &[&by_address, &over_udp],
        &[trusted, ("STUNSERVER_URLS", "stuns:a.invalid:5060")],
    )
    .await;

    for url in [&by_address, &over_udp] {
        found.assert_finding(url, "ok", "relays", "");
    }
    let assert_warned = |subject: &str, sentence: &str| {
        let about = found.about(subject);
        let has_warning = about.iter().any(|it| it.0 == "warning" && it.1.contains(sentence));
        assert!(has_warning, "{sentence}: {about:?}");
    };
    assert_warned(
        "TURNSERVER_URLS",
        &format!("{by_address}: Firefox uses no turns: server by its IP address"),
    );
    assert_warned("TURNSERVER_URLS", &format!("{over_udp}: no browser uses DTLS"));
    assert_warned("STUNSERVER_URLS", "Firefox refuses stuns:");
    assert_warned("STUNSERVER_URLS", "Firefox refuses port 5060");
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("TURNSERVER_SECRET", coturn::SECRET),
        ("TURNSERVER_URL", "turn:[2001:db8::1]:444"),
        ("TURN_PROBE_SECONDS", "0"),
        ("LOG_LEVEL", "INFO"),
    ];
    let mut server = ServerProcess::start(&folder, &[&DEBUG[..], &settings].concat()).await;
    server.log.line_with("turn:[2001:db8::1]:444: Chromium uses no TURN server on port 444").await;
    assert_eq!(server.stop().await.code(), Some(0));
}

/// `openssl req -x509` makes a certificate that says that it is an authority.
#[tokio::test]
async fn a_trusted_certificate_of_its_own_is_accepted_and_an_untrusted_one_explained() {
    let coturn = Coturn::start_with_authority().await;
    let [_, _, tls] = coturn.urls();

    let trusted =
        diagnose(&[&tls], &[("SSL_CERT_FILE", coturn.certificate.to_str().unwrap())]).await;
    let untrusted = diagnose(&[&tls], &[]).await;

    trusted.assert_finding(&tls, "ok", "relays", "");
    let (_, message, _) = untrusted.one(&tls);
    assert!(
        message.contains("certificate is not accepted") && !message.contains(['{', '(']),
        "{message}"
    );
}

/// The method of RFC 8656 section 17 that a Refresh has, and where a request has it.
const REFRESH: [u8; 2] = [0x00, 0x04];

/// A server that speaks TURN over UDP; see [`speaks_turn`].
async fn turn_that_says(codes: &'static [u16]) -> (u16, JoinHandle<()>) {
    udp_that(speaks_turn(codes)).await
}

/// Answers as a relay does that has these codes, one for each request with credentials, the last one again and again. 0 is
/// success, unless the credentials have expired, and 1 is success whatever they say.
fn speaks_turn(codes: &'static [u16]) -> impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static {
    let mut proven = 0;
    move |asked| {
        let request = Message::from_bytes(asked).unwrap();
        let is_proven = request.attribute::<Realm>().is_ok();
        let code = if is_proven { codes[proven.min(codes.len() - 1)] } else { 401 };
        proven += usize::from(is_proven);
        let name = request.raw_attribute(AttributeType::new(6));
        let name = name.map(|name| String::from_utf8(name.value.to_vec()).unwrap());
        let name = name.unwrap_or_default();
        let expiry = name.split(':').next().and_then(|expiry| expiry.parse().ok());
        let has_expired = expiry.is_some_and(|expiry: u64| expiry < unix_now());
        let code = if code == 0 && has_expired { 401 } else { code };
        if code <= 1 || asked.starts_with(&REFRESH) {
            let mut answer = Message::builder_success(&request, MessageWriteVec::new());
            let (_, account) = name.split_once(':').unwrap();
            let until: u64 = name.split(':').next().unwrap().parse().unwrap();
            let minted = turn::mint(&coturn::SECRET.into(), account, Duration::ZERO, until);
            let key = LongTermKeyCredentials::new(name, minted.credential, "a realm".to_owned());
            let key = MessageIntegrityCredentials::LongTerm(key);
            answer.add_message_integrity(&key, IntegrityAlgorithm::Sha1).unwrap();
            return vec![answer.finish()];
        }
        let mut answer = Message::builder_error(&request, MessageWriteVec::new());
        answer.add_attribute(&ErrorCode::new(code, "so it is").unwrap()).unwrap();
        answer.add_attribute(&Realm::new("a realm").unwrap()).unwrap();
        answer.add_attribute(&Nonce::new(&format!("nonce {proven}")).unwrap()).unwrap();
        vec![answer.finish()]
    }
}

#[tokio::test]
async fn the_error_code_of_a_turn_server_is_explained() {
    let mut tasks = Vec::new();
    let mut cases = Vec::new();
    for (codes, verdict, says, mend) in [
        (&[0][..], "ok", "relays", ""),
        (&[438, 0], "ok", "relays", ""),
        (&[1], "warning", "never checks the expiry", "TURNSERVER_SECRET"),
        (&[438], "fault", "every nonce as stale", "journalctl"),
        (&[486], "fault", "486 \"so it is\": the user's allocation quota", "user-quota"),
        (&[508], "fault", "relay-ip= is no address of its machine", "external-ip"),
        (&[400], "fault", "the user name", "journalctl"),
        (&[442], "fault", "does not relay UDP", "journalctl"),
        (&[300], "warning", "another server", "name the server"),
        (&[500], "fault", "500 \"so it is\"", "journalctl"),
        (&[401, 0], "warning", "minute ahead", "timedatectl"),
        (&[401, 401, 0], "fault", "clock is ahead", "timedatectl"),
        (&[401], "fault", "another secret", "static-auth-secret"),
    ] {
        let (port, task) = turn_that_says(codes).await;
        tasks.push(task);
        cases.push((format!("turn:127.0.0.1:{port}"), verdict, says, mend));
    }
    // 401 without a realm.
    let (port, task) = udp_that(|asked| {
        let request = Message::from_bytes(asked).unwrap();
        let mut answer = Message::builder_error(&request, MessageWriteVec::new());
        answer.add_attribute(&ErrorCode::new(401, "").unwrap()).unwrap();
        vec![answer.finish()]
    })
    .await;
    tasks.push(task);
    cases.push((format!("turn:127.0.0.1:{port}"), "fault", "names no realm", "use-auth-secret"));
    // Success by one that does not know the secret.
    let (port, task) = udp_that(|asked| {
        let request = Message::from_bytes(asked).unwrap();
        if request.attribute::<Realm>().is_ok() {
            return vec![Message::builder_success(&request, MessageWriteVec::new()).finish()];
        }
        let mut answer = Message::builder_error(&request, MessageWriteVec::new());
        answer.add_attribute(&ErrorCode::new(401, "").unwrap()).unwrap();
        answer.add_attribute(&Realm::new("a realm").unwrap()).unwrap();
        answer.add_attribute(&Nonce::new("a nonce").unwrap()).unwrap();
        vec![answer.finish()]
    })
    .await;
    tasks.push(task);
    cases.push((format!("turn:127.0.0.1:{port}"), "fault", "does not answer them", "external-ip"));
    let urls: Vec<_> = cases.iter().map(|(url, ..)| url.as_str()).collect();

    let found = diagnose(&urls, &[]).await;

    for (url, verdict, says, mend) in &cases {
        found.assert_finding(url, verdict, says, mend);
    }
    tasks.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_lost_datagram_is_retransmitted_and_foreign_datagrams_are_ignored() {
    let (mut heard, mut relay) = (0, speaks_turn(&[0]));
    let (port, serving) = udp_that(move |asked| {
        heard += 1;
        // Every other one gets lost, and noise and an echo come before each answer.
        if heard % 2 == 1 {
            return Vec::new();
        }
        [vec![b"noise".to_vec(), asked.to_vec()], relay(asked)].concat()
    })
    .await;

    let url = format!("turn:127.0.0.1:{port}");
    let found = diagnose(&[&url], &[]).await;

    found.assert_finding(&url, "ok", "relays, within", "");
    serving.abort();
}

#[tokio::test]
async fn urls_without_a_secret_are_a_fault() {
    let folder = home();
    let found = Findings::of(&folder, &[("TURNSERVER_URLS", "turn:nowhere.invalid")]).await;

    found.assert_finding(
        "TURNSERVER_SECRET",
        "fault",
        "no client gets TURN credentials",
        "static-auth-secret",
    );
    assert!(
        found.about("turn:nowhere.invalid").is_empty(),
        "nothing is issued that could be tried"
    );
}

/// What a server says of its relays: by REST, in a session, and to Prometheus.
struct Member {
    token: String,
    address: SocketAddr,
}

impl Member {
    async fn by(server: &ServerProcess) -> Self {
        let address = server.address;
        let login = json!({"username": "admin", "password": "admin123"});
        let answer = reqwest::Client::new().post(format!("http://{address}/auth/login"));
        let answer: Value = answer.json(&login).send().await.unwrap().json().await.unwrap();
        Self { token: answer["access_token"].as_str().unwrap().to_owned(), address }
    }

    async fn get(&self, path: &str, token: &str) -> String {
        let asked = reqwest::Client::new().get(format!("http://{}{path}", self.address));
        asked.bearer_auth(token).send().await.unwrap().text().await.unwrap()
    }

    /// The URLs in the order in which they are handed out, which is the same everywhere.
    async fn urls(&self) -> Vec<String> {
        let read = |answer: &Value| -> Vec<String> {
            serde_json::from_value(answer["urls"].clone()).unwrap()
        };
        let of = async |path| -> Value {
            serde_json::from_str(&self.get(path, &self.token).await).unwrap()
        };
        let credentials = read(&of("/auth/turn-credentials").await);
        assert_eq!(read(&of("/auth/ice-servers").await["iceServers"][0]), credentials);
        let mut client = Client::connect(self.address, "den", &[]).await.unwrap();
        client.receive().await;
        client.send(json!({"type": "auth_token", "token": self.token})).await;
        assert_eq!(read(&client.receive().await["iceServers"][0]), credentials);
        client.leave().await;
        credentials
    }

    async fn metrics(&self) -> String {
        self.get("/metrics", METRICS_TOKEN).await
    }
}

const METRICS_TOKEN: &str = "a-token-for-prometheus";

#[tokio::test]
async fn turn_servers_that_failed_are_listed_last_until_they_relay_again() {
    let (first, second) = (Coturn::start().await, Coturn::start().await);
    let [dying_udp, dying_tcp, _] = first.urls();
    let [living, ..] = second.urls();
    let urls = [dying_udp, dying_tcp, living];
    let list = json!(urls).to_string();
    let folder = tempfile::tempdir().unwrap();
    let probe = [
        ("TURNSERVER_SECRET", coturn::SECRET),
        ("TURNSERVER_URLS", &*list),
        ("TURN_PROBE_SECONDS", "1"),
        ("METRICS_TOKEN", METRICS_TOKEN),
        ("LOG_LEVEL", "TRACE"),
    ];
    let began = unix_now();
    let mut server = ServerProcess::start(&folder, &[&DEBUG[..], &probe].concat()).await;
    let member = Member::by(&server).await;
    for _ in &urls {
        server.log.next_line_with("TURN server works").await;
    }
    let up = |url: &str, is_up: u8| format!("signaling_turn_up{{url=\"{url}\"}} {is_up}\n");

    let metrics = member.metrics().await;
    assert!(urls.iter().all(|url| metrics.contains(&up(url, 1))), "{metrics}");
    let latency = format!("signaling_turn_latency_seconds{{url=\"{}\"}} 0.", urls[0]);
    assert!(metrics.contains(&latency), "{metrics}");
    assert_eq!(member.urls().await, urls);

    let dead = first.kill().await;
    for _ in 0..2 {
        server.log.next_line_with("TURN server does not work").await;
    }
    let metrics = member.metrics().await;
    let seen = [up(&urls[0], 0), up(&urls[1], 0), up(&urls[2], 1)];
    assert!(seen.iter().all(|line| metrics.contains(line)), "{metrics}");
    assert_eq!(member.urls().await, [&*urls[2], &*urls[0], &*urls[1]]);

    let _alive = dead.restart().await;
    for _ in 0..2 {
        server.log.next_line_with("TURN server works").await;
    }
    assert_eq!(member.urls().await, urls);
    // The other one was tried all the while, and there was nothing to say of it.
    second.log.lines_with(GIVEN_BACK, 3).await;
    let about = |line: &&String| line.contains("TURN server") && line.contains(&urls[2]);
    assert_eq!(server.log.lines().iter().filter(about).count(), 1);
    let log = server.log.lines().join("\n");
    let minted =
        |until| turn::mint(&coturn::SECRET.into(), "probe-0", Duration::ZERO, until).credential;
    assert!(log.contains("TRACE") && !log.contains(coturn::SECRET), "{log}");
    assert!((began..unix_now() + 61).all(|until| !log.contains(&minted(until))), "{log}");
    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_reload_probes_other_turn_servers_at_once() {
    let coturn = Coturn::start().await;
    let [udp, tcp, _] = coturn.urls();
    let folder = tempfile::tempdir().unwrap();
    let write = |urls: &[&str], secret: &str| {
        let text = format!(
            "TURNSERVER_SECRET={secret}\nTURNSERVER_URLS={}\nMETRICS_TOKEN={METRICS_TOKEN}\n",
            json!(urls)
        );
        fs::write(folder.path().join(".env"), text).unwrap();
    };
    // So seldom that only the news can be why.
    let settings = [&DEBUG[..], &[("TURN_PROBE_SECONDS", "86400"), ("LOG_LEVEL", "INFO")]].concat();
    write(&[], "");
    let mut server = ServerProcess::start(&folder, &settings).await;
    let member = Member::by(&server).await;
    assert!(!member.metrics().await.contains("turn_up"), "nothing to try");

    write(&[&udp], coturn::SECRET);
    server.signal(Signal::HUP);
    assert!(server.log.next_line_with("TURN server works").await.contains(&udp));
    write(&[&tcp], "the-secret-of-another-server");
    server.signal(Signal::HUP);
    let refused = server.log.next_line_with("TURN server does not work").await;

    assert!(refused.contains(&tcp) && refused.contains("another secret"), "{refused}");
    let metrics = member.metrics().await;
    assert!(metrics.contains(&format!("signaling_turn_up{{url=\"{tcp}\"}} 0\n")), "{metrics}");
    assert!(
        !metrics.contains(&format!("\"{udp}\"")),
        "what is not configured any more is forgotten: {metrics}"
    );
    assert_eq!(member.urls().await, [tcp], "never none");
}

#[tokio::test]
async fn no_turn_server_is_probed_where_probes_are_off() {
    let (port, serving) = turn_that_says(&[0]).await;
    let url = format!("turn:127.0.0.1:{port}");
    let folder = tempfile::tempdir().unwrap();
    let off = [
        ("TURNSERVER_SECRET", coturn::SECRET),
        ("TURNSERVER_URLS", &*url),
        ("TURN_PROBE_SECONDS", "0"),
        ("METRICS_TOKEN", METRICS_TOKEN),
        ("LOG_LEVEL", "INFO"),
    ];
    let mut server = ServerProcess::start(&folder, &[&DEBUG[..], &off].concat()).await;
    let member = Member::by(&server).await;

    assert_eq!(member.urls().await, [url]);
    assert!(!member.metrics().await.contains("turn_up"));
    assert_eq!(server.stop().await.code(), Some(0));
    assert!(!server.log.lines().iter().any(|line| line.contains("a TURN server")));
    serving.abort();
}

/// A machine without a battery starts in 2020 and hears the time from NTP later: credentials of 2020 are not kept for most of
/// their lifetime.
#[tokio::test]
async fn a_clock_that_is_set_after_the_start_makes_members_get_new_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let [library, offset] = clock(&folder, -200_000_000).await;
    let settings = [
        ("TURNSERVER_SECRET", coturn::SECRET),
        ("TURNSERVER_URLS", "turn:turn.example.com:3478"),
        ("TURN_PROBE_SECONDS", "0"),
        ("WEBSOCKET_TIMEOUT", "9"),
        ("LOG_LEVEL", "INFO"),
        ("SIGNALING_TEST_INTERVALS", "clock_poll=200"),
        (library.0, &*library.1),
        (offset.0, &*offset.1),
    ];
    let mut server = ServerProcess::start(&folder, &[&DEBUG[..], &settings].concat()).await;
    let member = Member::by(&server).await;
    let mut client = Client::connect(server.address, "den", &[]).await.unwrap();
    client.receive().await;
    client.send(json!({"type": "auth_token", "token": member.token, "features": ["ice"]})).await;
    let expiry = |frame: &Value| -> u64 {
        let username = frame["iceServers"][0]["username"].as_str().unwrap();
        username.split(':').next().unwrap().parse().unwrap()
    };
    assert!(expiry(&client.receive().await) < unix_now() - 100_000_000);
    assert_eq!(client.receive().await["type"], "users_in_room");

    fs::write(folder.path().join("offset"), "0").unwrap();

    let news = client.receive().await;
    assert_eq!(news["type"], "ice_servers");
    assert!(expiry(&news) > unix_now());
    server.log.line_with("wall clock was set").await;
    assert_eq!(server.stop().await.code(), Some(0));
}
