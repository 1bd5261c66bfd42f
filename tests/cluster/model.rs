//! Three registries and a model of the scripts, through random schedules: who joins, leaves, says something and goes on
//! on another node, when the engine acts on it and when a node hears of it, who is cut off, given up and heals, and
//! when the engine forgets.
//!
//! After each step every member's frames must add up; in the end all must agree with the engine.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::{Value, json};
use signaling::{
    cluster::{
        ClusterGateway, MigratedMembers,
        messages::{Claim, ClusterCommand, ClusterEvent, Eviction},
        receipts::UnconfirmedSignals,
    },
    delivery::{self, ClientQueueReader, ReplayBuffer},
    migration::{ClusterTimings, ConnectionId, Epoch, HandOver, MemberRecord, Migration},
    protocol::{self, ClientMessage},
    rooms::{
        ClaimError, JoinError, Membership, MigratedMember, Peer, RelayedFrame, RelayedSignal,
        RoomRegistry, RouteError,
    },
};
use tokio::{runtime::Runtime, sync::mpsc::UnboundedReceiver, time::Instant};

const NODES: usize = 3;
const CAPACITY: usize = 4;

#[derive(Clone, Debug)]
enum Act {
    Join {
        node: usize,
        room: usize,
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
    /// The client comes back on this node.
    Move {
        member: usize,
        node: usize,
    },
    /// The engine acts on so many things that a node has asked.
    Work {
        node: usize,
        asks: usize,
    },
    /// A node reads so many entries of its inbox.
    Read {
        node: usize,
        entries: usize,
    },
    Cut {
        node: usize,
    },
    Heal {
        node: usize,
    },
    /// The lease of a node that is cut off is over.
    Reap {
        node: usize,
    },
    /// The engine is another one, which knows nothing.
    Forget,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let node = || 0..NODES;
    let act = prop_oneof![
        6 => (node(), 0..2_usize, 0..5_usize, 0..2_usize).prop_map(|(node, room, id, user)| Act::Join { node, room, id, user }),
        3 => (0..30_usize).prop_map(|member| Act::Leave { member }),
        3 => (0..30_usize, prop::option::of(0..6_usize)).prop_map(|(member, to)| Act::Say { member, to }),
        3 => (0..30_usize, node()).prop_map(|(member, node)| Act::Move { member, node }),
        8 => (node(), 1..4_usize).prop_map(|(node, asks)| Act::Work { node, asks }),
        8 => (node(), 1..4_usize).prop_map(|(node, entries)| Act::Read { node, entries }),
        1 => node().prop_map(|node| Act::Cut { node }),
        2 => node().prop_map(|node| Act::Heal { node }),
        1 => node().prop_map(|node| Act::Reap { node }),
        1 => Just(Act::Forget),
    ];
    prop::collection::vec(act, 1..200)
}

/// What `src/cluster/scripts/*.lua` do.
#[derive(Default)]
struct RedisModel {
    rooms: BTreeMap<Arc<str>, BTreeMap<Arc<str>, MemberRecord>>,
    inboxes: BTreeMap<Arc<str>, VecDeque<ClusterEvent>>,
    /// Connections whose membership has ended for good.
    ended: HashSet<ConnectionId>,
    arrivals: u64,
}

impl RedisModel {
    fn post(&mut self, node: &str, event: ClusterEvent) {
        if let Some(inbox) = self.inboxes.get_mut(node) {
            inbox.push_back(event);
        }
    }

    fn tell(&mut self, room: &str, except: &str, event: &ClusterEvent) {
        let members = self.rooms.get(room).into_iter().flat_map(BTreeMap::values);
        let nodes: BTreeSet<_> = members.map(|record| record.connection.node.clone()).collect();
        for node in nodes.iter().filter(|node| ***node != *except) {
            self.post(node, event.clone());
        }
    }

    fn left(&mut self, room: &Arc<str>, record: &MemberRecord, except: &str) {
        let client_id = record.peer.client_id.clone();
        let connection = record.connection.clone();
        self.tell(
            room,
            except,
            &ClusterEvent::Left { room: room.clone(), client_id: client_id.clone(), connection },
        );
        let members = self.rooms.get_mut(room).unwrap();
        members.remove(&client_id);
        if members.is_empty() {
            self.rooms.remove(room);
        }
    }

    fn held(&self, room: &str, client_id: &str) -> Option<MemberRecord> {
        self.rooms.get(room)?.get(client_id).cloned()
    }

    fn members_of(&self, room: &str) -> Vec<MemberRecord> {
        self.rooms.get(room).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    fn add(&mut self, room: &Arc<str>, record: MemberRecord) {
        self.rooms.entry(room.clone()).or_default().insert(record.peer.client_id.clone(), record);
    }

    fn enter(&mut self, node: &Arc<str>) {
        self.inboxes.entry(node.clone()).or_default();
    }

    fn join(
        &mut self,
        room: &Arc<str>,
        peer: Peer,
        connection: ConnectionId,
    ) -> Result<(), JoinError> {
        let held = self.held(room, &peer.client_id);
        match &held {
            Some(held) if held.peer.username != peer.username => {
                return Err(JoinError::ClientIdTaken);
            }
            None if self.rooms.get(room).is_some_and(|room| room.len() >= CAPACITY) => {
                return Err(JoinError::Full);
            }
            Some(held) => {
                self.left(room, held, "");
                self.ended.insert(held.connection.clone());
            }
            None => {}
        }
        self.arrivals += 1;
        let (node, arrival) = (connection.node.clone(), self.arrivals);
        let record = MemberRecord { peer, connection, join_order: arrival };
        self.tell(
            room,
            &node,
            &ClusterEvent::Joined { room: room.clone(), record: record.clone() },
        );
        self.add(room, record.clone());
        let members = self.members_of(room);
        self.post(&node, ClusterEvent::Admitted { room: room.clone(), record, members });
        Ok(())
    }

    fn leave(&mut self, room: &Arc<str>, client_id: &str, connection: &ConnectionId) {
        self.ended.insert(connection.clone());
        if let Some(held) = self.held(room, client_id).filter(|held| held.connection == *connection)
        {
            self.left(room, &held, &connection.node);
        }
    }

    fn want(
        &mut self,
        migration: &Migration,
        membership: u128,
        ends: Option<u64>,
    ) -> Option<ConnectionId> {
        let from = self.held(&migration.room, &migration.client_id)?.connection;
        if from.node != migration.to.node {
            let migration = Migration { from: from.clone(), ..migration.clone() };
            let node = from.node.clone();
            let context = "context".into();
            self.post(&node, ClusterEvent::Claimed(Claim { migration, membership, ends, context }));
        }
        Some(from)
    }

    /// Whether the node that it goes to is there; if not, nothing has changed.
    fn moves(&mut self, migration: &Migration) -> bool {
        let Migration { room, client_id, from, to } = migration;
        let held = self.held(room, client_id).filter(|held| held.connection == *from);
        let Some(held) = held else { return true };
        if !self.inboxes.contains_key(&to.node) {
            return false;
        }
        self.ended.insert(from.clone());
        let record = MemberRecord { connection: to.clone(), ..held };
        self.add(room, record.clone());
        self.arrivals += 1;
        let epoch = self.arrivals;
        let members = self.rooms.get(room).into_iter().flat_map(BTreeMap::values);
        let nodes: BTreeSet<_> = members.map(|record| record.connection.node.clone()).collect();
        let nodes: Vec<_> = nodes.into_iter().filter(|node| *node != from.node).collect();
        let moved = |members, nodes| ClusterEvent::Moved {
            migration: migration.clone(),
            record: record.clone(),
            epoch,
            members,
            nodes,
        };
        for node in &nodes {
            let members = if *node == to.node { self.members_of(room) } else { Vec::new() };
            self.post(node, moved(members, Vec::new()));
        }
        self.post(&from.node, moved(Vec::new(), nodes));
        true
    }

    fn sync(&mut self, room: &Arc<str>, node: &Arc<str>, epoch: Epoch, stated: &[MemberRecord]) {
        for held in self.members_of(room) {
            if held.connection.node == *node && !stated.contains(&held) {
                self.left(room, &held, node);
            }
        }
        for record in stated {
            match self.held(room, &record.peer.client_id) {
                None if !self.ended.contains(&record.connection) => {
                    self.tell(
                        room,
                        node,
                        &ClusterEvent::Joined { room: room.clone(), record: record.clone() },
                    );
                    self.add(room, record.clone());
                }
                Some(held) if held == *record => {}
                None | Some(_) => {
                    let (client_id, connection) =
                        (record.peer.client_id.clone(), record.connection.clone());
                    self.post(
                        node,
                        ClusterEvent::Left { room: room.clone(), client_id, connection },
                    );
                }
            }
        }
        self.arrivals = self.arrivals.max(epoch);
        if !stated.is_empty() {
            let members = self.members_of(room);
            let epoch = self.arrivals;
            self.post(node, ClusterEvent::Snapshot { room: room.clone(), members, epoch });
        }
    }

    fn reap(&mut self, node: &str) {
        self.inboxes.remove(node);
        for room in self.rooms.keys().cloned().collect::<Vec<_>>() {
            for held in
                self.members_of(&room).into_iter().filter(|held| *held.connection.node == *node)
            {
                self.left(&room, &held, node);
            }
        }
    }
}

struct Node {
    name: Arc<str>,
    rooms: RoomRegistry,
    gateway: Arc<ClusterGateway>,
    commands: UnboundedReceiver<ClusterCommand>,
    migrated: MigratedMembers,
    /// Seats that came and whose client has not.
    kept: Vec<MigratedMember>,
    is_up: bool,
}

impl Node {
    fn new(number: usize) -> Self {
        let name: Arc<str> = format!("n{number}").into();
        let (gateway, mut queues, migrated) =
            ClusterGateway::new(name.clone(), 1, ClusterTimings::default());
        let rooms = RoomRegistry::with_backend(usize::MAX, gateway.clone());
        let commands = queues.commands.remove(0);
        Self { name, rooms, gateway, commands, migrated, kept: Vec::new(), is_up: false }
    }

    fn works(&mut self, engine: &mut RedisModel, asks: usize) {
        for _ in 0..asks {
            let Some(ask) = self.is_up.then(|| self.commands.try_recv().ok()).flatten() else {
                return;
            };
            let connection = |key| ConnectionId { node: self.name.clone(), key };
            match ask {
                ClusterCommand::Join { room, peer, key, .. } => {
                    if let Err(why) = engine.join(&room, peer, connection(key)) {
                        self.gateway.refuse_join(key, why);
                    }
                }
                ClusterCommand::Leave { room, peer, key, .. } => {
                    engine.leave(&room, &peer.client_id, &connection(key))
                }
                ClusterCommand::Webhook { .. } | ClusterCommand::ConfirmEffect(_) => {}
                ClusterCommand::Relay { node, frame: relayed, number } => {
                    let RelayedFrame { signal, epoch, frame } = relayed;
                    let RelayedSignal { room, from, key, to, .. } = &*signal;
                    let (room, from, to) = (room.clone(), from.clone(), to.clone());
                    let connection = connection(*key);
                    let relayed =
                        ClusterEvent::Relayed { room, from, connection, to, epoch, frame, number };
                    if engine.inboxes.contains_key(&node) {
                        engine.post(&node, relayed);
                    } else {
                        self.answers(|unconfirmed, now| unconfirmed.fail_node(&node, now));
                    }
                }
                ClusterCommand::Confirm { node, receipts } => {
                    let to = node;
                    let (node, engine_number) = (self.name.clone(), 0);
                    engine.post(
                        &to,
                        ClusterEvent::Confirmed { node, engine: engine_number, receipts },
                    );
                }
                ClusterCommand::Evict(eviction) => {
                    let node = eviction.connection.node.clone();
                    engine.post(&node, ClusterEvent::EvictionRequested(eviction));
                }
                ClusterCommand::AnswerEviction { eviction, is_gone } => {
                    let Eviction { asking_node, number, .. } = eviction;
                    engine.post(&asking_node, ClusterEvent::EvictionAnswered { number, is_gone });
                }
                ClusterCommand::PeerState { node, room, client_id, key, is_detached } => {
                    let connection = connection(key);
                    engine.post(
                        &node,
                        ClusterEvent::PeerState { room, client_id, connection, is_detached },
                    );
                }
                ClusterCommand::Claim { room, client_id, membership, ends, key, .. } => {
                    let to = connection(key);
                    let migration = Migration { room, client_id, from: to.clone(), to };
                    self.gateway.resolve_claim(
                        &self.rooms,
                        key,
                        engine.want(&migration, membership, ends),
                    );
                }
                ClusterCommand::DenyClaim { migration, live } => {
                    engine.post(
                        &migration.to.node.clone(),
                        ClusterEvent::ClaimDenied { migration, live },
                    );
                }
                ClusterCommand::Move(migration) => {
                    if !engine.moves(&migration) {
                        self.gateway.cancel_outgoing(&self.rooms, &migration);
                    }
                }
                ClusterCommand::Barrier(migration) => {
                    let node = self.name.clone();
                    engine.post(
                        &migration.from.node.clone(),
                        ClusterEvent::BarrierReached { migration, node },
                    );
                }
                ClusterCommand::HandOver(HandOver { migration, context, state, .. }) => {
                    let node = migration.to.node.clone();
                    engine.post(&node, ClusterEvent::HandedOver { migration, context, state });
                }
            }
        }
    }

    fn answers(
        &self,
        change: impl FnOnce(&mut UnconfirmedSignals, Instant) -> Vec<Arc<RelayedSignal>>,
    ) {
        self.gateway.update_unconfirmed(0, &self.rooms, change);
    }

    fn reads(&mut self, engine: &mut RedisModel, entries: usize) {
        for _ in 0..entries {
            let inbox = engine.inboxes.get_mut(&self.name).filter(|_| self.is_up);
            let Some(event) = inbox.and_then(VecDeque::pop_front) else { return };
            self.gateway.apply(&self.rooms, event);
            while let Ok((arrival, _)) = self.migrated.try_recv() {
                self.kept.push(arrival);
            }
        }
        self.gateway.confirm_signals(0);
    }

    fn is_cut(&mut self) {
        self.is_up = false;
        self.gateway.set_engine_up(0, false);
        self.answers(UnconfirmedSignals::fail_all);
    }

    fn heals(&mut self, engine: &mut RedisModel) {
        if self.is_up {
            return;
        }
        while self.commands.try_recv().is_ok() {}
        engine.enter(&self.name);
        let ours = self.rooms.local_members(|_| true).into_iter();
        let mut ours: BTreeMap<_, _> =
            ours.map(|(room, epoch, ours)| (room, (epoch, ours))).collect();
        let with_seats = engine
            .rooms
            .iter()
            .filter(|(_, room)| room.values().any(|held| held.connection.node == self.name));
        for room in with_seats.map(|(room, _)| room.clone()).collect::<Vec<_>>() {
            ours.entry(room).or_default();
        }
        for (room, (epoch, stated)) in ours {
            engine.sync(&room, &self.name, epoch, &stated);
        }
        self.is_up = true;
        self.gateway.set_engine_up(0, true);
    }
}

type Waiting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>>>>;

/// Somebody, and what its frames add up to.
struct Member {
    room: Arc<str>,
    peer: Peer,
    /// Where it is, or wants to be.
    node: usize,
    mailbox: ClientQueueReader,
    joining: Option<Waiting<Membership, JoinError>>,
    fetching: Option<Waiting<(), ClaimError>>,
    seat: Option<Membership>,
    is_in: bool,
    sees: BTreeSet<String>,
    key: u128,
    /// The number of the last frame that it has got.
    got: u64,
    /// What it was told, and by whom.
    heard: Vec<(String, u64)>,
    /// What it was told may not have arrived.
    answered: BTreeSet<u64>,
}

fn poll<T>(waiting: &mut Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

impl Member {
    fn joins(node: &Node, number: usize, room: Arc<str>, peer: Peer, key: u128) -> Self {
        let (outbox, mailbox) = delivery::channel();
        outbox.enable_replay(Box::new(ReplayBuffer::new(key)));
        let (rooms, place, who) = (node.rooms.clone(), room.clone(), peer.clone());
        let joining = async move { Membership::join(&rooms, &place, who, outbox).await };
        Self {
            room,
            peer,
            node: number,
            mailbox,
            joining: Some(Box::pin(joining)),
            fetching: None,
            seat: None,
            is_in: false,
            sees: BTreeSet::new(),
            key,
            got: 0,
            heard: Vec::new(),
            answered: BTreeSet::new(),
        }
    }

    /// Comes back on another node, having heard what it has heard; also before it was in on the last.
    fn moves(&mut self, nodes: &[Node], node: usize) {
        if self.seat.is_some() && self.node != node {
            self.node = node;
            self.fetches(nodes);
        }
    }

    /// As a session does that was asked to resume.
    fn fetches(&mut self, nodes: &[Node]) {
        self.fetching = None;
        if !self.sits_down(nodes) {
            let rooms = nodes[self.node].rooms.clone();
            let (room, id, key) = (self.room.clone(), self.peer.client_id.clone(), self.key);
            self.fetching = Some(Box::pin(async move {
                Membership::claim(&rooms, &room, &id, key, "context".into()).await
            }));
        }
    }

    fn sits_down(&mut self, nodes: &[Node]) -> bool {
        let (outbox, mailbox) = delivery::channel();
        let (rooms, peer) = (&nodes[self.node].rooms, self.peer.clone());
        let seat = Membership::resume(rooms, &self.room, peer, self.key, outbox, self.got);
        let Ok((seat, _)) = seat else { return false };
        (self.seat, self.mailbox) = (Some(seat), mailbox);
        true
    }

    fn is_over(&mut self) {
        (self.joining, self.fetching, self.seat, self.is_in) = (None, None, None, false);
    }

    fn catches_up(&mut self, nodes: &[Node]) {
        if let Some(joined) = self.joining.as_mut().and_then(poll) {
            self.joining = None;
            self.is_in = joined.is_ok();
            self.seat = joined.ok();
        }
        match self.fetching.as_mut().map(poll) {
            None => {}
            // Nothing is heard on the connection before.
            Some(None) => return,
            // As a client does that was told to come again.
            Some(Some(Err(ClaimError::Unavailable))) => return self.fetches(nodes),
            Some(Some(Ok(()))) => {
                self.fetches(nodes);
                if self.fetching.is_some() {
                    return;
                }
            }
            Some(Some(Err(ClaimError::Ended))) => {
                self.fetching = None;
                if !self.sits_down(nodes) {
                    return self.is_over();
                }
            }
        }
        while let Some(frame) = self.mailbox.try_recv() {
            let news: Value = serde_json::from_str(&frame).unwrap();
            self.got += 1;
            assert_eq!(news["seq"], self.got, "missing, or heard twice: {news}");
            let id = |field: &str| news[field].as_str().unwrap_or_default().to_owned();
            match news["type"].as_str().unwrap() {
                "users_in_room" => {
                    assert!(self.sees.is_empty());
                    let users = news["users"].as_array().unwrap().iter();
                    self.sees =
                        users.map(|user| user["client_id"].as_str().unwrap().to_owned()).collect();
                }
                "user_joined" => assert!(self.sees.insert(id("client_id")), "joined twice: {news}"),
                "user_left" => assert!(self.sees.remove(&id("client_id")), "was not there: {news}"),
                "message" => {
                    assert!(self.sees.contains(&id("from")), "a stranger spoke: {news}");
                    self.heard.push((id("from"), news["data"].as_u64().unwrap()));
                }
                "error" => {
                    assert_eq!(news["code"], "target_unreachable");
                    self.answered.insert(news["id"].as_u64().unwrap());
                }
                other => panic!("{other}"),
            }
            assert!(!self.sees.contains(&*self.peer.client_id), "sees itself");
        }
        if self.mailbox.disconnect_signal().reason().is_some() {
            self.is_over();
        }
    }
}

fn say(seat: &Membership, data: u64, to: Option<usize>) -> Result<bool, RouteError> {
    let frame = json!({"type":"message","data":data,"id":data,"to":to.map(|to| format!("c{to}"))})
        .to_string();
    match protocol::parse(&frame).message.unwrap() {
        ClientMessage::Signal(signal) => seat.send(&signal, Instant::now()),
        other => panic!("{other:?}"),
    }
}

/// With a clock that only goes when it is told to.
fn clock() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn live(acts: Vec<Act>) {
    let clock = clock();
    let _entered = clock.enter();
    let mut engine = RedisModel::default();
    let mut nodes: Vec<_> = (0..NODES).map(Node::new).collect();
    let mut members: Vec<Member> = Vec::new();
    for node in &mut nodes {
        node.heals(&mut engine);
    }

    let mut said = Vec::new();
    for act in acts {
        match act {
            Act::Join { node, room, id, user } => {
                let (room, client_id): (Arc<str>, Arc<str>) =
                    (format!("room {room}").into(), format!("c{id}").into());
                let peer = Peer { client_id, username: format!("u{user}").into(), name: None };
                let key = members.len() as u128 + 1;
                members.push(Member::joins(&nodes[node], node, room, peer, key));
            }
            // Also before it knows that it is in.
            Act::Leave { member } => {
                if let Some(member) = members.get_mut(member) {
                    member.is_over();
                }
            }
            Act::Move { member, node } => {
                if let Some(member) = members.get_mut(member) {
                    member.moves(&nodes, node);
                }
            }
            Act::Say { member, to } => {
                let speaker = members.get(member).filter(|member| member.fetching.is_none());
                let (number, speaker_number) = (said.len() as u64, member);
                if let Some((speaker, seat)) =
                    speaker.and_then(|speaker| Some((speaker, speaker.seat.as_ref()?)))
                {
                    let is_sent = say(seat, number, to).is_ok();
                    let is_meant = |(_, other): &(usize, &Member)| {
                        let id = &other.peer.client_id;
                        is_sent
                            && other.is_in
                            && other.room == speaker.room
                            && speaker.sees.contains(&**id)
                            && to.is_none_or(|to| **id == *format!("c{to}"))
                    };
                    let targets = members.iter().enumerate().filter(is_meant);
                    let targets: Vec<_> = targets.map(|(target, _)| target).collect();
                    // Of two that have one client id, one has been replaced, and does not know yet.
                    let is_alone = |target: &usize| {
                        let id = |member: &usize| members[*member].peer.client_id.clone();
                        targets.iter().filter(|other| id(other) == id(target)).count() == 1
                    };
                    let targets: Vec<_> = targets.iter().copied().filter(is_alone).collect();
                    said.push((speaker_number, targets));
                }
            }
            Act::Work { node, asks } => nodes[node].works(&mut engine, asks),
            Act::Read { node, entries } => nodes[node].reads(&mut engine, entries),
            Act::Cut { node } => nodes[node].is_cut(),
            Act::Heal { node } => nodes[node].heals(&mut engine),
            Act::Reap { node } => {
                if !nodes[node].is_up {
                    let name = nodes[node].name.clone();
                    engine.reap(&name);
                }
            }
            Act::Forget => {
                nodes.iter_mut().for_each(Node::is_cut);
                engine = RedisModel::default();
            }
        }
        for member in members.iter_mut() {
            if member.joining.is_some() || member.seat.is_some() {
                member.catches_up(&nodes);
            }
        }
    }

    // Everything heals and comes to rest; more than once, for what is heard last may ask for more.
    for _ in 0..6 {
        for node in &mut nodes {
            node.heals(&mut engine);
        }
        rests(&clock, &mut engine, &mut nodes, &mut members);
        for node in &mut nodes {
            let timings = ClusterTimings::default();
            let later = Instant::now()
                + timings.unconfirmed_member_ttl()
                + timings.outgoing_migration_timeout();
            node.gateway.expire_unconfirmed(&node.rooms, later);
            node.gateway.expire_incoming(later);
            node.answers(|unconfirmed, now| {
                unconfirmed.expire(timings.confirm_timeout(), now + timings.confirm_timeout())
            });
            // Whoever has not come back until now does not.
            node.kept.clear();
        }
    }
    assert!(members.iter().all(|member| member.joining.is_none() && member.fetching.is_none()));

    // Delivered or answered, as far as those who could have heard it are still there.
    for (number, (speaker, targets)) in said.iter().enumerate() {
        let (number, speaker) = (number as u64, &members[*speaker]);
        let targets = targets.iter().map(|target| &members[*target]);
        for target in targets.filter(|target| target.is_in && speaker.is_in) {
            let is_heard = target.heard.contains(&(speaker.peer.client_id.to_string(), number));
            assert!(
                is_heard || speaker.answered.contains(&number),
                "{number} of {} to {} is neither heard nor answered",
                speaker.peer.client_id,
                target.peer.client_id,
            );
        }
    }

    let inside: Vec<_> = members.iter().filter(|member| member.is_in).collect();
    let mut table = BTreeMap::<_, BTreeSet<String>>::new();
    for (room, held) in &engine.rooms {
        table.insert(room.clone(), held.keys().map(|id| id.to_string()).collect());
    }
    let mut ours = BTreeMap::<_, BTreeSet<String>>::new();
    for member in &inside {
        let is_new =
            ours.entry(member.room.clone()).or_default().insert(member.peer.client_id.to_string());
        assert!(is_new, "two hold {}", member.peer.client_id);
    }
    assert_eq!(ours, table, "who is in, and who the engine thinks is");
    for member in inside {
        let mut others = table[&member.room].clone();
        others.remove(&*member.peer.client_id);
        assert_eq!(member.sees, others, "{} in {}", member.peer.client_id, member.room);
    }
}

/// Whatever was asked is done, and heard of.
fn rests(clock: &Runtime, engine: &mut RedisModel, nodes: &mut [Node], members: &mut [Member]) {
    for _ in 0..8 {
        for node in &mut *nodes {
            node.works(engine, usize::MAX);
        }
        for node in &mut *nodes {
            node.reads(engine, usize::MAX);
        }
        for member in members.iter_mut().filter(|it| it.joining.is_some() || it.seat.is_some()) {
            member.catches_up(nodes);
        }
    }
    // Who waits for an answer that was lost asks again.
    clock.block_on(tokio::time::advance(Duration::from_secs(3)));
}

#[derive(Clone, Debug)]
enum Step {
    Say { member: usize, to: Option<usize> },
    Move { member: usize, node: usize },
    Work { node: usize, asks: usize },
    Read { node: usize, entries: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (node, member) = (|| 0..NODES, || 0..CAPACITY);
    let step = prop_oneof![
        6 => (member(), prop::option::of(member())).prop_map(|(member, to)| Step::Say { member, to }),
        3 => (member(), node()).prop_map(|(member, node)| Step::Move { member, node }),
        8 => (node(), 1..4_usize).prop_map(|(node, asks)| Step::Work { node, asks }),
        8 => (node(), 1..4_usize).prop_map(|(node, entries)| Step::Read { node, entries }),
    ];
    prop::collection::vec(step, 1..200)
}

/// Members of one room who talk while they go from node to node: everything is heard once, in the order of each
/// who said it, and nobody seems to leave.
fn wander(steps: Vec<Step>) {
    let clock = clock();
    let _entered = clock.enter();
    let mut engine = RedisModel::default();
    let mut nodes: Vec<_> = (0..NODES).map(Node::new).collect();
    for node in &mut nodes {
        node.heals(&mut engine);
    }
    let joins = |number: usize| {
        let peer =
            Peer { client_id: format!("c{number}").into(), username: "u".into(), name: None };
        Member::joins(
            &nodes[number % NODES],
            number % NODES,
            "room".into(),
            peer,
            number as u128 + 1,
        )
    };
    let mut members: Vec<_> = (0..CAPACITY).map(joins).collect();
    rests(&clock, &mut engine, &mut nodes, &mut members);

    let (mut said, mut expected) = (0, vec![BTreeMap::<String, Vec<u64>>::new(); CAPACITY]);
    for step in steps {
        match step {
            Step::Say { member, to } => {
                let speaker = &members[member];
                // While it is between two nodes it has no connection to say something on.
                let seat = speaker.seat.as_ref().filter(|_| speaker.fetching.is_none());
                if let Some(seat) = seat.filter(|_| to != Some(member)) {
                    said += 1;
                    say(seat, said, to).unwrap();
                    for (other, expected) in expected.iter_mut().enumerate() {
                        if other != member && to.is_none_or(|to| to == other) {
                            expected.entry(format!("c{member}")).or_default().push(said);
                        }
                    }
                }
            }
            Step::Move { member, node } => members[member].moves(&nodes, node),
            Step::Work { node, asks } => nodes[node].works(&mut engine, asks),
            Step::Read { node, entries } => nodes[node].reads(&mut engine, entries),
        }
        members.iter_mut().for_each(|member| member.catches_up(&nodes));
    }
    for _ in 0..4 {
        rests(&clock, &mut engine, &mut nodes, &mut members);
    }

    for (member, expected) in members.iter().zip(expected) {
        assert!(member.is_in && member.fetching.is_none(), "{} is out", member.peer.client_id);
        assert_eq!(member.sees.len(), CAPACITY - 1);
        let mut heard = BTreeMap::<String, Vec<u64>>::new();
        for (from, data) in &member.heard {
            heard.entry(from.clone()).or_default().push(*data);
        }
        assert_eq!(heard, expected, "what {} has heard", member.peer.client_id);
        assert!(member.answered.is_empty());
    }
}

/// A thousand schedules, or as many as `PROPTEST_CASES` says.
fn schedules() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(1_000),
    }
}

proptest! {
    #![proptest_config(schedules())]

    #[test]
    fn members_that_migrate_between_nodes_lose_no_message_and_are_not_announced(steps in steps()) {
        wander(steps);
    }

    #[test]
    fn every_schedule_ends_in_one_consistent_state(acts in acts()) {
        live(acts);
    }
}

/// A released membership that is replaced before its record moves: its node reads of the replacement last, when it has
/// stated the membership anew already, and the record moves after all. The client must not resume a list of members that
/// nobody has kept up to date.
#[test]
fn a_membership_that_ends_while_it_migrates_is_not_resumed_with_an_old_member_list() {
    let join = |node, room, id, user| Act::Join { node, room, id, user };
    live(vec![
        join(0, 0, 0, 0),
        join(0, 0, 0, 0),
        Act::Leave { member: 0 },
        Act::Leave { member: 0 },
        join(0, 1, 0, 0),
        join(2, 1, 2, 0),
        join(2, 0, 1, 1),
        Act::Work { node: 2, asks: 2 },
        join(0, 1, 3, 0),
        join(2, 0, 0, 1),
        Act::Leave { member: 7 },
        Act::Read { node: 2, entries: 1 },
        join(0, 0, 0, 0),
        Act::Move { member: 3, node: 1 },
        Act::Work { node: 2, asks: 1 },
        Act::Leave { member: 5 },
        join(2, 0, 0, 0),
        join(0, 0, 0, 0),
        join(0, 0, 0, 0),
        Act::Work { node: 1, asks: 1 },
        Act::Say { member: 0, to: None },
        Act::Read { node: 2, entries: 3 },
        join(2, 1, 2, 0),
        Act::Work { node: 2, asks: 2 },
        Act::Read { node: 1, entries: 1 },
        join(0, 0, 0, 0),
        Act::Work { node: 1, asks: 1 },
        join(0, 0, 0, 0),
        Act::Work { node: 2, asks: 1 },
        Act::Cut { node: 2 },
        join(0, 0, 0, 0),
    ]);
}

/// A seat that was let go, and then taken over elsewhere, is in nobody's way who has the client id after it.
#[test]
fn a_migration_that_was_not_claimed_does_not_keep_a_newer_membership_from_resuming() {
    let clock = clock();
    let _entered = clock.enter();
    let mut engine = RedisModel::default();
    let mut nodes: Vec<_> = (0..2).map(Node::new).collect();
    for node in &mut nodes {
        node.heals(&mut engine);
    }
    let joins = |nodes: &[Node], node: usize, key| {
        let peer = Peer { client_id: "c".into(), username: "u".into(), name: None };
        Member::joins(&nodes[node], node, "room".into(), peer, key)
    };
    let mut members = vec![joins(&nodes, 0, 1)];
    rests(&clock, &mut engine, &mut nodes, &mut members);

    // The engine acts on the takeover first, and the seat that was let go is no longer there to be moved.
    let from = engine.held("room", "c").unwrap().connection;
    let to = ConnectionId { node: "n1".into(), key: 7 };
    let migration = Migration { room: "room".into(), client_id: "c".into(), from, to };
    members[0].seat.as_ref().unwrap().detach();
    let (ends, context) = (None, "context".into());
    let claim = Claim { migration, membership: 1, ends, context };
    nodes[0].gateway.apply(&nodes[0].rooms, ClusterEvent::Claimed(claim));
    members.push(joins(&nodes, 1, 2));
    members[1].catches_up(&nodes);
    nodes[1].works(&mut engine, usize::MAX);
    rests(&clock, &mut engine, &mut nodes, &mut members);
    members.push(joins(&nodes, 0, 3));
    rests(&clock, &mut engine, &mut nodes, &mut members);

    assert!(members[2].is_in);
    members[2].seat.as_ref().unwrap().detach();
    assert!(members[2].sits_down(&nodes));
}
