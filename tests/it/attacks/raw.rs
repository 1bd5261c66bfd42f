//! Connections whose every byte is made by hand.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::harness::TEST_TIMEOUT;

/// The opcodes of RFC 6455 section 5.2, with the bit that says that a frame is the last of its message.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8A;
/// A frame that begins a text, one that goes on, and one that ends it.
pub const BEGIN: u8 = 0x01;
pub const GO_ON: u8 = 0x00;
pub const END: u8 = 0x80;

/// What hides the payload of the frames made here.
pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame as a client sends it; `first` is its first byte: FIN, reserved bits, opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked(first, payload, MASK)
}

/// [`frame`] with another mask.
pub fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame[1] |= 0x80;
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The first bytes of a frame without a mask, its length encoded in as few bytes as possible.
pub fn header(first: u8, length: u64) -> Vec<u8> {
    let short = u8::try_from(length).ok().filter(|length| *length < 126);
    match (short, u16::try_from(length)) {
        (Some(length), _) => vec![first, length],
        (None, Ok(length)) => [&[first, 126][..], &length.to_be_bytes()].concat(),
        (None, Err(_)) => [&[first, 127][..], &length.to_be_bytes()].concat(),
    }
}

/// The payload of a close frame.
pub fn closing(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason].concat()
}

/// A TCP connection.
pub struct Raw {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// What was answered to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, whose name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// The same from `from`, an address of this machine.
    pub async fn connect_from(from: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        Self { stream, unread: Vec::new() }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await.expect("the server reads this");
    }

    /// Sends as much as is read: the other side may refuse what it has seen the beginning of.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let sending = self.stream.write_all(bytes.as_ref());
        timeout(TEST_TIMEOUT, sending).await.expect("the server does not read")
    }

    /// Sends every byte in a packet of its own.
    pub async fn write_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref().chunks(1) {
            self.write(byte).await;
        }
    }

    /// Ends the connection with a reset, as a crash or a pulled cable does.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// The next answer; `None` where the connection ends without one.
    pub async fn answer(&mut self) -> Option<Answer> {
        timeout(TEST_TIMEOUT, self.next_answer()).await.expect("no answer")
    }

    async fn next_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !self.read_more().await {
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
        while self.unread.len() < length && self.read_more().await {}
        answer.body = self.unread.drain(..length.min(self.unread.len())).collect();
        Some(answer)
    }

    /// Everything until the connection ends, and whether it ended in order (not with a reset).
    /// Safe to cancel.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, bool) {
        let reading = async {
            loop {
                match self.stream.read_buf(&mut self.unread).await {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        let in_order = timeout(TEST_TIMEOUT, reading).await.expect("still open");
        (std::mem::take(&mut self.unread), in_order)
    }

    /// Whether something came before the connection ended.
    async fn read_more(&mut self) -> bool {
        self.stream.read_buf(&mut self.unread).await.is_ok_and(|read| read > 0)
    }

    async fn read(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.read_more().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }
}

/// A request on a connection of its own, written by hand; `None` where it is not answered.
pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<Answer> {
    let mut connection = Raw::connect(address).await;
    let _ = connection.try_write(request).await;
    connection.answer().await
}

/// The head of a good handshake for `room`, without the empty line at its end.
pub fn upgrade(room: &str) -> String {
    format!(
        "GET /ws/{room} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

/// A WebSocket whose frames are made by hand.
pub struct RawSocket {
    pub raw: Raw,
    pub id: String,
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a close frame of this code (1005 for one without), then the end of the connection.
    Closed(u16),
    /// Without a word.
    Dropped,
}

impl RawSocket {
    pub async fn open(address: SocketAddr, room: &str) -> Self {
        let mut raw = Raw::connect(address).await;
        raw.write(upgrade(room) + "\r\n").await;
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(answer.status, 101, "{answer:?}");
        // RFC 6455 section 1.3 has this pair of key and answer.
        assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Self { raw, id: String::new() }
    }

    /// Becomes a member; `users_in_room` has been heard.
    pub async fn authenticate(&mut self, token: &str) {
        assert_eq!(self.receive().await["type"], "auth_required");
        self.send(&json!({"type":"auth_token","token":token})).await;
        let success = self.receive().await;
        assert_eq!(success["type"], "auth_success", "{success}");
        self.id = success["client_id"].as_str().unwrap().to_owned();
        assert_eq!(self.receive().await["type"], "users_in_room");
    }

    pub async fn send(&mut self, message: &Value) {
        self.write(frame(TEXT, message.to_string().as_bytes())).await;
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.raw.write(bytes).await;
    }

    /// The next frame; `None` where the connection ends instead.
    pub async fn next_frame(&mut self) -> Option<Frame> {
        timeout(TEST_TIMEOUT, self.read_frame()).await.expect("nothing comes")
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        let start = self.raw.read(2).await?;
        assert_eq!(start[1] & 0x80, 0, "a server does not mask");
        let length = match start[1] {
            126 => self.raw.read(2).await?,
            127 => self.raw.read(8).await?,
            short => vec![short],
        };
        let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        Some(Frame { first: start[0], payload: self.raw.read(length).await? })
    }

    /// The next message; pings and pongs are passed over.
    pub async fn receive(&mut self) -> Value {
        loop {
            let Frame { first, payload } = self.next_frame().await.expect("a message");
            match first {
                TEXT => return serde_json::from_slice(&payload).unwrap(),
                PING | PONG => {}
                other => panic!("{other:#x} {payload:?} is no message"),
            }
        }
    }

    /// Shows that the connection goes on, and that nothing else waits to be heard.
    pub async fn assert_no_more_messages(&mut self) {
        self.send(&json!({"type":"ping"})).await;
        assert_eq!(self.receive().await, json!({"type":"pong"}));
    }

    /// What is heard before the end, and how the server ends it.
    pub async fn read_to_close(&mut self) -> (Vec<Value>, Ending) {
        let mut before = Vec::new();
        loop {
            match self.next_frame().await {
                None => return (before, Ending::Dropped),
                Some(Frame { first: TEXT, payload }) => {
                    before.push(serde_json::from_slice(&payload).unwrap());
                }
                Some(Frame { first: CLOSE, payload }) => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    // Said back as RFC 6455 section 5.5.1 asks, then it is the server that hangs up.
                    let _ = self.raw.try_write(frame(CLOSE, &payload)).await;
                    let (rest, _) = self.raw.read_to_end().await;
                    assert_eq!(rest, b"", "nothing may follow a close");
                    return (before, Ending::Closed(code));
                }
                Some(Frame { first: PING | PONG, .. }) => {}
                Some(other) => panic!("{other:?} after {before:?}"),
            }
        }
    }

    /// How the server ends it, where it says nothing before.
    pub async fn rejection(&mut self) -> Ending {
        let (before, ending) = self.read_to_close().await;
        assert_eq!(before, [] as [Value; 0]);
        ending
    }
}
