//! Three registries and a model of the scripts, through random schedules: who joins, leaves and says something, when
//! the engine acts on it and when a node hears of it, who is cut off, given up and heals, and when the engine forgets.
//!
//! After each step every member's frames must add up; in the end all must agree with the engine.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Waker},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use signaling::{
    outbox::{self, Mailbox},
    rooms::{
        JoinError, Peer, Rooms, RouteError, Seat,
        far::{Ask, Conn, DOUBT, Fact, Far, Holder},
    },
    wire::{self, ClientMessage},
};
use tokio::{sync::mpsc::UnboundedReceiver, time::Instant};

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
        8 => (node(), 1..4_usize).prop_map(|(node, asks)| Act::Work { node, asks }),
        8 => (node(), 1..4_usize).prop_map(|(node, entries)| Act::Read { node, entries }),
        1 => node().prop_map(|node| Act::Cut { node }),
        2 => node().prop_map(|node| Act::Heal { node }),
        1 => node().prop_map(|node| Act::Reap { node }),
        1 => Just(Act::Forget),
    ];
    prop::collection::vec(act, 1..200)
}

/// What `src/cluster/*.lua` do.
#[derive(Default)]
struct Engine {
    rooms: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Holder>>,
    inboxes: BTreeMap<Arc<str>, VecDeque<Fact>>,
    arrivals: u64,
}

impl Engine {
    fn post(&mut self, node: &str, fact: Fact) {
        if let Some(inbox) = self.inboxes.get_mut(node) {
            inbox.push_back(fact);
        }
    }

    fn tell(&mut self, room: &str, except: &str, fact: &Fact) {
        let members = self.rooms.get(room).into_iter().flat_map(BTreeMap::values);
        let nodes: BTreeSet<_> = members.map(|holder| holder.conn.node.clone()).collect();
        for node in nodes.iter().filter(|node| ***node != *except) {
            self.post(node, fact.clone());
        }
    }

    fn left(&mut self, room: &Arc<str>, holder: &Holder, except: &str) {
        let client_id = holder.peer.client_id.clone();
        let conn = holder.conn.clone();
        self.tell(
            room,
            except,
            &Fact::Left { room: room.clone(), client_id: client_id.clone(), conn },
        );
        let members = self.rooms.get_mut(room).unwrap();
        members.remove(&client_id);
        if members.is_empty() {
            self.rooms.remove(room);
        }
    }

    fn held(&self, room: &str, client_id: &str) -> Option<Holder> {
        self.rooms.get(room)?.get(client_id).cloned()
    }

    fn everyone(&self, room: &str) -> Vec<Holder> {
        self.rooms.get(room).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    fn add(&mut self, room: &Arc<str>, holder: Holder) {
        self.rooms.entry(room.clone()).or_default().insert(holder.peer.client_id.clone(), holder);
    }

    fn enter(&mut self, node: &Arc<str>) {
        self.inboxes.entry(node.clone()).or_default();
    }

    fn join(&mut self, room: &Arc<str>, peer: Peer, conn: Conn) -> Result<(), JoinError> {
        let held = self.held(room, &peer.client_id);
        match &held {
            Some(held) if held.peer.username != peer.username => {
                return Err(JoinError::ClientIdTaken);
            }
            None if self.rooms.get(room).is_some_and(|room| room.len() >= CAPACITY) => {
                return Err(JoinError::Full);
            }
            Some(held) => self.left(room, held, ""),
            None => {}
        }
        self.arrivals += 1;
        let (node, arrival) = (conn.node.clone(), self.arrivals);
        let holder = Holder { peer, conn, arrival };
        self.tell(room, &node, &Fact::Joined { room: room.clone(), holder: holder.clone() });
        self.add(room, holder.clone());
        let everyone = self.everyone(room);
        self.post(&node, Fact::Seated { room: room.clone(), holder, everyone });
        Ok(())
    }

    fn leave(&mut self, room: &Arc<str>, client_id: &str, conn: &Conn) {
        if let Some(held) = self.held(room, client_id).filter(|held| held.conn == *conn) {
            self.left(room, &held, &conn.node);
        }
    }

    fn sync(&mut self, room: &Arc<str>, node: &Arc<str>, stated: &[Holder]) {
        for held in self.everyone(room) {
            if held.conn.node == *node && !stated.contains(&held) {
                self.left(room, &held, node);
            }
        }
        for holder in stated {
            match self.held(room, &holder.peer.client_id) {
                None => {
                    self.tell(
                        room,
                        node,
                        &Fact::Joined { room: room.clone(), holder: holder.clone() },
                    );
                    self.add(room, holder.clone());
                }
                Some(held) if held == *holder => {}
                Some(_) => {
                    let (client_id, conn) = (holder.peer.client_id.clone(), holder.conn.clone());
                    self.post(node, Fact::Left { room: room.clone(), client_id, conn });
                }
            }
            self.arrivals = self.arrivals.max(holder.arrival);
        }
        if !stated.is_empty() {
            let everyone = self.everyone(room);
            self.post(node, Fact::Picture { room: room.clone(), everyone });
        }
    }

    fn reap(&mut self, node: &str) {
        self.inboxes.remove(node);
        for room in self.rooms.keys().cloned().collect::<Vec<_>>() {
            for held in self.everyone(&room).into_iter().filter(|held| *held.conn.node == *node) {
                self.left(&room, &held, node);
            }
        }
    }
}

struct Node {
    name: Arc<str>,
    rooms: Rooms,
    far: Arc<Far>,
    asked: UnboundedReceiver<Ask>,
    is_up: bool,
}

impl Node {
    fn new(number: usize) -> Self {
        let name: Arc<str> = format!("n{number}").into();
        let (far, mut asked) = Far::new(name.clone(), 1);
        let far = Arc::new(far);
        let rooms = Rooms::clustered(far.clone());
        Self { name, rooms, far, asked: asked.remove(0), is_up: false }
    }

    fn works(&mut self, engine: &mut Engine, asks: usize) {
        for _ in 0..asks {
            let Some(ask) = self.is_up.then(|| self.asked.try_recv().ok()).flatten() else {
                return;
            };
            let conn = |key| Conn { node: self.name.clone(), key };
            match ask {
                Ask::Join { room, peer, key } => {
                    if let Err(why) = engine.join(&room, peer, conn(key)) {
                        self.far.refused(key, why);
                    }
                }
                Ask::Leave { room, client_id, key } => engine.leave(&room, &client_id, &conn(key)),
                Ask::Say { node, room, from, key, to, frame } => {
                    engine.post(&node, Fact::Said { room, from, conn: conn(key), to, frame });
                }
                Ask::State { .. } => unreachable!("nobody goes away"),
            }
        }
    }

    fn reads(&mut self, engine: &mut Engine, entries: usize) {
        for _ in 0..entries {
            let inbox = engine.inboxes.get_mut(&self.name).filter(|_| self.is_up);
            let Some(fact) = inbox.and_then(VecDeque::pop_front) else { return };
            self.rooms.apply(fact);
        }
    }

    fn is_cut(&mut self) {
        self.is_up = false;
        self.far.engine_is(0, false);
    }

    fn heals(&mut self, engine: &mut Engine) {
        if self.is_up {
            return;
        }
        while self.asked.try_recv().is_ok() {}
        engine.enter(&self.name);
        let mut ours: BTreeMap<_, _> = self.rooms.ours(0).into_iter().collect();
        let with_seats = engine
            .rooms
            .iter()
            .filter(|(_, room)| room.values().any(|held| held.conn.node == self.name));
        for room in with_seats.map(|(room, _)| room.clone()).collect::<Vec<_>>() {
            ours.entry(room).or_default();
        }
        for (room, stated) in ours {
            engine.sync(&room, &self.name, &stated);
        }
        self.is_up = true;
        self.far.engine_is(0, true);
    }
}

type Joining = Pin<Box<dyn Future<Output = Result<Seat, JoinError>>>>;

/// Somebody, and what its frames add up to.
struct Member {
    room: Arc<str>,
    peer: Peer,
    mailbox: Mailbox,
    joining: Option<Joining>,
    seat: Option<Seat>,
    is_in: bool,
    sees: BTreeSet<String>,
}

impl Member {
    fn catches_up(&mut self) {
        if let Some(joining) = &mut self.joining
            && let std::task::Poll::Ready(joined) =
                joining.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            self.joining = None;
            self.is_in = joined.is_ok();
            self.seat = joined.ok();
        }
        while let Some(frame) = self.mailbox.next_now() {
            let news: Value = serde_json::from_str(&frame).unwrap();
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
                "message" => assert!(self.sees.contains(&id("from")), "a stranger spoke: {news}"),
                other => panic!("{other}"),
            }
            assert!(!self.sees.contains(&*self.peer.client_id), "sees itself");
        }
        if self.mailbox.notice().now().is_some() {
            self.is_in = false;
            self.seat = None;
        }
    }
}

fn say(seat: &Seat, to: Option<usize>) -> Result<bool, RouteError> {
    let frame = json!({"type":"message","data":1,"to":to.map(|to| format!("c{to}"))}).to_string();
    match wire::read(&frame).message.unwrap() {
        ClientMessage::Signal(signal) => seat.send(&signal, Instant::now()),
        other => panic!("{other:?}"),
    }
}

fn live(acts: Vec<Act>) {
    let mut engine = Engine::default();
    let mut nodes: Vec<_> = (0..NODES).map(Node::new).collect();
    let mut members: Vec<Member> = Vec::new();
    for node in &mut nodes {
        node.heals(&mut engine);
    }

    for act in acts {
        match act {
            Act::Join { node, room, id, user } => {
                let (room, client_id): (Arc<str>, Arc<str>) =
                    (format!("room {room}").into(), format!("c{id}").into());
                let peer = Peer { client_id, username: format!("u{user}").into() };
                let (outbox, mailbox) = outbox::pair();
                let (rooms, place, who) = (nodes[node].rooms.clone(), room.clone(), peer.clone());
                let joining: Joining =
                    Box::pin(async move { Seat::ask(&rooms, &place, who, outbox).await });
                members.push(Member {
                    room,
                    peer,
                    mailbox,
                    joining: Some(joining),
                    seat: None,
                    is_in: false,
                    sees: BTreeSet::new(),
                });
            }
            // Also before it knows that it is in.
            Act::Leave { member } => {
                if let Some(member) = members.get_mut(member) {
                    member.joining = None;
                    member.seat = None;
                    member.is_in = false;
                }
            }
            Act::Say { member, to } => {
                if let Some(seat) = members.get(member).and_then(|member| member.seat.as_ref()) {
                    let _ = say(seat, to);
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
                engine = Engine::default();
            }
        }
        for member in members.iter_mut() {
            if member.joining.is_some() || member.seat.is_some() {
                member.catches_up();
            }
        }
    }

    // Everything heals and comes to rest; twice, for what is heard last may ask for more.
    for _ in 0..3 {
        for node in &mut nodes {
            node.heals(&mut engine);
        }
        for _ in 0..3 {
            for node in &mut nodes {
                node.works(&mut engine, usize::MAX);
            }
            for node in &mut nodes {
                node.reads(&mut engine, usize::MAX);
            }
            for member in members.iter_mut().filter(|it| it.joining.is_some() || it.seat.is_some())
            {
                member.catches_up();
            }
        }
        for node in &nodes {
            node.rooms.doubts(Instant::now() + DOUBT);
        }
    }
    for member in members.iter_mut().filter(|member| member.seat.is_some()) {
        member.catches_up();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_schedule_ends_with_one_picture(acts in acts()) {
        live(acts);
    }
}
