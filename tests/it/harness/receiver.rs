//! A server that takes webhooks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};

use super::eventually;

/// One delivery.
#[derive(Clone)]
pub struct Delivered {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub event: Value,
}

#[derive(Clone)]
struct ReceiverState {
    delivered: Arc<Mutex<Vec<Delivered>>>,
    /// How long it takes to answer; `None` where it never does.
    delay: Option<Duration>,
}

pub struct WebhookReceiver {
    pub address: SocketAddr,
    shared: ReceiverState,
    /// Ends with it.
    _connections: JoinSet<()>,
}

impl WebhookReceiver {
    pub async fn start() -> Self {
        Self::start_slow(Duration::ZERO).await
    }

    /// A receiver that takes so long for each request.
    pub async fn start_slow(delay: Duration) -> Self {
        Self::start_with(Some(delay), None).await
    }

    /// A receiver that takes every request and answers none.
    pub async fn start_hanging() -> Self {
        Self::start_with(None, None).await
    }

    /// A receiver that takes TLS alone.
    pub async fn start_tls(tls: tokio_rustls::TlsAcceptor) -> Self {
        Self::start_with(Some(Duration::ZERO), Some(tls)).await
    }

    async fn start_with(delay: Option<Duration>, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = ReceiverState { delivered: Arc::default(), delay };
        let router = Router::new().fallback(take).with_state(shared.clone());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (router, tls) = (router.clone(), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => serve(stream, router).await,
                        // A client that does not trust the certificate fails here.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, router).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, shared, _connections: connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub fn delivered(&self) -> MutexGuard<'_, Vec<Delivered>> {
        self.shared.delivered.lock().unwrap()
    }

    pub fn events(&self) -> Vec<Value> {
        self.delivered().iter().map(|delivered| delivered.event.clone()).collect()
    }

    /// The events of a room by their numbers: `type`, whose, and why where there is a why.
    pub fn room_events(&self, room: &str) -> Vec<(u64, String)> {
        let events = self.events().into_iter().filter(|event| event["room_id"] == room);
        let mut numbered: Vec<_> = events
            .map(|event| {
                let fields = ["type", "client_id", "reason", "outcome"];
                let fields = fields.iter().filter_map(|field| event[field].as_str());
                (event["sequence"].as_u64().unwrap(), fields.collect::<Vec<_>>().join(" "))
            })
            .collect();
        numbered.sort();
        numbered
    }

    /// Waits until the events of a room are these, from number 1 on.
    pub async fn wait_for_events(&self, room: &str, expected: &[&str]) {
        let numbered = expected.iter().zip(1..).map(|(text, number)| (number, (*text).to_owned()));
        let expected: Vec<_> = numbered.collect();
        eventually(&format!("{} events of {room} arrive", expected.len()), async || {
            let arrived = self.room_events(room);
            if arrived.len() < expected.len() { Err(arrived) } else { Ok(()) }
        })
        .await;
        assert_eq!(self.room_events(room), expected);
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn take(State(shared): State<ReceiverState>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let event = serde_json::from_slice(&body).unwrap();
    shared.delivered.lock().unwrap().push(Delivered { headers, body, event });
    match shared.delay {
        Some(Duration::ZERO) => {}
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
    StatusCode::NO_CONTENT
}
