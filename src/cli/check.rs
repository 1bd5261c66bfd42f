//! `signaling-server --check-config`: settings and accounts, without a request to any other machine.

use std::error::Error;

use crate::{
    doctor::{self, Diagnostic},
    dotenv,
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

fn line(Diagnostic { message, fix, .. }: &Diagnostic) -> String {
    if fix.is_empty() { message.clone() } else { format!("{message}; {fix}") }
}
