//! What happens to nodes and to Redis, and what members receive of it.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use super::{LEASE, SHORT_LEASE, TestCluster, observer::RoomObserver};
use crate::harness::{
    eventually,
    process::INTERVALS,
    proxy::{FaultyProxy, LinkState},
    redis_server::RedisServer,
};

/// Two members on each node, in one room.
pub async fn join_six(cluster: &TestCluster) -> Vec<RoomObserver> {
    let mut all = Vec::new();
    for number in 0..6 {
        all.push(cluster.join(number % 3, "den", "alice", &format!("m{number}")).await);
    }
    for member in &all {
        eventually("all are there", async || member.peers().len() == 5).await;
    }
    all
}

pub fn events_of(members: &[RoomObserver]) -> Vec<Vec<String>> {
    members.iter().map(RoomObserver::events).collect()
}

#[tokio::test]
async fn members_of_a_node_that_crashed_leave_once() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;

    cluster.nodes[0].signal(Signal::KILL);
    all.retain(|member| !["m0", "m3"].contains(&member.client_id.as_str()));

    for member in &all {
        eventually("both have left", async || member.peers_left() == 2).await;
    }
    cluster.assert_consistent(&all).await;
    let again = cluster.join(1, "den", "alice", "m0").await;
    all.push(again);
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn a_suspended_node_loses_its_lease_and_joins_again() {
    let cluster = TestCluster::start(&[("WEBSOCKET_TIMEOUT", "60"), SHORT_LEASE]).await;
    let all = join_six(&cluster).await;

    cluster.nodes[0].signal(Signal::STOP);
    for member in &all {
        if !["m0", "m3"].contains(&member.client_id.as_str()) {
            eventually("both have left", async || member.peers_left() == 2).await;
        }
    }
    cluster.nodes[0].signal(Signal::CONT);

    eventually("they are back", async || all[1].peers().len() == 5).await;
    cluster.assert_consistent(&all).await;
    assert!(all.iter().all(|member| member.peers_left() <= 2), "{:?}", events_of(&all));
}

/// A cluster whose first node reaches Redis through a proxy.
async fn start_with_proxy(settings: &[(&str, &str)]) -> (TestCluster, FaultyProxy) {
    let redis = RedisServer::start().await;
    let proxy = FaultyProxy::before(redis.address()).await;
    let through = format!("redis://{}", proxy.address);
    let url_of = |node, url| if node == 0 { through.clone() } else { url };
    (TestCluster::start_on(redis, settings, url_of).await, proxy)
}

#[tokio::test]
async fn a_node_that_is_cut_off_removes_no_member_and_resynchronises() {
    let (cluster, proxy) = start_with_proxy(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let is_cut = |member: &&RoomObserver| ["m0", "m3"].contains(&member.client_id.as_str());
    let before: Vec<_> = all.iter().filter(is_cut).map(RoomObserver::events).collect();

    proxy.set_all(LinkState::Silent);
    eventually("the others give both up", async || {
        all.iter().filter(|member| !is_cut(member)).all(|member| member.peers_left() == 2)
    })
    .await;
    all[0].send(json!({"type":"message","data":"here","to":"m3"})).await;
    all[3].wait_for_message("m0", json!("here")).await;
    let during: Vec<_> = all.iter().filter(is_cut).map(RoomObserver::events).collect();
    assert_eq!(during, before);
    proxy.set_all(LinkState::Normal);
    proxy.set_open(LinkState::Reset);
    cluster.wait_for_redis(0, "up").await;

    for member in &all {
        eventually("all are back", async || member.peers().len() == 5).await;
    }
    cluster.assert_consistent(&all).await;
    assert!(all.iter().filter(is_cut).all(|member| member.peers_left() == 0));
}

/// Its node does not know the room any more, and Redis has lost the lists that would name it.
#[tokio::test]
async fn a_member_that_left_a_node_that_was_cut_off_does_not_stay_without_the_lists_of_rooms() {
    let (cluster, proxy) = start_with_proxy(&[SHORT_LEASE]).await;
    let member = cluster.join(0, "den", "alice", "m0").await;

    proxy.set_all(LinkState::Reset);
    cluster.wait_for_redis(0, "down").await;
    member.leave().await;
    cluster.redis.delete(&["rooms", "seats:n0"]).await;
    assert_eq!(cluster.redis.members().await["den"].len(), 1);
    proxy.set_all(LinkState::Normal);

    eventually("nothing of the room is left", async || {
        let keys = cluster.redis.room_keys().await;
        if keys.is_empty() { Ok(()) } else { Err(keys) }
    })
    .await;
}

#[tokio::test]
async fn a_slow_connection_to_redis_loses_no_message_and_keeps_their_order() {
    const SAID: usize = 100;
    let (cluster, proxy) = start_with_proxy(&[]).await;
    let mut all = join_six(&cluster).await;

    // For each piece that passes, one after the other.
    proxy.set_open(LinkState::Delayed(Duration::from_millis(50)));
    for number in 0..SAID {
        for member in &mut all {
            member.send(json!({"type":"message","data":number})).await;
        }
    }

    let everything: Vec<_> = (0..SAID).map(|number| json!(number)).collect();
    for member in &all {
        eventually("everything is heard", async || member.messages().len() == 5 * SAID).await;
        for other in all.iter().filter(|other| other.client_id != member.client_id) {
            let said = member.messages().into_iter().filter(|(from, _)| *from == other.client_id);
            assert_eq!(said.map(|(_, data)| data).collect::<Vec<_>>(), everything);
        }
    }
    let late = cluster.join(0, "den", "bob", "late").await;
    all.push(late);
    cluster.assert_consistent(&all).await;
}

/// Both what is written in one pipeline and what is read from an inbox at once take far longer on the way than nothing may come
/// from Redis.
#[tokio::test]
async fn a_network_that_needs_long_for_much_is_not_taken_for_the_loss_of_redis() {
    const SAID: u64 = 50;
    let (cluster, proxy) = start_with_proxy(&[(INTERVALS, "lease=16000")]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);

    // 80 KB a second.
    proxy.set_open(LinkState::Delayed(Duration::from_millis(50)));
    let payload = "x".repeat(10_000);
    for number in 0..SAID {
        for (speaker, to) in [(0, "m1"), (1, "m0")] {
            let data = format!("{number} {payload}");
            all[speaker].send(json!({"type":"message","data":data,"to":to})).await;
        }
    }

    for (member, from) in [(&all[1], "m0"), (&all[0], "m1")] {
        eventually("everything is heard", async || {
            let heard = member.messages().len() as u64;
            if heard == SAID { Ok(()) } else { Err(heard) }
        })
        .await;
        for (number, (speaker, data)) in member.messages().into_iter().enumerate() {
            assert_eq!(speaker, from);
            assert!(data.as_str().unwrap().starts_with(&format!("{number} ")));
        }
    }
    assert_eq!(events_of(&all), before);
    cluster.assert_consistent(&all).await;
    let log = cluster.nodes[0].process.log.lines();
    assert!(!log.iter().any(|line| line.contains("redis connection lost")), "{log:#?}");
}

#[tokio::test]
async fn rooms_are_sharded_over_redis_servers_and_each_outage_affects_its_own_rooms_only() {
    let (first, mut second) = (RedisServer::start().await, RedisServer::start().await);
    let other = second.url();
    let cluster = TestCluster::start_on(first, &[], |_, url| format!("{url},{other}")).await;
    let mut all = Vec::new();
    for number in 0..12 {
        let room = format!("room-{}", number / 2);
        all.push(cluster.join(number % 3, &room, "alice", &format!("m{number}")).await);
    }
    for member in &all {
        eventually("both are there", async || member.peers().len() == 1).await;
    }
    let (of_first, of_second) = (cluster.redis.members().await, second.members().await);
    assert!(!of_first.is_empty() && !of_second.is_empty(), "{of_first:?}, {of_second:?}");
    assert_eq!(of_first.len() + of_second.len(), 6);
    assert_eq!(super::listed(&cluster.nodes[2]).await.len(), 6);

    second.kill().await;
    cluster.wait_for_redis(0, "down").await;
    let (here, there) = (of_first.keys().next().unwrap(), of_second.keys().next().unwrap());
    all.push(cluster.join(0, here, "bob", "late").await);
    let refused = cluster.try_join(0, there, "bob", "later").await;
    assert_eq!(refused.err().unwrap().0, 1013);

    second.restart().await;
    cluster.wait_for_redis(0, "up").await;
    cluster.join(0, there, "bob", "later").await.leave().await;
    assert!(all.iter().all(|member| member.violations().is_empty()));
}

#[tokio::test]
async fn without_redis_a_node_serves_its_own_members_and_the_return_of_redis_is_not_announced() {
    let mut cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);

    cluster.redis.kill().await;
    cluster.wait_until_down().await;
    all[0].send(json!({"type":"message","data":"here","to":"m3"})).await;
    all[3].wait_for_message("m0", json!("here")).await;
    all[0].send(json!({"type":"message","data":"there","to":"m1"})).await;
    all[0].wait_for_error("target_unreachable").await;
    let refused = cluster.try_join(0, "den", "alice", "late").await;
    assert_eq!(refused.err().unwrap(), (1013, "Try again later".into()));
    let health = cluster.nodes[0].health().await;
    assert_eq!(health["status"], "degraded");
    for page in ["api/rooms", "health/ready"] {
        let page = format!("http://{}/{page}", cluster.nodes[0].address());
        assert_eq!(reqwest::get(page).await.unwrap().status(), 503);
    }

    cluster.redis.restart().await;
    cluster.wait_until_up().await;
    cluster.wait_until_expired(LEASE).await;

    all[0].send(json!({"type":"message","data":"again"})).await;
    for member in all.iter().skip(1) {
        member.wait_for_message("m0", json!("again")).await;
    }
    assert_eq!(events_of(&all), before);
    cluster.assert_consistent(&all).await;
    let late = cluster.join(0, "den", "alice", "late").await;
    all.push(late);
    cluster.assert_consistent(&all).await;
}

/// What the engine has written down is not what is true: m1 has left since, m6 has come, and a node has died.
#[tokio::test]
async fn a_redis_that_restarts_with_an_old_snapshot_is_resynchronised() {
    let mut cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    cluster.redis.save().await;
    all.remove(1).leave().await;
    all.push(cluster.join(1, "den", "alice", "m6").await);
    for member in &all {
        eventually("m1 has gone and m6 come", async || {
            let others = member.peers();
            !others.contains(&"m1".to_owned()) && others.len() == 5
        })
        .await;
    }
    let before = events_of(&all[..5]);

    cluster.redis.kill().await;
    cluster.nodes[2].signal(Signal::KILL);
    cluster.redis.restart().await;
    for node in 0..2 {
        cluster.wait_for_redis(node, "up").await;
    }
    all.retain(|member| !["m2", "m5"].contains(&member.client_id.as_str()));
    for member in &all {
        eventually("those of the dead node are gone", async || member.peers().len() == 3).await;
    }
    cluster.wait_until_expired(LEASE).await;

    cluster.assert_consistent(&all).await;
    for (now, before) in events_of(&all).iter().zip([0, 2, 3].map(|member| &before[member])) {
        let mut news: Vec<_> = now[before.len()..].to_vec();
        news.sort();
        assert_eq!(news, ["left m2", "left m5"]);
    }
}

/// A node that reads too slowly misses what its inbox does not hold, and makes up for it.
#[tokio::test]
async fn a_node_whose_inbox_overflows_resynchronises() {
    let mut cluster = TestCluster::start(&[("WEBSOCKET_TIMEOUT", "60")]).await;
    let mut all = join_six(&cluster).await;

    cluster.nodes[0].signal(Signal::STOP);
    all.remove(1).leave().await;
    all.push(cluster.join(1, "den", "alice", "m6").await);
    cluster.redis.flood_inbox("n0", 101_000).await;
    cluster.nodes[0].signal(Signal::CONT);

    cluster.assert_consistent(&all).await;
    cluster.nodes[0].process.log.next_line_with("inbox overrun").await;
    all[0].send(json!({"type":"message","data":"again","to":"m6"})).await;
    all[5].wait_for_message("m0", json!("again")).await;
}

#[tokio::test]
async fn a_member_that_leaves_without_redis_has_left_when_redis_is_back() {
    let mut cluster = TestCluster::start(&[]).await;
    let mut all = join_six(&cluster).await;
    cluster.redis.kill().await;
    cluster.wait_until_down().await;

    all.remove(0).leave().await;
    cluster.redis.restart().await;

    for member in &all {
        eventually("m0 has left", async || member.peers().len() == 4).await;
    }
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn a_redis_that_hangs_removes_no_member() {
    // One hang is shorter than a response may take, one is shorter than the lease, and one longer.
    let cluster = TestCluster::start(&[(INTERVALS, "lease=4000")]).await;
    let all = join_six(&cluster).await;
    let before = events_of(&all);

    for seconds in [1, 3, 6] {
        cluster.redis.signal(Signal::STOP);
        sleep(Duration::from_secs(seconds)).await;
        cluster.redis.signal(Signal::CONT);
        cluster.wait_until_up().await;
    }
    cluster.wait_until_expired(4.0).await;

    assert_eq!(events_of(&all), before);
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn a_node_that_shuts_down_announces_that_its_members_leave() {
    let cluster = TestCluster::start(&[]).await;
    let mut all = join_six(&cluster).await;

    cluster.nodes[0].signal(Signal::TERM);
    all.retain(|member| !["m0", "m3"].contains(&member.client_id.as_str()));

    for member in &all {
        eventually("both have left", async || member.peers().len() == 3).await;
    }
    cluster.assert_consistent(&all).await;
}

/// Leases are times of Redis's clock, which an administrator or a virtual machine may move.
#[tokio::test]
async fn a_clock_of_redis_that_moves_removes_no_member_and_keeps_none() {
    let redis = RedisServer::start_with_clock().await;
    let mut cluster = TestCluster::start_on(redis, &[SHORT_LEASE], |_, url| url).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);

    for hours in [-1, 2, 0] {
        cluster.redis.move_clock(hours * 3_600);
        let ends = async || cluster.redis.lease_ends().await.into_values();
        eventually("the leases are those of this clock", async || {
            let now = cluster.redis.time().await;
            ends().await.all(|end| (now..now + 1.5 * LEASE).contains(&end))
        })
        .await;
        cluster.wait_until_expired(LEASE).await;
        assert_eq!(events_of(&all), before, "{hours} hours from the real time");
        cluster.assert_consistent(&all).await;
    }

    cluster.nodes[1].process.kill().await;
    cluster.redis.move_clock(-3_600);
    all.retain(|member| !["m1", "m4"].contains(&member.client_id.as_str()));
    for member in &all {
        eventually("both have left", async || member.peers_left() == 2).await;
    }
    cluster.nodes[1].restart().await;
    cluster.wait_for_redis(1, "up").await;
    all.push(cluster.join(1, "den", "alice", "m1").await);
    cluster.assert_consistent(&all).await;
}
