//! What all clients share: addresses, accounts, requests and sockets.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use signaling::{
    auth::{access_token::AccessTokens, users::Account},
    clock::unix_now,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// How long any single step may take, on a busy machine.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The key of the access tokens, which the clients mint themselves.
pub const JWT_KEY: &str = "soak: a key for tokens of 32 bytes or more";

/// The password of all accounts.
pub const PASSWORD: &str = "correct horse";

/// How many accounts the clients use.
pub const USERS: u64 = 50;
/// The account that is removed, disabled and changed during the test.
pub const SHORT_LIVED: &str = "short-lived";

/// How many source addresses the clients use.
const ADDRESSES: u64 = 4096;

pub type TestError = Box<dyn Error + Send + Sync>;

pub type Socket = WebSocketStream<TcpStream>;

pub fn user(number: u64) -> String {
    format!("user{}", number % USERS)
}

/// The failures of the test.
#[derive(Default)]
pub struct Failures(Mutex<Vec<String>>);

impl Failures {
    pub fn add(&self, failure: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What all clients share.
pub struct Clients {
    address: SocketAddr,
    pub users_csv: PathBuf,
    /// The bcrypt hash of [`PASSWORD`].
    pub hash: String,
    tokens: AccessTokens,
    /// About how many sockets are open at once.
    pub sockets: u64,
    /// Limits the scenario that makes the server queue many megabytes.
    pub slow_readers: Semaphore,
    random_state: AtomicU64,
    /// How many scenarios have run.
    pub scenarios: AtomicU64,
    /// Messages between steady pairs.
    pub messages: AtomicU64,
    /// The longest time for five messages each way of a steady pair since the last report, in ms.
    pub slowest: AtomicU64,
    pub failures: Arc<Failures>,
}

/// A member of a room.
pub struct Member {
    pub socket: Socket,
    pub id: String,
    pub token: String,
}

impl Clients {
    pub fn new(
        address: SocketAddr,
        users_csv: PathBuf,
        hash: String,
        sockets: u64,
        failures: Arc<Failures>,
    ) -> Self {
        Self {
            address,
            users_csv,
            hash,
            tokens: AccessTokens::new(&JWT_KEY.into(), None, Duration::from_secs(60)),
            sockets,
            slow_readers: Semaphore::new(2),
            random_state: AtomicU64::new(0),
            scenarios: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            failures,
        }
    }

    /// Records the failure of a scenario.
    pub fn record(&self, result: Result<(), TestError>) {
        if let Err(failure) = result {
            self.failures.add(failure.to_string());
        }
    }

    /// A pseudorandom number below `limit` (SplitMix64). The sequence is the same in every run; which task gets which
    /// number is not.
    pub fn random(&self, limit: u64) -> u64 {
        let mut z = self.random_state.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// Connects from one of many source addresses; all of 127.0.0.0/8 is this machine.
    pub async fn connect(&self, receive_buffer: Option<u32>) -> Result<TcpStream, TestError> {
        let socket = TcpSocket::new_v4()?;
        let source = Ipv4Addr::from(0x7f01_0000 + u32::try_from(self.random(ADDRESSES))?);
        socket.bind((source, 0).into())?;
        receive_buffer.map_or(Ok(()), |size| socket.set_recv_buffer_size(size))?;
        Ok(timeout(TIMEOUT, socket.connect(self.address)).await??)
    }

    /// An HTTP request and its response: status and body. A 5xx status other than 503 is a failure.
    pub async fn request(
        &self,
        line: &str,
        headers: &str,
        body: &str,
    ) -> Result<(u16, String), TestError> {
        let mut stream = self.connect(None).await?;
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        timeout(TIMEOUT, stream.read_to_string(&mut response)).await??;
        let (head, body) = response.split_once("\r\n\r\n").ok_or("not an HTTP response")?;
        let status: u16 = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        if status >= 500 && status != 503 {
            return Err(format!("{line}: {head}").into());
        }
        Ok((status, body.to_owned()))
    }

    fn token(&self, username: &str) -> Result<String, TestError> {
        let account = Account {
            username: username.to_owned(),
            email: String::new(),
            hashed_password: self.hash.clone(),
            is_active: true,
        };
        let token = self.tokens.issue(&account.username, &account.stamp(), unix_now())?;
        Ok(token.expose_secret().to_owned())
    }

    /// Opens a socket, up to `auth_required`.
    pub async fn open(&self, room: &str, receive_buffer: Option<u32>) -> Result<Socket, TestError> {
        let stream = self.connect(receive_buffer).await?;
        let url = format!("ws://{}/ws/{room}", self.address);
        let (mut socket, _) = timeout(TIMEOUT, client_async(url, stream)).await??;
        receive_kind(&mut socket, "auth_required").await?;
        Ok(socket)
    }

    /// Joins `room`; `None` if it is full.
    pub async fn join(&self, room: &str, username: &str) -> Result<Option<Member>, TestError> {
        let id = format!("c{:x}", self.random(u64::MAX));
        self.join_as(room, username, id, None).await
    }

    pub async fn join_as(
        &self,
        room: &str,
        username: &str,
        id: String,
        receive_buffer: Option<u32>,
    ) -> Result<Option<Member>, TestError> {
        let (mut socket, token) = (self.open(room, receive_buffer).await?, self.token(username)?);
        send(&mut socket, &json!({"type":"auth_token","token":token,"clientId":id})).await?;
        match receive(&mut socket).await? {
            Received::Frame(frame) if frame["type"] == "auth_success" => {}
            Received::Frame(frame) if frame["code"] == "room_full" => return Ok(None),
            other => return Err(format!("{username} was refused: {other:?}").into()),
        }
        receive_kind(&mut socket, "users_in_room").await?;
        Ok(Some(Member { socket, id, token }))
    }
}

/// What a socket receives.
#[derive(Debug)]
pub enum Received {
    Frame(Value),
    /// The close code; 1006 without a Close frame.
    Closed(u16),
}

/// Sends a frame.
pub async fn send(socket: &mut Socket, frame: &Value) -> Result<(), TestError> {
    Ok(timeout(TIMEOUT, socket.send(Message::text(frame.to_string()))).await??)
}

/// Receives the next frame, or the end of the socket.
pub async fn receive(socket: &mut Socket) -> Result<Received, TestError> {
    loop {
        let next =
            timeout(TIMEOUT, socket.next()).await.map_err(|_| "no frame within the timeout")?;
        return match next {
            Some(Ok(Message::Text(text))) => Ok(Received::Frame(serde_json::from_str(&text)?)),
            Some(Ok(Message::Close(frame))) => {
                Ok(Received::Closed(frame.map_or(1005, |frame| frame.code.into())))
            }
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => Ok(Received::Closed(1006)),
        };
    }
}

/// Receives the next frame of a kind; skips others.
pub async fn receive_kind(socket: &mut Socket, kind: &str) -> Result<Value, TestError> {
    loop {
        match receive(socket).await? {
            Received::Frame(frame) if frame["type"] == kind => return Ok(frame),
            Received::Frame(_) => {}
            Received::Closed(code) => {
                return Err(format!("closed with {code} before {kind}").into());
            }
        }
    }
}

/// Receives until the socket is closed, which must be with one of these codes.
pub async fn expect_close(socket: &mut Socket, codes: &[u16]) -> Result<(), TestError> {
    loop {
        if let Received::Closed(code) = receive(socket).await? {
            return if codes.contains(&code) {
                Ok(())
            } else {
                Err(format!("closed with {code} instead of {codes:?}").into())
            };
        }
    }
}
