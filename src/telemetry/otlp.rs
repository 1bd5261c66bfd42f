//! Exports traces of requests and handshakes to a collector (`OTEL_EXPORTER_OTLP_ENDPOINT`), as OTLP over HTTP. Compiled
//! with the cargo feature `otel`.
//!
//! Messages have no spans: each takes microseconds. A thread of its own sends the spans from a queue that drops what does
//! not fit, so that a collector which hangs delays nothing here.

use std::{
    error::Error,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use axum::http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanKind, TracerProvider},
};
use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::config::Otlp;

/// The only spans that are exported: all others exist for a single line of the log.
const REQUEST: &str = "request";
const INTRODUCTION: &str = "introduction";

/// How long the collector may take: the default of the OTLP exporter specification.
const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Collects spans and sends them.
pub(super) struct TraceExporter(SdkTracerProvider);

impl TraceExporter {
    /// Starts the thread that sends the spans. Not to be called on a runtime.
    pub(super) fn start(settings: &Otlp) -> Result<Self, Box<dyn Error>> {
        // Without redirects: an API key in a header is meant for this collector alone.
        let client = reqwest::blocking::Client::builder()
            .timeout(COLLECTOR_TIMEOUT)
            .redirect(Policy::none());
        let client = if settings.endpoint.starts_with("https:") {
            client.build().map_err(|_| "this system has no certificates of authorities")?
        } else {
            // Without TLS no root certificates are needed.
            client.tls_certs_only([]).build()?
        };
        let headers = settings.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", settings.endpoint))
            .with_headers(headers.collect())
            .build()?;
        let exporter = LoggingExporter { otlp: exporter, has_failed: AtomicBool::new(false) };
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(version)
            .build();
        let provider = SdkTracerProvider::builder().with_resource(resource);
        Ok(Self(provider.with_batch_exporter(exporter).build()))
    }

    /// The layer that passes the exported spans on.
    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(env!("CARGO_PKG_NAME")))
            .with_context_activation(false)
            .with_level(false)
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|it| {
                let is_ours = it.target().starts_with("signaling");
                let is_traced = [REQUEST, INTRODUCTION].contains(&it.name());
                is_ours && if it.is_span() { is_traced } else { *it.level() <= LevelFilter::INFO }
            }))
    }

    /// Sends the spans that still wait, within `timeout`.
    pub(super) fn shut_down(&self, timeout: Duration) {
        // A failure to send is logged already.
        let _ = self.0.shutdown_with_timeout(timeout);
    }
}

/// Sends spans, and logs when that begins to fail and when it works again.
#[derive(Debug)]
struct LoggingExporter {
    otlp: OtlpExporter,
    has_failed: AtomicBool,
}

impl SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let batch: Vec<_> = batch.into_iter().filter_map(apply_semantic_conventions).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let sent = self.otlp.export(batch).await;
        match (&sent, self.has_failed.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                tracing::warn!(%error, "traces lost; the collector does not accept them")
            }
            (Ok(()), true) => tracing::info!("traces are accepted again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Renames a request's span and its attributes as the semantic conventions for HTTP spans do. `None` for requests of
/// monitors, which ask all day.
fn apply_semantic_conventions(mut span: SpanData) -> Option<SpanData> {
    if span.name != REQUEST {
        return Some(span);
    }
    let value = |name: &str| {
        let attribute = span.attributes.iter().find(|it| it.key.as_str() == name);
        attribute.map(|it| it.value.as_str().into_owned())
    };
    let path = value("path").unwrap_or_default();
    if path == "/metrics" || path == "/health" || path.starts_with("/health/") {
        return None;
    }
    let name = [value("method"), value("route")].into_iter().flatten().collect::<Vec<_>>();
    span.name = name.join(" ").into();
    span.span_kind = SpanKind::Server;
    for attribute in &mut span.attributes {
        let standard = match attribute.key.as_str() {
            "method" => "http.request.method",
            "route" => "http.route",
            "path" => "url.path",
            "status" => "http.response.status_code",
            "address" => "client.address",
            _ => continue,
        };
        attribute.key = standard.into();
    }
    Some(span)
}

/// See [`TraceContext::from_headers`](super::TraceContext::from_headers).
pub(super) fn extract_context(headers: &HeaderMap) -> Option<Context> {
    headers.contains_key("traceparent").then(|| {
        TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &HeaderExtractor(headers))
    })
}

struct HeaderExtractor<'a>(&'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
