//! The command line of the bench.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{cluster, million};

/// Measures the signaling server against a relay that does nothing else.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// `bench cluster`, `bench million`
    #[command(subcommand)]
    pub part: Option<Part>,
    /// The scenarios to measure; all by default
    pub scenarios: Vec<Name>,
    /// Duration of a round, in seconds
    #[arg(long, default_value_t = 0.7)]
    pub seconds: f64,
    /// Rounds of server and floor in turns, for each start
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How often both are restarted: the memory layout of a process changes its speed by some percent
    #[arg(long, default_value_t = 4)]
    pub starts: usize,
    /// Members of the idle scenario; by default up to 9,500, as the limit of file descriptors allows
    #[arg(long)]
    pub members: Option<usize>,
    /// Path of the server; by default signaling-server beside this program
    #[arg(long, conflicts_with = "against")]
    pub server: Option<PathBuf>,
    /// Address of a running server, such as 127.0.0.1:8000, which must be pinned to the first core
    #[arg(long, requires = "pid", requires = "token")]
    pub against: Option<SocketAddr>,
    /// Process id of that server
    #[arg(long)]
    pub pid: Option<u32>,
    /// A token that it accepts; all clients send the same one
    #[arg(long, env = "BENCH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Writes all results to this file, as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Plots the ratios to this file, as SVG
    #[arg(long)]
    pub svg: Option<PathBuf>,
}

/// A part of the bench other than its scenarios.
#[derive(Subcommand)]
pub enum Part {
    /// Measures the cost of sharing rooms between servers: servers with a redis-server, and the redis-server alone
    Cluster(cluster::Arguments),
    /// Measures a million members in one process, on connections in memory; needs 8 GB of memory
    Million(million::Arguments),
}

/// A scenario.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Pairs, with one offer in flight in each room
    Relay,
    /// Pairs with eight offers in flight in each room
    Flood,
    /// Pairs that send at a fixed rate
    Paced,
    /// The same offers over many rooms
    Rooms,
    /// Rooms of ten in which every offer goes to all members
    Broadcast,
    /// Pairs, against a leaner floor, which looks up and copies nothing
    Lean,
    /// Members that send nothing
    Idle,
    /// Members that join and leave
    Churn,
    /// The set-up of calls of ten
    Mesh,
    /// Pairs at a fixed rate while passwords are guessed
    Storm,
    /// Pairs, members that come and go, and members that send nothing, over TLS of the server's own
    Tls,
    /// The same behind nginx, against TLS of the server's own
    Nginx,
    /// All members come back after a crash of the server, plain and over TLS
    Restart,
}
