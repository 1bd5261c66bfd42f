//! Measurements whose figures stand in `docs/run/cluster-faults.md`. They take minutes, and are run by hand:
//! `cargo nextest run --run-ignored all --no-capture -E 'test(cluster::figures::)'`.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{SHORT_LEASE, TestCluster, faults::join_six};
use crate::harness::{eventually, http, process::RestartableServer, redis_server::RedisServer};

/// How much Redis grows while one account sends as much as its sockets may, to members of a server that reads and to those of one
/// that does not.
#[tokio::test]
#[ignore = "a measurement"]
async fn twenty_sockets_of_one_account_at_their_limits_grow_redis_by_at_most_32_mb() {
    const MESSAGES: u64 = 400;
    let cluster = TestCluster::start(&[
        ("WEBSOCKET_MESSAGES_PER_SECOND", "50"),
        ("WEBSOCKET_MESSAGE_BURST", "250"),
        ("WEBSOCKET_BYTES_PER_SECOND", "1048576"),
        ("WEBSOCKET_TIMEOUT", "60"),
    ])
    .await;
    let (mut speakers, mut targets) = (Vec::new(), Vec::new());
    for number in 0..20 {
        let room = format!("room{number}");
        speakers.push(cluster.join(0, &room, "alice", "speaker").await);
        targets.push(cluster.join(1 + number % 2, &room, "bob", "target").await);
        eventually("both are there", async || speakers[number].peers().len() == 1).await;
    }
    let before = cluster.redis.used_memory().await;
    cluster.nodes[2].signal(Signal::STOP);
    let payload = "x".repeat(64_000);
    let flood = speakers.into_iter().map(|mut speaker| {
        let payload = payload.clone();
        tokio::spawn(async move {
            for number in 0..MESSAGES {
                let message = json!({"type":"message","data":payload,"id":number,"to":"target"});
                if !speaker.is_open() {
                    return;
                }
                speaker.send(message).await;
            }
        })
    });
    for flood in flood.collect::<Vec<_>>() {
        flood.await.unwrap();
    }

    // Redis notes it ten times a second itself: this process is busy.
    let grown = cluster.redis.most_used_memory().await - before;
    println!("Redis has grown by {grown} bytes at most");
    assert!(grown > 4 << 20, "what waits for the server that does not read was not seen");
    assert!(grown <= 32 << 20, "{grown} bytes");
    cluster.nodes[2].signal(Signal::CONT);
}

/// How many messages to a server that is killed are neither delivered nor answered, and how long their senders wait.
#[tokio::test]
#[ignore = "a measurement"]
async fn each_of_200_messages_to_a_server_that_is_killed_is_delivered_or_answered_within_5_s() {
    const SAID: u64 = 200;
    let cluster = TestCluster::start(&[]).await;
    let mut speaker = cluster.join(0, "den", "alice", "speaker").await;
    let target = cluster.join(1, "den", "bob", "target").await;
    eventually("both are there", async || speaker.peers().len() == 1).await;

    let mut sent = BTreeMap::new();
    for number in 0..SAID {
        if number == SAID / 2 {
            cluster.nodes[1].signal(Signal::KILL);
        }
        speaker.send(json!({"type":"message","data":number,"id":number,"to":"target"})).await;
        sent.insert(number, Instant::now());
        sleep(Duration::from_millis(5)).await;
    }
    let (mut longest, said) = (Duration::ZERO, sent.len());
    while !sent.is_empty() {
        let answered = speaker.unreachable_ids();
        let heard: Vec<_> = target.messages().into_iter().map(|(_, data)| data).collect();
        sent.retain(|number, since| {
            let is_open = !answered.contains(number) && !heard.contains(&json!(number));
            if !is_open && !heard.contains(&json!(number)) {
                longest = longest.max(since.elapsed());
            }
            is_open
        });
        assert!(sent.values().all(|since| since.elapsed() < Duration::from_secs(20)), "{sent:?}");
        sleep(Duration::from_millis(5)).await;
    }

    let answered = speaker.unreachable_ids().len();
    println!("of {said} messages {answered} were answered, the last after {longest:?}");
    assert!(longest < Duration::from_secs(5));
}

/// How long `/health` and `/health/ready` take at most in each state of Redis.
#[tokio::test]
#[ignore = "a measurement"]
async fn health_takes_at_most_400_ms_whatever_state_redis_is_in() {
    const ASKED: usize = 200;
    let mut cluster = TestCluster::start(&[SHORT_LEASE]).await;
    let _all = join_six(&cluster).await;
    let address = cluster.nodes[0].address();
    let http = http().build().unwrap();
    let measure = async |state: &str| {
        let mut longest = Duration::ZERO;
        for _ in 0..ASKED {
            for page in ["health", "health/ready"] {
                let began = Instant::now();
                http.get(format!("http://{address}/{page}")).send().await.unwrap();
                longest = longest.max(began.elapsed());
            }
            sleep(Duration::from_millis(20)).await;
        }
        println!("{state}: {longest:?} at most");
        assert!(longest <= Duration::from_millis(400), "{state}: {longest:?}");
    };

    measure("up").await;
    cluster.redis.configure("maxmemory", "1").await;
    measure("full").await;
    cluster.redis.configure("maxmemory", "0").await;
    cluster.redis.execute("ACL SETUSER default -evalsha").await;
    measure("refuses").await;
    cluster.redis.execute("ACL SETUSER default +evalsha").await;
    cluster.redis.signal(Signal::STOP);
    measure("hangs").await;
    cluster.redis.signal(Signal::CONT);
    cluster.redis.kill().await;
    measure("gone").await;
}

/// How much a server logs while Redis refuses one of the commands that it needs: whichever that is, and while clients try to join.
#[tokio::test]
#[ignore = "a measurement"]
async fn a_redis_that_refuses_a_command_costs_at_most_two_log_lines_a_second() {
    const SECONDS: u64 = 20;
    let databases = ["--databases", "64"];
    let cluster =
        TestCluster::start_on(RedisServer::start_with_settings(&databases).await, &[], |_, url| {
            url
        })
        .await;
    let mut all = join_six(&cluster).await;
    all.pop().unwrap().leave().await;
    let stats = cluster.redis.info("commandstats").await;
    let commands: Vec<_> = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(':'))
        .map(|(command, _)| command.to_owned())
        .filter(|command| {
            !["acl", "config", "auth", "keys"].iter().any(|own| command.starts_with(own))
        })
        .collect();
    assert!(commands.len() > 15, "{commands:?}");

    let mut refused = Vec::new();
    for (number, command) in commands.iter().enumerate() {
        let user = format!("ACL SETUSER u{number} on >hunter2 ~* &* +@all -{command}");
        cluster.redis.execute(&user).await;
        let port = cluster.redis.address().port();
        let url = format!("redis://u{number}:hunter2@localhost:{port}/{}", number + 1);
        refused.push(RestartableServer::start(&[("REDIS_URL", &url), ("NODE_ID", "a")]).await);
    }
    let clients = refused.iter().map(async |node| {
        let token = node.token("alice").await;
        let until = Instant::now() + Duration::from_secs(SECONDS);
        while Instant::now() < until {
            let joined =
                super::observer::RoomObserver::join(node.address(), "den", "alice", &token, "a")
                    .await;
            if let Ok(member) = joined {
                member.leave().await;
            }
            sleep(Duration::from_millis(100)).await;
        }
        node.process.log.lines().into_iter().filter(|line| line.contains("redis")).count()
    });
    let lines = futures_util::future::join_all(clients).await;

    for (command, lines) in commands.iter().zip(&lines) {
        println!("without {command}: {lines} lines in {SECONDS} s");
    }
    assert!(lines.iter().all(|lines| *lines as u64 <= 2 * SECONDS), "{lines:?}");
}
