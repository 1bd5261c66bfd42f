//! The attack catalogue, case by case, against the real binary.
//!
//! Each case plays in a [`server`]: a server process of its own with bystanders who keep talking.
//! The doc comment of a test names the rows of the catalogue that it covers.

mod attacked_server;
mod bodies;
mod bystanders;
mod closing;
mod conformance;
mod exhaustion;
mod guesses;
mod handshake;
mod identity;
mod introduction;
mod jwt;
mod limits;
mod logins;
mod memory;
mod origins;
mod process;
pub mod raw;
mod rest;
mod revocation;
mod rooms;
mod routing;
mod tls;
mod tokens;
mod turn;
mod users_file;
mod users_file_faults;
mod utf8;
