//! The cost of a message to a peer on another node, compared with one server alone, with bare programs with the same hops, and the
//! engine's share of it with the bare loop.

use std::{io, time::Duration};

use serde_json::json;

use super::{
    Outcome, Plan,
    bare::{self, Window},
    engine::{Engine, Stats, Work},
};
use crate::{
    load::Load,
    report::{Row, Target, latencies, latency_of, median},
    scenarios::{Round, relay::Relay, round},
    subject::{Kind, Subject},
};

/// Pairs that send as fast as they can.
const PAIRS: usize = 8;
/// Messages in flight in each pair: as many in all as in the relay of 64 rooms.
const AT_ONCE: usize = 8;
/// A message of this size makes a frame of 600 bytes.
pub const BYTES: usize = 672;

/// A sample of all processes: the statistics of the engine, and the processor time of the two that relay.
type Sample = (Stats, Duration);

/// The measurements, by round. The rounds of different fields with the same number were measured one after the other.
#[derive(Default)]
struct Rounds {
    single: Vec<Round<Sample>>,
    single_bare: Vec<Round<Sample>>,
    flood: Vec<Round<Sample>>,
    flood_bare: Vec<Round<Sample>>,
    /// The same pairs on one server without an engine.
    flood_alone: Vec<Round>,
    /// The bare loop.
    minimum: Vec<Work>,
    windows: Vec<usize>,
    message_bytes: usize,
}

/// Two processes, each with one half of every pair.
struct Couple([Subject; 2]);

impl Couple {
    fn clients(&self) -> io::Result<Load> {
        Load::over(self.0.each_ref().map(|subject| subject.address).to_vec(), Subject::token())
    }

    fn sample(&self, engine: &Engine) -> io::Result<Sample> {
        let [one, other] = &self.0;
        Ok((engine.stats()?, one.cpu()? + other.cpu()?))
    }
}

/// One pair with one message in flight; then flooded pairs. Nodes, bare programs with the same hops, one server alone, and the bare
/// loop take turns, on the same engine and the same cores.
pub fn measure(plan: &Plan) -> Outcome<Vec<Row>> {
    let mut rounds = Rounds::default();
    let mut window = Window::new(PAIRS * AT_ONCE);
    for _ in 0..plan.starts {
        rounds.on_new_nodes(plan, &mut window)?;
    }
    Ok(rounds.rows())
}

impl Rounds {
    fn on_new_nodes(&mut self, plan: &Plan, window: &mut Window) -> Outcome<()> {
        let engine = Engine::start(plan.engine_core)?;
        let node = |name| Subject::start_node(&plan.server, &plan.node_cores, &engine.url(), name);
        let bare =
            |own, peer| Subject::start_linked_floor(&plan.node_cores, engine.address(), own, peer);
        let nodes = Couple([node("n0")?, node("n1")?]);
        let bare = Couple([bare("bare-0", "bare-1")?, bare("bare-1", "bare-0")?]);
        let alone = Subject::start(Kind::Server, &plan.server, &plan.node_cores, None)?;
        let on = |what: &str, couple: &Couple, load: &mut Load, relay: &mut Relay| {
            through_the_engine(what, || couple.sample(&engine), load, relay, plan)
        };

        let (mut load, mut bare_load) = (nodes.clients()?, bare.clients()?);
        let mut pair = Relay::flood(&mut load, 1, 1, BYTES)?.introduce(&mut load)?;
        let mut bare_pair = Relay::flood(&mut bare_load, 1, 1, BYTES)?;
        for _ in 0..plan.rounds {
            self.single_bare.push(on("bare programs", &bare, &mut bare_load, &mut bare_pair)?);
            self.single.push(on("nodes", &nodes, &mut load, &mut pair)?);
        }

        (load, bare_load) = (nodes.clients()?, bare.clients()?);
        let mut alone_load = Load::new(alone.address, Subject::token())?;
        let flood = |load: &mut Load| Relay::flood(load, PAIRS, AT_ONCE, BYTES);
        let mut pairs = flood(&mut load)?.introduce(&mut load)?;
        let mut bare_pairs = flood(&mut bare_load)?;
        let mut alone_pairs = flood(&mut alone_load)?;
        for _ in 0..plan.rounds {
            self.flood_bare.push(on("bare programs", &bare, &mut bare_load, &mut bare_pairs)?);
            let cpu = || alone.cpu();
            self.flood_alone.push(round(cpu, &mut alone_load, &mut alone_pairs, plan.length)?);
            let flood = on("nodes", &nodes, &mut load, &mut pairs)?;
            let message = bare::last_message(&engine, "n1")?;
            self.message_bytes = message.1.len();
            let beside = (&mut load, &mut pairs);
            let minimum = bare::round(&engine, beside, &message, window.size(), plan)?;
            self.windows.push(window.size());
            window.adjust(&work(&flood), &minimum);
            self.flood.push(flood);
            self.minimum.push(minimum);
        }
        drop((load, bare_load, bare));
        engine.remove_inboxes(&["bare-0", "bare-1"])?;
        engine.expect_empty()
    }

    fn rows(&self) -> Vec<Row> {
        let (one, flood) = ("cross, 1 room of 2", "cross, 8 rooms of 2, flooded");
        let bare = |scenario| format!("{scenario}, against bare programs with the same hops");
        let at_most = |ratio| Some(Target::AtMost(ratio));
        let p50 = |round: &Round<Sample>| round.latency.value_at_quantile(0.5) as f64;
        let engine = |round: &Round<Sample>| work(round).cpu();
        let alone: Vec<f64> =
            self.flood_alone.iter().map(|round| round.cpu() / round.units as f64).collect();
        let both: Vec<f64> = self.flood.iter().map(nodes).collect();
        let of_one = both.iter().copied().zip(alone.iter().copied()).collect::<Vec<_>>();
        let (single, single_bare) = (&self.single, &self.single_bare);
        vec![
            Row {
                latency: [single, single_bare].map(|rounds| latencies(&latency_of(rounds))),
                target: at_most(1.3),
                ..Row::compared(bare(one), "us p50", "message", single, single_bare, p50)
            },
            Row::compared(
                bare(one),
                "us CPU of the engine",
                "message",
                single,
                single_bare,
                engine,
            ),
            Row::compared(bare(one), "us CPU of both", "message", single, single_bare, nodes),
            Row {
                latency: [&self.flood, &self.flood_bare]
                    .map(|rounds| latencies(&latency_of(rounds))),
                ..Row::compared(
                    bare(flood),
                    "us CPU of both",
                    "message",
                    &self.flood,
                    &self.flood_bare,
                    nodes,
                )
            },
            Row {
                target: at_most(1.5),
                details: json!({ "rounds": of_one }),
                ..Row::compared(
                    format!("{flood}, against the same on one server"),
                    "us CPU of all servers",
                    "message",
                    &both,
                    &alone,
                    |value| *value,
                )
            },
            self.against(flood, "messages", "second", Work::rate),
            Row {
                target: at_most(1.5),
                ..self.against(flood, "us CPU of the engine", "message", Work::cpu)
            },
            self.against(flood, "messages", "read of a socket", Work::written_at_once),
            self.against(flood, "messages", "XREAD", Work::read_at_once),
        ]
    }

    /// A value of the engine for the flood, compared with the bare loop.
    fn against(
        &self,
        scenario: &str,
        measure: &'static str,
        unit: &'static str,
        value: fn(&Work) -> f64,
    ) -> Row {
        let flood: Vec<f64> = self.flood.iter().map(|round| value(&work(round))).collect();
        let bare: Vec<f64> = self.minimum.iter().map(value).collect();
        Row {
            floor: Some(median(bare.iter().copied())),
            ratio: Some(median(flood.iter().zip(&bare).map(|(flood, bare)| flood / bare))),
            details: json!({
                "rounds": flood, "bare_rounds": bare, "message_bytes": self.message_bytes,
                "bare_messages_in_flight": self.windows,
            }),
            ..Row::alone(
                format!("{scenario}, against the bare loop"),
                measure,
                unit,
                median(flood.iter().copied()),
            )
        }
    }
}

/// A round; an error unless its messages were in entries, of which each has at least one.
fn through_the_engine(
    what: &str,
    sample: impl Fn() -> io::Result<Sample>,
    load: &mut Load,
    relay: &mut Relay,
    plan: &Plan,
) -> Outcome<Round<Sample>> {
    let round = round(sample, load, relay, plan.length).map_err(|e| format!("{what}: {e}"))?;
    let Work { messages, samples: [before, after], .. } = work(&round);
    let added = after.xadds - before.xadds;
    // Some are in flight at the start and at the end of the measurement.
    if added == 0 || added > messages + (2 * PAIRS * AT_ONCE) as u64 {
        return Err(format!("{messages} messages took {added} entries").into());
    }
    Ok(round)
}

fn work(round: &Round<Sample>) -> Work {
    let samples = round.samples.map(|(engine, _)| engine);
    Work { messages: round.units, seconds: round.seconds, samples }
}

/// Processor time of both that relay per message, in microseconds.
fn nodes(round: &Round<Sample>) -> f64 {
    let [before, after] = round.samples.map(|(_, nodes)| nodes);
    (after - before).as_secs_f64() * 1e6 / round.units as f64
}
