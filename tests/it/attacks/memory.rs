//! Clients that make the server hold memory for them: the budget and its shares.

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;
use signaling::memory::{MemoryKind, start_guard};

use super::raw::{BEGIN, Raw, RawSocket, TEXT, frame, upgrade};
use crate::harness::{Client, TestServer, eventually, join_pair};

const MIB: usize = 1 << 20;

/// The least budget: an account may hold 8 MiB of it, all connections without a token together 16 MiB.
const SMALL: [(&str, &str); 7] = [
    ("MEMORY_BUDGET_MIB", "64"),
    ("TIMELINE_SECONDS", "0"),
    ("MAX_CONNECTIONS_PER_IP", "0"),
    ("MAX_CONNECTIONS_PER_ROOM", "100"),
    ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
    ("WEBSOCKET_MESSAGE_BURST", "100000"),
    ("WEBSOCKET_BYTES_PER_SECOND", "1000000000"),
];

async fn small_server() -> TestServer {
    let server = TestServer::start(&SMALL).await;
    start_guard(&server.app.memory).unwrap();
    server
}

fn held(server: &TestServer, kind: MemoryKind) -> usize {
    let mut all = server.app.memory.held_by_kind();
    all.find(|(known, _)| *known == kind).unwrap().1
}

async fn wait_until_nothing_is_held(server: &TestServer) {
    eventually("nothing is held", async || match server.app.memory.held() {
        0 => Ok(()),
        bytes => Err(bytes),
    })
    .await;
}

/// Waits until the server has handled all that `client` has sent.
async fn wait_for_pong(client: &mut Client) {
    client.send(json!({"type":"ping"})).await;
    while client.receive().await["type"] != "pong" {}
}

/// One account, whose readers do not read: those that hold the most are disconnected, and no other member notices.
#[tokio::test]
async fn readers_that_do_not_read_hold_no_more_than_the_share_of_their_account() {
    let server = small_server().await;
    let (mut alice, mut bob) = join_pair(&server, "attic").await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        let mut reader = RawSocket::open(server.address, "den").await;
        reader.authenticate(&server.token("carol")).await;
        readers.push(reader);
    }
    let mut writer = server.join("den", "carol").await;
    let message = json!({"type":"message","data":"x".repeat(60_000)});

    let mut most = 0;
    for number in 0..1000 {
        writer.send(message.clone()).await;
        wait_for_pong(&mut writer).await;
        most = most.max(server.app.memory.held());
        bob.send(json!({"type":"message","data":number})).await;
        assert_eq!(alice.receive().await["data"], number);
        if server.app.memory.shed_count() >= 5 {
            break;
        }
    }

    assert!(server.app.memory.shed_count() >= 5, "{most} bytes held");
    // Until the guard has looked, at most twice the share.
    assert!(most < 20 * MIB, "{most}");
    alice.assert_no_more_messages().await;
    drop((readers, writer, alice, bob));
    wait_until_nothing_is_held(&server).await;
}

/// 1,200 connections of 240 addresses, each with the start of a first message.
#[tokio::test]
async fn parts_of_first_messages_hold_no_more_than_their_common_share() {
    let server = small_server().await;
    let part = &frame(TEXT, &[b' '; 16_000])[..15_900];

    let connections = stream::iter(0..1200).map(async |number| {
        let mut raw = Raw::connect(server.address).await;
        let address = format!("198.51.100.{}", number % 240);
        raw.write(format!("{}X-Forwarded-For: {address}\r\n\r\n", upgrade("den"))).await;
        assert_eq!(raw.answer().await.unwrap().status, 101);
        let _ = raw.try_write(part).await;
        raw
    });
    let connections: Vec<_> = connections.buffered(50).collect().await;

    eventually("some were disconnected", async || match server.app.memory.shed_count() {
        0 => Err(server.app.memory.held()),
        _ => Ok(()),
    })
    .await;
    eventually("the share is kept", async || match held(&server, MemoryKind::PartialFrames) {
        bytes if bytes <= 16 * MIB => Ok(()),
        bytes => Err(bytes),
    })
    .await;
    server.join("den", "alice").await.leave().await;
    drop(connections);
    wait_until_nothing_is_held(&server).await;
}

/// Idle connections from many addresses: the oldest give way to those that come, which are served.
#[tokio::test]
async fn idle_connections_hold_no_more_than_their_common_share() {
    let server = TestServer::start(&[&SMALL[..], &[("TRUSTED_PROXIES", "[]")]].concat()).await;
    start_guard(&server.app.memory).unwrap();
    let connect = async |number: usize| {
        let address = [127, 20, 0, u8::try_from(number / 200 + 1).unwrap()];
        Raw::connect_from(address.into(), server.address).await
    };
    let connections: Vec<_> = stream::iter(0..1200).map(connect).buffered(50).collect().await;

    eventually("the share is kept", async || match held(&server, MemoryKind::PartialRequests) {
        bytes if bytes <= 16 * MIB && server.app.memory.shed_count() > 0 => Ok(()),
        bytes => Err((bytes, server.app.memory.shed_count())),
    })
    .await;
    for number in 1200..1250 {
        let mut newcomer = connect(number).await;
        newcomer.write("GET /api/rooms HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(newcomer.answer().await.unwrap().status, 200);
    }
    drop(connections);
    wait_until_nothing_is_held(&server).await;
}

/// A head that came together with the end of the request before it counts, and so does the buffer that a long head leaves.
#[tokio::test]
async fn what_has_arrived_of_the_next_request_is_counted() {
    let server = small_server().await;
    let mut connection = Raw::connect(server.address).await;
    let part = format!("GET /health HTTP/1.1\r\nHost: a\r\nX-Part: {}", "x".repeat(30_000));

    connection.write(format!("GET /health HTTP/1.1\r\nHost: a\r\n\r\n{part}")).await;

    assert_eq!(connection.answer().await.unwrap().status, 200);
    let counted = async |least| {
        eventually("it is counted", async || match held(&server, MemoryKind::PartialRequests) {
            bytes if bytes >= least => Ok(()),
            bytes => Err(bytes),
        })
        .await;
    };
    counted(part.len() - 4096).await;
    connection.write("\r\n\r\n").await;
    assert_eq!(connection.answer().await.unwrap().status, 200);
    counted(part.len() - 4096).await;
    drop(connection);
    wait_until_nothing_is_held(&server).await;
}

#[tokio::test]
async fn what_has_arrived_of_messages_and_requests_is_counted_until_it_is_complete() {
    let server = small_server().await;
    let mut member = RawSocket::open(server.address, "den").await;
    member.authenticate(&server.token("alice")).await;
    let message = frame(TEXT, json!({"type":"ping","x":"x".repeat(50_000)}).to_string().as_bytes());
    let mut request = Raw::connect(server.address).await;
    let head = "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";

    member.write(&message[..40_000]).await;
    request.write(head.to_owned() + &" ".repeat(50_000)).await;

    let counted = async |kind, least| {
        eventually(&format!("{kind:?} are counted"), async || match held(&server, kind) {
            bytes if bytes >= least => Ok(()),
            bytes => Err(bytes),
        })
        .await;
    };
    counted(MemoryKind::PartialFrames, 40_000).await;
    counted(MemoryKind::PartialRequests, 50_000).await;
    member.write(&message[40_000..]).await;
    assert_eq!(member.receive().await["type"], "pong");
    request.write(" ".repeat(10_000)).await;
    assert_eq!(request.answer().await.unwrap().status, 422);
    wait_until_nothing_is_held(&server).await;

    member.write(frame(BEGIN, &[b' '; 30_000])).await;
    counted(MemoryKind::PartialFrames, 30_000).await;
    drop(member);
    wait_until_nothing_is_held(&server).await;
}

/// Above 95 % nothing new is accepted, and what is there goes on.
#[tokio::test]
async fn a_used_up_budget_admits_nothing_new_and_disturbs_no_member() {
    let server = TestServer::start(&SMALL).await;
    let (mut alice, mut bob) = join_pair(&server, "den").await;
    let mut used = server.app.memory.server_charge(MemoryKind::Timelines);
    let _ = used.set(62 * MIB);

    let refused =
        server.request(Method::POST, "/auth/login").json(&json!({})).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"5".parse().unwrap())
    );
    assert_eq!(server.get("/health").await.status(), 200);
    let newcomer = server.connect("den").await;
    let (before, close) = newcomer.read_to_close().await;
    assert_eq!(close, (1013, "Try again later".into()));
    assert_eq!((&before[0]["code"], &before[0]["retry"]), (&json!("unavailable"), &json!(true)));
    let retry = before[0]["retry_after_ms"].as_u64().unwrap();
    assert!((1000..5000).contains(&retry) && before.len() == 1, "{before:?}");
    bob.send(json!({"type":"message","data":1})).await;
    assert_eq!(alice.receive().await["data"], 1);

    drop(used);
    server.join("den", "carol").await.leave().await;
    assert_ne!(server.post_json("/auth/login", json!({})).await.status(), 503);
}

/// What a reader that does not read can make the kernel buffer is bounded, also where the kernel would allow more.
/// With a budget that leaves no memory for anything else, the server accepts the fewest WebSockets.
#[tokio::test]
async fn web_sockets_that_the_memory_does_not_suffice_for_are_refused() {
    let server = TestServer::start(&[("MEMORY_BUDGET_MIB", "1048576")]).await;
    let connect = async |number: usize| {
        let address = format!("198.51.100.{}", number % 8);
        server.connect_with("den", &[("x-forwarded-for", &*address)]).await.unwrap()
    };
    let mut sockets: Vec<_> = stream::iter(0..256).map(connect).buffered(50).collect().await;
    for socket in &mut sockets {
        assert_eq!(socket.receive().await["type"], "auth_required");
    }

    let (before, close) = connect(0).await.read_to_close().await;
    assert_eq!(close, (1013, "Try again later".into()));
    assert_eq!((&before[0]["code"], before.len()), (&json!("unavailable"), 1));
    drop(sockets);
    eventually("there is a place again", async || match server.app.sockets.in_use() {
        0 => Ok(()),
        open => Err(open),
    })
    .await;
    server.join("den", "alice").await.leave().await;
}

#[tokio::test]
async fn the_kernel_buffers_little_for_a_client_that_does_not_read() {
    let server = TestServer::start(&SMALL).await;
    let mut reader = RawSocket::open(server.address, "den").await;
    reader.authenticate(&server.token("carol")).await;
    let mut writer = server.join("den", "alice").await;
    let message = json!({"type":"message","data":"x".repeat(60_000)});

    let mut written = 0;
    while held(&server, MemoryKind::SendQueues) < 200_000 && written < 1000 {
        writer.send(message.clone()).await;
        wait_for_pong(&mut writer).await;
        written += 1;
    }

    // 256 KiB of ours, and as much as the reader's end takes by itself.
    let waiting = server.app.memory.held();
    let buffered = (written * 60_000_usize).saturating_sub(waiting);
    assert!(buffered < MIB, "{buffered} bytes are with the kernel, {waiting} wait");
}
