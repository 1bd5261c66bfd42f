//! The audit log: a line for each command of an administrator, also where it has no effect.

use crate::{client_ip::ClientEndpoint, moderation::Subject};

/// Logs the command `act` of the administrator at `client`, and what it was about.
pub(super) fn audit(
    client: &ClientEndpoint,
    act: &'static str,
    room: Option<&str>,
    subject: Option<&Subject>,
    seconds: Option<u64>,
) {
    let (address, who) = (client.address, subject.map(ToString::to_string));
    let who = who.as_deref();
    tracing::info!(target: "signaling::audit", act, room, who, seconds, %address, "administrator");
}

/// Logs that the administrator at `client` sets the capacity of `room`.
pub(super) fn audit_capacity(client: &ClientEndpoint, room: &str, members: usize) {
    let address = client.address;
    tracing::info!(target: "signaling::audit", act = "capacity", room, members, %address, "administrator");
}
