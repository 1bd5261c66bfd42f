//! What one client, one address, one name may do (group L of the catalogue).

use std::net::{IpAddr, SocketAddr};

use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use super::{
    attacked_server::AttackedServer,
    raw::{Raw, upgrade},
};
use crate::harness::{PASSWORD, TEST_TIMEOUT, TestServer, eventually, http};

/// Connections from one address that are no WebSocket.
const MOST_PER_ADDRESS: usize = 256;

async fn log_in_from(
    server: &AttackedServer,
    address: &str,
    username: &str,
    password: &str,
) -> Response {
    let request = server.request(Method::POST, "/auth/login").header("x-forwarded-for", address);
    request.json(&json!({"username":username,"password":password})).send().await.unwrap()
}

async fn status_from(
    server: &AttackedServer,
    address: &str,
    username: &str,
    password: &str,
) -> u16 {
    let answer = log_in_from(server, address, username, password).await;
    let status = answer.status().as_u16();
    let says_when = answer.headers().contains_key("retry-after");
    assert_eq!(says_when, [429, 503].contains(&status), "{status}");
    status
}

/// L01, L04: 200 requests, each with another invention to the left of the client's own address.
#[tokio::test]
async fn two_hundred_requests_of_one_address_exceed_the_limit() {
    let server = AttackedServer::start(&[("RATE_LIMIT_PER_MINUTE", "60")]).await;
    let http = http().build().unwrap();
    let get = async |forwarded: String| {
        let request = http.get(format!("http://{}/api/rooms", server.address));
        request.header("x-forwarded-for", forwarded).send().await.unwrap()
    };

    let began = Instant::now();
    let mut refused = 0;
    for number in 0..200 {
        let answer = get(format!("198.51.100.{number}, 192.0.2.1")).await;
        match answer.status().as_u16() {
            200 => {}
            429 => {
                let wait =
                    answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap();
                assert!((1..=60).contains(&wait), "{wait}");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    let refilled = 1 + began.elapsed().as_secs();
    let neighbour = get("192.0.2.1, 192.0.2.2".to_owned()).await;

    assert!((140 - refilled..=140).contains(&refused), "{refused}");
    assert_eq!(neighbour.status(), 200, "what stands left of it does not count");
    assert_eq!(
        server.upgrade_status("%00", &[("x-forwarded-for", "192.0.2.1")]).await,
        400,
        "not 429"
    );
    let joined = server.connect_with("den", &[("x-forwarded-for", "192.0.2.1")]).await;
    joined.unwrap().receive().await;
    drop(http);
    server.assert_unharmed().await;
}

/// L02, L04: thirty guesses, all at once or with an invented address each: five are checked, and
/// perhaps those that were being checked just then.
#[tokio::test]
async fn thirty_guesses_lock_the_name_for_that_address_only() {
    for at_once in [true, false] {
        let server = AttackedServer::start(&[]).await;
        let guess = async |number: usize| {
            let address = format!("198.51.100.{number}, 192.0.2.1");
            status_from(&server, &address, "alice", "guess").await
        };

        let mut statuses = Vec::new();
        if at_once {
            statuses = join_all((0..30).map(guess)).await;
        } else {
            for number in 0..30 {
                statuses.push(guess(number).await);
            }
        }

        let checked = statuses.iter().filter(|status| **status == 401).count();
        let threads = std::thread::available_parallelism().unwrap().get();
        let most = if at_once { 5 + threads } else { 5 };
        assert!((5..=most).contains(&checked), "{statuses:?}");
        assert!(statuses.iter().all(|status| [401, 429, 503].contains(status)), "{statuses:?}");
        assert_eq!(status_from(&server, "192.0.2.1", "alice", PASSWORD).await, 429);
        assert_eq!(status_from(&server, "192.0.2.9", "alice", PASSWORD).await, 200, "the owner");
        assert_eq!(status_from(&server, "192.0.2.1", "bob", PASSWORD).await, 200, "a neighbour");
        server.assert_unharmed().await;
    }
}

/// L03: 120 guesses from 120 addresses lock the name everywhere; its tokens stay good.
#[tokio::test]
async fn guesses_from_many_addresses_lock_the_name_everywhere() {
    let server = AttackedServer::start(&[]).await;
    let token = server.token("carol");

    let mut statuses = Vec::new();
    for number in 0..120 {
        let address = format!("198.51.100.{number}");
        statuses.push(status_from(&server, &address, "carol", "guess").await);
    }

    assert_eq!(statuses[..50], [401; 50]);
    assert_eq!(statuses[50..], [429; 70]);
    assert_eq!(status_from(&server, "192.0.2.9", "dave", PASSWORD).await, 200);
    let mut carol = server.connect("den").await;
    carol.authenticate("carol", &token, Value::Null).await;
    carol.leave().await;
    server.assert_unharmed().await;
}

/// One address that tries fifty names is locked for all of them.
#[tokio::test]
async fn one_guess_for_each_of_many_names_locks_the_address() {
    let server = AttackedServer::start(&[]).await;

    let mut statuses = Vec::new();
    for number in 0..60 {
        statuses.push(status_from(&server, "2001:db8::7", &format!("user{number}"), "guess").await);
    }

    assert_eq!((&statuses[..50], &statuses[50..]), (&[401; 50][..], &[429; 10][..]));
    assert_eq!(
        status_from(&server, "2001:db8::8", "alice", PASSWORD).await,
        429,
        "the same network"
    );
    assert_eq!(status_from(&server, "2001:db8:0:1::7", "alice", PASSWORD).await, 200);
    server.assert_unharmed().await;
}

/// L06: 5,000 messages at once: the room hears the burst that is allowed, the shouter is let go.
#[tokio::test]
async fn five_thousand_messages_at_once_exceed_the_burst_and_close_the_connection() {
    let server = AttackedServer::with(&[]).den_may_receive(&["message"]).start().await;
    let mut listener = server.join("den", "dave").await;
    let mut shouter = server.raw_member("den", "carol").await;
    assert_eq!(listener.receive().await["type"], "user_joined");
    let began = Instant::now();
    let shout = super::raw::frame(super::raw::TEXT, br#"{"type":"message","data":1}"#);

    let _ = shouter.raw.try_write(shout.repeat(5000)).await;
    let (before, ending) = shouter.read_to_close().await;

    assert_eq!(ending, super::raw::Ending::Closed(1008));
    let warnings: Vec<_> = before.iter().filter(|news| news["code"] == "rate_limited").collect();
    let (last, warnings) = warnings.split_last().unwrap();
    // A burst ends with a second without a refused message, which a busy machine may need between two of these.
    let most = 1 + began.elapsed().as_secs() as usize;
    assert!((1..=most).contains(&warnings.len()), "one warning a burst: {before:?}");
    assert!(warnings.iter().all(|warning| warning["retry"].is_null()), "{before:?}");
    assert_eq!(last["retry"], true);
    let mut heard = 0;
    while listener.receive().await["type"] == "message" {
        heard += 1;
    }
    let refilled = 50 * (1 + began.elapsed().as_secs());
    assert!((250..=250 + refilled).contains(&heard), "{heard}");
    listener.leave().await;
    assert_eq!(server.assert_unharmed().await.visits, 2);
}

/// Frames that are no messages cost the server as much: a flood of them is closed like a flood of messages, also before
/// the token, and is read no further.
#[tokio::test]
async fn a_flood_of_frames_that_are_no_messages_is_closed() {
    use super::raw::{BEGIN, Ending, GO_ON, PING, PONG, TEXT, frame};
    let server = AttackedServer::start(&[]).await;
    let fragments = [frame(BEGIN, b""), frame(GO_ON, b"").repeat(5000)].concat();
    let floods = [
        ("pings", frame(PING, b"").repeat(5000)),
        ("pongs that answer no ping", frame(PONG, b"1").repeat(5000)),
        ("empty fragments", fragments),
        ("empty messages", frame(TEXT, b"").repeat(5000)),
    ];

    for (name, flood) in &floods {
        let mut member = server.raw_member("den", "carol").await;
        let _ = member.raw.try_write(flood).await;
        let (before, ending) = member.read_to_close().await;
        assert_eq!(ending, Ending::Closed(1008), "{name}: {before:?}");
        assert_eq!(before.last().unwrap()["code"], "rate_limited", "{name}");
    }
    for (name, flood) in &floods[..3] {
        let mut unauthenticated = server.raw_socket("den").await;
        unauthenticated.receive().await;
        let _ = unauthenticated.raw.try_write(flood).await;
        assert_eq!(unauthenticated.rejection().await, Ending::Closed(1008), "{name}");
    }
    assert_eq!(server.assert_unharmed().await.visits, floods.len());
}

/// L08: with ten in a room the eleventh is told that it is full, however often and however many at once
/// he tries; whoever is in can still come back under his own id.
#[tokio::test]
async fn the_eleventh_client_of_a_full_room_is_rejected() {
    let server = AttackedServer::start(&[]).await;
    let mut members = Vec::new();
    for number in 0..8 {
        members.push(server.join_as("den", "carol", json!(format!("carol{number}"))).await.0);
    }

    let token = server.token("dave");
    let eleventh = (0..20).map(async |_| {
        let mut client = server.connect("den").await;
        client.receive().await;
        client.send(json!({"type":"auth_token","token":token})).await;
        let (before, close) = client.read_to_close().await;
        assert_eq!(close, (1008, "Room is full".into()));
        assert_eq!((before.len(), &before[0]["code"]), (1, &json!("room_full")));
    });
    join_all(eleventh).await;
    let (again, _) = server.join_as("den", "carol", json!("carol0")).await;
    assert_eq!(members.remove(0).read_to_close().await.1.0, 4001);

    drop((members, again));
    assert_eq!(server.assert_unharmed().await.visits, 9);
}

/// L09: 300 sockets of one address: a hundred are let in, the others hear why, seated ones stay.
#[tokio::test]
async fn an_address_may_have_a_hundred_sockets() {
    let server = AttackedServer::start(&[]).await;
    let home = [("x-forwarded-for", "192.0.2.1")];
    let mut seated = server.connect_with("den", &home).await.unwrap();
    seated.authenticate("carol", &server.token("carol"), Value::Null).await;

    let arriving = (0..300).map(async |_| {
        let mut client = server.connect_with("den", &home).await.ok()?;
        let first = client.receive().await;
        Some((first, client))
    });
    let arrived: Vec<_> = join_all(arriving).await.into_iter().flatten().collect();

    let (let_in, refused): (Vec<_>, Vec<_>) =
        arrived.into_iter().partition(|(first, _)| first["type"] == "auth_required");
    assert_eq!(let_in.len(), 99);
    assert!(refused.len() > 100, "{} were told why", refused.len());
    for (first, client) in refused {
        assert_eq!(first["code"], "too_many_connections");
        assert_eq!(client.rejection().await.0, 1008);
    }
    seated.assert_no_more_messages().await;
    drop((let_in, seated));
    server.assert_unharmed().await;
}

/// An account may have so many sockets, from whatever addresses; others are not concerned, and a place is free again when
/// one has gone.
#[tokio::test]
async fn an_account_may_have_so_many_sockets() {
    let server = AttackedServer::with(&[("MAX_CONNECTIONS_PER_USER", "3")]).start().await;
    let token = server.token("carol");
    let connect = async |number: usize| {
        let address = format!("198.51.100.{number}");
        let headers = [("x-forwarded-for", &*address)];
        let mut client = server.connect_with("attic-of-carol", &headers).await.unwrap();
        assert_eq!(client.receive().await["type"], "auth_required");
        client.send(json!({"type":"auth_token","token":token})).await;
        client
    };
    let mut members = Vec::new();
    for number in 0..3 {
        let mut member = connect(number).await;
        assert_eq!(member.receive().await["type"], "auth_success");
        members.push(member);
    }

    let (before, close) = connect(3).await.read_to_close().await;

    assert_eq!((&before[0]["code"], close.0), (&json!("too_many_connections"), 1008));
    assert_eq!(before[0]["retry"], true);
    server.join("attic-of-carol", "dave").await.leave().await;
    members.pop().unwrap().leave().await;
    let is_free = async || match connect(4).await.receive().await {
        reply if reply["type"] == "auth_success" => Ok(()),
        reply => Err(reply),
    };
    eventually("a place is free again", is_free).await;
    drop(members);
    server.assert_unharmed().await;
}

/// L10: rooms that are not on the list are none, also where they almost are.
#[tokio::test]
async fn only_listed_rooms_may_be_joined() {
    let server =
        AttackedServer::start(&[("ALLOWED_ROOMS", r#"["den","attic","the cellar"]"#)]).await;

    for room in
        ["cellar", "Den", "den%20", "%20den", "den%2f", "den%2Fx", "d%C4%99n", "*", "den,attic"]
    {
        let client = server.connect(room).await;
        let (before, close) = client.read_to_close().await;
        assert_eq!(
            (before.len(), &before[0]["code"], close.0),
            (1, &json!("room_not_allowed"), 1008),
            "{room}"
        );
    }
    for room in ["the%20cellar", "%64en", "den/"] {
        server.join(room, "carol").await.leave().await;
    }
    assert_eq!(server.assert_unharmed().await.visits, 2);
}

/// A connection to the server from another address of this machine.
async fn connect_from(server: &AttackedServer, source: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(IpAddr::from(source), 0)).unwrap();
    socket.connect(server.address).await.unwrap()
}

/// What is answered to a request on a connection; nothing where it was closed.
async fn answered(mut stream: TcpStream, request: &str) -> String {
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(TEST_TIMEOUT, stream.read_to_end(&mut answer))
        .await
        .expect("no answer");
    String::from_utf8(answer).unwrap()
}

/// A client that opens a connection as soon as another was closed gets no more answers than its address has connections
/// in a minute.
#[tokio::test]
async fn an_address_that_opens_connections_without_end_is_no_longer_answered() {
    const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let server = AttackedServer::start(&[("TRUSTED_PROXIES", "192.0.2.1")]).await;
    let began = Instant::now();
    let mut answers = 0;
    for _ in 0..2000 {
        let answer = answered(connect_from(&server, [127, 0, 0, 2]).await, HEALTH).await;
        answers += u64::from(answer.starts_with("HTTP/1.1 200"));
    }
    // 512 and four for each of the 100 members that it may have; they are refilled in a minute.
    let refilled = 1 + (began.elapsed().as_secs() + 1) * 912 / 60;
    let elsewhere = answered(connect_from(&server, [127, 0, 0, 3]).await, HEALTH).await;

    assert!((912..=912 + refilled).contains(&answers), "{answers}");
    assert!(elsewhere.starts_with("HTTP/1.1 200"), "{elsewhere}");
    server.wait_for_log("too many connections from one address").await;
    server.assert_unharmed().await;
}

/// 300 connections of one address that is no proxy of ours: 256 are let wait; its WebSockets are not
/// counted among them, other addresses are not concerned, and it is served again when some have gone.
#[tokio::test]
async fn connections_without_a_request_are_limited_per_address() {
    const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let server = AttackedServer::with(&[("TRUSTED_PROXIES", "192.0.2.1")])
        .may_log(&["too many connections from one address"])
        .start()
        .await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = connect_from(&server, [127, 0, 0, 2]).await;
        socket.write_all((upgrade("den") + "\r\n").as_bytes()).await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        sockets.push(socket);
    }

    let crowd = join_all((0..300).map(|_| connect_from(&server, [127, 0, 0, 2]))).await;
    let refused = answered(connect_from(&server, [127, 0, 0, 2]).await, HEALTH).await;
    let elsewhere = answered(connect_from(&server, [127, 0, 0, 3]).await, HEALTH).await;

    assert_eq!(refused, "");
    assert!(elsewhere.starts_with("HTTP/1.1 200"), "{elsewhere}");
    let mut open = 0;
    for stream in &crowd {
        let mut byte = [0; 1];
        open += usize::from(
            matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        );
    }
    assert_eq!(open, MOST_PER_ADDRESS);
    drop(crowd);
    let served = async || {
        let answer = answered(connect_from(&server, [127, 0, 0, 2]).await, HEALTH).await;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    };
    eventually("the address is served again", served).await;
    drop(sockets);
    server.assert_unharmed().await;
}

/// Server and test share a thread, which looks for what has arrived only where the server lets it: the answers that are there
/// when the test receives the first were made without a look at any other connection.
#[tokio::test]
async fn requests_that_came_together_keep_the_server_from_no_other_connection() {
    let server = TestServer::start(&[]).await;
    let mut flood = Raw::connect(server.address).await;
    flood.write("GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000)).await;

    let mut received = vec![0; 1 << 20];
    let length = flood.stream.read(&mut received).await.unwrap();

    let text = String::from_utf8_lossy(&received[..length]);
    let answers = text.matches("HTTP/1.1 200").count();
    assert!((1..16).contains(&answers), "{answers}");
}
