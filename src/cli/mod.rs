//! The command line of `signaling-server`. [`main`] parses it; each command is a file beside this one.

pub mod admin;
mod check;
mod doctor;
pub mod healthcheck;
mod reload;
mod serve;
pub mod terminal;
mod token;
mod warnings;

use std::{error::Error, io, process::ExitCode};

use clap::{Parser, Subcommand};
use secrecy::ExposeSecret;

use crate::{
    config::{Config, dotenv},
    webhooks,
};

/// A WebRTC signaling server.
///
/// Without a command it serves. Settings come from the environment and from .env in the working folder; env.example lists
/// them.
#[derive(Parser)]
#[command(name = "signaling-server", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    /// Check settings and accounts for production use, list what must change, and exit
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Manage the rooms and members of a running server
    ///
    /// The token is ADMIN_TOKEN from the environment or from .env in the working folder. Without --url, the server is the one
    /// that these settings name, on this machine. Commands apply to all servers that share rooms, except status, timeline and
    /// drain, which concern the server that answers. The server logs each action.
    #[command(arg_required_else_help = true)]
    Admin(Box<admin::AdminArguments>),
    /// Check settings, secrets, accounts, files, certificate, port, clock, Redis, and each STUN and TURN server
    ///
    /// The exit code is 0 if nothing is at fault, else 1.
    #[command(override_usage = "signaling-server doctor [--json] [--date URL | --token -]")]
    Doctor(doctor::DoctorArguments),
    /// Ask the running server that the settings name whether it is ready; the exit code is 0 if it is
    Healthcheck,
    /// Print an access token for a user of your application, signed with JWT_SECRET_KEY
    Token(token::TokenArguments),
    /// Print the secret with which receivers of webhooks verify signatures
    WebhookSecret,
}

/// Parses the command line, runs the command, and returns the exit code: 0, or 1 after a fault or a usage error.
pub fn main() -> ExitCode {
    let command_line: CommandLine = match terminal::parse() {
        Ok(command_line) => command_line,
        Err(code) => return code,
    };
    match run(command_line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::print_error(error);
            ExitCode::FAILURE
        }
    }
}

fn run(command_line: CommandLine) -> Result<(), Box<dyn Error>> {
    if command_line.check_config {
        return check::run();
    }
    match command_line.command {
        None => serve::run(),
        Some(Command::Admin(arguments)) => admin::run(*arguments),
        Some(Command::Doctor(arguments)) => doctor::run(&arguments),
        Some(Command::Healthcheck) => healthcheck::run(),
        Some(Command::Token(arguments)) => token::run(arguments),
        Some(Command::WebhookSecret) => print_webhook_secret(),
    }
}

/// Derived from `SECRET_KEY`, which receivers must not know.
fn print_webhook_secret() -> Result<(), Box<dyn Error>> {
    let config = Config::read(dotenv::environment()?)?;
    Ok(terminal::print(webhooks::receiver_secret(&config.startup.auth.secret_key).expose_secret())?)
}

/// Runs `command` on a runtime of its own. Does not wait for name lookups that are still under way at its end.
fn block_on<T>(command: impl Future<Output = T>) -> io::Result<T> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let output = runtime.block_on(command);
    runtime.shutdown_background();
    Ok(output)
}
