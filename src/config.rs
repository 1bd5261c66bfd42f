//! Every setting once: its variable, its unit, its default (contract section 3).

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue, Uri};
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use tracing::level_filters::LevelFilter;
use zeroize::Zeroizing;

use crate::{
    cluster, storage::atomic_file::sibling_path, tls::TlsFiles, turn::IceServerUrl,
    webhooks::WebhookTarget,
};

/// What stands in `SECRET_KEY` until somebody sets it. No secret: it is published.
const SECRET_KEY_PLACEHOLDER: &str = "your-secret-key-here";

/// What stands in `JWT_SECRET_KEY` until somebody sets it. No secret: it is published.
const JWT_SECRET_KEY_PLACEHOLDER: &str = "your-jwt-secret-key";

/// RFC 7518 section 3.2: an HS256 key has at least as many bits as the hash.
const SHORTEST_SECRET: usize = 32;

/// What SIGHUP reads again, in the order of [`Config`]; everything else needs a restart.
pub const READ_AGAIN: [&str; 17] = [
    "LOG_LEVEL",
    "CORS_ORIGINS",
    "RATE_LIMIT_PER_MINUTE",
    "WEBSOCKET_MESSAGES_PER_SECOND",
    "WEBSOCKET_MESSAGE_BURST",
    "WEBSOCKET_TIMEOUT",
    "WEBSOCKET_MAX_MESSAGE_BYTES",
    "MAX_CONNECTIONS_PER_ROOM",
    "MAX_CONNECTIONS_PER_IP",
    "AUTH_MAX_FAILURES",
    "AUTH_LOCKOUT_SECONDS",
    "ALLOWED_ROOMS",
    TURN_SECRET,
    "TURNSERVER_URL",
    "TURNSERVER_URLS",
    "TURNSERVER_TTL",
    "STUNSERVER_URLS",
];

/// The one of them whose value nobody may see.
const TURN_SECRET: &str = "TURNSERVER_SECRET";

/// The settings, read once.
#[derive(Debug)]
pub struct Config {
    /// `HOST`: where to listen, an address or a name. Default `0.0.0.0`.
    pub host: String,
    /// `PORT`. Default 8000; 0 lets the system choose.
    pub port: u16,
    /// `DEBUG`: development. Default users, verbose log, placeholder secrets, API docs, examples.
    pub debug: bool,
    /// `LOG_LEVEL`. Default `INFO`, in `DEBUG` `DEBUG`.
    pub log_level: LevelFilter,
    /// `LOG_FORMAT`: `pretty` or `json`. Default `pretty` on a terminal, else `json`.
    pub log_format: Option<LogFormat>,
    /// `REQUIRE_HTTPS`: refuse what did not come by TLS, ours or a trusted proxy's. Default true; with
    /// TLS of our own it always holds.
    pub require_https: bool,
    /// `SSL_CERT_FILE`, `SSL_KEY_FILE`, `SSL_SELF_SIGNED`: TLS on the listening port. Default none.
    pub tls: Option<TlsFiles>,
    /// `SECRET_KEY`: at least 32 bytes. Signs resume tokens; the secret of webhooks is made of it.
    pub secret_key: SecretString,
    /// `JWT_SECRET_KEY`: at least 32 bytes, and another one than `SECRET_KEY`.
    pub jwt_secret_key: SecretString,
    /// `JWT_SECRET_KEY_PREVIOUS`: the key before this one, whose tokens stay good. Default none.
    pub jwt_secret_key_previous: Option<SecretString>,
    /// `ACCESS_TOKEN_EXPIRE_MINUTES`. Default 30.
    pub token_lifetime: Duration,
    /// `USERS_CSV`: the accounts. Default `users.csv` in the working folder.
    pub users_csv: PathBuf,
    /// `CORS_ORIGINS`: whose pages may talk to us. Default all.
    pub cors_origins: Origins,
    /// `CORS_ALLOW_CREDENTIALS`. Default true.
    pub cors_allow_credentials: bool,
    /// `RATE_LIMIT_PER_MINUTE`: HTTP requests per client address. Default 60; 0 = no limit.
    pub rate_limit_per_minute: u32,
    /// `WEBSOCKET_MESSAGES_PER_SECOND`: how fast a connection's budget refills. Default 50.
    pub messages_per_second: u32,
    /// `WEBSOCKET_MESSAGE_BURST`: what a connection may say at once. Default 250.
    pub message_burst: u32,
    /// `WEBSOCKET_TIMEOUT`, in seconds: for the token, and for silence. Default 30.
    pub websocket_timeout: Duration,
    /// `WEBSOCKET_MAX_MESSAGE_BYTES`. Default 65536.
    pub max_message_bytes: usize,
    /// `WEBSOCKET_ENFORCE_TOKEN_EXPIRY`: a session ends with its token. Default false.
    pub enforce_token_expiry: bool,
    /// `MAX_CONNECTIONS_PER_ROOM`. Default 10.
    pub max_connections_per_room: usize,
    /// `MAX_CONNECTIONS_PER_IP`: sockets from one address. Default 100; 0 = no limit.
    pub max_connections_per_ip: usize,
    /// `AUTH_MAX_FAILURES`. Default 5.
    pub auth_max_failures: usize,
    /// `AUTH_LOCKOUT_SECONDS`: the window in which failures add up, and the wait. Default 300.
    pub auth_lockout: Duration,
    /// `TRUSTED_PROXIES`: whose `X-Forwarded-*` is believed. Default loopback.
    pub trusted_proxies: Vec<IpNet>,
    /// `ALLOWED_ROOMS`. Default all.
    pub allowed_rooms: Vec<String>,
    /// `ALLOW_ANONYMOUS`: guests without a token. Default false.
    pub allow_anonymous: bool,
    /// `ROOMS_API_REQUIRE_AUTH`: the list of rooms needs a token. Default false.
    pub rooms_api_require_auth: bool,
    /// The servers that clients are told of.
    pub ice: Arc<Ice>,
    /// `TURN_PROBE_SECONDS`: how often the relays are tried. Default 60; 0 = never.
    pub turn_probe: Duration,
    /// `SHUTDOWN_GRACE_SECONDS`: how long the end may take. Default 10.
    pub shutdown_grace: Duration,
    /// `RESUME_WINDOW_SECONDS`: how long a client may be away that resumes. Default 30; 0 = none may.
    pub resume_window: Duration,
    /// `STATE_FILE`; see [`Config::state_file`]. Default none.
    pub state_file: Option<PathBuf>,
    /// `WORKERS`: threads that carry connections. Default 0 = one for each core.
    pub workers: usize,
    /// `REDIS_URL`: what several servers share; a list shares the rooms out. Default none: one server alone.
    pub redis_urls: Vec<SecretString>,
    /// `REDIS_CA_FILE`, as PEM: who signs the certificates of `rediss://`. Default whom the system trusts.
    pub redis_authority: Option<Vec<u8>>,
    /// `NODE_ID`: the name of this server among them. Default another one at each start.
    pub node_id: Option<String>,
    /// `WEBHOOK_URLS` and `WEBHOOK_ALLOW_PRIVATE`: who is told what happens in rooms. Default nobody; `https://` and
    /// public addresses alone.
    pub webhooks: Vec<WebhookTarget>,
    /// `METRICS_TOKEN`: opens `/metrics`. Default none: there is no such page.
    pub metrics_token: Option<SecretString>,
    /// `METRICS_LISTEN`: where `/metrics` is served alone. Default none; port 0 lets the system choose.
    pub metrics_listen: Option<SocketAddr>,
    /// `ADMIN_TOKEN`: opens `/admin/`; at least 32 bytes. Default none: there is no such page.
    pub admin_token: Option<SecretString>,
    /// `TIMELINE_SECONDS`: how long what has happened in a room is kept after it is over. Default 300; 0 = no timelines.
    pub timelines: Duration,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`: who collects traces.
    /// Default nobody.
    pub otlp: Option<Otlp>,
    /// `API_DOCS`: `/docs`, `/redoc`, `/openapi.json`. Default as `DEBUG`.
    pub api_docs: bool,
    /// What all of this was read from.
    texts: Texts,
}

/// The variables that are set, as they are spelled.
struct Texts(BTreeMap<String, SecretString>);

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Texts")
    }
}

impl Texts {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(SecretString::expose_secret)
    }
}

/// What is different after [`Config::read_again`].
#[derive(Debug)]
pub struct Changes {
    /// A setting that has changed with both values, or without, where it is a secret.
    pub changed: Vec<String>,
    /// The names of those that have changed since the start, and are as they were until the next.
    pub need_restart: Vec<String>,
}

/// `USERS_CSV`, which also programs need that read no other setting.
pub fn users_csv(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    path(variable, "USERS_CSV").unwrap_or_else(|| "users.csv".into())
}

/// Where the server of these settings listens, and `ADMIN_TOKEN`, for whoever administrates it from a shell and may not
/// read its other secrets.
///
/// # Errors
///
/// [`Faults`] of these settings alone.
pub fn of_administrator(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(String, u16, Option<SecretString>), Faults> {
    let mut read = Reader { variable: &variable, faults: Vec::new() };
    let (host, port) = (read.host(), read.port());
    let token = read.bearer_token("ADMIN_TOKEN");
    if read.faults.is_empty() { Ok((host, port, token)) } else { Err(Faults(read.faults)) }
}

fn path(variable: impl Fn(&str) -> Option<String>, name: &str) -> Option<PathBuf> {
    let set = variable(name).map(|path| path.trim().to_owned());
    set.filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// The servers by whose help clients find a way to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ice {
    /// `TURNSERVER_SECRET`, `TURNSERVER_URL`, `TURNSERVER_URLS`, `TURNSERVER_TTL`. Default none.
    pub turn: Turn,
    /// `STUNSERVER_URLS`. Default none.
    pub stun_urls: Vec<String>,
}

/// The relay whose credentials we issue.
#[derive(Clone, Debug)]
pub struct Turn {
    /// coturn's `static-auth-secret`; empty: no TURN.
    pub secret: SecretString,
    /// `turn:` and `turns:` URLs.
    pub urls: Vec<String>,
    /// How long credentials last. Default one day.
    pub ttl: Duration,
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        let secrets = [self, other].map(|turn| turn.secret.expose_secret());
        secrets[0] == secrets[1] && self.urls == other.urls && self.ttl == other.ttl
    }
}

impl Eq for Turn {}

/// Who collects traces (OpenTelemetry Protocol Exporter, over HTTP).
#[derive(Clone, Debug)]
pub struct Otlp {
    /// An `http://` or `https://` URL without a slash at its end; `/v1/traces` comes behind it.
    pub endpoint: String,
    /// What is sent along, such as a key.
    pub headers: Vec<(String, SecretString)>,
    /// What the traces say that we are. Default `signaling-server`.
    pub service_name: String,
}

/// Whose pages may talk to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Anybody's.
    Any,
    /// These, as browsers spell them in `Origin`.
    These(Vec<String>),
}

impl Origins {
    /// Whether a page from `origin` may talk to us.
    pub fn allow(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(origins) => origins.iter().any(|allowed| allowed == origin),
        }
    }
}

/// Everything that is wrong with the settings, a line each, for the operator.
#[derive(Debug)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

impl Config {
    /// Reads the settings; `variable` answers what a variable is set to. Empty is as good as unset.
    ///
    /// # Errors
    ///
    /// [`Faults`]: all of them at once. No value of a secret is ever repeated.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        let (config, faults) = Self::examine(variable);
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// The same for whoever wants to look on: what is at fault has its default, and each fault is a line.
    pub fn examine(variable: impl Fn(&str) -> Option<String>) -> (Self, Vec<String>) {
        let texts = RefCell::new(BTreeMap::new());
        let variable = |name: &str| {
            let value = variable(name);
            if let Some(value) = value.as_ref().filter(|value| !value.trim().is_empty()) {
                texts.borrow_mut().insert(name.to_owned(), value.as_str().into());
            }
            value
        };
        let mut read = Reader { variable: &variable, faults: Vec::new() };
        let host = read.host();
        let port = read.port();
        let debug = read.flag("DEBUG", false);
        let mut config = Self {
            host,
            port,
            debug,
            log_level: read.log_level(debug),
            log_format: read.log_format(),
            require_https: read.flag("REQUIRE_HTTPS", true),
            tls: read.tls(),
            secret_key: read.secret("SECRET_KEY", SECRET_KEY_PLACEHOLDER, debug),
            jwt_secret_key: read.secret("JWT_SECRET_KEY", JWT_SECRET_KEY_PLACEHOLDER, debug),
            jwt_secret_key_previous: read.optional_secret("JWT_SECRET_KEY_PREVIOUS"),
            token_lifetime: Duration::from_secs(
                60 * read.at_least_one("ACCESS_TOKEN_EXPIRE_MINUTES", 30),
            ),
            users_csv: users_csv(variable),
            cors_origins: read.origins(),
            cors_allow_credentials: read.flag("CORS_ALLOW_CREDENTIALS", true),
            rate_limit_per_minute: read.one(
                "RATE_LIMIT_PER_MINUTE",
                60,
                "a whole number; 0 = no limit",
            ),
            messages_per_second: read.small_at_least_one("WEBSOCKET_MESSAGES_PER_SECOND", 50),
            message_burst: read.small_at_least_one("WEBSOCKET_MESSAGE_BURST", 250),
            websocket_timeout: Duration::from_secs(read.at_least_one("WEBSOCKET_TIMEOUT", 30)),
            max_message_bytes: read.message_bytes(),
            enforce_token_expiry: read.flag("WEBSOCKET_ENFORCE_TOKEN_EXPIRY", false),
            max_connections_per_room: read.size_at_least_one("MAX_CONNECTIONS_PER_ROOM", 10),
            max_connections_per_ip: read.one(
                "MAX_CONNECTIONS_PER_IP",
                100,
                "a whole number; 0 = no limit",
            ),
            auth_max_failures: read.size_at_least_one("AUTH_MAX_FAILURES", 5),
            auth_lockout: Duration::from_secs(read.at_least_one("AUTH_LOCKOUT_SECONDS", 300)),
            trusted_proxies: read.proxies(),
            allowed_rooms: read.list("ALLOWED_ROOMS", &[]),
            allow_anonymous: read.flag("ALLOW_ANONYMOUS", false),
            rooms_api_require_auth: read.flag("ROOMS_API_REQUIRE_AUTH", false),
            ice: Arc::new(Ice {
                turn: read.turn(),
                stun_urls: read.urls("STUNSERVER_URLS", false),
            }),
            turn_probe: read.turn_probe(),
            shutdown_grace: Duration::from_secs(read.at_least_one("SHUTDOWN_GRACE_SECONDS", 10)),
            resume_window: read.resume_window(),
            state_file: path(variable, "STATE_FILE"),
            workers: read.workers(),
            redis_urls: read.redis_urls(),
            redis_authority: read.redis_authority(),
            node_id: read.node_id(),
            webhooks: read.webhooks(),
            metrics_token: read.bearer_token("METRICS_TOKEN"),
            metrics_listen: read.metrics_listen(),
            admin_token: read.bearer_token("ADMIN_TOKEN"),
            timelines: read.timelines(),
            otlp: read.otlp(),
            api_docs: read.flag("API_DOCS", debug),
            texts: Texts(BTreeMap::new()),
        };
        let mut faults = read.faults;
        config.texts = Texts(texts.into_inner());
        if !debug {
            faults.extend(config.production_faults());
        }
        (config, faults)
    }

    /// Reads the settings for a process that runs on these: those of [`READ_AGAIN`] as they are now, the others
    /// as they were at the start.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), also of those that are not taken: the next start would stop at them.
    pub fn read_again(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, Changes), Faults> {
        let now = Self::read(variable)?;
        let again = Self::read(|name| {
            let texts = if READ_AGAIN.contains(&name) { &now.texts } else { &self.texts };
            texts.get(name).map(str::to_owned)
        })?;
        let changed = READ_AGAIN.into_iter().filter_map(|name| {
            let [old, new] = [&self.texts, &now.texts].map(|texts| texts.get(name));
            let shown = |text: Option<&str>| text.map_or("(default)".to_owned(), on_one_line);
            if old == new {
                None
            } else if name == TURN_SECRET {
                Some(name.to_owned())
            } else {
                Some(format!("{name}: {} → {}", shown(old), shown(new)))
            }
        });
        let changed = changed.collect();
        let names = self.texts.0.keys().chain(now.texts.0.keys());
        let mut need_restart: Vec<_> = names
            .filter(|name| !READ_AGAIN.contains(&name.as_str()))
            .filter(|name| self.texts.get(name) != now.texts.get(name))
            .cloned()
            .collect();
        need_restart.sort_unstable();
        need_restart.dedup();
        Ok((again, Changes { changed, need_restart }))
    }

    /// Where members are kept while the server restarts: beside the users file where nothing else is
    /// said. Two servers on one users file need one each.
    pub fn state_file(&self) -> PathBuf {
        self.state_file.clone().unwrap_or_else(|| sibling_path(&self.users_csv, ".state"))
    }

    fn production_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let (own, jwt) = (self.secret_key.expose_secret(), self.jwt_secret_key.expose_secret());
        let previous = self.jwt_secret_key_previous.as_ref().map(SecretString::expose_secret);
        let named = [
            ("SECRET_KEY", Some(own)),
            ("JWT_SECRET_KEY", Some(jwt)),
            ("JWT_SECRET_KEY_PREVIOUS", previous),
        ];
        for (name, secret) in named.into_iter().filter_map(|(name, secret)| Some((name, secret?))) {
            let fault = if is_placeholder(secret) {
                "is still the published placeholder, so anybody can sign with it"
            } else if secret.trim().len() < SHORTEST_SECRET {
                "is shorter than 32 bytes"
            } else {
                continue;
            };
            faults.push(if name == "JWT_SECRET_KEY_PREVIOUS" {
                format!("{name} {fault}; leave it empty: whoever holds such a token logs in anew")
            } else {
                format!("{name} {fault}; make one with `openssl rand -hex 32`")
            });
        }
        if own == jwt && !is_placeholder(own) {
            faults.push("SECRET_KEY and JWT_SECRET_KEY are the same; make another with `openssl rand -hex 32`".into());
        }
        if previous.is_some_and(|previous| [own, jwt].contains(&previous)) {
            faults.push("JWT_SECRET_KEY_PREVIOUS is the same as JWT_SECRET_KEY or SECRET_KEY: it is the key that JWT_SECRET_KEY replaced; leave it empty where there is none".into());
        }
        // Whoever has it may read and end every call.
        if self
            .admin_token
            .as_ref()
            .is_some_and(|token| token.expose_secret().trim().len() < SHORTEST_SECRET)
        {
            faults.push("ADMIN_TOKEN is shorter than 32 bytes; make one with `openssl rand -hex 32`, or leave it empty: then there is no /admin/".into());
        }
        if !self.users_csv.exists() {
            let path = on_one_line(&self.users_csv.display().to_string());
            faults.push(format!(
                "USERS_CSV={path}: there is no such file; make it with `manage_users add --password-stdin <username>`"
            ));
        }
        faults
    }

    /// What is allowed but deserves a word in the log.
    pub fn warnings(&self) -> Vec<&'static str> {
        let secrets = [&self.secret_key, &self.jwt_secret_key];
        let turn_secret = self.ice.turn.secret.expose_secret();
        let no_turn_urls = !turn_secret.is_empty() && self.ice.turn.urls.is_empty();
        let figures_for_all = self.metrics_token.is_none()
            && self.metrics_listen.is_some_and(|address| !address.ip().is_loopback());
        let weak_turn_secret = (1..SHORTEST_SECRET).contains(&turn_secret.len()) && !self.debug;
        [
            (self.allow_anonymous, "ALLOW_ANONYMOUS=true: anybody who reaches this server can join any room as a guest"),
            (
                self.cors_origins == Origins::Any && !self.debug,
                "CORS_ORIGINS=[\"*\"]: pages of any site may talk to this server; name your own",
            ),
            (
                secrets.iter().any(|secret| is_placeholder(secret.expose_secret())),
                "a published placeholder is used as secret key: for development only",
            ),
            (
                weak_turn_secret,
                "TURNSERVER_SECRET is shorter than 32 bytes; whoever guesses it relays at your cost: `openssl rand -hex 32`",
            ),
            (
                figures_for_all,
                "METRICS_LISTEN is open to other machines, and without METRICS_TOKEN to whoever reaches it",
            ),
            (
                self.otlp.is_some() && !cfg!(feature = "otel"),
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this server was built without traces (cargo feature otel)",
            ),
            (no_turn_urls, "TURNSERVER_SECRET is set but TURNSERVER_URLS is empty: no TURN credentials are issued"),
        ]
        .into_iter()
        .filter_map(|(deserved, warning)| deserved.then_some(warning))
        .collect()
    }
}

/// Which of the files that hold secrets other users of this machine may read or change, a line each
/// with the command that mends it. A group may read: the server may not be the files' owner.
pub fn exposed_files(config: &Config) -> Vec<String> {
    let key = config.tls.as_ref().map(|tls| tls.key.as_path());
    let files = [Some(Path::new(".env")), Some(config.users_csv.as_path()), key];
    let exposed = files.into_iter().flatten().filter_map(|path| {
        let mode = path.metadata().ok()?.permissions().mode() & 0o777;
        let path = path.display();
        (mode & 0o027 != 0).then(|| {
            format!("{path} is open to other users of this machine (mode {mode:o}); close it with `chmod 600 {path}`")
        })
    });
    exposed.collect()
}

fn is_placeholder(secret: &str) -> bool {
    let secret = secret.trim().to_ascii_lowercase();
    secret.is_empty()
        || ["your-", "change", "placeholder"].iter().any(|start| secret.starts_with(start))
}

/// A value as it is shown: a fault is one line, whatever a quoted value in `.env` holds.
fn on_one_line(value: &str) -> String {
    value.replace(char::is_control, "\u{fffd}")
}

struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn fault(&mut self, name: &str, value: &str, accepted: &str) {
        let value = on_one_line(value);
        self.faults.push(format!("{name}={value}: not accepted; give {accepted}"));
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        default: T,
        accepted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let Some(value) = self.text(name) else { return default };
        parse(&value).unwrap_or_else(|| {
            self.fault(name, &value, accepted);
            default
        })
    }

    fn one<T: FromStr>(&mut self, name: &str, default: T, accepted: &str) -> T {
        self.parsed(name, default, accepted, |value| value.parse().ok())
    }

    fn host(&mut self) -> String {
        self.parsed(
            "HOST",
            "0.0.0.0".to_owned(),
            "an address such as 127.0.0.1 or ::, or a host name",
            |value| {
                let host = value
                    .strip_prefix('[')
                    .and_then(|value| value.strip_suffix(']'))
                    .unwrap_or(value);
                let fits = !host.is_empty()
                    && !host.contains(['/', ' ', '[', ']'])
                    && !host.contains(char::is_control);
                fits.then(|| host.to_owned())
            },
        )
    }

    fn port(&mut self) -> u16 {
        self.one("PORT", 8000, "a port from 0 to 65535")
    }

    fn flag(&mut self, name: &str, default: bool) -> bool {
        self.parsed(name, default, "true or false", |value| {
            match value.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            }
        })
    }

    /// A count or a time in its unit: from 1 to a million, which is eleven days of seconds.
    fn at_least_one(&mut self, name: &str, default: u64) -> u64 {
        self.parsed(name, default, "a whole number from 1 to 1000000", |value| {
            value.parse().ok().filter(|number| (1..=1_000_000).contains(number))
        })
    }

    fn size_at_least_one(&mut self, name: &str, default: u32) -> usize {
        self.small_at_least_one(name, default) as usize
    }

    fn small_at_least_one(&mut self, name: &str, default: u32) -> u32 {
        u32::try_from(self.at_least_one(name, default.into())).unwrap_or(default)
    }

    fn message_bytes(&mut self) -> usize {
        const ACCEPTED: &str = "a number of bytes from 1024 to 16777216";
        self.parsed("WEBSOCKET_MAX_MESSAGE_BYTES", 65_536, ACCEPTED, |value| {
            value.parse().ok().filter(|bytes| (1024..=16_777_216).contains(bytes))
        })
    }

    /// Names as Python's logging has them, and ours.
    fn log_level(&mut self, debug: bool) -> LevelFilter {
        let default = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
        self.parsed("LOG_LEVEL", default, "TRACE, DEBUG, INFO, WARNING or ERROR", |value| {
            match value.to_ascii_uppercase().as_str() {
                "TRACE" => Some(LevelFilter::TRACE),
                "DEBUG" => Some(LevelFilter::DEBUG),
                "INFO" => Some(LevelFilter::INFO),
                "WARN" | "WARNING" => Some(LevelFilter::WARN),
                "ERROR" | "CRITICAL" => Some(LevelFilter::ERROR),
                _ => None,
            }
        })
    }

    fn log_format(&mut self) -> Option<LogFormat> {
        self.parsed("LOG_FORMAT", None, "pretty or json", |value| {
            match value.to_ascii_lowercase().as_str() {
                "pretty" => Some(Some(LogFormat::Pretty)),
                "json" => Some(Some(LogFormat::Json)),
                _ => None,
            }
        })
    }

    fn tls(&mut self) -> Option<TlsFiles> {
        let (certificate, key) = (self.text("SSL_CERT_FILE"), self.text("SSL_KEY_FILE"));
        let self_signed = self.flag("SSL_SELF_SIGNED", false);
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some(TlsFiles { certificate: certificate.into(), key: key.into(), self_signed })
            }
            (None, Some(_)) => {
                self.faults.push(
                    "SSL_KEY_FILE is set but SSL_CERT_FILE is not: give both, or neither".into(),
                );
                None
            }
            // SSL_CERT_FILE alone is how many systems tell OpenSSL where the authorities are: not for us.
            (Some(_) | None, None) => self_signed.then(|| TlsFiles {
                certificate: "ssl/server.crt".into(),
                key: "ssl/server.key".into(),
                self_signed,
            }),
        }
    }

    /// A secret is taken as it stands, never trimmed by us, and never repeated in a fault.
    fn secret(&mut self, name: &str, placeholder: &str, debug: bool) -> SecretString {
        match self.optional_secret(name) {
            Some(secret) => secret,
            None if debug => placeholder.into(),
            None => SecretString::default(),
        }
    }

    fn resume_window(&mut self) -> Duration {
        let accepted = "a whole number from 0 to 3600; 0 = off";
        let seconds = self.parsed("RESUME_WINDOW_SECONDS", 30, accepted, |value| {
            value.parse().ok().filter(|it| *it <= 3600)
        });
        Duration::from_secs(seconds)
    }

    fn timelines(&mut self) -> Duration {
        let accepted = "a whole number from 0 to 86400; 0 = off";
        self.seconds_up_to_a_day("TIMELINE_SECONDS", 300, accepted)
    }

    fn turn_probe(&mut self) -> Duration {
        let accepted = "a whole number from 0 to 86400; 0 = never";
        self.seconds_up_to_a_day("TURN_PROBE_SECONDS", 60, accepted)
    }

    fn seconds_up_to_a_day(&mut self, name: &str, default: u64, accepted: &str) -> Duration {
        let seconds = self
            .parsed(name, default, accepted, |value| value.parse().ok().filter(|it| *it <= 86_400));
        Duration::from_secs(seconds)
    }

    fn workers(&mut self) -> usize {
        let accepted = "a whole number from 0 to 1024; 0 = one for each core";
        self.parsed("WORKERS", 0, accepted, |value| value.parse().ok().filter(|it| *it <= 1024))
    }

    /// The values are not repeated: there may be a password in them.
    fn redis_urls(&mut self) -> Vec<SecretString> {
        let urls = self.text("REDIS_URL").unwrap_or_default();
        let urls: Vec<SecretString> =
            urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(Into::into).collect();
        if let Err(fault) = cluster::parse_endpoints(&urls, None) {
            let accepted = "redis://[user:password@]host:port[/number] or redis+sentinel://[user:password@]host:port;host:port/service";
            self.faults.push(format!("REDIS_URL, {fault}; give {accepted}"));
        }
        urls
    }

    fn redis_authority(&mut self) -> Option<Vec<u8>> {
        let path = path(self.variable, "REDIS_CA_FILE")?;
        let pem = fs::read(&path);
        // As it will be used, for a PEM file may hold what is no certificate.
        let trial = [SecretString::from("rediss://localhost")];
        let is_one = |pem: &Vec<u8>| {
            CertificateDer::from_pem_slice(pem).is_ok()
                && cluster::parse_endpoints(&trial, Some(pem)).is_ok()
        };
        match pem {
            Ok(pem) if is_one(&pem) => Some(pem),
            Ok(_) | Err(_) => {
                self.fault(
                    "REDIS_CA_FILE",
                    &path.display().to_string(),
                    "a PEM file that can be read",
                );
                None
            }
        }
    }

    fn node_id(&mut self) -> Option<String> {
        let id = self.text("NODE_ID")?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.len() > 64 || !id.bytes().all(fits) {
            self.fault("NODE_ID", &id, "1 to 64 of A-Z a-z 0-9 - _");
        }
        Some(id)
    }

    /// The values are not repeated: many a URL of this kind is a secret.
    fn webhooks(&mut self) -> Vec<WebhookTarget> {
        let urls = self.text("WEBHOOK_URLS").map_or(Some(Vec::new()), |urls| read_list(&urls));
        let allows_private = self.flag("WEBHOOK_ALLOW_PRIVATE", false);
        let Some(urls) = urls else {
            self.faults.push("WEBHOOK_URLS: not accepted; give a list such as [\"https://a.example/hook\",\"https://b.example/hook\"]".into());
            return Vec::new();
        };
        let mut targets = Vec::new();
        for (number, url) in urls.iter().enumerate() {
            match WebhookTarget::parse(url, allows_private) {
                Ok(target) => targets.push(target),
                Err(fault) => self.faults.push(format!(
                    "WEBHOOK_URLS, entry {}: {fault}; give URLs such as https://hooks.example.com/path",
                    number + 1
                )),
            }
        }
        targets
    }

    fn metrics_listen(&mut self) -> Option<SocketAddr> {
        let accepted =
            "an address and a port such as 127.0.0.1:9464 or [::1]:9464; port 0 takes a free one";
        self.parsed("METRICS_LISTEN", None, accepted, |value| value.parse().ok().map(Some))
    }

    fn otlp(&mut self) -> Option<Otlp> {
        const ACCEPTED: &str = "an http:// or https:// URL such as http://localhost:4318, without user, password or query";
        let endpoint = self.text("OTEL_EXPORTER_OTLP_ENDPOINT").filter(|value| {
            let fits = is_collector(value);
            if !fits {
                // Not repeated: there may be a password in it.
                self.faults
                    .push(format!("OTEL_EXPORTER_OTLP_ENDPOINT: not accepted; give {ACCEPTED}"));
            }
            fits
        });
        let endpoint = endpoint.map(|value| value.trim_end_matches('/').to_owned());
        let headers = self.otlp_headers();
        let service_name = self.text("OTEL_SERVICE_NAME");
        let service_name = service_name.unwrap_or_else(|| "signaling-server".to_owned());
        Some(Otlp { endpoint: endpoint?, headers, service_name })
    }

    /// The values are not repeated: they are keys. In the form of W3C Baggage, as the specification of the
    /// exporter has it: percent-encoded.
    fn otlp_headers(&mut self) -> Vec<(String, SecretString)> {
        let text = Zeroizing::new(self.text("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default());
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let headers = entries.map(|entry| {
            let (name, value) = entry.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            HeaderValue::from_str(&value).ok()?;
            let name = HeaderName::try_from(name.trim()).ok()?;
            Some((name.as_str().to_owned(), value.into_owned().into()))
        });
        headers.collect::<Option<_>>().unwrap_or_else(|| {
            let accepted =
                "name=value, or several with commas between them, values percent-encoded";
            self.faults.push(format!("OTEL_EXPORTER_OTLP_HEADERS: not accepted; give {accepted}"));
            Vec::new()
        })
    }

    /// What an `Authorization` header can hold (RFC 9110 section 5.5); the value is not repeated.
    fn bearer_token(&mut self, name: &str) -> Option<SecretString> {
        let token = self.optional_secret(name)?;
        if !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            self.faults.push(format!("{name}: not accepted; give letters, digits and signs of ASCII without spaces, such as `openssl rand -hex 32` makes"));
        }
        Some(token)
    }

    fn optional_secret(&self, name: &str) -> Option<SecretString> {
        (self.variable)(name).filter(|secret| !secret.is_empty()).map(SecretString::from)
    }

    fn list(&mut self, name: &str, default: &[&str]) -> Vec<String> {
        let default = default.iter().map(|&entry| entry.to_owned()).collect();
        self.parsed(name, default, "a list such as [\"a\",\"b\"] or a,b", read_list)
    }

    fn origins(&mut self) -> Origins {
        const ACCEPTED: &str =
            "[\"*\"], or origins such as [\"https://app.example.com\"], without a path";
        let origins = self.list("CORS_ORIGINS", &["*"]);
        if origins.iter().any(|origin| origin == "*") {
            return Origins::Any;
        }
        let mut allowed = Vec::new();
        for origin in &origins {
            let plain = origin.trim_end_matches('/').to_ascii_lowercase();
            // A browser leaves the port out where it is the scheme's own.
            let usual_port = if plain.starts_with("https:") { ":443" } else { ":80" };
            let plain = plain.strip_suffix(usual_port).map_or(plain.clone(), str::to_owned);
            let host = plain.split_once("://").map(|(_, host)| host);
            let well_formed =
                host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '*']));
            if well_formed || plain == "null" {
                allowed.push(plain);
            } else {
                self.fault("CORS_ORIGINS", origin, ACCEPTED);
            }
        }
        Origins::These(allowed)
    }

    fn proxies(&mut self) -> Vec<IpNet> {
        let mut nets = Vec::new();
        for entry in self.list("TRUSTED_PROXIES", &["127.0.0.0/8", "::1"]) {
            let net = entry
                .parse()
                .ok()
                .or_else(|| entry.parse().ok().map(|address: IpAddr| address.into()));
            match net {
                Some(net) => nets.push(net),
                None => self.fault(
                    "TRUSTED_PROXIES",
                    &entry,
                    "addresses or networks such as 10.0.0.0/8",
                ),
            }
        }
        nets
    }

    fn turn(&mut self) -> Turn {
        let secret = (self.variable)(TURN_SECRET).unwrap_or_default();
        let url = self.urls("TURNSERVER_URL", true);
        let urls = self.urls("TURNSERVER_URLS", true);
        let ttl = Duration::from_secs(self.at_least_one("TURNSERVER_TTL", 86_400));
        Turn { secret: secret.into(), urls: if urls.is_empty() { url } else { urls }, ttl }
    }

    fn urls(&mut self, name: &str, is_turn: bool) -> Vec<String> {
        let fits = |url: &str| IceServerUrl::parse(url).is_some_and(|url| url.is_turn == is_turn);
        let urls = self.list(name, &[]);
        for url in urls.iter().filter(|url| !fits(url)) {
            let scheme = if is_turn { "turn:" } else { "stun:" };
            let accepted =
                format!("URLs such as {scheme}turn.example.com:3478 (RFC 7064, RFC 7065)");
            self.fault(name, url, &accepted);
        }
        urls
    }
}

fn is_collector(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let has_user = url.authority().is_none_or(|authority| authority.as_str().contains('@'));
    matches!(url.scheme_str(), Some("http" | "https")) && !has_user && url.query().is_none()
}

/// A list as JSON, as JSON whose quotes a shell ate, or with commas.
fn read_list(value: &str) -> Option<Vec<String>> {
    if let Ok(list) = serde_json::from_str(value) {
        return Some(list);
    }
    let inner = match value.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => value,
    };
    if inner.contains(['"', '[', ']', '{', '}']) {
        return None;
    }
    Some(
        inner
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::dotenv::read_assignment;

    fn read(set: &[(&str, &str)]) -> Result<Config, Faults> {
        Config::read(variables(set))
    }

    fn variables(set: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }
    }

    fn in_debug(name: &str, value: &str) -> Result<Config, Faults> {
        read(&[("DEBUG", "true"), (name, value)])
    }

    /// A production environment without fault, but for what is overridden.
    fn in_production(changes: &[(&str, &str)]) -> Result<Config, Faults> {
        let (own, jwt) = ("a".repeat(32), "b".repeat(32));
        let mut variables = changes.to_vec();
        variables.extend([
            ("SECRET_KEY", &*own),
            ("JWT_SECRET_KEY", &*jwt),
            ("USERS_CSV", "Cargo.toml"),
        ]);
        read(&variables)
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = in_production(&[]).unwrap();

        assert_eq!((config.host.as_str(), config.port), ("0.0.0.0", 8000));
        assert!(!config.debug && config.require_https && !config.api_docs && config.tls.is_none());
        assert_eq!(config.log_level, LevelFilter::INFO);
        assert_eq!(config.token_lifetime, Duration::from_secs(1800));
        assert!(config.cors_origins == Origins::Any && config.cors_allow_credentials);
        assert!(config.metrics_token.is_none() && config.workers == 0);
        assert_eq!(config.metrics_listen, None);
        assert_eq!(
            (config.rate_limit_per_minute, config.messages_per_second, config.message_burst),
            (60, 50, 250)
        );
        assert_eq!((config.websocket_timeout.as_secs(), config.max_message_bytes), (30, 65_536));
        assert_eq!((config.max_connections_per_room, config.max_connections_per_ip), (10, 100));
        assert_eq!((config.auth_max_failures, config.auth_lockout.as_secs()), (5, 300));
        assert_eq!(
            config.trusted_proxies,
            ["127.0.0.0/8".parse::<IpNet>().unwrap(), "::1/128".parse().unwrap()]
        );
        assert!(
            !config.enforce_token_expiry
                && !config.allow_anonymous
                && !config.rooms_api_require_auth
        );
        assert!(
            config.allowed_rooms.is_empty()
                && config.ice.stun_urls.is_empty()
                && config.ice.turn.urls.is_empty()
        );
        assert_eq!((config.ice.turn.ttl.as_secs(), config.shutdown_grace.as_secs()), (86_400, 10));
        assert_eq!((config.turn_probe.as_secs(), config.resume_window.as_secs()), (60, 30));
        assert_eq!(config.state_file, None);
    }

    #[test]
    fn a_token_that_no_header_can_hold_is_refused_and_not_shown() {
        for name in ["METRICS_TOKEN", "ADMIN_TOKEN"] {
            for token in
                ["zoë-0123456789abcdef0123456789abcdef", "two words 0123456789abcdef0123456"]
            {
                let faults = in_debug(name, token).unwrap_err().0;

                assert!(faults[0].starts_with(&format!("{name}: not accepted; give letters")));
                assert!(!faults[0].contains("0123456789abcdef"), "{faults:?}");
            }
            assert!(in_debug(name, "0123456789abcdef0123456789abcdef").is_ok());
        }
    }

    #[test]
    fn every_setting_stands_in_env_example_in_the_same_order_and_with_its_default() {
        let names = RefCell::new(Vec::new());
        let _ = Config::read(|name| {
            names.borrow_mut().push(name.to_owned());
            None
        });
        let example = include_str!("../env.example");

        let listed: Vec<(String, String)> = example
            .lines()
            .filter_map(|line| {
                read_assignment(
                    line.strip_prefix("# ").filter(|line| is_assignment(line)).unwrap_or(line),
                )
                .ok()?
            })
            .collect();

        assert_eq!(
            listed.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            names.borrow().iter().collect::<Vec<_>>()
        );
        let plain = in_debug("LOG_LEVEL", "").unwrap();
        let spelled_out = Config::read(|name| match name {
            "DEBUG" => Some("true".into()),
            "API_DOCS" => None,
            _ => listed.iter().find(|(listed, _)| listed == name).map(|(_, value)| value.clone()),
        });
        let describe = |config: &Config| {
            let mut text = String::new();
            write!(text, "{config:?}").unwrap();
            for secret in [&config.secret_key, &config.jwt_secret_key, &config.ice.turn.secret] {
                text.push_str(secret.expose_secret());
            }
            text.replace("LevelFilter::INFO", "LevelFilter::DEBUG")
        };
        assert_eq!(describe(&spelled_out.unwrap()), describe(&plain));
    }

    fn is_assignment(line: &str) -> bool {
        line.split_once('=').is_some_and(|(name, _)| {
            name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        })
    }

    #[test]
    fn a_redis_url_that_is_none_is_named_without_its_password() {
        let Faults(faults) = in_debug("REDIS_URL", "redis://a, http://user:hunter2@b").unwrap_err();

        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("REDIS_URL, entry 2") && faults[0].contains("redis://"));
        assert!(!faults[0].contains("hunter2"), "{faults:?}");
    }

    #[test]
    fn a_webhook_url_that_is_none_is_named_by_its_place_and_never_repeated() {
        let with = |urls, private| {
            read(&[("DEBUG", "true"), ("WEBHOOK_URLS", urls), ("WEBHOOK_ALLOW_PRIVATE", private)])
        };

        for (urls, entry) in [
            ("https://a.example/hunter2, http://b.example/hunter2", "entry 2: is not encrypted"),
            (r#"["https://10.0.0.1/hunter2"]"#, "entry 1: leads to 10.0.0.1"),
            ("hunter2", "entry 1: is no https:// URL"),
            ("https://hunter2@a.example/", "entry 1: has a user name"),
            (r#"["https://a.example/hunter2""#, "give a list"),
        ] {
            let Faults(faults) = with(urls, "").unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with("WEBHOOK_URLS") && faults[0].contains(entry));
            assert!(!faults[0].contains("hunter2"), "{faults:?}");
        }
        let both =
            with(r#"["http://127.0.0.1:9000/hunter2","https://b.example/"]"#, "true").unwrap();
        assert_eq!(both.webhooks.len(), 2);
        assert!(!format!("{both:?}").contains("hunter2"));
        assert!(in_debug("WEBHOOK_URLS", "").unwrap().webhooks.is_empty());
    }

    #[test]
    fn sentinels_are_several_addresses_and_a_service() {
        let urls = |urls| in_debug("REDIS_URL", urls).map(|config| config.redis_urls.len());

        for good in ["redis+sentinel://a/den", "rediss+sentinel://u:p@a:1;[::1];b:26379/den"] {
            assert_eq!(urls(good).unwrap(), 1, "{good}");
        }
        for wrong in ["redis+sentinel://a;b", "redis+sentinel:///den", "http+sentinel://a/den"] {
            assert!(urls(wrong).unwrap_err().0[0].contains("redis+sentinel://"), "{wrong}");
        }
    }

    #[test]
    fn an_authority_that_signs_nothing_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let garbage = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let good = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let with = |pem: &str| {
            fs::write(&path, pem).unwrap();
            in_debug("REDIS_CA_FILE", path.to_str().unwrap())
        };

        for wrong in ["", "no PEM", garbage] {
            assert!(with(wrong).unwrap_err().0[0].contains("REDIS_CA_FILE"), "{wrong}");
        }
        assert!(with(&good).is_ok());
    }

    #[test]
    fn a_value_that_is_not_accepted_is_named_with_what_is() {
        for (name, value, accepted) in [
            ("HOST", "http://localhost", "a host name"),
            ("HOST", "[]", "a host name"),
            ("HOST", "a\nb", "a host name"),
            ("PORT", "8000\nPORT=1", "0 to 65535"),
            ("PORT", "80000", "0 to 65535"),
            ("REQUIRE_HTTPS", "maybe", "true or false"),
            ("LOG_LEVEL", "LOUD", "WARNING"),
            ("LOG_FORMAT", "xml", "pretty or json"),
            ("MAX_CONNECTIONS_PER_ROOM", "-3", "from 1"),
            ("MAX_CONNECTIONS_PER_ROOM", "0", "from 1"),
            ("RESUME_WINDOW_SECONDS", "3601", "from 0 to 3600"),
            ("RESUME_WINDOW_SECONDS", "-1", "from 0 to 3600"),
            ("TURN_PROBE_SECONDS", "86401", "from 0 to 86400"),
            ("TURN_PROBE_SECONDS", "often", "0 = never"),
            ("WORKERS", "-1", "from 0 to 1024"),
            ("WORKERS", "1025", "from 0 to 1024"),
            ("WEBSOCKET_TIMEOUT", "1.5", "a whole number"),
            ("WEBSOCKET_MAX_MESSAGE_BYTES", "10", "from 1024"),
            ("RATE_LIMIT_PER_MINUTE", "-1", "0 = no limit"),
            ("CORS_ORIGINS", "[\"app.example.com\"]", "https://app.example.com"),
            ("CORS_ORIGINS", "[\"https://*.example.com\"]", "https://app.example.com"),
            ("CORS_ORIGINS", "[\"a\"", "a list"),
            ("ALLOWED_ROOMS", "{\"a\":1}", "a list"),
            ("TRUSTED_PROXIES", "10.0.0.0/40", "10.0.0.0/8"),
            ("TURNSERVER_URLS", "[\"http://turn.example.com\"]", "turn:turn.example.com"),
            ("TURNSERVER_URL", "turn:", "turn:turn.example.com"),
            ("STUNSERVER_URLS", "turn:x", "stun:turn.example.com"),
            ("TURNSERVER_TTL", "0", "from 1"),
            ("NODE_ID", "a.b", "A-Z a-z"),
            ("METRICS_LISTEN", "9464", "127.0.0.1:9464"),
            ("METRICS_LISTEN", ":9464", "127.0.0.1:9464"),
            ("METRICS_LISTEN", "127.0.0.1:94640", "127.0.0.1:9464"),
            ("SSL_KEY_FILE", "a.pem", "SSL_CERT_FILE"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://localhost:4317", "http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:pw@localhost", "without user"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost/?key=1", "or query"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api key=1", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=%0a", "name=value"),
        ] {
            let faults = in_debug(name, value).unwrap_err().0;

            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(name) && faults[0].contains(accepted), "{faults:?}");
            assert!(!faults[0].contains('\n') && !faults[0].contains("user:pw"), "{faults:?}");
        }
    }

    #[test]
    fn tls_takes_both_files_and_leaves_openssl_its_own_variable() {
        assert_eq!(
            in_debug("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt").unwrap().tls,
            None
        );
        let both =
            read(&[("DEBUG", "true"), ("SSL_CERT_FILE", "a.crt"), ("SSL_KEY_FILE", "a.key")])
                .unwrap()
                .tls
                .unwrap();
        assert_eq!((both.certificate, both.key), ("a.crt".into(), "a.key".into()));
        let own =
            read(&[("DEBUG", "true"), ("SSL_CERT_FILE", "ca.crt"), ("SSL_SELF_SIGNED", "true")])
                .unwrap()
                .tls
                .unwrap();
        assert_eq!((own.certificate, own.key), ("ssl/server.crt".into(), "ssl/server.key".into()));
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let faults =
            read(&[("PORT", "x"), ("DEBUG", "perhaps"), ("USERS_CSV", "/nowhere/users.csv")])
                .unwrap_err()
                .0;

        let about: Vec<_> =
            faults.iter().map(|fault| fault.split(['=', ' ']).next().unwrap()).collect();
        assert_eq!(about, ["PORT", "DEBUG", "SECRET_KEY", "JWT_SECRET_KEY", "USERS_CSV"]);
    }

    #[test]
    fn production_refuses_secrets_that_are_none() {
        let same = "x".repeat(40);
        for (changes, names) in [
            (&[("JWT_SECRET_KEY", "your-jwt-secret-key")][..], &["JWT_SECRET_KEY"][..]),
            (&[("SECRET_KEY", "your-256-bit-secret-key-here-and-longer-than-32")], &["SECRET_KEY"]),
            (&[("SECRET_KEY", ""), ("JWT_SECRET_KEY", "")], &["SECRET_KEY", "JWT_SECRET_KEY"]),
            (&[("JWT_SECRET_KEY", "0123456789012345678901234567890")], &["JWT_SECRET_KEY"]),
            (&[("SECRET_KEY", &same), ("JWT_SECRET_KEY", &same)], &["SECRET_KEY"]),
            (&[("JWT_SECRET_KEY", &" ".repeat(40))], &["JWT_SECRET_KEY"]),
            (&[("JWT_SECRET_KEY_PREVIOUS", "short")], &["JWT_SECRET_KEY_PREVIOUS"]),
            (&[("JWT_SECRET_KEY_PREVIOUS", &"a".repeat(32))], &["JWT_SECRET_KEY_PREVIOUS"]),
            (&[("JWT_SECRET_KEY_PREVIOUS", &"b".repeat(32))], &["JWT_SECRET_KEY_PREVIOUS"]),
            (&[("USERS_CSV", "/nowhere/users.csv")], &["USERS_CSV"]),
        ] {
            let faults = in_production(changes).unwrap_err().0;

            assert_eq!(
                faults
                    .iter()
                    .map(|fault| fault.split([' ', '=']).next().unwrap())
                    .collect::<Vec<_>>(),
                names
            );
            let mend = ["openssl rand -hex 32", "manage_users add", "leave it empty"];
            assert!(
                faults.iter().all(|fault| mend.iter().any(|mend| fault.contains(mend))),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn no_secret_is_repeated() {
        let secret = "hunter2-hunter2";

        let config = read(&[
            ("DEBUG", "true"),
            ("JWT_SECRET_KEY", secret),
            ("SECRET_KEY", secret),
            ("TURNSERVER_SECRET", secret),
            ("JWT_SECRET_KEY_PREVIOUS", secret),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2-hunter2"),
        ])
        .unwrap();
        let names = ["JWT_SECRET_KEY", "SECRET_KEY", "JWT_SECRET_KEY_PREVIOUS"];
        let faults = in_production(&names.map(|name| (name, secret))).unwrap_err();

        assert!(!format!("{config:?}{faults:?}{faults}").contains("hunter2"));
    }

    #[test]
    fn traces_go_where_the_standard_variables_say() {
        let otlp = read(&[
            ("DEBUG", "true"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4318/base/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=a%20b=+, x-team = calls"),
        ]);
        let otlp = otlp.unwrap().otlp.unwrap();

        let headers = otlp.headers.iter().map(|(name, value)| (&**name, value.expose_secret()));
        assert_eq!(headers.collect::<Vec<_>>(), [("api-key", "a b=+"), ("x-team", "calls")]);
        assert_eq!(otlp.endpoint, "https://collector.example:4318/base");
        assert_eq!(otlp.service_name, "signaling-server");
        assert!(in_debug("OTEL_SERVICE_NAME", "x").unwrap().otlp.is_none());
    }

    #[test]
    fn lists_come_as_json_or_with_commas() {
        for value in [r#"["a","b c"]"#, r#"[ "a" , "b c" ]"#, "[a, b c]", "a,b c", " a , b c ,"] {
            assert_eq!(
                in_debug("ALLOWED_ROOMS", value).unwrap().allowed_rooms,
                ["a", "b c"],
                "{value}"
            );
        }
        assert!(in_debug("ALLOWED_ROOMS", "[]").unwrap().allowed_rooms.is_empty());
    }

    #[test]
    fn the_single_turn_url_is_used_where_the_list_is_empty() {
        let single = in_debug("TURNSERVER_URL", "turn:a:3478").unwrap().ice.turn.urls.clone();
        let both = read(&[
            ("DEBUG", "true"),
            ("TURNSERVER_URL", "turn:a:3478"),
            ("TURNSERVER_URLS", "turn:b,turns:c"),
        ]);

        assert_eq!(single, ["turn:a:3478"]);
        assert_eq!(both.unwrap().ice.turn.urls, ["turn:b", "turns:c"]);
    }

    #[test]
    fn debug_is_talkative_unless_told_otherwise() {
        assert_eq!(read(&[("DEBUG", "true")]).unwrap().log_level, LevelFilter::DEBUG);
        assert_eq!(in_debug("LOG_LEVEL", "warning").unwrap().log_level, LevelFilter::WARN);
    }

    /// A good value for each of [`READ_AGAIN`] that is not the default.
    const OTHERS: [(&str, &str); READ_AGAIN.len()] = [
        ("LOG_LEVEL", "ERROR"),
        ("CORS_ORIGINS", "https://a.example"),
        ("RATE_LIMIT_PER_MINUTE", "61"),
        ("WEBSOCKET_MESSAGES_PER_SECOND", "51"),
        ("WEBSOCKET_MESSAGE_BURST", "251"),
        ("WEBSOCKET_TIMEOUT", "31"),
        ("WEBSOCKET_MAX_MESSAGE_BYTES", "65537"),
        ("MAX_CONNECTIONS_PER_ROOM", "11"),
        ("MAX_CONNECTIONS_PER_IP", "101"),
        ("AUTH_MAX_FAILURES", "6"),
        ("AUTH_LOCKOUT_SECONDS", "301"),
        ("ALLOWED_ROOMS", "den"),
        ("TURNSERVER_SECRET", "hunter2-hunter2"),
        ("TURNSERVER_URL", "turn:a"),
        ("TURNSERVER_URLS", "turn:b"),
        ("TURNSERVER_TTL", "86401"),
        ("STUNSERVER_URLS", "stun:a"),
    ];

    #[test]
    fn what_sighup_reads_again_is_taken_and_named() {
        assert_eq!(OTHERS.map(|(name, _)| name), READ_AGAIN);
        let start = in_debug("", "").unwrap();
        for other in OTHERS {
            let set = [("DEBUG", "true"), other];

            let (config, Changes { changed, need_restart }) =
                start.read_again(variables(&set)).unwrap();

            let fresh = format!("{:?}", read(&set).unwrap());
            assert_eq!(format!("{config:?}"), fresh);
            assert!(changed.len() == 1 && changed[0].starts_with(other.0), "{changed:?}");
            assert!(need_restart.is_empty() && !changed[0].contains("hunter2"), "{changed:?}");
            let (_, none) = config.read_again(variables(&set)).unwrap();
            assert!(none.changed.is_empty(), "{none:?}");
        }
    }

    #[test]
    fn what_needs_a_restart_stays_as_it_was_and_is_named_each_time() {
        let start = in_debug("LOG_LEVEL", "").unwrap();
        let (own, jwt) = ("a".repeat(32), "b".repeat(32));
        let set = [
            ("SECRET_KEY", &*own),
            ("JWT_SECRET_KEY", &*jwt),
            ("USERS_CSV", "Cargo.toml"),
            ("PORT", "81"),
            ("ALLOWED_ROOMS", "den"),
        ];

        let (config, first) = start.read_again(variables(&set)).unwrap();
        let (_, second) = config.read_again(variables(&set)).unwrap();

        assert!(config.port == 8000 && config.debug && config.log_level == LevelFilter::DEBUG);
        assert_eq!(first.changed, ["ALLOWED_ROOMS: (default) → den"]);
        assert_eq!(second.changed, [""; 0]);
        let restart = ["DEBUG", "JWT_SECRET_KEY", "PORT", "SECRET_KEY", "USERS_CSV"];
        assert_eq!(
            (first.need_restart, second.need_restart),
            (restart.map(String::from).to_vec(), restart.map(String::from).to_vec())
        );
    }

    #[test]
    fn settings_are_read_again_all_or_none() {
        let start = in_debug("", "").unwrap();
        let set = [("DEBUG", "true"), ("ALLOWED_ROOMS", "den"), ("PORT", "x")];

        let Faults(faults) = start.read_again(variables(&set)).unwrap_err();

        assert!(faults.len() == 1 && faults[0].starts_with("PORT=x"), "{faults:?}");
    }

    #[test]
    fn what_is_allowed_but_dangerous_is_warned_of() {
        let warned_of =
            |changes: &[(&str, &str)]| in_production(changes).unwrap().warnings().join("; ");
        let narrow = ("CORS_ORIGINS", "https://a.example");

        assert_eq!(warned_of(&[narrow]), "");
        assert!(warned_of(&[]).contains("CORS_ORIGINS"));
        assert!(warned_of(&[narrow, ("ALLOW_ANONYMOUS", "true")]).contains("guest"));
        assert!(warned_of(&[narrow, ("TURNSERVER_SECRET", "x")]).contains("TURNSERVER_URLS"));
        assert!(warned_of(&[narrow, ("TURNSERVER_SECRET", "x")]).contains("openssl rand"));
        for (address, token, is_warned_of) in [
            ("127.0.0.1:9464", "", false),
            ("0.0.0.0:9464", "", true),
            ("0.0.0.0:9464", "x", false),
        ] {
            let warned_of =
                warned_of(&[narrow, ("METRICS_LISTEN", address), ("METRICS_TOKEN", token)]);
            assert_eq!(warned_of.contains("METRICS_LISTEN"), is_warned_of, "{address}");
        }
        assert!(read(&[("DEBUG", "true")]).unwrap().warnings().join("").contains("placeholder"));
    }

    #[test]
    fn the_reference_describes_every_setting() {
        let names = RefCell::new(Vec::new());
        let _ = Config::read(|name| {
            names.borrow_mut().push(format!("`{name}`"));
            None
        });
        let table = include_str!("../docs/reference/settings.md");

        let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let operations = include_str!("../docs/run/operations.md");
        for name in READ_AGAIN {
            assert!(operations.contains(&format!("`{name}`")), "{name}");
        }
        for name in names.borrow().iter() {
            assert!(rows.iter().any(|row| row.split('|').nth(1).unwrap().contains(name)), "{name}");
        }
    }

    #[test]
    fn origins_are_compared_as_browsers_spell_them() {
        let origins =
            in_debug("CORS_ORIGINS", "https://App.example.com:443/, http://localhost:3000,null")
                .unwrap()
                .cors_origins;

        assert!(
            origins.allow("https://app.example.com")
                && origins.allow("http://localhost:3000")
                && origins.allow("null")
        );
        assert!(
            !origins.allow("https://app.example.com.evil.example")
                && !origins.allow("http://app.example.com")
        );
    }
}
