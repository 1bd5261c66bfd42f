//! `docs/reference/log-lines.md` explains every line of the log, and no other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "these are tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which levels each message is logged at, as the table says.
fn explained() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string("docs/reference/log-lines.md").unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let mut explained: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        for message in cells[0].split('`').skip(1).step_by(2) {
            explained.entry(message.to_owned()).or_default().insert(cells[1].to_owned());
        }
    }
    explained
}

/// The same, as the source has it. Below INFO lines are for ourselves.
fn logged() -> BTreeMap<String, BTreeSet<String>> {
    let mut logged: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(Path::new("src")) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        for level in ["info", "warn", "error"] {
            for (at, called) in code.match_indices(&format!("{level}!(")) {
                let arguments = arguments(&code[at + called.len()..]);
                let (rest, message) = arguments.trim_end_matches('"').rsplit_once('"').unwrap();
                let place = path.display();
                assert!(
                    arguments.ends_with('"'),
                    "{place}: a line without its message: {arguments}"
                );
                assert!(!message.contains('{'), "{place}: a message with values in it: {message}");
                assert!(rest.is_empty() || rest.trim_end().ends_with(','), "{place}: {arguments}");
                logged.entry(message.to_owned()).or_default().insert(level.to_uppercase());
            }
        }
    }
    logged
}

/// What bounds how often a line is logged that is not counted, whatever clients do, with a token or without one.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// Requests with `ADMIN_TOKEN`.
    Administrator,
    /// What the operator does: a changed file, a restart.
    Operator,
    /// The limits on joins and resumes (`JOINS_PER_MINUTE`): each of an account is a line or two.
    Joins,
    /// The limit on requests, and the time that a password takes to be checked.
    Logins,
    /// A pause between two of them.
    Pause,
    /// Faults of the system or of the server, which no client's message causes.
    Fault,
    /// Other servers, through Redis.
    OtherServers,
}

/// Lines of the code that serves clients which are not counted, and why they need not be.
const UNCOUNTED: [(&str, Bound); 29] = [
    ("administrator", Bound::Administrator),
    ("all file descriptors are in use; connections wait", Bound::Pause),
    ("cannot accept connections; retrying", Bound::Pause),
    ("cannot bound the kernel's buffers of connections", Bound::Operator),
    ("cannot move a connection to its worker", Bound::Fault),
    ("detached member left", Bound::Joins),
    ("detached members cannot be saved or restored", Bound::Operator),
    ("detached members of the previous process restored", Bound::Operator),
    ("detached members saved for the next process", Bound::Operator),
    ("handing members over to other servers", Bound::Operator),
    ("invalid row of the users file ignored", Bound::Operator),
    ("issuer keys fetched", Bound::Pause),
    ("issuer keys not fetched; the last ones stay in force", Bound::Pause),
    ("logged in", Bound::Logins),
    ("member detached", Bound::Joins),
    ("member joined", Bound::Joins),
    ("member left", Bound::Joins),
    ("membership resumed", Bound::Joins),
    ("moderation rule of another server skipped", Bound::OtherServers),
    ("not all members were handed over in time", Bound::Operator),
    ("own membership replaced in a full room", Bound::Joins),
    ("request failed: internal error", Bound::Fault),
    ("resume token could not be signed", Bound::Fault),
    ("session panicked", Bound::Fault),
    ("too much memory held; clients that hold the most are disconnected", Bound::Pause),
    ("upgraded connection has an unknown stream type", Bound::Fault),
    ("users file not reloaded; accounts are unchanged", Bound::Operator),
    ("users file reloaded", Bound::Operator),
    ("wall clock was set; members get new TURN credentials", Bound::Fault),
];

/// A client must not be able to fill the log, neither by being refused nor by what its token allows: `limits::refusals`
/// counts such lines, and says so in their field `count`.
#[test]
fn every_line_that_clients_cause_is_counted_or_bounded_by_something_else() {
    let mut uncounted = BTreeSet::new();
    for folder in [
        "auth",
        "delivery",
        "http",
        "limits",
        "memory",
        "moderation",
        "net",
        "rooms",
        "session",
        "state",
        "websocket",
    ] {
        for path in sources(&Path::new("src").join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
            for level in ["info", "warn", "error"] {
                for (at, called) in code.match_indices(&format!("{level}!(")) {
                    let arguments = arguments(&code[at + called.len()..]);
                    let (fields, message) =
                        arguments.trim_end_matches('"').rsplit_once('"').unwrap();
                    if !fields.split(',').any(|field| field.trim() == "count") {
                        uncounted.insert(message.to_owned());
                    }
                }
            }
        }
    }

    let bounded = BTreeSet::from(UNCOUNTED.map(|(message, _)| message.to_owned()));
    assert_eq!(
        uncounted, bounded,
        "count the line with limits::log_refusal, or say here what bounds it: {UNCOUNTED:?}"
    );
}

/// What stands before the closing parenthesis.
fn arguments(code: &str) -> &str {
    let (mut depth, mut in_string) = (0, false);
    for (at, char) in code.char_indices() {
        match char {
            '"' => in_string = !in_string,
            '(' if !in_string => depth += 1,
            ')' if !in_string && depth == 0 => return code[..at].trim().trim_end_matches(','),
            ')' if !in_string => depth -= 1,
            _ => {}
        }
    }
    panic!("no end of {code}")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|it| it == "rs"));
    files.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}

#[test]
fn every_line_of_the_log_is_explained_with_its_level_and_no_other_is() {
    let (logged, explained) = (logged(), explained());

    assert!(logged.len() > 40 && logged["member joined"].contains("INFO"), "{logged:?}");
    assert_eq!(explained, logged);
}
