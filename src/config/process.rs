//! The process: development or production, its threads, its shutdown.

use std::time::Duration;

use super::{
    declare::{Section, Setting},
    parse::{FROM_ONE, Reader, TRUE_OR_FALSE, UP_TO_A_MILLION, flag, number, optional, seconds},
};

/// What the process as a whole does.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// `DEBUG`: development instead of production.
    pub debug: bool,
    /// `API_DOCS`: whether the pages about the REST API are served.
    pub api_docs: bool,
    /// `WORKERS`: threads that carry connections; 0 = one for each core.
    pub workers: usize,
    /// `SHUTDOWN_GRACE_SECONDS`: how long a shutdown may take.
    pub shutdown_grace: Duration,
}

const DEBUG: Setting<bool> = Setting::new("DEBUG", "false", flag).accepts(TRUE_OR_FALSE).help(
    "Development mode: creates default users, logs at `DEBUG`, allows the published placeholders as secret keys, and \
     serves `/docs` and `/examples/`.",
);

const API_DOCS: Setting<Option<bool>> = Setting::new("API_DOCS", "", |text| optional(text, flag))
    .accepts(TRUE_OR_FALSE)
    .help("Serves `/docs`, `/redoc` and `/openapi.json`. Empty: as `DEBUG`.");

const WORKERS: Setting<usize> = Setting::new("WORKERS", "0", |text| number(text, 0..=1024))
    .accepts("a whole number from 0 to 1024; 0 = one for each core")
    .help("Threads that serve connections; each has its own rooms.");

const SHUTDOWN_GRACE_SECONDS: Setting<Duration> = Setting::new(
    "SHUTDOWN_GRACE_SECONDS",
    "10",
    |text| seconds(text, UP_TO_A_MILLION),
)
.accepts(FROM_ONE)
.help("Seconds that a stop may take after SIGTERM, and over which clients are asked to reconnect.");

pub(super) const SECTION: Section = Section {
    title: "Process",
    settings: &[
        DEBUG.declaration,
        API_DOCS.declaration,
        WORKERS.declaration,
        SHUTDOWN_GRACE_SECONDS.declaration,
    ],
};

impl ProcessSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let debug = reader.get(&DEBUG);
        Self {
            debug,
            api_docs: reader.get(&API_DOCS).unwrap_or(debug),
            workers: reader.get(&WORKERS),
            shutdown_grace: reader.get(&SHUTDOWN_GRACE_SECONDS),
        }
    }
}
