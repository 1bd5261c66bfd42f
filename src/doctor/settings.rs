//! The settings and what they name on this machine: secrets, users and files.

use super::{Diagnostic, Verdict, dangers, users_file_fault};
use crate::{
    auth::{
        password,
        users::{DEFAULT_ACCOUNTS, RowFault, Users},
    },
    config::{self, Config, ConfigError, ConfigWarning, Environment, StartupSettings},
};

/// The subject of what is said about the users file.
pub(super) const USERS: &str = "users";

/// The settings, each with its default if it is not accepted, and what keeps settings and users from production.
pub fn settings(environment: &Environment) -> (Config, Vec<Diagnostic>) {
    let (config, errors) = Config::read_lenient(|name| environment.variable(name));
    let mut faults = Vec::new();
    if config.startup.process.debug {
        faults.push(Diagnostic::fault(
            "DEBUG",
            "DEBUG=true is for development: it allows published secrets, and serves the examples",
            "set DEBUG=false",
        ));
    }
    faults.extend(
        errors
            .into_iter()
            .map(|ConfigError { name, problem, fix }| Diagnostic::fault(name, problem, fix)),
    );
    if config.startup.auth.users_csv.exists() {
        faults.extend(user_faults(&config.startup));
    }
    (config, faults)
}

fn user_faults(startup: &StartupSettings) -> Vec<Diagnostic> {
    let path = startup.auth.users_csv.display();
    match Users::load(&startup.auth.users_csv) {
        Ok((users, rows)) => {
            let rows = rows.iter().map(|row| {
                let problem = format!("{path}, line {}: {}", row.line, row.fault);
                Diagnostic::fault(USERS, problem, RowFault::FIX)
            });
            let published =
                default_passwords(&users).map(|ConfigWarning { name, problem, fix }| {
                    Diagnostic::fault(USERS, format!("{name} {problem}"), fix)
                });
            rows.chain(published).collect()
        }
        Err(error) => vec![users_file_fault(&error)],
    }
}

/// The accounts whose password is the published one. Checking takes a quarter of a second for each account with a default
/// name, and blocks the thread.
pub fn default_passwords(users: &Users) -> impl Iterator<Item = ConfigWarning> {
    let has_default = |(username, password): &(&str, &str)| {
        users
            .active(username)
            .is_some_and(|user| password::has_hash(&(*password).into(), &user.hashed_password))
    };
    DEFAULT_ACCOUNTS.into_iter().filter(has_default).map(|(username, _)| {
        ConfigWarning::new(
            format!("user \"{username}\""),
            "still has the published default password",
            format!("change it with `manage_users passwd {username}`"),
        )
    })
}

/// Which file the settings come from.
pub(super) fn env_file(environment: &Environment) -> Diagnostic {
    const SUBJECT: &str = "env file";
    let found = || environment.found_file().unwrap_or_default().display().to_string();
    Diagnostic::ok(SUBJECT, environment.missing_file().unwrap_or_else(found))
}

/// What else there is to say about the settings, after what `found` has said.
pub(super) fn more(
    config: &Config,
    environment: &Environment,
    found: &[Diagnostic],
) -> Vec<Diagnostic> {
    // An error is not repeated as a warning.
    let is_found = |name: &str| found.iter().any(|it| it.subject == name);
    let judged = dangers::judge(&config.startup, &config.reloadable);
    let judged = judged.into_iter().filter(|it| !is_found(&it.subject));
    let (fine, dangerous): (Vec<_>, Vec<_>) = judged.partition(|it| it.verdict == Verdict::Ok);
    let ignored = environment.ignored_lines();
    let are_accepted = found.is_empty() && ignored.is_empty();
    let unwritable = config::unwritable_folders(&config.startup);
    let mut more: Vec<_> = ignored.into_iter().map(Diagnostic::from).collect();
    more.extend(dangerous);
    more.extend(unwritable.into_iter().map(Diagnostic::from));
    if are_accepted {
        more.push(Diagnostic::ok("settings", "all are accepted"));
    }
    let secrets = config::secrets(&config.startup, &config.reloadable);
    let is_about_secret =
        |it: &Diagnostic| secrets.iter().any(|(name, _)| it.subject.as_str() == *name);
    if !secrets.is_empty() && !found.iter().chain(&more).any(is_about_secret) {
        let names: Vec<_> = secrets.iter().map(|(name, _)| *name).collect();
        let message = format!("{}: set, strong and different", names.join(", "));
        more.push(Diagnostic::ok("secrets", message));
    }
    more.extend(active_users(&config.startup, found));
    more.extend(suspicious_users(&config.startup));
    more.extend(files(&config.startup, environment));
    more.extend(fine);
    more
}

fn active_users(startup: &StartupSettings, found: &[Diagnostic]) -> Option<Diagnostic> {
    if found.iter().any(|it| it.subject == USERS) {
        return None;
    }
    let (users, _) = Users::load(&startup.auth.users_csv).ok()?;
    Some(match users.active_count() {
        0 => {
            let message = "USERS_CSV has no active user, so no login succeeds";
            Diagnostic::warning(USERS, message, "`manage_users add <username>`")
        }
        number => {
            Diagnostic::ok(USERS, format!("{number} can log in, none with a published password"))
        }
    })
}

/// Warns of accounts that a spreadsheet has renamed, and of hashes whose cost differs from new ones.
fn suspicious_users(startup: &StartupSettings) -> Vec<Diagnostic> {
    let Ok((users, _)) = Users::load(&startup.auth.users_csv) else { return Vec::new() };
    let renamed = users.names().into_iter().filter(|name| is_from_spreadsheet(name)).map(|name| {
        Diagnostic::warning(
            "user names",
            format!("\"{name}\" looks like what a spreadsheet makes of a number or a formula"),
            "compare the users file with its last copy; a spreadsheet must read its columns as text",
        )
    });
    let unusual = users.unusual_costs();
    let named: Vec<_> =
        unusual.iter().map(|(name, cost)| format!("{name} ({cost})")).take(10).collect();
    let costs = (!unusual.is_empty()).then(|| {
        let (count, cost, named) = (unusual.len(), password::COST, named.join(", "));
        Diagnostic::warning(
            "password hashes",
            format!("{count} with another bcrypt cost than {cost}: {named}; lower ones are easier to guess"),
            "`manage_users passwd <username>` makes a new one",
        )
    });
    renamed.chain(costs).collect()
}

/// `1.2E+16`, `#NAME?`.
fn is_from_spreadsheet(name: &str) -> bool {
    let number = name.split_once("E+").filter(|(digits, power)| {
        let are_digits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        !digits.is_empty() && !power.is_empty() && are_digits(digits) && are_digits(power)
    });
    number.is_some() || (name.starts_with('#') && name.ends_with(['?', '!']))
}

fn files(startup: &StartupSettings, environment: &Environment) -> Vec<Diagnostic> {
    let exposed = config::exposed_files(startup, environment.file());
    if exposed.is_empty() {
        return vec![Diagnostic::ok("files", "those with secrets are closed to others")];
    }
    let diagnostic = |ConfigWarning { name, problem, fix }: ConfigWarning| {
        Diagnostic::warning("files", format!("{name}: {problem}"), fix)
    };
    exposed.into_iter().map(diagnostic).collect()
}
