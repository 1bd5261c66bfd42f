//! The contract holds across nodes.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use signaling::clock::unix_now;

use super::{TestCluster, listed, observer::RoomObserver};
use crate::{
    harness::{
        Client, PASSWORD, eventually,
        process::{KEY, RestartableServer},
        redis_server::RedisServer,
        resumable::{RESUME, ResumableClient},
    },
    tokens::hs256,
};

#[tokio::test]
async fn members_on_different_nodes_join_message_and_leave_each_other() {
    let cluster = TestCluster::start(&[]).await;
    let mut alice = cluster.join(0, "den", "alice", "a").await;
    let bob = cluster.join(1, "den", "bob", "b").await;
    let carol = cluster.join(2, "den", "carol", "c").await;
    let elsewhere = cluster.join(1, "attic", "carol", "d").await;
    assert_eq!(carol.peers(), ["a", "b"]);

    alice.send(json!({"type":"message","data":"to bob","to":"b"})).await;
    alice.send(json!({"type":"message","data":"to all"})).await;
    for other in [&bob, &carol] {
        other.wait_for_message("a", json!("to all")).await;
    }
    assert_eq!(bob.messages().len(), 2);
    assert_eq!((carol.messages().len(), elsewhere.messages().len()), (1, 0));
    alice.send(json!({"type":"message","data":1,"to":"d"})).await;
    alice.wait_for_error("target_not_found").await;
    for node in &cluster.nodes {
        assert_eq!(listed(node).await, [("attic".into(), 1), ("den".into(), 3)].into());
        // As of its last heartbeat.
        eventually("all nodes are counted", async || node.health().await["cluster"]["nodes"] == 3)
            .await;
    }

    alice.leave().await;
    eventually("alice has left", async || bob.events().contains(&"left a".to_owned())).await;
    let all = [bob, carol, elsewhere];
    cluster.assert_consistent(&all).await;
    for member in all {
        member.leave().await;
    }
    eventually("nothing is left", async || cluster.redis.room_keys().await.is_empty()).await;
}

#[tokio::test]
async fn a_room_admits_exactly_its_capacity_from_all_nodes_together() {
    let cluster = TestCluster::start(&[("MAX_CONNECTIONS_PER_ROOM", "10")]).await;
    let tries = (0..60).map(|number| {
        let (cluster, room) = (&cluster, format!("room-{}", number % 2));
        async move { cluster.try_join(number % 3, &room, "alice", &format!("c{number}")).await }
    });

    let (inside, refused): (Vec<_>, Vec<_>) =
        join_all(tries).await.into_iter().partition(Result::is_ok);

    let inside: Vec<_> = inside.into_iter().map(Result::unwrap).collect();
    assert_eq!((inside.len(), refused.len()), (20, 40));
    for refusal in refused {
        assert_eq!(refusal.err().unwrap(), (1008, "Room is full".into()));
    }
    cluster.assert_consistent(&inside).await;
}

#[tokio::test]
async fn a_client_id_belongs_to_one_user_and_its_newest_connection() {
    let cluster = TestCluster::start(&[]).await;
    let observer = cluster.join(2, "den", "carol", "c").await;
    let tries = ["alice", "bob", "dave"].into_iter().enumerate().map(|(node, user)| {
        let cluster = &cluster;
        async move { cluster.try_join(node, "den", user, "x").await.map(|it| (user, node, it)) }
    });
    let (inside, refused): (Vec<_>, Vec<_>) =
        join_all(tries).await.into_iter().partition(Result::is_ok);
    assert_eq!((inside.len(), refused.len()), (1, 2));
    for refusal in refused {
        assert_eq!(refusal.err().unwrap(), (1008, "Client id is taken".into()));
    }

    let (user, node, old) = inside.into_iter().next().unwrap().unwrap();
    let new = cluster.join((node + 1) % 3, "den", user, "x").await;

    assert_eq!(old.close().await, (4001, "Replaced by a new connection".into()));
    eventually("carol has heard it", async || observer.events().len() == 3).await;
    assert_eq!(observer.events(), ["joined x", "left x", "joined x"]);
    cluster.assert_consistent(&[observer, new]).await;
}

#[tokio::test]
async fn a_logout_applies_on_every_node_also_one_that_was_made_without_redis() {
    let mut cluster = TestCluster::start(&[]).await;
    let member = cluster.join(1, "den", "alice", "a").await;
    let log_out = async |node: usize, token: &str| {
        let url = format!("http://{}/auth/logout", cluster.nodes[node].address());
        let answer = reqwest::Client::new().post(url).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    };
    let is_refused = async |node: usize, token: &str| {
        let url = format!("http://{}/auth/me", cluster.nodes[node].address());
        reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap().status() == 401
    };

    log_out(0, &cluster.tokens["alice"]).await;
    assert_eq!(member.close().await, (1008, "Invalid token".into()));
    eventually("node 2 knows", async || is_refused(2, &cluster.tokens["alice"]).await).await;

    cluster.redis.kill().await;
    cluster.wait_for_redis(0, "down").await;
    log_out(0, &cluster.tokens["bob"]).await;
    assert!(!is_refused(1, &cluster.tokens["bob"]).await);
    cluster.redis.restart().await;
    eventually("node 1 knows", async || is_refused(1, &cluster.tokens["bob"]).await).await;
}

#[tokio::test]
async fn an_administrator_ends_tokens_of_users_from_elsewhere_on_every_node() {
    const ADMIN: &str = "admin-token-of-this-test-0123456789abcdef";
    let settings = [("ADMIN_TOKEN", ADMIN), ("USERS_REQUIRED", "false")];
    let mut cluster = TestCluster::start(&settings).await;
    let token = |user: &str, id: &str| {
        let now = unix_now();
        hs256(KEY, &json!({"sub":user,"exp":now + 300,"iat":now - 10,"jti":id}))
    };
    let (of_u1, of_u2) = (token("auth0|u1", "1"), token("auth0|u2", "2"));
    let status = async |node: &RestartableServer, token: &str| {
        let url = format!("http://{}/auth/me", node.address());
        reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    let mut sockets = Vec::new();
    for (node, user, token) in [(1, "auth0|u1", &of_u1), (2, "auth0|u2", &of_u2)] {
        let mut socket = Client::connect(cluster.nodes[node].address(), "den", &[]).await.unwrap();
        socket.authenticate(user, token, Value::Null).await;
        sockets.push(socket);
    }

    for body in [json!({"username":"auth0|u1"}), json!({"jti":"2"})] {
        let url = format!("http://{}/admin/api/sessions/end", cluster.nodes[0].address());
        let asked = reqwest::Client::new().post(url).bearer_auth(ADMIN).json(&body).send().await;
        assert_eq!(asked.unwrap().status(), 200);
    }

    for socket in sockets {
        assert_eq!(socket.read_to_close().await.1.0, 1008);
    }
    for token in [&of_u1, &of_u2] {
        for node in &cluster.nodes {
            eventually("the node knows", async || status(node, token).await == 401).await;
        }
    }
    cluster.nodes[1].process.kill().await;
    cluster.nodes[1].restart().await;
    for token in [&of_u1, &of_u2] {
        let node = &cluster.nodes[1];
        eventually("it is so after a restart", async || status(node, token).await == 401).await;
    }
}

#[tokio::test]
async fn redis_may_use_tls_and_its_password_is_not_logged() {
    let engine = RedisServer::start_tls().await;
    let authority = engine.ca_file();
    let settings = [("REDIS_CA_FILE", authority.to_str().unwrap())];
    let mut cluster = TestCluster::start_on(engine, &settings, |_, url| url).await;
    let all =
        [cluster.join(0, "den", "alice", "a").await, cluster.join(1, "den", "bob", "b").await];
    cluster.assert_consistent(&all).await;

    cluster.redis.kill().await;
    cluster.nodes[0].process.log.next_line_with("redis connection lost").await;

    assert!(!cluster.nodes[0].process.log.lines().iter().any(|line| line.contains("hunter2")));
}

#[tokio::test]
async fn each_node_reports_the_metrics_of_the_whole_cluster() {
    let token = "figures-of-the-cluster-0123456789abcdef";
    let mut cluster = TestCluster::start(&[("METRICS_TOKEN", token)]).await;
    let mut all = Vec::new();
    for (node, room) in [(0, "den"), (1, "den"), (1, "attic")] {
        all.push(cluster.join(node, room, "alice", &format!("m{}", all.len())).await);
    }
    let figures = async |node: &RestartableServer| {
        let url = format!("http://{}/metrics", node.address());
        let asked = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
        let text = asked.text().await.unwrap();
        let of_cluster = text.lines().filter_map(|line| line.strip_prefix("signaling_cluster_"));
        of_cluster.map(str::to_owned).collect::<Vec<_>>()
    };

    for node in &cluster.nodes {
        eventually("the figures are those of a heartbeat", async || {
            let figures = figures(node).await;
            let expected = ["up 1", "repairs_total 0", "nodes 3", "rooms 2", "members 3"];
            if figures == expected { Ok(()) } else { Err(figures) }
        })
        .await;
    }
    all.pop().unwrap().leave().await;
    eventually("nobody is in the attic", async || {
        figures(&cluster.nodes[2]).await
            == ["up 1", "repairs_total 0", "nodes 3", "rooms 1", "members 2"]
    })
    .await;
    cluster.redis.kill().await;
    cluster.wait_for_redis(0, "down").await;
    assert_eq!(figures(&cluster.nodes[0]).await, ["up 0", "repairs_total 0"]);
    cluster.redis.restart().await;
    eventually("all have told again", async || {
        figures(&cluster.nodes[0]).await
            == ["up 1", "repairs_total 0", "nodes 3", "rooms 1", "members 2"]
    })
    .await;
}

/// Five failures lock a name out from an address, wherever they were made, and a login before that undoes them.
#[tokio::test]
async fn failed_logins_on_one_node_lock_out_on_all() {
    let cluster = TestCluster::start(&[]).await;
    let login = async |node: usize, password: &str| {
        let url = format!("http://{}/auth/login", cluster.nodes[node].address());
        let login = json!({"username":"bob","password":password});
        reqwest::Client::new().post(url).json(&login).send().await.unwrap().status().as_u16()
    };

    assert_eq!(login(0, "guess").await, 401);
    eventually("others are told", async || cluster.redis.inbox("n1").await.contains("LoginFailed"))
        .await;
    let told = cluster.redis.inbox("n1").await;
    assert!(!told.contains("bob"), "it may be a password that was typed there: {told}");
    for node in [1, 2, 0] {
        assert_eq!(login(node, "guess").await, 401);
    }
    cluster.redis.wait_until_inboxes_are_read().await;
    assert_eq!(login(1, PASSWORD).await, 200);
    cluster.redis.wait_until_inboxes_are_read().await;
    for node in [0, 2, 1, 2] {
        assert_eq!(login(node, "guess").await, 401, "not all have heard of the login");
    }
    cluster.redis.wait_until_inboxes_are_read().await;
    assert_eq!(login(0, "guess").await, 401);
    cluster.redis.wait_until_inboxes_are_read().await;

    for node in 0..3 {
        assert_eq!(login(node, PASSWORD).await, 429);
    }
}

#[tokio::test]
async fn messages_arrive_once_and_in_order_on_every_node() {
    const SAID: usize = 400;
    let cluster = TestCluster::start(&[]).await;
    let mut all = Vec::new();
    for number in 0..6 {
        all.push(cluster.join(number % 3, "den", "alice", &format!("m{number}")).await);
    }
    cluster.assert_consistent(&all).await;

    for number in 0..SAID {
        for member in &mut all {
            member.send(json!({"type":"message","data":number})).await;
        }
    }

    for member in &all {
        eventually("everything is heard", async || member.messages().len() >= 5 * SAID).await;
        for other in all.iter().filter(|other| other.client_id != member.client_id) {
            let said = member.messages();
            let said = said.iter().filter(|(from, _)| *from == other.client_id);
            let said: Vec<_> = said.map(|(_, data)| data.as_u64().unwrap() as usize).collect();
            assert_eq!(said, (0..SAID).collect::<Vec<_>>());
        }
    }
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn concurrent_joins_and_leaves_end_in_one_consistent_state() {
    let cluster = TestCluster::start(&[]).await;
    // Everyone takes and leaves the same few ids, each from another node than the time before.
    let visitors = (0..12).map(|visitor| {
        let cluster = &cluster;
        async move {
            let mut inside = None;
            for round in 0..12 {
                let room = format!("room-{}", (visitor + round) % 3);
                let id = format!("x{}", (visitor * 5 + round) % 7);
                let entered = cluster.try_join((visitor + round) % 3, &room, "alice", &id).await;
                if round % 3 != 2
                    && let Ok(member) = entered
                {
                    member.leave().await;
                } else {
                    inside = entered.ok();
                }
            }
            inside
        }
    });
    let inside: Vec<_> = join_all(visitors).await.into_iter().flatten().collect();

    // Some of them were taken over by another, and may not have heard of it yet.
    let seats = || {
        let open = inside.iter().filter(|member| member.is_open());
        open.map(|member| (&member.room, &member.client_id)).collect::<Vec<_>>()
    };
    eventually("each seat is one member's", async || {
        let seats = seats();
        seats.len() == seats.iter().collect::<BTreeSet<_>>().len()
    })
    .await;
    let open: Vec<_> = inside.into_iter().filter(RoomObserver::is_open).collect();
    assert!(!open.is_empty());
    cluster.assert_consistent(&open).await;
}

/// The room has three places; dave's client answers, and is another user's.
async fn start_with_three_places() -> (TestCluster, RoomObserver) {
    let cluster = TestCluster::start(&[("MAX_CONNECTIONS_PER_ROOM", "3")]).await;
    let dave = cluster.join(1, "den", "dave", "d").await;
    (cluster, dave)
}

#[tokio::test]
async fn a_dead_membership_on_another_node_makes_room_for_its_user() {
    let (cluster, dave) = start_with_three_places().await;
    // Nothing is read on it from now on: a browser that has crashed.
    let mut dead = Client::connect(cluster.nodes[0].address(), "den", &[]).await.unwrap();
    dead.authenticate("alice", &cluster.tokens["alice"], json!("dead")).await;
    let newer = cluster.join(2, "den", "alice", "newer").await;

    let new = cluster.join(2, "den", "alice", "new").await;

    eventually("dave has heard it", async || dave.events().contains(&"joined new".into())).await;
    assert_eq!(dave.events(), ["joined dead", "joined newer", "left dead", "joined new"]);
    let (last, close) = dead.read_to_close().await;
    assert_eq!((close.0, &last.last().unwrap()["code"]), (4001, &json!("replaced")));
    cluster.assert_consistent(&[dave, newer, new]).await;
}

#[tokio::test]
async fn a_detached_membership_on_another_node_makes_room_for_its_user() {
    let (cluster, dave) = start_with_three_places().await;
    let (token, node) = (&cluster.tokens["alice"], cluster.nodes[0].address());
    let mut old = ResumableClient::join(node, "den", "old", token, RESUME).await;
    let carol = cluster.join(0, "den", "carol", "c").await;
    old.drop_connection().await;
    old.receive_until_closed().await;

    // This node has no member in the room.
    let new = cluster.join(2, "den", "alice", "new").await;

    eventually("dave has heard it", async || dave.events().contains(&"joined new".into())).await;
    assert_eq!(dave.events(), ["joined old", "joined c", "left old", "joined new"]);
    old.assert_resume_fails(node).await;
    cluster.assert_consistent(&[dave, carol, new]).await;
}

#[tokio::test]
async fn a_membership_on_another_node_whose_client_answers_stays() {
    let (cluster, dave) = start_with_three_places().await;
    let alice = cluster.join(0, "den", "alice", "a").await;
    let carol = cluster.join(0, "den", "carol", "c").await;

    let refused = cluster.try_join(2, "den", "alice", "new").await;

    assert_eq!(refused.err(), Some((1008, "Room is full".into())));
    assert_eq!(dave.events(), ["joined a", "joined c"]);
    cluster.assert_consistent(&[dave, alice, carol]).await;
}
