//! Who may log in, join and administer, and by which secrets that is known.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;

use super::{
    declare::{Section, Setting},
    parse::{
        FROM_ONE, Parsed, Reader, TRUE_OR_FALSE, UP_TO_A_MILLION, bearer_token, flag, number,
        seconds, secret,
    },
};

/// The longest `MAX_TOKEN_LIFETIME` in seconds: 31 years.
const MAX_LIFETIME: u64 = 1_000_000_000;

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// `SECRET_KEY`: signs resume tokens; the secret of webhooks is derived from it.
    pub secret_key: SecretString,
    /// `JWT_SECRET_KEY`: signs access tokens.
    pub jwt_secret_key: SecretString,
    /// `JWT_SECRET_KEY_PREVIOUS`: the key before that one, whose tokens stay valid.
    pub jwt_secret_key_previous: Option<SecretString>,
    /// `ACCESS_TOKEN_EXPIRE_MINUTES`: how long an access token is valid.
    pub token_lifetime: Duration,
    /// `MAX_TOKEN_LIFETIME`: how long a token may still be valid; `None` for any time.
    pub max_token_lifetime: Option<Duration>,
    /// `WEBSOCKET_ENFORCE_TOKEN_EXPIRY`: whether a session ends with its token.
    pub enforce_token_expiry: bool,
    /// `USERS_CSV`: the users file.
    pub users_csv: PathBuf,
    /// `ALLOW_ANONYMOUS`: whether guests join without a token.
    pub allow_anonymous: bool,
    /// `ROOMS_API_REQUIRE_AUTH`: whether the list of rooms needs a token.
    pub rooms_api_require_auth: bool,
    /// `ADMIN_TOKEN`: opens `/admin/`; without it there is no such page.
    pub admin_token: Option<SecretString>,
}

/// What SIGHUP may change.
#[derive(Clone, Debug)]
pub struct ReloadableAuth {
    /// `AUTH_MAX_FAILURES`: failed attempts before a lockout.
    pub max_failures: usize,
    /// `AUTH_LOCKOUT_SECONDS`: the window in which failures add up, and how long a lockout lasts.
    pub lockout: Duration,
}

/// Its default is published, and is no secret.
pub(super) const SECRET_KEY: Setting<SecretString> =
    Setting::new("SECRET_KEY", "your-secret-key-here", key)
        .accepts("at least 32 bytes, such as `openssl rand -hex 32` prints")
        .secret()
        .help(
            "Signs resume tokens; the webhook secret is derived from it. The default works with `DEBUG=true` only.",
        );

/// Its default is published, and is no secret.
pub(super) const JWT_SECRET_KEY: Setting<SecretString> =
    Setting::new("JWT_SECRET_KEY", "your-jwt-secret-key", key)
        .accepts("at least 32 bytes, other than `SECRET_KEY`")
        .secret()
        .help(
            "Signs access tokens (HS256). Other services can sign tokens with it (claims `sub` and `exp`). The \
             default works with `DEBUG=true` only.",
        );

pub(super) const JWT_SECRET_KEY_PREVIOUS: Setting<Option<SecretString>> =
    Setting::new("JWT_SECRET_KEY_PREVIOUS", "", secret)
        .accepts("at least 32 bytes, or nothing")
        .secret()
        .help("During a key change: the old `JWT_SECRET_KEY`, whose tokens stay valid.")
        .page("SECURITY.md#new-keys-without-logging-anybody-out");

const ACCESS_TOKEN_EXPIRE_MINUTES: Setting<Duration> =
    Setting::new("ACCESS_TOKEN_EXPIRE_MINUTES", "30", |text| {
        number(text, UP_TO_A_MILLION).map(|minutes| Duration::from_secs(60 * minutes))
    })
    .accepts(FROM_ONE)
    .help("Lifetime of an access token in minutes.");

const MAX_TOKEN_LIFETIME: Setting<Option<Duration>> =
    Setting::new("MAX_TOKEN_LIFETIME", "0", |text| {
        seconds(text, 0..=MAX_LIFETIME).map(|lifetime| Some(lifetime).filter(|it| !it.is_zero()))
    })
    .accepts("a number of seconds up to 1000000000 that is no shorter than ACCESS_TOKEN_EXPIRE_MINUTES, or 0")
    .help(
        "Seconds that a token may still be valid; others are refused. 0: no limit. An `exp` in milliseconds is refused in \
         any case.",
    );

const WEBSOCKET_ENFORCE_TOKEN_EXPIRY: Setting<bool> =
    Setting::new("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", "false", flag).accepts(TRUE_OR_FALSE).help(
        "`true`: a session ends one minute after its token expired, unless it presents a new one.",
    );

pub(super) const USERS_CSV: Setting<PathBuf> =
    Setting::new("USERS_CSV", "users.csv", |text| Ok(text.into()))
        .accepts("the path of a file that `manage_users` has made")
        .help(
            "The users file. The server also writes files beside it, so it must be able to write in that folder.",
        ).page("docs/reference/command-line.md#manage_users");

pub(super) const ALLOW_ANONYMOUS: Setting<bool> = Setting::new("ALLOW_ANONYMOUS", "false", flag)
    .accepts(TRUE_OR_FALSE)
    .help("Admits guests without a token. Guests get no TURN credentials.");

const ROOMS_API_REQUIRE_AUTH: Setting<bool> = Setting::new("ROOMS_API_REQUIRE_AUTH", "false", flag)
    .accepts(TRUE_OR_FALSE)
    .help("`true`: the list of rooms requires a token.");

pub(super) const ADMIN_TOKEN: Setting<Option<SecretString>> =
    Setting::new("ADMIN_TOKEN", "", bearer_token)
        .accepts("at least 32 ASCII letters, digits and signs without blanks, such as `openssl rand -hex 32` prints")
        .secret()
        .help(
            "Enables `/admin/`, its API and `signaling-server admin` for clients that present it. Empty: there is no \
             such route.",
        ).page("docs/run/operations.md#the-administrators-page");

const AUTH_MAX_FAILURES: Setting<usize> =
    Setting::new("AUTH_MAX_FAILURES", "5", |text| number(text, 1..=1_000_000))
        .accepts(FROM_ONE)
        .reloadable("every login and every WebSocket token; earlier failures count")
        .help(
            "Failed logins for one username from one address, or invalid tokens from one address, before a lockout. \
             For one username from all addresses, and from one address for all usernames, the limit is ten times as \
             high.",
        );

const AUTH_LOCKOUT_SECONDS: Setting<Duration> =
    Setting::new("AUTH_LOCKOUT_SECONDS", "300", |text| seconds(text, UP_TO_A_MILLION))
        .accepts(FROM_ONE)
        .reloadable("every login and every WebSocket token; earlier failures count")
        .help("Seconds over which failures are counted, and that a lockout lasts.");

pub(super) const SECTION: Section = Section {
    title: "Users, tokens and secrets",
    settings: &[
        SECRET_KEY.declaration,
        JWT_SECRET_KEY.declaration,
        JWT_SECRET_KEY_PREVIOUS.declaration,
        ACCESS_TOKEN_EXPIRE_MINUTES.declaration,
        MAX_TOKEN_LIFETIME.declaration,
        WEBSOCKET_ENFORCE_TOKEN_EXPIRY.declaration,
        USERS_CSV.declaration,
        ALLOW_ANONYMOUS.declaration,
        ROOMS_API_REQUIRE_AUTH.declaration,
        ADMIN_TOKEN.declaration,
        AUTH_MAX_FAILURES.declaration,
        AUTH_LOCKOUT_SECONDS.declaration,
    ],
};

impl AuthSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let token_lifetime = reader.get(&ACCESS_TOKEN_EXPIRE_MINUTES);
        let max_token_lifetime = reader.get(&MAX_TOKEN_LIFETIME);
        if max_token_lifetime.is_some_and(|longest| longest < token_lifetime) {
            reader.reject(
                &MAX_TOKEN_LIFETIME.declaration,
                "is shorter than ACCESS_TOKEN_EXPIRE_MINUTES, so no login would be valid",
            );
        }
        Self {
            secret_key: reader.get(&SECRET_KEY),
            jwt_secret_key: reader.get(&JWT_SECRET_KEY),
            jwt_secret_key_previous: reader.get(&JWT_SECRET_KEY_PREVIOUS),
            token_lifetime,
            max_token_lifetime,
            enforce_token_expiry: reader.get(&WEBSOCKET_ENFORCE_TOKEN_EXPIRY),
            users_csv: reader.get(&USERS_CSV),
            allow_anonymous: reader.get(&ALLOW_ANONYMOUS),
            rooms_api_require_auth: reader.get(&ROOMS_API_REQUIRE_AUTH),
            admin_token: reader.get(&ADMIN_TOKEN),
        }
    }
}

impl ReloadableAuth {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            max_failures: reader.get(&AUTH_MAX_FAILURES),
            lockout: reader.get(&AUTH_LOCKOUT_SECONDS),
        }
    }
}

/// Any text: [`validate`](super::validate) decides which keys are good enough for production.
fn key(text: &str) -> Parsed<SecretString> {
    Ok(text.into())
}
