//! What names in `src/` promise: a predicate asks and changes nothing, and a name means one type.

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

/// Each source file with its text, which ends where its own tests begin.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
            found.push((path, code));
        }
    }
    found.sort();
    found
}

/// The words of some code, without comments and strings that would look like code.
fn code_lines(text: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// The name and the signature of each function, from the name to the body.
fn functions(code: &str) -> Vec<(String, String, bool)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || char == '_') {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String =
            rest.chars().take_while(|&char| char.is_alphanumeric() || char == '_').collect();
        let end = rest.find(['{', ';']).unwrap_or(rest.len());
        let is_async = code[..at].trim_end().ends_with("async");
        found.push((name, rest[..end].to_owned(), is_async));
    }
    found
}

/// What declares a type.
const KINDS: [&str; 5] = ["struct", "enum", "trait", "type", "union"];

/// `is_` and `has_` take `&self` or values, return `bool`, change nothing and wait for nothing.
#[test]
fn predicates_return_bool_and_change_nothing() {
    let mut offenders = Vec::new();
    for (path, text) in sources(Path::new("src")) {
        for (name, signature, is_async) in functions(&code_lines(&text)) {
            let is_predicate = name.starts_with("is_") || name.starts_with("has_");
            let returned =
                signature.rsplit_once("->").map_or("()", |(_, returned)| returned.trim());
            let returned = returned.split(" where").next().unwrap().trim();
            if is_predicate && (is_async || returned != "bool" || signature.contains("&mut ")) {
                offenders.push(format!("{}: {name} -> {returned}", path.display()));
            }
        }
    }
    assert_eq!(offenders, [""; 0], "name what they do with an imperative verb");
}

/// Of those that are visible outside of their module.
#[test]
fn no_two_types_have_one_name() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (path, text) in sources(Path::new("src")) {
        for line in code_lines(&text).lines() {
            let mut words = line.split_whitespace();
            let is_visible = words.next().is_some_and(|word| word.starts_with("pub"));
            let is_type = words.next().is_some_and(|word| KINDS.contains(&word));
            if let Some(declared) = words.next().filter(|_| is_visible && is_type) {
                let is_part = |char: char| char.is_alphanumeric() || char == '_';
                let name = declared.split(|char| !is_part(char)).next().unwrap();
                places.entry(name.to_owned()).or_default().push(path.display().to_string());
            }
        }
    }
    assert!(places.len() > 100, "only {} types are found", places.len());
    places.retain(|_, files| files.len() > 1);
    assert_eq!(places, BTreeMap::new(), "a name is one type's");
}
