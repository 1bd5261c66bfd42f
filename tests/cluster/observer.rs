//! A member that keeps, as a client does, the picture of its room, and notes every event that does not fit it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::eventually;
use crate::harness::{Client, SOON};

pub struct Observer {
    pub room: String,
    pub client_id: String,
    socket: SplitSink<WebSocketStream<MaybeTlsStream<TcpStream>>, Message>,
    seen: Arc<Mutex<Seen>>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    others: BTreeSet<String>,
    faults: Vec<String>,
    /// `joined x` and `left x`, in order.
    events: Vec<String>,
    /// What was said, with who said it.
    messages: Vec<(String, Value)>,
    errors: Vec<Value>,
    /// What administrators said.
    announcements: Vec<Value>,
    close: Option<(u16, String)>,
}

impl Observer {
    pub async fn enters(
        address: SocketAddr,
        room: &str,
        username: &str,
        token: &str,
        client_id: &str,
    ) -> Result<Self, (u16, String)> {
        let mut client = Client::connect(address, room, &[]).await.unwrap();
        client.hears().await;
        client.says(json!({"type":"auth_token","token":token,"clientId":client_id})).await;
        let there = loop {
            match timeout(SOON, client.socket.next()).await.expect("nothing heard") {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    match message["type"].as_str().unwrap() {
                        "auth_success" => assert_eq!(message["user"], username),
                        "users_in_room" => break message,
                        // A close follows, for somebody else may have taken the id over in the same moment.
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
        let ids = there["users"].as_array().unwrap().iter();
        let others = ids.map(|user| user["client_id"].as_str().unwrap().to_owned()).collect();
        let seen = Arc::new(Mutex::new(Seen { others, ..Seen::default() }));
        let (socket, mut heard) = client.socket.split();
        let noting = seen.clone();
        let listening = tokio::spawn(async move {
            while let Some(Ok(message)) = heard.next().await {
                match message {
                    Message::Text(text) => {
                        noting.lock().unwrap().hears(&serde_json::from_str(&text).unwrap());
                    }
                    Message::Close(Some(close)) => {
                        let close = (close.code.into(), close.reason.as_str().to_owned());
                        noting.lock().unwrap().close = Some(close);
                    }
                    _ => {}
                }
            }
        });
        let (room, client_id) = (room.to_owned(), client_id.to_owned());
        Ok(Self { room, client_id, socket, seen, listening })
    }

    pub async fn says(&mut self, message: Value) {
        let text = Message::text(message.to_string());
        timeout(SOON, self.socket.send(text)).await.expect("nobody reads this").unwrap();
    }

    /// Closes, and waits until the server has, too.
    pub async fn leaves(mut self) {
        self.socket.close().await.unwrap();
        timeout(SOON, self.listening).await.expect("not let go").unwrap();
    }

    pub fn sees(&self) -> Vec<String> {
        self.seen.lock().unwrap().others.iter().cloned().collect()
    }

    pub fn is_open(&self) -> bool {
        !self.listening.is_finished()
    }

    pub fn faults(&self) -> Vec<String> {
        self.seen.lock().unwrap().faults.clone()
    }

    pub fn events(&self) -> Vec<String> {
        self.seen.lock().unwrap().events.clone()
    }

    pub fn messages(&self) -> Vec<(String, Value)> {
        self.seen.lock().unwrap().messages.clone()
    }

    pub fn announcements(&self) -> Vec<Value> {
        self.seen.lock().unwrap().announcements.clone()
    }

    pub async fn hears_error(&self, code: &str) {
        let what = format!("{} hears {code}", self.client_id);
        eventually(&what, async || {
            self.seen.lock().unwrap().errors.iter().any(|error| error["code"] == code)
        })
        .await;
    }

    pub async fn hears_from(&self, from: &str, data: Value) {
        let said = (from.to_owned(), data);
        let what = format!("{} hears {said:?}; it saw {:?}", self.client_id, self.events());
        eventually(&what, async || self.messages().contains(&said)).await;
    }

    pub async fn is_closed_with(&self) -> (u16, String) {
        eventually("it is closed", async || self.seen.lock().unwrap().close.is_some()).await;
        self.seen.lock().unwrap().close.clone().unwrap()
    }
}

impl Seen {
    fn hears(&mut self, message: &Value) {
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        let id = text("client_id");
        match message["type"].as_str().unwrap() {
            "user_joined" => {
                self.events.push(format!("joined {id}"));
                if !self.others.insert(id.clone()) {
                    self.faults.push(format!("{id} joined twice"));
                }
                self.counts(message);
            }
            "user_left" => {
                self.events.push(format!("left {id}"));
                if !self.others.remove(&id) {
                    self.faults.push(format!("{id} left, and was not there"));
                }
                self.counts(message);
            }
            "error" => self.errors.push(message.clone()),
            "server_message" => self.announcements.push(message["data"].clone()),
            "pong" | "server_shutdown" => {}
            _ => {
                let from = text("from");
                if !self.others.contains(&from) {
                    self.faults.push(format!("{from} spoke, and was not there"));
                }
                self.messages.push((from, message["data"].clone()));
            }
        }
    }

    fn counts(&mut self, message: &Value) {
        if message["connected_users"] != self.others.len() + 1 {
            self.faults.push(format!("{message}, and there are {}", self.others.len() + 1));
        }
    }
}
