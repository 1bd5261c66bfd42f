//! A line to a STUN or TURN server: over UDP, where questions are asked again (RFC 8489 section 6.2.1), over TCP, or over TLS.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    attempt::Verdict,
    messages::{self, Answer, Heard, Proof},
};
use crate::{
    tls::verify,
    turn::url::{RelayUrl, Transport},
};

/// For each step: a name, a connection, a handshake, an answer.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// When a question is asked for the second time over UDP, and twice as late each further time.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// More than any answer to these questions has, in bytes.
const LONGEST: usize = 4096;

/// A line.
pub enum Line {
    /// Datagrams.
    Udp(UdpSocket),
    /// A connection.
    Tcp(TcpStream),
    /// One that is encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Line {
    /// Takes up a line to `address`, which is one of `url`'s host.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn open(
        url: &RelayUrl,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, Verdict> {
        match url.transport {
            Transport::Udp => {
                let any = match address {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
                // Only what comes from there is heard, and what the network says about it.
                socket.connect(address).await.map_err(unreachable)?;
                Ok(Self::Udp(socket))
            }
            Transport::Tcp => Ok(Self::Tcp(connect(address).await?)),
            Transport::Tls => {
                let stream = connect(address).await?;
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|error| Verdict::NoTls(error.to_string()))?;
                let shaking = TlsConnector::from(tls.clone()).connect(name, stream);
                let shaken = timeout(PATIENCE, shaking).await.map_err(|_| Verdict::Silent)?;
                Ok(Self::Tls(Box::new(shaken.map_err(|error| of_handshake(&error))?)))
            }
            Transport::Dtls => Err(Verdict::NotTried),
        }
    }

    /// When the certificate ends that was shown, in whole seconds since the Unix epoch.
    pub fn certificate_ends(&self) -> Option<u64> {
        match self {
            Self::Udp(_) | Self::Tcp(_) => None,
            Self::Tls(stream) => {
                stream.get_ref().1.peer_certificates()?.first().and_then(verify::not_after)
            }
        }
    }

    /// Asks, and waits for the answer. `proof` is what the request stands on.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn ask(&mut self, request: &[u8], proof: Option<&Proof>) -> Result<Answer, Verdict> {
        match self {
            Self::Udp(socket) => ask_datagrams(socket, request, proof).await,
            Self::Tcp(stream) => ask_stream(stream, request, proof).await,
            Self::Tls(stream) => ask_stream(stream, request, proof).await,
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Verdict> {
    let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
    connected.map_err(|_| Verdict::Silent)?.map_err(unreachable)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreachable(error: io::Error) -> Verdict {
    if error.kind() == ErrorKind::ConnectionRefused {
        Verdict::Closed
    } else {
        Verdict::Unreachable(error.to_string())
    }
}

fn of_handshake(error: &io::Error) -> Verdict {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(fault)) => {
            Verdict::BadCertificate(fault.to_string())
        }
        Some(other) => Verdict::NoTls(other.to_string()),
        None => Verdict::NoTls(error.to_string()),
    }
}

async fn ask_datagrams(
    socket: &UdpSocket,
    request: &[u8],
    proof: Option<&Proof>,
) -> Result<Answer, Verdict> {
    let until = Instant::now() + PATIENCE;
    let (mut again, mut wait, mut otherwise) = (Instant::now(), ASK_AGAIN, Verdict::Silent);
    let mut buffer = [0; LONGEST];
    while Instant::now() < until {
        if Instant::now() >= again {
            socket.send(request).await.map_err(unreachable)?;
            again += wait;
            wait *= 2;
        }
        let Ok(received) = timeout_at(again.min(until), socket.recv(&mut buffer)).await else {
            continue;
        };
        let received = received.map_err(unreachable)?;
        match messages::read(request, buffer.get(..received).unwrap_or_default(), proof) {
            Heard::Answer(answer) => return Ok(answer),
            Heard::Other => {}
            // Anybody can send a datagram: the answer may still come.
            Heard::Noise => otherwise = Verdict::NoStun,
        }
    }
    Err(otherwise)
}

async fn ask_stream(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    proof: Option<&Proof>,
) -> Result<Answer, Verdict> {
    let asking = async {
        stream.write_all(request).await.map_err(|_| Verdict::HungUp)?;
        stream.flush().await.map_err(|_| Verdict::HungUp)?;
        loop {
            let message = next_message(stream).await?;
            match messages::read(request, &message, proof) {
                Heard::Answer(answer) => return Ok(answer),
                Heard::Other => {}
                Heard::Noise => return Err(Verdict::NoStun),
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or(Err(Verdict::Silent))
}

async fn next_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Verdict> {
    let mut message = Vec::new();
    loop {
        let whole = messages::length(&message).map_err(|_| Verdict::NoStun)?;
        if whole.is_some_and(|whole| whole > LONGEST) {
            return Err(Verdict::NoStun);
        }
        // Never past the end of a message: what follows is the next one.
        let missing = whole.unwrap_or(4) - message.len();
        if missing == 0 {
            return Ok(message);
        }
        let mut piece = (&mut *stream).take(missing as u64);
        match piece.read_buf(&mut message).await {
            Ok(0) | Err(_) => return Err(Verdict::HungUp),
            Ok(_) => {}
        }
    }
}
