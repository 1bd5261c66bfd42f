//! What this machine gives the server: ports to listen on, file descriptors for connections, and memory.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use tokio::time::timeout;

use super::Diagnostic;
use crate::{
    config::{ListenSettings, ProcessSettings, ReloadableSettings, StartupSettings},
    http_client::LocalServer,
    memory,
    net::{self, UnixSocketFile},
    state::MAX_UNAUTHENTICATED,
};

/// For the answer of a server that has a port already.
const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(3);

/// The memory limit that fits the smallest budget, in MiB.
const MIN_MEMORY_MIB: usize = 256;

/// How much of that answer is read, in bytes.
const MAX_IDENTIFY_BYTES: usize = 4096;

/// A request that only a signaling-server answers with one of `markers`.
struct Identity {
    path: &'static str,
    markers: &'static [&'static str],
}

const SERVER: Identity = Identity { path: "/health", markers: &["\"uptime_seconds\":"] };

/// Metrics that need a token are refused with the second marker.
const METRICS: Identity = Identity {
    path: "/metrics",
    markers: &["signaling_build_info", "{\"detail\":\"Not authenticated\"}"],
};

/// Checks that a server can listen on `HOST` and `PORT`.
pub(super) async fn check_server_port(listen: &ListenSettings) -> Diagnostic {
    let server = LocalServer::new(&listen.host, listen.port);
    let server = server.with_proxy_protocol(listen.proxy_protocol);
    match listen.unix_socket() {
        Some(file) => check_socket_file(&file, &server).await,
        None => check_port("PORT", &server, &listen.host, &SERVER).await,
    }
}

/// Checks that a server can make its Unix socket, or that a server answers on it.
async fn check_socket_file(file: &UnixSocketFile, server: &LocalServer) -> Diagnostic {
    let path = file.path.display();
    match socket_file_error(file) {
        None => Diagnostic::ok("HOST", format!("{path} is free")),
        Some(error)
            if error.kind() == ErrorKind::AddrInUse && check_identity(server, &SERVER).await =>
        {
            Diagnostic::ok("HOST", format!("a signaling-server answers on {path}"))
        }
        Some(error) => cannot_listen_on_socket(file, &error),
    }
}

/// What keeps a server from making the Unix socket.
fn socket_file_error(file: &UnixSocketFile) -> Option<io::Error> {
    let folder = file.path.parent().unwrap_or(Path::new("/"));
    match net::check_replaceable(&file.path) {
        Ok(()) if folder.is_dir() => None,
        Ok(()) => Some(ErrorKind::NotFound.into()),
        Err(error) => Some(error),
    }
}

/// Why a server cannot make the Unix socket, and what to do.
pub fn cannot_listen_on_socket(file: &UnixSocketFile, error: &io::Error) -> Diagnostic {
    const SUBJECT: &str = "HOST";
    let path = file.path.display();
    let folder = file.path.parent().unwrap_or(Path::new("/"));
    if error.kind() == ErrorKind::AddrInUse {
        Diagnostic::fault(
            SUBJECT,
            format!("another program listens on {path}"),
            "name another path, or stop that program; `ss -lxp` shows it",
        )
    } else if folder.is_dir() {
        Diagnostic::fault(
            SUBJECT,
            format!("cannot listen on {path}: {error}"),
            "name a path in a folder that the server may write, such as /run/signaling/socket",
        )
    } else {
        Diagnostic::fault(
            SUBJECT,
            format!("cannot listen on {path}: there is no folder {}", folder.display()),
            "create it for the server, for example with `RuntimeDirectory=` in the unit",
        )
    }
}

/// What keeps a server from listening where the settings say. A port on which a program listens already is none: it may be
/// this server.
pub async fn listen_faults(startup: &StartupSettings) -> Vec<Diagnostic> {
    let listen = &startup.listen;
    let clients = match listen.unix_socket() {
        Some(file) => socket_file_error(&file)
            .filter(|error| error.kind() != ErrorKind::AddrInUse)
            .map(|error| cannot_listen_on_socket(&file, &error)),
        None => listen_fault("PORT", &listen.host, listen.port).await,
    };
    let metrics = match startup.telemetry.metrics_listen {
        Some(address) => {
            listen_fault("METRICS_LISTEN", &address.ip().to_string(), address.port()).await
        }
        None => None,
    };
    clients.into_iter().chain(metrics).collect()
}

async fn listen_fault(variable: &str, host: &str, port: u16) -> Option<Diagnostic> {
    let error = net::listen(host, port).await.err()?;
    (error.kind() != ErrorKind::AddrInUse).then(|| cannot_listen(variable, host, port, &error))
}

/// Checks that a server can listen on `METRICS_LISTEN`.
pub(super) async fn check_metrics_port(address: SocketAddr) -> Diagnostic {
    let host = address.ip().to_string();
    let server = LocalServer::new(&host, address.port());
    check_port("METRICS_LISTEN", &server, &host, &METRICS).await
}

async fn check_port(
    variable: &str,
    server: &LocalServer,
    host: &str,
    identity: &Identity,
) -> Diagnostic {
    let port = server.port();
    match net::listen(host, port).await {
        Ok(_) if port == 0 => Diagnostic::ok(variable, "0: the system chooses a free one"),
        Ok(_) => Diagnostic::ok(variable, format!("{host} port {port} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if check_identity(server, identity).await {
                let message = format!("a signaling-server answers on {host} port {port}");
                return Diagnostic::ok(variable, message);
            }
            cannot_listen(variable, host, port, &error)
        }
        Err(error) => cannot_listen(variable, host, port, &error),
    }
}

/// Why a server cannot listen on `host` and `port`, which stand in `variable`, and what to do.
pub fn cannot_listen(variable: &str, host: &str, port: u16, error: &io::Error) -> Diagnostic {
    if error.kind() == ErrorKind::AddrInUse {
        let fix =
            format!("`ss -ltnp 'sport = :{port}'` shows which: stop it, or set another {variable}");
        let message = format!("another program listens on {host} port {port}");
        return Diagnostic::fault(variable, message, fix);
    }
    if error.kind() == ErrorKind::PermissionDenied {
        return Diagnostic::fault(
            variable,
            format!("this user may not listen on port {port}"),
            "use a port from 1024 on behind a proxy, or set `AmbientCapabilities=CAP_NET_BIND_SERVICE` in the unit",
        );
    }
    // The address of METRICS_LISTEN stands beside its port.
    let place = if variable == "PORT" { "HOST" } else { variable };
    let fix = format!(
        "set {place} to an address of this machine (`ip address` lists them), or to 0.0.0.0 for all of them"
    );
    Diagnostic::fault(variable, format!("cannot listen on {host} port {port}: {error}"), fix)
}

/// Whether `server` is a signaling-server, also one that is not ready.
async fn check_identity(server: &LocalServer, identity: &Identity) -> bool {
    let answer = timeout(IDENTIFY_TIMEOUT, async {
        let mut answer = server.get(identity.path).await.ok()?;
        let mut start = Vec::new();
        while start.len() < MAX_IDENTIFY_BYTES
            && let Some(chunk) = answer.chunk().await.ok()?
        {
            start.extend_from_slice(&chunk);
        }
        Some(String::from_utf8_lossy(&start).into_owned())
    });
    let answer = answer.await.ok().flatten();
    answer.is_some_and(|answer| identity.markers.iter().any(|marker| answer.contains(marker)))
}

/// Checks that there can be as many connections as the settings allow.
pub(super) fn check_file_descriptors(settings: &ReloadableSettings) -> Diagnostic {
    judge_file_descriptors(
        net::raise_descriptor_limit(),
        settings.rooms.allowed.len(),
        settings.limits.max_connections_per_room,
        settings.limits.max_connections_per_ip,
    )
}

fn judge_file_descriptors(
    file_descriptors: usize,
    rooms: usize,
    room_capacity: usize,
    per_address: usize,
) -> Diagnostic {
    const SUBJECT: &str = "file descriptors";
    const FIX: &str = "raise the hard limit: `LimitNOFILE=1048576` in the unit, whose limit is the one that counts";
    let connections = net::connection_capacity(file_descriptors);
    // Without ALLOWED_ROOMS the number of rooms has no bound: only the limit for one address is known.
    let (members, allowed_by) = if rooms > 0 {
        (rooms.saturating_mul(room_capacity), "the members of ALLOWED_ROOMS")
    } else {
        (per_address, "one address (MAX_CONNECTIONS_PER_IP)")
    };
    let message = format!("`ulimit -n` of this shell leaves {connections} connections");
    if connections < members {
        let message = format!("{message}; {allowed_by} may need {members}");
        Diagnostic::fault(SUBJECT, message, FIX)
    } else if connections - members < MAX_UNAUTHENTICATED {
        let message = format!(
            "{message}; {allowed_by} may need {members}, and unauthenticated connections {MAX_UNAUTHENTICATED}"
        );
        Diagnostic::warning(SUBJECT, message, FIX)
    } else {
        Diagnostic::ok(SUBJECT, message)
    }
}

/// Checks that there is memory for what the server may hold for clients, and for the rest.
pub(super) fn check_memory(process: &ProcessSettings) -> Diagnostic {
    let available = usize::try_from(memory::available()).unwrap_or(usize::MAX);
    judge_memory(process.memory_budget() >> 20, available >> 20)
}

fn judge_memory(budget_mib: usize, available_mib: usize) -> Diagnostic {
    const SUBJECT: &str = "memory";
    const FIX: &str = "raise the memory limit (`MemoryMax=` in the unit, or the container's limit), or lower MEMORY_BUDGET_MIB";
    let message = format!(
        "up to {budget_mib} MiB may be held for clients (MEMORY_BUDGET_MIB), of {available_mib} MiB that a process may use here"
    );
    if budget_mib >= available_mib {
        Diagnostic::fault(SUBJECT, message, FIX)
    } else if budget_mib > available_mib / 2 || available_mib < MIN_MEMORY_MIB {
        let message = format!("{message}; the rest is little for members and the kernel's buffers");
        Diagnostic::warning(SUBJECT, message, FIX)
    } else {
        Diagnostic::ok(SUBJECT, message)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn file_descriptors_suffice_for_members_and_unauthenticated_connections() {
        let verdict = |file_descriptors, rooms, per_address| {
            judge_file_descriptors(file_descriptors, rooms, 10, per_address).verdict
        };

        assert_eq!(verdict(20_000, 0, 100), Verdict::Ok);
        assert_eq!(verdict(1024, 0, 100), Verdict::Warning);
        assert_eq!(verdict(64, 0, 100), Verdict::Fault);
        assert_eq!(verdict(20_000, 2000, 100), Verdict::Fault);
        assert_eq!(verdict(20_000, 1500, 100), Verdict::Warning);
        assert_eq!(verdict(20_000, 1000, 100), Verdict::Ok);
        assert_eq!(verdict(usize::MAX, usize::MAX, 0), Verdict::Fault, "no overflow");
    }

    #[test]
    fn what_keeps_a_server_from_listening_is_said_with_what_mends_it() {
        let fix = |variable, kind: ErrorKind| {
            let said = cannot_listen(variable, "127.0.0.1", 80, &kind.into());
            assert_eq!((said.subject.as_str(), said.verdict), (variable, Verdict::Fault));
            said.fix
        };

        assert!(fix("PORT", ErrorKind::AddrInUse).contains("ss -ltnp 'sport = :80'"));
        assert!(fix("PORT", ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
        assert!(fix("PORT", ErrorKind::AddrNotAvailable).starts_with("set HOST to"));
        let metrics = fix("METRICS_LISTEN", ErrorKind::AddrNotAvailable);
        assert!(metrics.starts_with("set METRICS_LISTEN to"), "{metrics}");
    }

    #[test]
    fn the_memory_budget_leaves_at_least_half_of_the_memory() {
        let verdict = |budget, available| judge_memory(budget, available).verdict;

        assert_eq!(verdict(64, 256), Verdict::Ok);
        assert_eq!(verdict(1024, 2048), Verdict::Ok);
        assert_eq!(verdict(1025, 2048), Verdict::Warning);
        assert_eq!(verdict(64, 255), Verdict::Warning);
        assert_eq!(verdict(512, 512), Verdict::Fault);
    }
}
