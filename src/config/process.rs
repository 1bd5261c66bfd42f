//! The process: development or production, its threads, its shutdown.

use std::time::Duration;

use super::{
    declare::{Section, Setting},
    parse::{FROM_ONE, Reader, TRUE_OR_FALSE, UP_TO_A_MILLION, flag, number, optional, seconds},
};
use crate::memory;

/// What the process as a whole does.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// `DEBUG`: development instead of production.
    pub debug: bool,
    /// `API_DOCS`: whether the pages about the REST API are served.
    pub api_docs: bool,
    /// `WORKERS`: threads that carry connections; 0 = one for each core.
    pub workers: usize,
    /// `MEMORY_BUDGET_MIB`; see [`memory_budget`](Self::memory_budget).
    pub memory_budget_mib: Option<usize>,
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

const MEMORY_BUDGET_MIB: Setting<Option<usize>> =
    Setting::new("MEMORY_BUDGET_MIB", "", |text| optional(text, |text| number(text, 64..=1_048_576)))
        .accepts("a whole number from 64 to 1048576")
        .help(
            "MiB that the server may hold for clients: queues, replay buffers, parts of messages and requests, timelines, \
             webhooks. Empty: a quarter of the memory limit of its control group, or else of the machine's memory, but at \
             least 64. Above 80 % the clients that hold the most are disconnected; above 95 % nothing new is accepted.",
        )
        .page("docs/run/operations.md#the-memory-budget");

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
        MEMORY_BUDGET_MIB.declaration,
        SHUTDOWN_GRACE_SECONDS.declaration,
    ],
};

impl ProcessSettings {
    /// How many bytes the server may hold for clients.
    pub fn memory_budget(&self) -> usize {
        let by_default = || {
            let budget = memory::default_budget(memory::available());
            usize::try_from(budget).unwrap_or(usize::MAX)
        };
        self.memory_budget_mib.map_or_else(by_default, |mebibytes| mebibytes << 20)
    }

    /// How many WebSockets the memory suffices for beside that.
    pub fn socket_capacity(&self, has_tls: bool) -> usize {
        let budget = u64::try_from(self.memory_budget()).unwrap_or(u64::MAX);
        memory::socket_capacity(memory::available(), budget, has_tls)
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let debug = reader.get(&DEBUG);
        Self {
            debug,
            api_docs: reader.get(&API_DOCS).unwrap_or(debug),
            workers: reader.get(&WORKERS),
            memory_budget_mib: reader.get(&MEMORY_BUDGET_MIB),
            shutdown_grace: reader.get(&SHUTDOWN_GRACE_SECONDS),
        }
    }
}
