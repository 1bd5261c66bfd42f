//! Ten thousand clients that vanish, each in one of the ways there are, and those who watch them.

use std::{collections::BTreeSet, net::SocketAddr};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use crate::{
    attacks::raw::{CLOSE, Raw, RawSocket, TEXT, frame, upgrade},
    harness::{
        TEST_TIMEOUT, eventually,
        process::RestartableServer,
        resumable::{RESUME, ResumableClient},
    },
};

const VISITS: usize = 10_000;
/// So many are there at a time, beside those that are away.
const AT_A_TIME: usize = 96;
const ROOMS: usize = 32;
/// One in so many stays to the end.
const STAYS: usize = 100;

/// How somebody vanishes.
#[derive(Clone, Copy)]
enum Whim {
    BeforeTheHandshake,
    BeforeItsToken,
    InTheMiddleOfItsToken,
    WithoutWaiting,
    ByReset,
    ByHangingUp,
    InTheMiddleOfAFrame,
    ForGood,
    AndReturns,
    AndReturnsTwice,
}

const WAYS_TO_BREAK: [Whim; 10] = [
    Whim::BeforeTheHandshake,
    Whim::BeforeItsToken,
    Whim::InTheMiddleOfItsToken,
    Whim::WithoutWaiting,
    Whim::ByReset,
    Whim::ByHangingUp,
    Whim::InTheMiddleOfAFrame,
    Whim::ForGood,
    Whim::AndReturns,
    Whim::AndReturnsTwice,
];

struct Visitor {
    address: SocketAddr,
    room: String,
    id: String,
    token: String,
}

impl Visitor {
    fn auth(&self, features: &[&str]) -> Vec<u8> {
        let (token, id) = (&self.token, &self.id);
        let auth = json!({"type":"auth_token","token":token,"clientId":id,"features":features});
        frame(TEXT, auth.to_string().as_bytes())
    }

    /// A member, and its resume token.
    async fn join(&self, features: &[&str]) -> (RawSocket, Value) {
        let mut socket = RawSocket::open(self.address, &self.room).await;
        assert_eq!(socket.receive().await["type"], "auth_required");
        socket.write(self.auth(features)).await;
        let mut success = socket.receive().await;
        assert_eq!(success["type"], "auth_success", "{success}");
        assert_eq!(socket.receive().await["type"], "users_in_room");
        (socket, success["resume_token"].take())
    }

    /// Comes back as somebody who has heard `users_in_room` and nothing else; what it is told.
    async fn resume(&self, ticket: &Value) -> (RawSocket, Value) {
        let mut socket = RawSocket::open(self.address, &self.room).await;
        assert_eq!(socket.receive().await["type"], "auth_required");
        socket.send(&json!({"type":"resume","resume_token":ticket,"last_seq":1})).await;
        let answer = socket.receive().await;
        (socket, answer)
    }

    /// How often it has come back.
    async fn visits(&self, whim: Whim) -> usize {
        let mut returns = 0;
        match whim {
            Whim::BeforeTheHandshake => {
                let mut raw = Raw::connect(self.address).await;
                raw.write(upgrade(&self.room)).await;
                raw.reset();
            }
            Whim::BeforeItsToken => RawSocket::open(self.address, &self.room).await.raw.reset(),
            Whim::InTheMiddleOfItsToken => {
                let mut socket = RawSocket::open(self.address, &self.room).await;
                let auth = self.auth(RESUME);
                socket.write(&auth[..auth.len() / 2]).await;
                socket.raw.reset();
            }
            Whim::WithoutWaiting => {
                let mut raw = Raw::connect(self.address).await;
                raw.write(upgrade(&self.room) + "\r\n").await;
                raw.write(self.auth(&[])).await;
                raw.answer().await.unwrap();
                raw.reset();
            }
            Whim::ByReset => self.join(&[]).await.0.raw.reset(),
            Whim::ByHangingUp => drop(self.join(&[]).await),
            Whim::InTheMiddleOfAFrame => {
                let mut socket = self.join(RESUME).await.0;
                let message = frame(TEXT, br#"{"type":"message","data":"half of this is said"}"#);
                socket.write(&message[..message.len() / 2]).await;
                socket.raw.reset();
            }
            Whim::ForGood => self.join(RESUME).await.0.raw.reset(),
            Whim::AndReturns | Whim::AndReturnsTwice => {
                let (socket, mut ticket) = self.join(RESUME).await;
                socket.raw.reset();
                let times = if matches!(whim, Whim::AndReturns) { 1 } else { 2 };
                for time in 1..=times {
                    let (mut socket, mut answer) = self.resume(&ticket).await;
                    if answer["type"] != "resumed" {
                        // Later than the second that the window is long: it left meanwhile.
                        assert_eq!(answer["code"], "resume_failed", "{answer}");
                        break;
                    }
                    returns += 1;
                    ticket = answer["resume_token"].take();
                    if time == 1 && times == 1 {
                        socket.write(frame(CLOSE, &[])).await;
                    }
                    socket.raw.reset();
                }
            }
        }
        returns
    }
}

/// What somebody has seen who folds what it hears.
#[derive(Default)]
struct Picture {
    here: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Picture {
    fn fold(&mut self, message: &Value) {
        let id = message["client_id"].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str().unwrap() {
            "user_joined" => {
                assert!(!self.gone.contains(&id), "{id} joined after it had left");
                assert!(self.here.insert(id), "joined twice: {message}");
            }
            "user_left" => {
                assert!(self.here.remove(&id), "left without being there, or twice: {message}");
                self.gone.insert(id);
            }
            other => panic!("{other}: {message}"),
        }
        let count = message["connected_users"].as_u64().unwrap();
        // Everybody but oneself is in the picture.
        assert_eq!(count, self.here.len() as u64 + 1, "{message}");
    }
}

/// Somebody who watches a room until it is asked what it has seen.
struct RoomObserver {
    asked: oneshot::Sender<()>,
    watching: JoinHandle<(Picture, ResumableClient)>,
}

impl RoomObserver {
    async fn join(address: SocketAddr, room: usize, id: &str, token: &str) -> Self {
        let room = format!("room{room}");
        let (mut member, there) =
            ResumableClient::join_and_list(address, &room, id, token, RESUME).await;
        let mut picture = Picture { here: there.into_iter().collect(), ..Picture::default() };
        let (asked, mut is_asked) = oneshot::channel();
        let watching = tokio::spawn(async move {
            loop {
                tokio::select! {
                    message = member.watch() => picture.fold(&message),
                    _ = &mut is_asked => break,
                }
            }
            member.receive_pending().await.iter().for_each(|message| picture.fold(message));
            (picture, member)
        });
        Self { asked, watching }
    }

    /// What it has seen; it stays in its room for as long as the client is kept.
    async fn finish(self) -> (Picture, ResumableClient) {
        self.asked.send(()).unwrap();
        timeout(TEST_TIMEOUT, self.watching).await.expect("still watching").unwrap()
    }
}

/// Some of the visits, one after the other; who stays, by room, and how many have come back.
async fn some_visits(
    address: SocketAddr,
    token: String,
    numbers: impl Iterator<Item = usize>,
) -> (Vec<(usize, String, RawSocket)>, usize) {
    let (mut staying, mut returns) = (Vec::new(), 0);
    for number in numbers {
        let room = number % ROOMS;
        let (id, token) = (format!("alice-{number}"), token.clone());
        let visitor = Visitor { address, room: format!("room{room}"), id, token };
        if number % STAYS == STAYS - 1 {
            let (socket, _) = visitor.join(&[]).await;
            staying.push((room, visitor.id, socket));
        } else {
            // Not the same way in a room each time.
            returns +=
                visitor.visits(WAYS_TO_BREAK[(number + number / 7) % WAYS_TO_BREAK.len()]).await;
        }
    }
    (staying, returns)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_ten_thousand_broken_connections_all_members_have_the_same_list() {
    let server = RestartableServer::start(&[
        ("RESUME_WINDOW_SECONDS", "1"),
        ("MAX_CONNECTIONS_PER_ROOM", "50"),
        // Who stays says nothing, for as long as a busy machine takes for all visits.
        ("WEBSOCKET_TIMEOUT", "3600"),
        ("LOG_LEVEL", "INFO"),
    ])
    .await;
    let (address, token) = (server.address(), server.token("alice").await);
    let mut observers = Vec::new();
    let mut staying = Vec::new();
    let mut returns = 0;

    // Who comes in half-way sees the same in the end.
    for half in 0..2 {
        for room in 0..ROOMS {
            let id = format!("observer-{half}-{room}");
            observers.push((room, RoomObserver::join(address, room, &id, &token).await));
        }
        let visits = (0..AT_A_TIME).map(|first| {
            let numbers = (half * VISITS / 2..(half + 1) * VISITS / 2).skip(first);
            tokio::spawn(some_visits(address, token.clone(), numbers.step_by(AT_A_TIME)))
        });
        for visits in join_all(visits).await {
            let (more, again) = visits.unwrap();
            staying.extend(more);
            returns += again;
        }
    }
    let there = observers.len() + staying.len();
    eventually(&format!("{there} are there"), async || {
        let health = server.health().await;
        let is_right =
            (&health["active_connections"], &health["rooms"]) == (&json!(there), &json!(ROOMS));
        if is_right { Ok(()) } else { Err(health) }
    })
    .await;

    let mut seen = 0;
    let mut still_there = Vec::new();
    for (number, (room, observer)) in observers.into_iter().enumerate() {
        let (picture, member) = observer.finish().await;
        still_there.push(member);
        let others = staying.iter().filter(|(other, ..)| *other == room);
        let mut expected: BTreeSet<_> = others.map(|(_, id, _)| id.clone()).collect();
        expected.insert(format!("observer-{}-{room}", usize::from(number < ROOMS)));
        assert_eq!(picture.here, expected);
        seen += picture.gone.len();
    }
    assert!(returns > VISITS / 10 && seen > VISITS / 2, "{returns} returns, {seen} seen");
}
