//! Simulated nodes: they call the scripts of the server as servers do, without the cost of servers and clients.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use redis::{Cmd, Connection, FromRedisValue, Pipeline, Value};
use serde_json::json;

use super::{
    Outcome,
    engine::{Engine, PREFIX, Stats},
};

/// One of the scripts, after the constants and the library that all of them share, as the server sends it (`Scripts::new`).
macro_rules! script {
    ($name:literal) => {
        concat!(
            "local LEASE, INBOX_MAX_LEN, REAP_BATCH, SWEEP_BATCH = 8, 10000000, 32, 32\n",
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

/// Joins and leaves in one pipeline.
const AT_ONCE: usize = 64;
/// Rooms in one pipeline of a resync, as in the server.
const ROOMS_AT_ONCE: usize = 256;
/// The heartbeat interval of the server.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// A member, by numbers.
#[derive(Clone, Copy)]
pub struct Member {
    /// The room.
    pub room: usize,
    /// The index among the members of the room.
    pub place: usize,
    /// The node.
    pub node: usize,
}

/// The simulated nodes of one engine.
pub struct SimulatedNodes<'a> {
    engine: &'a Engine,
    connection: Connection,
    shas: HashMap<&'static str, String>,
    nodes: usize,
    last_heartbeat: Instant,
}

/// The cost of some calls.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// The number of calls.
    pub calls: usize,
    /// Processor time of the engine, in microseconds.
    pub cpu: f64,
    /// The duration of all calls, in seconds.
    pub seconds: f64,
    /// The duration of the longest call, in seconds.
    pub longest: f64,
}

impl<'a> SimulatedNodes<'a> {
    /// Registers so many nodes.
    pub fn register(engine: &'a Engine, nodes: usize) -> Outcome<Self> {
        let mut connection = engine.connection()?;
        let mut shas = HashMap::new();
        for script in [ENTER, JOIN, LEAVE, SYNC, BEAT, REAP] {
            let mut load = redis::cmd("SCRIPT");
            shas.insert(script, load.arg("LOAD").arg(script).query(&mut connection)?);
        }
        let mut simulated =
            Self { engine, connection, shas, nodes, last_heartbeat: Instant::now() };
        (0..nodes).try_for_each(|node| simulated.register_node(node))?;
        Ok(simulated)
    }

    /// Registers a node.
    pub fn register_node(&mut self, node: usize) -> Outcome<()> {
        let mut enter = self.call(ENTER);
        enter
            .arg(node_name(node))
            .arg("one life")
            .arg("process")
            .arg("{}")
            .arg("deployment")
            .arg("1");
        let _: Value = enter.query(&mut self.connection)?;
        Ok(())
    }

    /// Members join, in this order. Heartbeats of the nodes meanwhile are not part of the cost.
    pub fn join(&mut self, members: &[Member], capacity: usize) -> Outcome<Cost> {
        let join = |nodes: &Self, member: &Member| {
            let mut join = nodes.call(JOIN);
            join.arg(room_name(member.room)).arg(client_id(member)).arg(conn(member));
            join.arg(username(member)).arg(capacity).arg(0).arg("");
            join
        };
        self.call_for_all(members, join, |answer: &String| answer == "admitted")
    }

    /// Members leave, in reverse order.
    pub fn leave(&mut self, members: &[Member]) -> Outcome<Cost> {
        let leave = |nodes: &Self, member: &Member| {
            let mut leave = nodes.call(LEAVE);
            leave.arg(room_name(member.room)).arg(client_id(member)).arg(conn(member)).arg("left");
            leave
        };
        let reversed: Vec<_> = members.iter().rev().copied().collect();
        self.call_for_all(&reversed, leave, |records: &String| records == "[]")
    }

    fn call_for_all<T: FromRedisValue + std::fmt::Debug>(
        &mut self,
        members: &[Member],
        call: impl Fn(&Self, &Member) -> Cmd,
        is_expected: impl Fn(&T) -> bool,
    ) -> Outcome<Cost> {
        let mut cost = Cost::default();
        let mut meter = self.meter()?;
        for some in members.chunks(AT_ONCE) {
            if self.last_heartbeat.elapsed() > HEARTBEAT_INTERVAL {
                meter.stop(self.engine, &mut cost)?;
                self.send_heartbeats()?;
                meter = self.meter()?;
            }
            let mut pipe = Pipeline::with_capacity(some.len());
            some.iter().for_each(|member| _ = pipe.add_command(call(self, member)));
            let responses: Vec<T> = pipe.query(&mut self.connection)?;
            cost.calls += responses.len();
            if let Some(unexpected) = responses.iter().find(|response| !is_expected(response)) {
                return Err(format!("unexpected response of a script: {unexpected:?}").into());
            }
        }
        meter.stop(self.engine, &mut cost)?;
        Ok(cost)
    }

    /// Every node acknowledges its inbox with a heartbeat, so that inboxes are as short as in practice.
    pub fn send_heartbeats(&mut self) -> Outcome<()> {
        let mut last = redis::pipe();
        for node in 0..self.nodes {
            last.cmd("XREVRANGE").arg(inbox(node)).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let last: Vec<Vec<(String, Value)>> = last.query(&mut self.connection)?;
        let mut beats = redis::pipe();
        for (node, entries) in last.iter().enumerate() {
            let (read, _) = entries.first().ok_or("an inbox is empty")?;
            let mut beat = self.call(BEAT);
            beat.arg(node_name(node)).arg("process").arg("{}").arg(read).arg("deployment").arg("0");
            beats.add_command(beat);
        }
        let answers: Vec<(String, String)> = beats.query(&mut self.connection)?;
        self.last_heartbeat = Instant::now();
        if answers.iter().any(|(fault, lost)| !fault.is_empty() || !lost.is_empty()) {
            return Err("a node was reaped although it sends heartbeats".into());
        }
        Ok(())
    }

    /// Expires the lease of a node, and reaps it.
    pub fn reap(&mut self, node: usize) -> Outcome<Cost> {
        let mut over = redis::cmd("ZADD");
        over.arg(format!("{PREFIX}nodes")).arg(0).arg(node_name(node));
        let _: u8 = over.query(&mut self.connection)?;
        let mut reap = self.call(REAP);
        reap.arg(node_name(node)).arg("");
        let mut cost = Cost::default();
        let meter = self.meter()?;
        loop {
            let start = Instant::now();
            let (more, _records): (u8, String) = reap.query(&mut self.connection)?;
            cost.longest = cost.longest.max(start.elapsed().as_secs_f64());
            cost.calls += 1;
            if more == 0 {
                break;
            }
        }
        meter.stop(self.engine, &mut cost)?;
        Ok(cost)
    }

    /// A node resynchronises its members, room by room; `calls` is the number of rooms.
    pub fn resync(&mut self, node: usize, members: &NodeMembers) -> Outcome<Cost> {
        let mut cost = Cost::default();
        let meter = self.meter()?;
        let rooms: Vec<_> = members.0.iter().collect();
        let mut registration = redis::cmd("HGET");
        registration.arg(format!("{PREFIX}registrations")).arg(node_name(node));
        let registration: Option<String> = registration.query(&mut self.connection)?;
        let registration = registration.unwrap_or_default();
        for some in rooms.chunks(ROOMS_AT_ONCE) {
            let mut pipe = redis::pipe();
            for (room, members) in some {
                let mut sync = self.call(SYNC);
                sync.arg(room_name(**room)).arg(node_name(node)).arg(0).arg(0).arg("known");
                sync.arg(&registration);
                let members = members
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

    /// The members of a node, as the engine stores them.
    pub fn members_of(&mut self, node: usize, members: &[Member]) -> Outcome<NodeMembers> {
        let here = members.iter().filter(|member| member.node == node);
        let rooms: Vec<_> =
            here.map(|member| member.room).collect::<BTreeSet<_>>().into_iter().collect();
        let mut found = BTreeMap::new();
        let prefix = format!("{}.", node_name(node));
        for some in rooms.chunks(ROOMS_AT_ONCE) {
            let mut pipe = redis::pipe();
            some.iter().for_each(|room| _ = pipe.cmd("HGETALL").arg(table_of(*room)));
            let tables: Vec<Vec<(String, String)>> = pipe.query(&mut self.connection)?;
            for (room, mut table) in some.iter().zip(tables) {
                table.retain(|(_, record)| record.starts_with(&prefix));
                found.insert(*room, table);
            }
        }
        Ok(NodeMembers(found))
    }

    /// The number of members in all rooms, as the engine counts them.
    pub fn members(&mut self) -> Outcome<usize> {
        let rooms = format!("{PREFIX}rooms");
        let counts: Vec<usize> = redis::cmd("HVALS").arg(rooms).query(&mut self.connection)?;
        Ok(counts.iter().sum())
    }

    /// How many entries were ever added to the inboxes of some nodes.
    pub fn inbox_entries(&mut self, nodes: impl Iterator<Item = usize>) -> Outcome<u64> {
        let mut entries = 0;
        for node in nodes {
            let mut info = redis::cmd("XINFO");
            let info: HashMap<String, Value> =
                info.arg("STREAM").arg(inbox(node)).query(&mut self.connection)?;
            let added = info.get("entries-added").cloned().ok_or("XINFO has no entries-added")?;
            entries += redis::from_redis_value::<u64>(added)?;
        }
        Ok(entries)
    }

    fn call(&self, script: &str) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.shas.get(script)).arg(1).arg(PREFIX);
        call
    }

    fn meter(&self) -> Outcome<Meter> {
        Ok(Meter { before: self.engine.stats()?, start: Instant::now() })
    }
}

/// The members of one node by room: client ids and member records.
pub struct NodeMembers(BTreeMap<usize, Vec<(String, String)>>);

impl NodeMembers {
    /// The number of rooms, and of members.
    pub fn count(&self) -> (usize, usize) {
        (self.0.len(), self.0.values().map(Vec::len).sum())
    }
}

struct Meter {
    before: Stats,
    start: Instant,
}

impl Meter {
    fn stop(self, engine: &Engine, cost: &mut Cost) -> Outcome<()> {
        cost.seconds += self.start.elapsed().as_secs_f64();
        cost.cpu += (engine.stats()?.cpu - self.before.cpu).as_secs_f64() * 1e6;
        Ok(())
    }
}

/// For each of `members`, how many other nodes had members in its room when it joined: so many are notified.
pub fn join_notifications(members: &[Member]) -> Vec<usize> {
    let mut nodes: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    let others = |member: &Member| {
        let here = nodes.entry(member.room).or_default();
        let others = here.iter().filter(|node| **node != member.node).count();
        here.insert(member.node);
        others
    };
    members.iter().map(others).collect()
}

/// How many notifications other nodes get when all members of `node` leave.
pub fn leave_notifications(members: &[Member], node: usize) -> usize {
    let mut nodes: HashMap<usize, BTreeSet<usize>> = HashMap::new();
    for member in members.iter().filter(|member| member.node != node) {
        nodes.entry(member.room).or_default().insert(member.node);
    }
    let failed = members.iter().filter(|member| member.node == node);
    failed.map(|member| nodes.get(&member.room).map_or(0, BTreeSet::len)).sum()
}

// Names are as long as those that servers assign. The length matters: a hash with a value of more than 64 bytes costs
// Redis more (`hash-max-listpack-value`).

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
