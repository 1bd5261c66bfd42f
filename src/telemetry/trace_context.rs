//! Traces of requests and introductions, for a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`): OTLP over HTTP.
//!
//! Messages have none: each takes microseconds. Spans are sent by a thread of their own out of a queue that drops
//! what it has no room for, so that a collector which hangs holds up nothing here. Without the cargo feature
//! `otel` all of this does nothing.

use axum::http::HeaderMap;
use tracing::Span;

/// A place in a trace from which something goes on, maybe elsewhere. Nothing where there are no traces.
#[derive(Clone, Default)]
pub struct Whence(#[cfg(feature = "otel")] opentelemetry::Context);

#[cfg(feature = "otel")]
impl Whence {
    /// The span that this is called in.
    pub fn here() -> Self {
        Self(tracing_opentelemetry::OpenTelemetrySpanExt::context(&Span::current()))
    }

    /// Where the client of a request was: its `traceparent` (W3C Trace Context, section 3.2).
    pub fn of(headers: &HeaderMap) -> Self {
        super::otlp::whence(headers).map_or_else(Self::default, Self)
    }

    /// `span`, which nobody has entered yet, goes on from there.
    pub fn leads_to(self, span: &Span) {
        // It fails where there are no traces.
        let _ = tracing_opentelemetry::OpenTelemetrySpanExt::set_parent(span, self.0);
    }
}

#[cfg(not(feature = "otel"))]
#[expect(missing_docs, reason = "see above")]
impl Whence {
    pub fn here() -> Self {
        Self()
    }

    pub fn of(_: &HeaderMap) -> Self {
        Self()
    }

    pub fn leads_to(self, _: &Span) {}
}
