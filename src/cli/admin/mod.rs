//! `signaling-server admin`: the admin API of a running server, from a shell.

mod command;
mod output;
mod request;

use std::{error::Error, path::PathBuf};

use clap::Args;
use reqwest::Url;

use self::{command::Command, request::Request};
use super::{block_on, terminal};
use crate::{
    config::{AdminAccess, Environment},
    http_client::LocalServer,
};

/// Beside the rule that `kick` or `ban` made.
const UNKNOWN_SUBJECT: &str = "hint: no account, and no member on this server, has that name now: is it misspelled? The rule applies";

/// What `admin` accepts.
#[derive(Args)]
pub struct AdminArguments {
    /// The server's address, such as https://signaling.example.com
    #[arg(long, global = true)]
    url: Option<Url>,
    /// A PEM file with the authority that issued the server's certificate, where the system does not trust it
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print the server's answer unchanged, as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Sends the command to the server and prints its answer.
pub(super) fn run(
    arguments: AdminArguments,
    environment: &Environment,
) -> Result<(), Box<dyn Error>> {
    let AdminArguments { url, ca, json, command } = arguments;
    let AdminAccess { host, port, token } = AdminAccess::read(|name| environment.variable(name))?;
    let token = token.ok_or_else(|| {
        let missing = environment.missing_file().map_or(String::new(), |said| said + "\n");
        missing + "ADMIN_TOKEN is not set: set the server's token in the environment or in .env"
    })?;
    let url = match url {
        Some(url) => url,
        None => {
            let url = LocalServer::new(&host, port).url();
            url.parse().map_err(|error| format!("{url}: {error}"))?
        }
    };
    let request = Request::of(command)?;
    let answer = block_on(request.send(url, ca.as_deref(), &token))??;
    if answer.get("is_known").is_some_and(|is_known| *is_known == false) {
        terminal::print_error(UNKNOWN_SUBJECT);
    }
    let text = if json { serde_json::to_string_pretty(&answer)? } else { output::lines(&answer) };
    Ok(terminal::print(text)?)
}
