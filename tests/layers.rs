//! Which module may use which: the dependency table of ARCHITECTURE.md, held against every path in `src/`.

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

/// Each module of the library and the modules that it uses: no fewer and no more. A file with an entry of its own does
/// not count for its folder.
const USES: [(&str, &[&str]); 32] = [
    ("auth", &["storage"]),
    ("auth/token_sessions", &["delivery"]),
    ("auth/users/store", &["storage"]),
    ("client_ip", &[]),
    ("clock", &[]),
    ("cluster", &["delivery", "migration", "rooms", "webhooks"]),
    ("config", &["cluster", "issuer", "memory", "net", "storage", "tls", "turn", "webhooks"]),
    ("delivery", &["memory", "protocol", "websocket"]),
    (
        "doctor",
        &[
            "auth",
            "clock",
            "cluster",
            "config",
            "http_client",
            "memory",
            "moderation",
            "net",
            "state",
            "tls",
            "turn",
        ],
    ),
    (
        "http",
        &[
            "auth",
            "client_ip",
            "clock",
            "config",
            "delivery",
            "limits",
            "memory",
            "metrics",
            "moderation",
            "net",
            "protocol",
            "rooms",
            "session",
            "state",
            "telemetry",
            "websocket",
        ],
    ),
    ("http_client", &[]),
    ("intervals", &["migration"]),
    ("issuer", &["http_client"]),
    ("limits", &[]),
    ("memory", &[]),
    ("metrics", &["protocol"]),
    ("migration", &["delivery", "peer", "protocol"]),
    ("moderation", &["storage"]),
    ("net", &["intervals", "limits", "memory", "metrics", "tls"]),
    ("peer", &["protocol"]),
    ("protocol", &[]),
    ("rooms", &["delivery", "memory", "migration", "protocol", "timeline", "webhooks"]),
    (
        "session",
        &[
            "auth",
            "delivery",
            "limits",
            "memory",
            "metrics",
            "moderation",
            "protocol",
            "rooms",
            "websocket",
        ],
    ),
    (
        "state",
        &[
            "auth",
            "clock",
            "cluster",
            "config",
            "delivery",
            "intervals",
            "issuer",
            "limits",
            "memory",
            "metrics",
            "moderation",
            "net",
            "protocol",
            "rooms",
            "session",
            "storage",
            "tls",
            "turn",
            "webhooks",
        ],
    ),
    ("storage", &[]),
    ("telemetry", &["clock", "config"]),
    ("timeline", &["memory", "peer", "protocol"]),
    ("tls", &["clock", "memory", "metrics", "storage"]),
    ("turn", &["clock", "tls"]),
    ("webhooks", &["clock", "http_client", "memory", "metrics", "tls"]),
    ("webhooks/event", &[]),
    ("websocket", &["memory"]),
];

/// Modules that assemble the others into a process, and may use all of them.
const PROCESS: [&str; 4] = ["bin", "cli", "lib", "main"];

/// Folders whose files may name each other: the methods of one type stand in several of them (`EngineLink`, `Room`), or a
/// declaration and its parser do (settings).
const SPLIT_TYPES: [&str; 3] = ["cluster", "config", "rooms"];

/// Modules that decide or hold, and act only through what they are given: no sockets, no clock, no environment.
const WITHOUT_INPUT_OR_OUTPUT: [&str; 19] = [
    "auth",
    "cluster",
    "client_ip",
    "limits",
    "metrics",
    "migration",
    "moderation",
    "peer",
    "timeline",
    "delivery",
    "rooms",
    "session",
    "tls/verify",
    "turn/credentials",
    "turn/url",
    "storage",
    "webhooks/event",
    "websocket",
    "protocol",
];

/// What input and output look like in code, however it is imported.
const INPUT_OR_OUTPUT: [&str; 6] =
    ["tokio::net", "std::env", "SystemTime::now", "unix_now", "hyper", "reqwest"];

#[test]
fn each_module_uses_what_the_table_says_and_nothing_else() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();

    for (module, uses) in &Modules::read().uses {
        let (path, top) = (module.join("/"), &module[0]);
        if PROCESS.contains(&top.as_str()) {
            continue;
        }
        let entries = USES.iter().map(|(entry, _)| *entry);
        let entry = entries.filter(|entry| is_within(&path, entry)).max_by_key(|entry| entry.len());
        let others = uses.iter().map(|used| used[0].clone()).filter(|used| used != top);
        found.entry(entry.unwrap_or(top).to_owned()).or_default().extend(others);
    }

    let allowed: BTreeMap<String, BTreeSet<String>> = USES
        .iter()
        .map(|(module, uses)| {
            ((*module).to_owned(), uses.iter().map(ToString::to_string).collect())
        })
        .collect();
    let differ = |module: &&String| found.get(*module) != allowed.get(*module);
    let wrong: BTreeSet<_> = found.keys().chain(allowed.keys()).filter(differ).collect();
    for module in &wrong {
        println!(
            "what {module} uses: {:?}; the table: {:?}",
            found.get(*module),
            allowed.get(*module)
        );
    }
    assert!(wrong.is_empty(), "the table and the code differ on {wrong:?}");
}

#[test]
fn modules_use_their_own_layer_and_those_above_it_in_architecture_md() {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| layer |")).skip(2);
    let mut layers: BTreeMap<String, usize> = BTreeMap::new();
    for (layer, row) in rows.take_while(|line| line.starts_with('|')).enumerate() {
        let quoted = row.split('|').nth(2).unwrap().split('`').skip(1).step_by(2);
        // Types in backticks describe a module.
        for module in quoted.filter(|name| name.starts_with(char::is_lowercase)) {
            assert_eq!(layers.insert(module.to_owned(), layer), None, "{module} is listed twice");
        }
    }

    for (module, uses) in Modules::read().uses {
        let top = &module[0];
        if top == "lib" {
            continue;
        }
        let layer = layers.get(top).unwrap_or_else(|| panic!("ARCHITECTURE.md has no {top}"));
        for used in uses {
            assert!(layers[&used[0]] <= *layer, "{} uses {}", module.join("/"), used.join("/"));
        }
    }
}

/// At every level: top-level modules, and the files and folders within each folder.
#[test]
fn no_two_modules_depend_on_each_other() {
    let mut levels: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();

    for (module, uses) in &Modules::read().uses {
        for used in uses {
            let shared = module.iter().zip(used).take_while(|(one, other)| one == other).count();
            // Where one is within the other there is no edge: a folder and its files are one module.
            if let (Some(from), Some(to)) = (module.get(shared), used.get(shared)) {
                let level = levels.entry(module[..shared].to_vec()).or_default();
                level.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }

    levels.retain(|folder, _| !SPLIT_TYPES.contains(&folder.join("/").as_str()));
    for graph in levels.values_mut() {
        keep_cycles(graph);
    }
    levels.retain(|_, cycles| !cycles.is_empty());
    assert!(levels.is_empty(), "cycles, by folder: {levels:#?}");
}

/// Removes modules that use none of the others, or that none of them uses, until only cycles and what joins them are left.
fn keep_cycles(graph: &mut BTreeMap<String, BTreeSet<String>>) {
    loop {
        let before = graph.len();
        let names: BTreeSet<_> = graph.keys().cloned().collect();
        for uses in graph.values_mut() {
            uses.retain(|used| names.contains(used));
        }
        graph.retain(|_, uses| !uses.is_empty());
        let used: BTreeSet<_> = graph.values().flatten().cloned().collect();
        graph.retain(|name, _| used.contains(name));
        if graph.len() == before {
            return;
        }
    }
}

#[test]
fn decisions_are_made_without_sockets_clock_and_environment() {
    for (module, code) in sources() {
        let module = module.join("/");
        if !WITHOUT_INPUT_OR_OUTPUT.iter().any(|entry| is_within(&module, entry)) {
            continue;
        }
        for name in INPUT_OR_OUTPUT {
            assert!(!code.contains(name), "{module} uses {name}");
        }
    }
}

#[test]
fn routes_do_not_use_each_other() {
    for (module, uses) in Modules::read().uses {
        if module.len() == 3 && module[..2] == ["http", "routes"] {
            let siblings = uses.iter().filter(|used| used.starts_with(&module[..2]));
            assert_eq!(siblings.count(), 0, "{module:?}");
        }
    }
}

fn is_within(module: &str, folder: &str) -> bool {
    module == folder || module.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Every module of `src/` with the modules that its code names.
struct Modules {
    uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
}

impl Modules {
    fn read() -> Self {
        let sources = sources();
        let known: BTreeSet<_> = sources
            .keys()
            .flat_map(|module| (1..=module.len()).map(|length| module[..length].to_vec()))
            .collect();
        let uses = sources.iter().map(|(module, code)| {
            let paths = paths_in(module, code);
            let targets = paths.into_iter().filter_map(|path| {
                let length =
                    (1..=path.len()).rev().find(|&length| known.contains(&path[..length]))?;
                Some(path[..length].to_vec())
            });
            (module.clone(), targets.collect())
        });
        Self { uses: uses.collect() }
    }
}

/// The code of every module by its path, without comments and tests.
fn sources() -> BTreeMap<Vec<String>, String> {
    let root = Path::new("src");
    let mut found = BTreeMap::new();
    for file in files(root) {
        let path = file.strip_prefix(root).unwrap().with_extension("");
        let mut module: Vec<_> =
            path.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        if module.iter().any(|part| part == "tests") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let lines = code.lines().map(|line| line.split("//").next().unwrap());
        found.insert(module, lines.collect::<Vec<_>>().join("\n"));
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let files = files.into_iter().filter(is_rust);
    files.chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}

/// Every path in `code` that begins with `crate::` or `super::`, from the root of the crate.
fn paths_in(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        expand(&[], &code[at + "crate::".len()..], &mut paths);
    }
    for (at, _) in code.match_indices("super::") {
        // The second of two is part of the path that the first begins, as is `super` behind a brace.
        if code[..at].ends_with("super::") {
            continue;
        }
        expand(&module[..module.len() - 1], &code[at + "super::".len()..], &mut paths);
    }
    paths
}

/// Adds the paths that a use tree behind `prefix` stands for: `a::{b, c::d}` is `a::b` and `a::c::d`. Returns what
/// follows the tree.
fn expand<'a>(prefix: &[String], mut tree: &'a str, paths: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = prefix.to_vec();
    loop {
        tree = tree.trim_start();
        if let Some(list) = tree.strip_prefix('{') {
            tree = list;
            loop {
                tree = expand(&path, tree, paths).trim_start();
                match tree.chars().next() {
                    Some(',') => tree = &tree[1..],
                    Some('}') => return &tree[1..],
                    // `as name`
                    Some(_) => tree = tree.trim_start_matches(|char| char != ',' && char != '}'),
                    None => return tree,
                }
            }
        }
        let name: String =
            tree.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
        tree = &tree[name.len()..];
        match name.as_str() {
            "" | "self" => {}
            "super" => drop(path.pop()),
            _ => path.push(name),
        }
        match tree.strip_prefix("::") {
            Some(rest) => tree = rest,
            None => {
                paths.push(path);
                return tree;
            }
        }
    }
}
