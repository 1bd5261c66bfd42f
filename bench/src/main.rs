//! Measures the signaling server against the floor: a relay that does nothing else.
//!
//! Absolute times mean little on a shared machine. The result is the ratio of the processor times per unit of work of two
//! servers. They take turns in one run, pinned to one core, and the clients run on another core.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "results are rounded for display; a bench reads the clock; and every index is that of an existing client"
)]

mod arguments;
mod cluster;
mod floor;
mod frames;
mod load;
mod million;
mod report;
mod scenarios;
mod subject;
mod tls;

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::json;

use crate::{
    arguments::{Arguments, Name, Part},
    load::Load,
    report::{Row, Target, details, latencies, latency_of, median, spread},
    scenarios::{
        OFFER, Round, Steady,
        broadcast::Broadcast,
        histogram,
        idle::{self, Churn, Idle},
        mesh::Mesh,
        relay::Relay,
        restart, round,
        storm::{self, Guessers, Guesses},
    },
    subject::{Kind, Subject, binary, cores, folder, pin},
    tls::{Certificate, KeyKind, Tickets},
};

/// Rooms in the scenario that measures whether their number matters.
const MANY_ROOMS: usize = 10_000;

struct Bench {
    measured: Measured,
    rounds: usize,
    starts: usize,
    length: Duration,
    /// How many connections may be open at once, in either server.
    max_connections: usize,
    members: usize,
    server_core: usize,
    /// For the scenarios over TLS.
    ecdsa: Certificate,
    rsa: Certificate,
    rows: Vec<Row>,
}

/// What is compared with what.
#[derive(Clone, Copy)]
struct Pair {
    server: Kind,
    floor: Kind,
    tls: Option<(Tickets, KeyKind)>,
}

impl Pair {
    const PLAIN: Self = Self { server: Kind::Server, floor: Kind::Floor, tls: None };

    const LEAN: Self = Self { floor: Kind::LeanFloor, ..Self::PLAIN };

    /// Over TLS of their own.
    fn tls(tickets: Tickets, key: KeyKind) -> Self {
        Self { tls: Some((tickets, key)), ..Self::PLAIN }
    }

    /// The server behind nginx, and with TLS of its own.
    fn nginx(tickets: Tickets) -> Self {
        let tls = Some((tickets, KeyKind::Ecdsa));
        Self { server: Kind::Nginx, floor: Kind::Server, tls }
    }
}

/// The server that is compared with the floor.
enum Measured {
    /// A server that is started for each scenario.
    Binary(PathBuf),
    /// A server that is already running.
    Running { address: SocketAddr, pid: u32, token: String },
}

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    if std::env::args().nth(1).as_deref() == Some("floor") {
        return Ok(floor::run(std::env::args().skip(2))?);
    }
    if std::env::args().nth(1).as_deref() == Some(million::INSIDE) {
        return million::inside(std::env::args().skip(2));
    }
    if std::env::args().nth(1).as_deref() == Some(cluster::HOLD) {
        raise_descriptor_limit();
        return cluster::hold(std::env::args().skip(2));
    }
    let arguments = Arguments::parse();
    let cores = cores()?;
    let (&server_core, own_core) = (cores.first().ok_or("no core")?, cores.last());
    pin(&[*own_core.unwrap_or(&server_core)])?;
    raise_descriptor_limit();
    match arguments.part {
        Some(Part::Cluster(arguments)) => return cluster::run(arguments, &cores),
        Some(Part::Million(arguments)) => return million::run(arguments),
        None => {}
    }
    let mut bench = Bench {
        measured: match (arguments.against, arguments.pid, arguments.token) {
            (Some(address), Some(pid), Some(token)) => Measured::Running { address, pid, token },
            _ => Measured::Binary(binary(arguments.server)?),
        },
        rounds: arguments.rounds,
        starts: arguments.starts,
        length: Duration::from_secs_f64(arguments.seconds),
        max_connections: arguments.members.unwrap_or_else(max_connections),
        members: arguments.members.unwrap_or_else(|| max_connections().min(9_500)),
        server_core,
        ecdsa: Certificate::create(folder()?, KeyKind::Ecdsa)?,
        rsa: Certificate::create(folder()?, KeyKind::Rsa)?,
        rows: Vec::new(),
    };
    for &name in Name::value_variants() {
        if arguments.scenarios.is_empty() || arguments.scenarios.contains(&name) {
            bench.measure(name)?;
        }
    }
    println!("\n{}", report::table(&bench.rows, ["server", "floor"]));
    if let Some(noise) = report::noise(&bench.rows) {
        println!("{noise}\n");
    }
    report::write_json(arguments.json, &bench.rows)?;
    if let Some(path) = arguments.svg {
        fs::write(path, report::plot(&bench.rows))?;
    }
    Ok(())
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many connections this process, or a server, can have.
fn max_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let descriptors = limit.current.and_then(|limit| usize::try_from(limit).ok());
    descriptors.unwrap_or(10_000).saturating_sub(200)
}

impl Bench {
    fn measure(&mut self, name: Name) -> Outcome {
        match name {
            Name::Relay => {
                let target = Some(Target::AtMost(1.30));
                self.steady("relay, 64 rooms of 2", "message", target, Pair::PLAIN, |load, _| {
                    Relay::join(load, 64, 0, None)
                })
            }
            Name::Flood => self.steady(
                "relay, 8 rooms of 2, 8 in flight in each",
                "message",
                None,
                Pair::PLAIN,
                |load, _| Relay::flood(load, 8, 8, OFFER),
            ),
            Name::Paced => self.steady(
                "relay, 2,000 offers a second",
                "message",
                None,
                Pair::PLAIN,
                |load, _| Relay::join(load, 64, 0, Some(2000)),
            ),
            Name::Rooms => {
                for rooms in [10, 1000, 4000] {
                    if 4 * rooms <= self.max_connections {
                        self.steady(
                            &format!("relay, {rooms} rooms of 2"),
                            "message",
                            None,
                            Pair::PLAIN,
                            |load, _| Relay::join(load, rooms, 0, None),
                        )?;
                    }
                }
                // The floor has none of the other members, so that the file descriptors suffice.
                let others =
                    MANY_ROOMS.min(self.max_connections.saturating_sub(300)).saturating_sub(64);
                let scenario = format!("relay, 64 rooms of 2 among {}", others + 64);
                self.steady(&scenario, "message", None, Pair::PLAIN, |load, kind| {
                    Relay::join(load, 64, if kind == Kind::Server { others } else { 0 }, None)
                })
            }
            Name::Broadcast => {
                let target = Some(Target::AtMost(1.15));
                self.steady(
                    "broadcast, 12 rooms of 10",
                    "delivery",
                    target,
                    Pair::PLAIN,
                    |load, _| Broadcast::join(load, 12, 10),
                )
            }
            Name::Lean => {
                for rooms in [64, 4000] {
                    if 4 * rooms <= self.max_connections {
                        let scenario =
                            format!("relay, {rooms} rooms of 2, against the leaner floor");
                        self.steady(&scenario, "message", None, Pair::LEAN, |load, _| {
                            Relay::join(load, rooms, 0, None)
                        })?;
                    }
                }
                Ok(())
            }
            Name::Churn => {
                let scenario = "coming and going";
                self.steady(scenario, "visit", None, Pair::PLAIN, |_, _| Ok(Churn::new(64)))
            }
            Name::Idle => self.idle("", Pair::PLAIN),
            Name::Mesh => self.mesh(),
            Name::Storm => self.storm(),
            Name::Tls | Name::Nginx | Name::Restart
                if matches!(self.measured, Measured::Running { .. }) =>
            {
                eprintln!("tls, nginx, restart: only with a server that the bench starts");
                Ok(())
            }
            Name::Tls => {
                let target = Some(Target::AtMost(1.20));
                let [used, unused] = [Tickets::Used, Tickets::Unused]
                    .map(|tickets| Pair::tls(tickets, KeyKind::Ecdsa));
                self.steady(
                    "relay over TLS, 64 rooms of 2",
                    "message",
                    target,
                    used,
                    |load, _| Relay::join(load, 64, 0, None),
                )?;
                self.visits("coming and going over TLS", unused, used)?;
                let [used_rsa, unused_rsa] = [Tickets::Used, Tickets::Unused]
                    .map(|tickets| Pair::tls(tickets, KeyKind::Rsa));
                self.visits("coming and going over TLS, RSA key", unused_rsa, used_rsa)?;
                self.idle(" over TLS", used)
            }
            Name::Nginx => {
                let [used, unused] = [Tickets::Used, Tickets::Unused].map(Pair::nginx);
                let relay = "relay behind nginx, against TLS of its own, 64 rooms of 2";
                self.steady(relay, "message", None, used, |load, _| {
                    Relay::join(load, 64, 0, None)
                })?;
                let visits = "coming and going behind nginx, against TLS of its own";
                self.visits(visits, unused, used)?;
                self.idle(" behind nginx, against TLS of its own", used)
            }
            Name::Restart => {
                self.restart("plain", Pair::PLAIN)?;
                self.restart("over TLS", Pair::tls(Tickets::Used, KeyKind::Ecdsa))
            }
        }
    }

    /// Members that come and go over TLS: without session tickets, and with them.
    fn visits(&mut self, scenario: &str, unused: Pair, used: Pair) -> Outcome {
        for (clients, pair) in [("new", unused), ("returning", used)] {
            let scenario = format!("{scenario}, {clients} clients");
            self.steady(&scenario, "visit", None, pair, |_, _| Ok(Churn::new(64)))?;
        }
        Ok(())
    }

    fn certificate(&self, key: KeyKind) -> &Certificate {
        match key {
            KeyKind::Ecdsa => &self.ecdsa,
            KeyKind::Rsa => &self.rsa,
        }
    }

    /// A server and its clients, over TLS with or without session tickets, or plain.
    fn start(
        &self,
        kind: Kind,
        tls: Option<(Tickets, KeyKind)>,
    ) -> Result<(Subject, Load), Box<dyn Error>> {
        let certificate = tls.map(|(_, key)| self.certificate(key));
        let (subject, token) = match (&self.measured, kind) {
            (Measured::Running { address, pid, token }, Kind::Server) => {
                (Subject::running(*address, *pid), token.clone())
            }
            (Measured::Binary(path), _) => {
                (Subject::start(kind, path, &[self.server_core], certificate)?, Subject::token())
            }
            (Measured::Running { .. }, Kind::Nginx | Kind::Floor | Kind::LeanFloor) => {
                let nowhere = Path::new("");
                (Subject::start(kind, nowhere, &[self.server_core], certificate)?, String::new())
            }
        };
        let clients =
            tls.map(|(tickets, key)| self.certificate(key).clients(tickets)).transpose()?;
        let load = Load::new(subject.address, token)?.with_tls(clients);
        Ok((subject, load))
    }

    /// Server and floor take turns; each round of one is compared with a round of the other.
    fn steady<S: Steady>(
        &mut self,
        scenario: &str,
        unit: &'static str,
        target: Option<Target>,
        pair: Pair,
        join: impl Fn(&mut Load, Kind) -> std::io::Result<S>,
    ) -> Outcome {
        eprintln!("{scenario} …");
        let (mut floors, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..self.starts {
            let (floor, mut floor_load) = self.start(pair.floor, pair.tls)?;
            let (server, mut server_load) = self.start(pair.server, pair.tls)?;
            let mut on_floor = join(&mut floor_load, pair.floor)?;
            let mut on_server = join(&mut server_load, pair.server)?;
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
            spread: Some(spread(floors.iter().map(per_unit))),
            target,
            latency: [&servers, &floors].map(|rounds| latencies(&latency_of(rounds))),
            details: json!({ "server": details(&servers), "floor": details(&floors) }),
        });
        for (kind, rounds) in [(pair.server, &servers), (pair.floor, &floors)] {
            eprintln!("  {}: {}", kind.name(), details(rounds));
        }
        Ok(())
    }

    fn idle(&mut self, how: &str, pair: Pair) -> Outcome {
        let scenario = format!("idle, {} members{how}", self.members);
        eprintln!("{scenario} …");
        let (mut servers, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..self.starts {
            for (kind, measured) in [(pair.server, &mut servers), (pair.floor, &mut floors)] {
                let (subject, mut load) = self.start(kind, pair.tls)?;
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
        }
        let details = json!({
            "members": self.members,
            "joins_per_second": median(servers.iter().map(|idle| idle.joins_per_second)),
        });
        let mut row = |what: &str, unit, measure, value: fn(&Idle) -> f64, target: Target| {
            let scenario = format!("{scenario}: {what}");
            let row = Row::compared(scenario, measure, unit, &servers, &floors, value);
            let target = Some(target).filter(|_| pair.tls.is_none());
            self.rows.push(Row { target, details: details.clone(), ..row });
        };
        let (memory, join) = (Target::ValueAtMost(6.0), Target::AtMost(4.5));
        row("memory", "member", "KiB", |idle| idle.bytes / 1024.0, memory);
        row("first 1,000 joins", "join", "us CPU", |idle| idle.join.0, join);
        row("last 1,000 joins", "join", "us CPU", |idle| idle.join.1, join);
        Ok(())
    }

    fn mesh(&mut self) -> Outcome {
        const SIZE: usize = 10;
        eprintln!("mesh of {SIZE} …");
        let (_floor, mut floor_load) = self.start(Kind::Floor, None)?;
        let (_server, mut server_load) = self.start(Kind::Server, None)?;
        let (mut floors, mut servers) = (Vec::new(), Vec::new());
        let calls = 5 * self.rounds * self.starts;
        for number in 0..calls {
            for (load, times) in [(&mut floor_load, &mut floors), (&mut server_load, &mut servers)]
            {
                let mut mesh = Mesh::join(load, SIZE, number)?;
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
            spread: None,
            target: Some(Target::AtMost(3.0)),
            latency: [json!({}), json!({})],
            details: json!({ "calls": calls }),
        });
        Ok(())
    }

    /// All members come back after a crash.
    fn restart(&mut self, how: &str, pair: Pair) -> Outcome {
        let scenario = format!("{} members back after a crash, {how}", self.members);
        eprintln!("{scenario} …");
        let Measured::Binary(path) = &self.measured else { return Ok(()) };
        let (mut servers, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..self.starts {
            for (kind, measured) in [(pair.server, &mut servers), (pair.floor, &mut floors)] {
                let (subject, mut load) = self.start(kind, pair.tls)?;
                let certificate = pair.tls.map(|(_, key)| self.certificate(key));
                let again =
                    |subject: Subject| subject.restart(path, &[self.server_core], certificate);
                let back = restart::measure(subject, again, &mut load, self.members)?;
                eprintln!(
                    "  {}: {:.2} s, {:.1} us CPU a member",
                    kind.name(),
                    back.seconds,
                    back.cpu
                );
                measured.push(back);
            }
        }
        let details = json!({ "members": self.members });
        for (what, measure, unit, value) in [
            ("time", "s", "restart", (|back| back.seconds) as fn(&restart::Return) -> f64),
            ("processor time", "us CPU", "member", |back| back.cpu),
        ] {
            let scenario = format!("{scenario}: {what}");
            let row = Row::compared(scenario, measure, unit, &servers, &floors, value);
            self.rows.push(Row { details: details.clone(), ..row });
        }
        Ok(())
    }

    /// The server alone: calm and stormy rounds take turns.
    fn storm(&mut self) -> Outcome {
        eprintln!("storm …");
        let (subject, mut load) = self.start(Kind::Server, None)?;
        // The server checks passwords on all its cores but one, and here it has one in all.
        let alone = storm::bcrypt_alone(self.server_core, self.length * 2)?;
        let mut relay = Relay::join(&mut load, 64, 0, Some(1000))?;
        let (mut calm, mut stormy, mut logins) = (histogram(), histogram(), Vec::new());
        let mut lines = Vec::new();
        for _ in 0..self.rounds {
            let quiet = round(|| subject.cpu(), &mut load, &mut relay, self.length)?;
            let (over, guesses) = (AtomicBool::new(false), Guesses::default());
            let start = Instant::now();
            let loud = std::thread::scope(|scope| {
                let guessers = Guessers::start(scope, &subject, &over, &guesses);
                let loud = round(|| subject.cpu(), &mut load, &mut relay, self.length);
                over.store(true, Ordering::Relaxed);
                guessers.stop();
                loud
            })?;
            let took = start.elapsed().as_secs_f64();
            // From the first guess to the last response.
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
            spread: None,
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
            spread: None,
            target: Some(Target::AtLeast(0.9)),
            latency: [json!({}), json!({})],
            details: json!({ "rounds": logins }),
        });
        Ok(())
    }
}
