//! Connections from addresses of one's choice, and tokens.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use signaling::clock::unix_now;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

/// How long any single step may take.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The key of the access tokens, which the clients mint themselves.
pub const JWT_KEY: &str = "attack: a key for tokens of 32 bytes or more";

/// The administrator's token.
pub const ADMIN_TOKEN: &str = "attack-a-token-of-an-administrator-32-bytes";

/// How many accounts there are.
pub const ACCOUNTS: usize = 400;

/// Opcodes of RFC 6455 section 5.2, with the bit that says that a frame is the last of its message.
pub const TEXT: u8 = 0x81;
pub const PONG: u8 = 0x8A;

pub type TestError = Box<dyn Error + Send + Sync>;

/// Where the server listens.
pub struct Target {
    pub address: SocketAddr,
    pub metrics: SocketAddr,
}

pub fn user(number: usize) -> String {
    format!("user{number}")
}

/// An access token as another service mints it.
pub fn token(username: &str) -> String {
    minted(json!({"sub":username,"exp":unix_now() + 86_400}))
}

/// The same of a moderator.
pub fn moderator_token(username: &str) -> String {
    let permissions = json!({"can":["join","moderate"]});
    minted(json!({"sub":username,"exp":unix_now() + 86_400,"signaling":permissions}))
}

fn minted(claims: Value) -> String {
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(json!({"alg":"HS256","typ":"JWT"})), encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, JWT_KEY.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// A connection from an address of 127.0.0.0/8, all of which is this machine.
pub async fn connect(to: SocketAddr, from: Ipv4Addr) -> Result<TcpStream, TestError> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into())?;
    // A client that does not read is full soon.
    socket.set_recv_buffer_size(64 << 10)?;
    let stream = timeout(TIMEOUT, socket.connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A request, and the status and the whole text of the response.
pub async fn http(to: SocketAddr, from: Ipv4Addr, line: &str) -> Result<(u16, String), TestError> {
    request(to, from, line, "").await
}

/// The status of an administrator's request.
pub async fn administer(
    target: &Target,
    from: Ipv4Addr,
    path: &str,
    body: &Value,
) -> Result<u16, TestError> {
    let (line, body) = (format!("POST /admin/api/{path}"), body.to_string());
    let rest = format!(
        "Authorization: Bearer {ADMIN_TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Ok(request(target.address, from, &line, &rest).await?.0)
}

/// `rest` is what follows the usual headers.
async fn request(
    to: SocketAddr,
    from: Ipv4Addr,
    line: &str,
    rest: &str,
) -> Result<(u16, String), TestError> {
    let mut stream = connect(to, from).await?;
    let mut request = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{rest}");
    if rest.is_empty() {
        request.push_str("\r\n");
    }
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut response)).await??;
    let status = response.split(' ').nth(1).ok_or("no status")?.parse()?;
    Ok((status, response))
}

/// A WebSocket whose frames are made by hand.
pub struct RawSocket {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl RawSocket {
    /// Opens a socket; nothing is read of what comes after the response.
    pub async fn open(target: &Target, from: Ipv4Addr, room: &str) -> Result<Self, TestError> {
        let mut stream = connect(target.address, from).await?;
        let request = format!(
            "GET /ws/{room} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut socket = Self { stream, unread: Vec::new() };
        let head = timeout(TIMEOUT, socket.read_head()).await??;
        if !head.starts_with("HTTP/1.1 101") {
            return Err(head.lines().next().unwrap_or_default().into());
        }
        Ok(socket)
    }

    /// Becomes a member of the room; `Err` with the error code where it may not.
    pub async fn join(
        target: &Target,
        from: Ipv4Addr,
        room: &str,
        username: &str,
        features: Value,
    ) -> Result<(Self, Value), TestError> {
        Self::join_with(target, from, room, &token(username), features).await
    }

    /// The same with this token.
    pub async fn join_with(
        target: &Target,
        from: Ipv4Addr,
        room: &str,
        token: &str,
        features: Value,
    ) -> Result<(Self, Value), TestError> {
        let mut socket = Self::open(target, from, room).await?;
        socket.receive().await?;
        socket.send(&json!({"type":"auth_token","token":token,"features":features})).await?;
        let reply = socket.receive().await?;
        if reply["type"] != "auth_success" {
            return Err(reply["code"].to_string().into());
        }
        Ok((socket, reply))
    }

    pub async fn send(&mut self, message: &Value) -> Result<(), TestError> {
        self.write(&frame(TEXT, message.to_string().as_bytes())).await
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), TestError> {
        Ok(timeout(TIMEOUT, self.stream.write_all(bytes)).await??)
    }

    /// The next message; control frames are skipped. Safe to cancel.
    pub async fn receive(&mut self) -> Result<Value, TestError> {
        timeout(TIMEOUT, self.next_message()).await?
    }

    async fn next_message(&mut self) -> Result<Value, TestError> {
        loop {
            match self.take_frame() {
                Some((TEXT, payload)) => return Ok(serde_json::from_slice(&payload)?),
                Some((0x88, _)) => return Err("closed".into()),
                Some(_) => {}
                None => self.read_more().await?,
            }
        }
    }

    /// The next frame, once all of it has arrived: its first byte and its payload.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, second) = (*self.unread.first()?, *self.unread.get(1)?);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (start, length) = match second & 0x7f {
            126 => (4, number(self.unread.get(2..4)?)),
            127 => (10, number(self.unread.get(2..10)?)),
            short => (2, usize::from(short)),
        };
        self.unread.get(..start + length)?;
        Some((first, self.unread.drain(..start + length).skip(start).collect()))
    }

    async fn read_head(&mut self) -> Result<String, TestError> {
        loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(String::from_utf8(head)?);
            }
            self.read_more().await?;
        }
    }

    async fn read_more(&mut self) -> Result<(), TestError> {
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err("the connection has ended".into()),
            _ => Ok(()),
        }
    }

    /// Waits until the server has closed the connection, whatever it sends.
    pub async fn closed(&mut self) {
        let mut discarded = [0; 4096];
        while !matches!(self.stream.read(&mut discarded).await, Ok(0) | Err(_)) {}
    }
}

/// A frame of a client, whose mask changes nothing.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..126) => frame.push(0x80 | length as u8),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
