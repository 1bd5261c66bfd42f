//! A session over a socket made of two channels, on a clock that the tests move.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
const WINDOW: Duration = Duration::from_secs(20);

/// The server's end of a socket.
struct Line {
    arriving: mpsc::Receiver<SocketEvent>,
    leaving: mpsc::Sender<Sent>,
}

/// What the server wrote.
#[derive(Debug, PartialEq)]
enum Sent {
    Text(Value),
    Ping,
    Close(u16, &'static str),
}

impl Socket for Line {
    async fn receive(&mut self) -> Option<SocketEvent> {
        self.arriving.recv().await
    }

    async fn send(&mut self, frames: &[ByteString]) -> Result<(), ConnectionLost> {
        for frame in frames {
            self.write(Sent::Text(serde_json::from_str(frame).unwrap())).await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), ConnectionLost> {
        self.write(Sent::Ping).await
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), ConnectionLost> {
        self.write(Sent::Close(code, reason)).await
    }
}

impl Line {
    async fn write(&mut self, sent: Sent) -> Result<(), ConnectionLost> {
        self.leaving.send(sent).await.map_err(|_| ConnectionLost)
    }
}

/// The client's end, and how the session ended.
struct Client {
    says: mpsc::Sender<SocketEvent>,
    hears: mpsc::Receiver<Sent>,
    session: JoinHandle<CloseReason>,
    rooms: RoomRegistry,
    closer: watch::Sender<Option<Duration>>,
}

/// What sessions share.
#[derive(Clone)]
struct House {
    rooms: RoomRegistry,
    tickets: Arc<ResumeTokenSigner>,
    survivors: ShutdownSnapshot,
    closer: watch::Sender<Option<Duration>>,
    metrics: Arc<Metrics>,
}

impl House {
    fn new() -> Self {
        Self {
            rooms: RoomRegistry::new(10),
            tickets: Arc::new(ResumeTokenSigner::new(&"secret".into())),
            survivors: ShutdownSnapshot::default(),
            closer: watch::Sender::new(None),
            metrics: Arc::default(),
        }
    }

    fn connect(&self, rules: SessionLimits, width: usize) -> Client {
        let (says, arriving) = mpsc::channel(64);
        let (leaving, hears) = mpsc::channel(width);
        let house = self.clone();
        let host = SessionContext {
            rooms: self.rooms.clone(),
            room: "den".into(),
            request: Uuid::nil(),
            address: [127, 0, 0, 1].into(),
            limits: rules,
            metrics: self.metrics.clone(),
            services: TestDoor,
            resume_tokens: self.tickets.clone(),
            snapshot: self.survivors.clone(),
            closing: self.closer.subscribe(),
        };
        let session = tokio::spawn(async move {
            let (goodbye, parked) = run(&mut Line { arriving, leaving }, &host, Span::none()).await;
            if let Some(parked) = parked {
                tokio::spawn(async move {
                    let House { survivors, closer, metrics, .. } = house;
                    parked.wait_for_resume(closer.subscribe(), &survivors, &metrics).await;
                });
            }
            goodbye
        });
        Client { says, hears, session, rooms: self.rooms.clone(), closer: self.closer.clone() }
    }

    /// A member with these features, and its resume token.
    async fn join(&self, user: &str, features: Value) -> (Client, String) {
        let mut client = self.connect(rules(), 64);
        assert_eq!(client.hears().await["type"], "auth_required");
        let token = format!("{user} 9999");
        client
            .says(json!({"type":"auth_token","token":token,"clientId":user,"features":features}))
            .await;
        let success = client.hears().await;
        assert_eq!(success["resume_window_seconds"], 20);
        let token = success["resume_token"].as_str().unwrap().to_owned();
        (client, token)
    }

    /// What has been counted of one figure: each line of it that is not 0.
    fn counted(&self, figure: &str) -> Vec<String> {
        let text = self.metrics.text(&[]);
        let lines = text.lines().filter(|line| !line.ends_with(" 0"));
        lines.filter_map(|line| line.strip_prefix(figure)).map(str::to_owned).collect()
    }

    /// Somebody who wants to go on; what he is told.
    async fn resume(&self, token: &str, last_seq: Value) -> (Client, Value) {
        let mut client = self.connect(rules(), 64);
        assert_eq!(client.hears().await["type"], "auth_required");
        client.says(json!({"type":"resume","resume_token":token,"last_seq":last_seq,"id":5})).await;
        let told = client.hears().await;
        (client, told)
    }
}

impl Client {
    async fn says(&self, message: Value) {
        self.says.send(SocketEvent::Text(message.to_string().into())).await.unwrap();
    }

    async fn hears(&mut self) -> Value {
        loop {
            match self.hears.recv().await.unwrap() {
                Sent::Text(message) => return message,
                Sent::Ping => {}
                other => panic!("{other:?} is no message"),
            }
        }
    }

    /// Shows that nothing waits to be heard, by what is answered last: our own ping.
    async fn hears_nothing_else(&mut self) {
        self.says(json!({"type":"ping"})).await;
        assert_eq!(self.hears().await["type"], "pong");
    }

    async fn joined(mut self) -> Self {
        assert_eq!(self.hears().await["type"], "auth_required");
        self.says(json!({"type":"auth_token","token":"alice 60","clientId":"a"})).await;
        assert_eq!(self.hears().await["type"], "auth_success");
        assert_eq!(self.hears().await["type"], "users_in_room");
        self
    }

    /// What comes before the end, and the end; the client closes its side in turn.
    async fn is_let_go(mut self) -> (Vec<Value>, (u16, &'static str), CloseReason) {
        let mut before = Vec::new();
        let close = loop {
            match self.hears.recv().await.unwrap() {
                Sent::Text(message) => before.push(message),
                Sent::Ping => {}
                Sent::Close(code, reason) => break (code, reason),
            }
        };
        drop(self.says);
        (before, close, self.session.await.unwrap())
    }
}

/// A door that takes tokens of the form `<user> <seconds>`, and panics where those are no number. Its TURN
/// credentials are good for a hundred seconds.
struct TestDoor;

impl SessionServices for TestDoor {
    fn authorize(&self, claim: Credentials<'_>, _: &ClientQueue) -> Result<Authorized, AuthError> {
        let (username, seconds) = match claim {
            Credentials::Token(token) => token.split_once(' ').ok_or(AuthError::BadToken)?,
            Credentials::ResumeToken(ticket) if ticket.username == "fallen" => {
                return Err(AuthError::NoSuchUser);
            }
            Credentials::ResumeToken(ticket) => (ticket.username.as_str(), "60"),
            Credentials::Guest => panic!("no guests here"),
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

    fn check_entry(&self, _: &str, _: &Peer) -> Option<EntryDenied> {
        None
    }

    fn now(&self) -> u64 {
        0
    }
}

fn connect_with(rules: SessionLimits, width: usize) -> Client {
    House::new().connect(rules, width)
}

fn rules() -> SessionLimits {
    SessionLimits {
        timeout: PATIENCE,
        messages_per_second: 50,
        message_burst: 250,
        guests: false,
        enforce_token_expiry: true,
        token_refresh_grace: Duration::from_secs(60),
        resume_window: WINDOW,
    }
}

fn connect() -> Client {
    connect_with(rules(), 64)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_introduces_itself_is_asked_to_leave() {
    let mut client = connect();
    let began = Instant::now();
    assert_eq!(client.hears().await["type"], "auth_required");

    let (before, close, goodbye) = client.is_let_go().await;

    assert_eq!(
        (before, close, goodbye),
        (vec![], (1008, "Authentication required"), CloseReason::AuthRequired)
    );
    assert_eq!(began.elapsed(), PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn heartbeats_do_not_put_off_the_introduction() {
    let mut client = connect();
    let began = Instant::now();
    assert_eq!(client.hears().await["type"], "auth_required");
    let says = client.says.clone();
    let heart = tokio::spawn(async move {
        while says.send(SocketEvent::Heartbeat).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });

    let mut close = client.hears.recv().await.unwrap();
    while close == Sent::Ping {
        close = client.hears.recv().await.unwrap();
    }

    assert_eq!((close, began.elapsed()), (Sent::Close(1008, "Authentication required"), PATIENCE));
    heart.abort();
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_each_third_and_then_given_up() {
    let mut client = connect().joined().await;
    let began = Instant::now();
    let mut pings = Vec::new();

    let goodbye = loop {
        match client.hears.recv().await.unwrap() {
            Sent::Ping => pings.push(began.elapsed().as_secs()),
            Sent::Text(message) => {
                assert_eq!((&message["code"], &message["retry"]), (&json!("timeout"), &json!(true)))
            }
            Sent::Close(code, _) => break code,
        }
    };

    assert_eq!((pings, goodbye, began.elapsed()), (vec![10, 20], 1001, PATIENCE));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays() {
    let mut client =
        connect_with(SessionLimits { enforce_token_expiry: false, ..rules() }, 64).joined().await;

    for _ in 0..100 {
        assert_eq!(client.hears.recv().await, Some(Sent::Ping));
        client.says.send(SocketEvent::Heartbeat).await.unwrap();
    }

    assert_eq!(client.rooms.member_count("den"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn the_time_from_a_ping_to_its_pong_is_counted_and_no_other_pong() {
    let house = House::new();
    let rules = SessionLimits { enforce_token_expiry: false, ..rules() };
    let mut client = house.connect(rules, 64).joined().await;

    client.says.send(SocketEvent::Pong).await.unwrap();
    assert_eq!(client.hears.recv().await, Some(Sent::Ping));
    sleep(Duration::from_millis(40)).await;
    for _ in 0..2 {
        client.says.send(SocketEvent::Pong).await.unwrap();
    }
    assert_eq!(client.hears.recv().await, Some(Sent::Ping));

    assert_eq!(house.counted("signaling_ping_rtt_seconds_sum "), ["0.04"]);
    assert_eq!(house.counted("signaling_ping_rtt_seconds_count "), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn somebody_with_more_to_hear_than_he_can_read_is_heard_all_the_same() {
    let rules = SessionLimits { enforce_token_expiry: false, ..rules() };
    let mut client = connect_with(rules, 1).joined().await;
    let (bob, _mailbox) = outbox::channel();
    let peer = Peer { client_id: "b".into(), username: "bob".into() };
    let bob = Membership::join_local(&client.rooms, &"den".into(), peer, bob).unwrap();
    let chatter = tokio::spawn(async move {
        loop {
            let frame = r#"{"type":"message","data":1}"#;
            let Ok(ClientMessage::Signal(signal)) = wire::parse(frame).message else { panic!() };
            bob.send(&signal, Instant::now()).unwrap();
            sleep(Duration::from_millis(150)).await;
        }
    });
    let says = client.says.clone();
    let talking = tokio::spawn(async move {
        for _ in 0..60 {
            says.send(SocketEvent::Text(r#"{"type":"ping"}"#.into())).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
    });

    let mut pongs = 0;
    while pongs < 60 {
        sleep(Duration::from_millis(200)).await;
        match client.hears.recv().await.unwrap() {
            Sent::Text(message) => pongs += usize::from(message["type"] == "pong"),
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
    let says = client.says.clone();
    tokio::spawn(async move {
        while says.send(SocketEvent::Heartbeat).await.is_ok() {
            sleep(Duration::from_secs(5)).await;
        }
    });

    sleep(Duration::from_secs(119)).await;
    client.says(json!({"type":"auth_token","token":"alice 100"})).await;
    let refreshed = client.hears().await;
    let (before, close) = loop {
        match client.hears.recv().await.unwrap() {
            Sent::Text(error) => {
                let Some(Sent::Close(code, reason)) = client.hears.recv().await else {
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
async fn a_session_outlives_its_token_where_nothing_else_is_asked_for() {
    let mut client =
        connect_with(SessionLimits { enforce_token_expiry: false, ..rules() }, 64).joined().await;

    for _ in 0..1000 {
        assert_eq!(client.hears.recv().await, Some(Sent::Ping));
        client.says.send(SocketEvent::Heartbeat).await.unwrap();
    }

    assert!(!client.session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_token_does_not_refresh_a_session() {
    let mut client = connect().joined().await;

    for (token, id) in [("admin 9999", json!(1)), ("nonsense", json!("two"))] {
        client.says(json!({"type":"auth_token","token":token,"id":id})).await;

        let error = client.hears().await;
        assert_eq!((&error["code"], &error["id"]), (&json!("invalid_token"), &id));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_given_up_and_its_seat_is_free() {
    let mut client = connect_with(rules(), 1).joined().await;
    let says = client.says.clone();
    let began = Instant::now();

    // Each ping is answered, and after the first answer nobody reads.
    for _ in 0..3 {
        says.send(SocketEvent::Text(json!({"type":"ping"}).to_string().into())).await.unwrap();
    }
    let Client { session, rooms, .. } = &mut client;
    let goodbye = session.await.unwrap();

    assert_eq!(goodbye, CloseReason::TooSlow);
    assert_eq!(began.elapsed(), PATIENCE + CLOSE_TIMEOUT);
    assert_eq!(rooms.member_count("den"), None);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_dismissed_in_the_middle_of_a_write_leaves_at_once() {
    let client = connect_with(rules(), 1).joined().await;
    let began = Instant::now();
    for _ in 0..3 {
        client.says(json!({"type":"ping"})).await;
    }
    sleep(Duration::from_secs(1)).await;

    let newer = Peer { client_id: "a".into(), username: "alice".into() };
    let _seat =
        Membership::join_local(&client.rooms, &"den".into(), newer, outbox::channel().0).unwrap();
    let goodbye = client.session.await.unwrap();

    assert_eq!(goodbye, CloseReason::Replaced);
    assert_eq!(began.elapsed(), Duration::from_secs(1) + CLOSE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn everybody_is_told_that_the_server_stops_and_when_to_come_back() {
    let client = connect().joined().await;

    client.closer.send_replace(Some(Duration::from_secs(10)));
    let (before, close, _) = client.is_let_go().await;

    assert_eq!(close, (1012, "Server is restarting"));
    assert_eq!(before[0]["type"], "server_shutdown");
    let wait = before[0]["reconnect_in_ms"].as_u64().unwrap();
    assert!(wait < 10_000);
    let told = json!({"type":"error","code":"server_restarting","message":"The server is restarting","retry":true,"retry_after_ms":wait});
    assert_eq!(before[1..], [told]);
}

#[tokio::test(start_paused = true)]
async fn messages_over_the_budget_are_warned_of_once_and_then_end_the_session() {
    let mut client =
        connect_with(SessionLimits { message_burst: 5, messages_per_second: 1, ..rules() }, 64)
            .joined()
            .await;

    for number in 0..11 {
        client.says(json!({"type":"ping","id":number})).await;
    }
    let mut heard = Vec::new();
    for _ in 0..7 {
        heard.push(client.hears().await);
    }

    assert!(heard[..5].iter().all(|message| message["type"] == "pong"));
    assert_eq!(
        (&heard[5]["code"], &heard[5]["id"], heard[5].get("retry")),
        (&json!("rate_limited"), &json!(5), None)
    );
    assert_eq!((&heard[6]["code"], &heard[6]["retry"]), (&json!("rate_limited"), &json!(true)));
    assert_eq!(client.hears.recv().await, Some(Sent::Close(1008, "Rate limit exceeded")));
}

/// N03 of the attack catalogue.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_its_own_session_and_tells_nothing_of_the_inside() {
    let mut client = connect().joined().await;
    let rooms = client.rooms.clone();

    client.says(json!({"type":"auth_token","token":"alice panic"})).await;
    let told = client.hears().await;
    let (_, close, goodbye) = client.is_let_go().await;

    assert_eq!((&told["code"], &told["retry"]), (&json!("internal_error"), &json!(true)));
    assert_eq!((close, goodbye), ((1011, "Internal error"), CloseReason::Internal));
    assert_eq!(rooms.member_total(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_text_message_ends_the_session_with_its_own_code() {
    for (received, code) in [
        (SocketEvent::Binary, 1003),
        (SocketEvent::NotUtf8, 1007),
        (SocketEvent::TooBig, 1009),
        (SocketEvent::Malformed, 1002),
    ] {
        let client = connect().joined().await;

        client.says.send(received).await.unwrap();
        let rooms = client.rooms.clone();
        let (before, close, _) = client.is_let_go().await;

        assert_eq!(
            (close.0, before[0]["type"].as_str(), before[0]["retry"].as_bool()),
            (code, Some("error"), Some(false))
        );
        assert_eq!(rooms.member_total(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn every_close_code_is_one_of_the_contract() {
    for parting in CloseReason::ALL.into_iter().filter_map(CloseReason::info) {
        assert!(
            [1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4001, 4002, 4003]
                .contains(&parting.close)
        );
        assert!(
            parting.reason.len() <= 123,
            "RFC 6455 section 5.5: a control frame has at most 125 bytes"
        );
    }
}

/// Drops the socket without a close, as a network does.
async fn breaks(client: Client) {
    drop(client.says);
    drop(client.hears);
    client.session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_back_hears_exactly_what_it_has_not_got_and_nobody_heard_it_go() {
    let house = House::new();
    let (mut alice, token) = house.join("alice", json!(["resume"])).await;
    assert_eq!(alice.hears().await, json!({"seq":1,"type":"users_in_room","users":[]}));
    let (mut bob, _) = house.join("bob", json!([])).await;
    assert_eq!(bob.hears().await["users"].as_array().unwrap().len(), 1);
    assert_eq!(alice.hears().await["seq"], 2);
    bob.says(json!({"type":"message","data":"heard and not remembered"})).await;
    assert_eq!(alice.hears().await["seq"], 3);
    breaks(alice).await;

    for number in 0..3 {
        bob.says(json!({"type":"message","data":number,"to":"alice"})).await;
    }
    bob.says(json!({"type":"ping"})).await;
    assert_eq!(bob.hears().await, json!({"type":"pong"}));
    let (mut alice, told) = house.resume(&token, json!(2)).await;

    assert_eq!((&told["type"], &told["client_id"]), (&json!("resumed"), &json!("alice")));
    assert_eq!(told["users"], json!([{"client_id":"bob","username":"bob","polite":false}]));
    assert_eq!((&told["replayed"], told.get("seq")), (&json!(4), None));
    assert!(told["resume_token"].is_string());
    let replayed = ["heard and not remembered".into(), json!(0), json!(1), json!(2)];
    for (seq, data) in (3..).zip(replayed) {
        let heard = alice.hears().await;
        assert_eq!((&heard["seq"], &heard["data"]), (&json!(seq), &data));
    }
    alice.says(json!({"type":"ping","ack":6})).await;
    assert_eq!(alice.hears().await, json!({"seq":7,"type":"pong"}));
    alice.says(json!({"type":"message","data":"back"})).await;
    assert_eq!(bob.hears().await["data"], "back");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_stays_away_leaves_once_when_its_time_is_over() {
    let house = House::new();
    let (alice, token) = house.join("alice", json!(["resume"])).await;
    let (mut bob, _) = house.join("bob", json!(["peer_state"])).await;
    bob.hears().await;
    let began = Instant::now();
    breaks(alice).await;

    let away = json!({"type":"peer_state","client_id":"alice","state":"reconnecting"});
    assert_eq!((bob.hears().await, began.elapsed()), (away, Duration::ZERO));
    assert_eq!(house.rooms.member_count("den"), Some(2));
    assert_eq!((&bob.hears().await["type"], began.elapsed()), (&json!("user_left"), WINDOW));
    assert_eq!(house.rooms.member_count("den"), Some(1));
    let (mut alice, told) = house.resume(&token, json!(1)).await;
    assert_eq!((&told["code"], &told["id"]), (&json!("resume_failed"), &json!(5)));

    // The ordinary handshake goes on.
    alice.says(json!({"type":"auth_token","token":"alice 60"})).await;
    assert_eq!(alice.hears().await["type"], "auth_success");
    assert_eq!(bob.hears().await["type"], "user_joined");
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_not_counted_as_one_who_left_and_who_stays_away_is_once() {
    let house = House::new();
    preregister_metrics(&house.metrics);
    let leaves = || house.counted("signaling_leaves_total");
    let (alice, token) = house.join("alice", json!(["resume"])).await;
    breaks(alice).await;

    let (old, _) = house.resume(&token, json!(1)).await;
    let (new, told) = house.resume(&token, json!(1)).await;
    assert_eq!(told["type"], "resumed");
    old.is_let_go().await;
    breaks(new).await;
    assert_eq!(leaves(), [] as [&str; 0]);
    sleep(WINDOW).await;
    let (mallory, _) = house.join("mallory", json!([])).await;
    breaks(mallory).await;

    assert_eq!(
        BTreeSet::from_iter(leaves()),
        BTreeSet::from([
            "{reason=\"away_too_long\"} 1".to_owned(),
            "{reason=\"gone\"} 1".to_owned()
        ])
    );
    assert_eq!(house.rooms.member_total(), 0);
    assert_eq!(house.counted("signaling_outbox_overflows_total "), [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn more_than_is_kept_for_a_client_is_counted_as_its_end_and_as_an_overflow() {
    let house = House::new();
    let rules = SessionLimits { messages_per_second: 10_000, message_burst: 10_000, ..rules() };
    let alice = house.connect(rules.clone(), 2).joined().await;
    let mut bob = house.connect(rules, 64);
    bob.hears().await;
    bob.says(json!({"type":"auth_token","token":"bob 60","clientId":"b"})).await;
    bob.hears().await;

    // Her queue, what is being written, and the socket that she does not read.
    for number in 0..outbox::MAX_FRAMES + 64 {
        bob.says(json!({"type":"message","data":number,"to":"a"})).await;
    }
    let (_, close, goodbye) = alice.is_let_go().await;

    assert_eq!((close.0, goodbye), (1013, CloseReason::TooSlow));
    assert_eq!(house.counted("signaling_outbox_overflows_total "), ["1"]);
    assert_eq!(house.counted("signaling_leaves_total"), ["{reason=\"too_slow\"} 1"]);
    assert_eq!(house.counted("signaling_closes_total"), ["{code=\"1013\"} 1"]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_it_is_told_who_is_away_also_on_coming_in() {
    let house = House::new();
    let (alice, token) = house.join("alice", json!(["resume"])).await;
    breaks(alice).await;
    let (mut bob, _) = house.join("bob", json!(["peer_state", 7, "resume", "unheard of"])).await;

    assert_eq!(bob.hears().await["type"], "users_in_room");
    let state = |seq: u64, state: &str| json!({"seq":seq,"type":"peer_state","client_id":"alice","state":state});
    assert_eq!(bob.hears().await, state(2, "reconnecting"));
    let (_alice, told) = house.resume(&token, json!(0)).await;
    assert_eq!(told["type"], "resumed");
    assert_eq!(bob.hears().await, state(3, "connected"));
}

#[tokio::test(start_paused = true)]
async fn a_second_socket_with_the_same_token_takes_over_and_nobody_hears_of_it() {
    let house = House::new();
    let (old, token) = house.join("alice", json!(["resume"])).await;
    let (mut bob, _) = house.join("bob", json!(["peer_state"])).await;
    bob.hears().await;

    let (mut new, told) = house.resume(&token, json!(1)).await;

    assert_eq!((&told["type"], &told["replayed"]), (&json!("resumed"), &json!(1)));
    assert_eq!(new.hears().await["type"], "user_joined");
    let (_, close, goodbye) = old.is_let_go().await;
    assert_eq!((close.0, goodbye), (4001, CloseReason::Replaced));
    new.says(json!({"type":"message","data":"still here"})).await;
    assert_eq!(bob.hears().await["data"], "still here");
}

#[tokio::test(start_paused = true)]
async fn what_a_client_said_before_and_says_again_is_passed_on_once() {
    let house = House::new();
    let (alice, token) = house.join("alice", json!(["resume"])).await;
    let (mut bob, _) = house.join("bob", json!([])).await;
    bob.hears().await;
    let offer = |id: Value| json!({"type":"offer","offer":{"n":id},"id":id});
    alice.says(offer(json!(1))).await;
    alice.says(offer(json!("two"))).await;
    assert_eq!(bob.hears().await["offer"]["n"], 1);
    assert_eq!(bob.hears().await["offer"]["n"], "two");
    breaks(alice).await;

    let (alice, _) = house.resume(&token, json!(1)).await;
    for id in [json!(1), json!("two"), json!(3)] {
        alice.says(offer(id)).await;
    }

    assert_eq!(bob.hears().await["offer"]["n"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_close_and_an_end_without_return_leave_at_once() {
    for last in [SocketEvent::Close, SocketEvent::Malformed] {
        let house = House::new();
        let (alice, token) = house.join("alice", json!(["resume"])).await;
        alice.says.send(last).await.unwrap();
        breaks(alice).await;

        assert_eq!(house.rooms.member_total(), 0);
        assert_eq!(house.resume(&token, json!(1)).await.1["code"], "resume_failed");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_did_not_ask_to_resume_is_gone_with_its_socket() {
    let house = House::new();
    let (mut alice, token) = house.join("alice", json!(["peer_state", 7])).await;
    assert_eq!(alice.hears().await.get("seq"), None);
    breaks(alice).await;

    assert_eq!(house.rooms.member_total(), 0);
    assert_eq!(house.resume(&token, json!(0)).await.1["code"], "resume_failed");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_good_resume_is_refused_with_a_reason_and_disturbs_nobody() {
    let house = House::new();
    let (mut alice, token) = house.join("alice", json!(["resume"])).await;
    alice.hears().await;
    let ticket = |change: fn(&mut ResumeToken)| {
        let mut ticket = house.tickets.verify(&token).unwrap();
        change(&mut ticket);
        house.tickets.sign(&ticket).unwrap().expose_secret().to_owned()
    };
    let forged =
        ResumeTokenSigner::new(&"other".into()).sign(&house.tickets.verify(&token).unwrap());

    for (token, last_seq) in [
        ("nonsense".to_owned(), json!(0)),
        (forged.unwrap().expose_secret().to_owned(), json!(0)),
        (ticket(|ticket| ticket.room = "elsewhere".into()), json!(0)),
        (ticket(|ticket| ticket.client_id = "nobody".into()), json!(0)),
        (ticket(|ticket| ticket.key += 1), json!(0)),
        (ticket(|ticket| ticket.username = "fallen".into()), json!(0)),
        (token.clone(), json!(2)),
        (token.clone(), json!(-1)),
        (token.clone(), json!("1")),
        (token.clone(), json!(null)),
    ] {
        let (stranger, told) = house.resume(&token, last_seq.clone()).await;
        assert_eq!(told["code"], "resume_failed", "{last_seq} {told}");
        // A second try is none.
        stranger.says(json!({"type":"resume","resume_token":token,"last_seq":1})).await;
        assert_eq!(stranger.is_let_go().await.1, (1008, "Authentication required"));
    }

    alice.hears_nothing_else().await;
}

#[tokio::test(start_paused = true)]
async fn somebody_who_is_away_and_misses_too_much_has_left() {
    let house = House::new();
    let (alice, token) = house.join("alice", json!(["resume"])).await;
    let (mut bob, _) = house.join("bob", json!([])).await;
    bob.hears().await;
    breaks(alice).await;

    let seat = Peer { client_id: "carol".into(), username: "carol".into() };
    let carol =
        Membership::join_local(&house.rooms, &"den".into(), seat, outbox::channel().0).unwrap();
    assert_eq!(bob.hears().await["type"], "user_joined");
    for _ in 0..=crate::replay::MAX_FRAMES {
        let frame = r#"{"type":"message","data":1,"to":"alice"}"#;
        let ClientMessage::Signal(signal) = wire::parse(frame).message.unwrap() else { panic!() };
        let _ = carol.send(&signal, Instant::now());
    }

    assert_eq!(bob.hears().await["type"], "user_left");
    assert_eq!(house.resume(&token, json!(1)).await.1["code"], "resume_failed");
}

/// Everything stays as it was while the server restarts, but for those who do not come back.
#[tokio::test(start_paused = true)]
async fn those_who_may_resume_go_on_in_the_next_process() {
    let house = House::new();
    let (alice, token) = house.join("alice", json!(["resume"])).await;
    let (away, away_token) = house.join("carol", json!(["resume"])).await;
    let (bob, _) = house.join("bob", json!([])).await;
    breaks(away).await;
    house.rooms.begin_shutdown();
    house.closer.send_replace(Some(Duration::from_secs(10)));
    for client in [alice, bob] {
        let (_, close, _) = client.is_let_go().await;
        assert_eq!(close.0, 1012);
    }
    tokio::task::yield_now().await;
    let survivors = house.survivors.take();
    let records: Vec<_> = survivors.iter().filter_map(|parked| parked.to_saved(1_000)).collect();
    assert_eq!(records.len(), 2);
    let written = serde_json::to_string(&records).unwrap();

    let next = House { tickets: house.tickets.clone(), ..House::new() };
    for record in serde_json::from_str::<Vec<SavedMember>>(&written).unwrap() {
        let parked =
            DetachedMember::restore(&next.rooms, record, 1_005, WINDOW, |ticket, outbox| {
                TestDoor.authorize(Credentials::ResumeToken(ticket), outbox)
            });
        let (parked, next) = (parked.unwrap(), next.clone());
        tokio::spawn(async move {
            parked.wait_for_resume(next.closer.subscribe(), &next.survivors, &next.metrics).await;
        });
    }
    assert_eq!(next.rooms.member_count("den"), Some(2));
    let (mut alice, told) = next.resume(&token, json!(3)).await;
    assert_eq!((&told["replayed"], &told["users"][0]["client_id"]), (&json!(1), &json!("carol")));
    let left = alice.hears().await;
    assert_eq!(
        (&left["seq"], &left["type"], &left["client_id"]),
        (&json!(4), &json!("user_left"), &json!("bob"))
    );
    sleep(WINDOW).await;
    assert_eq!(alice.hears().await["client_id"], "carol");
    assert_eq!(next.resume(&away_token, json!(1)).await.1["code"], "resume_failed");

    // What lies about for too long is nobody's seat any more, and a clock that was turned back gives none.
    for (now, left) in [(1_022, Duration::ZERO), (0, WINDOW)] {
        for record in serde_json::from_str::<Vec<SavedMember>>(&written).unwrap() {
            let admit = |ticket: &ResumeToken, outbox: &ClientQueue| {
                TestDoor.authorize(Credentials::ResumeToken(ticket), outbox)
            };
            let rooms = House::new().rooms;
            let parked = DetachedMember::restore(&rooms, record, now, WINDOW, admit).unwrap();
            assert_eq!(parked.remaining(), left);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ice_servers_are_renewed_while_there_is_time_for_those_who_want_them() {
    let house = House::new();
    let (mut alice, _) = house.join("alice", json!(["ice"])).await;
    let (mut bob, _) = house.join("bob", json!([])).await;
    let began = Instant::now();
    let mut heard = Vec::new();
    alice.hears().await;
    alice.hears().await;
    bob.hears().await;

    while heard.len() < 3 {
        for client in [&alice, &bob] {
            client.says.send(SocketEvent::Heartbeat).await.unwrap();
        }
        if let Ok(Some(Sent::Text(news))) =
            timeout(Duration::from_secs(5), alice.hears.recv()).await
        {
            heard.push((began.elapsed().as_secs(), news));
        }
    }

    for (at, (after, news)) in [80, 160, 240].into_iter().zip(heard) {
        assert_eq!((after, news), (at, json!({"type":"ice_servers","iceServers":[],"ttl":100})));
    }
    bob.hears_nothing_else().await;
}

#[tokio::test(start_paused = true)]
async fn who_came_later_gives_way_also_after_a_resume_and_in_the_next_process() {
    let house = House::new();
    let polite = |message: &Value| {
        message["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["polite"].as_bool().unwrap())
            .collect::<Vec<_>>()
    };
    let (first, first_token) = house.join("first", json!(["resume"])).await;
    let (mut second, second_token) = house.join("second", json!(["resume"])).await;
    assert_eq!(polite(&second.hears().await), [true]);
    let (mut third, third_token) = house.join("third", json!(["resume"])).await;
    assert_eq!(polite(&third.hears().await), [true, true]);
    assert_eq!(second.hears().await["polite"], false);
    breaks(first).await;

    let (first, told) = house.resume(&first_token, json!(1)).await;
    assert_eq!(polite(&told), [false, false]);
    house.rooms.begin_shutdown();
    house.closer.send_replace(Some(Duration::from_secs(10)));
    for client in [first, second, third] {
        client.is_let_go().await;
    }
    let survivors = house.survivors.take();
    let next = House { tickets: house.tickets.clone(), ..House::new() };
    for parked in survivors.iter().rev() {
        let record = parked.to_saved(1_000).unwrap();
        let parked =
            DetachedMember::restore(&next.rooms, record, 1_000, WINDOW, |ticket, outbox| {
                TestDoor.authorize(Credentials::ResumeToken(ticket), outbox)
            });
        std::mem::forget(parked.unwrap());
    }

    for (token, seq, expected) in [
        (third_token, 1, [true, true]),
        (first_token, 3, [false, false]),
        (second_token, 2, [true, false]),
    ] {
        let (client, told) = next.resume(&token, json!(seq)).await;
        let mut told = polite(&told);
        if expected == [true, false] {
            told.sort_unstable_by_key(|polite| !polite);
        }
        assert_eq!(told, expected);
        std::mem::forget(client);
    }
}
