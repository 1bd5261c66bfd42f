//! Where log lines and traces go, and which there are.

use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    layer::{self, SubscriberExt},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    clock::unix_now_ms,
    config::{Config, LogFormat},
};

/// Log and traces, for as long as the process lasts.
pub struct Telemetry {
    /// How loud the log is.
    pub loudness: Loudness,
    _log: WorkerGuard,
    #[cfg(feature = "otel")]
    traces: Option<super::otlp::Traces>,
}

impl Telemetry {
    /// Writes the lines that are still on their way, and sends spans, these for so long at most.
    pub fn end(self, within: Duration) {
        #[cfg(feature = "otel")]
        if let Some(traces) = &self.traces {
            traces.end(within);
        }
        #[cfg(not(feature = "otel"))]
        let _ = within;
    }
}

/// How loud the log is. Clones are the same.
#[derive(Clone)]
pub struct Loudness(reload::Handle<Targets, Registry>);

impl Loudness {
    /// From now on it is as loud as `LOG_LEVEL` says.
    pub fn adopt(&self, level: LevelFilter) {
        #[expect(clippy::expect_used, reason = "see the message")]
        self.0.reload(targets(level)).expect("the subscriber lasts as long as the process");
    }
}

/// Escapes what JSON lets stand and a terminal or an editor takes for the end of a line, or for an order. It may
/// be in the name of a room.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.is_ascii() {
            return self.0.write_all(line).map(|()| line.len());
        }
        let mut escaped = String::with_capacity(line.len());
        for char in String::from_utf8_lossy(line).chars() {
            let is_odd = matches!(char, '\u{80}'..='\u{9f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if is_odd {
                let _ = write!(escaped, "\\u{:04x}", u32::from(char));
            } else {
                escaped.push(char);
            }
        }
        self.0.write_all(escaped.as_bytes()).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Libraries are heard from `WARN` on, whatever `LOG_LEVEL` says: below that some of them print
/// what crosses a socket, tokens included.
fn targets(ours: LevelFilter) -> Targets {
    Targets::new()
        .with_default(ours.min(LevelFilter::WARN))
        // At each try to send traces; we say it once.
        .with_target("rustls_platform_verifier", LevelFilter::OFF)
        .with_target("signaling", ours)
        .with_target("signaling_server", ours)
}

/// Starts logging to standard output, and the sending of traces where that is asked for. Not to be called
/// on a runtime.
///
/// A thread of its own writes: where nobody reads (a stuck journal, a pager), lines are lost and
/// calls go on.
///
/// # Errors
///
/// What keeps traces from being sent at all.
pub fn start(config: &Config) -> Result<Telemetry, Box<dyn Error>> {
    let (output, guard) = NonBlocking::new(std::io::stdout());
    let (levels, loudness) = reload::Layer::new(targets(config.log_level));
    let default = if std::io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json };
    let lines = match config.log_format.unwrap_or(default) {
        LogFormat::Pretty => {
            let colours = std::io::stdout().is_terminal();
            tracing_subscriber::fmt::layer().with_writer(output).with_ansi(colours).boxed()
        }
        // The innermost span has everything that is known: a list of all would only repeat it.
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .with_writer(move || Escaping(output.clone()))
            .json()
            .with_span_list(false)
            .boxed(),
    };
    #[cfg_attr(not(feature = "otel"), expect(unused_mut, reason = "nothing to add"))]
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![
        lines.with_filter(levels).boxed(),
        Remembering.with_filter(targets(LevelFilter::WARN)).boxed(),
    ];
    #[cfg(feature = "otel")]
    let traces = match &config.otlp {
        Some(otlp) => {
            let traces = super::otlp::Traces::start(otlp)
                .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?;
            layers.push(traces.layer().boxed());
            Some(traces)
        }
        None => None,
    };
    tracing_subscriber::registry().with(layers).init();
    // Where, but not what: the message of a panic may hold anything. And never to a stuck stderr.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "panicked: this is a bug of ours");
    }));
    Ok(Telemetry {
        loudness: Loudness(loudness),
        _log: guard,
        #[cfg(feature = "otel")]
        traces,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_says_the_same_and_has_nothing_that_ends_a_line_or_moves_a_cursor() {
        let told = "den\u{2028}\u{85}\u{9b}31m\u{202e}é";
        let mut written = Vec::new();

        let line = serde_json::to_vec(told).unwrap();
        Escaping(&mut written).write_all(&line).unwrap();

        let text = std::str::from_utf8(&written).unwrap();
        assert_eq!(text, r#""den\u2028\u0085\u009b31m\u202eé""#);
        assert_eq!(serde_json::from_str::<String>(text).unwrap(), told);
    }
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
struct Remembering;

/// The fields of a span or an event, and what it says.
#[derive(Clone, Default)]
struct Fields {
    message: String,
    by_name: BTreeMap<&'static str, String>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Remembering {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: layer::Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: layer::Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: layer::Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(known) = span.extensions().get::<Fields>() {
                fields.by_name.extend(known.by_name.clone());
            }
        }
        event.record(&mut fields);
        let level = event.metadata().level().as_str();
        let Fields { message, by_name: fields } = fields;
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == MOST_RECENT {
            recent.pop_front();
        }
        recent.push_back(Line { at: unix_now_ms(), level, message, fields });
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text: String = format!("{value:?}").chars().take(MOST_SHOWN).collect();
        match field.name() {
            "message" => self.message = text,
            name => drop(self.by_name.insert(name, text)),
        }
    }
}
