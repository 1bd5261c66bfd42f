//! What the server does, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::wrong_self_convention,
    missing_docs,
    reason = "these are tests"
)]

mod admin;
mod admin_page;
mod attacks;
mod budgets;
#[path = "../cluster/mod.rs"]
mod cluster;
mod command_line;
mod contract;
mod display_names;
mod doctor;
mod env_file;
#[path = "../faults/mod.rs"]
mod faults;
mod foreign;
mod harness;
mod healthcheck;
mod init;
mod issuer;
mod metrics;
mod moderators;
mod own_membership;
mod own_users;
mod process;
mod proxies;
mod refusals;
mod reload;
mod rest;
mod resume;
mod room_lists;
mod settings;
mod signaling;
mod steps;
mod tls;
mod tokens;
#[cfg(feature = "otel")]
mod traces;
mod turn;
mod unix_socket;
mod users;
mod webhooks;
