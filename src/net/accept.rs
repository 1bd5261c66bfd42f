//! The accept loop: plain or TLS connections, until the server stops.
//!
//! Our own, since `axum::serve` sets no timer: it would keep a half-sent request forever.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::{self, Handle},
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    connection::{ConnectionInfo, ConnectionSlot, CountedStream, HttpService, MAX_HEAD_BYTES},
    limits::{AddressLimitReached, ConnectionLimits, LogThrottle},
    sniff::{Sniffed, sniff},
    workers::Workers,
};
use crate::{
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
    listener: TcpListener,
    service: HttpService,
    tls: Option<Arc<ServerCertificate>>,
    limits: ConnectionLimits,
    workers: Workers,
    closing: CancellationToken,
) {
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
            Ok((stream, peer)) => match limits.address_permit(peer) {
                Ok(permit) => {
                    let timeouts = limits.timeouts.clone();
                    let slot = ConnectionSlot::new(permit, timeouts, &limits.memory);
                    limits.make_room(&slot);
                    let info = ConnectionInfo { peer, tls: false, slot, workers: workers.clone() };
                    let connection = AcceptedConnection { stream, runtime, info, descriptor };
                    let (service, tls, closing) = (service.clone(), tls.clone(), closing.clone());
                    connections.spawn_on(connection.serve(service, tls, closing), workers.next());
                }
                Err(AddressLimitReached) => {
                    log_refusal(RefusalKind::AddressConnections, peer.ip(), Instant::now());
                }
            },
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

/// Whether `accept` failed because the connection is gone already.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// An accepted connection, on its way to its worker.
struct AcceptedConnection {
    stream: TcpStream,
    /// The runtime that accepted it.
    runtime: runtime::Id,
    info: ConnectionInfo,
    descriptor: OwnedSemaphorePermit,
}

impl AcceptedConnection {
    async fn serve(
        self,
        service: HttpService,
        tls: Option<Arc<ServerCertificate>>,
        closing: CancellationToken,
    ) {
        let Self { stream, runtime, mut info, descriptor } = self;
        // Signaling messages are small, and a call waits for each.
        let _ = stream.set_nodelay(true);
        let mut stream = CountedStream::new(stream, runtime, info.slot.clone(), descriptor);
        if let Err(error) = stream.move_to_current_runtime() {
            return tracing::warn!(%error, "cannot move a connection to its worker");
        }
        let Some(tls) = tls else {
            return serve_http(stream, info, service, closing).await;
        };
        let sniffed = tokio::select! {
            sniffed = timeout(info.slot.timeouts.head, sniff(stream, &tls)) => sniffed,
            () = closing.cancelled() => return,
            () = info.slot.closed() => return,
        };
        match sniffed {
            Ok(Ok(Sniffed::Plain(stream))) => serve_http(stream, info, service, closing).await,
            Ok(Ok(Sniffed::Tls(stream))) => {
                info.tls = true;
                serve_http(stream, info, service, closing).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
        }
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    info: ConnectionInfo,
    service: HttpService,
    closing: CancellationToken,
) {
    let slot = info.slot.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let in_progress = info.slot.begin_request();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        let answer = service.clone().oneshot(request);
        async move {
            let answer = answer.await;
            drop(in_progress);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(slot.timeouts.head)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = slot.closed() => return,
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
