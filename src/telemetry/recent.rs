//! The last warnings and errors of the log, and the last of each kind, for the administrator's page.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer, registry::LookupSpan};

use super::fields::{FieldWriter, RecordedFields};
use crate::clock::unix_now_ms;

/// The most events that are remembered.
const MAX_EVENTS: usize = 100;

/// The most characters that are remembered of a message or a field.
const MAX_FIELD_CHARS: usize = 200;

/// The log belongs to the process, and so do its recent events.
static RECENT: Mutex<VecDeque<RecentEvent>> = Mutex::new(VecDeque::new());

/// A warning or an error of the log.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct RecentEvent {
    /// In milliseconds since the Unix epoch.
    pub at: u64,
    /// `WARN` or `ERROR`.
    pub level: &'static str,
    /// The message.
    pub message: String,
    /// The fields of the event and of its spans, by name.
    pub fields: BTreeMap<&'static str, String>,
}

impl RecentEvent {
    /// Whether both have one message, for one reason.
    fn is_same_kind(&self, other: &Self) -> bool {
        self.message == other.message && self.fields.get("reason") == other.fields.get("reason")
    }
}

/// Adds an event. Where there are too many, the oldest goes that is not the last of its kind: events that a client can
/// cause at will push no others out.
fn remember(events: &mut VecDeque<RecentEvent>, event: RecentEvent) {
    events.push_back(event);
    if events.len() > MAX_EVENTS {
        let has_later = |(index, event): (usize, &RecentEvent)| {
            events.iter().skip(index + 1).any(|later| later.is_same_kind(event))
        };
        let superfluous = events.iter().enumerate().position(has_later).unwrap_or(0);
        events.remove(superfluous);
    }
}

/// The last warnings and errors, the oldest first.
pub fn recent_events() -> Vec<RecentEvent> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

/// Remembers the events that reach it, and for all layers the fields of spans ([`RecordedFields`]).
pub(super) struct RecentEventsLayer;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RecentEventsLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: layer::Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = RecordedFields::default();
            attributes.record(&mut FieldWriter(&mut fields));
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: layer::Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<RecordedFields>()
        {
            values.record(&mut FieldWriter(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: layer::Context<'_, S>) {
        let mut fields = BTreeMap::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(RecordedFields(recorded)) = span.extensions().get() {
                fields.extend(recorded.iter().map(|(name, json)| (*name, text_of(json))));
            }
        }
        let mut own = RecordedFields::default();
        event.record(&mut FieldWriter(&mut own));
        fields.extend(own.0.iter().map(|(name, json)| (*name, text_of(json))));
        let message = fields.remove("message").unwrap_or_default();
        let level = event.metadata().level().as_str();
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        remember(&mut recent, RecentEvent { at: unix_now_ms(), level, message, fields });
    }
}

/// The beginning of a JSON value as it is shown: a string without its quotes.
fn text_of(json: &str) -> String {
    let text = serde_json::from_str(json).unwrap_or_else(|_| json.to_owned());
    text.chars().take(MAX_FIELD_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, message: &str, reason: Option<&str>) -> RecentEvent {
        let fields = reason.map(|reason| ("reason", reason.to_owned())).into_iter().collect();
        RecentEvent { at, level: "WARN", message: message.to_owned(), fields }
    }

    #[test]
    fn the_last_event_of_each_kind_stays_whatever_follows() {
        let mut events = VecDeque::new();
        remember(&mut events, event(0, "rare", None));
        remember(&mut events, event(1, "connection rejected", Some("room_full")));
        for at in 2..1_000 {
            remember(&mut events, event(at, "connection rejected", Some("invalid_token")));
        }
        assert_eq!(events.len(), MAX_EVENTS);
        let ats: Vec<_> = events.iter().map(|event| event.at).collect();
        assert_eq!(ats, Vec::from_iter([0, 1].into_iter().chain(902..1_000)));

        for at in 1_000..2_000 {
            remember(&mut events, event(at, &at.to_string(), None));
        }
        assert_eq!(events.len(), MAX_EVENTS);
        assert_eq!((events[0].at, events[MAX_EVENTS - 1].at), (1_900, 1_999), "kinds without end");
    }
}
