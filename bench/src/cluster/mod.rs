//! The cost of sharing rooms between servers, with a real redis-server and the recommended configuration. The clients run on the
//! last core. The engine runs on the first one, together with the servers if there are only two cores.

mod bare;
mod cross;
mod engine;
mod full;
mod joins;
mod local;
mod million;
mod nodes;
mod reap;

use std::{error::Error, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

pub use self::full::{HOLD, hold};
use crate::{
    report::{self, Row},
    subject::binary,
};

/// The arguments of `bench cluster`.
#[derive(Args)]
pub struct Arguments {
    /// The scenarios to measure; all by default
    scenarios: Vec<Scenario>,
    /// Duration of a round, in seconds
    #[arg(long, default_value_t = 0.7)]
    seconds: f64,
    /// Rounds for each start: comparisons in turns, node failures, or joins and leaves of all members
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often all processes are restarted
    #[arg(long, default_value_t = 4)]
    starts: usize,
    /// Members of the largest scenario, and the limit for the others
    #[arg(long, default_value_t = 1_000_000)]
    members: usize,
    /// Path of the server; by default signaling-server beside this program
    #[arg(long)]
    server: Option<PathBuf>,
    /// Writes all results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Pairs on one node, with and without an engine
    Local,
    /// Pairs on two nodes, and the minimal work of an engine for them
    Cross,
    /// Members that join and leave, by the scripts alone
    Joins,
    /// Members whose node has failed
    Reap,
    /// As many members as an engine may have to hold
    Million,
    /// Three servers with as many real members as the limit of file descriptors allows
    Full,
}

/// The parameters of a scenario.
struct Plan {
    server: PathBuf,
    engine_core: usize,
    node_cores: Vec<usize>,
    length: Duration,
    rounds: usize,
    starts: usize,
    members: usize,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs the requested scenarios. This thread is pinned to the last of `cores`.
pub fn run(arguments: Arguments, cores: &[usize]) -> Outcome<()> {
    let engine_core = *cores.first().ok_or("no core")?;
    let between = cores.get(1..cores.len() - 1).unwrap_or_default();
    let plan = Plan {
        server: binary(arguments.server)?,
        engine_core,
        node_cores: if between.is_empty() { vec![engine_core] } else { between.to_vec() },
        length: Duration::from_secs_f64(arguments.seconds),
        rounds: arguments.rounds.max(1),
        starts: arguments.starts.max(1),
        members: arguments.members,
    };
    let mut rows = Vec::new();
    for &scenario in Scenario::value_variants() {
        if arguments.scenarios.is_empty() || arguments.scenarios.contains(&scenario) {
            rows.extend(plan.measure(scenario)?);
        }
    }
    Ok(report::write_json(arguments.json, &rows)?)
}

impl Plan {
    fn measure(&self, scenario: Scenario) -> Outcome<Vec<Row>> {
        let (rows, names) = match scenario {
            Scenario::Local => (local::measure(self)?, ["with Redis", "without"]),
            Scenario::Cross => (cross::measure(self)?, ["two nodes", "the other"]),
            Scenario::Joins => (joins::measure(self)?, ["engine", "–"]),
            Scenario::Reap => (reap::measure(self)?, ["engine", "–"]),
            Scenario::Million => (million::measure(self)?, ["engine", "–"]),
            Scenario::Full => (full::measure(self)?, ["three servers", "–"]),
        };
        println!("\n{}", report::table(&rows, names));
        Ok(rows)
    }
}
