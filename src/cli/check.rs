//! `signaling-server --check-config`: settings and accounts, without a request to any other machine.

use std::error::Error;

use crate::{
    config::dotenv,
    doctor::{self, Diagnostic},
};

/// Fails with a line for each fault that keeps these settings and accounts from production.
pub(super) fn run() -> Result<(), Box<dyn Error>> {
    let (_, faults) = doctor::settings(dotenv::environment()?);
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = faults.iter().map(line).collect();
    Err(lines.join("\n").into())
}

fn line(fault: &Diagnostic) -> String {
    format!("{}; {}", fault.headline(), fault.fix)
}
