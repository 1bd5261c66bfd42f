//! The settings and what they name on this machine: secrets, users, files, and how clients reach the server.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::{Diagnostic, users_file_fault};
use crate::{
    auth::{
        password,
        users::{DEFAULT_ACCOUNTS, RowFault, Users},
    },
    config::{self, Config, ConfigError, ConfigWarning, Environment, Origins, StartupSettings},
};

/// A random secret has more different characters than this, however it is written: 32 hexadecimal digits have 14 on average.
const FEWEST_CHARACTERS: usize = 9;

/// A shorter token can be guessed. In bytes.
const SHORTEST_TOKEN: usize = 16;

/// Idle members are pinged after a third of `WEBSOCKET_TIMEOUT`: before a proxy (nginx, HAProxy, cloud load balancers) cuts
/// them, which most do after 60 s.
const MAX_WEBSOCKET_TIMEOUT: Duration = Duration::from_secs(150);

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
        Err(error) => vec![users_file_fault(error)],
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
    let warnings = config.warnings().into_iter().filter(|warning| !is_found(&warning.name));
    let ignored = environment.ignored_lines();
    let are_accepted = found.is_empty() && ignored.is_empty();
    let unwritable = config::unwritable_folders(&config.startup);
    let mut more: Vec<_> = ignored
        .into_iter()
        .chain(warnings)
        .chain(unwritable)
        .map(|ConfigWarning { name, problem, fix }| Diagnostic::warning(name, problem, fix))
        .collect();
    if are_accepted {
        more.push(Diagnostic::ok("settings", "all are accepted"));
    }
    let secrets = config.secrets();
    let weak = weak_secrets(&secrets);
    let is_about_secret =
        |it: &Diagnostic| secrets.iter().any(|(name, _)| it.subject.as_str() == *name);
    if !secrets.is_empty() && weak.is_empty() && !found.iter().chain(&more).any(is_about_secret) {
        let names: Vec<_> = secrets.iter().map(|(name, _)| *name).collect();
        let message = format!("{}: set, strong and different", names.join(", "));
        more.push(Diagnostic::ok("secrets", message));
    }
    more.extend(weak);
    more.extend(active_users(&config.startup, found));
    more.extend(suspicious_users(&config.startup));
    more.extend(files(&config.startup, environment));
    more.push(https(&config.startup));
    more.extend(origins(&config.reloadable.cors.origins));
    more.extend(ping_interval(config.reloadable.limits.websocket_timeout));
    more
}

/// Warns of secrets that are accepted and yet weak, or used twice.
fn weak_secrets(secrets: &[(&'static str, &SecretString)]) -> Vec<Diagnostic> {
    const FIX: &str = "make another with `openssl rand -hex 32`";
    let mut weak = Vec::new();
    for (number, (name, secret)) in secrets.iter().enumerate() {
        let secret = secret.expose_secret();
        let characters = secret.chars().collect::<BTreeSet<_>>().len();
        if *name == "METRICS_TOKEN" && secret.len() < SHORTEST_TOKEN {
            let message = format!("is shorter than {SHORTEST_TOKEN} bytes, so it can be guessed");
            weak.push(Diagnostic::warning(*name, message, FIX));
        } else if characters < FEWEST_CHARACTERS {
            let message =
                format!("has only {characters} different characters, so it is not random");
            weak.push(Diagnostic::warning(*name, message, FIX));
        }
        // Keys that are the same as each other stop the start.
        for (other, same) in secrets.iter().take(number) {
            if same.expose_secret() == secret && !is_key(name) {
                let message = format!("is the same as {other}: a leak of one reveals both");
                weak.push(Diagnostic::warning(*name, message, FIX));
            }
        }
    }
    weak
}

fn is_key(name: &str) -> bool {
    name.contains("SECRET_KEY")
}

/// Warns where an idle member is pinged so seldom that a proxy on the way takes its connection for dead.
fn ping_interval(websocket_timeout: Duration) -> Option<Diagnostic> {
    (websocket_timeout > MAX_WEBSOCKET_TIMEOUT).then(|| {
        let seconds = websocket_timeout.as_secs() / 3;
        Diagnostic::warning(
            "WEBSOCKET_TIMEOUT",
            format!("an idle member is pinged every {seconds} s, and proxies cut connections that are silent for 60 s"),
            "set it to 150 or less, or raise the limit of every proxy on the way (nginx: `proxy_read_timeout`)",
        )
    })
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

fn https(startup: &StartupSettings) -> Diagnostic {
    const SUBJECT: &str = "HTTPS";
    let listen = &startup.listen;
    let trusts_all = listen.trusted_proxies.iter().any(|net| net.prefix_len() == 0);
    let is_unix = listen.unix_socket().is_some();
    let is_loopback = is_unix
        || listen.host == "localhost"
        || listen.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if trusts_all {
        return Diagnostic::fault(
            SUBJECT,
            "TRUSTED_PROXIES holds every address: any client may claim that it came by HTTPS, and from which address",
            "name the addresses of your proxies only",
        );
    }
    if listen.tls.is_some() {
        return Diagnostic::ok(
            SUBJECT,
            "the server has TLS of its own, and refuses requests without it",
        );
    }
    match (listen.require_https, is_loopback) {
        (true, _) if listen.trusted_proxies.is_empty() && !is_unix => Diagnostic::fault(
            SUBJECT,
            "REQUIRE_HTTPS=true without a certificate and without TRUSTED_PROXIES: every request is refused",
            "name the proxy in TRUSTED_PROXIES, or give SSL_CERT_FILE and SSL_KEY_FILE",
        ),
        (true, _) => Diagnostic::ok(
            SUBJECT,
            "in force: only requests are served of which a trusted proxy says X-Forwarded-Proto: https",
        ),
        (false, true) => Diagnostic::warning(
            SUBJECT,
            "REQUIRE_HTTPS=false: requests that reach the proxy in the clear are served, too",
            "set REQUIRE_HTTPS=true; deploy/nginx.conf passes on which requests came by HTTPS",
        ),
        (false, false) => Diagnostic::fault(
            SUBJECT,
            format!(
                "REQUIRE_HTTPS=false and HOST={}: passwords cross the network in the clear",
                listen.host
            ),
            "set REQUIRE_HTTPS=true, behind a proxy or with SSL_CERT_FILE and SSL_KEY_FILE",
        ),
    }
}

fn origins(origins: &Origins) -> Option<Diagnostic> {
    const SUBJECT: &str = "CORS_ORIGINS";
    match origins {
        // Warned of already.
        Origins::Any => None,
        Origins::These(origins) if origins.is_empty() => Some(Diagnostic::warning(
            SUBJECT,
            "[] lets no web page use this server",
            "name the origins of your pages",
        )),
        Origins::These(origins) => {
            Some(Diagnostic::ok(SUBJECT, format!("narrowed to {}", origins.join(", "))))
        }
    }
}
