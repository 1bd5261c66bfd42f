//! `signaling-server --check-config`: settings and accounts, without a request to any other machine.

use std::error::Error;

use super::terminal;
use crate::{
    config::{self, dotenv},
    doctor::{self, Diagnostic},
};

/// Fails with a line for each fault that keeps these settings and accounts from production.
pub(super) fn run() -> Result<(), Box<dyn Error>> {
    let (config, faults) = doctor::settings(dotenv::environment()?);
    for warning in config::wrapped_secrets(&config.startup, &config.reloadable) {
        terminal::print_error(format!("warning: {warning}"));
    }
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = faults.iter().map(line).collect();
    Err(lines.join("\n").into())
}

fn line(fault: &Diagnostic) -> String {
    format!("{}; {}", fault.headline(), fault.fix)
}
