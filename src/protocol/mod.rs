//! What clients and server send each other in text frames (docs/build/protocol.md).

mod client;

pub use client::*;
