//! Sessions on the real server, through lost networks, restarts and crashes.
//!
//! The server is the program that `SIGNALING_SERVER` names, or the one in the build folder of this test:
//! `cargo build --bin signaling-server`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "these are tests"
)]

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use signaling_client::{
    Change, Error, Event, Events, Options, Session, SignalKind, State, connect,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

/// Longer than any step takes on a loaded machine; no test waits for it to pass.
const TIMEOUT: Duration = Duration::from_secs(60);

const JWT_KEY: &str = "jwt-key-of-the-tests-0123456789abcdef";

// --- the server, and a network that can be cut ----------------------------------------------------

/// A server process that can be restarted on the same port and in the same folder.
struct TestServer {
    folder: TempDir,
    settings: Vec<(&'static str, String)>,
    child: Child,
    address: SocketAddr,
}

impl TestServer {
    async fn start(settings: &[(&'static str, &str)]) -> Self {
        let defaults = [
            ("DEBUG", "true"),
            ("ALLOW_ANONYMOUS", "true"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("LOG_FORMAT", "json"),
            ("LOG_LEVEL", "INFO"),
            ("REQUIRE_HTTPS", "false"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("JOINS_PER_MINUTE", "0"),
            ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
            ("WEBSOCKET_MESSAGE_BURST", "100000"),
            ("SECRET_KEY", "own-key-of-the-tests-0123456789abcdef"),
            ("JWT_SECRET_KEY", JWT_KEY),
        ];
        let settings = defaults.iter().chain(settings);
        let mut settings: Vec<_> =
            settings.map(|&(name, value)| (name, value.to_owned())).collect();
        let folder = tempfile::tempdir().unwrap();
        let (child, address) = spawn(&folder, &settings).await;
        settings.push(("PORT", address.port().to_string()));
        Self { folder, settings, child, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn stop(&mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let ended = timeout(TIMEOUT, self.child.wait()).await.expect("still running").unwrap();
        assert_eq!(ended.code(), Some(0));
    }

    async fn restart(&mut self) {
        (self.child, _) = spawn(&self.folder, &self.settings).await;
    }
}

fn binary() -> PathBuf {
    let given = std::env::var_os("SIGNALING_SERVER").map(PathBuf::from);
    let path = given.unwrap_or_else(|| {
        // The test is target/debug/deps/server-….
        let built = std::env::current_exe().unwrap();
        built.ancestors().nth(2).unwrap().join("signaling-server")
    });
    assert!(path.exists(), "{} is missing: cargo build, or set SIGNALING_SERVER", path.display());
    path.canonicalize().unwrap()
}

/// Starts the server with these settings and an otherwise empty environment; it is killed at the end of the test.
async fn spawn(folder: &TempDir, settings: &[(&str, String)]) -> (Child, SocketAddr) {
    let mut command = Command::new(binary());
    command.env_clear().envs(settings.iter().map(|(name, value)| (name, value)));
    command.current_dir(folder.path()).kill_on_drop(true);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = async {
        loop {
            let line = log.next_line().await.unwrap().expect("the server ended at once");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["fields"]["message"] == "listening" {
                break event["fields"]["address"].as_str().unwrap().parse().unwrap();
            }
        }
    };
    let address = timeout(TIMEOUT, address).await.expect("the server did not start");
    // A full pipe would block the server.
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    (child, address)
}

/// A TCP proxy to a server. A cut resets all connections, with the data that is on its way.
struct Network {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
}

impl Network {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepted = connections.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let forwarding = tokio::spawn(async move {
                    let Ok(mut upstream) = TcpStream::connect(server).await else { return };
                    // The end of this task resets both connections.
                    client.set_zero_linger().unwrap();
                    upstream.set_zero_linger().unwrap();
                    let _ = copy_bidirectional(&mut client, &mut upstream).await;
                });
                accepted.lock().unwrap().push(forwarding.abort_handle());
            }
        });
        Self { address, connections, accepting }
    }

    fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

// --- the clients ----------------------------------------------------------------------------------

/// A session, and its events until now.
struct Member {
    session: Session,
    events: Events,
    seen: Vec<Event>,
}

async fn join(options: Options) -> Member {
    let (session, events) =
        timeout(TIMEOUT, connect(options)).await.expect("did not join").unwrap();
    Member { session, events, seen: Vec::new() }
}

/// Options for one of the server's demo accounts, with its name as client id.
fn user(url: impl Into<String>, name: &str) -> Options {
    Options::new(url, "den").login(name, "password123").client_id(name)
}

impl Member {
    async fn next_event(&mut self) -> Event {
        let event = timeout(TIMEOUT, self.events.next()).await;
        let event = event.unwrap_or_else(|_| panic!("no event after {:?}", self.seen));
        self.seen.push(event.expect("the session has ended"));
        self.seen.last().unwrap().clone()
    }

    /// Waits for the next event that `find` accepts.
    async fn until<T>(&mut self, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = find(&self.next_event().await) {
                return found;
            }
        }
    }

    async fn next_data(&mut self) -> Value {
        self.until(|event| match event {
            Event::Message { data, .. } => Some(data.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for the next `connected`; returns whether it was a resume.
    async fn until_connected(&mut self) -> bool {
        self.until(|event| match event {
            Event::State(Change { state: State::Connected, is_resumed, .. }) => Some(*is_resumed),
            _ => None,
        })
        .await
    }

    async fn until_reconnecting(&mut self) {
        self.until(|event| match event {
            Event::State(Change { state: State::Reconnecting, .. }) => Some(()),
            _ => None,
        })
        .await;
    }

    fn count(&self, is_counted: impl Fn(&Event) -> bool) -> usize {
        self.seen.iter().filter(|event| is_counted(event)).count()
    }
}

fn is_peer_left(event: &Event) -> bool {
    matches!(event, Event::PeerLeft { .. })
}

// --- the tests ------------------------------------------------------------------------------------

#[tokio::test]
async fn two_members_exchange_frames_and_one_leaves() {
    let server = TestServer::start(&[]).await;
    let mut alice = join(user(server.url(), "user1")).await;
    let mut guest = join(Options::new(server.url(), "den")).await;
    let id = guest.session.id();
    assert!(
        matches!(guest.next_event().await, Event::PeerJoined(peer) if peer.client_id == "user1")
    );
    assert!(matches!(alice.next_event().await, Event::PeerJoined(peer) if peer.client_id == id));
    assert_eq!(
        (alice.session.username(), alice.session.state()),
        ("user1".into(), State::Connected)
    );
    assert_eq!(alice.session.peers()[0].client_id, id);

    guest.session.send("to all", None).unwrap();
    alice
        .session
        .signal(SignalKind::Offer, json!({"type":"offer","sdp":"v=0"}), Some(&id))
        .unwrap();
    alice.session.signal(SignalKind::IceCandidate, Value::Null, Some(&id)).unwrap();
    alice.session.send(json!({"muted":true}), Some("unknown")).unwrap();

    assert_eq!(alice.next_data().await, "to all");
    for (kind, payload) in [
        (SignalKind::Offer, json!({"type":"offer","sdp":"v=0"})),
        (SignalKind::IceCandidate, Value::Null),
    ] {
        let (from, username) = ("user1".to_owned(), "user1".to_owned());
        assert_eq!(guest.next_event().await, Event::Signal { from, username, kind, payload });
    }
    let Event::Error(Error::Refused { code, .. }) = alice.next_event().await else { panic!() };
    assert_eq!(code, "target_not_found");

    guest.session.send("last", None).unwrap();
    guest.session.close().await;
    assert_eq!(guest.session.state(), State::Closed);
    assert_eq!(alice.next_data().await, "last");
    let Event::PeerLeft { peer, is_missing: false } = alice.next_event().await else { panic!() };
    assert_eq!((peer.client_id, alice.session.peers().len()), (id, 0));
}

/// Without a Close frame the server would keep the membership.
#[tokio::test]
async fn dropping_a_session_leaves_the_room() {
    let server = TestServer::start(&[]).await;
    let mut alice = join(user(server.url(), "user1")).await;

    drop(join(Options::new(server.url(), "den")).await);

    alice.until(|event| is_peer_left(event).then_some(())).await;
}

#[tokio::test]
async fn refused_client_gets_the_reason() {
    let server = TestServer::start(&[("ALLOWED_ROOMS", r#"["den"]"#)]).await;
    for (options, expected) in [
        (Options::new(server.url(), "den").login("user1", "wrong"), "no_token"),
        (Options::new(server.url(), "den").token("a.b.c"), "closed"),
        (Options::new(server.url(), "other"), "room_not_allowed"),
        (Options::new(server.url() + "/nowhere", "den"), "refused"),
    ] {
        let refused =
            timeout(TIMEOUT, connect(options)).await.expect("still connecting").unwrap_err();
        let Error::Closed { code, .. } = refused else { panic!("{refused}") };
        assert_eq!(code, expected);
    }
}

/// Sends numbers and receives the numbers of the other, each at most `AHEAD` before the other, until all have arrived.
async fn exchange(
    member: &mut Member,
    other: &str,
    received: &watch::Sender<u64>,
    mut received_by_other: watch::Receiver<u64>,
    each: impl Fn(u64),
) {
    const AHEAD: u64 = 40;
    let session = member.session.clone();
    let sending = async {
        for number in 0..NUMBERS {
            received_by_other.wait_for(|received| number < received + AHEAD).await.unwrap();
            session.send(number, Some(other)).unwrap();
        }
    };
    let receiving = async {
        for number in 0..NUMBERS {
            assert_eq!(member.next_data().await, number);
            received.send_replace(number + 1);
            each(number);
        }
    };
    tokio::join!(sending, receiving);
}

const NUMBERS: u64 = 400;

#[tokio::test]
async fn repeated_network_loss_loses_and_duplicates_no_message() {
    let server = TestServer::start(&[]).await;
    let network = Network::to(server.address).await;
    let mut alice = join(user(format!("http://{}", network.address), "user1")).await;
    let mut bob = join(user(server.url(), "user2")).await;
    let (by_alice, by_bob) = (watch::Sender::new(0), watch::Sender::new(0));
    let (of_alice, of_bob) = (by_alice.subscribe(), by_bob.subscribe());

    tokio::join!(
        exchange(&mut alice, "user2", &by_alice, of_bob, |number| {
            if number % 50 == 25 {
                network.cut();
            }
        }),
        exchange(&mut bob, "user1", &by_bob, of_alice, |number| {
            if number % 70 == 35 {
                network.cut();
            }
        }),
    );

    let resumed = |event: &Event| matches!(event, Event::State(change) if change.is_resumed);
    assert!(alice.count(resumed) >= 5, "{}", alice.count(resumed));
    assert_eq!((alice.count(is_peer_left), bob.count(is_peer_left)), (0, 0));
    alice.session.send("last", None).unwrap();
    assert_eq!(bob.next_data().await, "last", "no message is duplicated");
}

#[tokio::test]
async fn restart_loses_no_message_and_no_peer_leaves() {
    let mut server = TestServer::start(&[]).await;
    let mut alice = join(user(server.url(), "user1")).await;
    let mut bob = join(user(server.url(), "user2")).await;

    bob.session.send("before", None).unwrap();
    let stopping = server.stop();
    let losing = async { tokio::join!(alice.until_reconnecting(), bob.until_reconnecting()) };
    tokio::join!(stopping, losing);
    alice.session.send("meanwhile", None).unwrap();
    server.restart().await;

    let (alice_resumed, bob_resumed) = tokio::join!(alice.until_connected(), bob.until_connected());
    assert!(alice_resumed && bob_resumed);
    bob.session.send("after", None).unwrap();
    assert_eq!(bob.next_data().await, "meanwhile");
    // The server may have stopped before it received the first message.
    while alice.next_data().await != "after" {}
    let before = Event::Message {
        from: "user2".to_owned(),
        username: "user2".to_owned(),
        data: "before".into(),
    };
    assert_eq!(alice.count(|event| *event == before), 1);
    assert_eq!((alice.count(is_peer_left), bob.count(is_peer_left)), (0, 0));
}

#[tokio::test]
async fn after_a_crash_both_join_again_with_their_client_ids() {
    let mut server = TestServer::start(&[]).await;
    let mut alice = join(user(server.url(), "user1")).await;
    let mut bob = join(user(server.url(), "user2")).await;

    server.child.kill().await.unwrap();
    tokio::join!(alice.until_reconnecting(), bob.until_reconnecting());
    alice.session.send("to a room that is gone", None).unwrap();
    server.restart().await;

    let (alice_resumed, bob_resumed) = tokio::join!(alice.until_connected(), bob.until_connected());
    assert!(!alice_resumed && !bob_resumed);
    for (member, other) in [(&mut alice, "user2"), (&mut bob, "user1")] {
        // The client that joined first gets the other as missing, and then as joined.
        while member.session.peers().is_empty() {
            member.next_event().await;
        }
        assert_eq!(member.session.peers()[0].client_id, other);
    }
    alice.session.send("again", Some("user2")).unwrap();
    assert_eq!(bob.next_data().await, "again");
}

/// A token as another service with the server's key would mint it, and its expiry.
fn mint(lifetime: Duration) -> (String, Duration) {
    #[expect(clippy::disallowed_methods, reason = "the expiry of a token is a wall-clock time")]
    let expiry = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lifetime;
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub":"user1","exp":expiry.as_secs()});
    let signed = format!("{}.{}", encode(json!({"alg":"HS256","typ":"JWT"})), encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, JWT_KEY.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    (format!("{signed}.{signature}"), expiry)
}

/// With `WEBSOCKET_ENFORCE_TOKEN_EXPIRY` a membership whose token has expired cannot be resumed.
#[tokio::test]
async fn session_resumes_after_its_first_token_has_expired() {
    let server = TestServer::start(&[("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", "true")]).await;
    let network = Network::to(server.address).await;
    let (first, expiry) = mint(Duration::from_secs(4));
    let renewed = Arc::new(AtomicUsize::new(0));
    let count = renewed.clone();
    let options = Options::new(format!("http://{}", network.address), "den");
    let mut alice = join(options.tokens(move |renew| {
        let token = if renew { mint(Duration::from_secs(1800)).0 } else { first.clone() };
        count.fetch_add(usize::from(renew), Relaxed);
        async { Ok::<_, Error>(token) }
    }))
    .await;

    #[expect(clippy::disallowed_methods, reason = "the server uses the same clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let past_its_expiry = expiry.saturating_sub(now) + Duration::from_secs(1);
    let event = timeout(past_its_expiry, alice.events.next()).await;
    assert!(event.is_err(), "unexpected event: {event:?}");
    network.cut();

    assert!(alice.until_connected().await, "the membership is valid with the second token");
    assert_eq!(renewed.load(Relaxed), 1);
}

/// A client that does not read its events for a while delays only what the server sends to it.
#[tokio::test]
async fn slow_reader_misses_nothing_and_can_still_send() {
    let server = TestServer::start(&[]).await;
    let mut alice = join(user(server.url(), "user1")).await;
    let mut bob = join(user(server.url(), "user2")).await;

    for number in 0..1000 {
        bob.session.send(number, None).unwrap();
    }
    alice.session.send("from the slow reader", None).unwrap();
    bob.next_data().await;

    for number in 0..1000 {
        assert_eq!(alice.next_data().await, number);
    }
}
