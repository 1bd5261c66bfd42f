//! Where log lines go and which there are.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{self, SubscriberExt},
    util::SubscriberInitExt,
};

use crate::{
    clock::unix_now_ms,
    config::{Config, LogFormat},
};

/// Starts logging to standard output; lines still on their way are written when the guard is dropped.
///
/// A thread of its own writes: where nobody reads (a stuck journal, a pager), lines are lost and
/// calls go on.
///
/// Libraries are heard from `WARN` on, whatever `LOG_LEVEL` says: below that some of them print
/// what crosses a socket, tokens included.
pub fn start(config: &Config) -> WorkerGuard {
    let (output, guard) = NonBlocking::new(std::io::stdout());
    let ours = config.log_level;
    let libraries = ours.min(tracing::level_filters::LevelFilter::WARN);
    let levels = Targets::new()
        .with_default(libraries)
        .with_target("signaling", ours)
        .with_target("signaling_server", ours);
    let default = if std::io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
    let lines = match config.log_format.unwrap_or(default) {
        LogFormat::Pretty => {
            let colours = std::io::stdout().is_terminal();
            tracing_subscriber::fmt::layer().with_writer(output).with_ansi(colours).boxed()
        }
        LogFormat::Json => tracing_subscriber::fmt::layer().with_writer(output).json().boxed(),
    };
    let lines = lines.and_then(Remembering).with_filter(levels);
    tracing_subscriber::registry().with(lines).init();
    // Where, but not what: the message of a panic may hold anything. And never to a stuck stderr.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panicked: this is a bug of ours");
    }));
    guard
}

/// Warnings and errors that are remembered.
const MOST_RECENT: usize = 100;

/// The longest that one of their fields is shown, in characters.
const MOST_SHOWN: usize = 200;

/// The log is the process's, and so is this.
static RECENT: Mutex<VecDeque<Line>> = Mutex::new(VecDeque::new());

/// A warning or an error, as the log had it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Line {
    /// In milliseconds since the Unix epoch.
    pub at: u64,
    /// `WARN` or `ERROR`.
    pub level: &'static str,
    /// What it says.
    pub message: String,
    /// Its fields, by name.
    pub fields: BTreeMap<&'static str, String>,
}

/// The last warnings and errors, the oldest first.
pub fn recent() -> Vec<Line> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Remembers warnings and errors, for the administrator's page.
pub(crate) struct Remembering;

impl<S: Subscriber> Layer<S> for Remembering {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let level = event.metadata().level();
        if *level > tracing::Level::WARN {
            return;
        }
        let mut line = Line {
            at: unix_now_ms(),
            level: level.as_str(),
            message: String::new(),
            fields: BTreeMap::new(),
        };
        event.record(&mut line);
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == MOST_RECENT {
            recent.pop_front();
        }
        recent.push_back(line);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text: String = format!("{value:?}").chars().take(MOST_SHOWN).collect();
        match field.name() {
            "message" => self.message = text,
            name => drop(self.fields.insert(name, text)),
        }
    }
}
