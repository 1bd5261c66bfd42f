//! What networks, machines and crowds do to a call: cuts, crashes, sleep, wrong clocks, full disks.
//!
//! Server processes and sockets are real. Messages are numbered, so what is lost or doubled shows.

pub mod client;
mod clock;
mod crowd;
mod network;
pub mod proxy;
mod restart;
mod sleep;
mod state_file;

use std::{fs, net::SocketAddr, process::ExitStatus};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, tungstenite::Message};

use crate::{
    harness::{Client, PASSWORD, SOON, users_file},
    process::Process,
};

pub const ROOM: &str = "den";

/// Members that may come back; and those that want to hear who is away, too.
pub const RESUME: &[&str] = &["resume"];
pub const RESUME_AND_STATES: &[&str] = &["resume", "peer_state"];

/// A server process that can be started again where it was: same port, same folder.
pub struct House {
    pub folder: TempDir,
    pub server: Process,
    settings: Vec<(String, String)>,
}

impl House {
    pub async fn open(settings: &[(&str, &str)]) -> Self {
        Self::open_in(tempfile::tempdir().unwrap(), settings).await
    }

    /// `{folder}` in a setting stands for where the server runs.
    async fn open_in(folder: TempDir, settings: &[(&str, &str)]) -> Self {
        let users = users_file(&["alice", "bob", "carol", "dave"], 4);
        fs::write(folder.path().join("users.csv"), users).unwrap();
        let usual = [
            ("DEBUG", "true"),
            ("LOG_LEVEL", "INFO"),
            ("LOG_FORMAT", "json"),
            ("REQUIRE_HTTPS", "false"),
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("MAX_CONNECTIONS_PER_IP", "0"),
            ("TURN_PROBE_SECONDS", "0"),
            ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
            ("WEBSOCKET_MESSAGE_BURST", "100000"),
            ("SECRET_KEY", "own-key-of-the-house-0123456789abcdef"),
            ("JWT_SECRET_KEY", "jwt-key-of-the-house-0123456789abcdef"),
        ];
        let placed = |text: &str| text.replace("{folder}", folder.path().to_str().unwrap());
        let settings = usual.iter().chain(settings);
        let mut settings: Vec<_> =
            settings.map(|&(name, value)| (name.to_owned(), placed(value))).collect();
        let server = Self::start(&folder, &settings).await;
        let port = server.address.rsplit_once(':').unwrap().1;
        settings.push(("PORT".to_owned(), port.to_owned()));
        Self { folder, server, settings }
    }

    async fn start(folder: &TempDir, settings: &[(String, String)]) -> Process {
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Process::start(folder, &settings.collect::<Vec<_>>()).await
    }

    /// The next process, after the one before has ended.
    pub async fn opens_again(&mut self) {
        self.server = Self::start(&self.folder, &self.settings).await;
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address.parse().unwrap()
    }

    pub async fn signal(&self, name: &str) {
        let pid = self.server.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    }

    /// Stops the process in order; what it has logged of level ERROR.
    pub async fn stops(&mut self) -> Vec<String> {
        assert_eq!(self.server.ends_after("-TERM").await.code(), Some(0));
        self.server.says("\"closed\"").await;
        self.errors()
    }

    /// Waits until the process has ended by itself.
    pub async fn ends(&mut self) -> ExitStatus {
        timeout(SOON, self.server.child.wait()).await.expect("it goes on").unwrap()
    }

    /// What has been read of the log so far, of level ERROR.
    fn errors(&self) -> Vec<String> {
        let is_error = |line: &&String| line.contains("\"level\":\"ERROR\"");
        self.server.said.iter().filter(is_error).cloned().collect()
    }

    pub async fn token(&self, username: &str) -> String {
        let request = reqwest::Client::new().post(format!("http://{}/auth/login", self.address()));
        let login = json!({"username":username,"password":PASSWORD});
        let answer = timeout(SOON, request.json(&login).send()).await.expect("no answer").unwrap();
        answer.json::<Value>().await.unwrap()["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn health(&self) -> Value {
        let asked = reqwest::get(format!("http://{}/health", self.address()));
        let answer = timeout(SOON, asked).await.expect("no answer").unwrap();
        answer.json().await.unwrap()
    }

    /// A member of [`ROOM`] whose client id is its name.
    pub async fn join(&self, username: &str, features: &[&str]) -> Member {
        self.join_through(self.address(), username, features).await
    }

    async fn join_through(&self, address: SocketAddr, username: &str, features: &[&str]) -> Member {
        let token = self.token(username).await;
        Member::enters(address, ROOM, username, &token, features).await
    }
}

/// A client that keeps count of what it hears, as one does that comes back.
pub struct Member {
    client: Client,
    room: String,
    ticket: String,
    last_seq: u64,
    is_numbered: bool,
}

impl Member {
    pub async fn enters(
        address: SocketAddr,
        room: &str,
        client_id: &str,
        token: &str,
        features: &[&str],
    ) -> Self {
        Self::enters_and_sees(address, room, client_id, token, features).await.0
    }

    /// A new member, and whom it finds there.
    async fn enters_and_sees(
        address: SocketAddr,
        room: &str,
        client_id: &str,
        token: &str,
        features: &[&str],
    ) -> (Self, Vec<String>) {
        let client = Client::connect(address, room, &[]).await.unwrap();
        let (room, ticket) = (room.to_owned(), String::new());
        let mut member = Self { client, room, ticket, last_seq: 0, is_numbered: false };
        assert_eq!(member.hears().await["type"], "auth_required");
        let there = member.introduces_itself(client_id, token, features).await;
        (member, there)
    }

    /// The ordinary handshake on a socket that has heard `auth_required`; whom it finds there.
    pub async fn introduces_itself(
        &mut self,
        client_id: &str,
        token: &str,
        features: &[&str],
    ) -> Vec<String> {
        let auth =
            json!({"type":"auth_token","token":token,"clientId":client_id,"features":features});
        self.says(auth).await;
        let success = self.hears().await;
        assert_eq!(success["type"], "auth_success", "{success}");
        self.ticket = success["resume_token"].as_str().unwrap().to_owned();
        (self.last_seq, self.is_numbered) = (0, features.contains(&"resume"));
        self.client.id = client_id.to_owned();
        let there = self.hears().await;
        assert_eq!(there["type"], "users_in_room");
        ids(&there)
    }

    /// Asks on a new socket to go on, and what it is told; the old socket stays as it is.
    pub async fn asks_to_resume(&self, address: SocketAddr) -> (Self, Value) {
        let client = Client::connect(address, &self.room, &[]).await.unwrap();
        let (room, ticket) = (self.room.clone(), self.ticket.clone());
        let mut new = Self { client, room, ticket, ..*self };
        assert_eq!(new.client.hears().await["type"], "auth_required");
        let (ticket, last_seq) = (&self.ticket, self.last_seq);
        new.says(json!({"type":"resume","resume_token":ticket,"last_seq":last_seq})).await;
        let told = new.client.hears().await;
        if told["type"] == "resumed" {
            assert_eq!(told["client_id"], self.client.id);
            new.client.id = self.client.id.clone();
            new.ticket = told["resume_token"].as_str().unwrap().to_owned();
        }
        (new, told)
    }

    /// Goes on, on a new socket; what it is told first.
    pub async fn resumes(&mut self, address: SocketAddr) -> Value {
        let (new, told) = self.asks_to_resume(address).await;
        assert_eq!(told["type"], "resumed", "{told}");
        *self = new;
        told
    }

    /// Cannot go on, and sits on a new socket that may be used for the ordinary handshake.
    pub async fn fails_to_resume(&mut self, address: SocketAddr) {
        let (new, told) = self.asks_to_resume(address).await;
        assert_eq!((&told["type"], &told["code"]), (&json!("error"), &json!("resume_failed")));
        *self = new;
    }

    /// Says nothing more, not even Close.
    pub async fn hangs_up(&mut self) {
        let MaybeTlsStream::Plain(stream) = self.client.socket.get_mut() else { unreachable!() };
        let _ = stream.shutdown().await; // it may have been reset
    }

    pub async fn says(&mut self, message: Value) {
        assert!(self.tries_to_say(message).await, "the connection is gone");
    }

    /// Whether there was still a connection to say it on; whether it arrives is another thing.
    async fn tries_to_say(&mut self, message: Value) -> bool {
        let saying = self.client.socket.send(Message::text(message.to_string()));
        timeout(SOON, saying).await.expect("nobody reads this").is_ok()
    }

    pub async fn hears(&mut self) -> Value {
        self.listens().await.expect("the connection is gone")
    }

    /// The next message, whose number must be the next one; nothing where the connection breaks or closes.
    async fn listens(&mut self) -> Option<Value> {
        let text = timeout(SOON, self.next_text()).await;
        let text = text.unwrap_or_else(|_| panic!("{} heard nothing", self.client.id))?;
        let message: Value = serde_json::from_str(&text).unwrap();
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
        Some(message)
    }

    async fn next_text(&mut self) -> Option<String> {
        loop {
            match self.client.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                // A Close is answered by asking for more.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Err(_)) | None => return None,
                Some(Ok(other)) => panic!("{other:?} is no message"),
            }
        }
    }

    /// The next message is of this type.
    pub async fn hears_a(&mut self, kind: &str) -> Value {
        let message = self.hears().await;
        assert_eq!(message["type"], kind, "{}: {message}", self.client.id);
        message
    }

    /// The next message is said by a peer; what it says.
    pub async fn hears_data(&mut self) -> Value {
        self.hears_a("message").await["data"].take()
    }

    /// The next message says where a peer is that comes back, or does not.
    async fn hears_state(&mut self) -> (String, String) {
        let message = self.hears_a("peer_state").await;
        let text = |name: &str| message[name].as_str().unwrap().to_owned();
        (text("client_id"), text("state"))
    }

    /// Shows that nothing waits to be heard, by what is answered last: our own ping.
    pub async fn hears_nothing_else(&mut self) {
        assert_eq!(self.hears_the_rest().await, [] as [Value; 0]);
    }

    /// Everything that waits to be heard, up to the answer to our own ping.
    pub async fn hears_the_rest(&mut self) -> Vec<Value> {
        self.says(json!({"type":"ping"})).await;
        let mut rest = Vec::new();
        loop {
            let message = self.hears().await;
            if message["type"] == "pong" {
                return rest;
            }
            rest.push(message);
        }
    }

    /// Everything that is heard before the connection is gone; then hangs up, too.
    pub async fn hears_the_end(&mut self) -> Vec<Value> {
        let mut rest = Vec::new();
        while let Some(message) = self.listens().await {
            rest.push(message);
        }
        self.hangs_up().await;
        rest
    }
}

/// Who is there, as `users_in_room` and `resumed` say it.
pub fn ids(there: &Value) -> Vec<String> {
    let ids = there["users"].as_array().unwrap().iter().map(|user| &user["client_id"]);
    ids.map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// The messages of this type, each as one of its fields.
pub fn of_type(messages: &[Value], kind: &str, field: &str) -> Vec<Value> {
    let chosen = messages.iter().filter(|message| message["type"] == kind);
    chosen.map(|message| message[field].clone()).collect()
}
