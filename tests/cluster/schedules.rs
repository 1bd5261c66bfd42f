//! Random schedules of joins, leaves, messages and faults through the real links and scripts, on a real Redis.
//!
//! Three nodes run in this process, each behind a proxy of its own. What a client sees must hold in every schedule: no member
//! too many or too few in the end, no event twice, no message lost without an answer, and no leave of a member that stays
//! while its node can reach Redis.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
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
            26 | 27 => Act::Heal { node },
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
    left: Vec<String>,
    heard: BTreeSet<(String, u64)>,
    answered: BTreeSet<u64>,
}

struct Member {
    peer: Peer,
    joining: Option<JoinHandle<Result<Membership, JoinError>>>,
    membership: Option<Membership>,
    reader: ClientQueueReader,
    view: View,
    has_list: bool,
    is_refused: bool,
}

impl Member {
    fn join(node: &Node, id: usize, user: usize) -> Self {
        let (queue, reader) = delivery::channel();
        let peer = Peer { client_id: format!("c{id}").into(), username: format!("u{user}").into() };
        let (rooms, who) = (node.rooms.clone(), peer.clone());
        let joining =
            tokio::spawn(async move { Membership::join(&rooms, &"den".into(), who, queue).await });
        let (view, membership) = (View::default(), None);
        Self {
            peer,
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
                    view.left.push(id("client_id"));
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
    has_cut: bool,
    has_lost: bool,
}

impl Schedule<'_> {
    async fn catch_up(&mut self) {
        for member in &mut self.members {
            member.catch_up().await;
        }
    }

    /// Whether a membership under a client id has ended, or may have: the reason for a leave that others see.
    fn has_ended(&self, id: &str) -> bool {
        let has_ended = |member: &Member| {
            *member.peer.client_id == *id && !member.is_in() && !member.is_refused
        };
        self.members.iter().any(has_ended)
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::Join { node, id, user } => {
                self.members.push(Member::join(&self.nodes[node], id, user));
            }
            Act::Leave { member } => {
                if let Some(member) = self.members.get_mut(member) {
                    member.membership = None;
                }
            }
            Act::Say { member, to } => self.say(member, to),
            Act::Cut { node, state } => {
                self.has_cut = true;
                self.nodes[node].proxy.set_all(state);
            }
            Act::Heal { node } => self.heal(node),
            Act::Delete { key } => {
                self.has_lost = true;
                self.redis.delete_in(self.database, key).await;
            }
            Act::Pause => sleep(Duration::from_millis(20)).await,
        }
        tokio::task::yield_now().await;
        self.catch_up().await;
    }

    fn heal(&self, node: usize) {
        self.nodes[node].proxy.set_all(LinkState::Normal);
        // What was held back would come late, as no network does after so long.
        self.nodes[node].proxy.set_open(LinkState::Reset);
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

async fn run(redis: &RedisServer, database: usize, seed: u64) {
    redis.flush(database).await;
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(Node::start(number, redis, database).await);
    }
    eventually("all nodes are up", async || nodes.iter().all(|node| node.rooms.backend().is_up()))
        .await;
    let (members, said) = (Vec::new(), Vec::new());
    let (has_cut, has_lost) = (false, false);
    let mut schedule = Schedule { redis, database, nodes, members, said, has_cut, has_lost };
    let mut random = Random(seed);
    // A third of the schedules has no faults, a third those of the network alone.
    let faults = [0, 4, 6][random.below(3)];
    let acts: Vec<_> = (0..20 + random.below(60)).map(|_| random.act(faults)).collect();
    for act in acts.clone() {
        schedule.act(act).await;
    }
    for node in 0..NODES {
        schedule.heal(node);
    }

    // Consistent, and still so a little later: on a busy machine a heartbeat may be late, and its node has to heal again.
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut has_been_consistent = false;
    loop {
        let wrong = schedule.faults().await;
        if wrong.is_empty() && has_been_consistent {
            break;
        }
        assert!(Instant::now() < deadline, "seed {seed}: {wrong:#?}\n{acts:#?}");
        has_been_consistent = wrong.is_empty();
        sleep(if has_been_consistent { LEASE / 8 } else { Duration::from_millis(50) }).await;
    }
    if !schedule.has_cut {
        for member in &schedule.members {
            for id in &member.view.left {
                let is_true = schedule.has_ended(id);
                assert!(is_true, "seed {seed}: {id} left, and is still there\n{acts:#?}");
            }
        }
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
