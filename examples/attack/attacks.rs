//! The attacks: each runs until a time, and says what it achieved, or fails where that is more than it may.

use std::{
    future::Future,
    net::Ipv4Addr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until, timeout_at},
};

use crate::clients::{
    PONG, RawSocket, TEXT, Target, TestError, administer, connect, frame, http, moderator_token,
    user,
};

/// One attack.
pub struct Attack {
    pub name: &'static str,
    pub run: fn(Arc<Target>, Instant) -> AttackFuture,
    /// By how much the resident memory may grow, in MiB.
    pub max_growth_mib: Option<u64>,
    /// How much more of a core the server may use than undisturbed, in percent.
    pub max_cpu_percent: Option<f64>,
    /// How many warnings the log may have.
    pub max_warnings: u64,
}

type AttackFuture = Pin<Box<dyn Future<Output = Result<String, TestError>> + Send>>;

const fn attack(name: &'static str, run: fn(Arc<Target>, Instant) -> AttackFuture) -> Attack {
    Attack { name, run, max_growth_mib: None, max_cpu_percent: None, max_warnings: u64::MAX }
}

pub const ALL: &[Attack] = &[
    attack("slow-readers", |target, until| Box::pin(slow_readers(target, until))),
    Attack {
        max_growth_mib: Some(24),
        ..attack("first-messages", |target, until| Box::pin(first_messages(target, until)))
    },
    attack("lists", |target, until| Box::pin(lists(target, until))),
    attack("reconnects", |target, until| Box::pin(reconnects(target, until))),
    attack("churn", |target, until| Box::pin(churn(target, until))),
    Attack {
        max_cpu_percent: Some(10.0),
        ..attack("frames", |target, until| Box::pin(frames(target, until)))
    },
    Attack {
        max_warnings: 240,
        ..attack("refusals", |target, until| Box::pin(refusals(target, until)))
    },
    attack("metrics", |target, until| Box::pin(metrics(target, until))),
    attack("resume-slots", |target, until| Box::pin(resume_slots(target, until))),
    attack("evasion", |target, until| Box::pin(evasion(target, until))),
    Attack {
        max_warnings: 60,
        ..attack("moderators", |target, until| Box::pin(moderators(target, until)))
    },
    attack("pipelining", |target, until| Box::pin(pipelining(target, until))),
];

/// Repeats something until a time; after a failure it pauses.
async fn repeat<F: Future<Output = Result<(), TestError>>>(until: Instant, what: impl Fn() -> F) {
    while Instant::now() < until {
        if let Ok(Err(_)) = timeout_at(until, what()).await {
            sleep(Duration::from_millis(200)).await;
        }
    }
}

/// L1: eight accounts, each from an address of its own with three rooms, where one member writes as fast as it may to nine
/// that do not read. A client that is disconnected comes back.
async fn slow_readers(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let (mut tasks, written) = (JoinSet::new(), Arc::<AtomicU64>::default());
    for number in 0..8_u8 {
        let (from, name) = (Ipv4Addr::new(127, 2, 0, number + 1), user(usize::from(number)));
        for place in 0..30 {
            let (target, name, written) = (target.clone(), name.clone(), written.clone());
            let room = format!("flood{number}-{}", place % 3);
            tasks.spawn(repeat(until, move || {
                let (target, name, room) = (target.clone(), name.clone(), room.clone());
                let written = written.clone();
                async move {
                    let joined = RawSocket::join(&target, from, &room, &name, json!([])).await;
                    let (mut member, _) = joined?;
                    if place >= 3 {
                        // Reads nothing, until the kernel says that the connection has ended.
                        let _ = member.stream.ready(tokio::io::Interest::ERROR).await;
                        return Ok(());
                    }
                    let message = json!({"type":"message","data":"x".repeat(65_000)});
                    let message = frame(TEXT, message.to_string().as_bytes());
                    loop {
                        member.write(&message).await?;
                        written.fetch_add(1, Relaxed);
                        sleep(Duration::from_millis(21)).await;
                    }
                }
            }));
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(format!("{} messages of 65 kB to nine readers each", written.load(Relaxed)))
}

/// L1: 768 sockets without a token, each with the most that it may send of a first message.
async fn first_messages(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let mut tasks = JoinSet::new();
    let whole = frame(TEXT, &[b' '; 16 << 10]);
    let part: Arc<[u8]> = whole.get(..whole.len() - 8).unwrap_or_default().into();
    for number in 0..768_u16 {
        let from = Ipv4Addr::new(127, 3, 0, (number / 256 + 1) as u8);
        let (target, part) = (target.clone(), part.clone());
        tasks.spawn(repeat(until, move || {
            let (target, part) = (target.clone(), part.clone());
            async move {
                let mut socket = RawSocket::open(&target, from, "den").await?;
                socket.write(&part).await?;
                socket.closed().await;
                Ok(())
            }
        }));
    }
    while tasks.join_next().await.is_some() {}
    Ok("768 sockets".to_owned())
}

/// L2: 2,000 rooms with long names, and 200 requests for their list that are not read.
async fn lists(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let mut rooms = Vec::new();
    'rooms: for account in 0..80_usize {
        let from = Ipv4Addr::new(127, 4, 0, (account / 3 + 1) as u8);
        for number in 0..25 {
            let room = format!("{account}-{number}-").repeat(10).replace('-', "%F0%9F%9A%AA");
            match RawSocket::join(&target, from, &room, &user(100 + account), json!([])).await {
                Ok((member, _)) => rooms.push(member),
                Err(_) => break,
            }
            if Instant::now() + Duration::from_secs(5) > until {
                break 'rooms;
            }
        }
    }
    let mut requests = JoinSet::new();
    for number in 0..200_u8 {
        let target = target.clone();
        requests.spawn(repeat(until, move || {
            let target = target.clone();
            async move {
                let from = Ipv4Addr::new(127, 4, 1, number / 50 + 1);
                let mut stream = connect(target.address, from).await?;
                stream.write_all(b"GET /api/rooms HTTP/1.1\r\nHost: a\r\n\r\n").await?;
                let _ = stream.ready(tokio::io::Interest::ERROR).await;
                Ok(())
            }
        }));
    }
    while requests.join_next().await.is_some() {}
    Ok(format!("{} rooms, 200 requests", rooms.len()))
}

/// L3: one account that comes back after each burst of messages: its peer hears no more than from one connection.
async fn reconnects(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let began = Instant::now();
    let from = Ipv4Addr::new(127, 5, 0, 1);
    let (mut peer, _) =
        RawSocket::join(&target, Ipv4Addr::new(127, 5, 0, 2), "den", &user(20), json!([])).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let target = target.clone();
        tasks.spawn(repeat(until, move || {
            let target = target.clone();
            async move {
                let (mut member, _) =
                    RawSocket::join(&target, from, "den", &user(21), json!([])).await?;
                let message = frame(TEXT, br#"{"type":"message","data":1}"#);
                member.write(&message.repeat(249)).await?;
                member.send(&json!({"type":"ping"})).await?;
                while member.receive().await?["type"] != "pong" {}
                Ok(())
            }
        }));
    }
    let mut heard = 0_u64;
    let mut keep_alive = interval(Duration::from_secs(10));
    while Instant::now() < until {
        tokio::select! {
            _ = keep_alive.tick() => peer.send(&json!({"type":"ping"})).await?,
            () = sleep_until(until) => {}
            message = peer.receive() => {
                // A peer that cannot read so much has heard too much.
                let message = message.map_err(|error| format!("after {heard} messages: {error}"))?;
                heard += u64::from(message["type"] == "message");
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    let seconds = began.elapsed().as_secs_f64();
    // Four simultaneous connections have a budget each: a burst of 250, then 50 a second.
    let allowed = 4.0 * (250.0 + 50.0 * seconds);
    let achieved = format!("{:.0} messages/s to one peer", heard as f64 / seconds);
    if heard as f64 > allowed { Err(achieved.into()) } else { Ok(achieved) }
}

/// L3: members that join and leave all the time, while another is away for 3 s again and again: it resumes.
async fn churn(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let mut tasks = JoinSet::new();
    for number in 0..8_u8 {
        let target = target.clone();
        tasks.spawn(repeat(until, move || {
            let target = target.clone();
            let (from, name) =
                (Ipv4Addr::new(127, 6, 0, number + 1), user(30 + usize::from(number)));
            async move { RawSocket::join(&target, from, "quiet", &name, json!([])).await.map(drop) }
        }));
    }
    let from = Ipv4Addr::new(127, 6, 1, 1);
    let resumed = resume_again_and_again(&target, from, "quiet", until).await?;
    while tasks.join_next().await.is_some() {}
    Ok(format!("{resumed} of {resumed} resumes"))
}

/// A member that is away for 3 s again and again; how often it came back.
async fn resume_again_and_again(
    target: &Target,
    from: Ipv4Addr,
    room: &str,
    until: Instant,
) -> Result<u64, TestError> {
    let (mut member, reply) =
        RawSocket::join(target, from, room, &user(40), json!(["resume"])).await?;
    let mut token = reply["resume_token"].clone();
    let (mut resumed, mut last_seq) = (0, json!(0));
    while Instant::now() + Duration::from_secs(5) < until {
        // All that has come up to now.
        while let Ok(message) =
            timeout_at(Instant::now() + Duration::from_millis(100), member.receive()).await
        {
            let seq: Value = message?["seq"].take();
            last_seq = if seq.is_null() { last_seq } else { seq };
        }
        drop(member);
        sleep(Duration::from_secs(3)).await;
        member = RawSocket::open(target, from, room).await?;
        member.receive().await?;
        let resume = json!({"type":"resume","resume_token":token,"last_seq":last_seq});
        member.send(&resume).await?;
        let mut reply = member.receive().await?;
        if reply["type"] != "resumed" {
            return Err(format!("after {resumed} resumes: {reply}").into());
        }
        token = reply["resume_token"].take();
        resumed += 1;
    }
    Ok(resumed)
}

/// L4: one client that sends Pongs which answer no Ping, as fast as they are read.
async fn frames(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let sent = Arc::<AtomicU64>::default();
    repeat(until, || {
        let (target, sent) = (target.clone(), sent.clone());
        async move {
            let from = Ipv4Addr::new(127, 7, 0, 1);
            let (mut member, _) =
                RawSocket::join(&target, from, "noise", &user(50), json!([])).await?;
            let flood = frame(PONG, b"").repeat(1000);
            loop {
                member.write(&flood).await?;
                sent.fetch_add(1000, Relaxed);
            }
        }
    })
    .await;
    Ok(format!("{} frames taken", sent.load(Relaxed)))
}

/// L6: one address that is refused again and again: requests over its rate, and rooms where it is not let in.
async fn refusals(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let from = Ipv4Addr::new(127, 8, 0, 1);
    let refused = Arc::<AtomicU64>::default();
    let mut tasks = JoinSet::new();
    for kind in 0..4 {
        let (target, refused) = (target.clone(), refused.clone());
        tasks.spawn(repeat(until, move || {
            let (target, refused) = (target.clone(), refused.clone());
            async move {
                if kind % 2 == 0 {
                    let (status, _) = http(target.address, from, "GET /api/rooms").await?;
                    refused.fetch_add(u64::from(status == 429), Relaxed);
                    return Ok(());
                }
                let mut socket = RawSocket::open(&target, from, "den").await?;
                socket.receive().await?;
                let message = json!({"type":"auth_token","token":"guess"});
                socket.send(&message).await?;
                socket.closed().await;
                refused.fetch_add(1, Relaxed);
                Ok(())
            }
        }));
    }
    while tasks.join_next().await.is_some() {}
    Ok(format!("{} refusals", refused.load(Relaxed)))
}

/// L7: sixteen silent connections to `METRICS_LISTEN`, which come back when they are closed, beside a monitor.
async fn metrics(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let target = target.clone();
        tasks.spawn(repeat(until, move || {
            let target = target.clone();
            async move {
                let mut stream = connect(target.metrics, Ipv4Addr::new(127, 9, 0, 1)).await?;
                stream.write_all(b"GET /metrics HTTP/1.1\r\n").await?;
                let _ = stream.readable().await;
                sleep(Duration::from_millis(50)).await;
                Ok(())
            }
        }));
    }
    let (mut slowest, mut scrapes) = (Duration::ZERO, 0);
    while Instant::now() + Duration::from_secs(2) < until {
        let began = Instant::now();
        let from = Ipv4Addr::new(127, 9, 0, 2);
        let scraped = http(target.metrics, from, "GET /metrics").await;
        // A monitor that was displaced asks again.
        if scraped.is_ok_and(|(status, _)| status == 200) {
            scrapes += 1;
            slowest = slowest.max(began.elapsed());
        }
        sleep_until(began + Duration::from_secs(1)).await;
    }
    while tasks.join_next().await.is_some() {}
    let achieved = format!("{scrapes} scrapes, the slowest {slowest:?}");
    let is_held = scrapes == 0 || slowest > Duration::from_secs(2);
    if is_held { Err(achieved.into()) } else { Ok(achieved) }
}

/// L8: one account breaks connections that may resume, from the address of a neighbour, who resumes all the same.
async fn resume_slots(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let from = Ipv4Addr::new(127, 10, 0, 1);
    let broken = Arc::<AtomicU64>::default();
    let mut tasks = JoinSet::new();
    for number in 60..64 {
        let (target, broken) = (target.clone(), broken.clone());
        tasks.spawn(repeat(until, move || {
            let (target, broken) = (target.clone(), broken.clone());
            async move {
                let room = format!("broken{}", broken.fetch_add(1, Relaxed));
                let features = json!(["resume"]);
                RawSocket::join(&target, from, &room, &user(number), features).await.map(drop)
            }
        }));
    }
    let resumed = resume_again_and_again(&target, from, "home", until).await?;
    while tasks.join_next().await.is_some() {}
    let broken = broken.load(Relaxed);
    Ok(format!("{broken} connections broken, {resumed} of {resumed} resumes of the neighbour"))
}

/// L5: accounts that come back under another client id whenever they are kicked, which an administrator does each time. A
/// ban, a lock and an unlock are accepted all the same.
async fn evasion(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let kicks = Arc::<AtomicU64>::default();
    let mut tasks = JoinSet::new();
    for number in 0..80_u8 {
        let (target, kicks) = (target.clone(), kicks.clone());
        let (from, name) = (Ipv4Addr::new(127, 11, 0, number + 1), user(200 + usize::from(number)));
        let room = format!("evasion{}", number % 10);
        tasks.spawn(repeat(until, move || {
            let (target, name, room) = (target.clone(), name.clone(), room.clone());
            let kicks = kicks.clone();
            async move {
                let joined = RawSocket::join(&target, from, &room, &name, json!([])).await;
                let (mut member, reply) = joined?;
                let kick = json!({"client_id":reply["client_id"]});
                let path = format!("rooms/{room}/kick");
                // From many addresses, each of which opens a bounded number of connections a minute.
                let status = administer(&target, from, &path, &kick).await?;
                kicks.fetch_add(u64::from(status == 200), Relaxed);
                member.closed().await;
                Ok(())
            }
        }));
    }
    let (ban, nothing) = (json!({"username":"mallory","seconds":60}), json!({}));
    let rules = [("ban", &ban), ("rooms/den/lock", &nothing), ("rooms/den/unlock", &nothing)];
    let mut refused = Vec::new();
    while Instant::now() + Duration::from_secs(2) < until {
        for (path, body) in rules {
            let status = administer(&target, Ipv4Addr::LOCALHOST, path, body).await?;
            if status != 200 {
                refused.push(format!("{path}: {status}"));
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
    while tasks.join_next().await.is_some() {}
    match refused.first() {
        Some(first) => Err(format!("{} rules refused, {first}", refused.len()).into()),
        None => Ok(format!("{} kicks", kicks.load(Relaxed))),
    }
}

/// Ten moderators, each in a room of its own, that make rules within their message rate, about clients that there are not and
/// about the room. A ban of an administrator is accepted all the same.
async fn moderators(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let (asked, made) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut tasks = JoinSet::new();
    for number in 0..10_u8 {
        let (target, asked, made) = (target.clone(), asked.clone(), made.clone());
        tasks.spawn(repeat(until, move || {
            let (target, asked, made) = (target.clone(), asked.clone(), made.clone());
            async move {
                let from = Ipv4Addr::new(127, 13, 0, number + 1);
                let token = moderator_token(&user(80 + usize::from(number)));
                let room = format!("moderated{number}");
                let (mut member, _) =
                    RawSocket::join_with(&target, from, &room, &token, json!([])).await?;
                let mut pace = interval(Duration::from_millis(22));
                loop {
                    tokio::select! {
                        _ = pace.tick() => {
                            let number = asked.fetch_add(1, Relaxed);
                            let ghost = format!("ghost{number}");
                            member.send(&match number % 2 {
                                0 => json!({"type":"kick","to":ghost,"ban_seconds":86_400}),
                                _ => json!({"type":"lock"}),
                            }).await?;
                        }
                        answer = member.receive() => {
                            made.fetch_add(u64::from(answer?["type"] == "moderated"), Relaxed);
                        }
                    }
                }
            }
        }));
    }
    let ban = json!({"username":"mallory","seconds":60});
    let mut refused = 0;
    while Instant::now() + Duration::from_secs(2) < until {
        let status = administer(&target, Ipv4Addr::LOCALHOST, "ban", &ban).await?;
        refused += u32::from(status != 200);
        sleep(Duration::from_millis(500)).await;
    }
    while tasks.join_next().await.is_some() {}
    let achieved = format!("{} of {} rules made", made.load(Relaxed), asked.load(Relaxed));
    if refused > 0 {
        Err(format!("{achieved}, {refused} bans refused").into())
    } else {
        Ok(achieved)
    }
}

/// Eight connections of one address that send requests as fast as they are read, without waiting for answers.
async fn pipelining(target: Arc<Target>, until: Instant) -> Result<String, TestError> {
    let received = Arc::<AtomicU64>::default();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (target, received) = (target.clone(), received.clone());
        tasks.spawn(repeat(until, move || {
            let (target, received) = (target.clone(), received.clone());
            async move {
                let stream = connect(target.address, Ipv4Addr::new(127, 12, 0, 1)).await?;
                let (mut answers, mut requests) = stream.into_split();
                let flood = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
                let sending = async { while requests.write_all(&flood).await.is_ok() {} };
                let receiving = async {
                    let mut discarded = [0; 16 << 10];
                    while let Ok(bytes @ 1..) = answers.read(&mut discarded).await {
                        received.fetch_add(bytes as u64, Relaxed);
                    }
                };
                tokio::select! { () = sending => {}, () = receiving => {} }
                Ok(())
            }
        }));
    }
    while tasks.join_next().await.is_some() {}
    Ok(format!("{} MB of answers", received.load(Relaxed) / 1_000_000))
}
