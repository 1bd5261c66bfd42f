//! Nodes that are played: the engine hears from them what it hears from servers, by the scripts of the server, and
//! nothing else has to be paid for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use redis::{Cmd, Connection, FromRedisValue, Pipeline, Value};
use serde_json::json;

use super::{
    Outcome,
    engine::{Engine, Figures, PREFIX},
};

/// One of the scripts, with constants and what all of them share in front of it, as the server does (`Scripts::new`).
macro_rules! script {
    ($name:literal) => {
        concat!(
            "local LEASE, INBOX_MAX_LEN, REAP_BATCH = 8, 100000, 32\n",
            include_str!("../../../src/cluster/scripts/lib.lua"),
            include_str!(concat!("../../../src/cluster/scripts/", $name))
        )
    };
}

const ENTER: &str = script!("register.lua");
const JOIN: &str = script!("join.lua");
const LEAVE: &str = script!("leave.lua");
const SYNC: &str = script!("resync.lua");
const BEAT: &str = script!("heartbeat.lua");
const REAP: &str = script!("reap.lua");

/// Joins and leaves that are on their way at once: they are sent together, and answered before the next are sent.
const AT_ONCE: usize = 64;
/// Rooms that a node states at once, as the server does.
const ROOMS_AT_ONCE: usize = 256;
/// As the server does.
const BEAT_EVERY: Duration = Duration::from_secs(2);

/// Who is where, by numbers.
#[derive(Clone, Copy)]
pub struct Member {
    /// The room.
    pub room: usize,
    /// Which of its members.
    pub place: usize,
    /// The node.
    pub node: usize,
}

/// Nodes of one engine.
pub struct Town<'a> {
    engine: &'a Engine,
    connection: Connection,
    shas: HashMap<&'static str, String>,
    nodes: usize,
    beaten: Instant,
}

/// What some calls cost.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// How many there were.
    pub calls: usize,
    /// Processor time of the engine, in microseconds.
    pub cpu: f64,
    /// From asking to answer, over all, in seconds.
    pub seconds: f64,
    /// The same of the one that took longest.
    pub longest: f64,
}

impl<'a> Town<'a> {
    /// So many nodes say that they are there.
    pub fn open(engine: &'a Engine, nodes: usize) -> Outcome<Self> {
        let mut connection = engine.connection()?;
        let mut shas = HashMap::new();
        for script in [ENTER, JOIN, LEAVE, SYNC, BEAT, REAP] {
            let mut load = redis::cmd("SCRIPT");
            shas.insert(script, load.arg("LOAD").arg(script).query(&mut connection)?);
        }
        let mut town = Self { engine, connection, shas, nodes, beaten: Instant::now() };
        (0..nodes).try_for_each(|node| town.enters(node))?;
        Ok(town)
    }

    /// A node says that it is there.
    pub fn enters(&mut self, node: usize) -> Outcome<()> {
        let mut enter = self.call(ENTER);
        enter.arg(node_name(node)).arg("one life");
        let _: Value = enter.query(&mut self.connection)?;
        Ok(())
    }

    /// Members come, in this order. What nodes do meanwhile is not part of the cost: they read and they beat.
    pub fn join(&mut self, members: &[Member], capacity: usize) -> Outcome<Cost> {
        let join = |town: &Self, member: &Member| {
            let mut join = town.call(JOIN);
            join.arg(room_name(member.room)).arg(client_id(member)).arg(conn(member));
            join.arg(username(member)).arg(capacity);
            join
        };
        self.all(members, join, |answer: &String| answer == "admitted")
    }

    /// Members leave, the last who came first.
    pub fn leave(&mut self, members: &[Member]) -> Outcome<Cost> {
        let leave = |town: &Self, member: &Member| {
            let mut leave = town.call(LEAVE);
            leave.arg(room_name(member.room)).arg(client_id(member)).arg(conn(member)).arg("left");
            leave
        };
        let backwards: Vec<_> = members.iter().rev().copied().collect();
        self.all(&backwards, leave, |records: &String| records == "[]")
    }

    fn all<T: FromRedisValue + std::fmt::Debug>(
        &mut self,
        members: &[Member],
        call: impl Fn(&Self, &Member) -> Cmd,
        is_right: impl Fn(&T) -> bool,
    ) -> Outcome<Cost> {
        let mut cost = Cost::default();
        let mut meter = self.meter()?;
        for some in members.chunks(AT_ONCE) {
            if self.beaten.elapsed() > BEAT_EVERY {
                meter.stop(self.engine, &mut cost)?;
                self.beat()?;
                meter = self.meter()?;
            }
            let mut pipe = Pipeline::with_capacity(some.len());
            some.iter().for_each(|member| _ = pipe.add_command(call(self, member)));
            let answers: Vec<T> = pipe.query(&mut self.connection)?;
            cost.calls += answers.len();
            if let Some(wrong) = answers.iter().find(|answer| !is_right(answer)) {
                return Err(format!("a script answers {wrong:?}").into());
            }
        }
        meter.stop(self.engine, &mut cost)?;
        Ok(cost)
    }

    /// Every node has read its inbox, and beats: so inboxes are as short as in life.
    pub fn beat(&mut self) -> Outcome<()> {
        let mut last = redis::pipe();
        for node in 0..self.nodes {
            last.cmd("XREVRANGE").arg(inbox(node)).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let last: Vec<Vec<(String, Value)>> = last.query(&mut self.connection)?;
        let mut beats = redis::pipe();
        for (node, entries) in last.iter().enumerate() {
            let (read, _) = entries.first().ok_or("an inbox is empty")?;
            let mut beat = self.call(BEAT);
            beat.arg(node_name(node)).arg(read);
            beats.add_command(beat);
        }
        let answers: Vec<String> = beats.query(&mut self.connection)?;
        self.beaten = Instant::now();
        if answers.iter().any(|answer| !answer.is_empty()) {
            return Err("a node that beats is taken for dead".into());
        }
        Ok(())
    }

    /// A node dies, its lease is over, and another lets its members leave.
    pub fn reap(&mut self, node: usize) -> Outcome<Cost> {
        let mut over = redis::cmd("ZADD");
        over.arg(format!("{PREFIX}nodes")).arg(0).arg(node_name(node));
        let _: u8 = over.query(&mut self.connection)?;
        let mut reap = self.call(REAP);
        reap.arg(node_name(node)).arg("");
        let mut cost = Cost::default();
        let meter = self.meter()?;
        loop {
            let began = Instant::now();
            let (more, _records): (u8, String) = reap.query(&mut self.connection)?;
            cost.longest = cost.longest.max(began.elapsed().as_secs_f64());
            cost.calls += 1;
            if more == 0 {
                break;
            }
        }
        meter.stop(self.engine, &mut cost)?;
        Ok(cost)
    }

    /// A node states its `seats`, room by room; `calls` is how many rooms.
    pub fn sync(&mut self, node: usize, seats: &Seats) -> Outcome<Cost> {
        let mut cost = Cost::default();
        let meter = self.meter()?;
        let rooms: Vec<_> = seats.0.iter().collect();
        for some in rooms.chunks(ROOMS_AT_ONCE) {
            let mut pipe = redis::pipe();
            for (room, seats) in some {
                let mut sync = self.call(SYNC);
                sync.arg(room_name(**room)).arg(node_name(node)).arg(0).arg(0).arg("known");
                let members = seats
                    .iter()
                    .map(|(client_id, record)| json!({ "client_id": client_id, "record": record }));
                sync.arg(members.collect::<serde_json::Value>().to_string());
                pipe.add_command(sync);
            }
            let answers: Vec<(u8, String)> = pipe.query(&mut self.connection)?;
            cost.calls += answers.len();
        }
        meter.stop(self.engine, &mut cost)?;
        Ok(cost)
    }

    /// The seats of a node, as the engine has them.
    pub fn seats(&mut self, node: usize, members: &[Member]) -> Outcome<Seats> {
        let here = members.iter().filter(|member| member.node == node);
        let rooms: Vec<_> =
            here.map(|member| member.room).collect::<BTreeSet<_>>().into_iter().collect();
        let mut seats = BTreeMap::new();
        let of_node = format!("{}.", node_name(node));
        for some in rooms.chunks(ROOMS_AT_ONCE) {
            let mut pipe = redis::pipe();
            some.iter().for_each(|room| _ = pipe.cmd("HGETALL").arg(table_of(*room)));
            let tables: Vec<Vec<(String, String)>> = pipe.query(&mut self.connection)?;
            for (room, mut table) in some.iter().zip(tables) {
                table.retain(|(_, seat)| seat.starts_with(&of_node));
                seats.insert(*room, table);
            }
        }
        Ok(Seats(seats))
    }

    /// How many members the engine counts in all rooms together.
    pub fn members(&mut self) -> Outcome<usize> {
        let rooms = format!("{PREFIX}rooms");
        let counts: Vec<usize> = redis::cmd("HVALS").arg(rooms).query(&mut self.connection)?;
        Ok(counts.iter().sum())
    }

    /// How many entries the inboxes of some nodes have ever had.
    pub fn told(&mut self, nodes: impl Iterator<Item = usize>) -> Outcome<u64> {
        let mut told = 0;
        for node in nodes {
            let mut info = redis::cmd("XINFO");
            let info: HashMap<String, Value> =
                info.arg("STREAM").arg(inbox(node)).query(&mut self.connection)?;
            let added = info.get("entries-added").cloned().ok_or("XINFO tells no entries-added")?;
            told += redis::from_redis_value::<u64>(added)?;
        }
        Ok(told)
    }

    fn call(&self, script: &str) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.shas.get(script)).arg(1).arg(PREFIX);
        call
    }

    fn meter(&self) -> Outcome<Meter> {
        Ok(Meter { before: self.engine.figures()?, began: Instant::now() })
    }
}

/// Who of one node is in which room: client ids and seats.
pub struct Seats(BTreeMap<usize, Vec<(String, String)>>);

impl Seats {
    /// How many rooms, and how many seats.
    pub fn count(&self) -> (usize, usize) {
        (self.0.len(), self.0.values().map(Vec::len).sum())
    }
}

struct Meter {
    before: Figures,
    began: Instant,
}

impl Meter {
    fn stop(self, engine: &Engine, cost: &mut Cost) -> Outcome<()> {
        cost.seconds += self.began.elapsed().as_secs_f64();
        cost.cpu += (engine.figures()?.cpu - self.before.cpu).as_secs_f64() * 1e6;
        Ok(())
    }
}

/// For each of `members`, how many other nodes were in its room when it came: so many heard of it.
pub fn neighbours(members: &[Member]) -> Vec<usize> {
    let mut nodes: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    let others = |member: &Member| {
        let here = nodes.entry(member.room).or_default();
        let others = here.iter().filter(|node| **node != member.node).count();
        here.insert(member.node);
        others
    };
    members.iter().map(others).collect()
}

/// How many other nodes are told when all members leave that `node` has.
pub fn bereaved(members: &[Member], node: usize) -> usize {
    let mut nodes: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    for member in members.iter().filter(|member| member.node != node) {
        nodes.entry(member.room).or_default().insert(member.node);
    }
    let dead = members.iter().filter(|member| member.node == node);
    dead.map(|member| nodes.get(&member.room).map_or(0, BTreeSet::len)).sum()
}

// Names are as long as those that servers make where nobody chooses others: it matters, for a hash with a longer value
// than 64 bytes costs Redis more (`hash-max-listpack-value`).

fn node_name(node: usize) -> String {
    format!("{node:032x}")
}

fn client_id(member: &Member) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", member.room, member.place)
}

fn conn(member: &Member) -> String {
    format!("{}.{:016x}", node_name(member.node), (member.room << 16) + member.place)
}

fn username(member: &Member) -> String {
    format!("user-{:07}", member.room)
}

fn room_name(room: usize) -> String {
    format!("room-{room:07}")
}

fn table_of(room: usize) -> String {
    format!("{PREFIX}room:{}", room_name(room))
}

fn inbox(node: usize) -> String {
    format!("{PREFIX}inbox:{}", node_name(node))
}
