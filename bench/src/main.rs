//! Measures the signaling server against the floor: a relay that does nothing but relay.
//!
//! Absolute times mean nothing on a shared machine. What counts is the processor time for a unit of
//! work, as a ratio of two servers that took turns in one run, each on a core of its own and the
//! clients on another.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "figures for people; a bench asks the clock; and every index is a client's, which is there"
)]

mod cluster;
mod floor;
mod frames;
mod load;
mod report;
mod scenarios;
mod subject;

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::{
    load::Load,
    report::{Row, Target, median},
    scenarios::{
        Round, Steady,
        broadcast::Broadcast,
        histogram,
        idle::{self, Churn},
        mesh::Mesh,
        relay::Relay,
        round,
        storm::{self, Guessers, Guesses},
    },
    subject::{Kind, Subject, cores, pin},
};

/// Measures the signaling server against a relay that does nothing else.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// What to measure; everything where nothing is named
    scenarios: Vec<Name>,
    /// How long a round is, in seconds
    #[arg(long, default_value_t = 0.7)]
    seconds: f64,
    /// How often server and floor take turns
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often both are started anew: where a process lies in memory makes some percent
    #[arg(long, default_value_t = 4)]
    starts: usize,
    /// Members of the idle scenario; as many as there are handles where it is not given
    #[arg(long)]
    members: Option<usize>,
    /// The server's binary; the one beside this where it is not given
    #[arg(long, conflicts_with = "against")]
    server: Option<PathBuf>,
    /// A server that runs already, such as 127.0.0.1:8000, pinned to a core by whoever started it
    #[arg(long, requires = "pid", requires = "token")]
    against: Option<SocketAddr>,
    /// Its process
    #[arg(long)]
    pid: Option<u32>,
    /// A token that it takes; all clients show the same
    #[arg(long, env = "BENCH_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Writes all figures there, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the ratios there, as SVG
    #[arg(long)]
    svg: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Part {
    /// Measures what servers pay that share rooms: servers, a redis-server of our own, and that alone
    Cluster(cluster::Arguments),
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Pairs, one offer on its way in each room
    Relay,
    /// Pairs that send at a set pace
    Paced,
    /// The same offers over many rooms
    Rooms,
    /// Rooms of ten that hear everything
    Broadcast,
    /// Members that say nothing
    Idle,
    /// Members that come and go
    Churn,
    /// Calls of ten being set up
    Mesh,
    /// Pairs at a set pace while passwords are guessed
    Storm,
}

/// Rooms in the scenario that looks whether their number matters.
const MANY_ROOMS: usize = 10_000;

struct Bench {
    measured: Measured,
    rounds: usize,
    starts: usize,
    length: Duration,
    /// So many at once, in either server.
    most: usize,
    members: usize,
    server_core: usize,
    rows: Vec<Row>,
}

/// What is held against the floor.
enum Measured {
    /// A server that is started for each scenario.
    Binary(PathBuf),
    /// One that runs.
    Running { address: SocketAddr, pid: u32, token: String },
}

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    if std::env::args().nth(1).as_deref() == Some("floor") {
        return Ok(floor::run()?);
    }
    let arguments = Arguments::parse();
    let cores = cores()?;
    let (&server_core, own_core) = (cores.first().ok_or("no core")?, cores.last());
    pin(&[*own_core.unwrap_or(&server_core)])?;
    raise_handles();
    if let Some(Part::Cluster(arguments)) = arguments.part {
        return cluster::run(arguments, &cores);
    }
    let mut bench = Bench {
        measured: match (arguments.against, arguments.pid, arguments.token) {
            (Some(address), Some(pid), Some(token)) => Measured::Running { address, pid, token },
            _ => Measured::Binary(binary(arguments.server)?),
        },
        rounds: arguments.rounds,
        starts: arguments.starts,
        length: Duration::from_secs_f64(arguments.seconds),
        most: arguments.members.unwrap_or_else(most_members),
        members: arguments.members.unwrap_or_else(|| most_members().min(9_500)),
        server_core,
        rows: Vec::new(),
    };
    for &name in Name::value_variants() {
        if arguments.scenarios.is_empty() || arguments.scenarios.contains(&name) {
            bench.measure(name)?;
        }
    }
    println!("\n{}", report::table(&bench.rows, ["server", "floor"]));
    write_json(arguments.json, &bench.rows)?;
    if let Some(path) = arguments.svg {
        fs::write(path, report::plot(&bench.rows))?;
    }
    Ok(())
}

/// The server that was named, or the one beside this.
fn binary(named: Option<PathBuf>) -> std::io::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("signaling-server");
    named.unwrap_or(beside).canonicalize()
}

fn write_json(path: Option<PathBuf>, rows: &[Row]) -> Done {
    if let Some(path) = path {
        fs::write(path, serde_json::to_string_pretty(&report::json(rows))?)?;
    }
    Ok(())
}

fn raise_handles() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many connections this process, or a server, can have.
fn most_members() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let handles = limit.current.and_then(|handles| usize::try_from(handles).ok());
    handles.unwrap_or(10_000).saturating_sub(200)
}

impl Bench {
    fn measure(&mut self, name: Name) -> Done {
        match name {
            Name::Relay => {
                let target = Some(Target::AtMost(1.30));
                self.steady("relay, 64 rooms of 2", "message", target, |load, _| {
                    Relay::seat(load, 64, 0, None)
                })
            }
            Name::Paced => {
                self.steady("relay, 2,000 offers a second", "message", None, |load, _| {
                    Relay::seat(load, 64, 0, Some(2000))
                })
            }
            Name::Rooms => {
                for rooms in [10, 1000, 4000] {
                    if 4 * rooms <= self.most {
                        self.steady(
                            &format!("relay, {rooms} rooms of 2"),
                            "message",
                            None,
                            |load, _| Relay::seat(load, rooms, 0, None),
                        )?;
                    }
                }
                // More than two servers' members would be too many handles: the floor has none of them.
                let others = MANY_ROOMS.min(self.most.saturating_sub(300)).saturating_sub(64);
                let scenario = format!("relay, 64 rooms of 2 among {}", others + 64);
                self.steady(&scenario, "message", None, |load, kind| {
                    Relay::seat(load, 64, if kind == Kind::Server { others } else { 0 }, None)
                })
            }
            Name::Broadcast => {
                let target = Some(Target::AtMost(1.15));
                self.steady("broadcast, 12 rooms of 10", "delivery", target, |load, _| {
                    Broadcast::seat(load, 12, 10)
                })
            }
            Name::Churn => {
                self.steady("coming and going", "visit", None, |_, _| Ok(Churn::new(64)))
            }
            Name::Idle => self.idle(),
            Name::Mesh => self.mesh(),
            Name::Storm => self.storm(),
        }
    }

    fn start(&self, kind: Kind) -> Result<(Subject, Load), Box<dyn Error>> {
        let (subject, token) = match (&self.measured, kind) {
            (Measured::Running { address, pid, token }, Kind::Server) => {
                (Subject::running(*address, *pid), token.clone())
            }
            (Measured::Binary(path), _) => {
                (Subject::start(kind, path, &[self.server_core])?, Subject::token())
            }
            (Measured::Running { .. }, Kind::Floor) => {
                (Subject::start(kind, Path::new(""), &[self.server_core])?, String::new())
            }
        };
        let load = Load::new(subject.address, token)?;
        Ok((subject, load))
    }

    /// Server and floor take turns; each round of the one is held against the round of the other.
    fn steady<S: Steady>(
        &mut self,
        scenario: &str,
        unit: &'static str,
        target: Option<Target>,
        seat: impl Fn(&mut Load, Kind) -> std::io::Result<S>,
    ) -> Done {
        eprintln!("{scenario} …");
        let (mut floors, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..self.starts {
            let (floor, mut floor_load) = self.start(Kind::Floor)?;
            let (server, mut server_load) = self.start(Kind::Server)?;
            let mut on_floor = seat(&mut floor_load, Kind::Floor)?;
            let mut on_server = seat(&mut server_load, Kind::Server)?;
            for _ in 0..self.rounds {
                floors.push(round(|| floor.cpu(), &mut floor_load, &mut on_floor, self.length)?);
                servers.push(round(
                    || server.cpu(),
                    &mut server_load,
                    &mut on_server,
                    self.length,
                )?);
            }
        }
        let per_unit = |round: &Round| round.cpu() / round.units as f64;
        let ratios =
            servers.iter().zip(&floors).map(|(server, floor)| per_unit(server) / per_unit(floor));
        self.rows.push(Row {
            scenario: scenario.to_owned(),
            unit,
            server: median(servers.iter().map(per_unit)),
            floor: Some(median(floors.iter().map(per_unit))),
            measure: "us CPU",
            ratio: Some(median(ratios)),
            target,
            latency: [&servers, &floors].map(|rounds| latencies(&latency_of(rounds))),
            details: json!({ "server": details(&servers), "floor": details(&floors) }),
        });
        for (name, rounds) in [("server", &servers), ("floor", &floors)] {
            eprintln!("  {name}: {}", details(rounds));
        }
        Ok(())
    }

    fn idle(&mut self) -> Done {
        let scenario = format!("idle, {} members", self.members);
        eprintln!("{scenario} …");
        let mut measured = Vec::new();
        for kind in [Kind::Server, Kind::Floor] {
            let (subject, mut load) = self.start(kind)?;
            let idle = idle::measure(&subject, &mut load, self.members)?;
            eprintln!(
                "  {}: {:.2} KiB a member, join {:.1} us CPU first and {:.1} last, {:.0} joins a second",
                kind.name(),
                idle.bytes / 1024.0,
                idle.join.0,
                idle.join.1,
                idle.joins_per_second
            );
            measured.push(idle);
        }
        let (server, floor) = (&measured[0], &measured[1]);
        let details =
            json!({ "members": server.members, "joins_per_second": server.joins_per_second });
        let mut row = |what: &str, unit, measure, server: f64, floor: f64, target: Target| {
            self.rows.push(Row {
                scenario: format!("{scenario}: {what}"),
                unit,
                server,
                floor: Some(floor),
                measure,
                ratio: Some(server / floor),
                target: Some(target),
                latency: [json!({}), json!({})],
                details: details.clone(),
            });
        };
        let (memory, join) = (Target::FigureAtMost(6.0), Target::AtMost(4.5));
        row("memory", "member", "KiB", server.bytes / 1024.0, floor.bytes / 1024.0, memory);
        row("first 1,000 joins", "join", "us CPU", server.join.0, floor.join.0, join);
        row("last 1,000 joins", "join", "us CPU", server.join.1, floor.join.1, join);
        Ok(())
    }

    fn mesh(&mut self) -> Done {
        const SIZE: usize = 10;
        eprintln!("mesh of {SIZE} …");
        let (_floor, mut floor_load) = self.start(Kind::Floor)?;
        let (_server, mut server_load) = self.start(Kind::Server)?;
        let (mut floors, mut servers) = (Vec::new(), Vec::new());
        let calls = 5 * self.rounds * self.starts;
        for number in 0..calls {
            for (load, times) in [(&mut floor_load, &mut floors), (&mut server_load, &mut servers)]
            {
                let mut mesh = Mesh::seat(load, SIZE, number)?;
                times.push(mesh.set_up(load)?);
                mesh.leave(load);
            }
        }
        let ratios: Vec<f64> =
            servers.iter().zip(&floors).map(|(server, floor)| server / floor).collect();
        self.rows.push(Row {
            scenario: format!("mesh of {SIZE}, all 45 links"),
            unit: "call",
            server: median(servers) / 1000.0,
            floor: Some(median(floors) / 1000.0),
            measure: "ms",
            ratio: Some(median(ratios)),
            target: Some(Target::AtMost(3.0)),
            latency: [json!({}), json!({})],
            details: json!({ "calls": calls }),
        });
        Ok(())
    }

    /// The server alone: calm and stormy rounds take turns.
    fn storm(&mut self) -> Done {
        eprintln!("storm …");
        let (subject, mut load) = self.start(Kind::Server)?;
        // The server checks passwords on all its cores but one, and here it has one in all.
        let alone = storm::bcrypt_alone(self.server_core, self.length * 2)?;
        let mut relay = Relay::seat(&mut load, 64, 0, Some(1000))?;
        let (mut calm, mut stormy, mut logins) = (histogram(), histogram(), Vec::new());
        let mut lines = Vec::new();
        for _ in 0..self.rounds {
            let quiet = round(|| subject.cpu(), &mut load, &mut relay, self.length)?;
            let (over, guesses) = (AtomicBool::new(false), Guesses::default());
            let began = Instant::now();
            let loud = std::thread::scope(|scope| {
                let guessers = Guessers::begin(scope, &subject, &over, &guesses);
                let loud = round(|| subject.cpu(), &mut load, &mut relay, self.length);
                over.store(true, Ordering::Relaxed);
                guessers.end();
                loud
            })?;
            let took = began.elapsed().as_secs_f64();
            // From the first guess to the last answer, which is waited for.
            logins.push(guesses.checked.load(Ordering::Relaxed) as f64 / took);
            lines.push(
                json!({ "calm": latencies(&quiet.latency), "stormy": latencies(&loud.latency) }),
            );
            calm.add(&quiet.latency)?;
            stormy.add(&loud.latency)?;
        }
        eprintln!("  calm: {}  stormy: {}", latencies(&calm), latencies(&stormy));
        let p99 = |latency: &Histogram<u64>| latency.value_at_quantile(0.99) as f64 / 1000.0;
        self.rows.push(Row {
            scenario: "storm: p99 of a relay, stormy against calm".to_owned(),
            unit: "message",
            server: p99(&stormy),
            floor: Some(p99(&calm)),
            measure: "ms",
            ratio: Some(p99(&stormy) / p99(&calm)),
            target: Some(Target::AtMost(2.0)),
            latency: [latencies(&stormy), latencies(&calm)],
            details: json!({ "rounds": lines }),
        });
        let checked = median(logins.iter().copied());
        self.rows.push(Row {
            scenario: "storm: logins, against bcrypt alone on that core".to_owned(),
            unit: "second",
            server: checked,
            floor: Some(alone),
            measure: "logins",
            ratio: Some(checked / alone),
            target: Some(Target::AtLeast(0.9)),
            latency: [json!({}), json!({})],
            details: json!({ "rounds": logins }),
        });
        Ok(())
    }
}

fn latency_of<Look>(rounds: &[Round<Look>]) -> Histogram<u64> {
    let mut latency = histogram();
    for round in rounds {
        let _ = latency.add(&round.latency);
    }
    latency
}

fn details(rounds: &[Round]) -> serde_json::Value {
    json!({
        "cpu_us_per_unit": rounds.iter().map(|round| (100.0 * round.cpu() / round.units as f64).round() / 100.0).collect::<Vec<_>>(),
        "bench_us_per_unit": median(rounds.iter().map(|round| round.own / round.units as f64)),
        "units_per_second": median(rounds.iter().map(|round| round.units as f64 / round.seconds)),
        "latency_us": latencies(&latency_of(rounds)),
    })
}

fn latencies(latency: &Histogram<u64>) -> serde_json::Value {
    let at = |quantile| latency.value_at_quantile(quantile);
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": latency.max() })
}
