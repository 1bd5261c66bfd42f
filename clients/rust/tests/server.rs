//! Clients and a real server: what they say to each other through cuts, restarts and crashes.
//!
//! The server is the one that `SIGNALING_SERVER` names, or the one in the folder where this was built:
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

/// Longer than anything here takes, also on a loaded machine; nothing waits for it to pass.
const SOON: Duration = Duration::from_secs(60);

const JWT_KEY: &str = "jwt-key-of-the-story-0123456789abcdef";

// --- the server, and a network that breaks -------------------------------------------------------

/// A server process that can be started again where it was: same port, same folder.
struct House {
    folder: TempDir,
    settings: Vec<(&'static str, String)>,
    child: Child,
    address: SocketAddr,
}

impl House {
    async fn open(settings: &[(&'static str, &str)]) -> Self {
        let usual = [
            ("DEBUG", "true"),
            ("ALLOW_ANONYMOUS", "true"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("LOG_FORMAT", "json"),
            ("LOG_LEVEL", "INFO"),
            ("REQUIRE_HTTPS", "false"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
            ("WEBSOCKET_MESSAGE_BURST", "100000"),
            ("SHUTDOWN_GRACE_SECONDS", "2"),
            ("SECRET_KEY", "own-key-of-the-story-0123456789abcdef"),
            ("JWT_SECRET_KEY", JWT_KEY),
        ];
        let settings = usual.iter().chain(settings);
        let mut settings: Vec<_> =
            settings.map(|&(name, value)| (name, value.to_owned())).collect();
        let folder = tempfile::tempdir().unwrap();
        let (child, address) = start(&folder, &settings).await;
        settings.push(("PORT", address.port().to_string()));
        Self { folder, settings, child, address }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn stops(&mut self) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        let ended = timeout(SOON, self.child.wait()).await.expect("still running").unwrap();
        assert_eq!(ended.code(), Some(0));
    }

    async fn opens_again(&mut self) {
        (self.child, _) = start(&self.folder, &self.settings).await;
    }
}

fn binary() -> PathBuf {
    let named = std::env::var_os("SIGNALING_SERVER").map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        // This is target/debug/deps/server-….
        let built = std::env::current_exe().unwrap();
        built.ancestors().nth(2).unwrap().join("signaling-server")
    });
    assert!(path.exists(), "{} is missing: cargo build, or set SIGNALING_SERVER", path.display());
    path.canonicalize().unwrap()
}

/// Knows no variable of ours but these; is ended with the test.
async fn start(folder: &TempDir, settings: &[(&str, String)]) -> (Child, SocketAddr) {
    let mut command = Command::new(binary());
    command.env_clear().envs(settings.iter().map(|(name, value)| (name, value)));
    command.current_dir(folder.path()).kill_on_drop(true);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = async {
        loop {
            let line = log.next_line().await.unwrap().expect("the server ended at once");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["fields"]["message"] == "open" {
                break event["fields"]["address"].as_str().unwrap().parse().unwrap();
            }
        }
    };
    let address = timeout(SOON, address).await.expect("the server does not open");
    // Who does not read a log stops whoever writes it.
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    (child, address)
}

/// TCP connections to a server that are cut all at once, with whatever is on its way.
struct Network {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
}

impl Network {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let known = connections.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let carried = tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(server).await else { return };
                    // Whatever ends this resets both.
                    near.set_zero_linger().unwrap();
                    far.set_zero_linger().unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
                known.lock().unwrap().push(carried.abort_handle());
            }
        });
        Self { address, connections, accepting }
    }

    fn is_cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
        self.is_cut();
    }
}

// --- those who talk ------------------------------------------------------------------------------

/// A session, and what it has told so far.
struct Member {
    session: Session,
    events: Events,
    seen: Vec<Event>,
}

async fn enters(options: Options) -> Member {
    let (session, events) = timeout(SOON, connect(options)).await.expect("not let in").unwrap();
    Member { session, events, seen: Vec::new() }
}

/// One of the server's demo accounts, whose client id is its name.
fn user(url: impl Into<String>, name: &str) -> Options {
    Options::new(url, "den").login(name, "password123").client_id(name)
}

impl Member {
    async fn hears(&mut self) -> Event {
        let event = timeout(SOON, self.events.next()).await;
        let event = event.unwrap_or_else(|_| panic!("heard nothing after {:?}", self.seen));
        self.seen.push(event.expect("the session is over"));
        self.seen.last().unwrap().clone()
    }

    /// The next event for which there is something; those before it are passed over.
    async fn until<T>(&mut self, mut found: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = found(&self.hears().await) {
                return found;
            }
        }
    }

    async fn hears_data(&mut self) -> Value {
        self.until(|event| match event {
            Event::Message { data, .. } => Some(data.clone()),
            _ => None,
        })
        .await
    }

    /// Connected again; whether it goes on where it was.
    async fn is_back(&mut self) -> bool {
        self.until(|event| match event {
            Event::State(Change { state: State::Connected, is_resumed, .. }) => Some(*is_resumed),
            _ => None,
        })
        .await
    }

    async fn is_away(&mut self) {
        self.until(|event| match event {
            Event::State(Change { state: State::Reconnecting, .. }) => Some(()),
            _ => None,
        })
        .await;
    }

    fn has_seen(&self, what: impl Fn(&Event) -> bool) -> usize {
        self.seen.iter().filter(|event| what(event)).count()
    }
}

fn is_departure(event: &Event) -> bool {
    matches!(event, Event::PeerLeft { .. })
}

// --- the stories ---------------------------------------------------------------------------------

#[tokio::test]
async fn two_talk_and_one_leaves() {
    let house = House::open(&[]).await;
    let mut alice = enters(user(house.url(), "user1")).await;
    let mut guest = enters(Options::new(house.url(), "den")).await;
    let id = guest.session.id();
    assert!(matches!(guest.hears().await, Event::PeerJoined(peer) if peer.client_id == "user1"));
    assert!(matches!(alice.hears().await, Event::PeerJoined(peer) if peer.client_id == id));
    assert_eq!(
        (alice.session.username(), alice.session.state()),
        ("user1".into(), State::Connected)
    );
    assert_eq!(alice.session.peers()[0].client_id, id);

    guest.session.send("to all", None);
    alice.session.signal(SignalKind::Offer, json!({"type":"offer","sdp":"v=0"}), Some(&id));
    alice.session.signal(SignalKind::IceCandidate, Value::Null, Some(&id));
    alice.session.send(json!({"muted":true}), Some("nobody"));

    assert_eq!(alice.hears_data().await, "to all");
    for (kind, payload) in [
        (SignalKind::Offer, json!({"type":"offer","sdp":"v=0"})),
        (SignalKind::IceCandidate, Value::Null),
    ] {
        let (from, username) = ("user1".to_owned(), "user1".to_owned());
        assert_eq!(guest.hears().await, Event::Signal { from, username, kind, payload });
    }
    let Event::Error(Error::Refused { code, .. }) = alice.hears().await else { panic!() };
    assert_eq!(code, "target_not_found");

    guest.session.send("goodbye", None);
    guest.session.close().await;
    assert_eq!(guest.session.state(), State::Closed);
    assert_eq!(alice.hears_data().await, "goodbye");
    let Event::PeerLeft { peer, is_missing: false } = alice.hears().await else { panic!() };
    assert_eq!((peer.client_id, alice.session.peers().len()), (id, 0));
}

/// The seat would be kept, had the server not heard a Close.
#[tokio::test]
async fn who_drops_its_session_has_left() {
    let house = House::open(&[]).await;
    let mut alice = enters(user(house.url(), "user1")).await;

    drop(enters(Options::new(house.url(), "den")).await);

    alice.until(|event| is_departure(event).then_some(())).await;
}

#[tokio::test]
async fn who_may_not_come_in_is_told_why() {
    let house = House::open(&[("ALLOWED_ROOMS", r#"["den"]"#)]).await;
    for (options, expected) in [
        (Options::new(house.url(), "den").login("user1", "wrong"), "no_token"),
        (Options::new(house.url(), "den").token("a.b.c"), "closed"),
        (Options::new(house.url(), "elsewhere"), "room_not_allowed"),
        (Options::new(house.url() + "/nowhere", "den"), "refused"),
    ] {
        let refused = timeout(SOON, connect(options)).await.expect("still trying").unwrap_err();
        let Error::Closed { code, .. } = refused else { panic!("{refused}") };
        assert_eq!(code, expected);
    }
}

/// Says numbers and hears the other's, each at most so many ahead, until all are heard.
async fn exchanges(
    member: &mut Member,
    other: &str,
    heard: &watch::Sender<u64>,
    mut others: watch::Receiver<u64>,
    each: impl Fn(u64),
) {
    const AHEAD: u64 = 40;
    let session = member.session.clone();
    let speaking = async {
        for number in 0..NUMBERS {
            others.wait_for(|heard| number < heard + AHEAD).await.unwrap();
            session.send(number, Some(other));
        }
    };
    let listening = async {
        for number in 0..NUMBERS {
            assert_eq!(member.hears_data().await, number);
            heard.send_replace(number + 1);
            each(number);
        }
    };
    tokio::join!(speaking, listening);
}

const NUMBERS: u64 = 400;

#[tokio::test]
async fn a_network_that_is_cut_again_and_again_loses_nothing_and_doubles_nothing() {
    let house = House::open(&[]).await;
    let network = Network::before(house.address).await;
    let mut alice = enters(user(format!("http://{}", network.address), "user1")).await;
    let mut bob = enters(user(house.url(), "user2")).await;
    let (by_alice, by_bob) = (watch::Sender::new(0), watch::Sender::new(0));
    let (of_alice, of_bob) = (by_alice.subscribe(), by_bob.subscribe());

    tokio::join!(
        exchanges(&mut alice, "user2", &by_alice, of_bob, |number| {
            if number % 50 == 25 {
                network.is_cut();
            }
        }),
        exchanges(&mut bob, "user1", &by_bob, of_alice, |number| {
            if number % 70 == 35 {
                network.is_cut();
            }
        }),
    );

    let resumed = |event: &Event| matches!(event, Event::State(change) if change.is_resumed);
    assert!(alice.has_seen(resumed) >= 5, "{}", alice.has_seen(resumed));
    assert_eq!((alice.has_seen(is_departure), bob.has_seen(is_departure)), (0, 0));
    alice.session.send("last", None);
    assert_eq!(bob.hears_data().await, "last", "nothing is doubled");
}

#[tokio::test]
async fn a_restart_costs_no_message_and_nobody_seems_to_leave() {
    let mut house = House::open(&[]).await;
    let mut alice = enters(user(house.url(), "user1")).await;
    let mut bob = enters(user(house.url(), "user2")).await;

    bob.session.send("before", None);
    let stopping = house.stops();
    let noticing = async { tokio::join!(alice.is_away(), bob.is_away()) };
    tokio::join!(stopping, noticing);
    alice.session.send("meanwhile", None);
    house.opens_again().await;

    let (alice_resumes, bob_resumes) = tokio::join!(alice.is_back(), bob.is_back());
    assert!(alice_resumes && bob_resumes);
    bob.session.send("after", None);
    assert_eq!(bob.hears_data().await, "meanwhile");
    // The server may have stopped before it heard of the first.
    while alice.hears_data().await != "after" {}
    let before = Event::Message {
        from: "user2".to_owned(),
        username: "user2".to_owned(),
        data: "before".into(),
    };
    assert_eq!(alice.has_seen(|event| *event == before), 1);
    assert_eq!((alice.has_seen(is_departure), bob.has_seen(is_departure)), (0, 0));
}

#[tokio::test]
async fn after_a_crash_both_sit_down_anew_under_their_own_ids() {
    let mut house = House::open(&[]).await;
    let mut alice = enters(user(house.url(), "user1")).await;
    let mut bob = enters(user(house.url(), "user2")).await;

    house.child.kill().await.unwrap();
    tokio::join!(alice.is_away(), bob.is_away());
    alice.session.send("to a room that is gone", None);
    house.opens_again().await;

    let (alice_resumes, bob_resumes) = tokio::join!(alice.is_back(), bob.is_back());
    assert!(!alice_resumes && !bob_resumes);
    for (member, other) in [(&mut alice, "user2"), (&mut bob, "user1")] {
        // Whoever was first misses the other, and then finds it.
        while member.session.peers().is_empty() {
            member.hears().await;
        }
        assert_eq!(member.session.peers()[0].client_id, other);
    }
    alice.session.send("again", Some("user2"));
    assert_eq!(bob.hears_data().await, "again");
}

/// A token as another service mints it that has the server's key.
fn minted(lives: Duration) -> (String, Duration) {
    #[expect(clippy::disallowed_methods, reason = "a token says what time it ends")]
    let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lives;
    let text = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub":"user1","exp":ends.as_secs()});
    let signed = format!("{}.{}", text(json!({"alg":"HS256","typ":"JWT"})), text(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, JWT_KEY.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    (format!("{signed}.{signature}"), ends)
}

/// With `WEBSOCKET_ENFORCE_TOKEN_EXPIRY` nobody resumes who stands on a token that has ended.
#[tokio::test]
async fn a_session_outlives_its_first_token() {
    let house = House::open(&[("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", "true")]).await;
    let network = Network::before(house.address).await;
    let (first, ends) = minted(Duration::from_secs(4));
    let renewed = Arc::new(AtomicUsize::new(0));
    let count = renewed.clone();
    let options = Options::new(format!("http://{}", network.address), "den");
    let mut alice = enters(options.tokens(move |renew| {
        let token = if renew { minted(Duration::from_secs(1800)).0 } else { first.clone() };
        count.fetch_add(usize::from(renew), Relaxed);
        async { Ok::<_, Error>(token) }
    }))
    .await;

    #[expect(clippy::disallowed_methods, reason = "the server asks the same clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let past_its_end = ends.saturating_sub(now) + Duration::from_secs(1);
    let told = timeout(past_its_end, alice.events.next()).await;
    assert!(told.is_err(), "nothing happens: {told:?}");
    network.is_cut();

    assert!(alice.is_back().await, "it stands on the second token");
    assert_eq!(renewed.load(Relaxed), 1);
}

/// Whoever does not read keeps the server waiting, and nothing else.
#[tokio::test]
async fn who_does_not_read_for_a_while_misses_nothing() {
    let house = House::open(&[]).await;
    let mut alice = enters(user(house.url(), "user1")).await;
    let mut bob = enters(user(house.url(), "user2")).await;

    for number in 0..1000 {
        bob.session.send(number, None);
    }
    alice.session.send("I am still able to speak", None);
    bob.hears_data().await;

    for number in 0..1000 {
        assert_eq!(alice.hears_data().await, number);
    }
}
