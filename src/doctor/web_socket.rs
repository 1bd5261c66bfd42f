//! A WebSocket client (RFC 6455) that is enough for `doctor`: it receives text, answers pings, and sends short texts.

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{Client, Response, StatusCode, Upgraded, Url, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::http_client::root_cause;

const FINAL_TEXT: u8 = 0x81;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const FINAL_PONG: u8 = 0x8a;
const MASKED: u8 = 0x80;

/// The longest frame that is read, in bytes.
const MAX_FRAME_BYTES: u64 = 1024 * 1024;

/// The connection has ended, or what arrives on it is no WebSocket.
#[derive(Debug)]
pub(super) struct Lost;

impl From<std::io::Error> for Lost {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// Why there is no WebSocket.
pub(super) enum UpgradeRefusal {
    /// There was no answer, for this reason.
    NoAnswer(String),
    /// There was another answer.
    Answer(Box<Response>),
}

/// A WebSocket to a server.
pub(super) struct ProbeSocket(Upgraded);

impl ProbeSocket {
    /// Asks for the upgrade of a connection to `url`. A native client: without `Origin`, extensions and subprotocols.
    pub(super) async fn connect(client: &Client, url: Url) -> Result<Self, UpgradeRefusal> {
        let key = BASE64_STANDARD.encode(Uuid::new_v4().as_bytes());
        let request = client
            .get(url)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, key);
        let no_answer = |error| UpgradeRefusal::NoAnswer(root_cause(&error));
        let answer = request.send().await.map_err(no_answer)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(UpgradeRefusal::Answer(Box::new(answer)));
        }
        answer.upgrade().await.map(Self).map_err(no_answer)
    }

    /// The next text; pings before it are answered.
    pub(super) async fn text(&mut self) -> Result<String, Lost> {
        loop {
            let (opcode, payload) = self.frame().await?;
            match opcode {
                TEXT => return String::from_utf8(payload).map_err(|_| Lost),
                PING => self.write(FINAL_PONG, &payload).await?,
                CLOSE => return Err(Lost),
                _other => {}
            }
        }
    }

    /// Sends a text of less than 64 KiB.
    pub(super) async fn send(&mut self, text: &str) -> Result<(), Lost> {
        self.write(FINAL_TEXT, text.as_bytes()).await
    }

    async fn frame(&mut self) -> Result<(u8, Vec<u8>), Lost> {
        let [first, second] = [self.0.read_u8().await?, self.0.read_u8().await?];
        let length = match second {
            126 => u64::from(self.0.read_u16().await?),
            127 => self.0.read_u64().await?,
            short => u64::from(short),
        };
        if length > MAX_FRAME_BYTES {
            return Err(Lost);
        }
        let mut payload = vec![0; usize::try_from(length).map_err(|_| Lost)?];
        self.0.read_exact(&mut payload).await?;
        Ok((first & 0xf, payload))
    }

    /// Clients mask what they send (section 5.3); proxies must not find their own requests in it.
    async fn write(&mut self, first: u8, payload: &[u8]) -> Result<(), Lost> {
        let [a, b, c, d, ..] = Uuid::new_v4().into_bytes();
        let mask = [a, b, c, d];
        let mut frame = vec![first];
        match u16::try_from(payload.len()).map_err(|_| Lost)? {
            short @ 0..126 => frame.push(MASKED | short as u8),
            long => {
                frame.push(MASKED | 126);
                frame.extend_from_slice(&long.to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await?;
        Ok(self.0.flush().await?)
    }
}
