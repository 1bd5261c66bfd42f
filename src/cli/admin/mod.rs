//! `signaling-server admin`: the admin API of a running server, from a shell.

mod command;
mod output;
mod request;

use std::{error::Error, path::PathBuf};

use clap::Args;
use reqwest::Url;

use self::{
    command::Command,
    request::{Access, Request, Server},
};
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
    /// Send the token without TLS to a server that is not on this machine
    #[arg(long, global = true)]
    insecure: bool,
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
    let AdminArguments { url, ca, insecure, json, command } = arguments;
    let AdminAccess { host, port, proxy_protocol, token } =
        AdminAccess::read(|name| environment.variable(name))?;
    let token = token.ok_or_else(|| {
        let missing = environment.missing_file().map_or(String::new(), |said| said + "\n");
        missing + "ADMIN_TOKEN is not set: set the server's token in the environment or in .env"
    })?;
    let server = match url {
        Some(url) => Server::Url(url),
        None => Server::Local(LocalServer::new(&host, port).with_proxy_protocol(proxy_protocol)),
    };
    let request = Request::of(command)?;
    let answer = block_on(request.send(Access { server, ca, insecure, token }))??;
    if answer.get("is_known").is_some_and(|is_known| *is_known == false) {
        terminal::print_error(UNKNOWN_SUBJECT);
    }
    if let Some(hint) = partial_reach(&answer) {
        terminal::print_error(&hint);
    }
    let text = if json { serde_json::to_string_pretty(&answer)? } else { output::lines(&answer) };
    Ok(terminal::print(text)?)
}

/// What to say of a command that has not taken effect on all servers yet.
fn partial_reach(answer: &serde_json::Value) -> Option<String> {
    let (applied_on, nodes) = (answer.get("applied_on")?.as_u64()?, answer.get("nodes")?.as_u64()?);
    let advice = match answer.get("done").and_then(|done| done.as_str()) {
        Some("message") => "members of the others have not received it: send it again",
        _ => "the others follow when they can be reached",
    };
    (applied_on < nodes)
        .then(|| format!("hint: took effect on {applied_on} of {nodes} servers; {advice}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_that_has_not_reached_all_servers_says_so() {
        let hint = |answer| partial_reach(&answer);

        assert_eq!(hint(json!({"done":"unlock"})), None);
        assert_eq!(hint(json!({"done":"unlock","applied_on":3,"nodes":3})), None);
        assert_eq!(
            hint(json!({"rule":"lock","applied_on":2,"nodes":3})).unwrap(),
            "hint: took effect on 2 of 3 servers; the others follow when they can be reached"
        );
        assert!(
            hint(json!({"done":"message","applied_on":1,"nodes":2})).unwrap().contains("again")
        );
    }
}
