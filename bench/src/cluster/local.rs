//! The cost of `REDIS_URL` for messages that stay on their node.

use serde_json::json;

use super::{Outcome, Plan, engine::Engine};
use crate::{
    load::Load,
    report::{Row, Target, details, latencies, latency_of, median},
    scenarios::{Round, relay::Relay, round},
    subject::{Kind, Subject},
};

/// Two servers on one core take turns, one with and one without an engine.
pub fn measure(plan: &Plan) -> Outcome<Vec<Row>> {
    let (mut one, mut many) = (<[Vec<Round>; 2]>::default(), <[Vec<Round>; 2]>::default());
    for _ in 0..plan.starts {
        let engine = Engine::start(plan.engine_core)?;
        let node = Subject::start_node(&plan.server, &[plan.engine_core], &engine.url(), "n0")?;
        let alone = Subject::start(Kind::Server, &plan.server, &[plan.engine_core], None)?;
        let subjects = [&node, &alone];
        for (rooms, rounds) in [(1, &mut one), (64, &mut many)] {
            let mut clients = Vec::new();
            for subject in subjects {
                let mut load = Load::new(subject.address, Subject::token())?;
                let relay = Relay::join(&mut load, rooms, 0, None)?;
                clients.push((load, relay));
            }
            let xadds = engine.stats()?.xadds;
            for turn in 0..plan.rounds {
                // They alternate in going first.
                for number in [turn % 2, 1 - turn % 2] {
                    let (load, relay) = &mut clients[number];
                    let cpu = || subjects[number].cpu();
                    rounds[number].push(round(cpu, load, relay, plan.length)?);
                }
            }
            if engine.stats()?.xadds != xadds {
                return Err("messages within a node went through the engine".into());
            }
        }
        engine.expect_empty()?;
    }
    let p50 = |round: &Round| round.latency.value_at_quantile(0.5) as f64;
    let cpu = |round: &Round| round.cpu() / round.units as f64;
    Ok(vec![
        row("local, 1 room of 2", "us p50", None, &one, p50),
        row("local, 1 room of 2", "us CPU", None, &one, cpu),
        row("local, 64 rooms of 2", "us CPU", Some(Target::AtMost(1.05)), &many, cpu),
    ])
}

fn row(
    scenario: &str,
    measure: &'static str,
    target: Option<Target>,
    [node, alone]: &[Vec<Round>; 2],
    value: impl Fn(&Round) -> f64,
) -> Row {
    let ratios = node.iter().zip(alone).map(|(node, alone)| value(node) / value(alone));
    Row {
        floor: Some(median(alone.iter().map(&value))),
        ratio: Some(median(ratios)),
        target,
        latency: [node, alone].map(|rounds| latencies(&latency_of(rounds))),
        details: json!({ "with_redis": details(node), "without": details(alone) }),
        ..Row::alone(scenario, measure, "message", median(node.iter().map(&value)))
    }
}
