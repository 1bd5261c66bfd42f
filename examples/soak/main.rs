//! A soak test: for minutes or hours clients join and leave, in orderly and in abnormal ways. At the end the server
//! must have released everything that it held for them.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 15 --clients 2000
//! ```
//!
//! The program starts itself a second time as the server, and measures that process from outside. All clients leave
//! after a warm-up round, and again after the soak round. The test fails if tasks, file descriptors, rooms or members
//! are not back at their initial numbers, if memory has grown by more than [`MAX_GROWTH_KIB`], if a steady pair lost a
//! message, or if a client got an unexpected response.

#![allow(
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a missing JSON field is null, and everything unexpected is a failure"
)]

mod clients;
mod scenarios;
mod server_process;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    clients::{Clients, SHORT_LIVED, TestError, USERS, user},
    server_process::ServerProcess,
};
use clap::Parser;
use signaling::{auth::users, net};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};

/// By how much memory may have grown since the baseline after the warm-up, in KiB.
const MAX_GROWTH_KIB: f64 = 16.0 * 1024.0;

/// How often the server is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// Pairs of clients that exchange messages all the time.
const PAIRS: u64 = 8;

#[derive(Parser)]
#[command(
    about = "Clients join and leave for a while; at the end the server must have released everything."
)]
struct Arguments {
    /// Duration of the soak round, which follows a warm-up round
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Approximate number of open sockets
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(2..))]
    clients: u64,
    /// Run the server, with the users file in this folder
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
}

fn main() -> Result<ExitCode, TestError> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(folder) = arguments.serve {
        return server_process::serve(&runtime, &folder).map(|()| ExitCode::SUCCESS);
    }
    let code = runtime.block_on(soak(&arguments));
    runtime.shutdown_background();
    code
}

async fn soak(arguments: &Arguments) -> Result<ExitCode, TestError> {
    net::raise_descriptor_limit();
    let folder = tempfile::tempdir()?;
    let users_csv = folder.path().join("users.csv");
    let hash = bcrypt::hash(clients::PASSWORD, 4)?;
    users::edit(&users_csv, |table| {
        let names = (0..USERS).map(user).chain([SHORT_LIVED.to_owned()]);
        names.into_iter().try_for_each(|name| table.add(&name, "soak@example.com", &hash))
    })?;
    let failures = Arc::default();
    let (mut server, address) = ServerProcess::start(folder.path(), Arc::clone(&failures)).await?;
    let clients = Arc::new(Clients::new(address, users_csv, hash, arguments.clients, failures));

    println!(
        "                 RSS MiB   tasks      fds  rooms  members  scenarios   messages  slowest ms"
    );
    let start = server.measure(&clients).await?;
    println!("start          {start}");
    // Threads, the arenas of the allocator and hash tables reach their size in the first rush, and keep it.
    let warm_up = Duration::from_secs(arguments.minutes.min(2) * 60);
    run_round(&mut server, &clients, warm_up, "warm-up").await?;
    let baseline = server.until_idle(&clients, &start).await?;
    println!("baseline       {baseline}");
    let samples =
        run_round(&mut server, &clients, Duration::from_secs(arguments.minutes * 60), "soak")
            .await?;
    let end = server.until_idle(&clients, &start).await?;
    println!("end            {end}");

    let slope = slope(samples.get(samples.len() / 2..).unwrap_or_default());
    let grown = end.rss_kib - baseline.rss_kib;
    println!(
        "memory: {:+.1} MiB since the baseline (at most {:+.1}); {:+.2} MiB a minute over the second half",
        grown / 1024.0,
        MAX_GROWTH_KIB / 1024.0,
        slope / 1024.0
    );
    let mut failures = clients.failures.all();
    let leaks = [("the warm-up", baseline.leaks(&start)), ("the soak", end.leaks(&start))];
    let leaks = leaks.into_iter().filter(|(_, leaks)| !leaks.is_empty());
    failures.extend(
        leaks.map(|(round, leaks)| format!("not released after {round}: {}", leaks.join(", "))),
    );
    if grown > MAX_GROWTH_KIB || slope * arguments.minutes as f64 / 2.0 > MAX_GROWTH_KIB {
        failures.push("memory grows".to_owned());
    }
    for failure in failures.iter().take(20) {
        println!("failure: {failure}");
    }
    println!("{} failures", failures.len());
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all clients for `duration`, after which they leave. Returns memory over time: minutes and KiB.
async fn run_round(
    server: &mut ServerProcess,
    clients: &Arc<Clients>,
    duration: Duration,
    name: &str,
) -> Result<Vec<(f64, f64)>, TestError> {
    let (start, mut tasks) = (Instant::now(), JoinSet::new());
    let end = start + duration;
    for pair in 0..PAIRS {
        let clients = clients.clone();
        tasks.spawn(async move { clients.record(clients.steady_pair(pair, end).await) });
    }
    let account_changes = clients.clone();
    tasks.spawn(async move {
        account_changes.record(account_changes.change_account(end).await);
    });
    // Some scenarios open two sockets, and many are short: 0.7 scenarios keep about one socket open.
    for number in 0..clients.sockets * 7 / 10 {
        let clients = clients.clone();
        tasks.spawn(async move {
            sleep(Duration::from_millis(number % 5000)).await;
            while Instant::now() < end {
                // A scenario that is running at the end is cancelled.
                if let Ok(result) = timeout_at(end, clients.run_scenario()).await {
                    clients.record(result);
                    clients.scenarios.fetch_add(1, Relaxed);
                }
            }
        });
    }
    let mut samples = Vec::new();
    let (mut next, mut minute) = (start, 1);
    while next + MEASURE_INTERVAL < end {
        next += MEASURE_INTERVAL;
        sleep_until(next).await;
        let now = server.measure(clients).await?;
        samples.push((start.elapsed().as_secs_f64() / 60.0, now.rss_kib));
        if start.elapsed().as_secs() / 60 >= minute || next + MEASURE_INTERVAL >= end {
            let [scenarios, messages] =
                [&clients.scenarios, &clients.messages].map(|count| count.load(Relaxed));
            let slowest = clients.slowest.swap(0, Relaxed);
            println!("{name:<8} {minute:>4}  {now} {scenarios:>10} {messages:>10} {slowest:>11}");
            minute += 1;
        }
    }
    while let Some(joined) = tasks.join_next().await {
        joined?;
    }
    Ok(samples)
}

/// The slope of the least-squares line through the samples.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let covariance: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    covariance / samples.iter().map(|sample| (sample.0 - x).powi(2)).sum::<f64>()
}
