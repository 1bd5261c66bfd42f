//! The accept loop: plain or TLS connections, each with its deadlines, until the server stops.
//!
//! Our own, since `axum::serve` sets no timer: it would hold a half-sent request for ever.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use ipnet::IpNet;
use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    http::HttpService,
    intervals::HttpTimeouts,
    limits::{ConcurrencyLimiter, Permit},
    metrics::{Limit, Metrics},
    tls::Tls,
    workers::Workers,
};

/// The most a request's head may take, in bytes. Hyper refuses what is much longer, and the layers
/// the rest.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// How long to wait when the system has no handle left for another connection.
const DESCRIPTOR_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How many of `handles` connections leave for everything else: users, certificate and logouts must
/// be read and written also when strangers hold all the connections there can be.
fn reserved_descriptors(handles: usize) -> usize {
    (handles / 8).clamp(16, 64)
}

/// How many connections `handles` suffice for.
pub fn connection_capacity(handles: usize) -> usize {
    handles.saturating_sub(reserved_descriptors(handles)).clamp(1, Semaphore::MAX_PERMITS)
}

/// Connections from one address that are no WebSocket (yet).
const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 256;

/// Connections to figures: one that is stuck keeps no other out.
const MAX_METRICS_CONNECTIONS: usize = 8;

/// How a client begins that takes HTTP/2 for granted (RFC 9113 section 3.4). Hyper would hang up on it.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const HTTP2_REFUSAL: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How often the log says that connections have to wait.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The first byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How a request reached us; every request carries one as an extension.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Who is at the other end of the connection: the client or a proxy.
    pub peer: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The connection itself, for whoever makes a WebSocket of it.
    pub line: Arc<ConnectionSlot>,
    /// Who may carry it.
    pub workers: Workers,
}

/// What is known of a connection while it lives.
#[derive(Debug, Default)]
pub struct ConnectionSlot {
    has_asked: AtomicBool,
    is_websocket: AtomicBool,
    place: Mutex<Option<Permit>>,
    /// What its client may take its time for.
    pub timeouts: Arc<HttpTimeouts>,
}

impl ConnectionSlot {
    /// Says that the connection carries a WebSocket from now on: that one is counted elsewhere, and
    /// its session keeps deadlines of its own.
    pub fn mark_websocket(&self) {
        self.is_websocket.store(true, Ordering::Relaxed);
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// How many connections there may be.
pub struct ConnectionLimits {
    handles: Arc<Semaphore>,
    places: ConcurrencyLimiter,
    trusted_proxies: Vec<IpNet>,
    timeouts: Arc<HttpTimeouts>,
    metrics: Arc<Metrics>,
}

impl ConnectionLimits {
    /// As many connections as there are `handles`, but for a few, and no more than 256 that are no
    /// WebSocket from one address that is not a proxy of ours.
    /// Who finds no place is counted in `metrics`.
    pub fn new(handles: usize, trusted_proxies: &[IpNet], metrics: Arc<Metrics>) -> Self {
        Self::of(connection_capacity(handles), trusted_proxies, metrics)
    }

    /// A few, for whoever fetches figures: out of the handles that [`new`](Self::new) leaves.
    pub fn for_metrics(metrics: Arc<Metrics>) -> Self {
        Self::of(MAX_METRICS_CONNECTIONS, &[], metrics)
    }

    fn of(connections: usize, trusted_proxies: &[IpNet], metrics: Arc<Metrics>) -> Self {
        Self {
            handles: Arc::new(Semaphore::new(connections)),
            places: ConcurrencyLimiter::new(0, MAX_UNAUTHENTICATED_PER_ADDRESS),
            trusted_proxies: trusted_proxies.to_vec(),
            timeouts: Arc::default(),
            metrics,
        }
    }

    /// The same with other time-outs than [the usual](HttpTimeouts::default).
    pub fn with_timeouts(self, timeouts: HttpTimeouts) -> Self {
        Self { timeouts: Arc::new(timeouts), ..self }
    }

    /// Waits for a handle. Safe to cancel.
    async fn acquire(&self, complaint: &mut LogThrottle) -> OwnedSemaphorePermit {
        if let Ok(handle) = self.handles.clone().try_acquire_owned() {
            return handle;
        }
        if complaint.should_log() {
            tracing::warn!("as many connections are open as there are handles; others wait");
        }
        #[expect(clippy::expect_used, reason = "see the message")]
        self.handles.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A place for a connection from `peer`: `Ok(None)` where it needs none.
    fn address_permit(&self, peer: SocketAddr) -> Result<Option<Permit>, AddressLimitReached> {
        let address = peer.ip().to_canonical();
        if self.trusted_proxies.iter().any(|net| net.contains(&address)) {
            return Ok(None);
        }
        self.places.acquire(address).map(Some).ok_or_else(|| {
            self.metrics.limited(Limit::Connections);
            AddressLimitReached
        })
    }
}

/// An address has as many connections as it may.
struct AddressLimitReached;

/// A complaint that is made again only after a while.
#[derive(Default)]
struct LogThrottle(Option<Instant>);

impl LogThrottle {
    /// Whether it may be made now; then it is.
    fn should_log(&mut self) -> bool {
        let is_due = self.0.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.0 = Some(Instant::now());
        }
        is_due
    }
}

/// Takes as many file handles as the system lets this process have, and says how many that are.
pub fn raise_descriptor_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let claimed = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let handles = if claimed.is_ok() { maximum } else { current };
    handles.and_then(|handles| usize::try_from(handles).ok()).unwrap_or(usize::MAX)
}

/// The socket that whoever started us listens on already (systemd's `LISTEN_FDS`, sd_listen_fds(3)): it stays
/// open while one process follows the other. Takes it out of the environment: call it once, before there
/// are threads.
///
/// # Errors
///
/// When what was handed over is not one TCP socket.
pub fn inherited_listener() -> io::Result<Option<std::net::TcpListener>> {
    let mut sockets = ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(io::Error::other("one socket is served, and more were handed over"));
    }
    sockets.take_tcp_listener(0)
}

/// Listens on a socket that was [handed over](handed_over).
///
/// # Errors
///
/// What the system says.
pub fn adopt_listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Listens on `host` (a name or an address) and `port`, 0 for any that is free.
///
/// Connections wait for us in a queue as long as the system allows (`net.core.somaxconn`): after a
/// restart everybody comes back at once, and whom the queue has no room for tries again only after a
/// second, then three, seven, fifteen.
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((host, port)).await?;
    rustix::net::listen(&listener, i32::MAX)?;
    Ok(listener)
}

/// Serves `doors` on `listener` until `closing`; then finishes the requests that have begun.
///
/// With `tls`, a client that speaks plain HTTP to the same port is served too, with
/// [`Transport::tls`] false: it can be told where to go instead.
pub async fn serve(
    listener: TcpListener,
    doors: HttpService,
    tls: Option<Arc<Tls>>,
    gate: ConnectionLimits,
    workers: Workers,
    closing: CancellationToken,
) {
    let connections = TaskTracker::new();
    let runtime = Handle::current().id();
    let (mut no_handle, mut not_accepted, mut crowded) =
        (LogThrottle::default(), LogThrottle::default(), LogThrottle::default());
    loop {
        let accepting = async {
            let handle = gate.acquire(&mut no_handle).await;
            (handle, listener.accept().await)
        };
        let (handle, accepted) = tokio::select! {
            accepted = accepting => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => match gate.address_permit(peer) {
                Ok(place) => {
                    let line = Arc::new(ConnectionSlot {
                        place: Mutex::new(place),
                        timeouts: gate.timeouts.clone(),
                        ..ConnectionSlot::default()
                    });
                    let transport =
                        ConnectionInfo { peer, tls: false, line, workers: workers.clone() };
                    let connection = AcceptedConnection { stream, runtime, transport, handle };
                    let (doors, tls, closing) = (doors.clone(), tls.clone(), closing.clone());
                    connections.spawn_on(connection.serve(doors, tls, closing), workers.next());
                }
                Err(AddressLimitReached) => {
                    if crowded.should_log() {
                        let address = peer.ip();
                        tracing::warn!(%address, "an address has too many connections; more are closed");
                    }
                }
            },
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if not_accepted.should_log() {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                tokio::time::sleep(DESCRIPTOR_RETRY_INTERVAL).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Whether `accept` failed because the one that was to be accepted is gone already.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection that was accepted, on its way to the worker that will carry it.
struct AcceptedConnection {
    stream: TcpStream,
    /// Where it was accepted.
    runtime: runtime::Id,
    transport: ConnectionInfo,
    handle: OwnedSemaphorePermit,
}

impl AcceptedConnection {
    async fn serve(self, doors: HttpService, tls: Option<Arc<Tls>>, closing: CancellationToken) {
        let Self { stream, runtime, mut transport, handle } = self;
        // Signaling messages are small and somebody waits for each.
        let _ = stream.set_nodelay(true);
        let line = transport.line.clone();
        let mut stream = CountedStream {
            tcp: stream,
            runtime,
            line: line.clone(),
            has_read: false,
            stalled: None,
            _handle: handle,
        };
        if let Err(error) = stream.move_to_current_runtime() {
            return tracing::warn!(%error, "a connection could not be handed on");
        }
        let Some(tls) = tls else {
            return serve_http(stream, transport, doors, closing).await;
        };
        let arrived = tokio::select! {
            arrived = timeout(line.timeouts.head, sniff(stream, &tls)) => arrived,
            () = closing.cancelled() => return,
        };
        match arrived {
            Ok(Ok(Sniffed::Plain(stream))) => serve_http(stream, transport, doors, closing).await,
            Ok(Ok(Sniffed::Tls(stream))) => {
                transport.tls = true;
                serve_http(stream, transport, doors, closing).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }
}

/// A connection to a port with TLS, once it is clear whether the client speaks it.
enum Sniffed {
    Plain(CountedStream),
    Tls(Box<TlsStream<CountedStream>>),
}

async fn sniff(stream: CountedStream, tls: &Tls) -> io::Result<Sniffed> {
    let mut first = [0];
    stream.tcp.peek(&mut first).await?;
    if first != [TLS_HANDSHAKE] {
        return Ok(Sniffed::Plain(stream));
    }
    Ok(Sniffed::Tls(Box::new(tls.acceptor().accept(stream).await?)))
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    transport: ConnectionInfo,
    doors: HttpService,
    closing: CancellationToken,
) {
    let line = transport.line.clone();
    let service = doors.map_request(move |request: hyper::Request<Incoming>| {
        transport.line.has_asked.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(transport.clone());
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(line.timeouts.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            // Browsers open connections ahead of need; hyper would wait for the first request on them.
            if !line.has_asked.load(Ordering::Relaxed) {
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// A connection after an upgrade.
pub enum Upgraded {
    /// Plain TCP.
    Plain(CountedStream),
    /// Our own TLS.
    Tls(Box<TlsStream<CountedStream>>),
}

impl Upgraded {
    /// From now on it wakes the runtime that this is called in, not the one that it came from.
    ///
    /// # Errors
    ///
    /// When the system has no handle left.
    pub fn move_to_current_runtime(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.move_to_current_runtime(),
            Self::Tls(stream) => stream.get_mut().0.move_to_current_runtime(),
        }
    }
}

/// The connection itself, without what hyper had around it, and what had been read from it already.
pub fn stream_of(upgraded: hyper::upgrade::Upgraded) -> Option<(Upgraded, Vec<u8>)> {
    // A copy of what was read: the buffer itself has eight kilobytes, which the WebSocket would keep.
    match upgraded.downcast::<TokioIo<CountedStream>>() {
        Ok(parts) => Some((Upgraded::Plain(parts.io.into_inner()), parts.read_buf.to_vec())),
        Err(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<Box<TlsStream<CountedStream>>>>().ok()?;
            Some((Upgraded::Tls(parts.io.into_inner()), parts.read_buf.to_vec()))
        }
    }
}

/// An accepted connection. Holds its handle until it is closed, and fails when its client takes
/// nothing of an answer for too long: hyper would wait for ever.
pub struct CountedStream {
    tcp: TcpStream,
    /// The one that it wakes.
    runtime: runtime::Id,
    line: Arc<ConnectionSlot>,
    has_read: bool,
    /// Runs out when a write has waited too long.
    stalled: Option<Pin<Box<Sleep>>>,
    _handle: OwnedSemaphorePermit,
}

impl CountedStream {
    /// See [`Upgraded::moves_here`].
    fn move_to_current_runtime(&mut self) -> io::Result<()> {
        let here = Handle::current().id();
        if self.runtime != here {
            let same = self.tcp.as_fd().try_clone_to_owned()?;
            self.tcp = TcpStream::from_std(same.into())?;
            self.runtime = here;
        }
        Ok(())
    }

    fn with_stall_timeout<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() || self.line.is_websocket.load(Ordering::Relaxed) {
            self.stalled = None;
            return written;
        }
        let timeout = self.line.timeouts.write_stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tcp).poll_read(context, buffer))?;
        if !self.has_read {
            self.has_read = true;
            if buffer.filled().starts_with(HTTP2_PREFACE) {
                let _ = self.tcp.try_write(HTTP2_REFUSAL);
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
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.with_stall_timeout(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, slices);
        self.with_stall_timeout(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
