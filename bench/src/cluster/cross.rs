//! The cost of a message to a peer on another node, and the engine's share of it compared with the bare loop.

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
    subject::Subject,
};

/// Pairs that send as fast as they can.
const PAIRS: usize = 8;
/// Messages in flight in each pair: as many in all as in the relay of 64 rooms.
const AT_ONCE: usize = 8;
/// A message of this size makes a frame of 600 bytes.
const BYTES: usize = 672;

/// A sample of all processes: the statistics of the engine, and the processor time of the nodes.
type Sample = (Stats, Duration);

/// The measurements, by round.
#[derive(Default)]
struct Rounds {
    single: Vec<Round<Sample>>,
    flood: Vec<Round<Sample>>,
    /// One after each round of the flood.
    bare: Vec<Work>,
    windows: Vec<usize>,
    frame_bytes: usize,
}

/// One pair with one message in flight; then flooded pairs and the bare loop in turns, on the same engine.
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
        let start = |name| Subject::start_node(&plan.server, &plan.node_cores, &engine.url(), name);
        let nodes = [start("n0")?, start("n1")?];
        let sample = || Ok((engine.stats()?, nodes[0].cpu()? + nodes[1].cpu()?));
        let clients = || {
            let addresses = nodes.each_ref().map(|node| node.address).to_vec();
            Load::over(addresses, Subject::token())
        };
        let mut load = clients()?;
        let mut pair = Relay::flood(&mut load, 1, 1, BYTES)?;
        for _ in 0..plan.rounds.div_ceil(2) {
            self.single.push(through_the_engine(sample, &mut load, &mut pair, plan)?);
        }
        load = clients()?;
        let mut pairs = Relay::flood(&mut load, PAIRS, AT_ONCE, BYTES)?;
        for _ in 0..plan.rounds {
            let flood = through_the_engine(sample, &mut load, &mut pairs, plan)?;
            let fields = bare::last_message(&engine, "n1")?;
            self.frame_bytes =
                fields.iter().find(|(name, _)| name == "d").map_or(0, |(_, frame)| frame.len());
            let beside = (&mut load, &mut pairs);
            let bare = bare::round(&engine, beside, &fields, window.size(), plan)?;
            self.windows.push(window.size());
            window.adjust(&work(&flood), &bare);
            self.flood.push(flood);
            self.bare.push(bare);
        }
        drop(load);
        engine.expect_empty()
    }

    fn rows(&self) -> Vec<Row> {
        let (one, flood) = ("cross, 1 room of 2", "cross, 8 rooms of 2, flooded");
        let p50 = |round: &Round<Sample>| round.latency.value_at_quantile(0.5) as f64;
        let engine = |round: &Round<Sample>| work(round).cpu();
        let of = |rounds: &[Round<Sample>], value: fn(&Round<Sample>) -> f64| {
            median(rounds.iter().map(value))
        };
        vec![
            Row {
                latency: [latencies(&latency_of(&self.single)), json!({})],
                ..Row::alone(one, "us p50", "message", of(&self.single, p50))
            },
            Row::alone(one, "us CPU of the engine", "message", of(&self.single, engine)),
            Row::alone(one, "us CPU of all nodes", "message", of(&self.single, nodes)),
            Row {
                latency: [latencies(&latency_of(&self.flood)), json!({})],
                ..self.against(flood, "messages", "second", Work::rate)
            },
            Row {
                target: Some(Target::AtMost(1.5)),
                ..self.against(flood, "us CPU of the engine", "message", Work::cpu)
            },
            Row::alone(flood, "us CPU of all nodes", "message", of(&self.flood, nodes)),
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
        let bare: Vec<f64> = self.bare.iter().map(value).collect();
        Row {
            floor: Some(median(bare.iter().copied())),
            ratio: Some(median(flood.iter().zip(&bare).map(|(flood, bare)| flood / bare))),
            details: json!({
                "rounds": flood, "bare_rounds": bare, "frame_bytes": self.frame_bytes,
                "bare_messages_in_flight": self.windows,
            }),
            ..Row::alone(scenario, measure, unit, median(flood.iter().copied()))
        }
    }
}

/// A round; an error unless every message was one entry.
fn through_the_engine(
    sample: impl Fn() -> io::Result<Sample>,
    load: &mut Load,
    relay: &mut Relay,
    plan: &Plan,
) -> Outcome<Round<Sample>> {
    let round = round(sample, load, relay, plan.length)?;
    let Work { messages, samples: [before, after], .. } = work(&round);
    let added = after.xadds - before.xadds;
    // Some are in flight at the start and at the end of the measurement.
    if added.abs_diff(messages) > (2 * PAIRS * AT_ONCE) as u64 {
        return Err(format!("{messages} messages took {added} entries").into());
    }
    Ok(round)
}

fn work(round: &Round<Sample>) -> Work {
    let samples = round.samples.map(|(engine, _)| engine);
    Work { messages: round.units, seconds: round.seconds, samples }
}

/// Processor time of both nodes per message, in microseconds.
fn nodes(round: &Round<Sample>) -> f64 {
    let [before, after] = round.samples.map(|(_, nodes)| nodes);
    (after - before).as_secs_f64() * 1e6 / round.units as f64
}
