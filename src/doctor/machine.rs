//! What this machine lets the server have: a port, and handles for connections.

use std::io::ErrorKind;

use super::Finding;
use crate::{app::MAX_UNAUTHENTICATED, cli::healthcheck, config::Config, server};

/// Whether a server can listen at `host` and `port`, which `variable` names; `ours` is a path and what a server of ours
/// answers there.
pub(super) async fn port(variable: &str, host: &str, port: u16, ours: (&str, &[&str])) -> Finding {
    if port == 0 {
        return Finding::ok(variable, "0: the system gives a free one");
    }
    let error = match server::listen(host, port).await {
        Ok(_) => return Finding::ok(variable, format!("{host} port {port} is free")),
        Err(error) => error,
    };
    let kind = error.kind();
    if kind == ErrorKind::AddrInUse && healthcheck::is_ours(host, port, ours).await {
        let says = format!("a signaling-server answers at {host} port {port} already");
        Finding::ok(variable, says)
    } else if kind == ErrorKind::AddrInUse {
        Finding::fault(
            variable,
            format!("something else listens at {host} port {port}"),
            format!("`ss -ltnp 'sport = :{port}'` says what: stop it, or give another {variable}"),
        )
    } else if kind == ErrorKind::PermissionDenied {
        Finding::fault(
            variable,
            format!("this user may not listen at port {port}"),
            "a port from 1024 on behind a proxy, or `AmbientCapabilities=CAP_NET_BIND_SERVICE` in the unit",
        )
    } else {
        Finding::fault(
            variable,
            format!("cannot listen at {host} port {port}: {error}"),
            "HOST is an address of this machine (`ip address` lists them); 0.0.0.0 is all of them",
        )
    }
}

/// Whether there can be as many connections as the settings allow.
pub(super) fn handles(config: &Config) -> Finding {
    judge(
        server::raise_descriptor_limit(),
        config.allowed_rooms.len(),
        config.max_connections_per_room,
        config.max_connections_per_ip,
    )
}

fn judge(handles: usize, rooms: usize, seats: usize, per_address: usize) -> Finding {
    const SUBJECT: &str = "handles";
    let connections = server::connection_capacity(handles);
    // Where rooms are not named there is no end of them, and one address is all that is known.
    let (members, whose) = if rooms > 0 {
        (rooms.saturating_mul(seats), "the seats of ALLOWED_ROOMS")
    } else {
        (per_address, "one address (MAX_CONNECTIONS_PER_IP)")
    };
    let says = format!("`ulimit -n` of this shell leaves {connections} connections");
    let mend =
        "raise the hard limit: `LimitNOFILE=1048576` in the unit, whose own limit counts there";
    if connections < members {
        Finding::fault(SUBJECT, format!("{says}, and {whose} may take {members}"), mend)
    } else if connections - members < MAX_UNAUTHENTICATED {
        let says = format!(
            "{says}: {members} for {whose}, and {MAX_UNAUTHENTICATED} who have shown no token yet, are more"
        );
        Finding::warning(SUBJECT, says, mend)
    } else {
        Finding::ok(SUBJECT, says)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn handles_suffice_for_members_and_for_strangers() {
        let verdict = |handles, rooms, per_address| judge(handles, rooms, 10, per_address).verdict;

        assert_eq!(verdict(20_000, 0, 100), Verdict::Ok);
        assert_eq!(verdict(1024, 0, 100), Verdict::Warning);
        assert_eq!(verdict(64, 0, 100), Verdict::Fault);
        assert_eq!(verdict(20_000, 2000, 100), Verdict::Fault);
        assert_eq!(verdict(20_000, 1500, 100), Verdict::Warning);
        assert_eq!(verdict(20_000, 1000, 100), Verdict::Ok);
        assert_eq!(verdict(usize::MAX, usize::MAX, 0), Verdict::Fault, "no overflow");
    }
}
