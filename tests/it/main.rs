//! Stories told over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "these are tests"
)]

mod abuse;
mod harness;
mod process;
mod rest;
mod settings;
mod signaling;
mod tls;
mod users;
