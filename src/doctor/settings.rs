//! The settings and what they name on this machine: secrets, accounts, files, who may come in.

use std::{collections::BTreeSet, net::IpAddr};

use secrecy::{ExposeSecret, SecretString};

use super::{Diagnostic, Verdict};
use crate::{
    auth::{password, users::Users, users_file::DEFAULT_ACCOUNTS},
    config::{self, Config, Origins},
};

/// What is random has more different characters than this, however it is spelled: 32 hexadecimal digits have 14 on average.
const FEWEST_CHARACTERS: usize = 9;

/// Whoever guesses a token of so many characters guesses for ever.
const SHORTEST_TOKEN: usize = 16;

/// What the variables name, with the default where one makes no sense, and what keeps settings and accounts from
/// production.
pub fn settings(variable: impl Fn(&str) -> Option<String>) -> (Config, Vec<Diagnostic>) {
    let (config, faults) = Config::examine(variable);
    let mut findings = Vec::new();
    if config.debug {
        findings.push(Diagnostic::fault(
            "DEBUG",
            "DEBUG=true is for development: it allows published secrets, and serves the examples",
            "set DEBUG=false",
        ));
    }
    findings.extend(faults.into_iter().map(|fault| of_sentence(Verdict::Fault, &fault)));
    if config.users_csv.exists() {
        findings.extend(faults_of_users(&config));
    }
    (config, findings)
}

/// A sentence that begins with a variable, and says behind a semicolon what to do.
fn of_sentence(verdict: Verdict, sentence: &str) -> Diagnostic {
    let is_of_name = |char: char| char.is_ascii_uppercase() || char == '_';
    let name = sentence.split(|char| !is_of_name(char)).next().unwrap_or_default();
    let subject = if name.is_empty() { "settings" } else { name };
    let (says, mend) = sentence.split_once("; ").unwrap_or((sentence, ""));
    Diagnostic::new(subject, verdict, says, mend)
}

fn faults_of_users(config: &Config) -> Vec<Diagnostic> {
    let path = config.users_csv.display();
    match Users::load(&config.users_csv) {
        Ok((users, rows)) => {
            let rows = rows.iter().map(|row| {
                let says = format!("{path}, line {}: {}", row.line, row.fault);
                Diagnostic::fault("users", says, "mend that row, or `manage_users remove` it")
            });
            let published = default_passwords(&users).map(|fault| Diagnostic {
                subject: "users".to_owned(),
                ..of_sentence(Verdict::Fault, &fault)
            });
            rows.chain(published).collect()
        }
        Err(error) => vec![Diagnostic::fault(
            "users",
            format!("USERS_CSV: {error}"),
            "its first line is username,email,hashed_password,is_active; `manage_users add` makes such a file",
        )],
    }
}

/// Accounts whose password is the published one, a sentence each. Blocks for a quarter of a second for each account of
/// such a name.
pub fn default_passwords(users: &Users) -> impl Iterator<Item = String> {
    let is_default = |(username, password): &(&str, &str)| {
        users
            .active(username)
            .is_some_and(|user| password::has_hash(&(*password).into(), &user.hashed_password))
    };
    DEFAULT_ACCOUNTS.into_iter().filter(is_default).map(|(username, _)| {
        format!("user \"{username}\" still has the default password, which is published; give another with `manage_users passwd {username}`")
    })
}

/// What else there is to say of them, where `found` was said already.
pub(super) fn more(config: &Config, found: &[Diagnostic]) -> Vec<Diagnostic> {
    let warnings = config.warnings().into_iter().map(|it| of_sentence(Verdict::Warning, it));
    // What is said of settings as a whole is of published secrets, which are among the faults already.
    let mut more: Vec<_> =
        warnings.filter(|it| found.is_empty() || it.subject != "settings").collect();
    if found.is_empty() {
        more.push(Diagnostic::ok("settings", "all are accepted"));
    }
    let secrets = secrets(config);
    let weak = weak_secrets(&secrets);
    let is_about_secret =
        |it: &Diagnostic| secrets.iter().any(|(name, _)| it.subject.as_str() == *name);
    if weak.is_empty() && !found.iter().chain(&more).any(is_about_secret) {
        let names: Vec<_> = secrets.iter().map(|(name, _)| *name).collect();
        let says = format!("{}: set, strong and different", names.join(", "));
        more.push(Diagnostic::ok("secrets", says));
    }
    more.extend(weak);
    more.extend(users(config, found));
    more.extend(files(config));
    more.push(https(config));
    if let Origins::These(origins) = &config.cors_origins {
        more.push(if origins.is_empty() {
            let says = "CORS_ORIGINS=[]: no page may talk to this server";
            Diagnostic::warning("CORS_ORIGINS", says, "name the origins of your pages")
        } else {
            Diagnostic::ok("CORS_ORIGINS", format!("narrowed to {}", origins.join(", ")))
        });
    }
    more
}

/// Those that are set, by variable.
fn secrets(config: &Config) -> Vec<(&'static str, &SecretString)> {
    let secrets = [
        ("SECRET_KEY", Some(&config.secret_key)),
        ("JWT_SECRET_KEY", Some(&config.jwt_secret_key)),
        ("JWT_SECRET_KEY_PREVIOUS", config.jwt_secret_key_previous.as_ref()),
        ("TURNSERVER_SECRET", Some(&config.ice.turn.secret)),
        ("METRICS_TOKEN", config.metrics_token.as_ref()),
        ("ADMIN_TOKEN", config.admin_token.as_ref()),
    ];
    let set = secrets.into_iter().filter_map(|(name, secret)| Some((name, secret?)));
    set.filter(|(_, secret)| !secret.expose_secret().is_empty()).collect()
}

/// Beyond what stops the start.
fn weak_secrets(secrets: &[(&'static str, &SecretString)]) -> Vec<Diagnostic> {
    const OTHER: &str = "make another with `openssl rand -hex 32`";
    let mut weak = Vec::new();
    for (number, (name, secret)) in secrets.iter().enumerate() {
        let secret = secret.expose_secret();
        let characters = secret.chars().collect::<BTreeSet<_>>().len();
        if *name == "METRICS_TOKEN" && secret.len() < SHORTEST_TOKEN {
            let says = format!("is shorter than {SHORTEST_TOKEN} bytes, so it can be guessed");
            weak.push(Diagnostic::warning(*name, says, OTHER));
        } else if characters < FEWEST_CHARACTERS {
            let says = format!("has only {characters} different characters, so it is not random");
            weak.push(Diagnostic::warning(*name, says, OTHER));
        }
        // The first three among each other stop the start.
        for (other, same) in secrets.iter().take(number) {
            if same.expose_secret() == secret && !name.contains("SECRET_KEY") {
                let says = format!("is the same as {other}: whoever learns one has both");
                weak.push(Diagnostic::warning(*name, says, OTHER));
            }
        }
    }
    weak
}

fn users(config: &Config, found: &[Diagnostic]) -> Option<Diagnostic> {
    if found.iter().any(|it| it.subject == "users") {
        return None;
    }
    let (users, _) = Users::load(&config.users_csv).ok()?;
    Some(match users.active_count() {
        0 => {
            let says = "nobody in USERS_CSV is active, so nobody can log in";
            Diagnostic::warning("users", says, "`manage_users add <username>`")
        }
        number => {
            Diagnostic::ok("users", format!("{number} can log in, none with a published password"))
        }
    })
}

fn files(config: &Config) -> Vec<Diagnostic> {
    let exposed = config::exposed_files(config);
    if exposed.is_empty() {
        return vec![Diagnostic::ok("files", "those with secrets are closed to others")];
    }
    let finding = |says: String| Diagnostic {
        subject: "files".to_owned(),
        ..of_sentence(Verdict::Warning, &says)
    };
    exposed.into_iter().map(finding).collect()
}

fn https(config: &Config) -> Diagnostic {
    const SUBJECT: &str = "HTTPS";
    let anybody = config.trusted_proxies.iter().any(|net| net.prefix_len() == 0);
    let is_loopback = config.host == "localhost"
        || config.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if anybody {
        return Diagnostic::fault(
            SUBJECT,
            "TRUSTED_PROXIES holds every address: anybody may say that he came by HTTPS, and from where",
            "name the addresses of your proxies only",
        );
    }
    if config.tls.is_some() {
        return Diagnostic::ok(SUBJECT, "TLS of our own; what comes without is refused");
    }
    match (config.require_https, is_loopback) {
        (true, _) if config.trusted_proxies.is_empty() => Diagnostic::fault(
            SUBJECT,
            "REQUIRE_HTTPS=true without a certificate and without TRUSTED_PROXIES: every request is refused",
            "name the proxy in TRUSTED_PROXIES, or give SSL_CERT_FILE and SSL_KEY_FILE",
        ),
        (true, _) => {
            Diagnostic::ok(SUBJECT, "in force: only what a trusted proxy says came by HTTPS")
        }
        (false, true) => Diagnostic::warning(
            SUBJECT,
            "REQUIRE_HTTPS=false: also what reaches the proxy in the clear is served",
            "set REQUIRE_HTTPS=true; deploy/nginx.conf says what came by HTTPS",
        ),
        (false, false) => Diagnostic::fault(
            SUBJECT,
            format!(
                "REQUIRE_HTTPS=false and HOST={}: passwords cross the network in the clear",
                config.host
            ),
            "set REQUIRE_HTTPS=true, behind a proxy or with SSL_CERT_FILE and SSL_KEY_FILE",
        ),
    }
}
