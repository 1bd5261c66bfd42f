//! `signaling-server doctor`: prints the diagnostics of [`crate::doctor`] for people or as JSON.

use std::error::Error;

use clap::Args;

use super::{block_on, terminal};
use crate::{
    config::dotenv,
    doctor::{self, Verdict},
};

/// What `doctor` accepts.
#[derive(Args)]
pub(super) struct DoctorArguments {
    /// Print the diagnostics as JSON
    #[arg(long)]
    json: bool,
    /// Compare the clock with that of a server, such as https://example.com
    #[arg(long, value_name = "URL")]
    date: Option<String>,
}

/// Prints all diagnostics; fails if one of them is a fault.
pub(super) fn run(DoctorArguments { json, date }: &DoctorArguments) -> Result<(), Box<dyn Error>> {
    let variable = dotenv::environment()?;
    let diagnostics = block_on(doctor::run(variable, date.as_deref()))?;
    let text = if *json {
        serde_json::to_string_pretty(&diagnostics)?
    } else {
        let lines: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    terminal::print(text)?;
    match diagnostics.iter().filter(|it| it.verdict == Verdict::Fault).count() {
        0 => Ok(()),
        faults => Err(format!("faults found: {faults}").into()),
    }
}
