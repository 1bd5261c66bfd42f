//! `env.example` and the reference table, as the declarations have them; tests hold both files to that.

use std::{collections::BTreeSet, fmt::Write, fs};

use super::{Declaration, SECTIONS, Section, Sensitivity, declarations, parse::TRUE_OR_FALSE};

const ENV_EXAMPLE: &str = "env.example";
const REFERENCE: &str = "docs/reference/settings.md";
const BEGIN: &str = "<!-- settings:begin -->\n";
const END: &str = "<!-- settings:end -->\n";
/// What comes before the names of the reloadable settings.
const RELOAD: &str = "## Changes without a restart

SIGHUP makes the server read the users file, the certificate and the settings below again. It applies all of them, or none if one is
invalid. The tables say which connections and requests each change affects. All other settings need a restart. How to send it:
[Operations](../run/operations.md#changing-settings-while-it-runs).

";
const REGENERATE: &str =
    "differs from src/config/: run `cargo test --locked --lib config::generated -- --ignored`";

/// The longest line of `env.example`, unless a default is longer.
const WIDTH: usize = 118;

fn env_example() -> String {
    let mut text = "# Every setting, with its default. Generated from src/config/ by `cargo test --lib config::generated -- --ignored`.
# Copy to .env in the folder in which the server starts; variables of the process environment win over it.
# What a setting means, and which settings SIGHUP reads again: docs/reference/settings.md
"
    .to_owned();
    for Section { title, settings } in SECTIONS {
        writeln!(text, "\n\n# {title}").unwrap();
        for Declaration { name, default, example, accepted, help, .. } in settings {
            let mut comment = help.replace('`', "");
            if *accepted != TRUE_OR_FALSE {
                write!(comment, " Accepts {}.", accepted.replace('`', "")).unwrap();
            }
            if example.is_some() {
                write!(comment, " Without this line: {default}.").unwrap();
            }
            let shown = example.unwrap_or(default);
            write!(text, "\n{}{name}={shown}\n", wrapped("# ", &comment)).unwrap();
        }
    }
    text
}

/// A text in lines that are not too long, each of which begins with `start`.
fn wrapped(start: &str, text: &str) -> String {
    let mut lines = vec![start.to_owned()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.len() + 1 + word.len() > WIDTH {
            lines.push(start.to_owned() + word);
        } else if line == start {
            line.push_str(word);
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n") + "\n"
}

fn reference() -> String {
    let mut text = String::new();
    for Section { title, settings } in SECTIONS {
        write!(text, "## {title}\n\n| setting | default | accepts | after a change | meaning |\n| --- | --- | --- | --- | --- |\n").unwrap();
        for setting in settings {
            text.push_str(&row(setting));
        }
        text.push('\n');
    }
    let reloadable = declarations().filter(|it| it.is_reloadable());
    let names: Vec<_> = reloadable.map(|it| format!("`{}`", it.name)).collect();
    text + RELOAD + &wrapped("", &format!("{}.", names.join(", ")))
}

fn row(setting: &Declaration) -> String {
    let Declaration { name, default, example, accepted, reload, sensitivity, help, page } = setting;
    let default = if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") };
    let shown = example.map_or(String::new(), |example| format!("; `{example}` in `env.example`"));
    let default = default + &shown;
    let change = reload.map_or("restart".to_owned(), |reach| format!("SIGHUP, for {reach}"));
    let secret = match sensitivity {
        Sensitivity::Public => "",
        Sensitivity::HoldsCredentials | Sensitivity::Secret => " *Secret.*",
    };
    let page = page.map_or(String::new(), |page| {
        let (path, _) = page.split_once('#').unwrap_or((page, ""));
        let file = path.rsplit('/').next().unwrap();
        let link =
            page.strip_prefix("docs/").map_or(format!("../../{page}"), |page| format!("../{page}"));
        format!(" See [{file}]({link}).")
    });
    let accepted = accepted.replace('|', "\\|");
    format!("| `{name}` | {default} | {accepted} | {change} | {help}{page}{secret} |\n")
}

/// The page with the tables that the declarations make, between what people have written before and after them.
fn reference_page(old: &str) -> String {
    let (before, rest) = old.split_once(BEGIN).expect("a line before which the tables begin");
    let (_, after) = rest.split_once(END).expect("a line at which the tables end");
    [before, BEGIN, "\n", &reference(), "\n", END, after].concat()
}

#[test]
fn env_example_is_what_the_declarations_say() {
    let text = fs::read_to_string(ENV_EXAMPLE).unwrap();

    assert!(text == env_example(), "{ENV_EXAMPLE} {REGENERATE}");
}

#[test]
fn the_reference_table_is_what_the_declarations_say() {
    let page = fs::read_to_string(REFERENCE).unwrap();

    assert!(page == reference_page(&page), "{REFERENCE} {REGENERATE}");
}

#[test]
#[ignore = "writes env.example and the reference table into the tree"]
fn write_env_example_and_the_reference_table() {
    fs::write(ENV_EXAMPLE, env_example()).unwrap();
    let page = fs::read_to_string(REFERENCE).unwrap();
    fs::write(REFERENCE, reference_page(&page)).unwrap();
}

#[test]
fn each_setting_is_declared_once_and_in_whole_sentences() {
    let mut names = BTreeSet::new();
    for Declaration { name, accepted, reload, help, page, .. } in declarations() {
        assert!(names.insert(name), "{name} twice");
        assert!(!accepted.is_empty() && !accepted.ends_with('.'), "{name}: {accepted}");
        assert!(help.ends_with('.') && !help.contains(['\n', '|']), "{name}: {help}");
        assert!(reload.is_none_or(|reach| !reach.ends_with('.')), "{name}: {reload:?}");
        assert!(page.is_none_or(|page| page.contains(".md")), "{name}");
    }
}
