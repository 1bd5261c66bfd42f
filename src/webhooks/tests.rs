//! Deliveries to receivers on real sockets that fail, hang, hang up, redirect, and come back.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, StatusCode, Uri},
    response::IntoResponse,
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    WebhookEvent, attempt::QueuedEvent, event::WebhookEnvelope, policy::DeliveryPolicy,
    publisher::Webhooks, queue::DeliveryQueue, target::WebhookTarget,
};
use crate::{memory::MemoryBudget, metrics::WebhookMetrics};

/// Fast, so that tests are.
const POLICY: DeliveryPolicy = DeliveryPolicy {
    attempt_timeout: Duration::from_secs(20),
    first_wait: Duration::from_millis(10),
    max_wait: Duration::from_millis(100),
    max_receiver_wait: Duration::from_millis(100),
    max_age: Duration::from_secs(60),
    max_refusals: 4,
    capacity: 1_000,
    concurrency: 1,
};

const SOON: Duration = Duration::from_secs(60);

/// What a receiver does with a request.
enum Answer {
    Status(u16),
    With(Response<Body>),
    Hang,
    /// After 20 ms.
    Slow,
}

#[derive(Clone, Default)]
struct Received {
    requests: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    /// What to do with the next requests; 204 if this is empty.
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// Connections that have ended. A worker drops its connection when an attempt has failed, before it waits.
    ended: Arc<AtomicUsize>,
}

struct Receiver {
    address: SocketAddr,
    received: Received,
    serving: JoinHandle<()>,
}

impl Receiver {
    async fn start(answers: Vec<Answer>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), answers).await
    }

    async fn start_at(address: SocketAddr, answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let received =
            Received { answers: Arc::new(Mutex::new(answers.into())), ..Received::default() };
        let router = Router::new().fallback(receive).with_state(received.clone());
        let ended = received.ended.clone();
        let serving = tokio::spawn(async move { axum_serve(listener, router, ended).await });
        Self { address, received, serving }
    }

    fn url(&self) -> String {
        format!("http://{}/hooks/secret?key=secret", self.address)
    }

    fn sequences(&self) -> Vec<u64> {
        let requests = self.received.requests.lock().unwrap();
        requests.iter().map(|(_, body)| body["sequence"].as_u64().unwrap()).collect()
    }

    /// How many attempts have failed, as their worker knows.
    fn failed_attempts(&self) -> usize {
        self.received.ended.load(Ordering::SeqCst)
    }

    fn ids(&self) -> Vec<String> {
        let requests = self.received.requests.lock().unwrap();
        requests.iter().map(|(_, body)| body["id"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A connection at a time dies with the receiver, unlike with `axum::serve`.
async fn axum_serve(listener: TcpListener, router: Router, ended: Arc<AtomicUsize>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let stream = hyper_util::rt::TokioIo::new(stream);
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
        let ended = ended.clone();
        connections.spawn(async move {
            drop(serving.await);
            ended.fetch_add(1, Ordering::SeqCst);
        });
    }
}

async fn receive(
    State(received): State<Received>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    assert_eq!(uri, "/hooks/secret?key=secret");
    let body = serde_json::from_slice(&body).unwrap();
    received.requests.lock().unwrap().push((headers, body));
    let answer = received.answers.lock().unwrap().pop_front();
    match answer {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Answer::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Answer::With(response)) => response,
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::Slow) => {
            sleep(Duration::from_millis(20)).await;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

fn start(urls: &[&str], policy: DeliveryPolicy) -> (Webhooks, WebhookMetrics) {
    let targets: Vec<_> = urls.iter().map(|url| WebhookTarget::parse(url, true).unwrap()).collect();
    start_for(&targets, policy)
}

fn start_for(targets: &[WebhookTarget], policy: DeliveryPolicy) -> (Webhooks, WebhookMetrics) {
    let metrics = WebhookMetrics::default();
    let secret = "0123456789abcdef0123456789abcdef".into();
    let webhooks = Webhooks::start_with(targets, &secret, None, false, &metrics, policy).unwrap();
    (webhooks, metrics)
}

fn joined() -> WebhookEvent {
    WebhookEvent::MemberJoined { client_id: "a-1".into(), username: "alice".into() }
}

fn publish(webhooks: &Webhooks, sequences: impl IntoIterator<Item = u64>) {
    publish_in(webhooks, "den", sequences);
}

fn publish_in(webhooks: &Webhooks, room: &str, sequences: impl IntoIterator<Item = u64>) {
    let room = room.into();
    sequences.into_iter().for_each(|sequence| webhooks.publish(&room, sequence, joined()));
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn events_arrive_once_and_in_order_at_every_url() {
    let receivers = [Receiver::start(vec![]).await, Receiver::start(vec![]).await];
    let urls = receivers.each_ref().map(Receiver::url);
    let (webhooks, metrics) = start(&urls.each_ref().map(String::as_str), POLICY);

    publish(&webhooks, 1..=200);

    eventually("all are delivered", || metrics.delivered.get() == 400).await;
    for receiver in &receivers {
        assert_eq!(receiver.sequences(), (1..=200).collect::<Vec<_>>());
    }
    assert_eq!(receivers[0].ids(), receivers[1].ids());
    assert_eq!((metrics.queued.get(), metrics.retried.get(), metrics.dropped.get()), (0, 0, 0));
    let requests = receivers[0].received.requests.lock().unwrap();
    let (headers, body) = &requests[0];
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["webhook-id"].to_str().unwrap(), body["id"]);
    assert_eq!(headers["host"].to_str().unwrap(), receivers[0].address.to_string());
    assert_eq!((&body["type"], &body["client_id"]), (&json!("member.joined"), &json!("a-1")));
}

#[tokio::test]
async fn events_while_a_receiver_is_down_arrive_in_order_when_it_is_back() {
    let first = Receiver::start(vec![]).await;
    let (address, url) = (first.address, first.url());
    let (webhooks, metrics) = start(&[&url], POLICY);
    publish(&webhooks, 1..=3);
    eventually("it has three", || metrics.delivered.get() == 3).await;

    first.serving.abort();
    drop(first);
    publish(&webhooks, 4..=50);
    eventually("it is tried in vain", || metrics.retried.get() >= 3).await;
    let second = Receiver::start_at(address, vec![]).await;

    eventually("all are delivered", || metrics.delivered.get() == 50).await;
    assert_eq!(second.sequences(), (4..=50).collect::<Vec<_>>());
    assert_eq!((metrics.failed.get(), metrics.dropped.get(), metrics.queued.get()), (0, 0, 0));
}

#[tokio::test]
async fn an_event_that_fails_is_retried_with_the_same_id_before_later_ones() {
    let answers = vec![Answer::Status(500), Answer::Status(503), Answer::Status(429)];
    let receiver = Receiver::start(answers).await;
    let (webhooks, metrics) = start(&[&receiver.url()], POLICY);

    publish(&webhooks, 1..=2);

    eventually("both are delivered", || metrics.delivered.get() == 2).await;
    assert_eq!(receiver.sequences(), [1, 1, 1, 1, 2]);
    let ids = receiver.ids();
    assert!(ids[..4].iter().all(|id| *id == ids[0]) && ids[4] != ids[0], "{ids:?}");
    assert_eq!(metrics.retried.get(), 3);
}

#[tokio::test]
async fn an_event_that_is_refused_is_given_up_and_later_ones_are_delivered() {
    let answers = [400, 404, 500, 302].map(Answer::Status);
    let receiver = Receiver::start(answers.into()).await;
    let (webhooks, metrics) = start(&[&receiver.url()], POLICY);

    publish(&webhooks, 1..=2);

    eventually("the second is delivered", || metrics.delivered.get() == 1).await;
    assert_eq!(receiver.sequences(), [1, 1, 1, 1, 2]);
    assert_eq!((metrics.failed.get(), metrics.queued.get()), (1, 0));
}

#[tokio::test]
async fn events_that_are_too_old_are_given_up_while_their_receiver_is_down() {
    let gone = Receiver::start(vec![]).await;
    let url = gone.url();
    gone.serving.abort();
    drop(gone);
    let (webhooks, metrics) =
        start(&[&url], DeliveryPolicy { max_age: Duration::from_millis(50), ..POLICY });

    publish(&webhooks, 1..=3);

    eventually("all are given up", || metrics.failed.get() == 3).await;
    assert_eq!((metrics.delivered.get(), metrics.queued.get()), (0, 0));
}

#[tokio::test]
async fn a_receiver_that_answers_410_gets_nothing_more() {
    let receiver = Receiver::start(vec![Answer::Status(410)]).await;
    let (webhooks, metrics) = start(&[&receiver.url()], POLICY);

    publish(&webhooks, 1..=3);
    eventually("all are dropped", || metrics.dropped.get() == 3).await;
    publish(&webhooks, 4..=4);

    assert_eq!((metrics.dropped.get(), metrics.queued.get()), (4, 0));
    assert_eq!(receiver.sequences(), [1]);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let elsewhere = Receiver::start(vec![]).await;
    let redirect = Response::builder().status(308).header("location", elsewhere.url());
    let redirect = Answer::With(redirect.body(Body::empty()).unwrap());
    let receiver = Receiver::start(vec![redirect]).await;
    let (webhooks, metrics) = start(&[&receiver.url()], POLICY);

    publish(&webhooks, 1..=1);

    eventually("it is delivered", || metrics.delivered.get() == 1).await;
    assert_eq!((receiver.sequences(), elsewhere.sequences()), (vec![1, 1], vec![]));
}

#[tokio::test]
async fn a_receiver_that_hangs_is_tried_again_and_does_not_delay_another() {
    let hanging = Receiver::start(vec![Answer::Hang]).await;
    let well = Receiver::start(vec![]).await;
    let policy = DeliveryPolicy { attempt_timeout: Duration::from_millis(300), ..POLICY };
    let (webhooks, metrics) = start(&[&hanging.url(), &well.url()], policy);

    publish(&webhooks, 1..=20);

    eventually("the other has all", || well.sequences().len() == 20).await;
    eventually("both have all", || metrics.delivered.get() == 40).await;
    let expected: Vec<_> = [1].into_iter().chain(1..=20).collect();
    assert_eq!(hanging.sequences(), expected);
}

#[tokio::test]
async fn a_receiver_that_closes_its_connection_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    let (webhooks, metrics) = start(&[&url], POLICY);
    publish(&webhooks, 1..=2);

    // At once; in the head of its answer; with no HTTP; after a whole answer that it said it would go on after.
    for answer in ["", "HTTP/1.1 2", "SSH-2.0-OpenSSH\r\n\r\n"] {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    for _ in 0..2 {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    }

    eventually("both are delivered", || metrics.delivered.get() == 2).await;
    assert_eq!((metrics.retried.get(), metrics.failed.get()), (3, 0));
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let endless = || {
        let chunk = || async { Some((Ok::<_, io::Error>(Bytes::from(vec![b'x'; 65_536])), ())) };
        Answer::With(Response::new(Body::from_stream(stream::unfold((), move |()| chunk()))))
    };
    let receiver = Receiver::start(vec![endless(), endless()]).await;
    let (webhooks, metrics) = start(&[&receiver.url()], POLICY);

    publish(&webhooks, 1..=3);

    eventually("all are delivered", || metrics.delivered.get() == 3).await;
    assert_eq!(receiver.sequences(), [1, 2, 3]);
}

#[tokio::test]
async fn a_receiver_may_ask_to_wait_before_the_next_attempt() {
    let later = Response::builder().status(503).header("retry-after", "1");
    let later = Answer::With(later.body(Body::empty()).unwrap());
    let receiver = Receiver::start(vec![later]).await;
    let policy = DeliveryPolicy { max_wait: Duration::from_secs(30), ..POLICY };
    let (webhooks, metrics) = start(&[&receiver.url()], policy);

    let began = Instant::now();
    publish(&webhooks, 1..=1);

    eventually("it is delivered", || metrics.delivered.get() == 1).await;
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn the_oldest_events_of_a_full_queue_are_dropped_and_counted() {
    let receiver = Receiver::start(vec![Answer::Hang]).await;
    let policy =
        DeliveryPolicy { attempt_timeout: Duration::from_millis(500), capacity: 10, ..POLICY };
    let (webhooks, metrics) = start(&[&receiver.url()], policy);
    publish(&webhooks, 1..=1);
    eventually("the first is on its way", || !receiver.sequences().is_empty()).await;

    publish(&webhooks, 2..=51);
    assert_eq!((metrics.dropped.get(), metrics.queued.get()), (40, 11));

    eventually("the rest is delivered", || metrics.delivered.get() == 11).await;
    let expected: Vec<_> = [1, 1].into_iter().chain(42..=51).collect();
    assert_eq!((receiver.sequences(), metrics.queued.get()), (expected, 0));
}

#[tokio::test]
async fn a_room_with_many_events_displaces_its_own_and_none_of_another_room() {
    let receiver = Receiver::start(vec![Answer::Hang]).await;
    let policy =
        DeliveryPolicy { attempt_timeout: Duration::from_millis(500), capacity: 10, ..POLICY };
    let (webhooks, metrics) = start(&[&receiver.url()], policy);
    publish(&webhooks, 1..=1);
    eventually("the first is on its way", || !receiver.sequences().is_empty()).await;

    publish_in(&webhooks, "quiet", [1_000]);
    publish(&webhooks, 2..=501);
    publish_in(&webhooks, "quiet", [1_001, 1_002]);

    eventually("the rest is delivered", || metrics.queued.get() == 0).await;
    let turns = [1, 1_000, 1, 1_001, 495, 1_002];
    let expected: Vec<_> = turns.into_iter().chain(496..=501).collect();
    assert_eq!(receiver.sequences(), expected);
}

/// One event at a time, to a receiver that takes its time: the busy room has a thousand before the quiet one has its first.
#[tokio::test]
async fn events_of_a_quiet_room_do_not_wait_behind_those_of_a_busy_one() {
    let receiver = Receiver::start((0..1_000).map(|_| Answer::Slow).collect()).await;
    let (webhooks, metrics) = start(&[&receiver.url()], POLICY);
    publish_in(&webhooks, "busy", 1..=1_000);
    eventually("deliveries are under way", || !receiver.sequences().is_empty()).await;

    publish_in(&webhooks, "quiet", [5_001, 5_002]);
    let before = receiver.sequences().len();

    eventually("both are delivered", || receiver.sequences().contains(&5_002)).await;
    let sequences = receiver.sequences();
    let waited = |wanted| sequences.iter().position(|it| *it == wanted).unwrap() - before;
    assert!(waited(5_001) <= 1 && waited(5_002) <= 3, "{sequences:?}");
    assert!(metrics.queued.get() > 900);
    webhooks.close(Duration::ZERO).await;
}

#[tokio::test]
async fn a_room_whose_event_is_refused_delays_no_other_room() {
    let receiver = Receiver::start(vec![Answer::Status(422)]).await;
    let policy = DeliveryPolicy {
        first_wait: Duration::from_secs(600),
        max_wait: Duration::from_secs(600),
        ..POLICY
    };
    let (webhooks, metrics) = start(&[&receiver.url()], policy);

    publish_in(&webhooks, "refused", [1, 2]);
    publish_in(&webhooks, "fine", 11..=20);

    eventually("the other room has all", || metrics.delivered.get() == 10).await;
    let expected: Vec<_> = [1].into_iter().chain(11..=20).collect();
    assert_eq!(receiver.sequences(), expected);
    webhooks.close(SOON).await;
    assert_eq!(receiver.sequences()[11..], [1, 2], "and the room goes on when its pause ends");
}

#[tokio::test]
async fn several_rooms_are_delivered_at_once_and_the_events_of_each_in_order() {
    let receiver = Receiver::start(vec![Answer::Hang]).await;
    let (webhooks, metrics) =
        start(&[&receiver.url()], DeliveryPolicy { concurrency: 4, ..POLICY });
    publish_in(&webhooks, "stuck", [1]);
    eventually("the first is on its way", || !receiver.sequences().is_empty()).await;

    publish_in(&webhooks, "stuck", [2]);
    for room in 1..=10 {
        publish_in(&webhooks, &room.to_string(), room * 100..room * 100 + 20);
    }

    eventually("the others are delivered", || metrics.delivered.get() == 200).await;
    let sequences = receiver.sequences();
    for room in 1..=10 {
        let of_room = sequences.iter().filter(|sequence| *sequence / 100 == room);
        assert!(of_room.copied().eq(room * 100..room * 100 + 20), "{sequences:?}");
    }
    assert!(!sequences.contains(&2), "the room of the first waits for it");
    webhooks.close(Duration::ZERO).await;
    assert_eq!((metrics.dropped.get(), metrics.queued.get()), (2, 0));
}

#[tokio::test]
async fn call_reports_never_displace_joins_and_leaves() {
    let receiver = Receiver::start(vec![Answer::Hang]).await;
    let policy =
        DeliveryPolicy { attempt_timeout: Duration::from_millis(500), capacity: 10, ..POLICY };
    let (webhooks, metrics) = start(&[&receiver.url()], policy);
    publish(&webhooks, 1..=1);
    eventually("the first is on its way", || !receiver.sequences().is_empty()).await;
    publish(&webhooks, 2..=4);

    let report = WebhookEvent::CallReport {
        client_id: "m".into(),
        username: "mallory".into(),
        peer: None,
        outcome: "failed",
        ms: 1,
        path: None,
    };
    for sequence in 5..=100 {
        webhooks.publish(&"den".into(), sequence, report.clone());
    }
    publish(&webhooks, 101..=105);

    eventually("the rest is delivered", || metrics.queued.get() == 0).await;
    assert_eq!(receiver.sequences(), [1, 1, 2, 3, 4, 99, 100, 101, 102, 103, 104, 105]);
    assert_eq!(metrics.dropped.get(), 94);
}

/// Checked at each lookup, so that changing what the name resolves to does not help.
#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_not_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = WebhookTarget::parse(&format!("http://localhost:{port}/hooks"), true).unwrap();
    let target = WebhookTarget { allows_private: false, ..target };
    let policy = DeliveryPolicy { max_age: Duration::from_millis(50), ..POLICY };
    let (webhooks, metrics) = start_for(std::slice::from_ref(&target), policy);

    publish(&webhooks, 1..=1);
    eventually("it is given up", || metrics.failed.get() == 1).await;
    assert!(timeout(Duration::ZERO, listener.accept()).await.is_err(), "it was connected to");

    let (webhooks, _) = start_for(&[WebhookTarget { allows_private: true, ..target }], POLICY);
    publish(&webhooks, 1..=1);
    timeout(SOON, listener.accept()).await.expect("where it is allowed, it is").unwrap();
}

#[tokio::test]
async fn waiting_events_are_delivered_at_once_on_shutdown() {
    let receiver = Receiver::start(vec![Answer::Status(503)]).await;
    let policy = DeliveryPolicy {
        first_wait: Duration::from_secs(600),
        max_wait: Duration::from_secs(600),
        ..POLICY
    };
    let (webhooks, metrics) = start(&[&receiver.url()], policy);
    publish(&webhooks, 1..=5);
    eventually("it has failed once", || receiver.failed_attempts() == 1).await;

    webhooks.close(SOON).await;

    assert_eq!(receiver.sequences(), [1, 1, 2, 3, 4, 5]);
    assert_eq!((metrics.delivered.get(), metrics.queued.get()), (5, 0));
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_shutdown_no_longer_than_allowed() {
    let hanging = Receiver::start(vec![Answer::Hang]).await;
    let (webhooks, metrics) = start(&[&hanging.url()], POLICY);
    publish(&webhooks, 1..=5);
    eventually("it hangs", || hanging.sequences().len() == 1).await;

    let began = Instant::now();
    webhooks.close(Duration::from_millis(100)).await;
    publish(&webhooks, 6..=6);

    assert!(began.elapsed() < POLICY.attempt_timeout);
    assert_eq!((metrics.dropped.get(), metrics.queued.get()), (6, 0));
}

#[tokio::test]
async fn a_receiver_that_fails_during_shutdown_is_not_tried_again() {
    let receiver = Receiver::start(vec![Answer::Status(503), Answer::Status(503)]).await;
    let policy = DeliveryPolicy {
        first_wait: Duration::from_secs(600),
        max_wait: Duration::from_secs(600),
        ..POLICY
    };
    let (webhooks, metrics) = start(&[&receiver.url()], policy);
    publish(&webhooks, 1..=5);
    eventually("it has failed once", || receiver.failed_attempts() == 1).await;

    timeout(SOON, webhooks.close(Duration::MAX)).await.expect("it tries for ever");

    assert_eq!((receiver.sequences(), metrics.dropped.get()), (vec![1, 1], 5));
}

#[test]
fn an_events_json_is_as_documented_also_with_unusual_names() {
    let event = WebhookEnvelope {
        id: Uuid::from_u128(1),
        at: 1_764_183_600_007,
        room: "Zimmer \"7\"/é".into(),
        sequence: 3,
        event: WebhookEvent::MemberLeft {
            client_id: "a".into(),
            username: "zoë \u{202e}".into(),
            reason: "left".into(),
        },
    };

    let read: Value = serde_json::from_str(&event.to_json(Some("n1"))).unwrap();

    assert_eq!(
        read,
        json!({"id":"00000000-0000-0000-0000-000000000001","type":"member.left","time":"2025-11-26T19:00:00.007Z","room_id":"Zimmer \"7\"/é","sequence":3,"node":"n1","client_id":"a","username":"zoë \u{202e}","reason":"left"})
    );
}

/// Events of any length take no more than an eighth of the memory budget: the oldest are dropped before that.
#[tokio::test]
async fn waiting_events_hold_no_more_than_an_eighth_of_the_memory_budget() {
    let budget = MemoryBudget::new(64 << 10);
    let metrics = WebhookMetrics::default();
    let policy = DeliveryPolicy { capacity: 10_000, ..POLICY };
    let queue = DeliveryQueue::new(policy, metrics.clone(), "receiver".into());
    for sequence in 1..=200 {
        let client_id = "c".repeat(128).into();
        let event = WebhookEvent::MemberJoined { client_id, username: "alice".into() };
        let id = Uuid::new_v4();
        let envelope = WebhookEnvelope { id, at: 0, room: "den".into(), sequence, event };
        queue.push(Arc::new(QueuedEvent::new(envelope, &budget)));
    }

    let waiting = metrics.queued.get();
    assert!(budget.held() < 9 << 10 && waiting > 5, "{} bytes in {waiting}", budget.held());
    assert_eq!(metrics.dropped.get(), 200 - waiting as u64);
    let first = queue.next(&CancellationToken::new()).await.unwrap();
    assert_eq!(first.event().envelope.sequence, 200 - waiting as u64 + 1);
    drop(first);
    queue.close();
    assert_eq!(budget.held(), 0);
}
