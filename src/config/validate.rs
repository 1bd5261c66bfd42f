//! Whether settings that are each accepted are also safe together: what stops a start in production, and what an
//! operator should know.

use std::{fs::Metadata, os::unix::fs::PermissionsExt, path::Path};

use secrecy::{ExposeSecret, SecretString};

use super::{
    Declaration, ReloadableSettings, StartupSettings,
    auth::{
        ADMIN_TOKEN, ALLOW_ANONYMOUS, JWT_SECRET_KEY, JWT_SECRET_KEY_PREVIOUS, SECRET_KEY,
        USERS_CSV,
    },
    cors::{CORS_ORIGINS, Origins},
    declarations,
    error::{ConfigError, ConfigWarning},
    ice::{ReloadableIce, STUNSERVER_URLS, TURNSERVER_SECRET, TURNSERVER_URLS},
    rooms::{ALLOWED_ROOMS, STATE_FILE},
    telemetry::{METRICS_LISTEN, OTEL_EXPORTER_OTLP_ENDPOINT},
};
use crate::{storage::atomic_file::sibling_path, turn::IceServerUrl};

/// RFC 7518 section 3.2: an HS256 key has at least as many bits as the hash. In bytes.
const SHORTEST_SECRET: usize = 32;

const MAKE_ONE: &str = "make one with `openssl rand -hex 32`";

/// What stops a start without `DEBUG=true`: secrets that are published, short or the same, and no users file.
pub(super) fn production_errors(startup: &StartupSettings) -> Vec<ConfigError> {
    let auth = &startup.auth;
    let (own, jwt) = (auth.secret_key.expose_secret(), auth.jwt_secret_key.expose_secret());
    let previous = auth.jwt_secret_key_previous.as_ref().map(SecretString::expose_secret);
    let previous_name = JWT_SECRET_KEY_PREVIOUS.name();
    let mut errors = Vec::new();
    for (name, key) in [(SECRET_KEY.name(), own), (JWT_SECRET_KEY.name(), jwt)] {
        errors.extend(match startup.raw.get(name) {
            Some(_) => weak_key(name, key, MAKE_ONE),
            None => Some(ConfigError::new(
                name,
                "is not set, and its default is the published placeholder, so anyone can sign with it",
                MAKE_ONE,
            )),
        });
    }
    errors.extend(previous.and_then(|previous| {
        let fix = "leave it empty: users who have such a token log in again";
        weak_key(previous_name, previous, fix)
    }));
    if own == jwt && !is_placeholder(own) {
        errors.push(ConfigError::new(
            SECRET_KEY.name(),
            format!("has the same value as {}", JWT_SECRET_KEY.name()),
            "make another one with `openssl rand -hex 32`",
        ));
    }
    if previous.is_some_and(|previous| [own, jwt].contains(&previous)) {
        errors.push(ConfigError::new(
            previous_name,
            "has the same value as JWT_SECRET_KEY or SECRET_KEY, but is the key that JWT_SECRET_KEY replaced",
            "leave it empty if there is none",
        ));
    }
    // With this token a client reads and ends every call.
    let admin_token = auth.admin_token.as_ref().map(SecretString::expose_secret);
    if admin_token.is_some_and(|token| token.trim().len() < SHORTEST_SECRET) {
        errors.push(ConfigError::new(
            ADMIN_TOKEN.name(),
            "is shorter than 32 bytes",
            "make one with `openssl rand -hex 32`, or leave it empty: then there is no /admin/",
        ));
    }
    let needs_users = startup.tokens.users_required || startup.tokens.password_login;
    if needs_users && !auth.users_csv.exists() {
        errors.push(ConfigError::new(
            USERS_CSV.name(),
            format!("there is no file {}", auth.users_csv.display()),
            "make it with `manage_users add --password-stdin <username>`",
        ));
    }
    errors
}

fn weak_key(name: &'static str, key: &str, fix: &str) -> Option<ConfigError> {
    let problem = if is_placeholder(key) {
        "is still the published placeholder, so anyone can sign with it"
    } else if key.trim().len() < SHORTEST_SECRET {
        "is shorter than 32 bytes"
    } else {
        return None;
    };
    Some(ConfigError::new(name, problem, fix))
}

/// Whether it is what documents and files have in place of a secret: `<the secret>`, `REPLACE_WITH_…`, `your-secret-key-here`.
fn is_placeholder(secret: &str) -> bool {
    let secret = secret.trim().to_ascii_lowercase();
    let is_in_brackets = secret.starts_with('<') && secret.ends_with('>');
    let starts = ["your-", "change", "placeholder", "replace_with"];
    secret.is_empty() || is_in_brackets || starts.iter().any(|start| secret.starts_with(start))
}

/// What the server accepts but an operator should know.
pub fn warnings(startup: &StartupSettings, reloadable: &ReloadableSettings) -> Vec<ConfigWarning> {
    let StartupSettings { process, auth, telemetry, .. } = startup;
    let turn = &reloadable.ice.turn;
    let turn_secret = turn.secret.expose_secret();
    let keys = [(&SECRET_KEY, &auth.secret_key), (&JWT_SECRET_KEY, &auth.jwt_secret_key)];
    let placeholders = keys.map(|(setting, key)| {
        (
            is_placeholder(key.expose_secret()),
            setting.name(),
            "is a published placeholder",
            "use it for development only; make one with `openssl rand -hex 32`",
        )
    });
    let metrics_are_open = telemetry.metrics_token.is_none()
        && telemetry.metrics_listen.is_some_and(|address| !address.ip().is_loopback());
    let others = [
        (
            auth.allow_anonymous,
            ALLOW_ANONYMOUS.name(),
            "every client that reaches this server can join any room as a guest",
            "set ALLOW_ANONYMOUS=false unless that is intended",
        ),
        (
            reloadable.cors.origins == Origins::Any && !process.debug,
            CORS_ORIGINS.name(),
            "[\"*\"] lets the pages of any site use this server",
            "name the origins of your own pages",
        ),
        (
            (1..SHORTEST_SECRET).contains(&turn_secret.len()) && !process.debug,
            TURNSERVER_SECRET.name(),
            "is shorter than 32 bytes, and anyone who guesses it relays at your cost",
            MAKE_ONE,
        ),
        (
            metrics_are_open,
            METRICS_LISTEN.name(),
            "other machines reach this address, and METRICS_TOKEN is empty",
            "set METRICS_TOKEN, or listen on a loopback address",
        ),
        (
            telemetry.otlp.is_some() && !cfg!(feature = "otel"),
            OTEL_EXPORTER_OTLP_ENDPOINT.name(),
            "this server was built without traces",
            "build it with the cargo feature `otel`",
        ),
        (
            reloadable.rooms.allowed.iter().any(|room| room.contains(';')),
            ALLOWED_ROOMS.name(),
            "has a room with \";\" in its name",
            "separate the rooms by commas",
        ),
        (
            !turn_secret.is_empty() && turn.urls.is_empty(),
            TURNSERVER_URLS.name(),
            "is empty while TURNSERVER_SECRET is set, so no TURN credentials are issued",
            "name the URLs of the TURN server",
        ),
    ];
    let all = placeholders.into_iter().chain(others);
    let due = all.filter(|(is_due, ..)| *is_due);
    let due = due.map(|(_, name, problem, fix)| ConfigWarning::new(name, problem, fix));
    let others = copied_secrets(startup, reloadable).chain(wrapped_secrets(startup, reloadable));
    due.chain(others).chain(browser_warnings(&reloadable.ice)).collect()
}

/// The secrets, other than the keys, that are still what a document has in their place.
fn copied_secrets(
    startup: &StartupSettings,
    reloadable: &ReloadableSettings,
) -> impl Iterator<Item = ConfigWarning> {
    let keys = [SECRET_KEY.name(), JWT_SECRET_KEY.name()];
    let others = declarations().filter(move |it| it.is_secret() && !keys.contains(&it.name));
    others.filter_map(|Declaration { name, .. }| {
        let secret = startup.raw.get(name).or_else(|| reloadable.raw.get(name))?.expose_secret();
        let is_copied = !secret.is_empty() && is_placeholder(secret);
        is_copied.then(|| {
            ConfigWarning::new(
                *name,
                "is still what a document or a file has in place of the secret",
                "put your own secret there; `openssl rand -hex 32` makes one",
            )
        })
    })
}

/// The STUN and TURN URLs that a browser refuses or does not use.
fn browser_warnings(ice: &ReloadableIce) -> impl Iterator<Item = ConfigWarning> {
    let turn = ice.turn.urls.iter().map(|url| (TURNSERVER_URLS.name(), url));
    let stun = ice.stun_urls.iter().map(|url| (STUNSERVER_URLS.name(), url));
    let all = turn.chain(stun);
    let parsed = all.filter_map(|(name, url)| Some((name, url, IceServerUrl::parse(url)?)));
    parsed.flat_map(|(name, url, parsed)| {
        let limits = parsed.browser_limits().into_iter();
        limits.map(move |limit| ConfigWarning::new(name, format!("{url}: {limit}"), limit.fix()))
    })
}

/// The secrets with white space or quotes at their ends. `docker run --env-file` and files of an orchestrator pass these on,
/// `.env` does not: two services with the same secret do not understand each other.
pub fn wrapped_secrets(
    startup: &StartupSettings,
    reloadable: &ReloadableSettings,
) -> Vec<ConfigWarning> {
    let secrets = declarations().filter(|it| it.is_secret());
    let wrapped = secrets.filter_map(|Declaration { name, .. }| {
        let secret = startup.raw.get(name).or_else(|| reloadable.raw.get(name))?.expose_secret();
        let is_quoted =
            |quote| secret.len() > 1 && secret.starts_with(quote) && secret.ends_with(quote);
        let problem = if secret.trim() != secret {
            "begins or ends with white space, which is part of the secret"
        } else if is_quoted('"') || is_quoted('\'') {
            "stands in quotes, which are part of the secret"
        } else {
            return None;
        };
        Some(ConfigWarning::new(
            *name,
            problem,
            "remove them; a file is written without a line end by `printf %s`",
        ))
    });
    wrapped.collect()
}

/// The files with secrets that other users of this machine may read or change, each with the command that closes it. A
/// group may read them, because the server may not be their owner.
pub fn exposed_files(startup: &StartupSettings, env_file: &Path) -> Vec<ConfigWarning> {
    let key = startup.listen.tls.as_ref().map(|tls| tls.key.as_path());
    let tickets = startup.ticket_file();
    let files = [Some(env_file), Some(startup.auth.users_csv.as_path()), key, tickets.as_deref()];
    let exposed = files.into_iter().flatten().filter_map(|path| {
        let metadata = path.metadata().ok().filter(Metadata::is_file)?;
        let mode = metadata.permissions().mode() & 0o777;
        let path = path.display().to_string();
        let problem = format!("other users of this machine may read or change it (mode {mode:o})");
        let fix = format!("run `chmod 600 {path}`");
        (mode & 0o027 != 0).then(|| ConfigWarning::new(path, problem, fix))
    });
    exposed.collect()
}

/// The places at which the server cannot write its files: beside the users file, and `STATE_FILE`.
pub fn unwritable_folders(startup: &StartupSettings) -> Vec<ConfigWarning> {
    let users_csv = &startup.auth.users_csv;
    let revoked = sibling_path(users_csv, ".revoked");
    let keeps_members =
        startup.cluster.redis_urls.is_empty() && !startup.rooms.resume_window.is_zero();
    let files = [
        (
            USERS_CSV.name(),
            Some(revoked),
            "tokens that were logged out are valid again after a restart",
        ),
        (
            STATE_FILE.name(),
            keeps_members.then(|| startup.state_file()),
            "a restart ends the calls of clients that would resume",
        ),
    ];
    let unwritable = files.into_iter().filter_map(|(name, file, effect)| {
        let file = file?;
        if file.exists() && !file.is_file() {
            let problem = format!("{} is not a regular file; {effect}", file.display());
            let fix = "name a file, which need not exist yet";
            return Some(ConfigWarning::new(name, problem, fix));
        }
        let folder = folder_of(&file);
        let error = tempfile::tempfile_in(folder).err()?;
        let problem = format!("no file can be written in {}: {error}; {effect}", folder.display());
        let fix = "make it a folder that the user of the server may write";
        Some(ConfigWarning::new(name, problem, fix))
    });
    unwritable.collect()
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
