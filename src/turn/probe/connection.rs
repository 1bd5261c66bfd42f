//! A probe's connection to a STUN or TURN server: over UDP with retransmissions (RFC 8489 section 6.2.1), TCP or TLS.

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
    messages::{self, MessageAuth, Reply, StunResponse},
    outcome::{ProbeOutcome, STEP_TIMEOUT},
};
use crate::{
    tls::verify,
    turn::{IceServerUrl, StunTransport},
};

/// When a request is retransmitted over UDP for the first time. The wait doubles each further time.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(500);

/// The most bytes of a response. No response to a probe's requests has as many.
const MAX_RESPONSE_BYTES: usize = 4096;

/// A connection to one server.
pub(super) enum ProbeConnection {
    /// A UDP socket that receives from the server alone.
    Udp(UdpSocket),
    /// A TCP connection.
    Tcp(TcpStream),
    /// A TLS connection.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ProbeConnection {
    /// Connects to `address`, which is one of `url`'s host.
    ///
    /// # Errors
    ///
    /// Why the server cannot be reached.
    pub(super) async fn open(
        url: &IceServerUrl,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, ProbeOutcome> {
        match url.transport {
            StunTransport::Udp => {
                let any = match address {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
                // Then only datagrams of the server are received, and ICMP errors about it.
                socket.connect(address).await.map_err(unreachable)?;
                Ok(Self::Udp(socket))
            }
            StunTransport::Tcp => Ok(Self::Tcp(connect(address).await?)),
            StunTransport::Tls | StunTransport::Dtls => {
                let stream = connect(address).await?;
                let name = ServerName::try_from(url.host.clone())
                    .map_err(|error| ProbeOutcome::TlsFailed(error.to_string()))?;
                let handshake = TlsConnector::from(tls.clone()).connect(name, stream);
                let stream = timeout(STEP_TIMEOUT, handshake).await;
                let stream = stream.map_err(|_| ProbeOutcome::Timeout)?;
                Ok(Self::Tls(Box::new(stream.map_err(|error| handshake_failure(&error))?)))
            }
        }
    }

    /// When the server's certificate expires, in whole seconds since the Unix epoch.
    pub(super) fn certificate_expiry(&self) -> Option<u64> {
        match self {
            Self::Udp(_) | Self::Tcp(_) => None,
            Self::Tls(stream) => {
                stream.get_ref().1.peer_certificates()?.first().and_then(verify::not_after)
            }
        }
    }

    /// Sends a request, which `auth` has authenticated, and waits for the response.
    ///
    /// # Errors
    ///
    /// Why there is no response.
    pub(super) async fn request(
        &mut self,
        request: &[u8],
        auth: Option<&MessageAuth>,
    ) -> Result<StunResponse, ProbeOutcome> {
        match self {
            Self::Udp(socket) => request_over_udp(socket, request, auth).await,
            Self::Tcp(stream) => request_over_stream(stream, request, auth).await,
            Self::Tls(stream) => request_over_stream(stream, request, auth).await,
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ProbeOutcome> {
    let connected = timeout(STEP_TIMEOUT, TcpStream::connect(address)).await;
    connected.map_err(|_| ProbeOutcome::Timeout)?.map_err(unreachable)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreachable(error: io::Error) -> ProbeOutcome {
    if error.kind() == ErrorKind::ConnectionRefused {
        ProbeOutcome::PortClosed
    } else {
        ProbeOutcome::Unreachable(error.to_string())
    }
}

fn handshake_failure(error: &io::Error) -> ProbeOutcome {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(problem)) => {
            ProbeOutcome::BadCertificate(verify::describe(problem))
        }
        Some(other) => ProbeOutcome::TlsFailed(other.to_string()),
        None => ProbeOutcome::TlsFailed(error.to_string()),
    }
}

async fn request_over_udp(
    socket: &UdpSocket,
    request: &[u8],
    auth: Option<&MessageAuth>,
) -> Result<StunResponse, ProbeOutcome> {
    let until = Instant::now() + STEP_TIMEOUT;
    let (mut send_at, mut wait) = (Instant::now(), RETRANSMIT_AFTER);
    let mut failure = ProbeOutcome::Timeout;
    let mut buffer = [0; MAX_RESPONSE_BYTES];
    while Instant::now() < until {
        if Instant::now() >= send_at {
            socket.send(request).await.map_err(unreachable)?;
            send_at += wait;
            wait *= 2;
        }
        let Ok(received) = timeout_at(send_at.min(until), socket.recv(&mut buffer)).await else {
            continue;
        };
        let received = received.map_err(unreachable)?;
        match messages::parse_reply(request, buffer.get(..received).unwrap_or_default(), auth) {
            Reply::Response(response) => return Ok(response),
            Reply::Unrelated => {}
            // Datagrams can be spoofed: the response may still come.
            Reply::NotStun => failure = ProbeOutcome::NotStun,
        }
    }
    Err(failure)
}

async fn request_over_stream(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    auth: Option<&MessageAuth>,
) -> Result<StunResponse, ProbeOutcome> {
    let exchange = async {
        stream.write_all(request).await.map_err(|_| ProbeOutcome::ConnectionClosed)?;
        stream.flush().await.map_err(|_| ProbeOutcome::ConnectionClosed)?;
        loop {
            let message = next_message(stream).await?;
            match messages::parse_reply(request, &message, auth) {
                Reply::Response(response) => return Ok(response),
                Reply::Unrelated => {}
                Reply::NotStun => return Err(ProbeOutcome::NotStun),
            }
        }
    };
    timeout(STEP_TIMEOUT, exchange).await.unwrap_or(Err(ProbeOutcome::Timeout))
}

async fn next_message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, ProbeOutcome> {
    let mut message = Vec::new();
    loop {
        let length = messages::message_length(&message).map_err(|_| ProbeOutcome::NotStun)?;
        if length.is_some_and(|length| length > MAX_RESPONSE_BYTES) {
            return Err(ProbeOutcome::NotStun);
        }
        // Never past the end of the message, after which the next one begins.
        let missing = length.unwrap_or(4) - message.len();
        if missing == 0 {
            return Ok(message);
        }
        let mut piece = (&mut *stream).take(missing as u64);
        match piece.read_buf(&mut message).await {
            Ok(0) | Err(_) => return Err(ProbeOutcome::ConnectionClosed),
            Ok(_) => {}
        }
    }
}
