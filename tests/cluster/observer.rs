//! A member that keeps the list of its peers, as a client does, and notes every message that does not fit it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use crate::harness::{Client, TEST_TIMEOUT, eventually};

pub struct RoomObserver {
    pub room: String,
    pub client_id: String,
    socket: SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>,
    received: Arc<Mutex<Received>>,
    reading: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    peers: BTreeSet<String>,
    violations: Vec<String>,
    /// `joined x` and `left x`, in order.
    events: Vec<String>,
    /// The data of messages, each with its sender.
    messages: Vec<(String, Value)>,
    errors: Vec<Value>,
    /// The data of messages from administrators.
    announcements: Vec<Value>,
    close: Option<(u16, String)>,
}

impl RoomObserver {
    pub async fn join(
        address: SocketAddr,
        room: &str,
        username: &str,
        token: &str,
        client_id: &str,
    ) -> Result<Self, (u16, String)> {
        let mut client = Client::connect(address, room, &[]).await.unwrap();
        client.receive().await;
        client.send(json!({"type":"auth_token","token":token,"clientId":client_id})).await;
        let list = loop {
            match timeout(TEST_TIMEOUT, client.socket.next()).await.expect("nothing received") {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    match message["type"].as_str().unwrap() {
                        "auth_success" => assert_eq!(message["user"], username),
                        "users_in_room" => break message,
                        // A close follows: another connection may have taken the client id over in the same moment.
                        _ => {}
                    }
                }
                Some(Ok(Message::Close(Some(close)))) => {
                    return Err((close.code.into(), close.reason.as_str().to_owned()));
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        let ids = list["users"].as_array().unwrap().iter();
        let peers = ids.map(|user| user["client_id"].as_str().unwrap().to_owned()).collect();
        let received = Arc::new(Mutex::new(Received { peers, ..Received::default() }));
        let (socket, mut incoming) = client.socket.split();
        let noted = received.clone();
        let reading = tokio::spawn(async move {
            while let Some(Ok(message)) = incoming.next().await {
                match message {
                    Message::Text(text) => {
                        noted.lock().unwrap().note(&serde_json::from_str(&text).unwrap());
                    }
                    Message::Close(Some(close)) => {
                        let close = (close.code.into(), close.reason.as_str().to_owned());
                        noted.lock().unwrap().close = Some(close);
                    }
                    _ => {}
                }
            }
        });
        let (room, client_id) = (room.to_owned(), client_id.to_owned());
        Ok(Self { room, client_id, socket, received, reading })
    }

    pub async fn send(&mut self, message: Value) {
        let text = Message::text(message.to_string());
        let sending = self.socket.send(text);
        timeout(TEST_TIMEOUT, sending).await.expect("the server does not read").unwrap();
    }

    /// Closes, and waits until the server has closed, too.
    pub async fn leave(mut self) {
        self.socket.close().await.unwrap();
        timeout(TEST_TIMEOUT, self.reading).await.expect("not closed").unwrap();
    }

    /// The client ids of its peers, sorted.
    pub fn peers(&self) -> Vec<String> {
        self.received.lock().unwrap().peers.iter().cloned().collect()
    }

    pub fn is_open(&self) -> bool {
        !self.reading.is_finished()
    }

    pub fn violations(&self) -> Vec<String> {
        self.received.lock().unwrap().violations.clone()
    }

    pub fn events(&self) -> Vec<String> {
        self.received.lock().unwrap().events.clone()
    }

    /// How many of its peers have left, as it has received.
    pub fn peers_left(&self) -> usize {
        self.events().iter().filter(|event| event.starts_with("left")).count()
    }

    pub fn messages(&self) -> Vec<(String, Value)> {
        self.received.lock().unwrap().messages.clone()
    }

    /// The ids of its messages that may not have arrived.
    pub fn unreachable_ids(&self) -> BTreeSet<u64> {
        let received = self.received.lock().unwrap();
        let errors = received.errors.iter().filter(|error| error["code"] == "target_unreachable");
        errors.filter_map(|error| error["id"].as_u64()).collect()
    }

    pub fn announcements(&self) -> Vec<Value> {
        self.received.lock().unwrap().announcements.clone()
    }

    pub async fn wait_for_error(&self, code: &str) {
        eventually(&format!("{} receives {code}", self.client_id), async || {
            self.received.lock().unwrap().errors.iter().any(|error| error["code"] == code)
        })
        .await;
    }

    pub async fn wait_for_message(&self, from: &str, data: Value) {
        let message = (from.to_owned(), data);
        eventually(&format!("{} receives {message:?}", self.client_id), async || {
            let is_there = self.messages().contains(&message);
            if is_there { Ok(()) } else { Err((self.events(), self.messages())) }
        })
        .await;
    }

    /// Waits for the server's close code and reason.
    pub async fn close(&self) -> (u16, String) {
        eventually("it is closed", async || {
            self.received.lock().unwrap().close.clone().ok_or("still open")
        })
        .await
    }
}

impl Received {
    fn note(&mut self, message: &Value) {
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        let id = text("client_id");
        match message["type"].as_str().unwrap() {
            "user_joined" => {
                self.events.push(format!("joined {id}"));
                if !self.peers.insert(id.clone()) {
                    self.violations.push(format!("{id} joined twice"));
                }
                self.check_count(message);
            }
            "user_left" => {
                self.events.push(format!("left {id}"));
                if !self.peers.remove(&id) {
                    self.violations.push(format!("{id} left without having joined"));
                }
                self.check_count(message);
            }
            "error" => self.errors.push(message.clone()),
            "server_message" => self.announcements.push(message["data"].clone()),
            "pong" | "server_shutdown" => {}
            _ => {
                let from = text("from");
                if !self.peers.contains(&from) {
                    self.violations.push(format!("a message from {from}, which is no peer"));
                }
                self.messages.push((from, message["data"].clone()));
            }
        }
    }

    fn check_count(&mut self, message: &Value) {
        if message["connected_users"] != self.peers.len() + 1 {
            self.violations.push(format!("{message}, and there are {}", self.peers.len() + 1));
        }
    }
}
