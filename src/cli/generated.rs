//! What follows from the declarations of the command line: the reference page, man pages and completions. Tests hold the
//! files to that.

use std::{fs, path::PathBuf};

use clap::{Arg, Command};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::programs;

const REFERENCE: &str = "docs/reference/command-line.md";
const BEGIN: &str = "<!-- commands:begin -->\n";
const END: &str = "<!-- commands:end -->\n";
const REGENERATE: &str =
    "differs from src/cli/: run `cargo test --locked --lib cli::generated -- --ignored`";

/// A command and the commands below it, without `help`.
fn all(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|it| it.get_name() != "help");
    std::iter::once(command).chain(below.flat_map(all)).collect()
}

/// `signaling-server admin kick`.
fn full_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).to_owned()
}

fn reference() -> String {
    let mut text = String::new();
    for program in programs() {
        for command in all(&program) {
            text += &section(command);
        }
    }
    text
}

/// One command: its usage, and a table of its arguments and options but those that every command has.
fn section(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").split('\n').map(str::trim).collect::<Vec<_>>();
    let is_root = !full_name(command).contains(' ');
    let shown = command.get_arguments().filter(|argument| {
        let is_common = ["help", "version"].contains(&argument.get_id().as_str());
        !is_common && (is_root || !argument.is_global_set() || is_of_admin(command, argument))
    });
    let rows: Vec<_> = shown.map(row).collect();
    let table = if rows.is_empty() {
        String::new()
    } else {
        format!("\n| argument | meaning |\n| --- | --- |\n{}", rows.concat())
    };
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    format!("### {}\n\n{about}. Usage: `{}`\n{table}\n", full_name(command), usage.join("`, `"))
}

/// The options of `admin` that all its commands have stand once, with `admin` itself.
fn is_of_admin(command: &Command, argument: &Arg) -> bool {
    command.get_name() == "admin" && argument.get_id() != "env_file"
}

fn row(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    let help =
        help.map(ToString::to_string).unwrap_or_default().replace('|', "\\|").replace('\n', " ");
    let values: Vec<_> = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| format!("<{name}>"))
        .collect();
    let takes_value = argument.get_action().takes_values();
    let values = if takes_value { values.join(" ") } else { String::new() };
    let name = match argument.get_long() {
        Some(long) => format!("--{long} {values}"),
        None => values,
    };
    let possible: Vec<_> =
        argument.get_possible_values().iter().map(|it| format!("`{}`", it.get_name())).collect();
    let possible = if possible.is_empty() || !takes_value {
        String::new()
    } else {
        format!(" ({})", possible.join(", "))
    };
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
    let default = if defaults.is_empty() || !takes_value {
        String::new()
    } else {
        format!(" Default: `{}`.", defaults.join(" "))
    };
    format!("| `{}` | {help}{possible}.{default} |\n", name.trim())
}

/// The page with the reference, between what people have written before and after it.
fn reference_page(old: &str) -> String {
    let (before, rest) = old.split_once(BEGIN).expect("a line before which the commands begin");
    let (_, after) = rest.split_once(END).expect("a line at which the commands end");
    [before, BEGIN, "\n", &reference(), END, after].concat()
}

/// One page for a program: its commands are sections of it.
fn man_page(program: &Command) -> String {
    let man = Man::new(program.clone());
    let mut page = Vec::new();
    man.render_title(&mut page).unwrap();
    man.render_name_section(&mut page).unwrap();
    man.render_synopsis_section(&mut page).unwrap();
    man.render_description_section(&mut page).unwrap();
    man.render_options_section(&mut page).unwrap();
    for command in all(program).into_iter().skip(1) {
        let man = Man::new(command.clone());
        page.extend(format!(".SH {}\n", full_name(command).to_uppercase()).bytes());
        page.extend(without_heading(|out| man.render_description_section(out)));
        page.extend(b".PP\n");
        page.extend(without_heading(|out| man.render_synopsis_section(out)));
        page.extend(without_heading(|out| man.render_options_section(out)));
    }
    String::from_utf8(page).unwrap()
}

fn without_heading(render: impl Fn(&mut Vec<u8>) -> std::io::Result<()>) -> Vec<u8> {
    let mut text = Vec::new();
    render(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let lines = text.lines().filter(|line| {
        !line.starts_with(".SH") && !line.starts_with(".ie") && !line.starts_with(".el")
    });
    lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

/// The file names of completions, as each shell looks for them.
fn completion_files(name: &str) -> [(Shell, String); 3] {
    [
        (Shell::Bash, format!("{name}.bash")),
        (Shell::Zsh, format!("_{name}")),
        (Shell::Fish, format!("{name}.fish")),
    ]
}

/// Man pages and completions, each with its path and text.
fn files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for mut program in programs() {
        let name = program.get_name().to_owned();
        files.push((format!("deploy/man/{name}.1").into(), man_page(&program)));
        for (shell, file) in completion_files(&name) {
            let mut text = Vec::new();
            generate(shell, &mut program, &name, &mut text);
            files.push((
                format!("deploy/completions/{file}").into(),
                String::from_utf8(text).unwrap(),
            ));
        }
    }
    files
}

#[test]
fn the_command_line_reference_is_what_the_declarations_say() {
    let page = fs::read_to_string(REFERENCE).unwrap();

    assert!(page == reference_page(&page), "{REFERENCE} {REGENERATE}");
}

#[test]
fn man_pages_and_completions_are_what_the_declarations_say() {
    for (path, text) in files() {
        assert!(fs::read_to_string(&path).unwrap_or_default() == text, "{path:?} {REGENERATE}");
    }
}

#[test]
#[ignore = "writes the reference, man pages and completions into the tree"]
fn write_reference_man_pages_and_completions() {
    let page = fs::read_to_string(REFERENCE).unwrap();
    fs::write(REFERENCE, reference_page(&page)).unwrap();
    for (path, text) in files() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
