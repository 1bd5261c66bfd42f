//! `signaling-server --check-config`: all that a start does but listen, without a request to any other machine.

use std::error::Error;

use super::terminal;
use crate::{
    config::{self, Environment},
    doctor::{self, Diagnostic},
};

/// Fails with a line for each fault that keeps these settings, accounts and files from production. With `strict` what is
/// surely a mistake is a fault, too: lines of `.env` without effect, and secrets in quotes or white space.
pub(super) fn run(environment: &Environment, strict: bool) -> Result<(), Box<dyn Error>> {
    let (config, mut faults) = doctor::settings(environment);
    faults.extend(doctor::start_faults(&config, &faults));
    let mut mistakes = environment.ignored_lines();
    mistakes.extend(config::wrapped_secrets(&config.startup, &config.reloadable));
    let dangers = config.warnings().into_iter().filter(|danger| {
        !mistakes.contains(danger) && !faults.iter().any(|fault| fault.subject == danger.name)
    });
    let files = config::unwritable_folders(&config.startup)
        .into_iter()
        .chain(config::exposed_files(&config.startup, environment.file()));
    let dangers: Vec<_> = dangers.chain(files).collect();
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
