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

/// Lines of the code that serves clients which no client can cause by being refused, and why they are not counted.
const NO_REFUSALS: [(&str, &str); 33] = [
    ("administrator", "with ADMIN_TOKEN only"),
    ("all file descriptors are in use; connections wait", "every ten seconds at most"),
    ("cannot accept connections; retrying", "every ten seconds at most"),
    ("cannot bound the kernel's buffers of connections", "a fault of the system, at the start"),
    ("cannot move a connection to its worker", "a fault of the system"),
    ("detached member left", "joins are limited"),
    ("detached members cannot be saved or restored", "at a restart"),
    ("detached members of the previous process restored", "at a restart"),
    ("detached members saved for the next process", "at a restart"),
    ("handing members over to other servers", "at a restart"),
    ("invalid row of the users file ignored", "the operator changed the users file"),
    ("issuer keys fetched", "of the issuer of tokens, at most once a minute"),
    (
        "issuer keys not fetched; the last ones stay in force",
        "of the issuer of tokens, at most once a minute",
    ),
    ("logged in", "no refusal: a correct password"),
    ("logged out", "no refusal: a valid token"),
    ("logouts not saved: a restart would undo them", "a fault of the disk"),
    ("member detached", "no refusal: a member"),
    ("member joined", "no refusal: joins are limited"),
    ("member left", "no refusal: joins are limited"),
    ("membership resumed", "no refusal: a valid resume token"),
    ("moderation refused", "a moderator's request, within the message limits"),
    ("moderation rule of another server skipped", "from Redis"),
    ("moderation rules not saved: a restart would undo them", "a fault of the disk"),
    ("moderator acts", "no refusal: a moderator, within the message limits"),
    ("not all members were handed over in time", "at a restart"),
    ("own membership replaced in a full room", "no refusal: joins are limited"),
    ("request failed: internal error", "a fault of the server"),
    ("resume token could not be signed", "a fault of the server"),
    ("session panicked", "a fault of the server"),
    ("upgraded connection has an unknown stream type", "a fault of the server"),
    ("users file not reloaded; accounts are unchanged", "the operator changed the users file"),
    ("users file reloaded", "the operator changed the users file"),
    ("wall clock was set; members get new TURN credentials", "nothing of a client"),
];

/// A client that is refused must not be able to fill the log: `limits::refusals` counts such lines, and says so in their
/// field `count`.
#[test]
fn every_line_about_a_refusal_is_counted() {
    let mut uncounted = BTreeSet::new();
    for folder in
        ["auth", "delivery", "http", "limits", "net", "rooms", "session", "state", "websocket"]
    {
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

    let known = BTreeSet::from(NO_REFUSALS.map(|(message, _)| message.to_owned()));
    assert_eq!(
        uncounted, known,
        "count a refusal with limits::log_refusal, or say here why it is none"
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
