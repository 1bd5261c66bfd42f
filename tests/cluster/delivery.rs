//! A message to another node is delivered, or its sender is told that it may not have arrived: whatever happens meanwhile.

use std::{collections::BTreeSet, pin::pin, time::Duration};

use rustix::process::Signal;
use serde_json::json;
use tokio::time::interval;

use super::{
    LEASE, SHORT_LEASE, TestCluster,
    faults::{events_of, join_six},
    observer::RoomObserver,
};
use crate::harness::{eventually, process::INTERVALS};

/// Messages before and after a fault, half of them to all and half to one.
const SAID: u64 = 20;

/// The time between two messages.
const PACE: Duration = Duration::from_millis(20);

async fn say(speaker: &mut RoomObserver, number: u64, to: &str) {
    let target = number.is_multiple_of(2).then_some(to);
    speaker.send(json!({"type":"message","data":number,"id":number,"to":target})).await;
}

/// Has `speaker` say something all the time, to everybody and to `witness` in turn: before a fault, while it goes on, and after
/// it. Returns how many messages those were.
pub async fn talk_during(
    speaker: &mut RoomObserver,
    witness: &RoomObserver,
    fault: impl Future<Output = ()>,
) -> u64 {
    let to = witness.client_id.as_str();
    for number in 0..SAID {
        say(speaker, number, to).await;
    }
    witness.wait_for_message(&speaker.client_id, json!(SAID - 1)).await;
    let (mut fault, mut pace, mut said) = (pin!(fault), interval(PACE), SAID);
    loop {
        tokio::select! {
            biased;
            () = &mut fault => break,
            _ = pace.tick() => say(speaker, said, to).await,
        }
        said += 1;
    }
    for number in said..said + SAID {
        say(speaker, number, to).await;
    }
    said + SAID
}

/// Waits until each of so many messages of [`talk_during`] was heard by all that it was for, or answered.
pub async fn assert_none_lost(
    speaker: &RoomObserver,
    said: u64,
    to: &str,
    others: &[RoomObserver],
) {
    let heard_by = |other: &RoomObserver| -> BTreeSet<u64> {
        let of_speaker =
            other.messages().into_iter().filter(|(from, _)| *from == speaker.client_id);
        of_speaker.filter_map(|(_, data)| data.as_u64()).collect()
    };
    eventually("each message is delivered or answered", async || {
        let answered = speaker.unreachable_ids();
        let mut lost = Vec::new();
        for other in others {
            let heard = heard_by(other);
            let is_meant = |number: &u64| *number % 2 == 1 || other.client_id == to;
            let is_lost = |number: &u64| !heard.contains(number) && !answered.contains(number);
            lost.extend(
                (0..said)
                    .filter(is_meant)
                    .filter(is_lost)
                    .map(|number| (other.client_id.clone(), number)),
            );
        }
        if lost.is_empty() { Ok(()) } else { Err(lost) }
    })
    .await;
    for other in others {
        let messages = other.messages();
        let distinct: BTreeSet<_> =
            messages.iter().map(|(from, data)| (from, data.to_string())).collect();
        assert_eq!(distinct.len(), messages.len(), "{} has heard one twice", other.client_id);
    }
}

/// One member speaks while `fault` goes on, after which Redis is as before: each message is delivered or answered, and
/// nobody seems to leave.
async fn assert_each_message_is_answered_during(fault: impl AsyncFnOnce(&TestCluster)) {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);
    let (speaker, others) = all.split_first_mut().unwrap();

    let said = talk_during(speaker, &others[0], fault(&cluster)).await;

    assert_none_lost(speaker, said, "m1", others).await;
    assert!(!speaker.unreachable_ids().is_empty());
    cluster.wait_until_up().await;
    assert_eq!(events_of(&all), before);
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn a_redis_that_stalls_loses_no_message_without_an_answer() {
    assert_each_message_is_answered_during(async |cluster| {
        cluster.redis.signal(Signal::STOP);
        cluster.wait_until_down().await;
        cluster.redis.signal(Signal::CONT);
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_restarts_loses_no_message_without_an_answer() {
    let mut cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);
    let (speaker, others) = all.split_first_mut().unwrap();

    let said = talk_during(speaker, &others[0], async {
        cluster.redis.kill().await;
        cluster.redis.restart().await;
    })
    .await;

    assert_none_lost(speaker, said, "m1", others).await;
    cluster.wait_until_up().await;
    assert_eq!(events_of(&all), before);
    cluster.assert_consistent(&all).await;
}

/// What needs memory is refused: joins and messages. What keeps the cluster true is not.
#[tokio::test]
async fn a_full_redis_answers_every_message_and_nobody_seems_to_leave() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);
    let (speaker, others) = all.split_first_mut().unwrap();

    let filling = cluster.redis.configure("maxmemory", "1");
    let said = talk_during(speaker, &others[0], filling).await;
    let refused = cluster.try_join(1, "den", "alice", "late").await;
    assert_eq!(refused.err().unwrap().0, 1013);
    assert_none_lost(speaker, said, "m1", others).await;
    assert!(!speaker.unreachable_ids().is_empty());
    // Each node goes on renewing its lease.
    cluster.wait_until_expired(LEASE).await;
    assert_eq!(events_of(&all), before);
    all.remove(5).leave().await;
    for member in &all {
        eventually("m5 has left", async || member.peers().len() == 4).await;
    }

    cluster.redis.configure("maxmemory", "0").await;
    all.push(cluster.join(2, "den", "alice", "late").await);
    cluster.assert_consistent(&all).await;
}

/// As a failover by hand does until the replica has everything: what writes has to wait, what reads has not.
#[tokio::test]
async fn a_redis_that_is_paused_loses_no_message_without_an_answer() {
    assert_each_message_is_answered_during(async |cluster| {
        cluster.redis.execute("CLIENT PAUSE 60000 WRITE").await;
        cluster.wait_until_down().await;
        cluster.redis.execute("CLIENT UNPAUSE").await;
    })
    .await;
}

/// A Redis that is set up as a cache, and has too little memory: any key may vanish at any time.
#[tokio::test]
async fn a_redis_that_evicts_keys_loses_no_message_without_an_answer() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let before = events_of(&all);
    let (speaker, others) = all.split_first_mut().unwrap();

    cluster.redis.configure("maxmemory-policy", "allkeys-lru").await;
    let said = talk_during(speaker, &others[0], async {
        cluster.redis.configure("maxmemory", "1").await;
        cluster.wait_until_down().await;
    })
    .await;
    assert_none_lost(speaker, said, "m1", others).await;
    assert!(!speaker.unreachable_ids().is_empty());
    cluster.redis.configure("maxmemory", "0").await;
    cluster.wait_until_up().await;
    cluster.wait_until_expired(LEASE).await;

    assert_eq!(events_of(&all), before);
    all.push(cluster.join(2, "den", "alice", "late").await);
    cluster.assert_consistent(&all).await;
}

#[tokio::test]
async fn a_node_that_is_killed_loses_no_message_without_an_answer() {
    let cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let mut all = join_six(&cluster).await;
    let (speaker, others) = all.split_first_mut().unwrap();

    let said = talk_during(speaker, &others[0], async {
        cluster.nodes[1].signal(Signal::KILL);
    })
    .await;

    assert_none_lost(speaker, said, "m1", others).await;
    all.retain(|member| !["m1", "m4"].contains(&member.client_id.as_str()));
    for member in &all {
        eventually("both have left", async || member.peers_left() == 2).await;
    }
    cluster.assert_consistent(&all).await;
}

/// The target's node is slower than its sender waits, but not dead.
#[tokio::test]
async fn a_message_that_arrives_after_its_error_and_is_repeated_is_heard_once() {
    let cluster =
        TestCluster::start(&[("WEBSOCKET_TIMEOUT", "60"), (INTERVALS, "lease=6000")]).await;
    let mut all = join_six(&cluster).await;

    cluster.nodes[1].signal(Signal::STOP);
    all[0].send(json!({"type":"message","data":"once","id":1,"to":"m1"})).await;
    all[0].send(json!({"type":"message","data":"to all","id":2})).await;
    eventually("both are answered", async || {
        let answered = all[0].unreachable_ids();
        if answered.len() == 2 { Ok(()) } else { Err(answered) }
    })
    .await;
    cluster.nodes[1].signal(Signal::CONT);
    all[1].wait_for_message("m0", json!("to all")).await;

    all[0].send(json!({"type":"message","data":"once","id":1,"to":"m1"})).await;
    all[0].send(json!({"type":"message","data":"to all","id":2})).await;
    all[0].send(json!({"type":"message","data":"last"})).await;
    for member in &all[1..] {
        member.wait_for_message("m0", json!("last")).await;
        let times = |data: &str| {
            let of_it = member.messages().into_iter().filter(|(_, known)| known == data);
            of_it.count()
        };
        assert_eq!(times("to all"), 1, "{}", member.client_id);
        assert_eq!(times("once"), usize::from(member.client_id == "m1"));
    }
    assert!(all.iter().all(|member| member.peers_left() == 0));
}

/// A node that is stopped, and whose lease is not over: what is sent to its members waits, up to a limit.
#[tokio::test]
async fn what_waits_for_a_server_that_does_not_read_is_bounded_in_bytes() {
    const SPEAKERS: usize = 8;
    const EACH: u64 = 50;
    // The lease outlasts the sending on a busy machine: after it the target would not be there.
    let cluster =
        TestCluster::start(&[("WEBSOCKET_TIMEOUT", "60"), (INTERVALS, "lease=30000")]).await;
    let (mut speakers, mut targets) = (Vec::new(), Vec::new());
    for number in 0..SPEAKERS {
        let room = format!("room{number}");
        speakers.push(cluster.join(0, &room, "alice", "speaker").await);
        targets.push(cluster.join(1, &room, "bob", "target").await);
        eventually("both are there", async || speakers[number].peers().len() == 1).await;
    }
    let before = cluster.redis.used_memory().await;

    cluster.nodes[1].signal(Signal::STOP);
    let payload = "x".repeat(60_000);
    for number in 0..EACH {
        for speaker in &mut speakers {
            speaker.send(json!({"type":"message","data":payload,"id":number,"to":"target"})).await;
        }
    }
    for speaker in &speakers {
        eventually("everything is answered", async || {
            let answered = speaker.unreachable_ids().len();
            if answered as u64 == EACH { Ok(()) } else { Err(answered) }
        })
        .await;
    }

    // Without a limit 24 MB.
    let grown = cluster.redis.most_used_memory().await - before;
    assert!((4 << 20..14 << 20).contains(&grown), "{grown} bytes");
    cluster.nodes[1].signal(Signal::CONT);
    eventually("Redis is empty again", async || {
        let grown = cluster.redis.used_memory().await.saturating_sub(before);
        if grown < 2 << 20 { Ok(()) } else { Err(grown) }
    })
    .await;
    eventually("both are there", async || speakers[0].peers().len() == 1).await;
    speakers[0].send(json!({"type":"message","data":"last","to":"target"})).await;
    targets[0].wait_for_message("speaker", json!("last")).await;
}

/// What is read at once does not count as waiting until the next regular confirmation, here 6 s later.
#[tokio::test]
async fn much_that_is_read_at_once_reaches_no_limit() {
    const WINDOW: u64 = 16;
    // Three times what may wait unread.
    const SAID: u64 = 400;
    let cluster =
        TestCluster::start(&[("WEBSOCKET_TIMEOUT", "60"), (INTERVALS, "lease=240000")]).await;
    let mut speaker = cluster.join(0, "den", "alice", "speaker").await;
    let target = cluster.join(1, "den", "bob", "target").await;
    eventually("both are there", async || speaker.peers().len() == 1).await;

    let payload = "x".repeat(60_000);
    for number in 0..SAID {
        let data = json!([number, payload]);
        speaker.send(json!({"type":"message","data":data,"id":number,"to":"target"})).await;
        if let Some(earlier) = number.checked_sub(WINDOW) {
            target.wait_for_message("speaker", json!([earlier, payload])).await;
        }
    }
    target.wait_for_message("speaker", json!([SAID - 1, payload])).await;

    assert_eq!(speaker.unreachable_ids().len(), 0);
    assert_eq!(target.messages().len() as u64, SAID);
}
