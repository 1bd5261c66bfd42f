//! Logs, metrics and traces.

use std::net::SocketAddr;

use axum::http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use secrecy::SecretString;
use tracing::level_filters::LevelFilter;

use super::{
    declare::{Section, Setting},
    parse::{Parsed, Reader, Rejected, bearer_token, found, optional},
};

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// `LOG_FORMAT`; none = `pretty` on a terminal, else `json`.
    pub log_format: Option<LogFormat>,
    /// `METRICS_TOKEN`: opens `/metrics`; without it there is no such page.
    pub metrics_token: Option<SecretString>,
    /// `METRICS_LISTEN`: where `/metrics` is served alone; port 0 lets the system choose.
    pub metrics_listen: Option<SocketAddr>,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`: where traces go.
    pub otlp: Option<Otlp>,
}

/// What SIGHUP may change.
#[derive(Clone, Debug)]
pub struct ReloadableTelemetry {
    /// `LOG_LEVEL`.
    pub log_level: LevelFilter,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// A collector of traces (OpenTelemetry Protocol Exporter, over HTTP).
#[derive(Clone, Debug)]
pub struct Otlp {
    /// An `http://` or `https://` URL without a slash at its end; `/v1/traces` comes behind it.
    pub endpoint: String,
    /// Headers of each request, such as a key.
    pub headers: Vec<(String, SecretString)>,
    /// The service name in the traces.
    pub service_name: String,
}

const LOG_LEVEL: Setting<LevelFilter> = Setting::new("LOG_LEVEL", "INFO", log_level)
    .accepts("TRACE, DEBUG, INFO, WARNING or ERROR")
    .reloadable("every line")
    .help(
        "Least severe level that is logged. With `DEBUG=true` the default is `DEBUG`. Tokens, passwords and payloads \
         are logged at no level.",
    );

const LOG_FORMAT: Setting<Option<LogFormat>> =
    Setting::new("LOG_FORMAT", "", |text| optional(text, log_format))
        .accepts("pretty or json")
        .help("Format of log lines. Empty: `pretty` on a terminal, else `json`.");

const METRICS_TOKEN: Setting<Option<SecretString>> =
    Setting::new("METRICS_TOKEN", "", bearer_token)
        .accepts("ASCII letters, digits and signs without blanks, such as `openssl rand -hex 32` prints")
        .secret()
        .help(
            "Enables `/metrics` for Prometheus: `curl -H \"Authorization: Bearer $METRICS_TOKEN\" …/metrics`. Empty: \
             there is no such route on `PORT`.",
        );

pub(super) const METRICS_LISTEN: Setting<Option<SocketAddr>> =
    Setting::new("METRICS_LISTEN", "", |text| optional(text, |text| found(text.parse().ok())))
        .accepts("an address and a port such as 127.0.0.1:9464 or [::1]:9464; port 0 takes a free one")
        .help(
            "Address and port on which `/metrics` alone is served, without HTTPS and limits. Without `METRICS_TOKEN` \
             it is open to every client that reaches it.",
        )
        .page("docs/run/operations.md#metrics");

pub(super) const OTEL_EXPORTER_OTLP_ENDPOINT: Setting<Option<String>> =
    Setting::new("OTEL_EXPORTER_OTLP_ENDPOINT", "", |text| optional(text, collector))
        .accepts("an http:// or https:// URL such as http://localhost:4318, without user, password or query")
        .holds_credentials()
        .help(
            "Collector for traces of requests and of joins, by OTLP over HTTP. Needs the cargo feature `otel`, which \
             is on by default. Empty: no traces.",
        )
        .page("docs/run/operations.md#traces");

const OTEL_EXPORTER_OTLP_HEADERS: Setting<Vec<(String, SecretString)>> =
    Setting::new("OTEL_EXPORTER_OTLP_HEADERS", "", headers)
        .accepts("name=value, or several with commas between them, values percent-encoded")
        .holds_credentials()
        .help("Headers of each request to the collector, such as `api-key=secret`.");

const OTEL_SERVICE_NAME: Setting<String> =
    Setting::new("OTEL_SERVICE_NAME", "signaling-server", |text| Ok(text.to_owned()))
        .accepts("any text")
        .help("Service name in the traces.");

pub(super) const SECTION: Section = Section {
    title: "Logs, metrics and traces",
    settings: &[
        LOG_LEVEL.declaration,
        LOG_FORMAT.declaration,
        METRICS_TOKEN.declaration,
        METRICS_LISTEN.declaration,
        OTEL_EXPORTER_OTLP_ENDPOINT.declaration,
        OTEL_EXPORTER_OTLP_HEADERS.declaration,
        OTEL_SERVICE_NAME.declaration,
    ],
};

impl TelemetrySettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            log_format: reader.get(&LOG_FORMAT),
            metrics_token: reader.get(&METRICS_TOKEN),
            metrics_listen: reader.get(&METRICS_LISTEN),
            otlp: otlp(reader),
        }
    }
}

impl ReloadableTelemetry {
    pub(super) fn read(reader: &mut Reader<'_>, debug: bool) -> Self {
        let log_level = reader.get(&LOG_LEVEL);
        let is_default = !reader.is_set(&LOG_LEVEL);
        Self { log_level: if debug && is_default { LevelFilter::DEBUG } else { log_level } }
    }
}

fn otlp(reader: &mut Reader<'_>) -> Option<Otlp> {
    let endpoint = reader.get(&OTEL_EXPORTER_OTLP_ENDPOINT);
    let headers = reader.get(&OTEL_EXPORTER_OTLP_HEADERS);
    let service_name = reader.get(&OTEL_SERVICE_NAME);
    Some(Otlp { endpoint: endpoint?, headers, service_name })
}

/// Names as Python's logging has them, and tracing's.
fn log_level(text: &str) -> Parsed<LevelFilter> {
    match text.to_ascii_uppercase().as_str() {
        "TRACE" => Ok(LevelFilter::TRACE),
        "DEBUG" => Ok(LevelFilter::DEBUG),
        "INFO" => Ok(LevelFilter::INFO),
        "WARN" | "WARNING" => Ok(LevelFilter::WARN),
        "ERROR" | "CRITICAL" => Ok(LevelFilter::ERROR),
        _ => Err(Rejected::Value),
    }
}

fn log_format(text: &str) -> Parsed<LogFormat> {
    match text.to_ascii_lowercase().as_str() {
        "pretty" => Ok(LogFormat::Pretty),
        "json" => Ok(LogFormat::Json),
        _ => Err(Rejected::Value),
    }
}

fn collector(text: &str) -> Parsed<String> {
    let url: Uri = found(text.parse().ok())?;
    let has_user = url.authority().is_none_or(|authority| authority.as_str().contains('@'));
    let fits =
        matches!(url.scheme_str(), Some("http" | "https")) && !has_user && url.query().is_none();
    found(fits.then(|| text.trim_end_matches('/').to_owned()))
}

/// In the form of W3C Baggage, percent-encoded, as the specification of the exporter has it.
fn headers(text: &str) -> Parsed<Vec<(String, SecretString)>> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let headers = entries.map(|entry| {
        let (name, value) = entry.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        HeaderValue::from_str(&value).ok()?;
        let name = HeaderName::try_from(name.trim()).ok()?;
        Some((name.as_str().to_owned(), value.into_owned().into()))
    });
    found(headers.collect())
}
