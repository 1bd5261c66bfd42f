//! An accepted connection as others see it: its stream, its peer, and what an upgrade makes of it.

use std::{
    convert::Infallible,
    fmt,
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{extract::Request, response::Response};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{self, Handle},
    sync::{Notify, OwnedSemaphorePermit},
    time::Sleep,
};
use tower::util::BoxCloneSyncService;

use super::{
    answer::AnswerStream,
    socket::{PeerAddress, StreamSocket},
    turns::RequestTurns,
    workers::Workers,
};
use crate::{
    intervals::HttpTimeouts,
    limits::Permit,
    memory::{Charge, MemoryBudget, MemoryHolder, MemoryKind, Shed},
    tls::TlsStream,
};

/// A service that answers every request, for [`serve`](super::serve).
pub type HttpService = BoxCloneSyncService<Request, Response, Infallible>;

/// The largest request head, in bytes. Hyper rejects one that is much longer, and a layer rejects the rest.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// The most bytes that count for one request: what is read of a body that is too large is not kept.
const MAX_REQUEST_BYTES: usize = 96 * 1024;

/// What a connection takes beside the bytes of its request: its task, and the buffers of TLS and HTTP.
const CONNECTION_BYTES: usize = 16 * 1024;

/// How large the buffer of a request's head is at first. It stays as large as it had to become.
const FIRST_HEAD_BUFFER: usize = 8 * 1024;

/// The start of a connection of a client that assumes HTTP/2 (RFC 9113 section 3.4). Hyper would close it without an
/// answer.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const HTTP2_REFUSAL: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The connection that a request came on; every request carries one as an extension.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The other end: the client or a proxy. With PROXY headers, the one that the header names.
    pub peer: PeerAddress,
    /// Whether the connection is TLS, or a PROXY header says that the client's connection is.
    pub tls: bool,
    /// The TCP proxy that named `peer` in a PROXY header.
    pub tcp_proxy: Option<IpAddr>,
    /// The connection itself, for an upgrade to a WebSocket.
    pub slot: Arc<ConnectionSlot>,
    /// The workers of the server.
    pub workers: Workers,
    /// How the requests of this connection's worker begin.
    pub turns: Arc<RequestTurns>,
}

/// The state of a connection while it is open.
#[derive(Debug, Default)]
pub struct ConnectionSlot {
    pub(super) has_requested: AtomicBool,
    /// A request is being answered.
    is_answering: AtomicBool,
    /// Notified when the connection is to be closed.
    closing: Notify,
    /// Counts the bytes of a request that were read before its answer is ready.
    request: Mutex<RequestCharge>,
    /// The end of the connection is a reset, and the kernel keeps nothing for a client that does not read.
    is_reset_at_end: AtomicBool,
    permit: Mutex<Option<Permit>>,
    /// How long its client may take.
    pub timeouts: Arc<HttpTimeouts>,
}

impl ConnectionSlot {
    /// A connection that was accepted with `permit`.
    pub(super) fn new(
        permit: Option<Permit>,
        timeouts: Arc<HttpTimeouts>,
        memory: &MemoryBudget,
    ) -> Arc<Self> {
        let slot = Arc::new(Self { timeouts, ..Self::default() });
        let holder = memory.holder();
        let shed: Weak<Self> = Arc::downgrade(&slot);
        holder.set_shed(shed);
        slot.request_charge().charge = Some(holder.charge(MemoryKind::PartialRequests));
        slot.set_permit(permit);
        slot
    }

    /// Counts bytes that were read.
    fn record_read(&self, bytes: usize) {
        let mut charge = self.request_charge();
        let read = (charge.request + bytes).min(MAX_REQUEST_BYTES);
        charge.set_request(read);
    }

    fn request_charge(&self) -> MutexGuard<'_, RequestCharge> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole request head has arrived. Returns a value that is held until the answer is ready.
    pub(super) fn begin_request(self: &Arc<Self>) -> RequestInProgress {
        self.has_requested.store(true, Ordering::Relaxed);
        self.is_answering.store(true, Ordering::Relaxed);
        let mut charge = self.request_charge();
        charge.head = charge.request;
        drop(charge);
        RequestInProgress(self.clone())
    }

    /// Whether no request is being answered: the connection waits for its client.
    pub(super) fn is_silent(&self) -> bool {
        !self.is_answering.load(Ordering::Relaxed)
    }

    /// Closes the connection, unless it was upgraded.
    pub(super) fn close(&self) {
        self.closing.notify_one();
    }

    /// Waits until the connection is to be closed. Cancel safe.
    pub(super) async fn closed(&self) {
        self.closing.notified().await;
    }

    /// Holds `permit` until the connection is a WebSocket or ends. A trusted proxy has none, and its connections, which it
    /// keeps open for later clients, count only for their requests.
    pub(super) fn set_permit(&self, permit: Option<Permit>) {
        self.request_charge().set_connection(if permit.is_some() { CONNECTION_BYTES } else { 0 });
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }

    /// The connection was upgraded: it counts against other limits from now on.
    pub fn end_http(&self) {
        *self.request_charge() = RequestCharge::default();
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Shed for ConnectionSlot {
    fn shed(&self) -> bool {
        self.is_reset_at_end.store(true, Ordering::Relaxed);
        self.close();
        true
    }
}

/// The charge of a connection and its request; none once it is a WebSocket.
#[derive(Default)]
struct RequestCharge {
    charge: Option<Charge>,
    /// What the connection itself counts.
    connection: usize,
    /// What its request counts.
    request: usize,
    /// What had been read of the request when its head was complete.
    head: usize,
    /// The buffer of the largest head until now, where that had to grow.
    buffer: usize,
}

impl RequestCharge {
    fn set_connection(&mut self, bytes: usize) {
        self.connection = bytes;
        self.update();
    }

    fn set_request(&mut self, bytes: usize) {
        self.request = bytes;
        self.update();
    }

    /// The request was answered, and only the buffer of its head is left of it.
    fn finish_request(&mut self) {
        if self.head > FIRST_HEAD_BUFFER {
            self.buffer = self.buffer.max(self.head);
        }
        self.set_request(0);
    }

    fn update(&mut self) {
        if let Some(charge) = &mut self.charge {
            let _ = charge.set(self.connection + self.request.max(self.buffer));
        }
    }
}

impl fmt::Debug for RequestCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RequestCharge").field(&self.charge.as_ref().map(Charge::bytes)).finish()
    }
}

/// A request that is being answered.
pub(super) struct RequestInProgress(Arc<ConnectionSlot>);

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.0.is_answering.store(false, Ordering::Relaxed);
        self.0.request_charge().finish_request();
    }
}

/// A connection after an upgrade.
pub enum Upgraded {
    /// Without TLS.
    Plain(CountedStream),
    /// Our own TLS.
    Tls(Box<TlsStream<CountedStream>>),
}

impl Upgraded {
    /// It is a WebSocket from now on, whose memory `memory` counts. Nothing is kept of what it was before.
    pub fn begin_websocket(&mut self, memory: &Arc<MemoryHolder>) {
        match self {
            Self::Plain(stream) => stream.begin_websocket(memory),
            Self::Tls(stream) => {
                stream.get_mut().begin_websocket(memory);
                stream.set_memory_holder(memory);
            }
        }
    }

    /// Registers the socket with the current runtime, in place of the one that accepted it.
    ///
    /// # Errors
    ///
    /// When the system has no file descriptor left.
    pub fn move_to_current_runtime(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.move_to_current_runtime(),
            Self::Tls(stream) => stream.get_mut().move_to_current_runtime(),
        }
    }
}

/// The connection without hyper's wrapper, and the bytes that hyper had read already.
pub fn stream_of(upgraded: hyper::upgrade::Upgraded) -> Option<(Upgraded, Vec<u8>)> {
    // A copy of the bytes: the buffer itself takes 8 KB, which the WebSocket would keep.
    match upgraded.downcast::<TokioIo<AnswerStream<CountedStream>>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner().into_inner();
            Some((Upgraded::Plain(stream), parts.read_buf.to_vec()))
        }
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<AnswerStream<Box<TlsStream<CountedStream>>>>>();
            let parts = parts.ok()?;
            let stream = parts.io.into_inner().into_inner();
            Some((Upgraded::Tls(stream), parts.read_buf.to_vec()))
        }
    }
}

/// What a connection is used for.
enum Phase {
    /// For requests.
    Http(Arc<ConnectionSlot>),
    /// For a WebSocket, whose session has deadlines of its own. Its memory is counted by this.
    WebSocket(Arc<MemoryHolder>),
}

/// The stream of an accepted connection. Holds its file descriptor permit until it is closed, and fails when the client
/// reads nothing of a response for too long: hyper would wait forever.
pub struct CountedStream {
    pub(super) socket: StreamSocket,
    /// The runtime that the socket is registered with.
    runtime: runtime::Id,
    phase: Phase,
    has_read: bool,
    /// Elapses when a write has waited too long.
    stalled: Option<Pin<Box<Sleep>>>,
    _descriptor: OwnedSemaphorePermit,
}

impl CountedStream {
    pub(super) fn new(
        socket: StreamSocket,
        runtime: runtime::Id,
        slot: Arc<ConnectionSlot>,
        descriptor: OwnedSemaphorePermit,
    ) -> Self {
        let (has_read, stalled) = (false, None);
        let phase = Phase::Http(slot);
        Self { socket, runtime, phase, has_read, stalled, _descriptor: descriptor }
    }

    /// See [`Upgraded::move_to_current_runtime`].
    pub(super) fn move_to_current_runtime(&mut self) -> io::Result<()> {
        let current = Handle::current().id();
        if self.runtime != current {
            self.socket = self.socket.on_current_runtime()?;
            self.runtime = current;
        }
        Ok(())
    }

    fn begin_websocket(&mut self, memory: &Arc<MemoryHolder>) {
        self.phase = Phase::WebSocket(memory.clone());
        self.stalled = None;
    }

    fn with_stall_timeout<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Phase::Http(slot) = &self.phase else { return written };
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = slot.timeouts.write_stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        let is_reset_at_end = match &self.phase {
            Phase::Http(slot) => slot.is_reset_at_end.load(Ordering::Relaxed),
            Phase::WebSocket(memory) => memory.is_shed(),
        };
        if is_reset_at_end {
            self.socket.discard_unsent_at_close();
        }
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        if let Phase::Http(slot) = &self.phase {
            slot.record_read(buffer.filled().len() - before);
        }
        if !self.has_read {
            self.has_read = true;
            if buffer.filled().starts_with(HTTP2_PREFACE) {
                let _ = self.socket.try_write(HTTP2_REFUSAL);
                buffer.clear();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.with_stall_timeout(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.with_stall_timeout(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
