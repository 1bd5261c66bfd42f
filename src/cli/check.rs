//! `signaling-server --check-config`: all that a start does but accept clients, without a request to any other machine.

use std::error::Error;

use super::{block_on, terminal};
use crate::{
    config::{self, Environment},
    doctor::{self, Diagnostic},
};

/// Fails with a line for each fault that keeps these settings, accounts and files from production. With `strict` what is
/// surely a mistake is a fault, too: lines of `.env` without effect, and secrets in quotes or white space.
pub(super) fn run(environment: &Environment, strict: bool) -> Result<(), Box<dyn Error>> {
    let (config, mut faults) = doctor::settings(environment);
    faults.extend(doctor::start_faults(&config, &faults));
    let is_found = |name: &str| faults.iter().any(|it| it.subject == name);
    let mistakes = environment
        .ignored_lines()
        .into_iter()
        .chain(config::wrapped_secrets(&config.startup, &config.reloadable));
    let mistakes: Vec<_> = mistakes.map(|it| it.to_string()).collect();
    let mut dangers = doctor::dangers(&config.startup, &config.reloadable);
    // No faults: another machine than this one may be meant.
    dangers.extend(block_on(doctor::listen_faults(&config.startup))?);
    let dangers = dangers.into_iter().filter(|danger| !is_found(&danger.subject));
    let dangers = dangers.map(|danger| danger.line()).filter(|danger| !mistakes.contains(danger));
    let files = config::unwritable_folders(&config.startup)
        .into_iter()
        .chain(config::exposed_files(&config.startup, environment.file()));
    let dangers: Vec<_> = dangers.chain(files.map(|it| it.to_string())).collect();
    environment.missing_file().iter().for_each(terminal::print_error);
    for warning in mistakes.iter().chain(&dangers) {
        terminal::print_error(format!("warning: {warning}"));
    }
    if !faults.is_empty() {
        let lines: Vec<_> = faults.iter().map(Diagnostic::line).collect();
        return Err(lines.join("\n").into());
    }
    match mistakes.len() {
        count if strict && count > 0 => Err(format!("mistakes found: {count} (--strict)").into()),
        _ => Ok(()),
    }
}
