//! The accept loop: plain or TLS connections, each with its deadlines, until the server stops.
//!
//! Our own, since `axum::serve` sets no timer: it would hold a half-sent request for ever.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{http::Doors, tls::Tls};

/// For a TLS handshake, for a request's head, and between two requests.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most a request's head may take, in bytes. Hyper answers 431 to what is longer.
const LONGEST_HEAD: usize = 64 * 1024;

/// How long to wait when the system has no handle left for another connection.
const OUT_OF_HANDLES: Duration = Duration::from_millis(100);

/// The first byte of every TLS connection: a handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How a request reached us; every request carries one as an extension.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    /// Who is at the other end of the connection: the client or a proxy.
    pub peer: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

/// Serves `doors` on `listener` until `closing`; then finishes the requests that have begun.
///
/// With `tls`, a client that speaks plain HTTP to the same port is served too, with
/// [`Transport::tls`] false: it can be told where to go instead.
pub async fn serve(
    listener: TcpListener,
    doors: Doors,
    tls: Option<Arc<Tls>>,
    closing: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connect(stream, peer, doors.clone(), tls.clone(), closing.clone());
                connections.spawn(connection);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(OUT_OF_HANDLES).await;
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

async fn connect(
    stream: TcpStream,
    peer: SocketAddr,
    doors: Doors,
    tls: Option<Arc<Tls>>,
    closing: CancellationToken,
) {
    // Signaling messages are small and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return talk(stream, Transport { peer, tls: false }, doors, closing).await;
    };
    let arrived = tokio::select! {
        arrived = timeout(PATIENCE, greet(stream, &tls)) => arrived,
        () = closing.cancelled() => return,
    };
    match arrived {
        Ok(Ok(Greeted::Plain(stream))) => {
            talk(stream, Transport { peer, tls: false }, doors, closing).await
        }
        Ok(Ok(Greeted::Tls(stream))) => {
            talk(stream, Transport { peer, tls: true }, doors, closing).await
        }
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("TLS handshake took too long"),
    }
}

/// A connection to a port with TLS, once it is clear whether the client speaks it.
enum Greeted {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

async fn greet(stream: TcpStream, tls: &Tls) -> io::Result<Greeted> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first != [TLS_HANDSHAKE] {
        return Ok(Greeted::Plain(stream));
    }
    Ok(Greeted::Tls(Box::new(tls.acceptor().accept(stream).await?)))
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    transport: Transport,
    doors: Doors,
    closing: CancellationToken,
) {
    let has_asked = Arc::new(AtomicBool::new(false));
    let asks = has_asked.clone();
    let service = doors.map_request(move |request: hyper::Request<Incoming>| {
        asks.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(transport);
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            // Browsers open connections ahead of need; hyper would wait for the first request on them.
            if !has_asked.load(Ordering::Relaxed) {
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
