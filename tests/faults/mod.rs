//! What networks, machines and crowds do to a call: cuts, crashes, suspended processes, wrong clocks, full disks.
//!
//! Server processes and sockets are real. Messages are numbered, so that a lost or doubled one is noticed.

pub mod client;
mod clock;
mod crowd;
mod network;
mod restart;
mod sleep;
mod state_file;
