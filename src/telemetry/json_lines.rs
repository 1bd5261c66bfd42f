//! The log as lines of JSON.

use std::{fmt::Write as _, io::Write};

use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::{
    Layer,
    fmt::{
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer,
    registry::LookupSpan,
};

use super::{
    escape::Escaped,
    fields::{FieldWriter, JsonFields, RecordedFields},
};

/// Room for most lines, in bytes.
const USUAL_LINE: usize = 512;

/// Writes each event as a line: `timestamp`, `level`, `fields` with the `message`, `target`, and `span` with its `name` and the
/// fields that [`RecordedFields`] holds of the innermost span, which has all; a list of all spans would only repeat them.
///
/// The formatter of tracing-subscriber parses the fields of a span again for each field that is added and for each line: with
/// it the log was half of what a join costs.
pub(super) struct JsonLines<W>(pub(super) W);

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Clone + 'static,
{
    fn on_event(&self, event: &Event<'_>, context: layer::Context<'_, S>) {
        let of_log = event.normalized_metadata();
        let metadata = of_log.as_ref().unwrap_or_else(|| event.metadata());
        let mut line = String::with_capacity(USUAL_LINE);
        line.push_str("{\"timestamp\":\"");
        let _ = SystemTime.format_time(&mut Writer::new(&mut line));
        line.push_str("\",\"level\":\"");
        line.push_str(metadata.level().as_str());
        line.push_str("\",\"fields\":{");
        let mut fields = EventFields { line: &mut line, is_first: true };
        event.record(&mut FieldWriter(&mut fields));
        line.push_str("},\"target\":\"");
        let _ = Escaped(&mut line).write_str(metadata.target());
        line.push('"');
        if let Some(span) = context.event_span(event) {
            line.push_str(",\"span\":{");
            if let Some(RecordedFields(fields)) = span.extensions().get() {
                for (name, value) in fields {
                    line.extend(["\"", name, "\":", value.as_str(), ","]);
                }
            }
            line.extend(["\"name\":\"", span.name(), "\"}"]);
        }
        line.push_str("}\n");
        // Lines that cannot be written are lost, and counted by the writer.
        let _ = self.0.clone().write_all(line.as_bytes());
    }
}

/// The fields of an event in its line.
struct EventFields<'a> {
    line: &'a mut String,
    is_first: bool,
}

impl JsonFields for EventFields<'_> {
    fn value_of(&mut self, name: &'static str) -> &mut String {
        if !std::mem::take(&mut self.is_first) {
            self.line.push(',');
        }
        self.line.extend(["\"", name, "\":"]);
        self.line
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing::field::Empty;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::recent::RecentEventsLayer;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile, a value for each line; without `timestamp`, which each has.
    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let output = Output::default();
        let layers = tracing_subscriber::registry().with(RecentEventsLayer);
        tracing::subscriber::with_default(layers.with(JsonLines(output.clone())), log);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let lines = text.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
            let timestamp = timestamp.as_str().unwrap();
            assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
            line
        });
        lines.collect()
    }

    #[test]
    fn a_line_has_the_fields_of_the_event_and_of_the_innermost_span() {
        let lines = logged(|| {
            let outer = tracing::error_span!("outer", hidden = 1);
            let _outer = outer.enter();
            let span = tracing::error_span!("socket", room = "a \"den\"", user = Empty, count = 1);
            span.record("user", "alice").record("count", 2);
            span.in_scope(|| {
                tracing::info!(
                    r#type = "x",
                    took_ms = 1.5,
                    ok = true,
                    left = -1,
                    "hello {}",
                    "wörld"
                )
            });
            tracing::warn!(error = ?"broken\nline", odd = f64::NAN, big = u128::MAX, empty = Empty);
        });

        let target = module_path!();
        assert_eq!(
            lines,
            [
                json!({
                    "level": "INFO",
                    "fields": {"message": "hello wörld", "type": "x", "took_ms": 1.5, "ok": true, "left": -1},
                    "target": target,
                    "span": {"room": "a \"den\"", "user": "alice", "count": 2, "name": "socket"},
                }),
                json!({
                    "level": "WARN",
                    "fields": {"error": "\"broken\\nline\"", "odd": null, "big": u128::MAX.to_string()},
                    "target": target,
                    "span": {"hidden": 1, "name": "outer"},
                }),
            ]
        );
    }

    #[test]
    fn a_line_needs_neither_fields_nor_a_span() {
        let lines = logged(|| tracing::error!("alone"));

        let target = module_path!();
        assert_eq!(
            lines,
            [json!({"level": "ERROR", "fields": {"message": "alone"}, "target": target})]
        );
    }
}
