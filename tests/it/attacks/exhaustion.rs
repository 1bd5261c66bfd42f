//! Many, slow, silent and greedy clients (group X of the catalogue).
//!
//! All of them come through what the server takes for a proxy, unless they say an address of their own.

use std::{cell::Cell, time::Duration};

use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, interval, sleep};

use super::{
    attacked_server::AttackedServer,
    raw::{PING, Raw, TEXT, upgrade},
};
use crate::harness::PASSWORD;
use crate::harness::{
    Client, eventually, http,
    process::{INTERVALS, NEVER, manage_ok},
};

/// So many at once while a crowd arrives.
const AT_ONCE: usize = 100;

async fn crowd<T>(size: usize, arrive: impl AsyncFn(usize) -> T) -> Vec<T> {
    stream::iter(0..size).map(|number| arrive(number)).buffered(AT_ONCE).collect().await
}

/// Twenty newcomers join, one after the other.
async fn newcomers_join(server: &AttackedServer) {
    for _ in 0..20 {
        server.join("den", "carol").await.leave().await;
    }
}

/// Waits until the process has so many files open, give or take those that it reads just now.
async fn wait_for_open_files(server: &AttackedServer, wanted: usize) {
    let counted = async || match server.open_files() {
        now if now.abs_diff(wanted) <= 3 => Ok(()),
        now => Err(now),
    };
    eventually(&format!("{wanted} files are open"), counted).await;
}

/// A socket that asked for `room` from `address`: the status, and the connection.
async fn knock(server: &AttackedServer, room: &str, address: &str) -> (u16, Raw) {
    let mut raw = server.raw().await;
    raw.write(format!("{}X-Forwarded-For: {address}\r\n\r\n", upgrade(room))).await;
    let answer = raw.answer().await.expect("an answer");
    assert!(answer.status == 101 || answer.header("retry-after").is_some(), "{answer:?}");
    (answer.status, raw)
}

/// For a member that sends without a pause.
const FAST_MESSAGES: [(&str, &str); 3] = [
    ("WEBSOCKET_MESSAGES_PER_SECOND", "100000"),
    ("WEBSOCKET_MESSAGE_BURST", "100000"),
    ("WEBSOCKET_BYTES_PER_SECOND", "1000000000"),
];

/// The starts of requests that never end.
const UNFINISHED: [&str; 2] = [
    "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    "POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
];

/// X01, X02: thirty heads and thirty bodies of which a byte comes now and then.
#[tokio::test]
async fn requests_that_dribble_delay_no_newcomer() {
    let server = AttackedServer::start(&[(INTERVALS, NEVER)]).await;
    let mut dribbling = crowd(60, async |number| {
        let mut raw = server.raw().await;
        raw.write(UNFINISHED[number % 2]).await;
        raw
    })
    .await;

    for _ in 0..20 {
        for raw in &mut dribbling {
            raw.write(" ").await;
        }
        server.join("den", "carol").await.leave().await;
    }

    drop(dribbling);
    server.assert_unharmed().await;
}

/// X01, X02: what comes meanwhile puts the end off no longer.
#[tokio::test]
async fn requests_that_dribble_are_cut() {
    let server = AttackedServer::start(&[(INTERVALS, "head=1000 body=1000")]).await;

    crowd(60, async |number| {
        let mut raw = server.raw().await;
        raw.write(UNFINISHED[number % 2]).await;
        let mut pace = interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                _ = pace.tick() => { let _ = raw.try_write(" ").await; }
                (answer, _) = raw.read_to_end() => {
                    let answer = String::from_utf8(answer).unwrap();
                    assert!(number % 2 == 0 || answer.starts_with("HTTP/1.1 408"), "{answer}");
                    return;
                }
            }
        }
    })
    .await;

    server.assert_unharmed().await;
}

/// 1,000 requests without the last line of their heads, and 200 connections on which nothing is sent.
async fn half_open(server: &AttackedServer) -> Vec<Raw> {
    crowd(1200, async |number| {
        let mut raw = server.raw().await;
        if number % 6 != 0 {
            raw.write(upgrade("den")).await;
        }
        raw
    })
    .await
}

/// N02, X04 (the catalogue has 10,000).
#[tokio::test]
async fn a_thousand_half_open_connections_keep_no_newcomer_out() {
    let server = AttackedServer::with(&[(INTERVALS, NEVER)]).may_grow_by(48).start().await;
    let before = server.open_files();

    let crowd = half_open(&server).await;
    wait_for_open_files(&server, before + crowd.len()).await;
    newcomers_join(&server).await;

    drop(crowd);
    server.assert_unharmed().await;
}

/// N02, X04: some crowds, of which two reset their connections: all file descriptors are closed, and the memory serves the
/// next crowd.
#[tokio::test]
async fn half_open_connections_are_cut_and_leave_no_memory_behind() {
    let server = AttackedServer::with(&[(INTERVALS, "head=4000")]).may_grow_by(48).start().await;
    let before = server.open_files();
    for _ in 0..2 {
        drop(half_open(&server).await);
        wait_for_open_files(&server, before).await;
    }

    // On a busy machine the first of a crowd are cut before the last have come, and a later crowd is a larger one.
    let mut grown = Vec::new();
    while grown.last().is_none_or(|bytes| *bytes >= 8 << 20) {
        assert!(grown.len() < 4, "bytes more after each crowd: {grown:?}");
        let before = server.resident();
        for mut raw in half_open(&server).await {
            let (rest, _) = raw.read_to_end().await;
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
        }
        grown.push(server.resident().saturating_sub(before));
    }
    server.assert_unharmed().await;
}

/// So many connections that have had one answer, and are kept.
async fn idle_connections(server: &AttackedServer) -> Vec<Raw> {
    crowd(400, async |_| {
        let mut raw = server.raw().await;
        raw.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
        raw
    })
    .await
}

/// X04.
#[tokio::test]
async fn idle_connections_keep_no_newcomer_out() {
    let server = AttackedServer::start(&[(INTERVALS, NEVER)]).await;

    let idle = idle_connections(&server).await;
    newcomers_join(&server).await;

    drop(idle);
    server.assert_unharmed().await;
}

/// X04.
#[tokio::test]
async fn idle_connections_are_closed() {
    let server = AttackedServer::start(&[(INTERVALS, "head=3000 proxy_idle=3000")]).await;

    for mut raw in idle_connections(&server).await {
        assert_eq!(raw.read_to_end().await.0, b"");
    }

    server.assert_unharmed().await;
}

/// X03: a member that neither speaks nor answers is let go after `WEBSOCKET_TIMEOUT`, asked before
/// whether it is there; here three seconds instead of thirty.
#[tokio::test]
async fn a_silent_member_is_disconnected() {
    let server = AttackedServer::start(&[("WEBSOCKET_TIMEOUT", "3")]).await;
    let mut silent = server.raw_member("den", "carol").await;

    let mut frames = Vec::new();
    while let Some(frame) = silent.next_frame().await {
        frames.push(frame);
    }

    let kinds: Vec<_> = frames.iter().map(|frame| frame.first).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 2]), (PING, TEXT), "{frames:?}");
    let last = frames.pop().unwrap();
    assert_eq!(u16::from_be_bytes(*last.payload.first_chunk().unwrap()), 1001);
    assert_eq!(server.assert_unharmed().await.visits, 1);
}

/// X05, and the bounded queue of logins: twelve guessers with ever new names and addresses. Where a check of a password held
/// up a member, it would get an answer for each check; it gets many.
#[tokio::test]
async fn password_guesses_do_not_delay_members() {
    const GUESSES: usize = 24;
    let server = AttackedServer::with(&FAST_MESSAGES).with_production_hashes().start().await;
    let mut member = server.join("den", "carol").await;

    let guessing = crowd(GUESSES, async |number| {
        let request = server.request(Method::POST, "/auth/login");
        let request = request.header("x-forwarded-for", format!("198.51.100.{number}"));
        let body = json!({"username":format!("user{number}"),"password":"guess"});
        request.json(&body).send().await.unwrap().status().as_u16()
    });
    let answered = Cell::new(0);
    let calling = async {
        loop {
            member.assert_no_more_messages().await;
            answered.set(answered.get() + 1);
        }
    };
    let statuses = tokio::select! {
        statuses = guessing => statuses,
        () = calling => unreachable!(),
    };

    assert_eq!(statuses, [401; GUESSES]);
    assert!(answered.get() > 4 * GUESSES, "{} answers", answered.get());
    drop(member);
    server.assert_unharmed().await;
}

/// X06: two hundred rooms, again and again: what a room took is given back.
#[tokio::test]
async fn rooms_that_are_opened_and_closed_leave_no_memory_behind() {
    let server = AttackedServer::start(&[("MAX_CONNECTIONS_PER_IP", "0")]).await;
    let (carol, dave) = (server.token("carol"), server.token("dave"));
    let churn = async || {
        crowd(200, async |number| {
            let room = format!("room{number}-{}", "x".repeat(100));
            let (mut one, mut other) = (server.connect(&room).await, server.connect(&room).await);
            one.authenticate("carol", &carol, json!(null)).await;
            other.authenticate("dave", &dave, json!(null)).await;
            drop(one); // rudely
            other.leave().await;
        })
        .await;
        let only_ours = eventually("two rooms are left", async || {
            match server.health().await["rooms"].as_u64() {
                Some(2) => Ok(()),
                rooms => Err(rooms),
            }
        });
        only_ours.await;
    };
    churn().await;
    let before = server.resident();

    for _ in 0..4 {
        churn().await;
    }

    let grown = server.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for rooms that are gone");
    server.assert_unharmed().await;
}

/// X07: what 600 idle members of a fresh server hold, divided by 600.
#[tokio::test]
async fn an_idle_member_costs_little_memory() {
    const MEMBERS: usize = 600;
    let server =
        AttackedServer::with(&[("MAX_CONNECTIONS_PER_IP", "0")]).may_grow_by(48).start().await;
    let before = server.resident();

    let token = server.token("carol");
    let members = crowd(MEMBERS, async |number| {
        let mut client = server.connect(&format!("room{}", number / 10)).await;
        client.authenticate("carol", &token, json!(null)).await;
        client
    })
    .await;
    let each = server.resident().saturating_sub(before) / MEMBERS as u64;

    assert!(each < 64 << 10, "{each} bytes each");
    drop(members);
    server.assert_unharmed().await;
}

/// X08, N01: 800 invented addresses and 800 of one IPv6 network, each with a request, a bad token
/// and every tenth with a wrong password: no table keeps much, and each address has its own limits.
#[tokio::test]
async fn invented_addresses_cost_no_memory() {
    let settings = [("RATE_LIMIT_PER_MINUTE", "60"), ("AUTH_MAX_FAILURES", "3")];
    let server = AttackedServer::with(&settings).may_grow_by(8).start().await;
    let http = http().build().unwrap();
    let visit = async |number: usize, address: String| {
        let url = |path: &str| format!("http://{}{path}", server.address);
        let get = http.get(url("/")).header("x-forwarded-for", &address).send();
        let seen = get.await.unwrap().status().as_u16();
        let headers = [("x-forwarded-for", address.as_str())];
        let mut client = server.connect_with("den", &headers).await.unwrap();
        client.receive().await;
        client.send(json!({"type":"auth_token","token":"guess"})).await;
        assert_eq!(client.rejection().await.0, 1008);
        if number.is_multiple_of(10) {
            let login = json!({"username":format!("user{number}"),"password":"guess"});
            let post = http.post(url("/auth/login")).header("x-forwarded-for", &address);
            let status = post.json(&login).send().await.unwrap().status().as_u16();
            assert!([401, 429].contains(&status), "{status}");
        }
        seen
    };

    let statuses = crowd(800, async |number| {
        visit(number, format!("198.18.{}.{}", number / 250, number % 250)).await
    })
    .await;
    let began = Instant::now();
    let household = crowd(800, async |number| {
        visit(number, format!("2001:db8::{number:x}:{:x}", number * 7)).await
    })
    .await;
    let refilled = 1 + began.elapsed().as_secs() as usize;

    assert!(statuses.iter().all(|status| *status == 200), "each has its own bucket");
    let let_in = household.iter().filter(|status| **status == 200).count();
    assert!((60..=60 + refilled).contains(&let_in), "one network, one bucket: {let_in}");
    drop(http);
    server.assert_unharmed().await;
}

/// N06 as far as one address goes: of 5,000 sockets that it opens 256 are let wait for a token, the
/// rest is told 503, and the whole server stays below 64 MiB (in a debug build).
#[tokio::test]
async fn five_thousand_unauthenticated_connections_of_one_address_are_rejected_beyond_the_limit() {
    let server =
        AttackedServer::with(&[("MAX_CONNECTIONS_PER_IP", "0"), ("WEBSOCKET_TIMEOUT", "3600")])
            .may_grow_by(32)
            .start()
            .await;
    server.reset_peak();

    let mut knocks = crowd(5000, async |_| {
        let (status, raw) = knock(&server, "den", "198.51.100.7").await;
        (status, (status == 101).then_some(raw))
    })
    .await;
    let (elsewhere, _) = knock(&server, "den", "198.51.100.8").await;
    newcomers_join(&server).await;

    let let_in = knocks.iter().filter(|(status, _)| *status == 101).count();
    assert_eq!(let_in, 256);
    assert!(knocks.iter().all(|(status, _)| [101, 503].contains(status)));
    assert_eq!(elsewhere, 101);
    assert!(server.peak() < 64 << 20, "{} bytes", server.peak());

    knocks.clear();
    let free_again = async || match knock(&server, "den", "198.51.100.7").await.0 {
        101 => Ok(()),
        status => Err(status),
    };
    eventually("the address may connect again", free_again).await;
    server.assert_unharmed().await;
}

/// The cap on sockets without a token goes by network for IPv6, and a member no longer counts.
#[tokio::test]
async fn a_member_no_longer_counts_as_an_unauthenticated_connection() {
    let server = AttackedServer::start(&[
        ("MAX_CONNECTIONS_PER_IP", "0"),
        ("MAX_CONNECTIONS_PER_ROOM", "1000"),
    ])
    .await;
    let address = |number: usize| format!("2001:db8:0:7:{number:x}::{number:x}");
    let mut waiting = crowd(256, async |number| {
        let headers = [("x-forwarded-for", &*address(number))];
        server.connect_with("den", &headers).await.unwrap()
    })
    .await;

    assert_eq!(knock(&server, "den", "2001:db8:0:7::9").await.0, 503);
    assert_eq!(knock(&server, "den", "2001:db8:0:8::9").await.0, 101);
    let mut member: Client = waiting.pop().unwrap();
    member.authenticate("carol", &server.token("carol"), json!(null)).await;
    let (status, _next) = knock(&server, "den", "2001:db8:0:7::9").await;
    assert_eq!(status, 101);
    assert_eq!(knock(&server, "den", "2001:db8:0:7::a").await.0, 503);

    member.leave().await;
    drop((waiting, _next));
    assert_eq!(server.assert_unharmed().await.visits, 1);
}

/// N16: 480 members from as many addresses lose their connections at one moment and reconnect within a second of jitter (the
/// catalogue has 5,000).
#[tokio::test]
async fn clients_that_reconnect_at_once_all_join() {
    const MEMBERS: usize = 480;
    let server =
        AttackedServer::with(&[("MAX_CONNECTIONS_PER_IP", "0")]).may_grow_by(48).start().await;
    let tokens = ["alice", "bob", "carol", "dave"].map(|name| (name, server.token(name)));
    let arrive = async |number: usize, jitter: u64| {
        sleep(Duration::from_millis(jitter)).await;
        let (name, token) = &tokens[number % tokens.len()];
        let address = format!("198.51.{}.{}", number / 250, number % 250);
        let headers = [("x-forwarded-for", &*address)];
        let mut client =
            server.connect_with(&format!("room{}", number / 8), &headers).await.unwrap();
        client.authenticate(name, token, json!(format!("client{number}"))).await;
        client
    };
    let members = crowd(MEMBERS, async |number| arrive(number, 0).await).await;
    drop(members); // rudely

    let again = (0..MEMBERS).map(|number| arrive(number, (number as u64 * 7919) % 1000));
    let mut again = futures_util::future::join_all(again).await;

    for client in &mut again {
        client.send(json!({"type":"ping"})).await;
    }
    drop(again);
    server.assert_unharmed().await;
}

/// A client that requests much and reads nothing of it is disconnected.
#[tokio::test]
async fn a_client_that_does_not_read_a_response_is_disconnected() {
    let server =
        AttackedServer::with(&[(INTERVALS, "write_stall=1000")]).may_grow_by(64).start().await;
    let before = server.open_files();
    let request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(6);

    let deaf = crowd(8, async |_| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(server.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
        stream
    })
    .await;
    // Connections are accepted in order: this one after those.
    server.health().await;

    let cut = async || match server.open_files() <= before {
        true => Ok(()),
        false => Err(server.open_files() - before),
    };
    eventually("all are closed", cut).await;
    drop(deaf);
    server.assert_unharmed().await;
}

/// O07, and why some handles are kept back: with 64 handles and strangers who take all that there are,
/// members talk on, the users file is still read, and newcomers are served once there is room again.
#[tokio::test]
async fn without_file_descriptors_members_stay_connected_and_new_connections_wait() {
    let server = AttackedServer::with(&[])
        .through(&["prlimit", "--nofile=64"])
        .may_log(&["file descriptors", "cannot accept"])
        .start()
        .await;
    let carol = server.join("den", "carol").await;
    let crowd = crowd(100, async |_| server.raw().await).await;
    server.wait_for_log("all file descriptors are in use").await;

    manage_ok(&server.folder, &["disable", "carol"], "").await;
    assert_eq!(carol.read_to_close().await.1.0, 4003);
    drop(crowd);
    assert_eq!(server.health().await["active_connections"], 4);

    let answer = server.request(Method::POST, "/auth/login");
    let answer = answer.json(&json!({"username":"dave","password":PASSWORD})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    server.assert_unharmed().await;
}
