//! The command line of `signaling-server`. [`main`] parses it; each command is a file beside this one.

pub mod admin;
mod check;
mod config;
mod doctor;
#[cfg(test)]
mod generated;
pub mod healthcheck;
mod init;
pub mod manage_users;
mod reload;
mod serve;
pub mod terminal;
mod token;
mod warnings;

use std::{error::Error, io, path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use secrecy::ExposeSecret;

use crate::{
    config::{Config, ConfigErrors, Environment},
    net::workers::Workers,
    state::AppState,
    webhooks,
};

/// A WebRTC signaling server.
///
/// Without a command it serves. Settings come from the environment and from .env in the working folder; env.example lists
/// them.
#[derive(Parser)]
#[command(name = "signaling-server", version)]
struct CommandLine {
    /// Check settings, accounts and files for production use, list what must change, and exit
    #[arg(long)]
    check_config: bool,
    /// With --check-config: lines of .env that have no effect, and secrets in quotes or white space, are faults, too
    #[arg(long, requires = "check_config")]
    strict: bool,
    /// Read the settings from this file instead of .env in the working folder
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
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
    /// Print the settings in force and where each comes from; secrets as set or not set
    Config(config::ConfigArguments),
    /// Check settings, secrets, accounts, files, certificate, port, clock, Redis, and each STUN and TURN server
    ///
    /// The exit code is 0 if nothing is at fault, else 1.
    #[command(
        override_usage = "signaling-server doctor [--json] [--date URL] [--url URL [--slow] [--ca FILE]] [--token -]"
    )]
    Doctor(doctor::DoctorArguments),
    /// Ask the running server that the settings name whether it is ready; the exit code is 0 if it is
    Healthcheck,
    /// Write settings with fresh secrets, an account, and the files of proxy, TURN server and service for a domain
    ///
    /// Writes into the working folder, changes nothing that exists there, and prints what remains to be done.
    Init(init::InitArguments),
    /// Print an access token for a user of your application, signed with JWT_SECRET_KEY
    Token(token::TokenArguments),
    /// Print the secret with which receivers of webhooks verify signatures
    WebhookSecret,
}

/// The command lines of both programs, complete.
#[cfg(test)]
fn programs() -> [clap::Command; 2] {
    [CommandLine::command(), manage_users::command()].map(|mut command| {
        command.build();
        command
    })
}

/// Parses the command line, runs the command, and returns the exit code: 0, or 1 after a fault or a usage error.
pub fn main() -> ExitCode {
    let command_line: CommandLine = match terminal::parse(check_conflicts) {
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

/// `--check-config` stands alone, which a declaration cannot say beside options that all commands have.
fn check_conflicts(command_line: &CommandLine) -> Result<(), clap::Error> {
    if command_line.check_config && command_line.command.is_some() {
        let message = "'--check-config' cannot be used with a command";
        return Err(CommandLine::command().error(ErrorKind::ArgumentConflict, message));
    }
    Ok(())
}

fn run(command_line: CommandLine) -> Result<(), Box<dyn Error>> {
    let CommandLine { check_config, strict, env_file, command } = command_line;
    let environment = Environment::read(env_file.as_deref())?;
    match command {
        None if check_config => check::run(&environment, strict),
        None => serve_with(env_file, environment, |_, _| {}),
        Some(Command::Admin(arguments)) => admin::run(*arguments, &environment),
        Some(Command::Doctor(arguments)) => doctor::run(&arguments, &environment),
        Some(Command::Config(arguments)) => config::run(&arguments, &environment),
        Some(Command::Init(arguments)) => init::run(arguments, &environment),
        Some(Command::Healthcheck) => healthcheck::run(&environment),
        Some(Command::Token(arguments)) => token::run(arguments, &environment),
        Some(Command::WebhookSecret) => print_webhook_secret(&environment),
    }
}

/// Serves until the process is asked to stop, with the settings of `environment`, which are read from `env_file` again at a
/// reload. Calls `started` once it accepts connections.
///
/// # Errors
///
/// Why it does not start, as lines for the operator.
pub fn serve_with(
    env_file: Option<PathBuf>,
    environment: Environment,
    started: impl FnOnce(&AppState, &Workers),
) -> Result<(), Box<dyn Error>> {
    serve::run(env_file, environment, started)
}

/// The settings of this process.
///
/// # Errors
///
/// Lines for the operator: which file is missing, which of its lines have no effect, and each fault of the settings.
fn read_settings(environment: &Environment) -> Result<Config, String> {
    Config::read(|name| environment.variable(name)).map_err(|ConfigErrors(errors)| {
        let ignored = environment.ignored_lines().into_iter();
        let ignored = ignored.map(|warning| format!("warning: {warning}"));
        let errors = errors.iter().map(ToString::to_string);
        let lines = environment.missing_file().into_iter().chain(ignored).chain(errors);
        lines.collect::<Vec<_>>().join("\n")
    })
}

/// Derived from `SECRET_KEY`, which receivers must not know.
fn print_webhook_secret(environment: &Environment) -> Result<(), Box<dyn Error>> {
    let config = read_settings(environment)?;
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
