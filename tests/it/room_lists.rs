//! The lists of rooms: pages of them, and all of many rooms for many clients.

use std::sync::Arc;

use reqwest::{Method, header};
use serde_json::{Value, json};
use signaling::{
    delivery,
    rooms::{Membership, Peer},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{TestServer, eventually};

const ADMIN_TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A room with this many members, for as long as the memberships are kept.
fn open_room(server: &TestServer, room: &str, members: usize) -> Vec<Membership> {
    let room: Arc<str> = room.into();
    let member = |number: usize| {
        let peer =
            Peer { client_id: number.to_string().into(), username: "alice".into(), name: None };
        Membership::join_local(&server.app.rooms, &room, peer, delivery::channel().0).unwrap()
    };
    (0..members).map(member).collect()
}

/// The room ids of one answer, its total, and the query of the next page.
async fn page(
    server: &TestServer,
    path: &str,
    query: &str,
) -> (Vec<String>, Value, Option<String>) {
    let request = server.request(Method::GET, &format!("{path}?{query}")).bearer_auth(ADMIN_TOKEN);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    let header = |name: &str| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
    let total =
        header("x-total-count").map_or(Value::Null, |total| total.parse::<u64>().unwrap().into());
    let next = header("link").map(|link| {
        let link = link.strip_prefix("<?").unwrap();
        link.strip_suffix(">; rel=\"next\"").unwrap().to_owned()
    });
    let rooms: Vec<Value> = answer.json().await.unwrap();
    let ids = rooms.iter().map(|room| room["room_id"].as_str().unwrap().to_owned());
    (ids.collect(), total, next)
}

#[tokio::test]
async fn pages_list_every_room_once_and_the_complete_list_is_as_it_was() {
    let server = TestServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN)]).await;
    let names = ["Zoë & Co/?#", "attic", "cellar", "den", "hall"];
    let _members: Vec<_> =
        names.iter().map(|room| open_room(&server, room, room.len() % 4 + 1)).collect();

    for path in ["/api/rooms", "/admin/api/rooms"] {
        let (all, total, next) = page(&server, path, "").await;
        assert_eq!((all, total, next), (names.map(String::from).to_vec(), Value::Null, None));
        for limit in 1..=6 {
            let (mut seen, mut query) = (Vec::new(), Some(format!("limit={limit}")));
            while let Some(asked) = query {
                let (rooms, total, next) = page(&server, path, &asked).await;
                assert!(rooms.len() == limit || next.is_none(), "{asked}: {rooms:?}");
                assert_eq!(total, 5);
                seen.extend(rooms);
                query = next;
            }
            assert_eq!(seen, names, "{limit}");
        }
        assert_eq!(page(&server, path, "after=b&limit=2").await.0, ["cellar", "den"]);
        for wrong in ["limit=0", "limit=1001", "limit=two"] {
            let request = server.request(Method::GET, &format!("{path}?{wrong}"));
            let answer = request.bearer_auth(ADMIN_TOKEN).send().await.unwrap();
            assert_eq!(answer.status(), 422);
            let detail = answer.json::<Value>().await.unwrap();
            assert_eq!(detail.pointer("/detail/0/loc").unwrap(), &json!(["query", "limit"]));
        }
    }
}

#[tokio::test]
async fn administrators_search_and_see_the_fullest_rooms_first() {
    let server = TestServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN)]).await;
    let rooms = [("attic", 1), ("cellar", 3), ("den", 2), ("hall", 3)];
    let _members = rooms.map(|(room, members)| open_room(&server, room, members));
    let path = "/admin/api/rooms";

    let (fullest, _, next) = page(&server, path, "sort=connected_users&limit=3").await;
    assert_eq!(fullest, ["cellar", "hall", "den"]);
    assert_eq!(page(&server, path, &next.unwrap()).await.0, ["attic"]);
    let (found, total, _) = page(&server, path, "search=LL&sort=room_id").await;
    assert_eq!((found, total), (vec!["cellar".to_owned(), "hall".to_owned()], json!(2)));
    assert_eq!(page(&server, "/api/rooms", "search=LL").await.0.len(), 4, "not for users");
}

/// A request from `address` whose answer nobody reads.
async fn ask_and_do_not_read(server: &TestServer, address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /api/rooms HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_list_of_many_rooms_comes_complete_and_those_who_do_not_read_it_hold_little() {
    let server = TestServer::start(&[]).await;
    let name = |number: usize| format!("{number:04}-{}", "ä".repeat(120));
    let _members: Vec<_> = (0..8_000).map(|number| open_room(&server, &name(number), 1)).collect();

    let answer = server.get("/api/rooms").await;
    let length: usize = answer.headers()[header::CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
    let text = answer.text().await.unwrap();
    assert_eq!(text.len(), length);
    let rooms: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(rooms.len(), 8_000);
    assert_eq!(rooms[7_999], json!({"room_id":name(7_999),"connected_users":1,"is_active":true}));

    let mut silent = Vec::new();
    for number in 0..60 {
        silent.push(ask_and_do_not_read(&server, &format!("192.0.2.{}", number % 3)).await);
    }
    // Small answers need no permit, and a page is small.
    assert_eq!(
        server.get("/api/rooms?limit=3").await.json::<Value>().await.unwrap()[2]["room_id"],
        name(2)
    );
    let mut member = server.join("den", "bob").await;
    member.assert_no_more_messages().await;
    drop(silent);
    eventually("the permits are given back", async || {
        server.get("/api/rooms").await.status() == 200
    })
    .await;
}
