//! Somebody else's server, that takes webhooks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
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
    time::{Duration, Instant, sleep},
};

use super::harness::SOON;

/// What a receiver has taken.
#[derive(Clone)]
pub struct Delivered {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub event: Value,
}

#[derive(Clone)]
struct Shared {
    delivered: Arc<Mutex<Vec<Delivered>>>,
    /// It never answers.
    hangs: bool,
}

pub struct Receiver {
    pub address: SocketAddr,
    shared: Shared,
    /// Ends with it.
    _connections: JoinSet<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::start_with(false, None).await
    }

    /// One that takes everything and answers nothing.
    pub async fn hanging() -> Self {
        Self::start_with(true, None).await
    }

    /// One that takes TLS alone.
    pub async fn secure(tls: tokio_rustls::TlsAcceptor) -> Self {
        Self::start_with(false, Some(tls)).await
    }

    async fn start_with(hangs: bool, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { delivered: Arc::default(), hangs };
        let router = Router::new().fallback(take).with_state(shared.clone());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (router, tls) = (router.clone(), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => serve(stream, router).await,
                        // Else it is not trusted.
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
    pub fn story(&self, room: &str) -> Vec<(u64, String)> {
        let events = self.events().into_iter().filter(|event| event["room_id"] == room);
        let mut story: Vec<_> = events
            .map(|event| {
                let words = ["type", "client_id", "reason", "outcome"];
                let words = words.iter().filter_map(|word| event[word].as_str());
                (event["sequence"].as_u64().unwrap(), words.collect::<Vec<_>>().join(" "))
            })
            .collect();
        story.sort();
        story
    }

    /// Waits until the story of a room is this, from number 1 on.
    pub async fn is_told(&self, room: &str, expected: &[&str]) {
        let numbered = expected.iter().zip(1..).map(|(text, number)| (number, (*text).to_owned()));
        let expected: Vec<_> = numbered.collect();
        let deadline = Instant::now() + SOON;
        while self.story(room).len() < expected.len() {
            assert!(Instant::now() < deadline, "only {:#?}", self.story(room));
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(self.story(room), expected);
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router) {
    let service = TowerToHyperService::new(router);
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn take(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let event = serde_json::from_slice(&body).unwrap();
    shared.delivered.lock().unwrap().push(Delivered { headers, body, event });
    if shared.hangs {
        std::future::pending::<()>().await;
    }
    StatusCode::NO_CONTENT
}
