//! The settings: variables of the environment and of `.env`, each declared once in the file of its section.
//!
//! | file | what |
//! | --- | --- |
//! | `declare` | a setting, a section; how to add a setting |
//! | `parse` | from texts to values |
//! | `environment`, `dotenv`, `names` | the environment and `.env`: its lines, and the names in it |
//! | `error` | errors and warnings |
//! | `validate` | what stops a start in production, and what deserves a warning |
//! | `reload` | what SIGHUP changes |
//! | `process`, `listen`, `cors`, `auth`, `tokens`, `limits`, `rooms`, `ice`, `cluster`, `webhooks`, `telemetry` | the settings of a section |
//! | `generated` (tests) | `env.example` and the reference table |
//!
//! What does not change while the server runs is in [`StartupSettings`]; what SIGHUP may change is in
//! [`ReloadableSettings`], so that a stale value cannot be read.

mod auth;
mod cluster;
mod cors;
mod declare;
mod dotenv;
mod environment;
mod error;
mod ice;
mod limits;
mod listen;
mod names;
mod parse;
mod process;
mod reload;
mod rooms;
mod telemetry;
mod tokens;
mod validate;
mod webhooks;

#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use secrecy::SecretString;

use self::parse::{RawValues, Reader};
pub use self::{
    auth::{AuthSettings, ReloadableAuth},
    cluster::ClusterSettings,
    cors::{CorsSettings, Origins, ReloadableCors},
    declare::{Declaration, Section, Sensitivity},
    environment::{Environment, Source},
    error::{ConfigError, ConfigErrors, ConfigWarning},
    ice::{IceSettings, ReloadableIce, TurnSettings},
    limits::ReloadableLimits,
    listen::ListenSettings,
    process::ProcessSettings,
    reload::{SettingChanges, reload},
    rooms::{ReloadableRooms, RoomSettings},
    telemetry::{LogFormat, Otlp, ReloadableTelemetry, TelemetrySettings},
    tokens::TokenSettings,
    validate::{exposed_files, unwritable_folders, warnings, wrapped_secrets},
    webhooks::WebhookSettings,
};
use crate::intervals::Intervals;

/// Every section, in the order of `env.example` and the reference table.
pub const SECTIONS: [Section; 11] = [
    process::SECTION,
    listen::SECTION,
    cors::SECTION,
    auth::SECTION,
    tokens::SECTION,
    limits::SECTION,
    rooms::SECTION,
    ice::SECTION,
    cluster::SECTION,
    webhooks::SECTION,
    telemetry::SECTION,
];

/// Every setting, in that order.
pub fn declarations() -> impl Iterator<Item = &'static Declaration> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The settings, as a start reads them.
#[derive(Debug)]
pub struct Config {
    /// What stays as it is until the process ends.
    pub startup: StartupSettings,
    /// What SIGHUP may change.
    pub reloadable: ReloadableSettings,
}

/// The settings that need a restart.
#[derive(Debug)]
pub struct StartupSettings {
    /// Development or production, threads, shutdown.
    pub process: ProcessSettings,
    /// How clients reach the server.
    pub listen: ListenSettings,
    /// What browsers may send along.
    pub cors: CorsSettings,
    /// Users, tokens and secrets.
    pub auth: AuthSettings,
    /// Tokens that another service issues.
    pub tokens: TokenSettings,
    /// What is kept of members and rooms that are gone.
    pub rooms: RoomSettings,
    /// How TURN servers are probed.
    pub ice: IceSettings,
    /// The other servers that share rooms.
    pub cluster: ClusterSettings,
    /// The receivers of room events.
    pub webhooks: WebhookSettings,
    /// Logs, metrics and traces.
    pub telemetry: TelemetrySettings,
    /// What no setting says: see [`Intervals`].
    pub intervals: Intervals,
    raw: RawValues,
}

/// The settings that SIGHUP reads again. They are replaced as a whole.
#[derive(Debug)]
pub struct ReloadableSettings {
    /// Whose pages may use the server.
    pub cors: ReloadableCors,
    /// When attempts to log in are refused.
    pub auth: ReloadableAuth,
    /// Limits on requests, connections and messages.
    pub limits: ReloadableLimits,
    /// Which rooms clients may join.
    pub rooms: ReloadableRooms,
    /// The STUN and TURN servers that clients are given.
    pub ice: ReloadableIce,
    /// How much is logged.
    pub telemetry: ReloadableTelemetry,
    raw: RawValues,
}

impl Config {
    /// Reads the settings; `variable` returns the text of a variable. An empty text is as good as none.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`]: every problem of every setting, and in production those of the settings together (`validate`).
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let (config, errors) = Self::read_lenient(variable);
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// The same for `doctor`, which goes on with what is right: a setting that is not accepted has its default.
    pub fn read_lenient(variable: impl Fn(&str) -> Option<String>) -> (Self, Vec<ConfigError>) {
        let mut reader = Reader::new(&variable);
        let startup = StartupSettings::read(&mut reader);
        let reloadable = ReloadableSettings::read(&mut reader, startup.process.debug);
        let mut errors = reader.errors;
        if !startup.process.debug {
            errors.extend(validate::production_errors(&startup));
        }
        (Self { startup, reloadable }, errors)
    }

    /// What the server accepts but an operator should know; see [`warnings`].
    pub fn warnings(&self) -> Vec<ConfigWarning> {
        warnings(&self.startup, &self.reloadable)
    }
}

/// The settings whose whole value is a secret and that are set, by variable.
pub fn secrets<'a>(
    startup: &'a StartupSettings,
    reloadable: &'a ReloadableSettings,
) -> Vec<(&'static str, &'a SecretString)> {
    let secrets = declarations().filter(|it| it.is_secret());
    let text = |name| startup.raw.get(name).or_else(|| reloadable.raw.get(name));
    secrets.filter_map(|it| Some((it.name, text(it.name)?))).collect()
}

impl StartupSettings {
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            process: ProcessSettings::read(reader),
            listen: ListenSettings::read(reader),
            cors: CorsSettings::read(reader),
            auth: AuthSettings::read(reader),
            tokens: TokenSettings::read(reader),
            rooms: RoomSettings::read(reader),
            ice: IceSettings::read(reader),
            cluster: ClusterSettings::read(reader),
            webhooks: WebhookSettings::read(reader),
            telemetry: TelemetrySettings::read(reader),
            intervals: Intervals::default(),
            raw: std::mem::take(&mut reader.raw),
        }
    }
}

impl ReloadableSettings {
    fn read(reader: &mut Reader<'_>, debug: bool) -> Self {
        Self {
            cors: ReloadableCors::read(reader),
            auth: ReloadableAuth::read(reader),
            limits: ReloadableLimits::read(reader),
            rooms: ReloadableRooms::read(reader),
            ice: ReloadableIce::read(reader),
            telemetry: ReloadableTelemetry::read(reader, debug),
            raw: std::mem::take(&mut reader.raw),
        }
    }
}

/// `USERS_CSV` alone, for programs that read no other setting.
pub fn users_csv(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    Reader::new(&variable).get(&auth::USERS_CSV)
}

/// What `signaling-server admin` needs of the settings of the server that it asks.
#[derive(Debug)]
pub struct AdminAccess {
    /// `HOST` of the server.
    pub host: String,
    /// `PORT` of the server.
    pub port: u16,
    /// `PROXY_PROTOCOL` of the server.
    pub proxy_protocol: bool,
    /// `ADMIN_TOKEN`.
    pub token: Option<SecretString>,
}

impl AdminAccess {
    /// Reads these settings alone, for an administrator who may not read the other secrets of the server.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] of these settings.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(&variable);
        let (host, port) = (reader.get(&listen::HOST), reader.get(&listen::PORT));
        let proxy_protocol = reader.get(&listen::PROXY_PROTOCOL);
        let token = reader.get(&auth::ADMIN_TOKEN);
        let errors = reader.errors;
        if errors.is_empty() {
            Ok(Self { host, port, proxy_protocol, token })
        } else {
            Err(ConfigErrors(errors))
        }
    }
}
