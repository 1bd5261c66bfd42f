//! Request ids, security headers, and the span that logs a request.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use tower_http::set_header::SetResponseHeaderLayer;
use tracing::{Instrument, Span, field::Empty};
use uuid::Uuid;

use crate::telemetry::TraceContext;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How much of a path and of a method the log shows, in characters.
const MAX_SHOWN: usize = 256;

/// Whether the path ended with a slash, which the routes do not see.
#[derive(Clone, Copy)]
pub(in crate::http) struct TrailingSlash(pub(in crate::http) bool);

/// Denies everything to a page. Pages that the server does serve have policies of their own.
const DENY_ALL_CSP: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The id of a request in the log, and in `X-Request-Id` of its response.
#[derive(Clone, Copy)]
pub(in crate::http) struct RequestId(pub(in crate::http) Uuid);

/// Gives every request an id, which its response and its log lines carry, and logs the request.
///
/// Not tower-http's `request-id`: it keeps an id that the client sends, writes its own into the request's headers, whose
/// size [`check_head`](super::head::check_head) limits, and has it as text, while a session needs the UUID.
pub(in crate::http) async fn add_request_id(mut request: Request, next: Next) -> Response {
    let id = Uuid::new_v4();
    // Neither query nor headers: both may contain tokens. At the highest level, so that the span exists at any LOG_LEVEL.
    let span = tracing::error_span!(
        "request",
        request_id = %id,
        method = shown(request.method().as_str()),
        path = shown(request.uri().path()),
        route = Empty,
        address = Empty,
        status = Empty,
    );
    TraceContext::from_headers(request.headers()).set_parent(&span);
    let has_slash = TrailingSlash(request.uri().path().ends_with('/'));
    request.extensions_mut().insert(RequestId(id));
    request.extensions_mut().insert(has_slash);
    #[expect(clippy::disallowed_methods, reason = "only for the log")]
    let start = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    span.in_scope(|| {
        let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Span::current().record("status", response.status().as_u16());
        tracing::debug!(took_ms, "answered");
    });

    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The beginning of a text that the client has chosen.
fn shown(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_SHOWN).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or_default()
}

type SetHeader = SetResponseHeaderLayer<HeaderValue>;

/// Adds the security headers to every response.
pub(in crate::http) fn security_headers() -> (SetHeader, SetHeader, SetHeader, SetHeader) {
    let set = |name, value| SetHeader::overriding(name, HeaderValue::from_static(value));
    (
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        set(header::X_FRAME_OPTIONS, "DENY"),
        set(header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
        SetHeader::if_not_present(header::CONTENT_SECURITY_POLICY, DENY_ALL_CSP),
    )
}

/// Records the route of a request in its span.
pub(in crate::http) async fn record_route(
    route: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    Span::current().record("route", route.as_str());
    next.run(request).await
}
