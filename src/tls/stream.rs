//! TLS of the server on an accepted connection.
//!
//! rustls does the protocol and this moves the bytes, on its interface without buffers: an idle connection owns none, where
//! tokio-rustls keeps 4 KiB for each, and a message is encrypted where it is written from.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus, WriteTraffic},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::memory::{Charge, MemoryHolder, MemoryKind};

/// The most plaintext in a record (RFC 8446 section 5.1), and so in one write.
const MAX_PLAINTEXT_BYTES: usize = 16 * 1024;

/// More than a record, and a key update in front of it, add to the plaintext.
const MAX_OVERHEAD_BYTES: usize = 512;

/// How much is read at least. A reader with less room has the rest of it later.
const MIN_READ_BYTES: usize = 4 * 1024;

/// The most bytes that wait for the rest of a record or of a handshake message, which rustls accepts up to 64 KiB.
const MAX_INCOMPLETE_BYTES: usize = 96 * 1024;

thread_local! {
    /// Where a thread reads records, and encrypts them, before they are a connection's own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_PLAINTEXT_BYTES + MAX_OVERHEAD_BYTES]);
}

/// The server's end of a TLS connection on `S`.
pub struct TlsStream<S> {
    stream: S,
    session: Session,
    /// What has arrived of a record, or of a handshake message.
    incomplete: Vec<u8>,
    /// Counts what is held.
    held: Charge,
}

/// The state of the protocol, and what it has for either side.
struct Session {
    connection: UnbufferedServerConnection,
    /// Decrypted, and not read yet.
    plaintext: Vec<u8>,
    /// Encrypted, and not sent yet.
    unsent: Vec<u8>,
    /// The client has said that it sends no more (close_notify).
    is_at_end: bool,
    has_sent_end: bool,
    has_failed: bool,
}

impl Session {
    /// Takes the records that have `arrived`: what they carry goes into `plain` as far as there is room, and what they are answered
    /// with into `unsent`. Calls `write` where data may be written. Returns how many bytes are used up, and what `write` returned.
    fn advance<T>(
        &mut self,
        arrived: &mut [u8],
        plain: &mut ReadBuf<'_>,
        write: impl FnOnce(WriteTraffic<'_, ServerConnectionData>) -> T,
    ) -> Result<(usize, Option<T>), rustls::Error> {
        if self.has_failed {
            return Err(rustls::Error::General("the connection has failed".to_owned()));
        }
        let mut used = 0;
        loop {
            let rest = arrived.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        let fits = if self.plaintext.is_empty() { plain.remaining() } else { 0 };
                        let (now, later) = record.payload.split_at(fits.min(record.payload.len()));
                        plain.put_slice(now);
                        self.plaintext.extend_from_slice(later);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.unsent, |place| data.encode(place))?;
                }
                // `unsent` goes out before anything else.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_at_end = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    return Ok((used + discard, Some(write(traffic))));
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => {
                    return Ok((used + discard, None));
                }
                // Early data, which the server does not accept, or what a later rustls may have.
                Ok(_) => return Err(rustls::Error::HandshakeNotComplete),
                Err(error) => {
                    self.has_failed = true;
                    let rest = arrived.get_mut(used + discard..).unwrap_or_default();
                    let after = self.connection.process_tls_records(rest).state;
                    if let Ok(ConnectionState::EncodeTlsData(mut alert)) = after {
                        append(&mut self.unsent, |place| alert.encode(place))?;
                    }
                    return Err(error);
                }
            }
            used += discard;
        }
    }
}

/// Appends what `encode` writes into the place that it asks for.
fn append(
    unsent: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), rustls::Error> {
    let (before, mut room) = (unsent.len(), 0);
    loop {
        unsent.resize(before + room, 0);
        match encode(unsent.get_mut(before..).unwrap_or_default()) {
            Ok(length) => {
                unsent.truncate(before + length);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => {
                room = needed.required_size;
            }
            Err(error) => return Err(rustls::Error::General(error.to_string())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Completes the handshake of a client that has connected.
    ///
    /// # Errors
    ///
    /// Those of the connection; [`ErrorKind::InvalidData`] for what rustls refuses, of which the client is told by an alert.
    pub async fn accept(stream: S, config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(invalid)?;
        let session = Session {
            connection,
            plaintext: Vec::new(),
            unsent: Vec::new(),
            is_at_end: false,
            has_sent_end: false,
            has_failed: false,
        };
        let held = Charge::uncounted(MemoryKind::PartialFrames);
        let mut accepted = Self { stream, session, incomplete: Vec::new(), held };
        poll_fn(|context| accepted.poll_handshake(context)).await?;
        Ok(accepted)
    }

    /// From now on what it holds counts for `holder`.
    pub fn set_memory_holder(&mut self, holder: &Arc<MemoryHolder>) {
        self.held.bill(holder);
    }

    /// What is excessive here is shed by the guard: this may be a peer's task, which writes.
    fn update_charge(&mut self) {
        let Session { plaintext, unsent, .. } = &self.session;
        let held = [&self.incomplete, plaintext, unsent].map(Vec::capacity);
        let _ = self.held.set(held.iter().sum());
    }

    /// The connection below.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    fn poll_handshake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(context))?;
            if !self.session.connection.is_handshaking() {
                return Pin::new(&mut self.stream).poll_flush(context);
            }
            if self.session.is_at_end {
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            ready!(self.poll_receive(context, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads what has arrived, and decrypts it into `plain`.
    fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        plain: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let received: Poll<io::Result<()>> = SCRATCH.with_borrow_mut(|scratch| {
            let room = plain.remaining().clamp(MIN_READ_BYTES, MAX_PLAINTEXT_BYTES);
            let mut arrived = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut arrived))?;
            let arrived = arrived.filled_mut();
            if arrived.is_empty() {
                // Without a close_notify the end may be an attacker's (RFC 8446 section 6.1).
                return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
            }
            if self.incomplete.is_empty() {
                let advanced = self.session.advance(arrived, plain, |_| ());
                let (used, _) = advanced.map_err(invalid)?;
                self.incomplete.extend_from_slice(arrived.get(used..).unwrap_or_default());
            } else {
                self.incomplete.extend_from_slice(arrived);
                let advanced = self.session.advance(&mut self.incomplete, plain, |_| ());
                let (used, _) = advanced.map_err(invalid)?;
                self.incomplete.drain(..used);
                if self.incomplete.is_empty() {
                    self.incomplete = Vec::new();
                }
            }
            if self.incomplete.len() > MAX_INCOMPLETE_BYTES {
                return Poll::Ready(Err(ErrorKind::InvalidData.into()));
            }
            Poll::Ready(Ok(()))
        });
        if let Poll::Ready(Err(error)) = &received
            && error.kind() == ErrorKind::InvalidData
        {
            let _ = self.poll_send(context); // the alert, as far as the socket takes it
        }
        self.update_charge();
        received
    }

    /// Sends what is not sent yet.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unsent = &mut self.session.unsent;
        if unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, unsent))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                sent if sent == unsent.len() => *unsent = Vec::new(),
                sent => drop(unsent.drain(..sent)),
            }
        }
        self.update_charge();
        Poll::Ready(Ok(()))
    }

    /// Writes with `write` behind what is not sent yet, and sends as much of it as the socket takes.
    fn write_traffic<E: std::fmt::Display>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, E>,
    ) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let write = |traffic: WriteTraffic<'_, _>| write(traffic, scratch);
            let mut nothing = ReadBuf::new(&mut []);
            let advanced = self.session.advance(&mut self.incomplete, &mut nothing, write);
            let (used, written) = advanced.map_err(invalid)?;
            self.incomplete.drain(..used);
            let length = written.ok_or(ErrorKind::NotConnected)?;
            let length = length.map_err(|error| io::Error::other(error.to_string()))?;
            let mut records = scratch.get(..length).unwrap_or_default();
            if self.session.unsent.is_empty()
                && let Poll::Ready(sent) = Pin::new(&mut self.stream).poll_write(context, records)
            {
                records = records.get(sent?..).unwrap_or_default();
            }
            self.session.unsent.extend_from_slice(records);
            self.update_charge();
            Ok(())
        })
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            let plaintext = &mut self.session.plaintext;
            if !plaintext.is_empty() {
                let length = buffer.remaining().min(plaintext.len());
                buffer.put_slice(plaintext.get(..length).unwrap_or_default());
                plaintext.drain(..length);
                if plaintext.is_empty() {
                    *plaintext = Vec::new();
                }
                self.update_charge();
                return Poll::Ready(Ok(()));
            }
            if buffer.filled().len() > before || self.session.is_at_end {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(context, buffer))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(context))?;
        let part = bytes.get(..MAX_PLAINTEXT_BYTES).unwrap_or(bytes);
        self.write_traffic(context, |mut traffic, place| traffic.encrypt(part, place))?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.session.has_sent_end {
            self.session.has_sent_end = true;
            self.write_traffic(context, |mut traffic, place| traffic.queue_close_notify(place))?;
        }
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsConnector, client};

    use super::*;

    type Ends = (TlsStream<DuplexStream>, client::TlsStream<DuplexStream>);

    /// What a server and a client, which trusts it, are made of.
    fn configs(
        version: &'static SupportedProtocolVersion,
        max_fragment_size: Option<usize>,
    ) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let mut server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        server.send_tls13_tickets = 0; // nobody reads them before both ends are connected
        let mut client = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.max_fragment_size = max_fragment_size;
        (Arc::new(server), Arc::new(client))
    }

    /// Both ends of a connection whose network takes `room` bytes at a time.
    async fn connect(version: &'static SupportedProtocolVersion, room: usize) -> Ends {
        // Then a handshake message is in several records.
        let (server, client) = configs(version, (room < 100).then_some(64));
        let (near, far) = duplex(room);
        let connecting = TlsConnector::from(client).connect("localhost".try_into().unwrap(), far);
        let (near, far) = tokio::join!(TlsStream::accept(near, server), connecting);
        (near.unwrap(), far.unwrap())
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 31 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_arrive_whole_and_in_order_in_both_directions() {
        for version in [&version::TLS13, &version::TLS12] {
            for room in [7, 1024, 64 * 1024] {
                let (near, far) = connect(version, room).await;
                let (mut reading, mut writing) = tokio::io::split(near);
                let echo = tokio::spawn(async move {
                    tokio::io::copy(&mut reading, &mut writing).await.unwrap();
                    writing.shutdown().await.unwrap();
                });
                let (mut answers, mut sending) = tokio::io::split(far);
                let sent = [0, 1, 2, 100, 4096, 16_383, 16_384, 16_385, 50_000].map(pattern);
                let all = sent.concat();
                let send = async move {
                    for part in &sent {
                        sending.write_all(part).await.unwrap();
                        sending.flush().await.unwrap();
                    }
                    sending.shutdown().await.unwrap();
                };
                let mut received = Vec::new();
                let (_, read) = tokio::join!(send, answers.read_to_end(&mut received));
                read.unwrap();

                assert!(received == all, "{version:?} {room}: {} bytes", received.len());
                echo.await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_reader_with_little_room_has_the_rest_of_a_record_later() {
        let (mut near, mut far) = connect(&version::TLS13, 64 * 1024).await;
        let sent = pattern(16_000);
        far.write_all(&sent).await.unwrap();
        far.flush().await.unwrap();

        let mut received = Vec::new();
        let mut part = [0; 999];
        while received.len() < sent.len() {
            let length = near.read(&mut part).await.unwrap();
            received.extend_from_slice(&part[..length]);
        }

        assert!(received == sent);
    }

    #[tokio::test]
    async fn an_idle_connection_owns_no_buffer() {
        for version in [&version::TLS13, &version::TLS12] {
            let (mut near, mut far) = connect(version, 64 * 1024).await;
            near.write_all(b"hello").await.unwrap();
            near.flush().await.unwrap();
            far.write_all(&pattern(3_000)).await.unwrap();
            far.flush().await.unwrap();
            near.read_exact(&mut [0; 3_000]).await.unwrap();
            far.read_exact(&mut [0; 5]).await.unwrap();

            let Session { plaintext, unsent, .. } = &near.session;
            let capacities = [&near.incomplete, plaintext, unsent].map(Vec::capacity);
            assert_eq!(capacities, [0; 3], "{version:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_is_told_from_one_that_ends() {
        let (mut near, mut far) = connect(&version::TLS13, 1024).await;
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0; 10]).await.unwrap(), 0);
        near.write_all(b"still open this way").await.unwrap();
        near.shutdown().await.unwrap();
        let mut rest = String::new();
        far.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "still open this way");

        let (mut near, far) = connect(&version::TLS13, 1024).await;
        drop(far);
        let cut = near.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn what_is_no_tls_is_refused_with_an_alert() {
        let (server, _) = configs(&version::TLS13, None);
        let (near, mut far) = duplex(1024);
        far.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();

        let error = TlsStream::accept(near, server).await.err().unwrap();

        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let mut alert = Vec::new();
        far.read_to_end(&mut alert).await.unwrap();
        assert_eq!(alert.first(), Some(&21), "{alert:?}"); // RFC 8446 section 5.1
    }

    #[tokio::test]
    async fn a_record_that_was_changed_on_its_way_ends_the_connection() {
        let (mut near, mut far) = connect(&version::TLS13, 1024).await;
        let (wire, _) = far.get_mut();
        wire.write_all(&[23, 3, 3, 0, 40]).await.unwrap();
        wire.write_all(&[0; 40]).await.unwrap();

        let refused = near.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidData);
        assert!(near.write(b"more").await.is_err());
        let told = far.read(&mut [0; 10]).await.unwrap_err().to_string();
        assert!(told.contains("BadRecordMac"), "{told}");
    }

    #[tokio::test]
    async fn a_client_may_change_its_keys() {
        let (near, mut far) = connect(&version::TLS13, 1024).await;
        let (mut reading, mut writing) = tokio::io::split(near);
        let echo = tokio::spawn(async move {
            tokio::io::copy(&mut reading, &mut writing).await.unwrap();
        });
        for round in 0..20 {
            far.get_mut().1.refresh_traffic_keys().unwrap();
            let sent = [round; 100];
            far.write_all(&sent).await.unwrap();
            far.flush().await.unwrap();
            let mut received = [0; 100];
            far.read_exact(&mut received).await.unwrap();
            assert_eq!(received, sent);
        }
        far.shutdown().await.unwrap();
        echo.await.unwrap();
    }
}
