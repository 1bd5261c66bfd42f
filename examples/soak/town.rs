//! What all clients share, and what each of them can do.

use std::{
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
    auth::{token::AccessTokens, users::Account},
    clock::unix_now,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::Fault;

/// Within this anything happens that happens at all, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// The key of the tokens, which clients make themselves.
pub const JWT_KEY: &str = "soak: a key for tokens of 32 bytes or more";

/// Everybody's.
pub const PASSWORD: &str = "correct horse";

/// How many users come and go, and the one whose account does.
pub const USERS: u64 = 50;
pub const SHORT_LIVED: &str = "short-lived";

/// How many addresses the clients come from.
const ADDRESSES: u64 = 4096;

pub type Socket = WebSocketStream<TcpStream>;

pub fn user(number: u64) -> String {
    format!("user{}", number % USERS)
}

/// What nobody expected.
#[derive(Default)]
pub struct Surprises(Mutex<Vec<String>>);

impl Surprises {
    pub fn add(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What all clients share.
pub struct Town {
    address: SocketAddr,
    pub users_csv: PathBuf,
    /// Everybody's in the users file.
    pub hash: String,
    tokens: AccessTokens,
    pub clients: u64,
    /// For those who make the server keep many megabytes.
    pub deaf: Semaphore,
    drawn: AtomicU64,
    pub visits: AtomicU64,
    /// Messages between steady pairs.
    pub exchanged: AtomicU64,
    /// The longest that a steady pair took for five messages each way, in ms, since it was last said.
    pub slowest: AtomicU64,
    pub surprises: Arc<Surprises>,
}

/// Somebody in a room.
pub struct Member {
    pub socket: Socket,
    pub id: String,
    pub token: String,
}

impl Town {
    pub fn new(
        address: SocketAddr,
        users_csv: PathBuf,
        hash: String,
        clients: u64,
        surprises: Arc<Surprises>,
    ) -> Self {
        Self {
            address,
            users_csv,
            hash,
            tokens: AccessTokens::new(&JWT_KEY.into(), None, Duration::from_secs(60)),
            clients,
            deaf: Semaphore::new(2),
            drawn: AtomicU64::new(0),
            visits: AtomicU64::new(0),
            exchanged: AtomicU64::new(0),
            slowest: AtomicU64::new(0),
            surprises,
        }
    }

    pub fn note(&self, done: Result<(), Fault>) {
        if let Err(fault) = done {
            self.surprises.add(fault.to_string());
        }
    }

    /// A number below `limit`: the same every time (SplitMix64), but for who draws it.
    pub fn draw(&self, limit: u64) -> u64 {
        let mut z = self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// A connection from one of many addresses; all of 127.0.0.0/8 is this machine.
    pub async fn connect(&self, receive_buffer: Option<u32>) -> Result<TcpStream, Fault> {
        let socket = TcpSocket::new_v4()?;
        let source = Ipv4Addr::from(0x7f01_0000 + u32::try_from(self.draw(ADDRESSES))?);
        socket.bind((source, 0).into())?;
        receive_buffer.map_or(Ok(()), |size| socket.set_recv_buffer_size(size))?;
        Ok(timeout(SOON, socket.connect(self.address)).await??)
    }

    /// A whole HTTP exchange.
    pub async fn ask(&self, what: &str, headers: &str, body: &str) -> Result<(u16, String), Fault> {
        let mut stream = self.connect(None).await?;
        let length = body.len();
        let request = format!(
            "{what} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await??;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
        let status: u16 = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        if status >= 500 && status != 503 {
            return Err(format!("{what}: {head}").into());
        }
        Ok((status, body.to_owned()))
    }

    fn token(&self, username: &str) -> Result<String, Fault> {
        let account = Account {
            username: username.to_owned(),
            email: String::new(),
            hashed_password: self.hash.clone(),
            is_active: true,
        };
        let token = self.tokens.issue(&account.username, &account.stamp(), unix_now())?;
        Ok(token.expose_secret().to_owned())
    }

    /// A socket on which the server has asked for a token.
    pub async fn knock(&self, room: &str, receive_buffer: Option<u32>) -> Result<Socket, Fault> {
        let stream = self.connect(receive_buffer).await?;
        let url = format!("ws://{}/ws/{room}", self.address);
        let (mut socket, _) = timeout(SOON, client_async(url, stream)).await??;
        until(&mut socket, "auth_required").await?;
        Ok(socket)
    }

    /// A member of `room`; `None` where that is full.
    pub async fn join(&self, room: &str, username: &str) -> Result<Option<Member>, Fault> {
        let id = format!("c{:x}", self.draw(u64::MAX));
        self.join_as(room, username, id, None).await
    }

    pub async fn join_as(
        &self,
        room: &str,
        username: &str,
        id: String,
        receive_buffer: Option<u32>,
    ) -> Result<Option<Member>, Fault> {
        let (mut socket, token) = (self.knock(room, receive_buffer).await?, self.token(username)?);
        say(&mut socket, &json!({"type":"auth_token","token":token,"clientId":id})).await?;
        match hear(&mut socket).await? {
            Heard::Said(news) if news["type"] == "auth_success" => {}
            Heard::Said(news) if news["code"] == "room_full" => return Ok(None),
            other => return Err(format!("{username} is not let in: {other:?}").into()),
        }
        until(&mut socket, "users_in_room").await?;
        Ok(Some(Member { socket, id, token }))
    }
}

/// What comes out of a socket.
#[derive(Debug)]
pub enum Heard {
    Said(Value),
    /// With this code; 1006 where the connection just ended.
    Closed(u16),
}

pub async fn say(socket: &mut Socket, message: &Value) -> Result<(), Fault> {
    Ok(timeout(SOON, socket.send(Message::text(message.to_string()))).await??)
}

pub async fn hear(socket: &mut Socket) -> Result<Heard, Fault> {
    loop {
        let next = timeout(SOON, socket.next()).await.map_err(|_| "nothing is heard any more")?;
        return match next {
            Some(Ok(Message::Text(text))) => Ok(Heard::Said(serde_json::from_str(&text)?)),
            Some(Ok(Message::Close(frame))) => {
                Ok(Heard::Closed(frame.map_or(1005, |frame| frame.code.into())))
            }
            Some(Ok(_)) => continue,
            Some(Err(_)) | None => Ok(Heard::Closed(1006)),
        };
    }
}

/// The next message of a kind; others are passed over.
pub async fn until(socket: &mut Socket, kind: &str) -> Result<Value, Fault> {
    loop {
        match hear(socket).await? {
            Heard::Said(news) if news["type"] == kind => return Ok(news),
            Heard::Said(_) => {}
            Heard::Closed(code) => return Err(format!("closed with {code}, and no {kind}").into()),
        }
    }
}

/// Listens to the end, which must come with one of these codes.
pub async fn let_go(socket: &mut Socket, codes: &[u16]) -> Result<(), Fault> {
    loop {
        if let Heard::Closed(code) = hear(socket).await? {
            let fits = codes.contains(&code);
            return if fits {
                Ok(())
            } else {
                Err(format!("closed with {code}: not {codes:?}").into())
            };
        }
    }
}
