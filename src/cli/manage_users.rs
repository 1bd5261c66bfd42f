//! `manage_users`: edits the users file from a shell. A running server applies each change within two seconds.

use std::{
    io::{self, BufRead, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
};

#[cfg(test)]
use clap::CommandFactory;
use clap::{Args, Parser, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::terminal;
use crate::{
    auth::{
        password,
        users::{
            EditError, FileError, UsersTable, accounts_of, check_email, check_password,
            check_username, edit,
        },
    },
    config::{self, Environment},
};

/// Adds, removes and lists the users of the signaling server.
///
/// The file is USERS_CSV from the environment or from .env in the working folder; otherwise users.csv.
/// A running server applies a change within two seconds: a user who is removed or disabled is disconnected.
#[derive(Parser)]
#[command(name = "manage_users", version, arg_required_else_help = true)]
struct CommandLine {
    /// Read USERS_CSV from this file instead of .env in the working folder
    #[arg(long, global = true, value_name = "FILE")]
    env_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a user: `add alice --password-stdin`, or `add alice:password[:email]`
    Add {
        /// The username (the command asks for the password), or username:password[:email], which is visible in `ps`
        user: String,
        /// Email address; default username@example.com
        email: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Change a password
    Passwd {
        /// The user
        username: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Remove a user; their tokens and sessions end
    Remove {
        /// The user
        username: String,
    },
    /// Allow a disabled user to log in again
    Enable {
        /// The user
        username: String,
    },
    /// Disable a user without removing the account; their tokens and sessions end
    Disable {
        /// The user
        username: String,
    },
    /// List the users, and rows that are not valid
    List,
}

#[derive(Args)]
struct PasswordSource {
    /// Read the password from the first line of standard input instead of asking on the terminal
    #[arg(long)]
    password_stdin: bool,
}

/// The command line, for what is generated from it.
#[cfg(test)]
pub(super) fn command() -> clap::Command {
    CommandLine::command()
}

/// Parses the command line, runs the command, and returns the exit code: 0, or 1 after a fault or a usage error.
pub fn main() -> ExitCode {
    let CommandLine { env_file, command } = match terminal::parse(|_| Ok(())) {
        Ok(command_line) => command_line,
        Err(code) => return code,
    };
    match run(env_file.as_deref(), command) {
        Ok(message) => match terminal::print(message) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                terminal::print_error(format!("manage_users: done, but {error}"));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            terminal::print_error(format!("manage_users: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs `command`, and returns what to print.
fn run(env_file: Option<&Path>, command: Command) -> Result<String, EditError> {
    let path = users_csv(env_file)?;
    match command {
        Command::Add { user, email, password } => add(&path, &user, email, &password),
        Command::Passwd { username, password } => set_password(&path, &username, &password),
        Command::Remove { username } => {
            require_file(&path)?;
            edit(&path, |table| table.remove(&username))?;
            Ok(format!("user \"{username}\" removed"))
        }
        Command::Enable { username } => {
            require_file(&path)?;
            edit(&path, |table| table.set_active(&username, true))?;
            Ok(format!("user \"{username}\" enabled"))
        }
        Command::Disable { username } => {
            require_file(&path)?;
            edit(&path, |table| table.set_active(&username, false))?;
            Ok(format!("user \"{username}\" disabled"))
        }
        Command::List => list(&UsersTable::read(&path)?),
    }
}

fn users_csv(env_file: Option<&Path>) -> Result<PathBuf, EditError> {
    let environment =
        Environment::read(env_file).map_err(|errors| EditError::Refused(errors.to_string()))?;
    Ok(config::users_csv(|name| environment.variable(name)))
}

/// Only `add` creates a file; for every other command a missing one is an error.
fn require_file(path: &Path) -> Result<(), FileError> {
    UsersTable::read(path).map(|_| ())
}

/// Adds `user`, which is a username or the seed's form ([`parse_user`]).
fn add(
    path: &Path,
    user: &str,
    email: Option<String>,
    source: &PasswordSource,
) -> Result<String, EditError> {
    let (username, given, email) =
        if source.password_stdin { (user, None, email) } else { parse_user(user, email)? };
    check_username(username)?;
    email.as_deref().map_or(Ok(()), check_email)?;
    let email = email.unwrap_or_else(|| format!("{username}@example.com"));
    let is_visible = given.is_some();
    let password = match given {
        Some(password) => password,
        None => source.read(username)?,
    };
    check_password(&password)?;
    let hash = hash(&password)?;
    edit(path, |table| table.add(username, &email, &hash))?;
    if is_visible {
        terminal::print_error(format!(
            "hint: a password on the command line is visible in `ps` and kept in the shell's history; \
             `manage_users add {username}` asks for it, `--password-stdin` reads it"
        ));
    }
    Ok(format!("user \"{username}\" added"))
}

/// Parses `username`, `username:password` or `username:password:email`. A second colon that may be part of the password is
/// refused: half a password must never be stored.
fn parse_user(
    user: &str,
    email: Option<String>,
) -> Result<(&str, Option<SecretString>, Option<String>), EditError> {
    let Some((username, rest)) = user.split_once(':') else { return Ok((user, None, email)) };
    let Some((password, last)) = rest.split_once(':') else {
        return Ok((username, Some(rest.into()), email));
    };
    if email.is_none() && check_email(last).is_ok() && !last.contains(':') {
        return Ok((username, Some(password.into()), Some(last.to_owned())));
    }
    Err(EditError::Refused(format!(
        "a password that contains \":\" is ambiguous in this form; \
         use `manage_users add --password-stdin {username}`"
    )))
}

fn set_password(path: &Path, username: &str, source: &PasswordSource) -> Result<String, EditError> {
    // Before the command asks for the password of a user who does not exist.
    if !UsersTable::read(path)?.rows().any(|row| row.username == username) {
        return Err(EditError::Unknown(username.to_owned()));
    }
    let hash = hash(&source.read(username)?)?;
    edit(path, |table| table.set_hash(username, &hash))?;
    Ok(format!("password of \"{username}\" changed"))
}

impl PasswordSource {
    /// The password of `username`, from standard input or from the terminal.
    fn read(&self, username: &str) -> Result<SecretString, EditError> {
        let refused =
            |error: io::Error| EditError::Refused(format!("cannot read a password: {error}"));
        if self.password_stdin {
            let mut line = Zeroizing::new(String::new());
            io::stdin().lock().read_line(&mut line).map_err(refused)?;
            let password = line.strip_suffix('\n').unwrap_or(&line);
            return Ok(password.strip_suffix('\r').unwrap_or(password).into());
        }
        if !io::stdin().is_terminal() {
            return Err(EditError::Refused(
                "there is no terminal to ask for the password; use --password-stdin".into(),
            ));
        }
        let ask = |prompt: &str| rpassword::prompt_password(prompt).map(SecretString::from);
        let first = ask(&format!("Password for {username}: ")).map_err(refused)?;
        let again = ask("Again: ").map_err(refused)?;
        if first.expose_secret() != again.expose_secret() {
            return Err(EditError::Refused("the passwords differ; nothing was changed".into()));
        }
        Ok(first)
    }
}

fn hash(password: &SecretString) -> Result<String, EditError> {
    check_password(password)?;
    password::hash(password).map_err(|error| EditError::Refused(format!("cannot hash: {error}")))
}

fn list(table: &UsersTable) -> Result<String, EditError> {
    let (accounts, faults) = accounts_of(table);
    let mut lines = vec![format!("{:<24} {:<32} {}", "USERNAME", "EMAIL", "ACTIVE")];
    let mut accounts: Vec<_> = accounts.into_values().collect();
    accounts.sort_unstable_by(|one, other| one.username.cmp(&other.username));
    for user in &accounts {
        let active = if user.is_active { "yes" } else { "no" };
        lines.push(format!(
            "{:<24} {:<32} {active}",
            user.username.escape_debug().to_string(),
            user.email.escape_debug().to_string()
        ));
    }
    let count = accounts.len();
    lines.push(format!("{count} {}", if count == 1 { "user" } else { "users" }));
    lines.extend(
        faults.iter().map(|fault| format!("line {} is ignored: {}", fault.line, fault.fault)),
    );
    Ok(lines.join("\n"))
}
