//! Who may know whom: the table of ARCHITECTURE.md, held against every `use crate::…`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "these are tests"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Those that may know everything: the doors, and the house.
const FREE: [&str; 29] = [
    "lib",
    "main",
    "app",
    "app/moderating",
    "config",
    "dotenv",
    "http_client",
    "metrics/process",
    "server",
    "tls/mod",
    "tls/certificate",
    "tls/error",
    "tls/files",
    "tls/self_signed",
    "telemetry/escape",
    "telemetry/log_level",
    "telemetry/mod",
    "telemetry/otlp",
    "telemetry/recent",
    "telemetry/subscriber",
    "telemetry/trace_context",
    "turn/mod",
    "workers",
    "webhooks/mod",
    "webhooks/client",
    "webhooks/delivery",
    "webhooks/publisher",
    "webhooks/queue",
    "webhooks/target",
];

/// Each other module and those it may know.
const MAY_KNOW: [(&str, &[&str]); 54] = [
    ("clock", &[]),
    ("client_ip", &[]),
    ("frames", &[]),
    ("wire", &[]),
    ("turn/credentials", &[]),
    ("turn/url", &[]),
    ("turn/probe/mod", &[]),
    ("turn/probe/attempt", &["clock", "turn"]),
    ("turn/probe/batch", &["tls", "turn"]),
    ("turn/probe/connection", &["tls", "turn"]),
    ("turn/probe/health", &["clock", "turn"]),
    ("turn/probe/messages", &[]),
    ("turn/probe/outcome", &[]),
    ("tls/verify", &[]),
    ("storage/mod", &[]),
    ("storage/atomic_file", &[]),
    ("storage/file_watch", &[]),
    ("storage/line_file", &[]),
    ("storage/snapshot_file", &[]),
    ("replay", &[]),
    ("outbox", &["replay", "wire"]),
    ("metrics/mod", &[]),
    ("metrics/counters", &["wire"]),
    ("metrics/labels", &[]),
    ("limits", &[]),
    ("webhooks/address", &[]),
    ("webhooks/event", &[]),
    ("webhooks/signature", &[]),
    ("moderation", &["storage"]),
    ("auth/mod", &[]),
    ("auth/token", &[]),
    ("auth/password", &[]),
    ("auth/users_file", &["storage"]),
    ("auth/users", &["storage"]),
    ("auth/grants", &["outbox"]),
    ("auth/revoked", &["storage"]),
    ("auth/ticket", &[]),
    ("rooms/mod", &[]),
    ("rooms/far", &["outbox", "replay", "webhooks", "wire"]),
    ("rooms/registry", &["outbox", "webhooks"]),
    ("rooms/room", &["outbox", "webhooks", "wire"]),
    ("rooms/room/moving", &["outbox", "wire"]),
    ("rooms/seat", &["outbox", "wire"]),
    ("rooms/timeline", &["wire"]),
    ("cluster/mod", &["rooms", "webhooks"]),
    ("cluster/link", &["rooms", "webhooks"]),
    ("cluster/about", &[]),
    ("cluster/facts", &["rooms"]),
    ("cluster/scripts", &["rooms", "webhooks"]),
    ("cluster/told", &["rooms", "webhooks"]),
    ("cluster/way", &[]),
    ("websocket", &["frames", "metrics", "outbox", "session"]),
    ("session", &["auth", "limits", "metrics", "moderation", "outbox", "replay", "rooms", "wire"]),
    ("session/parked", &["auth", "metrics", "outbox", "replay", "rooms", "wire"]),
];

/// What the inner rings have no business with, whichever way it is written.
const NOT_IN_DECISIONS: [&str; 6] =
    ["tokio::net", "std::env", "SystemTime::now", "unix_now", "hyper", "reqwest"];

#[test]
fn no_module_knows_more_than_its_ring_allows() {
    let allowed: BTreeMap<_, _> = MAY_KNOW.into_iter().collect();
    let mut seen = 0;

    for path in sources(Path::new("src")) {
        let module = path.strip_prefix("src").unwrap().with_extension("").display().to_string();
        let is_test = module.ends_with("/tests");
        if is_test
            || FREE.contains(&module.as_str())
            || module.starts_with("http/")
            || module.starts_with("bin/")
            || module.starts_with("cli/")
            || module.starts_with("doctor/")
        {
            continue;
        }
        let known =
            allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is in no ring"));
        seen += 1;
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for other in after(code, "crate::") {
            assert!(known.contains(&other.as_str()), "{module} may not know {other}");
        }
        for foreign in NOT_IN_DECISIONS {
            assert!(
                module == "clock" || module.starts_with("turn/probe/") || !code.contains(foreign),
                "{module} has no business with {foreign}"
            );
        }
    }
    assert_eq!(seen, MAY_KNOW.len(), "a module of the table is gone");
}

#[test]
fn the_doors_do_not_know_each_other_but_for_what_they_share() {
    let shared = ["error", "extract", "layers"];
    for path in sources(Path::new("src/http")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "mod" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for other in after(text.split("#[cfg(test)]").next().unwrap(), "super::") {
            assert!(shared.contains(&other.as_str()), "http/{name} may not know http/{other}");
        }
    }
}

/// What SIGHUP may change is not asked of what was read at the start.
#[test]
fn settings_that_may_change_are_read_where_they_count_now() {
    const MAY_CHANGE: [&str; 13] = [
        "log_level",
        "cors_origins",
        "rate_limit_per_minute",
        "messages_per_second",
        "message_burst",
        "websocket_timeout",
        "max_message_bytes",
        "max_connections_per_room",
        "max_connections_per_ip",
        "auth_max_failures",
        "auth_lockout",
        "allowed_rooms",
        "ice",
    ];
    let config = fs::read_to_string("src/config.rs").unwrap();
    for name in MAY_CHANGE {
        assert!(config.contains(&format!("    pub {name}: ")), "{name} is no setting");
        for path in sources(Path::new("src")) {
            let text = fs::read_to_string(&path).unwrap();
            let stale = ["app", "self"].map(|holder| format!("{holder}.config.{name}"));
            assert!(!stale.iter().any(|stale| text.contains(stale)), "{}: {name}", path.display());
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

/// The first names behind each `prefix`, also behind `prefix{a, b}`.
fn after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(top_level(list)),
            None => names.extend(first_name(rest)),
        }
    }
    names.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    names
}

fn first_name(text: &str) -> Option<String> {
    let name: String =
        text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The names at the top level of a braced list whose opening brace has been read.
fn top_level(list: &str) -> Vec<String> {
    let (mut depth, mut entry, mut names) = (0, String::new(), Vec::new());
    for char in list.chars() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(first_name(std::mem::take(&mut entry).trim())),
            _ if depth == 0 => entry.push(char),
            _ => {}
        }
    }
    names.extend(first_name(entry.trim()));
    names
}
