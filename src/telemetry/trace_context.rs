//! Connects spans of this server to the trace of its client. Without the cargo feature `otel` it does nothing.

use axum::http::HeaderMap;
use tracing::Span;

/// A position in a trace from which another span continues. Empty without traces.
#[derive(Clone, Default)]
pub struct TraceContext(#[cfg(feature = "otel")] opentelemetry::Context);

#[cfg(feature = "otel")]
impl TraceContext {
    /// The context of the current span.
    pub fn current() -> Self {
        Self(tracing_opentelemetry::OpenTelemetrySpanExt::context(&Span::current()))
    }

    /// The context of a request's client, from its `traceparent` (W3C Trace Context, section 3.2).
    pub fn from_headers(headers: &HeaderMap) -> Self {
        super::otlp::extract_context(headers).map_or_else(Self::default, Self)
    }

    /// Makes this context the parent of `span`, which must not have been entered yet.
    pub fn set_parent(self, span: &Span) {
        // It fails only without traces.
        let _ = tracing_opentelemetry::OpenTelemetrySpanExt::set_parent(span, self.0);
    }
}

#[cfg(not(feature = "otel"))]
#[expect(missing_docs, reason = "documented above")]
impl TraceContext {
    pub fn current() -> Self {
        Self()
    }

    pub fn from_headers(_: &HeaderMap) -> Self {
        Self()
    }

    pub fn set_parent(self, _: &Span) {}
}
