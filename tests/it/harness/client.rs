//! A WebSocket client that knows only JSON.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::{TEST_TIMEOUT, TestServer};

/// A connection to a room, and the client id once it is a member's.
pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    pub id: String,
}

impl Client {
    /// A socket to `room` (percent-encoded) on which nothing has been received yet.
    pub async fn connect(
        address: SocketAddr,
        room: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{address}/ws/{room}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { socket, id: String::new() })
    }

    /// The HTTP status with which an upgrade is rejected.
    pub async fn upgrade_status(
        address: SocketAddr,
        room: &str,
        headers: &[(&'static str, &str)],
    ) -> u16 {
        match Self::connect(address, room, headers).await {
            Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
            Ok(_) => panic!("the upgrade is accepted"),
            Err(other) => panic!("{other}"),
        }
    }

    /// Becomes a member that has asked for an id; returns the peers in `users_in_room`.
    pub async fn authenticate(&mut self, username: &str, token: &str, client_id: Value) -> Value {
        assert_eq!(self.receive().await["type"], "auth_required");
        self.send(json!({"type":"auth_token","token":token,"clientId":client_id})).await;
        let success = self.receive().await;
        assert_eq!(
            (&success["type"], &success["user"]),
            (&json!("auth_success"), &json!(username)),
            "{success}"
        );
        self.id = success["client_id"].as_str().unwrap().to_owned();
        let peers = self.receive().await;
        assert_eq!(peers["type"], "users_in_room");
        peers["users"].clone()
    }

    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(Message::text(text)).await;
    }

    pub async fn send_frame(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Queues a message without sending it yet.
    pub async fn feed(&mut self, message: &Value) {
        self.socket.feed(Message::text(message.to_string())).await.unwrap();
    }

    pub async fn flush(&mut self) {
        self.socket.flush().await.unwrap();
    }

    /// The next message; pings and pongs are passed over.
    pub async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.receive_text().await).unwrap()
    }

    pub async fn receive_text(&mut self) -> String {
        timeout(TEST_TIMEOUT, self.next_text()).await.expect("nothing was received")
    }

    async fn next_text(&mut self) -> String {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?} is no message"),
            }
        }
    }

    /// Shows that no message is waiting: the next one answers our own ping, and the server answers in order.
    pub async fn assert_no_more_messages(&mut self) {
        self.send(json!({"type":"ping"})).await;
        assert_eq!(self.receive().await, json!({"type":"pong"}));
    }

    /// The error that answers `message`.
    pub async fn error_after(&mut self, message: &str) -> Value {
        self.send_text(message).await;
        let error = self.receive().await;
        assert_eq!(error["type"], "error", "{error}");
        error
    }

    /// The messages that are received before the server closes, and its close code and reason.
    pub async fn read_to_close(self) -> (Vec<Value>, (u16, String)) {
        timeout(TEST_TIMEOUT, self.receive_until_close()).await.expect("not closed")
    }

    async fn receive_until_close(mut self) -> (Vec<Value>, (u16, String)) {
        let mut before = Vec::new();
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => before.push(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (before, (frame.code.into(), frame.reason.as_str().to_owned()));
                }
                other => panic!("{other:?} after {before:?}"),
            }
        }
    }

    /// The server's close code and reason, where no message comes before it.
    pub async fn rejection(self) -> (u16, String) {
        let (before, close) = self.read_to_close().await;
        assert_eq!(before, [] as [Value; 0]);
        close
    }

    /// Closes as a browser does, and waits until the server has closed too.
    pub async fn leave(mut self) {
        self.socket.close(None).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}

/// alice and bob in one room; alice has received that bob joined.
pub async fn join_pair(server: &TestServer, room: &str) -> (Client, Client) {
    let mut alice = server.join(room, "alice").await;
    let bob = server.join(room, "bob").await;
    assert_eq!(alice.receive().await["type"], "user_joined");
    (alice, bob)
}
