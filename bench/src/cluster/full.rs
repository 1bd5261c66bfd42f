//! Three servers with as many real members as the limit of file descriptors allows: one member of each room on each server. A process of
//! its own has the members of each server.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use memchr::memmem;

use super::{Outcome, Plan, cross::BYTES, engine::Engine};
use crate::{
    load::{Identity, Load, Scenario},
    max_connections,
    report::{Row, latencies},
    scenarios::{Steady, join_all, relay::Relay, round, run_for},
    subject::{Subject, settle},
};

/// The first argument of a process that has members.
pub const HOLD: &str = "hold";

const NODES: usize = 3;

/// What such a process says when all its members have joined, and when each of them has been told that a peer has left.
const JOINED: &str = "joined";
const TOLD: &str = "told";

/// How long they are measured while nobody sends anything, in rounds: some heartbeats by default.
const IDLE_ROUNDS: u32 = 14;

/// Longer than a node that is killed has a lease, and the others need to be told.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Members that send nothing.
#[derive(Default)]
struct Members {
    joined: usize,
    told: usize,
}

impl Scenario for Members {
    fn joined(&mut self, _load: &mut Load, _index: usize) -> io::Result<()> {
        self.joined += 1;
        Ok(())
    }

    fn received(&mut self, _load: &mut Load, _index: usize, message: &[u8]) -> io::Result<()> {
        self.told += usize::from(memmem::find(message, br#""user_left""#).is_some());
        Ok(())
    }

    fn disconnected(&mut self, _load: &mut Load, _index: usize) -> io::Result<()> {
        Ok(())
    }
}

/// Has members until it is killed. The arguments are the address of their server, its number, and how many they are.
pub fn hold(arguments: impl Iterator<Item = String>) -> Outcome<()> {
    let arguments: Vec<String> = arguments.collect();
    let [address, node, members] = &arguments[..] else {
        return Err("an address, a number and a number of members".into());
    };
    let (node, count): (usize, usize) = (node.parse()?, members.parse()?);
    let mut load = Load::new(address.parse()?, Subject::token())?;
    let mut members = Members::default();
    let identities =
        (0..count).map(|room| Identity { room: format!("full-{room}"), id: format!("m{node}") });
    join_all(&mut load, &mut members, identities, |members| members.joined)?;
    say(JOINED)?;
    let mut was_told = false;
    loop {
        load.turn(&mut members, Duration::from_secs(1))?;
        if members.told >= count && !was_told {
            say(TOLD)?;
            was_told = true;
        }
    }
}

fn say(word: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{word}")?;
    out.flush()
}

/// A process that has the members of one server; it is killed when this is dropped.
struct Holder {
    process: Child,
    /// Its lines, and when each came.
    said: mpsc::Receiver<(String, Instant)>,
}

impl Holder {
    fn start(server: &Subject, node: usize, members: usize) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args([HOLD, &server.address.to_string(), &node.to_string(), &members.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let (says, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = says.send((line, Instant::now()));
            }
        });
        Ok(Self { process, said })
    }

    /// Waits for its next line, while `meanwhile` is called; when that came.
    fn expect(
        &self,
        word: &str,
        mut meanwhile: impl FnMut() -> io::Result<()>,
    ) -> Outcome<Instant> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            match self.said.try_recv() {
                Ok((line, at)) if line == word => return Ok(at),
                Ok((line, _)) => return Err(format!("not {word}, but {line}").into()),
                Err(mpsc::TryRecvError::Empty) => meanwhile()?,
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(
                        format!("the process of a server's members ended before {word}").into()
                    );
                }
            }
        }
        Err(format!("no {word} in time").into())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The members join, and send nothing; two others talk across servers, also while a server is killed.
pub fn measure(plan: &Plan) -> Outcome<Vec<Row>> {
    let each = max_connections().saturating_sub(800).min(plan.members / NODES);
    let members = NODES * each;
    let engine = Engine::start(plan.engine_core)?;
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let name = format!("n{node}");
        nodes.push(Subject::start_node(&plan.server, &plan.node_cores, &engine.url(), &name)?);
    }
    let cpu = |nodes: &[Subject]| {
        nodes.iter().try_fold(Duration::ZERO, |sum, node| io::Result::Ok(sum + node.cpu()?))
    };
    let resident = |nodes: &[Subject]| {
        nodes.iter().try_fold(0, |sum, node| io::Result::Ok(sum + node.resident()?))
    };
    let (start, before) = (Instant::now(), (cpu(&nodes)?, resident(&nodes)?, engine.stats()?));
    let mut holders = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        holders.push(Holder::start(node, number, each)?);
    }
    for holder in &holders {
        holder.expect(JOINED, || {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        })?;
    }
    let seconds = start.elapsed().as_secs_f64();
    nodes.iter().try_for_each(settle)?;
    let after = (cpu(&nodes)?, resident(&nodes)?, engine.stats()?);

    // Some heartbeats, and what else is done at intervals.
    let (start, from) = (Instant::now(), (cpu(&nodes)?, engine.stats()?.cpu));
    std::thread::sleep(plan.length * IDLE_ROUNDS);
    let idle = start.elapsed().as_secs_f64();
    let (idle_nodes, idle_engine) = (cpu(&nodes)? - from.0, engine.stats()?.cpu - from.1);

    let addresses = nodes[..2].iter().map(|node| node.address).collect();
    let mut load = Load::over(addresses, Subject::token())?;
    let mut pair = Relay::flood(&mut load, 1, 1, BYTES)?.introduce(&mut load)?;
    let calm = round(|| Ok(()), &mut load, &mut pair, 4 * plan.length)?.latency;

    // Its lease ends, and the two others tell their members.
    pair.start(&mut load)?;
    pair.take_latency();
    let killed = Instant::now();
    drop(nodes.pop());
    drop(holders.pop());
    let mut told = Duration::ZERO;
    for holder in &holders {
        let at =
            holder.expect(TOLD, || run_for(&mut load, &mut pair, Duration::from_millis(100)))?;
        told = told.max(at - killed);
    }
    let meanwhile = pair.take_latency();
    let scenario = format!("{members} members on three servers");
    let per_member = |value: f64| value / members as f64;
    let micros = |duration: Duration| duration.as_secs_f64() * 1e6;
    let row = |measure, unit, value| Row::alone(&*scenario, measure, unit, value);
    let p99 = |latency: &Histogram<u64>| latency.value_at_quantile(0.99) as f64;
    let talk = |what: &str, latency: &Histogram<u64>| Row {
        latency: [latencies(latency), serde_json::json!({})],
        ..Row::alone(
            format!("{scenario}, a pair on two of them, {what}"),
            "us p99",
            "message",
            p99(latency),
        )
    };
    Ok(vec![
        row("joins", "second", members as f64 / seconds),
        row("us CPU of all servers", "join", per_member(micros(after.0 - before.0))),
        row("us CPU of the engine", "join", per_member(micros(after.2.cpu - before.2.cpu))),
        row("KiB of all servers", "member", per_member((after.1 - before.1) as f64 / 1024.0)),
        row("bytes of the engine", "member", per_member((after.2.memory - before.2.memory) as f64)),
        row("ms CPU of all servers", "second without messages", micros(idle_nodes) / 1e3 / idle),
        row("ms CPU of the engine", "second without messages", micros(idle_engine) / 1e3 / idle),
        talk("calm", &calm),
        row("s until the last is told", "server that is killed", told.as_secs_f64()),
        talk("meanwhile", &meanwhile),
    ])
}
