//! A soak: for minutes or hours clients come and go, politely and rudely, and in the end nothing may
//! be left of them.
//!
//! ```text
//! cargo run --release --example soak -- --minutes 15 --clients 2000
//! ```
//!
//! The program starts itself a second time as the server, and watches it from outside. After a first
//! round that warms up, and again after the soak itself, everybody leaves. It fails when tasks,
//! handles, rooms or members are not what they were, when memory has grown by more than
//! [`ROOM_TO_GROW`], when a steady pair lost a message, or when anything else surprised a client.

#![allow(
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "JSON answers null for what it has not, and all that is not expected is a fault"
)]

mod house;
mod town;
mod visits;

use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use clap::Parser;
use house::House;
use signaling::{auth::users_file, server};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use town::{SHORT_LIVED, Town, USERS, user};

/// By how much memory may have grown since the warmed-up baseline, in KiB.
const ROOM_TO_GROW: f64 = 16.0 * 1024.0;

/// How often the server is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Pairs that talk all the time.
const PAIRS: u64 = 8;

type Fault = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Clients come and go for a while; in the end nothing may be left of them.")]
struct Arguments {
    /// How long, after a round of warming up
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// About how many sockets are open at once
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(2..))]
    clients: u64,
    /// Be the server, with the users in this folder
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
}

fn main() -> Result<ExitCode, Fault> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(folder) = arguments.serve {
        return house::serve(&runtime, &folder).map(|()| ExitCode::SUCCESS);
    }
    let code = runtime.block_on(soak(&arguments));
    runtime.shutdown_background();
    code
}

async fn soak(arguments: &Arguments) -> Result<ExitCode, Fault> {
    server::raise_descriptor_limit();
    let folder = tempfile::tempdir()?;
    let users_csv = folder.path().join("users.csv");
    let hash = bcrypt::hash(town::PASSWORD, 4)?;
    users_file::edit(&users_csv, |table| {
        let names = (0..USERS).map(user).chain([SHORT_LIVED.to_owned()]);
        names.into_iter().try_for_each(|name| table.add(&name, "soak@example.com", &hash))
    })?;
    let surprises = Arc::default();
    let (mut house, address) = House::open(folder.path(), Arc::clone(&surprises)).await?;
    let town = Arc::new(Town::new(address, users_csv, hash, arguments.clients, surprises));

    println!(
        "                 RSS MiB   tasks  handles  rooms  members     visits  exchanged  slowest ms"
    );
    let start = house.look(&town).await?;
    println!("start          {start}");
    // Threads, the allocator's arenas and tables take their size in the first rush, and keep it.
    let warming_up = Duration::from_secs(arguments.minutes.min(2) * 60);
    round(&mut house, &town, warming_up, "warm-up").await?;
    let baseline = house.quiet(&town, &start).await?;
    println!("baseline       {baseline}");
    let samples =
        round(&mut house, &town, Duration::from_secs(arguments.minutes * 60), "soak").await?;
    let end = house.quiet(&town, &start).await?;
    println!("end            {end}");

    let slope = slope(samples.get(samples.len() / 2..).unwrap_or_default());
    let grown = end.rss_kib - baseline.rss_kib;
    println!(
        "memory: {:+.1} MiB since the baseline (at most {:+.1}); {:+.2} MiB a minute over the second half",
        grown / 1024.0,
        ROOM_TO_GROW / 1024.0,
        slope / 1024.0
    );
    let mut faults = town.surprises.all();
    let left = [("warming up", baseline.left_over(&start)), ("the soak", end.left_over(&start))];
    let left = left.into_iter().filter(|(_, left)| !left.is_empty());
    faults
        .extend(left.map(|(round, left)| format!("left over after {round}: {}", left.join(", "))));
    if grown > ROOM_TO_GROW || slope * arguments.minutes as f64 / 2.0 > ROOM_TO_GROW {
        faults.push("memory grows".to_owned());
    }
    for fault in faults.iter().take(20) {
        println!("fault: {fault}");
    }
    println!("{} faults", faults.len());
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everybody comes, stays busy for as long as it lasts, and leaves. Answers memory over time.
async fn round(
    house: &mut House,
    town: &Arc<Town>,
    lasts: Duration,
    name: &str,
) -> Result<Vec<(f64, f64)>, Fault> {
    let (began, mut tasks) = (Instant::now(), JoinSet::new());
    let end = began + lasts;
    for pair in 0..PAIRS {
        let town = town.clone();
        tasks.spawn(async move { town.note(town.steady(pair, end).await) });
    }
    let clerk = town.clone();
    tasks.spawn(async move { clerk.note(clerk.come_and_go(end).await) });
    // Some visits have two sockets, and many are short: this many visitors have about that many.
    for visitor in 0..town.clients * 7 / 10 {
        let town = town.clone();
        tasks.spawn(async move {
            sleep(Duration::from_millis(visitor % 5000)).await;
            while Instant::now() < end {
                // Whoever is in the middle of something when it ends just goes.
                if let Ok(visited) = timeout_at(end, town.visit()).await {
                    town.note(visited);
                    town.visits.fetch_add(1, Relaxed);
                }
            }
        });
    }
    let mut samples = Vec::new();
    let (mut next, mut minute) = (began, 1);
    while next + LOOK_EVERY < end {
        next += LOOK_EVERY;
        sleep_until(next).await;
        let now = house.look(town).await?;
        samples.push((began.elapsed().as_secs_f64() / 60.0, now.rss_kib));
        if began.elapsed().as_secs() / 60 >= minute || next + LOOK_EVERY >= end {
            let [visits, exchanged] =
                [&town.visits, &town.exchanged].map(|count| count.load(Relaxed));
            let slowest = town.slowest.swap(0, Relaxed);
            println!("{name:<8} {minute:>4}  {now} {visits:>10} {exchanged:>10} {slowest:>11}");
            minute += 1;
        }
    }
    while let Some(joined) = tasks.join_next().await {
        joined?;
    }
    Ok(samples)
}

/// Least squares: how much `y` grows with each `x`.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let over: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    over / samples.iter().map(|sample| (sample.0 - x).powi(2)).sum::<f64>()
}
