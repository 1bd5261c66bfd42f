//! Every line of the table of ceilings in SECURITY.md names a test, and that test exists.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "these are tests"
)]

use std::{fs, path::Path};

/// All code below a folder.
fn code_below(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            all += &code_below(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all += &fs::read_to_string(path).unwrap();
        }
    }
    all
}

#[test]
fn each_ceiling_in_security_md_is_held_by_a_test() {
    let page = fs::read_to_string("SECURITY.md").unwrap();
    let (_, table) = page.split_once("\n## Ceilings\n").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let code = code_below(Path::new("src")) + &code_below(Path::new("tests"));

    let mut tests = 0;
    for row in rows {
        let last = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap();
        let names: Vec<_> = last.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test in {row}");
        for name in names {
            assert!(code.contains(&format!("fn {name}()")), "no test {name}");
            tests += 1;
        }
    }
    assert!(tests > 10, "{tests} tests in the table");
}
