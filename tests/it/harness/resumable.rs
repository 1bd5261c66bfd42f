//! A client that counts what it receives, as one does that resumes.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, tungstenite::Message};

use super::{Client, TEST_TIMEOUT};

/// The features of members that may resume; and of those that want their peers' states, too.
pub const RESUME: &[&str] = &["resume"];
pub const RESUME_AND_STATES: &[&str] = &["resume", "peer_state"];

/// A member that checks the number of every message.
pub struct ResumableClient {
    pub client: Client,
    room: String,
    resume_token: String,
    last_seq: u64,
    is_numbered: bool,
}

impl ResumableClient {
    pub async fn join(
        address: SocketAddr,
        room: &str,
        client_id: &str,
        token: &str,
        features: &[&str],
    ) -> Self {
        Self::join_and_list(address, room, client_id, token, features).await.0
    }

    /// A new member, and the client ids in its `users_in_room`.
    pub async fn join_and_list(
        address: SocketAddr,
        room: &str,
        client_id: &str,
        token: &str,
        features: &[&str],
    ) -> (Self, Vec<String>) {
        let client = Client::connect(address, room, &[]).await.unwrap();
        let (room, resume_token) = (room.to_owned(), String::new());
        let mut member = Self { client, room, resume_token, last_seq: 0, is_numbered: false };
        assert_eq!(member.receive().await["type"], "auth_required");
        let peers = member.authenticate(client_id, token, features).await;
        (member, peers)
    }

    /// The ordinary handshake after `auth_required`; the client ids in `users_in_room`.
    pub async fn authenticate(
        &mut self,
        client_id: &str,
        token: &str,
        features: &[&str],
    ) -> Vec<String> {
        let auth =
            json!({"type":"auth_token","token":token,"clientId":client_id,"features":features});
        self.send(auth).await;
        let success = self.receive().await;
        assert_eq!(success["type"], "auth_success", "{success}");
        self.resume_token = success["resume_token"].as_str().unwrap().to_owned();
        (self.last_seq, self.is_numbered) = (0, features.contains(&"resume"));
        self.client.id = client_id.to_owned();
        let peers = self.receive().await;
        assert_eq!(peers["type"], "users_in_room");
        client_ids(&peers)
    }

    /// Asks on a new socket to resume; that socket, and the answer. The old socket stays as it is.
    pub async fn try_resume(&self, address: SocketAddr) -> (Self, Value) {
        let client = Client::connect(address, &self.room, &[]).await.unwrap();
        let (room, resume_token) = (self.room.clone(), self.resume_token.clone());
        let mut new = Self { client, room, resume_token, ..*self };
        assert_eq!(new.client.receive().await["type"], "auth_required");
        let (resume_token, last_seq) = (&self.resume_token, self.last_seq);
        new.send(json!({"type":"resume","resume_token":resume_token,"last_seq":last_seq})).await;
        let answer = new.client.receive().await;
        if answer["type"] == "resumed" {
            assert_eq!(answer["client_id"], self.client.id);
            new.client.id = self.client.id.clone();
            new.resume_token = answer["resume_token"].as_str().unwrap().to_owned();
        }
        (new, answer)
    }

    /// Resumes with the token of this message from now on.
    pub fn keep_resume_token(&mut self, message: &Value) {
        self.resume_token = message["resume_token"].as_str().unwrap().to_owned();
    }

    /// Resumes on a new socket; the `resumed` message.
    pub async fn resume(&mut self, address: SocketAddr) -> Value {
        let (new, answer) = self.try_resume(address).await;
        assert_eq!(answer["type"], "resumed", "{answer}");
        *self = new;
        answer
    }

    /// Cannot resume, and has a new socket for the ordinary handshake.
    pub async fn assert_resume_fails(&mut self, address: SocketAddr) {
        let (new, answer) = self.try_resume(address).await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!("resume_failed")));
        *self = new;
    }

    /// Ends its side of the connection without a close frame.
    pub async fn drop_connection(&mut self) {
        let MaybeTlsStream::Plain(stream) = self.client.socket.get_mut() else { unreachable!() };
        let _ = stream.shutdown().await; // it may have been reset
    }

    pub async fn send(&mut self, message: Value) {
        assert!(self.try_send(message).await, "the connection is gone");
    }

    /// Whether there was still a connection to send on; whether the message arrives is another thing.
    pub async fn try_send(&mut self, message: Value) -> bool {
        let sending = self.client.socket.send(Message::text(message.to_string()));
        timeout(TEST_TIMEOUT, sending).await.expect("the server does not read").is_ok()
    }

    pub async fn receive(&mut self) -> Value {
        self.try_receive().await.expect("the connection is gone")
    }

    /// The next message, whose number must be the next one; nothing where the connection breaks or closes.
    pub async fn try_receive(&mut self) -> Option<Value> {
        let text = timeout(TEST_TIMEOUT, self.next_text()).await;
        let text = text.unwrap_or_else(|_| panic!("{} received nothing", self.client.id))?;
        Some(self.check_number(&text))
    }

    /// The next message, however long nothing happens in the room.
    pub async fn watch(&mut self) -> Value {
        let text = self.next_text().await.expect("the connection is gone");
        self.check_number(&text)
    }

    /// All messages up to the Pong that answers our own Ping: everything that was sent before is handled then.
    pub async fn receive_until_pong(&mut self) -> Vec<Value> {
        self.client.send_frame(Message::Ping("handled?".into())).await;
        let mut messages = Vec::new();
        loop {
            let frame = timeout(TEST_TIMEOUT, self.client.socket.next()).await;
            match frame.expect("no Pong was received").unwrap().unwrap() {
                Message::Text(text) => messages.push(self.check_number(text.as_str())),
                Message::Pong(payload) if payload == "handled?" => return messages,
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no message"),
            }
        }
    }

    fn check_number(&mut self, text: &str) -> Value {
        let message: Value = serde_json::from_str(text).unwrap();
        match message["seq"].as_u64() {
            Some(seq) => {
                assert!(self.is_numbered && seq == self.last_seq + 1, "{}: {text}", self.last_seq);
                self.last_seq = seq;
            }
            None => {
                let of_the_connection =
                    ["auth_required", "auth_success", "server_shutdown"].map(Value::from);
                let is_last_error = message["type"] == "error" && !message["retry"].is_null();
                let may_have_none = of_the_connection.contains(&message["type"]) || is_last_error;
                assert!(!self.is_numbered || may_have_none, "without a number: {text}");
            }
        }
        message
    }

    async fn next_text(&mut self) -> Option<String> {
        loop {
            match self.client.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                // A close frame is answered by asking for more.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Err(_)) | None => return None,
                Some(Ok(other)) => panic!("{other:?} is no message"),
            }
        }
    }

    /// The next message, which is of this type.
    pub async fn receive_type(&mut self, kind: &str) -> Value {
        let message = self.receive().await;
        assert_eq!(message["type"], kind, "{}: {message}", self.client.id);
        message
    }

    /// The `data` of the next message, which a peer has sent.
    pub async fn receive_data(&mut self) -> Value {
        self.receive_type("message").await["data"].take()
    }

    /// The client id and the state in the next message, which is a `peer_state`.
    pub async fn receive_peer_state(&mut self) -> (String, String) {
        let message = self.receive_type("peer_state").await;
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        (text("client_id"), text("state"))
    }

    /// Shows that no message is waiting: the next one answers our own ping, and the server answers in order.
    pub async fn assert_no_more_messages(&mut self) {
        assert_eq!(self.receive_pending().await, [] as [Value; 0]);
    }

    /// All messages that are waiting, up to the answer to our own ping.
    pub async fn receive_pending(&mut self) -> Vec<Value> {
        self.send(json!({"type":"ping"})).await;
        let mut pending = Vec::new();
        loop {
            let message = self.receive().await;
            if message["type"] == "pong" {
                return pending;
            }
            pending.push(message);
        }
    }

    /// All messages until the connection is gone; then ends its own side, too.
    pub async fn receive_until_closed(&mut self) -> Vec<Value> {
        let mut rest = Vec::new();
        while let Some(message) = self.try_receive().await {
            rest.push(message);
        }
        self.drop_connection().await;
        rest
    }
}

/// The client ids in `users_in_room` and `resumed`.
pub fn client_ids(message: &Value) -> Vec<String> {
    let ids = message["users"].as_array().unwrap().iter().map(|user| &user["client_id"]);
    ids.map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// One field of each message of this type.
pub fn of_type(messages: &[Value], kind: &str, field: &str) -> Vec<Value> {
    let chosen = messages.iter().filter(|message| message["type"] == kind);
    chosen.map(|message| message[field].clone()).collect()
}
