//! Every input that is kept in `fuzz/corpus/` goes through the function that its fuzz target runs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "these are tests"
)]

#[path = "../fuzz/checks.rs"]
mod checks;

use std::{
    fs,
    path::{Path, PathBuf},
};

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 9] = [
    ("auth_message", checks::auth_message),
    ("client_frame", checks::client_frame),
    ("forwarded", checks::forwarded),
    ("proxy_header", checks::proxy_header),
    ("registry", checks::registry),
    ("room_id", checks::room_id),
    ("settings", checks::settings),
    ("users_file", checks::users_file),
    ("websocket", checks::websocket),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// What is in a folder, by name.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn names(folder: &Path) -> Vec<String> {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries(folder).iter().map(stem).collect()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let targets = TARGETS.map(|(name, _)| name);

    assert_eq!(names(&fuzz().join("fuzz_targets")), targets);
    assert_eq!(names(&fuzz().join("corpus")), targets);
}

/// In one test, since one of the checks changes the working folder.
#[test]
fn inputs_found_by_fuzzing_still_pass() {
    for (target, check) in TARGETS {
        let inputs = entries(&fuzz().join("corpus").join(target));
        assert!(inputs.len() > 10, "{target} has no corpus worth the name");
        for input in inputs {
            println!("{}", input.display());
            check(&fs::read(&input).unwrap());
        }
    }
}
