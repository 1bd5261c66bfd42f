//! Attacks on a server with little memory, beside members in calls who must not notice them.
//!
//! ```text
//! cargo build --release && cargo run --release --example attack -- --seconds 120
//! ```
//!
//! The program starts the release binary in a control group of 256 MiB, where it may make one, and lets 50 honest members
//! exchange messages: first undisturbed, then beside each attack of [`attacks::ALL`]. It prints a line for each, and fails
//! if an honest member was disconnected or lost a message, if the server held more than its budget and 64 MiB, if the
//! members' 99th percentile was more than three times the undisturbed one and 5 ms, or if an attack achieved more than it may.

#![allow(
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a missing JSON field is null, and everything unexpected is a failure"
)]

mod attacks;
mod clients;
mod members;
mod server;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use tokio::time::{Instant, sleep};

use crate::{
    attacks::{ALL, Attack},
    clients::TestError,
    members::HonestMembers,
    server::{Server, Usage},
};

/// What the server may hold beside its budget, in MiB.
const BESIDE_BUDGET_MIB: u64 = 64;

/// How many times the undisturbed 99th percentile that of an attack may be.
const MAX_P99_RATIO: f64 = 3.0;

/// A 99th percentile below this passes in any case: the load of this program itself disturbs shorter ones.
const NOTICEABLE: Duration = Duration::from_millis(5);

/// Of the attackers' threads (setpriority(2)).
const LOWEST_PRIORITY: i32 = 19;

#[derive(Parser)]
#[command(about = "Attacks a server with 256 MiB, beside honest members who must not notice.")]
struct Arguments {
    /// Duration of each attack
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
    /// The server; by default the one that was built beside this program
    #[arg(long)]
    server: Option<PathBuf>,
    /// Only the attacks with these names
    #[arg(long)]
    only: Vec<String>,
}

fn main() -> Result<ExitCode, TestError> {
    let arguments = Arguments::parse();
    signaling::net::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // The attackers take what the server and the honest members leave of the machine, as if they had one of their own.
        .on_thread_start(|| {
            let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
        })
        .build()?;
    let code = runtime.block_on(run(arguments));
    runtime.shutdown_background();
    code
}

async fn run(arguments: Arguments) -> Result<ExitCode, TestError> {
    let beside = std::env::current_exe()?.ancestors().nth(2).map(|it| it.join("signaling-server"));
    let binary = arguments.server.or(beside).ok_or("no server; use --server")?;
    let server = Server::start(&binary).await?;
    println!("{}", server.description());
    let target = Arc::new(server.target());
    let duration = Duration::from_secs(arguments.seconds);
    let mut members = HonestMembers::join(target.clone()).await?;
    let mut failures = Vec::new();

    println!(
        "attack            p50 ms   p99 ms   max ms   sent     lost  out  RSS MiB  CPU %   shed  result"
    );
    let before = server.usage().await?;
    sleep(duration.min(Duration::from_secs(30))).await;
    let idle = server.usage_since(&before).await?;
    let undisturbed = members.take_report();
    println!("{:<16} {undisturbed} {idle}", "none");
    for attack in ALL {
        if !arguments.only.is_empty() && !arguments.only.iter().any(|only| only == attack.name) {
            continue;
        }
        let before = server.usage().await?;
        server.reset_peak();
        let until = Instant::now() + duration;
        let result = (attack.run)(target.clone(), until).await;
        let usage = server.usage_since(&before).await?;
        let report = members.take_report();
        let verdict = match &result {
            Ok(achieved) => achieved.clone(),
            Err(error) => format!("FAILED: {error}"),
        };
        println!("{:<16} {report} {usage}  {verdict}", attack.name);
        let mut fail = |what: String| failures.push(format!("{}: {what}", attack.name));
        if let Err(error) = result {
            fail(error.to_string());
        }
        if report.lost + report.disconnected > 0 {
            fail(format!("{} messages lost, {} members out", report.lost, report.disconnected));
        }
        let allowed = undisturbed.p99.mul_f64(MAX_P99_RATIO).max(NOTICEABLE);
        if report.p99 > allowed {
            fail(format!("p99 {:?}, at most {allowed:?}", report.p99));
        }
        check_usage(attack, &usage, idle.cpu_percent, &server, &mut fail);
        sleep(Duration::from_secs(3)).await;
    }
    for failure in &failures {
        println!("failure: {failure}");
    }
    println!("{} failures", failures.len());
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_usage(
    attack: &Attack,
    usage: &Usage,
    idle_cpu: f64,
    server: &Server,
    fail: &mut impl FnMut(String),
) {
    let allowed = (server.budget_mib + BESIDE_BUDGET_MIB)
        .min(attack.max_growth_mib.map_or(u64::MAX, |growth| usage.rss_before_mib + growth));
    if usage.peak_mib > allowed {
        fail(format!("{} MiB resident, at most {allowed}", usage.peak_mib));
    }
    let cpu = usage.cpu_percent - idle_cpu;
    if attack.max_cpu_percent.is_some_and(|most| cpu > most) {
        fail(format!("{cpu:.0} % of a core more than undisturbed"));
    }
    if usage.log_warnings > attack.max_warnings {
        fail(format!(
            "{} warnings in the log, at most {}",
            usage.log_warnings, attack.max_warnings
        ));
    }
}
