//! `signaling-server config`: the settings in force, and where each comes from. Secrets are not shown.

use std::error::Error;

use clap::Args;
use serde::Serialize;

use super::terminal;
use crate::config::{Config, Declaration, Environment, Sensitivity, Source, declarations};

/// What `config` accepts.
#[derive(Args)]
pub(super) struct ConfigArguments {
    /// Print only the settings that the environment or .env sets
    #[arg(long)]
    set: bool,
    /// Print a list of objects, for programs
    #[arg(long)]
    json: bool,
}

/// One setting. `value` is absent where it may not be shown.
#[derive(Serialize)]
struct SettingInForce {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    is_set: bool,
    source: Source,
}

/// Prints the settings that a start with `environment` would have; fails where one of them is not accepted.
pub(super) fn run(
    ConfigArguments { set, json }: &ConfigArguments,
    environment: &Environment,
) -> Result<(), Box<dyn Error>> {
    let settings = declarations().map(|declaration| in_force(declaration, environment));
    let settings: Vec<_> = settings.filter(|it| !set || it.is_set).collect();
    environment.missing_file().iter().for_each(terminal::print_error);
    for warning in environment.ignored_lines() {
        terminal::print_error(format!("warning: {warning}"));
    }
    let text = if *json {
        serde_json::to_string_pretty(&settings)?
    } else {
        let file = environment.file().display().to_string();
        table(settings.iter().map(|setting| row(setting, &file)))
    };
    terminal::print(text)?;
    let (_, errors) = Config::read_lenient(|name| environment.variable(name));
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n").into()) }
}

fn in_force(declaration: &Declaration, environment: &Environment) -> SettingInForce {
    let Declaration { name, default, sensitivity, .. } = declaration;
    let source = environment.source(name);
    let is_set = source != Source::Default;
    let text =
        if is_set { environment.variable(name).unwrap_or_default() } else { (*default).to_owned() };
    let value = match sensitivity {
        Sensitivity::Public => Some(text.trim().replace(char::is_control, "\u{fffd}")),
        Sensitivity::HoldsCredentials | Sensitivity::Secret => None,
    };
    SettingInForce { name: declaration.name, value, is_set, source }
}

/// Name, value and source, as people read them.
fn row(setting: &SettingInForce, file: &str) -> [String; 3] {
    let SettingInForce { name, value, is_set, source } = setting;
    let value = match value {
        Some(value) if value.is_empty() => "(empty)",
        Some(value) => value,
        None if *is_set => "(set)",
        None => "(not set)",
    };
    let source = match source {
        Source::Environment => "environment",
        Source::EnvFile => file,
        Source::Default => "default",
    };
    [*name, value, source].map(str::to_owned)
}

/// Lines in columns; the last column has any width.
fn table(rows: impl Iterator<Item = [String; 3]>) -> String {
    let head = ["SETTING", "VALUE", "SOURCE"].map(str::to_owned);
    let rows: Vec<_> = [head].into_iter().chain(rows).collect();
    let width = |of: fn(&[String; 3]) -> &String| {
        rows.iter().map(|row| of(row).chars().count()).max().unwrap_or_default()
    };
    let (names, values) = (width(|[name, ..]| name), width(|[_, value, _]| value).min(60));
    let lines = rows
        .iter()
        .map(|[name, value, source]| format!("{name:<names$}  {value:<values$}  {source}"));
    lines.collect::<Vec<_>>().join("\n")
}
