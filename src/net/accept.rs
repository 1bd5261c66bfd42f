//! The accept loop: plain or TLS connections, until the server stops.
//!
//! Our own, since `axum::serve` sets no timer: it would keep a half-sent request forever.

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::{self, Handle},
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    answer::AnswerStream,
    connection::{ConnectionInfo, ConnectionSlot, CountedStream, HttpService, MAX_HEAD_BYTES},
    limits::{ConnectionLimits, LogThrottle},
    proxy_header::read_proxy_header,
    sniff::{Sniffed, sniff},
    socket::{Listener, PeerAddress, StreamSocket},
    workers::Workers,
};
use crate::{
    intervals::HttpTimeouts,
    limits::{RefusalKind, log_refusal},
    tls::ServerCertificate,
};

/// What the kernel may buffer of a connection in each direction, in bytes; it doubles the number for its own records. Many times
/// what signaling has on the way, and enough for a megabyte a second over 100 ms.
const KERNEL_BUFFER_BYTES: usize = 128 * 1024;

/// How long to wait before accepting again, where the system has no file descriptor left.
const DESCRIPTOR_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Listens on `host` (a name or an address) and `port`, 0 for any that is free.
///
/// The backlog is as long as the system allows (`net.core.somaxconn`): after a restart all clients reconnect at once, and
/// a client that finds the backlog full retries only after 1 s, then 3, 7 and 15 s.
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((host, port)).await?;
    bound_kernel_buffers(&listener);
    rustix::net::listen(&listener, i32::MAX)?;
    Ok(listener)
}

/// Bounds the kernel's buffers of every connection that `listener` accepts, which inherit this (socket(7)): left to itself the
/// kernel lets a client that does not read have several MiB, and a control group's limit counts them.
pub(super) fn bound_kernel_buffers(listener: &TcpListener) {
    let bounded = rustix::net::sockopt::set_socket_send_buffer_size(listener, KERNEL_BUFFER_BYTES)
        .and_then(|()| {
            rustix::net::sockopt::set_socket_recv_buffer_size(listener, KERNEL_BUFFER_BYTES)
        });
    if let Err(error) = bounded {
        tracing::warn!(%error, "cannot bound the kernel's buffers of connections");
    }
}

/// Serves `service` on `listener` until `closing`; then finishes the requests that have begun.
///
/// With `tls`, a client that speaks plain HTTP to the same port is served too, with
/// [`ConnectionInfo::tls`] false: it can be redirected.
pub async fn serve(
    listener: impl Into<Listener>,
    service: HttpService,
    tls: Option<Arc<ServerCertificate>>,
    limits: ConnectionLimits,
    workers: Workers,
    closing: CancellationToken,
) {
    let (listener, limits) = (listener.into(), Arc::new(limits));
    let connections = TaskTracker::new();
    let runtime = Handle::current().id();
    let (mut no_descriptor, mut not_accepted) = (LogThrottle::default(), LogThrottle::default());
    loop {
        let accepting = async {
            let descriptor = limits.acquire(&mut no_descriptor).await;
            (descriptor, listener.accept().await)
        };
        let (descriptor, accepted) = tokio::select! {
            accepted = accepting => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((socket, peer)) => {
                let Ok(permit) = limits.address_permit(peer) else {
                    log_address_limit(peer);
                    continue;
                };
                let slot = ConnectionSlot::new(permit, limits.timeouts.clone(), &limits.memory);
                limits.make_room(&slot);
                let (worker, turns) = workers.next();
                let (worker, tcp_proxy, workers) = (worker.clone(), None, workers.clone());
                let info = ConnectionInfo { peer, tls: false, tcp_proxy, slot, workers, turns };
                let limits = limits.clone();
                let connection = AcceptedConnection { socket, runtime, info, descriptor, limits };
                let (service, tls, closing) = (service.clone(), tls.clone(), closing.clone());
                connections.spawn_on(connection.serve(service, tls, closing), &worker);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if not_accepted.should_log() {
                    tracing::warn!(%error, "cannot accept connections; retrying");
                }
                tokio::time::sleep(DESCRIPTOR_RETRY_INTERVAL).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn log_address_limit(peer: PeerAddress) {
    if let Some(address) = peer.ip() {
        log_refusal(RefusalKind::AddressConnections, address, Instant::now());
    }
}

/// Whether `accept` failed because the connection is gone already.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// An accepted connection, on its way to its worker.
struct AcceptedConnection {
    socket: StreamSocket,
    /// The runtime that accepted it.
    runtime: runtime::Id,
    info: ConnectionInfo,
    descriptor: OwnedSemaphorePermit,
    limits: Arc<ConnectionLimits>,
}

impl AcceptedConnection {
    async fn serve(
        self,
        service: HttpService,
        tls: Option<Arc<ServerCertificate>>,
        closing: CancellationToken,
    ) {
        let Self { socket, runtime, mut info, descriptor, limits } = self;
        socket.set_nodelay();
        let mut stream = CountedStream::new(socket, runtime, info.slot.clone(), descriptor);
        if let Err(error) = stream.move_to_current_runtime() {
            return tracing::warn!(%error, "cannot move a connection to its worker");
        }
        if limits.has_proxy_headers {
            let slot = info.slot.clone();
            let named = tokio::select! {
                named = read_client(&mut stream.socket, info, &limits) => named,
                () = closing.cancelled() => return,
                () = slot.closed() => return,
            };
            let Some(named) = named else { return };
            info = named;
        }
        let Some(tls) = tls else {
            return serve_http(stream, info, service, &limits, closing).await;
        };
        let sniffed = tokio::select! {
            sniffed = timeout(info.slot.timeouts.head, sniff(stream, &tls)) => sniffed,
            () = closing.cancelled() => return,
            () = info.slot.closed() => return,
        };
        match sniffed {
            Ok(Ok(Sniffed::Plain(stream))) => {
                serve_http(stream, info, service, &limits, closing).await
            }
            Ok(Ok(Sniffed::Tls(stream))) => {
                info.tls = true;
                serve_http(stream, info, service, &limits, closing).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }
}

/// Reads the PROXY header of a connection, and makes the client that it names the peer. Nothing where the connection is to
/// be closed: it has no header, or its header does not come from a trusted proxy. Programs of this machine may speak for
/// themselves, as a health check does.
async fn read_client(
    socket: &mut StreamSocket,
    info: ConnectionInfo,
    limits: &ConnectionLimits,
) -> Option<ConnectionInfo> {
    let proxy = info.peer;
    let refuse = |reason| {
        let address = proxy.ip().unwrap_or(Ipv4Addr::LOCALHOST.into());
        log_refusal(RefusalKind::ProxyHeader(reason), address, Instant::now());
        None
    };
    let is_trusted = limits.is_trusted(proxy);
    if !is_trusted && !proxy.ip().is_some_and(|address| address.is_loopback()) {
        return refuse("proxy_not_trusted");
    }
    let header = match timeout(limits.timeouts.head, read_proxy_header(socket)).await {
        Ok(Ok(header)) => header,
        Ok(Err(error)) => return refuse(error.as_str()),
        Err(_elapsed) => return refuse("header_late"),
    };
    let Some(client) = header.client else { return Some(info) };
    if !is_trusted {
        return refuse("proxy_not_trusted");
    }
    let peer = PeerAddress::Ip(client);
    let Ok(permit) = limits.address_permit(peer) else {
        log_address_limit(peer);
        return None;
    };
    info.slot.set_permit(permit);
    let tcp_proxy = Some(proxy.ip().unwrap_or(Ipv4Addr::LOCALHOST.into()));
    Some(ConnectionInfo { peer, tls: header.tls, tcp_proxy, ..info })
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    info: ConnectionInfo,
    service: HttpService,
    limits: &ConnectionLimits,
    closing: CancellationToken,
) {
    let slot = info.slot.clone();
    let is_proxy = limits.is_trusted(info.peer);
    let HttpTimeouts { head, proxy_idle, .. } = *slot.timeouts;
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (in_progress, turns) = (info.slot.begin_request(), info.turns.clone());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        let answer = service.clone().oneshot(request);
        async move {
            turns.take().await;
            let answer = answer.await;
            drop(in_progress);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(if is_proxy { proxy_idle } else { head })
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(AnswerStream::new(stream)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = slot.closed() => return,
        () = first_head_is_late(&slot, head), if is_proxy => return,
        () = closing.cancelled() => {
            // Browsers open connections before they need them; hyper would wait for the first request.
            if !slot.has_requested.load(Ordering::Relaxed) {
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

/// Ends when a connection has had no whole request head `head` after it was opened, and never where it had one. Hyper has
/// one time-out for the first head and for the time between two requests.
async fn first_head_is_late(slot: &ConnectionSlot, head: Duration) {
    tokio::time::sleep(head).await;
    if slot.has_requested.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}
