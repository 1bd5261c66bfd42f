//! What servers pay that share rooms: with a real redis-server as operators are told to run it, on the first core
//! together with the servers where there are two in all, and the clients on the last.

mod bare;
mod cross;
mod engine;
mod joins;
mod local;
mod million;
mod reap;
mod town;

use std::{error::Error, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    binary,
    report::{self, Row},
    write_json,
};

/// What is measured of a cluster, and for how long.
#[derive(Args)]
pub struct Arguments {
    /// What to measure; everything where nothing is named
    figures: Vec<Figure>,
    /// How long a round is, in seconds
    #[arg(long, default_value_t = 0.7)]
    seconds: f64,
    /// How often what is compared takes turns, and how often members die, or come and leave
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often everything is started anew
    #[arg(long, default_value_t = 4)]
    starts: usize,
    /// Members of the largest figure; of those that need fewer, no more than that
    #[arg(long, default_value_t = 1_000_000)]
    members: usize,
    /// The server's binary; the one beside this where it is not given
    #[arg(long)]
    server: Option<PathBuf>,
    /// Writes all figures there, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Pairs on one node, with an engine and without
    Local,
    /// Pairs on two nodes, and the least that an engine has to do for them
    Cross,
    /// Members that come and leave, by the scripts alone
    Joins,
    /// Members whose node has died
    Reap,
    /// As many members as an engine may have to hold
    Million,
}

/// What a figure needs to know.
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

/// Measures what was asked for. This thread is on the last of `cores`.
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
    for &figure in Figure::value_variants() {
        if arguments.figures.is_empty() || arguments.figures.contains(&figure) {
            rows.extend(plan.measure(figure)?);
        }
    }
    write_json(arguments.json, &rows)
}

impl Plan {
    fn measure(&self, figure: Figure) -> Outcome<Vec<Row>> {
        let (rows, names) = match figure {
            Figure::Local => (local::measure(self)?, ["with Redis", "without"]),
            Figure::Cross => (cross::measure(self)?, ["two nodes", "bare loop"]),
            Figure::Joins => (joins::measure(self)?, ["engine", "–"]),
            Figure::Reap => (reap::measure(self)?, ["engine", "–"]),
            Figure::Million => (million::measure(self)?, ["engine", "–"]),
        };
        println!("\n{}", report::table(&rows, names));
        Ok(rows)
    }
}
