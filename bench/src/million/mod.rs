//! A million members in one process: the real sessions, rooms, queues, timelines and limits, on connections in memory, since no
//! system gives a process so many file descriptors. HTTP is served on a socket, as always.

mod members;
mod stream;

use std::{
    error::Error,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use hdrhistogram::Histogram;
use nix::time::ClockId;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;
use signaling::{config::Environment, net::workers::Workers, state::AppState};

use self::members::{CLIENTS_OF_ACCOUNT, Members, account};
use crate::{
    report::{self, Row, latencies},
    subject::{HASH, SETTINGS, cores, folder, pin, resident_of},
};

/// The argument with which the bench starts itself as the server.
pub const INSIDE: &str = "million-inside";

/// Rooms in which an offer is sent each second.
const ACTIVE_ROOMS: usize = 1000;

/// How many joins are measured at each size.
const MEASURED: usize = 10_000;

/// How long members talk while nothing else happens.
const CALM: Duration = Duration::from_secs(10);

/// The files of the results, in the folder of the server.
const ROWS: &str = "rows.json";
const TABLE: &str = "table.md";

const TOKEN: &str = "token-of-the-bench-0123456789abcdef";

/// The arguments of `bench million`.
#[derive(Args)]
pub struct Arguments {
    /// How many members
    #[arg(long, default_value_t = 1_000_000)]
    members: usize,
    /// Keeps the log of the server in this file; without it, nobody reads it
    #[arg(long)]
    log: Option<PathBuf>,
    /// Writes all results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs the server and its clients in a process of their own, whose memory is measured.
pub fn run(arguments: Arguments) -> Outcome<()> {
    let folder = folder()?;
    let measured = run_in(&folder, &arguments);
    fs::remove_dir_all(&folder)?;
    measured
}

fn run_in(folder: &Path, arguments: &Arguments) -> Outcome<()> {
    let mut users = "username,email,hashed_password,is_active\n".to_owned();
    for number in 0..=arguments.members / CLIENTS_OF_ACCOUNT {
        let name = account(number);
        users.push_str(&format!("{name},{name}@example.com,{HASH},True\n"));
    }
    fs::write(folder.join("users.csv"), users)?;
    write_settings(folder, 250)?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let inside = Command::new(std::env::current_exe()?)
        .args([INSIDE, &arguments.members.to_string(), &port.to_string()])
        .env_clear()
        .envs(SETTINGS)
        .envs([
            ("PORT", &*port.to_string()),
            ("WORKERS", "1"),
            ("ADMIN_TOKEN", TOKEN),
            ("METRICS_TOKEN", TOKEN),
            // The first pings are sent after all have joined, so that joins are measured alone.
            ("WEBSOCKET_TIMEOUT", "240"),
            ("STATE_FILE", "state.json"),
        ])
        .current_dir(folder)
        .stdout(match &arguments.log {
            Some(file) => fs::File::create(file)?.into(),
            None => Stdio::null(),
        })
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .status()?;
    if !inside.success() {
        return Err("the server with its members failed".into());
    }
    let state = fs::metadata(folder.join("state.json")).map_or(0, |file| file.len());
    eprintln!("the state file has {} MiB", state >> 20);
    println!("\n{}", fs::read_to_string(folder.join(TABLE))?);
    if let Some(json) = &arguments.json {
        fs::copy(folder.join(ROWS), json)?;
    }
    Ok(())
}

fn write_settings(folder: &Path, burst: u32) -> Outcome<()> {
    Ok(fs::write(folder.join(".env"), format!("WEBSOCKET_MESSAGE_BURST={burst}\n"))?)
}

/// The process of the server: its first thread is the only worker, and another drives the clients.
pub fn inside(mut arguments: impl Iterator<Item = String>) -> Outcome<()> {
    let mut number = || arguments.next().and_then(|argument| argument.parse::<usize>().ok());
    let (members, port) = (number().ok_or("no members")?, number().ok_or("no port")?);
    let cores = cores()?;
    let (&first, &last) = (cores.first().ok_or("no core")?, cores.last().ok_or("no core")?);
    pin(&[first])?;
    let is_stopped = Arc::new(AtomicBool::new(false));
    let mut driver = None;
    let started = |app: &AppState, workers: &Workers| {
        let (app, workers, is_stopped) = (app.clone(), workers.clone(), is_stopped.clone());
        driver = Some(thread::spawn(move || {
            let measured = pin(&[last])
                .map_err(Into::into)
                .and_then(|()| measure(app, workers, (members, port), &is_stopped));
            if let Err(error) = &measured {
                eprintln!("{error}");
                std::process::exit(1);
            }
        }));
    };
    signaling::cli::serve_with(None, Environment::read(None).map_err(|_| "no settings")?, started)?;
    is_stopped.store(true, Ordering::Relaxed);
    driver.ok_or("the server did not start")?.join().map_err(|_| "the clients failed".into())
}

fn measure(
    app: AppState,
    workers: Workers,
    (count, port): (usize, usize),
    is_stopped: &AtomicBool,
) -> Outcome<()> {
    let mut rows = Vec::new();
    let mut row = |what: &str, measure, unit, value: f64, latency| {
        eprintln!("{what}: {value:.2} {measure} a {unit} {latency}");
        rows.push(Row { latency: [latency, json!({})], ..Row::alone(what, measure, unit, value) });
    };
    let mut members = Members::new(app.clone(), workers, count, ACTIVE_ROOMS.min(count / 10));
    let before = resident_of(std::process::id())?;
    let sizes =
        [10_000, 100_000, 1_000_000].into_iter().filter(|size| *size < count).chain([count]);
    for size in sizes {
        members.join(size - MEASURED.min(size))?;
        let cpu = server_cpu()?;
        members.join(size)?;
        let cpu = (server_cpu()? - cpu).as_micros() as f64 / MEASURED.min(size) as f64;
        row(&format!("the last joins of {size}"), "us CPU", "join", cpu, json!({}));
    }
    let kibibytes = || {
        Ok::<_, io::Error>(
            (resident_of(std::process::id())? - before) as f64 / 1024.0 / count as f64,
        )
    };
    row("memory, with all frames unacknowledged", "KiB", "member", kibibytes()?, json!({}));
    let cpu = server_cpu()?;
    members.acknowledge()?;
    let cpu = (server_cpu()? - cpu).as_micros() as f64 / count as f64;
    row("pings that acknowledge", "us CPU", "ping", cpu, json!({}));
    row("memory, with none", "KiB", "member", kibibytes()?, json!({}));

    let mut talk = |what: &str, work: &(dyn Fn() -> Outcome<()> + Sync)| -> Outcome<()> {
        let (took, latency) = beside(&mut members, work)?;
        let milliseconds = took.as_secs_f64() * 1000.0;
        row(what, "ms", "request", milliseconds, latencies(&latency));
        Ok(())
    };
    talk("nothing beside the offers", &|| {
        thread::sleep(CALM);
        Ok(())
    })?;
    for path in [
        "/health",
        "/metrics",
        "/api/rooms",
        "/api/rooms?limit=100",
        "/admin/api/status",
        "/admin/api/rooms",
        "/admin/api/rooms?limit=100&sort=connected_users",
        "/admin/api/rooms?search=room-9999",
        "/admin/api/rooms/room-1",
        "/admin/api/rooms/room-1/timeline",
        "/admin/api/closed",
    ] {
        talk(path, &|| get(port, path))?;
    }
    talk("reload of settings and users", &|| {
        write_settings(Path::new("."), 251)?;
        kill_process(getpid(), Signal::HUP)?;
        while app.session_limits().messages.message_burst != 251 {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    })?;

    let began = Instant::now();
    kill_process(getpid(), Signal::TERM)?;
    let closed = members.leave(is_stopped);
    eprintln!("{closed} of {count} members were told");
    row("stop", "s", "stop", began.elapsed().as_secs_f64(), json!({}));
    report::write_json(Some(ROWS.into()), &rows)?;
    Ok(fs::write(TABLE, report::table(&rows, ["server", "–"]))?)
}

/// Lets members talk while `work` is done on another thread. Returns how long it took, and how long offers took meanwhile.
fn beside(
    members: &mut Members,
    work: &(dyn Fn() -> Outcome<()> + Sync),
) -> Outcome<(Duration, Histogram<u64>)> {
    let is_over = AtomicBool::new(false);
    let (took, latency) = thread::scope(|scope| {
        let working = scope.spawn(|| {
            let began = Instant::now();
            let done = work().map_err(|error| error.to_string());
            let took = began.elapsed();
            // What the work has delayed is still on its way.
            thread::sleep(Duration::from_secs(1));
            is_over.store(true, Ordering::Relaxed);
            done.map(|()| took)
        });
        let latency = members.talk(&is_over);
        (working.join().unwrap_or_else(|_| Err("panicked".to_owned())), latency)
    });
    Ok((took?, latency?))
}

/// Reads the whole answer to a request, which must be 200.
fn get(port: usize, path: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, u16::try_from(port)?))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200") {
        return Ok(());
    }
    let head = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
    Err(format!("{path}: {head}").into())
}

/// The processor time of this process without that of the calling thread, which drives the clients.
fn server_cpu() -> Outcome<Duration> {
    let of = |clock: ClockId| clock.now().map(Duration::from);
    let own = of(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(of(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(own))
}
