//! A session over a socket made of two channels, on a clock that the tests move.

use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// The server's end of a socket.
struct Line {
    arriving: mpsc::Receiver<Received>,
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
    async fn receive(&mut self) -> Option<Received> {
        self.arriving.recv().await
    }

    async fn send(&mut self, frames: &[ByteString]) -> Result<(), Broken> {
        for frame in frames {
            self.write(Sent::Text(serde_json::from_str(frame).unwrap())).await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Broken> {
        self.write(Sent::Ping).await
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), Broken> {
        self.write(Sent::Close(code, reason)).await
    }
}

impl Line {
    async fn write(&mut self, sent: Sent) -> Result<(), Broken> {
        self.leaving.send(sent).await.map_err(|_| Broken)
    }
}

/// The client's end, and how the session ended.
struct Client {
    says: mpsc::Sender<Received>,
    hears: mpsc::Receiver<Sent>,
    session: JoinHandle<Goodbye>,
    rooms: Rooms,
    closer: watch::Sender<Option<Duration>>,
}

impl Client {
    async fn says(&self, message: Value) {
        self.says.send(Received::Text(message.to_string().into())).await.unwrap();
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

    async fn joined(mut self) -> Self {
        assert_eq!(self.hears().await["type"], "auth_required");
        self.says(json!({"type":"auth_token","token":"alice 60","clientId":"a"})).await;
        assert_eq!(self.hears().await["type"], "auth_success");
        assert_eq!(self.hears().await["type"], "users_in_room");
        self
    }

    /// What comes before the end, and the end; the client closes its side in turn.
    async fn is_let_go(mut self) -> (Vec<Value>, (u16, &'static str), Goodbye) {
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

/// A door that takes tokens of the form `<user> <seconds>`, and panics where those are no number.
fn door(claim: Claim<'_>, _: &Outbox) -> Result<Admission, Refusal> {
    let Claim::Token(token) = claim else { panic!("no guests here") };
    let (username, seconds) = token.split_once(' ').ok_or(Refusal::BadToken)?;
    let expires_in = Some(Duration::from_secs(seconds.parse().unwrap()));
    Ok(Admission { username: username.into(), expires_in, ice_servers: Vec::new(), grant: None })
}

fn connect_with(rules: Rules, width: usize) -> Client {
    let (closer, closing) = watch::channel(None);
    let rooms = Rooms::new(10);
    let (says, arriving) = mpsc::channel(64);
    let (leaving, hears) = mpsc::channel(width);
    let (room, address) = ("den".into(), [127, 0, 0, 1].into());
    let metrics = Arc::default();
    let host = Host { rooms: rooms.clone(), room, address, rules, metrics, door, closing };
    let session = tokio::spawn(async move { run(&mut Line { arriving, leaving }, &host).await });
    Client { says, hears, session, rooms, closer }
}

fn rules() -> Rules {
    Rules {
        patience: PATIENCE,
        messages_per_second: 50,
        message_burst: 250,
        guests: false,
        enforce_token_expiry: true,
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
        (vec![], (1008, "Authentication required"), Goodbye::AuthRequired)
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
        while says.send(Received::Heartbeat).await.is_ok() {
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
        connect_with(Rules { enforce_token_expiry: false, ..rules() }, 64).joined().await;

    for _ in 0..100 {
        assert_eq!(client.hears.recv().await, Some(Sent::Ping));
        client.says.send(Received::Heartbeat).await.unwrap();
    }

    assert_eq!(client.rooms.info("den"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn somebody_with_more_to_hear_than_he_can_read_is_heard_all_the_same() {
    let rules = Rules { enforce_token_expiry: false, ..rules() };
    let mut client = connect_with(rules, 1).joined().await;
    let (bob, _mailbox) = outbox::pair();
    let peer = Peer { client_id: "b".into(), username: "bob".into() };
    let bob = Seat::take(&client.rooms, &"den".into(), peer, bob).unwrap();
    let chatter = tokio::spawn(async move {
        loop {
            let frame = r#"{"type":"message","data":1}"#;
            let Ok(ClientMessage::Signal(signal)) = wire::read(frame).message else { panic!() };
            bob.send(&signal, Instant::now()).unwrap();
            sleep(Duration::from_millis(150)).await;
        }
    });
    let says = client.says.clone();
    let talking = tokio::spawn(async move {
        for _ in 0..60 {
            says.send(Received::Text(r#"{"type":"ping"}"#.into())).await.unwrap();
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
        while says.send(Received::Heartbeat).await.is_ok() {
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
        connect_with(Rules { enforce_token_expiry: false, ..rules() }, 64).joined().await;

    for _ in 0..1000 {
        assert_eq!(client.hears.recv().await, Some(Sent::Ping));
        client.says.send(Received::Heartbeat).await.unwrap();
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
        says.send(Received::Text(json!({"type":"ping"}).to_string().into())).await.unwrap();
    }
    let Client { session, rooms, .. } = &mut client;
    let goodbye = session.await.unwrap();

    assert_eq!(goodbye, Goodbye::TooSlow);
    assert_eq!(began.elapsed(), PATIENCE + LAST_WORDS);
    assert_eq!(rooms.info("den"), None);
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
    let _seat = Seat::take(&client.rooms, &"den".into(), newer, outbox::pair().0).unwrap();
    let goodbye = client.session.await.unwrap();

    assert_eq!(goodbye, Goodbye::Replaced);
    assert_eq!(began.elapsed(), Duration::from_secs(1) + LAST_WORDS);
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
        connect_with(Rules { message_burst: 5, messages_per_second: 1, ..rules() }, 64)
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
    assert_eq!((close, goodbye), ((1011, "Internal error"), Goodbye::Internal));
    assert_eq!(rooms.members(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_text_message_ends_the_session_with_its_own_code() {
    for (received, code) in [
        (Received::Binary, 1003),
        (Received::NotUtf8, 1007),
        (Received::TooBig, 1009),
        (Received::Malformed, 1002),
    ] {
        let client = connect().joined().await;

        client.says.send(received).await.unwrap();
        let rooms = client.rooms.clone();
        let (before, close, _) = client.is_let_go().await;

        assert_eq!(
            (close.0, before[0]["type"].as_str(), before[0]["retry"].as_bool()),
            (code, Some("error"), Some(false))
        );
        assert_eq!(rooms.members(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn every_close_code_is_one_of_the_contract() {
    let all = [
        Goodbye::Silent,
        Goodbye::AuthRequired,
        Goodbye::InvalidToken,
        Goodbye::NoSuchUser,
        Goodbye::Blocked,
        Goodbye::RoomNotAllowed,
        Goodbye::TooManyConnections,
        Goodbye::RoomFull,
        Goodbye::ClientIdTaken,
        Goodbye::InvalidClientId,
        Goodbye::RateLimited,
        Goodbye::TokenExpired,
        Goodbye::LoggedOut,
        Goodbye::Replaced,
        Goodbye::AccountGone,
        Goodbye::TooSlow,
        Goodbye::Binary,
        Goodbye::NotUtf8,
        Goodbye::TooBig,
        Goodbye::Malformed,
        Goodbye::Restarting(PATIENCE),
        Goodbye::Draining,
        Goodbye::Internal,
    ];
    for goodbye in all {
        let parting = goodbye.parting().unwrap();

        assert!(
            [1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4001, 4003]
                .contains(&parting.close)
        );
        assert!(
            parting.reason.len() <= 123,
            "RFC 6455 section 5.5: a control frame has at most 125 bytes"
        );
    }
}
