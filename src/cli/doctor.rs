//! `signaling-server doctor`: prints the diagnostics of [`crate::doctor`] for people or as JSON.

use std::{error::Error, io, path::PathBuf};

use clap::Args;
use reqwest::Url;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{block_on, terminal};
use crate::{
    config::Environment,
    doctor::{self, PublicAddress, Verdict},
};

/// The longest input that is read: more than any token has.
const MAX_INPUT_BYTES: u64 = 1024 * 1024;

/// What `doctor` accepts.
#[derive(Args)]
pub(super) struct DoctorArguments {
    /// Print the diagnostics as JSON
    #[arg(long)]
    json: bool,
    /// Compare the clock with that of a server, such as https://example.com
    #[arg(long, value_name = "URL")]
    date: Option<String>,
    /// Also ask the server through its public address, such as https://signaling.example.com: what its proxies tell it
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// Also leave a WebSocket idle for 90 s there
    #[arg(long, requires = "url")]
    slow: bool,
    /// A PEM file with the authority that issued the certificate there, where the system does not trust it
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// Check only the access token on standard input; it is not printed
    #[arg(long, value_name = "-", value_parser = ["-"], conflicts_with_all = ["date", "url"])]
    token: Option<String>,
}

/// Prints all diagnostics; fails if one of them is a fault.
pub(super) fn run(
    DoctorArguments { json, date, url, slow, ca, token }: &DoctorArguments,
    environment: &Environment,
) -> Result<(), Box<dyn Error>> {
    let diagnostics = match token {
        Some(_) => block_on(doctor::check_token(environment, &read_token()?))?,
        None => {
            let public =
                url.clone().map(|url| PublicAddress { url, ca: ca.clone(), is_slow: *slow });
            block_on(doctor::run(environment, date.as_deref(), public.as_ref()))?
        }
    };
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

/// The token on standard input: not an argument, which others see in `ps`.
fn read_token() -> io::Result<SecretString> {
    let mut text = Zeroizing::new(String::new());
    io::Read::read_to_string(&mut io::Read::take(io::stdin(), MAX_INPUT_BYTES), &mut text)?;
    Ok(text.as_str().into())
}
