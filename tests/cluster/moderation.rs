//! What an administrator does on one node holds on all.

use futures_util::{StreamExt, stream};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::TestCluster;
use crate::{
    harness::{eventually, http},
    tokens::present,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn open() -> TestCluster {
    TestCluster::start(&[("ADMIN_TOKEN", TOKEN), ("MAX_CONNECTIONS_PER_ROOM", "3")]).await
}

async fn ask(
    cluster: &TestCluster,
    node: usize,
    method: Method,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let url = format!("http://{}/admin/api/{path}", cluster.nodes[node].address());
    let client = http().build().unwrap();
    let request = client.request(method, url).bearer_auth(TOKEN).json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn done(cluster: &TestCluster, node: usize, path: &str, body: Value) {
    let (status, answer) = ask(cluster, node, Method::POST, path, body).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_ban_on_one_node_disconnects_on_another_and_denies_entry_on_all() {
    let cluster = open().await;
    let alice = cluster.join(1, "den", "alice", "a").await;
    let bob = cluster.join(2, "den", "bob", "b").await;

    done(&cluster, 0, "rooms/den/kick", json!({"username":"alice","ban_seconds":600})).await;

    assert_eq!(alice.close().await, (4002, "Removed by an administrator".into()));
    eventually("bob has heard of it", async || bob.events().contains(&"left a".to_owned())).await;
    for node in 0..3 {
        eventually("the ban is known", async || {
            let orders = ask(&cluster, node, Method::GET, "rules", json!({})).await.1;
            orders["rules"].as_array().is_some_and(|orders| orders.len() == 1)
        })
        .await;
        let refused = cluster.try_join(node, "den", "alice", "other").await;
        assert_eq!(
            refused.err(),
            Some((4002, "Removed by an administrator".into())),
            "node {node}"
        );
    }
    done(&cluster, 2, "remove", json!({"rule":"ban","room":"den","who":{"username":"alice"}}))
        .await;
    eventually("she may come in again", async || {
        cluster.try_join(1, "den", "alice", "again").await.is_ok()
    })
    .await;
    cluster.assert_consistent(&[bob]).await;
}

#[tokio::test]
async fn a_node_lists_members_on_other_nodes_and_sends_them_messages() {
    let cluster = open().await;
    let alice = cluster.join(1, "den", "alice", "a").await;
    let bob = cluster.join(2, "den", "bob", "b").await;

    let (status, room) = ask(&cluster, 0, Method::GET, "rooms/den", json!({})).await;
    done(&cluster, 0, "rooms/den/message", json!({"data":"to b","to":"b"})).await;
    done(&cluster, 0, "rooms/den/message", json!({"data":"to all"})).await;

    assert_eq!((status, &room["connected_users"]), (200, &json!(2)));
    let nodes: Vec<_> =
        room["members"].as_array().unwrap().iter().map(|member| &member["node"]).collect();
    assert_eq!(nodes, ["n1", "n2"]);
    eventually("both hear it", async || {
        alice.announcements() == [json!("to all")]
            && bob.announcements() == [json!("to b"), json!("to all")]
    })
    .await;
}

#[tokio::test]
async fn a_moderator_rules_about_members_of_other_nodes_and_those_that_have_just_left_them() {
    let cluster = TestCluster::start(&[("USERS_REQUIRED", "false")]).await;
    let moderator = json!({"can":["join","moderate"]});
    let mut boss = present(&cluster.nodes[0].process, "den", "boss", moderator).await;
    assert_eq!(boss.receive().await["type"], "auth_success");
    assert_eq!(boss.receive().await["type"], "users_in_room");
    let alice = cluster.join(1, "den", "alice", "a").await;
    let bob = cluster.join(2, "den", "bob", "b").await;
    bob.leave().await;
    while boss.receive().await["type"] != "user_left" {}

    for (client_id, answer) in [
        ("a", json!({"type":"moderated","action":"kick","id":1})),
        ("b", json!({"type":"moderated","action":"kick","id":1})),
        ("c", json!("target_not_found")),
    ] {
        boss.send(json!({"type":"kick","to":client_id,"ban_seconds":600,"id":1})).await;
        let mut received = boss.receive().await;
        while received["type"] == "user_left" {
            received = boss.receive().await;
        }
        let code = received.get("code").cloned();
        assert_eq!(code.unwrap_or(received), answer);
    }

    assert_eq!(alice.close().await, (4002, "Removed by an administrator".into()));
    eventually("bob is banned on his node", async || {
        let refused = cluster.try_join(2, "den", "bob", "b").await.err();
        refused == Some((4002, "Removed by an administrator".into()))
    })
    .await;
}

#[tokio::test]
async fn capacity_and_locks_apply_on_every_node() {
    let cluster = open().await;
    let _inside =
        [cluster.join(1, "den", "alice", "a").await, cluster.join(2, "den", "bob", "b").await];
    let is_known = async |node: usize, name: &str, value: Value| {
        eventually("the order is known", async || {
            ask(&cluster, node, Method::GET, "rooms/den", json!({})).await.1[name] == value
        })
        .await;
    };

    done(&cluster, 0, "rooms/den/capacity", json!({"members":2})).await;
    is_known(1, "capacity", json!(2)).await;
    let full = cluster.try_join(1, "den", "carol", "c").await.err();
    done(&cluster, 1, "rooms/den/capacity", json!({"members":4})).await;
    is_known(2, "capacity", json!(4)).await;
    let _carol = cluster.join(2, "den", "carol", "c").await;
    done(&cluster, 2, "rooms/den/lock", json!({})).await;
    is_known(0, "is_locked", json!(true)).await;
    let locked = cluster.try_join(0, "den", "dave", "d").await.err();

    assert_eq!(full, Some((1008, "Room is full".into())));
    assert_eq!(locked, Some((1008, "Room is locked".into())));
}

#[tokio::test]
async fn a_moderation_rule_made_without_redis_applies_everywhere_when_redis_is_back() {
    let mut cluster = open().await;
    let alice = cluster.join(1, "den", "alice", "a").await;
    cluster.redis.kill().await;
    cluster.wait_until_down().await;

    done(&cluster, 0, "ban", json!({"username":"alice","seconds":600})).await;
    assert!(alice.is_open(), "nobody could have told its node");
    cluster.redis.restart().await;

    assert_eq!(alice.close().await, (4002, "Removed by an administrator".into()));
    for node in 0..3 {
        cluster.wait_for_redis(node, "up").await;
        let refused = cluster.try_join(node, "attic", "alice", "x").await;
        assert_eq!(
            refused.err(),
            Some((4002, "Removed by an administrator".into())),
            "node {node}"
        );
    }
}

/// What an administrator did is in force on all servers that answer; the answer says on how many.
#[tokio::test]
async fn the_answer_says_on_how_many_servers_a_rule_and_a_message_took_effect() {
    let cluster = open().await;
    let _alice = cluster.join(0, "den", "alice", "a").await;
    let reach = async |path: &str, body: Value| {
        let (status, answer) = ask(&cluster, 0, Method::POST, path, body).await;
        assert_eq!(status, 200, "{answer}");
        (answer["applied_on"].clone(), answer["nodes"].clone())
    };
    for (path, body) in [
        ("rooms/den/lock", json!({})),
        ("rooms/den/unlock", json!({})),
        ("rooms/den/capacity", json!({"members":5})),
        ("rooms/den/message", json!({"data":"hello"})),
        ("ban", json!({"username":"mallory","seconds":60})),
    ] {
        assert_eq!(reach(path, body).await, (json!(3), json!(3)), "{path}");
    }

    for path in ["rooms/den/lock", "rooms/den/message"] {
        cluster.nodes[2].signal(Signal::STOP);
        assert_eq!(reach(path, json!({"data":"hello"})).await, (json!(2), json!(3)), "{path}");
        cluster.nodes[2].signal(Signal::CONT);
        eventually("it is back", async || {
            reach("rooms/den/capacity", json!({"members":6})).await == (json!(3), json!(3))
        })
        .await;
    }
}

#[tokio::test]
async fn a_mute_on_one_node_applies_on_another() {
    let cluster = open().await;
    let mut alice = cluster.join(1, "den", "alice", "a").await;
    let bob = cluster.join(2, "den", "bob", "b").await;

    done(&cluster, 0, "rooms/den/mute", json!({"client_id":"a"})).await;
    eventually("alice is muted", async || {
        let rules = ask(&cluster, 1, Method::GET, "rules", json!({})).await.1;
        rules["rules"][0]["rule"] == "mute"
    })
    .await;
    alice.send(json!({"type":"message","data":"unheard"})).await;
    alice.wait_for_error("muted").await;
    done(&cluster, 2, "rooms/den/unmute", json!({"client_id":"a"})).await;
    eventually("alice is unmuted", async || {
        let rules = ask(&cluster, 1, Method::GET, "rules", json!({})).await.1;
        rules["rules"] == json!([])
    })
    .await;
    alice.send(json!({"type":"message","data":"heard"})).await;

    bob.wait_for_message("a", "heard".into()).await;
    assert_eq!(bob.messages(), [("a".to_owned(), json!("heard"))]);
}

/// Which of them is newer is the same on all, also where they were made in the same millisecond.
#[tokio::test]
async fn rules_that_are_made_on_all_nodes_at_once_end_equal_on_all() {
    const ROOMS: usize = 120;
    let cluster = open().await;
    let made = (0..ROOMS).flat_map(|room| (0..3).map(move |node| (room, node)));
    let made = made.map(async |(room, node)| {
        let path = format!("rooms/room{room}/capacity");
        ask(&cluster, node, Method::POST, &path, json!({"members":2 + node})).await
    });
    // The three of a room at the same time.
    let answers: Vec<_> = stream::iter(made).buffered(30).collect().await;
    for (status, answer) in answers {
        assert_eq!(status, 200, "{answer}");
    }

    eventually("all nodes have the same rules", async || {
        let mut of_nodes = Vec::new();
        for node in 0..3 {
            let (_, answer) = ask(&cluster, node, Method::GET, "rules", json!({})).await;
            let mut rules: Vec<_> =
                answer["rules"].as_array().unwrap().iter().map(Value::to_string).collect();
            rules.sort();
            of_nodes.push(rules);
        }
        let differ = (0..of_nodes[0].len().max(ROOMS))
            .filter(|rule| of_nodes.iter().any(|rules| rules.get(*rule) != of_nodes[0].get(*rule)));
        match differ.count() {
            0 if of_nodes[0].len() == ROOMS => Ok(()),
            differ => Err((of_nodes[0].len(), differ)),
        }
    })
    .await;
}
