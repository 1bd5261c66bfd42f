//! Sessions over a socket of two channels, on a clock that the tests move.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytestring::ByteString;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::PollSender;
use tracing::Span;
use uuid::Uuid;

use super::{close::CLOSE_TIMEOUT, *};
use crate::{
    auth::resume_token::ResumeTokenSigner,
    delivery::{self, ClientQueue},
    limits::{JoinRateLimiter, MessageBudgets},
    memory::{MemoryBudget, MemoryHolder},
    metrics::Metrics,
    moderation::EntryDenied,
    protocol::{self, ClientMessage, CloseReason, MessageLimits},
    rooms::{Membership, Peer, RoomRegistry},
    websocket::{ConnectionLost, Socket, SocketEvent},
};

mod memory;
mod resume;

const TIMEOUT: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(20);

const MESSAGE_LIMITS: MessageLimits = MessageLimits {
    max_message_bytes: 65_536,
    messages_per_second: 50,
    message_burst: 250,
    bytes_per_second: 1_048_576,
};

/// The server's end of a socket.
struct ChannelSocket {
    incoming: mpsc::Receiver<SocketEvent>,
    outgoing: PollSender<Written>,
    unsent: VecDeque<Written>,
    max_message_bytes: Arc<AtomicUsize>,
}

/// What the server wrote.
#[derive(Debug, PartialEq)]
enum Written {
    Text(Value),
    Ping,
    Close(u16, &'static str),
}

impl Socket for ChannelSocket {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<SocketEvent>> {
        self.incoming.poll_recv(context)
    }

    fn poll_start_send(
        &mut self,
        context: &mut Context<'_>,
        frames: &[ByteString],
    ) -> Poll<Result<(), ConnectionLost>> {
        ready!(self.poll_flush(context))?;
        let frames = frames.iter().map(|frame| serde_json::from_str(frame).unwrap());
        self.unsent.extend(frames.map(Written::Text));
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>> {
        while !self.unsent.is_empty() {
            ready!(self.outgoing.poll_reserve(context)).map_err(|_| ConnectionLost)?;
            let written = self.unsent.pop_front().unwrap();
            self.outgoing.send_item(written).map_err(|_| ConnectionLost)?;
        }
        Poll::Ready(Ok(()))
    }

    fn queue_ping(&mut self) {
        self.unsent.push_back(Written::Ping);
    }

    fn queue_close(&mut self, code: u16, reason: &'static str) {
        self.unsent.push_back(Written::Close(code, reason));
    }

    fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        self.max_message_bytes.store(max_message_bytes, Ordering::Relaxed);
    }
}

/// The client's end, and how the session ended.
struct Client {
    to_server: mpsc::Sender<SocketEvent>,
    from_server: mpsc::Receiver<Written>,
    session: JoinHandle<CloseReason>,
    rooms: RoomRegistry,
    closer: watch::Sender<Option<Duration>>,
}

/// What the sessions of a test share.
#[derive(Clone)]
struct TestServer {
    rooms: RoomRegistry,
    resume_tokens: Arc<ResumeTokenSigner>,
    snapshot: ShutdownSnapshot,
    closer: watch::Sender<Option<Duration>>,
    metrics: Arc<Metrics>,
    /// The limits of messages after a reload.
    reloaded: Arc<OnceLock<MessageLimits>>,
    /// The size limit that was set last on a socket.
    max_message_bytes: Arc<AtomicUsize>,
    joins: Arc<JoinRateLimiter>,
    message_budgets: MessageBudgets,
    memory: MemoryBudget,
    /// Counts the memory of the last connection.
    last_holder: Arc<Mutex<Option<Arc<MemoryHolder>>>>,
}

impl TestServer {
    fn new() -> Self {
        Self {
            rooms: RoomRegistry::new(10),
            resume_tokens: Arc::new(ResumeTokenSigner::new(&"secret".into())),
            snapshot: ShutdownSnapshot::default(),
            closer: watch::Sender::new(None),
            metrics: Arc::default(),
            reloaded: Arc::default(),
            max_message_bytes: Arc::default(),
            joins: Arc::new(JoinRateLimiter::new(0, 0)),
            message_budgets: MessageBudgets::default(),
            memory: MemoryBudget::default(),
            last_holder: Arc::default(),
        }
    }

    fn connect(&self, limits: SessionLimits, width: usize) -> Client {
        let (to_server, incoming) = mpsc::channel(64);
        let (outgoing, from_server) = mpsc::channel(width);
        let server = self.clone();
        let services = TestServices { messages: limits.messages, reloaded: self.reloaded.clone() };
        let max_message_bytes = self.max_message_bytes.clone();
        let memory = self.memory.holder();
        *self.last_holder.lock().unwrap() = Some(memory.clone());
        let context = SessionContext {
            rooms: self.rooms.clone(),
            room: "den".into(),
            request_id: Uuid::nil(),
            address: [127, 0, 0, 1].into(),
            limits: Arc::new(limits),
            joins: self.joins.clone(),
            message_budgets: self.message_budgets.clone(),
            metrics: self.metrics.clone(),
            memory: memory.clone(),
            services,
            resume_tokens: self.resume_tokens.clone(),
            snapshot: self.snapshot.clone(),
            closing: self.closer.subscribe(),
        };
        let session = tokio::spawn(async move {
            let (outgoing, unsent) = (PollSender::new(outgoing), VecDeque::new());
            let mut socket = ChannelSocket { incoming, outgoing, unsent, max_message_bytes };
            let (reason, detached) = run(&mut socket, &context, Box::new(Span::none())).await;
            if let Some(detached) = detached {
                tokio::spawn(async move {
                    let TestServer { snapshot, closer, metrics, .. } = server;
                    detached.wait_for_resume(closer.subscribe(), &snapshot, &metrics).await;
                });
            }
            reason
        });
        Client {
            to_server,
            from_server,
            session,
            rooms: self.rooms.clone(),
            closer: self.closer.clone(),
        }
    }

    /// A member with these features, and its resume token.
    async fn join(&self, user: &str, features: Value) -> (Client, String) {
        let mut client = self.connect(limits(), 64);
        assert_eq!(client.receive().await["type"], "auth_required");
        let token = format!("{user} 9999");
        client
            .send(json!({"type":"auth_token","token":token,"clientId":user,"features":features}))
            .await;
        let success = client.receive().await;
        assert_eq!(success["resume_window_seconds"], 20);
        let token = success["resume_token"].as_str().unwrap().to_owned();
        (client, token)
    }

    fn size_limit(&self) -> usize {
        self.max_message_bytes.load(Ordering::Relaxed)
    }

    /// The lines of one metric that are not 0.
    fn metric_lines(&self, metric: &str) -> Vec<String> {
        let text = self.metrics.encode(&[]);
        let lines = text.lines().filter(|line| !line.ends_with(" 0"));
        lines.filter_map(|line| line.strip_prefix(metric)).map(str::to_owned).collect()
    }

    /// A client that asks to resume, and the reply.
    async fn resume(&self, token: &str, last_seq: Value) -> (Client, Value) {
        let mut client = self.connect(limits(), 64);
        assert_eq!(client.receive().await["type"], "auth_required");
        client.send(json!({"type":"resume","resume_token":token,"last_seq":last_seq,"id":5})).await;
        let reply = client.receive().await;
        (client, reply)
    }
}

impl Client {
    async fn send(&self, message: Value) {
        self.to_server.send(SocketEvent::Text(message.to_string().into())).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        loop {
            match self.from_server.recv().await.unwrap() {
                Written::Text(message) => return message,
                Written::Ping => {}
                other => panic!("{other:?} is not a message"),
            }
        }
    }

    /// Shows that no frame is queued: the answer to a ping, which is queued last, arrives first.
    async fn expect_no_frame(&mut self) {
        self.send(json!({"type":"ping"})).await;
        assert_eq!(self.receive().await["type"], "pong");
    }

    async fn joined(mut self) -> Self {
        assert_eq!(self.receive().await["type"], "auth_required");
        self.send(json!({"type":"auth_token","token":"alice 60","clientId":"a"})).await;
        assert_eq!(self.receive().await["type"], "auth_success");
        assert_eq!(self.receive().await["type"], "users_in_room");
        self
    }

    /// The frames before the Close, the Close, and why the session ended; the client closes its side in turn.
    async fn read_to_close(mut self) -> (Vec<Value>, (u16, &'static str), CloseReason) {
        let mut before = Vec::new();
        let close = loop {
            match self.from_server.recv().await.unwrap() {
                Written::Text(message) => before.push(message),
                Written::Ping => {}
                Written::Close(code, reason) => break (code, reason),
            }
        };
        drop(self.to_server);
        (before, close, self.session.await.unwrap())
    }
}

/// Accepts tokens of the form `<user> <seconds>`, and panics where the seconds are no number. Its TURN credentials are
/// valid for a hundred seconds.
struct TestServices {
    messages: MessageLimits,
    reloaded: Arc<OnceLock<MessageLimits>>,
}

fn test_services() -> TestServices {
    TestServices { messages: MESSAGE_LIMITS, reloaded: Arc::default() }
}

impl SessionServices for TestServices {
    fn authorize(
        &self,
        credentials: Credentials<'_>,
        _: &ClientQueue,
    ) -> Result<Authorized, AuthError> {
        let (username, seconds) = match credentials {
            Credentials::Token(token) => token.split_once(' ').ok_or(AuthError::BadToken)?,
            Credentials::ResumeToken(token) if token.username == "disabled" => {
                return Err(AuthError::NoSuchUser);
            }
            Credentials::ResumeToken(token) => (token.username.as_str(), "60"),
            Credentials::Guest => panic!("the tests have no guests"),
        };
        let expires_in = Some(Duration::from_secs(seconds.parse().unwrap()));
        Ok(Authorized { username: username.into(), expires_in, claims: None, session: None })
    }

    fn ice_servers(&self, _: Option<&str>) -> IceServerSet {
        IceServerSet { servers: Vec::new(), lifetime: Some(Duration::from_secs(100)) }
    }

    fn ice_version(&self) -> u64 {
        0
    }

    fn message_limits(&self) -> MessageLimits {
        self.reloaded.get().copied().unwrap_or(self.messages)
    }

    fn check_entry(&self, _: &str, _: &Peer) -> Option<EntryDenied> {
        None
    }

    fn now(&self) -> u64 {
        0
    }
}

fn connect_with(limits: SessionLimits, width: usize) -> Client {
    TestServer::new().connect(limits, width)
}

fn limits() -> SessionLimits {
    SessionLimits {
        timeout: TIMEOUT,
        messages: MESSAGE_LIMITS,
        guests: false,
        enforce_token_expiry: true,
        has_issuer: false,
        token_refresh_grace: Duration::from_secs(60),
        resume_window: WINDOW,
    }
}

fn with_rate(messages_per_second: u32, message_burst: u32) -> SessionLimits {
    let messages = MessageLimits { messages_per_second, message_burst, ..MESSAGE_LIMITS };
    SessionLimits { messages, ..limits() }
}

fn connect() -> Client {
    connect_with(limits(), 64)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_authenticates_is_disconnected() {
    let mut client = connect();
    let began = Instant::now();
    assert_eq!(client.receive().await["type"], "auth_required");

    let (before, close, reason) = client.read_to_close().await;

    assert_eq!(
        (before, close, reason),
        (vec![], (1008, "Authentication required"), CloseReason::AuthRequired)
    );
    assert_eq!(began.elapsed(), TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn pings_do_not_extend_the_handshake() {
    let mut client = connect();
    let began = Instant::now();
    assert_eq!(client.receive().await["type"], "auth_required");
    let to_server = client.to_server.clone();
    let heart = tokio::spawn(async move {
        while to_server.send(SocketEvent::Ping).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });

    let mut close = client.from_server.recv().await.unwrap();
    while close == Written::Ping {
        close = client.from_server.recv().await.unwrap();
    }

    assert_eq!(
        (close, began.elapsed()),
        (Written::Close(1008, "Authentication required"), TIMEOUT)
    );
    heart.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_each_third_and_then_disconnected() {
    let mut client = connect().joined().await;
    let began = Instant::now();
    let mut pings = Vec::new();

    let reason = loop {
        match client.from_server.recv().await.unwrap() {
            Written::Ping => pings.push(began.elapsed().as_secs()),
            Written::Text(message) => {
                assert_eq!((&message["code"], &message["retry"]), (&json!("timeout"), &json!(true)))
            }
            Written::Close(code, _) => break code,
        }
    };

    assert_eq!((pings, reason, began.elapsed()), (vec![10, 20], 1001, TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays() {
    let mut client =
        connect_with(SessionLimits { enforce_token_expiry: false, ..limits() }, 64).joined().await;

    for _ in 0..100 {
        assert_eq!(client.from_server.recv().await, Some(Written::Ping));
        client.to_server.send(SocketEvent::Ping).await.unwrap();
    }

    assert_eq!(client.rooms.member_count("den"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_time_from_a_ping_to_its_pong_is_counted_and_no_other_pong() {
    let server = TestServer::new();
    let limits = SessionLimits { enforce_token_expiry: false, ..limits() };
    let mut client = server.connect(limits, 64).joined().await;

    client.to_server.send(SocketEvent::Pong).await.unwrap();
    assert_eq!(client.from_server.recv().await, Some(Written::Ping));
    sleep(Duration::from_millis(40)).await;
    for _ in 0..2 {
        client.to_server.send(SocketEvent::Pong).await.unwrap();
    }
    assert_eq!(client.from_server.recv().await, Some(Written::Ping));

    assert_eq!(server.metric_lines("signaling_ping_rtt_seconds_sum "), ["0.04"]);
    assert_eq!(server.metric_lines("signaling_ping_rtt_seconds_count "), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_no_messages_use_the_message_budget() {
    for frame in [|| SocketEvent::Ping, || SocketEvent::Pong, || SocketEvent::ShortFragment] {
        let limits = with_rate(50, 3);
        let mut client = connect_with(limits, 64).joined().await;

        for _ in 0..7 {
            client.to_server.send(frame()).await.unwrap();
        }

        assert_eq!(client.receive().await["code"], "rate_limited", "{:?}", frame());
        let Some(Written::Text(last)) = client.from_server.recv().await else { panic!() };
        assert_eq!((&last["code"], &last["retry"]), (&json!("rate_limited"), &json!(true)));
        let close = client.from_server.recv().await;
        assert_eq!(close, Some(Written::Close(1008, "Rate limit exceeded")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_too_many_bytes_is_warned_with_the_id_of_the_message_and_may_go_on() {
    let messages = MessageLimits { bytes_per_second: 1_024, ..MESSAGE_LIMITS };
    let mut client = connect_with(SessionLimits { messages, ..limits() }, 64).joined().await;
    let padding = "x".repeat(10_000);

    for id in [1, 2] {
        client.send(json!({"type":"ping","padding":padding,"id":id})).await;
    }

    assert_eq!(client.receive().await["type"], "pong");
    let warning = client.receive().await;
    assert_eq!((&warning["code"], &warning["id"]), (&json!("rate_limited"), &json!(2)));
    assert!(warning["message"].as_str().unwrap().starts_with("More than 1024 bytes a second"));
    client.send(json!({"type":"ping"})).await;
    assert_eq!(client.receive().await["type"], "pong", "a small one is within the rate");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_token_may_send_no_more_frames_than_a_member() {
    let mut client = connect_with(with_rate(50, 3), 64);
    assert_eq!(client.receive().await["type"], "auth_required");

    for _ in 0..4 {
        client.to_server.send(SocketEvent::Ping).await.unwrap();
    }

    let close = client.from_server.recv().await;
    assert_eq!(close, Some(Written::Close(1008, "Rate limit exceeded")));
}

#[tokio::test(start_paused = true)]
async fn a_pong_that_answers_a_ping_uses_no_budget() {
    let limits = SessionLimits { enforce_token_expiry: false, ..with_rate(50, 1) };
    let mut client = connect_with(limits, 64).joined().await;

    // Two Pings before the first Pong: each may be answered.
    for _ in 0..20 {
        assert_eq!(client.from_server.recv().await, Some(Written::Ping));
        assert_eq!(client.from_server.recv().await, Some(Written::Ping));
        for _ in 0..2 {
            client.to_server.send(SocketEvent::Pong).await.unwrap();
        }
        client.send(json!({"type":"ping"})).await;
        assert_eq!(client.receive().await["type"], "pong");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_receives_more_than_it_can_read_is_still_read() {
    let limits = SessionLimits { enforce_token_expiry: false, ..limits() };
    let mut client = connect_with(limits, 1).joined().await;
    let (bob, _reader) = delivery::channel();
    let peer = Peer { client_id: "b".into(), username: "bob".into(), name: None };
    let bob = Membership::join_local(&client.rooms, &"den".into(), peer, bob).unwrap();
    let chatter = tokio::spawn(async move {
        loop {
            let frame = r#"{"type":"message","data":1}"#;
            let Ok(ClientMessage::Signal(signal)) = protocol::parse(frame).message else {
                panic!()
            };
            bob.send(&signal, Instant::now()).unwrap();
            sleep(Duration::from_millis(150)).await;
        }
    });
    let to_server = client.to_server.clone();
    let talking = tokio::spawn(async move {
        for _ in 0..60 {
            to_server.send(SocketEvent::Text(r#"{"type":"ping"}"#.into())).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
    });

    let mut pongs = 0;
    while pongs < 60 {
        sleep(Duration::from_millis(200)).await;
        match client.from_server.recv().await.unwrap() {
            Written::Text(message) => pongs += usize::from(message["type"] == "pong"),
            other => panic!("{other:?}"),
        }
    }

    talking.await.unwrap();
    chatter.abort();
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_a_minute_after_its_token_unless_it_is_refreshed() {
    let mut client = connect().joined().await;
    let began = Instant::now();
    let to_server = client.to_server.clone();
    tokio::spawn(async move {
        while to_server.send(SocketEvent::Ping).await.is_ok() {
            sleep(Duration::from_secs(5)).await;
        }
    });

    sleep(Duration::from_secs(119)).await;
    client.send(json!({"type":"auth_token","token":"alice 100"})).await;
    let refreshed = client.receive().await;
    let (before, close) = loop {
        match client.from_server.recv().await.unwrap() {
            Written::Text(error) => {
                let Some(Written::Close(code, reason)) = client.from_server.recv().await else {
                    panic!("no close")
                };
                break (error, (code, reason));
            }
            _ => continue,
        }
    };

    assert_eq!(refreshed, json!({"type":"token_refreshed","expires_in":100}));
    assert_eq!((&before["code"], close), (&json!("token_expired"), (1008, "Token expired")));
    assert_eq!(began.elapsed().as_secs(), 119 + 100 + 60);
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_its_token_where_expiry_is_not_enforced() {
    let mut client =
        connect_with(SessionLimits { enforce_token_expiry: false, ..limits() }, 64).joined().await;

    for _ in 0..1000 {
        assert_eq!(client.from_server.recv().await, Some(Written::Ping));
        client.to_server.send(SocketEvent::Ping).await.unwrap();
    }

    assert!(!client.session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_token_of_another_user_does_not_refresh_a_session() {
    let mut client = connect().joined().await;

    for (token, id) in [("admin 9999", json!(1)), ("nonsense", json!("two"))] {
        client.send(json!({"type":"auth_token","token":token,"id":id})).await;

        let error = client.receive().await;
        assert_eq!((&error["code"], &error["id"]), (&json!("invalid_token"), &id));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_disconnected_and_leaves() {
    let mut client = connect_with(limits(), 1).joined().await;
    let to_server = client.to_server.clone();
    let began = Instant::now();

    // Each ping is answered, and after the first answer the client no longer reads.
    for _ in 0..3 {
        to_server.send(SocketEvent::Text(json!({"type":"ping"}).to_string().into())).await.unwrap();
    }
    let Client { session, rooms, .. } = &mut client;
    let reason = session.await.unwrap();

    assert_eq!(reason, CloseReason::TooSlow);
    assert_eq!(began.elapsed(), TIMEOUT + CLOSE_TIMEOUT);
    assert_eq!(rooms.member_count("den"), None);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_disconnected_during_a_write_leaves_at_once() {
    let client = connect_with(limits(), 1).joined().await;
    let began = Instant::now();
    for _ in 0..3 {
        client.send(json!({"type":"ping"})).await;
    }
    sleep(Duration::from_secs(1)).await;

    let newer = Peer { client_id: "a".into(), username: "alice".into(), name: None };
    let _membership =
        Membership::join_local(&client.rooms, &"den".into(), newer, delivery::channel().0).unwrap();
    let reason = client.session.await.unwrap();

    assert_eq!(reason, CloseReason::Replaced);
    assert_eq!(began.elapsed(), Duration::from_secs(1) + CLOSE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_client_receives_that_the_server_stops_and_when_to_return() {
    let client = connect().joined().await;

    client.closer.send_replace(Some(Duration::from_secs(10)));
    client.rooms.wake_members();
    let (before, close, _) = client.read_to_close().await;

    assert_eq!(close, (1012, "Server is restarting"));
    assert_eq!(before[0]["type"], "server_shutdown");
    let wait = before[0]["reconnect_in_ms"].as_u64().unwrap();
    assert!(wait < 10_000);
    let reply = json!({"type":"error","code":"server_restarting","message":"The server is restarting","retry":true,"retry_after_ms":wait});
    assert_eq!(before[1..], [reply]);
}

#[tokio::test(start_paused = true)]
async fn messages_over_the_rate_cause_one_warning_and_then_end_the_session() {
    let mut client = connect_with(with_rate(1, 5), 64).joined().await;

    for number in 0..11 {
        client.send(json!({"type":"ping","id":number})).await;
    }
    let mut received = Vec::new();
    for _ in 0..7 {
        received.push(client.receive().await);
    }

    assert!(received[..5].iter().all(|message| message["type"] == "pong"));
    assert_eq!(
        (&received[5]["code"], &received[5]["id"], received[5].get("retry")),
        (&json!("rate_limited"), &json!(5), None)
    );
    assert_eq!(
        (&received[6]["code"], &received[6]["retry"]),
        (&json!("rate_limited"), &json!(true))
    );
    assert_eq!(client.from_server.recv().await, Some(Written::Close(1008, "Rate limit exceeded")));
}

/// N03 of the attack catalogue.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_session_and_reveals_nothing_internal() {
    let mut client = connect().joined().await;
    let rooms = client.rooms.clone();

    client.send(json!({"type":"auth_token","token":"alice panic"})).await;
    let reply = client.receive().await;
    let (_, close, reason) = client.read_to_close().await;

    assert_eq!((&reply["code"], &reply["retry"]), (&json!("internal_error"), &json!(true)));
    assert_eq!((close, reason), ((1011, "Internal error"), CloseReason::Internal));
    assert_eq!(rooms.member_total(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_message_that_is_no_text_ends_the_session_with_its_own_code() {
    for (received, code) in [
        (SocketEvent::Binary, 1003),
        (SocketEvent::NotUtf8, 1007),
        (SocketEvent::TooBig, 1009),
        (SocketEvent::Malformed, 1002),
    ] {
        let client = connect().joined().await;

        client.to_server.send(received).await.unwrap();
        let rooms = client.rooms.clone();
        let (before, close, _) = client.read_to_close().await;

        assert_eq!(
            (close.0, before[0]["type"].as_str(), before[0]["retry"].as_bool()),
            (code, Some("error"), Some(false))
        );
        assert_eq!(rooms.member_total(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_discarded_message_is_answered_with_the_limit_and_counts_against_the_rate() {
    let mut client = connect_with(with_rate(1, 2), 64).joined().await;
    let discarded = || SocketEvent::Discarded { length: 70_000 };

    for _ in 0..3 {
        client.to_server.send(discarded()).await.unwrap();
    }
    let answers = [client.receive().await, client.receive().await, client.receive().await];
    sleep(Duration::from_secs(5)).await;
    client.send(json!({"type":"ping"})).await;

    let codes = answers.each_ref().map(|answer| answer["code"].as_str());
    assert_eq!(codes, [Some("message_too_big"), Some("message_too_big"), Some("rate_limited")]);
    assert_eq!(
        (&answers[0]["max_message_bytes"], &answers[0]["retry"]),
        (&json!(65_536), &Value::Null)
    );
    assert_eq!(client.receive().await["type"], "pong", "the connection goes on");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_discarded_before_authentication_ends_the_connection() {
    let mut client = connect();
    client.receive().await;

    client.to_server.send(SocketEvent::Discarded { length: 70_000 }).await.unwrap();

    assert_eq!(
        client.read_to_close().await,
        (vec![], (1009, "Message too big"), CloseReason::TooBig)
    );
}

#[tokio::test(start_paused = true)]
async fn limits_that_a_reload_changes_apply_to_members_and_are_sent_to_those_that_opted_in() {
    let server = TestServer::new();
    let (mut alice, _) = server.join("alice", json!(["limits"])).await;
    let (mut bob, _) = server.join("bob", json!([])).await;
    alice.receive().await;
    let joined_with = alice.receive().await;
    bob.receive().await;
    assert_eq!((joined_with["type"].as_str(), server.size_limit()), (Some("user_joined"), 65_536));

    let reloaded = MessageLimits { max_message_bytes: 1024, ..MESSAGE_LIMITS };
    server.reloaded.set(reloaded).unwrap();
    let told = alice.receive().await;
    sleep(TIMEOUT / 3).await;

    let limits = json!({"max_message_bytes":1024,"messages_per_second":50,"message_burst":250,"bytes_per_second":1048576});
    assert_eq!(told, json!({"type":"limits","limits":limits}));
    assert_eq!(server.size_limit(), 1024);
    bob.expect_no_frame().await;
}

#[tokio::test(start_paused = true)]
async fn ice_servers_are_renewed_before_they_expire_for_clients_that_opted_in() {
    let server = TestServer::new();
    let (mut alice, _) = server.join("alice", json!(["ice"])).await;
    let (mut bob, _) = server.join("bob", json!([])).await;
    let began = Instant::now();
    let mut received = Vec::new();
    alice.receive().await;
    alice.receive().await;
    bob.receive().await;

    while received.len() < 3 {
        for client in [&alice, &bob] {
            client.to_server.send(SocketEvent::Ping).await.unwrap();
        }
        if let Ok(Some(Written::Text(frame))) =
            timeout(Duration::from_secs(5), alice.from_server.recv()).await
        {
            received.push((began.elapsed().as_secs(), frame));
        }
    }

    for (at, (after, frame)) in [80, 160, 240].into_iter().zip(received) {
        assert_eq!((after, frame), (at, json!({"type":"ice_servers","iceServers":[],"ttl":100})));
    }
    bob.expect_no_frame().await;
}

#[tokio::test(start_paused = true)]
async fn a_queue_overflow_is_counted_as_an_overflow_and_as_a_leave() {
    let server = TestServer::new();
    let limits = with_rate(10_000, 10_000);
    let alice = server.connect(limits.clone(), 2).joined().await;
    let mut bob = server.connect(limits, 64);
    bob.receive().await;
    bob.send(json!({"type":"auth_token","token":"bob 60","clientId":"b"})).await;
    bob.receive().await;

    // Her queue, the frames that are being written, and the socket that she does not read.
    for number in 0..delivery::QUEUE_MAX_FRAMES + 64 {
        bob.send(json!({"type":"message","data":number,"to":"a"})).await;
    }
    let (_, close, reason) = alice.read_to_close().await;

    assert_eq!((close.0, reason), (1013, CloseReason::TooSlow));
    assert_eq!(server.metric_lines("signaling_send_queue_overflows_total "), ["1"]);
    assert_eq!(server.metric_lines("signaling_leaves_total"), ["{reason=\"too_slow\"} 1"]);
    assert_eq!(server.metric_lines("signaling_closes_total"), ["{code=\"1013\"} 1"]);
}
