//! Who somebody is in a room, and who he cannot be (group I of the catalogue).

use serde_json::{Value, json};

use super::attacked_server::AttackedServer;
use crate::harness::eventually;

/// Says who he is and what id he wants; what he is told first, and how that ends if it ends.
async fn refusal(
    server: &AttackedServer,
    room: &str,
    username: &str,
    id: Value,
) -> (Value, (u16, String)) {
    let mut client = server.connect(room).await;
    client.receive().await;
    let token = server.token(username);
    client.send(json!({"type":"auth_token","token":token,"clientId":id})).await;
    let (frames, close) = client.read_to_close().await;
    assert_eq!(frames.len(), 1, "{frames:?}");
    (frames[0]["code"].clone(), close)
}

fn offer(number: usize) -> Value {
    json!({"type":"offer","offer":{"sdp":"v=0","number":number}})
}

/// I01: the bystanders' ids are tried too, and they hear nothing of it.
#[tokio::test]
async fn a_client_id_of_another_user_is_rejected_and_its_member_receives_everything() {
    let server = AttackedServer::start(&[]).await;
    let (mut owner, _) = server.join_as("hall", "carol", json!("her-id")).await;
    let mut caller = server.join("hall", "alice").await;
    owner.receive().await;
    let taken = (json!("client_id_taken"), (1008, "Client id is taken".to_owned()));

    for number in 0..4 {
        let mut message = offer(number);
        if number % 2 == 0 {
            message["to"] = json!("her-id");
        }
        caller.send(message).await;
        assert_eq!(refusal(&server, "hall", "dave", json!("her-id")).await, taken);
        assert_eq!(refusal(&server, "den", "dave", json!("den-alice")).await, taken);

        assert_eq!(owner.receive().await["offer"]["number"], number);
    }

    owner.assert_no_more_messages().await;
    let (elsewhere, _) = server.join_as("cellar", "dave", json!("her-id")).await;
    drop((owner, caller, elsewhere));
    server.assert_unharmed().await;
}

/// I02: a reloaded page takes the place of the old one.
#[tokio::test]
async fn the_same_user_with_the_same_client_id_replaces_the_old_connection() {
    let server = AttackedServer::start(&[]).await;
    let mut others = server.join("hall", "dave").await;
    let (mut old, _) = server.join_as("hall", "carol", json!("tab-1")).await;
    others.receive().await;

    for _ in 0..3 {
        let (new, there) = server.join_as("hall", "carol", json!("tab-1")).await;
        let (frames, close) = old.read_to_close().await;

        assert_eq!(there, json!([{"client_id":others.id,"username":"dave","polite":true}]));
        assert_eq!((&frames[0]["code"], &frames[0]["retry"]), (&json!("replaced"), &json!(false)));
        assert_eq!(close, (4001, "Replaced by a new connection".into()));
        for (kind, count) in [("user_left", 1), ("user_joined", 2)] {
            let mut news = json!({"type":kind,"room_id":"hall","client_id":"tab-1","username":"carol","connected_users":count});
            if kind == "user_joined" {
                news["polite"] = false.into();
            }
            assert_eq!(others.receive().await, news);
        }
        old = new;
    }
    others.send(json!({"type":"message","data":1,"to":"tab-1"})).await;
    assert_eq!(old.receive().await["data"], 1);
    old.send(json!({"type":"message","data":2})).await;
    assert_eq!(others.receive().await["data"], 2);

    others.assert_no_more_messages().await;
    drop((others, old));
    server.assert_unharmed().await;
}

/// I02 in a hurry: however many come at once, one is left, and the bystanders' count of who came and went
/// adds up.
#[tokio::test]
async fn of_many_connections_that_replace_each_other_one_remains() {
    let server = AttackedServer::start(&[]).await;

    let crowd = (0..24).map(async |_| {
        let mut client = server.connect("den").await;
        client.receive().await;
        client
            .send(json!({"type":"auth_token","token":server.token("carol"),"clientId":"c"}))
            .await;
        client
    });
    let crowd = futures_util::future::join_all(crowd).await;
    let replaced = eventually("five members are left", async || {
        let members = server.health().await["active_connections"].clone();
        if members == 5 { Ok(()) } else { Err(members) }
    });
    replaced.await;
    drop(crowd);

    assert_eq!(server.assert_unharmed().await.visits, 24);
}

/// I03, I04, I05. (1 MiB of it is too big for a message at all.)
#[tokio::test]
async fn a_malformed_client_id_is_rejected_and_not_repeated() {
    let server = AttackedServer::start(&[]).await;
    let malformed = (json!("invalid_client_id"), (1008, "Invalid client id".to_owned()));

    for id in [
        json!("x".repeat(14_000)),
        json!("x".repeat(129)),
        json!("a\nb"),
        json!("a\r\nb"),
        json!("a\0"),
        json!("\u{1b}[2J"),
        json!("a b"),
        json!(" "),
        json!("é"),
        json!("\u{202e}nimda"),
        json!("<img src=x onerror=alert(1)>"),
        json!("a/../b"),
        json!("a,b"),
        json!("{}"),
        json!(7),
        json!(0),
        json!(true),
        json!(["a"]),
        json!([]),
        json!({}),
        json!({"a":"b"}),
    ] {
        assert_eq!(refusal(&server, "den", "carol", id.clone()).await, malformed, "{id:.40}");
    }
    let longest = format!("A-z.0_9:@{}", "x".repeat(119));
    let (client, _) = server.join_as("den", "carol", json!(longest)).await;
    assert_eq!(client.id, longest);
    drop(client);

    assert_eq!(server.assert_unharmed().await.visits, 1);
}

/// I06.
#[tokio::test]
async fn a_client_without_a_client_id_gets_a_new_one() {
    let server = AttackedServer::start(&[]).await;
    let mut clients = Vec::new();

    for _ in 0..8 {
        clients.push(server.join_as("den", "carol", json!("")).await.0);
        clients.push(server.join_as("hall", "carol", Value::Null).await.0);
    }

    let mut ids: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    assert!(ids.iter().all(|id| uuid::Uuid::try_parse(id).is_ok()), "{ids:?}");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 16);
    drop(clients);
    assert_eq!(server.assert_unharmed().await.visits, 8);
}

/// I07: who speaks, and where, is what the server knows of him.
#[tokio::test]
async fn a_message_cannot_claim_another_sender() {
    let server = AttackedServer::start(&[]).await;
    let mut hears = server.join("hall", "dave").await;
    let (mut says, _) = server.join_as("hall", "carol", json!("carol-1")).await;
    hears.receive().await;
    let lies = json!({
        "from":"den-alice","username":"alice","room_id":"den","room":"attic","client_id":"den-alice",
        "clientId":"den-alice","user":"alice","sender":"den-alice","connected_users":99,
    });

    for (kind, field) in [
        ("offer", "offer"),
        ("answer", "answer"),
        ("ice_candidate", "candidate"),
        ("message", "data"),
    ] {
        let truth = json!({"type":kind,field:{"a":1},"from":"carol-1","username":"carol"});
        for to in [Value::Null, json!(hears.id)] {
            let mut lie = json!({"type":kind,field:{"a":1},"to":to});
            lie.as_object_mut().unwrap().extend(lies.as_object().unwrap().clone());
            says.send(lie).await;

            assert_eq!(hears.receive().await, truth);
        }
    }
    // What only the server says is no message of a client's.
    for kind in ["user_joined", "user_left", "users_in_room", "auth_success", "error", "pong"] {
        let mut lie = json!({"type":kind,"users":[],"message":"x","code":"token_expired"});
        lie.as_object_mut().unwrap().extend(lies.as_object().unwrap().clone());
        assert_eq!(says.error_after(&lie.to_string()).await["code"], "unknown_type", "{kind}");
    }

    hears.assert_no_more_messages().await;
    drop((hears, says));
    server.assert_unharmed().await;
}

/// I08: `to` is a client id or nobody.
#[tokio::test]
async fn a_target_that_is_not_a_client_id_is_not_found() {
    let server = AttackedServer::start(&[]).await;
    let mut hears = server.join("hall", "dave").await;
    let mut says = server.join("hall", "carol").await;
    hears.receive().await;
    let case = hears.id.to_uppercase();

    for to in [
        "*",
        "all",
        "__proto__",
        "constructor",
        "toString",
        "everyone",
        "dave",
        "hall",
        "null",
        "undefined",
        " ",
        "%",
        "0",
        &format!(" {}", hears.id),
        &case,
        "den-alice",
        "attic-alice",
    ] {
        let message = json!({"type":"offer","offer":{},"to":to,"id":"x"});
        let refused = says.error_after(&message.to_string()).await;

        let words = json!(format!("Target client {to} not found"));
        let expected = (&json!("target_not_found"), &words, &json!("x"));
        assert_eq!((&refused["code"], &refused["message"], &refused["id"]), expected);
    }

    hears.assert_no_more_messages().await;
    drop((hears, says));
    server.assert_unharmed().await;
}
