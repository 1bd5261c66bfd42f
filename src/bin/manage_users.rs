//! `manage_users`: the accounts in the users file, from a shell. A running server sees each change.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use signaling::{
    auth::{
        password,
        users::accounts_of,
        users_file::{
            EditError, FileError, UsersTable, check_email, check_password, check_username, edit,
        },
    },
    config, dotenv,
};
use zeroize::Zeroizing;

/// Adds, removes and lists the users of the signaling server.
///
/// The file is USERS_CSV from the environment or from .env in this folder; users.csv otherwise.
/// A running server sees a change within two seconds: whoever is removed or disabled is out at once.
#[derive(Parser)]
#[command(name = "manage_users", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Add a user: `add alice --password-stdin`, or `add alice:password[:email]`
    Add {
        /// The username (the password is asked for), or username:password[:email], which others see in `ps`
        user: String,
        /// Mail address; default username@example.com
        email: Option<String>,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Change a password
    Passwd {
        /// Whose
        username: String,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Remove a user; its tokens and calls end
    Remove {
        /// Whom
        username: String,
    },
    /// Let a disabled user in again
    Enable {
        /// Whom
        username: String,
    },
    /// Keep a user out without removing it; its tokens and calls end
    Disable {
        /// Whom
        username: String,
    },
    /// List the users, and rows that are none
    List,
}

#[derive(Args)]
struct PasswordSource {
    /// Read the password from the first line of standard input instead of asking on the terminal
    #[arg(long)]
    password_stdin: bool,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match act(arguments.act) {
        Ok(said) => match writeln!(io::stdout(), "{said}") {
            // Whoever reads only the first lines of a list has closed the pipe; that is no failure.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let _ = writeln!(io::stderr(), "manage_users: done, but cannot say so: {error}");
                ExitCode::FAILURE
            }
            Ok(()) | Err(_) => ExitCode::SUCCESS,
        },
        Err(error) => {
            let _ = writeln!(io::stderr(), "manage_users: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(act: Act) -> Result<String, EditError> {
    let path = users_csv()?;
    match act {
        Act::Add { user, email, password } => add(&path, &user, email, &password),
        Act::Passwd { username, password } => {
            // Before anybody types a password for nobody.
            if !UsersTable::read(&path)?.rows().any(|row| row.username == username) {
                return Err(EditError::Unknown(username));
            }
            let hash = hashed(&password.read(&username)?)?;
            edit(&path, |table| table.set_hash(&username, &hash))?;
            Ok(format!("password of \"{username}\" changed"))
        }
        Act::Remove { username } => {
            existing(&path)?;
            edit(&path, |table| table.remove(&username))?;
            Ok(format!("user \"{username}\" removed"))
        }
        Act::Enable { username } => {
            existing(&path)?;
            edit(&path, |table| table.set_active(&username, true))?;
            Ok(format!("user \"{username}\" enabled"))
        }
        Act::Disable { username } => {
            existing(&path)?;
            edit(&path, |table| table.set_active(&username, false))?;
            Ok(format!("user \"{username}\" disabled"))
        }
        Act::List => list(&UsersTable::read(&path)?),
    }
}

fn users_csv() -> Result<PathBuf, EditError> {
    let variable =
        dotenv::environment().map_err(|faults| EditError::Refused(faults.to_string()))?;
    Ok(config::users_csv(variable))
}

/// Only `add` begins a new file; for all else a missing one is a mistake.
fn existing(path: &Path) -> Result<(), FileError> {
    UsersTable::read(path).map(|_| ())
}

fn add(
    path: &Path,
    user: &str,
    email: Option<String>,
    source: &PasswordSource,
) -> Result<String, EditError> {
    let (username, given, email) =
        if source.password_stdin { (user, None, email) } else { read_seed_form(user, email)? };
    check_username(username)?;
    email.as_deref().map_or(Ok(()), check_email)?;
    let email = email.unwrap_or_else(|| format!("{username}@example.com"));
    let hint = given.is_some();
    let password = match given {
        Some(password) => password,
        None => source.read(username)?,
    };
    check_password(&password)?;
    let hash = hashed(&password)?;
    edit(path, |table| table.add(username, &email, &hash))?;
    if hint {
        let _ = writeln!(
            io::stderr(),
            "hint: a password on the command line is seen in `ps` and kept in the shell's history; \
             `manage_users add {username}` asks for it, `--password-stdin` reads it"
        );
    }
    Ok(format!("user \"{username}\" added"))
}

/// `username`, `username:password` or `username:password:email`. A second colon that may as well be
/// part of the password is refused: half a password must never be stored.
fn read_seed_form(
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
        "a password that contains \":\" cannot be told from what follows it; \
         use `manage_users add --password-stdin {username}`"
    )))
}

impl PasswordSource {
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
                "there is no terminal to ask for a password on; give --password-stdin".into(),
            ));
        }
        let ask = |words: &str| rpassword::prompt_password(words).map(SecretString::from);
        let first = ask(&format!("Password for {username}: ")).map_err(refused)?;
        let again = ask("Again: ").map_err(refused)?;
        if first.expose_secret() != again.expose_secret() {
            return Err(EditError::Refused("the two passwords differ; nothing was changed".into()));
        }
        Ok(first)
    }
}

fn hashed(password: &SecretString) -> Result<String, EditError> {
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
        faults.iter().map(|fault| format!("line {} is kept out: {}", fault.line, fault.fault)),
    );
    Ok(lines.join("\n"))
}
