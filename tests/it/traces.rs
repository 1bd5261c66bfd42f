//! Traces, as a collector gets them, and what it costs when there is none.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Is},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::{
    Client, PASSWORD, TEST_TIMEOUT, http,
    process::{DEBUG, ServerProcess},
    users_file,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const API_KEY: &str = "a-key-that-the-collector-asks-for";
const SDP: &str = "a=ice-pwd:asd88fgpdd777uzjYhagZg";
const TURN_SECRET: &str = "turn-key-that-nobody-may-see-0123456789";

/// Collects what is sent to it, after it has refused so many requests.
#[derive(Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    refusals: Arc<AtomicUsize>,
}

impl Collector {
    async fn start(refusals: usize) -> (Self, String) {
        let collector = Self::default();
        collector.refusals.store(refusals, Ordering::SeqCst);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/base/", listener.local_addr().unwrap());
        let router =
            Router::new().route("/base/v1/traces", post(Self::take)).with_state(collector.clone());
        tokio::spawn(async move {
            loop {
                let stream = TokioIo::new(listener.accept().await.unwrap().0);
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(http1::Builder::new().serve_connection(stream, service));
            }
        });
        (collector, endpoint)
    }

    async fn take(State(it): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let one_less = |left: usize| left.checked_sub(1);
        if it.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return StatusCode::BAD_REQUEST;
        }
        it.got.lock().unwrap().push((headers, body));
        StatusCode::OK
    }

    /// All spans by their names, and the name of the service that they are of.
    fn spans(&self) -> (BTreeMap<String, Vec<Span>>, String) {
        let (mut spans, mut service) = (BTreeMap::<_, Vec<_>>::new(), String::new());
        for (_, body) in self.got.lock().unwrap().iter() {
            for of in ExportTraceServiceRequest::decode(body.clone()).unwrap().resource_spans {
                service = attribute(&of.resource.unwrap().attributes, "service.name");
                for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    spans.entry(span.name.clone()).or_default().push(span);
                }
            }
        }
        (spans, service)
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|it| it.key == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {attributes:?}"));
    match found.value.clone().unwrap().value.unwrap() {
        Is::StringValue(text) => text,
        Is::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn events(span: &Span) -> Vec<&str> {
    span.events.iter().map(|event| event.name.as_str()).collect()
}

async fn start(endpoint: &str, settings: &[(&str, &str)]) -> (tempfile::TempDir, ServerProcess) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users.csv"), users_file(&["alice", "bob"], 4)).unwrap();
    let mut all = DEBUG.to_vec();
    all.extend([("LOG_FORMAT", "json"), ("RATE_LIMIT_PER_MINUTE", "0")]);
    all.extend([("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
    all.extend(settings);
    let server = ServerProcess::start(&folder, &all).await;
    (folder, server)
}

async fn log_in(server: &ServerProcess, password: &str, traceparent: &str) -> (String, Value) {
    let request = http()
        .build()
        .unwrap()
        .post(format!("http://{}/auth/login?password={PASSWORD}", server.address))
        .header("traceparent", traceparent)
        .json(&json!({"username":"alice","password":password}));
    let answer = request.send().await.unwrap();
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    (id, answer.json().await.unwrap())
}

async fn get(server: &ServerProcess, path: &str) {
    let url = format!("http://{}{path}", server.address);
    http().build().unwrap().get(url).send().await.unwrap();
}

#[tokio::test]
async fn a_collector_receives_the_spans_of_a_login_and_a_join_without_secrets() {
    let (collector, endpoint) = Collector::start(0).await;
    let headers = format!("api-key={API_KEY}");
    let settings = [
        ("LOG_LEVEL", "TRACE"),
        ("OTEL_EXPORTER_OTLP_HEADERS", &*headers),
        ("TURNSERVER_SECRET", TURN_SECRET),
        ("TURNSERVER_URLS", "turn:127.0.0.1:3478"),
        // What is sent is sent at the end.
        ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
        ("SHUTDOWN_GRACE_SECONDS", "300"),
    ];
    let (_folder, mut server) = start(&endpoint, &settings).await;
    let caller = format!("00-{TRACE}-{CALLER}-01");

    let (request_id, login) = log_in(&server, PASSWORD, &caller).await;
    log_in(&server, "not-the-password", "nonsense").await;
    let token = login["access_token"].as_str().unwrap();
    let address = server.address;
    let mut alice = Client::connect(address, "den", &[("traceparent", &caller)]).await.unwrap();
    alice.authenticate("alice", token, Value::Null).await;
    alice.send(json!({"type":"offer","offer":{"sdp":SDP}})).await;
    alice.assert_no_more_messages().await;
    let mut forger = Client::connect(address, "den", &[]).await.unwrap();
    forger.receive().await;
    forger.send(json!({"type":"auth_token","token":format!("{token}x")})).await;
    forger.rejection().await;
    get(&server, "/health").await;
    get(&server, "/no/such/page").await;
    let id = alice.id.clone();
    alice.leave().await;
    assert_eq!(server.stop().await.code(), Some(0));

    let (spans, service) = collector.spans();
    let names: Vec<_> = spans.iter().map(|(name, all)| (name.as_str(), all.len())).collect();
    let expected =
        [("GET", 1), ("GET /ws/{room_id}", 2), ("POST /auth/login", 2), ("introduction", 2)];
    assert_eq!((names, service), (expected.to_vec(), "signaling-server".to_owned()));
    let [login, failed] = &spans["POST /auth/login"][..] else { panic!() };
    assert_eq!((hex(&login.trace_id), hex(&login.parent_span_id)), (TRACE.into(), CALLER.into()));
    assert!(hex(&failed.trace_id) != TRACE && failed.parent_span_id.is_empty());
    assert_eq!((login.kind, events(login)), (SpanKind::Server as i32, vec!["logged in"]));
    for (name, value) in [
        ("request_id", request_id.as_str()),
        ("http.request.method", "POST"),
        ("http.route", "/auth/login"),
        ("url.path", "/auth/login"),
        ("http.response.status_code", "200"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(&login.attributes, name), value, "{name}");
    }
    let upgrade = &spans["GET /ws/{room_id}"][0];
    let [joined, refused] = &spans["introduction"][..] else { panic!() };
    assert_eq!(hex(&joined.trace_id), TRACE);
    assert_eq!(joined.parent_span_id, upgrade.span_id);
    assert_eq!(events(joined), ["member joined"]);
    for (name, value) in [("room", "den"), ("user", "alice"), ("client", &id)] {
        assert_eq!(attribute(&joined.attributes, name), value, "{name}");
    }
    assert_eq!(
        attribute(&joined.attributes, "request_id"),
        attribute(&upgrade.attributes, "request_id")
    );
    assert_eq!(events(refused), ["token refused", "connection rejected"]);

    let got = collector.got.lock().unwrap();
    assert!(got.iter().all(|(headers, _)| headers["api-key"] == API_KEY));
    let signature = token.rsplit('.').next().unwrap();
    let sent = got.iter().map(|(_, body)| String::from_utf8_lossy(body).into_owned());
    let everything = sent.chain(server.log.lines().clone()).collect::<String>();
    for secret in [PASSWORD, "not-the-password", token, signature, TURN_SECRET, API_KEY, "ice-pwd"]
    {
        assert!(!everything.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_collector_that_hangs_delays_neither_requests_nor_shutdown() {
    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hung.local_addr().unwrap());
    // Each export takes ten seconds, and what is in the queue takes 32 of them.
    let settings = [
        // Nor are authorities needed for plain HTTP.
        ("SSL_CERT_FILE", "/dev/null"),
        ("SSL_CERT_DIR", "/dev/null"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2"),
        ("SHUTDOWN_GRACE_SECONDS", "1"),
    ];
    let (_folder, mut server) = start(&endpoint, &settings).await;
    let (_, login) = log_in(&server, PASSWORD, "").await;

    let requests = async {
        for _ in 0..50 {
            get(&server, "/").await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, requests).await.expect("requests wait for the collector");
    let address = server.address;
    let mut alice = Client::connect(address, "den", &[]).await.unwrap();
    alice.authenticate("alice", login["access_token"].as_str().unwrap(), Value::Null).await;
    alice.leave().await;

    assert_eq!(server.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_collector_that_fails_is_logged_once_until_it_accepts_traces_again() {
    let (collector, endpoint) = Collector::start(3).await;
    let settings = [("OTEL_BSP_SCHEDULE_DELAY", "1"), ("OTEL_SERVICE_NAME", "calls")];
    let (_folder, mut server) = start(&endpoint, &settings).await;

    // The spans of one batch are refused together.
    while collector.got.lock().unwrap().is_empty() {
        get(&server, "/").await;
    }
    server.log.next_line_with("traces are accepted again").await;

    let lost = server.log.lines().iter().filter(|line| line.contains("traces lost")).count();
    assert_eq!((lost, collector.spans().1), (1, "calls".to_owned()));
    assert_eq!(server.stop().await.code(), Some(0));
}
