//! Random schedules of joins, leaves, messages and faults through the real links and scripts, on a real Redis.
//!
//! Three nodes run in this process, each behind a proxy of its own. What a client sees must hold in every schedule: no member
//! too many or too few in the end, no event twice, no message lost without an answer, and no leave of a member that stays
//! while its node can reach Redis.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use secrecy::SecretString;
use serde_json::{Value, json};
use signaling::{
    cluster::{self, ClusterGateway, NodeIdentity, ReplicatedState},
    delivery::{self, ClientQueueReader},
    migration::ClusterTimings,
    protocol::{self, ClientMessage},
    rooms::{JoinError, Membership, Peer, RoomRegistry},
    webhooks::Webhooks,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::harness::{
    eventually,
    proxy::{FaultyProxy, LinkState},
    redis_server::RedisServer,
};

const NODES: usize = 3;
const CAPACITY: usize = 4;

/// Schedules that run at the same time, each in a database of its own.
const AT_ONCE: usize = 8;

/// Short, and longer than a busy machine makes a heartbeat late.
const LEASE: Duration = Duration::from_secs(6);

#[derive(Clone, Debug)]
enum Act {
    Join {
        node: usize,
        id: usize,
        user: usize,
    },
    Leave {
        member: usize,
    },
    Say {
        member: usize,
        to: Option<usize>,
    },
    /// The connections of a node to Redis end, or carry nothing any more.
    Cut {
        node: usize,
        state: LinkState,
    },
    Heal {
        node: usize,
        is_late: bool,
    },
    /// Keys vanish.
    Delete {
        key: &'static str,
    },
    Pause,
}

/// A generator of its own, so that a schedule is known by its number.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    fn act(&mut self, faults: usize) -> Act {
        const KEYS: [&str; 11] = [
            "inbox:n0",
            "inbox:n1",
            "room:den",
            "on:den",
            "rooms",
            "seats:n0",
            "seats:n2",
            "nodes",
            "processes",
            "arrivals",
            "pulse",
        ];
        let node = self.below(NODES);
        match self.below(24 + faults) {
            0..7 => Act::Join { node, id: self.below(6), user: self.below(2) },
            7..11 => Act::Leave { member: self.below(12) },
            11..19 => {
                let to = self.below(7);
                Act::Say { member: self.below(12), to: (to < 6).then_some(to) }
            }
            19..24 => Act::Pause,
            24 => Act::Cut { node, state: LinkState::Reset },
            25 => Act::Cut { node, state: LinkState::Silent },
            26 => Act::Heal { node, is_late: false },
            27 => Act::Heal { node, is_late: true },
            _ => Act::Delete { key: KEYS[self.below(KEYS.len())] },
        }
    }
}

/// Nothing but rooms.
struct NothingElse;

impl ReplicatedState for NothingElse {
    fn apply_logout(&self, _: &str) {}

    fn logouts(&self) -> Vec<String> {
        Vec::new()
    }

    fn apply_auth_event(&self, _: &str) {}

    fn apply_rule(&self, _: &str) -> bool {
        true
    }

    fn rules(&self) -> Vec<String> {
        Vec::new()
    }

    fn deliver_announcement(&self, _: &str) {}
}

struct Node {
    rooms: RoomRegistry,
    proxy: FaultyProxy,
}

impl Node {
    async fn start(number: usize, redis: &RedisServer, database: usize) -> Self {
        let proxy = FaultyProxy::before(redis.address()).await;
        let url = format!("redis://{}/{database}", proxy.address);
        let endpoints = cluster::parse_endpoints(&[SecretString::from(url)], None).unwrap();
        let (name, timings) = (format!("n{number}"), ClusterTimings { lease: LEASE });
        // Nobody resumes here.
        let (gateway, queues, _) = ClusterGateway::new(name.as_str().into(), 1, timings);
        let rooms = RoomRegistry::with_backend(CAPACITY, gateway.clone());
        let identity = NodeIdentity::new("deployment".into(), &name, timings, 1, CAPACITY);
        let (state, webhooks) = (Arc::new(NothingElse), Webhooks::default());
        cluster::start(&gateway, queues, endpoints, &rooms, state, &webhooks, identity);
        Self { rooms, proxy }
    }
}

/// What a client has received.
#[derive(Debug, Default)]
struct View {
    peers: BTreeSet<String>,
    /// How often it was told that a member with this client id has left.
    left: BTreeMap<String, usize>,
    heard: BTreeSet<(String, u64)>,
    answered: BTreeSet<u64>,
    /// The frames about members, for a person to read.
    story: Vec<String>,
}

struct Member {
    peer: Peer,
    node: usize,
    joining: Option<JoinHandle<Result<Membership, JoinError>>>,
    membership: Option<Membership>,
    reader: ClientQueueReader,
    view: View,
    has_list: bool,
    is_refused: bool,
}

impl Member {
    fn join(nodes: &[Node], node: usize, id: usize, user: usize) -> Self {
        let (queue, reader) = delivery::channel();
        let peer = Peer {
            client_id: format!("c{id}").into(),
            username: format!("u{user}").into(),
            name: None,
        };
        let (rooms, who) = (nodes[node].rooms.clone(), peer.clone());
        let joining =
            tokio::spawn(async move { Membership::join(&rooms, &"den".into(), who, queue).await });
        let (view, membership) = (View::default(), None);
        Self {
            peer,
            node,
            joining: Some(joining),
            membership,
            reader,
            view,
            has_list: false,
            is_refused: false,
        }
    }

    fn is_in(&self) -> bool {
        self.membership.is_some()
    }

    async fn catch_up(&mut self) {
        if self.joining.as_ref().is_some_and(JoinHandle::is_finished) {
            let joined = self.joining.take().unwrap().await.unwrap();
            self.is_refused = matches!(joined, Err(JoinError::Full | JoinError::ClientIdTaken));
            self.membership = joined.ok();
        }
        while let Some(frame) = self.reader.try_recv() {
            let news: Value = serde_json::from_str(&frame).unwrap();
            let id = |field: &str| news[field].as_str().unwrap_or_default().to_owned();
            let view = &mut self.view;
            if !id("client_id").is_empty() || !news["users"].is_null() {
                view.story.push(format!("{:?} {frame}", time::OffsetDateTime::now_utc().time()));
            }
            match news["type"].as_str().unwrap() {
                "users_in_room" => {
                    assert!(!self.has_list, "a second list: {news}");
                    self.has_list = true;
                    let users = news["users"].as_array().unwrap().iter();
                    view.peers =
                        users.map(|user| user["client_id"].as_str().unwrap().into()).collect();
                }
                "user_joined" => {
                    assert!(view.peers.insert(id("client_id")), "joined twice: {news}");
                }
                "user_left" => {
                    assert!(view.peers.remove(&id("client_id")), "was not there: {news}");
                    *view.left.entry(id("client_id")).or_default() += 1;
                }
                "message" => {
                    assert!(view.peers.contains(&id("from")), "a stranger spoke: {news}");
                    let message = (id("from"), news["data"].as_u64().unwrap());
                    assert!(view.heard.insert(message), "heard twice: {news}");
                }
                "error" => drop(view.answered.insert(news["id"].as_u64().unwrap())),
                other => panic!("{other}"),
            }
        }
        if self.reader.disconnect_signal().reason().is_some() {
            self.membership = None;
        }
    }
}

/// A message, and the members that it is for: they were in and alone with their client id when it was sent.
struct Said {
    speaker: usize,
    targets: Vec<usize>,
}

struct Schedule<'a> {
    redis: &'a RedisServer,
    database: usize,
    nodes: Vec<Node>,
    members: Vec<Member>,
    said: Vec<Said>,
    has_lost: bool,
}

impl<'a> Schedule<'a> {
    /// Three nodes that are up, on an empty database.
    async fn start(redis: &'a RedisServer, database: usize) -> Self {
        redis.flush(database).await;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            nodes.push(Node::start(number, redis, database).await);
        }
        eventually("all nodes are up", async || {
            nodes.iter().all(|node| node.rooms.backend().is_up())
        })
        .await;
        let (members, said, has_lost) = (Vec::new(), Vec::new(), false);
        Self { redis, database, nodes, members, said, has_lost }
    }

    /// Waits until it is so.
    async fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            self.catch_up().await;
            if is_so(self) {
                return;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until nothing is wrong.
    async fn wait_until_consistent(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let wrong = self.faults().await;
            if wrong.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{wrong:#?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn catch_up(&mut self) {
        for member in &mut self.members {
            member.catch_up().await;
        }
    }

    /// The leaves that a client was told of and that did not happen: each has to be the end of one membership, or of one that
    /// may have been, where a join was neither granted nor refused.
    fn false_leaves(&self) -> Vec<String> {
        let mut ended = BTreeMap::<&str, usize>::new();
        for member in self.members.iter().filter(|member| !member.is_in() && !member.is_refused) {
            *ended.entry(&member.peer.client_id).or_default() += 1;
        }
        let mut false_leaves = Vec::new();
        for member in &self.members {
            for (id, told) in &member.view.left {
                let ended = ended.get(id.as_str()).copied().unwrap_or_default();
                if *told > ended {
                    let of = &member.peer.client_id;
                    false_leaves.push(format!(
                        "{of} was told of {told} leaves of {id}, which has left {ended} times"
                    ));
                }
            }
        }
        false_leaves
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Join { node, id, user } => {
                self.members.push(Member::join(&self.nodes, node, id, user));
            }
            Act::Leave { member } => {
                if let Some(member) = self.members.get_mut(member) {
                    member.membership = None;
                }
            }
            Act::Say { member, to } => self.say(member, to),
            Act::Cut { node, state } => {
                self.nodes[node].proxy.set_all(state);
            }
            Act::Heal { node, is_late } => self.heal(node, is_late),
            Act::Delete { key } => {
                self.has_lost = true;
                self.redis.delete_in(self.database, key).await;
            }
            Act::Pause => sleep(Duration::from_millis(20)).await,
        }
        tokio::task::yield_now().await;
        self.catch_up().await;
    }

    /// The network of a node carries everything again; what was held back may come now, or never.
    fn heal(&self, node: usize, is_late: bool) {
        self.nodes[node].proxy.set_all(LinkState::Normal);
        if !is_late {
            self.nodes[node].proxy.set_open(LinkState::Reset);
        }
    }

    fn say(&mut self, speaker: usize, to: Option<usize>) {
        let Some(from) = self.members.get(speaker) else { return };
        let Some(membership) = &from.membership else { return };
        let number = self.said.len() as u64;
        let frame =
            json!({"type":"message","data":number,"id":number,"to":to.map(|to| format!("c{to}"))});
        let frame = frame.to_string();
        let Ok(ClientMessage::Signal(signal)) = protocol::parse(&frame).message else { panic!() };
        let is_sent = membership.send(&signal, Instant::now()).is_ok();
        let holders = |id: &str| {
            self.members
                .iter()
                .filter(|other| other.is_in() && *other.peer.client_id == *id)
                .count()
        };
        let is_meant = |(_, other): &(usize, &Member)| {
            let id = &other.peer.client_id;
            is_sent
                && other.is_in()
                && from.view.peers.contains(&**id)
                && holders(id) == 1
                && to.is_none_or(|to| **id == *format!("c{to}"))
        };
        let targets = self.members.iter().enumerate().filter(is_meant);
        let targets = targets.map(|(target, _)| target).collect();
        self.said.push(Said { speaker, targets });
    }

    /// What the members have received, and what the nodes have logged.
    fn story(&self, log: &Log) -> String {
        let told = |(number, member): (usize, &Member)| {
            let (id, node, state) = (&member.peer.client_id, member.node, member.is_in());
            format!("member {number} {id} on n{node}, in: {state}: {:#?}\n", member.view.story)
        };
        let members: String = self.members.iter().enumerate().map(told).collect();
        members + &log.text()
    }

    /// What is wrong now, once everything is healed and at rest.
    async fn faults(&mut self) -> Vec<String> {
        self.catch_up().await;
        let mut faults = Vec::new();
        if self.members.iter().any(|member| member.joining.is_some()) {
            faults.push("a join hangs".to_owned());
        }
        let inside: Vec<_> = self.members.iter().filter(|member| member.is_in()).collect();
        let ids: BTreeSet<String> =
            inside.iter().map(|member| member.peer.client_id.to_string()).collect();
        if ids.len() != inside.len() {
            faults.push(format!("two hold one client id: {ids:?}"));
        }
        let stored = self.redis.members_in(self.database, "den").await;
        if stored != ids {
            faults.push(format!("in: {ids:?}, stored: {stored:?}"));
        }
        for member in &inside {
            let mut others = ids.clone();
            others.remove(&*member.peer.client_id);
            if member.view.peers != others {
                faults.push(format!("{} sees {:?}", member.peer.client_id, member.view.peers));
            }
        }
        for (number, said) in self.said.iter().enumerate() {
            let (number, speaker) = (number as u64, &self.members[said.speaker]);
            for target in said.targets.iter().map(|target| &self.members[*target]) {
                let heard = (speaker.peer.client_id.to_string(), number);
                if speaker.is_in()
                    && target.is_in()
                    && !target.view.heard.contains(&heard)
                    && !speaker.view.answered.contains(&number)
                {
                    faults.push(format!("{number} to {} is lost", target.peer.client_id));
                }
            }
        }
        faults
    }
}

/// What the nodes of a schedule log, in the thread that runs it.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects what is logged in this thread from now on.
    fn collect(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let collected = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || log.clone());
        tracing::subscriber::set_default(collected.finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// How often a node has lost Redis, or its lease.
    fn losses(&self) -> usize {
        let text = self.text();
        text.matches("connection lost").count() + text.matches("node lost").count()
    }

    /// Whether the lease of a node was over: its members have left then.
    fn has_lost_node(&self) -> bool {
        self.text().contains("node lost")
    }
}

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn run(redis: &RedisServer, database: usize, seed: u64) {
    let log = Log::default();
    let _collecting = log.collect();
    let mut schedule = Schedule::start(redis, database).await;
    let mut random = Random(seed);
    // A third of the schedules has no faults, a third those of the network alone.
    let faults = [0, 4, 6][random.below(3)];
    let acts: Vec<_> = (0..20 + random.below(60)).map(|_| random.act(faults)).collect();
    for act in acts.clone() {
        schedule.act(act).await;
    }
    for node in 0..NODES {
        schedule.heal(node, random.below(2) == 0);
    }

    // A connection that was reset may look sound until it is used.
    let (healed, _) = redis.leases_in(database).await;
    eventually("every node has sent a heartbeat since", async || {
        let (_, ends) = redis.leases_in(database).await;
        let is_later = |end: &f64| *end > healed + LEASE.as_secs_f64();
        ends.len() == NODES && ends.values().all(is_later)
    })
    .await;

    let deadline = Instant::now() + Duration::from_secs(60);
    'resting: loop {
        let losses = log.losses();
        let wrong = schedule.faults().await;
        if !wrong.is_empty() {
            let is_late = Instant::now() > deadline;
            assert!(!is_late, "seed {seed}: {wrong:#?}\n{acts:#?}\n{}", schedule.story(&log));
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        // Without a fault it stays so. A busy machine may be one.
        let until = Instant::now() + LEASE / 3;
        while Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
            let wrong = schedule.faults().await;
            if log.losses() != losses {
                continue 'resting;
            }
            assert!(
                wrong.is_empty(),
                "seed {seed}: later {wrong:#?}\n{acts:#?}\n{}",
                schedule.story(&log)
            );
        }
        break;
    }
    if !log.has_lost_node() {
        let wrong = schedule.false_leaves();
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}\n{acts:#?}\n{}", schedule.story(&log));
    }
    if !schedule.has_lost {
        let inside = schedule.members.iter().filter(|member| member.is_in()).count();
        assert!(inside <= CAPACITY, "seed {seed}: {inside} are in\n{acts:#?}");
    }
}

/// As many schedules as `CLUSTER_SCHEDULES` says, from the number `CLUSTER_SEED` on.
#[test]
fn every_schedule_with_faults_ends_in_one_consistent_state_on_a_real_redis() {
    let number = |name: &str, default: u64| {
        std::env::var_os(name).and_then(|text| text.to_str()?.parse().ok()).unwrap_or(default)
    };
    let (first, count) = (number("CLUSTER_SEED", 1), number("CLUSTER_SCHEDULES", 48));
    let (databases, own) = (AT_ONCE.to_string(), Runtime::new().unwrap());
    let redis = own.block_on(RedisServer::start_with_settings(&["--databases", &databases]));
    let (redis, next) = (Arc::new(redis), Arc::new(AtomicU64::new(0)));
    let worker = |database| {
        let (redis, next) = (redis.clone(), next.clone());
        std::thread::spawn(move || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                // Of its own, which ends with the links of the schedule.
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(run(&redis, database, first + index));
            }
        })
    };
    let workers: Vec<_> = (0..AT_ONCE).map(worker).collect();
    for worker in workers {
        worker.join().unwrap();
    }
    own.block_on(async move { drop(redis) });
}

/// The node of a member that was replaced states it anew before it reads that it was replaced.
#[tokio::test]
async fn a_member_that_was_replaced_while_its_node_was_cut_off_does_not_come_back() {
    let redis = RedisServer::start().await;
    let mut schedule = Schedule::start(&redis, 0).await;
    for (node, id, user) in [(1, 1, 1), (0, 0, 0)] {
        schedule.act(Act::Join { node, id, user }).await;
        schedule.wait_until_consistent().await;
    }

    schedule.act(Act::Cut { node: 0, state: LinkState::Reset }).await;
    let is_up = |schedule: &Schedule<'_>| schedule.nodes[0].rooms.backend().is_up();
    schedule.wait_until("the first node is cut off", |it| !is_up(it)).await;
    schedule.act(Act::Join { node: 1, id: 0, user: 0 }).await;
    schedule.wait_until("the new one is in", |it| it.members[2].is_in()).await;
    schedule.act(Act::Leave { member: 2 }).await;
    let told = |it: &Schedule<'_>| it.members[0].view.left.get("c0").copied();
    schedule.wait_until("both have left", |it| told(it) == Some(2)).await;
    schedule.act(Act::Heal { node: 0, is_late: false }).await;
    schedule.wait_until("the first one is told", |it| !it.members[1].is_in()).await;
    schedule.wait_until_consistent().await;

    assert_eq!(told(&schedule), Some(2), "{:#?}", schedule.members[0].view.story);
}
